"""Every stop-the-world pause and GC cycle, exactly, and what the longest pauses waited for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.analysis.assists import Assists
from gotrace.analysis.gc_course import Course
from gotrace.analysis.gc_summary import GcSummary
from gotrace.errors import GotraceError
from gotrace.export.hdr_log import tag
from gotrace.probe import DELAY_NS
from gotrace.probes.tail import explainer
from gotrace.records.advice import advice_record
from gotrace.records.gc import (
    INTERVAL,
    MARK,
    STOP,
    batch_records,
    callers,
    explanation_records,
    in_progress_record,
    start_record,
    summary_record,
)
from gotrace.records.heap import allocated_record, allocated_unknown
from gotrace.views.gc_advice import OF_ONE, PROBES, Advisor
from gotrace.views.view import Interval, Record, View

if TYPE_CHECKING:
    from gotrace.advice.finding import Advice
    from gotrace.analysis.causes import Explainer, Explanation
    from gotrace.analysis.histogram import Histogram
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events
    from gotrace.runtime.books import Books

SECOND = 1_000_000_000


class Gc(View):
    """Pauses and cycles, one record each as they end (`gotrace.records.gc`), and a summary at the end.

    Of ``interval_ns`` each comes a record of type "interval" with ``begin_ns``, ``length_ns`` (CLOCK_MONOTONIC), ``lost``
    so far, the last look at a stop that goes on (``in_stop``, None if there was none), and ``summary``, a `GcSummary` with
    the histograms of the pauses in it; ``by_part`` keeps one for each reason and part. It holds the events whose own time
    is in it, so that a recording gives the very numbers that came live.

    Pauses, and assists, shorter than ``min_pause_ns`` have no record of their own, and without ``singles`` nothing has one;
    all are in the summaries. The ``explained`` longest pauses come with what they waited for.

    With ``assists`` it says how long mark assists held goroutines, one record each as pauses have them; without, if they
    were recorded. `Gc.assisted` sums them up, None if they are not traced.

    At the end ``total`` is the summary of everything, ``about`` how the run ended and what it cost, and ``told`` are the
    explanations, which ``explainer`` made; ``callers`` says who asked for the pauses. ``in_progress`` are the records of
    what had not ended. ``allocated`` is a `gotrace.records.heap.Allocated`, None where pauses are not explained.
    With ``over_time`` there is a `Course` of everything, for a page. With ``advise``, which needs ``explained``, ``advice``
    says what would make pauses shorter or collections fewer.
    """

    name = "gc"
    recorded = False
    of_one = OF_ONE
    drawn = frozenset(("explained", "in_progress", "summary"))
    about: Record
    told: list[Explanation]
    in_progress: list[Record]
    callers: list[Record] | None
    course: Course | None = None

    def __init__(
        self,
        interval_ns: int = SECOND,
        min_pause_ns: int = 0,
        explained: int = 0,
        singles: bool = True,
        by_part: bool = False,
        over_time: bool = False,
        assists: bool = False,
        advise: bool = False,
    ) -> None:
        self.interval_ns = interval_ns
        self.min_pause_ns = min_pause_ns
        self.explained = explained
        self.singles = singles
        self.by_part = by_part
        self.over_time = over_time
        self.assists = assists
        self.advise = advise
        self.advice: Advice | None = None
        stems = ["gc", *["tail"] * bool(explained), *["assist"] * assists, *PROBES * advise]
        self.stems = tuple(dict.fromkeys(stems))
        self.assisted: Assists | None = None
        self.total = GcSummary()
        self.intervals = 0
        self.explainer: Explainer | None = None
        self.told = []
        self.allocated: Record | None = None
        self._asks_allocated = bool(explained)
        self.in_progress = []
        self._going_on: list[Record] = []  # of `Source.in_progress`
        self._stops: list[Record] = []  # those of stops that no interval has had yet

    @property
    def options(self) -> Record:
        return {
            "interval_ns": self.interval_ns,
            "min_pause_ns": self.min_pause_ns,
            "explained": self.explained,
            "singles": self.singles,
            "by_part": self.by_part,
            "over_time": self.over_time,
            "assists": self.assists,
            "advise": self.advise,
        }

    @property
    def reasons(self) -> list[str]:
        """Why the world was stopped, by the number in a pause's ``reason``."""
        return self._decoder.reasons

    def prepare(self, books: Books) -> None:
        if self.explained:
            _ = books.allocations

    def begin(self) -> Iterator[Record]:
        source = self.source
        assert source.decoder is not None
        self._decoder = source.decoder
        self._tick = self.total.begin_ns = source.begin_ns
        self._interval = self._new_interval()
        if self.over_time:
            self.course = Course(source.begin_ns)
        if "assist" in source.header["probes"]:
            self.assisted = Assists(source.kinds("assist"))
        if self.advise:
            self._advisor = Advisor(source)
        if self.explained:
            self.explainer = explainer(source.header, source.frames, source.place, self.explained)
        self._look_at_allocations()
        yield start_record(source.header)

    def _new_interval(self) -> GcSummary:
        return GcSummary(brief=not self.by_part)

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        assert batch is not None
        self._notice(batch)
        self._look_at_allocations()
        if self.advise:
            self._advisor.look()
        if len(events):
            self.total.add(batch, self.reasons)
            if self.course is not None:
                self.course.add(batch)
            if self.advise:
                self._advisor.add(events, batch, self.reasons)
            yield from self._by_interval(events, batch)
        yield from self._advance(self.source.now_ns)

    def _notice(self, batch: Batch) -> None:
        """Keep what goes on, until it ends."""
        self._going_on += self.source.in_progress
        self._stops += [each for each in self.source.in_progress if each["what"] == STOP]
        latest = {each["what"]: each for each in self._going_on}
        self._going_on = list(latest.values())
        ends = {
            STOP: batch.pauses["start_ns"] + batch.pauses["total_ns"] + batch.pauses["restart_lag_ns"],
            MARK: batch.cycles["time_ns"],
        }
        self._going_on = [each for each in self._going_on if not (ends[each["what"]] > each["seen_ns"]).any()]

    def _look_at_allocations(self) -> None:
        """The last answer counts for all the time; that there is none any more, does not."""
        if not self.explained:
            return
        found = self.source.ask("allocated", self._allocations, self._asks_allocated)
        if found is not None and (self.allocated is None or found["unknown"] is None):
            self.allocated = found

    def _allocations(self) -> Record | None:
        books = self.source.books
        try:
            found = books.allocations.look(self.source.last)
        except GotraceError as error:
            self._asks_allocated = False
            return allocated_unknown(error.message)
        except OSError:  # of who gave root back, where root alone can read the installation
            self._asks_allocated = False
            return allocated_unknown("root was dropped, and gotrace can no longer read its own files")
        return allocated_record(found[0], books.profiles, found[1]) if found is not None else None

    def _by_interval(self, events: Events, batch: Batch) -> Iterator[Record]:
        """Everything is decoded at once, for that is much cheaper; an interval ends before the first event after it."""
        latest = np.maximum.accumulate(events["time_ns"])
        begin = 0
        while True:
            end = int(np.searchsorted(latest, np.uint64(self._tick + self.interval_ns)))
            yield from self._add(events[begin:end], batch.part(begin, end))
            if end == len(events):
                return
            begin = end
            yield self._ended(self.interval_ns)

    def _add(self, events: Events, batch: Batch) -> Iterator[Record]:
        if self.explainer is not None:
            self.explainer.feed(events, batch.pauses)
        self._interval.add(batch, self.reasons)
        assists = None
        if self.assisted is not None:
            assists = self.assisted.add(events)
            assists = assists[assists["end_ns"] - assists["begin_ns"] >= self.min_pause_ns]
        if self.singles:
            pauses = batch.pauses[batch.pauses["total_ns"] >= self.min_pause_ns]
            shown = dataclasses.replace(batch, pauses=pauses)
            yield from batch_records(shown, self.reasons, self.source.wall_offset_ns, assists)

    def _advance(self, now_ns: int) -> Iterator[Record]:
        """Close the intervals of which all events were there at ``now_ns``: a recording is cut in the same places."""
        while now_ns >= self._tick + self.interval_ns + DELAY_NS:
            yield self._ended(self.interval_ns)

    def _ended(self, length_ns: int) -> Record:
        end_ns = self._tick + length_ns
        stops = [each for each in self._stops if each["seen_ns"] < end_ns + DELAY_NS]
        self._stops = self._stops[len(stops) :]
        record = {
            "type": INTERVAL,
            "begin_ns": self._tick,
            "length_ns": length_ns,
            "in_stop": stops[-1] if stops else None,
            "lost": self.source.lost + self._decoder.incomplete,
            "summary": self._interval,
        }
        self.intervals += 1
        self._interval = self._new_interval()
        self._tick = end_ns
        return record

    def end(self) -> Iterator[Record]:
        source = self.source
        end: dict[str, Any] = source.end
        end_ns = source.begin_ns + end["duration_ns"]
        yield from self._advance(end_ns)
        if end_ns > self._tick:
            yield self._ended(end_ns - self._tick)
        self.about = {
            "duration_ns": end["duration_ns"],
            "ended": end["ended"],
            "events": {"received": end["received"], "lost": end["lost"] + self._decoder.incomplete},
            "cost": end["cost"],
            "attach_ns": source.header["attach_ns"],
            "not_seen": end.get("not_seen"),
        }
        if self.explainer is not None:
            self.told = self.explainer.longest()
            yield from explanation_records(self.told, self.explainer, self.reasons, source.wall_offset_ns)
        names = self.explainer.code_of if self.explainer is not None else lambda _: []
        for found in self._going_on:
            self.in_progress.append(in_progress_record(found, names, source.wall_offset_ns))
        yield from self.in_progress
        self.callers = callers(self.explainer, self.reasons) if self.explainer is not None else None
        if self.advise:
            self.advice = self._advisor.of(self.total, end["duration_ns"], self.explainer, self.reasons)
        last = summary_record(self.total, self.about, self.callers, self.allocated, self.assisted, source.wall_offset_ns)
        yield {**last, **advice_record(self.advice)}

    def of_interval(self, record: Record) -> Interval | None:
        """With ``by_part``: every pause, whatever its reason, and those of each reason by their parts."""
        if record["type"] != INTERVAL:
            return None
        summary: GcSummary = record["summary"]
        parts = [
            (tag(reason, part), histogram)
            for reason, parts in summary.pauses.items()
            for part, histogram in parts.items()
            if histogram.count or histogram.out_of_range
        ]
        return Interval(record["begin_ns"], record["length_ns"], [(None, summary.all_pauses()), *parts])

    def histograms(self) -> dict[str, Histogram]:
        named = {tag(reason, part): histogram for reason, part, histogram in self.total.rows() if part}
        return {"all_pauses.total": self.total.all_pauses(), **named}


VIEW = Gc

"""`gotrace tlb`: what translating addresses cost a process, by phase of the collector."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.counted import PLACES, SUMS, Counted, counter_of, scaled, whole
from gotrace.analysis.phases import PhaseTimes
from gotrace.errors import TargetError
from gotrace.kernel import huge_pages, tlb_reach
from gotrace.kernel.memory import PAGE, Memory
from gotrace.kernel.tlb_events import MEANING
from gotrace.records.times import moment
from gotrace.text import count_text
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

# A stretch is put into phases once these are known: at the end, or after this time (a mark phase is reported at its end).
_SETTLED_NS = 60_000_000_000
_WAITING = 1 << 21  # events

# enum tlb_flush_reason of include/linux/mm_types.h
_REASONS = (
    "task switch",
    "remote shootdown",
    "local shootdown",
    "local mm shootdown",
    "remote IPI send",
    "remote wrong CPU",
)
_ALL_PAGES = (1 << 64) - 1
_SUCCEEDED = 1  # enum scan_result of mm/khugepaged.c: SCAN_SUCCEED
_SECOND = 1_000_000_000
_RARELY = 100  # resident pages are counted again after this many times as long as that takes
_NOT_LOOKED: Record = {"splits": {}, "pages": [], "tlb": None, "reach": []}


class Translation(View):
    """Counts by place, and what else describes the TLB. ``missing`` is what this host cannot count, and why.

    There is a record of what was counted in every ``interval_ns`` (0: none).
    """

    name = "tlb"
    stems = ("gc", "tlb")

    def __init__(self, missing: Sequence[Sequence[str]] = (), interval_ns: int = 0) -> None:
        self._missing = [list(each) for each in missing]
        self.interval_ns = interval_ns
        self._told_ns = 0
        self._since = _Since(0)
        self._phases = PhaseTimes()
        self._waiting: list[Events] = []
        self._held = 0
        self._counted: Counted | None = None
        self._flushes: dict[str, dict[str, int]] = {}
        self._collapses = {"succeeded": 0, "failed": 0}
        self._unseen = {"times": 0, "at_most_ns": 0}
        self._begin: Record = {}
        self._pages: Record | None = None
        self._pages_ns = self._look_ns = 0  # when they were counted last, and when they are counted again
        self.result: Record = {}

    @property
    def options(self) -> Record:
        return {"missing": self._missing, "interval_ns": self.interval_ns}

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        assert batch is not None
        source = self.source
        if self._counted is None:
            self._counted = Counted.empty(len(source.header["counters"]))
            self._begin = source.ask("splits so far", huge_pages.splits, of_host=True) or {}
            self._since = _Since(len(source.header["counters"]))
            self._told_ns = source.begin_ns
        if not source.last:
            self._look(source.now_ns >= self._look_ns)
        self._phases.add(batch)
        kinds = source.kinds("tlb")
        mine = events[np.isin(events["kind"], kinds.numbers("stretch", "counted"))]
        flushes, unseen = kinds.of(events, "flush"), kinds.of(events, "unseen")
        self._waiting.append(mine)
        self._held += len(mine)
        if self._held > _WAITING:
            self._settle(source.now_ns - _SETTLED_NS)
        self._add_flushes(flushes)
        status = kinds.of(events, "collapse")["status"]
        self._collapses["succeeded"] += int((status == _SUCCEEDED).sum())
        self._collapses["failed"] += int((status != _SUCCEEDED).sum())
        self._unseen["times"] += len(unseen)
        self._unseen["at_most_ns"] += int((unseen["time_ns"] - unseen["since_ns"]).sum())
        if self.interval_ns:
            self._since.add(kinds.of(mine, "stretch"), kinds.of(mine, "counted"), flushes)
            length = source.now_ns - self._told_ns
            if length >= self.interval_ns or source.last:
                yield self._interval(length)

    def _interval(self, length: int) -> Record:
        source, since = self.source, self._since
        self._since = _Since(len(source.header["counters"]))
        self._told_ns = source.now_ns
        return {
            "type": "tlb_interval",
            **moment(source.now_ns, source.wall_offset_ns),
            "length_ns": length,
            "ran_ns": since.ran_ns,
            "flushes": since.flushes,
            "counts": dict(zip(source.header["counters"], since.counts(), strict=True)),
        }

    def _settle(self, until_ns: int) -> None:
        assert self._counted is not None
        events = np.concatenate(self._waiting)
        old = events["time_ns"] <= until_ns
        settled, kinds = events[old], self.source.kinds("tlb")
        self._counted.add(kinds.of(settled, "stretch"), kinds.of(settled, "counted"), self._phases.windows())
        self._waiting = [events[~old]]
        self._held = len(self._waiting[0])

    def _add_flushes(self, flushes: Events) -> None:
        for number in np.unique(flushes["reason"]).tolist():
            pages = flushes["pages"][flushes["reason"] == number]
            reason = _REASONS[number] if number < len(_REASONS) else f"reason {number}"
            sums = self._flushes.setdefault(reason, {"flushes": 0, "pages": 0, "whole": 0})
            whole = pages == np.uint64(_ALL_PAGES)
            sums["flushes"] += len(pages)
            sums["whole"] += int(whole.sum())
            sums["pages"] += int(pages[~whole].sum())

    def _look(self, due: bool = True) -> None:
        """Count resident pages, if they are there: the last time they were is what is known when it has exited."""
        looked = self.source.ask("translation", self._resident, due)
        if looked is not None:
            self._pages, self._pages_ns = looked, self.source.now_ns
            self._look_ns = self.source.now_ns + max(_SECOND, _RARELY * looked.get("took_ns", 0))

    def _resident(self) -> Record:
        """Resident bytes by size of page, and how much of them the TLB reaches."""
        begin = time.monotonic_ns()
        rollup = Memory(self.source.process.pid).rollup()
        if "Rss" not in rollup:
            raise TargetError(f"process {self.source.process.pid} has exited", "")
        huge = sum(rollup.get(name, 0) for name in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"))
        setting = huge_pages.setting()
        pages = {PAGE: rollup["Rss"] - huge} | ({setting.size: huge} if setting is not None else {})
        tlb = tlb_reach.processor()
        return {
            "pages": [list(each) for each in pages.items()],
            "reach": [dataclasses.asdict(each) for each in tlb_reach.reach(tlb, pages)] if tlb is not None else [],
            "took_ns": time.monotonic_ns() - begin,
        }

    def _machine(self) -> Record:
        """Splits so far, and this processor's TLB."""
        tlb = tlb_reach.processor()
        return {"splits": huge_pages.splits(), "tlb": dataclasses.asdict(tlb) if tlb is not None else None}

    def end(self) -> Iterator[Record]:
        assert self._counted is not None
        source = self.source
        self._look()
        # Before 0.2.0 all of it was asked for together.
        looked = {**_NOT_LOOKED, **(self._pages or {}), **(source.ask("machine", self._machine, of_host=True) or {})}
        if left_out := looked.get("flushes_left_out"):  # of 0.1.0; they are among those lost by now
            self._missing.append([count_text(left_out, "TLB flush", "TLB flushes"), "another was being reported"])
        self._settle(1 << 62)
        counted, totals = self._counted, self._counted.scaled()
        ran = float(counted.ran_ns.sum())
        counters = []
        for number, event in enumerate(source.header["counters"]):
            enabled = float(counted.enabled_ns[number].sum())
            counts = {place: whole(value) for place, value in zip(PLACES, totals[number].tolist(), strict=True)}
            counters.append(
                {
                    "event": event,
                    "meaning": MEANING.get(event, ""),
                    "total": sum(value for value in counts.values() if value is not None),
                    "running_share": float(counted.running_ns[number].sum()) / enabled if enabled else None,
                    "phases": counts,
                }
            )
        self.result = {
            "type": self.name,
            "target": source.name,
            "watched_ns": source.now_ns - source.begin_ns,
            "phases_ns": dict(zip(PLACES, (round(each) for each in counted.ran_ns.tolist()), strict=True)),
            "unseen": self._unseen,
            "divided_share": counted.minor_ns / ran if ran else 0.0,
            "counters": counters,
            "missing": self._missing,
            "flushes": self._flushes,
            "collapses": self._collapses,
            "splits_of_the_machine": {
                name: count - self._begin[name] for name, count in looked["splits"].items() if name in self._begin
            },
            "pages": looked["pages"],
            "pages_age_ns": source.now_ns - self._pages_ns if self._pages is not None else None,
            "processor": looked["tlb"],
            "reach": looked["reach"],
            "lost": source.lost,
        }
        yield self.result


class _Since:
    """What was counted since the last interval ended, for all phases together."""

    def __init__(self, counters: int) -> None:
        self.ran_ns = self.flushes = 0
        self._sums = np.zeros((3, counters))  # counts, time enabled, time counting

    def add(self, stretches: Events, counted: Events, flushes: Events) -> None:
        self.ran_ns += int(stretches["ran_ns"].sum())
        self.flushes += len(flushes)
        numbers = counter_of(counted)
        for sums, column in zip(self._sums, SUMS, strict=True):
            np.add.at(sums, numbers, counted[column].astype(np.float64))

    def counts(self) -> list[int | None]:
        """By counter."""
        return [whole(value) for value in scaled(*self._sums).tolist()]


VIEW = Translation

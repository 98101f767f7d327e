"""How long single goroutines waited for a P, to the nanosecond, who had it, and for how long they stay on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.columns import text_of
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.pauses import stood_ns
from gotrace.analysis.who_had_p import NoCpu, Turn, parts_of
from gotrace.errors import GotraceError
from gotrace.export.hdr_log import tag
from gotrace.probes.sched import THROTTLED
from gotrace.probes.wakeup import WHO_HAD_A_P
from gotrace.records.sched import had_p_record, wakeups_record
from gotrace.records.times import moment
from gotrace.text import printable
from gotrace.views.longest import Longest
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.analysis.who_had_p import Part
    from gotrace.kernel.ring import Events
    from gotrace.runtime.books import Books

_EXPLAINED_NS = 1_000_000  # waits shorter than that come without who had the P
_LATER_NS = 1_000_000_000  # a thread whose P was taken tells only later that it had no CPU
_SHORT_NS = 20_000  # what a thread waits for a CPU, and what is not worth keeping


class SchedulerWakeups(View):
    """Adds up events; its ``result`` is of all of them. ``top`` is how many of the longest waits are told one by one.

    With ``explain`` it is told who had the P for which they waited, as far as its last turns say that.
    """

    name = "sched_wakeups"
    drawn_by = "sched_page"

    def __init__(self, top: int = 5, explain: bool = False) -> None:
        self.top, self.explain = top, explain
        self.stems = ("wakeup", *(("sched", "gc") if explain else ()))
        self.waited, self.stays, self.turns = Histogram(), Histogram(), Histogram()
        self.at_once = 0
        self._moves: Counter[tuple[int, int]] = Counter()
        self._movers: set[int] = set()
        self._longest = Longest(top)
        self.result: Record = {}
        self._unexplained: list[Record] = []
        # What may explain them: turns on Ps by wait and goroutine, waits of threads, stops of the world, tasks' names.
        self._turns: dict[tuple[int, int], list[Turn]] = {}
        self._no_cpu: list[Events] = []
        self._stops: list[tuple[int, int, int]] = []
        self._tasks: dict[int, str] = {0: ""}

    @property
    def options(self) -> Record:
        return {"top": self.top, "explain": self.explain}

    def prepare(self, books: Books) -> None:
        if self.explain:
            _ = books.goroutines

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        kinds = self.source.kinds("wakeup")
        if self.explain:
            self._keep(events, batch)
        self._add_waits(kinds.of(events, "ran"))
        moved = kinds.of(events, "moved")
        self.stays.record((moved["time_ns"] - moved["since_ns"]).astype(np.int64))
        self.turns.record(moved["turns"].astype(np.int64))
        self._movers.update(np.unique(moved["goid"]).tolist())
        pairs, counts = np.unique(np.stack([moved["from_p"], moved["to_p"]]), axis=1, return_counts=True)
        for source, target, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
            self._moves[source, target] += count
        yield from ()

    def _add_waits(self, ran: Events) -> None:
        waits = ran["waited_ns"].astype(np.int64)
        self.at_once += int(np.count_nonzero(waits == 0))
        self.waited.record(waits[waits > 0])
        for place in np.argsort(-waits, kind="stable")[: self.top].tolist():
            wait, each = int(waits[place]), ran[place]
            if not wait or not self._longest.wants(wait):
                break
            who = {"goid": int(each["goid"]), "p": int(each["p"])}
            record = {**moment(int(each["time_ns"]), self.source.wall_offset_ns), **who, "wait_ns": wait}
            self._longest.add(wait, record)
            if self.explain and wait >= _EXPLAINED_NS:
                self._unexplained.append(record)

    def _keep(self, events: Events, batch: Batch | None) -> None:
        """What may explain a wait, as long as one may need it; and explain those for which all of it is there."""
        of_threads, of_ps = self.source.kinds("sched"), self.source.kinds("wakeup")
        for tid, low, high in of_threads.of(events, "task")[["tid", "name_low", "name_high"]].tolist():
            self._tasks[tid] = printable(text_of(low, high))
        got = of_threads.of(events, "got_cpu")
        self._no_cpu.append(got[got["time_ns"] - got["runnable_ns"] >= _SHORT_NS])
        had = of_ps.of(events, "had_p")
        names = ("time_ns", "waiter", *Turn._fields)
        for time_ns, waiter, *turn in had[list(names)].tolist():
            self._turns.setdefault((time_ns, waiter), []).append(Turn(*turn))
        if batch is not None:
            lengths, pauses = stood_ns(batch.pauses), batch.pauses
            ends = (pauses["start_ns"] + lengths).tolist()
            self._stops += zip(pauses["start_ns"].tolist(), ends, pauses["reason"].tolist(), strict=True)
        now_ns = self.source.now_ns if not self.source.last else 1 << 63
        ready = [each for each in self._unexplained if each["monotonic_ns"] + _LATER_NS <= now_ns]
        self._unexplained = [each for each in self._unexplained if each["monotonic_ns"] + _LATER_NS > now_ns]
        if ready:
            self._explain([each for each in ready if self._longest.has(each)])
        begins = [each["monotonic_ns"] - each["wait_ns"] for each in self._unexplained]
        since_ns = min([self.source.now_ns - _LATER_NS, *begins])
        self._no_cpu = [each for each in self._no_cpu if len(each) and each["time_ns"].max() >= since_ns]
        self._stops = [stop for stop in self._stops if stop[1] >= since_ns]
        self._turns = {key: turns for key, turns in self._turns.items() if key[0] >= since_ns}

    def _explain(self, waits: list[Record]) -> None:
        if WHO_HAD_A_P in self._missing:
            return
        told: list[tuple[Record, list[Part]]] = []
        for each in waits:
            end_ns, turns = each["monotonic_ns"], self._turns.get((each["monotonic_ns"], each["goid"]), [])
            span = (end_ns - each["wait_ns"], end_ns)
            tids = {turn.tid for turn in turns}
            no_cpu = {tid: self._waits_of(tid, span) for tid in tids}
            told.append((each, parts_of(span, turns, self._stops, no_cpu)))
        addresses = sorted({part.startpc for _, parts in told for part in parts if part.what == "goroutine"})
        functions = self.source.ask("functions", lambda: self._functions(addresses), of_host=True) or []
        named = dict(zip(addresses, functions, strict=False))
        reasons = self.source.decoder.reasons if self.source.decoder is not None else []
        for each, parts in told:
            each["had_p"] = [had_p_record(part, named, reasons, self._tasks) for part in parts]
            each["unknown_ns"] = each["wait_ns"] - sum(part.held_ns for part in parts)

    def _functions(self, addresses: list[int]) -> list[str]:
        try:
            return self.source.books.goroutines.functions(addresses)
        except GotraceError:  # which its goroutines could not be found in, or it is gone
            return []

    def _waits_of(self, tid: int, span: tuple[int, int]) -> list[NoCpu]:
        found = []
        for got in self._no_cpu:
            mine = got[(got["tid"] == tid) & (got["time_ns"] > span[0]) & (got["runnable_ns"] < span[1])]
            for begin, end, holder, flags in mine[["runnable_ns", "time_ns", "holder", "flags"]].tolist():
                found.append(NoCpu(begin, end, holder, bool(flags & THROTTLED)))
        return found

    def end(self) -> Iterator[Record]:
        source = self.source
        self.result = {
            "type": self.name,
            **moment(source.now_ns, source.wall_offset_ns),
            "pid": int(source.header["target"]["pid"]),
            "length_ns": int(source.end["duration_ns"]),
            "lost": source.lost,
            **wakeups_record(
                self.waited,
                self.at_once,
                self._longest.records(),
                self._moves,
                len(self._movers),
                (self.turns, self.stays),
            ),
            "missing": self._missing,
        }
        yield self.result

    @property
    def _missing(self) -> dict[str, str]:
        return {each["name"]: each["reason"] for each in self.source.header["probes"]["wakeup"]["missing"]}

    def histograms(self) -> dict[str, Histogram]:
        named = {"waited": self.waited, "stay_on_a_p": self.stays}
        return {tag("goroutine", name): each for name, each in named.items() if each.count}


VIEW = SchedulerWakeups

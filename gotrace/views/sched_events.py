"""What each thread waited for a CPU, and after whom it got one; what Ps stole of one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gotrace.analysis.columns import text_of
from gotrace.analysis.histogram import Histogram
from gotrace.export.hdr_log import tag
from gotrace.probes.sched import PREEMPTED, THROTTLED
from gotrace.records.sched import events_record
from gotrace.records.times import moment
from gotrace.text import printable
from gotrace.views.longest import Longest
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

IDLE, UNNAMED = "nobody", ("?", False)


class _Wait(NamedTuple):
    """A wait that has ended; ``last_ns`` is for how much of it the task holder had the CPU that came free."""

    time_ns: int
    tid: int
    cpu: int
    runnable_ns: int
    holder: int
    wait_ns: int
    last_ns: int
    preempted: bool
    throttled: bool


class SchedulerEvents(View):
    """Adds up events; its ``result`` is of all of them. ``top`` is how many of the longest waits are told one by one."""

    name = "sched_events"
    drawn_by = "sched_page"
    stems = ("sched",)

    def __init__(self, top: int = 5) -> None:
        self.top = top
        self.woken, self.preempted = Histogram(), Histogram()
        self.throttled_ns = self.throttled = 0
        self._holders: Counter[int] = Counter()  # for how much of the waits a task had the CPU
        self._names: dict[int, tuple[str, bool]] = {0: (IDLE, False)}  # of a task, and whether it is one of the target's
        self._longest = Longest(top)
        self._steals: Counter[tuple[int, int]] = Counter()
        self.attempts = self.failed = 0
        self.result: Record = {}

    @property
    def options(self) -> Record:
        return {"top": self.top}

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        kinds = self.source.kinds("sched")
        told = kinds.of(events, "task")
        for tid, low, high, tgid in told[["tid", "name_low", "name_high", "tgid"]].tolist():
            self._names[tid] = printable(text_of(low, high)), tgid == self.source.header["target"]["pid"]
        self._add_waits(kinds.of(events, "got_cpu"), kinds.of(events, "held"))
        steals = kinds.of(events, "steal")
        self.attempts += len(steals)
        self.failed += int(np.count_nonzero(steals["taken"] == 0))
        for thief, victim, taken in steals[["thief", "victim", "taken"]].tolist():
            if taken:
                self._steals[thief, victim] += taken
        yield from ()

    def _add_waits(self, got: Events, held: Events) -> None:
        waits = (got["time_ns"] - got["runnable_ns"]).astype(np.int64)
        preempted, throttled = (got["flags"] & np.uint64(flag) != 0 for flag in (PREEMPTED, THROTTLED))
        self.woken.record(waits[~preempted])
        self.preempted.record(waits[preempted])
        self.throttled += int(throttled.sum())
        self.throttled_ns += int(waits[throttled].sum())
        # Whoever had the CPU last, and of a long wait those before it.
        last = np.minimum((got["time_ns"] - got["holder_ns"]).astype(np.int64), waits)
        before: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for time_ns, tid, waiter, begin_ns, end_ns in held[["time_ns", "tid", "waiter", "begin_ns", "end_ns"]].tolist():
            before.setdefault((time_ns, waiter), []).append((tid, begin_ns, end_ns))
        for wait in zip(
            *(got[name].tolist() for name in ("time_ns", "tid", "cpu", "runnable_ns", "holder")),
            *(each.tolist() for each in (waits, last, preempted, throttled)),
            strict=True,
        ):
            self._add(_Wait(*wait), before)

    def _add(self, wait: _Wait, before: Mapping[tuple[int, int], Sequence[tuple[int, int, int]]]) -> None:
        held = Counter({wait.holder: wait.last_ns})
        for tid, begin_ns, end_ns in before.get((wait.time_ns, wait.tid), ()):
            held[tid] += max(0, end_ns - max(begin_ns, wait.runnable_ns))
        if not wait.throttled:
            self._holders.update(held)
        if not self._longest.wants(wait.wait_ns):
            return
        told = {
            **moment(wait.time_ns, self.source.wall_offset_ns),
            "tid": wait.tid,
            "cpu": wait.cpu,
            "wait_ns": wait.wait_ns,
            "preempted": wait.preempted,
            "throttled": wait.throttled,
            "holders": [
                {"name": name, "own": own, "tid": tid, "held_ns": ns}
                for tid, ns in held.most_common()
                for name, own in (self._names.get(tid, UNNAMED),)
                if ns and not wait.throttled
            ],
            "unknown_ns": 0 if wait.throttled else max(0, wait.wait_ns - sum(held.values())),
        }
        self._longest.add(wait.wait_ns, told)

    def end(self) -> Iterator[Record]:
        source = self.source
        holders: Counter[tuple[str, bool]] = Counter()
        for tid, held_ns in self._holders.items():
            holders[self._names.get(tid, UNNAMED)] += held_ns
        self.result = {
            "type": "sched_events",
            **moment(source.now_ns, source.wall_offset_ns),
            "pid": int(source.header["target"]["pid"]),
            "length_ns": int(source.end["duration_ns"]),
            "lost": source.lost,
            **events_record(
                {"woken": self.woken, "preempted": self.preempted},
                (self.throttled, self.throttled_ns),
                holders,
                self._longest.records(),
                (self.attempts, self.failed),
                self._steals,
            ),
            "missing": {each["name"]: each["reason"] for each in source.header["probes"]["sched"]["missing"]},
        }
        yield self.result

    def histograms(self) -> dict[str, Histogram]:
        named = {"woken": self.woken, "preempted": self.preempted}
        return {tag("thread", name): each for name, each in named.items() if each.count}


VIEW = SchedulerEvents

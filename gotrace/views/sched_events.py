"""What each thread waited for a CPU, and after whom it got one; what Ps stole of one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.columns import joined, text_of
from gotrace.analysis.histogram import Histogram
from gotrace.export.hdr_log import tag
from gotrace.kernel.ring import no_events
from gotrace.probe import FOREVER_NS
from gotrace.probes.sched import LONG_NS, PREEMPTED, THROTTLED
from gotrace.records.sched import events_record
from gotrace.records.times import moment
from gotrace.text import printable
from gotrace.views.longest import Longest
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_Name = tuple[str, bool]  # of a task, and whether it is one of the target's

IDLE = "nobody"
UNNAMED = ("?", False)

_SECOND = 1_000_000_000
_MANY = 1 << 16  # events


class SchedulerEvents(View):
    """Adds up events; its ``result`` is of all of them. ``top`` is how many of the longest waits are told one by one."""

    name = "sched_events"
    drawn_by = "sched_page"
    stems = ("sched",)

    def __init__(self, top: int = 5) -> None:
        self.top = top
        self.woken, self.preempted = Histogram(), Histogram()
        self.throttled_ns = self.throttled = 0
        self._holders: Counter[_Name] = Counter()  # for how much of the waits a task had the CPU
        self._names: dict[int, list[tuple[int, _Name]]] = {0: [(0, (IDLE, False))]}  # of a task, since when
        self._longest = Longest(top)
        self._steals: Counter[tuple[int, int]] = Counter()
        self.attempts = self.failed = 0
        self.result: Record = {}
        self._waiting: list[Events] = []

    @property
    def options(self) -> Record:
        return {"top": self.top}

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        # Not a few at a time: on a busy machine every call finds its code and its data out of the caches.
        self._waiting.append(events)
        if self.source.now_ns >= self._due_ns or sum(map(len, self._waiting)) >= _MANY:
            self._due_ns = self.source.now_ns + _SECOND
            self._add()
        yield from ()

    def _add(self) -> None:
        events, self._waiting = joined([no_events(), *self._waiting]), []
        kinds = self.source.kinds("sched")
        for known in self._names.values():
            del known[:-1]
        told = kinds.of(events, "task")
        for time_ns, tid, low, high, tgid in told[["time_ns", "tid", "name_low", "name_high", "tgid"]].tolist():
            name = printable(text_of(low, high)), tgid == self.source.header["target"]["pid"]
            self._names.setdefault(tid, []).append((time_ns, name))
        self._add_waits(kinds.of(events, "got_cpu"), kinds.of(events, "held"))
        steals = kinds.of(events, "steal")
        self.attempts += len(steals)
        self.failed += int(np.count_nonzero(steals["taken"] == 0))
        for thief, victim, taken in steals[["thief", "victim", "taken"]].tolist():
            if taken:
                self._steals[thief, victim] += taken

    def _add_waits(self, got: Events, held: Events) -> None:
        waits = (got["time_ns"] - got["runnable_ns"]).astype(np.int64)
        preempted, throttled = (got["flags"] & np.uint64(flag) != 0 for flag in (PREEMPTED, THROTTLED))
        self.woken.record(waits[~preempted])
        self.preempted.record(waits[preempted])
        self.throttled += int(throttled.sum())
        self.throttled_ns += int(waits[throttled].sum())
        # Whoever had the CPU last, and of a long wait those before it.
        last = np.minimum((got["time_ns"] - got["holder_ns"]).astype(np.int64), waits)
        last[throttled] = 0
        holders, which = np.unique(got["holder"], return_inverse=True)
        sums = Counter(dict(zip(holders.tolist(), np.bincount(which, last).astype(np.int64).tolist(), strict=True)))
        long = np.flatnonzero((waits >= LONG_NS) & ~throttled)
        ends, waiters = (got[name][long].tolist() for name in ("time_ns", "tid"))
        places = dict(zip(zip(ends, waiters, strict=True), long.tolist(), strict=True))
        before: dict[int, Counter[int]] = {}
        for time_ns, tid, waiter, begin_ns, end_ns in held[["time_ns", "tid", "waiter", "begin_ns", "end_ns"]].tolist():
            place = places.get((time_ns, waiter))
            if place is not None:
                held_ns = max(0, end_ns - max(begin_ns, int(got["runnable_ns"][place])))
                before.setdefault(place, Counter())[tid] += held_ns
        for each in before.values():
            sums.update(each)
        for tid, held_ns in sums.items():
            self._holders[self._name(tid, FOREVER_NS)] += held_ns
        for place in np.argsort(-waits, kind="stable")[: self.top].tolist():
            if self._longest.wants(int(waits[place])):
                own = Counter({int(got["holder"][place]): int(last[place])})
                self._longest.add(int(waits[place]), self._wait(got[place], own + before.get(place, Counter())))

    def _name(self, tid: int, at_ns: int) -> _Name:
        return next((name for since_ns, name in reversed(self._names.get(tid, ())) if since_ns <= at_ns), UNNAMED)

    def _wait(self, got: Events, held: Counter[int]) -> Record:
        """A single wait, and for how much of it each task had the CPU."""
        time_ns, flags = int(got["time_ns"]), int(got["flags"])
        wait_ns = time_ns - int(got["runnable_ns"])
        throttled = bool(flags & THROTTLED)
        return {
            **moment(time_ns, self.source.wall_offset_ns),
            "tid": int(got["tid"]),
            "cpu": int(got["cpu"]),
            "wait_ns": wait_ns,
            "preempted": bool(flags & PREEMPTED),
            "throttled": throttled,
            "holders": [
                {"name": name, "own": own, "tid": tid, "held_ns": ns}
                for tid, ns in held.most_common()
                for name, own in (self._name(tid, time_ns),)
            ],
            "unknown_ns": 0 if throttled else max(0, wait_ns - held.total()),
        }

    def end(self) -> Iterator[Record]:
        source = self.source
        self._add()
        self.result = {
            "type": "sched_events",
            **moment(source.now_ns, source.wall_offset_ns),
            "pid": int(source.header["target"]["pid"]),
            "length_ns": int(source.end["duration_ns"]),
            "lost": source.lost,
            **events_record(
                {"woken": self.woken, "preempted": self.preempted},
                (self.throttled, self.throttled_ns),
                self._holders,
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

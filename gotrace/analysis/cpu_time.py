"""When the threads of a process were on the CPU, waiting for one, or blocked, from the scheduler's events."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import Kinds


class Changes(NamedTuple):
    """When threads changed between on the CPU, runnable, throttled and blocked: arrays of one length, in the order of time.

    ``quota_known`` is False where nobody asked whether a CPU quota kept them from running: they count as runnable then.
    ``halves`` counts off-CPU periods of which the kernel reported the beginning but not the end, which does happen.
    """

    time_ns: npt.NDArray[np.int64]
    tid: npt.NDArray[np.int64]
    running: npt.NDArray[np.int64]  # +1, 0, -1
    runnable: npt.NDArray[np.int64]
    throttled: npt.NDArray[np.int64]
    halves: int
    quota_known: bool


def changes_of(events: npt.NDArray[Any], kinds: Kinds, tgid: int) -> Changes:
    """From all events of a process, in the order of time: off the CPU is a thread from a cpu_off to its next event."""
    order = np.lexsort((np.arange(len(events)), events["tid"]))
    tid, time, kind = (events[name][order].astype(np.int64) for name in ("tid", "time_ns", "kind"))
    off, on = kinds.numbers("cpu_off", "cpu_on")
    places = (("cpu_off", "state"), ("cpu_on", "off_ns"), ("cpu_on", "ready_ns"))
    state, off_ns, ready_ns = (kinds.column(events, *place)[order].astype(np.int64) for place in places)
    same = np.concatenate([tid[1:] == tid[:-1], [False]])  # as the next
    is_on = (kind != off).astype(np.int64)
    first = np.concatenate([[True], ~same[:-1]])
    # The thread that called execve was running; others begin with an event of their own.
    before = np.where(first, tid == tgid, np.concatenate([[0], is_on[:-1]]))
    leaves = np.flatnonzero((kind == off) & same)
    ends = leaves + 1
    told = (kind[ends] == on) & (off_ns[ends] == time[leaves])
    # state 0: it could go on; ready_ns: when it could
    ready = np.where(state[leaves] == 0, time[leaves], np.where(told, ready_ns[ends], time[ends]))
    last = np.flatnonzero((kind == off) & ~same & (state == 0))
    quota_known = "throttled_ns" in kinds.columns("cpu_on")  # in recordings since 0.2
    none = np.zeros(len(time), np.int64)
    quota_ns, is_throttled = (
        kinds.column(events, *place)[order].astype(np.int64) if quota_known else none
        for place in (("cpu_on", "throttled_ns"), ("cpu_off", "throttled"))
    )
    # Of what a thread waited after it could go on, first what a quota kept it for, then for a CPU.
    waited = time[ends] - ready
    quota = np.where(told, np.minimum(quota_ns[ends], waited), is_throttled[leaves] * (state[leaves] == 0) * waited)
    free = ready + quota
    ones = [np.ones(len(each), np.int64) for each in (ready, last)]
    times = np.concatenate([time, ready, free, time[ends], time[last]])
    tids = np.concatenate([tid, tid[leaves], tid[leaves], tid[ends], tid[last]])
    running = np.concatenate([is_on - before, 0 * ready, 0 * ready, 0 * ready, 0 * last])
    runnable = np.concatenate([none, 0 * ready, ones[0], -ones[0], ones[1] - is_throttled[last]])
    throttled = np.concatenate([none, ones[0], -ones[0], 0 * ready, is_throttled[last]])
    at = np.argsort(times, kind="stable")
    halves = int(np.count_nonzero(~told))
    return Changes(times[at], tids[at], running[at], runnable[at], throttled[at], halves, quota_known)


class Wait(NamedTuple):
    """Nanoseconds off the CPU; ``throttled`` is None where it is not known, and then part of ``runnable``."""

    runnable: int
    blocked: int
    throttled: int | None


class Waits:
    """How long a thread, or all of a process at once (``tid`` None), were off the CPU since ``begin_ns``, and why.

    A process is runnable as soon as one of its threads is, and throttled if one is and none is runnable.
    """

    def __init__(self, changes: Changes, tid: int | None, begin_ns: int, end_ns: int) -> None:
        chosen = np.ones(len(changes.tid), bool) if tid is None else changes.tid == tid
        times = np.concatenate([[begin_ns], np.clip(changes.time_ns[chosen], begin_ns, end_ns), [end_ns]])
        running = np.concatenate([[1], 1 + np.cumsum(changes.running[chosen])])
        runnable = np.concatenate([[0], np.cumsum(changes.runnable[chosen])])
        throttled = np.concatenate([[0], np.cumsum(changes.throttled[chosen])])
        off = np.diff(times) * (running <= 0)
        by_quota = (runnable <= 0) & (throttled > 0)
        waits = (off * (runnable > 0), off * ((runnable <= 0) & ~by_quota), off * by_quota)
        self._quota_known = changes.quota_known
        self._times = times
        self._sums = [np.concatenate([[0], np.cumsum(each)]) for each in waits]

    def between(self, begin_ns: int, end_ns: int) -> Wait:
        edges = [begin_ns, end_ns]
        runnable, blocked, throttled = (
            round(float(np.diff(np.interp(edges, self._times, each))[0])) for each in self._sums
        )
        return Wait(runnable, blocked, throttled if self._quota_known else None)

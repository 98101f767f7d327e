"""When the threads of a process were on the CPU, waiting for one, or blocked, from what the scheduler tells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Changes(NamedTuple):
    """When threads changed between on the CPU, runnable and blocked: arrays of one length, in the order of time.

    ``halves`` is how many absences the kernel told the beginning of and not the end, which does happen.
    """

    time_ns: npt.NDArray[np.int64]
    tid: npt.NDArray[np.int64]
    running: npt.NDArray[np.int64]  # +1, 0, -1
    runnable: npt.NDArray[np.int64]
    halves: int


def changes_of(events: npt.NDArray[Any], off: int, on: int, tgid: int) -> Changes:
    """From all events of a process, in the order of time: off the CPU is a thread from a cpu_off to its next event."""
    order = np.lexsort((np.arange(len(events)), events["tid"]))
    tid, time, kind = (events[name][order].astype(np.int64) for name in ("tid", "time_ns", "kind"))
    c, d = (events[name][order].astype(np.int64) for name in ("c", "d"))
    same = np.concatenate([tid[1:] == tid[:-1], [False]])  # as the next
    is_on = (kind != off).astype(np.int64)
    first = np.concatenate([[True], ~same[:-1]])
    # The thread that called execve was running; others begin with an event of their own.
    before = np.where(first, tid == tgid, np.concatenate([[0], is_on[:-1]]))
    leaves = np.flatnonzero((kind == off) & same)
    ends = leaves + 1
    told = (kind[ends] == on) & (c[ends] == time[leaves])
    # c of a cpu_off: the state, 0 for a thread that could go on; d of a cpu_on: when it could
    ready = np.where(c[leaves] == 0, time[leaves], np.where(told, d[ends], time[ends]))
    last = np.flatnonzero((kind == off) & ~same & (c == 0))
    zeros = [np.zeros(len(each), np.int64) for each in (ready, ends, last)]
    times = np.concatenate([time, ready, time[ends], time[last]])
    tids = np.concatenate([tid, tid[leaves], tid[ends], tid[last]])
    running = np.concatenate([is_on - before, *zeros])
    runnable = np.concatenate([np.zeros(len(time), np.int64), zeros[0] + 1, zeros[1] - 1, zeros[2] + 1])
    at = np.argsort(times, kind="stable")
    return Changes(times[at], tids[at], running[at], runnable[at], int(np.count_nonzero(~told)))


class Waits:
    """How long a thread, or all of a process at once (``tid`` None), were runnable or blocked since ``begin_ns``."""

    def __init__(self, changes: Changes, tid: int | None, begin_ns: int, end_ns: int) -> None:
        chosen = np.ones(len(changes.tid), bool) if tid is None else changes.tid == tid
        times = np.concatenate([[begin_ns], np.clip(changes.time_ns[chosen], begin_ns, end_ns), [end_ns]])
        running = np.concatenate([[1], 1 + np.cumsum(changes.running[chosen])])
        runnable = np.concatenate([[0], np.cumsum(changes.runnable[chosen])])
        lengths = np.diff(times)
        waits = (lengths * ((running <= 0) & (runnable > 0)), lengths * ((running <= 0) & (runnable <= 0)))
        self._times = times
        self._sums = [np.concatenate([[0], np.cumsum(each)]) for each in waits]

    def between(self, begin_ns: int, end_ns: int) -> tuple[int, int]:
        """(runnable, blocked) nanoseconds."""
        edges = [begin_ns, end_ns]
        found = [np.diff(np.interp(edges, self._times, each))[0] for each in self._sums]
        return round(float(found[0])), round(float(found[1]))

"""What a Go program's runtime/metrics would say, read from outside while it runs, some kilobytes at a time.

Nothing is stopped: what is read of one place is of one moment, different places may be some microseconds apart. Names in
quotes are those of runtime/metrics (runtime/metrics.go), whose computations these are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gotrace.analysis.scheduling import bounds
from gotrace.binary.metric_places import ALLOCATIONS, GOROUTINES, MEMORY, SCHEDULE, MetricPlaces
from gotrace.errors import TargetError

if TYPE_CHECKING:
    from gotrace.kernel.memory import Memory

Counts = npt.NDArray[np.int64]

_SLOTS = 3  # of heapStats: what they have together counts, whichever is in use
_OUTSIDE_OF_THE_HEAP = ("stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys")
_MOST_PS = 1 << 12
# Fields of free goroutines, of all Ps and of one, by the releases that have them.
_FREE = ("schedt.gFree.n", "schedt.gFree.stack.size", "schedt.gFree.noStack.size")
_FREE_OF_P = ("p.gFree.n", "p.gFree.size")


@dataclass(frozen=True)
class Reading:
    """None: not known of this program. Sizes are in bytes.

    ``stack`` is "/memory/classes/heap/stacks"; ``used`` is "/memory/classes/total" without "/memory/classes/heap/released";
    ``allocated`` and ``allocations`` are "/gc/heap/allocs" in bytes and objects, among which are no tiny ones;
    ``goroutines`` is "/sched/goroutines". ``waits`` is "/sched/latencies": how often goroutines were runnable for how long
    before they ran, of every eighth time, by bucket: below 0, those of `gotrace.analysis.scheduling.bounds`, beyond them.
    ``heap`` is MemStats.HeapAlloc. Of the last collection, and 0 before the first: ``live`` is "/gc/heap/live", ``goal``
    the heap's size at which it was to end. As set now: ``gogc`` is "/gc/gogc" (-1: off), ``limit`` is "/gc/gomemlimit".
    """

    stack: int | None = None
    used: int | None = None
    allocated: int | None = None
    allocations: int | None = None
    goroutines: int | None = None
    waits: Counts | None = None
    heap: int | None = None
    live: int | None = None
    goal: int | None = None
    gogc: int | None = None
    limit: int | None = None


@functools.cache
def longest_of(buckets: int) -> Counts:
    """The longest wait, in whole nanoseconds, that each of so many buckets of `Reading.waits` holds.

    Of what is below 0, as clocks may have it, that is 0; of what is beyond all, where that begins.
    """
    edges = bounds(buckets - 2)
    return np.concatenate([[0], edges[1:] - 1, edges[-1:]])


class MetricsReader:
    """Reads those of one process; ``bias`` is how far its executable was moved."""

    def __init__(self, places: MetricPlaces, memory: Memory, bias: int) -> None:
        self._places, self._memory, self._bias = places, memory, bias
        self._at = places.offsets

    def read(self) -> Reading:
        """Everything that can be read. Raises TargetError or HostError."""
        missing = self._places.missing
        stack = used = allocations = None
        controller: dict[str, int] = {}
        if MEMORY not in missing or ALLOCATIONS not in missing:
            slots = self._slots()
            if MEMORY not in missing:
                stack = self._sum(slots, "inStacks")
                used = self._sum(slots, "committed") + self._outside_of_the_heap()
                controller = self._controller()
            if ALLOCATIONS not in missing:
                first, end = (self._at[f"heapStatsDelta.{name}"] // 8 for name in ("smallAllocCount", "largeFree"))
                allocations = self._sum(slots, "largeAllocCount") + int(slots[:, first:end].sum())
        return Reading(
            stack,
            used,
            allocations=allocations,
            goroutines=self._goroutines() if GOROUTINES not in missing else None,
            waits=self._waits() if SCHEDULE not in missing else None,
            **controller,
        )

    def _global(self, name: str) -> int:
        return int(getattr(self._places, name)) + self._bias

    def _controller(self) -> dict[str, int]:
        """What gcController has."""
        names = ("gcPercent", "memoryLimit", "lastHeapGoal", "heapMarked", "totalAlloc", "totalFree")
        places = [self._at[f"gcControllerState.{name}"] for name in names]
        first = min(places)
        words = self._memory.words(self._global("gc_controller") + first, (max(places) - first) // 8 + 1)
        percent, limit, goal, live, allocated, freed = (words[(place - first) // 8] for place in places)
        return {
            "allocated": int(allocated),
            "heap": max(0, int(allocated) - int(freed)),
            "live": int(live),
            "goal": int(goal),
            "gogc": int(percent.astype(np.uint32).view(np.int32)),
            "limit": int(limit),
        }

    def _slots(self) -> Counts:
        """heapStats, word by word; what is in one slot alone may be negative."""
        words = self._at["heapStatsDelta.sizeof"] // 8
        begin = self._global("memstats") + self._at["mstats.heapStats"]
        return self._memory.words(begin, _SLOTS * words).view(np.int64).reshape(_SLOTS, words)

    def _sum(self, slots: Counts, field: str) -> int:
        return int(slots[:, self._at[f"heapStatsDelta.{field}"] // 8].sum())

    def _outside_of_the_heap(self) -> int:
        places = [self._at[f"mstats.{name}"] for name in _OUTSIDE_OF_THE_HEAP]
        first = min(places)
        words = self._memory.words(self._global("memstats") + first, (max(places) - first) // 8 + 1)
        return sum(int(words[(place - first) // 8]) for place in places)

    def _goroutines(self) -> int:
        """As runtime.gcount has it: all that were ever made, without those that wait to be used again."""
        at, sched = self._at, self._global("sched")
        pointer, length = self._memory.words(self._global("allp"), 2).tolist()
        if not 0 < length <= _MOST_PS:
            raise TargetError(f"process {self._memory.pid} has no Ps", "its runtime has not started yet: try again")
        ps = self._memory.words(pointer, length).tolist()
        left_out = [] if self._places.system_goroutines else ["schedt.ngsys"]
        of_p = next(at[name] for name in _FREE_OF_P if name in at)
        others = [(sched + at[name], 4) for name in (*left_out, *_FREE) if name in at] + [(p + of_p, 4) for p in ps]
        every, *less = self._memory.read_many([(self._global("allglen"), 8), *others])
        # The runtime, too, takes one for granted where these are of different moments.
        return max(1, int.from_bytes(every, "little") - sum(int.from_bytes(each, "little", signed=True) for each in less))

    def _waits(self) -> Counts:
        at = self._at
        begin = self._global("sched") + at["schedt.timeToRun"]
        counts, below = at["timeHistogram.counts"], at["timeHistogram.underflow"]
        last = at.get("timeHistogram.overflow", below)
        words = self._memory.words(begin + counts, (last - counts) // 8 + 1).view(np.int64)
        buckets = (below - counts) // 8
        beyond = words[-1:] if last != below else np.zeros(1, np.int64)
        return np.concatenate([words[buckets : buckets + 1], words[:buckets], beyond])

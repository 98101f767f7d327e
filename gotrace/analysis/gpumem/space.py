"""One allocator's memory over time: what it holds, what of that is live, and why it grew.

The events are those of one pool of one device, or of PyTorch's allocator on one device. From them:

* **extents**: every range of addresses seen, less what a trim, the free of a segment or an unmap gave back. Where the
  allocator announces them (``SEGMENT``, ``MAP``) they are known; elsewhere they are a lower bound.
* **live** and **free** = extents - live; a **hole** is a maximal free range. Ranges that were got as separate segments do
  not join: no allocator can hand out a block across two.
* **fragmentation** = 1 - largest hole / free, and 0 with nothing free.
* **growth**: a request that was served, not entirely from the extents before it. It was *needed* if free < size; a *merge
  failure* if free >= size > largest hole, so that there was enough memory, but in pieces; *refused reuse* if the largest
  hole would have done (freed on another stream and not ordered yet, or of another size class).
* **OOM by fragmentation**: a request refused for want of memory with free >= size.

Sizes count in units of 512 bytes, as the allocators round them. Times are CLOCK_MONOTONIC ns, and of the call: a stream's
frees return at once, though the GPU may be behind.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALLOC, FREE, SEGMENT, SEGMENT_FREE, MAP, UNMAP, TRIM, OOM = range(1, 9)
NEEDED, MERGE_FAILURE, REFUSED_REUSE = range(1, 4)
GROWTHS = {NEEDED: "needed", MERGE_FAILURE: "merge_failure", REFUSED_REUSE: "refused_reuse"}

# ``size`` of a TRIM is what may stay; ``address`` of an OOM is 0. ``row`` is whatever the caller knows the event by.
EVENT = np.dtype([("time_ns", "<i8"), ("op", "u1"), ("address", "<u8"), ("size", "<u8"), ("row", "<i8")])
BLOCK = np.dtype([("address", "<u8"), ("size", "<u8"), ("begin_ns", "<i8"), ("end_ns", "<i8"), ("row", "<i8")])
HOLE = np.dtype([("begin", "<u8"), ("end", "<u8"), ("since_ns", "<i8")])
STATE = np.dtype(
    [("live", "<i8"), ("reserved", "<i8"), ("largest", "<i8"), ("request", "<i8"), ("growth", "u1"), ("oom", "u1")]
)

ROUND = 512
FOREVER = (1 << 63) - 1
_PORTION = 1 << 16  # events of which more than a few numbers are kept at once


@dataclass(frozen=True)
class Course:
    """What `replay` makes of a space's events.

    ``states`` has a row for each event: bytes live, reserved (live + free) and in the largest hole after it, the size of a
    request (0: it is none), why it grew (0: it did not; a segment is explained at the first request served from it, or at
    itself if there is none), and of an OOM 1, or 2 where fragmentation was why.

    ``blocks`` are all that were ever live, ``extents`` every range ever held (begin, end), ``holes`` those at the end.
    ``unknown_frees`` freed what was allocated before, ``missed_frees`` are blocks handed out again though nobody had freed
    them, and ``untold`` the bytes of blocks in segments that were not announced: extents are a lower bound then.
    """

    events: npt.NDArray[np.void]
    states: npt.NDArray[np.void]
    blocks: npt.NDArray[np.void]
    extents: npt.NDArray[np.uint64]
    holes: npt.NDArray[np.void]
    unknown_frees: int
    missed_frees: int
    untold: int

    def free(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.states["reserved"] - self.states["live"])

    def fragmentation(self) -> npt.NDArray[np.float64]:
        """After each event, 0 to 1."""
        return fragmentation(self.free(), self.states["largest"])

    def adjacent(self, longer_than_ns: int) -> list[tuple[int, int]]:
        """(where they meet, bytes) of neighbouring holes that lie in different segments and were free for so long."""
        end_ns = int(self.events["time_ns"][-1]) if len(self.events) else 0
        rows = self.holes.tolist()
        return [
            (end, after_end - begin)
            for (begin, end, since), (after, after_end, after_since) in zip(rows, rows[1:], strict=False)
            if end == after and end_ns - max(since, after_since) >= longer_than_ns
        ]

    def too_small(self, size: int) -> float:
        """The share of what is free at the end that lies in holes smaller than ``size``."""
        sizes = (self.holes["end"] - self.holes["begin"]).astype(np.int64)
        total = int(sizes.sum())
        return float(sizes[sizes < size].sum() / total) if total else 0.0


def fragmentation(free: npt.NDArray[np.int64], largest: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """1 - largest hole / free, 0 with nothing free."""
    return np.where(free > 0, 1 - largest / np.maximum(free, 1), 0.0)


def replay(events: npt.NDArray[np.void], told: bool = False, keeps: bool = True) -> Course:
    """Follow the events (`EVENT`, in order of time) of one space; the rest as in `Space`."""
    space = Space(told, keeps)
    space.feed(events)
    return space.course()


class Space:
    """One allocator's memory. ``told``: it announces its segments. ``keeps``: what is freed stays its own;
    else it holds what is live, and every request is new memory, which is no growth.

    One pass with a few dictionary look-ups for each event: a million took some seconds of a slow machine.
    """

    def __init__(self, told: bool = False, keeps: bool = True) -> None:
        self._told, self._keeps = told, keeps
        self._starts: list[int] = []  # of holes, in order
        self._ends: dict[int, int] = {}  # by start
        self._by_end: dict[int, int] = {}  # start by end
        self._since: dict[int, int] = {}  # by start
        self._heap: list[tuple[int, int]] = []  # (-size, start) of holes, and of some that are none any more
        self._walls: dict[int, int] = {}  # how many segments begin or end at an address
        self._live: dict[int, int] = {}  # index of the block, by address
        # Of blocks, column by column: a list for each of them would be a million for the collector to look through.
        self._at: list[int] = []
        self._size: list[int] = []
        self._begin: list[int] = []
        self._end: list[int] = []
        self._row: list[int] = []
        self._free = self._live_bytes = 0
        self._ever: list[tuple[int, int]] = []
        self._pending: list[tuple[int, int, int, int, int]] = []  # segments whose request is not known yet
        self._events: list[npt.NDArray[np.void]] = []
        self._states: list[npt.NDArray[np.void]] = []
        self._fed_before = self._untold = 0
        self._growths: dict[int, int] = {}
        self._unknown = self._missed = self._requests = self._ooms = 0

    def feed(self, events: npt.NDArray[np.void]) -> None:
        """More of them."""
        for begin in range(0, len(events), _PORTION):
            part = events[begin : begin + _PORTION]
            self._events.append(part)
            self._states.append(self._fed(part))
            self._fed_before += len(part)

    def _fed(self, events: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        sizes: list[int] = []
        requests, ooms = [0] * len(events), [0] * len(events)
        for index, (time_ns, op, address, size, row) in enumerate(events.tolist(), self._fed_before):
            request = oom = 0
            rounded = -(-size // ROUND) * ROUND
            if op == ALLOC:
                request = rounded
                if address in self._live:
                    self._missed += 1
                    self._freed(address, time_ns)
                kind = growth(rounded, self._free, self._largest())
                grown = self._taken(address, rounded, time_ns, row)
                if self._told:
                    self._untold += grown
                    self._explain(index, address, rounded)
                elif self._keeps and grown:
                    self._growths[index] = kind
            elif op == FREE:
                self._free_of(address, time_ns)
            elif op in (SEGMENT, MAP):
                self._pending.append((index, address, address + size, self._free, self._largest()))
                self._held(address, size, time_ns, walled=op == SEGMENT)
            elif op in (SEGMENT_FREE, UNMAP):
                self._given_back(address, size, time_ns, walled=op == SEGMENT_FREE)
            elif op == TRIM:
                if self._free + self._live_bytes > size:
                    self._drop_holes()
            elif op == OOM:
                request = rounded
                oom = 2 if self._free >= rounded else 1
            self._requests += request > 0
            self._ooms += oom > 0
            sizes += (self._live_bytes, self._free + self._live_bytes, self._largest())
            requests[index - self._fed_before], ooms[index - self._fed_before] = request, oom
        states = np.zeros(len(events), STATE)
        states["live"], states["reserved"], states["largest"] = np.array(sizes, np.int64).reshape(-1, 3).T
        states["request"], states["oom"] = requests, ooms
        return states

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes live, free, and in the largest hole, now."""
        return self._live_bytes, self._free, self._largest()

    @property
    def counts(self) -> Counter[str]:
        """How many requests, OOMs and growths of each kind there were so far."""
        found = Counter(GROWTHS[kind] for kind in self._growths.values())
        found["requests"], found["ooms"] = self._requests, self._ooms
        return found

    def course(self) -> Course:
        """All of it so far."""
        growths = dict(self._growths)
        for index, begin, end, free, largest in self._pending:
            growths[index] = growth(end - begin, free, largest)
        states = np.concatenate([np.zeros(0, STATE), *self._states])
        if growths:
            states["growth"][list(growths)] = list(growths.values())
        events = np.concatenate(self._events) if self._events else np.zeros(0, EVENT)
        holes = np.array([(at, self._ends[at], self._since[at]) for at in self._starts], HOLE)
        blocks = np.zeros(len(self._at), BLOCK)
        for name, column in zip(BLOCK.names or (), (self._at, self._size, self._begin, self._end, self._row), strict=True):
            blocks[name] = column
        return Course(events, states, blocks, _union(self._ever), holes, self._unknown, self._missed, self._untold)

    def _free_of(self, address: int, time_ns: int) -> None:
        index = self._live.get(address)
        if index is None:
            self._unknown += 1
        elif time_ns < self._begin[index]:
            self._missed -= 1  # of the block that was there before: it is reported when the call has returned
        else:
            self._freed(address, time_ns)
            if not self._keeps:
                self._carved(address, address + self._size[index])

    def _explain(self, index: int, address: int, size: int) -> None:
        """A block out of a segment that was just got: that was why."""
        for number, (_, begin, end, free, largest) in enumerate(self._pending):
            if begin <= address < end:
                self._growths[index] = growth(size, free, largest)
                del self._pending[number]
                return

    def _largest(self) -> int:
        heap = self._heap
        while heap:
            negative, start = heap[0]
            if self._ends.get(start) == start - negative:
                return -negative
            heapq.heappop(heap)
        return 0

    def _taken(self, address: int, size: int, time_ns: int, row: int) -> int:
        """A block becomes live; how many bytes of it were not held before."""
        grown = size - self._carved(address, address + size)
        if grown:
            self._ever.append((address, address + size))
        self._live[address] = len(self._at)
        self._at.append(address)
        self._size.append(size)
        self._begin.append(time_ns)
        self._end.append(FOREVER)
        self._row.append(row)
        self._live_bytes += size
        return grown

    def _freed(self, address: int, time_ns: int) -> None:
        index = self._live.pop(address)
        self._end[index] = time_ns
        self._live_bytes -= self._size[index]
        self._opened(address, address + self._size[index], time_ns)

    def _held(self, address: int, size: int, time_ns: int, walled: bool) -> None:
        """An announced range: free, but for what is live in it already."""
        self._carved(address, address + size)  # announced twice
        if walled:
            for wall in (address, address + size):
                self._walls[wall] = self._walls.get(wall, 0) + 1
        self._ever.append((address, address + size))
        at = address
        for begin in self._blocks_in(address, address + size):
            if begin > at:
                self._opened(at, begin, time_ns)
            at = begin + self._size[self._live[begin]]
        if at < address + size:
            self._opened(at, address + size, time_ns)

    def _given_back(self, address: int, size: int, time_ns: int, walled: bool) -> None:
        for begin in self._blocks_in(address, address + size):
            self._freed(begin, time_ns)
        self._carved(address, address + size)
        if walled:
            for wall in (address, address + size):
                self._walls[wall] = self._walls.get(wall, 0) - 1
                if self._walls[wall] <= 0:
                    del self._walls[wall]

    def _blocks_in(self, begin: int, end: int) -> list[int]:
        """The addresses of those that are live in a range; segments come and go seldom."""
        return sorted(at for at in self._live if begin <= at < end)

    def _drop_holes(self) -> None:
        self._starts, self._ends, self._by_end, self._since, self._heap = [], {}, {}, {}, []
        self._free = 0

    def _opened(self, begin: int, end: int, since: int) -> None:
        """A free range, which joins its neighbours if no wall is between them."""
        if begin == end:
            return
        starts, ends, walls = self._starts, self._ends, self._walls
        self._free += end - begin
        before = self._by_end.get(begin) if begin not in walls else None
        if end in ends and end not in walls:
            after = ends.pop(end)
            del self._since[end], self._by_end[after]
            at = bisect_left(starts, end)
            if before is None:
                starts[at] = begin
            else:
                del starts[at]
            end = after
        elif before is None:
            starts.insert(bisect_left(starts, begin), begin)
        if before is not None:
            del self._by_end[begin]
            begin = before
        self._is_hole(begin, end, since)

    def _carved(self, begin: int, end: int) -> int:
        """Take a range out of the holes; how much of it was free."""
        starts, ends = self._starts, self._ends
        at = bisect_right(starts, begin) - 1
        if at < 0 or ends[starts[at]] <= begin:
            at += 1
        covered = 0
        while at < len(starts) and starts[at] < end:
            start = starts[at]
            stop, since = ends[start], self._since[start]
            covered += min(stop, end) - max(start, begin)
            del self._by_end[stop]
            if start < begin:
                self._is_hole(start, begin, since)
                at += 1
                if stop > end:
                    starts.insert(at, end)
            else:
                del ends[start], self._since[start]
                if stop > end:
                    starts[at] = end
                else:
                    del starts[at]
            if stop > end:
                self._is_hole(end, stop, since)
                break
        self._free -= covered
        return covered

    def _is_hole(self, begin: int, end: int, since: int) -> None:
        """All that is known of a hole but its place in the order."""
        self._ends[begin], self._by_end[end], self._since[begin] = end, begin, since
        heapq.heappush(self._heap, (begin - end, begin))
        if len(self._heap) > 4 * len(self._starts) + _PORTION:
            self._heap = [(start - stop, start) for start, stop in self._ends.items()]
            heapq.heapify(self._heap)


def growth(size: int, free: int, largest: int) -> int:
    """Why memory of ``size`` had to be got, with so much free and the largest hole so large."""
    return NEEDED if free < size else MERGE_FAILURE if size > largest else REFUSED_REUSE


def _union(ranges: list[tuple[int, int]]) -> npt.NDArray[np.uint64]:
    found: list[list[int]] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1]:
            found[-1][1] = max(end, found[-1][1])
        else:
            found.append([begin, end])
    return np.array(found, np.uint64).reshape(-1, 2)

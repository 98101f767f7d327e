"""A Go process's heap as its own runtime keeps it, read from outside while it runs: counters, spans, and the page bitmap.

Nothing is stopped. What belongs together is read together (`HeapReader.snapshot`), and what changed meanwhile shows in the
counters before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gotrace.analysis.heap_pages import SPAN, HeapSnapshot
from gotrace.errors import TargetError

if TYPE_CHECKING:
    from gotrace.binary.heap import HeapPlaces
    from gotrace.kernel.memory import Memory

_U64 = (1 << 64) - 1
_GO_PAGE = 8192
_CHUNK = 4 << 20  # bytes of address space that one chunk of the page bitmap tells of
_CHUNK_BYTES = 128  # 512 bits "allocated", then 512 bits "scavenged"
_MOST_LINKS = 1 << 16  # of a list in the target's memory, which may be changed while it is followed
_MOST_ITEMS = 1 << 25
_STATS_SLOTS = 3
_NO_GOAL = _U64
_RETURNED = (
    ("returned_background", "released"),  # up to Go 1.20, which counts nothing else
    ("returned_background", "releasedBg"),
    ("returned_eager", "releasedEager"),
)


@dataclass(frozen=True)
class Counters:
    """The runtime's own counters, in bytes; names as in `runtime.MemStats` where it has them.

    What the scavenger has returned to the kernel since the program began, ``returned_background`` at its own pace and
    ``returned_eager`` while memory was allocated, counts neither debug.FreeOSMemory nor what was taken back since; with
    GODEBUG=scavtrace=1 it begins anew at each cycle. It is to return more until heap_inuse + heap_free is down to
    ``retained_goal`` and mapped_ready to ``mapped_goal``: None where it has nothing to do. All four are None if not known.
    """

    heap_alloc: int
    heap_inuse: int
    heap_free: int
    heap_released: int
    heap_live: int
    heap_marked: int
    next_gc: int
    stack_inuse: int
    workbufs: int
    pointer_bits: int
    stack_sys: int
    mspan_inuse: int
    mspan_sys: int
    mcache_inuse: int
    mcache_sys: int
    buckhash_sys: int
    gc_sys: int
    other_sys: int
    mapped_ready: int
    gc_percent: int
    memory_limit: int
    num_gc: int
    returned_background: int | None = None
    returned_eager: int | None = None
    retained_goal: int | None = None
    mapped_goal: int | None = None


class HeapReader:
    """Reads the heap of one process; ``bias`` is how far its executable was moved."""

    def __init__(self, places: HeapPlaces, memory: Memory, bias: int) -> None:
        self._at, self._memory, self._bias = places.offsets, memory, bias
        self._places = places
        self._levels: dict[int, int] = {}  # of the page bitmap's first level: they stay where they are

    def _global(self, name: str) -> int:
        return int(getattr(self._places, name)) + self._bias

    def counters(self) -> Counters:
        """Every counter, in one read. Raises TargetError or HostError."""
        at = self._at
        controller, stats, heap = self._global("gc_controller"), self._global("memstats"), self._global("mheap")
        delta = at["heapStatsDelta.sizeof"]
        begin = at["mstats.heapStats"]
        words = self._scavenger()
        controller_bytes, ring, sys, numgc, spans, caches, *rest = self._memory.read_many(
            [
                (controller, at["gcControllerState.mappedReady"] + 8),
                (stats + begin, _STATS_SLOTS * delta),
                (stats + at["mstats.stacks_sys"], 48),
                (stats + at["mstats.numgc"], 4),
                (heap + at["mheap.spanalloc.inuse"], 8),
                (heap + at["mheap.cachealloc.inuse"], 8),
                *((place, 8) for place in words.values()),
            ]
        )
        scavenger = {name: int.from_bytes(each, "little") for name, each in zip(words, rest, strict=True)}

        def of(field: str, size: int = 8) -> int:
            place = at[f"gcControllerState.{field}"]
            return int.from_bytes(controller_bytes[place : place + size], "little", signed=True)

        def summed(field: str) -> int:
            """The value is the sum of three slots, whichever of them is in use."""
            place = at.get(f"heapStatsDelta.{field}")
            if place is None:
                return 0
            parts = (ring[slot * delta + place : slot * delta + place + 8] for slot in range(_STATS_SLOTS))
            return sum(int.from_bytes(part, "little", signed=True) for part in parts)

        first = at["mstats.stacks_sys"]
        sys_of = {
            name: int.from_bytes(sys[at[f"mstats.{name}"] - first : at[f"mstats.{name}"] - first + 8], "little")
            for name in ("stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys")
        }
        stacks, workbufs, bits = summed("inStacks"), summed("inWorkBufs"), summed("inPtrScalarBits")
        return Counters(
            heap_alloc=of("totalAlloc") - of("totalFree"),
            heap_inuse=of("heapInUse"),
            heap_free=of("heapFree"),
            heap_released=of("heapReleased"),
            heap_live=of("heapLive"),
            heap_marked=of("heapMarked"),
            next_gc=of("lastHeapGoal"),
            stack_inuse=stacks,
            workbufs=workbufs,
            pointer_bits=bits,
            stack_sys=stacks + sys_of["stacks_sys"],
            mspan_inuse=int.from_bytes(spans, "little"),
            mspan_sys=sys_of["mspan_sys"],
            mcache_inuse=int.from_bytes(caches, "little"),
            mcache_sys=sys_of["mcache_sys"],
            buckhash_sys=sys_of["buckhash_sys"],
            gc_sys=sys_of["gcMiscSys"] + workbufs + bits,
            other_sys=sys_of["other_sys"],
            mapped_ready=of("mappedReady"),
            gc_percent=of("gcPercent", 4),
            memory_limit=of("memoryLimit"),
            num_gc=int.from_bytes(numgc, "little"),
            **{name: None if value == _NO_GOAL else value for name, value in scavenger.items()},
        )

    def _scavenger(self) -> dict[str, int]:
        """Where the scavenger's counters are, by their names in `Counters`."""
        heap = self._global("mheap")
        found = {
            name: heap + self._at[f"mheap.pages.scav.{field}"]
            for name, field in _RETURNED
            if f"mheap.pages.scav.{field}" in self._at
        }
        if self._places.scavenge:
            goals = self._global("scavenge")
            found |= {"retained_goal": goals, "mapped_goal": goals + 8}
        return found

    def snapshot(self) -> HeapSnapshot:
        """Spans, bitmap, caches of free pages and metadata, read one right after the other.

        The bitmap is read twice, around the spans: what is allocated at one time only was taken or freed meanwhile.
        """
        ranges = self._in_use()
        before = self._bitmap(ranges)
        spans = self._spans()
        after = self._bitmap(ranges)
        return HeapSnapshot(
            spans=spans,
            ranges=ranges,
            bitmap=[_settled(*both) for both in zip(before, after, strict=True)],
            caches=self._page_caches(),
            workbufs=self._workbufs(),
            metadata=self._metadata(ranges),
        )

    def grown(self, snapshot: HeapSnapshot) -> HeapSnapshot:
        """The same with what changed since: to be called after it was asked which pages are resident.

        What the heap and its metadata have grown by is added, and what was released and is allocated by now is told as
        taken: it may have been when the pages were looked at.
        """
        now = self._bitmap(snapshot.ranges)
        ranges = self._in_use()
        return replace(
            snapshot,
            bitmap=[_taken(*both) for both in zip(snapshot.bitmap, now, strict=True)],
            metadata=self._metadata(ranges),
            grown=ranges,
        )

    def _slice(self, address: int) -> tuple[int, int]:
        pointer, length = self._memory.words(address, 3)[:2].tolist()
        if length > _MOST_ITEMS:
            raise TargetError(
                f"the runtime's tables of process {self._memory.pid} make no sense", "try again, or report it"
            )
        return pointer, length

    def _spans(self) -> npt.NDArray[np.void]:
        """Every mspan that is in use or belongs to stacks and the like, in the order of address."""
        at = self._at
        pointer, count = self._slice(self._global("mheap") + at["mheap.allspans"])
        addresses = np.sort(self._memory.words(pointer, count)) if count else np.zeros(0, np.uint64)
        size = at["mspan.sizeof"]
        # Spans lie next to one another in what they were carved from: neighbours are read as one piece.
        breaks = np.flatnonzero(np.diff(addresses) != size) + 1
        pieces = np.split(addresses, breaks) if len(addresses) else []
        raw = self._memory.read_many([(int(piece[0]), size * len(piece)) for piece in pieces])
        data = np.frombuffer(b"".join(raw), np.uint8).reshape(-1, size)

        def column(name: str, dtype: str) -> npt.NDArray[np.int64]:
            begin = at[f"mspan.{name}"]
            width = np.dtype(dtype).itemsize
            values: npt.NDArray[np.int64] = (
                np.ascontiguousarray(data[:, begin : begin + width]).view(dtype)[:, 0].astype("<i8")
            )
            return values

        spans = np.zeros(len(data), SPAN)
        spans["begin"], spans["pages"] = column("startAddr", "<i8"), column("npages", "<i8")
        spans["state"], spans["class"] = column("state", "u1"), column("spanclass", "u1") >> 1
        spans["element"], spans["used"] = column("elemsize", "<i8"), column("allocCount", "<u2")
        spans["elements"] = column("nelems", "<u2" if self._places.narrow_nelems else "<i8")
        spans["limit"] = column("limit", "<i8")
        alive = spans[(spans["state"] > 0) & (spans["pages"] > 0)]
        return alive[np.argsort(alive["begin"], kind="stable")]

    def _in_use(self) -> npt.NDArray[np.uint64]:
        """The address ranges of the heap: shape (n, 2), begin and end."""
        pointer, count = self._slice(self._global("mheap") + self._at["mheap.pages.inUse.ranges"])
        # offAddr: addresses are kept as they are, whatever they are counted from
        words: npt.NDArray[np.uint64] = self._memory.words(pointer, 2 * count).reshape(-1, 2)
        return words

    def _bitmap(self, ranges: npt.NDArray[np.uint64]) -> list[bytes]:
        """For each range the bitmap's chunks from its first to its last."""
        chunks = self._global("mheap") + self._at["mheap.pages.chunks"]
        base = self._places.arena_base
        found = []
        for begin, end in ranges.tolist():
            first, last = ((address - base & _U64) // _CHUNK for address in (begin, end - 1))
            places = [(self._chunk(chunks, number), _CHUNK_BYTES) for number in range(first, last + 1)]
            found.append(b"".join(self._memory.read_many(places)))
        return found

    def _chunk(self, chunks: int, number: int) -> int:
        if number >> 13 not in self._levels:
            self._levels[number >> 13] = self._memory.word(chunks + 8 * (number >> 13))
        return self._levels[number >> 13] + _CHUNK_BYTES * (number & 8191)

    def _page_caches(self) -> npt.NDArray[np.uint64]:
        """The free pages that each P has taken: shape (n, 3): base, which of 64 pages, which of them are scavenged."""
        if not self._places.allp:
            return np.zeros((0, 3), np.uint64)
        pointer, count = self._slice(self._global("allp"))
        at = self._at
        cache = at["p.pcache"]
        places = [(int(p) + cache, 24) for p in self._memory.words(pointer, count)] if count else []
        rows = [np.frombuffer(each, "<u8") for each in self._memory.read_many(places)]
        order = [at[f"pageCache.{name}"] // 8 for name in ("base", "cache", "scav")]
        return np.array([row[order] for row in rows], np.uint64).reshape(-1, 3)

    def lacks_processors(self) -> str:
        """Why `processors` can tell nothing of this program; "" if it can."""
        if not self._places.allp:
            return self._places.missing.get("allp", "allp was not found")
        unknown = [name for name in ("p.id", "p.m", "m.procid") if name not in self._at]
        return f"the place of {unknown[0]} in {self._places.go_version} is not known" if unknown else ""

    def processors(self) -> list[tuple[int, int]]:
        """The number of each P and that of its thread, as the thread itself has it (gettid); 0 for a P without one.

        A P is without a thread while it is idle or stopped, up to Go 1.25 also in a system call. The threads are read a
        moment after the Ps: one may have given its P away meanwhile. Raises TargetError or HostError.
        """
        pointer, count = self._slice(self._global("allp"))
        at = self._at
        last = max(at["p.id"], at["p.m"]) + 8
        heads = self._memory.read_many([(int(p), last) for p in self._memory.words(pointer, count)])

        def of(head: bytes, field: str, size: int) -> int:
            return int.from_bytes(head[at[field] : at[field] + size], "little")

        machines = [of(head, "p.m", 8) for head in heads]
        running = [machine for machine in machines if machine]
        threads = self._memory.read_many([(machine + at["m.procid"], 8) for machine in running])
        thread_of = {machine: int.from_bytes(word, "little") for machine, word in zip(running, threads, strict=True)}
        return [(of(head, "p.id", 4), thread_of.get(machine, 0)) for head, machine in zip(heads, machines, strict=True)]

    def _workbufs(self) -> npt.NDArray[np.uint64]:
        """Where the spans of GC work buffers begin: two lists, of those free and those busy."""
        lists = self._global("work") + self._at["workType.wbufSpans"]
        following, begins = self._at["mspan.next"], self._at["mspan.startAddr"]
        found = []
        for head in (lists + 8, lists + 16 + 8):
            found += [self._memory.word(span + begins) for span in self._linked(head, following)]
        return np.array(sorted(found), np.uint64)

    def _linked(self, head: int, following: int) -> Iterator[int]:
        """The items of a list: ``head`` is where its first one's address is, ``following`` where in each the next one's."""
        item = self._memory.word(head)
        for _ in range(_MOST_LINKS):
            if not item:
                return
            yield item
            item = self._memory.word(item + following)

    def _metadata(self, ranges: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """What the runtime keeps outside of the heap about it: shape (n, 2), begin and end, in the order of address."""
        found: list[tuple[int, int]] = []
        heap, at = self._global("mheap"), self._at
        if self._places.persistent_chunks:
            found += [(chunk, chunk + (256 << 10)) for chunk in self._linked(self._global("persistent_chunks"), 0)]
        if self._places.gc_bits_arenas:
            for place in (8, 16, 24, 32):
                arenas = self._linked(self._global("gc_bits_arenas") + place, 8)
                found += [(arena, arena + (64 << 10)) for arena in arenas]
        for level in range(5):
            pointer, _, capacity = self._memory.words(heap + at["mheap.pages.summary"] + 24 * level, 3).tolist()
            found.append((pointer, pointer + 8 * capacity))
        for name, size in (("pages.scav.index.chunks", 8), ("allspans", 8), ("allArenas", 4), ("heapArenas", 4)):
            if f"mheap.{name}" in at:
                pointer, _, capacity = self._memory.words(heap + at[f"mheap.{name}"], 3).tolist()
                found.append((pointer, pointer + size * capacity))
        chunks = self._memory.words(heap + at["mheap.pages.chunks"], 8192)
        found += [(int(level), int(level) + 8192 * _CHUNK_BYTES) for level in chunks if level]
        table = self._memory.word(heap + at["mheap.arenas"])
        if table:
            found.append((table, table + 8 * (4 << 20)))
            found += self._arenas(table, ranges)
        return np.array(sorted(each for each in found if each[0] and each[1] > each[0]), np.uint64).reshape(-1, 2)

    def _arenas(self, table: int, ranges: npt.NDArray[np.uint64]) -> list[tuple[int, int]]:
        """The descriptions of the heap's arenas (64 MiB each), from the table by address."""
        base, size = self._places.arena_base, self._at["heapArena.sizeof"]
        numbers = sorted(
            {(address - base & _U64) >> 26 for begin, end in ranges.tolist() for address in range(begin, end, 64 << 20)}
            | {(end - 1 - base & _U64) >> 26 for _, end in ranges.tolist()}
        )
        pointers = [self._memory.word(table + 8 * number) for number in numbers]
        return [(pointer, pointer + size) for pointer in pointers if pointer]


def _settled(before: bytes, after: bytes) -> bytes:
    """Chunks of the page bitmap in which only those pages are allocated that are so before and after.

    The others are free or released as they were when they were not.
    """
    old, new = _halves(before), _halves(after)
    allocated = old[:, 0] & new[:, 0]
    scavenged = (new[:, 1] & ~new[:, 0]) | (old[:, 1] & ~old[:, 0] & new[:, 0])
    return np.stack([allocated, scavenged], axis=1).tobytes()


def _taken(then: bytes, now: bytes) -> bytes:
    """Chunks of the page bitmap in which that is allocated too which was released then and is allocated now."""
    old, new = _halves(then), _halves(now)
    return np.stack([old[:, 0] | (old[:, 1] & new[:, 0]), old[:, 1]], axis=1).tobytes()


def _halves(chunks: bytes) -> npt.NDArray[np.uint8]:
    """Of each chunk two rows of bits: which pages are allocated, and which scavenged."""
    return np.frombuffer(chunks, np.uint8).reshape(-1, 2, _CHUNK_BYTES // 2)

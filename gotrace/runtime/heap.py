"""A Go process's heap as its own runtime keeps it, read from outside while it runs: counters, spans, and the page bitmap.

Nothing is stopped. What belongs together is read together (`HeapReader.snapshot`), and what changed in between shows in the
counters before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
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
_CHUNK = 4 << 20  # bytes of address space that one chunk of the page bitmap covers
_LEVEL = 8192  # chunks that a word of the page bitmap's first level leads to
_CHUNK_BYTES = 128  # 512 bits "allocated", then 512 bits "scavenged"
_MOST_LINKS = 1 << 16  # of a list in the target's memory, which may be changed while it is followed
_MOST_ITEMS = 1 << 25
_STATS_SLOTS = 3
_BUCKETS = 8 * 179_999  # bytes of the table by which profiles find their stacks: buckHashSize of runtime/mprof.go
_BATCH = 8192  # mspans that are read at once: 1.3 MB
_NO_GOAL = _U64
# The fields of SPAN as an mspan has them.
_MSPAN = {
    "begin": ("startAddr", "<i8"),
    "pages": ("npages", "<i8"),
    "state": ("state", "u1"),
    "class": ("spanclass", "u1"),
    "element": ("elemsize", "<i8"),
    "elements": ("nelems", "<u2"),
    "used": ("allocCount", "<u2"),
    "limit": ("limit", "<i8"),
}
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
    ``retained_goal`` and mapped_ready to ``mapped_goal``: None where it has nothing to do. All four are None if unknown.
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
    total_alloc: int | None = None


class HeapReader:
    """Reads the heap of one process; ``bias`` is how far its executable was moved."""

    def __init__(self, places: HeapPlaces, memory: Memory, bias: int) -> None:
        self._at, self._memory, self._bias = places.offsets, memory, bias
        self._places = places
        self._levels: dict[int, int] = {}  # of the page bitmap's first level: they stay where they are
        self._chunks: list[int] = []  # of persistent memory, the oldest first: they stay too

    @cached_property
    def _mspan(self) -> np.dtype[np.void]:
        """An mspan with what of it is of interest, named as in `SPAN`."""
        fields = dict(_MSPAN)
        if not self._places.narrow_nelems:
            fields["elements"] = "nelems", "<u8"
        return np.dtype(
            {
                "names": list(fields),
                "offsets": [self._at[f"mspan.{name}"] for name, _ in fields.values()],
                "formats": [kind for _, kind in fields.values()],
                "itemsize": self._at["mspan.sizeof"],
            }
        )

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
            total_alloc=of("totalAlloc"),
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

        The bitmap is read twice, around the spans: what is allocated at one time only was taken or freed in between.
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
            raise self._inconsistent()
        return pointer, length

    def _inconsistent(self) -> TargetError:
        return TargetError(
            f"the runtime's tables in process {self._memory.pid} are inconsistent", "try again, or report it"
        )

    def _spans(self) -> npt.NDArray[np.void]:
        """Every mspan that is in use or belongs to stacks and the like, in the order in which the runtime made them.

        They lie next to one another in what they were carved from (runtime/mfixalloc.go), and are never given back: what
        is contiguous is read as one piece, and a batch of pieces is taken apart while it is in the processor's cache.
        """
        at = self._at
        pointer, count = self._slice(self._global("mheap") + at["mheap.allspans"])
        addresses = self._memory.words(pointer, count)
        if not addresses.all():
            addresses = addresses[addresses != 0]  # the list is made longer before the span is put there
        size, total = at["mspan.sizeof"], len(addresses)
        begins = np.ones(total, bool)
        begins[1:] = np.diff(addresses) != size
        begins[::_BATCH] = True
        firsts = np.flatnonzero(begins)
        pieces = np.stack([addresses[firsts], np.diff(firsts, append=total).astype(np.uint64) * np.uint64(size)], axis=1)
        room = np.empty(min(total, _BATCH) * size, np.uint8)
        spans, found = np.zeros(total, SPAN), 0
        for begin in range(0, total, _BATCH):
            length = min(_BATCH, total - begin)
            here = slice(*np.searchsorted(firsts, [begin, begin + length]))
            self._memory.read_into(pieces[here], room[: length * size])
            raw = room[: length * size].view(self._mspan)
            alive = (raw["state"] > 0) & (raw["pages"] > 0)
            if not alive.all():
                raw = raw[alive]
            into = spans[found : found + len(raw)]
            for name in SPAN.names or ():
                into[name] = raw[name]
            into["class"] >>= 1  # the lowest bit: whether there are no pointers in it
            found += len(raw)
        return spans[:found]

    def _in_use(self) -> npt.NDArray[np.uint64]:
        """The address ranges of the heap: shape (n, 2), begin and end."""
        pointer, count = self._slice(self._global("mheap") + self._at["mheap.pages.inUse.ranges"])
        # offAddr: addresses are kept as they are, whatever they are counted from
        words: npt.NDArray[np.uint64] = self._memory.words(pointer, 2 * count)
        if (words[1:] < words[:-1]).any():
            raise self._inconsistent()  # read while a range was put between others
        return words.reshape(-1, 2)

    def _bitmap(self, ranges: npt.NDArray[np.uint64]) -> list[bytes]:
        """For each range the bitmap's chunks from its first to its last."""
        base = self._places.arena_base
        found = []
        for begin, end in ranges.tolist():
            first, last = ((address - base & _U64) // _CHUNK for address in (begin, end - 1))
            pieces = []
            while first <= last:  # what one word of the first level leads to is contiguous
                number, at = divmod(first, _LEVEL)
                length = min(last - first + 1, _LEVEL - at)
                pieces.append((self._level(number) + _CHUNK_BYTES * at, _CHUNK_BYTES * length))
                first += length
            found.append(b"".join(self._memory.read_many(pieces)))
        return found

    def _level(self, number: int) -> int:
        if number not in self._levels:
            self._levels[number] = self._memory.word(self._global("mheap") + self._at["mheap.pages.chunks"] + 8 * number)
        return self._levels[number]

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
        """Why `processors` cannot work for this program; "" if it can."""
        if not self._places.allp:
            return self._places.missing.get("allp", "allp was not found")
        unknown = [name for name in ("p.id", "p.m", "m.procid") if name not in self._at]
        return f"the offset of {unknown[0]} in {self._places.go_version} is unknown" if unknown else ""

    def processors(self) -> list[tuple[int, int]]:
        """The number of each P and that of its thread, as the thread itself has it (gettid); 0 for a P without one.

        A P is without a thread while it is idle or stopped, up to Go 1.25 also in a system call. The threads are read a
        moment after the Ps: one may have given its P away in between. Raises TargetError or HostError.
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

    def gomaxprocs(self) -> int | None:
        """How many Ps there are; None where they were not found. Raises TargetError or HostError."""
        return self._slice(self._global("allp"))[1] if self._places.allp else None

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

    def _persistent_chunks(self) -> list[int]:
        """The chunks from which memory is cut that is never given back: a list to whose head new ones are added."""
        known = self._chunks[-1] if self._chunks else 0
        more = list(takewhile(lambda chunk: chunk != known, self._linked(self._global("persistent_chunks"), 0)))
        self._chunks += reversed(more)
        return self._chunks

    def _metadata(self, ranges: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """What the runtime keeps outside of the heap about it: shape (n, 2), begin and end, in the order of address."""
        found: list[tuple[int, int]] = []
        heap, at = self._global("mheap"), self._at
        if self._places.persistent_chunks:
            found += [(chunk, chunk + (256 << 10)) for chunk in self._persistent_chunks()]
        if self._places.gc_bits_arenas:
            for place in (8, 16, 24, 32):
                arenas = self._linked(self._global("gc_bits_arenas") + place, 8)
                found += [(arena, arena + (64 << 10)) for arena in arenas]
        if self._places.buckhash and (table := self._memory.word(self._global("buckhash"))):
            found.append((table, table + _BUCKETS))  # nearly as many pages as there are different stacks that allocate
        for level in range(5):
            pointer, _, capacity = self._memory.words(heap + at["mheap.pages.summary"] + 24 * level, 3).tolist()
            found.append((pointer, pointer + 8 * capacity))
        for name, size in (("pages.scav.index.chunks", 8), ("allspans", 8), ("allArenas", 4), ("heapArenas", 4)):
            if f"mheap.{name}" in at:
                pointer, _, capacity = self._memory.words(heap + at[f"mheap.{name}"], 3).tolist()
                found.append((pointer, pointer + size * capacity))
        levels = self._memory.words(heap + at["mheap.pages.chunks"], 8192)
        found += [(level, level + _LEVEL * _CHUNK_BYTES) for level in levels[levels != 0].tolist()]
        table = self._memory.word(heap + at["mheap.arenas"])
        if table:
            found.append((table, table + 8 * (4 << 20)))
            found += self._arenas(table, ranges)
        return np.array(sorted(each for each in found if each[0] and each[1] > each[0]), np.uint64).reshape(-1, 2)

    def _arenas(self, table: int, ranges: npt.NDArray[np.uint64]) -> list[tuple[int, int]]:
        """The descriptions of the heap's arenas (64 MiB each), from the table by address."""
        base, size = self._places.arena_base, self._at["heapArena.sizeof"]
        pointers: set[int] = set()
        for begin, end in ranges.tolist():
            first, last = ((address - base & _U64) >> 26 for address in (begin, end - 1))
            pointers |= set(self._memory.words(table + 8 * first, last - first + 1).tolist())
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

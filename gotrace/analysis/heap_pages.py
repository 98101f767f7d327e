"""Each resident page of a Go process in exactly one class: what RSS consists of.

Pure functions over arrays: a snapshot of the runtime's own books, the ranges that are resident, and the mappings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

GO_PAGE = 8192
# A span, in 40 bytes: a heap may have millions of them.
SPAN = np.dtype(
    {
        "names": ["begin", "pages", "state", "class", "element", "elements", "used", "limit"],
        "formats": ["<i8", "<i8", "u1", "u1", "<i8", "<u2", "<u2", "<i8"],
        "offsets": [0, 8, 36, 37, 16, 32, 34, 24],
        "itemsize": 40,
    }
)
# state: mSpanState, 1 in use, 2 for stacks, work buffers and the like; class: the size class, 0 for a large object;
# limit: where its objects end, of a large one where what was asked for ends.
_IN_USE = 1
_HUGE = 1 << 6  # of the ranges that are resident: PAGE_IS_HUGE of include/uapi/linux/fs.h
_CHUNK_BYTES, _CHUNK = 128, 4 << 20
_PIECE = np.dtype([("begin", "<i8"), ("end", "<i8"), ("part", "i1"), ("huge", "?")])
_CLASSES = 128  # more than any release has
_BATCH = 1 << 14
_C_ARENA, _MOST_GUARD = 64 << 20, 64 << 10

# The classes, in the order in which they are shown.
LIVE, WASTE, FREE, RELEASED = "live objects", "span waste", "free", "released, still resident"
STACKS, WORKBUFS, PADDING = "stacks", "GC work buffers", "heap without a span"
METADATA, BINARY, BSS, FILES = "runtime metadata", "binary", "data and bss", "files and libraries"
C_HEAP, OTHER = "C heap and thread stacks", "unexplained"
PARTS = (LIVE, WASTE, FREE, RELEASED, STACKS, WORKBUFS, PADDING, METADATA, BINARY, BSS, FILES, C_HEAP, OTHER)

WHY = {
    LIVE: "objects reachable now or at the last GC",
    WASTE: "fragmentation: unused space in spans in use",
    FREE: "kept for later allocations; the scavenger returns it gradually",
    RELEASED: "returned to the kernel but still resident (huge pages, madvdontneed=0)",
    STACKS: "goroutines",
    WORKBUFS: "the garbage collector's queues",
    PADDING: "allocated during the snapshot; since Go 1.26 also the random offset of the first arena",
    METADATA: "the runtime's own spans, bitmaps and tables",
    BINARY: "the executable's code and constants",
    BSS: "the executable's variables",
    FILES: "shared libraries and mapped files",
    C_HEAP: "C's malloc, thread stacks, kernel mappings",
    OTHER: "other anonymous mappings (mmap, large blocks of C's malloc)",
}


@dataclass(frozen=True)
class HeapSnapshot:
    """What the runtime knew at one moment. ``ranges`` and ``metadata``: begin and end; ``bitmap`` belongs to ``ranges``.

    ``caches``: base, which of 64 pages are free, which of them scavenged; ``workbufs``: begins of spans; ``grown``: ranges
    as they were later, with some that ``bitmap`` does not cover.
    """

    spans: npt.NDArray[np.void]
    ranges: npt.NDArray[np.uint64]
    bitmap: list[bytes]
    caches: npt.NDArray[np.uint64]
    workbufs: npt.NDArray[np.uint64]
    metadata: npt.NDArray[np.uint64]
    grown: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), np.uint64))


class VmaLike(Protocol):
    """What is read of a mapping (`gotrace.kernel.memory.Vma`)."""

    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def permissions(self) -> str: ...
    @property
    def path(self) -> str: ...


@dataclass(frozen=True)
class Pages:
    """Every resident page: its ``address`` (ascending) and its ``part`` (index into `PARTS`).

    A page of a span that is in use has the part `LIVE`; ``live`` is the share of its span that objects take, 1 elsewhere.
    ``size`` is how many bytes each is: the kernel's page, or the runtime's where that is smaller, for then each part of a
    kernel page may be something else.
    """

    address: npt.NDArray[np.int64]
    part: npt.NDArray[np.int8]
    live: npt.NDArray[np.float64]
    size: int = 4096


@dataclass(frozen=True)
class Heap:
    """What each of the heap's pages is for, resident or not: ``part``, and ``live`` as in `Pages`, but 0 outside of spans.

    ``begins`` and ``ends`` are the heap's ranges, whose pages stand one after the other: those of each from ``firsts`` on.
    """

    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    part: npt.NDArray[np.int8]
    live: npt.NDArray[np.float64]

    def range_of(self, addresses: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Which range each address is in, and whether it is in one at all."""
        if not len(self.begins):
            return np.zeros(len(addresses), np.int64), np.zeros(len(addresses), bool)
        found = np.maximum(np.searchsorted(self.begins, addresses, side="right") - 1, 0)
        return found, (addresses >= self.begins[found]) & (addresses < self.ends[found])


@dataclass(frozen=True)
class Resident:
    """All that is resident, in classes: how much of each page of ``heap``, and what lies elsewhere.

    ``counts`` and ``huge_counts`` are in pages of ``size`` bytes (as in `Pages`), ``huge_counts`` of what is in huge pages,
    mapped as such. ``elsewhere`` are ranges of one class each, from low to high.
    """

    heap: Heap
    counts: npt.NDArray[np.int8]
    huge_counts: npt.NDArray[np.int8]
    elsewhere: npt.NDArray[np.void]
    ranges: npt.NDArray[np.void]
    size: int

    @cached_property
    def pages(self) -> Pages:
        """One by one, which takes long for a large heap."""
        addresses = _pages(self.ranges, self.size)
        part, live = np.zeros(len(addresses), np.int8), np.ones(len(addresses))
        at, in_heap = self.heap.range_of(addresses)
        rest = addresses[~in_heap]
        part[~in_heap] = self.elsewhere["part"][np.searchsorted(self.elsewhere["begin"], rest, side="right") - 1]
        at, inside = at[in_heap], addresses[in_heap]
        places = self.heap.firsts[at] + (inside - self.heap.begins[at]) // GO_PAGE
        part[in_heap], live[in_heap] = self.heap.part[places], self.heap.live[places]
        live[part != _NUMBER[LIVE]] = 1
        return Pages(addresses, part, live, self.size)


_Owner = tuple[VmaLike, str, str]  # as `_by_mapping` gives them
_NUMBER = {name: number for number, name in enumerate(PARTS)}


def classify(
    snapshot: HeapSnapshot, resident: npt.NDArray[np.void], mappings: Sequence[VmaLike], exe: str, page: int
) -> Resident:
    """Each page of ``resident`` in one class.

    ``exe`` is the path of the executable as the mappings have it, ``page`` the kernel's page size.
    """
    size = min(page, GO_PAGE)
    heap = _heap(snapshot)
    owners = list(_by_mapping(mappings, exe))
    pieces = _cut(resident, (_bounds(owners), snapshot.metadata, snapshot.grown, snapshot.ranges), size)
    at, in_heap = heap.range_of(pieces["begin"])
    rest = pieces[~in_heap]
    rest["part"] = _owned(rest["begin"], owners)[1]
    rest["part"][_inside(rest["begin"], snapshot.metadata)] = _NUMBER[METADATA]
    rest["part"][_inside(rest["begin"], snapshot.grown)] = _NUMBER[PADDING]
    pieces, at = pieces[in_heap], at[in_heap]
    huge = pieces["huge"]
    counts, huge_counts = _counts(heap, pieces, at, size), _counts(heap, pieces[huge], at[huge], size)
    return Resident(heap, counts, huge_counts, rest, resident, size)


def sizes(resident: Resident) -> dict[str, int]:
    """RSS in bytes by class, every class of `PARTS`; they add up to all pages."""
    return _sizes(resident, resident.counts, resident.elsewhere)


def huge_sizes(resident: Resident) -> dict[str, int]:
    """The same of what is in huge pages."""
    return _sizes(resident, resident.huge_counts, resident.elsewhere[resident.elsewhere["huge"]])


def _sizes(resident: Resident, counts: npt.NDArray[np.int8], elsewhere: npt.NDArray[np.void]) -> dict[str, int]:
    found, live = np.zeros(len(PARTS)), 0.0
    for some in _batches(len(counts) if counts.any() else 0):
        weights = counts[some].astype(np.float64)
        found += np.bincount(resident.heap.part[some], weights, len(PARTS))
        live += float((resident.heap.live[some] * weights).sum())  # not @, whose threads wait for one another
    found *= resident.size
    np.add.at(found, elsewhere["part"], elsewhere["end"] - elsewhere["begin"])
    parts = dict(zip(PARTS, found.astype(np.int64).tolist(), strict=True))
    objects = round(live * resident.size)
    parts[LIVE], parts[WASTE] = objects, parts[LIVE] - objects
    return parts


def page_rounding(resident: Resident, page: int) -> int:
    """Bytes of the heap's free pages that cannot be returned alone: they share a kernel page with one that is in use.

    ``page`` is the kernel's page size. 0 where it is no larger than the runtime's (8 KiB).
    """
    if page <= GO_PAGE:
        return 0
    pages = resident.pages
    free, used = (
        np.isin(pages.part, [_NUMBER[name] for name in names])
        for names in ((FREE, RELEASED), (LIVE, STACKS, WORKBUFS, PADDING))
    )
    numbers = pages.address // page
    return int(np.count_nonzero(np.isin(numbers[free], numbers[used]))) * pages.size


def large_rounding(spans: npt.NDArray[np.void], resident: npt.NDArray[np.void]) -> int:
    """Resident bytes between the end of large objects, as they were asked for, and the end of their spans.

    The runtime counts them as the objects' (a large object's span is its own), and so does the class `LIVE`.
    """
    small = spans["class"] != 0
    large = spans[~small] if not small.all() else spans[:0]
    large = large[large["state"] == _IN_USE]
    ends, limits = large["begin"] + large["pages"] * GO_PAGE, large["limit"]
    shorter = (limits > large["begin"]) & (limits < ends)
    if not len(resident) or not shorter.any():
        return 0
    # How much is resident below an address: it grows inside of the ranges and stays the same between them.
    edges = np.stack([resident["begin"], resident["end"]], axis=1).astype(np.float64).reshape(-1)
    lengths = (resident["end"] - resident["begin"]).astype(np.float64)
    below = np.stack([np.cumsum(lengths) - lengths, np.cumsum(lengths)], axis=1).reshape(-1)
    upper, lower = (np.interp(places[shorter].astype(np.float64), edges, below) for places in (ends, limits))
    return round(float((upper - lower).sum()))


def _pages(resident: npt.NDArray[np.void], size: int) -> npt.NDArray[np.int64]:
    """The address of every resident page of ``size`` bytes, ascending."""
    begins, ends = (resident[name].astype(np.int64) for name in ("begin", "end"))
    counts = (ends - begins) // size
    firsts = np.repeat(begins - (np.cumsum(counts) - counts) * size, counts)
    pages: npt.NDArray[np.int64] = firsts + np.arange(int(counts.sum()), dtype=np.int64) * size
    return pages


def _cut(resident: npt.NDArray[np.void], bounds: Iterable[npt.NDArray[np.uint64]], size: int) -> npt.NDArray[np.void]:
    """The resident ranges in pieces, cut wherever one of ``bounds`` begins or ends; a page is where its first byte is."""
    begins, ends = (resident[name].astype(np.int64) for name in ("begin", "end"))
    cuts = [-(-each.astype(np.int64).reshape(-1) // size) * size for each in bounds]
    # Each of them ascends already; and np.unique of NumPy 2.3 and later hashes, which takes long for multiples of a page.
    edges = np.sort(np.concatenate([begins, ends, *cuts]), kind="stable")
    edges = edges[np.diff(edges, prepend=edges[:1] - 1) != 0]
    at = np.searchsorted(begins, edges[:-1], side="right") - 1
    inside = np.flatnonzero((at >= 0) & (edges[:-1] < ends[at])) if len(begins) else np.zeros(0, np.int64)
    found = np.zeros(len(inside), _PIECE)
    found["begin"], found["end"] = edges[inside], edges[inside + 1]
    found["huge"] = (resident["kind"][at[inside]] & _HUGE) != 0
    return found


def _counts(heap: Heap, pieces: npt.NDArray[np.void], at: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int8]:
    """How many pages of ``size`` bytes of each of the heap's pages are in ``pieces``, which are in the ranges ``at``."""
    if not len(pieces):
        return np.zeros(len(heap.part), np.int8)
    whole = GO_PAGE // size
    (begins, behind), (ends, before) = (
        np.divmod(heap.firsts[at] * whole + (pieces[name] - heap.begins[at]) // size, whole) for name in ("begin", "end")
    )
    # numpy adds at places quickly where both are of one type
    steps, wholes = np.zeros(len(heap.part) + 1, np.int8), np.full(len(pieces), whole, np.int8)
    np.add.at(steps, begins, wholes)
    np.subtract.at(steps, ends, wholes)
    found: npt.NDArray[np.int8] = np.cumsum(steps, dtype=np.int8)
    # of the pages in which they begin or end they have a part only
    np.subtract.at(found, begins, behind.astype(np.int8))
    np.add.at(found, ends, before.astype(np.int8))
    return found[:-1]


def _owned(addresses: npt.NDArray[np.int64], owners: list[_Owner]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """The number of the mapping that each address is in, and its class: 0 and `OTHER` where there is none."""
    begins, ends = _bounds(owners).T
    addresses = addresses.astype(np.uint64)  # [vsyscall] is in the upper half
    of = np.searchsorted(begins, addresses, side="right") - 1
    known = np.flatnonzero(of >= 0)
    known = known[addresses[known] < ends[of[known]]]
    part = np.full(len(addresses), _NUMBER[OTHER], np.int8)
    part[known] = np.array([_NUMBER[name] for _, name, _ in owners], np.int8)[of[known]]
    found = np.zeros(len(addresses), np.int64)
    found[known] = of[known]
    return found, part


def _bounds(owners: list[_Owner]) -> npt.NDArray[np.uint64]:
    return np.array([(mapping.begin, mapping.end) for mapping, _, _ in owners], np.uint64).reshape(-1, 2)


def _inside(addresses: npt.NDArray[np.int64], ranges: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which addresses lie in one of the ranges, which may overlap."""
    if not len(ranges):
        return np.zeros(len(addresses), bool)
    begins, ends = ranges[:, 0].astype(np.int64), np.maximum.accumulate(ranges[:, 1].astype(np.int64))
    at = np.searchsorted(begins, addresses, side="right") - 1
    found: npt.NDArray[np.bool_] = (at >= 0) & (addresses < ends[np.maximum(at, 0)])
    return found


def _heap(snapshot: HeapSnapshot) -> Heap:
    """What each page of the heap is for: a span's, or else what the page bitmap and the caches of free pages say."""
    begins, ends = snapshot.ranges.astype(np.int64).reshape(-1, 2).T
    counts = (ends - begins) // GO_PAGE
    firsts = np.cumsum(counts) - counts
    total = int(counts.sum())
    heap = Heap(begins, ends, firsts, np.full(total, _NUMBER[PADDING], np.int8), np.zeros(total))
    for first, begin, count, bits in zip(firsts.tolist(), begins.tolist(), counts.tolist(), snapshot.bitmap, strict=True):
        part = heap.part[first : first + count]
        allocated, scavenged = _bits_of(bits, begin, count)
        part[~allocated] = _NUMBER[FREE]
        part[~allocated & scavenged] = _NUMBER[RELEASED]
        for base, free, gone in snapshot.caches.tolist():
            at = (base - begin) // GO_PAGE
            for number in range(64 if begin <= base < begin + count * GO_PAGE else 0):
                if free >> number & 1 and at + number < count:
                    part[at + number] = _NUMBER[RELEASED if gone >> number & 1 else FREE]
    for some in _batches(len(snapshot.spans)):
        _paint(heap, snapshot.spans[some], snapshot.workbufs.astype(np.int64))
    return heap


def _paint(heap: Heap, spans: npt.NDArray[np.void], workbufs: npt.NDArray[np.int64]) -> None:
    """Put the spans on the heap's pages."""
    at, inside = heap.range_of(spans["begin"])
    if not inside.all():
        spans, at = spans[inside], at[inside]
    begin, pages, in_use = spans["begin"].copy(), spans["pages"].copy(), spans["state"] == _IN_USE
    part = np.where(in_use, np.int8(_NUMBER[LIVE]), np.int8(_NUMBER[STACKS]))
    manual = np.flatnonzero(~in_use)
    if len(manual):
        part[manual[np.isin(begin[manual], workbufs)]] = _NUMBER[WORKBUFS]
    live = np.clip(spans["used"] * spans["element"] / np.maximum(pages * GO_PAGE, 1), 0, 1) * in_use
    first = heap.firsts[at] + (begin - heap.begins[at]) // GO_PAGE
    pages = np.minimum(pages, (heap.ends[at] - begin) // GO_PAGE)
    single = pages == 1
    heap.part[first[single]], heap.live[first[single]] = part[single], live[single]
    rest = np.flatnonzero(~single)
    first, pages = first[rest], pages[rest]
    places = np.repeat(first - (np.cumsum(pages) - pages), pages) + np.arange(int(pages.sum()))
    heap.part[places], heap.live[places] = np.repeat(part[rest], pages), np.repeat(live[rest], pages)


def _bits_of(bits: bytes, begin: int, count: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(allocated, scavenged) of ``count`` pages from ``begin`` on; the bitmap starts with the chunk that has ``begin``."""
    chunks = np.frombuffer(bits, np.uint8).reshape(-1, _CHUNK_BYTES)
    skip = begin % _CHUNK // GO_PAGE
    halves = (chunks[:, : _CHUNK_BYTES // 2], chunks[:, _CHUNK_BYTES // 2 :])
    one, other = (
        np.unpackbits(np.ascontiguousarray(half).reshape(-1), bitorder="little")[skip : skip + count].astype(bool)
        for half in halves
    )
    return one, other


def _by_mapping(mappings: Sequence[VmaLike], exe: str) -> Iterable[_Owner]:
    """Each mapping with the class of its pages, and with what it is called: "" for one without name or known owner."""
    data = {each.end: (FILES, each.path) for each in mappings if each.path.startswith("/") and each.permissions == "rw-p"}
    data |= {each.end: (BSS, each.path) for each in mappings if each.path == exe}
    has_c = any(each.path.rpartition("/")[2].startswith("libc") for each in mappings)
    for before, mapping, after in zip([None, *mappings], mappings, [*mappings[1:], None], strict=False):
        name, label = _class_of(mapping, exe, data)
        owner = _owner_in_c(before, mapping, after) if name == OTHER and has_c else ""
        yield mapping, C_HEAP if owner else name, label or owner


def _owner_in_c(before: VmaLike | None, mapping: VmaLike, after: VmaLike | None) -> str:
    """What an anonymous mapping is if it looks as glibc makes them: a thread's stack or its part of malloc's heap.

    A stack is preceded by an inaccessible guard. Such a part begins at a multiple of 64 MiB, and up to the next it is
    the thread's: what is not needed yet is inaccessible (HEAP_MAX_SIZE in malloc/arena.c).
    """
    if not mapping.permissions.startswith("rw"):
        return ""
    guard = before if before is not None and before.end == mapping.begin else None
    if guard is not None and _is_closed(guard) and guard.end - guard.begin <= _MOST_GUARD:
        return "stacks of C threads"
    if mapping.begin % _C_ARENA:
        return ""
    left = -mapping.end % _C_ARENA
    closed = after is not None and after.begin == mapping.end and _is_closed(after) and after.end - after.begin >= left
    return "arenas of C's malloc" if not left or closed else ""


def _is_closed(mapping: VmaLike) -> bool:
    return mapping.permissions.startswith("---") and not mapping.path


def _class_of(mapping: VmaLike, exe: str, data: dict[int, tuple[str, str]]) -> tuple[str, str]:
    """(class, name); ``data`` has what lies behind the executable's own or a library's data, by where that ends."""
    if mapping.path == exe:
        return BSS if "w" in mapping.permissions else BINARY, mapping.path
    if mapping.path.startswith("/"):
        return FILES, mapping.path
    if mapping.path in ("[heap]", "[stack]") or mapping.path.startswith(("[vdso", "[vvar", "[vsyscall")):
        return C_HEAP, mapping.path
    return data.get(mapping.begin, (OTHER, mapping.path))


@dataclass(frozen=True)
class Region:
    """Mappings of one name, of which ``bytes`` are resident and of the class ``part``."""

    name: str
    part: str
    mappings: int
    bytes: int


def regions(resident: Resident, mappings: Sequence[VmaLike], exe: str) -> list[Region]:
    """What is not the Go runtime's or the executable's (`FILES`, `C_HEAP` and `OTHER`), by name or owner, largest first.

    An anonymous mapping that has neither is one by itself, and is called by its addresses.
    """
    owners = list(_by_mapping(mappings, exe))
    pieces = resident.elsewhere
    of, own = _owned(pieces["begin"], owners)
    mine = own == pieces["part"]  # what is not is the runtime's
    totals = np.bincount(of[mine], (pieces["end"] - pieces["begin"])[mine], len(owners)).astype(np.int64)
    found: dict[tuple[str, str], list[int]] = {}
    for (mapping, part, label), size in zip(owners, totals.tolist(), strict=True):
        if size and part in (FILES, C_HEAP, OTHER):
            name = label or f"anonymous {mapping.begin:x}-{mapping.end:x}"
            found.setdefault((name, part), []).append(size)
    every = [Region(name, part, len(each), sum(each)) for (name, part), each in found.items()]
    return sorted(every, key=lambda each: -each.bytes)


@dataclass(frozen=True)
class SizeClass:
    """All spans of one size class: bytes of spans, of objects, and of spans outside objects."""

    size: int
    spans: int
    bytes: int
    live: int

    @property
    def waste(self) -> int:
        return self.bytes - self.live


def size_classes(spans: npt.NDArray[np.void]) -> list[SizeClass]:
    """By what is wasted in them, most first; large objects (size 0) together."""
    elements = np.zeros(_CLASSES, np.int64)
    sums = np.zeros((3, _CLASSES))  # exact up to 8 PiB
    for some in _batches(len(spans)):
        batch = spans[some]
        in_use = batch["state"] == _IN_USE
        if not in_use.all():
            batch = batch[in_use]
        numbers, element = batch["class"].astype(np.intp), batch["element"].copy()
        elements[numbers] = element
        for row, weights in zip(sums, (None, batch["pages"], batch["used"] * element), strict=True):
            row += np.bincount(numbers, weights, _CLASSES)
    elements[0] = 0
    counts, pages, live = sums.astype(np.int64)
    rows = zip(elements.tolist(), counts.tolist(), (pages * GO_PAGE).tolist(), live.tolist(), strict=True)
    return sorted((SizeClass(*row) for row in rows if row[1]), key=lambda each: -each.waste)


def _batches(total: int) -> Iterator[slice]:
    """So many at a time that what is computed of them stays in the processor's cache."""
    for begin in range(0, total, _BATCH):
        yield slice(begin, min(begin + _BATCH, total))

"""Each resident page of a Go process in exactly one class: what RSS consists of.

Pure functions over arrays: a snapshot of the runtime's own books, the ranges that are resident, and the mappings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

GO_PAGE = 8192
SPAN = np.dtype(
    [
        ("begin", "<i8"),
        ("pages", "<i8"),
        ("state", "<i8"),  # mSpanState: 1 in use, 2 for stacks, work buffers and the like
        ("class", "<i8"),  # size class, 0 for a large object
        ("element", "<i8"),
        ("elements", "<i8"),
        ("used", "<i8"),
        ("limit", "<i8"),  # where its objects end; of a large one, where what was asked for ends
    ]
)
_IN_USE = 1
_HUGE = 1 << 6  # of the ranges that are resident: PAGE_IS_HUGE of include/uapi/linux/fs.h
_CHUNK_BYTES, _CHUNK = 128, 4 << 20
_C_ARENA, _MOST_GUARD = 64 << 20, 64 << 10

# The classes, in the order in which they are shown.
LIVE, WASTE, FREE, RELEASED = "live objects", "span waste", "free", "released, still resident"
STACKS, WORKBUFS, PADDING = "stacks", "GC work buffers", "heap without a span"
METADATA, BINARY, BSS, FILES = "runtime metadata", "binary", "data and bss", "files and libraries"
C_HEAP, OTHER = "C heap and thread stacks", "unexplained"
PARTS = (LIVE, WASTE, FREE, RELEASED, STACKS, WORKBUFS, PADDING, METADATA, BINARY, BSS, FILES, C_HEAP, OTHER)

WHY = {
    LIVE: "objects that are reachable, or were when the collector last looked",
    WASTE: "in spans that are in use, but no object's: fragmentation by size class",
    FREE: "free, and kept for later allocations; the scavenger returns it bit by bit",
    RELEASED: "returned to the kernel by the runtime's count, and resident all the same (huge pages, madvdontneed=0)",
    STACKS: "goroutines",
    WORKBUFS: "the collector's queues",
    PADDING: "taken while it was looked at; since Go 1.26 the random beginning of the first arena too",
    METADATA: "spans, bitmaps, tables: what the runtime keeps about the heap",
    BINARY: "the executable's code and constants",
    BSS: "the executable's variables",
    FILES: "shared libraries and mapped files",
    C_HEAP: "malloc of C code, thread stacks, the kernel's own pages",
    OTHER: "anonymous mappings that the runtime knows nothing of (mmap, large blocks of C's malloc)",
}


@dataclass(frozen=True)
class HeapSnapshot:
    """What the runtime knew at one moment. ``ranges`` and ``metadata``: begin and end; ``bitmap`` belongs to ``ranges``.

    ``caches``: base, which of 64 pages are free, which of them scavenged; ``workbufs``: begins of spans; ``grown``: ranges
    as they were later, with some that ``bitmap`` does not tell of.
    """

    spans: npt.NDArray[np.void]
    ranges: npt.NDArray[np.uint64]
    bitmap: list[bytes]
    caches: npt.NDArray[np.uint64]
    workbufs: npt.NDArray[np.uint64]
    metadata: npt.NDArray[np.uint64]
    grown: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), np.uint64))


class Mapping(Protocol):
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
    ``huge``: it is part of a huge page, mapped as one. ``size`` is how many bytes each is: the kernel's page, or the
    runtime's where that is smaller, for then each part of a kernel page may be something else.
    """

    address: npt.NDArray[np.int64]
    part: npt.NDArray[np.int8]
    live: npt.NDArray[np.float64]
    huge: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    size: int = 4096


_NUMBER = {name: number for number, name in enumerate(PARTS)}


def classify(
    snapshot: HeapSnapshot, resident: npt.NDArray[np.void], mappings: Sequence[Mapping], exe: str, page: int
) -> Pages:
    """Each page of ``resident`` in one class.

    ``exe`` is the path of the executable as the mappings have it, ``page`` the kernel's page size.
    """
    size = min(page, GO_PAGE)
    addresses, huge = _pages(resident, size)
    part = np.full(len(addresses), _NUMBER[OTHER], np.int8)
    live = np.ones(len(addresses))
    for mapping, name in _by_mapping(mappings, exe):
        part[slice(*np.searchsorted(addresses, [mapping.begin, mapping.end]))] = _NUMBER[name]
    part[_inside(addresses, snapshot.metadata)] = _NUMBER[METADATA]
    part[_inside(addresses, snapshot.grown)] = _NUMBER[PADDING]
    for (begin, end), bits in zip(snapshot.ranges.tolist(), snapshot.bitmap, strict=True):
        here = slice(*np.searchsorted(addresses, [begin, end]))
        parts_of, shares = _heap_range(snapshot, begin, end, bits)
        at = (addresses[here] - begin) // GO_PAGE
        part[here], live[here] = parts_of[at], shares[at]
    return Pages(addresses, part, live, huge, size)


def sizes(pages: Pages) -> dict[str, int]:
    """RSS in bytes by class, every class of `PARTS`; they add up to all pages."""
    return _sizes(pages.part, pages.live, pages.size)


def huge_sizes(pages: Pages) -> dict[str, int]:
    """The same of what is in huge pages."""
    return _sizes(pages.part[pages.huge], pages.live[pages.huge], pages.size)


def _sizes(part: npt.NDArray[np.int8], live: npt.NDArray[np.float64], size: int) -> dict[str, int]:
    counts = np.bincount(part, minlength=len(PARTS)) * size
    found = dict(zip(PARTS, counts.tolist(), strict=True))
    objects = round(float(live[part == _NUMBER[LIVE]].sum()) * size)
    found[WASTE], found[LIVE] = found[LIVE] - objects, objects
    return found


def page_rounding(pages: Pages, page: int) -> int:
    """Bytes of the heap's free pages that cannot be returned alone: they share a kernel page with one that is in use.

    ``page`` is the kernel's page size. 0 where it is no larger than the runtime's (8 KiB).
    """
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
    ends = spans["begin"] + spans["pages"] * GO_PAGE
    large = (
        (spans["state"] == _IN_USE) & (spans["class"] == 0) & (spans["limit"] > spans["begin"]) & (spans["limit"] < ends)
    )
    if not len(resident):
        return 0
    # How much is resident below an address: it grows inside of the ranges and stays the same between them.
    edges = np.stack([resident["begin"], resident["end"]], axis=1).astype(np.float64).reshape(-1)
    lengths = (resident["end"] - resident["begin"]).astype(np.float64)
    below = np.stack([np.cumsum(lengths) - lengths, np.cumsum(lengths)], axis=1).reshape(-1)
    upper, lower = (np.interp(places[large].astype(np.float64), edges, below) for places in (ends, spans["limit"]))
    return round(float((upper - lower).sum()))


def _pages(resident: npt.NDArray[np.void], size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The address of every resident page of ``size`` bytes, ascending, and whether it is in a huge page."""
    begins, ends = (resident[name].astype(np.int64) for name in ("begin", "end"))
    counts = (ends - begins) // size
    firsts = np.repeat(begins - np.concatenate([[0], np.cumsum(counts)[:-1]]) * size, counts)
    pages: npt.NDArray[np.int64] = firsts + np.arange(int(counts.sum()), dtype=np.int64) * size
    return pages, np.repeat((resident["kind"] & _HUGE) != 0, counts)


def _inside(addresses: npt.NDArray[np.int64], ranges: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which addresses lie in one of the ranges, which may overlap."""
    if not len(ranges):
        return np.zeros(len(addresses), bool)
    begins, ends = ranges[:, 0].astype(np.int64), np.maximum.accumulate(ranges[:, 1].astype(np.int64))
    at = np.searchsorted(begins, addresses, side="right") - 1
    found: npt.NDArray[np.bool_] = (at >= 0) & (addresses < ends[np.maximum(at, 0)])
    return found


def _heap_range(
    snapshot: HeapSnapshot, begin: int, end: int, bits: bytes
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """(part, share of live objects) of each Go page from ``begin`` to ``end``."""
    count = (end - begin) // GO_PAGE
    part = np.full(count, _NUMBER[PADDING], np.int8)
    share = np.ones(count)
    allocated, scavenged = _bits_of(bits, begin, count)
    part[~allocated] = _NUMBER[FREE]
    part[~allocated & scavenged] = _NUMBER[RELEASED]
    for base, free, gone in snapshot.caches.tolist():
        first = (base - begin) // GO_PAGE
        for number in range(64 if begin <= base < end else 0):
            if free >> number & 1 and first + number < count:
                part[first + number] = _NUMBER[RELEASED if gone >> number & 1 else FREE]
    spans = snapshot.spans[(snapshot.spans["begin"] >= begin) & (snapshot.spans["begin"] < end)]
    first = (spans["begin"] - begin) // GO_PAGE
    lengths = np.minimum(spans["pages"], count - first)
    places = np.repeat(first - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(int(lengths.sum()))
    is_workbuf = np.isin(spans["begin"], snapshot.workbufs.astype(np.int64))
    manual = np.where(is_workbuf, _NUMBER[WORKBUFS], _NUMBER[STACKS])
    part[places] = np.repeat(np.where(spans["state"] == _IN_USE, _NUMBER[LIVE], manual), lengths)
    live = np.clip(spans["used"] * spans["element"] / np.maximum(spans["pages"] * GO_PAGE, 1), 0, 1)
    share[places] = np.repeat(np.where(spans["state"] == _IN_USE, live, 1), lengths)
    return part, share


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


def _by_mapping(mappings: Sequence[Mapping], exe: str) -> Iterable[tuple[Mapping, str]]:
    ends = {each.end: FILES for each in mappings if each.path.startswith("/") and each.permissions == "rw-p"}
    ends |= {each.end: BSS for each in mappings if each.path == exe}
    has_c = any(each.path.rpartition("/")[2].startswith("libc") for each in mappings)
    for before, mapping, after in zip([None, *mappings], mappings, [*mappings[1:], None], strict=False):
        name = _class_of(mapping, exe, ends)
        yield mapping, C_HEAP if name == OTHER and has_c and _is_of_c(before, mapping, after) else name


def _is_of_c(before: Mapping | None, mapping: Mapping, after: Mapping | None) -> bool:
    """Whether an anonymous mapping looks as glibc makes them: a thread's stack or a thread's part of malloc's heap.

    A stack lies behind a guard that nobody may access. Such a part begins at a multiple of 64 MiB, and up to the next it is
    the thread's: what is not needed yet nobody may access (HEAP_MAX_SIZE in malloc/arena.c).
    """
    if not mapping.permissions.startswith("rw"):
        return False
    guard = before if before is not None and before.end == mapping.begin else None
    if guard is not None and _is_closed(guard) and guard.end - guard.begin <= _MOST_GUARD:
        return True
    if mapping.begin % _C_ARENA:
        return False
    left = -mapping.end % _C_ARENA
    return not left or (
        after is not None and after.begin == mapping.end and _is_closed(after) and after.end - after.begin >= left
    )


def _is_closed(mapping: Mapping) -> bool:
    return mapping.permissions.startswith("---") and not mapping.path


def _class_of(mapping: Mapping, exe: str, ends: dict[int, str]) -> str:
    if mapping.path == exe:
        return BSS if "w" in mapping.permissions else BINARY
    if mapping.path.startswith("/"):
        return FILES
    if mapping.path in ("[heap]", "[stack]") or mapping.path.startswith(("[vdso", "[vvar", "[vsyscall")):
        return C_HEAP
    return ends.get(mapping.begin, OTHER)  # anonymous, right behind the executable's own or a library's data


@dataclass(frozen=True)
class SizeClass:
    """All spans of one size class: bytes of spans, of objects, and what of the former is no object's."""

    size: int
    spans: int
    bytes: int
    live: int

    @property
    def waste(self) -> int:
        return self.bytes - self.live


def size_classes(spans: npt.NDArray[np.void]) -> list[SizeClass]:
    """By what is wasted in them, most first; large objects (size 0) together."""
    in_use = spans[spans["state"] == _IN_USE]
    found = []
    for number in np.unique(in_use["class"]).tolist():
        of_it = in_use[in_use["class"] == number]
        size = int(of_it["element"][0]) if number else 0
        live = int((of_it["used"] * of_it["element"]).sum())
        found.append(SizeClass(size, len(of_it), int(of_it["pages"].sum()) * GO_PAGE, live))
    return sorted(found, key=lambda each: -each.waste)

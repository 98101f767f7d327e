"""Each resident page of a Go process in exactly one class: what RSS consists of.

Pure functions over arrays: a snapshot of the runtime's own books, the ranges that are resident, and the mappings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    ]
)
_IN_USE, _MANUAL = 1, 2
_CHUNK_BYTES, _CHUNK = 128, 4 << 20

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
    OTHER: "anonymous mappings that the runtime knows nothing of",
}


@dataclass(frozen=True)
class HeapSnapshot:
    """What the runtime knew at one moment. ``ranges`` and ``metadata``: begin and end; ``bitmap`` belongs to ``ranges``.

    ``caches``: base, which of 64 pages are free, which of them scavenged; ``workbufs``: begins of spans.
    """

    spans: npt.NDArray[np.void]
    ranges: npt.NDArray[np.uint64]
    bitmap: list[bytes]
    caches: npt.NDArray[np.uint64]
    workbufs: npt.NDArray[np.uint64]
    metadata: npt.NDArray[np.uint64]


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


# States of the heap's pages.
_FREE, _SCAVENGED, _SPAN, _STACK, _WORKBUF, _PADDING = range(6)
_OF_STATE = {_FREE: FREE, _SCAVENGED: RELEASED, _STACK: STACKS, _WORKBUF: WORKBUFS, _PADDING: PADDING}


def split(
    snapshot: HeapSnapshot, resident: npt.NDArray[np.void], mappings: Sequence[Mapping], exe: str, page: int
) -> dict[str, int]:
    """RSS in bytes by class, every class of `PARTS`; the sum is the size of ``resident`` to the byte.

    ``exe`` is the path of the executable as the mappings have it, ``page`` the kernel's page size.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    addresses = _pages(resident, page)
    in_heap = np.zeros(len(addresses), bool)
    for (begin, end), bits in zip(snapshot.ranges.tolist(), snapshot.bitmap, strict=True):
        here = slice(*np.searchsorted(addresses, [begin, end]))
        in_heap[here] = True
        for name, size in _heap_range(snapshot, begin, end, bits, addresses[here], page).items():
            parts[name] += size
    rest = addresses[~in_heap]
    known = _inside(rest, snapshot.metadata)
    parts[METADATA] += int(np.count_nonzero(known)) * page
    rest = rest[~known]
    for name, size in _by_mapping(rest, mappings, exe, page):
        parts[name] += size
    total = len(addresses) * page
    whole = {name: round(size) for name, size in parts.items()}
    # Shares of a span are fractions of bytes: the last one goes where the first came from.
    whole[LIVE] += total - sum(whole.values())
    return whole


def _pages(resident: npt.NDArray[np.void], page: int) -> npt.NDArray[np.int64]:
    """The address of every resident page, ascending."""
    begins, ends = (resident[name].astype(np.int64) for name in ("begin", "end"))
    counts = (ends - begins) // page
    firsts = np.repeat(begins - np.concatenate([[0], np.cumsum(counts)[:-1]]) * page, counts)
    pages: npt.NDArray[np.int64] = firsts + np.arange(int(counts.sum()), dtype=np.int64) * page
    return pages


def _inside(addresses: npt.NDArray[np.int64], ranges: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which addresses lie in one of the ranges, which may overlap."""
    if not len(ranges):
        return np.zeros(len(addresses), bool)
    begins, ends = ranges[:, 0].astype(np.int64), np.maximum.accumulate(ranges[:, 1].astype(np.int64))
    at = np.searchsorted(begins, addresses, side="right") - 1
    found: npt.NDArray[np.bool_] = (at >= 0) & (addresses < ends[np.maximum(at, 0)])
    return found


def _heap_range(
    snapshot: HeapSnapshot, begin: int, end: int, bits: bytes, addresses: npt.NDArray[np.int64], page: int
) -> dict[str, float]:
    count = (end - begin) // GO_PAGE
    state = np.full(count, _PADDING, np.int8)
    allocated, scavenged = _bits_of(bits, begin, count)
    state[~allocated] = _FREE
    state[~allocated & scavenged] = _SCAVENGED
    for base, free, gone in snapshot.caches.tolist():
        if begin <= base < end:
            for number in range(64):
                if free >> number & 1 and (base - begin) // GO_PAGE + number < count:
                    state[(base - begin) // GO_PAGE + number] = _SCAVENGED if gone >> number & 1 else _FREE
    spans = snapshot.spans[(snapshot.spans["begin"] >= begin) & (snapshot.spans["begin"] < end)]
    share = np.zeros(count)
    first = (spans["begin"] - begin) // GO_PAGE
    lengths = np.minimum(spans["pages"], count - first)
    places = np.repeat(first - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(int(lengths.sum()))
    is_workbuf = np.isin(spans["begin"], snapshot.workbufs.astype(np.int64))
    kinds = np.where(spans["state"] == _IN_USE, _SPAN, np.where(is_workbuf, _WORKBUF, _STACK))
    state[places] = np.repeat(kinds, lengths)
    live = np.clip(spans["used"] * spans["element"] / np.maximum(spans["pages"] * GO_PAGE, 1), 0, 1)
    share[places] = np.repeat(live, lengths)
    at = (addresses - begin) // GO_PAGE
    found: dict[str, float] = {}
    for number, name in _OF_STATE.items():
        found[name] = float(np.count_nonzero(state[at] == number)) * page
    of_spans = at[state[at] == _SPAN]
    found[LIVE] = float(share[of_spans].sum()) * page
    found[WASTE] = len(of_spans) * page - found[LIVE]
    return found


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


def _by_mapping(
    addresses: npt.NDArray[np.int64], mappings: Sequence[Mapping], exe: str, page: int
) -> Iterable[tuple[str, int]]:
    ends_of_exe = {each.end for each in mappings if each.path == exe}
    for mapping in mappings:
        low, high = np.searchsorted(addresses, [mapping.begin, mapping.end])
        if high > low:
            yield _class_of(mapping, exe, ends_of_exe), int(high - low) * page


def _class_of(mapping: Mapping, exe: str, ends_of_exe: set[int]) -> str:
    if mapping.path == exe:
        return BSS if "w" in mapping.permissions else BINARY
    if mapping.path.startswith("/"):
        return FILES
    if mapping.path in ("[heap]", "[stack]") or mapping.path.startswith(("[vdso", "[vvar", "[vsyscall")):
        return C_HEAP
    if mapping.begin in ends_of_exe:  # anonymous, right behind the executable's own
        return BSS
    return OTHER


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

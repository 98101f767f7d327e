"""Pages in classes, from a heap that never was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.analysis import heap_pages
from gotrace.analysis.heap_pages import (
    GO_PAGE,
    PARTS,
    SPAN,
    HeapSnapshot,
    classify,
    huge_sizes,
    large_rounding,
    page_rounding,
    regions,
    size_classes,
    sizes,
)
from gotrace.kernel.memory import HUGE, RANGE, Vma
from gotrace.runtime.heap import _settled, _taken

HEAP = 0xC000000000
PAGE = 4096
LARGE_PAGE = 64 << 10
CHUNKS = 2  # of 4 MiB


def snapshot(spans=(), allocated=(), scavenged=(), caches=(), workbufs=(), metadata=()):
    """``allocated`` and ``scavenged``: numbers of the heap's pages."""
    bits = np.zeros((2, CHUNKS * 512), np.uint8)
    bits[0, list(allocated)] = 1
    bits[1, list(scavenged)] = 1
    packed = [np.packbits(each.reshape(CHUNKS, 512), axis=1, bitorder="little") for each in bits]
    return HeapSnapshot(
        spans=np.array(list(spans), SPAN),
        ranges=np.array([[HEAP, HEAP + CHUNKS * (4 << 20)]], np.uint64),
        bitmap=[np.concatenate(packed, axis=1).tobytes()],
        caches=np.array(list(caches), np.uint64).reshape(-1, 3),
        workbufs=np.array(list(workbufs), np.uint64),
        metadata=np.array(list(metadata), np.uint64).reshape(-1, 2),
    )


def at(number):
    return HEAP + number * GO_PAGE


def span(first, pages, state, size_class=0, element=0, elements=0, used=0, limit=0):
    return (at(first), pages, state, size_class, element, elements, used, at(first) + limit)


def ranges(*pairs, kind=0):
    return np.array([(begin, end, kind) for begin, end in pairs], RANGE)


def split(found, resident, mappings=(), page=PAGE):
    return {name: size for name, size in sizes(classify(found, resident, mappings, "/exe", page)).items() if size}


def test_every_state_of_the_heap():
    found = snapshot(
        spans=[
            span(0, 2, 1, 5, 64, 256, 64),  # in use, a quarter of it objects
            span(2, 1, 2),  # a stack
            span(3, 1, 2),  # a work buffer
        ],
        allocated=[0, 1, 2, 3, 5, *range(64, 128)],
        scavenged=[7, *range(100, 105)],
        caches=[(at(64), 0b11, 0b10)],  # two pages that a P keeps, one of them given back
        workbufs=[at(3)],
    )
    resident = ranges((at(0), at(8)), (at(64), at(67)))
    assert split(found, resident) == {
        "live objects": GO_PAGE // 2,
        "span waste": 2 * GO_PAGE - GO_PAGE // 2,
        "stacks": GO_PAGE,
        "GC work buffers": GO_PAGE,
        "free": 3 * GO_PAGE,  # 4, 6 and 64
        "released, still resident": 2 * GO_PAGE,  # 7 and 65
        "heap without a span": 2 * GO_PAGE,  # 5 and 66
    }


def test_a_heap_that_changes_meanwhile():
    """Page 0 stays as it is; the others are taken and freed between two readings of the bitmap, or after both."""
    #                     before        after         when pages had been looked at
    allocated = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]])
    scavenged = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 0]])
    bits = [
        snapshot(allocated=np.flatnonzero(some), scavenged=np.flatnonzero(others)).bitmap[0]
        for some, others in zip(allocated, scavenged, strict=True)
    ]
    resident = ranges((at(0), at(4)))

    def parts(bitmap):
        return split(replace(snapshot(), bitmap=[bitmap]), resident)

    settled = _settled(bits[0], bits[1])
    assert parts(settled) == {"released, still resident": 3 * GO_PAGE, "heap without a span": GO_PAGE}
    # pages 2 and 3 were taken, which is why they are resident
    taken = _taken(settled, bits[2])
    assert parts(taken) == {"released, still resident": GO_PAGE, "heap without a span": 3 * GO_PAGE}


def test_a_heap_that_grows_meanwhile():
    end = HEAP + CHUNKS * (4 << 20)
    found = replace(snapshot(), grown=np.array([[HEAP, end + (4 << 20)]], np.uint64))
    resident = ranges((end - PAGE, end + PAGE), (end + (4 << 20), end + (4 << 20) + PAGE))
    assert split(found, resident) == {"free": PAGE, "heap without a span": PAGE, "unexplained": PAGE}


def test_outside_of_the_heap():
    mappings = [
        Vma(0x400000, 0x500000, "r-xp", 0, "/exe"),
        Vma(0x500000, 0x510000, "rw-p", 0, "/exe"),
        Vma(0x510000, 0x540000, "rw-p", 0, ""),
        Vma(0x700000, 0x710000, "r-xp", 0, "/lib/libc.so.6"),
        Vma(0x800000, 0x810000, "rw-p", 0, "[heap]"),
        Vma(0x900000, 0x920000, "rw-p", 0, ""),
    ]
    found = snapshot(metadata=[(0x900000, 0x908000), (0x904000, 0x906000)])
    resident = ranges(*((each.begin, each.begin + 0x10000) for each in mappings))
    assert split(found, resident, mappings) == {
        "binary": 0x10000,
        "data and bss": 0x20000,
        "files and libraries": 0x10000,
        "C heap and thread stacks": 0x10000,
        "runtime metadata": 0x8000,
        "unexplained": 0x8000,
    }


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 2), st.integers(0, 100)), max_size=20),
    st.sets(st.integers(0, 1023)),
    st.sets(st.integers(0, 1023)),
    st.lists(st.tuples(st.integers(0, 2047), st.integers(1, 20)), max_size=20),
)
def test_parts_add_up(spans, allocated, scavenged, runs):
    """Whatever the runtime's books say, even where they contradict one another."""
    made = [span(first, pages, state, 5, 128, pages * 64, used) for first, pages, state, used in spans]
    found = snapshot(spans=sorted(made), allocated=allocated, scavenged=scavenged)
    pages = sorted({HEAP + (first + number) * PAGE for first, length in runs for number in range(length)})
    resident = ranges(*((each, each + PAGE) for each in pages))
    every = classify(found, resident, (), "/exe", PAGE)
    parts = sizes(every)
    assert sum(parts.values()) == len(pages) * PAGE and min(parts.values(), default=0) >= 0
    assert list(parts) == list(PARTS)
    assert page_rounding(every, PAGE) == 0
    # the same heap where the kernel's pages are larger than the runtime's
    numbers = sorted({each // LARGE_PAGE for each in pages})
    resident = ranges(*((each * LARGE_PAGE, (each + 1) * LARGE_PAGE) for each in numbers))
    every = classify(found, resident, (), "/exe", LARGE_PAGE)
    parts = sizes(every)
    assert sum(parts.values()) == len(numbers) * LARGE_PAGE and min(parts.values(), default=0) >= 0
    assert 0 <= page_rounding(every, LARGE_PAGE) <= parts["free"] + parts["released, still resident"]


END = HEAP + CHUNKS * (4 << 20)
MAPPINGS = [
    Vma(0x400000, 0x500000, "r-xp", 0, "/exe"),
    Vma(0x500000, 0x510000, "rw-p", 0, "/exe"),
    Vma(0x510000, 0x540000, "rw-p", 0, ""),
    Vma(0x700000, 0x710000, "r-xp", 0, "/lib/libx.so"),
    Vma(0x900000, 0x940000, "rw-p", 0, ""),
    Vma(HEAP, END + (4 << 20), "rw-p", 0, ""),
    Vma(0x7FFF00000000, 0x7FFF00020000, "rw-p", 0, "[stack]"),
    Vma(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "--xp", 0, "[vsyscall]"),  # in the kernel's half
]
METADATA = [(0x900123, 0x908123), (0x904000, 0x906000), (0x930000, 0x93FFF8)]
GROWN = [(HEAP, END), (END, END + (1 << 20))]
OF_MAPPINGS = [
    "binary",
    "data and bss",
    "data and bss",
    "files and libraries",
    *["unexplained"] * 2,
    "C heap and thread stacks",
]


def one_by_one(found, resident, page):
    """The class of each resident page, asked for it alone: a dict of (class, whether huge) to bytes, and the classes."""
    size = min(page, GO_PAGE)
    sums, objects, parts = {}, {False: 0.0, True: 0.0}, []
    bits = np.frombuffer(found.bitmap[0], np.uint8).reshape(CHUNKS, 2, 64)
    allocated, scavenged = (np.unpackbits(bits[:, half].copy(), bitorder="little") for half in (0, 1))
    owners = {(each[0] - HEAP) // GO_PAGE + number: each for each in found.spans.tolist() for number in range(each[1])}
    for begin, end, kind in resident.tolist():
        for address in range(begin, end, size):
            names = [name for name, each in zip(OF_MAPPINGS, MAPPINGS, strict=False) if each.begin <= address < each.end]
            part, live = names[0] if names else "unexplained", 0.0
            if any(begin <= address < end for begin, end in found.metadata.tolist()):
                part = "runtime metadata"
            if any(begin <= address < end for begin, end in found.grown.tolist()):
                part = "heap without a span"
            if HEAP <= address < END:
                number = (address - HEAP) // GO_PAGE
                free = "released, still resident" if scavenged[number] else "free"
                part = "heap without a span" if allocated[number] else free
                for base, which, gone in found.caches.tolist():
                    bit = 1 << number - (base - HEAP) // GO_PAGE if base <= address < base + 64 * GO_PAGE else 0
                    if which & bit:
                        part = "released, still resident" if gone & bit else "free"
                if number in owners:
                    first, pages, state, _, element, _, used, _ = owners[number]
                    part = "live objects" if state == 1 else "GC work buffers" if first in found.workbufs else "stacks"
                    live = min(used * element / (pages * GO_PAGE), 1.0) if state == 1 else 0.0
            huge = bool(kind & HUGE)
            sums[part, huge] = sums.get((part, huge), 0) + size
            objects[huge] += live * size
            parts.append(PARTS.index(part))
    split = []
    for which in ((False, True), (True,)):
        sizes_of = {name: sum(sums.get((name, huge), 0) for huge in which) for name in PARTS}
        live = sum(objects[huge] for huge in which)
        split.append({**sizes_of, "span waste": sizes_of["live objects"] - live, "live objects": live})
    return split, parts


@pytest.mark.parametrize("page", [PAGE, LARGE_PAGE])
@pytest.mark.parametrize("seed", range(4))
def test_a_page_is_what_it_is_alone(monkeypatch, seed, page):
    """Pages are not divided one by one; whatever there is, it is as if they were."""
    monkeypatch.setattr(heap_pages, "_BATCH", 50)
    some = np.random.default_rng(seed)
    first, spans = 0, []
    while (first := first + int(some.integers(0, 9)) ** 2) < 1010:
        pages, state = int(some.choice([1, 1, 1, 2, 3, 12])), int(some.choice([1, 1, 2]))
        spans.append(span(first, pages, state, 5, int(some.integers(1, 9000)), 64, int(some.integers(0, 64))))
        first += pages
    some.shuffle(spans)
    found = replace(
        snapshot(
            spans=spans,
            allocated=np.flatnonzero(some.random(1024) < 0.5),
            scavenged=np.flatnonzero(some.random(1024) < 0.5),
            caches=[(at(64), int(some.integers(1 << 63)), int(some.integers(1 << 63))), (at(960), 0xFF << 56, 0xF0 << 56)],
            workbufs=[each[0] for each in spans if each[2] == 2][::2],
            metadata=METADATA,
        ),
        grown=np.array(GROWN, np.uint64),
    )
    edges = [0x600000, END + (8 << 20)]  # nothing is mapped there any more
    for each in MAPPINGS[:-1]:
        edges += range(each.begin, min(each.end, each.begin + (12 << 20)), page)
    resident, at_least = [], 0
    for begin in sorted(edges):
        end = begin + page * int(some.integers(1, 5))
        if begin >= at_least and some.random() < (0.2 if page == PAGE else 0.7):
            resident.append((begin, end, HUGE if some.random() < 0.3 else 0))
            at_least = end
    resident = np.array(resident, RANGE)
    every = classify(found, resident, MAPPINGS, "/exe", page)
    (split, huge), parts = one_by_one(found, resident, page)
    for ours, theirs in ((sizes(every), split), (huge_sizes(every), huge)):
        assert list(ours) == list(PARTS) and ours == {name: pytest.approx(size, abs=1) for name, size in theirs.items()}
        assert sum(ours.values()) == round(sum(theirs.values()))
    assert every.pages.part.tolist() == parts and len(set(parts)) >= 10
    addresses = every.pages.address
    assert np.array_equal(addresses, np.concatenate([np.arange(r["begin"], r["end"], every.size) for r in resident]))
    unmapped = np.ones(len(addresses), bool)
    for each in MAPPINGS[:-1]:
        unmapped &= (addresses < each.begin) | (addresses >= each.end)
    outside = every.size * np.count_nonzero(unmapped & (every.pages.part == PARTS.index("unexplained")))
    named = sum(sizes(every)[name] for name in ("files and libraries", "C heap and thread stacks", "unexplained"))
    assert sum(each.bytes for each in regions(every, MAPPINGS, "/exe")) == named - outside


def test_pages_of_the_kernel_that_are_larger_than_the_runtimes():
    """Of the first 64 KiB one page of eight is used, the second is free, the others have a stack and a span in them."""
    found = snapshot(
        spans=[span(2, 1, 1, 5, 64, 128, 128), span(16, 1, 2), span(23, 2, 1, 5, 128, 128, 64)],
        allocated=[2, 16, 23, 24],
        scavenged=[*range(8, 16), 20, 21],
    )
    resident = ranges((at(0), at(32)))
    every = classify(found, resident, (), "/exe", LARGE_PAGE)
    assert (every.size, len(every.pages.address)) == (GO_PAGE, 32)
    assert split(found, resident, page=LARGE_PAGE) == {
        "live objects": 2 * GO_PAGE,
        "span waste": GO_PAGE,
        "free": (7 + 4 + 7) * GO_PAGE,
        "released, still resident": (8 + 2) * GO_PAGE,
        "stacks": GO_PAGE,
    }
    # all that is free in the first, the third and the fourth page of the kernel; the second could be returned
    assert page_rounding(every, LARGE_PAGE) == (7 + 6 + 7) * GO_PAGE
    assert page_rounding(every, 2 * GO_PAGE) == 4 * GO_PAGE  # the neighbours of 2, 16, 23 and 24
    assert page_rounding(classify(found, resident, (), "/exe", PAGE), PAGE) == 0


def test_rounding_of_large_objects():
    spans = np.array(
        [
            span(0, 6, 1, 0, 6 * GO_PAGE, 1, 1, limit=5 * GO_PAGE + 100),
            span(8, 6, 1, 0, 6 * GO_PAGE, 1, 1, limit=5 * GO_PAGE + 100),
            span(16, 1, 1, 5, 64, 128, 100, limit=GO_PAGE - 64),  # small objects
            span(20, 2, 2, limit=GO_PAGE),  # a stack
            span(24, 4, 1, 0, 4 * GO_PAGE, 1, 1, limit=4 * GO_PAGE),  # exactly as large as its pages
        ],
        SPAN,
    )
    assert large_rounding(spans, ranges((at(0), at(100)))) == 2 * (GO_PAGE - 100)
    # of the first the last 4 KiB are resident, of the second the 4 KiB before them
    parts = ((at(6) - PAGE, at(6)), (at(8), at(14) - PAGE))
    assert large_rounding(spans, ranges(*parts)) == PAGE + PAGE - 100
    assert large_rounding(spans, ranges()) == 0
    assert large_rounding(spans[:0], ranges((at(0), at(100)))) == 0


def test_huge_pages():
    found = snapshot(spans=[span(0, 256, 1, 5, 64, 256 * 128, 64 * 128)], allocated=range(256))
    resident = np.concatenate([ranges((at(0), at(256)), kind=HUGE), ranges((at(256), at(300)))])
    every = classify(found, resident, (), "/exe", PAGE)
    huge = {name: size for name, size in huge_sizes(every).items() if size}
    assert huge == {"live objects": 64 * GO_PAGE, "span waste": 192 * GO_PAGE}
    assert sizes(every)["free"] == 44 * GO_PAGE


def test_memory_of_c():
    """Parts of malloc's heap and stacks of threads, as glibc maps them, where there is a glibc."""
    arena = 64 << 20
    library = [
        Vma(0x7F0000900000, 0x7F0000910000, "rw-p", 0, "/lib/libc.so.6"),
        Vma(0x7F0000910000, 0x7F0000920000, "rw-p", 0, ""),  # its variables
        Vma(0x7F0000930000, 0x7F0000940000, "rw-s", 0, "/data"),
        Vma(0x7F0000940000, 0x7F0000950000, "rw-p", 0, ""),  # happens to lie behind a file
    ]
    mappings = [
        Vma(arena, arena + 0x21000, "rw-p", 0, ""),
        Vma(arena + 0x21000, 2 * arena + 0x1000, "---p", 0, ""),  # its rest, and a guard
        Vma(4 * arena, 5 * arena, "rw-p", 0, ""),  # a full one
        Vma(6 * arena, 6 * arena + 0x30000, "rw-p", 0, ""),  # only begins like one
        Vma(6 * arena + 0x40000, 6 * arena + 0x41000, "---p", 0, ""),
        Vma(6 * arena + 0x41000, 6 * arena + 0x841000, "rw-p", 0, ""),  # a stack
        Vma(8 * arena + 0x1000, 8 * arena + 0x101000, "---p", 0, ""),  # too large for a guard
        Vma(8 * arena + 0x101000, 8 * arena + 0x111000, "rw-p", 0, ""),
    ]
    resident = ranges(*((each.begin, each.begin + 0x10000) for each in mappings + library if "r" in each.permissions))
    assert split(snapshot(), resident, mappings + library) == {
        "C heap and thread stacks": 0x30000,
        "files and libraries": 0x30000,
        "unexplained": 0x30000,
    }
    assert split(snapshot(), resident[:5], mappings) == {"unexplained": 0x50000}


def test_size_classes():
    spans = np.array(
        [span(0, 1, 1, 5, 64, 128, 100), span(1, 1, 1, 5, 64, 128, 0), span(2, 4, 1, 0, 4 * GO_PAGE, 1, 1)], SPAN
    )
    small, large = size_classes(spans)
    assert (small.size, small.spans, small.bytes, small.live) == (64, 2, 2 * GO_PAGE, 6400)
    assert (large.size, large.waste) == (0, 0)
    assert small.waste == pytest.approx(2 * GO_PAGE - 6400)

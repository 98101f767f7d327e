"""Pages in classes, from a heap that never was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.analysis.heap_pages import GO_PAGE, PARTS, SPAN, HeapSnapshot, classify, size_classes, sizes
from gotrace.kernel.memory import RANGE, Vma

HEAP = 0xC000000000
PAGE = 4096
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


def ranges(*pairs):
    return np.array([(begin, end, 0) for begin, end in pairs], RANGE)


def split(found, resident, mappings=()):
    return {name: size for name, size in sizes(classify(found, resident, mappings, "/exe", PAGE), PAGE).items() if size}


def test_every_state_of_the_heap():
    found = snapshot(
        spans=[
            (at(0), 2, 1, 5, 64, 256, 64),  # in use, a quarter of it objects
            (at(2), 1, 2, 0, 0, 0, 0),  # a stack
            (at(3), 1, 2, 0, 0, 0, 0),  # a work buffer
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
    made = [(at(first), pages, state, 5, 128, pages * 64, used) for first, pages, state, used in spans]
    found = snapshot(spans=sorted(made), allocated=allocated, scavenged=scavenged)
    pages = sorted({HEAP + (first + number) * PAGE for first, length in runs for number in range(length)})
    resident = ranges(*((each, each + PAGE) for each in pages))
    parts = sizes(classify(found, resident, (), "/exe", PAGE), PAGE)
    assert sum(parts.values()) == len(pages) * PAGE and min(parts.values(), default=0) >= 0
    assert list(parts) == list(PARTS)


def test_size_classes():
    spans = np.array(
        [(at(0), 1, 1, 5, 64, 128, 100), (at(1), 1, 1, 5, 64, 128, 0), (at(2), 4, 1, 0, 4 * GO_PAGE, 1, 1)], SPAN
    )
    small, large = size_classes(spans)
    assert (small.size, small.spans, small.bytes, small.live) == (64, 2, 2 * GO_PAGE, 6400)
    assert (large.size, large.waste) == (0, 0)
    assert small.waste == pytest.approx(2 * GO_PAGE - 6400)

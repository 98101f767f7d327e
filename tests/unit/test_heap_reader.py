"""A runtime's books in our own memory: what is read of them, piece by piece, is what was written."""

from __future__ import annotations

import mmap
import os
from types import SimpleNamespace

import numpy as np
import pytest

from gotrace.errors import TargetError
from gotrace.kernel.memory import KeptMemory, Memory
from gotrace.runtime import heap
from gotrace.runtime.heap import HeapReader

SLICE, RANGES, CHUNKS = 0, 24, 48  # where in our mheap: allspans, pages.inUse.ranges; the head of the list of chunks
OFFSETS = {
    "mheap.allspans": SLICE,
    "mheap.pages.inUse.ranges": RANGES,
    "mspan.startAddr": 24,
    "mspan.npages": 32,
    "mspan.limit": 120,
}
# as Go 1.21 has them, and as Go 1.22 does
WIDE = {"sizeof": 168, "nelems": 56, "allocCount": 104, "spanclass": 106, "state": 107, "elemsize": 112}
NARROW = {"sizeof": 160, "nelems": 50, "allocCount": 96, "spanclass": 98, "state": 99, "elemsize": 104}


class Books:
    """Spans in pieces of what an allocator gave: of ``sizes`` spans each, with room between them that is none."""

    def __init__(self, sizes, narrow=True):
        self.at = {**OFFSETS, **{f"mspan.{name}": at for name, at in (NARROW if narrow else WIDE).items()}}
        size = self.at["mspan.sizeof"]
        self.pieces = [
            np.random.default_rng(number).integers(0, 256, (n, size), np.uint8) for number, n in enumerate(sizes)
        ]
        self.addresses = [each.ctypes.data + size * number for each in self.pieces for number in range(len(each))]
        self.spans = [row for each in self.pieces for row in each]
        for number, row in enumerate(self.spans):
            self.write(row, "startAddr", 8, (number + 1) * 8192)
            self.write(row, "npages", 8, number % 5 + 1)
            self.write(row, "state", 1, number % 3)  # every third is dead
        self.heap = np.zeros(16, np.uint64)
        self.publish(self.addresses)
        places = SimpleNamespace(
            offsets=self.at,
            narrow_nelems=narrow,
            mheap=self.heap.ctypes.data,
            persistent_chunks=self.heap.ctypes.data + CHUNKS,
        )
        self.reader = HeapReader(places, Memory(os.getpid()), 0)

    def write(self, row, field, width, value):
        at = self.at[f"mspan.{field}"]
        row[at : at + width] = np.frombuffer(value.to_bytes(width, "little"), np.uint8)

    def publish(self, addresses):
        self.list = np.array(addresses, np.uint64)
        self.heap[:2] = self.list.ctypes.data, len(self.list)

    def one_by_one(self, nelems):
        """What is in each span, byte by byte."""

        def of(row, field, width):
            at = self.at[f"mspan.{field}"]
            return int.from_bytes(row[at : at + width].tobytes(), "little", signed=width == 8)

        for row in self.spans:
            state, pages = of(row, "state", 1), of(row, "npages", 8)
            if state and pages > 0:
                yield (
                    of(row, "startAddr", 8),
                    pages,
                    state,
                    of(row, "spanclass", 1) >> 1,
                    of(row, "elemsize", 8),
                    of(row, "nelems", nelems) & 0xFFFF,
                    of(row, "allocCount", 2),
                    of(row, "limit", 8),
                )


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("sizes", [(), (1,), (102,) * 30, (1,) * 3000, (20_000, 7, 9_000)])
def test_spans_in_pieces(monkeypatch, sizes, narrow):
    """Also in more than one system call can have, and in a piece that is longer than what is read at once."""
    books = Books(sizes, narrow)
    expected = list(books.one_by_one(2 if narrow else 8))
    for batch in (heap._BATCH, 100):
        monkeypatch.setattr(heap, "_BATCH", batch)
        assert books.reader._spans().tolist() == expected


def test_spans_by_a_descriptor():
    books = Books((50, 1, 1, 2000))
    expected = books.reader._spans().tolist()
    fd = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        books.reader._memory = KeptMemory(os.getpid(), fd)
        assert books.reader._spans().tolist() == expected
    finally:
        os.close(fd)


def test_a_list_that_is_being_made_longer():
    """Its length is there before its last span is; and one that has moved is not where it was."""
    books = Books((300,))
    expected = books.reader._spans().tolist()
    books.publish([*books.addresses, 0])
    assert books.reader._spans().tolist() == expected
    books.publish([*books.addresses, 4096])  # nothing is there
    with pytest.raises(TargetError):
        books.reader._spans()
    gone = mmap.mmap(-1, 1 << 20)
    books.heap[:2] = np.frombuffer(gone, np.uint8).ctypes.data, 300
    gone.close()
    with pytest.raises(TargetError):
        books.reader._spans()
    books.heap[1] = 1 << 40
    with pytest.raises(TargetError, match="inconsistent"):
        books.reader._spans()


def test_ranges_that_are_being_moved():
    books = Books(())
    ranges = np.array([[4, 8], [8, 9], [20, 24]], np.uint64) << 22
    books.heap[3:5] = ranges.ctypes.data, len(ranges)
    assert np.array_equal(books.reader._in_use(), ranges)
    ranges[1] = ranges[0]  # one is being put before the second
    with pytest.raises(TargetError, match="inconsistent"):
        books.reader._in_use()


def test_chunks_of_persistent_memory():
    """New ones are put before the others, which are read once."""
    books = Books(())
    chunks = np.zeros((6, 2), np.uint64)
    addresses = [each.ctypes.data for each in chunks]
    assert books.reader._persistent_chunks() == []
    read = []
    for known in (1, 1, 4, 6):
        chunks[1:known, 0] = addresses[: known - 1]
        books.heap[CHUNKS // 8] = addresses[known - 1]
        memory = Memory(os.getpid())
        memory.read_into = lambda places, room, own=memory.read_into: (read.append(len(places)), own(places, room))
        books.reader._memory = memory
        assert books.reader._persistent_chunks() == addresses[:known]
        read.append("|")
    assert "".join(map(str, read)) == "11|1|1111|111|"

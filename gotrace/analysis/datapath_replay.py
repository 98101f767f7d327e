"""What of recorded calls on files can be made again, and where in its file each of them was.

An event has how many bytes a call moved, and not from where: a file is taken to be read and written from its beginning
when it is opened, and then one call after the other; what lseek returned is known. pread and its like, which do not move
a descriptor's position, are taken to go on from one another. A thread that opens a file itself has a position of its own
in it; the other threads of a process have one together.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.datapath_load import Calls

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NOTHING, OPEN, CLOSE, READ, WRITE, SEEK, STAT, FSTAT, ACCESS, SYNC, DATASYNC = range(11)
POSITIONED = {"pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2"}
# What is made again, and as what.
KINDS = {
    **dict.fromkeys(("open", "openat", "openat2", "creat"), OPEN),
    "close": CLOSE,
    **dict.fromkeys(("read", "pread64", "readv", "preadv", "preadv2"), READ),
    **dict.fromkeys(("write", "pwrite64", "writev", "pwritev", "pwritev2"), WRITE),
    "lseek": SEEK,
    **dict.fromkeys(("stat", "lstat", "newfstatat", "statx"), STAT),
    "fstat": FSTAT,
    **dict.fromkeys(("access", "faccessat", "faccessat2"), ACCESS),
    "fsync": SYNC,
    "fdatasync": DATASYNC,
}
MOST_AT_ONCE = 0x7FFFF000  # MAX_RW_COUNT of the kernel: no call moves more
MOST_OFFSET = 1 << 62  # so that sums stay within 64 bits
_NOT_FOUND = -2

# Why a call is not made again.
OF_KERNEL = "on a kernel file (/proc, /sys)"
NO_FILE = "its file is unknown"
FAILED = "it failed"
NOT_MADE = "its arguments were not recorded"
IMPOSSIBLE = "no call can have returned that"

OPERATION = np.dtype(
    [
        *(("begin_ns", "i8"), ("offset", "i8"), ("size", "i8"), ("took_ns", "i8"), ("file", "i4"), ("process", "u4")),
        *(("tid", "u4"), ("number", "u2"), ("kind", "u1"), ("absent", "?"), ("direct", "?"), ("cold", "?")),
    ]
)


class Ranges(NamedTuple):
    """Stretches of files, ascending, that do not touch."""

    files: Ints
    begins: Ints
    ends: Ints


class Planned(NamedTuple):
    """``operations`` by time; ``left_out`` counts calls by (number, why)."""

    operations: npt.NDArray[Any]
    left_out: Mapping[tuple[int, str], int]


def planned(calls: Calls, kinds: Ints, positioned: Flags, files: Ints, of_kernel: Flags) -> Planned:
    """``kinds`` and ``positioned`` are of each call, ``files`` its file's number (-1: unknown), ``of_kernel`` whether that
    is in /proc or its like. ``calls`` are in the order in which they began."""
    results = calls["result"]
    absent = (results == _NOT_FOUND) & np.isin(kinds, (OPEN, STAT, ACCESS))
    moves = np.isin(kinds, (READ, WRITE))
    reasons = (
        (of_kernel, OF_KERNEL),
        (kinds == NOTHING, NOT_MADE),
        ((results < 0) & (results >= -4095) & ~absent, FAILED),
        ((results < 0) & ~absent | moves & (results > MOST_AT_ONCE) | (results > MOST_OFFSET), IMPOSSIBLE),
        (files < 0, NO_FILE),
    )
    left_out: dict[tuple[int, str], int] = {}
    kept = np.ones(len(calls), bool)
    for which, why in reasons:
        numbers, counts = np.unique(calls["number"][which & kept], return_counts=True)
        left_out |= {(number, why): count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}
        kept &= ~which
    calls, kinds, positioned = calls[kept], kinds[kept], positioned[kept]
    found = np.zeros(len(calls), OPERATION)
    for name in ("begin_ns", "process", "tid", "number", "direct"):
        found[name] = calls[name]
    found["file"], found["kind"], found["absent"] = files[kept], kinds, absent[kept]
    found["took_ns"], found["cold"] = calls["end_ns"] - calls["begin_ns"], calls["pages"] > 0
    found["size"] = np.where(moves[kept], calls["result"], 0)
    found["offset"] = offsets(found, calls["result"], positioned)
    return Planned(found, left_out)


def offsets(operations: npt.NDArray[Any], results: Ints, positioned: Flags) -> Ints:
    """Where each begins to read or write, or what lseek is to go to."""
    found = np.zeros(len(operations), np.int64)
    opens = (operations["kind"] == OPEN) & ~operations["absent"]
    keys = operations["file"].astype(np.int64) << 32 | operations["tid"]
    whose = np.where(np.isin(keys, keys[opens]), operations["tid"], 0)
    for own in (~positioned, positioned | opens):  # an open begins both anew
        rows, threads = operations[own], whose[own]
        order = np.lexsort([rows["file"], rows["process"], threads])  # stable: by time within each
        rows, threads = rows[order], threads[order]
        firsts = np.ones(len(rows), bool)
        firsts[1:] = threads[1:] != threads[:-1]
        for name in ("file", "process"):
            firsts[1:] |= rows[name][1:] != rows[name][:-1]
        seeks = rows["kind"] == SEEK
        last = np.maximum.accumulate(np.where(firsts | seeks | opens[own][order], np.arange(len(rows)), 0))
        upto = np.cumsum(rows["size"]) - rows["size"]
        at = np.where(seeks, results[own][order], 0)
        placed = np.zeros(len(rows), np.int64)
        placed[order] = at[last] + upto - upto[last]
        found[own] = placed
    return found


def ranges(operations: npt.NDArray[Any], kind: int) -> Ranges:
    """What is read (`READ`) or written (`WRITE`) of each file."""
    rows = operations[(operations["kind"] == kind) & (operations["size"] > 0)]
    rows = rows[np.lexsort([rows["offset"], rows["file"]])]
    files, begins, ends = rows["file"].astype(np.int64), rows["offset"], rows["offset"] + rows["size"]
    if not len(rows):
        return Ranges(files, begins, ends)
    # The largest end so far within each file: by ranks, for a product of a file's number and an end has no room.
    values = np.unique(ends)
    so_far = values[np.maximum.accumulate(files * len(values) + np.searchsorted(values, ends)) % len(values)]
    new = np.ones(len(rows), bool)
    new[1:] = (files[1:] != files[:-1]) | (begins[1:] > so_far[:-1])
    return Ranges(files[new], begins[new], so_far[np.append(np.flatnonzero(new)[1:] - 1, len(rows) - 1)])


def sizes(of: Ranges, count: int) -> Ints:
    """How long each of so many files has to be."""
    found = np.zeros(count, np.int64)
    np.maximum.at(found, of.files, of.ends)
    return found


def workers(operations: npt.NDArray[Any]) -> Ints:
    """For each operation who makes it: threads that were not there at the same time share a worker."""
    found = np.zeros(len(operations), np.int64)
    if not len(operations):
        return found
    tids, back = np.unique(operations["tid"], return_inverse=True)
    first, last = np.full(len(tids), np.iinfo(np.int64).max), np.zeros(len(tids), np.int64)
    np.minimum.at(first, back, operations["begin_ns"])
    np.maximum.at(last, back, operations["begin_ns"] + operations["took_ns"])
    free: list[tuple[int, int]] = []
    numbers = np.zeros(len(tids), np.int64)
    count = 0
    for at in np.argsort(first, kind="stable").tolist():
        if free and free[0][0] < first[at]:
            number = heapq.heappop(free)[1]
        else:
            number, count = count, count + 1
        numbers[at] = number
        heapq.heappush(free, (int(last[at]), number))
    return numbers[back]

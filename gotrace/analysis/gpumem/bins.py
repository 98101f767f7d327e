"""A course in columns of time: lines, and heat maps. The raw events stay what they are; a bin is a way to look at them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.analysis.gpumem.space import MERGE_FAILURE, Course, fragmentation

Grid = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """``count`` columns of ``bin_ns`` each from ``begin_ns`` on."""

    begin_ns: int
    bin_ns: int
    count: int

    @classmethod
    def of(cls, begin_ns: int, end_ns: int, bin_ns: int, most: int) -> Columns:
        """Of ``bin_ns``, or of the smallest multiple of it with which there are at most ``most``."""
        ns = max(1, end_ns - begin_ns)
        wide = bin_ns * max(1, -(-ns // (bin_ns * most)))
        return cls(begin_ns, wide, max(1, -(-ns // wide)))

    def at(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The column of each time."""
        return np.clip((times - self.begin_ns) // self.bin_ns, 0, self.count - 1)


@dataclass(frozen=True)
class Lines:
    """Bytes and shares (0 to 1): of each column the last value, and of ``peak`` (live) and ``worst`` the highest."""

    live: Grid
    reserved: Grid
    peak: Grid
    fragmentation: Grid
    worst: Grid


def lines(course: Course, columns: Columns) -> Lines:
    """A course's lines; 0 before its first event."""
    times, states = course.events["time_ns"], course.states
    broken = fragmentation(states["reserved"] - states["live"], states["largest"])
    where = columns.at(times)
    last = np.searchsorted(where, np.arange(columns.count), side="right") - 1  # the event in force at a column's end

    def ends(values: npt.NDArray[np.generic]) -> Grid:
        return np.asarray(np.where(last >= 0, np.append(values, 0)[last], 0), float)

    def highest(values: npt.NDArray[np.generic]) -> Grid:
        after = ends(values)
        found: Grid = np.maximum(after, np.append(0, after[:-1]))
        np.maximum.at(found, where, values.astype(float))
        return found

    live = states["live"]
    return Lines(ends(live), ends(states["reserved"]), highest(live), ends(broken), highest(broken))


def by_address(course: Course, columns: Columns, rows: int, end_ns: int) -> tuple[Grid, npt.NDArray[np.uint64]]:
    """(rows x columns: the share of a cell's bytes and time that was live, the address at which each row begins).

    Addresses that were never held are left out: rows divide all the extents, one after another. Exact: a block counts for
    the very part of a cell that it covers.
    """
    extents = course.extents
    sizes = (extents[:, 1] - extents[:, 0]).astype(np.float64)
    ends = np.cumsum(sizes)
    total = float(ends[-1]) if len(ends) else 0.0
    if not total:
        return np.zeros((rows, columns.count)), np.zeros(rows, np.uint64)
    height = total / rows
    begins = np.arange(rows) * height
    of_row = np.searchsorted(ends, begins, side="right")
    firsts = (extents[of_row, 0] + (begins - (ends - sizes)[of_row]).astype(np.uint64)).astype(np.uint64)

    blocks = course.blocks
    inside = np.searchsorted(extents[:, 0], blocks["address"], side="right") - 1
    low = (blocks["address"] - extents[inside, 0]).astype(np.float64) + (ends - sizes)[inside]
    high = low + blocks["size"].astype(np.float64)
    first = np.minimum((low / height).astype(np.int64), rows - 1)
    count = np.minimum(np.ceil(high / height).astype(np.int64), rows) - first
    piece = np.repeat(np.arange(len(blocks)), count)
    row = first[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)
    covered = np.minimum(high[piece], (row + 1) * height) - np.maximum(low[piece], row * height)

    filled, steps = np.zeros((rows, columns.count)), np.zeros((rows, columns.count + 1))
    limit = columns.begin_ns + columns.count * columns.bin_ns
    for times, sign in ((blocks["begin_ns"], 1.0), (np.minimum(blocks["end_ns"], end_ns), -1.0)):
        since = np.clip(times, columns.begin_ns, limit)[piece]
        column = columns.at(since)
        left = columns.begin_ns + (column + 1) * columns.bin_ns - since
        np.add.at(filled, (row, column), sign * covered * left)
        np.add.at(steps, (row, column + 1), sign * covered * columns.bin_ns)
    filled += np.cumsum(steps, axis=1)[:, :-1]
    return np.clip(filled / (height * columns.bin_ns), 0, 1), firsts


def by_size(course: Course, columns: Columns) -> tuple[Grid, Grid, list[int]]:
    """(merge failures, requests: classes x columns, the smallest size of each class): classes are powers of two."""
    size, asked = course.states["request"], course.states["request"] > 0
    failed = asked & (course.states["growth"] == MERGE_FAILURE)
    if not asked.any():
        return np.zeros((0, columns.count)), np.zeros((0, columns.count)), []
    classes = np.zeros(len(size), np.int64)
    classes[asked] = np.frexp(size[asked].astype(float))[1] - 1  # floor(log2)
    low, high = int(classes[asked].min()), int(classes[asked].max())
    shape = (high - low + 1, columns.count)
    failures, requests = np.zeros(shape), np.zeros(shape)
    where = columns.at(course.events["time_ns"])
    np.add.at(failures, (classes[failed] - low, where[failed]), 1)
    np.add.at(requests, (classes[asked] - low, where[asked]), 1)
    return failures, requests, [1 << number for number in range(low, high + 1)]

"""The load that calls on files are for what serves them: rates, what is in flight and how long it takes, over time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# A call, as `gotrace.probes.datapath` tells of it. Times are CLOCK_MONOTONIC.
CALL = np.dtype(
    [
        *(("begin_ns", "i8"), ("end_ns", "i8"), ("result", "i8"), ("file", "u8")),
        *(("tid", "u4"), ("process", "u4"), ("pages", "u4"), ("number", "u2"), ("direct", "?")),
    ]
)
Calls = npt.NDArray[Any]
READ, WRITE, SYNC, METADATA = range(4)
CLASSES = ("reads", "writes", "syncs", "metadata")


class Course(NamedTuple):
    """Intervals, a column each. A call counts for the one in which it begins, with all its bytes; ``in_flight`` is the mean
    number of calls that had begun and not ended, ``most_in_flight`` the largest; of an interval without calls the
    percentiles are -1."""

    begins: Ints
    lengths: Ints
    counts: npt.NDArray[np.int64]  # CLASSES x intervals
    read_bytes: Ints
    written_bytes: Ints
    in_flight: npt.NDArray[np.float64]
    most_in_flight: Ints
    p50_ns: Ints
    p99_ns: Ints


def width(length_ns: int, most: int = 40) -> int:
    """The least of 1, 2, 5, 10, … ms of which no more than ``most`` are in ``length_ns``."""
    found = 1_000_000
    for factor in (2, 2.5, 2) * 20:
        if length_ns <= most * found:
            break
        found = int(found * factor)
    return found


def course(calls: Calls, classes: Ints, moved: Ints, begin_ns: int, end_ns: int, width_ns: int) -> Course:
    """Of calls of these `CLASSES`, which moved so many bytes, from ``begin_ns`` to ``end_ns``."""
    end_ns = max(end_ns, begin_ns + 1)
    edges = np.append(np.arange(begin_ns, end_ns, width_ns, dtype=np.int64), end_ns)
    lengths, count = np.diff(edges), len(edges) - 1
    begins, ends = (np.clip(calls[name], edges[0], edges[-1]) for name in ("begin_ns", "end_ns"))
    first, last = (np.clip(np.searchsorted(edges, each, "right") - 1, 0, count - 1) for each in (begins, ends))
    counts, sums = np.zeros((len(CLASSES), count), np.int64), np.zeros((2, count), np.int64)
    np.add.at(counts, (classes, first), 1)
    for total, kind in zip(sums, (READ, WRITE), strict=True):
        np.add.at(total, first, np.where(classes == kind, moved, 0))
    p50_ns, p99_ns = _percentiles(first, (calls["end_ns"] - calls["begin_ns"]), count)
    return Course(
        edges[:-1],
        lengths,
        counts,
        sums[0],
        sums[1],
        _busy(begins, ends, first, last, edges) / lengths,
        _most(begins, ends, edges),
        p50_ns,
        p99_ns,
    )


def _busy(begins: Ints, ends: Ints, first: Ints, last: Ints, edges: Ints) -> Ints:
    """The sum of what of each call is in each interval."""
    lengths = np.diff(edges)
    found, whole = np.zeros(len(lengths), np.int64), np.zeros(len(lengths) + 1, np.int64)
    within = first == last
    np.add.at(found, first[within], (ends - begins)[within])
    begins, ends, first, last = (each[~within] for each in (begins, ends, first, last))
    np.add.at(found, first, edges[first + 1] - begins)
    np.add.at(found, last, ends - edges[last])
    np.add.at(whole, first + 1, 1)
    np.add.at(whole, last, -1)
    return found + np.cumsum(whole)[:-1] * lengths


def _most(begins: Ints, ends: Ints, edges: Ints) -> Ints:
    """The most calls at once in each interval; one that ends when another begins is not at once with that."""
    times = np.concatenate([ends, begins])
    order = np.argsort(times, kind="stable")  # ends first
    running, began = np.cumsum(np.where(order < len(ends), -1, 1)), order >= len(ends)
    # What was in flight when an interval began, and after each begin within it.
    some = ends > begins
    carried = np.searchsorted(np.sort(begins[some]), edges[:-1]) - np.searchsorted(np.sort(ends[some]), edges[:-1], "right")
    places = np.clip(np.searchsorted(edges, times[order][began], "right") - 1, 0, len(carried) - 1)
    np.maximum.at(carried, places, running[began])
    return carried


def _percentiles(intervals: Ints, took_ns: Ints, count: int) -> tuple[Ints, Ints]:
    """The median and the 99th percentile of each interval: values of calls (nearest rank)."""
    order = np.lexsort([took_ns, intervals])
    took_ns, places = took_ns[order], np.arange(count)
    low, high = (np.searchsorted(intervals[order], places, side) for side in ("left", "right"))
    found = []
    for share in (50, 99):
        at = low + -(-(high - low) * share // 100) - 1
        found.append(np.where(high > low, took_ns[np.clip(at, 0, max(0, len(took_ns) - 1))] if len(took_ns) else -1, -1))
    return found[0], found[1]

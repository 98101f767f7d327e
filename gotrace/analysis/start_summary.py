"""Many starts of one program: what each part takes in them, how sure that is, and which of them stand out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gotrace.analysis.histogram import Histogram
from gotrace.analysis.timeline import BEFORE, CONTAINER, Row, Start, added, by_place, merged

_RESAMPLES = 2000
_SEED = 20231125  # the same starts give the same interval
_FENCE = 1.5  # quartile ranges, as in a box plot
_SLOW_FIRST = 1.25  # times the median of the others
# Starts, from which on an interval is one of 95 %: that of 5 holds the median with 94 %, that of 4 with 88 %. Between sets
# of 4 that differ by chance alone 7 % of the intervals leave 0 out, between sets of 2 30 %.
ENOUGH = 5


@dataclass(frozen=True)
class Part:
    """A row over all starts that have it: ``count`` of them; nanoseconds. ``low``..``high`` holds the median with 95 %.

    Of fewer than `ENOUGH` starts it is the range of all, which holds the median less often. A median is that of
    `numpy.median`: of an even number of starts the mean of the two in the middle. ``major_faults``, ``pages_read`` and
    ``throttled`` are medians too; the last is None where it is not known of every start.
    """

    stage: str
    name: str
    depth: int
    count: int
    median: float
    low: float
    high: float
    histogram: Histogram
    major_faults: float
    pages_read: float
    throttled: float | None = None


@dataclass(frozen=True)
class Outlier:
    """A start (its number from 0) that took far longer than the others, and the part that took most of the difference."""

    number: int
    total_ns: int
    stage: str
    name: str
    excess_ns: float


@dataclass(frozen=True)
class StartSummary:
    """``total`` comes first in ``parts``, under the name "total"; the parts after it are in the order of a start.

    ``numbers`` are those of its starts, of which it compares like with like.
    """

    parts: list[Part]
    outliers: list[Outlier]
    slow_first: float  # how many times the median of the others the first took; 0 if it is like them
    numbers: tuple[int, ...] = ()


def summaries(starts: Sequence[Start]) -> list[StartSummary]:
    """Of the first starts of all runs, of the second ones, and so on. ``starts`` in the order they were made."""
    found = []
    for numbers in by_place(starts):
        those = summary([starts[number] for number in numbers])
        outliers = [replace(outlier, number=numbers[outlier.number]) for outlier in those.outliers]
        found.append(replace(those, outliers=outliers, numbers=tuple(numbers)))
    return found


def summary(starts: Sequence[Start]) -> StartSummary:
    """``starts`` that are alike, in the order they were made; at least one."""
    totals = np.array([start.whole_ns for start in starts], np.int64)
    rows = _rows(starts)
    durations = {key: {number: row.duration_ns for number, row in of_it.items()} for key, of_it in rows.items()}
    parts = [_part(("", "total", 0), [_whole(start) for start in starts])]
    parts += [_part(key, list(of_it.values())) for key, of_it in rows.items()]
    first = 0.0
    if len(totals) > 2 and totals[0] > _SLOW_FIRST * np.median(totals[1:]):
        first = float(totals[0] / np.median(totals[1:]))
    return StartSummary(parts, _outliers(totals, durations), first)


Key = tuple[str, str, int]


def _whole(start: Start) -> Row:
    """All of a start as one row."""
    rows = [row for row in start.rows if row.depth == 0 and row.stage not in (CONTAINER, BEFORE)]
    return replace(added(rows, "total", 0), duration_ns=start.whole_ns)


def _rows(starts: Sequence[Start]) -> dict[Key, dict[int, Row]]:
    """By (stage, name, depth): the row in each start that has it, by the start's number."""
    # A row that only some starts have stands behind the row it follows there.
    order: list[Key] = []
    found: dict[Key, dict[int, Row]] = {}
    for number, start in enumerate(starts):
        place = 0
        for row in merged(start):
            if row.depth > 1 or row.stage == BEFORE:
                continue
            key = (row.stage, row.name, row.depth)
            if key not in found:
                found[key] = {}
                order.insert(place, key)
            place = order.index(key) + 1
            found[key][number] = row
    return {key: found[key] for key in order}


def _part(key: Key, rows: Sequence[Row]) -> Part:
    values = np.array([row.duration_ns for row in rows], np.int64)
    histogram = Histogram()
    histogram.record(values)
    low, high = median_interval(values)
    major, pages = (median([getattr(row, name) for row in rows]) for name in ("major_faults", "pages_read"))
    throttled = [row.throttled_ns for row in rows if row.throttled_ns is not None]
    quota = median(throttled) if len(throttled) == len(rows) else None
    return Part(*key, len(values), median(values), low, high, histogram, major, pages, quota)


def median(values: Sequence[float] | npt.NDArray[np.int64]) -> float:
    """Wherever starts have a median, it is this one."""
    return float(np.median(values))


def median_interval(values: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The bootstrap's 95 % interval of the median (percentile method); the value itself where there is one only."""
    low, high = np.percentile(_medians(values, np.random.default_rng(_SEED)), (2.5, 97.5))
    return float(low), float(high)


def _medians(values: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """The medians of resamples of ``values``."""
    found: npt.NDArray[np.float64] = np.median(rng.choice(values, (_RESAMPLES, len(values))), axis=1)
    return found


def _outliers(totals: npt.NDArray[np.int64], durations: dict[Key, dict[int, int]]) -> list[Outlier]:
    if len(totals) < 5:
        return []
    low, high = np.percentile(totals, (25, 75))
    found = []
    for number in np.flatnonzero(totals > high + _FENCE * (high - low)).tolist():
        excess = {
            key: values[number] - median(list(values.values()))
            for key, values in durations.items()
            if number in values and key[2] == 1
        }
        stage, name, _ = key = max(excess, key=lambda each: excess[each])
        found.append(Outlier(number, int(totals[number]), stage, name, excess[key]))
    return found


@dataclass(frozen=True)
class Change:
    """A row in two sets of starts: medians, and their difference with its 95 % interval. Nanoseconds.

    ``certain`` is False where the interval holds 0, or ``few`` starts of a set that has the row have it (less than
    `ENOUGH`): the difference may be chance. A row that only one set has is new or gone; its other median is None.
    ``place`` is which start of its run it is, from 0.
    """

    stage: str
    name: str
    depth: int
    before: float | None
    after: float | None
    difference: float
    low: float
    high: float
    place: int = 0
    few: bool = False

    @property
    def certain(self) -> bool:
        return not self.few and (self.low > 0 or self.high < 0)


def changes(before: Sequence[Start], after: Sequence[Start]) -> list[Change]:
    """Row by row, the total first, of the first starts of all runs, then of the second ones, and so on."""
    sets = ([[each[number] for number in numbers] for numbers in by_place(each)] for each in (before, after))
    return [
        replace(change, place=place)
        for place, (one, other) in enumerate(itertools.zip_longest(*sets, fillvalue=[]))
        for change in _changes(one, other)
    ]


def _changes(before: Sequence[Start], after: Sequence[Start]) -> list[Change]:
    one, other = _with_total(before), _with_total(after)
    keys = list(other)
    for key in one:
        if key not in other:  # where it stood: behind the row that comes before it
            earlier = [each for each in list(one)[: list(one).index(key)] if each in keys]
            keys.insert(keys.index(earlier[-1]) + 1 if earlier else 0, key)
    return [_change(key, one.get(key), other.get(key)) for key in keys]


def _with_total(starts: Sequence[Start]) -> dict[Key, npt.NDArray[np.int64]]:
    if not starts:
        return {}
    of_all = {("", "total", 0): dict(enumerate(map(_whole, starts))), **_rows(starts)}
    return {key: np.array([row.duration_ns for row in rows.values()], np.int64) for key, rows in of_all.items()}


def _change(key: Key, one: npt.NDArray[np.int64] | None, other: npt.NDArray[np.int64] | None) -> Change:
    zero = np.zeros(1, np.int64)
    rng = np.random.default_rng(_SEED)
    medians = [_medians(zero if values is None else values, rng) for values in (one, other)]
    low, high = np.percentile(medians[1] - medians[0], (2.5, 97.5))
    before, after = (None if values is None else median(values) for values in (one, other))
    few = any(values is not None and len(values) < ENOUGH for values in (one, other))
    return Change(*key, before, after, (after or 0) - (before or 0), float(low), float(high), few=few)

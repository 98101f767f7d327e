"""Statistics of which each value is a host's: medians with intervals, spreads, and groups that cannot be told apart.

Values of one host follow each other, those of hosts do not: so hosts are what is counted, resampled and tested.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from gotrace.analysis.stats.multiple import holm
from gotrace.analysis.stats.ranks import mann_whitney
from gotrace.analysis.stats.values import Estimate, FloatArray, IntArray, checked, spread

LEAST_HOSTS = 5  # for an interval, and for a group to be compared
LEAST_SLOTS = 3  # quarters of the day (UTC) in which a group was measured, to be compared
LEAST_DAYS = 2
LEAST_CORRECTED = 8  # from so many hosts on an interval is bias-corrected and accelerated
ALPHA = 0.05
_RESAMPLES = 10_000
_AT_ONCE = 2_000_000  # numbers drawn at a time
_SEED = 20261130  # the same hosts give the same interval


def median_of(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The median of hosts, and its interval by the bootstrap: of its percentiles, or BCa from `LEAST_CORRECTED` hosts on.

    Without an interval (infinite ends) below `LEAST_HOSTS`: of three, three of four such intervals hold the truth. Efron
    and Tibshirani, "An Introduction to the Bootstrap", 14.3. Raises ValueError without values.
    """
    row = checked(values)
    middle = float(np.median(row))
    if len(row) < LEAST_HOSTS:
        return Estimate(middle, -math.inf, math.inf, 1.0)
    found = _resampled(row)
    ends = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if len(row) >= LEAST_CORRECTED:
        ends = _corrected(row, found, middle, ends)
    low, high = np.quantile(found, ends)
    return Estimate(middle, float(low), float(high), confidence)


def _resampled(row: FloatArray) -> FloatArray:
    rng = np.random.default_rng(_SEED)
    each = max(1, _AT_ONCE // len(row))
    parts = []
    for start in range(0, _RESAMPLES, each):
        drawn = rng.integers(0, len(row), (min(each, _RESAMPLES - start), len(row)))
        parts.append(np.median(row[drawn], axis=1))
    return np.concatenate(parts)


def _corrected(row: FloatArray, found: FloatArray, middle: float, ends: FloatArray) -> FloatArray:
    """Which quantiles of the resampled medians are the ends, by their bias and by how their spread changes."""
    normal = NormalDist()
    below = float(((found < middle).mean() + (found <= middle).mean()) / 2)
    if not 0 < below < 1:
        return ends  # all hosts are equal
    bias = normal.inv_cdf(below)
    without = np.array([np.median(np.delete(row, at)) for at in range(len(row))])
    away = without.mean() - without
    scale = float((away**2).sum())
    acceleration = float((away**3).sum()) / (6 * scale**1.5) if scale else 0.0
    moved = [bias + normal.inv_cdf(float(end)) for end in ends]
    return np.array([normal.cdf(bias + each / (1 - acceleration * each)) for each in moved])


class Stability(NamedTuple):
    """Standard deviations of logarithms, so 0.02 is about 2 %; None if there is no two of anything to tell it from."""

    between: float | None  # from host to host
    within: float | None  # from one quarter of a day to the next, on the same host


def stability(hosts: Sequence[float], over_time: Sequence[Sequence[float]]) -> Stability:
    """``over_time``: of each host what it had in each quarter of a day."""
    return Stability(_deviation([hosts]), _deviation(over_time))


def _deviation(groups: Sequence[Sequence[float]]) -> float | None:
    if any(value <= 0 for group in groups for value in group):
        return None
    found = spread(*(np.log(np.array(group)) for group in groups))
    return None if math.isnan(found) else found


class Enough(NamedTuple):
    """What a group was measured on, and when; ``lacking`` is empty if that is enough to compare it with others."""

    hosts: int
    slots: int
    days: int

    @property
    def lacking(self) -> str:
        wanted = [("hosts", self.hosts, LEAST_HOSTS), ("quarters of the day", self.slots, LEAST_SLOTS)]
        wanted.append(("days", self.days, LEAST_DAYS))
        return ", ".join(f"{found} of {least} {what}" for what, found, least in wanted if found < least)


class Letters(NamedTuple):
    """``of``: groups that share a letter cannot be told apart. ``p``: of each pair, adjusted for how many there are."""

    of: dict[str, str]
    p: dict[tuple[str, str], float]


def letters(groups: Mapping[str, Sequence[float]]) -> Letters:
    """Each two groups by Mann and Whitney's test on their hosts, Holm over all pairs; as a compact letter display.

    Letters are in the order of the groups' medians. By insertion and absorption: Piepho, "An Algorithm for a Letter-Based
    Representation of All-Pairwise Comparisons", 2004.
    """
    names = sorted(groups, key=lambda name: float(np.median(groups[name])))
    pairs = list(itertools.combinations(names, 2))
    raw = [mann_whitney(groups[one], groups[other]).two_sided for one, other in pairs]
    p = dict(zip(pairs, holm(raw).tolist(), strict=True)) if pairs else {}
    return Letters(letters_of(names, [pair for pair in pairs if p[pair] <= ALPHA]), p)


def letters_of(names: Sequence[str], differ: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The letters of ``names``, in their order, if these pairs of them differ."""
    columns = [frozenset(names)]
    for pair in differ:
        split = [part for column in columns for part in _without(column, pair)]
        columns = []
        for part in sorted(set(split), key=len, reverse=True):
            if not any(part <= kept for kept in columns):
                columns.append(part)
    columns.sort(key=lambda column: [at for at, name in enumerate(names) if name in column])
    return {name: "".join(_letter(at) for at, column in enumerate(columns) if name in column) for name in names}


def _without(column: frozenset[str], pair: tuple[str, str]) -> list[frozenset[str]]:
    return [column - {each} for each in pair] if column.issuperset(pair) else [column]


def _letter(number: int) -> str:
    """a to z, then a2, b2 and so on."""
    return chr(ord("a") + number % 26) + (str(number // 26 + 1) if number >= 26 else "")


def quarters(slots: Sequence[str]) -> tuple[int, int]:
    """(quarters of the day, days) of numbers of quarters since 1970."""
    numbers: IntArray = np.array(sorted({int(each) for each in slots}), np.int64)
    return len(np.unique(numbers % 4)), len(np.unique(numbers // 4))

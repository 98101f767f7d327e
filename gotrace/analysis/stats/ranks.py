"""Exact rank tests, and the Hodges-Lehmann estimates and intervals that belong to them.

Runs are few and not normal (Maricq et al., OSDI 2018), so nothing is assumed about their distribution. Null distributions
are enumerated, not approximated, by the shift algorithm (Streitberg and Roehmel, 1986): how many subsets of the ranks have
which sum, rank by rank. It takes tied values as they are, so that neither random permutations nor a seed are needed. Above
`EXACT_PAIRS` and `EXACT_RUNS` the normal approximation with corrections for ties and continuity takes over.

Estimates and intervals: Hodges and Lehmann, 1963; Hollander, Wolfe and Chicken, "Nonparametric Statistical Methods", 3.2
and 4.2. p <= 0.05 and a 95 % interval that excludes 0 are the same statement where nothing is tied; with ties both keep
their error rate, but need not agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.values import Estimate, FloatArray, IntArray, checked

EXACT_PAIRS = 500  # 0.1 s where they are first asked for
EXACT_RUNS = 200  # of both sets together; 0.5 s
# More values than this cannot be runs; all their pairs would take gigabytes.
_MOST_DIFFERENCES = 50_000_000


@dataclass(frozen=True)
class PValues:
    """How often chance alone does at least as much, if there is no difference: in either direction, upwards, downwards."""

    two_sided: float
    greater: float
    less: float


def signed_rank(differences: npt.ArrayLike, shift: float = 0.0) -> PValues:
    """Wilcoxon's signed rank test that pairs differ by ``shift``: ``greater`` is small if they differ by more.

    Zeros are ranked with the others, then left out (Pratt, 1959), as a pair without a difference is evidence too. All
    zeros: every p is 1. Raises ValueError without values, or if one is not finite.
    """
    row = checked(differences) - shift
    ranks = _doubled_ranks(np.abs(row))
    differ = row != 0
    above = int(ranks[row > 0].sum())
    ranks = ranks[differ]
    if len(row) <= EXACT_PAIRS:
        return _exact(above, *_sums_of_any(tuple(sorted(ranks.tolist()))))
    return _approximate(above, ranks.sum() / 2, math.sqrt(float(np.sum(ranks.astype(float) ** 2))) / 2)


def mann_whitney(a: npt.ArrayLike, b: npt.ArrayLike, shift: float = 0.0) -> PValues:
    """Mann and Whitney's U test that ``b`` is ``a`` moved by ``shift``: ``greater`` is small if ``b`` is larger.

    Raises ValueError if a side has no values, or one that is not finite.
    """
    one, other = checked(a), checked(b) - shift
    ranks = _doubled_ranks(np.concatenate([one, other]))
    count, total = len(other), len(ranks)
    above = int(ranks[len(one) :].sum())
    if total <= EXACT_RUNS:
        return _exact(above, *_sums_of_some(tuple(sorted(ranks.tolist())), count))
    mean = float(ranks.mean())
    squares = float(np.sum((ranks - mean) ** 2))
    return _approximate(above, count * mean, math.sqrt(count * len(one) * squares / (total * (total - 1))))


def least_p_of_pairs(pairs: int) -> float:
    """The smallest two-sided p that this many pairs can ever have."""
    return min(2.0 ** (1 - pairs), 1.0)


def least_p_of_sets(a: int, b: int) -> float:
    """The smallest two-sided p that two sets of so many runs can ever have."""
    return min(2 / math.comb(a + b, a), 1.0)


def shift_of_pairs(differences: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """By how much the second of each pair differs from the first: the median of the means of every two differences.

    Raises ValueError without values, if one is not finite, or if they are far too many to be runs.
    """
    row = checked(differences)
    _refuse_too_many(len(row) * (len(row) + 1) // 2)
    first, second = np.triu_indices(len(row))
    # halves first: the sum of two large numbers could be infinite
    means = row[first] / 2 + row[second] / 2
    means.sort()
    return _between_ranks(means, *_pairs_left_out(len(row), round(1 - confidence, 12)))


def shift_of_sets(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """By how much ``b`` lies above ``a``: the median of the differences of every value of ``b`` to every one of ``a``.

    Raises ValueError if a side has no values or one that is not finite, or if they are far too many to be runs.
    """
    one, other = checked(a), checked(b)
    _refuse_too_many(len(one) * len(other))
    differences = np.subtract.outer(other, one).reshape(-1)
    differences.sort()
    sizes = sorted((len(one), len(other)))
    return _between_ranks(differences, *_sets_left_out(sizes[0], sizes[1], round(1 - confidence, 12)))


def probability_of_greater(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """P(B > A), equal ones counted half (Vargha and Delaney, 2000): 0.5 is no difference, 1 that all of ``b`` are larger.

    Raises ValueError if a side has no values, or one that is not finite.
    """
    one, other = np.sort(checked(a)), checked(b)
    below = np.searchsorted(one, other, "left") + np.searchsorted(one, other, "right")
    return float(below.sum() / (2 * len(one) * len(other)))


def levels_of_pairs(pairs: int) -> FloatArray:
    """Every two-sided p that untied pairs can have, ascending; at most `EXACT_PAIRS`."""
    chances, *_ = _sums_of_any(tuple(range(2, 2 * pairs + 2, 2)))
    return _levels(chances)


def levels_of_sets(a: int, b: int) -> FloatArray:
    """Every two-sided p that two untied sets can have, ascending; at most `EXACT_RUNS` together."""
    chances, *_ = _sums_of_some(tuple(range(2, 2 * (a + b) + 2, 2)), min(a, b))
    return _levels(chances)


def _levels(chances: FloatArray) -> FloatArray:
    return np.minimum(2 * np.cumsum(chances)[: (len(chances) + 1) // 2], 1.0)


def _doubled_ranks(values: FloatArray) -> IntArray:
    """Ranks from 1, the mean rank where values are equal; doubled, which makes them whole numbers."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: IntArray = (2 * last - counts + 1)[which.reshape(-1)]
    return ranks


@lru_cache(128)
def _sums_of_any(ranks: tuple[int, ...]) -> tuple[FloatArray, int, int]:
    """(chance of each sum, first sum, step between sums) if each rank is in with a chance of a half."""
    step = math.gcd(*ranks) or 1
    small = [rank // step for rank in ranks]
    chances = np.zeros(sum(small) + 1)
    chances[0] = 1
    top = 0
    for rank in small:
        chances[: top + 1] /= 2
        chances[rank : top + rank + 1] += chances[: top + 1].copy()
        top += rank
    return chances, 0, step


@lru_cache(128)
def _sums_of_some(ranks: tuple[int, ...], count: int) -> tuple[FloatArray, int, int]:
    """(chance of each sum, first sum, step between sums) of ``count`` of the ascending ranks, none drawn twice."""
    lowest = ranks[0]
    step = math.gcd(*(rank - lowest for rank in ranks)) or 1
    small = [(rank - lowest) // step for rank in ranks]
    # by how many were drawn, and their sum: how many ways there are. No more than 1e59, which a float holds.
    ways = np.zeros((count + 1, sum(small[-count:]) + 1))
    ways[0, 0] = 1
    for rank in small:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    least = sum(small[:count])
    return ways[count, least:] / ways[count].sum(), count * lowest + least * step, step


def _exact(found: int, chances: FloatArray, first: int, step: int) -> PValues:
    place = (found - first) // step
    less, greater = float(chances[: place + 1].sum()), float(chances[place:].sum())
    return PValues(min(2 * min(less, greater), 1.0), min(greater, 1.0), min(less, 1.0))


def _approximate(found: int, mean: float, deviation: float) -> PValues:
    """Of doubled ranks, where neighbouring sums are 2 apart, and half of that is taken off for continuity."""
    if not deviation:
        return PValues(1.0, 1.0, 1.0)
    less, greater = (math.erfc(-(sign * (found - mean) + 1) / deviation / math.sqrt(2)) / 2 for sign in (1, -1))
    return PValues(min(2 * min(less, greater), 1.0), greater, less)


@lru_cache(512)
def _pairs_left_out(pairs: int, error: float) -> tuple[int, float]:
    if pairs <= EXACT_PAIRS:
        return _left_out(_sums_of_any(tuple(range(2, 2 * pairs + 2, 2)))[0], error)
    sums = pairs * (pairs + 1)
    return _left_out_of_many(sums / 4, math.sqrt(sums * (2 * pairs + 1) / 24), error)


@lru_cache(512)
def _sets_left_out(a: int, b: int, error: float) -> tuple[int, float]:
    if a + b <= EXACT_RUNS:
        return _left_out(_sums_of_some(tuple(range(2, 2 * (a + b) + 2, 2)), a)[0], error)
    return _left_out_of_many(a * b / 2, math.sqrt(a * b * (a + b + 1) / 12), error)


def _left_out(chances: FloatArray, error: float) -> tuple[int, float]:
    """(how many sorted differences lie outside each end of the interval, its confidence); (0, 1) if there is none."""
    tails = np.cumsum(chances)
    # a hair above: 0.025 is a level of its own for some numbers of runs
    count = int(np.searchsorted(tails, error / 2 * (1 + 1e-9), "right"))
    return count, 1 - 2 * float(tails[count - 1]) if count else 1.0


def _left_out_of_many(mean: float, deviation: float, error: float) -> tuple[int, float]:
    return int(mean + NormalDist().inv_cdf(error / 2) * deviation), 1 - error


def _between_ranks(ascending: FloatArray, left_out: int, confidence: float) -> Estimate:
    """The interval begins at the last value that is left out at its end: with one left out, at the smallest."""
    middle = float(np.median(ascending))
    if not left_out:
        return Estimate(middle, -math.inf, math.inf, 1.0)
    return Estimate(middle, float(ascending[left_out - 1]), float(ascending[-left_out]), confidence)


def _refuse_too_many(differences: int) -> None:
    if differences > _MOST_DIFFERENCES:
        raise ValueError("so many values cannot be one for each run")

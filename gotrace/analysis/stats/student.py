"""Student's t distribution, and Welch's test, which is reported for those who expect it and decides nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from statistics import NormalDist

import numpy.typing as npt

from gotrace.analysis.stats.values import checked


@dataclass(frozen=True)
class Welch:
    """``t`` is positive where ``b`` is larger. ``freedom`` in degrees, ``p`` two-sided."""

    t: float
    freedom: float
    p: float


def welch(a: npt.ArrayLike, b: npt.ArrayLike) -> Welch | None:
    """Welch's t test (1947) of two sets of values; None where a side has fewer than two, or neither varies.

    Raises ValueError if a side has no values, or one that is not finite.
    """
    one, other = checked(a), checked(b)
    if min(len(one), len(other)) < 2:
        return None
    errors = [float(row.var(ddof=1)) / len(row) for row in (one, other)]
    # what rounding leaves of values that are all equal is no variance
    if math.sqrt(sum(errors)) <= 1e-14 * max(abs(float(row.mean())) for row in (one, other)):
        return None
    t = (float(other.mean()) - float(one.mean())) / math.sqrt(sum(errors))
    parts = [error**2 / (len(row) - 1) for error, row in zip(errors, (one, other), strict=True)]
    if not sum(parts):  # squares of numbers so small are 0
        return None
    freedom = sum(errors) ** 2 / sum(parts)
    return Welch(t, freedom, 2 * upper_tail(abs(t), freedom))


@lru_cache(512)
def quantile(probability: float, freedom: float) -> float:
    """The value that Student's t does not exceed with this probability (between 0 and 1). Raises ValueError outside."""
    if not 0 < probability < 1 or freedom <= 0:
        raise ValueError("a probability is above 0 and below 1, and degrees of freedom are above 0")
    if probability < 0.5:
        return -quantile(1 - probability, freedom)
    low, high = 0.0, math.inf
    found = NormalDist().inv_cdf(probability)
    while True:  # Newton's method, kept between what is known to be below and above
        beyond = upper_tail(found, freedom) - (1 - probability)
        low, high = (found, high) if beyond > 0 else (low, found)
        better = found + beyond / _density(found, freedom)
        if not low < better < high:
            better = (low + high) / 2 if high < math.inf else 2 * found + 1
        if abs(better - found) <= 1e-12 * max(better, 1):
            return better
        found = better


def _density(t: float, freedom: float) -> float:
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - (freedom + 1) / 2 * math.log1p(t * t / freedom)
    return math.exp(log) / math.sqrt(freedom * math.pi)


def upper_tail(t: float, freedom: float) -> float:
    """P(T > t) for t >= 0."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22), evaluated after Lentz."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) / a
    tiny = 1e-300
    c, d, value = 1.0, 0.0, 1.0
    for step in count():
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + term * d or tiny)
        c = 1 + term / c or tiny
        value *= c * d
        if step and abs(c * d - 1) < 1e-15 or step > 10_000:
            break
    return front * (value - 1)

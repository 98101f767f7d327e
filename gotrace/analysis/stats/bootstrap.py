"""Percentiles of all runs' values together, with an interval that knows that values come in runs.

For charts of whole distributions. A decision takes one value for each run, and a test of `ranks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.values import Estimate, FloatArray, IntArray, checked

LEAST_RUNS = 8  # with fewer, the intervals are far too narrow
RESAMPLES = 10_000
_SEED = 20261107  # the same runs give the same interval

Counted = tuple[FloatArray, IntArray]


def counted(values: npt.ArrayLike) -> Counted:
    """The distinct values of a run, ascending, and how often it has each. Raises ValueError if one is not finite."""
    distinct, counts = np.unique(checked(values), return_counts=True)
    return distinct, counts.astype(np.int64)


def pooled_percentile(
    runs: Sequence[Counted], percentile: float, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """A percentile (0 to 100) of the values of all runs; each run as `counted`, or as the buckets of its histogram.

    Resampled in two stages (Davison and Hinkley, "Bootstrap Methods and their Application", 3.8): runs first, then the
    values within each. The interval lies between two of the sorted resampled percentiles. Which value a percentile is:
    as in `Histogram.percentiles`. Raises ValueError for fewer than `LEAST_RUNS` runs, or for one without values.
    """
    if len(runs) < LEAST_RUNS:
        raise ValueError(f"at least {LEAST_RUNS} runs are needed, not {len(runs)}")
    support, up_to = _up_to(runs)
    sizes = up_to[:, -1]
    if not sizes.all():
        raise ValueError("a run has no values")
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), resamples) * sizes
    found = np.sort(support[_resampled(up_to, drawn, _targets(drawn.sum(axis=1), percentile), rng)])
    outside = (1 - confidence) / 2 * resamples
    low, high = found[int(outside)], found[min(math.ceil(resamples - outside), resamples) - 1]
    target = int(_targets(sizes.sum()[None], percentile)[0])
    value = support[int(np.searchsorted(up_to.sum(axis=0)[1:], target))]
    return Estimate(float(value), float(low), float(high), confidence)


def _up_to(runs: Sequence[Counted]) -> tuple[FloatArray, IntArray]:
    """All distinct values, and of each run (rows) how many of its values lie before each of them (columns, from 0)."""
    support = np.unique(np.concatenate([values for values, _ in runs])).astype(np.float64)
    up_to = np.zeros((len(runs), len(support) + 1), np.int64)
    for row, (values, counts) in zip(up_to, runs, strict=True):
        np.add.at(row, np.searchsorted(support, values) + 1, counts)
    return support, np.cumsum(up_to, axis=1)


def _targets(counts: IntArray, percentile: float) -> IntArray:
    """Which of so many sorted values, from 1, is the percentile."""
    return np.maximum((min(percentile, 100.0) * counts / 100 + 0.5).astype(np.int64), 1)


def _resampled(up_to: IntArray, drawn: IntArray, targets: IntArray, rng: np.random.Generator) -> IntArray:
    """For each resample the place, in the distinct values, of the one at rank ``targets``.

    Drawing millions of values ten thousand times is not needed. The values that a resample draws from a run are split in
    two halves, those in the lower half of the range being binomial; the half with the rank is split again, until one
    distinct value is left. That has exactly the distribution that drawing each value would have.
    """
    resamples, runs = drawn.shape
    which = np.arange(runs)
    low = np.zeros(resamples, np.int64)
    high = np.full(resamples, up_to.shape[1] - 1)
    left, targets = drawn.copy(), targets.copy()
    while (high - low > 1).any():
        middle = (low + high + 1) // 2  # that of a single value is its end: it stays as it is
        before, here, after = (up_to[which, at[:, None]] for at in (low, middle, high))
        lower = rng.binomial(left, (here - before) / np.maximum(after - before, 1))
        count = lower.sum(axis=1)
        is_lower = targets <= count
        left = np.where(is_lower[:, None], lower, left - lower)
        targets -= np.where(is_lower, 0, count)
        high = np.where(is_lower, middle, high)
        low = np.where(is_lower, low, middle)
    return low

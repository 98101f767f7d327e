"""How fast something grows within a run, such as RSS, and between which limits."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.values import Estimate, FloatArray, checked

# All pairs of so many points are 2 million slopes: 60 ms. More points are put together in blocks first.
_MOST_POINTS = 2000
LEAST_BLOCKS = 10
MOST_CORRELATED = 0.2


def theil_sen(times: npt.ArrayLike, values: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """The median of the slopes between every two points (Theil, 1950), with Sen's interval (1968); values per time.

    The interval holds for points that scatter around the line independently: see `growth`. Raises ValueError for fewer
    than two points, values that are not finite, or if there is only one time; and for more than 2,000 points.
    """
    x, y = checked(times, 2), checked(values, 2)
    if len(x) != len(y):
        raise ValueError("there is one value for each time")
    if len(x) > _MOST_POINTS:
        raise ValueError(f"more than {_MOST_POINTS} points have too many slopes: put them together first")
    slopes = _slopes(x, y)
    if not len(slopes):
        raise ValueError("all values are of one time")
    middle = float(np.median(slopes))
    # Kendall's S has this variance if there is no trend, the ties among times and among values taken off (Sen's 2.6).
    variance = (_terms(len(x)) - _tied(x) - _tied(y)) / 18
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(max(variance, 0))
    first, last = round((len(slopes) - reach) / 2) - 1, round((len(slopes) + reach) / 2)
    if not variance > 0:  # all values are one
        first, last = 0, len(slopes) - 1
    low = float(slopes[first]) if first >= 0 else -math.inf
    high = float(slopes[last]) if last < len(slopes) else math.inf
    return Estimate(middle, low, high, confidence)


def growth(times: npt.ArrayLike, values: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """The slope of a series, with an interval that holds although neighbours resemble each other; values per time.

    Samples of RSS are far from independent, which makes Sen's interval of them much too narrow. The means of blocks take
    their place, of so many samples that a block above the line says little about the next one (`block_size`). Where that
    leaves fewer than 10 blocks the interval is infinite: the series is too short to tell growth from wandering.
    ``times`` ascend. Raises ValueError as `theil_sen` does, for as many points as there are.
    """
    x, y = checked(times, 2), checked(values, 2)
    if len(x) != len(y):
        raise ValueError("there is one value for each time")
    if (np.diff(x) < 0).any():
        raise ValueError("times ascend")
    least = -(-len(x) // _MOST_POINTS)
    x, y = _in_blocks(x, least), _in_blocks(y, least)
    whole = theil_sen(x, y, confidence)
    size = block_size(y - whole.value * x)
    if size is None:
        return Estimate(whole.value, -math.inf, math.inf, 1.0)
    return theil_sen(_in_blocks(x, size), _in_blocks(y, size), confidence)


def block_size(values: npt.ArrayLike, least: int = LEAST_BLOCKS, most: float = MOST_CORRELATED) -> int | None:
    """How many neighbours to put together so that blocks' means are as good as independent: 1, 2, 4, ...

    That is, until means of neighbouring blocks correlate by no more than ``most``; None if that leaves fewer than ``least``
    blocks. Raises ValueError if a value is not finite.
    """
    row, size = checked(values, 0), 1
    while len(row) // size >= least:
        if _neighbours_correlation(_in_blocks(row, size)) <= most:
            return size
        size *= 2
    return None


def _in_blocks(row: FloatArray, size: int) -> FloatArray:
    """The means of blocks; what is left at the end for less than a block is left out."""
    blocks: FloatArray = row[: len(row) // size * size].reshape(-1, size).mean(axis=1)
    return blocks


def _neighbours_correlation(row: FloatArray) -> float:
    around = row - row.mean()
    total = float(np.sum(around**2))
    return float(np.sum(around[1:] * around[:-1])) / total if total else 0.0


def _slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    first, second = np.triu_indices(len(x), 1)
    times = x[second] - x[first]
    apart = times != 0
    slopes: FloatArray = (y[second] - y[first])[apart] / times[apart]
    slopes.sort()
    return slopes


def _terms(count: int) -> int:
    return count * (count - 1) * (2 * count + 5)


def _tied(row: FloatArray) -> int:
    return sum(_terms(count) for count in np.unique(row, return_counts=True)[1].tolist())

"""How many values a run needs for a percentile, and between which of its values the percentile lies."""

from __future__ import annotations

import math

import numpy as np


def values_needed(percentile: float, confidence: float = 0.95) -> int:
    """From how many values on a percentile (between 0 and 100) has a two-sided interval at all.

    With fewer, the true percentile lies beyond the largest value more often than the interval may miss on that side. At
    95 %: 6 for p50, 36 for p90, 368 for p99, 3,688 for p99.9. Raises ValueError outside of 0 to 100, or of 0 to 1.
    """
    share = _share(percentile, confidence)
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(share, 1 - share)) - 1e-9)


def enough(count: int, percentile: float) -> bool:
    """Whether a percentile of so many values may be shown and compared."""
    return count >= values_needed(percentile)


def rank_interval(count: int, percentile: float, confidence: float = 0.95) -> tuple[int, int] | None:
    """The ranks, from 1, of the two sorted values between which the percentile lies; None if ``count`` is too small.

    It holds for independent values. Those of a run follow each other, so that it says how finely this run has seen its
    own percentile, and nothing about the next run. Raises ValueError outside of 0 to 100, or of 0 to 1.
    """
    share = _share(percentile, confidence)
    if count < values_needed(percentile, confidence):
        return None
    # How many of the values lie below the percentile is binomial. Its chances relative to the likeliest number, over a
    # range outside of which they are below 1e-30.
    middle, reach = int(count * share), int(12 * math.sqrt(count * share * (1 - share))) + 60
    low, high = max(middle - reach, 0), min(middle + reach, count)
    numbers = np.arange(low, high)
    steps = np.log((count - numbers) / (numbers + 1)) + math.log(share / (1 - share))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    chances = np.exp(logs - logs.max())
    up_to = np.cumsum(chances / chances.sum())
    error = (1 - confidence) / 2
    first = low + int(np.searchsorted(up_to, error, "right"))
    last = low + int(np.searchsorted(up_to, 1 - error, "left")) + 1
    return max(first, 1), min(last, count)


def _share(percentile: float, confidence: float) -> float:
    if not (0 < percentile < 100 and 0 < confidence < 1):
        raise ValueError("a percentile lies between 0 and 100, a confidence between 0 and 1")
    return percentile / 100

"""p values of many questions asked at once: 20 metrics at 0.05 give a false alarm in 64 % of comparisons of nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.values import FloatArray, checked


def holm(p: npt.ArrayLike) -> FloatArray:
    """Adjusted p values, in the order given: those up to 0.05 hold one false alarm or more in at most 5 % of families.

    Holm, 1979; however the questions depend on each other. Raises ValueError if one is not between 0 and 1.
    """
    values = _probabilities(p)
    order = np.argsort(values, kind="stable")
    adjusted = np.maximum.accumulate(np.minimum(values[order] * np.arange(len(values), 0, -1), 1.0))
    return _in_order(adjusted, order)


def benjamini_hochberg(p: npt.ArrayLike) -> FloatArray:
    """Adjusted p values, in the order given: of those up to 0.1, at most 10 % are false alarms on average.

    Benjamini and Hochberg, 1995; for questions that are independent or move together. For looking around, not for
    deciding. Raises ValueError if one is not between 0 and 1.
    """
    values = _probabilities(p)
    order = np.argsort(values, kind="stable")[::-1]
    scaled = values[order] * (len(values) / np.arange(len(values), 0, -1))
    return _in_order(np.minimum(np.minimum.accumulate(scaled), 1.0), order)


def _probabilities(p: npt.ArrayLike) -> FloatArray:
    values = checked(p, 0)
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p is a probability, from 0 to 1")
    return values


def _in_order(adjusted: FloatArray, order: npt.NDArray[np.intp]) -> FloatArray:
    out = np.empty_like(adjusted)
    out[order] = adjusted
    return out

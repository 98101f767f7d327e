"""Runs that lie far from the others. They are marked, and nothing is ever dropped for its value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.values import checked

FAR = 5.0  # standard deviations
# A normal distribution's standard deviation in terms of its median, and of its mean, distance to the middle.
_OF_MEDIAN_DISTANCE, _OF_MEAN_DISTANCE = 1.4826, 1.2533


def marks(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which values lie more than 5 x 1.4826 median absolute deviations from the median; of the same length.

    Where more than half of the values are equal that deviation is 0, and the mean one takes its place (Iglewicz and
    Hoaglin, 1993): or a single step of a counter would be marked. Raises ValueError if a value is not finite.
    """
    row = checked(values, 0)
    if not len(row):
        return np.zeros(0, bool)
    distances = np.abs(row - np.median(row))
    deviation = _OF_MEDIAN_DISTANCE * np.median(distances) or _OF_MEAN_DISTANCE * distances.mean()
    far: npt.NDArray[np.bool_] = distances > FAR * deviation
    return far

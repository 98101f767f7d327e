"""What goes into a statistic and what comes out of it: rows of finite numbers, and estimates with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """``value`` and the interval that holds the truth in ``confidence`` (0 to 1) of all cases; in the data's unit.

    ``confidence`` is what was attained: an exact interval of few values has only a few levels to choose from, and takes
    the nearest one above what was asked for. ``low`` and ``high`` are infinite where the values are too few for any.
    """

    value: float
    low: float
    high: float
    confidence: float


def checked(values: npt.ArrayLike, at_least: int = 1) -> FloatArray:
    """``values`` as one row of float64.

    Raises ValueError if they are not one row, are fewer than ``at_least``, or if one is NaN or infinite: what is unknown
    has to be left out, and counted, by who knows what it means.
    """
    row = np.asarray(values, np.float64)
    if row.ndim != 1:
        raise ValueError(f"one row of numbers is needed, not {row.ndim} dimensions")
    if len(row) < at_least:
        raise ValueError(f"at least {at_least} values are needed, not {len(row)}")
    if not np.isfinite(row).all():
        raise ValueError("a value is NaN or infinite")
    return row


def logs(values: npt.ArrayLike) -> FloatArray:
    """Natural logarithms, on whose scale ratios are differences. Raises ValueError if a value is not above 0."""
    row = checked(values, 0)
    if (row <= 0).any():
        raise ValueError("only values above 0 have a ratio")
    return np.log(row)


def spread(*groups: npt.ArrayLike) -> float:
    """The standard deviation (n - 1) within groups, pooled over them: from one run to the next, in the values' unit.

    On the scale of `logs` it is relative: 0.02 is 2 %. NaN if no group has two values.
    """
    rows = [checked(group, 0) for group in groups]
    freedom = sum(max(len(row) - 1, 0) for row in rows)
    squares = sum(float(np.sum((row - row.mean()) ** 2)) for row in rows if len(row))
    return float(np.sqrt(squares / freedom)) if freedom else float("nan")

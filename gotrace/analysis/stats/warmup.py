"""When a process had warmed up, and whether it ever did.

After Barrett, Bolz-Tereick, Killick, Mount and Tratt, "Virtual Machine Warmup Blows Hot and Cold" (OOPSLA 2017): change
points in mean and variance by PELT (Killick, Fearnhead and Eckley, 2012) with a penalty of 15 ln n; segments that are
equivalent to the last one; a class. What differs from theirs is due to seconds of a service taking the place of iterations
of a benchmark:

* A difference of 1 % of the typical value is none, for segments and for noise (theirs: 1 ms). Values that do not vary at
  all, such as a heap between two collections, would otherwise be divided at every step.
* Outliers are found in windows of 21 values, not of 200, that a minute of values would not fill, and only where the
  values before and after them are none: the slow first seconds are what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.values import FloatArray, checked

Kind = Literal["flat", "warmed up", "slowing down", "no steady state"]
SETTLED = 15  # values: how long the last state has to last
TOLERANCE = 0.01  # of the typical value
_PENALTY = 15.0
_WINDOW = 21
_FAR = 3.0  # times p90 - p10, beyond the median
_NORMAL_RANGE = 2.563  # p90 - p10 of a normal distribution, in standard deviations
_KINDS: tuple[Kind, ...] = ("flat", "warmed up", "slowing down", "no steady state")


@dataclass(frozen=True)
class Segment:
    """Values ``begin`` up to ``end`` (not included), outliers left out; in the values' unit."""

    begin: int
    end: int
    mean: float
    deviation: float


@dataclass(frozen=True)
class Warmup:
    """``steady_from`` is the place of the first value of the last state; None where there is no steady state."""

    kind: Kind
    steady_from: int | None
    segments: tuple[Segment, ...]


def classify(values: npt.ArrayLike, settled: int = SETTLED, lower_is_better: bool | None = True) -> Warmup:
    """Of one value for each second (or iteration), in order.

    flat: every segment is equivalent to the last. Warmed up: the last is the best. Slowing down: an earlier one was better.
    No steady state: the last state does not cover the last ``settled`` values. ``lower_is_better`` is None for values that
    are neither, such as the live heap: they do not slow down. Raises ValueError if a value is not finite.
    """
    row = checked(values, 0)
    parts = segments(row)
    if len(row) < max(settled, 1):
        return Warmup("no steady state", None, parts)
    last = parts[-1]
    allowed = max(last.deviation, TOLERANCE * abs(last.mean))
    alike = [abs(part.mean - last.mean) <= allowed for part in parts]
    first = len(parts) - next((back for back, same in enumerate(reversed(alike)) if not same), len(parts))
    steady_from = parts[first].begin
    if len(row) - steady_from < settled:
        return Warmup("no steady state", None, parts)
    if all(alike):
        return Warmup("flat", 0, parts)
    others = [part.mean for part, same in zip(parts, alike, strict=True) if not same]
    was_better = lower_is_better is not None and any((mean < last.mean) == lower_is_better for mean in others)
    return Warmup("slowing down" if was_better else "warmed up", steady_from, parts)


def worst(found: Iterable[Warmup]) -> tuple[Kind, int | None]:
    """Of a run, from its metrics: the worst class, and the first place from which all of them are steady."""
    several = list(found)
    kind = max((each.kind for each in several), key=_KINDS.index, default=_KINDS[-1])
    steady = [each.steady_from for each in several if each.steady_from is not None]
    return kind, None if kind == "no steady state" else max(steady)


def segments(values: npt.ArrayLike) -> tuple[Segment, ...]:
    """The states that the values are in one after the other. Raises ValueError if a value is not finite."""
    row = checked(values, 0)
    if not len(row):
        return ()
    noise = _least_noise(row)
    used = np.flatnonzero(~_isolated(row, noise))
    kept = row[used]
    # an outlier belongs to the segment it follows
    begins = [0, *used[change_points(kept, noise)].tolist()]
    ends = [*begins[1:], len(row)]
    found = []
    for begin, end in zip(begins, ends, strict=True):
        inside = kept[(used >= begin) & (used < end)]
        found.append(Segment(begin, end, float(inside.mean()), float(inside.std())))
    return tuple(found)


def change_points(values: FloatArray, noise: float, penalty: float | None = None) -> npt.NDArray[np.int64]:
    """Where a new mean or variance begins, ascending, by PELT: the division of least cost of all that there are.

    The cost of a segment is -2 ln of its likelihood, its values being normal with a deviation of ``noise`` at least (above
    0, in the values' unit); every change point costs ``penalty`` (15 ln n). Time grows with n where changes keep coming,
    with its square where there are none: 10 ms for 180 values.
    """
    count = len(values)
    if penalty is None:
        penalty = _PENALTY * float(np.log(max(count, 1)))
    scaled = (values - np.median(values)) / noise if count else values
    sums = np.concatenate([[0.0], np.cumsum(scaled)])
    squares = np.concatenate([[0.0], np.cumsum(scaled**2)])
    best = np.empty(count + 1)  # the least cost of the first values
    best[0] = -penalty
    previous = np.zeros(count + 1, np.int64)
    starts = np.zeros(1, np.int64)  # where the segment that ends here may have begun
    for end in range(1, count + 1):
        costs = best[starts] + _costs(sums, squares, starts, end)
        place = int(np.argmin(costs))
        best[end] = costs[place] + penalty
        previous[end] = starts[place]
        # What is dearer than ending a segment here stays dearer, as dividing a segment never makes it cost more.
        starts = np.append(starts[costs <= best[end]], end)
    found = []
    end = count
    while end and previous[end]:
        end = int(previous[end])
        found.append(end)
    return np.array(found[::-1], np.int64)


def _costs(sums: FloatArray, squares: FloatArray, starts: npt.NDArray[np.int64], end: int) -> FloatArray:
    """Of segments from ``starts`` to ``end``, in units in which the least deviation is 1."""
    counts = end - starts
    total = sums[end] - sums[starts]
    variance = np.maximum(squares[end] - squares[starts] - total**2 / counts, 0) / counts
    likeliest = np.maximum(variance, 1)
    costs: FloatArray = counts * (np.log(likeliest) + variance / likeliest)
    return costs


def _least_noise(row: FloatArray) -> float:
    """The deviation below which values count as equal; above 0, and not so small that squares would lose their digits."""
    sizes = np.abs(row)
    typical = float(np.median(sizes)) or float(sizes.mean())
    return max(TOLERANCE * typical, 1e-6 * float(sizes.max()), 1e-290)


def _isolated(row: FloatArray, noise: float) -> npt.NDArray[np.bool_]:
    """Outliers, of which neither neighbour is one, and which are neither first nor last."""
    out = np.zeros(len(row), bool)
    if len(row) < _WINDOW:
        return out
    half = _WINDOW // 2
    windows = np.lib.stride_tricks.sliding_window_view(row, _WINDOW)
    low, middle, high = np.percentile(windows, (10, 50, 90), axis=1)
    # near the ends, the first and the last whole window
    which = np.clip(np.arange(len(row)) - half, 0, len(windows) - 1)
    far = np.abs(row - middle[which]) > _FAR * np.maximum(high - low, _NORMAL_RANGE * noise)[which]
    out[1:-1] = far[1:-1] & ~far[:-2] & ~far[2:]
    return out

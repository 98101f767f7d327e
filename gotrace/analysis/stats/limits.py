"""Whether what a service does keeps a limit, from some of its runs: its median run, that is more than half of all runs.

The sign test, exactly: how many of so many runs keep the limit is binomial, and one half where the median is the limit
itself. It takes nothing for granted about how runs are distributed, and is the same statement as whether the interval of
the median between two of the sorted values (`percentiles.rank_interval`) lies within the limit. Five runs that keep it
are the fewest that show anything at 95 %: 1/2 to the 5th is 3.1 %.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.percentiles import rank_interval
from gotrace.analysis.stats.values import Estimate

LEAST_RUNS = 5
# More than anybody would wait for.
_MOST_RUNS = 200


def more_than_half_p(hits: int, runs: int) -> float:
    """How often chance alone has at least so many ``hits``, if no more than half of all runs are such."""
    outcomes: int = sum(math.comb(runs, each) for each in range(hits, runs + 1))
    return outcomes / (1 << runs)


def median_of(values: npt.ArrayLike, alpha: float = 0.05) -> Estimate:
    """The median of all runs, from some: each end of its interval is right in 1 - ``alpha`` of all cases.

    The ends are infinite where there are too few runs for any. Values may be infinite: a run of which nothing is known
    but the direction. Raises ValueError without values, or if one is NaN.
    """
    row = np.sort(np.asarray(values, np.float64))
    if not len(row) or np.isnan(row).any():
        raise ValueError("there is no median of nothing, or of what is not a number")
    ranks = rank_interval(len(row), 50, 1 - 2 * alpha)
    # not numpy's: of two infinite ones that is NaN
    middle = [float(row[(len(row) - 1) // 2]), float(row[len(row) // 2])]
    median = middle[0] if middle[0] == middle[1] else sum(middle) / 2
    if ranks is None:
        return Estimate(median, -math.inf, math.inf, 1.0)
    low, high = (float(row[rank - 1]) for rank in ranks)
    return Estimate(median, low, high, 1 - 2 * more_than_half_p(ranks[1], len(row)))


def runs_to_show(share: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """How many runs, in all, show with this power that more than half keep a limit, if ``share`` of all do.

    None for so many that nobody would wait for them.
    """
    for runs in range(LEAST_RUNS, _MOST_RUNS + 1):
        needed = hits_needed(runs, alpha)
        if needed is not None and _at_least(needed, runs, share) >= power:
            return runs
    return None


def hits_needed(runs: int, alpha: float = 0.05) -> int | None:
    """How many of so many runs have to keep a limit; None if not even all of them would do."""
    tail = 0
    for hits in range(runs, -1, -1):
        tail += math.comb(runs, hits)
        if tail > alpha * 2**runs:
            return hits + 1 if hits < runs else None
    raise AssertionError("a chance is at most 1")


def _at_least(hits: int, runs: int, share: float) -> float:
    return sum(math.comb(runs, each) * share**each * (1 - share) ** (runs - each) for each in range(hits, runs + 1))

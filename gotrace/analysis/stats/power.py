"""What so many runs can show, and how many it takes: said beside every verdict, above all beside "cannot tell".

The formulas are those of Student's t with two corrections, without which the exact rank tests would show less than is
said: the level that a discrete test attains instead of the one asked for, and its efficiency of 3/pi where runs are
normal (Hodges and Lehmann, 1956). Simulated: power 0.75 to 0.81 where 0.80 is meant, but 0.64 to 0.74 with the fewest runs
that can reach a level at all (9 pairs at 0.00625, 6 pairs at 0.05). With heavy tails ranks do better.

Changes, margins and spreads are in the unit of the values that are compared: 0.05 is a ratio of exp(0.05) on the scale
of logarithms. ``runs`` are pairs, or runs of each set; ``spread`` is `Change.spread`. Where that is not known ValueError is
raised.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gotrace.analysis.stats import ranks, student
from gotrace.analysis.stats.changes import LEAST_PAIRS, LEAST_RUNS

# From here on a level that is attained is the one asked for, to a hundredth.
_MANY = 25
_EFFICIENCY = 3 / math.pi
# More than anybody would wait for; the search ends there.
_MOST_RUNS = 1 << 40


def least_change(spread: float, runs: int, *, paired: bool, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true change that a two-sided test finds with this power; infinite if no outcome could be significant.

    With Holm, the honest ``alpha`` of one metric is that of the family divided by the number of metrics.
    """
    level = _level(runs, alpha, paired)
    return _detected(spread, runs, level, power, paired)


def least_margin(
    spread: float, runs: int, *, paired: bool, alpha: float = 0.05, power: float = 0.8, same: bool = False
) -> float:
    """The smallest margin that a version without any change is shown to keep, with this power; infinite if none is.

    To keep is not to be worse by the margin (one-sided at ``alpha``: a gate's pass), or with ``same`` to be within it on
    both sides.
    """
    level = _level(runs, 2 * alpha, paired)
    return _detected(spread, runs, level, (1 + power) / 2 if same else power, paired)


def runs_to_find(spread: float, change: float, *, paired: bool, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many runs it takes, in all, to find a true change of this size. Raises ValueError if it is not above 0."""
    return _fewest(change, paired, lambda runs: least_change(spread, runs, paired=paired, alpha=alpha, power=power))


def runs_to_pass(
    spread: float, margin: float, *, paired: bool, alpha: float = 0.05, power: float = 0.8, same: bool = False
) -> int:
    """How many runs it takes, in all, to show that no change keeps the margin. Raises ValueError if it is not above 0."""
    return _fewest(
        margin, paired, lambda runs: least_margin(spread, runs, paired=paired, alpha=alpha, power=power, same=same)
    )


def _level(runs: int, alpha: float, paired: bool) -> float:
    """The largest two-sided level up to ``alpha`` that the exact test has; 0 if it has none."""
    if runs >= _MANY:
        return alpha
    if runs < 2:
        return 0.0
    levels = ranks.levels_of_pairs(runs) if paired else ranks.levels_of_sets(runs, runs)
    place = int(np.searchsorted(levels, alpha * (1 + 1e-9), "right"))
    return float(levels[place - 1]) if place else 0.0


def _detected(spread: float, runs: int, level: float, power: float, paired: bool) -> float:
    if not level:
        return math.inf
    if not 0 <= spread < math.inf:
        raise ValueError("a spread is 0 or more; that of a single run is not known")
    freedom, error = (runs - 1, math.sqrt(1 / runs)) if paired else (2 * runs - 2, math.sqrt(2 / runs))
    quantiles = student.quantile(1 - level / 2, freedom) + student.quantile(power, freedom)
    return spread * error * quantiles / math.sqrt(_EFFICIENCY)


def _fewest(wanted: float, paired: bool, reached: Callable[[int], float]) -> int:
    """The smallest number of runs, of those that verdicts are made of, whose ``reached`` is at most ``wanted``."""
    if not wanted > 0:
        raise ValueError("no number of runs shows that nothing at all has changed")
    for runs in range(LEAST_PAIRS if paired else LEAST_RUNS, _MANY):
        if reached(runs) <= wanted:
            return runs
    low, high = _MANY - 1, _MANY
    while reached(high) > wanted and high < _MOST_RUNS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) > wanted else (low, middle)
    return high

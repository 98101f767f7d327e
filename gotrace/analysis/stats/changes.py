"""The change from one version to another, as it was measured: in pairs of runs, or in two separate sets of runs.

Values are what is compared: logarithms for a metric that is compared by its ratio (`values.logs`), the values themselves
for one that may be 0 or negative, such as the growth of RSS. Positive is up, from the first version to the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy.typing as npt

from gotrace.analysis.stats import ranks
from gotrace.analysis.stats.ranks import PValues
from gotrace.analysis.stats.values import Estimate, checked, spread

LEAST_PAIRS, LEAST_RUNS = 6, 5  # with fewer, no p can be below 0.05 (pairs), or is worth a word (sets)


class Change(Protocol):
    """What verdicts are made of."""

    @property
    def runs(self) -> int:
        """Pairs, or runs of the smaller set."""
        ...

    @property
    def paired(self) -> bool: ...

    @property
    def enough(self) -> bool:
        """Whether there are enough runs to say anything."""
        ...

    @property
    def least_p(self) -> float:
        """The smallest two-sided p that so many runs can have."""
        ...

    @property
    def spread(self) -> float:
        """The standard deviation of pairs' differences, or of runs within their sets; NaN if there is one only."""
        ...

    def test(self, shift: float = 0.0) -> PValues:
        """Of the hypothesis that the change is ``shift``."""
        ...

    def estimate(self, confidence: float = 0.95) -> Estimate:
        """The change, with its exact interval."""
        ...


@dataclass(frozen=True, eq=False)
class Paired:
    """Of runs in pairs, measured one right after the other in random order: ``differences``, second version minus first."""

    differences: npt.ArrayLike

    def __post_init__(self) -> None:
        checked(self.differences)

    @property
    def runs(self) -> int:
        return len(checked(self.differences))

    @property
    def paired(self) -> bool:
        return True

    @property
    def enough(self) -> bool:
        return self.runs >= LEAST_PAIRS

    @property
    def least_p(self) -> float:
        return ranks.least_p_of_pairs(self.runs)

    @property
    def spread(self) -> float:
        return spread(self.differences)

    def test(self, shift: float = 0.0) -> PValues:
        return ranks.signed_rank(self.differences, shift)

    def estimate(self, confidence: float = 0.95) -> Estimate:
        return ranks.shift_of_pairs(self.differences, confidence)


@dataclass(frozen=True, eq=False)
class Separate:
    """Of two sets of runs, ``a`` of the first version and ``b`` of the second; drift between them counts as change."""

    a: npt.ArrayLike
    b: npt.ArrayLike

    def __post_init__(self) -> None:
        checked(self.a)
        checked(self.b)

    @property
    def runs(self) -> int:
        return min(len(checked(self.a)), len(checked(self.b)))

    @property
    def paired(self) -> bool:
        return False

    @property
    def enough(self) -> bool:
        return self.runs >= LEAST_RUNS

    @property
    def least_p(self) -> float:
        return ranks.least_p_of_sets(len(checked(self.a)), len(checked(self.b)))

    @property
    def spread(self) -> float:
        return spread(self.a, self.b)

    def test(self, shift: float = 0.0) -> PValues:
        return ranks.mann_whitney(self.a, self.b, shift)

    def estimate(self, confidence: float = 0.95) -> Estimate:
        return ranks.shift_of_sets(self.a, self.b, confidence)

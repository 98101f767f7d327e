"""From changes to words: better, worse, same, cannot tell; and for a gate: pass, fail, inconclusive.

"Not significant" is no proof of sameness. "Same" is said where two one-sided tests (Schuirmann, 1987) reject a change by
the margin in both directions at 5 %, that is where the 90 % interval lies inside of the margin; a gate passes where the
one that matters does. What is neither proved to be the one nor the other cannot be told.

A gate's pass needs every metric to pass, and needs no correction for their number (an intersection-union test: Berger,
1982). Verdicts of change, and a gate's fail, are corrected by Holm's method over the family. Who looks at the runs twice,
before a planned extension and after it, gives half of ``alpha`` to each look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy.typing as npt

from gotrace.analysis.stats.changes import Change
from gotrace.analysis.stats.multiple import holm
from gotrace.analysis.stats.values import Estimate, FloatArray

Word = Literal["better", "worse", "same", "cannot tell"]
Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Question:
    """A metric's change, with the least change that matters, in the unit of its values; which way is better.

    A margin of ln(1.05) on the scale of logarithms is 5 % up, and as much down in proportion (to 1/1.05). Raises
    ValueError for a margin that is not above 0: nothing can be proved to be equal to 0 %.
    """

    change: Change
    margin: float
    lower_is_better: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.margin < float("inf"):
            raise ValueError("a margin must be above 0: equality to within 0 % cannot be proved")


@dataclass(frozen=True)
class Verdict:
    """``p`` of no change is two-sided; ``adjusted_p`` is it in its family; ``same_p`` is of a change by the margin or more.

    ``changed`` says whether a change was proved. It may be within the margin: then the word is "same", as the margin is
    what its user said matters.
    """

    word: Word
    estimate: Estimate
    p: float
    adjusted_p: float
    same_p: float
    changed: bool


@dataclass(frozen=True)
class Gate:
    """``bound`` is how much worse it may be, in the values' unit, at 95 % one-sided: it passes if that is below the margin.

    ``adjusted_p`` is of being worse by no more than the margin: two-sided, in its family; it fails if that is up to 0.05.
    """

    outcome: Outcome
    estimate: Estimate
    bound: float
    adjusted_p: float


def verdicts(
    family: Sequence[Question], alpha: float = 0.05, adjusted: Callable[[npt.ArrayLike], FloatArray] = holm
) -> list[Verdict]:
    """One for each question of a family, in its order.

    For questions outside of the primary family ``adjusted`` is `multiple.benjamini_hochberg`, and ``alpha`` 0.1. Too few
    runs (fewer than 6 pairs, or 5 a side) cannot tell anything.
    """
    found = [question.change.test().two_sided for question in family]
    return [
        _verdict(question, p, float(corrected), alpha)
        for question, p, corrected in zip(family, found, adjusted(found), strict=True)
    ]


def same_p(change: Change, margin: float) -> float:
    """The p value of two one-sided tests: of a true change by ``margin`` or more, in whichever direction."""
    return max(change.test(-margin).greater, change.test(margin).less)


def _verdict(question: Question, p: float, corrected: float, alpha: float) -> Verdict:
    change = question.change
    estimate = change.estimate()
    equal = same_p(change, question.margin)
    # the estimate may be 0 with a significant p only where values are tied in the oddest way; then nothing is claimed
    changed = change.enough and corrected <= alpha and estimate.value != 0
    word: Word = "cannot tell"
    if change.enough and _inside(change.estimate(0.9), question.margin):
        word = "same"
    elif changed:
        word = "better" if (estimate.value < 0) == question.lower_is_better else "worse"
    return Verdict(word, estimate, p, corrected, equal, changed)


def _inside(interval: Estimate, margin: float) -> bool:
    return -margin < interval.low and interval.high < margin


def gate(family: Sequence[Question], alpha: float = 0.05) -> list[Gate]:
    """Whether each metric is worse by no more than its margin, in the family's order. Too few runs are inconclusive."""
    found = []
    for question in family:
        beyond = question.change.test(_worse(question) * question.margin)
        found.append(min(2 * (beyond.greater if question.lower_is_better else beyond.less), 1.0))
    return [_gate(question, float(corrected), alpha) for question, corrected in zip(family, holm(found), strict=True)]


def _worse(question: Question) -> int:
    return 1 if question.lower_is_better else -1


def _gate(question: Question, corrected: float, alpha: float) -> Gate:
    one_sided = question.change.estimate(1 - 2 * alpha)
    bound = one_sided.high if question.lower_is_better else -one_sided.low
    outcome: Outcome = "inconclusive"
    if question.change.enough:
        if bound < question.margin:
            outcome = "pass"
        elif corrected <= alpha:
            outcome = "fail"
    return Gate(outcome, question.change.estimate(), bound, corrected)


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Of a whole gate: fail if one fails, pass if all pass. Without any, nothing was shown: inconclusive."""
    if "fail" in outcomes:
        return "fail"
    return "pass" if outcomes and set(outcomes) == {"pass"} else "inconclusive"


def look(alpha: float, looks: int) -> float:
    """``alpha`` of each of so many planned looks at the runs, each of which is a chance of a false alarm.

    Raises ValueError for fewer than one.
    """
    if looks < 1:
        raise ValueError("there is at least one look")
    return alpha / looks

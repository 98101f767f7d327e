"""Reports of baselines against each other: what is better, worse or the same, and what these runs cannot tell.

A run is one value of each metric. Versions of one report that were measured in turns are compared pair by pair; separate
reports as two sets, in which what drifted between them counts as a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.analysis.stats.changes import Change, Paired, Separate
from gotrace.analysis.stats.multiple import benjamini_hochberg, holm
from gotrace.analysis.stats.power import least_change, runs_to_find
from gotrace.analysis.stats.ranks import probability_of_greater
from gotrace.analysis.stats.verdicts import Question, Verdict, verdicts
from gotrace.errors import Exit, GotraceError, UsageError
from gotrace.lab.metrics import METRICS, PRIMARY, Metric
from gotrace.lab.runs import ONE_SAMPLE, of_one_process, valid_runs
from gotrace.text import count_text, printable

if TYPE_CHECKING:
    from gotrace.lab.report import Baseline, Run

CANNOT_TELL = "cannot tell"
EXPLORATORY_ALPHA = 0.1
# What plans of earlier releases do not have.
_NOT_TRACED = {"events": False, "wakeups": False, "coldstart": False}


class NotComparableError(GotraceError):
    """Two reports of different things: times of one say nothing about the other."""

    exit_code = Exit.NOT_COMPARABLE


@dataclass(frozen=True)
class Side:
    """The runs of one version that count."""

    name: str
    report: Baseline
    runs: list[Run]


@dataclass
class Compared:
    """One metric of two sides, in the metric's base unit; ``change`` and its interval are B / A, of growth B - A.

    None stands for what cannot be said: a side has too few runs with a value (or a value of 0, of which there is no
    ratio). ``least`` is the smallest change that these runs could have shown, ``more`` how many further runs a side would
    show one of the margin.
    """

    metric: str
    a: float | None
    b: float | None
    runs: tuple[int, int]
    verdict: str
    reason: str
    change: tuple[float, float, float] | None
    confidence: float | None
    p: float | None
    adjusted_p: float | None
    greater: float | None
    least: float | None
    more: int | None
    primary: bool

    def to_json(self) -> dict[str, Any]:
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }


def sides_of(reports: Sequence[tuple[str, Baseline]]) -> list[Side]:
    """The versions of one report, or the one version of each of several. Raises UsageError."""
    if len(reports) == 1:
        name, report = reports[0]
        names = [version["name"] for version in report["versions"]]
        if len(names) < 2:
            raise UsageError(
                f"{printable(name)} has only one version", "give a second report, or measure several with --ab"
            )
        return [Side(each, report, valid_runs(report, each)) for each in names]
    found = []
    for name, report in reports:
        versions = report["versions"]
        if len(versions) != 1:
            raise UsageError(
                f"{printable(name)} has {len(versions)} versions", "compare it on its own: gotrace compare DIR"
            )
        found.append(Side(name, report, valid_runs(report, versions[0]["name"])))
    return found


def require_comparable(a: Side, b: Side) -> None:
    """Raises NotComparableError with the first difference that makes times of one say nothing about the other."""
    one, other = a.report, b.report
    if one["plan"].get("emulated") or other["plan"].get("emulated"):
        raise NotComparableError(
            "a report was measured on an emulated machine, whose times are not comparable",
            "measure on a real one, or compare them anyway with --anyway",
        )
    if one["host"]["host_class"] != other["host"]["host_class"]:
        raise NotComparableError(
            "the reports are from different kinds of machines",
            "measure both on one machine with --ab, or compare them anyway with --anyway",
        )
    plans = [{**_NOT_TRACED, **report["plan"]} for report in (one, other)]
    for what, of in (
        ("load", "load"),
        ("warm-up", "warmup_ns"),
        ("CPUs of the service", "cpus"),
        ("CPUs of the load", "load_cpus"),
        ("pauses that are explained", "explained"),
        ("events that are traced", "events"),
        ("wake-ups that are traced", "wakeups"),
        ("starts that are traced", "coldstart"),
    ):
        if plans[0][of] != plans[1][of]:
            raise _measured_differently(what)
    if a.report is not b.report:
        if one.get("tool") != other.get("tool"):
            raise _measured_differently("version of gotrace")
        if a.runs and b.runs and _load_tools(a) != _load_tools(b):
            raise _measured_differently("version of the load tool")


def _measured_differently(what: str) -> NotComparableError:
    return NotComparableError(
        f"the reports differ in their {what}", "measure both in the same way, or compare them anyway with --anyway"
    )


def _load_tools(side: Side) -> set[tuple[object, object]]:
    return {(run["load"].get("tool"), run["load"].get("version")) for run in side.runs}


def compare(a: Side, b: Side, margin: float, everything: bool = False) -> list[Compared]:
    """Every metric that both have: the primary ones as one family (Holm, 0.05), the others as another, exploratory one.

    ``margin`` is the change that matters, as a share (0.05); of growth, that share of A's RSS per minute.
    """
    return compare_with_each(a, [b], margin, everything)[0]


def compare_with_each(a: Side, others: Sequence[Side], margin: float, everything: bool = False) -> list[list[Compared]]:
    """`compare`, of the first version with each of the others: a family is of all of them, as many as there are chances."""
    found: list[list[Compared]] = [[] for _ in others]
    names = [name for name in METRICS if everything or name in PRIMARY]
    for family in ([each for each in names if each in PRIMARY], [each for each in names if each not in PRIMARY]):
        asked = [
            (rows, b, name, *question_of(a, b, METRICS[name], margin, paired=a.report is b.report))
            for rows, b in zip(found, others, strict=True)
            for name in family
        ]
        questions = [question for *_, question, _ in asked if question is not None]
        primary = bool(family) and family[0] in PRIMARY
        alpha, adjusted = (0.05, holm) if primary else (EXPLORATORY_ALPHA, benjamini_hochberg)
        answers = iter(verdicts(questions, alpha=alpha, adjusted=adjusted) if questions else [])
        for rows, b, name, question, reason in asked:
            answer = next(answers) if question is not None else None
            rows.append(_compared(a, b, METRICS[name], margin, question, answer, reason, primary, len(questions)))
    return found


def values_of(side: Side, name: str) -> dict[int, float]:
    """A metric of the runs that have it, by round; what is not finite is unknown."""
    return {
        run["round"]: value for run in side.runs if (value := run["metrics"].get(name)) is not None and math.isfinite(value)
    }


def question_of(a: Side, b: Side, metric: Metric, margin: float, paired: bool) -> tuple[Question | None, str]:
    """What is asked of the runs, or why nothing can be; ``margin`` as in `compare`."""
    if of_one_process(a.report) or of_one_process(b.report):
        return None, ONE_SAMPLE
    of_a, of_b = values_of(a, metric.name), values_of(b, metric.name)
    if not of_a or not of_b:
        return None, "no values"
    if metric.name.endswith(".max") and _differ_in_length(a, b):
        return None, "runs of different lengths"
    rounds = sorted(of_a.keys() & of_b.keys())
    left = np.array([of_a[each] for each in rounds] if paired else list(of_a.values()))
    right = np.array([of_b[each] for each in rounds] if paired else list(of_b.values()))
    if not len(left) or not len(right):
        return None, "no values"
    if metric.dimension == "growth":
        rss = list(values_of(a, "rss.mean").values())
        scale = margin * float(np.median(rss)) / 60 if rss else 0.0
        if scale <= 0:
            return None, "no values"
    else:
        if min(left.min(), right.min()) <= 0:
            equal = len(left) == len(right) and bool((left == right).all())
            return None, "0 in all runs" if equal else "0 in some runs: no ratio"
        left, right, scale = np.log(left), np.log(right), math.log1p(margin)
    change: Change = Paired(right - left) if paired else Separate(left, right)
    if not change.enough:
        return None, f"{count_text(min(len(left), len(right)), 'run')}: too few"
    return Question(change, scale, lower_is_better=metric.better == "less"), ""


def _differ_in_length(a: Side, b: Side) -> bool:
    """Whether the runs of one are longer by more than 1 %: the longer one looks, the longer the longest.

    By the load tool's own word, where it gives one: that its process starts and ends late is not a longer load.
    """
    of_a, of_b = (float(np.median([_length_ns(run) for run in side.runs])) for side in (a, b))
    return max(of_a, of_b) > 1.01 * min(of_a, of_b)


def _length_ns(run: Run) -> int:
    return int(run.get("load", {}).get("duration_ns") or run["length_ns"])


def _compared(
    a: Side,
    b: Side,
    metric: Metric,
    margin: float,
    question: Question | None,
    answer: Verdict | None,
    reason: str,
    primary: bool,
    family: int,
) -> Compared:
    of_a, of_b = list(values_of(a, metric.name).values()), list(values_of(b, metric.name).values())
    middle_a, middle_b = (float(np.median(each)) if each else None for each in (of_a, of_b))
    runs = len(of_a), len(of_b)
    if question is None or answer is None:
        nothing = (None, None, None, None, None, None, None)
        return Compared(metric.name, middle_a, middle_b, runs, CANNOT_TELL, reason, *nothing, primary)
    estimate, change = answer.estimate, question.change
    numbers = (estimate.value, estimate.low, estimate.high)
    paired = change.paired
    level = 0.05 / max(1, family) if primary else EXPLORATORY_ALPHA
    least = least_change(change.spread, change.runs, paired=paired, alpha=level)
    needed = runs_to_find(change.spread, question.margin, paired=paired, alpha=level)
    is_ratio = metric.dimension != "growth"
    return Compared(
        metric.name,
        middle_a,
        middle_b,
        runs,
        answer.word,
        "",
        tuple(math.exp(each) for each in numbers) if is_ratio else numbers,  # type: ignore[arg-type]
        estimate.confidence,
        answer.p,
        answer.adjusted_p,
        probability_of_greater(np.array(of_a), np.array(of_b)),
        math.expm1(least) if is_ratio else least,
        max(0, needed - change.runs) if answer.word == CANNOT_TELL else None,
        primary,
    )

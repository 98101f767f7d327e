"""May this be released? A pass has to be earned: what these runs cannot show is inconclusive, never a pass.

A version is judged in two ways. Against another one: each metric may be worse by its margin at most. And by itself:
requirements, which the median run has to keep, that is more than half of all runs; one on a longest or a highest value,
or for equality, every run that there is.

Both are decided on one interval, each end of which is right in 95 % of cases: inside of the limit is a pass, beyond it a
fail, else it is inconclusive. A pass of all needs a pass of each, and no correction for their number (an
intersection-union test). Fails of changes are corrected by Holm's method; a requirement is a question of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gotrace.analysis.stats import limits
from gotrace.analysis.stats.changes import LEAST_PAIRS, LEAST_RUNS
from gotrace.analysis.stats.power import runs_to_find, runs_to_pass
from gotrace.analysis.stats.verdicts import Gate as Judged
from gotrace.analysis.stats.verdicts import Outcome, Question, gate, look, together
from gotrace.errors import Exit, GotraceError, UsageError
from gotrace.lab.compare import NotComparableError, Side, question_of, require_comparable, values_of
from gotrace.lab.metrics import METRICS, PRIMARY, Metric
from gotrace.lab.requirements import Requirement
from gotrace.lab.runs import MOST_ERRORS, ONE_SAMPLE, extended_text, of_one_process, valid_runs
from gotrace.text import count_text, printable

if TYPE_CHECKING:
    from gotrace.lab.report import Baseline

ALPHA = 0.05
MARGIN = 0.05
# What is made of events: where some were lost it is not known, or at least what it is.
_OF_EVENTS = (
    *("stw.", "gc.mark.", "gc.assist.", "gc.cycles_per_s", "heap.live.", "heap.goal."),
    *("sched.wait.", "sched.cpu_wait.", "sched.binding.", "steal."),
)
# What one run is enough to break: it has been that high.
_HIGHEST = (".max", ".peak")
_INTERRUPTED = "Ctrl-C"  # a report that was cut off by its user


class NotMeasuredError(GotraceError):
    """A report that ends where the service, or its load, failed."""

    exit_code = Exit.NOT_MEASURED


@dataclass(frozen=True)
class Rules:
    """``margins``: by how much each metric may be worse than the other version's, as a share; None: the primary ones.

    ``margin`` is that of metrics without one of their own. ``looks`` is how often these runs are looked at, as planned
    before the first look.
    """

    margin: float = MARGIN
    margins: Mapping[str, float] | None = None
    requirements: tuple[Requirement, ...] = ()
    looks: int = 1

    @property
    def alpha(self) -> float:
        return look(ALPHA, self.looks)


@dataclass(frozen=True)
class Row:
    """One metric, and what came of it.

    ``measured`` and its interval are of a change B / A (growth: B - A), of a requirement the median of the runs; ``limit``
    is in the same unit. None stands for what cannot be said. ``more`` is how many further runs would settle it in four
    cases of five, if they go on as these.
    """

    metric: str
    kind: Literal["change", "requirement"]
    operator: str
    limit: float | None
    required: str
    verdict: Outcome
    reason: str
    runs: int
    a: float | None
    b: float | None
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    p: float | None = None
    more: int | None = None

    def text(self, value: float | None) -> str:
        """A value of ``measured`` for people; "?" for what is not known."""
        metric = METRICS[self.metric]
        if value is None or not math.isfinite(value):
            return "?"
        if self.kind == "requirement":
            return metric.text(value)
        if metric.dimension == "growth":
            return f"{'+' if value >= 0 else ''}{metric.text(value)}"
        return f"{value - 1:+.1%}"

    @property
    def interval(self) -> str:
        """For people; "-" if there is none."""
        if self.measured is None or self.low is None or self.high is None:
            return "-"
        return f"{self.text(self.low)} to {self.text(self.high)}"

    def to_json(self) -> dict[str, Any]:
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }


@dataclass
class Gated:
    """What came of a gate. ``problem`` is why nothing could be judged; then there are no rows."""

    a: Side | None
    b: Side
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: GotraceError | None = None

    @property
    def verdict(self) -> Outcome:
        return together([row.verdict for row in self.rows])

    def counted(self, inconclusive: Outcome = "inconclusive") -> Outcome:
        """The verdict, where ``inconclusive`` is what is made of one that is; of a problem nothing is made."""
        return inconclusive if self.verdict == "inconclusive" and self.problem is None else self.verdict

    def ended(self, inconclusive: Outcome = "inconclusive") -> int:
        """The exit status; ``inconclusive`` as in `counted`."""
        if self.problem is not None:
            return self.problem.exit_code
        return {"pass": Exit.OK, "fail": Exit.FAIL, "inconclusive": Exit.INCONCLUSIVE}[self.counted(inconclusive)]

    @property
    def sentence(self) -> str:
        """Verdict and reason, in a line."""
        if self.problem is not None:
            return f"{self.verdict}: {self.problem.message}"
        named = ", ".join(row.metric for row in self.rows if row.verdict == self.verdict)
        if self.verdict == "pass":
            return f"pass: {count_text(len(self.rows), 'condition')} met"
        return f"{self.verdict}: {named or 'nothing was judged'}"

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "gotrace.gate.result/1",
            "verdict": self.verdict,
            "sentence": self.sentence,
            "status": self.ended(),
            "problem": self.problem.message if self.problem is not None else None,
            "a": _about(self.a) if self.a is not None else None,
            "b": _about(self.b),
            "metrics": [row.to_json() for row in self.rows],
            "notes": self.notes,
        }


def _about(side: Side) -> dict[str, Any]:
    planned = side.report["plan"].get("runs")
    return {"name": side.name, "runs": len(side.runs), "planned": planned, "complete": side.report["complete"]}


def report_of(path: str) -> tuple[str, Baseline]:
    """A report by its path, checked. Raises UsageError."""
    from gotrace.lab.report import whole

    return path, whole(path)


def sides(
    judged: tuple[str, Baseline], against: tuple[str, Baseline] | None = None, version: str | None = None
) -> tuple[Side | None, Side]:
    """The version to compare with, if there is one, and the one that is judged. Raises UsageError.

    ``version`` is the judged one of a report with several. Without ``against`` it is compared with the first of them.
    """
    name, report = judged
    names = [each["name"] for each in report["versions"]]
    if version is not None and version not in names:
        raise UsageError(f"{printable(name)} has no version {printable(version)!r}", f"there are {_listed(names)}")
    if version is None and len(names) > (1 if against else 2):
        raise UsageError(f"{printable(name)} has {len(names)} versions", f"choose one with --judge: {_listed(names)}")
    if not names:
        raise UsageError(f"{printable(name)} has no runs", "measure again")
    chosen = version if version is not None else names[-1]
    if against is None:
        if len(names) == 1:
            return None, Side(name, report, valid_runs(report, chosen))
        if chosen == names[0]:
            raise UsageError(
                f"{printable(chosen)} is what the others are compared with", f"judge one of {_listed(names[1:])}"
            )
        return Side(names[0], report, valid_runs(report, names[0])), Side(chosen, report, valid_runs(report, chosen))
    other, reference = against
    of = [each["name"] for each in reference["versions"]]
    if len(of) != 1:
        raise UsageError(f"{printable(other)} has {len(of)} versions", "give a report with one version to --against")
    return Side(other, reference, valid_runs(reference, of[0])), Side(name, report, valid_runs(report, chosen))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(printable(each) for each in names[:20])


def judge(a: Side | None, b: Side, rules: Rules, anyway: bool = False) -> Gated:
    """Judge ``b``, against ``a`` if there is one. What keeps the reports from being judged is the result's ``problem``.

    With ``anyway`` reports that are not comparable are judged, but no change passes or fails. Raises UsageError for rules
    that these reports have no metrics for, or that ask for nothing.
    """
    sides = [side for side in (a, b) if side is not None]
    extensions = max(len(side.report.get("extended") or ()) for side in sides)
    rules = replace(rules, looks=max(rules.looks, 1 + extensions))
    margins = _margins(a, b, rules)
    if not margins and not rules.requirements:
        raise UsageError("there is nothing to judge by", "give a report with --against, or --require 'latency.p99 <= 28ms'")
    _require_measured(a, b, [*margins, *(each.metric for each in rules.requirements)])
    found = Gated(a, b)
    try:
        for side in (b, *([a] if a is not None else [])):
            _require_whole(side)
        if a is not None:
            require_comparable(a, b)
    except KeyError as error:
        raise UsageError(f"a report is damaged: its plan lacks the key {error.args[0]}", "measure again") from None
    except NotComparableError as error:
        if not anyway:
            found.problem = error
            return found
        found.notes.append(f"NOT COMPARABLE: {error.message}. No change passes or fails.")
    except GotraceError as error:
        found.problem = error
        return found
    distinct = bool(found.notes)
    found.notes += _notes(a, b, bool(margins))
    if extensions:
        told = dict.fromkeys(text for side in sides if (text := extended_text(side.report)))
        found.notes.append(f"{'; '.join(told)}: judged as one of {count_text(rules.looks, 'look')}.")
    if a is not None:
        found.rows += changes(a, b, margins, rules.alpha, distinct)
    found.rows += _requirements(b, rules)
    return found


def _margins(a: Side | None, b: Side, rules: Rules) -> Mapping[str, float]:
    if rules.margins is None:
        # of those that were not measured here, such as the growth of RSS in runs of a second, nothing is asked
        named = _names(b) & (_names(a) if a is not None else set())
        return {name: rules.margin for name in PRIMARY if name in named}
    if rules.margins and a is None:
        raise UsageError(
            f"{next(iter(rules.margins))} has a margin, but there is nothing to compare with",
            "give a report with --against, or a limit: --require",
        )
    return rules.margins


def _names(side: Side) -> set[str]:
    return {name for run in side.report["runs"] for name in run["metrics"]}


def _require_measured(a: Side | None, b: Side, wanted: Sequence[str]) -> None:
    """Raises UsageError for a metric that no run of a report has, with those that sound like it."""
    import difflib

    for side in (b, *([a] if a is not None else [])):
        names = _names(side)
        for name in wanted:
            if name not in names:
                near = difflib.get_close_matches(name, sorted(names), 3)
                hint = f"it has {' and '.join(near)}" if near else "see the output of `gotrace baseline` for its metrics"
                raise UsageError(f"{printable(side.name)} has no metric {name}", hint)


def _require_whole(side: Side) -> None:
    cut_off = side.report["cut_off"]
    if cut_off is not None and cut_off != _INTERRUPTED:
        raise NotMeasuredError(
            f"{printable(side.name)} was not measured to the end: {printable(cut_off)}",
            "check its runs/, and measure again",
        )


def _notes(a: Side | None, b: Side, compared: bool) -> list[str]:
    notes = []
    if a is not None and a.report is not b.report and compared:
        notes.append("Not interleaved: what drifted between the two counts as a difference.")
    for side in ([a] if a is not None else []) + [b]:
        left_out = [run for run in side.report["runs"] if not run["valid"] and _is_of(run["version"], side)]
        if left_out:
            reasons = list(dict.fromkeys(reason for run in left_out for reason in run["reasons"]))
            verb = "does" if len(left_out) == 1 else "do"
            notes.append(f"{count_text(len(left_out), 'run')} of {side.name} {verb} not count: {'; '.join(reasons[:3])}.")
        if not side.report["complete"]:
            notes.append(f"The report of {side.name} is incomplete: nothing passes.")
        if lost := sum(run["lost"] for run in side.runs):
            notes.append(f"{count_text(lost, 'event')} of {side.name} LOST: no pause or cycle metric passes.")
    return notes


def _is_of(version: str, side: Side) -> bool:
    if side.runs:
        return version == side.runs[0]["version"]
    names = [each["name"] for each in side.report["versions"]]
    return version == (side.name if side.name in names else names[0])


def _unearned(name: str, sides: Sequence[Side]) -> str:
    """Why nothing about a metric may pass, or ""."""
    judged = sides[-1]
    if not all(side.report["complete"] for side in sides):
        return "the baseline was cut off"
    if any(of_one_process(side.report) for side in sides):
        return ONE_SAMPLE
    for run in judged.report["runs"]:
        errors = run["metrics"].get("errors.share")
        if not run["valid"] and errors is not None and errors > MOST_ERRORS and _is_of(run["version"], judged):
            return "requests failed in invalid runs"
    if name.startswith(_OF_EVENTS) and any(run["lost"] for side in sides for run in side.runs):
        return "events were lost"
    return ""


def changes(a: Side, b: Side, margins: Mapping[str, float], alpha: float, distinct: bool = False) -> list[Row]:
    """Each metric of ``b`` against ``a`` by its margin, paired where both are of one report; ``distinct``: none may pass
    or fail."""
    paired = a.report is b.report
    asked = [(name, share, *question_of(a, b, METRICS[name], share, paired)) for name, share in margins.items()]
    questions = [each for _, _, each, _ in asked if each is not None]
    answers = iter(gate(questions, alpha))
    rows = []
    for name, share, each, reason in asked:
        metric = METRICS[name]
        if each is None:
            rows.append(_no_change(a, b, metric, share, paired, reason))
        else:
            rows.append(_change(a, b, metric, share, each, next(answers), alpha, len(questions), distinct))
    return rows


def _no_change(a: Side, b: Side, metric: Metric, share: float, paired: bool, reason: str) -> Row:
    runs = min(len(values_of(a, metric.name)), len(values_of(b, metric.name)))
    least = LEAST_PAIRS if paired else LEAST_RUNS
    return Row(
        metric.name,
        "change",
        *_limit(metric, share, None),
        verdict="inconclusive",
        reason=reason,
        runs=runs,
        a=_middle(a, metric),
        b=_middle(b, metric),
        more=least - runs if 0 < runs < least and "few" in reason else None,
    )


def _middle(side: Side, metric: Metric) -> float | None:
    values = list(values_of(side, metric.name).values())
    return float(np.median(values)) if values else None


def _limit(metric: Metric, share: float, scale: float | None) -> tuple[str, float | None, str]:
    """(operator, limit, in words); ``scale`` is the margin of growth, in bytes per second."""
    up = metric.better == "less"
    operator, words = ("<", "below") if up else (">", "above")
    if metric.dimension == "growth":
        if scale is None:
            return operator, None, f"{words} +{share:.3g} of RSS a minute"
        return operator, scale, f"{words} +{metric.text(scale)}"
    limit = 1 + share if up else 1 / (1 + share)
    return operator, limit, f"{words} {100 * (limit - 1):+.3g}%"


def _change(
    a: Side,
    b: Side,
    metric: Metric,
    share: float,
    asked: Question,
    judged: Judged,
    alpha: float,
    family: int,
    distinct: bool,
) -> Row:
    is_growth = metric.dimension == "growth"
    interval = asked.change.estimate(1 - 2 * alpha)
    value, low, high = (each if is_growth else _exp(each) for each in (interval.value, interval.low, interval.high))
    verdict, reason = judged.outcome, ""
    more = _more(asked, alpha, family) if verdict == "inconclusive" else None
    unearned = _unearned(metric.name, (a, b))
    if distinct:
        verdict, reason, more = "inconclusive", "not comparable", None
    elif verdict == "pass" and unearned:
        verdict, reason = "inconclusive", unearned
    elif verdict == "fail" and metric.name.startswith(_OF_EVENTS) and any(run["lost"] for run in a.runs):
        verdict, reason = "inconclusive", "events were lost"
    return Row(
        metric.name,
        "change",
        *_limit(metric, share, asked.margin),
        verdict=verdict,
        reason=reason,
        runs=asked.change.runs,
        a=_middle(a, metric),
        b=_middle(b, metric),
        measured=value,
        low=low,
        high=high,
        confidence=interval.confidence,
        p=judged.adjusted_p,
        more=more,
    )


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _more(asked: Question, alpha: float, family: int) -> int | None:
    """How many further runs would show on which side of its margin the change is, if it is what it seems to be."""
    change = asked.change
    worse = change.estimate().value * (1 if asked.lower_is_better else -1)
    if not math.isfinite(change.spread) or worse == asked.margin:
        return None
    if worse < asked.margin:
        needed = runs_to_pass(change.spread, asked.margin - worse, paired=change.paired, alpha=alpha)
    else:
        needed = runs_to_find(change.spread, worse - asked.margin, paired=change.paired, alpha=alpha / family)
    return max(needed - change.runs, 1)


def _requirements(b: Side, rules: Rules) -> list[Row]:
    return [_requirement(b, _Met.of(b, each), rules.alpha) for each in rules.requirements]


@dataclass(frozen=True)
class _Met:
    """How many runs keep a requirement, and how many break it; of the others it is not known."""

    requirement: Requirement
    values: list[float]  # of all runs; one that is not known is taken as beyond the limit
    kept: int
    broken: int

    @property
    def known(self) -> int:
        return self.kept + self.broken

    @property
    def runs(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, side: Side, requirement: Requirement) -> _Met:
        known = values_of(side, requirement.metric)
        verdicts = [requirement.check({requirement.metric: each}).verdict for each in known.values()]
        beyond = -math.inf if requirement.operator in (">=", ">") else math.inf
        values = [*known.values(), *([beyond] * (len(side.runs) - len(known)))]
        return cls(requirement, values, verdicts.count("met"), verdicts.count("broken"))

    @property
    def broken_p(self) -> float:
        return limits.more_than_half_p(self.broken, self.runs)

    @property
    def of_every_run(self) -> bool:
        """Whether one run that breaks it is enough to keep it from passing."""
        return self.requirement.operator == "==" or self.requirement.metric.endswith(_HIGHEST)


def _requirement(b: Side, met: _Met, alpha: float) -> Row:
    required = met.requirement
    metric = METRICS[required.metric]
    median = limits.median_of(met.values, alpha) if met.known else None
    verdict, reason, more = _kept(met, alpha) if met.known else ("inconclusive", "no values", None)
    lost = metric.name.startswith(_OF_EVENTS) and any(run["lost"] for run in b.runs)
    if verdict == "pass" and (unearned := _unearned(metric.name, (b,))):
        verdict, reason = "inconclusive", unearned
    elif verdict == "fail" and lost and required.operator not in ("<=", "<"):
        verdict, reason = "inconclusive", "events were lost"  # it is at least what it is
    return Row(
        metric.name,
        "requirement",
        required.operator,
        float(required.limit.value),
        f"{required.operator} {required.limit}",
        verdict,
        reason,
        met.runs,
        None,
        _middle(b, metric),
        measured=median.value if median else None,
        low=median.low if median else None,
        high=median.high if median else None,
        confidence=median.confidence if median else None,
        p=met.broken_p if median else None,
        more=more,
    )


def _kept(met: _Met, alpha: float) -> tuple[Outcome, str, int | None]:
    """(verdict, reason, how many more runs)."""
    runs = met.runs
    told = f"kept by {met.kept} of {count_text(runs, 'run')}"
    if met.broken_p <= alpha:
        return "fail", told, None
    if met.of_every_run and 0 < met.broken <= runs / 2:  # which no number of runs makes up for
        return "inconclusive", f"broken by {met.broken} of {count_text(runs, 'run')}", None
    if limits.more_than_half_p(met.kept, runs) <= alpha:
        return "pass", told if met.kept < runs else "", None
    if met.known < runs:
        told += f", no value in {runs - met.known}"
    share = max(met.kept, met.broken) / runs
    needed = limits.runs_to_show(share, alpha)
    return "inconclusive", told, max(needed - runs, 1) if needed is not None else None

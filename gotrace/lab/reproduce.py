"""The plan of a report, carried out again: whether what the report says holds here and now.

"Reproduced" has to be earned: of every metric that was to be judged it has to be shown that it is the same within the
margin. Which those are is settled by the report alone, before anything is measured anew: throughput and the median latency,
and those of the primary metrics whose runs were close enough together to show it. So a machine that is noisy, now or then,
reproduces nothing. A difference by more than the margin is looked for in all primary metrics.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from gotrace import __version__
from gotrace.analysis.stats.changes import LEAST_RUNS
from gotrace.analysis.stats.multiple import holm
from gotrace.analysis.stats.power import runs_to_pass
from gotrace.analysis.stats.values import spread
from gotrace.analysis.stats.verdicts import Question, same_p
from gotrace.binary.program import Program
from gotrace.errors import BinaryError, Exit, UsageError
from gotrace.kernel import machine
from gotrace.lab import baseline
from gotrace.lab.compare import NotComparableError, Side, question_of, require_comparable, values_of
from gotrace.lab.metrics import METRICS, PRIMARY
from gotrace.lab.plan import Plan
from gotrace.lab.report import Baseline, VersionOf
from gotrace.lab.runs import valid_runs
from gotrace.text import percent_text

Answer = Literal["reproduced", "not reproduced", "cannot tell"]
Found = Literal["same", "differs", "cannot tell"]

SCHEMA = "gotrace.reproduction/1"
EXIT_CODES: dict[Answer, int] = {"reproduced": Exit.OK, "not reproduced": Exit.FAIL, "cannot tell": Exit.INCONCLUSIVE}
# Without these nothing is reproduced, however much they vary.
NEEDED = ("throughput", "latency.p50")
_ALPHA = 0.05


@dataclass(frozen=True)
class Expected:
    """What a report alone says of a metric; ``spread`` is its standard deviation between runs, as a share (of growth: B/s).

    ``shows``: so many runs, as far apart as these, show in four cases of five that it is the same, if it is. ``runs`` are
    how many that takes, None if that is not known.
    """

    version: str
    metric: str
    shows: bool
    spread: float | None
    runs: int | None

    @property
    def judged(self) -> bool:
        """Whether it has to be the same."""
        return self.shows or self.metric in NEEDED


@dataclass(frozen=True)
class Repeated:
    """A metric then and now, in its base unit.

    ``change`` and the ends of its 90 % interval are now / then, of growth now - then. ``same_p`` is of a change by the
    margin or more, ``differs_p`` of one within it, corrected for the number of metrics and versions (Holm).
    """

    version: str
    metric: str
    then: float | None
    now: float | None
    runs: tuple[int, int]
    change: tuple[float, float, float] | None
    same_p: float | None
    differs_p: float | None
    judged: bool
    shows: bool
    found: Found
    reason: str


@dataclass(frozen=True)
class Binary:
    """What a version executed then and now."""

    version: str
    then: VersionOf
    now: VersionOf

    @property
    def same(self) -> bool:
        if self.then["build_id"] and self.now["build_id"]:
            return self.then["build_id"] == self.now["build_id"]
        return all(self.then[key] == self.now[key] for key in ("go_version", "exe_bytes"))


@dataclass(frozen=True)
class Reproduction:
    """The answer, why, and what it was made of; ``reasons`` is empty where it is reproduced."""

    answer: Answer
    margin: float
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    binaries: tuple[Binary, ...]
    metrics: tuple[Repeated, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.answer]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "answer": self.answer,
            "within_percent": self.margin * 100,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "binaries": [{"version": e.version, "same": e.same, "then": e.then, "now": e.now} for e in self.binaries],
            "metrics": [_finite(asdict(each)) for each in self.metrics],
        }


def _finite(found: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: plain(value) for name, value in found.items()}


def check(report: Baseline, plan: Plan, folder: Path, force: bool, anyway: bool) -> str:
    """What can be known before anything is started: why this is another kind of machine, "" if it is the same.

    Raises NotComparableError for another one without ``anyway``, UsageError or GotraceError as `baseline.check`.
    """
    found = ""
    here = cast(Baseline, {**report, "host": machine.host(), "tool": __version__})
    try:
        require_comparable(Side("then", report, []), Side("now", here, []))
    except NotComparableError as error:
        found = error.message
        if report["host"]["host_class"] != here["host"]["host_class"]:
            unlike = [str(each) for each in machine.differences(report["host"], here["host"]) if each.matters]
            found = "; ".join(["the report is from a different kind of machine", *unlike])
        if not anyway:
            hint = "repeat it on the same kind of machine; with --anyway it is measured, but the verdict is: cannot tell"
            raise NotComparableError(found, hint) from None
    baseline.check(plan, folder, force)
    return found


def repeat(
    report: Baseline,
    folder: Path,
    margin: float,
    force: bool = False,
    anyway: bool = False,
    say: baseline.Say = lambda _: None,
) -> tuple[Baseline, Reproduction]:
    """Carry out the plan of ``report`` again, with its new report in ``folder``, and judge. Raises as `baseline.run`."""
    plan = Plan.from_json(report["plan"])
    other = check(report, plan, folder, force, anyway)
    for text in binaries_differ(report, plan):
        say(text)
    now = baseline.run(plan, folder, force, say)
    return now, judge(report, now, margin, other)


def binaries_differ(report: Baseline, plan: Plan) -> Iterator[str]:
    """Of each version whose executable is another one than the report's, as far as that is known before it is started."""
    then = {each["name"]: each for each in report["versions"]}
    for version in plan.versions:
        if version.build is not None or version.container is not None or not version.command:
            continue
        path = shutil.which(version.command[0])
        known = then.get(version.name)
        if path is None or known is None or not known["build_id"]:
            continue
        try:
            with Program.open(path) as program:
                # A launcher, which is no Go program, says nothing yet.
                if program.go_version and program.build_id != known["build_id"]:
                    yield f"{version.name} is not the binary in the report: {path} has a different build id"
        except (BinaryError, OSError):
            continue


def expected(report: Baseline, margin: float) -> list[Expected]:
    """Of each version and primary metric, whether it will be judged. ``margin`` is a share, as in `compare.compare`."""
    if not margin > 0:
        raise UsageError("a margin must be above 0: equality to within 0 % cannot be proved", "for example: --margin 3")
    plan = Plan.from_json(report["plan"])
    return [
        _expected(Side(each.name, report, valid_runs(report, each.name)), name, margin, plan.runs)
        for each in plan.versions
        for name in PRIMARY
    ]


def _expected(side: Side, name: str, margin: float, runs: int) -> Expected:
    values = np.array(list(values_of(side, name).values()))
    scale = math.log1p(margin)
    if len(values) < LEAST_RUNS:
        return Expected(side.name, name, False, None, None)
    if METRICS[name].dimension == "growth":
        rss = list(values_of(side, "rss.mean").values())
        scale = margin * float(np.median(rss)) / 60 if rss else 0.0
    elif not values.any():
        return Expected(side.name, name, True, 0.0, LEAST_RUNS)
    elif values.min() <= 0:
        return Expected(side.name, name, False, None, None)
    else:
        values = np.log(values)
    if scale <= 0:
        return Expected(side.name, name, False, None, None)
    width = float(spread(values))
    needed = runs_to_pass(width, scale, paired=False, same=True)
    return Expected(side.name, name, needed <= min(runs, len(values)), width, needed)


def judge(then: Baseline, now: Baseline, margin: float, not_comparable: str = "") -> Reproduction:
    """The report of a plan against that of its repetition; ``not_comparable`` says why nothing can come of it."""
    plan = Plan.from_json(then["plan"])
    asked = []
    for each in expected(then, margin):
        a, b = (Side(each.version, report, valid_runs(report, each.version)) for report in (then, now))
        asked.append((each, a, b, *question_of(a, b, METRICS[each.metric], margin, paired=False)))
    questions = [question for _, _, _, question, _ in asked if question is not None]
    adjusted = iter(holm([_beyond(each) for each in questions]) if questions else ())
    rows = tuple(
        _repeated(each, a, b, question, reason, float(next(adjusted)) if question is not None else None)
        for each, a, b, question, reason in asked
    )
    unlike = [not_comparable] if not_comparable else list(_unlike(then, now, plan, margin))
    answer, reasons = _answer(rows, unlike)
    return Reproduction(answer, margin, tuple(reasons), tuple(_notes(then, now)), tuple(_binaries(then, now)), rows)


def _beyond(question: Question) -> float:
    """p of a change that is within the margin, two-sided."""
    up, down = question.change.test(question.margin), question.change.test(-question.margin)
    return min(1.0, 2 * min(up.greater, down.less))


def _repeated(
    expected: Expected, a: Side, b: Side, question: Question | None, reason: str, differs_p: float | None
) -> Repeated:
    values = [list(values_of(side, expected.metric).values()) for side in (a, b)]
    then, now = (float(np.median(each)) if each else None for each in values)
    runs = len(values[0]), len(values[1])
    change, same = None, None
    if question is None or differs_p is None:
        differs_p = None
        found: Found = "same" if reason == "0 in all runs" and min(runs) >= LEAST_RUNS else "cannot tell"
    else:
        estimate = question.change.estimate(0.9)
        change = (estimate.value, estimate.low, estimate.high)
        if METRICS[expected.metric].dimension != "growth":
            change = (math.exp(change[0]), math.exp(change[1]), math.exp(change[2]))
        inside = -question.margin < estimate.low and estimate.high < question.margin
        found = "same" if inside else "differs" if differs_p <= _ALPHA else "cannot tell"
        same, reason = same_p(question.change, question.margin), ""
    return Repeated(
        expected.version,
        expected.metric,
        then,
        now,
        runs,
        change,
        same,
        differs_p,
        expected.judged,
        expected.shows,
        found,
        reason,
    )


def _unlike(then: Baseline, now: Baseline, plan: Plan, margin: float) -> Iterator[str]:
    """What keeps a difference from being the service's."""
    speeds = [
        np.median([np.mean(run["yardstick"]) for run in runs])
        for report in (then, now)
        if (runs := [run for run in report["runs"] if run["valid"] and run.get("yardstick")])
    ]
    if len(speeds) == 2 and abs(speeds[1] / speeds[0] - 1) > max(margin, plan.most_drift):
        change = speeds[1] / speeds[0] - 1
        yield f"the machine itself is {percent_text(abs(change))} {'faster' if change > 0 else 'slower'} than it was then"
    for version in plan.versions:
        try:
            require_comparable(*(Side(version.name, each, valid_runs(each, version.name)) for each in (then, now)))
        except NotComparableError as error:
            yield error.message
            return


def _answer(rows: Sequence[Repeated], unlike: Sequence[str]) -> tuple[Answer, list[str]]:
    several = len({each.version for each in rows}) > 1

    def named(found: Sequence[Repeated]) -> str:
        return ", ".join(f"{each.version}'s {each.metric}" if several else each.metric for each in found)

    if unlike:
        return "cannot tell", list(unlike)
    if different := [each for each in rows if each.found == "differs"]:
        return "not reproduced", [f"more than the margin away: {named(different)}"]
    reasons = []
    open_ = [each for each in rows if each.judged and each.found != "same"]
    if varied := [each for each in open_ if not each.shows]:
        reasons.append(f"the report itself has too few runs, or too much variation, to judge by: {named(varied)}")
    if others := [each for each in open_ if each.shows]:
        reasons.append(f"not shown to be the same: {named(others)}")
    return ("cannot tell", reasons) if reasons or not rows else ("reproduced", [])


def _notes(then: Baseline, now: Baseline) -> Iterator[str]:
    yield from map(str, machine.differences(then["host"], now["host"]))
    for report, when in ((then, "then"), (now, "now")):
        if not report["complete"]:
            yield f"not everything planned was measured {when}"
        if invalid := sum(not run["valid"] for run in report["runs"]):
            yield f"invalid runs {when}: {invalid}"


def _binaries(then: Baseline, now: Baseline) -> Iterator[Binary]:
    after = {each["name"]: each for each in now["versions"]}
    for each in then["versions"]:
        if each["name"] in after:
            yield Binary(each["name"], each, after[each["name"]])

"""`/gate`: is the candidate worse than the baseline, going by what the agent has seen of both over the last minutes?

Both are processes that are traced, chosen by expressions. Where there are five of each, a process is what is compared,
and the verdict is about what the two have in common with others like them. Where there are fewer, stretches of time are,
in pairs: that shows that these very processes differ, which may fail, but not that the versions are alike, so that nothing
passes. Nothing is started or changed; what answers, and how, is `gotrace.lab.gate`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from gotrace.agent import windows
from gotrace.agent.course import quantile
from gotrace.agent.http import Response
from gotrace.agent.requests import Request
from gotrace.agent.services import Observed
from gotrace.agent.windows import Window
from gotrace.analysis.stats.changes import LEAST_RUNS
from gotrace.errors import Exit, GotraceError, UsageError
from gotrace.find.selection import Selector, parsed
from gotrace.lab import gate_answers as answers
from gotrace.lab.compare import Side
from gotrace.lab.gate import MARGIN, Gated, Row, Rules, changes
from gotrace.lab.metrics import least_values
from gotrace.text import count_text, printable

if TYPE_CHECKING:
    from gotrace.lab.report import Baseline, Run

Metrics = dict[str, float | None]

PERCENTILES = {f"stw.total.p{number}": number / 100 for number in (50, 90, 95, 99)}
KNOWN = (*PERCENTILES, "stw.share", "gc.cycles_per_s", "gc.mark.mean")
USUAL = ("stw.total.p99", "stw.share", "gc.cycles_per_s")
LEAST_WINDOWS = 6  # of a process that counts
_MOST = 25  # processes of each: what is exact about ranks takes time
_BLOCKS = range(10, 7, -1)  # that time is divided into: with fewer pairs than 8 none of three metrics can fail (Holm)
_MOST_TEXT, _MOST_TEXTS = 256, 16
NAMES = ("baseline", "candidate")
_PARAMETERS = (*NAMES, "metric", "margin", "looks")


class TooLittleError(GotraceError):
    """Nothing can be judged yet."""

    exit_code = Exit.INCONCLUSIVE


@dataclass(frozen=True)
class Asked:
    """What a query asks for: of several expressions one has to fit."""

    baseline: tuple[Selector, ...]
    candidate: tuple[Selector, ...]
    rules: Rules

    @classmethod
    def of(cls, query: str) -> Asked:
        """Raises UsageError for what it cannot mean."""
        found: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(
                query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MOST_TEXTS
            )
        except ValueError:
            raise UsageError("the query cannot be parsed", "/gate?baseline=KEY=GLOB&candidate=KEY=GLOB") from None
        for name, value in pairs:
            if name not in _PARAMETERS:
                raise UsageError(f"there is no parameter {printable(name[:80])!r}", f"there are {', '.join(_PARAMETERS)}")
            if len(value) > _MOST_TEXT:
                raise UsageError(f"{name} has more than {_MOST_TEXT} characters")
            found.setdefault(name, []).append(value)
        for name in ("margin", "looks"):
            if len(found.get(name, ())) > 1:
                raise UsageError(f"{name} is given more than once")
        for name in NAMES:
            if name not in found:
                raise UsageError(f"{name} is missing", f"/gate?…&{name}=label:version=2")
        margin = _margin(found["margin"][0]) if "margin" in found else MARGIN
        margins = {_metric(name): margin for name in found.get("metric", USUAL)}
        baseline, candidate = (tuple(map(parsed, found[name])) for name in NAMES)
        return cls(baseline, candidate, Rules(margin, margins, looks=_looks(found.get("looks", ["1"])[0])))


def _metric(name: str) -> str:
    if name not in KNOWN:
        raise UsageError(f"an agent does not compare {printable(name)}", f"it compares {', '.join(KNOWN)}")
    return name


def _margin(text: str) -> float:
    """As a share; it is told in percent, as for `gotrace gate`."""
    try:
        percent = float(text)
    except ValueError:
        percent = 0
    if not 0 < percent <= 1000:
        raise UsageError(f"margin={printable(text)!r} is not a percentage above 0 and up to 1000")
    return percent / 100


def _looks(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:4]) <= 100 and len(text) < 4):
        raise UsageError(f"looks={printable(text)!r} is not a number from 1 to 100")
    return int(text)


def answer(observed: Sequence[Observed], request: Request) -> Response:
    """What is answered: to GET a verdict, to Flagger's POST whether it passes; 400 and a line to what cannot be meant."""
    try:
        query = Asked.of(request.query)
    except UsageError as error:
        line = f"{error.message}{f' ({error.hint})' if error.hint else ''}\n"
        found = answers.Answer(400, line)
    else:
        if request.method != "POST":
            found = answers.asked(judged(observed, query))
        elif answers.canary_of(request.body) is None:
            found = answers.NO_CANARY
        else:
            found = answers.posted(judged(observed, query))
    return Response(found.status, found.text.encode(), found.kind)


def judged(observed: Sequence[Observed], asked: Asked) -> Gated:
    """The verdict over those of ``observed`` that are asked for."""
    sides = [
        [each for each in observed if any(selector.fits(each.process) for selector in selectors)]
        for selectors in (asked.baseline, asked.candidate)
    ]
    counted = [_counted(each) for each in sides]
    try:
        for name, side, those in zip(NAMES, sides, counted, strict=True):
            if not side:
                raise TooLittleError(f"no process of the {name} is traced")
            if not those:
                least = windows.WINDOW_S * LEAST_WINDOWS
                raise TooLittleError(f"no process of the {name} has been traced for {least:g} s")
        if both := {each.process.pid for each in sides[0]} & {each.process.pid for each in sides[1]}:
            raise TooLittleError(f"pid {min(both)} is in both the baseline and the candidate")
        of_processes = min(map(len, counted)) >= LEAST_RUNS
        found = _by_process(counted, asked.rules) if of_processes else _by_time(counted, asked.rules)
    except TooLittleError as error:
        return Gated(_side("baseline", []), _side("candidate", []), problem=error)
    for name, side, those in zip(NAMES, sides, counted, strict=True):
        if len(those) < len(side):
            found.notes.append(f"{len(those)} of {count_text(len(side), 'process', 'processes')} of the {name} count.")
    return found


def _counted(side: Sequence[Observed]) -> list[Observed]:
    """Those that were observed for long enough, the oldest first."""
    old = [each for each in side if (past := _past(each)) and windows.current() - min(past) >= LEAST_WINDOWS]
    return sorted(old, key=lambda each: each.attached_at)[:_MOST]


def _past(each: Observed) -> dict[int, Window]:
    """The windows that are over, by number; the first one is not whole."""
    now = windows.current()
    return {row.number: row for row in each.course.windows.rows[1:] if row.number < now}


def _by_process(counted: Sequence[Sequence[Observed]], rules: Rules) -> Gated:
    """Every process once, over the time since which there are all of them."""
    past = [[(each, _past(each)) for each in side] for side in counted]
    first = max(min(rows) for side in past for _, rows in side)
    sides = []
    for name, side in zip(NAMES, past, strict=True):
        runs = []
        for number, (each, rows) in enumerate(side):
            of_it = [row for row in rows.values() if row.number >= first]
            runs.append(_run(name, number, {**_rates(of_it), **_percentiles(each)}, of_it))
        sides.append(_side(name, runs))
    a, b = sides
    seconds = (windows.current() - first) * windows.WINDOW_S
    note = f"Compared by process, {len(a.runs)} with {len(b.runs)}, over the last {seconds:g} s."
    return Gated(a, b, _rows(a, b, rules, "process"), [note])


def _by_time(counted: Sequence[Sequence[Observed]], rules: Rules) -> Gated:
    """Stretches of time in pairs; of several processes together."""
    past = [[_past(each) for each in side] for side in counted]
    blocks = _blocks([rows for side in past for rows in side])
    runs: list[Run] = []
    for name, side in zip(NAMES, past, strict=True):
        for at, block in enumerate(blocks):
            of_it = [rows[number] for rows in side for number in block if number in rows]
            runs.append(_run(name, at, _rates(of_it), of_it))
    whole = _side("", runs).report  # one, as of runs in turns
    a, b = (Side(name, whole, [run for run in runs if run["version"] == name]) for name in NAMES)
    note = (
        f"Compared by time, {len(blocks)} stretches of {len(blocks[0]) * windows.WINDOW_S:g} s, because one side has"
        f" fewer than {LEAST_RUNS} processes: nothing passes."
    )
    return Gated(a, b, _rows(a, b, rules, "stretch"), [note])


def _blocks(past: Sequence[dict[int, Window]]) -> list[range]:
    """The time since which there are all of them, in as many equal stretches as were observed of each: numbers of windows.

    Where an agent has many processes, it does not observe each of them in every window.
    """
    first, end = max(map(min, past)), windows.current()
    for count in _BLOCKS:
        size = (end - first) // count
        blocks = [range(end - at * size, end - (at - 1) * size) for at in range(count, 0, -1)]
        if size and all(any(number in rows for number in block) for block in blocks for rows in past):
            return blocks
    told = f"in {(end - first) * windows.WINDOW_S:g} s with all of them"
    raise TooLittleError(f"there are no {min(_BLOCKS)} stretches of time {told} in each of which all were observed")


def _rows(a: Side, b: Side, rules: Rules, unit: str) -> list[Row]:
    found = []
    for row in changes(a, b, cast("Mapping[str, float]", rules.margins), rules.alpha):
        reason = row.reason.replace("runs", f"{unit}es").replace("run", unit)
        if unit == "process" and row.metric in PERCENTILES and "no values" in reason:
            reason = f"fewer than {least_values(row.metric)} pauses of each process"
        elif unit != "process" and row.metric in PERCENTILES:
            reason = f"each side needs {LEAST_RUNS} processes"
        elif unit != "process" and row.verdict == "pass":
            row, reason = (
                replace(row, verdict="inconclusive"),
                f"alike, but each side needs {LEAST_RUNS} processes to pass",
            )
        found.append(replace(row, reason=reason))
    return found


def _rates(rows: Sequence[Window]) -> Metrics:
    seconds, cycles = sum(row.seconds for row in rows), sum(row.cycles for row in rows)
    return {
        "stw.share": sum(row.paused_ns for row in rows) / 1e9 / seconds if seconds else None,
        "gc.cycles_per_s": cycles / seconds if seconds else None,
        "gc.mark.mean": sum(row.mark_ns for row in rows) / cycles if cycles else None,
    }


def _percentiles(each: Observed) -> Metrics:
    pauses = each.course.windows.pauses
    return {name: quantile(pauses, of) if pauses.count >= least_values(name) else None for name, of in PERCENTILES.items()}


def _run(version: str, number: int, metrics: Metrics, rows: Sequence[Window]) -> Run:
    lost = sum(row.lost for row in rows)
    return cast("Run", {"version": version, "round": number, "metrics": metrics, "lost": lost, "valid": True})


def _side(name: str, runs: list[Run]) -> Side:
    """As a report has them that is of processes each, and complete."""
    report: dict[str, Any] = {"versions": [{"name": name, "pid": None}], "plan": {}, "complete": True, "runs": runs}
    return Side(name, cast("Baseline", report), runs)

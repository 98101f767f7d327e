"""A recording of a command's calls on files, held against the same command run again: does what it says hold?

There is one recorded run, which says nothing about how much runs vary; the new ones do, and it is taken to be one of their
kind. So an interval of its distance from them is Student's for one value more: a mean of n runs and the recorded one differ
by chance with the variance s² (1 + 1/n). What varies much can not be told to be the same.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gotrace.analysis import datapath_load as load
from gotrace.analysis.datapath_replay import DATASYNC, READ, SYNC, WRITE, Flags
from gotrace.analysis.stats.multiple import holm
from gotrace.analysis.stats.percentiles import enough
from gotrace.analysis.stats.student import quantile, upper_tail
from gotrace.errors import MeasuringError, UsageError
from gotrace.kernel import machine
from gotrace.lab import replay as again
from gotrace.lab.compare import NotComparableError
from gotrace.lab.reproduce import EXIT_CODES, Answer, Found
from gotrace.run.sources import programs
from gotrace.run.target import StopRequest, attached
from gotrace.text import count_text, printable
from gotrace.views.datapath_load import DataPathLoad

SCHEMA = "gotrace.repeated/1"
Values = Mapping[str, float | None]
Say = Callable[[str], None]

# What is compared; what is needed decides, and what differs tells of all of them. Times are nanoseconds.
METRICS = {
    "calls": "",
    "bytes": "bytes",
    "time in calls": "ns",
    "metadata share": "share",
    "metadata p99": "ns",
    "data p99": "ns",
}
NEEDED = ("calls", "bytes", "time in calls")
COLD = "cold reads"  # the share of reads that missed the page cache: it explains a difference, and is none
_NOTED_COLD = 0.05
LEAST_RUNS = 2
_ALPHA = 0.05


@dataclass(frozen=True)
class Row:
    """A metric then and in each run now. ``change`` and the ends of its 90 % interval are now / then; ``differs_p`` is of a
    change within the margin, corrected for the number of metrics (Holm)."""

    metric: str
    then: float | None
    now: tuple[float | None, ...]
    change: tuple[float, float, float] | None
    differs_p: float | None
    found: Found
    needed: bool


@dataclass(frozen=True)
class Repetition:
    """The answer, why, and what it was made of. ``how``: "command" or "replay"."""

    answer: Answer
    how: str
    margin: float
    runs: int
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    metrics: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.answer]

    def to_json(self) -> dict[str, Any]:
        told = asdict(self)
        return {"schema": SCHEMA, **told, "within_percent": self.margin * 100}


def values(view: DataPathLoad) -> Values:
    """What a run comes to; None where there is no such call, and for a percentile of too few (fewer than 368)."""
    classes, moved = view.classes()
    reads = view.found["pages"][(classes == load.READ) & (moved > 0)]
    cold = float((reads > 0).mean()) if len(reads) else None
    return _of(view.found["end_ns"] - view.found["begin_ns"], classes == load.METADATA, float(moved.sum()), cold)


def _of(took: load.Ints, metadata: Flags, moved: float, cold: float | None = None) -> Values:
    total = int(took.sum())
    return {
        "calls": float(len(took)),
        "bytes": moved,
        "time in calls": float(total),
        "metadata share": int(took[metadata].sum()) / total if total else None,
        "metadata p99": _p99(took[metadata]),
        "data p99": _p99(took[~metadata]),
        COLD: cold,
    }


def _p99(took: load.Ints) -> float | None:
    return float(np.percentile(took, 99, method="inverted_cdf")) if enough(len(took), 99) else None


def check(header: Mapping[str, Any], anyway: bool = False) -> tuple[list[str], list[str]]:
    """(what makes this machine another one than the recording's, other differences), before anything is started.

    Raises NotComparableError for such a machine without ``anyway``.
    """
    then = header.get("machine")
    if then is None:
        unlike, notes = ["the recording does not say which machine it was made on"], []
    else:
        found = list(machine.differences(then, machine.host()))
        unlike, notes = ([str(each) for each in found if each.matters is matters] for matters in (True, False))
    if unlike and not anyway:
        hint = "repeat it where it was recorded; with --anyway it runs, but the verdict is: cannot tell"
        raise NotComparableError("; ".join(unlike), hint)
    return unlike, notes


def command_of(header: Mapping[str, Any]) -> list[str]:
    """The command that was recorded. Raises UsageError where it was a process that ran already."""
    told = header.get("command")
    if not told:
        raise UsageError(
            "the recording is not of a command", "record one: gotrace datapath -o FILE.gotrace -- COMMAND; or --replay"
        )
    return [str(each) for each in told["words"]]


def run_again(command: Sequence[str], runs: int, say: Say) -> tuple[list[Values], str]:
    """The command, traced as it was, one run after the other; and what ended it early, or "". Raises GotraceError."""
    found: list[Values] = []
    for number in range(runs):
        view = DataPathLoad()
        with _to_standard_error(), attached(view.stems, None, command, None, say, calibrated=False) as traced:
            for _, live, views in programs(traced, [view]):
                for each in views:
                    for _record in each.over(live):
                        pass
            stopped = traced.stop.signal
        if stopped:
            return found, stopped
        if status := traced.exit_status():
            raise MeasuringError(f"{printable(command[0])} ended with status {status}", "run it by itself to see why")
        if view.result["lost"]:
            raise MeasuringError(f"{count_text(view.result['lost'], 'event')} lost", "repeat it on a less busy machine")
        found.append(values(view))
        say(f"Run {number + 1} of {runs}: {count_text(len(view.found), 'call')} on files.")
    return found, ""


@contextlib.contextmanager
def _to_standard_error() -> Iterator[None]:
    """What the command prints: standard output is for the answer."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def replay_again(
    view: DataPathLoad, into: str, runs: int, cold: bool, say: Say
) -> tuple[Values, list[Values], list[str], str]:
    """The recorded calls made again so many times: (the recorded values of those calls, those of each replay, why nothing
    can be told from them, what ended it early). Raises GotraceError."""
    of = again.material(view)
    rows = of.operations
    found: list[Values] = []
    doubts: list[str] = []
    metadata = ~np.isin(rows["kind"], (READ, WRITE, SYNC, DATASYNC))
    total = float(rows["size"].sum())
    stop = StopRequest()
    for number in range(runs):
        with again.folder(into, remove=True) as folder, stop.installed():
            again.check_room(of, folder)
            result, took = again.replay(view, of, folder, 1.0, cold, stop)
        if stop.signal:
            return _of(rows["took_ns"], metadata, total), found, doubts, stop.signal
        if result["failed"] or result["not_reached"]:
            doubts.append(f"{count_text(result['failed'] + result['not_reached'], 'call')} failed in run {number + 1}")
        found.append(_of(took, metadata, total))
        share = result["overhead_ns"] * len(rows) / max(1, int(took.sum()))
        say(
            f"Run {number + 1} of {runs}: {count_text(result['replayed'], 'call')}; {share:.1%} of their time is the "
            f"replay's own."
        )
        doubts += [f"{share:.1%} of the time in calls is the replay's own"] if share > 0.01 else []
    return _of(rows["took_ns"], metadata, total), found, doubts[:1], ""


def judge(
    then: Values, now: Sequence[Values], margin: float, how: str, unlike: Sequence[str] = (), notes: Sequence[str] = ()
) -> Repetition:
    """``margin`` is a share (0.03), up and in proportion down; ``unlike`` says why nothing can come of it."""
    scale = math.log1p(margin)
    asked = {name: _change(then[name], [each[name] for each in now], scale) for name in METRICS}
    known = [name for name, each in asked.items() if each is not None]
    corrected = (
        dict(zip(known, holm([each[3] for each in asked.values() if each is not None]), strict=True)) if known else {}
    )
    rows = []
    for name, each in asked.items():
        found: Found = "cannot tell"
        if each is not None:
            value, low, high, _ = each
            found = "same" if -scale < low and high < scale else "differs" if corrected[name] <= _ALPHA else "cannot tell"
        elif {then[name], *(one[name] for one in now)} in ({0.0}, {None}):
            found = "same"
        elif not name.endswith(" p99") and bool(then[name]) not in {bool(one[name]) for one in now}:
            found = "differs"
        change = (math.exp(each[0]), math.exp(each[1]), math.exp(each[2])) if each is not None else None
        p = float(corrected[name]) if each is not None else None
        rows.append(Row(name, then[name], tuple(one[name] for one in now), change, p, found, name in NEEDED))
    answer, reasons = _answer(rows, unlike, len(now))
    return Repetition(answer, how, margin, len(now), tuple(reasons), (*notes, *_cold(then, now)), tuple(rows))


def _cold(then: Values, now: Sequence[Values]) -> Iterator[str]:
    before, after = then.get(COLD), [share for each in now if (share := each.get(COLD)) is not None]
    if before is not None and after and abs(float(np.median(after)) - before) > _NOTED_COLD:
        yield f"reads that missed the page cache: {before:.0%} then, {float(np.median(after)):.0%} now"


def _change(then: float | None, now: Sequence[float | None], scale: float) -> tuple[float, float, float, float] | None:
    """The mean of ln(now / then), the ends of its 90 % interval, and p of a change within ``scale``; None if not known."""
    known = [each for each in now if each]
    if not then or len(known) < max(LEAST_RUNS, len(now)):
        return None
    logs = np.log(known) - math.log(then)
    mean, freedom = float(logs.mean()), len(logs) - 1
    error = float(logs.std(ddof=1)) * math.sqrt(1 + 1 / len(logs))
    if error <= 1e-12:  # what rounding leaves of runs that are all equal
        return mean, mean, mean, 0.0 if abs(mean) > scale else 1.0
    reach = quantile(0.95, freedom) * error
    beyond = (abs(mean) - scale) / error
    return mean, mean - reach, mean + reach, min(1.0, 2 * upper_tail(beyond, freedom)) if beyond > 0 else 1.0


def _answer(rows: Sequence[Row], unlike: Sequence[str], runs: int) -> tuple[Answer, list[str]]:
    if unlike:
        return "cannot tell", list(unlike)
    if runs < LEAST_RUNS:
        return "cannot tell", [f"{count_text(runs, 'run')} cannot tell how much runs vary"]
    if different := [each.metric for each in rows if each.found == "differs"]:
        return "not reproduced", [f"more than the margin away: {', '.join(different)}"]
    if varied := [each.metric for each in rows if each.needed and each.found != "same"]:
        return "cannot tell", [f"not shown to be the same: {', '.join(varied)}"]
    return "reproduced", []

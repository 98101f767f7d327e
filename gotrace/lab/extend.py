"""More runs into a report that is there: the same plan, on the same machine, of the same binaries.

Whoever looks at runs and measures on until something differs finds what is not there: that a report was extended is kept
in it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from gotrace import __version__
from gotrace.errors import UsageError
from gotrace.kernel import machine
from gotrace.lab import baseline
from gotrace.lab.plan import MOST_RUNS, Plan
from gotrace.lab.report import Baseline, whole
from gotrace.lab.runs import enough
from gotrace.records.times import wall_time
from gotrace.run.files import held
from gotrace.text import printable


def planned(report: Baseline, more: int) -> Plan:
    """That of the report, with so many runs more. Raises UsageError where the runs could not stand beside its own."""
    plan = Plan.from_json(report["plan"])
    if report["tool"] != __version__:
        raise _refused(f"it was measured by gotrace {printable(report['tool'])}, this is {__version__}")
    now, then = machine.host(), report["host"]
    for name, value in now.items():
        if name not in machine.DEVICES and then.get(name) != value:
            what = name.removesuffix("_bytes").replace("_", " ")
            raise _refused(f"the machine's {what} was {printable(str(then.get(name)))}, and is {printable(str(value))}")
    for each in machine.differences(then, now):
        if each.matters:
            raise _refused(f"{each.what} was {printable(each.then)}, and is {printable(each.now)}")
    if plan.pid is not None:
        raise _refused("its runs measured an already running process: a single sample, however many there are")
    if not report["complete"] or not enough(report):
        raise _refused("it is incomplete: too few valid runs, or it was cut off")
    if plan.runs + more > MOST_RUNS:
        raise _refused(f"it would have more than {MOST_RUNS:,} runs")
    return replace(plan, runs=plan.runs + more)


def _refused(why: str) -> UsageError:
    return UsageError(f"the report cannot be extended: {why}", "measure again, into another folder")


def extend(folder: Path, more: int, say: baseline.Say = lambda _: None) -> Baseline:
    """``more`` runs of each version into the report in ``folder``. Raises as `baseline.run`.

    What was refused, or ended before one more run was measured, leaves the report as it was.
    """
    with held(folder):
        report = whole(str(folder))
        plan = planned(report, more)
        report.setdefault("extended", []).append(
            {
                "time": wall_time(time.time_ns(), 0),
                "first": len(report["runs"]),
                "after": plan.runs - more,
                "runs": more,
            }
        )
        report["plan"]["runs"] = plan.runs
        report["complete"] = False
        with baseline.kept(report, folder, True, say):
            baseline.measure_all(plan, report, plan.order()[len(plan.versions) * (plan.runs - more) :], folder, say)
    return report

"""`gotrace baseline`, for people: what will be done, and what was measured."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import numpy as np

from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.cli.text.table import Table
from gotrace.lab.metrics import METRICS
from gotrace.lab.plan import Plan
from gotrace.lab.report import Baseline, Run, valid_runs
from gotrace.run.files import Sink
from gotrace.text import count_text, duration_text, printable

_COLUMNS = (
    Column("metric", 22, left=True),
    Column("median", 12),
    Column("least", 12, rank=1),
    Column("most", 12, rank=1),
    Column("spread", 8, rank=2),
)
_SHOWN_CAUSES = 3


def plan(plan: Plan, folder: str) -> Iterator[str]:
    """What would be done."""
    for version in plan.versions:
        yield f"version {printable(version.name)}: {printable(shlex.join(version.command))}"
    yield f"ready when: {plan.ready}"
    length = plan.load.asked.duration_ns
    yield f"load: {printable(shlex.join(plan.load.command))} (for {duration_text(length) if length else 'an unknown time'})"
    yield f"each: {count_text(plan.runs, 'run')} after {duration_text(plan.warmup_ns)} of warm-up"
    yield f"order (seed {plan.seed}): " + " ".join(printable(version.name) for _, version in plan.order())
    if length:
        whole = len(plan.versions) * plan.runs * (length + plan.warmup_ns + 3e9)
        yield f"takes: about {whole / 60e9:.0f} min"
    yield f"writes: {printable(folder)}/report.json, {printable(folder)}/runs/"


def write(stream: Sink, report: Baseline) -> None:
    """Of each version what its runs come to."""
    Table(stream).print(_lines(report))


def _lines(report: Baseline) -> Iterator[str | Rows]:
    host = report["host"]
    yield f"{host['cpu'] or host['architecture']}, {count_text(host['cpus'], 'CPU')}, Linux {host['kernel']}"
    if report["cut_off"]:
        yield f"CUT OFF: {printable(report['cut_off'])}"
    for version in report["versions"]:
        runs = valid_runs(report, version["name"])
        others = [run for run in report["runs"] if run["version"] == version["name"] and not run["valid"]]
        yield ""
        what = f"{printable(version['exe'])}, {version['go_version']}"
        yield f"{printable(version['name'])}: {what}; {count_text(len(runs), 'run')}"
        for run in others:
            yield f"run {run['order']} does not count: {'; '.join(map(printable, run['reasons']))}"
        for note in dict.fromkeys(note for run in runs for note in run["notes"]):
            yield f"note: {printable(note)}"
        if runs:
            yield ""
            yield Rows(_COLUMNS, [row for name in METRICS if (row := _row(name, [run["metrics"] for run in runs]))])
            yield from _longest(runs)


def _row(name: str, runs: list[dict[str, float | None]]) -> Row | None:
    values = [value for metrics in runs if (value := metrics.get(name)) is not None]
    if not values:
        return None
    text = METRICS[name].text
    middle = float(np.median(values))
    spread = f"{np.std(values, ddof=1) / abs(middle):.1%}" if len(values) > 1 and middle else "-"
    return name, text(middle), text(min(values)), text(max(values)), spread


def _longest(runs: list[Run]) -> Iterator[str]:
    found = sorted((each for run in runs for each in run["longest"]), key=lambda each: -each["total_ns"])[:_SHOWN_CAUSES]
    if found:
        yield ""
        yield "The longest pauses:"
    for each in found:
        yield f"  {duration_text(each['total_ns'])} {printable(each['reason'])}: {printable(each['cause'])}"

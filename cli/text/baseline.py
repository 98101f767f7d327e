"""`gotrace baseline`, for people: what will be done, and what was measured."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.cli.text.table import Table
from gotrace.lab.baseline import commands
from gotrace.lab.grown import MEMORY
from gotrace.lab.metrics import METRICS
from gotrace.lab.plan import Plan
from gotrace.lab.report import Baseline, Run, VersionOf
from gotrace.lab.runs import extended_text, valid_runs
from gotrace.run.files import Sink
from gotrace.text import bytes_text, count_text, duration_text, minutes_text, printable

_COLUMNS = (
    Column("metric", 22, left=True),
    Column("median", 12),
    Column("least", 12, rank=1),
    Column("most", 12, rank=1),
    Column("spread", 8, rank=2),
)
_SHOWN_CAUSES = 3
_SHOWN_FUNCTIONS = 3
_LEAST_SAMPLES = 4  # of the heap profile: what is less is chance


def plan(plan: Plan, folder: str) -> Iterator[str]:
    """What would be done."""
    if plan.pid is not None:
        yield f"process {plan.pid}, neither started nor ended: every run measures it"
    else:
        yield from commands(plan, Path(folder))
    yield f"ready when: {plan.ready}"
    length = plan.load.asked.duration_ns
    yield f"load: {printable(shlex.join(plan.load.command))} (for {duration_text(length) if length else 'an unknown time'})"
    warmup = "warm-up until steady" if plan.warmup_ns is None else f"{duration_text(plan.warmup_ns)} of warm-up"
    yield f"each: {count_text(plan.runs, 'run')} after {warmup}"
    more = {"thread and P events": plan.events, "wake-ups": plan.wakeups, "starts": plan.coldstart}
    if traced := [name for name, wanted in more.items() if wanted]:
        yield f"also traced: {', '.join(traced)}"
    yield f"order (seed {plan.seed}): " + " ".join(printable(version.name) for _, version in plan.order())
    if plan.estimated_ns is not None:
        yield f"takes: {'at least' if plan.warmup_ns is None else 'about'} {minutes_text(plan.estimated_ns)}"
    if plan.flame:
        yield "afterwards: one more run of each version, not counted, for flame graphs"
    yield f"writes: {printable(folder)}/report.json, {printable(folder)}/runs/"


def write(stream: Sink, report: Baseline) -> None:
    """Of each version what its runs come to."""
    Table(stream).print(_lines(report))


def _lines(report: Baseline) -> Iterator[str | Rows]:
    host = report["host"]
    yield f"{host['cpu'] or host['architecture']}, {count_text(host['cpus'], 'CPU')}, Linux {host['kernel']}"
    if extended := extended_text(report):
        yield f"{extended}."
    if report["cut_off"]:
        yield f"CUT OFF: {printable(report['cut_off'])}"
    for version in report["versions"]:
        runs = valid_runs(report, version["name"])
        others = [run for run in report["runs"] if run["version"] == version["name"] and not run["valid"]]
        yield ""
        what = f"{printable(version['exe'])} ({bytes_text(version['exe_bytes'])}), {version['go_version']}"
        yield f"{printable(version['name'])}: {what}; {count_text(len(runs), 'run')}"
        yield from _where(version)
        for run in others:
            yield f"run {run['order']} does not count: {'; '.join(map(printable, run['reasons']))}"
        for note in dict.fromkeys(note for run in runs for note in run["notes"]):
            yield f"note: {printable(note)}"
        kinds = Counter(kind for run in runs if (kind := run["course"]["kind"]))
        if kinds:
            yield "second by second: " + ", ".join(f"{kind} in {count_text(count, 'run')}" for kind, count in kinds.items())
        if runs:
            yield ""
            yield Rows(_COLUMNS, [row for name in METRICS if (row := _row(name, [run["metrics"] for run in runs]))])
            yield from _longest(runs)
            yield from _grown(runs)
    yield from _flames(report)


def _flames(report: Baseline) -> Iterator[str]:
    found = report.get("flames")
    if found is None:
        return
    yield ""
    if found["unknown"] is not None:
        yield f"Where CPU time goes is unknown: {printable(found['unknown'])}"
    for picture in found["pictures"]:
        first, last = (printable(picture["versions"][at]) for at in (0, -1))
        compared = f", and what differs from {first}" if len(picture["versions"]) > 1 else ""
        yield f"Where the CPU time of {last} goes{compared}: {picture['file']}"


def _where(version: VersionOf) -> Iterator[str]:
    """What else is to be known of what was measured."""
    if version["pid"] is not None:
        yield f"all runs measured process {version['pid']}: a single sample, so `gotrace compare` cannot tell a difference"
    found = version["container"]
    if found is not None:
        limits = [
            f"{found['quota_cpus']:g} CPUs" if found["quota_cpus"] is not None else "no CPU quota",
            f"{bytes_text(found['memory_bytes'])} of memory" if found["memory_bytes"] is not None else "no memory limit",
        ]
        digest = found["digest"] or found["id"]
        yield (
            f"in a container of {printable(found['image'])} ({printable(digest[:19])}), cgroup v{found['cgroup_version']}: "
            + (", ".join(limits))
        )


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


def _grown(runs: list[Run]) -> Iterator[str]:
    """Of the run whose live heap grew most."""
    most = max(runs, key=lambda run: run["heap_growth"]["end_bytes"] - run["heap_growth"]["begin_bytes"])
    found = most["heap_growth"]
    if found["unknown"] is not None:
        yield ""
        yield f"What made the live heap grow is unknown: {found['unknown']}"
    elif found["end_bytes"] - found["begin_bytes"] >= _LEAST_SAMPLES * found["rate_bytes"]:
        yield ""
        begin, end = (bytes_text(found[name]) for name in ("begin_bytes", "end_bytes"))
        passed = duration_text(found["length_ns"])
        source = f" ({found['source']})" if found.get("source", MEMORY) != MEMORY else ""
        yield f"The live heap grew most in run {most['order']}, by its profile{source} from {begin} to {end} in {passed}:"
        for each in found["by"][:_SHOWN_CAUSES]:
            yield f"  +{bytes_text(each['bytes'])} {' < '.join(map(printable, each['code'][:_SHOWN_FUNCTIONS]))}"

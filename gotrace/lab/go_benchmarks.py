"""Runs as results of Go benchmarks, one line for each, so that benchstat and what else reads them can be asked too."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gotrace.export import benchfmt
from gotrace.lab.groups import Group, architecture
from gotrace.lab.metrics import METRICS, Metric
from gotrace.lab.pairs import Pair, version_of
from gotrace.lab.report import Baseline, Run, VersionOf

NAME = "Service"


class Set(NamedTuple):
    """Runs of one version, and what it goes by in the file: its name, or what its group has in common."""

    called: str
    report: Baseline
    version: VersionOf
    runs: Sequence[Run]


def unit_of(metric: Metric) -> str:
    """A metric's unit: its name, then what it is measured in, as the format asks for: latency-p99-ns, gc-cycles/s.

    benchstat makes seconds of ns by itself.
    """
    name = metric.name.replace(".", "-").replace("p99-9", "p99.9")
    if metric.name == "throughput":
        return "throughput-answers/s"
    if metric.dimension == "rate":
        return f"{name.removesuffix('_per_s')}/s"
    if metric.dimension == "share":
        return name if name.endswith("share") else f"{name}-share"
    suffix = {"time": "ns", "bytes": "B", "growth": "B/s", "cpus": "CPUs", "plain": "ratio"}[metric.dimension]
    return f"{name}-{suffix}"


def of_pairs(pairs: Sequence[Pair]) -> Iterator[str]:
    """The lines of all versions that were compared; each goes by `version: NAME`."""
    sides = [pairs[0].a, *(pair.b for pair in pairs)]
    return _lines("version", [Set(side.name, side.report, version_of(side), side.runs) for side in sides])


def of_groups(groups: Sequence[Group], by: str) -> Iterator[str]:
    """The lines of all groups; each goes by what they were grouped by: `arch: arm64`."""
    sets = [Set(group.name, each.report, each.version, each.runs) for group in groups for each in group.members]
    return _lines(by, sets)


def _lines(key: str, sets: Sequence[Set]) -> Iterator[str]:
    facts = [_facts(each) for each in sets]
    common = {name: value for name, value in facts[0].items() if all(each.get(name) == value for each in facts)}
    # benchstat makes a table of each value of what differs: so that may only be what one compares.
    comments = [f"benchstat -col {key} FILE compares them"]
    for each, of in zip(sets, facts, strict=True):
        others = ", ".join(f"{name} {value}" for name, value in of.items() if name not in common)
        if others:
            comments.append(f"{key} {each.called}: {others}")
    cpus = {len(each.report["plan"].get("cpus") or ()) or each.report["host"].get("cpus", 1) for each in sets}
    # The number behind a benchmark's name is GOMAXPROCS: that of a program that sets nothing else. Two would be two names.
    name = f"{NAME}-{cpus.pop()}" if len(cpus) == 1 else NAME
    metrics = [metric for metric in METRICS.values() if any(_has(run, metric) for each in sets for run in each.runs)]
    better = {unit_of(metric): "higher" if metric.better == "more" else "lower" for metric in metrics}
    results = [
        benchfmt.Result(
            name,
            int((run.get("load") or {}).get("answered") or 1),
            [(run["metrics"][metric.name], unit_of(metric)) for metric in metrics if _has(run, metric)],  # type: ignore[misc]
            {key: each.called},
        )
        for each in sets
        for run in each.runs
    ]
    return benchfmt.lines(common, better, results, comments)


def _has(run: Run, metric: Metric) -> bool:
    return run["metrics"].get(metric.name) is not None


def _facts(each: Set) -> dict[str, str]:
    host = each.report["host"]
    found = {
        "goos": "linux",
        "goarch": architecture(each.report) if "architecture" in host else "",
        "cpu": host.get("cpu") or "",
        "kernel": host.get("kernel") or "",
        "host-class": host["host_class"],
        "load": shlex.join(each.report["plan"].get("load") or ()),
        "go-version": each.version["go_version"],
        "build-id": each.version.get("build_id") or "",
    }
    return {name: value for name, value in found.items() if value}

"""Reports side by side by what they were measured on or with: a description, no judged comparison.

Two kinds of machines differ in more than what one asks about, so there is no verdict: of each group the median over its
runs, the exact interval of that median, and how many runs it is of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gotrace.analysis.stats.percentiles import rank_interval
from gotrace.lab.metrics import METRICS, PRIMARY
from gotrace.lab.report import Baseline, Run, VersionOf
from gotrace.lab.runs import valid_runs
from gotrace.text import count_text, printable

UNKNOWN = "unknown"
DESCRIPTION = (
    "A description, not a comparison: results from different machines or programs differ for many reasons at once. For"
    " each group: the median over its runs, the exact interval of that median (at least 95%), and the number of"
    " runs."
)
# What is asked of kinds of machines: pauses and marking, and the scheduler, in which they differ most.
DESCRIBED = tuple(
    name
    for name in METRICS
    if name in PRIMARY
    or name in ("stw.total.p50", "stw.total.p95", "gc.mark.mean", "gc.cycles_per_s", "heap.live.mean", "heap.goal.mean")
    or name in ("mem.amplification", "cpu.per_request", "sched.latency.mean", "sched.latency.p95", "sched.binding.p95")
    or name in ("sched.p_moves.nodes", "steal.failure_rate", "throttled.share", "start.ready")
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Member(NamedTuple):
    """The runs of one version of one report; ``label`` is how its report was called."""

    label: str
    report: Baseline
    version: VersionOf
    runs: list[Run]


@dataclass(frozen=True)
class Group:
    """What has one thing in common, by its name."""

    name: str
    members: Sequence[Member]

    @property
    def runs(self) -> list[Run]:
        return [run for member in self.members for run in member.runs]


@dataclass(frozen=True)
class Cell:
    """One metric of one group, in its base unit; ``low`` and ``high`` are None where there are fewer than 6 runs."""

    median: float | None
    low: float | None
    high: float | None
    confidence: float | None
    runs: int

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def architecture(report: Baseline) -> str:
    """As Go names it."""
    machine = report["host"].get("architecture") or UNKNOWN
    return _ARCHITECTURES.get(machine, machine)


def _vendor(report: Baseline, _: VersionOf) -> str:
    host = report["host"]
    if not host.get("provider"):
        return UNKNOWN
    return f"{host['provider']} {host.get('instance') or '(type unknown)'}"


def _host(report: Baseline, _: VersionOf) -> str:
    host = report["host"]
    cpus = f", {count_text(host['cpus'], 'CPU')}" if host.get("cpus") else ""
    return f"{host.get('cpu') or architecture(report)}{cpus} ({host['host_class']})"


BY: Mapping[str, Callable[[Baseline, VersionOf], str]] = {
    "arch": lambda report, _: architecture(report),
    "go": lambda _, version: version["go_version"] or UNKNOWN,
    "host": _host,
    "vendor": _vendor,
}


def grouped(reports: Sequence[tuple[str, Baseline]], by: str) -> list[Group]:
    """Every version of every report, in the order in which groups first appear; ``by`` is one of `BY`.

    Versions of one report were measured to be told apart, and are not put together: their names part such a group.
    """
    found: dict[str, list[Member]] = {}
    for label, report in reports:
        for version in report["versions"]:
            member = Member(label, report, version, valid_runs(report, version["name"]))
            found.setdefault(BY[by](report, version), []).append(member)
    groups = []
    for name, members in found.items():
        parts: dict[str, list[Member]] = {}
        alone = len({id(each.report) for each in members}) == len(members)
        for member in members:
            parts.setdefault(name if alone else f"{name}, {member.version['name']}", []).append(member)
        groups += [Group(part, of) for part, of in parts.items()]
    return groups


def described(groups: Sequence[Group], everything: bool = False) -> list[tuple[str, list[Cell]]]:
    """Metrics of which some group has values, each with a cell for every group."""
    rows = [(name, [_cell(group, name) for group in groups]) for name in (METRICS if everything else DESCRIBED)]
    return [(name, cells) for name, cells in rows if any(cell.runs for cell in cells)]


def _cell(group: Group, name: str) -> Cell:
    found = (run["metrics"].get(name) for run in group.runs)
    values = sorted(value for value in found if value is not None and math.isfinite(value))
    count = len(values)
    if not count:
        return Cell(None, None, None, None, 0)
    ranks = rank_interval(count, 50)
    if ranks is None:
        return Cell(float(np.median(values)), None, None, None, count)
    first, last = ranks
    below = sum(math.comb(count, number) for number in range(first)) / 2**count
    above = sum(math.comb(count, number) for number in range(last, count + 1)) / 2**count
    return Cell(float(np.median(values)), values[first - 1], values[last - 1], 1 - below - above, count)


def about(group: Group) -> str:
    """Which runs of which reports, and on what."""
    members = group.members
    labels = list(dict.fromkeys(printable(f"{each.label}: {each.version['name']}") for each in members))
    kinds = dict.fromkeys(
        f"{printable(architecture(each.report))}, {printable(each.version['go_version'])}" for each in members
    )
    hosts = len({each.report["host"]["host_class"] for each in members})
    where = f" on {count_text(hosts, 'kind')} of machines" if hosts > 1 else ""
    return f"{count_text(len(group.runs), 'run')} ({', '.join(labels)}; {'; '.join(kinds)}{where})"


def mixed(groups: Sequence[Group]) -> Iterator[str]:
    """What else differs between the reports, which a reader has to know."""
    members = [member for group in groups for member in group.members]
    for what, of in (("loads", "load"), ("warm-ups", "warmup_ns"), ("CPUs for the service", "cpus")):
        if len({repr(each.report["plan"].get(of)) for each in members}) > 1:
            yield f"The reports have different {what}."
    if len({each.version["build_id"] for each in members if each.version.get("build_id")}) > 1:
        yield "The reports are from different builds."

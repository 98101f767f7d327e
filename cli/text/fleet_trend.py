"""`gotrace fleet trend`, for people: point by point what changed, what the machines changed first."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.fleet.trend import LEAST_POINTS, Change, Together, Trend, to_json
from gotrace.lab.metrics import METRICS
from gotrace.run.files import Sink
from gotrace.text import count_text, duration_text, printable

_COLUMNS = (
    Column("metric", 16, left=True),
    Column("before", 9),
    Column("after", 9),
    Column("change", 8),
    Column("points", 8, rank=2),
    Column("p", 7, rank=1),
    Column("", left=True, gap=2),
)


def write(stream: Sink, format_: str, found: Trend) -> None:
    """As a table or JSON."""
    if format_ == "json":
        stream.write(json.dumps(to_json(found), indent=1) + "\n")
    else:
        Table(stream).print(_lines(found))


def _lines(found: Trend) -> Iterator[str | Rows]:
    yield f"{count_text(found.series, 'series', 'series')} of medians over hosts, one point per {found.unit.name}."
    if found.short:
        yield f"{found.short} of them skipped: at least {LEAST_POINTS} {found.unit.name}s are needed to show a change."
    if found.without_ratio:
        yield f"{found.without_ratio} of them skipped: values of 0 or below have no change in percent."
    for together in found.found:
        yield ""
        yield from _together(found, together)
    yield ""
    yield from (printable(note) for note in found.notes)
    for file, problem in found.broken:
        yield f"Skipped: {printable(file)}: {problem}"
    yield _verdict(found)


def _together(found: Trend, together: Together) -> Iterator[str | Rows]:
    group = ", ".join(printable(str(value if value is not None else "unknown")) for _, value in together.group)
    hosts = together.before.hosts, together.after.hosts
    yield f"{found.unit.text(together.at)}  {group}  ({count_text(hosts[0], 'host')} before, {hosts[1]} after)"
    for name, before, after in together.differences:
        yield f"  {name.removesuffix('_bytes').replace('_', ' ')}: {printable(before)} -> {printable(after)}"
    if not together.differences:
        yield "  nothing else is known to have changed"
    elif together.of_machines and together.differences != together.of_machines:
        yield "  Machines or runtimes changed at that time: rule them out before blaming the program."
    yield Rows(_COLUMNS, [_cells(change) for change in together.changes])


def _cells(change: Change) -> tuple[str, ...]:
    name = change.series.metric
    plan = f" (plan {change.series.plan[:8]})" if change.series.plan else ""
    known = METRICS.get(name)
    before, after = (known.text(value) if known else duration_text(value) for value in (change.before, change.after))
    verdict = ("worse" if change.worse else "better") + (", new" if change.new else "")
    points = f"{change.points_before}+{change.points_after}"
    return printable(f"{name}{plan}"), before, after, f"{change.ratio - 1:+.1%}", points, f"{change.p:.2g}", verdict


def _verdict(found: Trend) -> str:
    if found.new_worse:
        many = count_text(len(found.new_worse), "metric")
        return f"WORSE: {many}, in the last {found.new} {found.unit.name}s of what was measured."
    told = f"nothing became worse in the last {found.new} {found.unit.name}s of what was measured"
    return f"{'Changes before that only' if found.found else 'No change'}: {told}." if found.series else "No data."

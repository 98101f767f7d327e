"""Reports side by side as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from gotrace.export.charts.page import Page
from gotrace.export.charts.runs import key
from gotrace.lab.baseline_page import run_dots
from gotrace.lab.groups import DESCRIPTION, Group, about, described, mixed
from gotrace.lab.metrics import METRICS
from gotrace.lab.report import Run


def page(groups: Sequence[Group], by: str, everything: bool = False) -> str:
    """The whole page."""
    made = Page()
    made.say(DESCRIPTION)
    for told in mixed(groups):
        made.say(told, "lost")
    made.put(key([group.name for group in groups]))
    for group in groups:
        made.say(f"{group.name}: {about(group)}")
    sets, count = _in_a_row(groups)
    rows: list[tuple[str, ...]] = []
    for name, cells in described(groups, everything):
        metric = METRICS[name]
        for series, (group, cell) in enumerate(zip(groups, cells, strict=True)):
            if not cell.runs:
                continue
            interval = "-" if cell.low is None else f"{metric.text(cell.low)} to {metric.text(cell.high)}"
            rows.append(
                (
                    name,
                    group.name,
                    metric.text(cell.median),
                    interval,
                    str(cell.runs),
                    run_dots(metric, sets, count, series),
                )
            )
    made.table(f"By {by}", ("Metric", "Group", "Median", "Interval", "Runs", "Each run"), rows, names=("Group",))
    return made.made(f"Measured, by {by}")


def _in_a_row(groups: Sequence[Group]) -> tuple[list[tuple[str, list[Run]]], int]:
    """The runs of one group behind those of the other."""
    count, sets = 0, []
    for group in groups:
        runs: list[Run] = []
        for run in group.runs:
            runs.append({**run, "order": count})
            count += 1
        sets.append((group.name, runs))
    return sets, count

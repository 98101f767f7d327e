"""A baseline as one HTML page: its metrics with a dot for each run in chronological order, which runs count,
the longest pauses.

It needs no script and nothing from elsewhere. What somebody else chose, names and commands, is escaped.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gotrace.analysis.stats.outliers import marks
from gotrace.analysis.stats.percentiles import enough
from gotrace.errors import GotraceError
from gotrace.export.charts.page import Markup, Page
from gotrace.export.charts.runs import Curve, Dot, curves, dots, key
from gotrace.export.picture.frame import escaped
from gotrace.kernel.links import link_text
from gotrace.lab.groups import DESCRIBED, architecture
from gotrace.lab.load_result import Histogram
from gotrace.lab.metrics import METRICS, Metric
from gotrace.lab.report import Baseline, Run
from gotrace.lab.runs import extended_text, valid_runs
from gotrace.run.files import created
from gotrace.text import bytes_text, count_text, duration_text, percent_text, printable

NAME = "report.html"
_CURVE = (25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99)
_MEASURED = ("p50", "p90", "p95", "p99", "p99.9")
_LONGEST = 20  # pauses in the table
_FEW = 1000  # runs that are listed one by one


def written(report: Baseline, folder: Path, force: bool) -> str:
    """Write the page into the report's folder; a sentence that says where, or why not.

    A measurement must not fail because its picture does.
    """
    path = folder / NAME
    try:
        text = page(report, folder.name)
        with created(str(path), force) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except GotraceError as error:
        return f"No page: {error.message}."
    except Exception as error:  # of ours, too: report.json has everything
        return f"No page: {type(error).__name__}: {printable(str(error))}."
    return f"Wrote {printable(str(path))}."


def page(report: Baseline, title: str) -> str:
    """The whole page."""
    made = Page()
    _head(made, report)
    names = [each["name"] for each in report["versions"]]
    _metrics(made, report, names)
    for head, found in (("Latency", _latency(report, names)), ("Stop-the-world pauses", _pauses(report, names))):
        if drawn := curves(found, duration_text, f"{head}: percentiles by version"):
            made.head(f"{head}: percentiles")
            made.put(drawn)
    if any(each.points for each in _latency(report, names)):
        made.say(
            "Each line is the median over the runs of each run's own percentile, the band spans the lowest to the highest"
            " run. A run has a percentile if it has enough values for it (368 for p99)."
        )
    _longest(made, report)
    _flames(made, report)
    _runs(made, report)
    _cost(made, report)
    _plan(made, report)
    return made.made(f"Baseline: {title}" if title else "Baseline")


def _head(made: Page, report: Baseline) -> None:
    runs, valid = report["runs"], [run for run in report["runs"] if run["valid"]]
    host = report["host"]
    made.say(
        f"{report['time']}, gotrace {report['tool']}. {host['cpu'] or architecture(report)}, {architecture(report)},"
        f" {count_text(host['cpus'], 'CPU')}, Linux {host['kernel']}. Load: {shlex.join(report['plan']['load'])}"
    )
    if extended := extended_text(report):
        made.say(f"{extended}.")
    if report["cut_off"]:
        made.say(f"Cut off: {report['cut_off']}. What was measured until then is shown.", "lost")
    elif not report["complete"]:
        made.say("Incomplete: cut off, or still being measured.", "lost")
    lost = sum(run["lost"] for run in valid)
    tiles = [("runs that count", f"{len(valid)}"), ("that do not", f"{len(runs) - len(valid)}")]
    for name in ("throughput", "latency.p99", "stw.total.p99", "rss.peak"):
        for version in report["versions"]:
            values = values_of(valid_runs(report, version["name"]), name)
            if values:
                whose = f"{name}, {version['name']}" if len(report["versions"]) > 1 else name
                tiles.append((whose, METRICS[name].text(float(np.median(values)))))
    made.tiles([*tiles, ("events lost", f"{lost:,}")])
    for version in report["versions"]:
        made.say(
            f"{version['name']}: {shlex.join(version['command'])} ({version['exe']}, {version['go_version']},"
            f" {bytes_text(version['exe_bytes'])})"
        )


def values_of(runs: Sequence[Run], name: str) -> list[float]:
    """Of the runs that have one."""
    return [value for run in runs if (value := _value(run, name)) is not None]


def _value(run: Run, name: str) -> float | None:
    value = run["metrics"].get(name)
    return value if value is not None and math.isfinite(value) else None


def run_dots(metric: Metric, sets: Sequence[tuple[str, Sequence[Run]]], runs: int, only: int | None = None) -> Markup:
    """Every run of every version as a dot, in the order of time; ``only`` of one, at the scale of all."""
    found: list[Dot] = []
    lines = []
    for series, (name, of) in enumerate(sets):
        having = [(run, value) for run in of if (value := _value(run, metric.name)) is not None]
        counted = [(run["order"], value) for run, value in having if run["valid"]]
        far = dict(zip((order for order, _ in counted), marks([value for _, value in counted]).tolist(), strict=True))
        for run, value in having:
            title = f"{name}, run {run['order']}: {metric.text(value)}"
            title += ", does not count" if not run["valid"] else ", far from the others" if far[run["order"]] else ""
            found.append(Dot(run["order"], value, title, series, run["valid"], far.get(run["order"], False)))
        if counted:
            lines.append((series, float(np.median([value for _, value in counted]))))
    if not found:
        return Markup("")
    ends = min(each.value for each in found), max(each.value for each in found)
    if only is not None:
        found, lines = [each for each in found if each.series == only], [each for each in lines if each[0] == only]
    between = " to ".join(metric.text(pick((each.value for each in found), default=None)) for pick in (min, max))
    told = f"{metric.name}: {count_text(len(found), 'run')} in chronological order, {between}"
    return dots(found, told, runs, lines, ends)


def _metrics(made: Page, report: Baseline, names: Sequence[str]) -> None:
    sets = [(name, [run for run in report["runs"] if run["version"] == name]) for name in names]
    count = max((run["order"] for run in report["runs"]), default=0) + 1
    main: list[tuple[str, ...]] = []
    others: list[tuple[str, ...]] = []
    for metric in METRICS.values():
        for series, name in enumerate(names):
            values = values_of(valid_runs(report, name), metric.name)
            if not values:
                continue
            middle = float(np.median(values))
            spread = f"{np.std(values, ddof=1) / abs(middle):.1%}" if len(values) > 1 and middle else "-"
            numbers = metric.text(middle), metric.text(min(values)), metric.text(max(values)), spread, str(len(values))
            of = [name] if len(names) > 1 else []
            row = metric.name, *of, *numbers, run_dots(metric, sets, count, series)
            (main if metric.name in DESCRIBED else others).append(row)
    speeds = _yardsticks(report)
    if main or others:
        made.head("Metrics")
        if len(names) > 1:
            made.put(key(names))
        made.say(
            "Median, minimum, maximum and spread (standard deviation / median) of the valid runs. Each dot is a run, from"
            " the first on the left to the last on the right: a slope is drift. A hollow dot is an invalid run; one "
            "with a rim is an outlier"
            " (5 x 1.4826 MAD) that still counts. The dashed line is the median. All versions share one scale."
        )
        heads = (
            "Metric",
            *(["Version"] if len(names) > 1 else []),
            "Median",
            "Least",
            "Most",
            "Spread",
            "Runs",
            "Each run",
        )
        made.table("Summary of the runs", heads, main, names=("Version",))
        made.table("All other metrics", heads, others, names=("Version",), folded=True)
    if speeds:
        made.table("The machine itself", ("Metric", "Median", "Least", "Most", "Each run"), [speeds])
        made.say("How often per second a fixed loop ran, before and after each run. Changes here are not the program's.")


def _yardsticks(report: Baseline) -> tuple[str, ...] | None:
    found = []
    for run in report["runs"]:
        for at, value in enumerate(run["yardstick"]):
            when = "after" if at else "before"
            found.append(Dot(2 * run["order"] + at, value, f"{when} run {run['order']}: {value:,.0f}/s"))
    if not found:
        return None
    values = [each.value for each in found]
    middle, least, most = float(np.median(values)), min(values), max(values)
    label = f"speed of the machine: {least:,.0f}/s to {most:,.0f}/s"
    drawn = dots(found, label, max(each.order for each in found) + 1, [(0, middle)])
    return "loops of a fixed workload", f"{middle:,.0f}/s", f"{least:,.0f}/s", f"{most:,.0f}/s", drawn


def _curve(name: str, of_runs: Sequence[Mapping[float, float]]) -> Curve:
    """From the percentiles of each run; a point is there where at least half of the runs have one."""
    points, titles = [], []
    for percentile in sorted({each for run in of_runs for each in run}):
        values = [run[percentile] for run in of_runs if percentile in run]
        if 2 * len(values) >= len(of_runs):
            least, middle, most = min(values), float(np.median(values)), max(values)
            points.append((percentile, least, middle, most))
            told = f"{duration_text(least)} to {duration_text(most)}, {count_text(len(values), 'run')}"
            titles.append(f"{name}, p{percentile:g}: {duration_text(middle)} ({told})")
    return Curve(name, points, titles)


def _latency(report: Baseline, names: Sequence[str]) -> list[Curve]:
    return [_curve(name, [_of_load(run) for run in valid_runs(report, name)]) for name in names]


def _of_load(run: Run) -> dict[float, float]:
    """From all latencies, where the load tool gives them, or from the percentiles that it gives."""
    load = run["load"]
    if load.get("histogram"):
        histogram = Histogram(*(np.array(load["histogram"][name], np.int64) for name in ("value_ns", "count")))
        given = {each: histogram.percentile(each) for each in _CURVE}
    else:
        given = {float(name[1:]): value for name, value in (load.get("percentiles_ns") or {}).items()}
    count = load.get("answered") or 0
    return {each: value for each, value in given.items() if value is not None and enough(count, each)}


def _pauses(report: Baseline, names: Sequence[str]) -> list[Curve]:
    found = []
    for name in names:
        runs = [
            {float(each[1:]): value for each in _MEASURED if (value := _value(run, f"stw.total.{each}")) is not None}
            for run in valid_runs(report, name)
        ]
        found.append(_curve(name, runs))
    return found


def _longest(made: Page, report: Baseline) -> None:
    pauses = [(run, pause) for run in report["runs"] if run["valid"] for pause in run["longest"]]
    if not pauses:
        return
    pauses.sort(key=lambda each: -each[1]["total_ns"])
    made.head("The longest pauses")
    rows = [
        (
            f"{number}. {duration_text(pause['total_ns'])}",
            run["version"],
            str(run["order"]),
            pause["time"][11:23],
            pause["reason"],
            f"{pause['cause']}: {pause['sentence']}",
        )
        for number, (run, pause) in enumerate(pauses[:_LONGEST], 1)
    ]
    heads = ("", "Version", "Run", "UTC", "Stop reason", "What the world waited for")
    many = f"The first {len(rows)} of {len(pauses)}" if len(pauses) > len(rows) else "All that were explained"
    made.table(many, heads, rows, names=("Version", *heads[4:]))


def _flames(made: Page, report: Baseline) -> None:
    found = report.get("flames")
    if found is None:
        return
    made.head("Where CPU time goes")
    if found["unknown"] is not None:
        made.say(f"Not known: {found['unknown']}", "lost")
        return
    for picture in found["pictures"]:
        names = picture["versions"]
        what = f"{names[-1]}, compared with {names[0]}" if len(names) > 1 else names[0]
        made.put(Markup(f'<p class="note"><a href="{escaped(picture["file"])}">A flame graph of {escaped(what)}</a></p>'))
    rows = [
        (each["version"], duration_text(each["cpu_ns"]), f"{each['samples']:,}", "; ".join(each["notes"]) or "-")
        for each in found["sampled"]
    ]
    made.table(
        "From one more run of each, not counted",
        ("Version", "CPU time", "Samples", "Notes"),
        rows,
        names=("Version", "Notes"),
    )


def _runs(made: Page, report: Baseline) -> None:
    made.head("Runs")
    rows = []
    for run in report["runs"][:_FEW]:
        load = run["load"]
        counts = f"{load.get('requests') or 0:,}", f"{sum((load.get('errors') or {}).values()):,}"
        said = "; ".join([*run["reasons"], *run["notes"]]) or "-"
        length, when = duration_text(run["length_ns"]), run["time"][11:19]
        rows.append(
            (
                f"{run['order']}",
                run["version"],
                when,
                length,
                "yes" if run["valid"] else "NO",
                *counts,
                f"{run['lost']:,}",
                said,
            )
        )
    heads = ("Run", "Version", "UTC", "Length", "Counts", "Requests", "Failed", "Events lost", "Why not, and notes")
    made.table("In the order in which they were measured", heads, rows, names=("Version", "Counts", heads[-1]))


def _cost(made: Page, report: Baseline) -> None:
    rows = []
    for run in report["runs"][:_FEW]:
        cost, length = run["cost"], max(1, run["length_ns"])
        hits, target = cost.get("probe_hits"), cost.get("target_ns_estimate")
        rows.append(
            (
                f"{run['order']}",
                run["version"],
                "?" if hits is None else f"{hits:,}",
                "?" if target is None else f"{duration_text(target)} ({percent_text(target / length)})",
                f"{cost.get('tool_cpu_s', 0):.2f} s",
                bytes_text(cost["tool_rss_bytes"]) if cost.get("tool_rss_bytes") else "?",
            )
        )
    made.head("What measuring cost")
    made.say("The cost to the service is an estimate: probe hits times the cost per hit, measured on this machine.")
    heads = ("Run", "Version", "Probe hits", "Share of the service's time, about", "gotrace: CPU", "gotrace: RSS")
    made.table("Each run", heads, rows, names=("Version",), folded=True)


def _plan(made: Page, report: Baseline) -> None:
    made.head("Machine and plan")
    host: Mapping[str, Any] = report["host"]
    rows = [(_called(name), _fact(name, value)) for name, value in host.items()]
    made.table("The machine", ("Fact", "Value"), rows, names=("Value",))
    plan = dict(report["plan"])
    plan.pop("versions", None)
    rows = [(_called(name), _fact(name, value)) for name, value in plan.items()]
    made.table("The plan", ("What", "Value"), rows, names=("Value",))


def _called(name: str) -> str:
    """A fact's name without its unit, which its value has."""
    return name.removesuffix("_ns").removesuffix("_bytes").replace("_", " ")


def _fact(name: str, value: Any) -> str:
    if value is None:
        return "until it is steady" if name == "warmup_ns" else "unknown"
    if name == "links":
        return "; ".join(map(link_text, value)) or "none"
    if isinstance(value, list):
        return shlex.join(map(str, value)) or "all"
    if name.endswith("_ns"):
        return duration_text(value)
    if name.endswith("_bytes"):
        return bytes_text(value)
    return percent_text(value) if name == "most_drift" else str(value)

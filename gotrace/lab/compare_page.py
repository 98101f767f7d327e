"""A comparison as one HTML page: verdicts, ratios with their intervals and the margin, and a dot for each run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gotrace.export.charts.page import Markup, Page
from gotrace.export.charts.runs import Scale, forest, forest_axis, key
from gotrace.export.picture.frame import escaped
from gotrace.lab.baseline_page import run_dots
from gotrace.lab.compare import Compared, Side
from gotrace.lab.metrics import METRICS
from gotrace.lab.pairs import Pair, change_text, version_of
from gotrace.lab.report import Run
from gotrace.text import count_text, duration_text

_HOW = (
    "Each row is a metric: the square is the estimate of B / A, the line its exact 95% interval, on a logarithmic axis;"
    " the band is the margin, within which a change does not matter. p is corrected for the number of metrics. Each "
    "dot is a run,"
    " in the order of measurement; the dashed lines are the medians."
)


def page(pairs: Sequence[Pair], everything: bool = False) -> str:
    """The whole page."""
    made = Page()
    for pair in pairs:
        if len(pairs) > 1:
            made.head(f"{pair.a.name} and {pair.b.name}")
        _pair(made, pair, everything)
    names = " and ".join([pairs[0].a.name, *(pair.b.name for pair in pairs)])
    return made.made(f"Comparison of {names}")


def _pair(made: Page, pair: Pair, everything: bool) -> None:
    made.put(key([f"{letter}: {side.name}" for letter, side in (("A", pair.a), ("B", pair.b))]))
    for letter, side in (("A", pair.a), ("B", pair.b)):
        made.say(f"{letter}: {_about(side)}")
    if pair.warning:
        made.say(f"Not comparable: {pair.warning}. Nothing is better or worse.", "lost")
    if not pair.interleaved:
        made.say("Not interleaved: what drifted between the two counts as a difference.", "lost")
    for side in (pair.a, pair.b):
        if not side.report.get("complete", True):
            made.say(f"The report of {side.name} is incomplete.", "lost")
        if lost := sum(run.get("lost", 0) for run in side.runs):
            made.say(f"{side.name}: {count_text(lost, 'event')} lost; pauses are lower bounds.", "lost")
    made.tiles([(word, str(len(names))) for word, names in pair.named(everything)])
    for word, names in pair.named(everything):
        made.put(
            Markup(
                f'<p><span class="verdict {escaped(word.split()[0])}">{escaped(word)}</span>:'
                f" {escaped(', '.join(names))}</p>"
            )
        )
    for note in pair.notes(everything):
        made.say(note)
    shown = pair.shown(everything)
    scale = Scale.of([row.change for row in shown if row.change and METRICS[row.metric].dimension != "growth"], pair.margin)
    rows = [_row(pair, row, scale) for row in shown]
    rows.append(("", "", "", "", forest_axis(scale), "", "", "", ""))
    heads = ("Metric", "A", "B", "Change", f"B / A, margin {100 * pair.margin:g}%", "Interval", "p", "Verdict", "Each run")
    made.table("Metric by metric", heads, rows, names=("Verdict",))
    made.say(_HOW)
    if waited := pair.waited():
        found = [(kind, duration_text(a), duration_text(b)) for kind, (a, b) in waited.mean_ns.items()]
        caption = f"What the {waited.pauses[0]:,} and {waited.pauses[1]:,} longest pauses waited for, mean of a pause"
        made.table(caption, ("Class", "A", "B"), found)


def _about(side: Side) -> str:
    return f"{side.name}, {count_text(len(side.runs), 'run')}, {version_of(side)['go_version']}"


def _row(pair: Pair, row: Compared, scale: Scale) -> tuple[str, ...]:
    metric = METRICS[row.metric]
    a, b = metric.text(row.a), metric.text(row.b)
    verdict = Markup(f'<span class="verdict {escaped(row.verdict)}">{escaped(pair.verdict(row))}</span>')
    drawn = run_dots(metric, *_in_time(pair))
    if row.change is None:
        return row.metric, a, b, "-", "-", "-", "-", verdict, drawn
    value, low, high = row.change
    interval = f"{change_text(row, low)} to {change_text(row, high)}"
    picture: str = "-"
    if metric.dimension != "growth" and math.isfinite(value):
        label = f"{row.metric}: {change_text(row)}, {interval}: {row.verdict}"
        picture = forest(scale, pair.margin, value, low, high, row.verdict, label)
    p = "-" if row.adjusted_p is None else f"{row.adjusted_p:.4f}"
    return row.metric, a, b, change_text(row), picture, interval, p, verdict, drawn


def _in_time(pair: Pair) -> tuple[list[tuple[str, list[Run]]], int]:
    """Both sides' runs and how many places they take: by their order in one report, those of a second report behind."""
    if pair.interleaved:
        runs = [*pair.a.runs, *pair.b.runs]
        return [(pair.a.name, pair.a.runs), (pair.b.name, pair.b.runs)], max((run["order"] for run in runs), default=0) + 1
    first = max((run["order"] for run in pair.a.runs), default=-1) + 1
    later: list[Run] = [{**run, "order": run["order"] + first} for run in pair.b.runs]
    count = max((run["order"] for run in later), default=first) + 1
    return [(pair.a.name, pair.a.runs), (pair.b.name, later)], count

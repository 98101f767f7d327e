"""`gotrace compare`, for people: verdicts first, then the numbers behind them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.cli.text.table import Table
from gotrace.lab.compare import CANNOT_TELL, Compared, Side
from gotrace.lab.metrics import METRICS
from gotrace.run.files import Sink
from gotrace.text import count_text, printable

_COLUMNS = (
    Column("metric", 22, left=True),
    Column("A", 12),
    Column("B", 12),
    Column("change", 9),
    Column("interval", 20, rank=1),
    Column("p", 8, rank=3),
    Column("could show", 10, rank=2),
    Column("more runs", 9, rank=4),
    Column("verdict", left=True, gap=2),
)


_MANY = 10_000  # that nobody would wait for


class Pair(NamedTuple):
    """Two sides, and what came of them; ``warning`` says why they are not comparable, "" if they are."""

    a: Side
    b: Side
    rows: list[Compared]
    warning: str


def write(stream: Sink, format_: str, pairs: Sequence[Pair], margin: float) -> None:
    """As a table, or as JSON."""
    if format_ == "json":
        told = [
            {
                "a": _about(pair.a),
                "b": _about(pair.b),
                "not_comparable": pair.warning or None,
                "metrics": [row.to_json() for row in pair.rows],
            }
            for pair in pairs
        ]
        stream.write(json.dumps({"margin_percent": margin, "comparisons": told}, indent=1) + "\n")
    else:
        Table(stream).print(_lines(pairs, margin))


def _about(side: Side) -> dict[str, object]:
    return {"name": side.name, "runs": len(side.runs), "go_version": side.report["versions"][0]["go_version"]}


def _lines(pairs: Sequence[Pair], margin: float) -> Iterator[str | Rows]:
    for number, (a, b, rows, warning) in enumerate(pairs):
        if number:
            yield ""
        yield f"A: {printable(a.name)}, {count_text(len(a.runs), 'run')}"
        yield f"B: {printable(b.name)}, {count_text(len(b.runs), 'run')}"
        if warning:
            yield f"NOT COMPARABLE: {printable(warning)}. Nothing is better or worse."
        if a.report is not b.report:
            yield "Not interleaved: what drifted between the two counts as a difference."
        yield ""
        for word in ("worse", "better", "same", CANNOT_TELL):
            named = [row.metric for row in rows if row.verdict == word and (row.a is not None or row.b is not None)]
            if named:
                yield f"{_words(word, margin)}: {', '.join(named)}"
        yield ""
        yield Rows(_COLUMNS, [_row(row) for row in rows if row.a is not None or row.b is not None])


def _words(word: str, margin: float) -> str:
    return f"same within {margin:g}%" if word == "same" else word


def _row(row: Compared) -> Row:
    metric = METRICS[row.metric]
    is_growth = metric.dimension == "growth"
    a, b = metric.text(row.a), metric.text(row.b)
    if row.change is None:
        return row.metric, a, b, "-", "-", "-", "-", "-", f"{row.verdict} ({row.reason})"
    value, low, high = (_change(each, is_growth) for each in row.change)
    least, more = "-", "-"
    if row.least is not None and math.isfinite(row.least):
        least = _change(row.least if is_growth else 1 + row.least, is_growth)
    if row.more is not None:
        more = f"{row.more:,}" if row.more < _MANY else "many"
    p = f"{row.adjusted_p:.4f}"
    return row.metric, a, b, value, f"{low} to {high}", p, least, more, row.verdict


def _change(value: float, is_growth: bool) -> str:
    if not math.isfinite(value):
        return "?"
    return METRICS["rss.growth"].text(value) if is_growth else f"{value - 1:+.1%}"

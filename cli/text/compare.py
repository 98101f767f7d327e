"""`gotrace compare`, for people: verdicts first, then the numbers behind them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.cli.text.table import Table
from gotrace.lab.compare import Compared, Side
from gotrace.lab.metrics import METRICS
from gotrace.lab.pairs import Pair, change_text, version_of
from gotrace.run.files import Sink
from gotrace.text import count_text, printable

HEADS = ("metric", "A", "B", "change", "interval", "p", "detectable", "more runs", "verdict")
_COLUMNS = (
    Column(HEADS[0], 22, left=True),
    Column(HEADS[1], 12),
    Column(HEADS[2], 12),
    Column(HEADS[3], 9),
    Column(HEADS[4], 20, rank=1),
    Column(HEADS[5], 8, rank=3),
    Column(HEADS[6], 10, rank=2),
    Column(HEADS[7], 9, rank=4),
    Column(HEADS[8], left=True, gap=2),
)
NOT_INTERLEAVED = "Not interleaved: any drift between the two counts as a difference."

_MANY = 10_000  # that nobody would wait for


def write(stream: Sink, format_: str, pairs: Sequence[Pair], everything: bool) -> None:
    """In any of `gotrace.export.formats.COMPARED`."""
    if format_ == "json":
        stream.write(json.dumps(_json(pairs, everything), indent=1) + "\n")
    elif format_ == "md":
        stream.write("".join(f"{line}\n" for line in _markdown(pairs, everything)))
    elif format_ == "html":
        from gotrace.lab.compare_page import page

        stream.write(page(pairs, everything))
    elif format_ == "benchfmt":
        from gotrace.lab.go_benchmarks import of_pairs

        stream.write("".join(f"{line}\n" for line in of_pairs(pairs)))
    else:
        Table(stream).print(_lines(pairs, everything))


def _json(pairs: Sequence[Pair], everything: bool) -> dict[str, object]:
    told = []
    for pair in pairs:
        waited = pair.waited()
        told.append(
            {
                "a": _about(pair.a),
                "b": _about(pair.b),
                "interleaved": pair.interleaved,
                "not_comparable": pair.warning or None,
                "notes": list(pair.notes(everything)),
                "longest_pauses": waited.to_json() if waited else None,
                "metrics": [row.to_json() for row in (pair.rows if everything else pair.shown())],
            }
        )
    return {"margin_percent": 100 * pairs[0].margin, "comparisons": told}


def _about(side: Side) -> dict[str, object]:
    return {"name": side.name, "runs": len(side.runs), "go_version": version_of(side)["go_version"]}


def _said(pair: Pair) -> Iterator[str]:
    """Whose runs they are, and what keeps them from being compared."""
    yield f"A: {printable(pair.a.name)}, {count_text(len(pair.a.runs), 'run')}"
    yield f"B: {printable(pair.b.name)}, {count_text(len(pair.b.runs), 'run')}"
    if pair.warning:
        yield f"NOT COMPARABLE: {printable(pair.warning)}. Nothing is judged better or worse."
    if not pair.interleaved:
        yield NOT_INTERLEAVED


def _lines(pairs: Sequence[Pair], everything: bool) -> Iterator[str | Rows]:
    for number, pair in enumerate(pairs):
        if number:
            yield ""
        yield from _said(pair)
        yield ""
        for word, names in pair.named(everything):
            yield f"{word}: {', '.join(names)}"
        yield ""
        yield Rows(_COLUMNS, [row_of(pair, row) for row in pair.shown(everything)])
        for number_, note in enumerate(pair.notes(everything)):
            if not number_:
                yield ""
            yield note


def _markdown(pairs: Sequence[Pair], everything: bool) -> Iterator[str]:
    from gotrace.export.markdown import escaped, table

    for number, pair in enumerate(pairs):
        if number:
            yield ""
        yield f"### {escaped(pair.a.name)} and {escaped(pair.b.name)}"
        yield ""
        for line in _said(pair):
            yield f"- {escaped(line)}"
        for word, names in pair.named(everything):
            yield f"- **{escaped(word)}**: {escaped(', '.join(names))}"
        yield ""
        yield from table(HEADS, [list(map(str, row_of(pair, row))) for row in pair.shown(everything)], left=(0, 8))
        for note in pair.notes(everything):
            yield ""
            yield escaped(note)


def row_of(pair: Pair, row: Compared) -> Row:
    """The cells of `HEADS`."""
    metric = METRICS[row.metric]
    is_growth = metric.dimension == "growth"
    a, b = metric.text(row.a), metric.text(row.b)
    if row.change is None:
        return row.metric, a, b, "-", "-", "-", "-", "-", pair.verdict(row)
    value, low, high = (change_text(row, each) for each in row.change)
    least, more = "-", "-"
    if row.least is not None and math.isfinite(row.least):
        least = change_text(row, row.least if is_growth else 1 + row.least)
    if row.more is not None:
        more = f"{row.more:,}" if row.more < _MANY else "many"
    return row.metric, a, b, value, f"{low} to {high}", f"{row.adjusted_p:.4f}", least, more, pair.verdict(row)

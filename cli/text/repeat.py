"""`gotrace reproduce RECORDING`, for people: the answer first, then what it was made of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.lab import repeat
from gotrace.lab.repeat import METRICS, Repetition, Values
from gotrace.text import bytes_text, count_text, duration_text, percent_text, printable

_COLUMNS = (
    *(Column("metric", 14, left=True), Column("then", 10), Column("now (median)", 12), Column("change", 8)),
    *(Column("90% interval", 18, rank=1), Column("p differs", 9, rank=3), Column("found", left=True, gap=2)),
)


def about(unlike: Sequence[str], notes: Sequence[str]) -> Iterator[str]:
    """What speaks against a comparison, and what is to be known."""
    yield from (f"NOT COMPARABLE: {printable(each)}" for each in unlike)
    yield from (f"note: {printable(each)}" for each in notes)


def recorded(values: Values) -> Iterator[str]:
    yield from (f"recorded {name}: {_value(name, value)}" for name, value in values.items() if name in METRICS)


def lines(found: Repetition) -> Iterator[str | Rows]:
    yield f"{found.answer.upper()} within {100 * found.margin:g}%"
    yield from (f"  {printable(reason)}" for reason in found.reasons)
    yield from (f"note: {printable(note)}" for note in found.notes)
    how = "its calls replayed" if found.how == "replay" else "its command run"
    yield f"One recorded run, and {how} {count_text(found.runs, 'time')}: it is assumed to vary as much as these do."
    yield ""
    yield Rows(_COLUMNS, [_row(each) for each in found.metrics])


def _row(row: repeat.Row) -> Row:
    known = [each for each in row.now if each is not None]
    median = statistics.median(known) if len(known) == len(row.now) and known else None
    found = row.found if row.needed or row.found == "differs" else f"{row.found}, not judged"
    cells = (row.metric, _value(row.metric, row.then), _value(row.metric, median))
    if row.change is None or row.differs_p is None:
        return *cells, "-", "-", "-", found
    change, low, high = (f"{each - 1:+.1%}" if math.isfinite(each) else "?" for each in row.change)
    return *cells, change, f"{low} to {high}", f"{row.differs_p:.4f}", found


def _value(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    unit = METRICS[metric]
    texts = {"bytes": bytes_text, "ns": duration_text, "share": percent_text}
    return texts[unit](value) if unit else f"{value:,.0f}"

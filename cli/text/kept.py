"""`gotrace report --longest`, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.cli.text.layout import Column, Rows, more_rows
from gotrace.cli.text.lines import write_json
from gotrace.cli.text.table import Table
from gotrace.records.gc import code_text
from gotrace.records.kept import KeptPause
from gotrace.run.files import Sink
from gotrace.text import count_text, duration_text

_COLUMNS = (
    Column("time", left=True),
    Column("service", left=True, elastic=12, gap=2),
    Column("pid", rank=2),
    Column("pause", gap=2),
    Column("reason", left=True, elastic=16, rank=3, gap=2),
    Column("cause", left=True, gap=2),
    Column("in", left=True, elastic=20, rank=1, gap=2),
)


def write(stream: Sink, format_: str, pauses: Sequence[KeptPause], top: int) -> None:
    """The longest first; in a table the ``top`` of them."""
    if not write_json(stream, format_, pauses):
        Table(stream).print(_lines(pauses, top))


def _lines(pauses: Sequence[KeptPause], top: int) -> Iterator[str | Rows]:
    if not pauses:
        yield "No pauses kept."
        return
    yield Rows(_COLUMNS, [_row(each) for each in pauses[:top]])
    if len(pauses) > top:
        yield more_rows(len(pauses), top)
    if partly := sum(not each["whole"] for each in pauses):
        yield f"Of {count_text(partly, 'pause')} (?) the evidence is incomplete: lost, or older than the agent."
    yield f"\nThe longest, {pauses[0]['file']}:\n"


def _row(each: KeptPause) -> list[object]:
    return [
        each["time"][:23].replace("T", " "),
        each["service"],
        each["pid"],
        duration_text(each["length_ns"]),
        each["reason"],
        each["cause"] if each["whole"] else f"{each['cause']} (?)",
        code_text(each["code"]) if each["code"] else "?",
    ]

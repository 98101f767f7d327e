"""`gotrace coldstart compare`: two recordings of starts, row by row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gotrace.analysis.start_summary import ENOUGH, Change, changes
from gotrace.cli.text.coldstart import NAME, row_name
from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.run.files import Sink
from gotrace.run.starts import Result
from gotrace.text import count_text, duration_text, printable

_LEAST_SHARE = 0.005
_COLUMNS = (
    NAME,
    Column("A", 9),
    Column("B", 9),
    Column("B - A", 10),
    Column("95 % interval", 25, rank=1),
    Column("", left=True, gap=2),
)


class Side(NamedTuple):
    """A recording, and the starts in it."""

    path: str
    result: Result


def write(stream: Sink, format_: str, before: Side, after: Side, everything: bool) -> None:
    """How the starts of ``after`` differ from those of ``before``."""
    found = changes(before.result.starts, after.result.starts)
    if format_ == "json":
        rows = [{**dataclasses.asdict(change), "certain": change.certain} for change in found]
        stream.write(json.dumps({"before": _about(before), "after": _about(after), "rows": rows}, indent=1) + "\n")
    else:
        Table(stream).print(_table(found, before, after, everything))


def _table(found: Sequence[Change], before: Side, after: Side, everything: bool) -> Iterator[str | Rows]:
    for name, (path, result) in (("A", before), ("B", after)):
        yield f"{name}: {printable(path)}: {count_text(len(result.starts), 'start')} of {result.title}"
    if min(len(before.result.starts), len(after.result.starts)) < ENOUGH:
        yield f"Fewer than {ENOUGH} starts on one side: too few to tell a change from chance. Record more with -n 20."
    yield ""
    several = any(change.place for change in found)
    hidden, least, lines = 0, 0.0, []
    for change in found:
        if not change.depth and not change.stage:  # the total comes first
            least = _LEAST_SHARE * max(change.before or 0, change.after or 0)
            if several:
                lines.append((f"start {change.place + 1} of a run", *[""] * (len(_COLUMNS) - 1)))
        if change.depth and not everything and abs(change.difference) < least:
            hidden += 1
            continue
        sides = ["-" if value is None else duration_text(value) for value in (change.before, change.after)]
        interval = "?" if change.few else f"{_signed(change.low)} … {_signed(change.high)}"
        name = row_name(change.name or change.stage, change.depth)
        lines.append((name, *sides, _signed(change.difference), interval, _verdict(change)))
    yield Rows(_COLUMNS, lines)
    if hidden:
        yield f"  ({count_text(hidden, 'row')} changed by less than {_LEAST_SHARE:.1%} of the total; --all shows them)"


def _signed(ns: float) -> str:
    return f"{'-' if ns < 0 else '+'}{duration_text(abs(ns))}"


def _verdict(change: Change) -> str:
    if change.before is None or change.after is None:
        return "only in A" if change.after is None else "only in B"
    if not change.certain:
        return "too few starts" if change.few else "may be chance"
    return f"{'slower' if change.difference > 0 else 'faster'} ({change.difference / max(1.0, change.before):+.0%})"


def _about(side: Side) -> dict[str, object]:
    return {"recording": side.path, "starts": len(side.result.starts), "target": side.result.header["target"]}

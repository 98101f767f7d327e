"""`gotrace fleet add`, `collect` and `sql`, for people."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence

from gotrace.fleet.add import Outcome
from gotrace.fleet.collect import Asked
from gotrace.fleet.compact import Compacted
from gotrace.fleet.database import Answer
from gotrace.fleet.tables import MOST_SKEW_NS
from gotrace.run.files import Sink
from gotrace.text import bytes_text, count_text, duration_text, printable

REFUSED = 3  # the exit status where something could not be read, and the others were
_KINDS = {
    "baseline": ("report", "reports"),
    "recording": ("recording", "recordings"),
    "spool": ("segment of a spool", "segments of spools"),
    "hlog": ("log", "logs"),
    "prices": ("list of prices", "lists of prices"),
}


def write_added(outcomes: Sequence[Outcome], say: Callable[[str], None]) -> None:
    """A line for each that was refused, or of which there is more to know, and what was added."""
    for each in outcomes:
        if each.problem:
            say(f"{printable(each.path)}: refused: {printable(each.problem)} ({printable(each.hint)})")
        for note in each.notes:
            say(f"{printable(each.path)}: {printable(note)}")
    added = Counter(each.kind for each in outcomes if not each.problem and not each.skipped)
    parts = [f"{count:,} {_KINDS[kind][count != 1]}" for kind, count in added.items()]
    incomplete = sum(each.incomplete for each in outcomes)
    skipped = sum(each.skipped for each in outcomes) - incomplete
    refused = sum(bool(each.problem) for each in outcomes)
    rest = [f"{skipped} already there"] if skipped else []
    rest += [f"{incomplete} not complete yet"] if incomplete else []
    rest += [f"{refused} refused"] if refused else []
    print("; ".join([f"added {', '.join(parts)}" if parts else "nothing added", *rest]))


def write_collected(asked: Sequence[Asked], agents: int, say: Callable[[str], None]) -> None:
    """What came, then which of so many agents did not answer, and why."""
    minutes, size = sum(each.minutes for each in asked), sum(each.size for each in asked)
    absent = [each for each in asked if each.problem]
    there = count_text(len(asked) - len(absent), "agent")
    print(f"{there} of {agents}: {count_text(minutes, 'minute')} of services, {bytes_text(size)}")
    for each in asked:
        name = printable(each.host or each.url)
        if each.skew_ns is not None and abs(each.skew_ns) > MOST_SKEW_NS:
            say(f"{name}: its clock is off by {duration_text(abs(each.skew_ns))}: its data is marked (skew_ns)")
        if each.more:
            say(f"{name}: not everything was fetched: collect again")
        for note in each.notes:
            say(f"{name}: {printable(note)}")
    if left := agents - len(asked):
        say(f"interrupted: {count_text(left, 'agent')} not asked, or not to the end: collect again to get the rest")
    for each in absent:
        say(f"absent: {printable(each.url)}: {printable(each.problem)} ({printable(each.hint)})")


def write_compacted(found: Compacted, say: Callable[[str], None]) -> None:
    """What it was and what it is, then the days that stay as they are."""
    for day, problem in found.left:
        say(f"{day} left as it is: {printable(problem)}")
    if not found.days:
        print("nothing to compact")
        return
    rows, files = (
        f"{before:,} {name} are {after:,} now" for name, (before, after) in (("rows", found.rows), ("files", found.files))
    )
    size = f"{bytes_text(found.size[0])} are {bytes_text(found.size[1])}"
    print(f"{count_text(len(found.days), 'day')} ({found.days[0]} to {found.days[-1]}): {rows}, {files}, {size}")


def write_answer(stream: Sink, format_: str, answer: Answer) -> None:
    """In one of `gotrace.export.formats.QUERIES`, or as a table."""
    if format_ == "json":
        rows = [dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows]
        stream.write(json.dumps(rows, indent=1) + "\n")
    elif format_ == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([answer.columns, *([_plain(value) for value in row] for row in answer.rows)])
        stream.write(buffer.getvalue())
    else:
        _print_table(stream, answer)


def _print_table(stream: Sink, answer: Answer) -> None:
    cells = [[_cell(value) for value in row] for row in answer.rows]
    names = [printable(name) for name in answer.columns]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    left = [any(isinstance(row[at], str) for row in answer.rows) for at in range(len(names))]
    for line in (names, *cells):
        shown = zip(line, widths, left, strict=True)
        parts = (f"{cell:<{width}}" if to_left else f"{cell:>{width}}" for cell, width, to_left in shown)
        stream.write("  ".join(parts).rstrip() + "\n")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else printable(str(value))


def _plain(value: object) -> object:
    """As JSON and CSV have it: no NaN, and texts for what is neither a number nor a text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)

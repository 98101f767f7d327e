"""`gotrace compare --by`, for people: what was measured where, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.lab.groups import DESCRIPTION, Cell, Group, about, described, mixed
from gotrace.lab.metrics import METRICS
from gotrace.run.files import Sink
from gotrace.text import printable


def write(stream: Sink, format_: str, groups: Sequence[Group], by: str, everything: bool) -> None:
    """In any of `gotrace.export.formats.COMPARED`."""
    if format_ == "json":
        rows = [
            {"metric": name, "cells": [cell.to_json() for cell in cells]} for name, cells in described(groups, everything)
        ]
        whose = [{"name": group.name, "runs": len(group.runs), "about": about(group)} for group in groups]
        found = {"by": by, "about": DESCRIPTION, "mixed": list(mixed(groups)), "groups": whose, "metrics": rows}
        stream.write(json.dumps(found, indent=1) + "\n")
    elif format_ == "md":
        stream.write("".join(f"{line}\n" for line in _markdown(groups, by, everything)))
    elif format_ == "html":
        from gotrace.lab.groups_page import page

        stream.write(page(groups, by, everything))
    elif format_ == "benchfmt":
        from gotrace.lab.go_benchmarks import of_groups

        stream.write("".join(f"{line}\n" for line in of_groups(groups, by)))
    else:
        Table(stream).print(_lines(groups, everything))


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"#{number + 1}"


def _lines(groups: Sequence[Group], everything: bool) -> Iterator[str | Rows]:
    for number, group in enumerate(groups):
        yield f"{_letter(number)}: {printable(group.name)}: {about(group)}"
    yield from mixed(groups)
    yield DESCRIPTION
    yield ""
    columns = [Column("metric", 22, left=True)]
    for number in range(len(groups)):
        columns += [Column(_letter(number), 12, gap=2), Column("interval", 20, rank=2), Column("runs", rank=3)]
    rows = [
        (name, *(text for cell in cells for text in cell_texts(name, cell)))
        for name, cells in described(groups, everything)
    ]
    yield Rows(columns, rows)


def cell_texts(name: str, cell: Cell) -> tuple[str, str, str]:
    """Median, interval, runs."""
    text = METRICS[name].text
    if not cell.runs:
        return "-", "-", "-"
    interval = f"{text(cell.low)} to {text(cell.high)}" if cell.low is not None else "-"
    return text(cell.median), interval, str(cell.runs)


def _markdown(groups: Sequence[Group], by: str, everything: bool) -> Iterator[str]:
    from gotrace.export.markdown import escaped, table

    yield f"### By {by}"
    yield ""
    for number, group in enumerate(groups):
        yield f"- **{_letter(number)}**: {escaped(f'{group.name}: {about(group)}')}"
    for told in mixed(groups):
        yield f"- {escaped(told)}"
    yield ""
    heads = [
        "metric",
        *(f"{_letter(number)}{what}" for number in range(len(groups)) for what in ("", " interval", " runs")),
    ]
    rows = [
        [name, *(text for cell in cells for text in cell_texts(name, cell))]
        for name, cells in described(groups, everything)
    ]
    yield from table(heads, rows)
    yield ""
    yield escaped(DESCRIPTION)

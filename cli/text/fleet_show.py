"""`gotrace fleet show`, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.fleet.costs import to_json as costs_to_json
from gotrace.fleet.show import to_json
from gotrace.fleet.show_memory import to_json as memory_to_json
from gotrace.fleet.show_page import Shown, page, picture
from gotrace.fleet.show_sections import Section, printable_section, sections, title, warnings
from gotrace.run.files import Sink
from gotrace.text import printable

# What goes first where a line has no room.
_RANKS = {
    "nodes": 9,
    "THP": 8,
    "page": 7,
    "GOGC": 6,
    "Go": 5,
    "recording": 9,
    "version": 8,
    "values": 4,
    "p99.99": 3,
    "measured on": 7,
    "price": 6,
}


def write(stream: Sink, format_: str, shown: Shown) -> None:
    """In any of `gotrace.export.formats.FLEETS`."""
    if format_ == "json":
        found = to_json(shown.fleet) | memory_to_json(*shown.memory, shown.resident, shown.stages)
        more = {"costs": list(map(costs_to_json, shown.costs)), "claims": [vars(each) for each in shown.claims]}
        stream.write(json.dumps(found | more, indent=1) + "\n")
    elif format_ == "md":
        stream.write("".join(f"{line}\n" for line in _markdown(shown)))
    elif format_ == "html":
        stream.write(page(shown))
    elif format_ == "svg":
        stream.write(picture(shown.stragglers))
    else:
        Table(stream).print(_lines(shown))


def _sections(shown: Shown) -> Iterator[Section]:
    return sections(shown.fleet, shown.memory, shown.resident, shown.stages, shown.claims, shown.costs)


def _lines(shown: Shown) -> Iterator[str | Rows]:
    yield printable(title(shown.fleet))
    for told in warnings(shown.fleet):
        yield printable(told)
    for section in map(printable_section, _sections(shown)):
        yield ""
        yield f"{section.title}:"
        yield from section.notes
        columns = []
        for at, head in enumerate(section.heads):
            width = max(len(head), *(len(row[at]) for row in section.rows))
            gap = 2 if at else 0
            columns.append(Column(head, width, _RANKS.get(head, 0), left=head in section.names, gap=gap))
        yield Rows(columns, section.rows)


def _markdown(shown: Shown) -> Iterator[str]:
    from gotrace.export.markdown import escaped, table

    yield f"### {escaped(title(shown.fleet))}"
    yield ""
    for told in warnings(shown.fleet):
        yield f"- {escaped(told)}"
    for section in _sections(shown):
        yield ""
        yield f"#### {escaped(section.title)}"
        yield ""
        for note in section.notes:
            yield escaped(note)
            yield ""
        left = [at for at, head in enumerate(section.heads) if head in section.names]
        yield from table(section.heads, section.rows, left=left)

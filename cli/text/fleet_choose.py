"""`gotrace fleet choose`, for people: the questions with whom they cut, the rules, and the evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.export import markdown
from gotrace.fleet.choose import Choice
from gotrace.fleet.choose_picture import page, svg
from gotrace.fleet.choose_words import cut_text, heads, rows, rule_text, to_json
from gotrace.run.files import Sink
from gotrace.text import count_text, printable

_RANKS = (0, 0, 0, 1, 2, 2, 4, 3)


def write(stream: Sink, format_: str, choice: Choice) -> None:
    """In one of `gotrace.export.formats.FLEETS`."""
    if format_ == "json":
        stream.write(json.dumps(to_json(choice), indent=1) + "\n")
    elif format_ == "md":
        stream.write("".join(f"{line}\n" for line in _markdown(choice)))
    elif format_ in ("svg", "html"):
        stream.write((svg if format_ == "svg" else page)(choice))
    else:
        Table(stream).print(_lines(choice))


def _said(choice: Choice) -> Iterator[str]:
    yield from choice.notes
    yield from (f"Skipped: {file}: {problem}" for file, problem in choice.broken)


def _rules(choice: Choice) -> Iterator[str]:
    yield from (rule_text(rule, choice) for rule in choice.rules)
    if not choice.rules:
        yield "No measured type meets every limit."


def _lines(choice: Choice) -> Iterator[str | Rows]:
    yield f"{printable(choice.service)}: {count_text(len(choice.candidates), 'type')} of machines"
    for step in choice.steps:
        yield ""
        yield f"{step.question}  {len(step.kept)} of {len(step.kept) + len(step.cut)}"
        yield from (f"  no: {printable(cut_text(each))}" for each in step.cut)
    yield ""
    yield from map(printable, _rules(choice))
    if table := rows(choice):
        columns = [
            Column(name, left=at in (0, 6, 7), rank=rank, gap=2)
            for at, (name, rank) in enumerate(zip(heads(choice), _RANKS, strict=True))
        ]
        yield ""
        yield Rows(columns, [[printable(cell) for cell in row] for row in table])
    if said := [*_said(choice)]:
        yield ""
        yield from map(printable, said)


def _markdown(choice: Choice) -> Iterator[str]:
    yield f"### Machines for {markdown.escaped(choice.service)}"
    yield ""
    for number, step in enumerate(choice.steps, 1):
        yield f"{number}. {markdown.escaped(step.question)} {len(step.kept)} of {len(step.kept) + len(step.cut)}"
        yield from (f"    - no: {markdown.escaped(cut_text(each))}" for each in step.cut)
    yield ""
    yield from (f"- {markdown.escaped(rule)}" for rule in _rules(choice))
    if table := rows(choice):
        yield ""
        yield from markdown.table(heads(choice), table, left=(0, 6, 7))
    yield ""
    yield from (f"- {markdown.escaped(note)}" for note in _said(choice))

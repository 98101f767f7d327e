"""`gotrace gate`, for people and for what runs it: a table, JSON, Markdown, JUnit's XML, GitHub's annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gotrace.analysis.stats.verdicts import Outcome
from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.export import github, junit, markdown
from gotrace.lab.gate import Gated, Row
from gotrace.run.files import Sink
from gotrace.text import count_text, printable

_COLUMNS = (
    Column("metric", 14, left=True),
    Column("limit", 12),
    Column("measured", 9),
    Column("interval", 18, rank=1),
    Column("runs", 4, rank=2),
    Column("more runs", 9, rank=3),
    Column("verdict", left=True, gap=2),
)
_MANY = 10_000  # that nobody would wait for
_TITLE = "gotrace gate"


def write(stream: Sink, format_: str, gated: Gated, inconclusive: Outcome) -> None:
    """In one of `gotrace.export.formats.GATES`; ``inconclusive`` is what is made of that."""
    if format_ == "json":
        stream.write(json.dumps(gated.to_json(), indent=1) + "\n")
    elif format_ == "md":
        stream.write("".join(f"{line}\n" for line in _markdown(gated)))
    elif format_ == "junit":
        stream.write(junit.document(_TITLE, [*_cases(gated, inconclusive)]))
    elif gated.problem is None:  # else the error says it
        Table(stream).print(_lines(gated))


def summary(gated: Gated) -> str:
    """For GitHub's page of a job."""
    return "".join(f"{line}\n" for line in _markdown(gated)) + "\n"


def annotated(gated: Gated) -> Iterator[str]:
    """For GitHub's runner: errors for what failed, warnings for what is inconclusive."""
    if gated.problem is not None:
        yield github.command("error", gated.problem.message, _TITLE)
    for row in gated.rows:
        if row.verdict != "pass":
            kind: github.Kind = "error" if row.verdict == "fail" else "warning"
            yield github.command(kind, _sentence(row), f"{_TITLE}: {row.metric}")


def _sides(gated: Gated) -> Iterator[str]:
    for name, side in (("A", gated.a), ("B", gated.b)):
        if side is not None:
            of = side.report["versions"]
            go = next((each["go_version"] for each in of if each["name"] == side.name), of[0]["go_version"])
            yield f"{name}: {printable(side.name)}, {count_text(len(side.runs), 'run')}, {printable(go)}"


def _lines(gated: Gated) -> Iterator[str | Rows]:
    yield from _sides(gated)
    yield from (printable(note) for note in gated.notes)
    yield ""
    yield Rows(_COLUMNS, [_cells(row) for row in gated.rows])
    yield ""
    yield _loud(gated.sentence)


def _loud(sentence: str) -> str:
    verdict, colon, rest = sentence.partition(":")
    return f"{verdict.upper()}{colon}{rest}"


def _cells(row: Row) -> tuple[str, ...]:
    verdict = f"{row.verdict} ({row.reason})" if row.reason else row.verdict
    measured = row.text(row.measured) if row.measured is not None else "-"
    return row.metric, row.required, measured, row.interval, f"{row.runs}", _more(row), verdict


def _more(row: Row) -> str:
    if row.more is None:
        return "-"
    return f"{row.more:,}" if row.more < _MANY else "many"


def _sentence(row: Row) -> str:
    """One line about a row: what it is, and what it has to be."""
    measured = f"{row.text(row.measured)} ({row.interval})" if row.measured is not None else "not known"
    more = f"; {_more(row)} more runs would settle it" if row.more is not None else ""
    reason = f", {row.reason}" if row.reason else ""
    return f"{row.metric} must be {row.required}: {measured} in {count_text(row.runs, 'run')}: {row.verdict}{reason}{more}"


def _markdown(gated: Gated) -> Iterator[str]:
    yield f"### {_TITLE}: {markdown.escaped(gated.sentence)}"
    yield ""
    for side in _sides(gated):
        yield f"- {markdown.escaped(side)}"
    for note in gated.notes:
        yield f"- {markdown.escaped(note)}"
    if gated.rows:
        yield ""
        yield from markdown.table([column.name for column in _COLUMNS], [_cells(row) for row in gated.rows], left=(0, 6))


def _cases(gated: Gated, inconclusive: Outcome) -> Iterator[junit.Case]:
    if gated.problem is not None:
        yield junit.Case("the reports can be judged", "error", gated.problem.message, gated.problem.hint)
    for row in gated.rows:
        verdict = inconclusive if row.verdict == "inconclusive" else row.verdict
        name = f"{row.metric} {row.required}"
        if row.verdict == "pass":
            yield junit.Case(name, "passed")
        else:
            # One that is inconclusive is no pass, whatever is made of it.
            yield junit.Case(name, "failure" if verdict == "fail" else "skipped", _sentence(row), "\n".join(gated.notes))

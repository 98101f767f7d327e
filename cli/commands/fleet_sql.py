"""`gotrace fleet sql`: a question in SQL to a fleet."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, output_options, say
from gotrace.export.formats import QUERIES
from gotrace.text import printable


@click.command(
    "sql",
    cls=Command,
    topic="lab",
    short_help="Query a fleet in SQL.",
    examples=[
        (
            'gotrace fleet sql shop-fleet "select host, max(value_ns) from worst group by host"',
            "shows the longest pause of each host",
        ),
        ('gotrace fleet sql shop-fleet "from machine" --format csv', "prints every machine as CSV"),
    ],
)
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.argument("query", metavar="QUERY")
@output_options(QUERIES, screen=("table", "json", "csv"))
def command(folder: str, query: str, outputs: tuple[str, ...], format_: str | None, force: bool) -> int:
    """Query the fleet in DIR in DuckDB's SQL. The manual describes its tables, and the views `machine` and `merged`.

    A query can read only the fleet's own files, and cannot write.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import fleet as text
    from gotrace.fleet.database import answered, opened

    results = wanted(outputs, format_, QUERIES, force, screen="table")
    database = opened(folder)
    answer = answered(database, query)
    with results.streams() as streams:
        for stream, kind in streams:
            text.write_answer(stream, kind, answer)
    for note in database.notes:
        say(note)
    for file, problem in database.broken:
        say(f"Skipped: {printable(file)}: {problem}")
    return text.REFUSED if database.broken else 0

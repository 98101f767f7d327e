"""`gotrace fleet sql`: a question in SQL to a fleet."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, output_options, say
from gotrace.export.formats import QUERIES


@click.command(
    "sql",
    cls=Command,
    topic="lab",
    short_help="Ask a fleet a question in SQL.",
    examples=[
        (
            'gotrace fleet sql shop-fleet "select host, max(value_ns) from worst group by host"',
            "names the longest pause of each host",
        ),
        ('gotrace fleet sql shop-fleet "from machine" --format csv', "prints every machine as CSV"),
    ],
)
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.argument("query", metavar="QUERY")
@output_options(QUERIES, screen=("table", "json", "csv"))
def command(folder: str, query: str, outputs: tuple[str, ...], format_: str | None, force: bool) -> int:
    """Ask the fleet in DIR a question in DuckDB's SQL. Its tables, and the views `machine` and `merged`, are in the manual.

    A question can read nothing but the fleet's own files, and write none.
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
    return text.REFUSED if database.broken else 0

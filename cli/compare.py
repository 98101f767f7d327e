"""`gotrace coldstart compare`: what changed from one recording of starts to another."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, need, option, output_options, two_recordings
from gotrace.export.formats import TABLES


@click.command(
    "compare",
    cls=Command,
    topic="time",
    examples=[
        ("gotrace coldstart compare before.gotrace after.gotrace", "shows what became slower or faster"),
        ("gotrace coldstart compare --all before.gotrace after.gotrace", "shows every row"),
    ],
)
@two_recordings
@option("everything")
@output_options(TABLES, screen=("table", "json"))
def command(before: str, after: str, everything: bool, outputs: tuple[str, ...], format_: str | None, force: bool) -> int:
    """Compare two recordings of starts: which parts changed, by how much, and whether it may be chance."""
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import coldstart_compare as text
    from gotrace.cli.text.progress import recording as opened
    from gotrace.run.starts import replayed

    results = wanted(outputs, format_, TABLES, force, screen="table", inputs=(before, after))
    need("a table", "table" in results.formats, "everything")

    def read(path: str) -> text.Side:
        with opened(path) as source:
            return text.Side(path, replayed(source))

    sides = read(before), read(after)
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, *sides, everything)
    return 0

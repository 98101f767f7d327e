"""`gotrace coldstart compare`: what changed from one recording of starts to another."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, need, option, output_options, two_recordings
from gotrace.errors import UsageError
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
    from gotrace.run import builds, starts

    results = wanted(outputs, format_, TABLES, force, screen="table", inputs=(before, after))
    need("a table", "table" in results.formats, "everything")

    def read(path: str) -> text.Side:
        with opened(path) as source:
            is_build = "build" in source.header
            return text.Side(path, builds.replayed(source).starts() if is_build else starts.replayed(source))

    sides = read(before), read(after)
    if len({"build" in side.result.header for side in sides}) > 1:
        raise UsageError("one is of a program's starts, the other of builds", "compare two of a kind")
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, *sides, everything)
    return 0

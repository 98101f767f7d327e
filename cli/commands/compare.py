"""`gotrace compare`: what differs between versions that `gotrace baseline` has measured, and what cannot be told."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, output_options
from gotrace.errors import UsageError
from gotrace.export.formats import TABLES


@click.command(
    "compare",
    cls=Command,
    topic="lab",
    short_help="Say what differs between measured versions.",
    examples=[
        ("gotrace compare out", "compares the versions that were measured in turns (gotrace baseline --ab)"),
        ("gotrace compare out-a out-b", "compares two reports of one machine"),
    ],
    epilog="Exit status: 0 if it could be compared, whatever differs; 4 if the reports are not comparable.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1000, min_open=True),
    default=5,
    show_default=True,
    metavar="PERCENT",
    help="The change that matters: what is within it is the same.",
)
@click.option("--all", "everything", is_flag=True, help="Compare every metric, not the primary ones only.")
@click.option("--anyway", is_flag=True, help="Compare reports that are not comparable; then nothing is better or worse.")
@output_options(TABLES, screen=("table", "json"))
@click.argument("folders", nargs=-1, required=True, type=click.Path(), metavar="FOLDER...")
def command(
    margin: float,
    everything: bool,
    anyway: bool,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    folders: tuple[str, ...],
) -> int:
    """Compare versions of a service, metric by metric: better, worse, the same within --margin, or cannot tell.

    A FOLDER is what `gotrace baseline --out` wrote. The first version is compared with each of the others.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import compare as text
    from gotrace.lab.compare import CANNOT_TELL, NotComparableError, compare, require_comparable, sides_of
    from gotrace.lab.report import read

    if len(set(folders)) < len(folders):
        raise UsageError("a report is given twice", "give each once")
    results = wanted(outputs, format_, TABLES, force, screen="table", inputs=folders)
    sides = sides_of([(folder, read(folder)) for folder in folders])
    found = []
    for other in sides[1:]:
        warning = ""
        try:
            require_comparable(sides[0], other)
        except NotComparableError as error:
            if not anyway:
                raise
            warning = error.message
        rows = compare(sides[0], other, margin / 100, everything)
        if warning:
            for row in rows:
                row.verdict = CANNOT_TELL
        found.append(text.Pair(sides[0], other, rows, warning))
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, found, margin)
    return 0

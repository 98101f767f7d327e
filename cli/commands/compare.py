"""`gotrace compare`: what differs between versions that `gotrace baseline` has measured, and what cannot be told."""

from __future__ import annotations

import os

import click

from gotrace.cli.options import Command, given, output_options, percent
from gotrace.errors import UsageError
from gotrace.export.formats import COMPARED
from gotrace.text import printable

_BY = ("arch", "go", "host", "vendor")  # as gotrace.lab.groups has them


@click.command(
    "compare",
    cls=Command,
    topic="lab",
    short_help="Compare measured versions of a service.",
    examples=[
        ("gotrace compare out", "compares versions measured interleaved (gotrace baseline --ab)"),
        ("gotrace compare old=out-a new=out-b -o x.html", "compares two reports from one machine, and writes an HTML page"),
    ],
    epilog="Exit status: 0 if the comparison was made, whatever differs; 4 if the reports are not comparable.",
)
@percent("--margin", 5, "Smallest change that matters: anything within it counts as the same.")
@click.option("--all", "everything", is_flag=True, help="Compare every metric, not only the primary ones.")
@click.option(
    "--anyway", is_flag=True, help="Compare reports even if not comparable; then nothing is judged better or worse."
)
@click.option(
    "--by",
    type=click.Choice(_BY),
    metavar="WHAT",
    help=f"Show reports side by side, without verdicts, grouped by {', '.join(_BY[:-1])} or {_BY[-1]}.",
)
@output_options(COMPARED, screen=("table", "json", "html", "md", "benchfmt"))
@click.argument("folders", nargs=-1, required=True, type=click.Path(), metavar="[LABEL=]DIR...")
def command(
    margin: float,
    everything: bool,
    anyway: bool,
    by: str | None,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    folders: tuple[str, ...],
) -> int:
    """Compare versions of a service, metric by metric: better, worse, the same within --margin, or cannot tell.

    Each DIR was written by `gotrace baseline --out`; LABEL names it in the output. The first version is compared with
    each of the others.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import compare as text
    from gotrace.cli.text import groups as text_of_groups
    from gotrace.lab.compare import sides_of
    from gotrace.lab.groups import grouped
    from gotrace.lab.pairs import compared
    from gotrace.lab.report import file_of, whole

    named = [_named(folder) for folder in folders]
    paths = [os.path.realpath(path) for _, path in named]
    if len(set(paths)) < len(paths) or len({label for label, _ in named}) < len(named):
        raise UsageError("a report was given twice", "give each report once, with its own label")
    results = wanted(outputs, format_, COMPARED, force, screen="table", inputs=[str(file_of(path)) for _, path in named])
    reports = [(label, whole(path)) for label, path in named]
    if not any(run["valid"] for _, report in reports for run in report["runs"]):
        raise UsageError("the reports have no valid runs", "see report.html next to the report for the reasons")
    if by is not None:
        if idle := given("margin", "anyway"):
            raise UsageError(f"{idle[0]} and --by are mutually exclusive", "--by only describes; it gives no verdicts")
        groups = grouped(reports, by)
        with results.streams() as streams:
            for stream, kind in streams:
                text_of_groups.write(stream, kind, groups, by, everything)
        return 0
    for label, path in named:
        if label != path and len(named) == 1:
            raise UsageError(
                f"the label {printable(label)!r} has no effect with a single report",
                "omit the label: the versions in the report have names",
            )
    pairs = compared(sides_of(reports), margin / 100, anyway)
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, pairs, everything)
    return 0


def _named(folder: str) -> tuple[str, str]:
    """The label and the path of an argument: LABEL=PATH, as benchstat has it, or a path that is its own label."""
    label, equals, path = folder.partition("=")
    if not equals or not label or "/" in label or os.path.lexists(folder):
        return folder, folder
    if not path:
        raise UsageError(f"no folder given in {printable(folder)!r}", "write LABEL=DIR")
    return label, path

"""`gotrace goroutines`: every goroutine of a process, what it waits for, and where."""

from __future__ import annotations

import click

from gotrace.cli.diff import of_goroutines as diff
from gotrace.cli.options import Command, Duration, need, option, output_options, schema_option
from gotrace.cli.target import target
from gotrace.export.formats import GOROUTINES


@click.command(
    "goroutines",
    cls=Command,
    topic="time",
    short_help="Show what every goroutine does or waits for, and where.",
    examples=[
        ("gotrace goroutines --pid 1234", "takes one dump, groups goroutines that are alike, largest group first"),
        ("gotrace goroutines --pid 1234 -d 5m -i 10s", "shows which stacks have more goroutines than five minutes ago"),
    ],
    inner=[diff],
    epilog="Goroutines are read from outside: no endpoint, no signal, no probes, and nothing is stopped."
    " `gotrace goroutines diff A B` compares two recordings.",
)
@target(required=True)
@option("duration", help="Stop after this time: 10s, 5m.  [default: one dump]")
@option("interval", help="Time between dumps.")
@click.option(
    "--group",
    "by",
    type=click.Choice(["stack", "state", "label", "created-by"]),
    default="stack",
    show_default=True,
    help="What the rows of the table are.",
)
@click.option(
    "--min-wait", "least", type=Duration(), default="0", help="Omit goroutines that have waited for less than this (1m)."
)
@option("top", default=20, help="Number of rows to show.")
@option("everything", help="Include the runtime's own goroutines.")
@output_options(GOROUTINES, screen=("table", "text", "ndjson", "json"))
@schema_option
def command(
    pid: int,
    duration: int | None,
    interval: int,
    by: str,
    least: int,
    top: int,
    everything: bool,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """Show every goroutine of a Go process with its state and stack, read from the runtime's own data structures.

    With --format text, they are printed as the runtime itself would. With --duration, a dump is taken every interval; the
    end shows which stacks grew, and a flame graph (-o waits.html) where goroutines waited, and for how long.
    """
    from gotrace.cli.outputs import wanted, watch
    from gotrace.views.goroutines import Goroutines

    results = wanted(outputs, format_, GOROUTINES, force, screen="table")
    need("--duration", duration is not None, "interval")
    need("a table", "table" in results.formats, "by", "top")
    watch(pid, [Goroutines(interval if duration else 0, least, everything, by, top)], duration or 0, results)
    return 0

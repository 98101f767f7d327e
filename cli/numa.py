"""`gotrace numa`: on which memory nodes a Go process's memory lies and its threads run."""

from __future__ import annotations

import click

from gotrace.cli._target import POLL_NS, Duration
from gotrace.cli._watch_options import watch_options
from gotrace.errors import UsageError


@click.command("numa", epilog="On a machine with one node everything is local; what still has meaning is shown.")
@watch_options
@click.option("-d", "--duration", type=Duration(), default="10s", show_default=True, help="How long to watch it.")
@click.option("-i", "--interval", type=Duration(), help="Print a line, or a record, this often. [default: only the end]")
def command(pid: int, format_: str, output: str | None, force: bool, duration: int, interval: int | None) -> int:
    """Tell where the memory of a Go process lies, where its threads and Ps run, and what they reach for across nodes."""
    for name, length in (("--duration", duration), ("--interval", interval)):
        if length == 0:
            raise UsageError(f"{name} must be longer than nothing", "write 10s or 500ms")
    from gotrace.cli._placement import Placement
    from gotrace.cli._watch import Outputs, watch

    views = [Placement(interval or 0)]
    watch(pid, views, duration, Outputs.checked(format_, output, force), min(interval or POLL_NS, POLL_NS))
    return 0

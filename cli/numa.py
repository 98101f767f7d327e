"""`gotrace numa`: on which memory nodes a Go process's memory lies and its threads run."""

from __future__ import annotations

import sys

import click

from gotrace.cli._target import Duration, check_files
from gotrace.errors import UsageError


@click.command("numa", epilog="On a machine with one node everything is local; what still has meaning is shown.")
@click.option("-p", "--pid", type=int, required=True, help="The Go process to look at.")
@click.option("-d", "--duration", type=Duration(), default="10s", show_default=True, help="How long to watch it.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="What to print.")
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Write the result there too, as JSON.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
def command(pid: int, duration: int, format_: str, output: str | None, force: bool) -> int:
    """Tell where the memory of a Go process lies, where its threads run, and what they reach for across nodes."""
    if duration == 0:
        raise UsageError("--duration must be longer than nothing", "write 10s or 500ms")
    check_files((output,), force)
    from gotrace.cli import _numa_run

    _numa_run.run(pid, duration, format_, output, force, sys.stdout)
    return 0

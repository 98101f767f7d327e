"""`gotrace doctor`: what this host and this target allow, line by line, and what to do about each 'no'."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, option, output_options
from gotrace.cli.target import target
from gotrace.errors import UsageError
from gotrace.export.formats import TABLES


@click.command(
    "doctor",
    cls=Command,
    topic="setup",
    short_help="Check what this host and a target allow.",
    examples=[
        ("gotrace doctor", "checks this host"),
        ("gotrace doctor --pid 1234", "checks a process too, and shows where its probes go"),
    ],
    epilog="Exit status: 0 if gotrace works here (and on the target, if one is given), 1 if not.",
)
@target(help="Check this running process too.")
@option("events", help="Try this hardware event; may be repeated.")
@output_options(TABLES, screen=("table", "json"))
@click.argument("executable", required=False, type=click.Path())
def command(
    pid: int | None,
    events: tuple[str, ...],
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    executable: str | None,
) -> int:
    """Check what this host allows, and optionally a target: a process (--pid) or an EXECUTABLE file."""
    if pid is not None and executable is not None:
        raise UsageError("give --pid or a file, not both", "gotrace doctor --pid 1234")
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import doctor as text
    from gotrace.run.checks import checks, passed

    results = wanted(outputs, format_, TABLES, force, screen="table", inputs=(executable,))
    found = checks(pid, executable, events)
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, found)
    return 0 if passed(found) else 1

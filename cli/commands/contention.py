"""`gotrace contention`: which code lets others wait for locks, and which code waits, by the runtime's own profiles."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, exclude, need, option, output_options, schema_option
from gotrace.cli.target import target
from gotrace.export.formats import PROFILES


@click.command(
    "contention",
    cls=Command,
    topic="time",
    short_help="Show which code lets others wait for locks.",
    examples=[
        ("gotrace contention --pid 1234", "shows by stack whose locks others have waited for"),
        (
            "gotrace contention --pid 1234 --block -d 10s -o waits.html",
            "draws what waited in ten seconds, and for how long",
        ),
    ],
    epilog="It reads from outside: no endpoint, no probe, and nothing is stopped. The program has to collect the profile.",
)
@target(required=True)
@option("duration", help="Stop after this time: 10s, 5m.  [default: one profile]")
@option("interval", help="Time from one profile to the next.")
@click.option("--mutex", is_flag=True, help="Show the code that held locks which others waited for.  [default]")
@click.option("--block", is_flag=True, help="Show the code that waited, for locks, channels and all else.")
@option("top", default=20, help="How many rows to show.")
@output_options(PROFILES, screen=("table", "ndjson", "json"))
@schema_option
def command(
    pid: int,
    duration: int | None,
    interval: int,
    mutex: bool,
    block: bool,
    top: int,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """Show the mutex profile or the block profile of a Go process, as pprof would, without an endpoint.

    With --duration there is a profile each interval, and at the end what was waited between the first and the last.
    """
    exclude("mutex", "block")
    from gotrace.analysis.contention import BLOCK, MUTEX
    from gotrace.cli.outputs import wanted, watch
    from gotrace.views.contention import Contention

    results = wanted(outputs, format_, PROFILES, force, screen="table")
    need("--duration", duration is not None, "interval")
    need("a table", "table" in results.formats, "top")
    watch(pid, [Contention(interval if duration else 0, BLOCK if block else MUTEX, top)], duration or 0, results)
    return 0

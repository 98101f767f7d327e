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
    short_help="Show which code makes others wait for locks.",
    examples=[
        ("gotrace contention --pid 1234", "shows by stack which locks others waited for"),
        (
            "gotrace contention --pid 1234 --block -d 10s -o waits.html",
            "draws what waited during ten seconds, and for how long",
        ),
    ],
    epilog="The profile is read from outside: no endpoint, no probes, and nothing is stopped. The program must have "
    "it enabled.",
)
@target(required=True)
@option("duration", help="Stop after this time: 10s, 5m.  [default: one profile]")
@option("interval", help="Time between profiles.")
@click.option("--mutex", is_flag=True, help="Show the code that held locks others waited for.  [default]")
@click.option("--block", is_flag=True, help="Show the code that waited: for locks, channels and everything else.")
@option("top", default=20, help="Number of rows to show.")
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
    """Show the mutex or block profile of a Go process, as pprof would, without an endpoint.

    With --duration, a profile is taken every interval; the end shows the waiting between the first and the last.
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

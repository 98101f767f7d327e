"""`gotrace numa`: on which memory nodes a Go process's memory is and its threads run."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, check_events, option, output_options, schema_option
from gotrace.cli.target import target
from gotrace.export.formats import WATCHED


@click.command(
    "numa",
    cls=Command,
    topic="memory",
    short_help="Show which NUMA nodes hold the memory and run the threads.",
    examples=[
        ("gotrace numa --pid 1234 -d 30s", "shows memory, faults, threads and Ps by node"),
        ("gotrace numa --pid 1234 -i 1s -o numa.html", "prints a line every second, and writes a page of charts"),
    ],
    epilog="On a machine with one node, every access is local; what is still meaningful is shown.",
)
@target(required=True)
@option("duration", default="10s", show_default=True)
@option("interval", default=None, show_default=False, help="Also print a line this often (1s).  [default: only the result]")
@option("events", help="Count this event by node of the CPU, as `gotrace tlb` does; may be repeated.")
@output_options(WATCHED, screen=("table", "ndjson"))
@schema_option
def command(
    pid: int,
    duration: int,
    interval: int | None,
    events: tuple[str, ...],
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """Show which NUMA nodes hold the memory of a Go process, where its threads and Ps run, and what crosses nodes.

    If the processor can count memory accesses, local and remote, those are counted too.
    """
    check_events(events)
    from gotrace.cli.outputs import wanted, watch
    from gotrace.kernel import tlb_events
    from gotrace.views.numa import Placement

    results = wanted(outputs, format_, WATCHED, force, screen="table")
    counters = tlb_events.named(events) if events else tlb_events.accesses()
    views = [Placement(interval or 0, bool(counters))]
    watch(pid, views, duration, results, counters)
    return 0

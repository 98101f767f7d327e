"""`gotrace numa`: on which memory nodes a Go process's memory lies and its threads run."""

from __future__ import annotations

import click

from gotrace.cli._target import POLL_NS, Duration
from gotrace.cli._watch_options import check_events, watch_options
from gotrace.errors import UsageError


@click.command("numa", epilog="On a machine with one node everything is local; what still has meaning is shown.")
@watch_options
@click.option("-d", "--duration", type=Duration(), default="10s", show_default=True, help="How long to watch it.")
@click.option("-i", "--interval", type=Duration(), help="Print a line, or a record, this often. [default: only the end]")
@click.option("-e", "--event", "names", multiple=True, metavar="NAME", help="Count this by the CPUs' nodes, as for tlb.")
def command(
    pid: int,
    format_: str,
    output: str | None,
    force: bool,
    duration: int,
    interval: int | None,
    names: tuple[str, ...],
) -> int:
    """Tell where the memory of a Go process lies, where its threads and Ps run, and what they reach for across nodes.

    Where the processor counts accesses to memory and to that of other nodes, these are counted too.
    """
    check_events(names)
    for name, length in (("--duration", duration), ("--interval", interval)):
        if length == 0:
            raise UsageError(f"{name} must be longer than nothing", "write 10s or 500ms")
    from gotrace.cli._placement import Placement
    from gotrace.cli._watch import Outputs, watch
    from gotrace.kernel import tlb_events

    outputs = Outputs.checked(format_, output, force)
    counters = tlb_events.named(names) if names else tlb_events.accesses()
    views = [Placement(interval or 0, bool(counters))]
    watch(pid, views, duration, outputs, min(interval or POLL_NS, POLL_NS), counters)
    return 0

"""`gotrace tlb`: what translating addresses costs a Go process, by GC phase."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, check_events, option, output_options, schema_option
from gotrace.cli.target import target
from gotrace.export.formats import WATCHED


@click.command(
    "tlb",
    cls=Command,
    topic="memory",
    short_help="Count TLB misses, page walks and TLB flushes by GC phase.",
    examples=[
        ("gotrace tlb --pid 1234", "counts what this processor supports, for 10 s"),
        ("gotrace tlb --pid 1234 -i 1s -e dTLB-load-misses -e instructions", "counts two events, with a line every second"),
    ],
    epilog="Most virtual machines hide the processor's counters: the result shows which are missing.",
)
@target(required=True)
@option("duration", default="10s", show_default=True)
@option("interval", default=None, show_default=False, help="Also print a line this often (1s).  [default: only the result]")
@option("events", help="Count this event instead; may be repeated, up to eight times.")
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
    """Count TLB misses, page walks and related events, by what the threads of a Go process are doing.

    NAME is a processor event (`gotrace doctor` lists them), a generic perf event (dTLB-load-misses) or a kernel event
    (page-faults, context-switches).
    """
    check_events(events)
    from gotrace.cli.outputs import wanted, watch
    from gotrace.kernel import tlb_events
    from gotrace.views.faults import Faults
    from gotrace.views.tlb import Translation
    from gotrace.views.view import View

    results = wanted(outputs, format_, WATCHED, force, screen="table")
    chosen = tlb_events.choose() if not events else tlb_events.Choice(tlb_events.named(events), ())
    views: list[View] = [Translation(chosen.missing, interval or 0)]
    # Without the counters page faults are what is left to see of it; a page and a recording have them in any case.
    if not chosen.events or results.formats & {"gotrace", "html"}:
        views.append(Faults())
    watch(pid, views, duration, results, chosen.events)
    return 0

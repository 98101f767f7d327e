"""`gotrace tlb`: what translating addresses costs a Go process, by phase of the collector."""

from __future__ import annotations

import click

from gotrace.cli._target import POLL_NS, Duration
from gotrace.cli._watch_options import check_events, watch_options
from gotrace.errors import UsageError


@click.command("tlb", epilog="Most virtual machines keep the processor's counters back: it says which are missing.")
@watch_options
@click.option("-d", "--duration", type=Duration(), default="10s", show_default=True, help="How long to watch it.")
@click.option("-i", "--interval", type=Duration(), help="Print a line this often too (1s). [default: the end only]")
@click.option("-e", "--event", "names", multiple=True, metavar="NAME", help="Count this one (up to eight) instead.")
def command(
    pid: int, format_: str, output: str | None, force: bool, duration: int, interval: int | None, names: tuple[str, ...]
) -> int:
    """Count misses of the TLB, page walks and what goes with them, by what the threads of a Go process do.

    NAME is an event of the processor (`gotrace doctor` lists them), one of perf's generic ones (dTLB-load-misses) or one
    of the kernel's own (page-faults, context-switches).
    """
    if duration == 0:
        raise UsageError("--duration must be longer than nothing", "write 10s or 500ms")
    if interval == 0:
        raise UsageError("--interval must be longer than nothing", "write 1s or 500ms")
    check_events(names)
    from gotrace.cli._mem_faults import Faults
    from gotrace.cli._translation import Translation
    from gotrace.cli._watch import Outputs, View, watch
    from gotrace.kernel import tlb_events

    outputs = Outputs.checked(format_, output, force)
    chosen = tlb_events.choose() if not names else tlb_events.Choice(tlb_events.named(names), ())
    views: list[View] = [Translation(chosen.missing, interval or 0)]
    # Without the counters page faults are what is left to see of it; a page and a recording have them in any case.
    if not chosen.events or outputs.file_format in ("gotrace", "html"):
        views.append(Faults())
    watch(pid, views, duration, outputs, min(interval or POLL_NS, POLL_NS), chosen.events)
    return 0

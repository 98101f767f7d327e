"""`gotrace mem`: what RSS consists of, and why it is more than HeapAlloc."""

from __future__ import annotations

import click

from gotrace.cli._target import POLL_NS, Duration
from gotrace.cli._watch_options import watch_options
from gotrace.errors import UsageError

_WATCH_NS = 10_000_000_000


@click.command("mem", epilog="Reads from outside and stops nothing; only --faults, --cycles and what is recorded need BPF.")
@watch_options
@click.option("-d", "--duration", type=Duration(), help="Stop after this long (10s, 2m). [default: one look]")
@click.option("-i", "--interval", type=Duration(), default="1s", show_default=True, help="From one look to the next.")
@click.option("--faults", is_flag=True, help="Watch page faults instead, by part and GC phase (-d 10s unless given).")
@click.option("--cycles", is_flag=True, help="Amplification at the end of each GC cycle instead (-d 10s unless given).")
@click.option("--classes", type=click.IntRange(0, 100), default=5, show_default=True, help="Size classes to name.")
def command(
    pid: int,
    format_: str,
    output: str | None,
    force: bool,
    duration: int | None,
    interval: int,
    faults: bool,
    cycles: bool,
    classes: int,
) -> int:
    """Split the resident memory of a Go process into parts that add up, and compare it with the heap.

    Memory amplification (MAF) is RSS / HeapAlloc: how much memory a byte of the program's objects takes.
    A recording and a page (.gotrace, .html) have all of it: looks, page faults and GC cycles.
    """
    if interval == 0:
        raise UsageError("--interval must be longer than nothing", "write 1s or 500ms")
    if faults and cycles:
        raise UsageError("--faults and --cycles are two questions", "ask one after the other")
    from gotrace.cli._mem_cycles import Cycles
    from gotrace.cli._mem_faults import Faults
    from gotrace.cli._mem_looks import Looks
    from gotrace.cli._watch import Outputs, View, watch

    outputs = Outputs.checked(format_, output, force)
    everything = outputs.file_format in ("gotrace", "html")
    views: list[View]
    if faults or cycles:
        views = [Faults() if faults else Cycles()]
    elif everything:
        views = [Looks(interval, classes), Cycles(), Faults()]
    else:
        views = [Looks(interval if duration else 0, classes)]
    watched = _WATCH_NS if views[0].stems or everything else 0
    watch(pid, views, duration or watched, outputs, min(interval, POLL_NS))
    return 0

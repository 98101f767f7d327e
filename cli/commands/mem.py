"""`gotrace mem`: what RSS consists of, and why it is more than HeapAlloc."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, exclude, given, need, option, output_options, schema_option
from gotrace.cli.target import target
from gotrace.errors import UsageError
from gotrace.export.formats import WATCHED

_WATCH_NS = 10_000_000_000


@click.command(
    "mem",
    cls=Command,
    topic="memory",
    short_help="Break resident memory down into parts that add up.",
    examples=[
        ("gotrace mem --pid 1234", "takes one snapshot: which part of RSS is heap, free, stacks, binary, …"),
        ("gotrace mem --pid 1234 -d 1m -o mem.html", "draws one minute of snapshots, page faults and GC cycles"),
    ],
    epilog="Everything is read from outside, without stopping the process; only --faults, --cycles, .html and "
    ".gotrace need BPF.",
)
@target(required=True)
@option("duration", help="Stop after this time: 10s, 500ms, 1m30s.  [default: one snapshot; 10s for a page or a recording]")
@option("interval", help="Time between snapshots.")
@click.option(
    "--faults", is_flag=True, help="Count page faults instead, by memory part and GC phase (for 10 s unless -d is given)."
)
@click.option(
    "--cycles", is_flag=True, help="Show RSS / live heap at the end of each GC cycle instead (for 10 s unless -d is given)."
)
@click.option(
    "--classes",
    type=click.IntRange(0, 100),
    default=5,
    show_default=True,
    metavar="N",
    help="Show the N worst size classes.",
)
@click.option("--code", is_flag=True, help="Show which code allocated the live heap.")
@output_options(WATCHED, screen=("table", "ndjson"))
@schema_option
def command(
    pid: int,
    duration: int | None,
    interval: int,
    faults: bool,
    cycles: bool,
    classes: int,
    code: bool,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """Break the resident memory of a Go process down into parts that add up, and compare it with the heap.

    Memory amplification (MAF) is RSS / HeapAlloc: how much memory each byte of the program's objects costs. It is shown
    next to what matters to the OOM killer: the memory of the process's cgroup, and its limit.
    A recording (.gotrace) or page (.html) holds snapshots, page faults and GC cycles.
    """
    exclude("faults", "cycles")
    from gotrace.cli.outputs import wanted, watch
    from gotrace.views.cycles import Cycles
    from gotrace.views.faults import Faults
    from gotrace.views.memory import Looks
    from gotrace.views.view import View

    results = wanted(outputs, format_, WATCHED, force, screen="table")
    everything = bool(results.formats & {"gotrace", "html"})
    need("--duration", duration is not None or everything, "interval")
    if (faults or cycles) and (idle := given("interval", "classes", "code")):
        raise UsageError(f"{idle[0]} applies to snapshots", "omit it, or omit --faults and --cycles")
    views: list[View]
    if faults or cycles:
        views = [Faults() if faults else Cycles()]
    elif everything:
        views = [Looks(interval, classes, code), Cycles(), Faults()]
    else:
        views = [Looks(interval if duration else 0, classes, code)]
    watched = _WATCH_NS if views[0].stems or everything else 0
    watch(pid, views, duration or watched, results)
    return 0

"""`gotrace mem`: what RSS consists of, and why it is more than HeapAlloc."""

from __future__ import annotations

import sys

import click

from gotrace.cli._target import Duration, check_files
from gotrace.errors import UsageError

_WATCH_NS = 10_000_000_000


@click.command("mem", epilog="Reads from outside and stops nothing; only --faults and --cycles need BPF.")
@click.option("-p", "--pid", type=int, required=True, help="The Go process to look at.")
@click.option("-d", "--duration", type=Duration(), help="Stop after this long (10s, 2m). [default: one look]")
@click.option("-i", "--interval", type=Duration(), default="1s", show_default=True, help="From one look to the next.")
@click.option("--faults", is_flag=True, help="Watch page faults instead, by part and GC phase (-d 10s unless given).")
@click.option("--cycles", is_flag=True, help="Amplification at the end of each GC cycle instead (-d 10s unless given).")
@click.option("--classes", type=click.IntRange(0, 100), default=5, show_default=True, help="Size classes to name.")
@click.option("--format", "format_", type=click.Choice(["table", "ndjson"]), default="table", help="What to print.")
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Write every look there too, as ndjson.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
def command(
    pid: int,
    duration: int | None,
    interval: int,
    faults: bool,
    cycles: bool,
    classes: int,
    format_: str,
    output: str | None,
    force: bool,
) -> int:
    """Split the resident memory of a Go process into parts that add up, and compare it with the heap.

    Memory amplification (MAF) is RSS / HeapAlloc: how much memory a byte of the program's objects takes.
    """
    if interval == 0:
        raise UsageError("--interval must be longer than nothing", "write 1s or 500ms")
    if faults and cycles:
        raise UsageError("--faults and --cycles are two questions", "ask one after the other")
    check_files((output,), force)
    if faults or cycles:
        from gotrace.cli import _mem_cycles, _mem_faults

        run = _mem_faults.run if faults else _mem_cycles.run
        run(pid, duration or _WATCH_NS, format_, output, force, sys.stdout)
        return 0
    from gotrace.cli import _mem_run

    _mem_run.run(pid, duration or 0, interval, classes, format_, output, force, sys.stdout)
    return 0

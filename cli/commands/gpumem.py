"""`gotrace gpumem`: GPU memory of any process, by the calls of its CUDA libraries and of PyTorch's allocator."""

from __future__ import annotations

import sys

import click

from gotrace.cli.options import (
    Command,
    Duration,
    check_target,
    command_argument,
    need,
    option,
    output_options,
    say,
    schema_option,
)
from gotrace.cli.target import target
from gotrace.export.formats import GPU_MEMORY


@click.command(
    "gpumem",
    cls=Command,
    topic="memory",
    short_help="Show GPU memory: what is live, fragmentation, and why it grew.",
    examples=[
        ("gotrace gpumem --pid 1234 -d 1m -o gpu.html", "draws one minute of addresses, sizes and fragmentation"),
        ("gotrace gpumem -- torchrun train.py", "traces a command and its workers from their first instructions"),
    ],
    epilog="The process need not be a Go program and needs no changes: probes are set on libcudart, libcuda and "
    "PyTorch's libc10_cuda.",
)
@target(every=True, help="The running process to trace.")
@option("duration")
@option("interval", default=None, show_default=False, help="Also print a line this often (1s).  [default: only the result]")
@click.option(
    "--bin",
    "bin_",
    type=Duration(),
    default="10ms",
    show_default=True,
    metavar="DURATION",
    help="Time per column of the heat map.",
)
@option("top", help="Number of failed requests to show.")
@output_options(GPU_MEMORY, screen=("table", "ndjson", "json"))
@schema_option
@command_argument
def command(
    pid: int | None,
    duration: int | None,
    interval: int | None,
    bin_: int,
    top: int,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    command: tuple[str, ...],
) -> int:
    """Trace what a process and its children request from the CUDA runtime, the driver and PyTorch's caching allocator, and
    what they get.

    Shows what is live and what is reserved, how fragmented it is, and why the allocators grew: needed, merge failure
    (enough was free, but in pieces), or refused reuse (a piece was large enough, but could not be used).
    """
    check_target(pid, command, "gotrace gpumem")
    from gotrace.cli.outputs import wanted
    from gotrace.run.outputs import feed
    from gotrace.run.sources import programs
    from gotrace.run.target import attached
    from gotrace.views.gpumem import GpuMemory

    results = wanted(outputs, format_, GPU_MEMORY, force, screen="table")
    need("a picture", bool(results.formats & {"svg", "html", "gotrace"}), "bin_")
    view = GpuMemory(interval or 0, max(1, bin_), top)
    screen = sys.stderr if command else sys.stdout  # a command's standard output is its own
    with attached(view.stems, pid, command, duration, say) as traced, results.opened(screen) as opened:
        for number, live, views in programs(traced, [view], results.recording, force):
            feed(live, views, opened, number)
    return traced.exit_status()

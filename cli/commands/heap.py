"""`gotrace heap`: which code has allocated what is in the heap, by the runtime's own profile."""

from __future__ import annotations

import click

from gotrace.cli.diff import of_heaps as diff
from gotrace.cli.options import Command, exclude, need, option, output_options, schema_option
from gotrace.cli.target import target
from gotrace.export.formats import PROFILES


@click.command(
    "heap",
    cls=Command,
    topic="memory",
    short_help="Show which code allocated what is in the heap.",
    examples=[
        ("gotrace heap --pid 1234 -o heap.pb.gz", "takes the heap profile, for `go tool pprof` too"),
        ("gotrace heap --pid 1234 -d 5m -i 1m", "shows by stack what is in use now but was not five minutes ago"),
    ],
    inner=[diff],
    epilog="The profile is read from outside: no endpoint, no probes, and nothing is stopped. Most servers have one;"
    " for programs that do not, -d with --alloc --now shows what they allocate, by probes."
    " `gotrace heap diff A B` compares two recordings.",
)
@target(required=True)
@option("duration", help="Stop after this time: 10s, 5m.  [default: one profile]")
@option("interval", help="Time between profiles.")
@click.option("--inuse", is_flag=True, help="Show what is in use.  [default]")
@click.option("--alloc", is_flag=True, help="Show everything allocated, not only what is in use.")
@click.option("--objects", is_flag=True, help="Show object counts instead of bytes.")
@click.option("--now", is_flag=True, help="Include allocations since the last GC cycles, which pprof leaves out.")
@click.option("--spans", is_flag=True, help="Trace allocations by probes, span by span, as for programs without a profile.")
@option("top", default=20, help="Number of rows to show.")
@output_options(PROFILES, screen=("table", "ndjson", "json"))
@schema_option
def command(
    pid: int,
    duration: int | None,
    interval: int,
    inuse: bool,
    alloc: bool,
    objects: bool,
    now: bool,
    spans: bool,
    top: int,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """Show the heap profile that the Go runtime keeps, as `go tool pprof` would, without an endpoint.

    With --duration, a profile is taken every interval; the end shows what grew between the first and the last, by stack,
    or with --alloc what was allocated, which is where the collector's work comes from. With --alloc --now, programs that
    keep no profile work too: probes see which code uses up the runtime's spans, in short windows.
    """
    exclude("inuse", "alloc")
    from gotrace.cli.outputs import wanted, watch
    from gotrace.views.heap import ALLOC, INUSE, Heap
    from gotrace.views.heap_spans import HeapSpans
    from gotrace.views.view import View

    results = wanted(outputs, format_, PROFILES, force, screen="table")
    need("--duration", duration is not None, "interval")
    need("a table", "table" in results.formats, "top")
    need("--duration, --alloc and --now", bool(duration and alloc and now), "spans")
    view: View = Heap(interval if duration else 0, not now, ALLOC if alloc else INUSE, objects, top)
    if spans or (duration and alloc and now and not _takes_profile(pid)):
        view = HeapSpans(interval, objects, top)
    watch(pid, [view], duration or 0, results)
    return 0


def _takes_profile(pid: int) -> bool:
    """Whether there is a profile to read. Raises GotraceError."""
    from gotrace.kernel.process import Process
    from gotrace.run.refusal import require_go
    from gotrace.runtime.profiles import takes_profile

    with Process.open(pid) as process:
        require_go(process)
        return takes_profile(process)

"""`gotrace ps`: the Go processes of this host."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, Duration, need, option, output_options, schema_option
from gotrace.errors import GotraceError
from gotrace.export.formats import PROCESSES


@click.command(
    "ps",
    cls=Command,
    topic="setup",
    short_help="List the Go processes on this host and where they run.",
    examples=[
        ("gotrace ps", "lists every Go process: container or unit, CPUs, memory, collections"),
        (
            "gotrace ps -w 2s --select 'namespace=shop,name=api*'",
            "lists some of them, with rates over the next two seconds",
        ),
    ],
    epilog="No probes are attached. Without root, only processes that this user may inspect are shown.",
)
@click.option(
    "-w",
    "--wait",
    "wait",
    type=Duration(),
    metavar="DURATION",
    help="Measure CPUs and GC/s over this time.  [default: average since each process started]",
)
@option("select")
@option(
    "connect",
    help="Get the longest pauses from the agent at this URL.  [default: http://127.0.0.1:9464, if it answers]",
)
@option("token_file")
@option("ca_file")
@click.option("--json", "format_", flag_value="json", help="Same as --format json.")
@output_options(PROCESSES, screen=("table", "ndjson", "json"))
@schema_option
def command(
    wait: int | None,
    select: tuple[str, ...],
    connect: str | None,
    token_file: str | None,
    ca_file: str | None,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """List the Go processes on this host: Go version, container, pod or unit, CPUs, memory and GC cycles.

    CPUs: used on average, allowed by affinity, GOMAXPROCS (Ps), and allowed by the cgroup quota. Live heap is what the last
    GC cycle marked. The longest pause is known if an agent (`gotrace serve`) traces the process. Processes that cannot be
    traced are listed below the table, with the reason.
    """
    from gotrace.agent.told import DEFAULT, add_pauses, rows_of
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import ps as text
    from gotrace.cli.text.progress import waiting
    from gotrace.find.listing import listed
    from gotrace.find.processes import Scanner
    from gotrace.find.selection import fitting, parsed

    need("--connect https://…", (connect or "").startswith("https:"), "ca_file")
    selectors = [parsed(each) for each in select]
    results = wanted(outputs, format_, PROCESSES, force, screen="table")
    scan = Scanner().scan()
    meant = fitting(selectors, scan) if selectors else scan.processes
    with waiting("inspecting processes") as tell:
        records = listed(meant, (wait or 0) / 1e9, tell)
    unanswered = ""
    try:
        add_pauses(records, rows_of(connect or DEFAULT, token_file or "", ca_file or ""))
    except GotraceError as error:
        if connect is not None or token_file is not None:
            raise
        unanswered = error.message
    summary = text.summary(scan, len(records), wait / 1e9 if wait else None)
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, records, summary, unanswered)
    return 0

"""`gotrace ps`: the Go processes of this host."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, Duration, option, output_options, schema_option
from gotrace.errors import GotraceError
from gotrace.export.formats import PROCESSES


@click.command(
    "ps",
    cls=Command,
    topic="setup",
    short_help="List the Go processes of this host, and where they run.",
    examples=[
        ("gotrace ps", "lists every Go process: container or unit, CPUs, memory, collections"),
        ("gotrace ps -w 2s --select 'namespace=shop,name=api*'", "some of them, with what they do in the next two seconds"),
    ],
    epilog="It probes nothing. Without root it shows what this user may see.",
)
@click.option(
    "-w",
    "--wait",
    "wait",
    type=Duration(),
    metavar="DURATION",
    help="Measure CPUs and GC/s over this time.  [default: averages since each process began]",
)
@option("select")
@option(
    "connect",
    help="Ask the agent at this address for the longest pauses.  [default: http://127.0.0.1:9464, if it is there]",
)
@option("token_file")
@click.option("--json", "format_", flag_value="json", help="The same as --format json.")
@output_options(PROCESSES, screen=("table", "ndjson", "json"))
@schema_option
def command(
    wait: int | None,
    select: tuple[str, ...],
    connect: str | None,
    token_file: str | None,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """List the Go processes of this host: Go version, container, pod or unit, CPUs, memory and collections.

    CPUs: those it used on average, may run on, has Ps for (GOMAXPROCS), and is allowed by the quota of its control groups.
    Live heap is what the last collection left; the longest pause is since an agent (`gotrace serve`) traces the process.
    Below the table it is said which cannot be traced, and why.
    """
    from gotrace.agent.told import DEFAULT, add_pauses, rows_of
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import ps as text
    from gotrace.cli.text.progress import waiting
    from gotrace.find.listing import listed
    from gotrace.find.processes import Scanner
    from gotrace.find.selection import fitting, parsed

    selectors = [parsed(each) for each in select]
    results = wanted(outputs, format_, PROCESSES, force, screen="table")
    scan = Scanner().scan()
    meant = fitting(selectors, scan) if selectors else scan.processes
    with waiting("looking at processes") as tell:
        records = listed(meant, (wait or 0) / 1e9, tell)
    try:
        add_pauses(records, rows_of(connect or DEFAULT, token_file or ""))
    except GotraceError:
        if connect is not None or token_file is not None:
            raise
    summary = text.summary(scan, len(records), wait / 1e9 if wait else None)
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, records, summary)
    return 0

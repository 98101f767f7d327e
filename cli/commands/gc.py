"""`gotrace gc`: time every stop-the-world pause and GC cycle of one Go process."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from gotrace.cli.options import (
    Command,
    Pid,
    check_target,
    command_argument,
    exclude,
    need,
    option,
    output_options,
    say,
    schema_option,
)
from gotrace.cli.target import target
from gotrace.errors import Exit
from gotrace.export.formats import PAUSES
from gotrace.run.target import attached


@click.command(
    "gc",
    cls=Command,
    topic="time",
    short_help="Time every stop-the-world pause and GC cycle.",
    examples=[
        ("gotrace gc --pid 1234 -d 10s --explain -o run.html", "explains the longest pauses, and writes an HTML report"),
        ("gotrace gc -o run.ndjson -o run.hlog -- ./server", "traces a command from its first instruction"),
    ],
    epilog="Tracing ends after --duration, on Ctrl-C or when the target exits; the summary is always printed.",
)
@target(
    several=True,
    not_with=("all_processes",),
    type=Pid(several=True),
    metavar="PID,…",
    help="The running Go process to trace, or several.",
)
@click.option("--all-processes", is_flag=True, help="Trace every Go process, including new ones.")
@option("duration")
@option("interval")
@option("min_pause")
@option("explain")
@option("top")
@click.option("--assists", is_flag=True, help="Show how long mark assists hold up goroutines.")
@click.option(
    "--advise", is_flag=True, help="Suggest improvements, with evidence and how to check them; implies --explain."
)
@output_options(PAUSES, screen=("table", "ndjson", "json"))
@click.option("--hlog", type=click.Path(), hidden=True)
@click.option("--hgrm", type=click.Path(), hidden=True)
@click.option("--record", type=click.Path(), hidden=True)
@schema_option
@command_argument
def command(
    pid: tuple[int, ...] | None,
    all_processes: bool,
    duration: int | None,
    interval: int,
    min_pause: int,
    explain: bool,
    top: int,
    assists: bool,
    advise: bool,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    hlog: str | None,
    hgrm: str | None,
    record: str | None,
    command: tuple[str, ...],
) -> int:
    """Time every stop-the-world pause and GC cycle of a Go process, exactly.

    Give a running process with --pid, or a command after `--`, which is traced from its first instruction. If a name,
    container or unit matches several processes, all of them are traced.
    """
    exclude("pid", "all_processes")
    pids = pid or ()
    if not all_processes or command:
        check_target(pids[0] if pids else None, command, "gotrace gc")
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text.table import text_of
    from gotrace.run.outputs import feed
    from gotrace.run.sources import programs
    from gotrace.views.gc import Gc

    also = ((hlog, "hlog"), (hgrm, "hgrm"), (record, "gotrace"))
    results = wanted(outputs, format_, PAUSES, force, screen="table", also=also)
    singles = bool(results.formats & {"ndjson", "json"})
    need("ndjson or json output", singles, "min_pause")
    explain = explain or advise
    need("--explain", explain, "top")
    view = Gc(
        interval,
        min_pause,
        top if explain else 0,
        singles=singles,
        by_part="hlog" in results.formats,
        over_time="html" in results.formats,
        assists=assists,
        advise=advise,
    )
    text_of(view)  # by a name that only the view knows: `gotrace.late` cannot see it
    if all_processes or len(pids) > 1:
        from gotrace.find.processes import Scanner
        from gotrace.run.together import trace_together

        with results.together() as files:
            scanner = Scanner()

            def find() -> Iterable[int]:
                return (each.pid for each in scanner.scan().processes) if all_processes else pids

            stems = tuple(stem for stem in view.stems if stem not in view.of_one)
            whole = trace_together(stems, find, all_processes, lambda: [Gc(**view.options)], files, say, duration)
        return Exit.OK if whole or all_processes else Exit.ERROR
    # A command's standard output is its own: like other wrappers we then print on standard error.
    screen = sys.stderr if command else sys.stdout
    with attached(
        view.stems, pids[0] if pids else None, command, duration, say, gives_root_back=True, unused=results.unused
    ) as traced:
        with results.opened(screen) as opened:
            for number, live, views in programs(traced, [view], results.recording, force):
                feed(live, views, opened, number)
    return traced.exit_status()

"""`gotrace sched`: how long goroutines wait for a P, and its threads for a CPU."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, need, option, output_options, schema_option
from gotrace.cli.target import target
from gotrace.export.formats import SCHEDULES


@click.command(
    "sched",
    cls=Command,
    topic="time",
    short_help="Show how long goroutines wait to run, and threads for a CPU.",
    examples=[
        ("gotrace sched --pid 1234 -d 10s", "shows run queues, Ps and waits of ten seconds, and what they come from"),
        ("gotrace sched --pid 1234 -d 1m -o sched.html", "prints a line each second, and draws a page of charts"),
    ],
    epilog="It reads from outside and stops nothing; only --events, --wakeups and --explain need BPF.",
)
@target(required=True)
@option("duration")
@option("interval")
@click.option(
    "--events", is_flag=True, help="Probe too: each wait of a thread for a CPU and after whom it got one, and steals."
)
@click.option("--wakeups", is_flag=True, help="Probe each goroutine that runs: single waits, and how long it stays on a P.")
@option("explain", help="Do both, and say who had the P for which goroutines waited longest.")
@option("top", default=5, help="How many of the longest waits to show.")
@output_options(SCHEDULES, screen=("table", "ndjson", "json"))
@schema_option
def command(
    pid: int,
    duration: int | None,
    interval: int,
    events: bool,
    wakeups: bool,
    explain: bool,
    top: int,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """Show what the scheduler of a Go process does: goroutines that wait for a P, Ps, and threads that wait for a CPU.

    How long goroutines were runnable before they ran is the runtime's own histogram (/sched/latencies of runtime/metrics);
    queues and Ps are sampled. Beside them stands what the kernel gave its threads, and what a CPU quota took from them.
    """
    events, wakeups = events or explain, wakeups or explain
    need("--events, --wakeups or --explain", events or wakeups, "top")
    from gotrace.cli.outputs import wanted, watch
    from gotrace.views.sched import Scheduler
    from gotrace.views.sched_events import SchedulerEvents
    from gotrace.views.sched_wakeups import SchedulerWakeups
    from gotrace.views.view import View

    views: list[View] = [Scheduler(interval)]
    views += [SchedulerEvents(top)] if events else []
    views += [SchedulerWakeups(top, explain)] if wakeups else []
    watch(pid, views, duration, wanted(outputs, format_, SCHEDULES, force, screen="table"))
    return 0

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
        ("gotrace sched --pid 1234 -d 10s", "shows ten seconds of run queues, Ps and waits, and what causes them"),
        ("gotrace sched --pid 1234 -d 1m -o sched.html", "prints a line every second, and writes a page of charts"),
    ],
    epilog="Everything is read from outside, without stopping the process; only --events, --wakeups and --explain "
    "need BPF.",
)
@target(required=True)
@option("duration")
@option("interval")
@click.option(
    "--events",
    is_flag=True,
    help="Also probe every wait of a thread for a CPU, which task had that CPU, and work stealing.",
)
@click.option(
    "--wakeups", is_flag=True, help="Probe every goroutine switch: individual waits, and how long a goroutine stays on a P."
)
@option("explain", help="Do both, and show what held the Ps that goroutines waited for longest.")
@option("top", default=5, help="Number of longest waits to show.")
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
    """Show what the scheduler of a Go process does: goroutines waiting for a P, Ps, and threads waiting for a CPU.

    How long goroutines were runnable before running comes from the runtime's own histogram (/sched/latencies in
    runtime/metrics); run queues and Ps are sampled. Next to them: the CPU time that the kernel gave its threads, and
    throttling by a CPU quota.
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

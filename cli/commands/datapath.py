"""`gotrace datapath`: every call on files that a process makes, of any language."""

from __future__ import annotations

import os
import sys

import click

from gotrace.cli.options import (
    Command,
    check_target,
    command_argument,
    exclude,
    need,
    option,
    output_options,
    say,
    schema_option,
)
from gotrace.cli.replay import of_calls
from gotrace.cli.target import target
from gotrace.errors import UsageError
from gotrace.export.formats import CALLS


@click.command(
    "datapath",
    cls=Command,
    topic="time",
    short_help="Show every file call of any process and its children.",
    examples=[
        (
            "gotrace datapath --pid 1234 -d 30s",
            "shows which calls a process and its children make, and for how long",
        ),
        (
            "gotrace datapath --dataset '/data/**' --min 10ms --explain -- python3 train.py",
            "traces a command, prints every slow call, and explains it",
        ),
    ],
    inner=[of_calls],
    epilog="Needs BPF and kernel BTF (/sys/kernel/btf/vmlinux). The process need not be a Go program. `gotrace"
    " datapath replay RECORDING` shows the load of a recording, or replays its calls.",
)
@target(
    every=True,
    family=True,
    not_with=("cgroup",),
    help="The running process to trace, in any language, with its children.",
    shell_complete=None,
)
@click.option(
    "--cgroup", type=click.Path(), metavar="PATH", help="All processes in this cgroup (its directory in cgroupfs)."
)
@option("duration")
@click.option(
    "--by",
    type=click.Choice(["call", "file", "dir", "mount", "fs", "dataset"]),
    default=None,
    metavar="WHAT",
    help="What each row is: call (the default), file, dir, mount, fs or dataset.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="PATTERN",
    help="A data set, as a pattern of file paths (/data/imagenet/**); may be repeated. Rows are then data sets.",
)
@option("min_call")
@option("explain", help="Show which threads and epochs lost time to metadata, which calls were slowest, and what to do.")
@click.option(
    "--epoch",
    default="",
    metavar="WHAT",
    help="What starts an epoch: opening a file whose path matches this regular expression, or a duration.",
)
@option("top", default=20, help="Number of rows to show.")
@output_options(CALLS, screen=("table", "ndjson", "json"))
@schema_option
@command_argument
def command(
    pid: int | None,
    cgroup: str | None,
    duration: int | None,
    by: str | None,
    datasets: tuple[str, ...],
    min_call: int,
    explain: bool,
    epoch: str,
    top: int,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    command: tuple[str, ...],
) -> int:
    """Show what a process and its children do with files: each call, on which file, and how long it took.

    Metadata calls (open, stat, close, …) are separated from data calls (read, write, fsync, …), page cache hits from cold
    reads, and time in a FUSE server from time in the kernel. io_uring requests and page faults on mapped files count too.
    """
    exclude("pid", "cgroup")
    if cgroup is None:
        check_target(pid, command, "gotrace datapath")
    elif command:
        raise UsageError("give either a command after `--` or a running process", "omit one of them")
    need("--explain", explain, "epoch")
    if by == "dataset" and not datasets:
        raise UsageError("--by dataset needs --dataset", "add --dataset '/data/**', or omit --by")
    if datasets and by not in (None, "dataset"):
        raise UsageError(f"--dataset and --by {by} are mutually exclusive: rows are data sets or not", "omit one of them")
    for each in datasets:
        if not each.startswith(("/", "*")):
            raise UsageError(f"no path begins as {each!r} does", f"give the absolute path: {os.path.abspath(each)}")
    from gotrace.cli.outputs import wanted
    from gotrace.kernel.executable import ControlGroup
    from gotrace.run.outputs import feed
    from gotrace.run.sources import programs, repeatable
    from gotrace.run.target import DURATION, attached
    from gotrace.text import duration_text
    from gotrace.views.datapath import DataPath, check_epoch

    check_epoch(epoch)
    results = wanted(outputs, format_, CALLS, force, screen="table")
    view = DataPath("dataset" if datasets else by or "call", datasets, min_call, top, explain, epoch)
    group = ControlGroup(cgroup) if cgroup is not None else None
    about = repeatable(command) if results.recording is not None else None
    screen = sys.stderr if command else sys.stdout  # a command's standard output is its own
    tracing = attached(view.stems, pid, command, duration, say, calibrated=False, group=group)
    with tracing as traced, results.opened(screen) as opened:
        for number, live, views in programs(traced, [view], results.recording, force, about=about):
            feed(live, views, opened, number)
        if command and duration is not None and traced.ended == DURATION:
            say(f"Ended the command after {duration_text(duration)}.")
    return traced.exit_status()

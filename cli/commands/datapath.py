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
    short_help="Show every call on files, of any process and those it forks.",
    examples=[
        (
            "gotrace datapath --pid 1234 -d 30s",
            "shows by call how often and how long a process and its children were in it",
        ),
        (
            "gotrace datapath --dataset '/data/**' --min 10ms --explain -- python3 train.py",
            "follows a command, prints each slow call, and explains them",
        ),
    ],
    inner=[of_calls],
    epilog="It needs BPF, and BTF of the kernel (/sys/kernel/btf/vmlinux). The process need not be a Go program."
    " `gotrace datapath replay RECORDING` shows the load of a recording, or makes its calls again.",
)
@target(
    every=True,
    family=True,
    not_with=("cgroup",),
    help="The running process to trace, of any language, with its children.",
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
    help="What a row stands for: call (if nothing is said), file, dir, mount, fs, dataset.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="PATTERN",
    help="A data set, by a pattern of its files' paths (/data/imagenet/**); may be repeated. Rows are data sets then.",
)
@option("min_call")
@option("explain", help="Say which threads and epochs lost time to metadata, which calls were slowest, and what to do.")
@click.option(
    "--epoch",
    default="",
    metavar="WHAT",
    help="What begins an epoch: opening a file whose path this regular expression is found in, or a duration.",
)
@option("top", default=20, help="How many rows to show.")
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
    """Show what a process and those that it forks do with files: each call, what it was on, and how long it took.

    Metadata (open, stat, close, …) is told from data (read, write, fsync, …), reads that found the page cache warm from
    cold ones, and a FUSE server's share from the kernel's. Requests of io_uring and page faults of mapped files count too.
    """
    exclude("pid", "cgroup")
    if cgroup is None:
        check_target(pid, command, "gotrace datapath")
    elif command:
        raise UsageError("give either a command after `--`, or what runs already", "leave one of them out")
    need("--explain", explain, "epoch")
    if by == "dataset" and not datasets:
        raise UsageError("--by dataset needs --dataset", "add --dataset '/data/**', or leave --by out")
    if datasets and by not in (None, "dataset"):
        raise UsageError(f"--dataset and --by {by} exclude each other: rows are data sets or not", "leave one of them out")
    for each in datasets:
        if not each.startswith(("/", "*")):
            raise UsageError(f"no path begins as {each!r} does", f"write all of the path: {os.path.abspath(each)}")
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

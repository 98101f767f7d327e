"""`gotrace coldstart`: one timeline of a start, from execve to the first listen or the first GC."""

from __future__ import annotations

import sys

import click

from gotrace.cli.compare import command as compare
from gotrace.cli.options import Command, Until, command_argument, given, need, option, output_options, say, schema_option
from gotrace.errors import UsageError
from gotrace.export.formats import BUILDS, STARTS


@click.command(
    "coldstart",
    cls=Command,
    topic="time",
    short_help="Break down the start of a program, from execve on.",
    examples=[
        ("gotrace coldstart -n 20 -o start.html -- ./server", "starts a command 20 times, and draws a waterfall"),
        ("gotrace coldstart --exe /usr/bin/server -n 5", "waits for the next 5 starts, whoever starts them"),
    ],
    inner=[compare],
    epilog="`gotrace coldstart compare A B` compares two recordings of starts (made with -o FILE.gotrace).",
)
@click.option("--exe", type=click.Path(), metavar="PATH", help="The Go program to wait for, whoever starts it.")
@click.option("--cgroup", type=click.Path(), metavar="PATH", help="Only starts in this cgroup (its directory in cgroupfs).")
@click.option("--pid-ns", type=click.Path(), metavar="PATH", help="Only starts in this PID namespace (/proc/PID/ns/pid).")
@click.option(
    "-n", "--runs", type=click.IntRange(1, 100_000), default=1, show_default=True, metavar="N", help="Number of starts."
)
@click.option(
    "--warmup", type=click.IntRange(0, 1000), default=0, metavar="N", help="Number of warm-up runs first, not counted."
)
@click.option(
    "--until",
    type=Until(),
    default="listen",
    show_default=True,
    metavar="END",
    help="When a start is over: main, listen, first-gc, exit, or after a time (500ms). An exit always ends it.",
)
@click.option(
    "--cache",
    type=click.Choice(["as-is", "warm", "cold"]),
    default="as-is",
    show_default=True,
    help="cold: drop the program and its libraries from the page cache before each run; warm: read them into it.",
)
@click.option(
    "--detail",
    type=click.Choice(["low", "full"]),
    help="low: skip the bootstrap steps, for less overhead.  [default: full; low with --cache cold]",
)
@click.option("--containers", is_flag=True, help="Begin at the request to the container tool: pull, unpack, runtime.")
@click.option(
    "--copies", is_flag=True, help="Also wait for copies of PATH, by name and size: for an image yet to be pulled."
)
@click.option("--sort", type=click.Choice(["start", "duration"]), default="start", help="Order of rows within a stage.")
@click.option("--tree", is_flag=True, help="Show everything the command starts as one timeline, as for a go command.")
@click.option("--advise", is_flag=True, help="Suggest what would make it faster, with evidence and how to check it.")
@option("everything")
@output_options(STARTS, screen=("table", "ndjson", "json"))
@schema_option
@command_argument
def command(
    exe: str | None,
    cgroup: str | None,
    pid_ns: str | None,
    runs: int,
    warmup: int,
    until: tuple[str, int],
    cache: str,
    detail: str | None,
    containers: bool,
    copies: bool,
    sort: str,
    tree: bool,
    advise: bool,
    everything: bool,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    command: tuple[str, ...],
) -> int:
    """Break down the start of a Go program, from execve to its first listen: kernel, linker, runtime, package inits.

    Give a command after `--`: it is started N times, and ended as soon as its start is over. Or wait for the next starts
    of a program with --exe. With both, the command is a shell or script that starts the program. A go command is shown as
    one timeline of everything it did, by module and package.
    """
    if not command and exe is None:
        raise UsageError("give a command after `--`, or --exe PATH", "gotrace coldstart -- ./server --port 8080")
    if not command and (warmup or cache != "as-is"):
        raise UsageError("--warmup and --cache need a command to run", "gotrace coldstart --cache cold -- ./server")
    if containers and exe is None:
        hint = "--exe PATH, the path on this host; for an image yet to be pulled, the path of a copy, with --copies"
        raise UsageError("--containers needs --exe: the program in the container", hint)
    if copies and not containers:
        raise UsageError("--copies needs --containers", "gotrace coldstart --exe PATH --containers --copies")
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import build as build_text
    from gotrace.cli.text import coldstart as text
    from gotrace.cli.text.progress import waiting
    from gotrace.run import builds

    of_start = given("exe", "cgroup", "pid_ns", "until", "cache", "detail", "containers", "copies", "advise")
    if tree and of_start:
        raise UsageError(f"{of_start[0]} applies to the start of a program", "omit it or --tree")
    if tree or (command and not of_start and builds.go_version_of(command[0])):
        results = wanted(outputs, format_, BUILDS, force, screen="table")
        need("a table", "table" in results.formats, "sort", "everything")
        with waiting("tracing") as progress:
            build, status = builds.trace(command, runs, warmup, results.recording, force, progress)
        build_text.write(build, results, text.Shown(everything, sort == "duration"), sys.stderr)
        return status
    from gotrace.run import starts_live

    results = wanted(outputs, format_, STARTS, force, screen="table")
    need("a table", "table" in results.formats, "sort", "everything")
    plan = starts_live.Wanted(
        exe=exe,
        command=command,
        cgroup=cgroup,
        pid_ns=pid_ns,
        runs=runs,
        warmup=warmup,
        until=until,
        cache=cache,
        low_detail=detail == "low" or (detail is None and cache == "cold"),
        containers=containers,
        copies=copies,
        advise=advise,
    )
    with waiting("tracing starts") as progress:
        result, status = starts_live.trace(plan, results.recording, force, say, progress)
    # A command's standard output is its own: like other wrappers we then print on standard error.
    text.write(result, results, text.Shown(everything, sort == "duration"), sys.stderr if command else sys.stdout)
    return status

"""`gotrace coldstart`: one timeline of a start, from execve to the first listen or the first GC."""

from __future__ import annotations

import sys
from typing import Any

import click

from gotrace.cli._target import Duration, check_files
from gotrace.errors import UsageError

_UNTIL = ("main", "listen", "first-gc", "exit")


class _Until(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """One of `_UNTIL` or a length of time: (what, nanoseconds), as `gotrace.analysis.coldstart.Until` takes them."""

    name = "until"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        if value in _UNTIL:
            return ("" if value == "exit" else value), 0
        if not value[:1].isdigit():
            self.fail(f"{value!r} is none of {', '.join(_UNTIL)}, and no length of time", param, ctx)
        return "", Duration().convert(value, param, ctx)


class _WithCompare(click.Command):
    """`compare A B` is a command of its own; anything else is this one's."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["compare"]:
            return compare.make_context(f"{info_name} compare", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command(
    "coldstart",
    cls=_WithCompare,
    epilog="`gotrace coldstart compare A B` tells two recordings of starts apart (-o FILE.gotrace makes them).",
)
@click.option("-e", "--exe", type=click.Path(), help="The Go program whose starts are waited for, whoever starts it.")
@click.option("--cgroup", type=click.Path(), metavar="PATH", help="Only starts in this cgroup (its folder in cgroupfs).")
@click.option("--pid-ns", type=click.Path(), metavar="PATH", help="Only starts in this PID namespace (/proc/PID/ns/pid).")
@click.option("-n", "--runs", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How many starts.")
@click.option("--warmup", type=click.IntRange(0, 1000), default=0, help="Runs of the command before the first that counts.")
@click.option(
    "--until",
    type=_Until(),
    default="listen",
    show_default=True,
    help="End of a start: main, listen, first-gc, exit, or a time (500ms). Its exit always is one.",
)
@click.option(
    "--cache",
    type=click.Choice(["as-is", "warm", "cold"]),
    default="as-is",
    show_default=True,
    help="cold: drop the pages of the program and its libraries before each run; warm: read them.",
)
@click.option(
    "--detail",
    type=click.Choice(["low", "full"]),
    help="low: no steps of the bootstrap, so that little is added. [default: full, with a cold cache low]",
)
@click.option("--format", "format_", type=click.Choice(["table", "json", "ndjson"]), default="table", help="What to print.")
@click.option("--sort", type=click.Choice(["start", "duration"]), default="start", help="Order of the rows of a stage.")
@click.option("--all", "everything", is_flag=True, help="Short rows too.")
@click.option(
    "-o",
    "--output",
    "outputs",
    type=click.Path(),
    multiple=True,
    metavar="FILE",
    help="Write there too, as its name says: .html .svg .perfetto .json .ndjson .hlog .gotrace",
)
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARGS]...]")
def command(
    exe: str | None,
    cgroup: str | None,
    pid_ns: str | None,
    runs: int,
    warmup: int,
    until: tuple[str, int],
    cache: str,
    detail: str | None,
    format_: str,
    sort: str,
    everything: bool,
    outputs: tuple[str, ...],
    force: bool,
    command: tuple[str, ...],
) -> int:
    """Break the start of a Go program down, from execve to its first listen: kernel, linker, runtime, package inits.

    Give a command after `--`, which is started RUNS times and ended when its start is over; or wait with --exe for the
    next starts of a program. With both, the command is what starts it, a shell or a script.
    """
    if not command and exe is None:
        raise UsageError("give a command after `--`, or --exe PATH", "gotrace coldstart -- ./server --port 8080")
    if not command and (warmup or cache != "as-is"):
        raise UsageError("--warmup and --cache need a command to run", "gotrace coldstart --cache cold -- ./server")
    check_files(outputs, force)
    from gotrace.cli import _coldstart_live, _coldstart_run
    from gotrace.cli.export import format_of

    wanted = [(path, format_of(path, _coldstart_run.FORMATS)) for path in outputs]
    plan = _coldstart_live.Wanted(
        exe=exe,
        command=command,
        cgroup=cgroup,
        pid_ns=pid_ns,
        runs=runs,
        warmup=warmup,
        until=until,
        cache=cache,
        low_detail=detail == "low" or (detail is None and cache == "cold"),
    )
    recordings = [path for path, kind in wanted if kind == "gotrace"]
    result, status = _coldstart_live.trace(plan, recordings[0] if recordings else None, force)
    _coldstart_run.write_all(result, wanted, force)
    if format_ == "table":
        shown = _coldstart_run.Shown(everything, sort == "duration")
        # A command's standard output is its own: like other wrappers we then print on standard error.
        _coldstart_run.print_table(result, sys.stderr if command else sys.stdout, shown)
    else:
        _coldstart_run.print_json(result, sys.stdout, format_)
    return status


@click.command("compare")
@click.argument("before", type=click.Path(), metavar="A")
@click.argument("after", type=click.Path(), metavar="B")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="What to print.")
@click.option("--all", "everything", is_flag=True, help="Short rows too.")
def compare(before: str, after: str, format_: str, everything: bool) -> int:
    """Tell two recordings of starts apart: by which part, how much, and whether it may be chance."""
    from gotrace.cli import _coldstart_compare

    _coldstart_compare.run(before, after, format_, everything)
    return 0

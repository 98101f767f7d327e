"""`gotrace gc`: time every stop-the-world pause and GC cycle of one Go process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from gotrace.errors import GotraceError, UsageError
from gotrace.kernel.launch import Launched
from gotrace.kernel.privileges import drop_to_caller
from gotrace.kernel.process import Process
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.session import Session


class Duration(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A length of time: 10s, 250ms, 100us, 1.5m, 1h; a bare number is seconds. Converted to nanoseconds."""

    name = "duration"
    UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "": 10**9}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        number = value.rstrip("nuµmsh")
        try:
            result = round(float(number) * self.UNITS[value[len(number) :]])
        except (ValueError, KeyError, OverflowError):
            self.fail(f"{value!r} is no length of time; write 10s, 250ms or 100us", param, ctx)
        if result < 0:
            self.fail(f"{value!r} is negative", param, ctx)
        return result


def _print_schema(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from gotrace.export.gc_json import json_schema

        click.echo(json.dumps(json_schema(), indent=2))
        ctx.exit()


@click.command("gc", epilog="Ends at --duration, at Ctrl-C or when the target exits; the summary is printed each time.")
@click.option("-p", "--pid", type=int, help="The Go process to trace.")
@click.option("-d", "--duration", type=Duration(), help="Stop after this long (10s, 500ms, 2m).")
@click.option("-i", "--interval", type=Duration(), default="1s", show_default=True, help="Length of a live line.")
@click.option("--min-pause", type=Duration(), default="0", help="Write single pauses only from this length on (100us).")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "ndjson", "json"]),
    help="What to print. [default: table, or what FILE of -o ends in]",
)
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Write there; the table is still printed.")
@click.option("--hlog", type=click.Path(), metavar="FILE", help="Write an HdrHistogram interval log.")
@click.option("--hgrm", type=click.Path(), metavar="FILE", help="Write HdrHistogram percentile distributions.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.option("--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=_print_schema)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARGS]...]")
def command(
    pid: int | None,
    duration: int | None,
    interval: int,
    min_pause: int,
    format_: str | None,
    output: str | None,
    hlog: str | None,
    hgrm: str | None,
    force: bool,
    command: tuple[str, ...],
) -> int:
    """Time every stop-the-world pause and GC cycle of a Go process, exactly.

    Give a running process with --pid, or a command after `--`, which is then traced from its first instruction.
    """
    if (pid is None) == (not command):
        raise UsageError("give either --pid PID or a command after `--`", "gotrace gc --pid 1234")
    if duration == 0 or interval == 0:
        raise UsageError("--duration and --interval must be longer than nothing", "write 10s or 500ms")
    files = [path for path in (output, hlog, hgrm) if path and path != "-"]
    if len(set(map(os.path.realpath, files))) < len(files):
        raise UsageError("two outputs go to the same file", "give each its own name")
    for path in files:
        if os.path.lexists(path) and not force:
            raise GotraceError(f"{printable(path)} exists", "choose another name, or overwrite it with --force")

    from gotrace import session
    from gotrace.probes import gc as probe

    stop = StopRequest()
    with contextlib.ExitStack() as stack:
        launched = None
        if command:
            launched = Launched(list(command))
            stack.callback(launched.kill)
            pid = launched.pid
        assert pid is not None
        process = stack.enter_context(Process.open(pid))
        tracing = stack.enter_context(session.opened(probe, process))
        print(f"Tracing {_describe(tracing)}… Ctrl-C to end.", file=sys.stderr, flush=True)
        stack.enter_context(stop.installed())
        from gotrace.cli._gc_run import Outputs, import_the_rest, trace

        if launched is None:
            tracing.calibrate()
            import_the_rest()  # the caller may not be able to read where gotrace is installed
            drop_to_caller()  # a launched command stays root's, and so must we to end it
        # A command's standard output is its own: like other wrappers we then print on standard error.
        screen = sys.stdout if launched is None else sys.stderr
        outputs = stack.enter_context(Outputs.opened(format_, output, hlog, hgrm, force, screen))
        if launched is not None:
            launched.release()
            tracing.calibrate()
        return trace(tracing, outputs, stop, duration, interval, min_pause, launched)


def _describe(tracing: Session) -> str:
    return f"pid {tracing.process.pid} ({printable(tracing.process.exe_name)}, {tracing.plan.go_version})"


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second one ends the process at once."""

    signal: str | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.signal(number, self._note) for number in watched}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

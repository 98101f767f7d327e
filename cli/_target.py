"""What every command that traces has in common: naming the target, attaching to it, running until the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from gotrace.errors import GotraceError, UsageError
from gotrace.kernel.launch import Launched
from gotrace.kernel.privileges import drop_to_caller
from gotrace.kernel.process import Process
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.kernel.pmu import PmuEvent
    from gotrace.session import Session
    from gotrace.symbols import Symbols

# How long events may wait in the ring. The smallest holds 16 384 of them; a program that collects 1 000 times a second
# makes 600 in this time, so a reader that is held up for seconds still loses nothing.
POLL_NS = 100_000_000

Command = TypeVar("Command", bound=Callable[..., Any])


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


def target_options(command: Command) -> Command:
    """``--pid``, ``--duration`` and a command after ``--``: parameters pid, duration, command."""
    for add in (
        click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARGS]...]"),
        click.option("-d", "--duration", type=Duration(), help="Stop after this long (10s, 500ms, 2m)."),
        click.option("-p", "--pid", type=int, help="The Go process to trace."),
    ):
        command = add(command)
    return command


def hz_option(command: Command) -> Command:
    """``--hz``: parameter hz; see `sample_ns`."""
    return click.option(
        "--hz", type=click.IntRange(1, 20_000), default=997, show_default=True, help="Samples a second and CPU (profile)."
    )(command)


def sample_ns(hz: int) -> int:
    """The time between two samples."""
    return round(1e9 / hz)


def check_target(pid: int | None, command: tuple[str, ...], duration: int | None, example: str) -> None:
    """Raises UsageError for a target that cannot be meant."""
    if (pid is None) == (not command):
        raise UsageError("give either --pid PID or a command after `--`", f"{example} --pid 1234")
    if duration == 0:
        raise UsageError("--duration must be longer than nothing", "write 10s or 500ms")


def check_files(paths: Sequence[str | None], force: bool) -> None:
    """Raises before anything is traced what creating these files would raise at its end."""
    files = [path for path in paths if path and path != "-"]
    if len(set(map(os.path.realpath, files))) < len(files):
        raise UsageError("two outputs go to the same file", "give each its own name")
    for path in files:
        if os.path.lexists(path) and not force:
            raise exists_already(path)


def exists_already(path: str) -> GotraceError:
    return GotraceError(f"{printable(path)} exists", "choose another name, or overwrite it with --force")


def cannot_write(path: str, error: OSError) -> GotraceError:
    reason = f"cannot write {printable(path)}: {error.strerror}"
    return GotraceError(reason, "choose a folder that exists and you may write to")


def create(path: str, force: bool) -> BinaryIO:
    """A new file, unbuffered. Raises GotraceError when there is one already, or it cannot be written."""
    try:
        return open(path, "wb" if force else "xb", buffering=0)
    except FileExistsError:
        raise exists_already(path) from None
    except OSError as error:
        raise cannot_write(path, error) from None


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


class Traced:
    """A target with its probes in place. Use `attached`."""

    def __init__(self, session: Session, symbols: Symbols | None, launched: Launched | None, stop: StopRequest) -> None:
        self.session = session
        self.symbols = symbols  # only where a probe takes stacks
        self.launched = launched
        self.stop = stop
        self.begin_ns = 0

    def release(self) -> None:
        """Let a launched command run; from now on time counts."""
        if self.launched is not None:
            self.launched.release()
            self.session.calibrate()
        self.begin_ns = time.monotonic_ns()

    def polls(self, duration: int | None, interval: int, failed: Callable[[], bool]) -> Iterator[tuple[int, str]]:
        """(CLOCK_MONOTONIC ns, why tracing ends or ""), each time the ring should be read: the last one ends it."""
        ended = ""
        begin = tick = self.begin_ns
        while not ended:
            now = time.monotonic_ns()
            until = min(now + POLL_NS, tick + interval, begin + duration if duration else now + POLL_NS)
            exited = self.session.wait(max(0, until - now) / 1e9)
            now = time.monotonic_ns()
            if exited:
                ended = "target exited"
            elif self.session.process.exec_changed():
                ended = "target executed another program"
            elif self.stop.signal:
                ended = self.stop.signal
            elif duration and now >= begin + duration:
                ended = "duration"
            elif failed():
                ended = "an output that cannot be written"
            tick += (now - tick) // interval * interval
            yield now, ended

    def exit_status(self) -> int:
        """End a launched command; the status to exit with."""
        if self.launched is None:
            return 0
        ended_by_us = self.launched.poll() is None or self.stop.signal is not None
        self.launched.terminate()
        return 0 if ended_by_us else self.launched.exit_code()


@contextlib.contextmanager
def attached(
    stems: Sequence[str],
    pid: int | None,
    command: tuple[str, ...],
    before_dropping: Callable[[], None],
    sample_ns: int = 0,
    sampled: Sequence[PmuEvent] = (),
) -> Iterator[Traced]:
    """Probe a process, or a command that is started and stopped before its first instruction: `Traced.release` it.

    Root is given up on the way, unless it has to end the command; ``before_dropping`` is the last thing done as root.
    ``sample_ns`` and ``sampled`` are those of `session.opened`.
    """
    import importlib

    from gotrace import session

    modules = [importlib.import_module(f"gotrace.probes.{stem}") for stem in stems]
    stop = StopRequest()
    with contextlib.ExitStack() as stack:
        launched = None
        if command:
            launched = Launched(list(command))
            stack.callback(launched.kill)
            pid = launched.pid
        assert pid is not None
        process = stack.enter_context(Process.open(pid))
        tracing = stack.enter_context(session.opened(modules, process, sample_ns or session.SAMPLE_NS, sampled=sampled))
        symbols = None
        columns = {column for module in modules for kind in module.PROBE.kinds for column in kind.columns}
        if "stack" in columns:
            from gotrace.symbols import Symbols

            symbols = stack.enter_context(Symbols.of(process, kernel="kernel_stack" in columns))
        # Said when everything is in place: whoever waits for it may let the target end at once.
        target = f"pid {pid} ({printable(process.exe_name)}, {tracing.plan.go_version})"
        print(f"Tracing {target}… Ctrl-C to end.", file=sys.stderr, flush=True)
        stack.enter_context(stop.installed())
        if launched is None:
            tracing.calibrate()
            before_dropping()
            drop_to_caller()  # a launched command stays root's, and so must we to end it
        yield Traced(tracing, symbols, launched, stop)

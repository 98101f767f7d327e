"""A process or a command that is traced until its end: naming it, attaching to it, and why it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from gotrace.errors import GotraceError, UntraceableError
from gotrace.kernel.launch import Launched
from gotrace.kernel.privileges import caller, drop_to_caller
from gotrace.kernel.process import Process
from gotrace.probe import DELAY_NS
from gotrace.run.refusal import refusal, require_go, start_command
from gotrace.text import duration_text, printable, program_text

if TYPE_CHECKING:
    from gotrace.kernel.execs import Exec
    from gotrace.kernel.executable import ControlGroup
    from gotrace.kernel.pmu import PmuEvent
    from gotrace.runtime.children import Children
    from gotrace.runtime.symbols import Symbols
    from gotrace.session import Session

# What happens, a line each, for whoever waits.
Say = Callable[[str], None]

# How long events may wait in the ring. The smallest holds 16 384 of them; a program that collects 1 000 times a second
# makes 600 in this time, so a reader that is held up for seconds still loses nothing.
POLL_NS = 100_000_000


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second one ends the process at once.

    In a thread other than the main one signals are not ours to handle.
    """

    signal: str | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        is_ours = threading.current_thread() is threading.main_thread()
        watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if is_ours else ()
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


EXECUTED, EXITED, DURATION = "target executed another program", "target exited", "duration"


class LeftBehind:
    """How long what a command left in the background is waited for, once the command has ended: it may start a Go program.

    Not for ever: what stays may be a daemon that has nothing to do with it. Whoever waits is told so, after a while.
    """

    PATIENCE_S = 10.0
    _UNTOLD_S = 1.0

    def __init__(self, is_gone: Callable[[], bool], command: str, say: Say) -> None:
        self._is_gone, self._say = is_gone, say
        self._waiting = (
            f"{printable(command)} has exited, but left processes running: waiting up to {self.PATIENCE_S:g} s for one of "
            "them to start a Go program. Ctrl-C to end."
        )
        self._since: float | None = None

    def is_over(self, seconds: float = 0) -> bool:
        """Whether nothing is left, or it was waited for long enough; sleep up to ``seconds`` otherwise."""
        if self._is_gone():
            return True
        now = time.monotonic()
        self._since = self._since or now
        if now > self._since + self._UNTOLD_S and self._waiting:
            self._say(self._waiting)
            self._waiting = ""
        if now > self._since + self.PATIENCE_S:
            return True
        time.sleep(seconds)
        return False


class Command:
    """A command that is started, followed to its first Go program, and waited for. Use `started`.

    Only ``duration`` and ``stop`` end it; that tracing has ended does not.
    """

    def __init__(self, command: Sequence[str], duration: int | None, stop: StopRequest, say: Say) -> None:
        self._say = say
        self.name = printable(command[0])
        self.launched = start_command(list(command), Launched)
        self.deadline_ns = 0
        self._duration = duration
        self._stop = stop
        self._target: int | None = None  # a descriptor
        self._ended_by_us = False

    @classmethod
    @contextlib.contextmanager
    def started(cls, command: Sequence[str], duration: int | None, stop: StopRequest, say: Say) -> Iterator[Command]:
        """Stopped before its first instruction. On the way out it is waited for; what never ran never does."""
        with stop.installed():
            started = cls(command, duration, stop, say)
            try:
                yield started
                started.wait()
            except Exception as error:
                if started.launched.released:
                    started.wait()
                    if isinstance(error, GotraceError):  # what went wrong is ours; a status of the command's own stays
                        error.exit_code = started.exit_status() or error.exit_code
                raise
            finally:
                started.launched.kill()
                started._forget_target()

    def release(self, begin_ns: int) -> None:
        self.launched.release()
        self.count_time(begin_ns)

    def count_time(self, begin_ns: int) -> None:
        """From then on the duration counts."""
        if self._duration:
            self.deadline_ns = begin_ns + self._duration

    @classmethod
    def first_program(cls, command: Sequence[str], say: Say) -> str:
        """The path of the first Go program of a command, which is ended before the first instruction of that."""
        with cls.started(command, None, StopRequest(), say) as started:
            try:
                held = started.program("if another process starts it, name the program: --exe PATH")
            except GotraceError as error:
                error.exit_code = error.exit_code or GotraceError.exit_code  # there is nothing to show
                raise
            pid = held.pid if held is not None else started.launched.pid
            path = os.readlink(f"/proc/{pid}/exe")
            os.kill(pid, signal.SIGTERM)
            if held is not None:
                held.release()
            started.launched.kill()
        return path

    def program(self, otherwise: str = "give the command that starts one") -> Exec | None:
        """The first Go program that it, or a process that it starts, executes: held in its execve, if not None.

        None stands for the command's own program, not released yet. Raises GotraceError if there is no Go program that
        can be traced.
        """
        why = refusal(f"/proc/{self.launched.pid}/exe", self.name)
        if why is None:
            return None
        if isinstance(why, UntraceableError):
            raise why
        from gotrace.kernel.execs import ExecWatch

        error = None
        with ExecWatch.opened(self.launched.pid, tree=True) as watch:
            self._say(f"{why.message}: tracing the first Go program that it executes.")
            self.release(time.monotonic_ns())
            left = LeftBehind(watch.is_alone, self.name, self._say)
            while not self._has_to_end() and not (self.is_over() and left.is_over()):
                found = watch.next(POLL_NS / 1e9)
                if found is None:
                    continue
                why = refusal(f"/proc/{found.pid}/exe", "it")
                if why is None:
                    return found
                if isinstance(why, UntraceableError):
                    exe = printable(_exe_of(found.pid))
                    error = GotraceError(f"{self.name} executed {exe}, which cannot be traced: {why.message}", why.hint)
                found.release()
            behind = f", nor did what it left in the background within {LeftBehind.PATIENCE_S:g} s"
            is_alone = self._has_to_end() or watch.is_alone()
        self.wait()
        error = error or GotraceError(f"{self.name} executed no Go program{'' if is_alone else behind}", otherwise)
        error.exit_code = self.exit_status()
        raise error

    def traced(self, pid: int) -> None:
        """This is the process that is traced: if the command has to end, it too."""
        self._forget_target()
        with contextlib.suppress(ProcessLookupError):  # it has ended
            self._target = os.pidfd_open(pid)

    def _forget_target(self) -> None:
        if self._target is not None:
            os.close(self._target)
            self._target = None

    def is_over(self) -> bool:
        """Whether it has ended, or has to."""
        return self._has_to_end() or self.launched.poll() is not None

    def _has_to_end(self) -> bool:
        return bool(self._stop.signal or (self.deadline_ns and time.monotonic_ns() >= self.deadline_ns))

    def wait(self) -> None:
        """Until it has ended: by itself, at the end of its time, or when it is asked to."""
        while not self.is_over():
            self.launched.wait(POLL_NS / 1e9)
        self._ended_by_us = self.launched.poll() is None or self._stop.signal is not None
        if self.launched.poll() is None:
            self.launched.ask_to_end()  # first: a shell that waits for the target would go on
            if self._target is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._target, signal.SIGTERM)
        self.launched.wait_ended()

    def exit_status(self) -> int:
        """Its own, or 0 if we ended it."""
        return 0 if self._ended_by_us else self.launched.exit_code()


def not_traced(pid: int, exe: str, reason: str) -> str:
    """What is said of a program that a process executed; ``reason`` is an error's message."""
    return (
        f"pid {pid} executed {printable(exe)}, which is not traced: {printable(reason.replace(f'/proc/{pid}/exe', 'it'))}"
    )


def _entry_of(pid: int) -> int:
    """Where the program of a process begins, once its dynamic linker has mapped the libraries it is linked with."""
    from gotrace.binary.elf import Elf

    with Process.open(pid) as process, Elf.open(process.exe_path) as elf:
        return int(elf.entry) + (process.load_bias(elf.first_vaddr) if elf.pie else 0)


def _exe_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe")
    return f"pid {pid}"


class Looking(NamedTuple):
    """What is done every ``every_ns`` while nothing else is to be done, with as little around it as there can be."""

    every_ns: int
    look: Callable[[], object]


NOT_LOOKING = Looking(POLL_NS, lambda: None)


class Loop:
    """The one loop that decides when a run ends, and why.

    `release` begins it; time counts from ``begin_ns`` on (CLOCK_MONOTONIC), and ``duration`` nanoseconds are the most.
    ``ended`` says why it is over, since ``end_ns`` (0: it is not).
    """

    def __init__(self, stop: StopRequest, say: Say, duration: int | None = None) -> None:
        self.stop = stop
        self.say = say
        self.until: Callable[[], str] = lambda: ""  # why no more is wanted, or ""; asked at every poll
        self.poll_ns = POLL_NS  # how often the ring is read, at least
        self.wakes: tuple[int, ...] = ()  # descriptors that end a wait, because ``until`` may have something to say
        self.begin_ns = self.end_ns = 0
        self.ended = ""
        self._duration = duration
        self._deadline_ns: int | None = None

    def release(self) -> None:
        """From now on time counts."""
        self._release(time.monotonic_ns())

    def _release(self, begin_ns: int) -> None:
        self._begin(begin_ns)
        self._deadline_ns = self.begin_ns + self._duration if self._duration is not None else None

    def _begin(self, begin_ns: int) -> None:
        self.begin_ns, self.end_ns, self.ended = begin_ns, 0, ""

    def _end(self, end_ns: int) -> None:
        self.end_ns = end_ns

    def wait(self, seconds: float) -> bool:
        """Sleep up to ``seconds``; True as soon as what is watched has exited."""
        raise NotImplementedError

    def executed_ns(self) -> int:
        """When it executed another program; 0 if it has not."""
        return 0

    def settle(self) -> None:
        """When it is over: until every event from before ``end_ns`` is there."""

    def enough(self) -> str:
        """Why no more is wanted, or ""."""
        return self.until()

    def _sleep(self, until_ns: int, looking: Looking) -> bool:
        """Sleep, and look in between; True as soon as what is watched has exited."""
        while (at_ns := time.monotonic_ns() + looking.every_ns) < until_ns:
            if self.wait(looking.every_ns / 1e9):
                return True
            if self.stop.signal or time.monotonic_ns() < at_ns:  # something has ended the wait
                return False
            looking.look()
        return self.wait(max(0, until_ns - time.monotonic_ns()) / 1e9)

    def polls(self, interval: int, failed: Callable[[], bool], looking: Looking = NOT_LOOKING) -> Iterator[tuple[int, str]]:
        """(CLOCK_MONOTONIC ns, why it ends or ""), each time the ring should be read: the last one ends it.

        After `EXECUTED` there may be more: see `Target.next_program`. Raises what kept it from waiting, last.
        """
        ended, exited = "", False
        failure: GotraceError | None = None
        tick = self.begin_ns
        while not ended:
            now = time.monotonic_ns()
            until = min(now + self.poll_ns, tick + interval)
            if self._deadline_ns is not None:
                until = min(until, self._deadline_ns)
            try:
                exited = not self.enough() and self._sleep(until, looking)
            except GotraceError as error:  # raised when what came until then was read
                failure = error
            now = time.monotonic_ns()
            executed_ns = self.executed_ns()
            if executed_ns:
                now, ended = executed_ns, EXECUTED
            elif failure is not None:
                ended = failure.message
            elif exited:
                ended = EXITED
            elif self.stop.signal:
                ended = self.stop.signal
            elif self._deadline_ns is not None and now >= self._deadline_ns:
                now, ended = self._deadline_ns, DURATION
            elif failed():
                ended = "output error"
            else:
                ended = self.enough()
            tick += max(0, now - tick) // interval * interval
            self.ended = ended
            if ended:
                self._end(now)
            yield now, ended
        if failure is not None:
            raise failure

    def ran_ns(self) -> int:
        """How long it ran, or runs."""
        return (self.end_ns or self.executed_ns() or time.monotonic_ns()) - self.begin_ns


class Target(Loop):
    """A process until it ends, or tracing does."""

    def __init__(self, process: Process, stop: StopRequest, say: Say, duration: int | None) -> None:
        super().__init__(stop, say, duration)
        self.process = process

    def wait(self, seconds: float) -> bool:
        """As `Loop.wait`; ends too when it executes a program."""
        return self.process.wait(seconds, *self.wakes)

    def executed_ns(self) -> int:
        return time.monotonic_ns() if self.process.exec_changed() else 0

    def closing(self, ended: str) -> dict[str, Any]:
        """How a run that ends now ended, and what it cost: what the summary reports, and a recording keeps."""
        return {**NO_COST, "duration_ns": self.ran_ns(), "ended": ended}

    def is_over(self) -> bool:
        """Whether there will be nothing more to see."""
        late = self._deadline_ns is not None and time.monotonic_ns() >= self._deadline_ns
        return late or bool(self.stop.signal) or self.process.wait(0)

    def next_program(self) -> bool:
        """Say what it executed, if it has, and go on with it; False where that cannot be or is not wanted."""
        if not self.executed_ns():
            return False
        self.process = self.process.reopened()
        pid, exe = self.process.pid, self.process.exe_name
        why = refusal(self.process.exe_path, "it")
        reason = why.message if why is not None else ""
        self.say(f"{not_traced(pid, exe, reason)}." if reason else f"pid {pid} executed {printable(exe)}.")
        self._begin(time.monotonic_ns())
        return not reason


class Traced(Target):
    """A target with its probes in place. Use `attached`."""

    def __init__(
        self,
        session: Session,
        symbols: Symbols | None,
        stop: StopRequest,
        say: Say,
        duration: int | None = None,
        command: Command | None = None,
        held: Exec | None = None,
        children: Children | None = None,
    ) -> None:
        super().__init__(cast(Process, session.process), stop, say, duration)
        self.session = session
        self.symbols = symbols  # only where a probe takes stacks
        self.command = command
        self.children = children  # only where the probe gc is
        self._held = held

    def release(self) -> None:
        """Let a launched command run: from then on time and events count. Of a process they do since it was attached."""
        if self.command is None:
            self._release(self.session.begin_ns)
        else:
            self.session.calibrate()  # before it runs: whoever is at that sees too late when a short command has ended
            super().release()
            self.session.begin_ns = self.begin_ns
            if self._held is not None:
                self._held.release()
                self.command.count_time(self.begin_ns)
            else:
                self.command.release(self.begin_ns)

    def wait(self, seconds: float) -> bool:
        return self.session.wait(seconds, *self.wakes)

    def executed_ns(self) -> int:
        return self.session.executed_ns

    def closing(self, ended: str) -> dict[str, Any]:
        return closing(self.session, self.ran_ns(), ended)

    def _begin(self, begin_ns: int) -> None:
        super()._begin(begin_ns)
        self.session.open_windows()

    def _end(self, end_ns: int) -> None:
        super()._end(end_ns)
        self.session.end_ns = end_ns
        self.session.close_windows()

    def settle(self) -> None:
        # Of who has exited nothing is on its way, but what is added up until a clock's next tick; who executes a program is
        # held until we are done.
        exited = self.ended == EXITED
        tick_ns = max((part.probe.tick_ns for part in self.session.parts.values()), default=0) if exited else 0
        if self.ended == EXECUTED or (exited and not tick_ns):
            return
        time.sleep(max(0, self.end_ns + tick_ns + DELAY_NS - time.monotonic_ns()) / 1e9)

    def is_over(self) -> bool:
        return self.command.is_over() if self.command is not None else super().is_over()

    def next_program(self) -> bool:
        while self.session.executed_ns:
            over = self.is_over()  # asked first: what became of a program was reported before that could end
            told = self.session.next_program(0 if over else POLL_NS / 1e9)
            if told is None and over:
                return False
            if told is None:
                continue
            if told.reason:
                waits = "" if self.command is None else "; tracing the next Go program that it executes"
                self.say(f"{not_traced(told.pid, told.exe, told.reason)}{waits}.")
                if self.command is None:
                    return False
                continue
            since = f"{duration_text(told.late_ns)} after" if told.late_ns else "from"
            version = f" ({self.session.plan.go_version})" if self.session.plan.go_version else ""
            self.say(f"pid {told.pid} executed {printable(told.exe)}{version}: traced {since} its first instruction.")
            self.process = cast(Process, self.session.process)
            if self.children is not None:
                self.children.pid = told.pid
            if self.symbols is not None:
                self.symbols.turn_to(self.process, self.session.mapped)
            if self.command is not None:
                self.command.traced(told.pid)
            self._begin(self.session.begin_ns)
            return True
        return False

    def exit_status(self) -> int:
        """Of a launched command, once it has ended."""
        return self.command.exit_status() if self.command is not None else 0


@contextlib.contextmanager
def attached(
    stems: Sequence[str],
    pid: int | None,
    command: Sequence[str] = (),
    duration: int | None = None,
    say: Say = lambda _: None,
    gives_root_back: bool = False,
    unused: Collection[str] = (),
    sample_ns: int = 0,
    sampled: Sequence[PmuEvent] = (),
    counters: Sequence[PmuEvent] = (),
    calibrated: bool = True,
    group: ControlGroup | None = None,
) -> Iterator[Traced]:
    """Probe a process, or the first Go program of a command, before its first instruction: `Target.release` it.

    ``stems`` name the probes; a ``group`` of processes may stand for one where no probe has to know its program. A command
    is waited for on the way out; ``duration`` are the nanoseconds after which it ends (None: when the target does, or at
    Ctrl-C). ``say`` is called with what happens.
    With ``gives_root_back`` we become who called sudo as soon as the probes are in place, unless a command has to be
    ended. Nothing of the installation can be read any more then, where the caller may not: modules ``unused`` neither.
    ``sample_ns``, ``sampled`` and ``counters`` are those of `session.opened`; ``calibrated``: measure what a hit costs.
    Raises GotraceError.
    """
    from gotrace import session
    from gotrace.probe import probe_module

    modules = [probe_module(stem) for stem in stems]
    stop = StopRequest()
    with contextlib.ExitStack() as stack:
        started = held = None
        if command:
            started = stack.enter_context(Command.started(command, duration, stop, say))
            if any(module.PROBE.go for module in modules):
                held = started.program()
            elif any(module.PROBE.later for module in modules):
                started.launched.run_to(_entry_of(started.launched.pid))
                if started.launched.poll() is not None:
                    raise GotraceError(f"{started.name} exited before its first instruction", "run it by itself to see why")
            pid = held.pid if held is not None else started.launched.pid
            if held is not None:
                stack.callback(held.release)
        if group is not None:
            process, pid = cast(Process, group), group.pid
        else:
            assert pid is not None
            process = stack.enter_context(Process.open(pid))
        if started is not None:
            started.traced(pid)
        elif any(module.PROBE.go for module in modules):
            require_go(process)
        follow = session.Follow.TREE if started is not None else session.Follow.PROCESS
        if all(module.PROBE.tree for module in modules):
            follow = session.Follow.NOTHING
        every = sample_ns or session.SAMPLE_NS
        tracing = stack.enter_context(
            session.opened(modules, process, every, counters=counters, sampled=sampled, follow=follow)
        )
        symbols = None
        columns = {column for module in modules for kind in module.PROBE.kinds for column in kind.columns}
        if any(module.PROBE.names_code for module in modules):
            from gotrace.runtime.symbols import Symbols

            symbols = stack.enter_context(Symbols.of(process, kernel="kernel_stack" in columns))
        if started is None:
            stack.enter_context(stop.installed())
            if calibrated:
                tracing.calibrate()
            tracing.begin()
        # Said when everything is in place: whoever waits for it may let the target go on, or end, at once.
        what = (
            f"pid {pid} ({program_text(process.exe_name, tracing.plan.go_version)})" if group is None else process.exe_name
        )
        say(f"Tracing {printable(what)}… Ctrl-C to end.")
        children = None
        if "gc" in stems:
            from gotrace.runtime.children import Children

            children = stack.enter_context(contextlib.closing(Children(pid)))
        if gives_root_back and started is None and caller() is not None:
            if children is not None:
                children.look()  # the caller may not
            # The caller may not be able to read where gotrace is installed. This takes a while, but probes wait for no one.
            from gotrace.late import keep_the_rest

            keep_the_rest("gotrace", unused)
            drop_to_caller()  # a launched command stays root's, and so must we to end it
        traced = Traced(tracing, symbols, stop, say, duration, started, held, children)
        if group is not None:
            traced.until = group.gone
        yield traced


@contextlib.contextmanager
def untraced(pid: int, duration: int | None = None, say: Say = lambda _: None) -> Iterator[Target]:
    """A process to look at, without a probe; the arguments as in `attached`."""
    stop = StopRequest()
    with Process.open(pid) as process, stop.installed():
        require_go(process)
        yield Target(process, stop, say, duration)


@contextlib.contextmanager
def watched(
    stems: Sequence[str],
    pid: int | None,
    command: Sequence[str] = (),
    duration: int | None = None,
    say: Say = lambda _: None,
    counters: Sequence[PmuEvent] = (),
    calibrated: bool = True,
) -> Iterator[Target]:
    """`attached`, or `untraced` where there are no ``stems``: raises ValueError if there is no ``pid`` then."""
    with contextlib.ExitStack() as stack:
        if stems:
            yield stack.enter_context(
                attached(stems, pid, command, duration, say, counters=counters, calibrated=calibrated)
            )
        elif pid is not None:
            yield stack.enter_context(untraced(pid, duration, say))
        else:
            raise ValueError("these views need no probes, so a pid is required")


_COSTS = ("probe_hits", "target_ns_estimate", "tool_cpu_s", "tool_rss_bytes")
# `closing` of a run that traced nothing, and the cost of one that nobody noted.
NO_COST: dict[str, Any] = {"received": 0, "lost": 0, "cost": dict.fromkeys(_COSTS, 0)}
UNKNOWN_COST: dict[str, None] = dict.fromkeys(_COSTS)


def closing(session: Session, duration_ns: int, ended: str) -> dict[str, Any]:
    """How a run ended and what it cost: what the summary reports, and a recording keeps."""
    return {
        "duration_ns": duration_ns,
        "ended": ended,
        "received": session.received,
        "lost": session.lost,
        "cost": dataclasses.asdict(session.cost()),
    }

"""Tracing starts as they happen: attaching to a program's file, running the command, and ending it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gotrace import session
from gotrace.analysis.coldstart import ITSELF, REPLACED
from gotrace.analysis.containers import Starts
from gotrace.analysis.timeline import LINKER, Start
from gotrace.binary.elf import Elf
from gotrace.binary.startup import linker_of
from gotrace.errors import UntraceableError
from gotrace.kernel.calibrate import install_cost_ns
from gotrace.kernel.executable import Executable, Filter, cgroup_of, pid_namespace_of
from gotrace.kernel.host import kernel_pid
from gotrace.kernel.launch import Spawned, program_path
from gotrace.run.files import complain_of
from gotrace.run.recorder import Recorder
from gotrace.run.refusal import refusal, start_command
from gotrace.run.starts import QUOTAS, Result, decoder_of, result_of
from gotrace.run.target import EXITED, Command, LeftBehind, Loop, Say, StopRequest, Traced, closing
from gotrace.text import count_text, printable

if TYPE_CHECKING:
    from gotrace.probe import ProbeModule
    from gotrace.run.start_advice import Advisor, Names

_POLL_NS = 20_000_000
_PATIENCE_S = 10.0
_LATE_S = 1.0
_RUN_NS = struct.Struct("=Q")  # how struct start of ebpf/coldstart.bpf.c begins


@dataclass(frozen=True)
class Wanted:
    """What is to be traced, as `gotrace coldstart`'s options say it."""

    exe: str | None
    command: tuple[str, ...]
    runs: int
    warmup: int
    until: tuple[str, int]
    cgroup: str | None = None
    pid_ns: str | None = None
    cache: str = "as-is"
    low_detail: bool = False
    containers: bool = False
    copies: bool = False
    advise: bool = False


def trace(
    wanted: Wanted,
    recording: str | None,
    force: bool,
    say: Say = lambda _: None,
    progress: Say = lambda _: None,
) -> tuple[Result, int]:
    """Every start that was wanted, and the status to exit with. Raises GotraceError.

    ``recording`` is the file that keeps the events; ``say`` is called with what happens, ``progress`` with how far it is.
    """
    stop = StopRequest()
    with contextlib.ExitStack() as stack:
        target = target_of(wanted, say)
        tracing = stack.enter_context(attached(wanted, target, say))
        tracing.calibrate()
        stack.enter_context(stop.installed())
        live = _Live(wanted, target, tracing, stop, say, progress)
        if recording is not None:
            traced = Traced(tracing, None, stop, say)
            live.recorder = stack.enter_context(Recorder.opened(recording, force, traced))
        header = header_of(wanted, tracing)
        live.begin(header)
        ended = "error"
        try:
            ended = live.run()
        finally:
            end = closing(tracing, time.monotonic_ns() - header["clock"]["begin_ns"], ended)
            live.finish(end)
        for note in live.notes:
            say(f"gotrace: {note}")
        result = result_of(header, live.starts, end, _lacking(wanted, target))
        if live.advisor is not None:
            result = replace(result, advice=live.advisor.of(result.starts, end["lost"]))
        if live.names is not None:
            live.names.close()
        return result, live.status


def _lacking(wanted: Wanted, target: Executable) -> str:
    """What may be the reason if there was no start."""
    if wanted.command:
        return "the command never executed it; give the program that it starts with --exe"
    name = printable(target.exe_name)
    if wanted.copies:
        return f"neither {name} nor a copy was started in this time; a copy must have the same file name and the same size"
    return (
        f"{name} was not started in this time; another file with the same content, such as one in an image, counts only "
        "with --containers --copies, if its name and size are the same"
    )


def header_of(wanted: Wanted, tracing: session.Session) -> dict[str, Any]:
    """What gives the events their meaning, from now on; the session is calibrated."""
    about = {
        "until": {"what": wanted.until[0], "ns": wanted.until[1]},
        "command": list(wanted.command),
        "runs": wanted.runs,
        "cache": wanted.cache,
        "hit_ns": tracing.ns_per_hit[0],
        "install_ns": install_cost_ns(),
    }
    if wanted.containers:
        from gotrace.kernel import container_tools

        about["containers"] = container_tools.described()
    return {**tracing.header(time.monotonic_ns()), "coldstart": about}


def target_of(wanted: Wanted, say: Say) -> Executable:
    """The file that is waited for: a command that is a launcher is started, up to the program. Raises GotraceError."""
    path = wanted.exe
    if path is None:
        path = program_path(wanted.command[0])
        why = refusal(path, printable(wanted.command[0]))
        if isinstance(why, UntraceableError):
            raise why
        if why is not None:
            path = Command.first_program(wanted.command, say)
    path = os.path.realpath(path)
    with Elf.open(path) as elf:
        linker = linker_of(elf)
    cgroup, level = cgroup_of(wanted.cgroup) if wanted.cgroup else (0, 0)
    which = Filter(
        starter=kernel_pid(os.getpid()) if wanted.command else 0,
        cgroup=cgroup,
        cgroup_level=level,
        pid_namespace=pid_namespace_of(wanted.pid_ns) if wanted.pid_ns else 0,
    )
    tools: tuple[str, ...] = ()
    if wanted.containers:
        from gotrace.kernel import container_tools

        tools = container_tools.known()
        for name, reason in container_tools.refused().items():
            say(f"gotrace: stages within {name} are not traced: {printable(reason)}")
    return Executable(path, linker, which, *wanted.until, tools, copies=wanted.copies)


@contextlib.contextmanager
def attached(wanted: Wanted, target: Executable, say: Say) -> Iterator[session.Session]:
    """The probes of a start, in a file; said what cannot be traced. Raises GotraceError."""
    from gotrace.probes import coldstart, coldstart_containers, startcode

    modules: list[ProbeModule] = [coldstart, *([coldstart_containers] if wanted.containers else [])]
    modules += [startcode] if wanted.advise else []
    without = coldstart.DETAILS if wanted.low_detail else ()
    with contextlib.ExitStack() as stack:
        tracing = stack.enter_context(session.opened(modules, target, startcode.SAMPLE_NS, without))
        for item in (item for part in tracing.parts.values() for item in part.plan.missing):
            say(f"gotrace: {item.name} is not traced: {item.reason}")
        yield tracing


class _Awaited(Loop):
    """A command that runs, or a program that somebody may start, until enough was seen."""

    def __init__(
        self, stop: StopRequest, say: Say, wait: Callable[[float], bool | None], is_enough: Callable[[], bool]
    ) -> None:
        super().__init__(stop, say)
        self._wait, self._is_enough = wait, is_enough

    def wait(self, seconds: float) -> bool:
        return bool(self._wait(seconds))

    def enough(self) -> str:
        return "all seen" if self._is_enough() else ""


class _Live:
    """One run of tracing: reads events, starts and ends the command."""

    def __init__(
        self,
        wanted: Wanted,
        target: Executable,
        tracing: session.Session,
        stop: StopRequest,
        say: Say,
        progress: Say,
    ) -> None:
        self._wanted, self._target, self._tracing, self._stop, self._say = wanted, target, tracing, stop, say
        self._progress = progress
        self._say_once = functools.cache(say)  # of what each run may meet with
        self.recorder: Recorder | None = None
        self.advisor: Advisor | None = None
        self.names: Names | None = None
        self.starts: list[Start] = []
        self.notes: list[str] = []
        self.status = 0
        self._decoder: Starts
        self._libraries: tuple[str, ...] = ()

    def begin(self, header: dict[str, Any]) -> None:
        self._decoder = decoder_of(header)
        if self._wanted.advise:
            from gotrace.analysis.start_code import Collector
            from gotrace.probes.startcode import SAMPLE_NS
            from gotrace.run.start_advice import Advisor, Names

            self.names = Names(self._target.exe_path)
            collector = Collector(header, self.names.functions, self.names.kernel, SAMPLE_NS)
            self.advisor = Advisor(header, collector)
        if self.recorder is not None:
            self.recorder.begin(header)

    def run(self) -> str:
        """Until every start that is wanted was seen; why it ended."""
        if self._wanted.command:
            return self._run_command()
        count = "its next start" if self._wanted.runs == 1 else f"its next {self._wanted.runs} starts"
        target = f"{printable(self._target.exe_name)} ({self._tracing.plan.go_version})"
        self._say(f"Waiting for {count}: {target}… Ctrl-C to end.")
        awaited = _Awaited(self._stop, self._say, self._target.wait, lambda: self._seen() >= self._wanted.runs)
        awaited.release()
        for _ in awaited.polls(_POLL_NS, self._failed):
            self._read()
            self._progress(f"{self._seen()} of {self._wanted.runs} seen")
        return awaited.ended

    def _seen(self) -> int:
        return sum(start.ended != ITSELF for start in self.starts)

    def _run_command(self) -> str:
        wanted = self._wanted
        warmup = max(wanted.warmup, wanted.cache != "as-is")  # whose libraries are looked up
        for number in range(warmup + wanted.runs):
            counted = f"{number + 1 - warmup} of {wanted.runs}"
            self._progress(counted if number >= warmup else "warming up")
            if number and wanted.cache != "as-is":
                self._prepare_cache(number == warmup)
            found = self._one_run(recorded=number >= warmup)
            if number < warmup:
                self._libraries = self._libraries or tuple(_libraries(found))
            else:
                self.starts += found
            if self._stop.signal or self._failed():
                return self._stop.signal or "output error"
        return "all seen"

    def _one_run(self, recorded: bool) -> list[Start]:
        """Start the command; its first start ends it, or it ends by itself. What was started by then."""
        found: list[Start] = []
        began_ns = time.monotonic_ns()
        child = start_command(list(self._wanted.command), Spawned)
        left = LeftBehind(lambda: not self._running(began_ns), self._wanted.command[0], self._say_once)
        # One that was cut off by another execve is no reason to end the command.
        cut_off = (REPLACED, ITSELF)
        seen = _Awaited(
            self._stop,
            self._say,
            lambda seconds: child.wait(seconds) and (bool(found) or left.is_over(seconds)),
            lambda: any(start.ended not in cut_off for start in found),
        )
        seen.release()
        try:
            for _ in seen.polls(_POLL_NS, lambda: recorded and self._failed()):
                found += self._read(recorded)
        finally:
            if seen.ended == EXITED or child.wait(0):
                self.status = child.exit_code()
            else:
                child.end(_PATIENCE_S)
        # Of what ended with it the events may still be on their way: where a thread lost its CPU while it reported, longer.
        deadline = time.monotonic() + _LATE_S
        for number in itertools.count(1):
            time.sleep(_POLL_NS / 2e9)
            found += self._read(recorded)
            complete = found and not self._decoder.under_way
            if number >= 2 and (complete or time.monotonic() > deadline):
                break
        found += self._decoder.close(time.monotonic_ns())
        if not self._wanted.containers:  # one that was to run in the background is a container tool's matter
            self._end({start.pid for start in found}, began_ns)
        return found

    def _running(self, began_ns: int) -> set[int]:
        """The processes of the run that began then; none, where gotrace does not know their numbers."""
        if not self._target.which.starter:
            return set()
        table = self._tracing.parts["coldstart"].loaded.maps["pending"].items()
        return {int.from_bytes(key, sys.byteorder) for key, value in table if _RUN_NS.unpack_from(value)[0] >= began_ns}

    def _end(self, pids: set[int], began_ns: int) -> None:
        """End what of these still runs: the command has not, that started them in the background."""
        deadline = time.monotonic() + _PATIENCE_S
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = pids & self._running(began_ns)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while left and time.monotonic() < deadline:
                time.sleep(_POLL_NS / 1e9)
                left &= self._running(began_ns)

    def _read(self, recorded: bool = True) -> list[Start]:
        now = time.monotonic_ns()
        events = self._tracing.read()
        if self.recorder is not None and recorded:
            self.recorder.add(events, self._tracing.lost)
        if self.advisor is not None and recorded:
            self.advisor.feed(events)
        found = self._decoder.feed(events, now)
        if self.advisor is not None and recorded:
            for start in found:
                self.advisor.look(start)
        if not self._wanted.command:
            self.starts += found
        return found

    def _failed(self) -> bool:
        return self.recorder is not None and self.recorder.failure is not None

    def _prepare_cache(self, told: bool) -> None:
        """Drop or read every file that a start reads; what could not be dropped is said once."""
        from gotrace.kernel import page_cache

        files = dict.fromkeys(filter(None, (self._target.exe_path, self._target.linker, *self._libraries)))
        for path in files:
            if self._wanted.cache == "warm":
                with open(path, "rb") as file:
                    while file.read(1 << 20):
                        pass
                continue
            dropped = page_cache.drop(path)
            if told and dropped.after:
                self.notes.append(
                    f"{dropped.after} of {count_text(dropped.pages, 'page')} of {printable(path)} could not be dropped: "
                    "mapped by another process, or not on a disk"
                )
        ahead = page_cache.read_ahead_kb(self._target.exe_path)
        if told and self._wanted.cache == "cold" and ahead is not None:
            self.notes.append(f"the disk of {printable(self._target.exe_path)} reads {ahead} KiB ahead (read_ahead_kb)")

    def finish(self, end: dict[str, Any]) -> None:
        """Whatever was not over when tracing ended is a start too."""
        self._read()
        self.starts += self._decoder.close(time.monotonic_ns())
        if self.recorder is not None:
            if self.advisor is not None and self.names is not None:
                self.advisor.code_of(self.starts)
                self.recorder.names(self.names.asked)
                answers = {QUOTAS: [self.advisor.quotas]}
                self.recorder.answers({"last": True, "now_ns": time.monotonic_ns(), "answers": answers, "in_progress": []})
            self.recorder.end(end)
            complain_of(self.recorder)


def _libraries(starts: list[Start]) -> Iterator[str]:
    """The files that the dynamic linker mapped."""
    for start in starts:
        for row in start.rows:
            if row.stage == LINKER and row.depth == 1 and "mapped" in row.detail and os.path.isfile(row.name):
                yield os.path.realpath(row.name)

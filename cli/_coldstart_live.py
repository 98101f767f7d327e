"""Tracing starts as they happen: attaching to a program's file, running the command, and ending it."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gotrace import session
from gotrace.analysis.coldstart import Decoder
from gotrace.analysis.timeline import LINKER, Start
from gotrace.binary.elf import Elf
from gotrace.binary.startup import linker_of
from gotrace.cli._coldstart_run import Result, about, require_starts
from gotrace.cli._gc_run import closing, complain_of
from gotrace.cli._recorder import Recorder
from gotrace.cli._target import StopRequest, Traced
from gotrace.errors import BinaryError, UsageError
from gotrace.kernel.calibrate import install_cost_ns
from gotrace.kernel.executable import Executable, Filter, cgroup_of, pid_namespace_of
from gotrace.kernel.host import kernel_pid
from gotrace.kernel.launch import Spawned
from gotrace.text import printable

_POLL_S = 0.02
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Wanted:
    """What is to be traced, as `gotrace coldstart`'s options say it."""

    exe: str | None
    command: tuple[str, ...]
    cgroup: str | None
    pid_ns: str | None
    runs: int
    warmup: int
    until: tuple[str, int]
    cache: str
    low_detail: bool


def trace(wanted: Wanted, recording: str | None, force: bool) -> tuple[Result, int]:
    """Every start that was wanted, and the status to exit with. Raises GotraceError."""
    stop = StopRequest()
    with contextlib.ExitStack() as stack:
        target = _target(wanted)
        tracing = stack.enter_context(_attached(wanted, target))
        tracing.calibrate()
        header_more = {
            "until": {"what": wanted.until[0], "ns": wanted.until[1]},
            "command": list(wanted.command),
            "runs": wanted.runs,
            "cache": wanted.cache,
            "hit_ns": tracing.ns_per_hit[0],
            "install_ns": install_cost_ns(),
        }
        stack.enter_context(stop.installed())
        live = _Live(wanted, target, tracing, stop)
        if recording is not None:
            traced = Traced(tracing, None, None, stop)
            live.recorder = stack.enter_context(Recorder.opened(recording, force, traced))
        header = {**tracing.header(time.monotonic_ns()), "coldstart": header_more}
        live.begin(header)
        ended = "error"
        try:
            ended = live.run()
        finally:
            end = closing(tracing, time.monotonic_ns() - header["clock"]["begin_ns"], ended)
            live.finish(end)
        starts = sorted(live.starts, key=lambda start: start.exec_ns)
        starts = starts if wanted.command else starts[: wanted.runs]
        for note in live.notes:
            print(f"gotrace: {note}", file=sys.stderr)
        lacking = (
            "the command never executed it; with --exe name the program that it starts"
            if wanted.command
            else f"nobody started {printable(target.exe_name)} meanwhile"
        )
        require_starts(starts, lacking)
        return Result(header, starts, about(end, starts, header)), live.status


def _target(wanted: Wanted) -> Executable:
    path = wanted.exe
    if path is None:
        path = shutil.which(wanted.command[0])
        if path is None:
            hint = "check the command after `--`: its spelling, its permissions, your PATH"
            raise UsageError(f"cannot run {printable(wanted.command[0])}: there is no such program", hint)
    path = os.path.realpath(path)
    with _hinting_at_exe(wanted), Elf.open(path) as elf:
        linker = linker_of(elf)
    cgroup, level = cgroup_of(wanted.cgroup) if wanted.cgroup else (0, 0)
    which = Filter(
        starter=kernel_pid(os.getpid()) if wanted.command else 0,
        cgroup=cgroup,
        cgroup_level=level,
        pid_namespace=pid_namespace_of(wanted.pid_ns) if wanted.pid_ns else 0,
    )
    return Executable(path, linker, which, *wanted.until)


@contextlib.contextmanager
def _hinting_at_exe(wanted: Wanted) -> Iterator[None]:
    """A command that is no Go program may start one."""
    try:
        yield
    except BinaryError as error:
        if wanted.exe is None:
            raise BinaryError(error.message, "if it starts a Go program, name that: --exe PATH") from None
        raise


@contextlib.contextmanager
def _attached(wanted: Wanted, target: Executable) -> Iterator[session.Session]:
    module = importlib.import_module("gotrace.probes.coldstart")
    without = module.DETAILS if wanted.low_detail else ()
    with contextlib.ExitStack() as stack:
        with _hinting_at_exe(wanted):
            tracing = stack.enter_context(session.opened([module], target, without=without))
        for item in tracing.plan.missing:
            print(f"gotrace: {item.name} cannot be seen: {item.reason}", file=sys.stderr)
        yield tracing


class _Live:
    """One run of tracing: reads events, starts and ends the command."""

    def __init__(self, wanted: Wanted, target: Executable, tracing: session.Session, stop: StopRequest) -> None:
        self._wanted, self._target, self._tracing, self._stop = wanted, target, tracing, stop
        self.recorder: Recorder | None = None
        self.starts: list[Start] = []
        self.notes: list[str] = []
        self.status = 0
        self._decoder: Decoder
        self._libraries: tuple[str, ...] = ()

    def begin(self, header: dict[str, Any]) -> None:
        from gotrace.probes.coldstart import decoder

        self._decoder = decoder(header)
        if self.recorder is not None:
            self.recorder.begin(header)

    def run(self) -> str:
        """Until every start that is wanted was seen; why it ended."""
        if self._wanted.command:
            return self._run_command()
        count = "its next start" if self._wanted.runs == 1 else f"its next {self._wanted.runs} starts"
        target = f"{printable(self._target.exe_name)} ({self._tracing.plan.go_version})"
        print(f"Waiting for {count}: {target}… Ctrl-C to end.", file=sys.stderr, flush=True)
        while len(self.starts) < self._wanted.runs:
            if self._stop.signal or self._failed():
                return self._stop.signal or "an output that cannot be written"
            self._target.wait_exit(_POLL_S)
            self._read()
        return "all seen"

    def _run_command(self) -> str:
        wanted = self._wanted
        warmup = max(wanted.warmup, wanted.cache != "as-is")  # whose libraries are looked up
        for number in range(warmup + wanted.runs):
            if number and wanted.cache != "as-is":
                self._prepare_cache(number == warmup)
            found = self._one_run(recorded=number >= warmup)
            if number < warmup:
                self._libraries = self._libraries or tuple(_libraries(found))
            else:
                self.starts += found
            if self._stop.signal or self._failed():
                return self._stop.signal or "an output that cannot be written"
        return "all seen"

    def _one_run(self, recorded: bool) -> list[Start]:
        """Start the command; its first start ends it, or it ends by itself. What was started meanwhile."""
        found: list[Start] = []
        child = Spawned(list(self._wanted.command))
        exited = False
        try:
            while not (found or exited or self._stop.signal or (recorded and self._failed())):
                exited = child.wait(_POLL_S)
                found += self._read(recorded)
        finally:
            if exited or child.wait(0):
                self.status = child.exit_code()
            else:
                child.end(_PATIENCE_S)
        # Of what ended with it the events may still be on their way.
        for _ in range(2):
            time.sleep(_POLL_S / 2)
            found += self._read(recorded)
        return found + self._decoder.close(time.monotonic_ns())

    def _read(self, recorded: bool = True) -> list[Start]:
        now = time.monotonic_ns()
        events = self._tracing.read()
        if self.recorder is not None and recorded:
            self.recorder.add(events, self._tracing.lost)
        found = self._decoder.feed(events, now)
        if not self._wanted.command:
            self.starts += found
        return found

    def _failed(self) -> bool:
        return self.recorder is not None and self.recorder.failure is not None

    def _prepare_cache(self, say: bool) -> None:
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
            if say and dropped.after:
                self.notes.append(
                    f"{dropped.after} of {dropped.pages} pages of {printable(path)} could not be dropped: mapped by "
                    "another process, or not on a disk"
                )
        ahead = page_cache.read_ahead_kb(self._target.exe_path)
        if say and self._wanted.cache == "cold" and ahead is not None:
            self.notes.append(f"the disk of {printable(self._target.exe_path)} reads {ahead} KiB ahead (read_ahead_kb)")

    def finish(self, end: dict[str, Any]) -> None:
        """Whatever was not over when tracing ended is a start too."""
        self._read()
        self.starts += self._decoder.close(time.monotonic_ns())
        if self.recorder is not None:
            self.recorder.end(end)
            complain_of(self.recorder)


def _libraries(starts: list[Start]) -> Iterator[str]:
    """The files that the dynamic linker mapped."""
    for start in starts:
        for row in start.rows:
            if row.stage == LINKER and row.depth == 1 and "mapped" in row.detail and os.path.isfile(row.name):
                yield os.path.realpath(row.name)

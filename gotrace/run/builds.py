"""Builds by a go command, or trees of processes of any other: traced as they happen, or read from a recording."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from gotrace import session
from gotrace.analysis.builds.build import Build, builds
from gotrace.analysis.builds.processes import Decoder
from gotrace.analysis.columns import Kinds
from gotrace.errors import BinaryError, GotraceError, HostError
from gotrace.kernel.executable import Executable, Filter
from gotrace.kernel.host import kernel_pid
from gotrace.kernel.launch import Spawned, program_path
from gotrace.recording import format as form
from gotrace.records.builds import build_record, summary_record
from gotrace.run.files import complain_of
from gotrace.run.recorder import Recorder
from gotrace.run.refusal import start_command
from gotrace.run.starts import Result
from gotrace.run.target import Say, StopRequest, Traced, closing
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.kernel.ring import Events
    from gotrace.recording.reader import Recording

_POLL_S = 0.005  # a list of packages is there until the go command has ended
_LIST_BYTES = 4 << 20
_LATE_S = 0.02
_ANSWER = "importcfg"
NO_GO = "no go command"  # in place of its version
ALL_SEEN = "all seen"


@dataclass(frozen=True)
class Builds:
    """Every run of a command; ``about`` is how tracing ended (`closing`'s)."""

    header: dict[str, Any]
    builds: list[Build]
    about: dict[str, Any]

    @property
    def command(self) -> list[str]:
        return list(self.header["build"]["command"])

    def starts(self) -> Result:
        """As starts, to compare them with those of another recording."""
        return Result(self.header, [build.start() for build in self.builds], self.about)


def go_version_of(program: str) -> str:
    """That of a go command, whatever it is called: by its main package's path in its build information; "" of others."""
    from gotrace.binary.buildinfo import read_build_info
    from gotrace.binary.elf import Elf

    path = shutil.which(program)
    with contextlib.suppress(BinaryError, OSError):
        if path is not None:
            with Elf.open(os.path.realpath(path)) as elf:
                info = read_build_info(elf)
                return info.go_version if info is not None and info.path == "cmd/go" else ""
    return ""


def trace(
    command: tuple[str, ...],
    runs: int,
    warmup: int,
    recording: str | None,
    force: bool,
    progress: Say = lambda _: None,
) -> tuple[Builds, int]:
    """Run ``command`` so often, and its status of the last run. Raises GotraceError."""
    path = program_path(command[0])
    starter = kernel_pid(os.getpid())
    if not starter:
        raise HostError("in a PID namespace, gotrace cannot tell its own pid in the kernel", "run it on the host")
    from gotrace.probes import tree

    stop = StopRequest()
    # The probe knows no program: it runs as if in our own executable.
    target = Executable(os.path.realpath("/proc/self/exe"), "", Filter(starter=starter), "", 0)
    with contextlib.ExitStack() as stack:
        tracing = stack.enter_context(session.opened([tree], target))
        stack.enter_context(stop.installed())
        recorder = None
        if recording is not None:
            recorder = stack.enter_context(Recorder.opened(recording, force, Traced(tracing, None, stop, lambda _: None)))
        header = tracing.header(time.monotonic_ns())
        header["build"] = {"command": list(command), "runs": runs, "starter": starter}
        header["target"] |= {"exe": path, "go_version": go_version_of(path) or NO_GO}
        if recorder is not None:
            recorder.begin(header)
        live = _Live(tracing, decoder_of(header), recorder)
        status = 0
        for number in range(warmup + runs):
            progress(f"{number + 1 - warmup} of {runs}" if number >= warmup else "warming up")
            live.counts = number >= warmup
            status = live.run(list(command), stop)
            if stop.signal:
                break
        end = closing(tracing, time.monotonic_ns() - header["clock"]["begin_ns"], stop.signal or ALL_SEEN)
        if recorder is not None:
            recorder.end(end)
            complain_of(recorder)
        return _result(header, live.decoder, live.lists, end, time.monotonic_ns()), status


class _Live:
    def __init__(self, tracing: session.Session, decoder: Decoder, recorder: Recorder | None) -> None:
        self._tracing, self.decoder, self._recorder = tracing, decoder, recorder
        self.lists: dict[str, str | None] = {}
        self.counts = True  # not a run to warm up

    def run(self, command: list[str], stop: StopRequest) -> int:
        """Once; its exit code. What we have to end, because we were asked to, is as it was then."""
        child = start_command(command, Spawned)
        while not child.wait(_POLL_S):
            self._read()
            if stop.signal:
                child.interrupt()
                break
        deadline = time.monotonic() + 1
        while not self.decoder.ended(child.pid) and time.monotonic() < deadline:
            time.sleep(_LATE_S)
            self._read()
        if not self.counts:
            self.decoder.trees.clear()
        return child.exit_code()

    def _read(self) -> None:
        events = self._tracing.read()
        self.decoder.feed(events)
        new = {path: _text_of(path) for path in self.decoder.to_read()}
        self.lists.update(new)
        if self._recorder is not None and self.counts:
            self._recorder.add(events, self._tracing.lost)
            if new:
                self._recorder.answers(_told({_ANSWER: [new]}))


def _told(answers: dict[str, Any]) -> dict[str, Any]:
    return {"last": False, "now_ns": time.monotonic_ns(), "answers": answers, "in_progress": []}


def _text_of(path: str) -> str | None:
    """A list of packages; None if it cannot be read any more, or is no regular file of a size that one has."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, errors="replace") as file:
            text = file.read(_LIST_BYTES + 1)
            return text if len(text) <= _LIST_BYTES else None
    return None


def decoder_of(header: dict[str, Any]) -> Decoder:
    return Decoder(Kinds.of_probe(header, "tree"), header["build"]["starter"])


def _result(
    header: dict[str, Any],
    decoder: Decoder,
    lists: dict[str, str | None],
    end: dict[str, Any],
    now_ns: int,
) -> Builds:
    found = builds(decoder.trees, lists, now_ns)
    if not found:
        raise GotraceError("no run of the command was observed", "check that it is executable")
    return Builds(header, found, {**end, "builds": len(found)})


def replayed(source: Recording) -> Builds:
    """Every run in a recording. Raises GotraceError when there is none."""
    decoder, lists, last_ns = decoder_of(source.header), {}, int(source.header["clock"]["begin_ns"])
    for chunk in source.chunks():
        events: Events = chunk.events
        decoder.feed(events)
        last_ns = max(last_ns, int(events["time_ns"].max(initial=0)))
        for note in chunk.notes:
            if note.kind == form.ANSWERS:
                for each in json.loads(note.data)["answers"].get(_ANSWER, []):
                    lists.update(each)
    unknown = {"duration_ns": 0, "ended": "recording truncated", "received": 0, "lost": source.lost, "cost": None}
    return _result(source.header, decoder, lists, source.end or unknown, last_ns)


def records(result: Builds) -> Iterator[dict[str, Any]]:
    """The builds and a summary as JSON objects."""
    for number, build in enumerate(result.builds):
        yield build_record(build, number, int(result.header["clock"]["wall_offset_ns"]))
    yield summary_record(result.builds, result.about)


def write(result: Builds, file: BinaryIO, format_: str, told: Sequence[Sequence[str]]) -> None:
    """In one of `formats.BUILDS` but a table and a recording; ``told`` are sentences about each build, for pictures."""
    title = printable(" ".join(result.command))
    if format_ == "perfetto":
        from gotrace.export.build_perfetto import write_trace

        write_trace(file, result.builds, title, result.header["clock"])
    elif format_ in ("svg", "html"):
        from gotrace.export.build_page import draw

        file.write((draw.html if format_ == "html" else draw.svg)(result.builds, title, told).encode())
    else:
        lines = [json.dumps(record) for record in records(result)]
        text = "[\n" + ",\n".join(lines) + "\n]\n" if format_ == "json" else "".join(f"{line}\n" for line in lines)
        file.write(text.encode())

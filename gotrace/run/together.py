"""Several processes at once: found, traced by `SharedProbes`, and each looked at by views of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from gotrace.errors import GotraceError, NoRoomError, TargetError
from gotrace.kernel.process import Process
from gotrace.probe import DELAY_NS, FOREVER_NS, probe_module
from gotrace.run.files import complain_of, of_process
from gotrace.run.outputs import Output, watch
from gotrace.run.recorder import Recorder
from gotrace.run.refusal import require_go
from gotrace.run.sources import Live
from gotrace.run.target import EXECUTED, EXITED, NOT_LOOKING, POLL_NS, Looking, Say, StopRequest, Traced
from gotrace.shared import SharedProbes, SharedSession
from gotrace.text import count_text
from gotrace.views.view import Record, View, records_of

_FIND_NS = 2_000_000_000  # how often others are looked for
_MOST_NAMED = 8


@dataclass
class Ending:
    """Why tracing ends for all, and since when (CLOCK_MONOTONIC); "" while it does not."""

    why: str = ""
    at_ns: int = 0


class Member(Traced):
    """One of several processes: whoever reads for all of them waits for all of them, too."""

    def __init__(self, session: SharedSession, probes: SharedProbes, stop: StopRequest, ending: Ending, say: Say) -> None:
        super().__init__(session, session.symbols, stop, say)
        self._probes = probes
        self._ending = ending

    def polls(self, interval: int, failed: Callable[[], bool], looking: Looking = NOT_LOOKING) -> Iterator[tuple[int, str]]:
        while not self.ended:
            now, why = time.monotonic_ns(), ""
            if executed_ns := self.executed_ns():
                now, why = max(executed_ns, self.begin_ns), EXECUTED
            elif self.process.wait(0):
                why = EXITED
            elif self._ending.why:
                now, why = self._ending.at_ns, self._ending.why
            elif failed():
                why = "output error"
            self.ended = why
            if why:
                self._end(now)
            yield now, why

    def settle(self) -> None:
        self._probes.read()


class Looked:
    """A process that was released, with its views, and where their records go, each with its pid."""

    def __init__(self, member: Member, views: Sequence[View], outputs: Sequence[Output], recorder: Recorder | None) -> None:
        self.member = member
        self.live = Live(member)
        watch(self.live, outputs)
        self._views, self.outputs, self._pid = views, outputs, member.process.pid
        if recorder is not None:
            self.live.recorder = recorder
            if recorded := {view.name: view.options for view in views if view.recorded}:
                self.live.header["views"] = recorded
            recorder.begin(self.live.header)
        for output in outputs:
            output.begin(self.live, views, 1)
        self._records = records_of(self.live, views)
        self.portion()  # what comes before the first events

    def portion(self) -> None:
        """Feed the views with what has come since then; of a process that is over, with all that is left."""
        for _, (view, records) in zip(self._views, self._records, strict=False):
            self._put(view, records)
        if self.live.last:
            for view, records in self._records:
                self._put(view, records)

    def end(self) -> None:
        """Of a process that is over: sum it up."""
        for output in self.outputs:
            output.end(self.live, self._views)

    def _put(self, view: View, records: list[Record]) -> None:
        if records:
            told = [{**record, "pid": self._pid} for record in records]
            for output in self.outputs:
                output.add(view, told)


class Files(Protocol):
    """Where records go: to outputs of all, and to those that each process has of its own."""

    @property
    def recording(self) -> str | None:
        """The path of a recording, named by `files.of_process` for each."""

    @property
    def force(self) -> bool: ...

    def of_process(self, pid: int) -> AbstractContextManager[Sequence[Output]]:
        """Those of all, and its own, which are closed on the way out."""

    def failed(self) -> bool:
        """Whether one of all failed."""


class Together:
    """The run of several processes. Use `trace_together`."""

    def __init__(
        self,
        probes: SharedProbes,
        views: Callable[[], Sequence[View]],
        files: Files,
        stop: StopRequest,
        say: Say,
    ) -> None:
        self.looked: dict[int, Looked] = {}
        self.refused = False
        self.ending = Ending()
        self._is_ready = False
        self._known: set[int] = set()
        self._probes, self._views, self._files = probes, views, files
        self._stop, self._say = stop, say

    def add(self, pids: Iterable[int]) -> None:
        """Trace more, all from one moment on; of one that cannot be traced, say why."""
        sessions = [session for pid in pids if pid not in self._known and (session := self._attached(pid))]
        self._probes.read()
        members = [Member(session, self._probes, self._stop, self.ending, self._say) for session in sessions]
        for session, member in zip(sessions, members, strict=True):
            session.begin()
            member.release()
        for session, member in zip(sessions, members, strict=True):
            self._look(session, member)

    def _attached(self, pid: int) -> SharedSession | None:
        self._known.add(pid)
        try:
            with Process.open(pid) as process:
                require_go(process)
            return self._probes.add(pid)
        except GotraceError as error:
            self.refused = True
            hint = f"; {error.hint}" if isinstance(error, NoRoomError) else ""
            self._say(f"pid {pid} cannot be traced: {error.message}{hint}.")
            return None

    def _look(self, session: SharedSession, member: Member) -> None:
        pid = session.process.pid
        recorder = None
        if self._files.recording is not None:
            path = of_process(self._files.recording, pid)
            recorder = session.holding(Recorder.opened(path, self._files.force, member))
        outputs = session.holding(self._files.of_process(pid))
        self.looked[pid] = Looked(member, self._views(), outputs, recorder)
        if self._is_ready:
            self._say(f"Tracing {self.looked[pid].live.name}.")

    def ready(self) -> None:
        """Said when everything is in place, once."""
        if not self._is_ready:
            names = ", ".join(each.live.name for each in self.looked.values())
            many = len(self.looked) > _MOST_NAMED
            self._say(f"Tracing {count_text(len(self.looked), 'process', 'processes') if many else names}… Ctrl-C to end.")
        self._is_ready = True

    def why_over(self, end_ns: int) -> str:
        """Why tracing has to end for all, or ""."""
        if self._stop.signal:
            return self._stop.signal
        if time.monotonic_ns() >= end_ns:
            return "duration"
        return "output error" if self._files.failed() else ""

    def portion(self) -> None:
        """What has come since then, of all."""
        self._probes.read()
        for each in self.looked.values():
            each.portion()
        # Where several end at once, their last lines stay in one table.
        for pid, each in [(pid, each) for pid, each in self.looked.items() if each.live.last]:
            each.end()
            ended = each.live.end["ended"]
            self._probes.remove(pid)
            del self.looked[pid]
            complain_of(each.live.recorder)
            self._known.discard(pid)
            if not self.ending.why:
                self._say(f"{each.live.name}: {ended}.")
            if ended == EXECUTED:
                self.add([pid])


def trace_together(
    stems: Sequence[str],
    find: Callable[[], Iterable[int]],
    goes_on: bool,
    views: Callable[[], Sequence[View]],
    files: Files,
    say: Say,
    duration: int | None = None,
) -> bool:
    """Trace every process that ``find`` finds by the probes ``stems``, each with ``views`` of its own; whether all were.

    It ends after ``duration`` nanoseconds, at Ctrl-C, or with the last of them. If it ``goes_on``, others are looked for
    all the time, and it does not end with the last; else it raises GotraceError if none can be traced.
    """
    stop = StopRequest()
    with stop.installed(), SharedProbes.opened([probe_module(stem) for stem in stems]) as probes:
        run = Together(probes, views, files, stop, say)
        find_ns, end_ns = time.monotonic_ns(), 0
        while not run.ending.why:
            if time.monotonic_ns() >= find_ns:
                run.add(find())
                if not (run.looked or goes_on):
                    raise TargetError("none of these processes can be traced", "`gotrace ps` lists the Go processes")
                run.ready()
                end_ns = end_ns or (time.monotonic_ns() + duration if duration is not None else FOREVER_NS)
                find_ns = time.monotonic_ns() + _FIND_NS if goes_on else FOREVER_NS
            time.sleep(max(0, min(POLL_NS, end_ns - time.monotonic_ns())) / 1e9)
            if why := run.why_over(end_ns):
                run.ending.at_ns, run.ending.why = min(time.monotonic_ns(), end_ns), why
                time.sleep(DELAY_NS / 1e9)  # until every event from before that is there
            run.portion()
            if not goes_on and not run.looked:
                break
        return not run.refused

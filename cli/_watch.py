"""Watching a process's memory, live or from a recording: what `gotrace mem`, `tlb` and `numa` have in common.

A `View` is one question about the process. It is fed the events of the probes that it needs, and asks its `Source` for
what only the machine can tell (`Source.ask`); a recording keeps the answers, so that the same view gives the same
records from it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TextIO, TypeVar

from gotrace import session
from gotrace.cli._gc_run import Sink, closing, complain_of, created
from gotrace.cli._looker import Looker
from gotrace.cli._target import POLL_NS, StopRequest, Traced, check_files
from gotrace.cli.export import format_of
from gotrace.errors import TargetError
from gotrace.kernel.process import Process
from gotrace.recording import format as form
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.analysis.histogram import Histogram
    from gotrace.analysis.pauses import Batch, GcDecoder
    from gotrace.cli._recorder import Recorder
    from gotrace.kernel.pmu import PmuEvent
    from gotrace.kernel.ring import Events
    from gotrace.recording.reader import Recording

Record = dict[str, Any]
Answer = TypeVar("Answer")

FORMATS = {"ndjson": (".ndjson", ".jsonl"), "gotrace": (".gotrace",), "html": (".html", ".htm")}


class Source:
    """Where a view's events and answers come from. ``header`` is `Session.header`'s.

    ``name`` says which process it is; ``now_ns`` is when the events were fetched, in CLOCK_MONOTONIC; ``last`` is True
    once no more will come.
    """

    header: Record
    last = False
    lost = 0
    now_ns = 0

    @property
    def name(self) -> str:
        target = self.header["target"]
        return f"pid {target['pid']} ({printable(target['exe'])}, {target['go_version']})"

    @property
    def begin_ns(self) -> int:
        return int(self.header["clock"]["begin_ns"])

    @property
    def wall_offset_ns(self) -> int:
        """What is added to CLOCK_MONOTONIC to get the time since the epoch."""
        return int(self.header["clock"]["wall_offset_ns"])

    def kind(self, stem: str, name: str) -> int:
        """The number of a kind of event."""
        return int(self.header["probes"][stem]["kinds"][name]["number"])

    def text(self, address: int, length: int) -> str:
        """What stands in the executable at a run-time address."""
        raise NotImplementedError

    def portions(self) -> Iterator[Events]:
        """The events as they come. What is asked before the next is fetched belongs to them."""
        raise NotImplementedError

    def ask(self, what: str, answer: Callable[[], Answer], due: bool = True) -> Answer | None:
        """What ``answer`` tells (something JSON can hold), if it is ``due``; None too when the process is gone."""
        raise NotImplementedError


class View:
    """One question about a process. ``stems`` are the probes whose events it is fed."""

    name: ClassVar[str]
    stems: tuple[str, ...] = ()
    source: Source

    @property
    def options(self) -> Record:
        """What it was made with: a recording keeps that, for the view that reads it."""
        return {}

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        """The records that are complete by now; ``batch`` is what the events of the probe gc come to."""
        yield from ()

    def end(self) -> Iterator[Record]:
        """The records that were waiting for the end; called once, when there are no more events."""
        yield from ()

    def heading(self) -> str:
        """What stands above the lines of `line`."""
        return ""

    def line(self, record: Record) -> str:
        """A record of `feed` for people, or "" if it is not for them alone."""
        return ""

    def summary(self) -> Iterator[str]:
        """What was seen, for people, a line each."""
        yield from ()

    def histograms(self) -> dict[str, Histogram]:
        """Of all that was seen, what took how long, by tags as `gotrace.export.hdr_log.tag` makes them."""
        return {}


class Live(Source):
    """A process. ``tracing`` is None where no probe is needed."""

    def __init__(
        self,
        process: Process,
        tracing: session.Session | None,
        stop: StopRequest,
        duration: int | None,
        poll_ns: int = POLL_NS,
    ) -> None:
        self.process = process
        self.tracing = tracing
        self._stop = stop
        self._duration = duration
        self._poll_ns = poll_ns
        self._gone = False
        self._answers: dict[str, list[Any]] = {}
        self.recorder: Recorder | None = None
        begin_ns = time.monotonic_ns()
        self.header = tracing.header(begin_ns) if tracing is not None else self._header(begin_ns)

    @cached_property
    def looker(self) -> Looker:
        return Looker(self.process)

    def _header(self, begin_ns: int) -> Record:
        places = self.looker.places
        target = {"pid": self.process.pid, "exe": self.process.exe_name, "go_version": places.go_version}
        clock = {"begin_ns": begin_ns, "wall_offset_ns": time.time_ns() - time.monotonic_ns()}
        return {"target": target, "clock": clock, "probes": {}}

    def text(self, address: int, length: int) -> str:
        return self.tracing.static_text(address, length) if self.tracing is not None else ""

    def portions(self) -> Iterator[Events]:
        from gotrace.kernel.ring import no_events

        why = ""
        end_ns = self.begin_ns + self._duration if self._duration is not None else None
        while not self.last:
            now = time.monotonic_ns()
            left = self._poll_ns if end_ns is None else min(self._poll_ns, max(0, end_ns - now))
            self._gone = self.process.wait_exit(left / 1e9) or self.process.exec_changed()
            why = "target exited" if self._gone else self._stop.signal or ""
            if not why and end_ns is not None and time.monotonic_ns() >= end_ns:
                why = "duration"
            if not why and self.recorder is not None and self.recorder.failure:
                why = "an output that cannot be written"
            self.last, self.now_ns = bool(why), time.monotonic_ns()
            events = no_events()
            if self.tracing is not None:
                events, self.lost = self.tracing.read(), self.tracing.lost
            if self.recorder is not None:
                self.recorder.add(events, self.lost)
            yield events
            if self.recorder is not None:
                self.recorder.answers({"last": self.last, "now_ns": self.now_ns, "answers": self._answers})
            self._answers = {}
        if self.recorder is not None and self.tracing is not None:
            self.recorder.end(closing(self.tracing, time.monotonic_ns() - self.begin_ns, why))

    def ask(self, what: str, answer: Callable[[], Answer], due: bool = True) -> Answer | None:
        if not due or self._gone:
            return None
        try:
            found = answer()
        except TargetError:
            if not (self.process.wait_exit(0.05) or self.process.exec_changed()):
                raise
            self._gone = True
            return None
        if self.recorder is not None:
            self._answers.setdefault(what, []).append(found)
        return found


class Replayed(Source):
    """The recording of a `Live`."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.header = recording.header
        self._answers: dict[str, list[Any]] = {}

    def text(self, address: int, length: int) -> str:
        return self._recording.text(address, length)

    def portions(self) -> Iterator[Events]:
        import numpy as np

        from gotrace.cli._replay import chunks

        waiting: list[Events] = []
        for chunk in chunks(self._recording):
            waiting.append(chunk.events)
            self.lost = self._recording.lost
            for note in chunk.notes:
                if note.kind == form.ANSWERS:
                    told = json.loads(note.data)
                    self.last, self.now_ns, self._answers = told["last"], told["now_ns"], told["answers"]
                    yield np.concatenate(waiting)
                    waiting = []
        if waiting and not self.last:
            self._answers = {}
            events = np.concatenate(waiting)
            self.now_ns = int(events["time_ns"].max(initial=self.now_ns))
            yield events

    def ask(self, what: str, answer: Callable[[], Answer], due: bool = True) -> Answer | None:
        waiting = self._answers.get(what)
        return waiting.pop(0) if waiting else None


@dataclass(frozen=True)
class Outputs:
    """Where records go: to the screen as a table or as ndjson, and to a file in one of `FORMATS`."""

    format: str
    path: str | None
    force: bool
    screen: TextIO

    @property
    def file_format(self) -> str | None:
        return format_of(self.path, FORMATS) if self.path is not None else None

    @classmethod
    def checked(cls, format_: str, path: str | None, force: bool) -> Outputs:
        """Raises before anything is watched what creating the file would raise."""
        outputs = cls(format_, path, force, sys.stdout)
        if outputs.file_format:
            check_files((path,), force)
        return outputs


def watch(
    pid: int,
    views: Sequence[View],
    duration: int | None,
    outputs: Outputs,
    poll_ns: int = POLL_NS,
    counters: Sequence[PmuEvent] = (),
) -> None:
    """Put ``views`` to a process for ``duration`` nanoseconds (None: until Ctrl-C or its end) and print what they tell.

    ``counters`` as in `session.opened`. Raises GotraceError.
    """
    stop = StopRequest()
    stems = list(dict.fromkeys(stem for view in views for stem in view.stems))
    modules = [importlib.import_module(f"gotrace.probes.{stem}") for stem in stems]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(Process.open(pid))
        tracing = stack.enter_context(session.opened(modules, process, counters=counters)) if modules else None
        live = Live(process, tracing, stop, duration, poll_ns)
        live.header["views"] = {view.name: view.options for view in views}
        if tracing is not None and outputs.file_format == "gotrace":
            from gotrace.cli._recorder import Recorder

            assert outputs.path is not None
            tracing.calibrate()
            traced = Traced(tracing, None, None, stop)
            live.recorder = stack.enter_context(Recorder.opened(outputs.path, outputs.force, traced))
            live.recorder.begin(live.header)
        if tracing is not None:
            print(f"Watching {live.name}… Ctrl-C to end.", file=sys.stderr, flush=True)
        stack.enter_context(stop.installed())
        run(live, views, outputs)
        complain_of(live.recorder)


def run(source: Source, views: Sequence[View], outputs: Outputs) -> None:
    """Feed ``views`` until the end, and print what they tell as they do. Of several, only the first has its lines shown."""
    with contextlib.ExitStack() as stack:
        file = None
        if outputs.file_format == "ndjson":
            assert outputs.path is not None
            file = Sink(created(outputs.path, outputs.force), outputs.path)
            stack.callback(file.close)
        screen, kept, headed = outputs.screen, [], False
        for view, record in records_of(source, views):
            if outputs.file_format == "html":
                kept.append(record)
            if file is not None:
                file.write(json.dumps(record) + "\n")
                file.flush()
                complain_of(file)
            if outputs.format != "table":
                print(json.dumps(record), file=screen, flush=True)
            elif view is views[0] and (line := view.line(record)):
                if not headed and view.heading():
                    print(view.heading(), file=screen)
                headed = True
                print(line, file=screen, flush=True)
        if outputs.format == "table":
            for view in views:
                for line in view.summary():
                    print(line, file=screen)
            if source.lost:
                print(f"{source.lost:,} events were LOST.", file=screen)
        if outputs.file_format == "html":
            from gotrace.export.memory_page import page

            assert outputs.path is not None
            with created(outputs.path, outputs.force) as made:
                made.write(page(source.name, kept))


def records_of(source: Source, views: Sequence[View]) -> Iterator[tuple[View, Record]]:
    """Feed ``views`` until the end: what each tells, as soon as it does."""
    for view in views:
        view.source = source
    decoder = _decoder(source)
    ended = False
    for events in source.portions():
        batch = decoder.feed(events) if decoder is not None else None
        for view in views:
            yield from ((view, record) for record in view.feed(events, batch))
        if source.last:  # what is asked now still belongs to these events
            ended = True
            yield from _ends(views)
    if not ended:
        yield from _ends(views)


def _ends(views: Sequence[View]) -> Iterator[tuple[View, Record]]:
    for view in views:
        yield from ((view, record) for record in view.end())


def _decoder(source: Source) -> GcDecoder | None:
    if "gc" not in source.header["probes"]:
        return None
    from gotrace.probes.gc import decoder

    return decoder(source.header, source.text)

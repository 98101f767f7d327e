"""Where views get their events and answers from: a process that is there, or a recording of one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.binary.program import Program
from gotrace.errors import GotraceError
from gotrace.kernel.numa import threads_here
from gotrace.kernel.ring import no_events, within
from gotrace.probe import FOREVER_NS
from gotrace.probes.gc import RESTARTS
from gotrace.recording import format as form
from gotrace.records.gc import MARK, OF_A_COPY, STOP
from gotrace.run.files import complain_of, numbered
from gotrace.run.target import EXECUTED, EXITED, NOT_LOOKING, POLL_NS, UNKNOWN_COST, Looking, Target, Traced
from gotrace.runtime.books import Books
from gotrace.text import duration_text, printable, program_text
from gotrace.views.view import Answer, Record, Source, View

if TYPE_CHECKING:
    from gotrace.analysis.stacks import Frame
    from gotrace.kernel.ring import Events
    from gotrace.recording.reader import Recording
    from gotrace.run.recorder import Recorder
    from gotrace.runtime.children import Children
    from gotrace.runtime.copies import Copies
    from gotrace.runtime.underway import Standing, UnderwayReader

# A stop of the world that has lasted so long is told while it lasts.
_LONG_NS = 100_000_000

# Events of a recording that are decoded at once: enough that what is done per call does not count, and some megabytes.
PORTION = 1 << 16


class Live(Source):
    """A process that is there: a `Target`, which was released. The ring is read every ``poll_ns`` at least.

    ``books`` are those of its runtime, where they were opened before.
    """

    def __init__(self, target: Target, poll_ns: int = POLL_NS, books: Books | None = None) -> None:
        self.process = target.process
        self.books = books or Books(target.process)
        self.tracing = target.session if isinstance(target, Traced) else None
        self.recorder: Recorder | None = None
        self.looking = NOT_LOOKING
        self._target = target
        self._poll_ns = poll_ns
        self._gone = False
        self._answers: dict[str, list[Any]] = {}
        self._stop_seen = (-1, 0)  # how many restarts there had been, and when it was seen first
        self._copies = self._copies_of()
        begin_ns = target.begin_ns
        self.header = self.tracing.header(begin_ns) if self.tracing is not None else self._header(begin_ns)

    @cached_property
    def underway(self) -> UnderwayReader | None:
        tracing = self.tracing
        books = tracing.parts["gc"].plan.facts.get("books") if tracing is not None and "gc" in tracing.parts else None
        if books is None:
            return None
        from gotrace.kernel.memory import KeptMemory
        from gotrace.runtime.underway import UnderwayReader

        memory = KeptMemory(self.process.pid, self.process.memory_fd)
        return UnderwayReader(books, tracing.parts["gc"].plan.config.get("work_cycles", 0), memory, tracing.bias)

    def _copies_of(self) -> Copies | None:
        """Who says what the probes of pauses cannot see, where there are such."""
        tracing = self.tracing
        if tracing is None or "gc" not in tracing.parts:
            return None
        from gotrace.kernel.memory import KeptMemory
        from gotrace.runtime.copies import Copies

        part = tracing.parts["gc"]
        work_cycles = part.plan.config.get("work_cycles", 0)
        memory = KeptMemory(self.process.pid, self.process.memory_fd)
        with contextlib.suppress(GotraceError):  # it has just ended
            address = work_cycles + tracing.bias if work_cycles and "cycle_end" in part.loaded.programs else 0
            return Copies(self.process, memory, address, lambda: part.hits["cycle_end"])
        return None

    def _look_for_copies(self) -> None:
        if self._copies is None or self._gone:
            return
        with contextlib.suppress(GotraceError):
            for path in self._copies.look(self.last):
                self._target.say(f"{printable(path)} contains Go code: {OF_A_COPY}.")

    def _closing(self, why: str) -> dict[str, Any]:
        copies, told = self._copies, None
        if copies is not None:
            told = {"libraries": copies.libraries, "cycles": copies.cycles, "children": self._collecting()}
        return self._target.closing(why) | {"not_seen": told}

    def _children(self) -> Children | None:
        """Those of a process that does not collect: it may be no more than a launcher."""
        if self._copies is None or self._copies.has_seen() or not isinstance(self._target, Traced):
            return None
        return self._target.children

    def _look_for_children(self) -> None:
        if (children := self._children()) is None:
            return
        for child in children.look(self.last):
            if child.pid != self.process.pid:
                what = program_text(child.exe, child.go_version)
                self._target.say(
                    f"pid {child.pid} ({what}), a child of pid {self.process.pid}, runs GC cycles and is not traced: "
                    f"gotrace gc --pid {child.pid}"
                )

    def _collecting(self) -> list[dict[str, Any]]:
        children = self._children()
        return [
            vars(each) | {"exe": printable(each.exe)}
            for each in (children.found if children is not None else ())
            if each.cycles and each.pid != self.process.pid
        ]

    def _header(self, begin_ns: int) -> Record:
        with Program.open(self.process.exe_path) as program:
            version = program.go_version
        target = {"pid": self.process.pid, "exe": self.process.exe_name, "go_version": version}
        clock = {"begin_ns": begin_ns, "wall_offset_ns": time.time_ns() - time.monotonic_ns()}
        return {"target": target, "clock": clock, "probes": {}}

    def text(self, address: int, length: int) -> str:
        return self.tracing.static_text(address, length) if self.tracing is not None else ""

    def frames(self, addresses: Sequence[int]) -> Sequence[Frame]:
        symbols = self._target.symbols if isinstance(self._target, Traced) else None
        return symbols.frames(addresses) if symbols is not None else ()

    def place(self, address: int) -> str:
        symbols = self._target.symbols if isinstance(self._target, Traced) else None
        return symbols.place(address) if symbols is not None else ""

    def portions(self) -> Iterator[Events]:
        try:
            for now, why in self._target.polls(self._poll_ns, self._failed, self.looking):
                self._gone = why in (EXECUTED, EXITED)
                self.last, self.now_ns = bool(why), now
                events = no_events()
                self._look_at_books()
                self._look_for_copies()
                self._look_for_children()
                if why:
                    self._target.settle()
                if self.tracing is not None:
                    events, self.lost = self.tracing.read(), self.tracing.lost
                if self.recorder is not None:
                    self.recorder.add(events, self.lost)
                if why:
                    self.end = self._closing(why)
                    self._tell_of_blocked()
                yield events
                if self.recorder is not None and ("views" in self.header or self.in_progress or self._answers):
                    told = {"last": self.last, "now_ns": self.now_ns, "answers": self._answers}
                    self.recorder.answers(told | {"in_progress": self.in_progress})
                self._answers = {}
        finally:
            self.books.close()
            if not self.last:
                self.end = self._closing("error")
            if self.recorder is not None:
                self.recorder.end(self.end)

    def _tell_of_blocked(self) -> None:
        if blocked_ns := self.blocked_ns():
            self._target.say(
                f"{self.name}: writing output was blocked for {duration_text(blocked_ns)}, and nothing was sampled in that "
                "time: read the output as it comes, or write it to a file on a faster disk with -o."
            )

    def _look_at_books(self) -> None:
        """What has been going on for long, or goes on at the end."""
        self.in_progress = []
        if self.underway is None or self._gone:
            return
        offset = self.header["clock"]["target_offset_ns"]
        with contextlib.suppress(GotraceError):  # it has just ended
            stop = self.underway.stop()
            restarts = sum(self.tracing.parts["gc"].hits[name] for name in RESTARTS) if stop else 0
            if stop is None or self._stop_seen[0] != restarts:
                self._stop_seen = (restarts, self.now_ns)
            if stop is not None:
                since = stop.since_ns - offset if stop.since_ns else self._stop_seen[1]
                if self.now_ns - since >= (0 if self.last else _LONG_NS):
                    self.in_progress.append(self._told(stop, since))
            marking = self.underway.marking() if self.last else None
            if marking is not None:
                self.in_progress.append({"what": MARK, "since_ns": marking.since_ns - offset, "cycle": marking.cycle})
        self.in_progress = [each | {"seen_ns": self.now_ns} for each in self.in_progress if each["since_ns"] < self.now_ns]

    def _told(self, stop: Standing, since_ns: int) -> Record:
        threads = threads_here(self.process.pid, [stop.tid, *(each.tid for each in stop.waits_for)])
        return {
            "what": STOP,
            "since_ns": since_ns,
            "first_seen": stop.since_ns is None,
            "reason": stop.reason,
            "tid": threads.get(stop.tid, 0),
            "goid": stop.goid,
            "asked_by": [frame.function for address in stop.asked_by for frame in self.frames([address - 1])],
            "stopped": stop.stopped,
            "waits_for": [[each.p, threads.get(each.tid, 0), each.goid] for each in stop.waits_for],
        }

    def _failed(self) -> bool:
        return self.failing() or (self.recorder is not None and self.recorder.failure is not None)

    def ask(self, what: str, answer: Callable[[], Answer], due: bool = True, of_host: bool = False) -> Answer | None:
        if not due or (self._gone and not of_host):
            return None
        try:
            found = answer()
        except GotraceError:
            if of_host or not (self.process.wait(0.05) or self.process.exec_changed()):
                raise
            self._gone = True
        if not of_host and (self._gone or self.process.exec_changed()):  # or it is about another program
            self._gone = True
            return None
        if self.recorder is not None and found is not None:
            self._answers.setdefault(what, []).append(found)
        return found


def record(traced: Traced, recorder: Recorder) -> Record:
    """Record the program that runs until its end; how that was, as `Target.closing` has it. Raises GotraceError."""
    live = Live(traced)
    live.recorder = recorder
    recorder.begin(live.header)
    for _ in live.portions():
        pass
    complain_of(recorder)
    return live.end


class Replayed(Source):
    """A recording, of a `Live` or another. Events come ``rows`` at once or more."""

    def __init__(self, recording: Recording, rows: int = PORTION) -> None:
        self._recording = recording
        self._rows = rows
        self.header = recording.header
        self.now_ns = self.begin_ns  # as far as a recording goes that was cut off before its first portion
        self._answers: dict[str, list[Any]] = {}

    def text(self, address: int, length: int) -> str:
        return self._recording.text(address, length)

    def frames(self, addresses: Sequence[int]) -> Sequence[Frame]:
        return self._recording.frames(addresses)

    def place(self, address: int) -> str:
        return self._recording.place(address)

    def portions(self) -> Iterator[Events]:
        received = 0
        kinds = [named for probe in self.header["probes"].values() for named in probe["kinds"].items()]
        always = [kind["number"] for name, kind in kinds if name in ("stack", "task")]
        for events in self._asked() if "views" in self.header else self._together():
            events = within(events, self.begin_ns, FOREVER_NS, always)  # version 0.1.0 recorded from the first probe on
            received += len(events)
            self.lost = self._recording.lost
            if self.last:
                self.end = self._recording.end or self._cut_off(received)
            yield events
            if self.failing():
                break
        self.end = self._recording.end or self._cut_off(received)

    def _asked(self) -> Iterator[Events]:
        """What came between one question and the next."""
        waiting: list[Events] = []
        chunks = self._recording.chunks()
        for chunk in chunks:
            done = 0
            for note in chunk.notes:
                if note.kind == form.ANSWERS:
                    told = json.loads(note.data)
                    self.last, self.now_ns, self._answers = told["last"], told["now_ns"], told["answers"]
                    upto = note.a - 1 if note.a and not self.last else len(chunk.events)
                    waiting.append(chunk.events[done:upto])
                    done = upto
                    if self.last:  # what is left says how it ended
                        waiting += [rest.events for rest in chunks]
                    yield np.concatenate(waiting)
                    waiting = []
            waiting.append(chunk.events[done:])
        if sum(map(len, waiting)) and not self.last:
            self._answers = {}
            yield self._fetched(waiting)

    def _together(self) -> Iterator[Events]:
        """The events of several chunks at once: a chunk may be short, and costs by itself.

        If anything was lost, it was in the last chunk of a portion. What all of them answered, the last of them did.
        """
        waiting: list[Events] = []
        in_progress: list[Record] = []
        answers: dict[str, list[Any]] = {}
        held = lost = 0
        for chunk in self._recording.chunks():
            waiting.append(chunk.events)
            held += len(chunk.events)
            for note in chunk.notes:
                if note.kind == form.ANSWERS:
                    told = json.loads(note.data)
                    in_progress += told["in_progress"]
                    answers |= {what: found[-1:] for what, found in told["answers"].items()}
            if self._recording.lost != lost or held >= self._rows:
                self.in_progress, in_progress = in_progress, []
                self._answers, answers = answers, {}
                yield self._fetched(waiting)
                waiting, held, lost = [], 0, self._recording.lost
        if waiting:
            self.in_progress, self._answers = in_progress, answers
            yield self._fetched(waiting)

    def _fetched(self, parts: list[Events]) -> Events:
        """Nobody noted when these were fetched: it was after the last of them."""
        events = np.concatenate(parts)
        self.now_ns = int(events["time_ns"].max(initial=self.now_ns))
        return events

    def _cut_off(self, received: int) -> Record:
        """What stands for the end of a recording that has none: how it ended, and what it cost, is unknown."""
        duration_ns = max(0, self.now_ns - self.begin_ns)
        return {
            "duration_ns": duration_ns,
            "ended": "recording truncated",
            "received": received,
            "lost": self.lost,
            "cost": UNKNOWN_COST,
        }

    def ask(self, what: str, answer: Callable[[], Answer], due: bool = True, of_host: bool = False) -> Answer | None:
        waiting = self._answers.get(what)
        return waiting.pop(0) if waiting else None


def repeatable(command: Sequence[str]) -> Record:
    """What a recording says for who runs it again: the machine, and the command and where it was started (None: an already
    running process). It may take a second, where there is nvidia-smi: ask before anything is traced."""
    from gotrace.kernel.machine import host

    return {"machine": host(), "command": {"words": list(command), "folder": os.getcwd()} if command else None}


def programs(
    target: Target,
    views: Sequence[View],
    record: str | None = None,
    force: bool = False,
    later: Sequence[View] = (),
    about: Record | None = None,
) -> Iterator[tuple[int, Live, Sequence[View]]]:
    """Each program that a target executes, from 1 on; it is released first.

    With each come views of its own, made as ``views`` are, for `view.records_of`. With ``record`` each is kept in a file
    (`files.numbered`), which is to be read with the views ``later``, too; ``about`` goes into its header. Raises
    GotraceError.
    """
    poll_ns = min([target.poll_ns, *(view.interval_ns for view in views if view.interval_ns)])
    books = Books(target.process)
    for view in views:
        with contextlib.suppress(GotraceError, OSError):  # that a book cannot be opened is told when it is to be read
            view.prepare(books)
    target.release()
    for number in itertools.count(1):
        live = Live(target, poll_ns, books if number == 1 else None)
        live.header.update(about or {})
        if recorded := {view.name: view.options for view in (*views, *later) if view.recorded}:
            live.header["views"] = recorded
        live.looking = next((Looking(view.look_ns, view.look) for view in views if view.look_ns), NOT_LOOKING)
        with contextlib.ExitStack() as recording:
            if record is not None:
                from gotrace.run.recorder import Recorder

                path = numbered(record, number, force)
                live.recorder = recording.enter_context(Recorder.opened(path, force, target))
                live.recorder.begin(live.header)
            yield number, live, views
        complain_of(live.recorder)
        if not target.next_program():
            return
        views = [type(view)(**view.options) for view in views]

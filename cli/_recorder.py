"""Recording while tracing: the events as they come, and what gives them their meaning."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gotrace.analysis.stacks import StackTable, no_frames
from gotrace.cli._gc_run import closing, complain_of
from gotrace.cli._target import create
from gotrace.kernel.ring import wire_dtype
from gotrace.recording import format as form
from gotrace.recording.writer import Writer

if TYPE_CHECKING:
    from gotrace.cli._target import Traced
    from gotrace.kernel.ring import Events

# A crash loses what came after the last flush.
_FLUSH_NS = 500_000_000


class Recorder:
    """Writes one session to one file. A failure to write is kept in ``failure``, and ends the recording."""

    def __init__(self, file: BinaryIO, name: str, traced: Traced) -> None:
        session, symbols = traced.session, traced.symbols
        self.name = name
        self.failure: OSError | None = None
        self._traced = traced
        self._file = file
        self._writer: Writer | None = None
        self._flushed_ns = 0
        self._lost = 0
        self._texts: set[int] = set()
        self._named: set[int] = set()
        self._threads: set[int] = set()
        stack_kinds = [k.number for part in session.parts.values() for k in part.probe.kinds if k.name == "stack"]
        self._symbols = symbols
        self._stacks = StackTable(stack_kinds, symbols.frames if symbols else no_frames)
        self._text_columns = {
            kind.number: "abcde"[kind.columns.index(kind.text)]
            for part in session.parts.values()
            for kind in part.probe.kinds
            if kind.text
        }

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: str, force: bool, traced: Traced) -> Iterator[Recorder]:
        """Create the file; raises GotraceError when there is one already, or it cannot be written."""
        with create(path, force) as file:
            yield cls(file, path, traced)

    def run(self, duration: int | None) -> dict[str, Any]:
        """Let a launched command go and record until the end, which is returned as `closing` tells it."""
        traced, session = self._traced, self._traced.session
        traced.release()
        self.begin(session.header(traced.begin_ns))
        ended = "error"
        try:
            for _, why in traced.polls(duration, _FLUSH_NS, lambda: self.failure is not None):
                ended = why or ended
                self.add(session.read(), session.lost)
        finally:
            end = closing(session, time.monotonic_ns() - traced.begin_ns, ended)
            self.end(end)
        complain_of(self)
        return end

    def begin(self, header: dict[str, Any]) -> None:
        with self._kept():
            self._writer = Writer(self._file, header, wire_dtype())

    def add(self, events: Events, lost: int) -> None:
        """Keep events that were just read; ``lost`` is how many had been lost by then."""
        if self._writer is None or self.failure is not None:
            return
        with self._kept():
            self._writer.events(events)
            self._note_texts(events)
            self._note_symbols(events)
            self._note_threads(events)
            if lost != self._lost:
                self._lost = lost
                self._writer.note(form.LOSS, lost)
            now = time.monotonic_ns()
            if now - self._flushed_ns > _FLUSH_NS:
                self._writer.flush()
                self._flushed_ns = now

    def answers(self, told: dict[str, Any]) -> None:
        """Keep what was asked of the machine about the events since the last call."""
        if self._writer is not None and self.failure is None:
            with self._kept():
                self._writer.note(form.ANSWERS, 0, json.dumps(told).encode())
                self._writer.flush()

    def _note_texts(self, events: Events) -> None:
        assert self._writer is not None
        for number, column in self._text_columns.items():
            for reference in np.unique(events[column][events["kind"] == number]).tolist():
                if reference and reference not in self._texts:
                    self._texts.add(reference)
                    text = self._traced.session.static_text(reference & ((1 << 48) - 1), reference >> 48)
                    self._writer.note(form.TEXT, reference, text.encode())

    def _note_symbols(self, events: Events) -> None:
        """The names of what is on the stacks: now, while the program that has them is surely there."""
        assert self._writer is not None
        whole = self._stacks.feed(events)
        if self._symbols is None:
            return
        for stack in whole:
            for address in self._stacks.addresses(stack):
                if address not in self._named:
                    self._named.add(address)
                    self._writer.note(form.FRAMES, address, json.dumps(self._symbols.at(address)).encode())

    def _note_threads(self, events: Events) -> None:
        assert self._writer is not None
        for tid in set(np.unique(events["tid"]).tolist()) - self._threads:
            self._threads.add(tid)
            name = self._traced.session.process.thread_name(tid)
            if name:  # not of another process, and not gone
                self._writer.note(form.THREAD, tid, name)

    def end(self, end: dict[str, Any]) -> None:
        """Write the rest, and how the run ended."""
        if self._writer is not None and self.failure is None:
            with self._kept():
                self._writer.close(end)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error

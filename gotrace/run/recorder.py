"""Recording while tracing: the events as they come, and what gives them their meaning."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gotrace.analysis.columns import named
from gotrace.analysis.stacks import StackTable, no_frames
from gotrace.kernel.ring import wire_dtype
from gotrace.recording import format as form
from gotrace.recording.writer import Writer
from gotrace.run.files import create
from gotrace.run.target import Target, Traced

if TYPE_CHECKING:
    from gotrace.analysis.stacks import Frame
    from gotrace.kernel.process import MemoryMapping
    from gotrace.kernel.ring import Events

# A crash loses what came after the last flush.
_FLUSH_NS = 500_000_000


class Recorder:
    """Writes one session to one file. A failure to write is kept in ``failure``, and ends the recording."""

    def __init__(self, file: BinaryIO, name: str, target: Target) -> None:
        session, symbols = (target.session, target.symbols) if isinstance(target, Traced) else (None, None)
        self.name = name
        self.failure: OSError | None = None
        self._session = session
        self._file = file
        self._writer: Writer | None = None
        self._flushed_ns = 0
        self._lost = 0
        self._texts: set[int] = set()
        self._named: set[int] = set()
        self._threads: set[int] = set()
        self._symbols = symbols
        kinds = [kind for part in session.parts.values() for kind in part.probe.kinds] if session is not None else []
        stack_kinds = [kind.number for kind in kinds if kind.name == "stack"]
        self._stacks = StackTable(stack_kinds, symbols.frames if symbols else no_frames)
        self._place_columns = [(kind.number, kind.columns, kind.place) for kind in kinds if kind.place]
        self._mapped: set[MemoryMapping] = set()
        self._text_columns = {kind.number: (kind.columns, kind.text) for kind in kinds if kind.text}

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: str, force: bool, target: Target) -> Iterator[Recorder]:
        """Create the file; raises GotraceError when there is one already, or it cannot be written."""
        with create(path, force) as file:
            yield cls(file, path, target)

    def begin(self, header: dict[str, Any]) -> None:
        with self._kept():
            self._writer = Writer(self._file, header, wire_dtype())

    def add(self, events: Events, lost: int) -> None:
        """Keep events that were just read; ``lost`` is how many had been lost by then."""
        if self._writer is None or self._session is None or self.failure is not None:
            return
        with self._kept():
            self._writer.events(events)
            self._note_texts(events)
            self._note_symbols(events)
            self._note_mappings(events)
            self._note_threads(events)
            if lost != self._lost:
                self._lost = lost
                self._writer.note(form.LOSS, lost)
            self._flush()

    def answers(self, told: dict[str, Any]) -> None:
        """Keep what was asked of the machine about the events since the last call."""
        if self._writer is not None and self.failure is None:
            with self._kept():
                self._writer.note(form.ANSWERS, self._writer.held + 1, json.dumps(told).encode())
                self._flush()

    def _flush(self) -> None:
        """Write what was added, if it is time to."""
        assert self._writer is not None
        now = time.monotonic_ns()
        if now - self._flushed_ns > _FLUSH_NS:
            self._writer.flush()
            self._flushed_ns = now

    def _note_texts(self, events: Events) -> None:
        assert self._writer is not None and self._session is not None
        for number, (columns, text) in self._text_columns.items():
            for reference in np.unique(named(events, columns)[text][events["kind"] == number]).tolist():
                if reference and reference not in self._texts:
                    self._texts.add(reference)
                    text = self._session.static_text(reference & ((1 << 48) - 1), reference >> 48)
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

    def names(self, frames: Mapping[int, Sequence[Frame]]) -> None:
        """Keep the functions at addresses, of which the recorder knows nothing by itself: of starts."""
        if self._writer is not None and self.failure is None:
            with self._kept():
                for address, found in frames.items():
                    self._writer.note(form.FRAMES, address, json.dumps(found).encode())

    def _note_mappings(self, events: Events) -> None:
        assert self._writer is not None
        if self._symbols is None:
            return
        for number, columns, place in self._place_columns:
            for address in np.unique(named(events, columns)[place][events["kind"] == number]).tolist():
                found = self._symbols.mapping(address)
                if found is not None and found not in self._mapped:
                    self._mapped.add(found)
                    about = json.dumps([found.end, found.offset, found.path])
                    self._writer.note(form.MAPPING, found.begin, about.encode())

    def _note_threads(self, events: Events) -> None:
        assert self._writer is not None and self._session is not None
        for tid in set(np.unique(events["tid"]).tolist()) - self._threads:
            self._threads.add(tid)
            name = self._session.process.thread_name(tid)
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

"""Reading a recording in bounded memory: one chunk (65,536 rows) at a time, whatever the file's size."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gotrace.analysis.stacks import Frame
from gotrace.errors import GotraceError
from gotrace.recording import format as form
from gotrace.text import printable

Array = npt.NDArray[Any]


class Note(NamedTuple):
    """A row of the recorder's own: see `gotrace.recording.format` for the kinds."""

    kind: int
    time_ns: int
    a: int
    data: bytes


@dataclass
class Chunk:
    """Some events in the order in which they left the ring, and the notes that were written with them."""

    events: Array
    notes: list[Note]


class Recording:
    """A recording that is being read. Use `open`.

    ``header`` is what was known at the beginning; ``end`` how the run ended, once every chunk has been read: None then
    means that the file was cut off. ``lost`` is how many events and numbers had been lost where reading has come to.
    ``threads`` are the names of the target's threads that were met so far.
    ``position`` and ``size`` are bytes, for a progress bar.
    """

    def __init__(self, path: str, stream: pa.ipc.RecordBatchStreamReader, file: pa.NativeFile) -> None:
        self.path = path
        self.size = int(file.size())
        self.end: dict[str, Any] | None = None
        self.lost = 0
        self.threads: dict[int, str] = {}
        self._texts: dict[int, str] = {}
        self._frames: dict[int, list[Frame]] = {}
        self._stream = stream
        self._file = file
        self.header = _header(path, stream.schema)
        widths = {name: stream.schema.field(name).type.bit_width // 8 for name in form.COLUMNS}
        self._dtype = np.dtype([(name, f"<u{width}") for name, width in widths.items()])

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str, nameless: BinaryIO | None = None) -> Iterator[Recording]:
        """Raises GotraceError when ``path`` is no recording this gotrace can read, OSError when it cannot be opened.

        ``nameless`` is the file itself if it has no name to be opened by; it stays open.
        """
        with pa.OSFile(path) if nameless is None else _from_begin(nameless) as file:
            try:
                # A chunk is small: to share its columns among threads costs more than it saves.
                stream = pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(use_threads=False))
            except (pa.ArrowException, OSError, EOFError) as error:
                raise _not_one(path) from error
            yield cls(path, stream, file)

    @property
    def position(self) -> int:
        return int(self._file.tell())

    def text(self, address: int, length: int) -> str:
        """What stood in the executable at a run-time address; "" if that was not recorded up to here."""
        return self.text_of(address | length << 48)

    def text_of(self, reference: int) -> str:
        """The same for the value of a column that refers to text, as `gotrace.recording.format.TEXT` has it."""
        return self._texts.get(reference, "")

    def frames(self, addresses: Sequence[int]) -> list[Frame]:
        """The functions at ``addresses``, inlined ones too, in the order of these."""
        return [frame for address in addresses for frame in self._frames.get(address, [])]

    def chunks(self) -> Iterator[Chunk]:
        """Every whole chunk, in order."""
        while True:
            try:
                batch = self._stream.read_next_batch()
            except StopIteration:
                return
            except (pa.ArrowException, OSError, EOFError):
                return  # cut off within a chunk
            yield self._chunk(batch)

    def _chunk(self, batch: pa.RecordBatch) -> Chunk:
        rows = np.empty(batch.num_rows, self._dtype)
        for number, name in enumerate(form.COLUMNS):
            rows[name] = np.frombuffer(batch.column(number).buffers()[1], self._dtype[name], batch.num_rows)
        own = np.flatnonzero(rows["kind"] < form.FIRST_EVENT)
        if not len(own):
            return Chunk(rows, [])
        data = batch.column(len(form.COLUMNS)).take(pa.array(own)).to_pylist()
        notes = [
            Note(int(row["kind"]), int(row["time_ns"]), int(row["a"]), text or b"")
            for row, text in zip(rows[own], data, strict=True)
        ]
        for note in notes:
            self._learn(note)
        return Chunk(np.delete(rows, own), notes)

    def _learn(self, note: Note) -> None:
        if note.kind == form.END:
            self.end = json.loads(note.data)
        elif note.kind == form.LOSS:
            self.lost = note.a
        elif note.kind == form.TEXT:
            self._texts[note.a] = note.data.decode("utf-8", "replace")
        elif note.kind == form.THREAD:
            self.threads[note.a] = note.data.decode("utf-8", "replace")
        elif note.kind == form.FRAMES:
            self._frames[note.a] = [Frame(*each) for each in json.loads(note.data)]


def _from_begin(file: BinaryIO) -> pa.NativeFile:
    again = os.fdopen(os.dup(file.fileno()), "rb")
    again.seek(0)
    return pa.PythonFile(again, "r")


def _not_one(path: str) -> GotraceError:
    return GotraceError(f"{printable(path)} is no recording", "make one: gotrace record --pid PID -o run.gotrace")


def _header(path: str, schema: pa.Schema) -> dict[str, Any]:
    text = (schema.metadata or {}).get(form.METADATA_KEY)
    if text is None or tuple(schema.names) != (*form.COLUMNS, "data"):
        raise _not_one(path)
    try:
        header: dict[str, Any] = json.loads(text)
        version = int(header["version"])
    except (ValueError, KeyError, TypeError):
        raise _not_one(path) from None
    if version > form.VERSION:
        made_by = printable(str(header.get("gotrace", "a newer gotrace")))
        raise GotraceError(
            f"{printable(path)} has the format version {version}, this gotrace reads up to {form.VERSION}",
            f"use the gotrace that made it ({made_by}), or a newer one",
        )
    return header

"""Reading a recording in bounded memory: one chunk (65,536 rows) at a time, whatever the file's size."""

from __future__ import annotations

import bisect
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stacks import Frame
from gotrace.errors import GotraceError
from gotrace.recording import arrow
from gotrace.recording import format as form
from gotrace.text import place_text, printable

Array = npt.NDArray[Any]

# What ends reading: what is no stream of Arrow's, the file, and JSON of another form than the recorder's.
_NOT_UNDERSTOOD = (*arrow.ERRORS, OSError, TypeError)


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

    ``header`` is what was known at the beginning; ``end`` how the run ended, once every chunk has been read: ``cut_off``
    if it is missing. ``lost`` is how many events and numbers had been lost where reading has come to.
    ``threads`` are the names of the target's threads that were met so far.
    ``tell`` is called, for a progress bar, with the number of its ``size`` bytes that have been read.
    """

    tell: Callable[[int], None] | None = None

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self.end: dict[str, Any] | None = None
        self.cut_off = False
        self.lost = 0
        self.threads: dict[int, str] = {}
        self._texts: dict[int, str] = {}
        self._frames: dict[int, list[Frame]] = {}
        self._mappings: dict[int, tuple[int, int, str]] = {}
        self._begins: list[int] = []
        self._file = file
        try:
            self._stream = arrow.Stream(file)
        except arrow.CutOffError as error:
            raise GotraceError(
                f"{printable(path)} is cut off in its header",
                "nothing in it can be read: check for a full disk or an incomplete copy",
            ) from error
        except _NOT_UNDERSTOOD as error:
            raise _not_one(path) from error
        self.header, self._dtype = _header(path, self._stream)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str, nameless: BinaryIO | None = None) -> Iterator[Recording]:
        """Raises GotraceError if ``path`` is not a recording this gotrace can read, OSError when it cannot be opened.

        ``nameless`` is the file itself if it has no name to be opened by; it stays open.
        """
        with open(path, "rb") if nameless is None else _from_begin(nameless) as file:
            yield cls(path, file)

    def require(self, stem: str, lacking: str) -> None:
        """Raises GotraceError, saying that there is no ``lacking``, if the probe was not recorded."""
        if stem not in self.header["probes"]:
            record = f"gotrace record --probes {','.join(dict.fromkeys(['gc', stem]))} -o FILE.gotrace"
            hint = {
                "coldstart": "record one: gotrace coldstart -o FILE.gotrace -- COMMAND",
                "datapath": "record them: gotrace datapath -o FILE.gotrace -- COMMAND",
                "startcode": "record them: gotrace coldstart --advise -o FILE.gotrace -- COMMAND",
                "tail": f"record it: {record}, gotrace gc --explain -o FILE.gotrace, or gotrace baseline --explain",
            }.get(stem, f"record it: {record}")
            if "perf" in self.header["probes"]:
                hint = "it was recorded by perf: use gotrace flame to draw its stacks, gotrace export to convert it"
            raise GotraceError(f"{printable(self.path)} has no {lacking}", hint)

    def text(self, address: int, length: int) -> str:
        """What stood in the executable at a run-time address; "" if that was not recorded up to here."""
        return self.text_of(address | length << 48)

    def text_of(self, reference: int) -> str:
        """The same for the value of a column that refers to text, as `gotrace.recording.format.TEXT` has it."""
        return self._texts.get(reference, "")

    @property
    def has_names(self) -> bool:
        """Whether the functions at any address are known, of what was read so far."""
        return bool(self._frames)

    def frames(self, addresses: Sequence[int]) -> list[Frame]:
        """The functions at ``addresses``, inlined ones too, in the order of these."""
        return [frame for address in addresses for frame in self._frames.get(address, [])]

    def place(self, address: int) -> str:
        """What was mapped at an address of data, as `place_text` says it; "" if that is not known."""
        index = bisect.bisect_right(self._begins, address) - 1
        begin = self._begins[index] if index >= 0 else 0
        end, offset, path = self._mappings.get(begin, (0, 0, ""))
        return place_text(address, begin, offset, path) if address < end else ""

    def chunks(self) -> Iterator[Chunk]:
        """Every whole chunk, in order."""
        batches = self._stream.batches()
        while True:
            try:
                chunk = self._chunk(next(batches))
            except (StopIteration, *_NOT_UNDERSTOOD):  # but for the first: cut off within a chunk, or no chunk of ours
                self.cut_off = self.end is None
                return
            yield chunk
            if self.tell is not None:
                self.tell(self._file.tell())

    def _chunk(self, batch: arrow.Batch) -> Chunk:
        types = (self._dtype[name] for name in form.COLUMNS)
        columns = [batch.numbers(2 * number + 1, type_, batch.rows) for number, type_ in enumerate(types)]
        rows = np.empty(batch.rows, self._dtype)  # once it is known that there are as many
        for name, column in zip(form.COLUMNS, columns, strict=True):
            rows[name] = column
        own = np.flatnonzero(rows["kind"] < form.FIRST_EVENT)
        if not len(own):
            return Chunk(rows, [])
        first = 2 * len(form.COLUMNS)
        ends = batch.numbers(first + 1, "<i4", batch.rows + 1)
        content = batch.content(first + 2, int(ends[-1]))
        notes = [
            Note(int(row["kind"]), int(row["time_ns"]), int(row["a"]), content[begin:end])
            for row, begin, end in zip(rows[own], ends[own].tolist(), ends[own + 1].tolist(), strict=True)
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
        elif note.kind == form.MAPPING:
            if note.a not in self._mappings:
                bisect.insort(self._begins, note.a)
            self._mappings[note.a] = tuple(json.loads(note.data))
        elif note.kind == form.FRAMES:
            self._frames[note.a] = [Frame(*each) for each in json.loads(note.data)]


def _from_begin(file: BinaryIO) -> BinaryIO:
    again = os.fdopen(os.dup(file.fileno()), "rb")
    again.seek(0)
    return again


def _not_one(path: str) -> GotraceError:
    return GotraceError(
        f"{printable(path)} is not a gotrace recording", "make one: gotrace record --pid PID -o run.gotrace"
    )


def _header(path: str, stream: arrow.Stream) -> tuple[dict[str, Any], np.dtype[Any]]:
    """What the schema says of the recording, and the type of its events."""
    text = stream.metadata.get(form.METADATA_KEY)
    columns = [(name, type_.kind) for name, type_ in stream.columns]
    if text is None or columns != [*((name, "u") for name in form.COLUMNS), ("data", "O")]:
        raise _not_one(path)
    try:
        header: dict[str, Any] = json.loads(text)
        version = int(header["version"])
    except (ValueError, KeyError, TypeError):
        raise _not_one(path) from None
    if version > form.VERSION:
        made_by = printable(str(header.get("gotrace", "a newer gotrace")))
        raise GotraceError(
            f"{printable(path)} has format version {version}; this gotrace reads up to version {form.VERSION}",
            f"use the gotrace that wrote it ({made_by}), or a newer one",
        )
    return header, np.dtype(stream.columns[:-1])

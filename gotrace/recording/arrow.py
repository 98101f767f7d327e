"""Reading of Arrow's IPC stream, as far as a recording is one: columns of unsigned integers and of bytes, one level deep.

A recording may be damaged, or somebody else's, and must not take the process with it. pyarrow makes errors of that, and is
larger than everything else together; arro3 0.9 and nanoarrow 0.9, which are small, end the process, one by panics and the
other by reading where nothing is. So it is Python that checks what is read.

The form is https://arrow.apache.org/docs/format/Columnar.html#format-ipc; its messages are Flatbuffers
(https://flatbuffers.dev/internals/) by format/Message.fbs and format/Schema.fbs of Arrow, with whose numbers their fields
are named here.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

Array = npt.NDArray[Any]

# What the functions of this module raise for bytes that are something else, or cut off. `OSError` is the file's own.
ERRORS = (ValueError, struct.error, ZstdError)


class CutOffError(ValueError):
    """What begins as a message ends within it."""


_SCHEMA, _BATCH = 1, 3
_INT, _BINARY = 2, 4
_CONTINUED = b"\xff\xff\xff\xff"
_MOST_ROWS, _MOST_BYTES = 1 << 31, 1 << 31


class Stream:
    """What ``file``, which is at the beginning of a stream, has in it. The first message is read at once.

    ``columns`` are the names and types of the columns; that of one of bytes is "O". ``metadata`` is the schema's.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        message = self._message()
        if message is None or message.number(1, "B") != _SCHEMA:
            raise ValueError("no schema")
        schema = message.table(2)
        self.columns = [(field.text(0).decode(), _dtype(field)) for field in schema.tables(1)]
        self.metadata = {pair.text(0): pair.text(1) for pair in schema.tables(2)}

    def batches(self) -> Iterator[Batch]:
        """Up to the stream's end, or the file's, if it is where a message could begin."""
        while (message := self._message()) is not None:
            if message.number(1, "B") != _BATCH:
                raise ValueError("no batch of rows")
            yield Batch(message.table(2), self._read(message.number(3, "q")))

    def _message(self) -> _Table | None:
        prefix = self._file.read(8)
        if not prefix or prefix == _CONTINUED + bytes(4):
            return None
        if len(prefix) < 8 or prefix[:4] != _CONTINUED:
            raise ValueError("no message")
        text = self._read(int.from_bytes(prefix[4:], "little"))
        return _Table(text, *struct.unpack_from("<I", text))

    def _read(self, size: int) -> bytes:
        # A length may be anything, and memory for it would be taken.
        if not 0 <= size <= os.fstat(self._file.fileno()).st_size - self._file.tell():
            raise CutOffError if 0 <= size < _MOST_BYTES else ValueError("no size")
        return self._file.read(size)


class Batch:
    """Some rows. Each column has one buffer that says which of its values are null, and one with these, or two.

    The two are where the values end, behind a 0, and their bytes.
    """

    def __init__(self, about: _Table, body: bytes) -> None:
        self._body = body
        self._buffers = about.pairs(2)
        # of LZ4 and zstd, which are Arrow's two, recordings have the second
        self._compressed = about.has(3)
        if self._compressed and about.table(3).number(0, "b") != 1:
            raise ValueError("not compressed with zstd")
        self.rows = about.number(0, "q")
        if not 0 <= self.rows < _MOST_ROWS:
            raise ValueError("no number of rows")

    def numbers(self, buffer: int, dtype: Any, count: int) -> Array:
        """The first ``count`` numbers of a buffer."""
        return np.frombuffer(self.content(buffer, count * np.dtype(dtype).itemsize), dtype, count)

    def content(self, buffer: int, size: int) -> bytes:
        """The first ``size`` bytes of a buffer, if it has as many."""
        begin, length = self._buffers[buffer].tolist() if buffer < len(self._buffers) else (-1, 0)
        if min(begin, length) < 0 or begin + length > len(self._body):
            raise ValueError("no such buffer")
        stored = self._body[begin : begin + length]
        if self._compressed and stored:
            # How long it is decompressed, or -1 where that would not have made it shorter.
            prefix, stored = stored[:8], stored[8:]
            if prefix != b"\xff" * 8:
                stored = ZstdDecompressor().decompress(stored, size) if size else b""
        if len(stored) < size:
            raise ValueError("a buffer is too short")
        return stored[:size]


class _Table:
    """A table of a Flatbuffer: its fields by number. What is not there has the value 0, or is empty."""

    def __init__(self, text: bytes, at: int) -> None:
        self._text, self._at = text, at
        (back,) = struct.unpack_from("<i", text, at)
        self._fields = at - back
        if self._fields < 0:
            raise ValueError("no table")
        (self._size,) = struct.unpack_from("<H", text, self._fields)

    def has(self, field: int) -> bool:
        return self._place(field) > 0

    def number(self, field: int, format_: str) -> int:
        place = self._place(field)
        return int(struct.unpack_from(f"<{format_}", self._text, place)[0]) if place else 0

    def table(self, field: int) -> _Table:
        return _Table(self._text, self._reference(self._place(field)))

    def tables(self, field: int) -> list[_Table]:
        begin, count = self._vector(field)
        if count * 4 > len(self._text):
            raise ValueError("no vector")
        return [_Table(self._text, self._reference(begin + 4 * number)) for number in range(count)]

    def text(self, field: int) -> bytes:
        begin, size = self._vector(field)
        return self._text[begin : begin + size]

    def pairs(self, field: int) -> Array:
        """A vector of structs of two numbers of 64 bits."""
        begin, count = self._vector(field)
        return np.frombuffer(self._text, "<i8", 2 * count, begin).reshape(-1, 2)

    def _vector(self, field: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        begin = self._reference(place)
        return begin + 4, int(struct.unpack_from("<I", self._text, begin)[0])

    def _reference(self, place: int) -> int:
        if not place:
            raise ValueError("nothing is there")
        return place + int(struct.unpack_from("<I", self._text, place)[0])

    def _place(self, field: int) -> int:
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return 0
        (distance,) = struct.unpack_from("<H", self._text, self._fields + entry)
        return self._at + distance if distance else 0


def _dtype(field: _Table) -> np.dtype[Any]:
    kind = field.number(2, "B")
    about = field.table(3)
    if kind == _BINARY:
        return np.dtype("O")
    width, signed = about.number(0, "i"), about.number(1, "B")
    if kind != _INT or signed or width not in (8, 16, 32, 64):
        raise ValueError("neither bytes nor an unsigned integer")
    return np.dtype(f"<u{width // 8}")

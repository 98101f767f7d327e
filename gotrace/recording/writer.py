"""Writing a recording, chunk by chunk: whatever was flushed survives a crash of the writer."""

from __future__ import annotations

import io
import json
import time
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from arro3 import core
from arro3.io import write_ipc_stream

from gotrace.recording import format as form

Array = npt.NDArray[Any]


_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def schema(header: dict[str, Any], dtype: np.dtype[Any]) -> core.Schema:
    """The columns of an event with its rows' ``data``; ``header`` goes into the metadata."""
    types = {name: core.Array.from_numpy(np.empty(0, dtype[name])).type for name in form.COLUMNS}
    columns = [core.Field(name, type_, nullable=False) for name, type_ in types.items()]
    text = json.dumps({"version": form.VERSION, **header})
    metadata = {form.METADATA_KEY: text.encode()}
    return core.Schema([*columns, core.Field("data", core.DataType.binary())], metadata=metadata)


class Writer:
    """Appends to ``file`` (unbuffered, so that a chunk is in the kernel's hands when `flush` returns).

    Raises OSError when the file cannot be written; what was written before stays readable.
    """

    def __init__(self, file: BinaryIO, header: dict[str, Any], dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._schema = schema(header, dtype)
        self._pending: list[Array] = []
        self._held = 0
        self._notes: list[tuple[int, int, bytes]] = []
        self._file = file
        self._put(_messages(self._schema.empty_table())[0])

    def events(self, events: Array) -> None:
        """Add events exactly as they left the ring."""
        if len(events):
            self._pending.append(events)
            self._held += len(events)
        if self._held >= form.ROWS_PER_CHUNK:
            self.flush()

    @property
    def held(self) -> int:
        """How many events the next `flush` will write."""
        return self._held

    def note(self, kind: int, a: int, data: bytes = b"") -> None:
        """Add a row of the recorder's own."""
        self._notes.append((kind, a, data))

    def flush(self) -> None:
        """Write everything added so far."""
        if not self._held and not self._notes:
            return
        notes = np.zeros(len(self._notes), self._dtype)
        notes["time_ns"] = time.monotonic_ns()
        notes["kind"] = [kind for kind, _, _ in self._notes]
        notes["a"] = [a for _, a, _ in self._notes]
        rows = np.concatenate([*self._pending, notes])
        data = core.Array([None, *(data for _, _, data in self._notes)], core.DataType.binary())
        column = data.take(np.append(np.zeros(self._held, np.int64), np.arange(1, len(data))))
        self._pending, self._held, self._notes = [], 0, []
        columns = [np.ascontiguousarray(rows[name]) for name in form.COLUMNS]
        self._put(_messages(core.RecordBatch.from_arrays([*columns, column], schema=self._schema))[1])

    def close(self, end: dict[str, Any]) -> None:
        """Write the last chunk, with how the run ended."""
        self.note(form.END, 0, json.dumps(end).encode())
        self.flush()
        self._put(_END_OF_STREAM)

    def _put(self, message: bytes) -> None:
        left = memoryview(message)
        while left:
            left = left[self._file.write(left) :]


def _messages(data: core.RecordBatch | core.Table) -> tuple[bytes, bytes]:
    """What a stream of ``data`` consists of, but for its end: the schema, and the rest.

    Arrow's writer takes a whole stream at once, and here it grows for hours. The schema's message has no body: it is four
    bytes of ones, its length in four more, and that.
    """
    stream = io.BytesIO()
    write_ipc_stream(data, stream, compression="zstd")
    whole = stream.getvalue()
    begin = 8 + int.from_bytes(whole[4:8], "little")
    return whole[:begin], whole[begin:].removesuffix(_END_OF_STREAM)

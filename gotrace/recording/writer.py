"""Writing a recording, chunk by chunk: whatever was flushed survives a crash of the writer."""

from __future__ import annotations

import json
import time
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gotrace.recording import format as form

Array = npt.NDArray[Any]


def schema(header: dict[str, Any], dtype: np.dtype[Any]) -> pa.Schema:
    """The columns of an event with its rows' ``data``; ``header`` goes into the metadata."""
    columns = [pa.field(name, pa.from_numpy_dtype(dtype[name]), nullable=False) for name in form.COLUMNS]
    text = json.dumps({"version": form.VERSION, **header})
    return pa.schema([*columns, pa.field("data", pa.binary())], {form.METADATA_KEY: text})


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
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._stream = pa.ipc.new_stream(pa.PythonFile(file, "w"), self._schema, options=options)

    def events(self, events: Array) -> None:
        """Add events exactly as they left the ring."""
        if len(events):
            self._pending.append(events)
            self._held += len(events)
        if self._held >= form.ROWS_PER_CHUNK:
            self.flush()

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
        data = pa.array([data for _, _, data in self._notes], pa.binary())
        column = pa.concat_arrays([pa.nulls(self._held, pa.binary()), data])
        self._pending, self._held, self._notes = [], 0, []
        arrays = [pa.array(np.ascontiguousarray(rows[name])) for name in form.COLUMNS]
        self._stream.write_batch(pa.record_batch([*arrays, column], schema=self._schema))

    def close(self, end: dict[str, Any]) -> None:
        """Write the last chunk, with how the run ended."""
        self.note(form.END, 0, json.dumps(end).encode())
        self.flush()
        self._stream.close()

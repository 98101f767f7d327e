"""Raw events with named columns: one object an event (NDJSON), or one row an event (CSV, Parquet).

What a column means is said where the probe declares it (``probes/<stem>.py``). ``text`` is what a column that refers to
text in the executable refers to, ``frames`` the functions of a column called ``stack``: in a list the innermost comes
first, in one string the outermost, as in folded stacks.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gotrace.analysis.flame import folded
from gotrace.analysis.stacks import Frame, StackTable
from gotrace.export.gc_json import wall_time

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]
Record = dict[str, Any]
Frames = Callable[[Sequence[int]], Sequence[Frame]]


class Events:
    """Gives the events of one session their names; ``header`` is `Session.header`'s, live or recorded.

    ``text(address, length)`` is text of the executable, ``frames(addresses)`` the functions there, innermost first.
    """

    def __init__(self, header: Record, text: Callable[[int, int], str], frames: Frames) -> None:
        self._kinds: dict[int, tuple[str, tuple[str, ...], str]] = {}
        for probe in header["probes"].values():
            for name, kind in probe["kinds"].items():
                self._kinds[kind["number"]] = (name, tuple(kind["columns"]), kind.get("text", ""))
        self._columns = list(dict.fromkeys(column for _, columns, _ in self._kinds.values() for column in columns))
        self._wall_offset_ns = int(header["clock"]["wall_offset_ns"])
        self._text = text
        self._stacks = StackTable((number for number, (name, _, _) in self._kinds.items() if name == "stack"), frames)
        self._folded: dict[int, str] = {}

    def records(self, events: Array) -> Iterator[Record]:
        """One object an event, with the columns of its kind."""
        self._stacks.feed(events)
        for time_ns, tid, number, cpu, *values in events.tolist():
            name, columns, text = self._kinds[number]
            named = dict(zip(columns, values, strict=False))
            record = {
                "type": name,
                "monotonic_ns": time_ns,
                "time": wall_time(time_ns, self._wall_offset_ns),
                "tid": tid,
                "cpu": cpu,
                **named,
            }
            if text:
                record["text"] = self._reference(named[text])
            if name != "stack" and named.get("stack"):
                record["frames"] = self._stacks.names(named["stack"])
            yield record

    def lines(self, events: Array) -> str:
        """`records` as NDJSON."""
        return "".join(json.dumps(record) + "\n" for record in self.records(events))

    def schema(self) -> pa.Schema:
        """The columns of `batch`: those that every event has, then every probe's; null where the kind has none such."""
        import pyarrow as pa

        common = {
            "type": pa.string(),
            "monotonic_ns": pa.int64(),
            "time": pa.timestamp("ns", "UTC"),
            "tid": pa.uint32(),
            "cpu": pa.uint16(),
        }
        named = dict.fromkeys(self._columns, pa.uint64())
        return pa.schema([*common.items(), *named.items(), ("text", pa.string()), ("frames", pa.string())])

    def batch(self, events: Array) -> pa.RecordBatch:
        """One row an event."""
        import pyarrow as pa

        self._stacks.feed(events)
        count = len(events)
        values = {column: np.zeros(count, np.uint64) for column in self._columns}
        absent = {column: np.ones(count, bool) for column in self._columns}
        names = np.full(count, "", object)
        text, frames = np.full(count, None, object), np.full(count, None, object)
        for number in np.unique(events["kind"]).tolist():
            name, columns, reference = self._kinds[number]
            at = np.flatnonzero(events["kind"] == number)
            names[at] = name
            for letter, column in zip("abcde", columns, strict=False):
                values[column][at] = events[letter][at]
                absent[column][at] = False
            if reference:
                text[at] = [self._reference(value) for value in values[reference][at].tolist()]
            if "stack" in columns and name != "stack":
                frames[at] = [self._folded_stack(stack) for stack in values["stack"][at].tolist()]
        monotonic = events["time_ns"].astype(np.int64)
        schema = self.schema()
        arrays = [
            pa.array(names, pa.string()),
            pa.array(monotonic),
            pa.array(monotonic + self._wall_offset_ns, schema.field("time").type),
            pa.array(np.ascontiguousarray(events["tid"])),
            pa.array(np.ascontiguousarray(events["cpu"])),
            *(pa.array(values[column], mask=absent[column]) for column in self._columns),
            pa.array(text, pa.string()),
            pa.array(frames, pa.string()),
        ]
        return pa.record_batch(arrays, schema=schema)

    def text_schema(self) -> pa.Schema:
        """The columns of `text_batch`."""
        import pyarrow as pa

        schema = self.schema()
        return schema.set(schema.get_field_index("time"), pa.field("time", pa.string()))

    def text_batch(self, events: Array) -> pa.RecordBatch:
        """`batch` with times as text, for formats that are text.

        pyarrow would look for UTC among the system's time zones, and a small system (a container's image) has none.
        """
        import pyarrow as pa

        compute: Any = importlib.import_module("pyarrow.compute")  # its functions are made when it is loaded
        batch = self.batch(events)
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        clock = columns["time"].cast(pa.timestamp("ns")).cast(pa.string())
        columns["time"] = compute.binary_join_element_wise(clock, "Z", "")
        return pa.record_batch(list(columns.values()), schema=self.text_schema())

    def _reference(self, value: int) -> str:
        return self._text(value & ((1 << 48) - 1), value >> 48)

    def _folded_stack(self, stack: int) -> str | None:
        if stack not in self._folded:
            text = folded(reversed(self._stacks.frames(stack)))
            if not text:
                return None
            self._folded[stack] = text
        return self._folded[stack]

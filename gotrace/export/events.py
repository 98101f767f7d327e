"""Raw events with named columns: one object an event (NDJSON), or one row an event (CSV, Parquet).

What a column means is said where the probe declares it (``probes/<stem>.py``). ``text`` is what a column that refers to
text in the executable refers to, ``frames`` the functions of a column called ``stack``: in a list the innermost comes
first, in one string the outermost, as in folded stacks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import named
from gotrace.analysis.flame import folded
from gotrace.analysis.stacks import Frame, StackTable
from gotrace.records.times import wall_time

if TYPE_CHECKING:
    from arro3 import core

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
            told = dict(zip(columns, values, strict=False))
            record = {
                "type": name,
                "monotonic_ns": time_ns,
                "time": wall_time(time_ns, self._wall_offset_ns),
                "tid": tid,
                "cpu": cpu,
                **told,
            }
            if text:
                record["text"] = self._reference(told[text])
            if name != "stack" and told.get("stack"):
                record["frames"] = self._stacks.names(told["stack"])
            yield record

    def lines(self, events: Array) -> str:
        """`records` as NDJSON."""
        return "".join(json.dumps(record) + "\n" for record in self.records(events))

    def schema(self) -> core.Schema:
        """The columns of `batch`: those that every event has, then every probe's; null where the kind has none such."""
        from arro3.core import DataType, Field, Schema

        common = {
            "type": DataType.string(),
            "monotonic_ns": DataType.int64(),
            "time": DataType.timestamp("ns", tz="UTC"),
            "tid": DataType.uint32(),
            "cpu": DataType.uint16(),
        }
        own = dict.fromkeys(self._columns, DataType.uint64())
        texts = {"text": DataType.string(), "frames": DataType.string()}
        return Schema([Field(name, type_) for name, type_ in {**common, **own, **texts}.items()])

    def batch(self, events: Array) -> core.RecordBatch:
        """One row an event."""
        from arro3 import core

        self._stacks.feed(events)
        count = len(events)
        values = {column: np.zeros(count, np.uint64) for column in self._columns}
        absent = {column: np.ones(count, bool) for column in self._columns}
        names = np.full(count, "", object)
        text, frames = np.full(count, None, object), np.full(count, None, object)
        for name, columns, at, of_kind in self._by_kind(events):
            names[at] = name
            for column in columns:
                values[column][at] = of_kind[column]
                absent[column][at] = False
            text[at], frames[at] = self._texts(of_kind)
        monotonic = events["time_ns"].astype(np.int64)
        schema = self.schema()
        string = core.DataType.string()
        arrays = [
            core.Array(names.tolist(), string),
            core.Array(monotonic),
            core.Array(monotonic + self._wall_offset_ns).cast(schema.field("time").type),
            core.Array(np.ascontiguousarray(events["tid"])),
            core.Array(np.ascontiguousarray(events["cpu"])),
            *(_nullable(values[column], absent[column]) for column in self._columns),
            core.Array(text.tolist(), string),
            core.Array(frames.tolist(), string),
        ]
        return core.RecordBatch.from_arrays(arrays, schema=schema)

    def head(self) -> str:
        """The line of CSV that names the columns."""
        return ",".join(map(_quoted, self.schema().names)) + "\n"

    def rows(self, events: Array) -> str:
        """`batch` as lines of CSV: texts are in quotes, what is null is not there."""
        self._stacks.feed(events)
        monotonic = events["time_ns"].astype(np.int64)
        times = np.datetime_as_string((monotonic + self._wall_offset_ns).astype("M8[ns]"))
        lines = np.full(len(events), "", object)
        for name, columns, at, of_kind in self._by_kind(events):
            own = [column for column in self._columns if column in columns]
            forms = ("%d" if column in columns else "" for column in self._columns)
            line = ",".join([_quoted(name).replace("%", "%%"), '%d,"%sZ",%d,%d', *forms, "%s,%s\n"])
            cells = [
                monotonic[at].tolist(),
                [time.replace("T", " ") for time in times[at].tolist()],
                *(of_kind[column].tolist() for column in ("tid", "cpu", *own)),
                *(map(_quoted, texts) for texts in self._texts(of_kind)),
            ]
            lines[at] = [line % values for values in zip(*cells, strict=True)]
        return "".join(lines)

    def _by_kind(self, events: Array) -> Iterator[tuple[str, tuple[str, ...], Array, Array]]:
        """Of each kind that is there its name, its columns, where its events are, and these by the names of the columns."""
        for number in np.unique(events["kind"]).tolist():
            name, columns, _ = self._kinds[number]
            at = np.flatnonzero(events["kind"] == number)
            yield name, columns, at, named(events.take(at), columns)

    def _texts(self, events: Array) -> tuple[Sequence[str | None], Sequence[str | None]]:
        """The columns "text" and "frames" of events of one kind."""
        name, columns, reference = self._kinds[int(events["kind"][0])]
        text: list[str | None] = [None] * len(events)
        frames = text
        if reference:
            text = [self._reference(value) for value in events[reference].tolist()]
        if "stack" in columns and name != "stack":
            frames = [self._folded_stack(stack) for stack in events["stack"].tolist()]
        return text, frames

    def _reference(self, value: int) -> str:
        return self._text(value & ((1 << 48) - 1), value >> 48)

    def _folded_stack(self, stack: int) -> str | None:
        if stack not in self._folded:
            text = folded(reversed(self._stacks.frames(stack)))
            if not text:
                return None
            self._folded[stack] = text
        return self._folded[stack]


def _nullable(values: Array, absent: npt.NDArray[np.bool_]) -> core.Array:
    from arro3.core import Array
    from nanoarrow import c_array_from_buffers, uint64

    there = np.packbits(~absent, bitorder="little")
    return Array(c_array_from_buffers(uint64(), len(values), [there, values]))


def _quoted(text: str | None) -> str:
    return "" if text is None else '"' + text.replace('"', '""') + '"'

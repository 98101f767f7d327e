"""The load that processes put on their files, over time: rates, bytes, calls in flight, and how long they took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.analysis import datapath_load as load
from gotrace.errors import UsageError
from gotrace.probes import datapath as probe
from gotrace.records.times import moment
from gotrace.views.datapath import Call, calls_of
from gotrace.views.datapath_places import Places
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_NUMBERS = 1 << 12
_MOST_INTERVALS = 100_000


class DataPathLoad(View):
    """Every call of a recording, kept until its end (48 bytes each): ``found`` are those on files in the order in which
    they began, ``places`` knows their names. ``width_ns`` is how long an interval is, 0: as it fits.
    """

    name = "datapath_load"
    stems = ("datapath",)
    drawn_by = "datapath_load_page"

    def __init__(self, width_ns: int = 0) -> None:
        self.width_ns = width_ns
        self.places = Places()
        self.result: Record = {}
        self.others = 0
        self.found: load.Calls = np.empty(0, load.CALL)
        self._parts: list[load.Calls] = []

    def begin(self) -> Iterator[Record]:
        self.calls: dict[int, Call] = calls_of(self.source.header)
        yield from ()

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        kinds = self.source.kinds("datapath")
        if self.places.add(*(kinds.of(events, name) for name in ("name", "file", "mount"))):
            self.places.learn(self.source.ask("mounts", list, of_host=True) or ())
        calls = kinds.of(events, "call")
        rows = np.empty(len(calls), load.CALL)
        for name in ("begin_ns", "result", "file", "tid", "process"):
            rows[name] = calls[name]
        what = calls["what"]
        rows["end_ns"], rows["number"] = calls["time_ns"], what & np.uint64(_NUMBERS - 1)
        rows["pages"], rows["direct"] = what >> np.uint64(32), what >> np.uint64(16) & np.uint64(probe.DIRECT)
        self._parts.append(rows)
        yield from ()

    def end(self) -> Iterator[Record]:
        found = np.concatenate([self.found, *self._parts])
        self._parts = []
        found = found[found["number"] != probe.FAULT_IN_CALL]  # in the call's own time
        on_none = [number for number, call in self.calls.items() if call.other]
        others = self.places.names.others(found["file"]) | np.isin(found["number"], on_none)
        self.others = int(others.sum())
        found = found[~others]
        self.found = found[np.argsort(found["begin_ns"], kind="stable")]
        self.result = self._record()
        yield self.result

    def _record(self) -> Record:
        source, found = self.source, self.found
        watched_ns = source.now_ns - source.begin_ns
        width_ns = self.width_ns or load.width(watched_ns)
        if watched_ns / width_ns > _MOST_INTERVALS:
            raise UsageError("that makes too many intervals", "make --interval longer")
        classes, moved = self.classes()
        course = load.course(found, classes, moved, source.begin_ns, source.now_ns, width_ns)
        columns = {name: column.tolist() for name, column in course._asdict().items() if name != "counts"}
        intervals = []
        for at, begin_ns in enumerate(columns["begins"]):
            p50_ns, p99_ns = (columns[name][at] if columns[name][at] >= 0 else None for name in ("p50_ns", "p99_ns"))
            intervals.append(
                {
                    **moment(begin_ns, source.wall_offset_ns),
                    "length_ns": columns["lengths"][at],
                    **dict(zip(load.CLASSES, course.counts[:, at].tolist(), strict=True)),
                    **{name: columns[name][at] for name in ("read_bytes", "written_bytes", "in_flight", "most_in_flight")},
                    "p50_ns": p50_ns,
                    "p99_ns": p99_ns,
                }
            )
        return {
            "type": self.name,
            "target": source.name,
            "watched_ns": watched_ns,
            "lost": source.lost,
            "width_ns": width_ns,
            "calls": len(found),
            "other_calls": self.others,
            "threads": len(np.unique(found["tid"])),
            **{f"{name}_ns": took for name, took in zip(load.CLASSES, self._took(classes), strict=True)},
            "intervals": intervals,
        }

    def _took(self, classes: load.Ints) -> list[int]:
        took = self.found["end_ns"] - self.found["begin_ns"]
        return [int(took[classes == kind].sum()) for kind in range(len(load.CLASSES))]

    def classes(self) -> tuple[load.Ints, load.Ints]:
        """Of each call its class, and the bytes that it read or wrote."""
        of_number = np.full(_NUMBERS, load.METADATA)
        for number, call in self.calls.items():
            if not call.metadata:
                of_number[number] = load.READ if call.reads else load.WRITE if call.moves else load.SYNC
        of_number[probe.PAGE_FAULT] = load.READ
        numbers, results = self.found["number"], self.found["result"]
        moves = np.zeros(_NUMBERS, bool)
        moves[[number for number, call in self.calls.items() if call.moves]] = True
        moved = np.where(moves[numbers] & (results > 0), results, 0)
        return of_number[numbers], np.where(numbers == probe.PAGE_FAULT, self.found["pages"].astype(np.int64) * 4096, moved)


def calls_in(source: Any, width_ns: int = 0) -> DataPathLoad:
    """What a `gotrace.run.sources.Replayed` has, read to its end."""
    view = DataPathLoad(width_ns)
    for _ in view.over(source):
        pass
    return view

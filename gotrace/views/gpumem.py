"""GPU memory of a process: what is live, what is held in pieces, and which requests failed for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.gpumem import calls, summary
from gotrace.analysis.gpumem.layers import CALL, MAPPED, Layers, joined
from gotrace.analysis.gpumem.space import GROWTHS
from gotrace.analysis.stacks import StackTable
from gotrace.export.gpumem_page.draw import Drawing
from gotrace.records.times import moment
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    import numpy.typing as npt

    from gotrace.analysis.gpumem.layers import Key
    from gotrace.analysis.gpumem.space import Course
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

BIN_NS = 10_000_000
_OTHERS_NS = 1_000_000_000  # how often is looked for processes that it has started


class GpuMemory(View):
    """Its spaces at the end, and a line every ``interval_ns`` (0: none); ``bin_ns`` is a column of the pictures.

    ``rows`` are all calls in order, and ``courses`` what they come to, by space, once it has ended; ``libraries`` are the
    files with probes, as records have them.
    """

    name = "gpumem"
    stems = ("gpumem",)
    drawn_by = "gpumem_page.draw"
    tells_cost = True

    def __init__(self, interval_ns: int = 0, bin_ns: int = BIN_NS, top: int = 10) -> None:
        self.interval_ns, self.bin_ns, self.top = interval_ns, bin_ns, top
        self._rows: list[npt.NDArray[np.void]] = []
        self._layers = Layers()
        self._seen: Counter[str] = Counter()
        self._told_ns = 0
        self._stacks: StackTable | None = None
        self._names: dict[int, list[str]] = {}
        self.libraries: list[Record] = []
        self._others: list[Record] = []
        self._others_ns = 0
        self.rows: npt.NDArray[np.void] = np.zeros(0, CALL)
        self.courses: dict[Key, Course] = {}
        self.result: Record = {}

    @property
    def options(self) -> Record:
        return {name: getattr(self, name) for name in ("interval_ns", "bin_ns", "top")}

    @property
    def sees(self) -> bool:
        """Whether anything is probed by now."""
        return any(each["functions"] for each in self.libraries)

    def begin(self) -> Iterator[Record]:
        source = self.source
        self._told_ns = source.begin_ns
        self._stacks = StackTable(source.kinds("gpumem").numbers("stack"), source.frames)
        about = source.header["probes"]["gpumem"]
        files = list(dict.fromkeys(point["file"] for point in about["points"]))
        for path in files or [""] * bool(about["missing"]):
            names = [point["name"] for point in about["points"] if point["file"] == path]
            missing = [[each["name"], each["reason"]] for each in about["missing"]] if path == (files or [""])[0] else []
            self.libraries.append(
                {"path": path, "functions": list(dict.fromkeys(names)), "missing": missing, "late_ns": None}
            )
        yield from ()

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source
        assert self._stacks is not None
        if not source.last:
            for each in source.ask("libraries", lambda: source.tracing.probe_libraries() or None) or ():
                told = {name: each[name] for name in ("path", "missing", "late_ns")}
                self.libraries.append({**told, "functions": each["points"]})
            if due := source.now_ns - self._others_ns >= _OTHERS_NS:
                self._others_ns = source.now_ns
            others: list[Record] | None = source.ask("others", lambda: source.tracing.others() or None, due)
            self._others += others or ()
        for stack in self._stacks.feed(events):  # now, while what is there has surely a name
            self._names[stack] = self._stacks.names(stack)
        rows = self._calls(events)
        self._rows.append(rows)
        if self.interval_ns:
            self._layers.feed(joined([rows]))
            length = source.now_ns - self._told_ns
            if length >= self.interval_ns or source.last:
                yield self._interval(length)

    def _calls(self, events: Events) -> npt.NDArray[np.void]:
        kinds = self.source.kinds("gpumem")
        parts = []
        for kind in ("call", "trace"):
            found = kinds.of(events, kind)
            rows = np.zeros(len(found), CALL)
            for name, column in zip(("call", "address", "size", "stream", "pool"), kinds.columns(kind), strict=True):
                rows[name] = found[column]
            rows["time_ns"], rows["tid"], rows["trace"] = found["time_ns"], found["tid"], kind == "trace"
            parts.append(rows)
        return np.concatenate(parts)

    def _interval(self, length: int) -> Record:
        spaces = {key: space for key, space in self._layers.spaces.items() if key.kind != MAPPED}
        now = self._layers.now()
        counts: Counter[str] = Counter()
        for space in spaces.values():
            counts += space.counts
        since = counts - self._seen
        self._seen, self._told_ns = counts, self.source.now_ns
        return {
            "type": "gpumem_interval",
            **moment(self.source.now_ns, self.source.wall_offset_ns),
            "length_ns": length,
            **now,
            "requests": since["requests"],
            "growths": {name: since[name] for name in GROWTHS.values()},
            "ooms": since["ooms"],
        }

    def end(self) -> Iterator[Record]:
        source, layers = self.source, Layers()
        self.rows = joined(self._rows)
        layers.feed(self.rows)
        self.courses = layers.courses()
        spaces = [summary.space(key, course, layers, self.rows) for key, course in sorted(self.courses.items())]
        live, reserved = summary.peaks(course for key, course in self.courses.items() if key.kind != MAPPED)
        self.result = {
            "type": self.name,
            **moment(source.now_ns, source.wall_offset_ns),
            "target": source.name,
            "watched_ns": source.now_ns - source.begin_ns,
            "lost": source.lost,
            "libraries": self.libraries,
            "others": self._others,
            "calls": {
                name: {"count": layers.calls[name, False] + layers.calls[name, True], "failed": layers.calls[name, True]}
                for name in calls.OPS
                if layers.calls[name, False] + layers.calls[name, True]
            },
            "nested": layers.nested,
            "traced": int(self.rows["trace"].sum()),
            "peak_live": live,
            "peak_reserved": reserved,
            "spaces": spaces,
            "failed": [self._failure(each) for each in summary.failures(self.courses, self.rows)],
            "advice": summary.advice(spaces),
            "device_free": layers.mem_info[1] if layers.mem_info else None,
        }
        yield self.result

    def drawing(self) -> Drawing:
        source = self.source
        return Drawing(self.result, self.courses, self.rows, source.begin_ns, source.now_ns, self.bin_ns)

    def _failure(self, each: summary.Failure) -> Record:
        key = each.key
        return {
            "kind": key.kind,
            "device": None if key.device < 0 else key.device,
            "handle": key.handle,
            "why": each.why,
            "size": each.size,
            "count": each.times,
            "tid": each.tid,
            "stack": self._names.get(each.stack, []),
        }


VIEW = GpuMemory

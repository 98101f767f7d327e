"""Which code allocates, by the spans that it uses up: for programs that take no heap profile, and to compare with one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.allocations import WindowSums
from gotrace.analysis.flame import Numbers, profile_of
from gotrace.analysis.stacks import StackTable
from gotrace.records.heap_spans import spans_record
from gotrace.records.times import moment
from gotrace.text import bytes_text, count_text, duration_text
from gotrace.views.flame import HEAP, Answer
from gotrace.views.heap import frames_of
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events


class HeapSpans(View):
    """What was allocated until now, at every ``interval_ns`` and at the end; ``last`` is the last record.

    What is shown of it: ``objects`` instead of bytes, and the ``top`` stacks.
    """

    name = "heap_spans"
    stems = ("alloc",)
    tells_cost = True

    def __init__(self, interval_ns: int = 0, objects: bool = False, top: int = 20) -> None:
        self.interval_ns, self.objects, self.top = interval_ns, objects, top
        self.last: Record | None = None
        self._sums = WindowSums()
        self._first: list[int] | None = None  # time and total of a reading of the runtime's counter
        self._now: list[int] | None = None

    @property
    def options(self) -> Record:
        return {name: getattr(self, name) for name in ("interval_ns", "objects", "top")}

    @property
    def value(self) -> str:
        """The number of a stack that is shown."""
        return "alloc_objects" if self.objects else "alloc_bytes"

    def begin(self) -> Iterator[Record]:
        self._kinds = self.source.kinds("alloc")
        self._stacks = StackTable(self._kinds.numbers("stack"), self.source.frames)
        self._due_ns = self.source.begin_ns + self.interval_ns
        yield from ()

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source
        self._now = source.ask("allocated", self._total) or self._now
        self._first = self._first or self._now
        self._stacks.feed(events)
        ended = self._kinds.of(events, "window")[["begin_ns", "time_ns"]].tolist()
        since = self._first[0] if self._first is not None else 0
        self._sums.add(self._kinds.of(events, "allocated"), [each for each in ended if each[0] >= since])
        if self._now is not None and (source.last or (self.interval_ns and self.is_due())):
            self.last = self._record(self._now)
            yield self.last

    def _total(self) -> list[int]:
        """When, and what gcController.totalAlloc is."""
        from gotrace.kernel.memory import KeptMemory

        tracing, process = self.source.tracing, self.source.process
        address = tracing.parts["alloc"].plan.facts["total_alloc"] + tracing.bias
        return [time.monotonic_ns(), KeptMemory(process.pid, process.memory_fd).word(address)]

    def _record(self, now: list[int]) -> Record:
        source, first = self.source, self._first or now
        named = {stack: self._stacks.frames(stack) for stack in self._sums.stacks}
        return {
            "type": self.name,
            **moment(now[0], source.wall_offset_ns),
            "pid": int(source.header["target"]["pid"]),
            **spans_record(self._sums, named, now[0] - first[0], now[1] - first[1]),
            "lost": source.lost,
            "cost": source.end["cost"] if source.last else None,
        }

    def how(self) -> str:
        """How it was seen, in words."""
        last = self.last
        if last is None or not last["windows"]:
            return "allocations by span, seen in no window"
        windows, each_ms = last["windows"], last["windows_ns"] / last["windows"] / 1e6
        share = last["windows_ns"] / max(1, last["length_ns"])
        seen = f"seen in {count_text(windows, 'window')} of {each_ms:.0f} ms, {share:.1%} of the time"
        return f"allocations by span, {seen}"

    def how_much(self) -> str:
        """How much there was, and was seen, in words."""
        assert self.last is not None
        sizes = [bytes_text(self.last[name]) for name in ("seen_bytes", "alloc_bytes")]
        return f"{sizes[0]} seen, of {sizes[1]} counted by the runtime in {duration_text(self.last['length_ns'])}"

    def flame(self) -> Answer | None:
        last = self.last
        if last is None:
            return None
        unit = "objects" if self.objects else "bytes"
        weights = {frames_of(each["stack"]): (each[self.value], 1) for each in last["stacks"]}
        numbers: list[Numbers] = [
            np.array([each[name] for each in last["stacks"]], np.int64) for name in ("alloc_objects", "alloc_bytes")
        ]
        names = (("alloc_objects", "count"), ("alloc_space", "bytes"))
        columns = [(*named, column) for named, column in zip(names, numbers, strict=True)]
        notes = [self.how(), self.how_much()]
        if last["lost"]:
            notes.append(f"{count_text(last['lost'], 'event')} lost")
        title = f"allocated, {unit}: {self.source.name}"
        wall_ns = last["monotonic_ns"] - last["length_ns"] + self.source.wall_offset_ns
        return Answer("", profile_of(weights, unit), HEAP, title, notes, wall_ns, last["length_ns"], columns)


VIEW = HeapSpans

"""Which code lets others wait for locks, and which code waits, by the runtime's own profiles."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gotrace.analysis.contention import MUTEX
from gotrace.analysis.flame import Numbers, profile_of
from gotrace.records.contention import contention_record
from gotrace.views.flame import CONTENTION, Answer
from gotrace.views.heap import frames_of, key_of
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events
    from gotrace.runtime.books import Books

# What pprof calls the two numbers of a stack, and their units.
_PPROF = (("contentions", "count"), ("delay", "nanoseconds"))


class Contention(View):
    """The profiles at once, and at every ``interval_ns`` (0: no other); ``kind`` and ``top`` are what is shown of them.

    ``first`` and ``last`` are the first record and the last.
    """

    name = "contention"

    def __init__(self, interval_ns: int = 0, kind: str = MUTEX, top: int = 20) -> None:
        self.interval_ns, self.kind, self.top = interval_ns, kind, top
        self.first: Record | None = None
        self.last: Record | None = None

    @property
    def options(self) -> Record:
        return {name: getattr(self, name) for name in ("interval_ns", "kind", "top")}

    def prepare(self, books: Books) -> None:
        _ = books.contention

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source

        def profiles() -> Record:
            reader = source.books.contention
            return contention_record(reader.contention(), reader, time.monotonic_ns())

        record = self.snapshot(profiles)
        if record is not None:
            self.first = self.first or record
            self.last = record
            yield record

    def waited(self) -> list[Waited]:
        """By stack, the longest delays first: all that was waited, or with several profiles what was from first to last."""
        if self.last is None:
            return []
        before = self.first[self.kind]["stacks"] if self.first is not None and self.interval_ns else []
        return since(before, self.last[self.kind]["stacks"])

    def flame(self) -> Answer | None:
        first, last = self.first, self.last
        if first is None or last is None:
            return None
        rows = self.waited()
        profile = profile_of({frames_of(row.stack): (row.delay_ns, row.waits) for row in rows}, "nanoseconds")
        numbers: list[Numbers] = [
            np.array([getattr(row, name) for row in rows], np.int64) for name in ("waits", "delay_ns")
        ]
        columns = [(*named, column) for named, column in zip(_PPROF, numbers, strict=True)]
        begin_ns = first["monotonic_ns"]
        title = f"{self.kind} profile: {self.source.name}"
        wall_ns, passed_ns = begin_ns + self.source.wall_offset_ns, last["monotonic_ns"] - begin_ns
        return Answer("", profile, CONTENTION, title, [], wall_ns, passed_ns, columns, 1)


class Waited(NamedTuple):
    """One stack's waits; ``stack`` as the record has it."""

    waits: int
    delay_ns: int
    stack: list[Record]


def since(before: Sequence[Record], after: Sequence[Record]) -> list[Waited]:
    """What was waited between two profiles' stacks, the longest delays first."""
    old: dict[Any, Record] = {key_of(each): each for each in before}
    nothing = {"count": 0, "delay_ns": 0}
    rows = []
    for each in after:
        known = old.get(key_of(each), nothing)
        rows.append(Waited(each["count"] - known["count"], each["delay_ns"] - known["delay_ns"], each["stack"]))
    return sorted((row for row in rows if row.waits > 0 or row.delay_ns > 0), key=lambda row: -row.delay_ns)


VIEW = Contention

"""Which code has allocated what is in the heap, profile by profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gotrace.analysis.flame import Numbers, profile_of
from gotrace.analysis.stacks import INLINED, USER, Frame
from gotrace.records.heap import VALUES, heap_record
from gotrace.text import bytes_text
from gotrace.views.flame import HEAP, Answer
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events
    from gotrace.runtime.books import Books

INUSE, ALLOC = "inuse", "alloc"
# What pprof calls each of `VALUES`, and their units.
_PPROF = (("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes"))


class Heap(View):
    """A profile at once, and at every ``interval_ns`` (0: no other): ``published`` as pprof has it, or up to now.

    What is shown of it: ``kind`` (`INUSE` or `ALLOC`), ``objects`` instead of bytes, and the ``top`` stacks. ``first`` and
    ``last`` are the first profile and the last.
    """

    name = "heap"

    def __init__(
        self, interval_ns: int = 0, published: bool = True, kind: str = INUSE, objects: bool = False, top: int = 20
    ) -> None:
        self.interval_ns, self.published = interval_ns, published
        self.kind, self.objects, self.top = kind, objects, top
        self.first: Record | None = None
        self.last: Record | None = None

    @property
    def options(self) -> Record:
        return {name: getattr(self, name) for name in ("interval_ns", "published", "kind", "objects", "top")}

    @property
    def value(self) -> str:
        """The number of a stack that is shown."""
        return f"{self.kind}_{'objects' if self.objects else 'bytes'}"

    def prepare(self, books: Books) -> None:
        _ = books.profiles

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source

        def profile() -> Record:
            return heap_record(source.books.profiles.heap(self.published), source.books.profiles, time.monotonic_ns())

        record = self.snapshot(profile)
        if record is not None:
            self.first = self.first or record
            self.last = record
            yield record

    def flame(self) -> Answer | None:
        """Of several profiles: what was allocated, or what grew, between the first and the last."""
        first, last = self.first, self.last
        if first is None or last is None:
            return None
        grew = self.interval_ns > 0
        columns: list[tuple[str, str, Numbers]] = []
        if grew:
            weights = {
                frames_of(row.stack): row.last - row.first for row in changes(first["stacks"], last["stacks"], self.value)
            }
        else:
            weights = {frames_of(each["stack"]): each[self.value] for each in last["stacks"]}
            numbers = np.array([[each[name] for each in last["stacks"]] for name in VALUES], np.int64)
            columns = [(*named, column) for named, column in zip(_PPROF, numbers, strict=True)]
        unit = "objects" if self.objects else "bytes"
        profile = profile_of({stack: (weight, 1) for stack, weight in weights.items()}, unit)
        what = {INUSE: "growth of what is in use" if grew else "in use", ALLOC: "allocated"}[self.kind]
        title = f"{what}, {unit}: {self.source.name}"
        notes = [f"sampled every {bytes_text(last['rate_bytes'])}"]
        begin_ns = first["monotonic_ns"]
        passed_ns, wall_ns = last["monotonic_ns"] - begin_ns, begin_ns + self.source.wall_offset_ns
        return Answer("", profile, HEAP, title, notes, wall_ns, passed_ns, columns, last["rate_bytes"])


Key = Callable[[Record], Any]


class Changed(NamedTuple):
    """One stack's number in two profiles; ``stack`` as the record has it."""

    first: int
    last: int
    stack: list[Record]


def changes(before: Sequence[Record], after: Sequence[Record], value: str, by: Key | None = None) -> list[Changed]:
    """What there is more of in the second of two profiles' stacks, most first; ``by`` as of `differences`."""
    return [row for row in differences(before, after, value, by) if row.last > row.first]


def differences(before: Sequence[Record], after: Sequence[Record], value: str, by: Key | None = None) -> list[Changed]:
    """What there is more or less of in the second of two profiles' stacks, the largest difference first.

    Stacks are the same that have the same key: `key_of`, or `functions_of` for what `by_functions` has put together.
    """
    key = by or key_of
    old, new = ({key(each): each for each in stacks} for stacks in (before, after))
    nothing = {value: 0}
    rows = [
        Changed(old.get(key, nothing)[value], new.get(key, nothing)[value], each["stack"])
        for key, each in {**new, **old, **new}.items()
    ]
    return sorted((row for row in rows if row.last != row.first), key=lambda row: -abs(row.last - row.first))


def key_of(sampled: Record) -> Any:
    """What samples with the same stack have in common."""
    return tuple((each["function"], each["file"], each["line"]) for each in sampled["stack"])


def frames_of(stack: list[Record]) -> tuple[Frame, ...]:
    """A record's stack, the outermost function first."""
    return tuple(
        Frame(each["function"], each["file"], each["line"], "", INLINED if each["inlined"] else USER)
        for each in reversed(stack)
    )


VIEW = Heap

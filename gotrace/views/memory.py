"""What RSS consists of, look by look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gotrace.errors import GotraceError
from gotrace.kernel.memory import PAGE
from gotrace.records.heap import live_record, live_unknown
from gotrace.records.memory import look_record
from gotrace.records.times import moment
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_MAPPED = ("heap_inuse", "stack_inuse", "workbufs", "pointer_bits", "heap_free", "heap_released")


class Looks(View):
    """A look at once, and at every ``interval_ns`` (0: no other). ``classes`` is how many size classes are named.
    With ``code`` each says which code has allocated what is live.

    ``last`` is the last snapshot, and ``scavenged`` the sum of `scavenged` over all of them.
    """

    name = "memory"

    def __init__(self, interval_ns: int = 0, classes: int = 5, code: bool = False) -> None:
        self.interval_ns = interval_ns
        self.classes = classes
        self.code = code
        self.last: Record | None = None
        self.scavenged: Record = {}

    @property
    def options(self) -> Record:
        return {"interval_ns": self.interval_ns, "classes": self.classes, "code": self.code}

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source

        def look() -> Record:
            found = look_record(source.books.looker.look(), PAGE, source.books.looker.places.missing)
            return {**found, "code": self._live() if self.code else None}

        found = source.ask(self.name, look, self.is_due())
        if found is not None:
            taken_ns = found.get("monotonic_ns")
            if taken_ns is None:  # recordings of version 0.1.0 have seconds since the epoch
                taken_ns = round(found["time"] * 1e9) - source.wall_offset_ns
            found = {"type": found["type"], **moment(taken_ns, source.wall_offset_ns)} | {
                name: value for name, value in found.items() if name not in ("time", "monotonic_ns")
            }
            found |= {name: found.get(name) for name in ("cgroup", "regions", "code")}  # since 0.2.0
            found["scavenged"] = scavenged(self.last, found)
            self.scavenged = _added(self.scavenged, found["scavenged"] or {})
            self.last = found
            yield found

    def _live(self) -> Record:
        try:
            reader = self.source.books.profiles
            return live_record(reader.heap(), reader)
        except GotraceError as error:
            return live_unknown(error.message)


def _added(totals: Record, more: Record) -> Record:
    return {name: totals.get(name, 0) + more.get(name, 0) for name in {**totals, **more}}


def scavenged(before: Record | None, after: Record) -> Record | None:
    """What the heap returned to the kernel and what it took from it between two looks, in bytes.

    None for the first snapshot, and if the runtime's counters are unknown. HeapReleased grows by what is returned and by
    what is newly mapped, and shrinks by what is taken, whether it was returned before or never used. So two of them tell
    the third, and the least of what was returned where it is not counted: by debug.FreeOSMemory, whose part that was taken
    back before the next look is not seen, and by the scavenger since its last pause, which it counts at the next.
    """
    if (
        before is None
        or before["monotonic_ns"] == after["monotonic_ns"]
        or after["counters"]["returned_background"] is None
    ):
        return None
    old, new = before["counters"], after["counters"]
    counted = -before["scavenged"]["uncounted_bytes"] if before["scavenged"] is not None else 0
    for name in ("returned_background", "returned_eager"):
        if new[name] is not None:
            counted += new[name] - old[name] if new[name] >= old[name] else new[name]  # scavtrace=1: it began anew
    mapped = max(0, sum(new[name] - old[name] for name in _MAPPED))
    more = new["heap_released"] - old["heap_released"] - mapped
    returned = max(0, counted, more)
    return {
        "seconds": round((after["monotonic_ns"] - before["monotonic_ns"]) / 1e9, 6),
        "returned_bytes": returned,
        "uncounted_bytes": returned - max(0, counted),
        "taken_bytes": returned - more,
        "mapped_bytes": mapped,
    }


VIEW = Looks

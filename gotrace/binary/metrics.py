"""Where a Go program's runtime keeps what its own metrics (runtime/metrics) are made of, in a stripped executable."""

from __future__ import annotations

from collections.abc import Callable

from gotrace.binary.globals import find_globals
from gotrace.binary.goroutines import find_allgs
from gotrace.binary.heap import find_memstats
from gotrace.binary.layout import layout_of, offsets_of
from gotrace.binary.metric_places import ALLOCATIONS, GOROUTINES, MEMORY, SCHEDULE, MetricPlaces
from gotrace.binary.program import GoProgram
from gotrace.binary.scheduler import find_allp, find_sched
from gotrace.errors import BinaryError

# What each is made of; a field with a "?" does not exist in every release.
_FIELDS = {
    MEMORY: {
        "mstats": (
            *("enablegc", "last_gc_nanotime", "heapStats"),
            *("stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys"),
        ),
        "heapStatsDelta": ("sizeof", "committed", "inStacks"),
        "gcControllerState": ("gcPercent", "memoryLimit", "lastHeapGoal", "heapMarked", "totalAlloc", "totalFree"),
    },
    ALLOCATIONS: {
        "mstats": ("enablegc", "last_gc_nanotime", "heapStats"),
        "heapStatsDelta": ("sizeof", "largeAllocCount", "smallAllocCount", "largeFree"),
    },
    GOROUTINES: {
        "schedt": ("lock", "nmidlelocked", "lastpoll", "ngsys", "gFree.n?", "gFree.stack.size?", "gFree.noStack.size?"),
        "p": ("gFree.n?", "gFree.size?"),
    },
    SCHEDULE: {
        "schedt": ("lock", "nmidlelocked", "lastpoll", "timeToRun"),
        "timeHistogram": ("counts", "underflow", "overflow?"),
    },
}
# Where goroutines that wait to be used again are counted, of all Ps and of one: one of each, as the release has it.
_FREE = (
    (("schedt.gFree.n",), ("schedt.gFree.stack.size", "schedt.gFree.noStack.size")),
    (("p.gFree.n",), ("p.gFree.size",)),
)


def find_metrics(program: GoProgram) -> MetricPlaces:
    """Everything that can be established."""
    layout = layout_of(program)
    offsets: dict[str, int] = {}
    missing: dict[str, str] = {}
    found: dict[str, int] = {}

    def find(part: str, **places: Callable[[], int]) -> None:
        try:
            offsets.update(offsets_of(layout, _FIELDS[part]))
            if part == GOROUTINES and not all(any(all(f in offsets for f in each) for each in way) for way in _FREE):
                raise BinaryError(f"how {program.go_version} counts free goroutines is unknown")
            found.update({name: place() for name, place in places.items()})
        except BinaryError as error:
            missing[part] = error.message

    def controller() -> int:
        place = find_globals(program).gc_controller
        if place is None:
            raise BinaryError("gcController was not found")
        return place

    def memstats() -> int:
        return find_memstats(program, offsets)

    def sched() -> int:
        return find_sched(program, offsets)

    find(MEMORY, memstats=memstats, gc_controller=controller)
    find(ALLOCATIONS, memstats=memstats)
    find(GOROUTINES, sched=sched, allp=lambda: find_allp(program), allglen=lambda: find_allgs(program)[0])
    find(SCHEDULE, sched=sched)
    return MetricPlaces(
        pie=program.pie,
        first_vaddr=program.elf.first_vaddr,
        **{name: found.get(name, 0) for name in ("memstats", "gc_controller", "allglen", "allp", "sched")},
        offsets=offsets,
        system_goroutines=program.version >= (1, 26),
        missing=missing,
    )

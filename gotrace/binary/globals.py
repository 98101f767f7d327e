"""Finding the runtime's global variables in a stripped executable, from the code that refers to them.

Each recipe takes the data references of one small runtime function, in order, and is accepted only when a second
reference agrees. Verified against DWARF on every release of the support matrix and both architectures, with PGO, without
optimisation, with cgo, and position-independent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gotrace.binary import code
from gotrace.binary.layout import Layout, layout_of
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

# work.cycles lies within this distance behind &work, and these behind work.cycles: tSweepTerm 16, tMark 24, tMarkTerm 32,
# tEnd 40, pauseNS 48, [pauseStart 56 up to 1.21], heap0, heap1, heap2.
_CYCLES_RANGE = range(300, 1101)

_SCAVENGE_ASSIST = ("cpuStats.ScavengeAssistTime", "cpuStats.scavengeAssistTime")  # since Go 1.23, before

# Fields of gcController: what is set, and what the next cycle's goal comes from.
PACING = ("gcPercent", "memoryLimit", "heapMinimum", "gcPercentHeapGoal", "mappedReady")


@dataclass
class Globals:
    """Link-time addresses and offsets; None where they could not be established, with the reason in ``missing``."""

    work: int | None = None
    work_cycles: int | None = None
    work_heaps: int = 56  # offset of heap0 from work.cycles
    work_user_forced: int | None = None
    gc_controller: int | None = None
    gc_heap_live: int = 0  # its fields, where it is known
    gc_last_heap_goal: int = 0
    gc_assist_time: int = 0
    # With pacing:
    gc_pacing: tuple[int, ...] = ()  # offsets of PACING in gcController, all or none
    limiter_cycle: int | None = None  # gcCPULimiter.lastEnabledCycle
    # mheap_.pages.scav.releasedEager, what allocations returned to the kernel, and work.cpuStats.ScavengeAssistTime, how
    # long that took them; None too in a release that does not record it.
    returned_eager: int | None = None
    scavenge_assist: int | None = None
    missing: dict[str, str] = field(default_factory=dict)


def find_globals(program: GoProgram, pacing: bool = False) -> Globals:
    """Everything that can be established, never a guess; ``pacing``: what paces the collector, too, which takes longer."""
    found = Globals(work_heaps=64 if program.version < (1, 22) else 56)
    layout = layout_of(program)
    recipes = {"work": _find_work, "work.userForced": _find_user_forced, "gcController": _find_controller}
    of_pacing = {
        "what sets the heap goal": _find_pacing,
        "the GC CPU limiter": _find_limiter,
        "memory returned while allocating": _find_returned,
        "time spent returning memory during allocation": _find_scavenge_assist,
    }
    for name, recipe in [*recipes.items(), *(of_pacing.items() if pacing else ())]:
        try:
            recipe(program, layout, found)
        except BinaryError as error:
            found.missing[name] = error.message
    return found


def _wbuf_spans(program: GoProgram) -> int:
    """The offset of work.wbufSpans, behind full and empty: each a word, and padding to a cache line from some release on.

    Before 1.20 the linker took every cache line to be 64 bytes long.
    """
    pads = 2 if program.version >= (1, 21) else 1
    return 16 + pads * (program.elf.isa.cache_line if program.version >= (1, 20) else 64)


def _find_work(program: GoProgram, _: Layout, found: Globals) -> None:
    refs = code.data_refs(program, "runtime.prepareFreeWorkbufs")
    if len(refs) < 2 or refs[0] - _wbuf_spans(program) != refs[1]:
        raise BinaryError("runtime.work was not found: prepareFreeWorkbufs does not refer to the expected data")
    work = refs[1]
    cycles = {ref for ref in code.data_refs(program, "runtime.gcTrigger.test") if ref - work in _CYCLES_RANGE}
    if len(cycles) != 1:
        raise BinaryError("runtime.work.cycles was not found: gcTrigger.test does not refer to the expected data")
    found.work = work
    found.work_cycles = cycles.pop()


def _find_user_forced(program: GoProgram, layout: Layout, found: Globals) -> None:
    """The table is believed only where it agrees with the code: gcStart writes the field."""
    if found.work is None:
        return
    place = found.work + layout.offset("runtime.workType", "userForced")
    if place not in code.data_refs(program, "runtime.gcStart"):
        raise BinaryError("runtime.work.userForced was not found: gcStart does not refer to the expected data")
    found.work_user_forced = place


def _find_controller(program: GoProgram, layout: Layout, found: Globals) -> None:
    """gcTrigger.test compares heapLive; what gctrace prints, gcMarkTermination refers to."""
    at = {name: layout.offset("runtime.gcControllerState", name) for name in ("heapLive", "lastHeapGoal", "assistTime")}
    refs = set(code.data_refs(program, "runtime.gcTrigger.test"))
    printed = set(code.data_refs(program, "runtime.gcMarkTermination"))
    matches = [ref for ref in refs if ref + at["heapLive"] in refs]
    if len(matches) != 1:
        raise BinaryError("runtime.gcController was not found: gcTrigger.test does not refer to the expected data")
    if not {matches[0] + at["lastHeapGoal"], matches[0] + at["assistTime"]} <= printed:
        raise BinaryError("runtime.gcController was not found: gcMarkTermination does not refer to the expected data")
    found.gc_controller = matches[0]
    found.gc_heap_live, found.gc_last_heap_goal, found.gc_assist_time = at.values()


def _find_pacing(_: GoProgram, layout: Layout, found: Globals) -> None:
    if found.gc_controller is None:
        return
    found.gc_pacing = tuple(layout.offset("runtime.gcControllerState", name) for name in PACING)


def _find_limiter(program: GoProgram, layout: Layout, found: Globals) -> None:
    """A cycle's begin and end hand it over; an assist asks whether it is on. Without optimisation all name the whole."""
    if found.gc_controller is None:
        return
    enabled, last = (layout.offset("runtime.gcCPULimiterState", name) for name in ("enabled", "lastEnabledCycle"))
    begin, end, assist, stop = (
        set(code.data_refs(program, f"runtime.{symbol}"))
        for symbol in ("gcStart", "gcMarkTermination", "gcAssistAlloc", "(*limiterEvent).stop")
    )
    both = begin & end
    matches = {ref for ref in both if ref + enabled in assist} or both & assist & stop
    if len(matches) != 1:
        raise BinaryError("runtime.gcCPULimiter was not found: gcAssistAlloc does not refer to the expected data")
    found.limiter_cycle = matches.pop() + last


def _find_returned(program: GoProgram, layout: Layout, found: Globals) -> None:
    if not layout.has("runtime.mheap", "pages.scav.releasedEager"):
        return  # Go 1.20 and older count only what is returned in the background
    heap = find_mheap(program, layout.offset("runtime.mheap", "sweepgen"))
    found.returned_eager = heap + layout.offset("runtime.mheap", "pages.scav.releasedEager")


def _find_scavenge_assist(program: GoProgram, layout: Layout, found: Globals) -> None:
    """The table is believed only where it agrees with the code: gcMarkTermination hands work.cpuStats over."""
    if found.work is None:
        return
    names = [name for name in _SCAVENGE_ASSIST if layout.has("runtime.workType", name)]
    if not names:
        return  # Go 1.19 keeps no such time
    begin = found.work + layout.offset("runtime.workType", "cpuStats")
    if begin not in code.data_refs(program, "runtime.gcMarkTermination"):
        raise BinaryError("runtime.work.cpuStats was not found: gcMarkTermination does not refer to the expected data")
    found.scavenge_assist = found.work + layout.offset("runtime.workType", names[0])


def find_mheap(program: GoProgram, sweepgen: int) -> int:
    """runtime.mheap_; ``sweepgen`` is the offset of that field. Raises BinaryError."""
    refs = code.data_refs(program, "runtime.stackpoolalloc")
    others = code.data_refs(program, "runtime.(*mcentral).uncacheSpan")
    if len(refs) < 2 or not others or others[0] - sweepgen != refs[1]:
        raise BinaryError("runtime.mheap_ was not found: the runtime does not refer to the expected data")
    return refs[1]

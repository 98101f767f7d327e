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

# work.wbufSpans: full and empty are each padded to a cache line (64 bytes on amd64, 128 on arm64).
_WBUF_SPANS = {"amd64": 144, "arm64": 272}
_WBUF_SPANS_1_19 = 80

# gcControllerState offsets that never moved from 1.21 to 1.27; 1.19 and 1.20 have 32 bytes more before heapLive.
_HEAP_LIVE, _LAST_HEAP_GOAL, _ASSIST_TIME = 104, 96, 192
_OLD_SHIFT = 32

# work.cycles lies within this distance behind &work, and these behind work.cycles: tSweepTerm 16, tMark 24, tMarkTerm 32,
# tEnd 40, pauseNS 48, [pauseStart 56 up to 1.21], heap0, heap1, heap2.
_CYCLES_RANGE = range(300, 1101)


@dataclass
class Globals:
    """Link-time addresses and offsets; None where they could not be established, with the reason in ``missing``."""

    work: int | None = None
    work_cycles: int | None = None
    work_heaps: int = 56  # offset of heap0 from work.cycles
    work_user_forced: int | None = None
    gc_controller: int | None = None
    gc_last_heap_goal: int = _LAST_HEAP_GOAL
    gc_assist_time: int = _ASSIST_TIME
    gc_heap_live: int = _HEAP_LIVE
    missing: dict[str, str] = field(default_factory=dict)


def find_globals(program: GoProgram) -> Globals:
    """Everything that can be established; never a guess."""
    found = Globals(work_heaps=64 if program.version < (1, 22) else 56)
    old = program.version < (1, 21)
    if old:
        found.gc_last_heap_goal += _OLD_SHIFT
        found.gc_assist_time += _OLD_SHIFT
        found.gc_heap_live += _OLD_SHIFT
    layout = layout_of(program)
    for name, recipe in (("work", _find_work), ("gcController", _find_controller)):
        try:
            recipe(program, layout, found)
        except BinaryError as error:
            found.missing[name] = error.message
    return found


def _find_work(program: GoProgram, layout: Layout, found: Globals) -> None:
    refs = code.data_refs(program, "runtime.prepareFreeWorkbufs")
    delta = _WBUF_SPANS[program.arch] if program.version >= (1, 21) else _WBUF_SPANS_1_19
    if len(refs) < 2 or refs[0] - delta != refs[1]:
        raise BinaryError("runtime.work was not found: prepareFreeWorkbufs refers to other data than expected")
    work = refs[1]
    cycles = {ref for ref in code.data_refs(program, "runtime.gcTrigger.test") if ref - work in _CYCLES_RANGE}
    if len(cycles) != 1:
        raise BinaryError("runtime.work.cycles was not found: gcTrigger.test refers to other data than expected")
    found.work = work
    found.work_cycles = cycles.pop()
    # The table is believed only where it agrees with the code about a neighbour.
    if not layout.has("runtime.workType", "userForced"):
        found.missing["work.userForced"] = f"its place in {program.go_version} is not known"
    elif work + layout.offset("runtime.workType", "cycles") != found.work_cycles:
        found.missing["work.userForced"] = "the known layout of runtime.work does not fit this executable"
    else:
        found.work_user_forced = work + layout.offset("runtime.workType", "userForced")


def _find_controller(program: GoProgram, layout: Layout, found: Globals) -> None:
    refs = set(code.data_refs(program, "runtime.gcTrigger.test"))
    matches = [ref for ref in refs if ref + found.gc_heap_live in refs]
    if len(matches) != 1:
        raise BinaryError("runtime.gcController was not found: gcTrigger.test refers to other data than expected")
    found.gc_controller = matches[0]

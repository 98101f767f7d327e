"""How long mark assists hold goroutines: a goroutine that allocates while the collector marks has to help it, or to wait.

Where the probes sit, all in ``gcAssistAlloc``, on instructions that the kernel emulates:

* its entry. Most calls end soon after: the background workers have earned enough credit, or the collector is over.
* the branch behind the call of ``gcMarkDone``, where it looks whether g.gcAssistBytes, its debt, is paid by what it has
  marked. A call that has marked comes by here, whether that completed the mark phase or not.
* the branch behind the call of ``gcParkAssist``, in which it waits on the assist queue until others have paid its debt.

From there it returns to what the goroutine was doing, some instructions later; or begins anew, and comes by again. The
stack is taken once for each, where it has marked or was parked: most calls do neither.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gotrace.kernel.btf import stack_settings
from gotrace.probe import STACK_ADDRESSES, STACK_CONFIG, STACKS, Kind, Plan, PlanBuilder, Probe, stack_kind

if TYPE_CHECKING:
    from gotrace.binary.code import Site
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

PROBE = Probe(
    stem="assist",
    summary="how long mark assists hold each goroutine",
    kinds=(
        # at its end, of those that marked or were parked; begin_ns is 0 if it had begun before the probes were there, and
        # works is how often it marked
        Kind("assist", 0x901, ("goid", "begin_ns", "end_ns", "parked_ns", "works")),
        Kind("assist_by", 0x902, ("goid", "begin_ns", "end_ns", "parked_ns", "stack")),  # the same, with who allocated
        stack_kind(0x903),
    ),
    config=("has_goid", "g_goid", "g_assist_bytes", *STACK_CONFIG),
    hits=("assist_begin", "assist_checked", "assist_parked"),
    parts=(STACKS,),
    ring_bytes=8 << 20,
)

ASSIST = "runtime.gcAssistAlloc"


def settings(_: Traceable) -> dict[str, int]:
    """What walks of stacks have to know of this kernel."""
    return stack_settings()


def sites(program: GoProgram, debt: int) -> tuple[Site, Site, Site]:
    """Entry, look at the debt, and return from the queue; ``debt`` is the offset of g.gcAssistBytes. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.errors import BinaryError

    checked, before = code.branch_behind(program, ASSIST, "runtime.gcMarkDone")
    # The branch is what the table says only if the code reads that field just before, and both ways lead there.
    reads = any(re.search(rf"[ #]{debt:#x}\]", each.operands) for each in before)
    joined = reads and any(before[0].address <= each.target <= checked.address for each in code.decode(program, ASSIST))
    if not joined:
        raise BinaryError(f"{ASSIST} does not look at what a goroutine owes as expected")
    parked, before = code.branch_behind(program, ASSIST, "runtime.gcParkAssist")
    tests = (parked.instruction, *map(str, before))
    if not any(re.fullmatch(program.elf.isa.result_test, each) for each in tests):
        raise BinaryError(f"{ASSIST} does not look whether a goroutine was parked as expected")
    return code.entry_site(program, ASSIST), checked, parked


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe: all three, or none. Raises BinaryError."""
    from gotrace.binary.layout import layout_of
    from gotrace.errors import BinaryError

    build = PlanBuilder(program)
    layout = layout_of(program)
    if layout.has("runtime.g", "goid"):
        build.config |= {"has_goid": 1, "g_goid": layout.offset("runtime.g", "goid")}
    try:
        debt = layout.offset("runtime.g", "gcAssistBytes")
        begin, checked, parked = sites(program, debt)
    except BinaryError as error:
        build.lacks("mark assists", error.message)
    else:
        build.config["g_assist_bytes"] = debt
        # The last one first: who is seen beginning is seen ending.
        build.add("assist parked", "assist_parked", lambda: [parked])
        build.add("assist checked", "assist_checked", lambda: [checked])
        build.add("assist begin", "assist_begin", lambda: [begin])
    build.add_stacks(layout)
    return build.plan({}, STACK_ADDRESSES)

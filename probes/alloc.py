"""Which code allocates, span by span: what a program without a heap profile can be asked.

Which probe sits where, and why there; both are in the prologue, on an instruction that the kernel emulates, at which the
arguments are still in their registers:

* ``mcache.refill``: a P has used up the span from which it allocated objects of one class. The bytes put into that since
  the P got it, which the runtime adds to gcController.totalAlloc there (``runtime/mcache.go``), stand for the stack that
  needs the next one. Over many spans that is no bias: who allocates more is more often the one that needs it.
* ``mcache.allocLarge``: an object of more than 32 KiB, with the pages that it takes.

There are some 100,000 of them in a gigabyte, so both are set for short windows only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.kernel.btf import stack_settings
from gotrace.probe import STACK_ADDRESSES, STACK_CONFIG, STACKS, Kind, Plan, PlanBuilder, Probe, stack_kind, window_kind

if TYPE_CHECKING:
    from gotrace.binary.code import Site
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

PROBE = Probe(
    stem="alloc",
    summary="which code allocates, by spans, in short windows",
    kinds=(
        # objects that a stack stands for, and their bytes: those of a span, or one large object
        Kind("allocated", 0xC01, ("bytes", "objects", "stack")),
        stack_kind(0xC02),
        window_kind(0xC03),
    ),
    config=("mcache_alloc", "mspan_count", "mspan_count_before", "mspan_size", *STACK_CONFIG),
    hits=("span_used_up", "large_object"),
    constants={"GO_PAGE": 8192},
    parts=(STACKS,),
    walk_ns=3000.0,
    ring_bytes=8 << 20,
    books=True,
    window_ns=20_000_000,
    every_ns=500_000_000,
)

REFILL, LARGE = "runtime.(*mcache).refill", "runtime.(*mcache).allocLarge"
_FIELDS = {
    "mcache_alloc": ("runtime.mcache", "alloc"),
    "mspan_count": ("runtime.mspan", "allocCount"),
    "mspan_count_before": ("runtime.mspan", "allocCountBeforeCache"),
    "mspan_size": ("runtime.mspan", "elemsize"),
}


def settings(_: Traceable) -> dict[str, int]:
    """Where this kernel keeps what the walk of a stack needs."""
    return stack_settings()


def site(program: GoProgram, symbol: str) -> Site:
    """Where one of the two functions begins, at the branch of its stack check or right behind it. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.errors import BinaryError
    from gotrace.probe import is_inlined

    if is_inlined(program, symbol):
        raise BinaryError(f"{symbol} is inlined: what is allocated there would not be seen")
    found, isa = code.entry_site(program, symbol), program.elf.isa
    checks = found.instruction.split()[0] == isa.stack_branch[0] or found.instruction == isa.after_branch
    if not checks or found.address == code.body(program, symbol).entry:
        raise BinaryError(f"{symbol} does not check its stack as expected")
    return found


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe: both, or none.

    ``facts`` has the link-time address of gcController.totalAlloc: the bytes of all objects since the program began, but
    for those in spans that Ps still allocate from.
    """
    from gotrace.binary.globals import find_globals
    from gotrace.binary.layout import layout_of
    from gotrace.errors import BinaryError

    build, facts = PlanBuilder(program), {}
    try:
        layout = layout_of(program)
        offsets = {name: layout.offset(*field) for name, field in _FIELDS.items()}
        controller = find_globals(program).gc_controller
        if controller is None:
            raise BinaryError("runtime.gcController was not found: how much is allocated would be unknown")
        facts["total_alloc"] = controller + layout.offset("runtime.gcControllerState", "totalAlloc")
        spans, large = site(program, REFILL), site(program, LARGE)
    except BinaryError as error:
        build.lacks("allocations", error.message)
        return build.plan({})
    build.config |= offsets
    # They are set in this order: until the last one is, the target hits the others for nothing, and spans are many.
    build.add("large objects", "large_object", lambda: [large])
    build.add("spans", "span_used_up", lambda: [spans])
    build.add_stacks(layout)
    return build.plan(facts, STACK_ADDRESSES)

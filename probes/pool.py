"""What collections drop out of each ``sync.Pool``, and which of its objects are made anew because of that.

A pool keeps what is returned to it through one collection (as its victims) and drops what nobody took by the next. An
object that has to be made is one that the pool had, if a collection dropped one of that pool before and no other was made
in its place since: had it been kept, it would have been taken. Nothing that is returned nowhere, or not yet, counts, for
a pool that never had it never dropped it.

Where the probes sit, both on instructions that the kernel emulates:

* the entry of ``sync.poolCleanup``, which begins each collection while the world is stopped: the victims are counted there.
* in ``sync.(*Pool).Get``, the branch behind the load of Pool.New, which is reached only if the pool has no object for the
  caller. A register has the pool then.

Layouts are those of sync/pool.go and sync/poolqueue.go since Go 1.13 (Pool, poolLocal, poolChain, poolDequeue), and of
internal/abi/type.go.
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
    stem="pool",
    summary="objects that collections drop out of each sync.Pool",
    kinds=(
        # of one pool at one collection: objects that any P could have taken, and those that one P had for itself; pool 0:
        # there was more than could be looked at
        Kind("pool_dropped", 0x1501, ("pool", "shared", "private")),
        # object_bytes: of one that was dropped, with the array behind a slice that it begins with; private: what was
        # dropped for it was of one P only; kept: how many objects would be in the pool had none been dropped
        Kind("pool_refill", 0x1502, ("pool", "stack", "object_bytes", "private", "kept")),
        stack_kind(0x1503),
    ),
    config=("old_pools", "pool_register", *STACK_CONFIG),
    hits=("pool_cleaned", "pool_missed"),
    timed=("pool_cleaned",),
    parts=(STACKS,),
    spare=True,  # many programs have no pool
)

_GET, _CLEANUP = "sync.(*Pool).Get", "sync.poolCleanup"
_NEW = 32  # offset of Pool.New
_BETWEEN = 3  # instructions from its load to the branch


def settings(_: Traceable) -> dict[str, int]:
    """What walks of stacks have to know of this kernel."""
    return stack_settings()


def miss_site(program: GoProgram) -> tuple[Site, str]:
    """The branch, and the register with the pool. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.errors import BinaryError

    instructions, isa = code.decode(program, _GET), program.elf.isa
    load = rf"(?P<to>\w+), (?:qword ptr )?\[(?P<pool>\w+)(?: \+ |, #){_NEW:#x}\]"
    for number, each in enumerate(instructions):
        found = each.mnemonic == isa.data_load and re.fullmatch(load, each.operands)
        if not found or found["pool"] not in isa.pt_regs:
            continue
        behind = instructions[number + 1 : number + 1 + _BETWEEN]
        for branch, before in zip(behind, [each, *behind], strict=False):
            tested = found["to"] in branch.operands.split(", ") or str(before) == f"test {found['to']}, {found['to']}"
            if branch.target and tested and code.is_emulated(program.elf, branch):
                return code.site(program, _GET, branch), found["pool"]
    raise BinaryError(f"{_GET} does not look for New as expected", "it was built without optimization")


def old_pools(program: GoProgram) -> int:
    """The address of sync.oldPools, which poolCleanup begins with and stores in the end. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.errors import BinaryError

    found = code.data_refs(program, _CLEANUP)
    if not found or found.count(found[0]) < 2:
        raise BinaryError(f"{_CLEANUP} does not go through the old pools as expected")
    return found[0]


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe: both, or none."""
    from gotrace.binary import code
    from gotrace.binary.layout import layout_of
    from gotrace.errors import BinaryError

    build = PlanBuilder(program)
    try:
        missed, register = miss_site(program)
        build.config["old_pools"] = old_pools(program)
        cleaned = code.entry_site(program, _CLEANUP)
    except BinaryError as error:
        if program.pclntab.function(_GET) is not None:  # otherwise it has none
            build.lacks("pools", error.message)
    else:
        build.config["pool_register"] = program.elf.isa.register_offset(register)
        build.add("pool missed", "pool_missed", lambda: [missed])
        build.add("pool cleaned", "pool_cleaned", lambda: [cleaned])
    build.add_stacks(layout_of(program))
    return build.plan({}, ("old_pools", *STACK_ADDRESSES))

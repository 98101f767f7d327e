"""What threads wait for a CPU, every time, and what Ps steal of one another.

Which probe sits where, and why there:

* the tracepoints ``sched_waking`` and ``sched_wakeup_new``: a thread of the target can run from then on. ``sched_switch``:
  it could go on, but another task got its CPU; and it has one again, after whom. Whether a CPU quota held it is read from
  the scheduler's structs when it loses its CPU and when it is woken: no tracepoint reports it.
* ``runqsteal``, entry, and the branch behind its call of ``runqgrab``: a P without work looks into the queue of another,
  and how many goroutines it took. Both are instructions that the kernel emulates.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gotrace.kernel.btf import QUOTA_FIELDS, TASK_FIELDS, task_settings
from gotrace.probe import QUOTA, TARGET, TASKS, Kind, Plan, PlanBuilder, Probe, task_kind

if TYPE_CHECKING:
    from gotrace.binary.code import Site
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

PREEMPTED, THROTTLED = 1, 2
LONG_NS = 1_000_000  # of a wait that is as long it is told who had the CPU all the time, not only last
STEAL, GRAB = "runtime.runqsteal", "runtime.runqgrab"

PROBE = Probe(
    stem="sched",
    summary="what threads wait for a CPU, and what Ps steal of one another",
    kinds=(
        # a thread got a CPU; it could run since runnable_ns. The task holder, 0 if none, had this CPU from holder_ns until
        # now. flags: PREEMPTED if it had been running, and was not woken; THROTTLED
        Kind("got_cpu", 0xA01, ("runnable_ns", "holder", "holder_ns", "flags")),
        # tid had this CPU from then until then, while a thread waited for it for long, and before got_cpu's holder
        Kind("held", 0xA04, ("waiter", "begin_ns", "end_ns")),
        # numbers of Ps, and how many goroutines went from one to the other: 0 if there were none
        Kind("steal", 0xA02, ("thief", "victim", "taken")),
        task_kind(0xA03),
    ),
    config=("tgid", "task_pid", "task_tgid", "task_state", "task_comm", *QUOTA_FIELDS),
    hits=(
        *("seen", "steal_begin", "steal_end"),
        *("on_tracepoint__sched_switch", "on_tracepoint__sched_waking", "on_tracepoint__sched_wakeup_new"),
    ),
    constants={"PREEMPTED": PREEMPTED, "THROTTLED": THROTTLED, "LONG_NS": LONG_NS},
    parts=(TARGET, QUOTA, TASKS),
    ring_bytes=8 << 20,
)


def why(flags: int) -> str:
    """What a wait came from, by the flags of got_cpu."""
    return "CPU quota" if flags & THROTTLED else "preempted" if flags & PREEMPTED else "woken"


def settings(target: Traceable) -> dict[str, int]:
    """Where this kernel keeps what is read of its tasks. Raises HostError if the kernel has no type information."""
    from gotrace.kernel.host import kernel_pid

    found = task_settings({**TASK_FIELDS, "task_comm": ("task_struct", "comm"), **QUOTA_FIELDS})
    return {**found, "tgid": kernel_pid(target.pid)}


def sites(program: GoProgram) -> tuple[Site, Site]:
    """Where a P begins to look into the queue of another, and where it has what it took. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.errors import BinaryError

    end, before = code.branch_behind(program, STEAL, GRAB)
    if not any(re.fullmatch(program.elf.isa.number_test, each) for each in (end.instruction, *map(str, before))):
        raise BinaryError(f"{STEAL} does not look at what it took as expected")
    return code.entry_site(program, STEAL), end


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe: of steals both, or none. Raises BinaryError."""
    from gotrace.errors import BinaryError

    build = PlanBuilder(program)
    build.add_target()
    try:
        begin, end = sites(program)
    except BinaryError as error:
        build.lacks("steals", error.message)
    else:
        build.add("steal begin", "steal_begin", lambda: [begin])
        build.add("steal end", "steal_end", lambda: [end])
    return build.plan({})

"""Page faults of memory that the runtime had returned to the kernel, and those that NUMA balancing provokes.

``runtime.sysUnusedOS``, entry: the runtime is about to give pages of its heap back (``madvise``). Nobody uses them then, so
whoever faults on one of them has got it again since. Between the beginning and the end of a fault, by the perf software
events, lies the time it took; if its thread lost its CPU in between, the kernel counts a context switch. Hinting faults are
told apart as probes/faults.py says; what balancing moved in them, the thread's ``numa_pages_migrated`` tells.

There may be a million faults in a second, so they are added up in the kernel, and told every 50 ms on each CPU, and once
more when the process has exited. Those of the last 50 ms are not told where it executes another program, or goes on when
tracing ends. Memory of 16 GiB of addresses is followed; ``unfollowed`` are the bytes of what is beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.kernel.btf import BALANCING_FIELDS, field_offsets, hint_settings, stack_settings
from gotrace.probe import HINTS, STACK_ADDRESSES, STACK_CONFIG, STACKS, TARGET, Kind, Plan, PlanBuilder, Probe, stack_kind

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

# setting -> (the kernel's struct, its field); the last one only of kernels with automatic balancing
_FIELDS = {
    "task_slept": ("task_struct", "nvcsw"),
    "task_preempted": ("task_struct", "nivcsw"),
    "task_moved": ("task_struct", "numa_pages_migrated"),
}

PROBE = Probe(
    stem="refaults",
    summary="page faults of returned memory, and those of NUMA balancing",
    kinds=(
        Kind("returned", 0x1601, ("stack", "bytes", "unfollowed")),
        # of one CPU, the last at time_ns and at address; counts: of faults in which the thread kept its CPU, and of those
        # in which it lost it (upper 32 bits); stack: who had returned their pages
        Kind("refaults", 0x1602, ("counts", "kept_ns", "lost_ns", "address", "stack")),
        Kind("hinting", 0x1603, ("counts", "kept_ns", "lost_ns", "address", "moved")),
        stack_kind(0x1604),
    ),
    config=("tgid", *_FIELDS, *BALANCING_FIELDS, *STACK_CONFIG),
    hits=(
        *("seen", "returned"),
        *("on_software_event__page_faults", "on_software_event__page_faults_min", "on_software_event__page_faults_maj"),
        "on_software_event__cpu_clock",
    ),
    parts=(TARGET, HINTS, STACKS),
    kernel_hit_ns=420.0,  # by the CPU time of a program that took 650,000 faults, traced and not
    ticks=("on_software_event__cpu_clock",),
    tick_ns=50_000_000,
)

_RETURNS = "runtime.sysUnusedOS"


def settings(target: Traceable) -> dict[str, int]:
    """Which process is followed, and where the kernel keeps what is read of its tasks."""
    from gotrace.kernel.host import kernel_pid

    offsets = dict(zip(_FIELDS, field_offsets(tuple(_FIELDS.values())), strict=True))
    known = {name: offset for name, offset in offsets.items() if offset is not None}
    return {"tgid": kernel_pid(target.pid), **known, **hint_settings(), **stack_settings()}


def plan(program: GoProgram) -> Plan:
    """Where ``program`` returns memory. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.binary.layout import layout_of

    build = PlanBuilder(program)
    build.add_target()
    build.add("returned memory", "returned", lambda: [code.entry_site(program, _RETURNS)])
    build.add_stacks(layout_of(program))
    return build.plan({}, STACK_ADDRESSES)

"""Where a Go program's threads spend their time on a CPU: stacks, sampled.

Every so often each CPU is looked at, and the stacks of the target's threads are taken: that of the program by frame records
(``ebpf/stack.bpf.h``), and where the thread is in the kernel that of the kernel. How often, the perf software event
``cpu_clock`` tells, or another event that was asked for. The entry of ``startTheWorldWithSema`` tells which process is
meant where gotrace itself runs in a container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.probe import STACK_ADDRESSES, STACK_CONFIG, STACKS, TARGET, Kind, Plan, PlanBuilder, Probe, stack_kind

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.process import Process

PROBE = Probe(
    stem="profile",
    summary="stacks of threads that are on a CPU, sampled",
    kinds=(
        # period_ns: how much time on a CPU the sample stands for; if another event is sampled, how many of these
        Kind("sample", 0x301, ("period_ns", "stack", "kernel_stack")),
        stack_kind(0x302),
    ),
    config=("tgid", *STACK_CONFIG),
    hits=("seen", "on_sample"),
    parts=(STACKS, TARGET),
    kernel_hit_ns=3000.0,
    ring_bytes=8 << 20,
)


def settings(process: Process) -> dict[str, int]:
    """Which process is sampled."""
    from gotrace.kernel.host import kernel_pid

    return {"tgid": kernel_pid(process.pid)}


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe. Raises BinaryError."""
    from gotrace.binary.layout import layout_of

    build = PlanBuilder(program)
    build.add_target()
    build.add_stacks(layout_of(program))
    return build.plan({}, STACK_ADDRESSES)

"""Where a Go program's threads spend their time on a CPU: stacks, sampled.

At regular intervals each CPU is sampled, and the stacks of the target's threads are taken: the program's by frame
records (``ebpf/stack.bpf.h``), and the kernel's where the thread is in the kernel. The perf software event ``cpu_clock``,
or another event that was requested, sets the pace. The entry of ``startTheWorldWithSema`` shows which process is
meant where gotrace itself runs in a container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.probe import STACK_ADDRESSES, STACK_CONFIG, STACKS, TARGET, Kind, Plan, PlanBuilder, Probe, stack_kind

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

PROBE = Probe(
    stem="profile",
    summary="sampled stacks of threads that are on a CPU",
    kinds=(
        # period_ns: how much time on a CPU the sample stands for; if another event is sampled, how many of these
        Kind("sample", 0x301, ("period_ns", "stack", "kernel_stack")),
        stack_kind(0x302),
    ),
    config=("tgid", *STACK_CONFIG),
    hits=("seen", "on_sample"),
    parts=(STACKS, TARGET),
    samples=("on_sample",),
    kernel_hit_ns=3000.0,
    ring_bytes=8 << 20,
)


def settings(target: Traceable) -> dict[str, int]:
    """Which process is sampled."""
    from gotrace.kernel.btf import stack_settings
    from gotrace.kernel.host import kernel_pid

    return {**stack_settings(), "tgid": kernel_pid(target.pid)}


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe. Raises BinaryError."""
    from gotrace.binary.layout import layout_of

    build = PlanBuilder(program)
    build.add_target()
    build.add_stacks(layout_of(program))
    return build.plan({}, STACK_ADDRESSES)

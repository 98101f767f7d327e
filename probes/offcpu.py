"""Where a Go program's threads leave the CPU, and for how long: every time, with the stacks.

The tracepoint ``sched_switch`` reports both ends. Waiting for a CPU counts too: the thread's state distinguishes it from
sleeping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.kernel.btf import TASK_FIELDS, stack_settings, task_settings
from gotrace.probe import STACK_CONFIG, STACKS, TARGET, Kind, Probe, stack_kind
from gotrace.probes import profile

if TYPE_CHECKING:
    from gotrace.probe import Traceable

PROBE = Probe(
    stem="offcpu",
    summary="stacks of threads that leave the CPU, and for how long",
    kinds=(
        # at the end; state: include/linux/sched.h, 0 for a thread that waited for a CPU all the time
        Kind("off_cpu_stack", 0x401, ("off_ns", "stack", "kernel_stack", "state")),
        stack_kind(0x402),
    ),
    config=("tgid", *TASK_FIELDS, *STACK_CONFIG),
    hits=("seen", "on_tracepoint__sched_switch"),
    parts=(STACKS, TARGET),
    kernel_hit_ns=3000.0,
    ring_bytes=32 << 20,
)


def settings(target: Traceable) -> dict[str, int]:
    """Which process is followed, and where the kernel keeps what is read of its tasks. Raises HostError without BTF."""
    from gotrace.kernel.host import kernel_pid

    return {**task_settings(TASK_FIELDS), **stack_settings(), "tgid": kernel_pid(target.pid)}


plan = profile.plan  # in the program itself there is nothing else to probe

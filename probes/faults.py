"""Page faults one by one, where threads run, and what the kernel moves between memory nodes.

The perf software event ``page_faults`` fires when a fault begins, ``page_faults_min`` or ``_maj`` when it is over: what
lies between is its service time. ``sched_switch`` shows on which node a thread had its CPU; ``sched_migrate_task`` and
``mm_migrate_pages`` what is moved. What automatic balancing does with threads is reported by ``sched_move_numa`` and
``sched_swap_numa``, both before it is done, and ``sched_stick_numa``: it could not be done, or there was nowhere to go.

A hinting fault is one that balancing provoked: it makes pages inaccessible for a while to learn who uses them. No
tracepoint tells of it, and it ends as any minor fault does. But the kernel then adds it to what balancing keeps of the
thread (``numa_faults_locality`` and ``numa_scan_seq`` in task_struct; task_numa_fault in kernel/sched/fair.c), which
nothing else changes: a minor fault during which these change is a hinting fault. Those are counted that numa_hint_faults
in /proc/vmstat counts, but one by one and of one process. Two kinds look like other minor faults: those left over when
balancing has been switched off, and in tiered memory those for pages on a slow node. What the kernel takes for itself
(get_user_pages) is no page fault to perf, so to nobody here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from gotrace.kernel.btf import BALANCING_FIELDS, TASK_FIELDS, hint_settings, task_settings
from gotrace.probe import HINTS, TARGET, Kind, Plan, PlanBuilder, Probe

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.bpf import LoadedObject
    from gotrace.probe import Traceable

MINOR, MAJOR, HINTING = 0, 1, 2

_BALANCING = ("on_tracepoint__sched_move_numa", "on_tracepoint__sched_swap_numa", "on_tracepoint__sched_stick_numa")

PROBE = Probe(
    stem="faults",
    summary="page faults, and the memory nodes that threads run on",
    kinds=(
        # at its end; begin_ns 0 where the beginning was not seen; node: of the CPU; how: MINOR, MAJOR or HINTING
        Kind("fault", 0x601, ("begin_ns", "address", "node", "how", "pc")),
        # at the end of a thread's turn on a CPU
        Kind("ran_on", 0x602, ("begin_ns", "node")),
        # tid is the thread, whoever moved it
        Kind("moved_thread", 0x603, ("to_cpu",)),
        Kind("moved_pages", 0x604, ("succeeded", "failed")),
        # by balancing: tid is the thread, to_cpu of a stuck one 2**64-1 where there was none to go to
        Kind("balanced", 0x605, ("from_cpu", "to_cpu")),
        Kind("swapped", 0x606, ("from_cpu", "to_cpu")),
        Kind("stuck", 0x607, ("from_cpu", "to_cpu")),
    ),
    config=("tgid", "task_pid", "task_tgid", *BALANCING_FIELDS),
    hits=(
        "seen",
        *("on_software_event__page_faults", "on_software_event__page_faults_min", "on_software_event__page_faults_maj"),
        *("on_tracepoint__sched_switch", "on_tracepoint__sched_migrate_task", "on_tracepoint__mm_migrate_pages"),
        *_BALANCING,
    ),
    optional=_BALANCING,  # not in every kernel
    constants={"MINOR": MINOR, "MAJOR": MAJOR, "HINTING": HINTING},
    parts=(TARGET, HINTS),
    ring_bytes=16 << 20,
)


def settings(target: Traceable) -> dict[str, int]:
    """Which process is followed, and where the kernel keeps what is read of its tasks. Raises HostError without BTF."""
    from gotrace.kernel.host import kernel_pid

    found = task_settings(TASK_FIELDS)
    return {"tgid": kernel_pid(target.pid), **{name: found[name] for name in ("task_pid", "task_tgid")}, **hint_settings()}


def in_progress(loaded: LoadedObject) -> list[tuple[int, int, int]]:
    """(thread, first beginning, address) of each fault whose end was not seen.

    One that a signal broke off has no end, but is no longer going on where the thread did not try again.
    """
    found = []
    for key, value in loaded.maps["open_faults"].items():
        _, address, since_ns = struct.unpack_from("=QQQ", value)
        found.append((struct.unpack("=I", key)[0], since_ns, address))
    return found


def plan(program: GoProgram) -> Plan:
    """In the program itself only the place where it reports its number is probed. Raises BinaryError."""
    build = PlanBuilder(program)
    build.add_target()
    return build.plan({})

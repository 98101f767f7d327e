"""Page faults one by one, where threads run, and what the kernel moves between memory nodes.

The perf software event ``page_faults`` fires when a fault begins, ``page_faults_min`` or ``_maj`` when it is over: what
lies between is its service time. ``sched_switch`` tells on which node a thread had its CPU; ``sched_migrate_task`` and
``mm_migrate_pages`` what is moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.kernel.btf import TASK_FIELDS, task_settings
from gotrace.probe import TARGET, Kind, Plan, PlanBuilder, Probe

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.process import Process

PROBE = Probe(
    stem="faults",
    summary="page faults with their time and place, and on which memory node threads run",
    kinds=(
        # at its end; begin_ns 0 where the beginning was not seen; node: of the CPU
        Kind("fault", 0x601, ("begin_ns", "address", "node", "major", "pc")),
        # at the end of a thread's turn on a CPU
        Kind("ran_on", 0x602, ("begin_ns", "node")),
        # tid is the thread, whoever moved it
        Kind("moved_thread", 0x603, ("to_cpu",)),
        Kind("moved_pages", 0x604, ("succeeded", "failed")),
    ),
    config=("tgid", "task_pid", "task_tgid"),
    hits=(
        "seen",
        *("on_software_event__page_faults", "on_software_event__page_faults_min", "on_software_event__page_faults_maj"),
        *("on_tracepoint__sched_switch", "on_tracepoint__sched_migrate_task", "on_tracepoint__mm_migrate_pages"),
    ),
    parts=(TARGET,),
    ring_bytes=16 << 20,
)


def settings(process: Process) -> dict[str, int]:
    """Which process is followed, and where the kernel keeps what is read of its tasks. Raises HostError without BTF."""
    from gotrace.kernel.host import kernel_pid

    found = task_settings(TASK_FIELDS)
    return {"task_pid": found["task_pid"], "task_tgid": found["task_tgid"], "tgid": kernel_pid(process.pid)}


def plan(program: GoProgram) -> Plan:
    """In the program itself nothing but where it tells its number is probed. Raises BinaryError."""
    build = PlanBuilder(program)
    build.add_target()
    return build.plan({})

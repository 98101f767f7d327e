"""What is resident when a GC cycle ends: the kernel's counters, read where the runtime's own of the cycle are whole.

They are those of /proc/PID/statm, and as exact: since Linux 6.2 each CPU keeps a part to itself (at most
max(32, 2 x CPUs) pages), before that each thread does (64 pages).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.errors import HostError
from gotrace.kernel.btf import SIZE, field_offsets
from gotrace.probe import Kind, Plan, PlanBuilder, Probe

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

PROBE = Probe(
    stem="rss",
    summary="resident memory at the end of each GC cycle",
    kinds=(
        # pages of the kernel
        Kind("rss", 0x701, ("cycle", "file", "anonymous", "swapped", "shared")),
    ),
    config=("work_cycles", "task_mm", "mm_rss", "counter_size", "counter_count"),
    hits=("cycle_ends",),
)


def settings(target: Traceable) -> dict[str, int]:
    """Where this kernel keeps the counters. Raises HostError without BTF."""
    fields = (
        ("task_struct", "mm"),
        ("mm_struct", "rss_stat"),
        ("percpu_counter", SIZE),
        ("percpu_counter", "count"),
        ("mm_rss_stat", "count"),
    )
    mm, rss, size, count, older = field_offsets(fields)
    if mm is None or rss is None or size is None or count is None:
        raise HostError(
            "this kernel has no type information for its memory counters (BTF)", "use one with CONFIG_DEBUG_INFO_BTF"
        )
    if older is not None:  # before 6.2: plain words
        size, count = 8, older
    return {"task_mm": mm, "mm_rss": rss, "counter_size": size, "counter_count": count}


def plan(program: GoProgram) -> Plan:
    """The end of a cycle, and where its number is. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.binary.globals import find_globals

    build = PlanBuilder(program)
    found = find_globals(program)
    if found.work_cycles is not None:
        build.config["work_cycles"] = found.work_cycles
    else:
        build.lacks("cycle", found.missing["work"])
    build.add("cycle", "cycle_ends", lambda: [code.entry_site(program, "runtime.prepareFreeWorkbufs")])
    return build.plan({}, ("work_cycles",))

"""What the processor counts while a Go program's threads run, by what they do: address translation above all.

Counters belong to CPUs (`session.opened` opens them), so they are read wherever a thread of the target gets or loses its
CPU (``sched_switch``), at least every millisecond (the perf software event ``cpu_clock``), and in the target where one
phase of the collector becomes the next:

* ``stopTheWorldWithSema``, entry, the end of ``startTheWorldWithSema``, the last ``gopark`` call of ``bgsweep``;
* ``gcAssistAlloc1`` and ``gcDrain``, entry and every RET: a thread marks, in an assist or as a worker. Both run on the
  thread's own stack, where the scheduler of goroutines does not interrupt them.

``tlb_flush`` (x86) reports flushes of the TLB, ``mm_collapse_huge_page`` of pages that became huge ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.kernel.btf import TASK_FIELDS, task_settings
from gotrace.probe import TARGET, Kind, Plan, PlanBuilder, Probe, is_inlined
from gotrace.probes.gc import STOP, restart_end

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

WORK_PROGRAM, WORK_ASSIST, WORK_WORKER = 0, 1, 2

PROBE = Probe(
    stem="tlb",
    summary="hardware event counts, by what the target's threads do",
    kinds=(
        # at its end; ran_ns: on this CPU between the two; work: 1 in an assist, 2 as a mark worker
        Kind("stretch", 0x801, ("begin_ns", "ran_ns", "work")),
        # of the stretch with the same times; word: the counter's number (8 bits), work; enabled_ns > running_ns: shared out
        Kind("counted", 0x802, ("begin_ns", "word", "count", "enabled_ns", "running_ns")),
        # reason: enum tlb_flush_reason; pages: 2**64-1 for all
        Kind("flush", 0x803, ("reason", "pages")),
        # status: enum scan_result, 1 if it succeeded; tid is khugepaged's
        Kind("collapse", 0x804, ("status",)),
        # the kernel did not tell that a thread got or lost this CPU: from since_ns to now nothing was counted
        Kind("unseen", 0x805, ("since_ns",)),
    ),
    config=("tgid", "counters", "task_pid", "task_tgid", "task_mm"),
    hits=(
        *("seen", "phase_changes", "assist_begins", "assist_ends", "worker_begins", "worker_ends"),
        *("on_tracepoint__sched_switch", "on_software_event__cpu_clock"),
        *("on_tracepoint__tlb_flush", "on_tracepoint__mm_collapse_huge_page"),
    ),
    constants={
        "WORK_PROGRAM": WORK_PROGRAM,
        "WORK_ASSIST": WORK_ASSIST,
        "WORK_WORKER": WORK_WORKER,
    },
    parts=(TARGET,),
    ticks=("on_software_event__cpu_clock",),
    counters=8,
    kernel_hit_ns=500.0,
    ring_bytes=16 << 20,
)


def settings(target: Traceable) -> dict[str, int]:
    """Which process is followed, and where the kernel keeps what is read of its tasks. Raises HostError without BTF."""
    from gotrace.kernel.host import kernel_pid

    found = task_settings({**TASK_FIELDS, "task_mm": ("task_struct", "mm")})
    return {name: value for name, value in found.items() if name in PROBE.config} | {"tgid": kernel_pid(target.pid)}


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe. Raises BinaryError."""
    from gotrace.binary import code

    build = PlanBuilder(program)
    build.add_target()
    build.add("stop", "phase_changes", lambda: [code.entry_site(program, STOP)])
    build.add("restart", "phase_changes", lambda: restart_end(program)[1])
    build.add("sweep end", "phase_changes", lambda: code.call_sites(program, "runtime.bgsweep", "runtime.gopark")[-1:])
    for name, c_program, symbol in (
        ("assist", "assist", "runtime.gcAssistAlloc1"),
        ("mark worker", "worker", "runtime.gcDrain"),
    ):
        # both or none: a beginning without its end would last for ever
        if is_inlined(program, symbol):
            build.lacks(name, f"{symbol} may have been inlined by the compiler (PGO)")
        elif build.add(name, f"{c_program}_ends", lambda symbol=symbol: code.ret_sites(program, symbol)):  # type: ignore[misc]
            build.add(name, f"{c_program}_begins", lambda symbol=symbol: [code.entry_site(program, symbol)])  # type: ignore[misc]
    return build.plan({})

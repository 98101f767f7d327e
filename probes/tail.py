"""What a long stop-the-world waited for: each P's stop, and what the kernel did with the threads in that time.

Which probe sits where, and why there:

* ``stopTheWorldWithSema``, entry: a stop is asked for. ``startTheWorldWithSema``, entry and end: it is over.
* ``gcstopm``, entry: a P stops, which nearly all do there; ``entersyscall_gcwait`` (to Go 1.25) or
  ``entersyscallHandleGCWait``: it stops on the way into a system call. The last of them is what the world waited for.
* ``handoffp``, entry: a thread that blocks (LockOSThread) leaves its P to another, sleeping thread, which then stops it.
* the tracepoints ``sched_switch`` and ``sched_waking``: when a thread was off the CPU, in which state it left, who had the
  CPU instead and who woke it. Whether a CPU quota held it is read from the scheduler's structs: no tracepoint reports it.
* ``signal_generate`` and ``signal_deliver``: the runtime sends SIGURG to threads that do not stop by themselves. Sent and
  not delivered: the thread is inside the kernel, unless it had blocked the signal. Delivered without effect: it runs
  non-preemptible code, which the stack at that moment names; of the signals that follow as many tell as leave no eighth of
  the stop untold.
* the perf software event ``cpu_clock``: which code a thread runs in a stop, the world's or its own, that lasts for long.
* the perf software events of page faults: between their beginning and their end the thread was in the fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gotrace.kernel.btf import QUOTA_FIELDS, TASK_FIELDS, stack_settings, task_settings
from gotrace.probe import (
    QUOTA,
    STACK_ADDRESSES,
    STACK_CONFIG,
    STACKS,
    TASKS,
    Kind,
    Plan,
    PlanBuilder,
    Probe,
    is_inlined,
    stack_kind,
    task_kind,
)
from gotrace.probes.gc import START, STOP, restart_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gotrace.analysis.causes import Explainer
    from gotrace.analysis.stacks import Frame
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

STOPPED, HANDED_OFF = 0, 1
OFF_THROTTLED, WAKE_THROTTLED, OFF_IN_FAULT = 1, 2, 4
FAULT_MAJOR, FAULT_INTERRUPTED = 1, 2
SIGNAL_BLOCKED = 2

PROBE = Probe(
    stem="tail",
    summary="what each stop-the-world pause waits for, and why",
    kinds=(
        Kind("stop_asked", 0x201, ("reason", "stack")),
        # p: its number, 2**64-1 if unknown; signal_ns: since when a SIGURG was sent and not delivered; blocked:
        # SIGNAL_BLOCKED if the thread had blocked it then
        Kind("p_stopped", 0x202, ("p", "how", "signal_ns", "deliveries", "blocked")),
        Kind("restart_done", 0x203, ("restart_ns", "number")),
        # at the end of the time off the CPU; word: state (16 bits), flags (16), who woke it (32); kernel_stack: where it
        # went to sleep, if in a page fault
        Kind("off_cpu", 0x204, ("off_ns", "wake_ns", "word", "stack", "kernel_stack")),
        # in_syscall: 1 if the thread was on its way back from a system call; SIGNAL_BLOCKED as in p_stopped
        Kind("preempt_signal", 0x205, ("sent_ns", "stack", "in_syscall")),
        # faults in close succession; count: their number (32), flags of any (32)
        Kind("faults", 0x206, ("begin_ns", "end_ns", "count", "address"), place="address"),
        stack_kind(0x207),
        task_kind(0x208),
        # tid, of any process, had this CPU from then until now; during stops only
        Kind("ran", 0x209, ("begin_ns",)),
        # a thread that has a CPU in a stop, a hundred times a second; in_syscall: 1 if it is in a system call
        Kind("in_stop", 0x20A, ("stack", "in_syscall")),
    ),
    config=(
        *("g_m", "m_p", "tgid", "gcwaiting"),
        *STACK_CONFIG,
        *("task_pid", "task_tgid", "task_comm", "task_state", "task_blocked", *QUOTA_FIELDS),
    ),
    hits=(
        *("stop_asked", "p_stopped", "p_stopped_in_syscall", "p_handed_off", "restart_asked", "restart_done"),
        *("on_tracepoint__sched_switch", "on_tracepoint__sched_waking"),
        *("on_tracepoint__signal_generate", "on_tracepoint__signal_deliver"),
        *("on_software_event__page_faults", "on_software_event__page_faults_min", "on_software_event__page_faults_maj"),
        "on_software_event__cpu_clock",
    ),
    constants={
        "STOPPED": STOPPED,
        "HANDED_OFF": HANDED_OFF,
        "OFF_THROTTLED": OFF_THROTTLED,
        "WAKE_THROTTLED": WAKE_THROTTLED,
        "OFF_IN_FAULT": OFF_IN_FAULT,
        "FAULT_MAJOR": FAULT_MAJOR,
        "FAULT_INTERRUPTED": FAULT_INTERRUPTED,
        "SIGNAL_BLOCKED": SIGNAL_BLOCKED,
    },
    parts=(STACKS, QUOTA, TASKS),
    ticks=("on_software_event__cpu_clock",),
    tick_ns=10_000_000,
    ring_bytes=8 << 20,
)

# setting -> (the kernel's struct, its field)
_KERNEL_FIELDS = {
    **TASK_FIELDS,
    "task_comm": ("task_struct", "comm"),
    "task_blocked": ("task_struct", "blocked"),
    **QUOTA_FIELDS,
}


def settings(target: Traceable) -> dict[str, int]:
    """Where this kernel keeps what is read of its tasks. Raises HostError if the kernel has no type information."""
    from gotrace.kernel.host import kernel_pid

    # In a container the kernel's own number of the process is learned from its first stop.
    return {**task_settings(_KERNEL_FIELDS), **stack_settings(), "tgid": kernel_pid(target.pid)}


def explainer(
    header: dict[str, Any],
    frames: Callable[[Sequence[int]], Sequence[Frame]],
    place: Callable[[int], str],
    top: int,
) -> Explainer:
    """What explains the ``top`` longest pauses of a session, live or recorded; the arguments as in `Explainer`."""
    from gotrace.analysis.causes import Explainer, TailFormat
    from gotrace.analysis.columns import Kinds

    wire = TailFormat(
        Kinds.of_probe(header, "tail"),
        handed_off=HANDED_OFF,
        off_throttled=OFF_THROTTLED,
        wake_throttled=WAKE_THROTTLED,
        off_in_fault=OFF_IN_FAULT,
        fault_major=FAULT_MAJOR,
        signal_blocked=SIGNAL_BLOCKED,
    )
    return Explainer(wire, frames, place, top)


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.binary.layout import layout_of
    from gotrace.binary.scheduler import find_scheduler
    from gotrace.errors import BinaryError

    build = PlanBuilder(program)
    layout = layout_of(program)
    if layout.has("runtime.g", "m") and layout.has("runtime.m", "p"):
        build.config["g_m"] = layout.offset("runtime.g", "m")
        build.config["m_p"] = layout.offset("runtime.m", "p")
    else:
        build.lacks("P", f"the offset of m.p in {program.go_version} is unknown: pauses are explained by thread only")
    gcwait = "runtime.entersyscallHandleGCWait" if program.version >= (1, 26) else "runtime.entersyscall_gcwait"
    for name, c_program, symbol in (
        ("stop asked", "stop_asked", STOP),
        ("P stopped", "p_stopped", "runtime.gcstopm"),
        ("P stopped in a system call", "p_stopped_in_syscall", gcwait),
        ("P handed off", "p_handed_off", "runtime.handoffp"),
        ("restart asked", "restart_asked", START),
    ):
        build.add(name, c_program, lambda symbol=symbol: [code.entry_site(program, symbol)])  # type: ignore[misc]
        if is_inlined(program, symbol) and program.pclntab.function(symbol) is not None:
            build.lacks(f"some of: {name}", f"{symbol} may have been inlined by the compiler (PGO)")
    try:
        places = find_scheduler(program)
        build.config["gcwaiting"] = places.sched + places.offsets["schedt.gcwaiting"]
    except BinaryError as error:
        build.lacks("stops that had begun before", error.message)
    build.add("restart done", "restart_done", lambda: restart_end(program)[1])
    build.add_stacks(layout)
    return build.plan({}, (*STACK_ADDRESSES, "gcwaiting"))

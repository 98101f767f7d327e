"""What a process starts: every fork, execve and exit below it, and the files that tell what a build does.

* ``sched_process_fork``, ``sched_process_exec`` (with the arguments, from the new program's memory) and
  ``sched_process_exit``; ``sched_switch`` and ``sched_waking`` for the CPU time of each process, all threads together.
* openat, renameat and unlinkat as they return, of names that end as those of Go's build cache (``-a``, an action's entry;
  ``-d``, what it made) and of its module cache (``.zip``, ``.partial``, ``.tmp``, ``.ziphash``, ``.mod``, ``.info``).

No instruction of any program is probed: the processes need not be Go's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.kernel.btf import TASK_FIELDS, task_settings
from gotrace.kernel.executable import Executable
from gotrace.kernel.host import kernel_pid
from gotrace.probe import Kind, Plan, PlanBuilder, Probe

if TYPE_CHECKING:
    from gotrace.binary.program import Program
    from gotrace.probe import Traceable

PROBE = Probe(
    stem="tree",
    summary="every process that one starts, and the files of Go's caches",
    kinds=(
        Kind("forked", 0xF01, ("process", "parent")),
        # length: of its arguments, of which 2 KiB are told; cpu_ns, runnable_ns: of all threads since the fork
        Kind("executed", 0xF02, ("process", "length", "cpu_ns", "runnable_ns")),
        # after it, of the same thread and time: 32 bytes of the arguments, each ending in a NUL
        Kind("arguments", 0xF03, ("part", "text0", "text1", "text2", "text3")),
        Kind("exited", 0xF04, ("process", "status", "cpu_ns", "runnable_ns")),  # status as wait(2) reports it
        # call: 0 opened (its flags << 32), 1 renamed to, 2 removed; result: as the system call's
        Kind("file", 0xF05, ("process", "call", "result", "begin_ns", "length")),
        Kind("path", 0xF06, ("part", "text0", "text1", "text2", "text3")),  # after it, as arguments
    ),
    config=(
        *("attached", "starter", *TASK_FIELDS),
        *("task_cpu_ns", "task_mm", "mm_arg_start", "mm_arg_end", "task_signal", "task_exit_code", "signal_live"),
    ),
    hits=(
        *("on_tracepoint__sched_process_fork", "on_tracepoint__sched_process_exec", "on_tracepoint__sched_process_exit"),
        *("on_tracepoint__sched_process_free", "on_tracepoint__sched_switch", "on_tracepoint__sched_waking"),
        *("on_trace_event__syscalls__sys_enter_openat", "on_trace_event__syscalls__sys_exit_openat"),
        *("on_trace_event__syscalls__sys_enter_renameat", "on_trace_event__syscalls__sys_exit_renameat"),
        *("on_trace_event__syscalls__sys_enter_unlinkat", "on_trace_event__syscalls__sys_exit_unlinkat"),
    ),
    ring_bytes=16 << 20,
    go=False,
    attached=True,
)

_KERNEL_FIELDS = {
    **TASK_FIELDS,
    "task_cpu_ns": ("task_struct", "se.sum_exec_runtime"),
    "task_mm": ("task_struct", "mm"),
    "mm_arg_start": ("mm_struct", "arg_start"),
    "mm_arg_end": ("mm_struct", "arg_end"),
    "task_signal": ("task_struct", "signal"),
    "task_exit_code": ("task_struct", "exit_code"),
    "signal_live": ("signal_struct", "live"),
}


def settings(target: Traceable) -> dict[str, int]:
    """Whose children are followed: of a process, or of who waits for an executable. Raises HostError without BTF."""
    starter = target.which.starter if isinstance(target, Executable) else kernel_pid(target.pid)
    return {**task_settings(_KERNEL_FIELDS), "starter": starter}


def plan(program: Program) -> Plan:
    """In the program itself nothing is probed."""
    return PlanBuilder(program).plan({})

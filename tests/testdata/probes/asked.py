"""System calls of any process: a probe that has nothing to set in its target."""

from __future__ import annotations

from gotrace.kernel.host import kernel_pid
from gotrace.probe import Kind, Plan, PlanBuilder, Probe

PROBE = Probe(
    stem="asked",
    summary="how often a process asks for its parent",
    kinds=(Kind("asked", 0xF03, ()),),
    config=("tgid",),
    hits=("on_trace_event__syscalls__sys_enter_getppid",),
    go=False,
)


def settings(target):
    return {"tgid": kernel_pid(target.pid)}


def plan(program) -> Plan:
    return PlanBuilder(program).plan({})

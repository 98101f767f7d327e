"""A program of the kernel that would run within itself, once for each call of a C program's function."""

from __future__ import annotations

from gotrace.probe import Plan, PlanBuilder, Probe

PROBE = Probe(
    stem="nested",
    summary="calls of a function, and what they make the kernel leave out",
    kinds=(),
    config=("unused",),
    hits=("own_call", "on_tracepoint__bpf_trace_printk"),
    go=False,
)


def settings(_):
    return {}


def plan(program) -> Plan:
    build = PlanBuilder(program)
    build.add_function("own", "own_call", "work")
    return build.plan({})

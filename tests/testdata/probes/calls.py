"""Calls of a C program's function and of one of libc: what a probe of something that is no Go program looks like."""

from __future__ import annotations

from gotrace.probe import Kind, Plan, PlanBuilder, Probe

PROBE = Probe(
    stem="calls",
    summary="calls of two functions",
    kinds=(
        Kind("own_call", 0xF01, ("number", "double_number", "pc")),
        Kind("libc_call", 0xF02, ("pc",)),
    ),
    config=("wanted",),
    hits=("own_call", "libc_call"),
    go=False,
    libraries=("libc",),
    ring_bytes=4 << 20,
)


def settings(_):
    return {"wanted": 1}


def plan(program) -> Plan:
    build = PlanBuilder(program)
    build.add_function("own", "own_call", "work")
    build.add_function("libc", "libc_call", "getppid", "libc")
    return build.plan({})

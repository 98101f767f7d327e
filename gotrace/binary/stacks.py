"""How a goroutine changes to its thread's stack and back, for walks along frame records (``ebpf/stack.bpf.h``)."""

from __future__ import annotations

import re

from gotrace.binary.code import body, decode
from gotrace.binary.layout import Layout
from gotrace.binary.pclntab import Function
from gotrace.binary.program import GoProgram


def changes_of_stacks(program: GoProgram, layout: Layout) -> dict[str, int]:
    """Bounds of the functions that do it, and offsets in bytes of what they save, by the names of the walk's settings.

    Raises BinaryError where an offset is unknown.
    """
    isa = program.elf.isa
    sched = layout.offset("runtime.g", "sched")
    found = {
        "g_m": layout.offset("runtime.g", "m"),
        "m_g0": layout.offset("runtime.m", "g0"),
        "m_curg": layout.offset("runtime.m", "curg"),
        "g_sched_pc": sched + layout.offset("runtime.gobuf", "pc"),
        "g_sched_bp": sched + layout.offset("runtime.gobuf", "bp"),
        "g_sched_caller": sched + layout.offset("runtime.gobuf", "sp" if isa.call_pushes else "lr"),
    }
    found |= _bounds("morestack", body(program, "runtime.morestack"))
    switch = body(program, "runtime.systemstack_switch")
    found |= _bounds("switch", switch)
    found["unlinked"] = int(program.version < isa.records_joined_since)
    return found | _callbacks(program, switch)


def _bounds(name: str, function: Function) -> dict[str, int]:
    return {f"{name}_begin": function.entry, f"{name}_end": function.end}


def _callbacks(program: GoProgram, switch: Function) -> dict[str, int]:
    """Of C that calls back into Go: {} in a program that has none.

    cgocall calls asmcgocall, which saves where the goroutine is as if it were systemstack_switch, and calls C on the
    thread's stack. A callback goes on below that on the goroutine's stack: cgocallback has a frame there as large as its
    own, and calls cgocallbackg (asm_*.s and cgocall.go; Go's own traceback takes the same frame sizes).
    """
    table = program.pclntab
    names = ("cgocallback", "asmcgocall", "cgocall")
    functions = {name: function for name in names if (function := table.function(f"runtime.{name}")) is not None}
    called = table.wrapper("runtime.cgocallbackg") or table.function("runtime.cgocallbackg")
    if len(functions) < len(names) or called is None:
        return {}
    found: dict[str, int] = {}
    size = {"switch": table.frame_bytes(switch)}
    for name, function in functions.items():
        found |= _bounds(name, function)
        size[name] = table.frame_bytes(function)
    if program.elf.isa.call_pushes:
        # The record is right below the return address: at its end there begins the caller's frame.
        return_address = 16 + size["cgocallback"] + 8 + size["switch"]
        record = return_address + size["cgocall"]
    else:
        # LR is stored where SP is, the record right below it.
        return_address = 8 + table.frame_bytes(called) + size["cgocallback"]
        record = return_address + size["switch"] - 8
    return found | {"callback_pc": return_address, "callback_fp": record} | _thread_local(program)


def _thread_local(program: GoProgram) -> dict[str, int]:
    """Where the ``g`` is in a thread's own memory, from its pointer on; {} if that is not found.

    The linker makes a constant of it: asmcgocall begins with ``mov rdi, fs:[-8]``, or in position-independent programs with
    that constant in a register.
    """
    if not program.elf.isa.thread_local:
        return {}
    constants: dict[str, int] = {}
    for each in decode(program, "runtime.asmcgocall"):
        if move := re.fullmatch(r"(\w+), (0x[0-9a-f]+)", each.operands):
            constants[move[1]] = int(move[2], 16)
        elif load := re.fullmatch(program.elf.isa.thread_local, each.operands):
            place = int(load[1], 16) if load[1].startswith("0x") else constants.get(load[1])
            return {} if place is None else {"tls_g": place}
    return {}

"""What code runs while a Go program starts: sampled stacks, and the stacks of calls that tend to be dear in an init.

Page faults are seen one by one, from the kernel's event at the beginning of each to the one at its end.

Samples come on each CPU at regular intervals, from every process that executes the file. The calls are the entries of
the functions that compile a regular expression, parse a template, open a file, look a name up, or ask for a collection;
GOMAXPROCS is the argument of the function that makes the Ps;
a look-up ends at the return instructions of its function, which are single-stepped (about 15 us where that was
measured, in a virtual machine) and hit once a name. No return probe is used: `gotrace.binary.code` finds the
instructions by the function table.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gotrace.errors import HostError
from gotrace.kernel.btf import field_offsets, stack_settings
from gotrace.kernel.executable import Executable
from gotrace.probe import STACK_ADDRESSES, STACK_CONFIG, STACKS, Kind, Plan, PlanBuilder, Probe, stack_kind

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

FAULT_NS = 170.0  # what both events of a page fault cost it, measured on x86-64 in a virtual machine
SAMPLE_NS = 200_003  # 5000 times a second, out of step with what happens every millisecond

PROBE = Probe(
    stem="startcode",
    summary="sampled stacks of a start, and who compiles, parses, opens and looks up in it",
    kinds=(
        Kind("start_sample", 0x1201, ("tgid", "stack", "kernel_stack")),
        Kind("start_call", 0x1202, ("tgid", "stack")),
        Kind("start_return", 0x1203, ("tgid",)),  # of the last look-up of the same thread
        stack_kind(0x1204),
        Kind("start_procs", 0x1205, ("tgid", "procs")),  # GOMAXPROCS from now on
        # at its end; tgid: | 1 << 32 if the page was read from a disk
        Kind("start_fault", 0x1206, ("tgid", "begin_ns", "address")),
    ),
    config=(
        *("target_ino", "task_mm", "mm_exe_file", "file_inode", "inode_ino"),
        *STACK_CONFIG,
    ),
    hits=(
        *("on_sample", "call", "returned", "procs_made", "on_software_event__page_faults"),
        *("on_software_event__page_faults_min", "on_software_event__page_faults_maj"),
    ),
    parts=(STACKS,),
    samples=("on_sample",),
    kernel_hit_ns=3000.0,
    ring_bytes=16 << 20,
    of_starts=True,
)

# By what they do: functions that no compiler puts into their callers.
LOOKUPS = ("net.(*Resolver).lookupIPAddr", "net.(*Resolver).lookupHost")
CALLS = ("regexp.compile", "text/template/parse.(*Tree).Parse", "os.openFileNolog", "runtime.GC", *LOOKUPS)

_FIELDS = {
    "task_mm": ("task_struct", "mm"),
    "mm_exe_file": ("mm_struct", "exe_file"),
    "file_inode": ("file", "f_inode"),
    "inode_ino": ("inode", "i_ino"),
}


def settings(target: Traceable) -> dict[str, int]:
    """Which file's processes are sampled. Raises HostError without BTF."""
    assert isinstance(target, Executable)
    found = field_offsets(tuple(_FIELDS.values()))
    known = {name: offset for name, offset in zip(_FIELDS, found, strict=True) if offset is not None}
    if len(known) < len(_FIELDS):
        raise HostError("this kernel does not say where it keeps a process's executable (BTF)", "leave --advise out")
    return {**stack_settings(), **known, "target_ino": os.stat(target.exe_path).st_ino}


def plan(program: GoProgram) -> Plan:
    """Which of `CALLS` are in ``program``; what is not linked into it is not missing. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.binary.layout import layout_of

    build = PlanBuilder(program)
    build.add_stacks(layout_of(program))
    linked = set(program.pclntab.names())
    # runtime.main is in every program: a session is not opened without an instruction to probe.
    for symbol in ("runtime.main", *CALLS):
        if symbol in linked:
            build.add(symbol, "call", lambda symbol=symbol: [code.entry_site(program, symbol)])  # type: ignore[misc]
            if symbol in LOOKUPS:
                build.add(symbol, "returned", lambda symbol=symbol: code.ret_sites(program, symbol))  # type: ignore[misc]
    build.add("GOMAXPROCS", "procs_made", lambda: [code.entry_site(program, "runtime.procresize")])
    users = sorted({name.partition("._C")[0] for name in linked if "._Cfunc_" in name})
    sections = [
        [each.name, each.addr, each.addr + each.size] for each in program.elf.sections.values() if each.addr and each.size
    ]
    return build.plan({"cgo": users, "sections": sections}, STACK_ADDRESSES)

"""The start of a Go program, from execve to its first GC: which probe sits where, and why there.

* The kernel's tracepoints: fork, execve and execveat (of the calls in a search of PATH, the last), ``sched_process_exec``,
  where the new program is in place, and exit. Which file it is, its inode tells: names are useless for scripts, symlinks,
  file descriptors and containers. ``cgroup_mkdir`` and ``cgroup_attach_task``: what a container runtime does before.
* The dynamic linker's first instructions, its calls of ``_dl_debug_state`` (the first before it maps libraries, the last
  when it has relocated all), and its system calls.
* The executable's first instructions; the calls in ``rt0_go`` and ``schedinit``; ``runtime.main``, ``gcenable`` and
  ``main.main``; the jump that closes the loop over a package's init functions (see `gotrace.binary.startup`).
* ``gcStart`` (what for), ``gcBgMarkStartWorkers`` (a collection begins) and ``prepareFreeWorkbufs`` (it is over).
* ``listen`` and ``accept`` as they return; page faults; ``filemap:mm_filemap_add_to_page_cache``; ``sched_switch``.

Probes are installed inside execve, about a microsecond each, and so are part of what is measured: without `DETAILS`, the
steps of the bootstrap, there are few.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from gotrace.analysis.timeline import C_START
from gotrace.errors import BinaryError
from gotrace.kernel.btf import QUOTA_FIELDS, TASK_FIELDS, task_settings
from gotrace.kernel.executable import Executable
from gotrace.probe import QUOTA, Kind, Plan, PlanBuilder, Probe
from gotrace.text import bytes_text

if TYPE_CHECKING:
    from gotrace.analysis.coldstart import Decoder
    from gotrace.binary.program import GoProgram
    from gotrace.binary.startup import InitLoop
    from gotrace.probe import Traceable

UNTIL = {"": 0, "main": 1, "listen": 2, "first-gc": 3}

DETAILS = ("step",)

_BOUNDARY = ("process", "faults")  # process: tgid | pages read << 32; faults: minor | major << 32, since execve's entry
_LINKER_PROGRAMS = tuple(
    f"on_trace_event__syscalls__sys_{place}"
    for place in ("enter_open", "exit_open", "enter_openat", "exit_openat", "enter_mmap", "enter_close")
)

PROBE = Probe(
    stem="coldstart",
    summary="every boundary of the start of a Go program, from execve to its first GC",
    kinds=(
        # time: the new program is in place; fork_ns is 0 where it was not seen; copy: the inode, if not the file's itself
        Kind("exec", 0x501, (*_BOUNDARY, "enter_ns", "fork_ns", "copy")),
        Kind("exec_wait", 0x502, (*_BOUNDARY, "runnable_ns", "blocked_ns", "throttled_ns")),
        Kind("cgroup", 0x503, (*_BOUNDARY, "cgroup", "made_ns", "attach_ns")),
        Kind("linker_entry", 0x504, (*_BOUNDARY, "pc")),
        Kind("linker_state", 0x505, (*_BOUNDARY, "pc")),
        Kind("open", 0x506, (*_BOUNDARY, "begin_ns", "result")),
        # after an open, of the same time: 31 bytes of its name; part: tgid | which << 32
        Kind("name", 0x507, ("part", "name0", "name1", "name2", "name3")),
        Kind("map", 0x508, (*_BOUNDARY, "fd", "bytes", "protection")),
        Kind("close", 0x509, (*_BOUNDARY, "fd")),
        Kind("entry", 0x50A, (*_BOUNDARY, "pc")),
        Kind("step", 0x50B, (*_BOUNDARY, "address")),
        # place: index | nfns << 32; function: its address, 0 at the end
        Kind("init", 0x50C, (*_BOUNDARY, "place", "function", "heap_bytes")),
        # trigger: gcTriggerKind, 2**64-1 where it is not known
        Kind("gc_begin", 0x50D, (*_BOUNDARY, "trigger", "heap_bytes")),
        # before gc_end, of the same time: the runtime's own; zeros where its place is not known
        Kind("gc_clock", 0x50E, ("process", "sweep_term", "mark", "mark_term", "end")),
        Kind("gc_end", 0x50F, (*_BOUNDARY, "pause_ns", "heap_bytes")),
        Kind("listen", 0x510, _BOUNDARY),
        Kind("accept", 0x511, _BOUNDARY),
        Kind("exited", 0x512, (*_BOUNDARY, "status")),  # as wait(2) reports it
        Kind("replaced", 0x513, _BOUNDARY),  # another execve
        # pc: where the thread is in user space; throttled: 1 if a CPU quota keeps it from going on, which it could
        Kind("cpu_off", 0x514, (*_BOUNDARY, "state", "pc", "throttled")),
        # throttled_ns: how long a CPU quota kept it from running since ready_ns, when it could go on
        Kind("cpu_on", 0x515, (*_BOUNDARY, "off_ns", "ready_ns", "throttled_ns")),
        # after an exec, of the same time; process: tgid | who started it << 32, 0 if that was not seen; then its name, 16
        # bytes in two words; run_ns names its run: the command's, or what was started by a start of the executable
        Kind("starter", 0x516, ("process", "run_ns", "name_low", "name_high")),
    ),
    config=(
        *("attached", "target_ino", "target_dev", "starter", "cgroup", "cgroup_level", "pid_ns", "until", "until_ns"),
        *("target_size", "target_name_low", "target_name_high"),
        *("entry", "init_task_register", "init_index_register", "init_nfns", "heap_live", "work_clock", "page_order"),
        *TASK_FIELDS,
        *QUOTA_FIELDS,
        *("task_signal", "task_exit_code", "task_nsproxy", "nsproxy_pid_ns", "pid_ns_inum", "signal_live"),
        *("bprm_file", "file_inode", "inode_ino", "inode_size", "inode_sb", "sb_dev"),
        *("cgroup_root", "cgroup_kn", "kn_id", "root_hierarchy"),
    ),
    hits=(
        *("linker_entry", "linker_state", "entry", "step", "milestone", "program_main", "init_function"),
        *("gc_wanted", "gc_begin", "gc_end"),
        *("on_tracepoint__sched_process_fork", "on_tracepoint__sched_process_exec", "on_tracepoint__sched_process_exit"),
        *("on_tracepoint__cgroup_mkdir", "on_tracepoint__cgroup_attach_task"),
        *("on_tracepoint__sched_switch", "on_tracepoint__sched_waking"),
        *("on_trace_event__syscalls__sys_enter_execve", "on_trace_event__syscalls__sys_enter_execveat"),
        *_LINKER_PROGRAMS,
        *("on_trace_event__syscalls__sys_exit_listen",),
        *("on_trace_event__syscalls__sys_exit_accept", "on_trace_event__syscalls__sys_exit_accept4"),
        *("on_software_event__page_faults_min", "on_software_event__page_faults_maj"),
        "on_trace_event__filemap__mm_filemap_add_to_page_cache",
    ),
    constants={f"UNTIL_{name.upper().replace('-', '_')}": number for name, number in UNTIL.items() if name},
    ring_bytes=16 << 20,
    parts=(QUOTA,),
    of_starts=True,
    attached=True,
)

# setting -> (the kernel's struct, its field)
_KERNEL_FIELDS = {
    **TASK_FIELDS,
    **QUOTA_FIELDS,
    "task_signal": ("task_struct", "signal"),
    "task_exit_code": ("task_struct", "exit_code"),
    "task_nsproxy": ("task_struct", "nsproxy"),
    "nsproxy_pid_ns": ("nsproxy", "pid_ns_for_children"),
    "pid_ns_inum": ("pid_namespace", "ns.inum"),
    "signal_live": ("signal_struct", "live"),
    "bprm_file": ("linux_binprm", "file"),
    "file_inode": ("file", "f_inode"),
    "inode_ino": ("inode", "i_ino"),
    "inode_size": ("inode", "i_size"),
    "inode_sb": ("inode", "i_sb"),
    "sb_dev": ("super_block", "s_dev"),
    "cgroup_root": ("cgroup", "root"),
    "cgroup_kn": ("cgroup", "kn"),
    "kn_id": ("kernfs_node", "id"),
    "root_hierarchy": ("cgroup_root", "hierarchy_id"),
}

_PAGE_CACHE = "/sys/kernel/tracing/events/filemap/mm_filemap_add_to_page_cache/format"


def settings(target: Traceable) -> dict[str, int]:
    """Which starts are meant, and where the kernel keeps what is read of them. Raises HostError without BTF."""
    assert isinstance(target, Executable)
    status = os.stat(target.exe_path)
    name = os.fsencode(os.path.basename(target.exe_path))[:15].ljust(16, b"\0")  # as the kernel calls who executes it
    return {
        **task_settings(_KERNEL_FIELDS),
        "target_ino": status.st_ino,
        "target_dev": os.major(status.st_dev) << 20 | os.minor(status.st_dev),  # as the kernel itself keeps it
        "target_size": status.st_size if target.copies else 0,
        "target_name_low": int.from_bytes(name[:8], "little"),
        "target_name_high": int.from_bytes(name[8:], "little"),
        "starter": target.which.starter,
        "cgroup": target.which.cgroup,
        "cgroup_level": target.which.cgroup_level,
        "pid_ns": target.which.pid_namespace,
        "until": UNTIL[target.until],
        "until_ns": target.until_ns,
        "page_order": _page_order(),
    }


def _page_order() -> int:
    """Where the tracepoint keeps how many pages came at once; 0 on a kernel where it is always one."""
    try:
        with open(_PAGE_CACHE) as file:
            match = re.search(r" order;\s*offset:(\d+);\s*size:1;", file.read())
    except OSError:
        return 0
    return int(match[1]) if match else 0


def _add_linker(build: PlanBuilder[GoProgram]) -> bool:
    """Whether a dynamic linker loads the program; what cannot be seen of it is said."""
    from gotrace.binary import code
    from gotrace.binary.elf import Elf
    from gotrace.binary.startup import linker_of

    program = build.program
    if not program.elf.interpreter:
        return False
    path = linker_of(program.elf)
    if not path:
        build.lacks("dynamic linker", f"{program.elf.interpreter} cannot be found from {program.elf.path}")
        return False
    with Elf.open(path) as elf:
        if elf.arch != program.arch:
            build.lacks("dynamic linker", f"{path} is for {elf.arch}")
            return False
        build.add("dynamic linker", "linker_entry", lambda: [code.early_site(elf, elf.entry, "the linker's entry")], path)
        state = {address for name, address, _ in elf.functions() if name == "_dl_debug_state"}
        if len(state) == 1:
            build.add("linker state", "linker_state", lambda: code.calls_of(elf, state.pop(), "_dl_debug_state"), path)
        else:
            build.lacks("linker state", f"{path} has no symbol _dl_debug_state")
    return True


def _add_inits(build: PlanBuilder[GoProgram]) -> None:
    from gotrace.binary import startup

    found: list[InitLoop] = []

    def loop() -> list[Any]:
        found.append(startup.init_loop(build.program))
        return [found[0].site]

    if build.add("package inits", "init_function", loop):
        registers = build.program.elf.isa.register_offset
        build.config["init_task_register"] = registers(found[0].task)
        build.config["init_index_register"] = registers(found[0].index)
        build.config["init_nfns"] = found[0].nfns_offset


def _add_gc(build: PlanBuilder[GoProgram]) -> None:
    from gotrace.binary import code
    from gotrace.binary.globals import find_globals
    from gotrace.binary.moduledata import NEWEST_KNOWN
    from gotrace.probes import gc

    program = build.program
    build.add("GC wanted", "gc_wanted", lambda: [code.entry_site(program, "runtime.gcStart")])
    build.add("GC begin", "gc_begin", lambda: [code.entry_site(program, "runtime.gcBgMarkStartWorkers")])
    build.add("GC end", "gc_end", lambda: [code.entry_site(program, "runtime.prepareFreeWorkbufs")])
    if program.version > NEWEST_KNOWN:
        build.lacks("heap", f"{program.go_version} is newer than this gotrace, which does not know its struct offsets")
        return
    found = find_globals(program)
    for name, reason in found.missing.items():
        build.lacks(name, reason)
    if found.work_cycles is not None:
        build.config["work_clock"] = found.work_cycles + gc.PROBE.constants["WORK_T_SWEEP_TERM"]
    if found.gc_controller is not None:
        build.config["heap_live"] = found.gc_controller + found.gc_heap_live


# What a start passes once, in this order, behind the bootstrap.
_MILESTONES = ("runtime.main", "runtime.gcenable")


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` and of its dynamic linker to probe. Raises BinaryError."""
    from gotrace.binary import code, startup
    from gotrace.binary.elf import PT_LOAD

    build = PlanBuilder(program)
    first = program.pclntab.find(program.elf.entry)  # none of Go's where C's start-up comes before it
    entry = code.early_site(program.elf, program.elf.entry, first.name if first else C_START)
    build.config["entry"] = entry.address
    without = [] if _add_linker(build) else list(_LINKER_PROGRAMS)
    for syscall in program.elf.isa.no_syscalls:
        without += [name for name in _LINKER_PROGRAMS if name.endswith(f"_{syscall}")]
    build.add("entry", "entry", lambda: [entry])
    try:
        for callee, site in startup.bootstrap_steps(program):
            build.add(callee, "step", lambda site=site: [site])  # type: ignore[misc]
    except BinaryError as error:
        build.lacks("bootstrap", error.message)
    for symbol in _MILESTONES:
        build.add(symbol, "milestone", lambda symbol=symbol: [code.entry_site(program, symbol)])  # type: ignore[misc]
    _add_inits(build)
    build.add("main.main", "program_main", lambda: [code.entry_site(program, "main.main")])
    _add_gc(build)
    facts = {
        "functions": {str(entry): name for entry, name in _init_functions(program)},
        "segments": [segment.memsz for segment in program.elf.segments if segment.type == PT_LOAD],
    }
    return build.plan(facts, without=sorted(set(without)))


_INIT = re.compile(r"\.init(\.\d+)?$")


def _init_functions(program: GoProgram) -> list[tuple[int, str]]:
    """(address, name) of every function that a package's init task may name."""
    named = zip(program.pclntab.entries.tolist(), program.pclntab.names(), strict=False)
    return [(entry, name) for entry, name in named if _INIT.search(name)]


def decoder(header: dict[str, Any]) -> Decoder:
    """What turns the events of a session, live or recorded, into starts; ``header`` is `Session.header`'s."""
    from gotrace.analysis.coldstart import Decoder, Until
    from gotrace.analysis.columns import Kinds

    about = header["probes"]["coldstart"]
    segments = about["facts"]["segments"]
    return Decoder(
        Kinds.of_probe(header, "coldstart"),
        {int(point["address"], 16): (point["name"], point["symbol"]) for point in about["points"] if not point["file"]},
        {int(address): name for address, name in about["facts"]["functions"].items()},
        Until(**header["coldstart"]["until"]),
        f"{len(segments)} segments of {bytes_text(sum(segments))}",
    )

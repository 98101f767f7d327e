"""What has to be known about each processor architecture: the one place in Python where they differ.

The other is ``ebpf/include/goabi.h``, with Go's registers for the probes' C text. Struct offsets of the runtime by Go
release and architecture are data: ``gotrace/binary/layouts.json``, written by ``scripts/make-layouts``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gotrace.errors import HostError


@dataclass(frozen=True)
class Arch:
    """The facts of one architecture. To port gotrace, fill in one more of these, in this order:

    1. The names and numbers: Go's (GOARCH), the kernel's (uname -m), the processor's for people, ELF's.
    2. The kernel's: system call numbers (asm/unistd.h), ``struct pt_regs`` (the order of its 8-byte words, by capstone's
       names; asm/ptrace.h), perf's numbers of registers,
       where user space ends with the usual page tables, which instructions uprobes emulate
       (arch/*/kernel/{uprobes.c,probes/}) and two of them to measure what a hit costs.
    3. The compiler's: how Go's prologue checks the stack and makes a frame record (cmd/internal/obj), how code refers to
       data, how ``doInit`` closes its loop, what C compilers put in front of a function's first real instruction.
    4. The runtime's: cache line padding (internal/cpu), where the arenas' addresses begin (runtime/malloc.go).

    Then write its half of ``ebpf/include/goabi.h``, run ``scripts/make-layouts`` for it, and let
    ``tests/integration/test_binary_*.py`` and ``test_layouts.py`` hold every fact against the toolchain's own words.
    """

    goarch: str
    machine: str
    title: str
    elf_machine: int
    elf_relative: int  # the type of a relocation that only adds the load bias

    syscall_bpf: int
    syscall_perf_event_open: int
    syscall_execve: tuple[int, int]  # and execveat
    pt_regs: tuple[str, ...]
    perf_registers: tuple[int, ...]  # PC, SP and, where calls push nothing, LR, by perf's numbers (asm/perf_regs.h)
    user_end: int
    # A mnemonic of an instruction that the kernel executes itself, without a single step; those of ``emulated_direct``
    # only where they name their target.
    emulated: str
    emulated_direct: str
    uprobe_breakpoint: bytes  # what a uprobe puts in the place of an instruction (asm/uprobes.h)
    trap_pc: int  # the offset in ``struct user`` of a program counter that is behind a trap; -1 where it is at it
    # (code of a tiny function, the offset of an emulated instruction in it, and of one that is single-stepped)
    calibration: tuple[bytes, int, int]
    # The code of a function that returns what `runtime.cputicks` reads; b"" where that is nanotime.
    ticks: bytes

    capstone: tuple[str, str]  # the names of its architecture and mode
    min_instruction: int  # bytes
    call: str  # the mnemonic of a direct call
    indirect_call: str  # and of one that names no address, which may be the same
    jump: str  # of a direct jump without a condition
    # The mnemonic, and the code if only one form of it is how Go's functions return.
    ret: str
    ret_code: bytes
    # The branch of the stack check, after which (or on which) all argument registers are still intact.
    stack_branch: tuple[str, ...]
    # A cheap instruction right behind that branch that runs once per call even if the stack has to grow.
    after_branch: str
    # What may be written before the probed instruction: nothing that carries an argument.
    scratch: frozenset[str]
    # What may stand in front of a C function's first instruction: marks of valid targets for indirect branches.
    landing_pads: tuple[str, ...]
    # What Go's assembler writes for UNDEF, where that does not decode.
    undefined: bytes
    # The operands of a load from a thread's own memory (``fs:``), and the kernel's field of ``struct task_struct`` with its
    # pointer; "" if it is not read. Go keeps the g there while C has the g's register.
    thread_local: str
    task_tls: str
    # A call pushes the return address; otherwise it is in a register, LR.
    call_pushes: bool
    # Frame records are made by a push and then the frame pointer is set; otherwise SP moves first and they are stored.
    record_is_pushed: bool
    # Operands name data relative to the program counter; otherwise an instruction makes the page's address, another adds.
    data_is_pc_relative: bool
    data_load: str  # the mnemonic of a load
    # Of ``startTheWorldWithSema``: the operands that load the result from its stack slot before the RET, for architectures
    # where a probe on RET is dear; "" where it is cheap.
    result_load: str
    result_test: str  # an instruction that looks whether a function returned true
    number_test: str  # one that looks whether it returned a number of 32 bits that is not 0
    # Of the loop ``for i := range task.nfns``: the comparison of the index with the task's nfns, the load before it where
    # the comparison has no memory operand, and the jump behind it.
    init_compare: str
    init_load: str
    init_jump: str
    # Below which release the runtime does not link frame records across systemstack, so that it has to be bridged.
    records_joined_since: tuple[int, int]

    cache_line: int
    arena_base: int
    # System calls that others have taken the place of, by the kernel's names.
    no_syscalls: frozenset[str]

    def register_offset(self, name: str) -> int:
        """Where ``struct pt_regs`` keeps a register, in bytes."""
        return 8 * self.pt_regs.index(name)


AMD64 = Arch(
    goarch="amd64",
    machine="x86_64",
    title="x86-64",
    elf_machine=62,
    elf_relative=8,  # R_X86_64_RELATIVE
    syscall_bpf=321,
    syscall_perf_event_open=298,
    syscall_execve=(59, 322),
    pt_regs=("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    perf_registers=(8, 7),
    user_end=1 << 47,
    emulated=r"push|nop",
    emulated_direct=r"j.*|call",
    uprobe_breakpoint=b"\xcc",  # INT3
    trap_pc=128,
    calibration=(bytes.fromhex("55 4889e5 5d c3"), 0, 1),  # push rbp; mov rbp, rsp; pop rbp; ret
    ticks=bytes.fromhex("0f31 48c1e220 4809d0 c3"),  # rdtsc; shl rdx, 32; or rax, rdx; ret
    capstone=("CS_ARCH_X86", "CS_MODE_64"),
    min_instruction=1,
    call="call",
    indirect_call="call",
    jump="jmp",
    ret="ret",
    ret_code=b"",
    stack_branch=("jbe", "jb", "jae"),
    after_branch="push rbp",
    scratch=frozenset({"r12", "r13", "rflags"}),
    landing_pads=("endbr64",),
    undefined=b"",
    thread_local=r"\w+, qword ptr fs:\[(\w+)\]",
    task_tls="thread.fsbase",
    call_pushes=True,
    record_is_pushed=True,
    data_is_pc_relative=True,
    data_load="mov",
    result_load=r"rax, qword ptr \[rsp(?: \+ (0x[0-9a-f]+|\d+))?\]",
    result_test=r"test al, al",
    number_test=r"test eax, eax",
    init_compare=r"^cmp (?:d|q)word ptr \[(?P<task>\w+) \+ (?P<at>4|0x10)\], (?P<index>\w+)$",
    init_load="",
    init_jump="ja",
    records_joined_since=(0, 0),
    cache_line=64,
    arena_base=0xFFFF800000000000,
    no_syscalls=frozenset(),
)

ARM64 = Arch(
    goarch="arm64",
    machine="aarch64",
    title="ARM64",
    elf_machine=183,
    elf_relative=1027,  # R_AARCH64_RELATIVE
    syscall_bpf=280,
    syscall_perf_event_open=241,
    syscall_execve=(221, 281),
    pt_regs=tuple(f"x{number}" for number in range(31)),
    perf_registers=(32, 31, 30),
    user_end=1 << 48,
    emulated=r"b(?!ti$).*|cbz|cbnz|tbz|tbnz|ret|adr|adrp|nop",
    emulated_direct="",
    uprobe_breakpoint=bytes.fromhex("a00020d4"),  # BRK #5
    trap_pc=-1,
    calibration=(bytes.fromhex("01000014 e00300aa c0035fd6"), 0, 4),  # b +4; mov x0, x0; ret
    ticks=b"",
    capstone=("CS_ARCH_ARM64", "CS_MODE_ARM"),
    min_instruction=4,
    call="bl",
    indirect_call="blr",
    jump="b",
    ret="ret",
    ret_code=b"\xc0\x03\x5f\xd6",  # ret x30; wrappers may end in `ret xN`
    stack_branch=("b.ls", "b.lo", "b.hs"),
    after_branch="",
    scratch=frozenset({"x16", "x17", "x27", "nzcv", "sp"}),  # capstone: `cmp sp, x16` "writes" sp
    landing_pads=("bti", "paciasp", "pacibsp"),
    undefined=b"\x00\x17\xa7\xbe",
    thread_local="",
    task_tls="",
    call_pushes=False,
    record_is_pushed=False,
    data_is_pc_relative=False,
    data_load="ldr",
    result_load="",
    result_test=r"tbn?z w0, #0, .*",
    number_test=r"cbn?z w0, .*",
    init_compare=r"^cmp (?P<index>\w+), (?P<count>\w+)$",
    init_load=r"^ldr (?P<count>\w+), \[(?P<task>\w+), #(?P<at>4|0x10)\]$",
    init_jump="b.lo",
    records_joined_since=(1, 25),
    cache_line=128,
    arena_base=0,
    no_syscalls=frozenset({"open"}),  # openat
)

BY_GOARCH = {arch.goarch: arch for arch in (AMD64, ARM64)}
BY_MACHINE = {arch.machine: arch for arch in (AMD64, ARM64)}
BY_ELF_MACHINE = {arch.elf_machine: arch for arch in (AMD64, ARM64)}

SUPPORTED = " and ".join(arch.title for arch in BY_MACHINE.values())


def a_machine(goarch: str) -> str:
    """One of an architecture by Go's name for it, in a sentence."""
    return f"{'an' if goarch[0] in 'ai' else 'a'} {goarch} machine"


def host_arch() -> Arch:
    """This machine's. Raises HostError where gotrace does not run."""
    machine = os.uname().machine
    if machine not in BY_MACHINE:
        raise HostError(f"this machine is {machine}", f"gotrace runs on {SUPPORTED} Linux")
    return BY_MACHINE[machine]

"""Finding the instructions to probe inside the runtime's own functions.

A uprobe costs about 0.4 us on an instruction the kernel emulates and up to 16 us on one it must single-step (measured in
a virtual machine), so every probe sits on the former where there is one. What differs between the two
architectures is in `_ARCHES`; it, the forms in `gotrace.binary.startup` and ebpf/include/goabi.h are what a port has to
fill in.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import capstone

from gotrace.binary.elf import Elf
from gotrace.binary.pclntab import Function
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

_MAX_BODY = 64 << 10
_PROLOGUE = 12  # instructions
_EARLY_BYTES = 64


@dataclass(frozen=True)
class Site:
    """One instruction of a function that a probe can be set on; ``address`` is its link-time address."""

    symbol: str
    address: int
    file_offset: int
    code: bytes
    instruction: str
    emulated: bool


@dataclass(frozen=True)
class Instruction:
    """A decoded instruction: ``target`` of a direct call or branch, 0 otherwise."""

    address: int
    code: bytes
    mnemonic: str
    operands: str
    target: int

    def __str__(self) -> str:
        return f"{self.mnemonic} {self.operands}".strip()


@dataclass(frozen=True)
class Arch:
    """What has to be known about an architecture's code."""

    mode: tuple[int, int]  # capstone's
    call: tuple[str, ...]  # mnemonics of a direct call
    is_return: Callable[[Instruction], bool]
    # the branch of the stack check, after which (or on which) all argument registers are still intact
    stack_branch: tuple[str, ...]
    # a cheap instruction right behind that branch that runs once per call even if the stack has to grow
    after_branch: str | None
    # what may be written before the probed instruction: nothing that carries an argument
    scratch: frozenset[str]
    # branches, calls and returns that the kernel executes itself
    emulated: Callable[[Instruction], bool]
    # what Go's assembler writes for UNDEF, where that does not decode
    undefined: bytes


def _amd64_emulated(instruction: Instruction) -> bool:
    name = instruction.mnemonic
    direct = instruction.target != 0
    return (name.startswith("j") and direct) or (name == "call" and direct) or (name == "push") or name == "nop"


def _arm64_emulated(instruction: Instruction) -> bool:
    name = instruction.mnemonic
    return name.startswith("b") and name != "bti" or name in ("cbz", "cbnz", "tbz", "tbnz", "ret", "adr", "adrp", "nop")


_ARCHES = {
    "amd64": Arch(
        mode=(capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        call=("call",),
        is_return=lambda i: i.mnemonic == "ret",
        stack_branch=("jbe", "jb", "jae"),
        after_branch="push rbp",
        scratch=frozenset({"r12", "r13", "rflags"}),
        emulated=_amd64_emulated,
        undefined=b"",
    ),
    "arm64": Arch(
        mode=(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
        call=("bl",),
        is_return=lambda i: i.code == b"\xc0\x03\x5f\xd6",  # ret x30; wrappers may end in `ret xN`
        stack_branch=("b.ls", "b.lo", "b.hs"),
        after_branch=None,
        scratch=frozenset({"x16", "x17", "x27", "nzcv", "sp"}),  # capstone: `cmp sp, x16` "writes" sp
        emulated=_arm64_emulated,
        undefined=b"\x00\x17\xa7\xbe",
    ),
}


def body(program: GoProgram, symbol: str) -> Function:
    """The function called ``symbol``; raises BinaryError when this executable has none of its own."""
    function = program.pclntab.function(symbol)
    if function is None:
        raise BinaryError(f"{symbol} is not in this executable", "the linker dropped it, or this Go has no such function")
    return function


@functools.lru_cache(maxsize=4)
def _decoder(arch: str) -> Any:
    engine = capstone.Cs(*_ARCHES[arch].mode)
    engine.detail = True
    return engine


def early_site(elf: Elf, address: int, symbol: str) -> Site:
    """The first instruction from ``address`` on that the kernel emulates and that is surely reached from there.

    For a file's entry point, which no table need name. Raises BinaryError where a jump or the end comes before one.
    """
    data = elf.view_from(address)[:_EARLY_BYTES].tobytes()
    for raw in _decoder(elf.arch).disasm(data, address):
        instruction = _plain(raw)
        if _ARCHES[elf.arch].emulated(instruction):
            return _site(elf, symbol, instruction)
        if {capstone.CS_GRP_JUMP, capstone.CS_GRP_RET, capstone.CS_GRP_CALL} & set(raw.groups):
            break
    raise BinaryError(f"no instruction near {symbol} can be probed cheaply", "report it with the file")


def calls_of(elf: Elf, address: int, symbol: str) -> list[Site]:
    """Every direct call of ``address``, the function ``symbol``, in .text: for files without a Go function table."""
    text = elf.sections.get(".text")
    if text is None:
        return []
    engine = capstone.Cs(*_ARCHES[elf.arch].mode)
    engine.skipdata = True  # what lies between functions need not decode
    call = _ARCHES[elf.arch].call
    found = []
    for at, size, mnemonic, operands in engine.disasm_lite(elf.section_bytes(text).tobytes(), text.addr):
        if mnemonic in call and operands.lstrip("#") == f"{address:#x}":
            found.append(_site(elf, symbol, Instruction(at, elf.read(at, size), mnemonic, operands, address)))
    return found


def disassemble(program: GoProgram, function: Function) -> list[Any]:
    """capstone's instructions of a whole body, by a linear sweep. Raises BinaryError when bytes do not decode."""
    size = min(function.end - function.entry, _MAX_BODY)
    code = program.elf.read(function.entry, size)
    found = list(_decoder(program.arch).disasm(code, function.entry))
    end = found[-1].address + found[-1].size if found else function.entry
    # What is behind the last instruction to be reached need not decode.
    if code[end - function.entry :].removeprefix(_ARCHES[program.arch].undefined).strip(b"\x00\xcc"):
        raise BinaryError(f"{function.name} does not decode at {end:#x}", "the executable is damaged")
    return found


def _plain(raw: Any) -> Instruction:
    target = 0
    if re.match(r"^#?0x[0-9a-f]+$", raw.op_str):
        target = int(raw.op_str.lstrip("#"), 16)
    elif raw.mnemonic in ("cbz", "cbnz", "tbz", "tbnz"):
        target = int(raw.op_str.rsplit("#", 1)[-1], 16)
    return Instruction(raw.address, bytes(raw.bytes), raw.mnemonic, raw.op_str, target)


def site(program: GoProgram, symbol: str, instruction: Instruction) -> Site:
    """``instruction``, a decoded one of ``symbol``, as a place for a probe."""
    return _site(program.elf, symbol, instruction)


def _site(elf: Elf, symbol: str, instruction: Instruction) -> Site:
    return Site(
        symbol,
        instruction.address,
        elf.file_offset(instruction.address),
        instruction.code,
        str(instruction),
        _ARCHES[elf.arch].emulated(instruction),
    )


def entry_site(program: GoProgram, symbol: str) -> Site:
    """The cheapest instruction of ``symbol``'s prologue at which all argument registers are intact.

    amd64: the ``PUSHQ BP`` behind the stack check (or at the very beginning); it runs once per call, while the first
    instruction runs again whenever the stack grows. Go 1.20 and older push nothing there: the check's branch. arm64: the
    check's ``B.LS``. A function without a stack check: its first instruction. Raises BinaryError with the reason.
    """
    arch = _ARCHES[program.arch]
    instructions = disassemble(program, body(program, symbol))[:_PROLOGUE]
    for number, raw in enumerate(instructions):
        instruction = _plain(raw)
        previous = _plain(instructions[number - 1]) if number else None
        behind_check = previous is not None and previous.mnemonic in arch.stack_branch
        if arch.after_branch and str(instruction) == arch.after_branch and (number == 0 or behind_check):
            return site(program, symbol, instruction)
        if behind_check and previous is not None:
            return site(program, symbol, previous)
        if instruction.mnemonic in arch.stack_branch:
            if arch.after_branch is None:
                return site(program, symbol, instruction)
            continue
        written = {raw.reg_name(register) for register in raw.regs_access()[1]}
        if not written <= arch.scratch:
            break
    first = _plain(instructions[0])
    if number and _plain(instructions[number]).mnemonic in arch.stack_branch:
        raise BinaryError(f"the prologue of {symbol} has an unknown form", "report it with the Go version")
    return site(program, symbol, first)


def decode(program: GoProgram, symbol: str) -> list[Instruction]:
    """The instructions of ``symbol``. Raises BinaryError when it is not there or does not decode."""
    return [_plain(raw) for raw in disassemble(program, body(program, symbol))]


def is_call(program: GoProgram, instruction: Instruction) -> bool:
    """Whether it is a direct call."""
    return instruction.mnemonic in _ARCHES[program.arch].call and instruction.target != 0


def call_sites(program: GoProgram, symbol: str, callee: str) -> list[Site]:
    """Every direct call from ``symbol`` to a function called ``callee``, in address order."""
    entries = {function.entry for function in program.pclntab.functions(callee)}
    found = decode(program, symbol)
    return [site(program, symbol, i) for i in found if is_call(program, i) and i.target in entries]


def ret_sites(program: GoProgram, symbol: str) -> list[Site]:
    """Every return instruction of ``symbol``."""
    is_return = _ARCHES[program.arch].is_return
    return [site(program, symbol, i) for i in decode(program, symbol) if is_return(i)]


def result_slot(program: GoProgram, symbol: str) -> int | None:
    """amd64: the stack slot (offset from SP in the body) from which the result is loaded into AX before the only RET.

    None on arm64, where a probe on RET is cheap, and when the function does not end that way.
    """
    if program.arch != "amd64":
        return None
    found = decode(program, symbol)
    returns = [number for number, i in enumerate(found) if i.mnemonic == "ret"]
    if len(returns) != 1:
        return None
    for instruction in reversed(found[max(0, returns[0] - 6) : returns[0]]):
        match = re.fullmatch(r"rax, qword ptr \[rsp(?: \+ (0x[0-9a-f]+|\d+))?\]", instruction.operands)
        if instruction.mnemonic == "mov" and match:
            return int(match.group(1) or "0", 0)
    return None


def data_refs(program: GoProgram, symbol: str) -> list[int]:
    """The addresses of data that ``symbol`` refers to, in the order of its code (branch targets are not data)."""
    raws: Sequence[Any] = disassemble(program, body(program, symbol))
    return _amd64_refs(raws) if program.arch == "amd64" else _arm64_refs(raws)


def data_loads(program: GoProgram, symbol: str) -> list[int]:
    """The same of instructions that load a word from there; those that only take the address are left out."""
    raws: Sequence[Any] = disassemble(program, body(program, symbol))
    return _amd64_refs(raws, ("mov",)) if program.arch == "amd64" else _arm64_refs(raws, ("ldr",))


def _amd64_refs(raws: Sequence[Any], only: tuple[str, ...] = ()) -> list[int]:
    out = []
    for raw in raws:
        if only and (raw.mnemonic not in only or raw.operands[0].type != capstone.x86.X86_OP_REG):
            continue
        for operand in raw.operands:
            if operand.type == capstone.x86.X86_OP_MEM and operand.mem.base == capstone.x86.X86_REG_RIP:
                out.append(raw.address + raw.size + operand.mem.disp)
    return out


def _arm64_refs(raws: Sequence[Any], only: tuple[str, ...] = ()) -> list[int]:
    arm64 = capstone.arm64
    pages: dict[int, int] = {}
    out = []
    for raw in raws:
        operands = raw.operands
        if raw.mnemonic == "adrp":
            pages[operands[0].reg] = operands[1].imm
            continue
        if raw.mnemonic == "add" and len(operands) == 3 and operands[2].type == arm64.ARM64_OP_IMM:
            base = operands[1].reg
            if base in pages:
                address = pages.pop(base) + operands[2].imm
                out += [] if only else [address]
                continue
        for operand in operands:
            if operand.type == arm64.ARM64_OP_MEM and operand.mem.base in pages:
                address = pages.pop(operand.mem.base) + operand.mem.disp
                out += [] if only and raw.mnemonic not in only else [address]
        for register in raw.regs_access()[1]:
            pages.pop(register, None)
    return out

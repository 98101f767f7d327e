"""Finding the instructions to probe inside the runtime's own functions.

A uprobe costs about 0.4 us on an instruction the kernel emulates and up to 16 us on one it must single-step (measured in
a virtual machine), so every probe sits on the former where there is one. What differs between architectures is in
`gotrace.arch`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import capstone

from gotrace.arch import BY_GOARCH, Arch
from gotrace.binary.elf import Elf
from gotrace.binary.pclntab import Function, Pclntab
from gotrace.errors import BinaryError

_MAX_BODY = 64 << 10
_PROLOGUE = 12  # instructions
_EARLY_BYTES = 64
_COMPARISON = 6  # instructions


class Coded(Protocol):
    """What has Go's machine code, and says where: `gotrace.binary.program.GoProgram`."""

    elf: Elf
    pclntab: Pclntab


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


def is_emulated(elf: Elf, instruction: Instruction) -> bool:
    """Whether the kernel executes it itself, which makes a probe on it cheap."""
    name, isa = instruction.mnemonic, elf.isa
    direct = instruction.target != 0 and re.fullmatch(isa.emulated_direct, name)
    return bool(direct or re.fullmatch(isa.emulated, name))


def body(program: Coded, symbol: str) -> Function:
    """The function called ``symbol``; raises BinaryError when this executable has none of its own."""
    function = program.pclntab.function(symbol)
    if function is None:
        raise BinaryError(
            f"{symbol} is not in this executable", "the linker dropped it, or this Go version has no such function"
        )
    return function


def _mode(arch: str) -> tuple[int, int]:
    kind, mode = BY_GOARCH[arch].capstone
    return getattr(capstone, kind), getattr(capstone, mode)


@functools.lru_cache(maxsize=4)
def _decoder(arch: str) -> Any:
    engine = capstone.Cs(*_mode(arch))
    engine.detail = True
    return engine


def early_site(elf: Elf, address: int, symbol: str) -> Site:
    """The first instruction from ``address`` on that the kernel emulates and that is surely reached from there.

    For a file's entry point, which no table need name. Raises BinaryError where a jump or the end comes before one.
    """
    data = elf.view_from(address)[:_EARLY_BYTES].tobytes()
    for raw in _decoder(elf.arch).disasm(data, address):
        instruction = _plain(raw)
        if is_emulated(elf, instruction):
            return _site(elf, symbol, instruction)
        if {capstone.CS_GRP_JUMP, capstone.CS_GRP_RET, capstone.CS_GRP_CALL} & set(raw.groups):
            break
    raise BinaryError(f"no instruction near {symbol} can be probed cheaply", "report it with the file")


def function_site(elf: Elf, symbol: str) -> Site:
    """The cheapest instruction that each call of a C function runs once, with all arguments where the ABI has them.

    That is its first, or where this only marks a target of indirect branches the one behind it. Raises BinaryError where
    the symbol does not lead to one piece of code, or a loop leads back to the instruction.
    """
    found = elf.functions_called(symbol)
    if not found:
        raise BinaryError(f"{symbol} is not a function of {elf.path}", "it was inlined, or its symbol was stripped")
    if len(found) > 1:
        raise BinaryError(f"{len(found)} functions of {elf.path} are called {symbol}", "give a name that exists only once")
    ((address, (size, chooses)),) = found.items()
    if chooses:
        raise BinaryError(
            f"{symbol} of {elf.path} only chooses another function (IFUNC)", "give the name of the chosen one"
        )
    instructions = [_plain(raw) for raw in _decoder(elf.arch).disasm(elf.read(address, min(size, _MAX_BODY)), address)]
    if not 0 < size <= _MAX_BODY or sum(len(each.code) for each in instructions) != size:
        raise BinaryError(f"cannot read the code of {symbol} in {elf.path}", "name another function")
    looped = {each.target for each in instructions if each.mnemonic != elf.isa.call}
    marked = instructions[0].mnemonic in elf.isa.landing_pads
    second = instructions[1:2] if marked else []
    cheap = [each for each in (*instructions[:1], *second) if is_emulated(elf, each) and each.address not in looped]
    chosen = (cheap or instructions)[0]
    if chosen.address in looped:
        raise BinaryError(
            f"{symbol} of {elf.path} jumps back to where it begins", "its calls cannot be distinguished from its loops"
        )
    return _site(elf, symbol, chosen)


def partial_copies(elf: Elf, symbol: str) -> list[str]:
    """What a C compiler named the copies of ``symbol`` that it made for some of its calls."""
    copy = re.compile(re.escape(symbol) + r"\.(constprop|isra|part|specialized)\.\d+")
    return sorted({name for name, _, _ in elf.functions() if copy.match(name)})


def calls_of(elf: Elf, address: int, symbol: str) -> list[Site]:
    """Every direct call of ``address``, the function ``symbol``, in .text: for files without a Go function table.

    A jump there is one too: compilers make it of a call that is the last thing a function does.
    """
    text = elf.sections.get(".text")
    if text is None:
        return []
    engine = capstone.Cs(*_mode(elf.arch))
    engine.skipdata = True  # what lies between functions need not decode
    found = []
    for at, size, mnemonic, operands in engine.disasm_lite(elf.section_bytes(text).tobytes(), text.addr):
        if mnemonic in (elf.isa.call, elf.isa.jump) and operands.lstrip("#") == f"{address:#x}":
            found.append(_site(elf, symbol, Instruction(at, elf.read(at, size), mnemonic, operands, address)))
    return found


def disassemble(elf: Elf, function: Function) -> list[Any]:
    """capstone's instructions of a whole body, by a linear sweep. Raises BinaryError when bytes do not decode."""
    size = min(function.end - function.entry, _MAX_BODY)
    code = elf.read(function.entry, size)
    found = list(_decoder(elf.arch).disasm(code, function.entry))
    end = found[-1].address + found[-1].size if found else function.entry
    # What is behind the last instruction to be reached need not decode.
    if code[end - function.entry :].removeprefix(elf.isa.undefined).strip(b"\x00\xcc"):
        raise BinaryError(f"{function.name} does not decode at {end:#x}", "the executable is damaged")
    return found


def _plain(raw: Any) -> Instruction:
    target = 0
    if re.match(r"^#?0x[0-9a-f]+$", raw.op_str):
        target = int(raw.op_str.lstrip("#"), 16)
    elif raw.mnemonic in ("cbz", "cbnz", "tbz", "tbnz"):
        target = int(raw.op_str.rsplit("#", 1)[-1], 16)
    return Instruction(raw.address, bytes(raw.bytes), raw.mnemonic, raw.op_str, target)


def site(program: Coded, symbol: str, instruction: Instruction) -> Site:
    """``instruction``, a decoded one of ``symbol``, as a place for a probe."""
    return _site(program.elf, symbol, instruction)


def _site(elf: Elf, symbol: str, instruction: Instruction) -> Site:
    return Site(
        symbol,
        instruction.address,
        elf.file_offset(instruction.address),
        instruction.code,
        str(instruction),
        is_emulated(elf, instruction),
    )


def entry_site(program: Coded, symbol: str) -> Site:
    """The cheapest instruction of ``symbol``'s prologue at which all argument registers are intact.

    amd64: the ``PUSHQ BP`` behind the stack check (or at the very beginning); it runs once per call, while the first
    instruction runs again whenever the stack grows. Go 1.20 and older push nothing there: the check's branch. arm64: the
    check's ``B.LS``. A function without a stack check: its first instruction. Raises BinaryError with the reason.
    """
    arch = program.elf.isa
    instructions = disassemble(program.elf, body(program, symbol))[:_PROLOGUE]
    for number, raw in enumerate(instructions):
        instruction = _plain(raw)
        previous = _plain(instructions[number - 1]) if number else None
        behind_check = previous is not None and previous.mnemonic in arch.stack_branch
        if arch.after_branch and str(instruction) == arch.after_branch and (number == 0 or behind_check):
            return site(program, symbol, instruction)
        if behind_check and previous is not None:
            return site(program, symbol, previous)
        if instruction.mnemonic in arch.stack_branch:
            if not arch.after_branch:
                return site(program, symbol, instruction)
            continue
        written = {raw.reg_name(register) for register in raw.regs_access()[1]}
        if not written <= arch.scratch:
            break
    first = _plain(instructions[0])
    if number and _plain(instructions[number]).mnemonic in arch.stack_branch:
        raise BinaryError(f"the prologue of {symbol} has an unknown form", "report it with the Go version")
    return site(program, symbol, first)


def decode(program: Coded, symbol: str) -> list[Instruction]:
    """The instructions of ``symbol``. Raises BinaryError when it is not there or does not decode."""
    return [_plain(raw) for raw in disassemble(program.elf, body(program, symbol))]


def is_call(program: Coded, instruction: Instruction) -> bool:
    """Whether it is a direct call."""
    return instruction.mnemonic == program.elf.isa.call and instruction.target != 0


def call_sites(program: Coded, symbol: str, callee: str) -> list[Site]:
    """Every direct call from ``symbol`` to a function called ``callee``, in address order."""
    return [site(program, symbol, i) for i in _calls(program, decode(program, symbol), callee)]


def _calls(program: Coded, instructions: Sequence[Instruction], callee: str) -> list[Instruction]:
    entries = {function.entry for function in program.pclntab.functions(callee)}
    return [i for i in instructions if is_call(program, i) and i.target in entries]


def branch_behind(program: Coded, symbol: str, callee: str) -> tuple[Site, list[Instruction]]:
    """The conditional branch that follows the only call from ``symbol`` to ``callee``, and what stands between the two.

    Raises BinaryError where there are several calls or none, or something else than a comparison comes first.
    """
    instructions = decode(program, symbol)
    calls = _calls(program, instructions, callee)
    if len(calls) != 1:
        raise BinaryError(f"{symbol} calls {callee} {len(calls)} times", "it was inlined, or this Go version is not known")
    isa = program.elf.isa
    behind = [each for each in instructions if each.address > calls[0].address][:_COMPARISON]
    for number, each in enumerate(behind):
        if each.target and each.mnemonic not in (isa.call, isa.jump) and is_emulated(program.elf, each):
            return site(program, symbol, each), behind[:number]
        if each.mnemonic in (isa.call, isa.indirect_call, isa.jump, isa.ret):
            break
    raise BinaryError(f"{symbol} does not branch behind its call of {callee} as expected")


def ret_sites(program: Coded, symbol: str) -> list[Site]:
    """Every return instruction of ``symbol``."""
    isa = program.elf.isa
    found = [i for i in decode(program, symbol) if i.mnemonic == isa.ret and i.code.startswith(isa.ret_code)]
    return [site(program, symbol, i) for i in found]


def result_slot(program: Coded, symbol: str) -> int | None:
    """The stack slot (offset from SP in the body) from which the result is loaded into its register before the only RET.

    None where a probe on RET is cheap, and when the function does not end that way.
    """
    isa = program.elf.isa
    if not isa.result_load:
        return None
    found = decode(program, symbol)
    returns = [number for number, i in enumerate(found) if i.mnemonic == isa.ret]
    if len(returns) != 1:
        return None
    for instruction in reversed(found[max(0, returns[0] - 6) : returns[0]]):
        match = re.fullmatch(isa.result_load, instruction.operands)
        if instruction.mnemonic == isa.data_load and match:
            return int(match.group(1) or "0", 0)
    return None


def data_refs(program: Coded, symbol: str) -> list[int]:
    """The addresses of data that ``symbol`` refers to, in the order of its code (branch targets are not data)."""
    return refs_in(program.elf, body(program, symbol))


def refs_in(elf: Elf, function: Function) -> list[int]:
    """The same of a body at hand."""
    raws: Sequence[Any] = disassemble(elf, function)
    return _refs(elf.isa)(raws, "")


def data_loads(program: Coded, symbol: str) -> list[int]:
    """The same of instructions that load a word from there; those that only take the address are left out."""
    raws: Sequence[Any] = disassemble(program.elf, body(program, symbol))
    return _refs(program.elf.isa)(raws, program.elf.isa.data_load)


def _refs(isa: Arch) -> Callable[[Sequence[Any], str], list[int]]:
    """What finds the data that instructions refer to; given a mnemonic, only that which instructions of it load."""
    return _pc_relative_refs if isa.data_is_pc_relative else _paged_refs


def _pc_relative_refs(raws: Sequence[Any], only: str) -> list[int]:
    out = []
    for raw in raws:
        if only and (raw.mnemonic != only or raw.operands[0].type != capstone.x86.X86_OP_REG):
            continue
        for operand in raw.operands:
            if operand.type == capstone.x86.X86_OP_MEM and operand.mem.base == capstone.x86.X86_REG_RIP:
                out.append(raw.address + raw.size + operand.mem.disp)
    return out


def _paged_refs(raws: Sequence[Any], only: str) -> list[int]:
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
                out += [] if only and raw.mnemonic != only else [address]
        for register in raw.regs_access()[1]:
            pages.pop(register, None)
    return out

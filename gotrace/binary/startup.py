"""Where a Go program's start can be divided: the instructions at the boundaries of its steps.

All are ones the kernel emulates. The calls inside ``rt0_go`` and ``schedinit`` divide the runtime's bootstrap: each is hit
at most once in a start, in the order of the text (seen on Go 1.19 to 1.27; the entries of the small functions they call
are hit hundreds of times). The conditional jump that closes the loop of ``doInit1`` divides the package inits.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gotrace.binary import code
from gotrace.errors import BinaryError

if TYPE_CHECKING:
    from gotrace.binary.code import Instruction, Site
    from gotrace.binary.elf import Elf
    from gotrace.binary.program import GoProgram

BOOTSTRAP = ("runtime.rt0_go", "runtime.schedinit")

# Callees that are no step of a start: errors, locks and what the compiler puts in.
_NOISE = re.compile(
    r"(internal/)?runtime[./](.*\.)?(throw|fatal|abort|exit|write\w*|lock\w*|unlock\w*|morestack\w*|print\w*|panic\w*|goPanic\w*|"
    r"badctxt|gcWriteBarrier\w*|wbZero|wbMove|acquirem|releasem)$|gcWriteBarrier\w*$"
)


@dataclass(frozen=True)
class InitLoop:
    """The jump that closes the loop over a package's init functions; hit nfns + 1 times a package, with I = 0..nfns.

    I = 0 is the package's begin, I = k the end of function k - 1 and the begin of function k, I = nfns its end.
    ``task`` and ``index`` name the registers that hold the task's address and I. ``nfns_offset`` is where the task keeps
    nfns: since Go 1.21 as a 32-bit word at 4, with the functions from 8 on; before as a 64-bit one at 16, with ndeps at 8
    and the functions behind 24 + 8 * ndeps (runtime.initTask, in src/runtime/proc.go).
    """

    site: Site
    task: str
    index: str
    nfns_offset: int


def init_loop(program: GoProgram) -> InitLoop:
    """Raises BinaryError unless the loop is certain."""
    symbol, nfns_offset = ("runtime.doInit1", 4) if program.version >= (1, 21) else ("runtime.doInit", 16)
    instructions, isa = code.decode(program, symbol), program.elf.isa
    found = []
    for load, compare, jump in zip(instructions, instructions[1:], instructions[2:], strict=False):
        match = re.fullmatch(isa.init_compare, str(compare))
        if jump.mnemonic != isa.init_jump or not match or not compare.address > jump.target > 0:
            continue
        fields = match.groupdict()
        if isa.init_load:
            loaded = re.fullmatch(isa.init_load, str(load))
            if loaded is None or _wide(loaded["count"]) != _wide(fields["count"]):
                continue
            fields |= loaded.groupdict()
        if int(fields["at"], 0) == nfns_offset:
            task, index = _wide(fields["task"]), _wide(fields["index"])
            found.append(InitLoop(code.site(program, symbol, jump), task, index, nfns_offset))
    if len(found) != 1:
        raise BinaryError(f"the loop of {symbol} has an unknown form", "report it with the Go version")
    return found[0]


def _wide(register: str) -> str:
    """The whole register that ``register`` is the lower half of: esi -> rsi, r9d -> r9, w4 -> x4."""
    if re.fullmatch(r"w\d+", register):
        return f"x{register[1:]}"
    if re.fullmatch(r"r\d+d", register):
        return register[:-1]
    return f"r{register[1:]}" if register.startswith("e") else register


def bootstrap_steps(program: GoProgram) -> list[tuple[str, Site]]:
    """(what is called, the call) in the order of execution, from rt0_go's first step to runtime.main's goroutine.

    schedinit's steps stand behind the call of schedinit itself. Raises BinaryError when a body cannot be read.
    """
    steps: list[tuple[str, Site]] = []
    first, second = (_calls(program, symbol) for symbol in BOOTSTRAP)
    for callee, site in first:
        steps.append((callee, site))
        if callee == BOOTSTRAP[1]:
            steps += second
    return steps


def _calls(program: GoProgram, symbol: str) -> list[tuple[str, Site]]:
    found: list[tuple[str, Site]] = []
    instructions = code.decode(program, symbol)
    for number, instruction in enumerate(instructions):
        if _is_indirect_call(program, instruction) and symbol == BOOTSTRAP[0] and uses_cgo(program):
            # rt0_go calls _cgo_init only if there is one: the jump around it is cheap to probe, the call is not.
            jump = next((each for each in reversed(instructions[:number]) if each.target > instruction.address), None)
            if jump is not None:
                found.append(("_cgo_init", code.site(program, symbol, jump)))
        if not code.is_call(program, instruction):
            continue
        callee = program.pclntab.find(instruction.target)
        if callee is not None and callee.entry == instruction.target and not _NOISE.match(callee.name):
            found.append((callee.name, code.site(program, symbol, instruction)))
    return found


def _is_indirect_call(program: GoProgram, instruction: Instruction) -> bool:
    return instruction.mnemonic == program.elf.isa.indirect_call and instruction.target == 0


def uses_cgo(program: GoProgram) -> bool:
    """Whether C code is linked into the program, and with it C's start-up."""
    return any(name.startswith("runtime/cgo.") for name in program.pclntab.names())


def linker_of(elf: Elf) -> str:
    """Where the dynamic linker of ``elf`` is, "" if it needs none or it is not to be found.

    Its path is absolute within the root the program runs in, which may be a container's: a folder above the program.
    """
    if not elf.interpreter:
        return ""
    for folder in Path(os.path.realpath(elf.path)).parents:
        found = folder / elf.interpreter.lstrip("/")
        if found.is_file():
            return os.path.realpath(found)
    return ""

"""Where a Go program keeps its goroutines, in a stripped executable.

As in `gotrace.binary.globals`, each address comes from the code that refers to it and is believed where a second place
agrees; offsets come from the table of `gotrace.binary.layout`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gotrace.binary import code
from gotrace.binary.globals import find_globals
from gotrace.binary.layout import layout_of, offsets_of, strings_at
from gotrace.binary.moduledata import Pointers
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

# struct -> the fields that are read of it; one with a "?" does not exist in every release.
_FIELDS = {
    "g": (
        *("goid", "m", "sched", "atomicstatus", "stack.lo", "stack.hi", "syscallsp", "syscallpc", "waitsince"),
        *("waitreason", "trackingSeq", "lockedm", "gopc", "startpc", "waiting", "labels", "parentGoid?"),
    ),
    "gobuf": ("sp", "pc", "lr"),
    "m": ("procid", "syscalltick"),
    "sudog": ("c",),
}
_FIRST_REASON = "GC assist marking"


@dataclass(frozen=True)
class GoroutinePlaces:
    """Link-time addresses of runtime.allglen and allgptr, and of work.cycles (0: not found), offsets by ``struct.field``,
    and the words for waitReason.

    ``labels_are_a_map``: of a goroutine's labels, up to Go 1.23; since then they are a slice.
    """

    go_version: str
    pie: bool
    first_vaddr: int
    allglen: int
    allgptr: int
    offsets: dict[str, int]
    reasons: list[str]
    labels_are_a_map: bool
    work_cycles: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_goroutines(program: GoProgram) -> GoroutinePlaces:
    """Raises BinaryError with what was not found."""
    offsets = offsets_of(layout_of(program), _FIELDS)
    allglen, allgptr = find_allgs(program)
    return GoroutinePlaces(
        go_version=program.go_version,
        pie=program.pie,
        first_vaddr=program.elf.first_vaddr,
        allglen=allglen,
        allgptr=allgptr,
        offsets=offsets,
        reasons=wait_reasons(program),
        labels_are_a_map=program.version < (1, 24),
        work_cycles=find_globals(program).work_cycles or 0,
    )


def find_allgs(program: GoProgram) -> tuple[int, int]:
    """forEachGRace loads the length, then the array; without optimisation atomicAllG does. allgadd stores both."""
    written = set(code.data_refs(program, "runtime.allgadd"))
    for symbol in ("runtime.forEachGRace", "runtime.atomicAllG"):
        if program.pclntab.function(symbol) is None:
            continue
        found = list(dict.fromkeys(code.data_refs(program, symbol)))
        if len(found) == 2 and set(found) <= written:
            return found[0], found[1]
    raise BinaryError("runtime.allgs was not found: forEachGRace does not refer to the expected data")


def wait_reasons(program: GoProgram) -> list[str]:
    """The runtime's own words for each waitReason, from its table in the program itself. Raises BinaryError.

    What lies behind the table may look like more of it: only what a goroutine has is looked up.
    """
    pointers = Pointers(program.elf)
    for symbol in ("runtime.waitReason.String", "runtime.(*waitReason).String", "runtime.goroutineheader"):
        if program.pclntab.function(symbol) is None:
            continue
        for table in code.data_refs(program, symbol):
            words = list(strings_at(program, pointers, table + 16))  # the first one is empty
            if words and words[0] == _FIRST_REASON:
                return ["", *words]
    raise BinaryError("runtime.waitReasonStrings was not found: waitReason.String does not refer to it as expected")

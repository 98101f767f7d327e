"""Where a Go program's scheduler keeps its books, in a stripped executable: `find_scheduler` for what a stop of the world
waits for, `find_books` for all of them.

As in `gotrace.binary.globals`, each address comes from the code that refers to it and is believed where a second place
agrees; offsets come from the table of `gotrace.binary.layout`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from gotrace.binary import code
from gotrace.binary.globals import find_globals
from gotrace.binary.layout import layout_of, offsets_of
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

# struct -> the fields that are read of it; one with a "?" does not exist in every release.
_FIELDS = {
    "schedt": ("lock", "nmidlelocked", "lastpoll", "gcwaiting", "stopwait"),
    "p": ("id", "status", "m", "gcStopTime?"),
    "m": ("procid", "curg", "preemptoff"),
    "g": ("goid", "sched"),
    "gobuf": ("bp",),
}
_BOOKS = {
    "schedt": (
        *("sizeof", "lock", "nmidlelocked", "lastpoll", "gcwaiting", "goidgen", "nmidle"),
        *("npidle", "nmspinning", "runqsize?", "runq.size?", "timeToRun"),
        *("totalMutexWaitTime?", "totalRuntimeLockWaitTime?"),
    ),
    "p": ("id", "status", "m", "schedtick", "goidcache", "goidcacheend", "runqhead", "runqtail", "runnext"),
    "m": ("procid",),
    "timeHistogram": ("sizeof", "counts", "underflow", "overflow?"),
}
# What each M knows, where its place is known: that changed within Go 1.24.
_OF_MS = {"m": ("alllink", "mLockProfile.waitTime?")}


@dataclass(frozen=True)
class SchedulerPlaces:
    """Link-time addresses of the scheduler's globals, and offsets by ``struct.field``."""

    sched: int
    allp: int
    offsets: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_scheduler(program: GoProgram) -> SchedulerPlaces:
    """Raises BinaryError with what was not found."""
    offsets = offsets_of(layout_of(program), _FIELDS)
    return SchedulerPlaces(find_sched(program, offsets), find_allp(program), offsets)


@dataclass(frozen=True)
class SchedulerBooks:
    """The same for all that the scheduler counts.

    ``allm`` is 0 where the Ms cannot be followed, ``cpu_stats`` (work.cpuStats, since Go 1.20) where it is not there;
    ``missing`` says why. ``zeros_are_calls``: up to Go 1.25 the histogram
    timeToRun has returns from system calls too, as waits of 0.
    """

    go_version: str
    pie: bool
    first_vaddr: int
    sched: int
    allp: int
    allm: int
    cpu_stats: int
    offsets: dict[str, int]
    zeros_are_calls: bool
    missing: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_books(program: GoProgram) -> SchedulerBooks:
    """Raises BinaryError if an indispensable part is not found."""
    layout = layout_of(program)
    offsets = offsets_of(layout, _BOOKS)
    sched, allm, missing = find_sched(program, offsets), 0, {}
    try:
        of_ms = offsets_of(layout, _OF_MS)
        allm = _allm(program, sched, offsets["schedt.sizeof"])
        offsets |= of_ms
    except BinaryError as error:
        missing["threads' waits for the runtime's own locks"] = error.message
    cycles, of_work = find_globals(program).work_cycles, "runtime.workType"
    cpu_stats = 0
    if cycles is not None and layout.has(of_work, "cpuStats"):
        cpu_stats = cycles - layout.offset(of_work, "cycles") + layout.offset(of_work, "cpuStats")
    else:
        missing["how Ps spent their time"] = f"{program.go_version} does not record it"
    return SchedulerBooks(
        go_version=program.go_version,
        pie=program.pie,
        first_vaddr=program.elf.first_vaddr,
        sched=sched,
        allp=find_allp(program),
        allm=allm,
        cpu_stats=cpu_stats,
        offsets=offsets,
        zeros_are_calls=program.version < (1, 26),
        missing=missing,
    )


def find_allp(program: GoProgram) -> int:
    refs = code.data_refs(program, "runtime.preemptall")
    allp = refs[0] if refs else 0
    if allp not in (*code.data_refs(program, "runtime.gcMarkTinyAllocs"), *_refs(program, "runtime.timeSleepUntil")):
        raise BinaryError("runtime.allp was not found: preemptall does not refer to the expected data")
    return allp


def _allm(program: GoProgram, sched: int, size: int) -> int:
    """Who makes an M and who ends one have it in common, beside sched and what gcMarkTermination refers to too."""
    found = set(code.data_refs(program, "runtime.mexit")) & set(code.data_refs(program, "runtime.mcommoninit"))
    found -= {*range(sched, sched + size), *code.data_refs(program, "runtime.gcMarkTermination")}
    if len(found) != 1:
        raise BinaryError("runtime.allm was not found: mexit does not refer to the expected data")
    return found.pop()


def _refs(program: GoProgram, symbol: str) -> list[int]:
    try:
        return code.data_refs(program, symbol)
    except BinaryError:
        return []


def find_sched(program: GoProgram, offsets: dict[str, int]) -> int:
    refs = code.data_refs(program, "runtime.incidlelocked")
    lock, others = offsets["schedt.lock"], offsets["schedt.nmidlelocked"]
    sched = refs[0] - lock if refs else 0
    agrees = sched + offsets["schedt.lastpoll"] in code.data_refs(program, "runtime.wakeNetPoller")
    if len(refs) < 2 or refs[1] - refs[0] != others - lock or not agrees:
        raise BinaryError("runtime.sched was not found: incidlelocked does not refer to the expected data")
    return sched

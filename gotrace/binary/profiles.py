"""Where a Go program keeps the profiles that it takes of itself, in a stripped executable.

As in `gotrace.binary.globals`, each address comes from the code that refers to it and is believed where a second place
agrees; offsets come from the table of `gotrace.binary.layout`.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import Any

from gotrace.binary import code
from gotrace.binary.layout import layout_of, offsets_of
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError, NoProfileError

_BUCKET = {"bucket": ("sizeof", "allnext", "typ", "size", "nstk")}
_FIELDS = {
    **_BUCKET,
    "memRecord": ("sizeof", "active", "future"),
    "memRecordCycle": ("sizeof", "allocs", "frees", "alloc_bytes?", "free_bytes?"),
}
# Who reads the profile: where the linker finds that nobody calls it, the program takes none. Since Go 1.23, before.
_COUNTERS = ("runtime.mProf_PostSweep", "runtime.mProf_NextCycle", "runtime.mProf_Flush", "runtime.mProf_Malloc")
_READERS = ("runtime.memProfileInternal", "runtime.MemProfile")


# What there is of a program without a profile.
INSTEAD = (
    "`gotrace heap --pid PID -d 10s --alloc --now` shows which code allocates, `gotrace mem` what its memory consists of"
)


@dataclass(frozen=True)
class ProfilePlaces:
    """Link-time addresses of runtime.mbuckets, mProfCycle and MemProfileRate, and offsets by ``struct.field``."""

    go_version: str
    pie: bool
    first_vaddr: int
    mbuckets: int
    cycle: int
    rate: int
    offsets: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ContentionPlaces:
    """Link-time addresses of runtime.xbuckets and bbuckets, in whichever order, and offsets by ``struct.field``."""

    go_version: str
    pie: bool
    first_vaddr: int
    lists: tuple[int, int]
    offsets: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_contention(program: GoProgram) -> ContentionPlaces:
    """Raises BinaryError with what was not found."""
    mbuckets = _both(program, "mbuckets", "mProf_FlushLocked", "stkbucket")
    refs = list(dict.fromkeys(code.data_refs(program, "runtime.stkbucket")))
    lists = refs[refs.index(mbuckets) + 1 :][:2]  # one for each kind of profile, in the order in which a switch has them
    if len(lists) != 2:
        raise BinaryError("runtime.xbuckets and bbuckets were not found: stkbucket does not refer to them as expected")
    return ContentionPlaces(
        go_version=program.go_version,
        pie=program.pie,
        first_vaddr=program.elf.first_vaddr,
        lists=(lists[0], lists[1]),
        offsets=offsets_of(layout_of(program), {**_BUCKET, "blockRecord": ("count", "cycles")}),
    )


def find_profiles(program: GoProgram) -> ProfilePlaces:
    """Raises BinaryError with what was not found, NoProfileError if the program keeps no heap profile."""
    if not any(program.pclntab.function(name) for name in _READERS):
        raise NoProfileError(
            "the program keeps no heap profile: nothing in it reads one, so the linker dropped it", INSTEAD
        )
    offsets = offsets_of(layout_of(program), _FIELDS)
    return ProfilePlaces(
        go_version=program.go_version,
        pie=program.pie,
        first_vaddr=program.elf.first_vaddr,
        mbuckets=_both(program, "mbuckets", "mProf_FlushLocked", "stkbucket"),
        cycle=_cycle(program),
        rate=_rate(program),
        offsets=offsets,
    )


def _both(program: GoProgram, name: str, first: str, second: str) -> int:
    """The only data that two functions refer to."""
    found = set(code.data_refs(program, f"runtime.{first}")) & set(code.data_refs(program, f"runtime.{second}"))
    if len(found) != 1:
        raise BinaryError(f"runtime.{name} was not found: {first} and {second} do not refer to it as expected")
    return found.pop()


def _cycle(program: GoProgram) -> int:
    """Who counts a free looks first; one of those that count cycles, or an allocation, has to agree."""
    refs = code.data_refs(program, "runtime.mProf_Free")
    for other in _COUNTERS:
        if program.pclntab.function(other) is not None and refs and refs[0] in code.data_refs(program, other):
            return refs[0]
    raise BinaryError("runtime.mProfCycle was not found: mProf_Free does not refer to the expected data")


def _rate(program: GoProgram) -> int:
    """Who has to know when to sample next; without optimisation they only call nextSample for it."""
    for first, second in (("allocmcache", "profilealloc"), ("nextSample", "profilealloc"), ("nextSample", "mallocgc")):
        with contextlib.suppress(BinaryError):
            return _both(program, "MemProfileRate", first, second)
    raise BinaryError("runtime.MemProfileRate was not found: profilealloc does not refer to it as expected")

"""Where a Go program's heap keeps what classifies its pages, in a stripped executable.

As in `gotrace.binary.globals`, each address comes from the code that refers to it and is believed where a second place
agrees; offsets come from the table of `gotrace.binary.layout`, which is what DWARF says of each release.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from gotrace.binary import code
from gotrace.binary.globals import find_globals, find_mheap
from gotrace.binary.layout import layout_of, offsets_of
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

# struct -> the fields that are read of it; one with a "?" does not exist in every release.
FIELDS = {
    "gcControllerState": (
        *("gcPercent", "memoryLimit", "heapLive", "heapMarked", "lastHeapGoal"),
        *("heapInUse", "heapReleased", "heapFree", "totalAlloc", "totalFree", "mappedReady"),
    ),
    "mstats": (
        *("enablegc", "last_gc_nanotime", "numgc", "heapStats"),
        *("stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys"),
    ),
    "heapStatsDelta": ("sizeof", "committed", "released", "inHeap", "inStacks", "inWorkBufs", "inPtrScalarBits?"),
    "mheap": (
        *("pages.summary", "pages.chunks", "pages.inUse.ranges", "pages.scav.index.chunks", "sweepgen", "allspans"),
        *("arenas", "allArenas?", "heapArenas?", "spanalloc.inuse", "cachealloc.inuse"),
        *("pages.scav.released?", "pages.scav.releasedBg?", "pages.scav.releasedEager?"),
    ),
    "mspan": ("sizeof", "next", "startAddr", "npages", "nelems", "allocCount", "spanclass", "state", "elemsize", "limit"),
    "heapArena": ("sizeof",),
    "p": ("pcache", "id?", "m?"),
    "m": ("procid?",),
    "pageCache": ("base", "cache", "scav"),
    "workType": ("wbufSpans",),
}


@dataclass(frozen=True)
class HeapPlaces:
    """Link-time addresses of the runtime's globals, and offsets by ``struct.field``; what could not be found is 0.

    ``arena_base`` is what addresses are counted from in the page bitmap (runtime.arenaBaseOffset).
    """

    go_version: str
    arch: str
    pie: bool
    first_vaddr: int
    mheap: int
    memstats: int
    gc_controller: int
    work: int
    allp: int
    persistent_chunks: int
    gc_bits_arenas: int
    buckhash: int
    scavenge: int
    offsets: dict[str, int]
    arena_base: int
    narrow_nelems: bool  # mspan.nelems has 16 bits (Go 1.22 and later)
    missing: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_heap(program: GoProgram) -> HeapPlaces:
    """Everything that can be established. Raises BinaryError if an indispensable part is not found."""
    offsets = offsets_of(layout_of(program), FIELDS)
    found = find_globals(program)
    if found.work is None or found.gc_controller is None:
        raise BinaryError("; ".join(found.missing.values()), "report it with the Go version")
    missing: dict[str, str] = {}

    def optional(name: str, symbol: str, loads: bool = False, again: int = 0) -> int:
        """What ``symbol`` refers to first, and ``again`` references later: it looks once more when it has a lock."""
        try:
            refs = (code.data_loads if loads else code.data_refs)(program, symbol)
            if refs[0] == refs[again]:
                return refs[0]
        except (BinaryError, IndexError):
            pass
        missing[name] = f"{symbol} does not refer to it as expected"
        return 0

    scavenge = _scavenge(program)
    if not scavenge:
        missing["scavenge"] = "gcPaceScavenger does not refer to it as expected: how much is left to return is unknown"
    if "mheap.pages.scav.releasedEager" not in offsets:
        missing["memory returned while allocating"] = f"{program.go_version} counts only memory returned in the background"

    return HeapPlaces(
        go_version=program.go_version,
        arch=program.arch,
        pie=program.pie,
        first_vaddr=program.elf.first_vaddr,
        mheap=find_mheap(program, offsets["mheap.sweepgen"]),
        memstats=find_memstats(program, offsets),
        gc_controller=found.gc_controller,
        work=found.work,
        allp=optional("allp", "runtime.preemptall"),
        persistent_chunks=optional("persistentChunks", "runtime.persistentalloc1", loads=True),
        gc_bits_arenas=optional("gcBitsArenas", "runtime.nextMarkBitArenaEpoch"),
        buckhash=optional("buckhash", "runtime.stkbucket", again=2),
        scavenge=scavenge,
        offsets=offsets,
        arena_base=program.elf.isa.arena_base,
        narrow_nelems=program.version >= (1, 22),
        missing=missing,
    )


def find_memstats(program: GoProgram, offsets: dict[str, int]) -> int:
    refs = code.data_refs(program, "runtime.gcTrigger.test")
    memstats = refs[0] - offsets["mstats.enablegc"] if refs else 0
    if memstats + offsets["mstats.last_gc_nanotime"] not in refs:
        raise BinaryError("runtime.memstats was not found: gcTrigger.test does not refer to the expected data")
    return memstats


def _scavenge(program: GoProgram) -> int:
    """runtime.scavenge, which begins with gcPercentGoal and memoryLimitGoal: one place sets, another reads both. Or 0."""
    pairs = []
    for symbol in ("runtime.gcPaceScavenger", "runtime.(*scavengerState).init.func3"):
        try:
            refs = set(code.data_refs(program, symbol))
        except BinaryError:
            return 0
        pairs.append({ref for ref in refs if ref + 8 in refs})
    found = pairs[0] & pairs[1]
    return found.pop() if len(found) == 1 else 0

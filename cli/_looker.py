"""Looking at a process's memory: what is resident, and what it is for."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gotrace import session
from gotrace.analysis.heap_pages import (
    GO_PAGE,
    Pages,
    SizeClass,
    classify,
    huge_sizes,
    large_rounding,
    page_rounding,
    size_classes,
    sizes,
)
from gotrace.binary.heap import HeapPlaces
from gotrace.errors import TargetError
from gotrace.heap import Counters, HeapReader
from gotrace.kernel import huge_pages
from gotrace.kernel.memory import PAGE, RANGE, Memory
from gotrace.kernel.process import Process

_DRIFT = 0.01  # of RSS: what changed more while it was looked at is looked at again
_TRIES = 3


@dataclass(frozen=True)
class Look:
    """One look: the parts add up to ``rss``; sizes in bytes. ``drift`` is how much RSS changed meanwhile, as a share of it.

    ``huge_parts`` is what of the parts is in huge pages; ``huge_bytes`` the kernel's count, anonymous memory only.
    ``page_rounding_bytes``: free, but in a kernel page with something that is in use. ``large_rounding_bytes`` of the live
    objects lie behind the end of large ones.
    """

    time: float
    rss: int
    parts: dict[str, int]
    counters: Counters
    classes: list[SizeClass]
    huge_parts: dict[str, int]
    huge_bytes: int
    huge_setting: huge_pages.Setting | None
    page_rounding_bytes: int
    large_rounding_bytes: int
    lazy_free_bytes: int
    swap_bytes: int
    drift: float
    took_ns: int
    pages: Pages

    @property
    def amplification(self) -> float:
        return self.rss / self.counters.heap_alloc if self.counters.heap_alloc > 0 else float("inf")


class Looker:
    """Looks at one process."""

    def __init__(self, process: Process) -> None:
        found = HeapPlaces(**session.of_executable(process, "heap", heap_of))
        self.places = found
        self._memory = Memory(process.pid)
        self.reader = HeapReader(found, self._memory, process.load_bias(found.first_vaddr) if found.pie else 0)
        self._exe = os.readlink(process.exe_path)

    def look(self) -> Look:
        """What is resident now; taken again when it changed too much meanwhile. Raises TargetError or HostError."""
        best: Look | None = None
        for left in reversed(range(_TRIES)):
            try:
                found = self._look()
            except TargetError:  # it has exited, or a list was changed while it was followed
                if left or best is not None:
                    continue
                raise
            if best is None or found.drift < best.drift:
                best = found
            if best.drift <= _DRIFT:
                break
        assert best is not None
        return best

    def parts_of(self, addresses: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """What the pages at ``addresses`` belong to now, resident or not: indices into `PARTS`. Raises as `look` does."""
        size = min(PAGE, GO_PAGE)
        pages, back = np.unique(addresses // size * size, return_inverse=True)
        ranges = np.zeros(len(pages), RANGE)
        ranges["begin"], ranges["end"] = pages, pages + size
        return classify(self.reader.snapshot(), ranges, self._memory.vmas(), self._exe, size).part[back]

    def _look(self) -> Look:
        begin = time.monotonic_ns()
        counters = self.reader.counters()
        snapshot = self.reader.snapshot()
        vmas = self._memory.vmas()
        resident = self._memory.resident(vmas)
        rollup = self._memory.rollup()
        snapshot = self.reader.grown(snapshot)
        took = time.monotonic_ns() - begin
        pages = classify(snapshot, resident, vmas, self._exe, PAGE)
        parts = sizes(pages)
        rss = sum(parts.values())
        return Look(
            time=time.time(),
            rss=rss,
            parts=parts,
            counters=counters,
            classes=size_classes(snapshot.spans),
            huge_parts=huge_sizes(pages),
            huge_bytes=rollup.get("AnonHugePages", 0),
            huge_setting=huge_pages.setting(),
            page_rounding_bytes=page_rounding(pages, PAGE),
            large_rounding_bytes=large_rounding(snapshot.spans, resident),
            lazy_free_bytes=rollup.get("LazyFree", 0),
            swap_bytes=rollup.get("Swap", 0),
            drift=abs(rollup["Rss"] - rss) / max(rollup["Rss"], 1),
            took_ns=took,
            pages=pages,
        )


def heap_of(path: str) -> HeapPlaces:
    """Where the heap of an executable is; disassembles, so run it in a child."""
    from gotrace.binary.heap import find_heap
    from gotrace.binary.program import GoProgram

    with GoProgram.open(path) as program:
        session.require_same_arch(program)
        return find_heap(program)


def record(look: Look) -> dict[str, Any]:
    """One look as a JSON object; sizes in bytes."""
    return {
        "type": "memory",
        "time": look.time,
        "rss_bytes": look.rss,
        "amplification": round(look.amplification, 4) if look.counters.heap_alloc > 0 else None,
        "parts": look.parts,
        "counters": dataclasses.asdict(look.counters),
        "size_classes": [{**dataclasses.asdict(each), "waste": each.waste} for each in look.classes],
        "page_rounding_bytes": look.page_rounding_bytes,
        "large_rounding_bytes": look.large_rounding_bytes,
        "huge_bytes": look.huge_bytes,
        "huge_parts": {part: size for part, size in look.huge_parts.items() if size},
        "huge_setting": dataclasses.asdict(look.huge_setting) if look.huge_setting is not None else None,
        "lazy_free_bytes": look.lazy_free_bytes,
        "swap_bytes": look.swap_bytes,
        "drift": round(look.drift, 6),
        "took_ns": look.took_ns,
        "page_bytes": PAGE,
    }

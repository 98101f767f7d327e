"""Looking at a process's memory: what is resident, and what it is for."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.analysis.heap_pages import (
    GO_PAGE,
    Region,
    Resident,
    SizeClass,
    classify,
    huge_sizes,
    large_rounding,
    page_rounding,
    regions,
    size_classes,
    sizes,
)
from gotrace.binary.heap import HeapPlaces, find_heap
from gotrace.errors import HostError, TargetError
from gotrace.kernel import huge_pages
from gotrace.kernel.cgroup import MemoryGroup, memory_group
from gotrace.kernel.memory import PAGE, RANGE, Memory
from gotrace.kernel.process import Process
from gotrace.made import bias_in, found_in
from gotrace.runtime.heap import Counters, HeapReader

_DRIFT = 0.01  # of RSS: a snapshot during which it changed more is taken again
_TRIES = 3


@dataclass(frozen=True)
class Look:
    """One snapshot: the parts add up to ``rss``; sizes in bytes. ``drift`` is how much RSS changed during it, as a share.

    ``huge_parts`` is what of the parts is in huge pages; ``huge_bytes`` the kernel's count, anonymous memory only.
    ``page_rounding_bytes``: free, but in a kernel page with something that is in use. ``large_rounding_bytes`` of the live
    objects lie behind the end of large ones. ``cgroup`` says in a text why it is unknown, if it is.
    """

    monotonic_ns: int
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
    cgroup: MemoryGroup | str
    regions: list[Region]
    drift: float
    took_ns: int
    resident: Resident

    @property
    def amplification(self) -> float:
        return self.rss / self.counters.heap_alloc if self.counters.heap_alloc > 0 else float("inf")


class Looker:
    """Looks at one process."""

    def __init__(self, process: Process) -> None:
        self.places = found_in(process, "heap", HeapPlaces, find_heap)
        self._memory = Memory(process.pid)
        self.reader = HeapReader(self.places, self._memory, bias_in(process, self.places))
        try:
            self._exe = os.readlink(process.exe_path)
        except OSError:
            raise TargetError(f"process {process.pid} has exited", "give the pid of a running Go program") from None

    def look(self) -> Look:
        """What is resident now; taken again if RSS drifted too much. Raises TargetError or HostError."""
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
        return classify(self.reader.snapshot(), ranges, self._memory.mappings(), self._exe, size).pages.part[back]

    def _look(self) -> Look:
        begin = time.monotonic_ns()
        counters = self.reader.counters()
        snapshot = self.reader.snapshot()
        mappings = self._memory.mappings()
        ranges = self._memory.resident()
        rollup = self._memory.rollup()
        # The nearer one tells: Linux 6.1 to 6.5 leave huge pages that NUMA balancing has marked out of smaps_rollup.
        told = (rollup["Rss"], self._memory.counted())
        snapshot = self.reader.grown(snapshot)
        group = self._cgroup()
        took = time.monotonic_ns() - begin
        resident = classify(snapshot, ranges, mappings, self._exe, PAGE)
        parts = sizes(resident)
        rss = sum(parts.values())
        return Look(
            monotonic_ns=time.monotonic_ns(),
            rss=rss,
            parts=parts,
            counters=counters,
            classes=size_classes(snapshot.spans),
            huge_parts=huge_sizes(resident),
            huge_bytes=rollup.get("AnonHugePages", 0),
            huge_setting=huge_pages.setting(),
            page_rounding_bytes=page_rounding(resident, PAGE),
            large_rounding_bytes=large_rounding(snapshot.spans, ranges),
            lazy_free_bytes=rollup.get("LazyFree", 0),
            swap_bytes=rollup.get("Swap", 0),
            cgroup=group,
            regions=regions(resident, mappings, self._exe),
            drift=min(abs(each - rss) / max(each, 1) for each in told),
            took_ns=took,
            resident=resident,
        )

    def _cgroup(self) -> MemoryGroup | str:
        try:
            return memory_group(self._memory.pid)
        except HostError as error:
            return error.message

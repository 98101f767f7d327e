"""What `gotrace.binary.metrics` finds: small to import, for who reads there for as long as a process runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MEMORY, ALLOCATIONS, GOROUTINES, SCHEDULE = "memory", "allocations", "goroutines", "schedule"


@dataclass(frozen=True)
class MetricPlaces:
    """Link-time addresses, 0 where they were not found, and offsets by ``struct.field``; ``missing`` has the parts that
    cannot be read, and why.

    ``system_goroutines``: whether those of the runtime itself count in /sched/goroutines, as they do from Go 1.26 on.
    """

    pie: bool
    first_vaddr: int
    memstats: int
    gc_controller: int
    allglen: int
    allp: int
    sched: int
    offsets: dict[str, int]
    system_goroutines: bool
    missing: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

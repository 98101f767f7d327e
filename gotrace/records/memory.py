"""The records of `gotrace.views.memory` and `cycles`: memory snapshots, and RSS at the end of each cycle."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from gotrace.analysis.heap_pages import C_HEAP, FILES, OTHER, PARTS
from gotrace.records.heap import Live
from gotrace.records.schema import Keys, OneOf
from gotrace.records.times import Moment
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.runtime.looker import Look

Missing = Annotated[dict[str, str], "what is not available on this host or for this target, and why"]
_Parts = Annotated[dict[str, int], Keys(PARTS)]


class SizeClass(TypedDict):
    """All spans of one size class (0: large objects); bytes."""

    size: int
    spans: int
    bytes: int
    live: int
    waste: int


class HugePages(TypedDict):
    """What the kernel does about transparent huge pages, in the words of its settings."""

    enabled: str
    defrag: str
    size: int
    max_ptes_none: int


class Scavenged(TypedDict):
    """What the heap returned to the kernel, and took from it, between two snapshots."""

    seconds: float
    returned_bytes: int
    uncounted_bytes: int
    taken_bytes: int
    mapped_bytes: int


class Cgroup(TypedDict):
    """The cgroup that the memory is charged to; null: unknown."""

    version: int
    path: str
    limited: Annotated[bool, "whether it or a visible ancestor has a limit"]
    limit_bytes: Annotated[int | None, "the lowest of these limits"]
    limited_by: Annotated[str | None, "the cgroup that has it"]
    usage_bytes: int | None
    working_set_bytes: Annotated[int | None, "usage without the inactive part of the page cache"]
    page_cache_bytes: int | None


class Region(TypedDict):
    """Mappings of one name, and how much of them is resident as that part of RSS."""

    name: str
    part: Annotated[str, OneOf((FILES, C_HEAP, OTHER))]
    mappings: int
    bytes: int


class Memory(Moment):
    """A snapshot of the memory."""

    type: Literal["memory"]
    rss_bytes: Annotated[int, "the sum of the parts"]
    amplification: Annotated[float | None, "MAF: RSS / HeapAlloc"]
    parts: _Parts
    counters: Annotated[dict[str, int | None], "the runtime's own, as runtime.MemStats has them"]
    size_classes: list[SizeClass]
    page_rounding_bytes: Annotated[int, "free memory in kernel pages that also hold memory in use"]
    large_rounding_bytes: Annotated[int | None, "what objects larger than 32 KiB leave unused in their spans"]
    huge_bytes: int
    huge_parts: _Parts
    huge_setting: HugePages | None
    lazy_free_bytes: int
    swap_bytes: int
    cgroup: Annotated[Cgroup | None, "memory of its cgroup, and the limit; null: unknown, and missing says why"]
    regions: Annotated[
        list[Region] | None, "the largest mappings that are not Go's or the executable's; null: unknown (before 0.2.0)"
    ]
    drift: Annotated[float, "how much RSS drifted during the snapshot, as a share of RSS"]
    took_ns: int
    page_bytes: int
    missing: Missing
    scavenged: Annotated[Scavenged | None, "since the previous snapshot"]
    code: Annotated[Live | None, "which code allocated the live heap; null: not asked for"]


class Cycle(Moment):
    """What was resident when a GC cycle ended."""

    type: Literal["cycle"]
    cycle: Annotated[int, "the number gctrace prints"]
    rss_bytes: int
    swapped_bytes: int
    heap_live_bytes: int
    heap_end_bytes: int
    heap_goal_bytes: int | None
    rss_over_live: Annotated[float | None, "RSS / live heap"]


_REGIONS = 5  # that are named


def look_record(look: Look, page_bytes: int, missing: dict[str, str]) -> dict[str, Any]:
    """One look, without its wall time and what the heap returned since the one before; sizes in bytes."""
    return {
        "type": "memory",
        "monotonic_ns": look.monotonic_ns,
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
        "cgroup": None if isinstance(look.cgroup, str) else dataclasses.asdict(look.cgroup),
        "regions": [{**dataclasses.asdict(each), "name": printable(each.name)} for each in look.regions[:_REGIONS]],
        "drift": round(look.drift, 6),
        "took_ns": look.took_ns,
        "page_bytes": page_bytes,
        "missing": {**missing, "cgroup": look.cgroup} if isinstance(look.cgroup, str) else missing,
    }

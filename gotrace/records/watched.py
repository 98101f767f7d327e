"""What records about a stretch of time have in common."""

from __future__ import annotations

from typing import Annotated, TypedDict

from gotrace.analysis.gc_summary import PERCENTILES, percentiles
from gotrace.analysis.histogram import Histogram


class Watched(TypedDict):
    """Which process, how long, and what was lost."""

    target: str
    watched_ns: int
    lost: Annotated[int, "events that found no room or were left out by the kernel, and numbers that could not be read"]


class Counted(TypedDict):
    """How many there were."""

    count: int


Percentiles = TypedDict(
    "Percentiles", {"p50_ns": int, "p90_ns": int, "p99_ns": int, "p99.9_ns": int, "max_ns": int}, total=False
)


class Statistics(Counted, Percentiles):
    """Of lengths of time; the percentiles are there if anything was counted."""


def statistics(histogram: Histogram, wanted: tuple[float, ...] = PERCENTILES) -> dict[str, int]:
    """`Statistics` with the percentiles that are ``wanted``."""
    if not histogram.count:
        return {"count": 0}
    values = zip(wanted, percentiles(histogram, wanted), strict=True)
    return {"count": histogram.count, **{f"p{each:g}_ns": int(value) for each, value in values}, "max_ns": histogram.max}

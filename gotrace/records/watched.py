"""What records about a period of time have in common."""

from __future__ import annotations

from typing import Annotated, TypedDict

from gotrace.analysis.gc_summary import PERCENTILES, percentiles
from gotrace.analysis.histogram import Histogram


class Watched(TypedDict):
    """The process, how long it was watched, and what was lost."""

    target: str
    watched_ns: int
    lost: Annotated[int, "events that found no room or that the kernel left out, and numbers that could not be read"]


class Counted(TypedDict):
    """A count."""

    count: int


Percentiles = TypedDict(
    "Percentiles", {"p50_ns": int, "p90_ns": int, "p99_ns": int, "p99.9_ns": int, "max_ns": int}, total=False
)


class Statistics(Counted, Percentiles):
    """Statistics of durations; percentiles are present if anything was counted."""


def statistics(histogram: Histogram, wanted: tuple[float, ...] = PERCENTILES) -> dict[str, int]:
    """`Statistics` with the percentiles that are ``wanted``."""
    if not histogram.count:
        return {"count": 0}
    values = zip(wanted, percentiles(histogram, wanted), strict=True)
    return {"count": histogram.count, **{f"p{each:g}_ns": int(value) for each, value in values}, "max_ns": histogram.max}

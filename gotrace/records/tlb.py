"""The records of `gotrace.views.tlb`: what translating addresses cost, by phase of the collector."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from gotrace.analysis.counted import PLACES
from gotrace.records.schema import Keys
from gotrace.records.times import Moment
from gotrace.records.watched import Watched


class Counter(TypedDict):
    """An event of the processor or the kernel."""

    event: str
    meaning: str
    total: Annotated[int, "scaled to the whole time if counted for part of it"]
    running_share: Annotated[float | None, "share of the time for which it was counted"]
    phases: Annotated[dict[str, int | None], Keys(PLACES), "null: never counted there"]


class Flushes(TypedDict):
    """TLB flushes for one reason: how many, of how many pages, and how many of the whole TLB."""

    flushes: int
    pages: int
    whole: int


class Processor(TypedDict):
    """A core's TLB, in entries; null: not documented."""

    name: str
    l1: int | None
    l2: int
    l2_huge: int | None
    source: str


class Reach(TypedDict):
    """The share of the memory in pages of one size that the second-level TLB can map at once."""

    page: int
    pages: int
    share: float | None


class Tlb(Watched):
    """The summary, at the end."""

    type: Literal["tlb"]
    phases_ns: Annotated[dict[str, int], Keys(PLACES), "time on a CPU"]
    unseen: Annotated[
        dict[str, int],
        Keys(("times", "at_most_ns")),
        "context switches that the kernel did not report, and the time missing because of them",
    ]
    divided_share: Annotated[float, "share of that time divided between phases by length alone"]
    counters: list[Counter]
    missing: Annotated[list[list[str]], "what cannot be counted, and why"]
    flushes: dict[str, Flushes]
    collapses: Annotated[dict[str, int], Keys(("succeeded", "failed"))]
    splits_of_the_machine: dict[str, int]
    pages: Annotated[list[list[int]], "page size, and resident bytes in pages of that size"]
    pages_age_ns: Annotated[
        int | None,
        "how long before the end these were last counted: longer if the process exited; null: never, so unknown",
    ]
    processor: Processor | None
    reach: list[Reach]


class TlbInterval(Moment):
    """What was counted since the last record."""

    type: Literal["tlb_interval"]
    length_ns: int
    ran_ns: Annotated[int, "time on a CPU"]
    flushes: int
    counts: Annotated[dict[str, int | None], "by event, scaled; null: never counted"]

"""Starts as JSON objects: one per start, and one for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

from gotrace.analysis import timeline
from gotrace.analysis.gc_summary import PERCENTILES, percentiles
from gotrace.analysis.start_summary import Outlier, Part, StartSummary
from gotrace.analysis.timeline import Container, FirstGc, Place, Start, Starter
from gotrace.records.advice import WithAdvice
from gotrace.records.gc import Cost
from gotrace.records.times import Moment, moment

Record = dict[str, Any]


class Row(TypedDict):
    """A span of a start (`gotrace.analysis.timeline.Row`); nanoseconds, ``begin_ns`` since execve's entry.

    How the time of the stages "container" and "before exec" was spent is not known: all of it stands in ``on_cpu_ns``.
    """

    stage: str
    name: str
    depth: Annotated[int, "0: a whole stage, 1: a part of it, 2: one init function"]
    begin_ns: int
    duration_ns: Annotated[int, "the sum of on_cpu_ns, runnable_ns, throttled_ns and blocked_ns"]
    on_cpu_ns: int
    runnable_ns: Annotated[int, "waiting for a CPU"]
    throttled_ns: Annotated[int | None, "kept from running by a CPU quota; null: unknown, and included in runnable_ns"]
    blocked_ns: int
    minor_faults: int
    major_faults: int
    pages_read: Annotated[int, "read from disk"]
    heap_bytes: Annotated[int | None, "growth of the live heap; below 65536, it may be another row's; null: unknown"]
    detail: str


class ColdStart(Moment):
    """One start, from execve; its time is execve's entry, and other times are nanoseconds since then."""

    type: Literal["coldstart"]
    number: Annotated[int, "in chronological order, from 0"]
    run: Annotated[
        int, "the run of the command it belongs to, from 0; without a command, each start not caused by another is a run"
    ]
    place: Annotated[int, "its number within the run, from 0"]
    pid: int
    starter: Annotated[Starter | None, "the process that forked it, or itself if it re-executed itself; null: unknown"]
    total_ns: int
    ended: Annotated[str, "what ended it"]
    rows: list[Row]
    unattributed_ns: int
    listen_ns: Annotated[int | None, "the first listen"]
    ready_ns: Annotated[int | None, "the first accept that returned"]
    exit_code: Annotated[int | None, "as a shell reports it"]
    gc: Annotated[FirstGc | None, "the first collection"]
    container: Annotated[Container | None, "the container it runs in, and the tool asked for it; null: none was seen"]
    hits: Annotated[int, "how often it hit a probe"]
    kernel_hits: Annotated[int, "how often the kernel hit one on its behalf"]
    notes: list[str]


PartNumbers = TypedDict(
    "PartNumbers",
    {
        "p50_ns": Annotated[int, "HdrHistogram's, as all percentiles: the lower of two values in the middle"],
        "p90_ns": int,
        "p99_ns": int,
        "p99.9_ns": int,
    },
)


class PartOfAll(PartNumbers):
    """A row over all starts of one place that have it; the median lies in low to high with 95 %, from 5 starts on.

    In the stage "container" nobody counts faults and pages: they are 0.
    """

    place: Annotated[int, "number within the run, from 0"]
    stage: str
    name: str
    depth: int
    count: int
    median_ns: Annotated[int, "for an even count, the mean of the two middle values"]
    median_low_ns: int
    median_high_ns: int
    max_ns: int
    major_faults: Annotated[float, "the median"]
    pages_read: Annotated[float, "the median"]
    throttled_ns: Annotated[float | None, "the median; null: unknown"]


class CostOfStart(TypedDict):
    """What tracing added to one start, as medians."""

    probes: int
    install_ns: int
    hits: int
    kernel_hits: Annotated[int, "as those of a start: the kernel's own, without a trap"]
    hits_ns: Annotated[int, "of both"]


class Summary(WithAdvice):
    """All starts, and how tracing ended."""

    type: Literal["summary"]
    duration_ns: int
    ended: str
    received: int
    lost: int
    cost: Cost
    starts: int
    cost_per_start: CostOfStart
    parts: list[PartOfAll]
    outliers: list[Outlier]
    slow_first: Annotated[float, "the first run's time as a multiple of the others' median; 0: it was no slower"]


def start_record(start: Start, number: int, place: Place, wall_offset_ns: int) -> Record:
    """One start; times are nanoseconds since execve's entry, but ``monotonic_ns`` (CLOCK_MONOTONIC) and ``time``."""
    fields = {field.name: getattr(start, field.name) for field in dataclasses.fields(start)}
    del fields["run_ns"]
    return {
        "type": "coldstart",
        "number": number,
        **place._asdict(),
        **moment(fields.pop("exec_ns"), wall_offset_ns),
        **fields,
        "rows": [_row(row) for row in start.rows],
        "gc": dataclasses.asdict(start.gc) if start.gc else None,
        "starter": dataclasses.asdict(start.starter) if start.starter else None,
        "container": dataclasses.asdict(start.container) if start.container else None,
        "notes": list(start.notes),
    }


def _row(row: timeline.Row) -> Record:
    return {**dataclasses.asdict(row), "on_cpu_ns": row.on_cpu_ns}


def summary_record(found: Sequence[StartSummary], about: Record) -> Record:
    """All starts, by their place in their runs; ``about`` is what the session knows (its end, losses and cost)."""
    return {
        "type": "summary",
        **about,
        "parts": [_part(part, place) for place, those in enumerate(found) for part in those.parts],
        "outliers": [dataclasses.asdict(outlier) for those in found for outlier in those.outliers],
        "slow_first": round(found[0].slow_first, 3) if found else 0,
    }


def medians(part: Part) -> Record:
    """What is told of every row that many starts, or builds, have."""
    return {
        "stage": part.stage,
        "name": part.name,
        "depth": part.depth,
        "count": part.count,
        "median_ns": round(part.median),
        "median_low_ns": round(part.low),
        "median_high_ns": round(part.high),
    }


def _part(part: Part, place: int) -> Record:
    values = zip(PERCENTILES, percentiles(part.histogram), strict=True)
    return {
        "place": place,
        **medians(part),
        **{f"p{percentile:g}_ns": int(value) for percentile, value in values},
        "max_ns": part.histogram.max,
        "major_faults": part.major_faults,
        "pages_read": part.pages_read,
        "throttled_ns": part.throttled,
    }

"""Starts as JSON objects: one a start, and one for all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from gotrace.analysis.gc_summary import PERCENTILES, percentiles
from gotrace.analysis.start_summary import Part, StartSummary
from gotrace.analysis.timeline import Row, Start
from gotrace.export.gc_json import wall_time

Record = dict[str, Any]


def start_record(start: Start, number: int, wall_offset_ns: int) -> Record:
    """One start; times are nanoseconds since execve's entry, but ``monotonic_ns`` (CLOCK_MONOTONIC) and ``time``."""
    fields = {field.name: getattr(start, field.name) for field in dataclasses.fields(start)}
    return {
        "type": "coldstart",
        "number": number,
        "monotonic_ns": fields.pop("exec_ns"),
        "time": wall_time(start.exec_ns, wall_offset_ns),
        **fields,
        "rows": [_row(row) for row in start.rows],
        "gc": dataclasses.asdict(start.gc) if start.gc else None,
        "notes": list(start.notes),
    }


def _row(row: Row) -> Record:
    return {**dataclasses.asdict(row), "on_cpu_ns": row.on_cpu_ns}


def summary_record(found: StartSummary, about: Record) -> Record:
    """All starts; ``about`` is what the session knows (how it ended, what was lost, what it cost)."""
    return {
        "type": "summary",
        **about,
        "parts": [_part(part) for part in found.parts],
        "outliers": [dataclasses.asdict(outlier) for outlier in found.outliers],
        "slow_first": round(found.slow_first, 3),
    }


def _part(part: Part) -> Record:
    values = zip(PERCENTILES, percentiles(part.histogram), strict=True)
    return {
        "stage": part.stage,
        "name": part.name,
        "depth": part.depth,
        "count": part.count,
        "median_ns": round(part.median),
        "median_low_ns": round(part.low),
        "median_high_ns": round(part.high),
        **{f"p{percentile:g}_ns": int(value) for percentile, value in values},
        "max_ns": part.histogram.max,
        "major_faults": part.major_faults,
        "pages_read": part.pages_read,
    }

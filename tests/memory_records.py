"""Records about memory as their views make them, for pages to be drawn of: each fits its schema, or is no record."""

from __future__ import annotations

import dataclasses
from typing import Any

import jsonschema

from gotrace.analysis.counted import PLACES
from gotrace.analysis.heap_pages import FREE, PARTS
from gotrace.analysis.phases import PHASES
from gotrace.analysis.placement import SPANS
from gotrace.records.all import RECORDS
from gotrace.records.schema import schema_of
from gotrace.records.times import moment
from gotrace.runtime.heap import Counters

MIB = 1 << 20
BEGIN = 1_780_000_000  # 2026-05-28 20:26:40 UTC

Record = dict[str, Any]

_SCHEMAS = {schema["properties"]["type"]["const"]: schema for schema in map(schema_of, RECORDS["mem"])}
_COUNTERS = dict.fromkeys((each.name for each in dataclasses.fields(Counters)), 0)
_WATCHED = {"target": "a service", "watched_ns": 60 * 10**9, "lost": 0}


def checked(record: Record) -> Record:
    """Raises jsonschema.ValidationError."""
    jsonschema.Draft202012Validator(_SCHEMAS[record["type"]]).validate(record)
    return record


def at(second: float) -> Record:
    """The members of a moment so long after `BEGIN`."""
    return {**moment(round(second * 1e9), BEGIN * 10**9)}


def look(second: float, parts: dict[str, int], heap: int = 10 * MIB, **more: Any) -> Record:
    rss = sum(parts.values())
    record = {
        "type": "memory",
        **at(second),
        "rss_bytes": rss,
        "amplification": round(rss / heap, 4) if heap else None,
        "parts": dict.fromkeys(PARTS, 0) | parts,
        "counters": {**_COUNTERS, "heap_alloc": heap},
        "size_classes": [],
        "page_rounding_bytes": 0,
        "large_rounding_bytes": 0,
        "huge_bytes": 0,
        "huge_parts": {},
        "huge_setting": None,
        "lazy_free_bytes": 0,
        "swap_bytes": 0,
        "cgroup": None,
        "regions": [],
        "drift": 0.0,
        "took_ns": 5_000_000,
        "page_bytes": 4096,
        "missing": {},
        "scavenged": None,
        "code": None,
    }
    return checked({**record, **more})


def cycle(number: int, second: float, rss: int = 30 * MIB, live: int = 10 * MIB) -> Record:
    record = {"type": "cycle", **at(second), "cycle": number, "rss_bytes": rss, "swapped_bytes": 0}
    heap = {"heap_live_bytes": live, "heap_end_bytes": live, "heap_goal_bytes": 2 * live}
    return checked({**record, **heap, "rss_over_live": round(rss / live, 4)})


def faults(**more: Any) -> Record:
    counts = {"heap objects": {phase: 10 * number for number, phase in enumerate(PHASES)}}
    took = {"p50_ns": 812, "p90_ns": 1_000, "p99_ns": 15_300, "p99.9_ns": 15_300, "max_ns": 15_300}
    times = {phase: {"count": 0} for phase in PHASES} | {PHASES[1]: {"count": 7, **took}}
    record = {"type": "faults", **_WATCHED, "faults": 60, "counts": counts, "minor": times, "major": times, "series": []}
    record["in_progress"] = []
    return checked({**record, "phases_ns": dict.fromkeys(PHASES, 2_000_000_000), **more})


def second(at_second: int, counts: dict[str, int]) -> Record:
    """One of the ``series`` of `faults`."""
    return {**at(at_second), "counts": counts}


def numa(**more: Any) -> Record:
    nodes = [{"node": node, "cpus": [node], "distance": {"0": 10, "1": 20}, "ran_ns": 1, "bytes": MIB} for node in (0, 1)]
    record = {
        "type": "numa",
        **_WATCHED,
        "nodes": nodes,
        "memory_age_ns": 0,
        "memory": {FREE: {"0": MIB}, SPANS: {"-1": 3 * MIB, "1": MIB}},
        "faults": {"rows": [0, 1], "columns": [0, 1, "unknown"], "counts": [[6, 2, 0], [1, 0, 1]]},
        "remote_share": 1 / 3,
        "accesses": {},
        "hinting_faults": 0,
        "policies": {},
        "balancing": False,
        "balancing_threads": {},
        "threads_moved": 0,
        "move_gaps": {"count": 0},
        "ps_moved": 0,
        "pages_moved": 0,
        "pages_not_moved": 0,
        "series": [],
        "missing": {},
        "advice": "",
    }
    return checked({**record, **more})


def tlb(**more: Any) -> Record:
    phases = {"mutator": 4_000, "mark worker": 500, "assist": None, "sweep": 0, "STW": 1}
    record = {
        "type": "tlb",
        **_WATCHED,
        "phases_ns": {**dict.fromkeys(PLACES, 0), **dict.fromkeys(phases, 2_000_000_000), "STW": 0},
        "unseen": {"times": 0, "at_most_ns": 0},
        "divided_share": 0.0,
        "counters": [counter("dtlb_misses", phases, 4_501, 0.5)],
        "missing": [],
        "flushes": {},
        "collapses": {"succeeded": 0, "failed": 0},
        "splits_of_the_machine": {},
        "pages": [],
        "pages_age_ns": 0,
        "processor": None,
        "reach": [],
    }
    return checked({**record, **more})


def counter(event: str, phases: dict[str, int | None], total: int, running: float | None = None) -> Record:
    """One of the ``counters`` of `tlb`."""
    return {"event": event, "meaning": event, "total": total, "running_share": running, "phases": phases}

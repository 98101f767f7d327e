"""The JSON Schema of what `gotrace mem`, `tlb` and `numa` print with ``--format ndjson``."""

from __future__ import annotations

from typing import Any

from gotrace.analysis.counted import PLACES
from gotrace.analysis.heap_pages import PARTS
from gotrace.analysis.phases import PHASES

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_MAYBE_INTEGER: Schema = {"type": ["integer", "null"]}
_MAYBE_NUMBER: Schema = {"type": ["number", "null"]}


def json_schema() -> Schema:
    """JSON Schema (2020-12) of one line: sizes in bytes, times in nanoseconds where they end in ``_ns``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gotrace mem, tlb and numa, one object a line",
        "oneOf": [_memory(), _cycle(), _faults(), _numa(), _numa_interval(), _tlb(), _tlb_interval()],
    }


def _about(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _map(value: Schema, *names: str) -> Schema:
    """An object of such values; with ``names`` of no others."""
    return {"type": "object", "additionalProperties": value, **({"propertyNames": {"enum": list(names)}} if names else {})}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _object(properties: Schema, optional: Schema | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def _record(kind: str, properties: Schema, optional: Schema | None = None) -> Schema:
    return _object({"type": {"const": kind}, **properties}, optional)


_MISSING = _about(_map(_TEXT), "what this target or this host cannot give, and why")
_WATCHED = {
    "target": _TEXT,
    "watched_ns": _INTEGER,
    "lost": _about(_INTEGER, "events dropped, or numbers that could not be read"),
}
_STATISTICS = _object(
    {"count": _INTEGER}, {name: _INTEGER for name in ("p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "max_ns")}
)


def _memory() -> Schema:
    sizes = dict.fromkeys(("size", "spans", "bytes", "live", "waste"), _INTEGER)
    scavenged = dict.fromkeys(("returned_bytes", "uncounted_bytes", "taken_bytes", "mapped_bytes"), _INTEGER)
    return _record(
        "memory",
        {
            "time": _about(_NUMBER, "seconds since the epoch"),
            "rss_bytes": _about(_INTEGER, "the sum of the parts"),
            "amplification": _about(_MAYBE_NUMBER, "RSS / HeapAlloc"),
            "parts": _map(_INTEGER, *PARTS),
            "counters": _about(_map(_MAYBE_INTEGER), "the runtime's own, as runtime.MemStats has them"),
            "size_classes": _list(_object(sizes)),
            "page_rounding_bytes": _about(_INTEGER, "free memory in kernel pages that hold memory in use too"),
            "large_rounding_bytes": _about(_MAYBE_INTEGER, "what objects of more than 32 KiB leave of their spans"),
            "huge_bytes": _INTEGER,
            "huge_parts": _map(_INTEGER, *PARTS),
            "huge_setting": _about({"type": ["object", "null"]}, "how the kernel makes huge pages"),
            "lazy_free_bytes": _INTEGER,
            "swap_bytes": _INTEGER,
            "drift": _about(_NUMBER, "how much RSS changed meanwhile, as a share of it"),
            "took_ns": _INTEGER,
            "page_bytes": _INTEGER,
            "missing": _MISSING,
            "scavenged": _about(
                {"anyOf": [_object({"seconds": _NUMBER, **scavenged}), {"type": "null"}]},
                "what the heap returned to the kernel, and took from it, since the look before",
            ),
        },
    )


def _cycle() -> Schema:
    sizes = ("rss", "swapped", "heap_live", "heap_end", "heap_goal")
    return _record(
        "cycle",
        {
            "time": _about(_TEXT, "when the cycle ended, ISO 8601 in UTC"),
            "cycle": _about(_INTEGER, "the number gctrace prints"),
            **{f"{name}_bytes": _INTEGER for name in sizes},
            "amplification": _about(_MAYBE_NUMBER, "RSS / live heap"),
        },
    )


def _faults() -> Schema:
    by_phase = _map(_INTEGER, *PHASES)
    times = _map(_STATISTICS, *PHASES)
    return _record(
        "faults",
        {
            **_WATCHED,
            "faults": _INTEGER,
            "counts": _about(_map(by_phase), "part of memory, then phase"),
            "phases_ns": by_phase,
            "minor": _about(times, "service times"),
            "major": _about(times, "service times of those that had to read"),
            "series": _about(_list(_object({"time": _NUMBER, "counts": by_phase})), "second by second"),
        },
    )


def _numa() -> Schema:
    by_node = _map(_INTEGER)
    node = {"node": _INTEGER, "cpus": _list(_INTEGER), "distance": by_node, "ran_ns": _INTEGER, "bytes": _INTEGER}
    sample = {name: by_node for name in ("ps", "threads", "bytes")}
    return _record(
        "numa",
        {
            **_WATCHED,
            "nodes": _list(_object(node)),
            "memory": _about(_map(by_node), "part, then node; -1 is unknown"),
            "faults": _about(
                _object({"rows": _list(_INTEGER), "columns": _list({}), "counts": _list(_list(_INTEGER))}),
                "row: the node of the CPU, column: that of the page",
            ),
            "remote_share": _MAYBE_NUMBER,
            "accesses": _about(_map(_map(_MAYBE_INTEGER)), "event, then the node of the CPUs; null: never counted"),
            "hinting_faults": _MAYBE_INTEGER,
            "policies": _about(_map(_INTEGER), "policy of mappings, and their bytes"),
            "balancing": {"type": ["boolean", "null"]},
            "balancing_threads": _about(_map(_MAYBE_INTEGER), "what the kernel's balancing did with threads"),
            "threads_moved": _INTEGER,
            "move_gaps": _about(_STATISTICS, "between two moves of a thread to another node"),
            "ps_moved": _MAYBE_INTEGER,
            "pages_moved": _INTEGER,
            "pages_not_moved": _INTEGER,
            "series": _list(_object({"time": _NUMBER}, {**sample, "ps_idle": _INTEGER})),
            "missing": _MISSING,
            "advice": _TEXT,
        },
    )


def _numa_interval() -> Schema:
    by_node = _map(_INTEGER)
    return _record(
        "numa_interval",
        {
            "time": _NUMBER,
            "length_ns": _INTEGER,
            "faults": _map(_INTEGER, "local", "remote", "unknown"),
            **{name: _INTEGER for name in ("hinting_faults", "threads_moved", "pages_moved")},
            "ran_ns": by_node,
        },
        {"ps": by_node, "ps_idle": _INTEGER},
    )


def _tlb() -> Schema:
    counter = {
        "event": _TEXT,
        "meaning": _TEXT,
        "total": _about(_INTEGER, "scaled to all of the time if counted for a part of it"),
        "running_share": _about(_MAYBE_NUMBER, "how much of the time it was counted"),
        "phases": _about(_map(_MAYBE_INTEGER, *PLACES), "null: never counted there"),
    }
    flushes = {name: _INTEGER for name in ("flushes", "pages", "whole")}
    reach = {"page": _INTEGER, "pages": _INTEGER, "share": _MAYBE_NUMBER}
    processor = _object({"name": _TEXT, "l1": _MAYBE_INTEGER, "l2": _INTEGER, "l2_huge": _MAYBE_INTEGER, "source": _TEXT})
    return _record(
        "tlb",
        {
            **_WATCHED,
            "phases_ns": _about(_map(_INTEGER, *PLACES), "time on a CPU"),
            "unseen": _about(
                _map(_INTEGER, "times", "at_most_ns"), "switches that the kernel did not tell, and the time that misses"
            ),
            "divided_share": _about(_NUMBER, "of that time, what was divided between phases by their length alone"),
            "counters": _list(_object(counter)),
            "missing": _about(_list(_list(_TEXT)), "what cannot be counted, and why"),
            "flushes": _map(_object(flushes)),
            "flushes_left_out": _about(_INTEGER, "those that came while another was told of"),
            "collapses": _map(_INTEGER, "succeeded", "failed"),
            "splits_of_the_machine": _map(_INTEGER),
            "pages": _about(_list(_list(_INTEGER)), "size of a page, resident bytes in such"),
            "processor": {"anyOf": [processor, {"type": "null"}]},
            "reach": _list(_object(reach)),
        },
    )


def _tlb_interval() -> Schema:
    return _record(
        "tlb_interval",
        {
            "time": _NUMBER,
            "length_ns": _INTEGER,
            "ran_ns": _about(_INTEGER, "time on a CPU"),
            "flushes": _INTEGER,
            "counts": _about(_map(_MAYBE_INTEGER), "by event, scaled; null: never counted"),
        },
    )

"""`gotrace gc` as JSON: one object per pause and cycle, a start and a summary around them, and their schema."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from gotrace.analysis.causes import CLASSES, NO_P, Explainer, Explanation, class_sums, sentence
from gotrace.analysis.gc_summary import GcSummary, statistics
from gotrace.analysis.pauses import TRIGGERS, UNKNOWN, Batch
from gotrace.text import printable

SCHEMA_VERSION = 1

Record = dict[str, Any]


def wall_time(monotonic_ns: int, wall_offset_ns: int) -> str:
    """CLOCK_MONOTONIC nanoseconds as ISO 8601 in UTC; the offset is wall clock minus monotonic at the start."""
    seconds, nanoseconds = divmod(monotonic_ns + wall_offset_ns, 1_000_000_000)
    stamp = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def _known(value: int) -> int | None:
    return None if value == UNKNOWN else value


def start_record(header: Record) -> Record:
    """What is traced and how; ``header`` as `Session.header` makes it."""
    target, clock = header["target"], header["clock"]
    probes = header["probes"].values()
    return {
        "type": "start",
        "schema": SCHEMA_VERSION,
        "pid": target["pid"],
        "exe": printable(target["exe"]),
        **{name: target[name] for name in ("go_version", "arch", "stripped", "pie")},
        "monotonic_ns": clock["begin_ns"],
        "time": wall_time(clock["begin_ns"], clock["wall_offset_ns"]),
        "probes": [point for probe in probes for point in probe["points"]],
        "missing": [item for probe in probes for item in probe["missing"]],
    }


def batch_records(batch: Batch, reasons: list[str], wall_offset_ns: int) -> list[Record]:
    """One record for each pause, cycle and sweep, in the order in which they ended."""
    pauses = batch.pauses
    ends = [
        *(pauses["start_ns"] + pauses["total_ns"] + pauses["restart_lag_ns"]).tolist(),
        *batch.cycles["time_ns"].tolist(),
        *batch.sweeps["time_ns"].tolist(),
    ]
    records = [
        *_pause_records(batch, reasons, wall_offset_ns),
        *_cycle_records(batch, wall_offset_ns),
        *({"type": "sweep", "cycle": cycle, "sweep_ns": sweep_ns} for _, cycle, sweep_ns in batch.sweeps.tolist()),
    ]
    return [records[place] for place in sorted(range(len(ends)), key=ends.__getitem__)]


def _pause_records(batch: Batch, reasons: list[str], wall_offset_ns: int) -> Iterator[Record]:
    for start, stopping, stopped, total, lag, reason, cycle, goid, tid, probe_clock in batch.pauses.tolist():
        yield {
            "type": "stw",
            "monotonic_ns": start,
            "time": wall_time(start, wall_offset_ns),
            "reason": reasons[reason],
            "cycle": _known(cycle),
            "goid": _known(goid),
            "tid": tid,
            "stopping_ns": _known(stopping),
            "stopped_ns": _known(stopped),
            "total_ns": total,
            "restart_lag_ns": lag,
            "clock": "probe" if probe_clock else "runtime",
        }


def _cycle_records(batch: Batch, wall_offset_ns: int) -> Iterator[Record]:
    names = batch.cycles.dtype.names or ()
    for row in batch.cycles.tolist():
        record = dict(zip(names, row, strict=True))
        when, trigger = record.pop("time_ns"), record.pop("trigger")
        del record["end_ns"]
        yield {
            "type": "cycle",
            "monotonic_ns": when,
            "time": wall_time(when, wall_offset_ns),
            "trigger": None if trigger == UNKNOWN else TRIGGERS[trigger],
            **record,
        }


def explanation_records(
    told: list[Explanation], explainer: Explainer, reasons: list[str], wall_offset_ns: int
) -> Iterator[Record]:
    """The longest pauses, longest first, with what they waited for."""
    for each in told:
        stop = each.stop
        parts = {"stopping": each.stopping, "stopped": each.stopped, "restart": each.restart}
        yield {
            "type": "explained",
            "monotonic_ns": stop.begin,
            "time": wall_time(stop.begin, wall_offset_ns),
            "reason": reasons[stop.pause["reason"]],
            "cycle": _known(int(stop.pause["cycle"])),
            "goid": _known(int(stop.pause["goid"])),
            "tid": stop.stopper,
            "length_ns": stop.length,
            "total_ns": int(stop.pause["total_ns"]),
            "cause": each.cause,
            "sentence": printable(sentence(each, explainer)),
            "parts": {name: class_sums(pieces) for name, pieces in parts.items()},
            "waited_for": [
                {"p": None if p == NO_P else p, "tid": tid, "stopped_after_ns": after} for p, tid, after in each.late
            ],
            "run_again": [{"tid": tid, "after_ns": after} for tid, after in each.run_again],
        }


def summary_record(summary: GcSummary, about: Record) -> Record:
    """The closing record; ``about`` has what the session knows (duration_ns, events, cost, attach_ns, …)."""
    return {
        "type": "summary",
        **about,
        "cycles": summary.cycles,
        "pauses": {
            reason: {part: statistics(histogram) for part, histogram in parts.items()}
            for reason, parts in summary.pauses.items()
        },
        "phases": {name: statistics(histogram) for name, histogram in summary.phases.items()},
    }


def _object(kind: str, properties: Record, optional: tuple[str, ...] = ()) -> Record:
    required = ["type", *(name for name in properties if name not in optional)]
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, **properties},
        "required": required,
        "additionalProperties": False,
    }


def json_schema() -> Record:
    """JSON Schema (2020-12) of one line of `--format ndjson`; `--format json` is an array of the same objects."""
    integer, text = {"type": "integer"}, {"type": "string"}

    def about(schema: Record, description: str) -> Record:
        return {**schema, "description": description}

    maybe_integer = {"type": ["integer", "null"]}
    flag = {"type": "boolean"}
    names = {"name": text, "reason": text}
    missing = {"type": "array", "items": {"type": "object", "properties": names, "required": list(names)}}
    probe = {"name": text, "symbol": text, "address": text, "instruction": text, "emulated": flag}
    probes = {"type": "array", "items": {"type": "object", "properties": probe, "required": list(probe)}}
    numbers = ("count", "min", "p50", "p90", "p99", "p99.9", "max", "sum")
    stats = {
        "type": "object",
        "properties": {name: integer for name in numbers},
        "required": ["count"],
        "additionalProperties": False,
    }
    cost = {
        "probe_hits": about(integer, "how often the target ran into a probe"),
        "target_ns_estimate": about(integer, "hits times the cost of one, measured on this machine"),
        "tool_cpu_s": about({"type": "number"}, "processor time of gotrace itself, its children included"),
        "tool_rss_bytes": about(integer, "resident memory of the process that stays"),
    }
    events = {"received": integer, "lost": about(integer, "dropped by a full ring, or left without its other half")}
    start = _object(
        "start",
        {
            "schema": {"const": SCHEMA_VERSION},
            "pid": integer,
            "exe": text,
            "go_version": text,
            "arch": {"enum": ["amd64", "arm64"]},
            "stripped": flag,
            "pie": flag,
            "monotonic_ns": integer,
            "time": text,
            "probes": probes,
            "missing": about(missing, "what this target cannot give, and why"),
        },
    )
    stw = _object(
        "stw",
        {
            "monotonic_ns": about(integer, "CLOCK_MONOTONIC when stopping began"),
            "time": about(text, "the same moment, ISO 8601 in UTC"),
            "reason": about(text, "in the runtime's own words"),
            "cycle": about(maybe_integer, "the GC cycle of a collection's pause"),
            "goid": about(maybe_integer, "the goroutine that stopped the world"),
            "tid": integer,
            "stopping_ns": about(maybe_integer, "from the request until every P had stopped; null up to Go 1.21"),
            "stopped_ns": about(maybe_integer, "from then to the end the runtime reports"),
            "total_ns": about(integer, "what the runtime reports: the sum of the two"),
            "restart_lag_ns": about(integer, "how much later than the reported end the world really ran"),
            "clock": {"enum": ["runtime", "probe"]},
        },
    )
    cycle = _object(
        "cycle",
        {
            "monotonic_ns": integer,
            "time": text,
            "cycle": about(integer, "work.cycles, the number gctrace prints"),
            "trigger": {"enum": [*TRIGGERS, None]},
            **{name: about(integer, "gctrace's clock column") for name in _CLOCKS},
            "pause_ns": about(integer, "MemStats.PauseNs of the cycle"),
            "assist_ns": about(integer, "processor time of mark assists"),
            **{f"heap_{name}_bytes": integer for name in ("start", "end", "live", "goal")},
            "maxprocs": integer,
        },
    )
    sweep = _object("sweep", {"cycle": integer, "sweep_ns": about(integer, "from the cycle's end to its last span")})
    classes = {
        "type": "object",
        "propertyNames": {"enum": list(CLASSES)},
        "additionalProperties": integer,
    }
    late = {"p": maybe_integer, "tid": integer, "stopped_after_ns": integer}
    again = {"tid": integer, "after_ns": integer}
    explained = _object(
        "explained",
        {
            "monotonic_ns": about(integer, "CLOCK_MONOTONIC when stopping began"),
            "time": text,
            "reason": text,
            "cycle": maybe_integer,
            "goid": maybe_integer,
            "tid": about(integer, "the thread that stopped the world"),
            "length_ns": about(integer, "from then until every P had been handed out: the sum of all classes of all parts"),
            "total_ns": about(integer, "what the runtime reports"),
            "cause": {"enum": list(CLASSES)},
            "sentence": text,
            "parts": {
                "type": "object",
                "properties": dict.fromkeys(("stopping", "stopped", "restart"), classes),
                "required": ["stopping", "stopped", "restart"],
                "additionalProperties": False,
            },
            "waited_for": about(
                {"type": "array", "items": {"type": "object", "properties": late, "required": list(late)}},
                "Ps that had to be stopped, the last one first",
            ),
            "run_again": about(
                {"type": "array", "items": {"type": "object", "properties": again, "required": list(again)}},
                "threads woken by the restart, and how long after its end they ran",
            ),
        },
    )
    by_part = {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": stats}}
    summary = _object(
        "summary",
        {
            "duration_ns": integer,
            "ended": about(text, "why tracing ended"),
            "events": {"type": "object", "properties": events, "required": list(events)},
            "cost": {"type": "object", "properties": cost, "required": list(cost)},
            "attach_ns": about(integer, "from the command's start until every probe was in place"),
            "cycles": integer,
            "pauses": about(by_part, "reason, then part (stopping, stopped, total), then statistics in ns"),
            "phases": {"type": "object", "additionalProperties": stats},
        },
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gotrace gc, one object a line",
        "oneOf": [start, stw, cycle, sweep, explained, summary],
    }


_CLOCKS = ("sweep_termination_ns", "mark_ns", "mark_termination_ns")

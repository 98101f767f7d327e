"""Runs of pauses and cycles from raw events made by hand, for pages to be drawn of: each record fits its schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
import numpy as np

from gotrace.export.gc_page import Run
from gotrace.kernel.ring import wire_dtype
from gotrace.probes.gc import FLAG_WORLDSTOP, PROBE
from gotrace.records.all import schema_of_command
from gotrace.records.gc import INTERVAL, STOP
from gotrace.records.times import moment
from gotrace.views.gc import Gc
from gotrace.views.view import Source, records_of

Record = dict[str, Any]
Array = Any

BEGIN_NS = 5_000_000_000_000
WALL_NS = 1_780_000_000 * 10**9 - BEGIN_NS  # it began at 2026-05-28 20:26:40 UTC
MIB = 1 << 20
TERMINATION, SWEEP_TERMINATION, STATISTICS = 1, 2, 7  # of `reasons`
_NUMBER = {kind.name: kind.number for kind in PROBE.kinds}
_CHECK = jsonschema.Draft202012Validator(schema_of_command("gc"))


def checked(record: Record) -> Record:
    """Raises jsonschema.ValidationError."""
    _CHECK.validate(record)
    return record


def events(kind: str, times: Any, *columns: Any) -> Array:
    """One event of a kind for each of ``times``, nanoseconds after the begin."""
    out = np.zeros(len(times), wire_dtype())
    out["kind"], out["time_ns"], out["tid"] = _NUMBER[kind], BEGIN_NS + np.asarray(times), 5
    for name, values in zip("abcde", columns, strict=False):
        out[name] = values
    return out


def stops(reason: int, begins: Any, stopping: Any, stopped: Any, restart: Any = 1000, cycle: Any = 0) -> Array:
    """Pauses by when they began, and how long their parts are; all in nanoseconds."""
    begins, stopping, stopped = (np.asarray(each, np.int64) for each in (begins, stopping, stopped))
    start = BEGIN_NS + begins
    word = reason | FLAG_WORLDSTOP << 8 | np.asarray(cycle, np.int64) << 32
    return events(
        "stw", begins + stopping + stopped + restart, word, 17, start, start + stopping, start + stopping + stopped
    )


def collections(count: int, every_ns: int = 10_000_000, seed: int = 1) -> Array:
    """Whole GC cycles one after the other, with two pauses each, in the order of time."""
    rng = np.random.default_rng(seed)
    begin, number = np.arange(count, dtype=np.int64) * every_ns, np.arange(1, count + 1)
    lengths = rng.lognormal(np.log(20_000), 1.2, (4, count)).astype(np.int64).clip(300, every_ns // 20)
    mark = begin + lengths[0] + lengths[1]
    marked = mark + every_ns // 4
    end = marked + lengths[2] + lengths[3]
    stamps = [BEGIN_NS + each for each in (begin, mark, marked, end)]
    live = (20 + 5 * np.sin(number / 20)) * MIB
    heap = [number, 1.8 * live, 2 * live, live, 2 * live]
    found = [
        stops(SWEEP_TERMINATION, begin, lengths[0], lengths[1], rng.integers(800, 9000, count), number),
        stops(TERMINATION, marked, lengths[2], lengths[3], rng.integers(8000, 90_000, count), number),
        events("cycle_clock", end + 100_000, number, *stamps),
        events("cycle_heap", end + 100_000, *heap),
        events("cycle_work", end + 100_000, number, lengths.sum(axis=0), 42, 2),
        events("sweep_end", end + every_ns // 4, number),
    ]
    everything = np.concatenate(found)
    return everything[np.argsort(everything["time_ns"], kind="stable")]


class Made(Source):
    """``everything``, in portions of so many ``rows``."""

    def __init__(self, everything: Array, duration_ns: int, name: str, going_on: Sequence[Record], rows: int) -> None:
        facts = {
            "reasons": {TERMINATION: "GC mark termination", SWEEP_TERMINATION: "GC sweep termination", STATISTICS: name},
            "knows_forced": True,
            "knows_goid": True,
            "has_worldstop": True,
            "clock": "the runtime's own",
        }
        point = {"name": "restart begin", "symbol": "runtime.startTheWorldWithSema", "address": "0x1000", "file": ""}
        points = [{**point, "instruction": "push rbp", "emulated": True}]
        missing = [{"name": name, "reason": name}]
        self.header = {
            "gotrace": name,
            "target": {"pid": 1, "exe": name, "go_version": name, "arch": "amd64", "stripped": True, "pie": False},
            "host": {"name": name, "kernel": name, "machine": name, "cpus": 2},
            "clock": {"begin_ns": BEGIN_NS, "wall_offset_ns": WALL_NS, "target_offset_ns": 0},
            "attach_ns": 150_000_000,
            "probes": {"gc": {"kinds": PROBE.header_kinds(), "facts": facts, "points": points, "missing": missing}},
        }
        self._events, self._rows, self._going_on = everything, rows, going_on
        self._duration_ns = duration_ns

    def portions(self) -> Iterator[Array]:
        cost = {"probe_hits": 6, "target_ns_estimate": 6000, "tool_cpu_s": 0.5, "tool_rss_bytes": 50 * MIB}
        self.end = {"duration_ns": self._duration_ns, "ended": "duration", "received": 6, "lost": self.lost, "cost": cost}
        for begin in range(0, max(1, len(self._events)), self._rows):
            portion = self._events[begin : begin + self._rows]
            self.now_ns = int(portion["time_ns"].max(initial=BEGIN_NS))
            self.last = begin + self._rows >= len(self._events)
            self.in_progress = self._going_on if self.last else ()
            yield portion


def run(
    everything: Array | None = None,
    duration_ns: int = 10 * 10**9,
    name: str = "read mem stats",
    going_on: Sequence[Record] = (),
    told: Sequence[Record] = (),
    lost: int = 0,
    rows: int = 1 << 16,
) -> Run:
    """As `gotrace gc` would see it; ``name`` is wherever a target may have one in. ``told`` as `explained` makes them."""
    made = Made(np.zeros(0, wire_dtype()) if everything is None else everything, duration_ns, name, going_on, rows)
    made.lost = lost
    view = Gc(singles=False, over_time=True)
    records = [each for _, found in records_of(made, [view]) for each in found if each["type"] != INTERVAL]
    for record in records:
        checked(record)
    assert view.course is not None
    drawn = [*told, *(each for each in records if each["type"] in Gc.drawn)]
    if told:
        asked_by = [{"reason": name, "count": 3, "code": [name, "main.main"]}, {"reason": name, "count": 2, "code": []}]
        drawn = [checked({**each, "asked_by": asked_by}) if each["type"] == "summary" else each for each in drawn]
    return Run(made.header, drawn, view.total, view.course, view.reasons, 0 if told else None)


def going_on(since_ns: int, until_ns: int, name: str = "read mem stats") -> Record:
    """A stop, of `Source.in_progress`; nanoseconds after the begin."""
    stop = {"what": STOP, "since_ns": BEGIN_NS + since_ns, "seen_ns": BEGIN_NS + until_ns, "first_seen": False}
    waits_for = [[1, 12_181, 18]]
    return {**stop, "reason": name, "tid": 5, "goid": 1, "asked_by": [name], "stopped": False, "waits_for": waits_for}


def explained(at_ns: int, causes: dict[str, int], name: str = "read mem stats") -> Record:
    """A pause that waited for that, in nanoseconds by class, while it was being stopped."""
    length = sum(causes.values())
    code = {kind: [name] for kind in causes}
    return checked(
        {
            "type": "explained",
            **moment(BEGIN_NS + at_ns, WALL_NS),
            "reason": name,
            "cycle": None,
            "goid": 1,
            "tid": 5,
            "length_ns": length,
            "total_ns": length,
            "cause": max(causes, key=lambda each: causes[each]),
            "sentence": name,
            "asked_by": [name, "main.main"],
            "parts": {"stopping": causes, "stopped": {}, "restart": {}},
            "code": {"stopping": code, "stopped": {}, "restart": {}},
            "waited_for": [],
            "run_again": [],
        }
    )

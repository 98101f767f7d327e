"""What a run of pauses and cycles adds up to: one histogram per stop reason and part, and per GC phase."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from gotrace.analysis.columns import Array
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.pacing import Pacing
from gotrace.analysis.pauses import TRIGGERS, UNKNOWN, Batch

# The runtime reports a pause's total; the restart comes after that, until the world really ran.
PARTS = ("stopping", "stopped", "total", "restart")
PERCENTILES = (50.0, 90.0, 99.0, 99.9)

CONCURRENT_MARK, MARK_ASSIST, SWEEP = "concurrent mark", "mark assist", "sweep"


@dataclass
class GcSummary:
    """Adds up batches. ``pauses[reason][part]`` and ``phases[name]`` are histograms of nanoseconds.

    ``time_ns[reason or phase, part]`` is how much of the time since ``begin_ns`` (CLOCK_MONOTONIC) they took: less than a
    histogram's sum if the first had begun before. Of mark assists it is their part of what all Ps could do.

    A ``brief`` one has of the pauses only their totals, no phases, triggers or pacing: what a line for an interval shows.
    """

    begin_ns: int = 0
    brief: bool = False
    pauses: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    phases: dict[str, Histogram] = field(default_factory=dict)
    time_ns: dict[tuple[str, str], int] = field(default_factory=dict)
    cycles: int = 0
    triggers: dict[str, int] = field(default_factory=dict)  # why cycles began; "unknown" where that was not seen
    pacing: Pacing = field(default_factory=Pacing)
    last_heap: dict[str, int] = field(default_factory=dict)  # start, end, live, goal (or UNKNOWN) of the last cycle, bytes

    def add(self, batch: Batch, reasons: list[str]) -> None:
        for reason in np.flatnonzero(np.bincount(batch.pauses["reason"])):
            of_it = batch.pauses["reason"] == reason
            parts = self._parts(reasons[int(reason)])
            for part, histogram in parts.items():
                values, begins = part_of(batch.pauses[of_it], part)
                known = values != UNKNOWN
                histogram.record(values[known])
                if not self.brief:
                    self._count_time((reasons[int(reason)], part), begins[known], values[known])
        if not self.brief:
            self._add_phases(batch)
            self.pacing.add(batch.cycles)
            for trigger in batch.cycles["trigger"].tolist():
                name = "unknown" if trigger == UNKNOWN else TRIGGERS[trigger]
                self.triggers[name] = self.triggers.get(name, 0) + 1
        self.cycles += len(batch.cycles)
        if len(batch.cycles):
            last = batch.cycles[-1]
            self.last_heap = {name: int(last[f"heap_{name}_bytes"]) for name in ("start", "end", "live", "goal")}

    def _add_phases(self, batch: Batch) -> None:
        cycles, sweeps = batch.cycles, batch.sweeps
        began = cycles["end_ns"] - cycles["mark_termination_ns"] - cycles["mark_ns"]
        self._phase(CONCURRENT_MARK, cycles["mark_ns"], began)
        known = cycles["assist_ns"] != UNKNOWN
        assist, procs = cycles["assist_ns"][known], np.maximum(1, cycles["maxprocs"][known])
        # When in its cycle a goroutine had to assist is not known: those of one that had begun before do not count.
        self._phase(MARK_ASSIST, assist, began[known], np.where(began[known] < self.begin_ns, 0, assist // procs))
        self._phase(SWEEP, sweeps["sweep_ns"], sweeps["time_ns"] - sweeps["sweep_ns"])

    def _parts(self, reason: str) -> dict[str, Histogram]:
        if reason not in self.pauses:
            self.pauses[reason] = {part: Histogram() for part in (("total",) if self.brief else PARTS)}
        return self.pauses[reason]

    def _phase(self, name: str, values: Array, began: Array, lengths: Array | None = None) -> None:
        if len(values):
            self.phases.setdefault(name, Histogram()).record(values)
            self._count_time((name, ""), began, values if lengths is None else lengths)

    def _count_time(self, what: tuple[str, str], began: Array, lengths: Array) -> None:
        before = np.clip(self.begin_ns - began, 0, lengths)
        self.time_ns[what] = self.time_ns.get(what, 0) + int(lengths.sum() - before.sum())

    def rows(self) -> Iterator[tuple[str, str, Histogram]]:
        """(reason or phase, part or "", histogram) in the order people read them: stops by total time, then phases."""
        for reason, parts in sorted(self.pauses.items(), key=lambda item: -item[1]["total"].sum):
            for part in PARTS:
                if parts[part].count:
                    yield reason, part, parts[part]
        for name in (CONCURRENT_MARK, MARK_ASSIST, SWEEP):
            if name in self.phases:
                yield name, "", self.phases[name]

    def all_pauses(self) -> Histogram:
        """Every stop's total, whatever its reason."""
        out = Histogram()
        for parts in self.pauses.values():
            out.add(parts["total"])
        return out


def part_of(pauses: Array, part: str) -> tuple[Array, Array]:
    """How long a part of each pause was (UNKNOWN: not known), and when it began; nanoseconds."""
    begins = pauses["start_ns"]
    if part == "restart":
        # Two CPUs' clocks may differ by some nanoseconds.
        return np.maximum(pauses["restart_lag_ns"], 0), begins + pauses["total_ns"]
    values = pauses[f"{part}_ns"]
    return values, begins + pauses["stopping_ns"] if part == "stopped" else begins


def percentiles(histogram: Histogram, wanted: tuple[float, ...] = PERCENTILES) -> list[int]:
    """The values at ``wanted`` percentiles: a bucket's upper end, as HdrHistogram gives it, but never above the maximum."""
    return [min(value, histogram.max) for value in histogram.percentiles(list(wanted))]


def statistics(histogram: Histogram) -> dict[str, int]:
    """count, min, percentiles, max and sum of one histogram, in its own unit."""
    if not histogram.count:
        return {"count": 0}
    named = {f"p{p:g}": value for p, value in zip(PERCENTILES, percentiles(histogram), strict=True)}
    ends = {"count": histogram.count, "min": int(histogram.min)}
    return {**ends, **named, "max": int(histogram.max), "sum": int(histogram.sum)}

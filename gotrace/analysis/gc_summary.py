"""What a run of pauses and cycles adds up to: one histogram per stop reason and part, and per GC phase."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gotrace.analysis.histogram import Histogram
from gotrace.analysis.pauses import UNKNOWN, Batch

PARTS = ("stopping", "stopped", "total")
PERCENTILES = (50.0, 90.0, 99.0, 99.9)

CONCURRENT_MARK, MARK_ASSIST, SWEEP = "concurrent mark", "mark assist", "sweep"


@dataclass
class GcSummary:
    """Adds up batches. ``pauses[reason][part]`` and ``phases[name]`` are histograms of nanoseconds.

    A ``brief`` one has of the pauses only their totals, and no phases: what a line for an interval shows.
    """

    brief: bool = False
    pauses: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    phases: dict[str, Histogram] = field(default_factory=dict)
    cycles: int = 0
    last_heap: dict[str, int] = field(default_factory=dict)  # start, end, live, goal of the last cycle, bytes

    def add(self, batch: Batch, reasons: list[str]) -> None:
        for reason in np.flatnonzero(np.bincount(batch.pauses["reason"])):
            of_it = batch.pauses["reason"] == reason
            parts = self._parts(reasons[int(reason)])
            for part, histogram in parts.items():
                values = batch.pauses[f"{part}_ns"][of_it]
                histogram.record(values[values != UNKNOWN])
        if not self.brief:
            self._add_phases(batch)
        self.cycles += len(batch.cycles)
        if len(batch.cycles):
            last = batch.cycles[-1]
            self.last_heap = {name: int(last[f"heap_{name}_bytes"]) for name in ("start", "end", "live", "goal")}

    def _add_phases(self, batch: Batch) -> None:
        self._phase(CONCURRENT_MARK, batch.cycles["mark_ns"])
        self._phase(MARK_ASSIST, batch.cycles["assist_ns"])
        self._phase(SWEEP, batch.sweeps["sweep_ns"])

    def _parts(self, reason: str) -> dict[str, Histogram]:
        if reason not in self.pauses:
            self.pauses[reason] = {part: Histogram() for part in (("total",) if self.brief else PARTS)}
        return self.pauses[reason]

    def _phase(self, name: str, values: npt.NDArray[np.int64]) -> None:
        if len(values):
            self.phases.setdefault(name, Histogram()).record(values)

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

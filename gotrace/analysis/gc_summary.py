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
    """Adds up batches. ``pauses[reason][part]`` and ``phases[name]`` are histograms of nanoseconds."""

    pauses: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    phases: dict[str, Histogram] = field(default_factory=dict)
    cycles: int = 0
    last_heap: dict[str, int] = field(default_factory=dict)  # start, end, live, goal of the last cycle, bytes

    def add(self, batch: Batch, reasons: list[str]) -> None:
        for reason in np.flatnonzero(np.bincount(batch.pauses["reason"])):
            of_it = batch.pauses["reason"] == reason
            parts = self._parts(reasons[int(reason)])
            for part in PARTS:
                values = batch.pauses[f"{part}_ns"][of_it]
                parts[part].record(values[values != UNKNOWN])
        self._phase(CONCURRENT_MARK, batch.cycles["mark_ns"])
        self._phase(MARK_ASSIST, batch.cycles["assist_ns"])
        self._phase(SWEEP, batch.sweeps["sweep_ns"])
        self.cycles += len(batch.cycles)
        if len(batch.cycles):
            last = batch.cycles[-1]
            self.last_heap = {name: int(last[f"heap_{name}_bytes"]) for name in ("start", "end", "live", "goal")}

    def merge(self, later: GcSummary) -> None:
        """Add what came after."""
        for reason, parts in later.pauses.items():
            for part, histogram in self._parts(reason).items():
                histogram.add(parts[part])
        for name, histogram in later.phases.items():
            self.phases.setdefault(name, Histogram()).add(histogram)
        self.cycles += later.cycles
        self.last_heap = later.last_heap or self.last_heap

    def _parts(self, reason: str) -> dict[str, Histogram]:
        return self.pauses.setdefault(reason, {part: Histogram() for part in PARTS})

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

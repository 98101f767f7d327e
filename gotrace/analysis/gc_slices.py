"""Stopped and marking time of a process at work by slices of time, so that a rate has an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gotrace.analysis.columns import Array
from gotrace.analysis.pauses import TRIGGERS, UNKNOWN, Batch

SLICE_NS = 250_000_000
STOPPED, MARKING, CYCLES, ASSISTS, HELD = "stopped", "marking", "cycles", "assists", "held"
REFILLED, REFILLED_SHARED = "refilled", "refilled shared"
REFAULTS, HINTING = "refaults", "hinting"


class Slices:
    """Adds up batches, from ``begin_ns`` on (CLOCK_MONOTONIC).

    `rate` is by what, and for whom: (`STOPPED`, reason), (`MARKING`, trigger), (`CYCLES`, trigger), (`ASSISTS`, ""): of
    all Ps; (`HELD`, number of a stack): goroutines by assists; (`REFILLED`, number of a stack): bytes of objects that pools
    had before collections, and (`REFILLED_SHARED`, …) of those that any P could have taken; (`REFAULTS`, number of a
    stack): page faults of memory that it had returned, and (`HINTING`, ""): NUMA balancing's, without those that lost
    their CPU.
    """

    def __init__(self, begin_ns: int) -> None:
        self._begin_ns = begin_ns
        self._sums: dict[tuple[str, str], dict[int, float]] = {}
        self.counts: dict[str, int] = {}  # pauses by reason
        self.maxprocs = 0

    def add(self, batch: Batch, reasons: Sequence[str]) -> None:
        """What a portion of events came to."""
        for reason in np.unique(batch.pauses["reason"]).tolist():
            of_it = batch.pauses[batch.pauses["reason"] == reason]
            stopped = of_it["total_ns"] + np.maximum(of_it["restart_lag_ns"], 0)
            self._sum((STOPPED, reasons[reason]), of_it["start_ns"], stopped)
            self.counts[reasons[reason]] = self.counts.get(reasons[reason], 0) + len(of_it)
        cycles = batch.cycles
        for trigger in np.unique(cycles["trigger"]).tolist():
            of_it = cycles[cycles["trigger"] == trigger]
            name = "unknown" if trigger == UNKNOWN else TRIGGERS[trigger]
            self._sum((MARKING, name), of_it["end_ns"], of_it["mark_ns"])
            self._sum((CYCLES, name), of_it["end_ns"], np.ones(len(of_it)))
        known = cycles[cycles["assist_ns"] != UNKNOWN]
        self._sum((ASSISTS, ""), known["end_ns"], known["assist_ns"] / np.maximum(1, known["maxprocs"]))
        if len(cycles):
            self.maxprocs = int(cycles["maxprocs"][-1])

    def add_held(self, assists: Array) -> None:
        """``assists`` as of `gotrace.analysis.assists.PAYER`."""
        for stack in np.unique(assists["stack"]).tolist():
            of_it = assists[assists["stack"] == stack]
            self._sum((HELD, str(stack)), of_it["end_ns"], of_it["end_ns"] - of_it["begin_ns"])

    def add_refills(self, refills: Array) -> None:
        """``refills`` as of `gotrace.analysis.pools.REFILL`."""
        for stack in np.unique(refills["stack"]).tolist():
            of_it = refills[refills["stack"] == stack]
            self._sum((REFILLED, str(stack)), of_it["time_ns"], of_it["object_bytes"])
            of_it = of_it[of_it["private"] == 0]
            self._sum((REFILLED_SHARED, str(stack)), of_it["time_ns"], of_it["object_bytes"])

    def add_faults(self, what: str, faults: Array) -> None:
        """``faults`` as of `gotrace.analysis.refaults.TOLD`; ``what`` is `REFAULTS` or `HINTING`."""
        for stack in np.unique(faults["stack"]).tolist():
            of_it = faults[faults["stack"] == stack]
            self._sum((what, str(stack) if stack else ""), of_it["time_ns"], of_it["kept_ns"])

    def _sum(self, key: tuple[str, str], times: Array, values: Array) -> None:
        slots, at = np.unique(np.maximum(0, (times - self._begin_ns) // SLICE_NS), return_inverse=True)
        sums = self._sums.setdefault(key, {})
        for slot, value in zip(slots.tolist(), np.bincount(at, values).tolist(), strict=True):
            sums[slot] = sums.get(slot, 0.0) + value

    def series(self, what: str, duration_ns: int, *whose: str) -> Array:
        """The sum of each slice, a second; without ``whose`` that of all."""
        out = np.zeros(max(1, duration_ns // SLICE_NS))
        for (kind, name), sums in self._sums.items():
            if kind == what and (not whose or name in whose):
                for slot, value in sums.items():
                    out[min(slot, len(out) - 1)] += value
        return out * (1e9 / (duration_ns / len(out)))

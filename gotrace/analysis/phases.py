"""The phases of the collector: at which times the world was stopped, the collector marking, or sweeping.

All times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gotrace.analysis.pauses import Batch
from gotrace.analysis.windows import Times, Windows, of_cycles, of_pauses

STW, MARK, SWEEP, MUTATOR = "STW", "concurrent mark", "sweep", "mutator"
PHASES = (MUTATOR, MARK, SWEEP, STW)


@dataclass
class PhaseTimes:
    """Collects when the world was stopped and the collector at work, batch by batch."""

    _begins: dict[str, list[Times]] = field(default_factory=lambda: {name: [] for name in (STW, MARK, SWEEP)})
    _ends: dict[str, list[Times]] = field(default_factory=lambda: {name: [] for name in (STW, MARK, SWEEP)})

    def add(self, batch: Batch) -> None:
        swept = batch.sweeps
        for name, (begins, ends) in (
            (STW, of_pauses(batch.pauses, False, 0)),
            (MARK, of_cycles(batch.cycles, True)),
            (SWEEP, (swept["time_ns"] - swept["sweep_ns"], swept["time_ns"])),
        ):
            self._begins[name].append(begins)
            self._ends[name].append(ends)

    def windows(self) -> dict[str, Windows]:
        empty = [np.zeros(0, np.int64)]
        return {
            name: Windows.of(np.concatenate(self._begins[name] or empty), np.concatenate(self._ends[name] or empty))
            for name in self._begins
        }


def phases_of(times: Times, windows: dict[str, Windows]) -> npt.NDArray[np.int8]:
    """The phase (index into `PHASES`) at each time: a stop within a phase counts as the stop."""
    found = np.full(len(times), PHASES.index(MUTATOR), np.int8)
    for name in (SWEEP, MARK, STW):
        found[windows[name].contain(times)] = PHASES.index(name)
    return found


def split(begins: Times, ends: Times, windows: dict[str, Windows]) -> npt.NDArray[np.float64]:
    """How much of each interval lies in each of `PHASES`, as shares: one row an interval, each adds up to 1."""
    edges = np.unique(np.concatenate([each for name in windows for each in (windows[name].begins, windows[name].ends)]))
    phase = phases_of(edges, windows)  # from each edge to the next
    shares = np.zeros((len(begins), len(PHASES)))
    lengths = np.maximum(ends - begins, 1)
    for number in range(1, len(PHASES)):
        at = np.flatnonzero(phase == number)
        of_it = Windows(edges[at], edges[at + 1]) if len(at) else Windows(edges[:0], edges[:0])
        shares[:, number] = of_it.overlap(begins, ends) / lengths
    shares[:, 0] = 1 - shares[:, 1:].sum(axis=1)
    return shares

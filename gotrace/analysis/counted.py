"""What the processor's counters counted, by phase of the collector and by what the threads did for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.analysis.phases import MARK, MUTATOR, PHASES, STW, SWEEP, split
from gotrace.analysis.windows import Windows

WORKER, ASSIST = "mark worker", "assist"
PLACES = (MUTATOR, MARK, WORKER, ASSIST, SWEEP, STW)
_OF_PHASE = [PLACES.index(phase) for phase in PHASES]

# What an event of the kind counted adds to, by the names of its columns.
SUMS = ("count", "enabled_ns", "running_ns")

Array = npt.NDArray[np.float64]


@dataclass
class Counted:
    """Sums over stretches of time on a CPU, by place (index into `PLACES`).

    ``ran_ns`` is time on a CPU; ``minor_ns`` the part of it that was divided between phases by time alone, since a stretch
    reached into several: that of the smaller shares. ``counts``, ``enabled_ns`` and ``running_ns`` have a row a counter.
    """

    ran_ns: Array
    minor_ns: float
    counts: Array
    enabled_ns: Array
    running_ns: Array

    @classmethod
    def empty(cls, counters: int) -> Counted:
        zeros = [np.zeros((counters, len(PLACES))) for _ in range(3)]
        return cls(np.zeros(len(PLACES)), 0.0, *zeros)

    def add(self, stretches: npt.NDArray[np.void], counted: npt.NDArray[np.void], windows: dict[str, Windows]) -> None:
        """Add events of these kinds of the probe tlb, by its columns; ``windows`` have to reach as far as they do."""
        shares = _shares(stretches, stretches["work"], windows)
        ran = stretches["ran_ns"].astype(np.float64)
        self.ran_ns += ran @ shares
        self.minor_ns += float(ran @ (1 - shares.max(axis=1, initial=0)))
        shares = _shares(counted, counted["word"] >> np.uint64(8), windows)
        number = counter_of(counted)
        for row in range(len(self.counts)):
            mine = number == row
            for sums, column in zip((self.counts, self.enabled_ns, self.running_ns), SUMS, strict=True):
                sums[row] += counted[column][mine].astype(np.float64) @ shares[mine]

    def scaled(self) -> Array:
        """`scaled` of all of them."""
        return scaled(self.counts, self.enabled_ns, self.running_ns)


def counter_of(counted: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """The number of the counter of each event."""
    numbers: npt.NDArray[np.int64] = (counted["word"] & np.uint64(0xFF)).astype(np.int64)
    return numbers


def scaled(counts: Array, enabled_ns: Array, running_ns: Array) -> Array:
    """The counts as they would be had each counter counted all the time; NaN where one never did."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.where(enabled_ns > 0, counts * enabled_ns / running_ns, 0.0)
    found[(enabled_ns > 0) & (running_ns == 0)] = np.nan
    return found


def whole(value: float) -> int | None:
    """A scaled count as JSON has it: None where it was never counted."""
    return None if math.isnan(value) else round(value)


def _shares(events: npt.NDArray[np.void], work: npt.NDArray[np.uint64], windows: dict[str, Windows]) -> Array:
    """How much of each event's time belongs to each of `PLACES`: what is done for the collector wherever it is done."""
    shares = np.zeros((len(events), len(PLACES)))
    shares[:, _OF_PHASE] = split(events["begin_ns"].astype(np.int64), events["time_ns"].astype(np.int64), windows)
    for number, place in ((1, ASSIST), (2, WORKER)):
        mine = work == number
        shares[mine] = 0
        shares[mine, PLACES.index(place)] = 1
    return shares

"""How pauses and GC cycles went over time, in memory that does not grow with their number.

The longest pauses are kept as they are. Of the others, and of all cycles where there are many, there are counts and maxima
by bins of time, which become twice as wide whenever they do not reach any more. What comes out depends on what was added
alone, and not on the portions that it came in: a recording gives what was seen live.

Times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gotrace.analysis.columns import Array
from gotrace.analysis.gc_summary import PARTS, part_of
from gotrace.analysis.pauses import CYCLE, PAUSE, UNKNOWN, Batch, stood_ns

MOST_PAUSES = 2000  # kept as they are, so many at most
MOST_CYCLES = 1000
BINS = 256  # of time, at most
_FIRST_WIDTH_NS = 1 << 20

# Lengths are counted by bins too, so many for each power of ten, from the shortest on: that holds all that are shorter.
BINS_PER_DECADE, SHORTEST_NS = 8, 100
_LENGTHS = 11 * BINS_PER_DECADE  # up to 2 h 46 min, where everything longer is counted

# What is kept of the cycles of each bin of time: the largest.
PHASES = ("sweep_termination_ns", "mark_ns", "mark_termination_ns")
HEAP = ("heap_start_bytes", "heap_end_bytes", "heap_live_bytes", "heap_goal_bytes")
SWEEP = "sweep_ns"
_LARGEST = (*PHASES, *HEAP)
_OFF = 1 << 60  # a goal that is as good as infinite: GOGC=off

BIN = np.dtype(
    [("pauses", "<i8"), ("longest_ns", "<i8"), ("cycles", "<i8"), *((name, "<i8") for name in (*_LARGEST, SWEEP))]
)


@dataclass
class Course:
    """``begin_ns`` is when tracing began; what had begun before counts as of then."""

    begin_ns: int
    width_ns: int = _FIRST_WIDTH_NS
    cycles: int = 0
    _pauses: Array = field(default_factory=lambda: np.zeros(0, PAUSE))
    _cycles: Array = field(default_factory=lambda: np.zeros(0, CYCLE))
    _sweeps: dict[int, int] = field(default_factory=dict)  # cycle -> sweep_ns, of the first cycles
    # How many pauses are not kept, by reason and part: rows are bins of time, columns bins of lengths.
    _counts: dict[tuple[int, str], Array] = field(default_factory=dict)
    _bins: Array = field(default_factory=lambda: _no_bins(BINS))

    def add(self, batch: Batch) -> None:
        pauses, cycles, sweeps = batch.pauses, batch.cycles, batch.sweeps
        swept = sweeps["time_ns"] - sweeps["sweep_ns"]
        latest = max(int(each.max(initial=self.begin_ns)) for each in (pauses["start_ns"], cycles["end_ns"], swept))
        while self._place(latest) >= BINS:
            self._widen()
        places = self._places(pauses["start_ns"])
        np.add.at(self._bins["pauses"], places, 1)
        np.maximum.at(self._bins["longest_ns"], places, pauses["total_ns"])
        places = self._places(cycles["end_ns"])
        np.add.at(self._bins["cycles"], places, 1)
        for name in _LARGEST:
            np.maximum.at(self._bins[name], places, np.where(cycles[name] < _OFF, cycles[name], UNKNOWN))
        np.maximum.at(self._bins[SWEEP], self._places(swept), sweeps["sweep_ns"])
        self._pauses = np.concatenate([self._pauses, pauses])
        if len(self._pauses) > 2 * MOST_PAUSES:  # not each time, for it sorts
            self._keep_the_longest()
        if len(self._cycles) <= MOST_CYCLES:
            self._cycles = np.concatenate([self._cycles, cycles[: MOST_CYCLES + 1]])
            # A sweep may end long after its cycle did, but not before.
            self._sweeps |= {cycle: length for _, cycle, length in sweeps.tolist()}
        self.cycles += len(cycles)

    def longest(self) -> Array:
        """The `MOST_PAUSES` pauses that the world stood still for longest, in the order of their beginnings."""
        self._keep_the_longest()
        return self._pauses[np.argsort(self._pauses["start_ns"], kind="stable")]

    def counts(self) -> dict[tuple[int, str], Array]:
        """How many other pauses there are, by reason and part; rows are the bins of time, columns those of lengths."""
        self._keep_the_longest()
        return self._counts

    def each_cycle(self) -> list[tuple[Array, int | None]] | None:
        """Every cycle and how long its sweep took, None: not known. None if there are more than `MOST_CYCLES`."""
        if self.cycles > MOST_CYCLES:
            return None
        return [(cycle, self._sweeps.get(int(cycle["cycle"]))) for cycle in self._cycles]

    def bins(self, most: int = BINS) -> tuple[int, Array]:
        """How wide the bins of time are, and the bins (`BIN`) from ``begin_ns`` to the last that has anything.

        No more than ``most``, a power of two. Where nothing is known of anything in a bin, it has UNKNOWN.
        """
        bins, width_ns = self._bins, self.width_ns
        used = np.flatnonzero((bins["pauses"] > 0) | (bins["cycles"] > 0) | (bins[SWEEP] >= 0))
        count = int(used[-1]) + 1 if len(used) else 0
        while count > most:
            bins, width_ns, count = _wider(bins), 2 * width_ns, -(-count // 2)
        return width_ns, bins[:count]

    def _place(self, time_ns: int) -> int:
        return (time_ns - self.begin_ns) // self.width_ns

    def _places(self, times: Array) -> Array:
        places: Array = np.maximum(0, times - self.begin_ns) // self.width_ns
        return places

    def _widen(self) -> None:
        self.width_ns *= 2
        self._bins = _wider(self._bins)
        for key, counts in self._counts.items():
            self._counts[key] = wider_counts(counts)

    def _keep_the_longest(self) -> None:
        if len(self._pauses) <= MOST_PAUSES:
            return
        order = np.lexsort((self._pauses["start_ns"], -stood_ns(self._pauses)))
        others, self._pauses = self._pauses[order[MOST_PAUSES:]], self._pauses[order[:MOST_PAUSES]]
        for reason in np.unique(others["reason"]).tolist():
            of_it = others[others["reason"] == reason]
            for part in PARTS:
                values, _ = part_of(of_it, part)
                known = values != UNKNOWN
                if known.any():
                    counts = self._counts.setdefault((reason, part), np.zeros((BINS, _LENGTHS), np.int32))
                    np.add.at(counts, (self._places(of_it["start_ns"][known]), _length_bins(values[known])), 1)


def _length_bins(lengths: Array) -> Array:
    exact = np.log10(np.maximum(lengths, SHORTEST_NS) / SHORTEST_NS) * BINS_PER_DECADE
    return np.minimum(exact.astype(np.int64), _LENGTHS - 1)


def _no_bins(count: int) -> Array:
    bins = np.zeros(count, BIN)
    for name in (*_LARGEST, SWEEP, "longest_ns"):
        bins[name] = UNKNOWN
    return bins


def _wider(bins: Array) -> Array:
    """Two and two of the bins in one."""
    made = _no_bins(len(bins))
    half = -(-len(bins) // 2)
    for name in BIN.names or ():
        pairs = np.append(bins[name], [made[name][0]] * (2 * half - len(bins))).reshape(-1, 2)
        made[name][:half] = pairs.sum(axis=1) if name in ("pauses", "cycles") else pairs.max(axis=1)
    return made


def wider_counts(counts: Array) -> Array:
    """`Course.counts` of one reason and part with bins of time that are twice as wide."""
    made = np.zeros_like(counts)
    made[: len(counts) // 2] = counts.reshape(-1, 2, counts.shape[1]).sum(axis=1)
    return made

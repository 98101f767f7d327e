"""Times of interest: stops, phases of the collector. Samples and intervals are cut down to them after the fact.

All times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import Array, rows
from gotrace.analysis.pauses import UNKNOWN, stood_ns

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Times from ``begins`` up to ``ends``: in order, apart from each other."""

    begins: Times
    ends: Times

    @classmethod
    def of(cls, begins: Times, ends: Times) -> Windows:
        """Windows that may overlap, and be in any order; those without length are left out."""
        order = np.argsort(begins, kind="stable")
        begins, ends = begins[order], ends[order]
        real = ends > begins
        begins, ends = begins[real], ends[real]
        reach = np.maximum.accumulate(ends) if len(ends) else ends
        first = np.ones(len(begins), bool)
        first[1:] = begins[1:] > reach[:-1]
        last = np.append(first[1:], True)[: len(first)]
        return cls(begins[first], reach[last])

    @property
    def length(self) -> int:
        """Their sum."""
        return int((self.ends - self.begins).sum())

    def between(self, begin: int, end: int) -> Windows:
        """What of them lies from ``begin`` up to ``end``."""
        return Windows.of(np.maximum(self.begins, begin), np.minimum(self.ends, end))

    def before(self, times: Times) -> Times:
        """How much of the windows lies before each of ``times``."""
        if not len(self.begins):
            return np.zeros(len(times), np.int64)
        lengths = self.ends - self.begins
        at = self._last_begun(times)
        inside: Times = np.clip(times - self.begins[at], 0, lengths[at])
        earlier: Times = (np.cumsum(lengths) - lengths)[at]
        return earlier + inside

    def _last_begun(self, times: Times) -> npt.NDArray[np.intp]:
        return np.maximum(np.searchsorted(self.begins, times, side="right") - 1, 0)

    def overlap(self, begins: Times, ends: Times) -> Times:
        """How much of each interval lies in the windows."""
        return self.before(ends) - self.before(begins)

    def contain(self, times: Times) -> npt.NDArray[np.bool_]:
        """Which of ``times`` lie in a window."""
        if not len(self.begins):
            return np.zeros(len(times), bool)
        at = self._last_begun(times)
        inside: npt.NDArray[np.bool_] = (times >= self.begins[at]) & (times < self.ends[at])
        return inside


def of_pauses(pauses: Array, only_stopping: bool, min_ns: int) -> tuple[Times, Times]:
    """From each request to stop until every P had stopped, or until the world ran again; of pauses of ``min_ns`` or more.

    ``pauses`` are `pauses.PAUSE`. Those without a time at which every P had stopped have no part before it.
    """
    wanted = pauses["total_ns"] >= min_ns
    if only_stopping:
        wanted = wanted & (pauses["stopping_ns"] != UNKNOWN)
    found = rows(pauses, wanted)
    whole = stood_ns(found)
    return found["start_ns"], found["start_ns"] + (found["stopping_ns"] if only_stopping else whole)


def of_cycles(cycles: Array, only_mark: bool) -> tuple[Times, Times]:
    """From the begin of a cycle's sweep termination to the end of its mark termination, or the concurrent mark between."""
    terminated = cycles["end_ns"] - cycles["mark_termination_ns"]
    marking = terminated - cycles["mark_ns"]
    if only_mark:
        return marking, terminated
    return marking - cycles["sweep_termination_ns"], cycles["end_ns"]

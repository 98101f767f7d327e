"""How a traced process is doing, for whoever looks at it: over the last interval, and since it is traced."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gotrace.agent.windows import Windows
from gotrace.analysis.columns import Array, distinct
from gotrace.analysis.exponential import Exponential
from gotrace.analysis.gc_summary import CONCURRENT_MARK, MARK_ASSIST, PARTS, SWEEP, part_of
from gotrace.analysis.pauses import UNKNOWN, Batch

_LONGEST = 20
_CYCLES = 60  # of which the sizes of the heap are kept


def quantile(values: Exponential, share: float) -> int:
    """The upper end, in ns, of the bucket with the value of which ``share`` are not larger; at most the maximum.

    Less than 2.2 % above the truth (`gotrace.analysis.exponential.SCHEMA`), 4.4 % and so on where values range widely.
    """
    rank = max(1, int(np.ceil(share * values.count))) - values.zeros
    if rank <= 0 or not len(values.counts):
        return 0
    index = int(values.indexes[int(values.counts.cumsum().searchsorted(rank))])
    return max(values.min_ns, min(values.max_ns, round(float(2.0 ** (index / 2**values.schema)) * 1e9)))


def nearest_rank(values: Array, share: float) -> int:
    """The same of values themselves, exact."""
    return int(np.sort(values)[max(1, int(np.ceil(share * len(values)))) - 1])


@dataclass
class Course:
    """Feed it what each observation found. Times are ns, sizes bytes; what is not known is null in its JSON.

    What is more than a row takes memory and time: it is kept if it is ``detailed``, which it is once `details` was called.
    """

    detailed: bool = False
    detailed_at: float = field(default_factory=time.monotonic)
    pauses: dict[tuple[str, str], Exponential] = field(default_factory=dict)  # by reason and part
    phases: dict[str, Exponential] = field(default_factory=dict)
    gomaxprocs: int | None = None
    interval: dict[str, Any] = field(default_factory=dict)
    windows: Windows = field(default_factory=Windows)
    _longest: list[tuple[int, int, str]] = field(default_factory=list)
    _heap: deque[tuple[int, ...]] = field(default_factory=lambda: deque(maxlen=_CYCLES))

    def add(
        self, batch: Batch, reasons: list[str], wall_offset_ns: int, begin_s: float, cpu_s: float | None, lost: int = 0
    ) -> None:
        """``begin_s``: the last call, by time.monotonic; ``cpu_s`` since then, None if unknown, and ``lost`` events.

        Of a mark phase that had begun before, only what was since then is counted.
        """
        seconds = time.monotonic() - begin_s
        pauses, cycles = batch.pauses, batch.cycles
        totals = pauses["total_ns"]
        self.windows.add(seconds, totals, len(cycles), int(cycles["mark_ns"].sum()), lost)
        if self.detailed:
            self._add_details(batch, reasons, wall_offset_ns)
        marked = cycles["end_ns"] - cycles["mark_termination_ns"]
        began = np.maximum(marked - cycles["mark_ns"], round(begin_s * 1e9))
        if len(cycles):
            self.gomaxprocs = int(cycles["maxprocs"][-1])
        self.interval = {
            "seconds": round(seconds, 3),
            "cycles": len(cycles),
            "pauses": len(pauses),
            "paused_ns": int(totals.sum()),
            "p50_ns": nearest_rank(totals, 0.5) if len(totals) else None,
            "p99_ns": nearest_rank(totals, 0.99) if len(totals) else None,
            "max_ns": int(totals.max()) if len(totals) else None,
            "marking_ns": int(np.maximum(marked - began, 0).sum()),
            "cpu_s": None if cpu_s is None else round(cpu_s, 3),
        }

    def _add_details(self, batch: Batch, reasons: list[str], wall_offset_ns: int) -> None:
        pauses, cycles, sweeps = batch.pauses, batch.cycles, batch.sweeps
        for number in distinct(pauses["reason"]).tolist():
            of_it = pauses[pauses["reason"] == number]
            for part in PARTS:
                values, _ = part_of(of_it, part)
                _count(self.pauses, (reasons[number], part), values[values != UNKNOWN])
        found = [
            (int(each["total_ns"]), int(each["start_ns"]) + wall_offset_ns, reasons[int(each["reason"])])
            for each in pauses[np.argsort(pauses["total_ns"])[-_LONGEST:]]
        ]
        self._longest = sorted(self._longest + found, reverse=True)[:_LONGEST]
        _count(self.phases, CONCURRENT_MARK, cycles["mark_ns"])
        _count(self.phases, MARK_ASSIST, cycles["assist_ns"][cycles["assist_ns"] != UNKNOWN])
        _count(self.phases, SWEEP, sweeps["sweep_ns"])
        for each in cycles[-_CYCLES:]:
            self._heap.append(tuple(int(each[f"heap_{name}_bytes"]) for name in ("start", "end", "live", "goal")))

    def told(self) -> dict[str, Any]:
        """A row, as JSON."""
        totals = self.windows.all_pauses
        known = bool(totals.count)
        return {
            "gomaxprocs": self.gomaxprocs,
            "pauses": totals.count,
            "paused_ns": totals.sum_ns,
            "pause_p50_ns": quantile(totals, 0.5) if known else None,
            "pause_p99_ns": quantile(totals, 0.99) if known else None,
            "interval": self.interval or None,
        }

    def details(self) -> dict[str, Any]:
        """What is more than a row: reasons and parts, phases, the longest pauses, the heap over the last cycles.

        It covers the ``details_s`` seconds since it was first asked for, or since tracing began if it was ``detailed``.
        """
        if not self.detailed:
            self.detailed, self.detailed_at = True, time.monotonic()
        ordered = sorted(self.pauses.items(), key=lambda item: (item[0][0], PARTS.index(item[0][1])))
        return {
            "details_s": round(time.monotonic() - self.detailed_at, 3),
            "reasons": [{"reason": reason, "part": part, **_statistics(each)} for (reason, part), each in ordered],
            "phases": [{"phase": name, **_statistics(each)} for name, each in sorted(self.phases.items())],
            "longest": [{"total_ns": total, "time_ns": when, "reason": reason} for total, when, reason in self._longest],
            "heap": [
                {
                    name: size if size >= 0 else None
                    for name, size in zip(("start", "end", "live", "goal"), each, strict=True)
                }
                for each in list(self._heap)  # another thread asks
            ],
        }


def _count(into: dict[Any, Exponential], key: Any, values: Array) -> None:
    if len(values):
        into[key] = into.get(key, Exponential()).plus(values)


def _statistics(values: Exponential) -> dict[str, int]:
    at = {f"p{share:g}_ns": quantile(values, share / 100) for share in (50, 90, 99)}
    return {"count": values.count, **at, "max_ns": values.max_ns, "sum_ns": values.sum_ns}

"""`gotrace mem --faults`: what a process's page faults were for, and in which phase of the collector they came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gotrace.analysis.fault_table import FaultTable, fault_table
from gotrace.analysis.gc_summary import PERCENTILES, percentiles
from gotrace.analysis.heap_pages import LIVE, PARTS
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.phases import PHASES, PhaseTimes, phases_of
from gotrace.cli._watch import Live, Record, View
from gotrace.export.hdr_log import tag
from gotrace.text import duration_text

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_NAMES = tuple("heap objects" if name == LIVE else name for name in PARTS)
_SECOND = 1_000_000_000
_UNIT = 4096  # a smaller one than this no part of memory has


class Faults(View):
    """Page faults by part and phase: both are known at the end only."""

    name = "faults"
    stems = ("gc", "faults")

    def __init__(self) -> None:
        self._phases = PhaseTimes()
        self._faults: list[Events] = []
        self._table: FaultTable | None = None
        self._watched_ns = 0
        self._exited = False

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        assert batch is not None
        self._phases.add(batch)
        self._faults.append(events[events["kind"] == self.source.kind("faults", "fault")])
        yield from ()

    def end(self) -> Iterator[Record]:
        source = self.source
        found = np.concatenate(self._faults)
        units = found["b"] // np.uint64(_UNIT) * np.uint64(_UNIT)
        addresses, back = np.unique(units.astype(np.int64), return_inverse=True)

        def parts() -> list[int]:
            assert isinstance(source, Live)
            return [int(part) for part in source.looker.parts_of(addresses)]

        told = source.ask("parts of faulted pages", parts)
        self._exited = told is None
        of_page = np.array(told if told is not None else [PARTS.index("unexplained")] * len(addresses), np.int8)
        self._watched_ns = source.now_ns - source.begin_ns
        windows = self._phases.windows()
        end_ns, begin_ns = found["time_ns"].astype(np.int64), found["a"].astype(np.int64)
        self._table = fault_table(end_ns, begin_ns, found["d"] == 1, of_page[back], _NAMES, windows, self._watched_ns)
        times = np.where(begin_ns > 0, begin_ns, end_ns)
        series = by_second(times - source.begin_ns, phases_of(times, windows), self._watched_ns)
        offset = source.begin_ns + source.wall_offset_ns
        yield {
            **record(self._table, source.name, self._watched_ns, source.lost),
            "series": [
                {"time": (offset + second * _SECOND) / 1e9, "counts": dict(zip(PHASES, counts, strict=True))}
                for second, counts in enumerate(series.tolist())
            ],
        }

    def summary(self) -> Iterator[str]:
        assert self._table is not None
        yield from lines(self._table, self.source.name, self._watched_ns)
        if self._exited:
            yield "It exited meanwhile: what the faults were for can no longer be told."

    def histograms(self) -> dict[str, Histogram]:
        assert self._table is not None
        kinds = (("minor fault", self._table.minor), ("major fault", self._table.major))
        return {tag(kind, phase): named[phase] for kind, named in kinds for phase in PHASES if named[phase].count}


def by_second(
    since_begin_ns: npt.NDArray[np.int64], phases: npt.NDArray[np.int8], watched_ns: int
) -> npt.NDArray[np.int64]:
    """Counts by second since the beginning and by phase (index into `PHASES`)."""
    seconds = max(1, -(-watched_ns // _SECOND))
    at = np.clip(since_begin_ns // _SECOND, 0, seconds - 1)
    return np.bincount(at * len(PHASES) + phases, minlength=seconds * len(PHASES)).reshape(seconds, len(PHASES))


def record(table: FaultTable, name: str, watched_ns: int, lost: int) -> Record:
    """The result as a JSON object."""

    def statistics(histogram: Histogram) -> dict[str, int]:
        if not histogram.count:
            return {"count": 0}
        values = {f"p{each:g}_ns": value for each, value in zip(PERCENTILES, percentiles(histogram), strict=True)}
        return {"count": histogram.count, **values, "max_ns": histogram.max}

    return {
        "type": "faults",
        "target": name,
        "watched_ns": watched_ns,
        "faults": table.total,
        "counts": table.counts,
        "phases_ns": table.lengths_ns,
        "minor": {phase: statistics(table.minor[phase]) for phase in PHASES},
        "major": {phase: statistics(table.major[phase]) for phase in PHASES},
        "lost": lost,
    }


def lines(table: FaultTable, name: str, watched_ns: int) -> Iterator[str]:
    """The result for people."""
    yield ""
    yield f"{name}: {table.total:,} page faults in {duration_text(watched_ns)}"
    yield ""
    yield f"{'':<26}" + "".join(f" {phase:>16}" for phase in PHASES) + f" {'all':>10}"
    for part, counts in table.counts.items():
        numbers = "".join(f" {counts[phase]:>16,}" for phase in PHASES)
        yield f"{part:<26}{numbers} {sum(counts.values()):>10,}"
    sums = {phase: sum(counts[phase] for counts in table.counts.values()) for phase in PHASES}
    yield f"{'all':<26}" + "".join(f" {sums[phase]:>16,}" for phase in PHASES) + f" {table.total:>10,}"
    rates = [sums[phase] / (table.lengths_ns[phase] / 1e9) if table.lengths_ns[phase] else 0 for phase in PHASES]
    yield f"{'a second of the phase':<26}" + "".join(f" {rate:>16,.0f}" for rate in rates)
    for title, histograms in (("minor", table.minor), ("major", table.major)):
        if any(histograms[phase].count for phase in PHASES):
            cells = []
            for phase in PHASES:
                p50, p99 = histograms[phase].percentiles((50.0, 99.0)) if histograms[phase].count else (0, 0)
                cells.append(f" {duration_text(p50) + ' / ' + duration_text(p99) if p99 else '-':>16}")
            yield f"{title + ', p50 / p99':<26}" + "".join(cells)

"""What a process's page faults were for, and in which phase of the collector they came."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gotrace.analysis.fault_table import FaultTable, fault_table
from gotrace.analysis.heap_pages import LIVE, PARTS
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.phases import PHASES, PhaseTimes, phases_of
from gotrace.errors import HostError
from gotrace.export.hdr_log import tag
from gotrace.probes import faults
from gotrace.probes.faults import MAJOR
from gotrace.records.times import moment
from gotrace.records.watched import statistics
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

UNKNOWN = "unknown"
_NAMES = (*("heap objects" if name == LIVE else name for name in PARTS), UNKNOWN)
_SECOND = 1_000_000_000
_LOOKS, _PAUSE_S = 3, 0.005
_UNIT = 4096  # a smaller one than this no part of memory has


class Faults(View):
    """Page faults by part and phase: both are known at the end only, when ``table`` is there.

    ``exited``: the program had ended by then, so that the parts are unknown. ``in_progress`` are the faults that had not
    ended, as records have them; None: unknown.
    """

    name = "faults"
    stems = ("gc", "faults")

    def __init__(self) -> None:
        self._phases = PhaseTimes()
        self._faults: list[Events] = []
        self.table: FaultTable | None = None
        self.watched_ns = 0
        self.exited = False
        self.in_progress: list[Record] | None = None

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        assert batch is not None
        self._phases.add(batch)
        self._faults.append(self.source.kinds("faults").of(events, "fault"))
        yield from ()

    def end(self) -> Iterator[Record]:
        source = self.source
        found = np.concatenate(self._faults)
        units = found["address"] // np.uint64(_UNIT) * np.uint64(_UNIT)
        addresses, back = np.unique(units.astype(np.int64), return_inverse=True)

        def parts() -> list[int]:
            return [int(part) for part in source.books.looker.parts_of(addresses)]

        told = source.ask("parts of faulted pages", parts)
        self.exited = told is None
        of_page = np.array(told if told is not None else [_NAMES.index(UNKNOWN)] * len(addresses), np.int8)
        self.watched_ns = source.now_ns - source.begin_ns
        self.in_progress = self._in_progress()
        windows = self._phases.windows()
        end_ns, begin_ns = found["time_ns"].astype(np.int64), found["begin_ns"].astype(np.int64)
        self.table = fault_table(end_ns, begin_ns, found["how"] == MAJOR, of_page[back], _NAMES, windows, self.watched_ns)
        times = np.where(begin_ns > 0, begin_ns, end_ns)
        series = by_second(times - source.begin_ns, phases_of(times, windows), self.watched_ns)
        yield {
            **record(self.table, source.name, self.watched_ns, source.lost),
            "in_progress": self.in_progress,
            "series": [
                {
                    **moment(source.begin_ns + second * _SECOND, source.wall_offset_ns),
                    "counts": dict(zip(PHASES, counts, strict=True)),
                }
                for second, counts in enumerate(series.tolist())
            ],
        }

    def _in_progress(self) -> list[Record] | None:
        """Those that had not ended, the longest first."""
        source = self.source

        def seen() -> list[list[int]] | None:
            found = [each for each in faults.in_progress(source.tracing.parts["faults"].loaded) if each[1] < source.now_ns]
            try:
                found = [each for each in found if self._is_in_one(each[0])]
            except HostError:
                return None
            parts = source.books.looker.parts_of(np.array([address for _, _, address in found], np.uint64).astype(np.int64))
            return [[*each, int(part)] for each, part in zip(found, parts, strict=True)]

        told = source.ask("faults in progress", seen)
        if told is None:
            return None
        return [
            {"tid": tid, "lasted_ns": source.now_ns - begin_ns, "address": address, "part": _NAMES[part]}
            for tid, begin_ns, address, part in sorted(told, key=lambda each: each[1])
        ]

    def _is_in_one(self, tid: int) -> bool:
        """Seen more than once: between two tries of a fault that a signal broke off the thread is not in it."""
        for left in reversed(range(_LOOKS)):
            if self.source.process.in_page_fault(tid):
                return True
            time.sleep(_PAUSE_S if left else 0)
        return False

    def histograms(self) -> dict[str, Histogram]:
        assert self.table is not None
        kinds = (("minor fault", self.table.minor), ("major fault", self.table.major))
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


VIEW = Faults

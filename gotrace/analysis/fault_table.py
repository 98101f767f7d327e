"""Page faults by what was touched and by the phase of the collector they fell into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.analysis.histogram import Histogram
from gotrace.analysis.phases import MUTATOR, PHASES, phases_of
from gotrace.analysis.windows import Times, Windows


@dataclass(frozen=True)
class FaultTable:
    """``counts[part][phase]`` of faults; service times by phase, minor and major; ``lengths_ns`` of the phases."""

    counts: dict[str, dict[str, int]]
    minor: dict[str, Histogram]
    major: dict[str, Histogram]
    lengths_ns: dict[str, int]

    @property
    def total(self) -> int:
        return sum(sum(of_part.values()) for of_part in self.counts.values())


def fault_table(
    end_ns: Times,
    begin_ns: Times,
    major: npt.NDArray[np.bool_],
    parts: npt.NDArray[np.integer],
    names: Sequence[str],
    windows: dict[str, Windows],
    watched_ns: int,
) -> FaultTable:
    """``parts`` index into ``names``; ``begin_ns`` is 0 where a fault's beginning was not seen."""
    seen = begin_ns > 0
    phase = phases_of(np.where(seen, begin_ns, end_ns), windows)
    counts = {}
    for number in np.unique(parts).tolist():
        of_it = np.bincount(phase[parts == number], minlength=len(PHASES)).tolist()
        counts[names[number]] = dict(zip(PHASES, of_it, strict=True))
    minor_of, major_of = ({name: Histogram() for name in PHASES} for _ in range(2))
    took = end_ns - begin_ns
    for number, name in enumerate(PHASES):
        for wanted, histograms in ((~major, minor_of), (major, major_of)):
            histograms[name].record(took[seen & wanted & (phase == number)])
    lengths = {name: each.length for name, each in windows.items()}
    lengths[MUTATOR] = max(0, watched_ns - sum(lengths.values()))
    order = sorted(counts.items(), key=lambda item: -sum(item[1].values()))
    return FaultTable(dict(order), minor_of, major_of, lengths)

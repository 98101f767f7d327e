"""What a process did in each of the last windows of ten seconds, for whoever compares processes: small, as all have it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.exponential import Exponential

WINDOW_S = 10.0
KEPT = 30  # windows: five minutes


class Window(NamedTuple):
    """``number`` counts windows of the clock, so that those of all processes are the same ones. ``seconds`` are those that
    were observed; ``mark_ns`` is concurrent marking of ``cycles`` that ended, ``lost`` events."""

    number: int
    seconds: float
    paused_ns: int
    cycles: int
    mark_ns: int
    lost: int


@dataclass
class Windows:
    """The last `KEPT`. Of single pauses two halves are kept, of the last two and a half to five minutes."""

    _rows: npt.NDArray[np.float64] = field(default_factory=lambda: np.full((KEPT, len(Window._fields)), -1.0))
    _half: int = 0
    _halves: tuple[Exponential, Exponential] = field(default_factory=lambda: (Exponential(), Exponential()))

    def add(self, seconds: float, pauses: Exponential, cycles: int, mark_ns: int, lost: int) -> None:
        """What was observed over the last ``seconds``."""
        number = current()
        row = self._rows[number % KEPT]
        if row[0] != number:
            row[:] = number, 0, 0, 0, 0, 0
        row[1:] += seconds, pauses.sum_ns, cycles, mark_ns, lost
        half = number // (KEPT // 2)
        if half != self._half:
            self._halves = self._halves[1] if half == self._half + 1 else Exponential(), Exponential()
            self._half = half
        self._halves = self._halves[0], self._halves[1].merged(pauses)

    @property
    def rows(self) -> list[Window]:
        """Those of the last five minutes, in order; the last one may not be over."""
        least = max(0, current() - KEPT + 1)
        found = [Window(int(row[0]), row[1], *map(int, row[2:])) for row in self._rows.tolist() if row[0] >= least]
        return sorted(found)

    @property
    def pauses(self) -> Exponential:
        return self._halves[0].merged(self._halves[1])


def current() -> int:
    """The number of the window that is not over."""
    return int(time.monotonic() / WINDOW_S)

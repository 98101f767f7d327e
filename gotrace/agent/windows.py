"""What a process did in each of the last windows of ten seconds, for whoever compares processes: small, as all have it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.exponential import Exponential, Growing, IntArray

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
    """The last `KEPT`. Of single pauses two halves are kept, of the last two and a half to five minutes, and all before."""

    _rows: npt.NDArray[np.float64] = field(default_factory=lambda: np.full((KEPT, len(Window._fields)), -1.0))
    _half: int = 0
    # What was before the last half, that, and the one that is not over. Replaced at once: others read.
    _parts: tuple[Exponential, Exponential, Growing] = field(
        default_factory=lambda: (Exponential(), Exponential(), Growing())
    )

    def add(self, seconds: float, pauses_ns: IntArray, cycles: int, mark_ns: int, lost: int) -> None:
        """What was observed over the last ``seconds``."""
        number = current()
        row = self._rows[number % KEPT]
        if row[0] != number:
            row[:] = number, 0, 0, 0, 0, 0
        row[1:] += seconds, pauses_ns.sum(), cycles, mark_ns, lost
        half = number // (KEPT // 2)
        if half != self._half:
            before, last, now = self._parts
            last_but_one = half == self._half + 1
            older = before.merged(last) if last_but_one else before.merged(last).merged(now.values)
            self._parts = older, now.values if last_but_one else Exponential(), Growing()
            self._half = half
        self._parts[2].add(pauses_ns)

    @property
    def rows(self) -> list[Window]:
        """Those of the last five minutes, in order; the last one may not be over."""
        least = max(0, current() - KEPT + 1)
        found = [Window(int(row[0]), row[1], *map(int, row[2:])) for row in self._rows.tolist() if row[0] >= least]
        return sorted(found)

    @property
    def pauses(self) -> Exponential:
        """Those of the two halves."""
        _, last, now = self._parts
        return last.merged(now.values)

    @property
    def all_pauses(self) -> Exponential:
        """All that were ever added."""
        before, last, now = self._parts
        return before.merged(last).merged(now.values)


def current() -> int:
    """The number of the window that is not over."""
    return int(time.monotonic() / WINDOW_S)

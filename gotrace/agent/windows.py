"""What a process did in each of the last windows of ten seconds, for whoever compares processes: small, as all have it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from gotrace.analysis.exponential import Exponential

WINDOW_S = 10.0
KEPT = 30  # windows: five minutes


@dataclass(slots=True)
class Window:
    """``number`` counts windows of the clock, so that those of all processes are the same ones. ``seconds`` are those that
    were observed; ``mark_ns`` is concurrent marking of ``cycles`` that ended, ``lost`` events."""

    number: int
    seconds: float = 0
    paused_ns: int = 0
    cycles: int = 0
    mark_ns: int = 0
    lost: int = 0


@dataclass
class Windows:
    """The last `KEPT`. Of single pauses two halves are kept, of the last two and a half to five minutes."""

    rows: deque[Window] = field(default_factory=lambda: deque(maxlen=KEPT))
    _half: int = 0
    _halves: tuple[Exponential, Exponential] = field(default_factory=lambda: (Exponential(), Exponential()))

    def add(self, seconds: float, pauses: Exponential, cycles: int, mark_ns: int, lost: int) -> None:
        """What was observed over the last ``seconds``."""
        number = current()
        if not self.rows or self.rows[-1].number != number:
            self.rows.append(Window(number))
        row = self.rows[-1]
        row.seconds += seconds
        row.paused_ns += pauses.sum_ns
        row.cycles += cycles
        row.mark_ns += mark_ns
        row.lost += lost
        half = number // (KEPT // 2)
        if half != self._half:
            self._halves = self._halves[1] if half == self._half + 1 else Exponential(), Exponential()
            self._half = half
        self._halves = self._halves[0], self._halves[1].merged(pauses)

    @property
    def pauses(self) -> Exponential:
        return self._halves[0].merged(self._halves[1])


def current() -> int:
    """The number of the window that is not over."""
    return int(time.monotonic() / WINDOW_S)

"""What code allocates, from what was seen in windows: sums by stack, and how far they can be trusted.

Each window has what was allocated in it, and is one draw from all the time there was. So a stack's share of what was seen
estimates its share of everything, and how much that differs from window to window says how good the estimate is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import rows

Array = npt.NDArray[np.void]
Groups = npt.NDArray[np.int64]

# Windows are counted in so many groups, the first one in the first, and so on in turn: that is enough for a standard error,
# however long it lasts.
GROUPS = 32
# Of fewer windows than these nobody can say how much they differ.
FEWEST = 5


class Seen(NamedTuple):
    """Of one stack: what it stands for, by `GROUPS` of windows; and how many spans and large objects that were."""

    bytes: Groups
    objects: int
    spans: int

    def __add__(self, other: Seen) -> Seen:  # type: ignore[override]
        return Seen(self.bytes + other.bytes, self.objects + other.objects, self.spans + other.spans)


NOTHING = Seen(np.zeros(GROUPS, np.int64), 0, 0)


class WindowSums:
    """Adds up events with the columns time_ns, bytes, objects and stack that fall into windows.

    A window is known when it has ended; what came after the last one that is known waits for the next.
    """

    def __init__(self) -> None:
        self.windows = self.open_ns = 0
        self.stacks: dict[int, Seen] = {}
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._waiting: list[Array] = []

    def add(self, events: Array, ended: Sequence[tuple[int, int]]) -> None:
        """Some events, and the (begin, end) in ns of the windows that have ended meanwhile, oldest first."""
        for begin, end in ended:
            self._begins.append(begin)
            self._ends.append(end)
            self.windows += 1
            self.open_ns += end - begin
        if len(events):
            self._waiting.append(events)
        if not self._waiting or not self._begins:
            return
        waiting = np.concatenate(self._waiting)
        times = waiting["time_ns"].astype(np.int64)
        ends = np.array(self._ends, np.int64)
        window = np.searchsorted(np.array(self._begins, np.int64), times, side="right") - 1
        inside = (window >= 0) & (times < ends[window])
        self._sum(rows(waiting, inside), window[inside] % GROUPS)
        later = times >= ends[-1]
        self._waiting = [rows(waiting, later)] if later.any() else []

    def _sum(self, events: Array, groups: Groups) -> None:
        stacks, which = np.unique(events["stack"], return_inverse=True)
        sums = np.zeros((len(stacks), GROUPS), np.int64)
        np.add.at(sums, (which, groups), events["bytes"].astype(np.int64))
        objects = np.bincount(which, events["objects"].astype(np.float64), len(stacks)).astype(np.int64)
        counts = np.bincount(which, minlength=len(stacks))
        for stack, *seen in zip(stacks.tolist(), sums, objects.tolist(), counts.tolist(), strict=True):
            self.stacks[stack] = self.stacks.get(stack, NOTHING) + Seen(*seen)


def standard_error(part: Groups, whole: Groups, windows: int) -> float | None:
    """Of the share that ``part`` is of ``whole``, both by `GROUPS` of windows; None if there were too few.

    That of a ratio estimator, with a group of windows as the unit.
    """
    count, total = min(windows, GROUPS), int(whole.sum())
    if count < FEWEST or not total:
        return None
    left = part - part.sum() / total * whole
    return float(np.sqrt(count / (count - 1) * np.square(left).sum()) / total)

"""The longest of many, one by one."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gotrace.views.view import Record


class Longest:
    """Keeps the records of the ``top`` longest."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._heap: list[tuple[int, int, Record]] = []

    def wants(self, length_ns: int) -> bool:
        """Whether one of this length is among them, so far."""
        return len(self._heap) < self._top or length_ns > self._heap[0][0]

    def has(self, record: Record) -> bool:
        """Whether one that was added is still among them."""
        return any(each is record for *_, each in self._heap)

    def add(self, length_ns: int, record: Record) -> None:
        """Keep one that it `wants`, by its ``monotonic_ns`` where others are as long."""
        heapq.heappush(self._heap, (length_ns, record["monotonic_ns"], record))
        if len(self._heap) > self._top:
            heapq.heappop(self._heap)

    def records(self) -> list[Record]:
        """The longest first."""
        return [record for *_, record in sorted(self._heap, key=lambda each: -each[0])]

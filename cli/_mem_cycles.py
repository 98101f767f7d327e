"""`gotrace mem --cycles`: memory amplification at the end of each GC cycle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.pauses import UNKNOWN
from gotrace.cli._watch import Record, View
from gotrace.export.gc_json import wall_time
from gotrace.kernel.memory import PAGE
from gotrace.text import bytes_text

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_LINE = "{:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>6}"
_NAMES = ("cycle", "RSS", "swapped", "live", "heap end", "goal", "MAF")


class Cycles(View):
    """What was resident when each cycle ended, and what was live."""

    name = "cycles"
    stems = ("gc", "rss")

    def __init__(self) -> None:
        self._resident: dict[int, tuple[int, int]] = {}
        self._factors: list[float] = []
        self._largest = 0

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        assert batch is not None
        mine = events[events["kind"] == self.source.kind("rss", "rss")]
        for cycle, *pages in mine[["a", "b", "c", "d", "e"]].tolist():
            self._resident[cycle] = ((pages[0] + pages[1] + pages[3]) * PAGE, pages[2] * PAGE)
        for row in batch.cycles:
            number = int(row["cycle"])
            if number not in self._resident or row["heap_live_bytes"] == UNKNOWN:
                continue
            rss, swapped = self._resident.pop(number)
            live = int(row["heap_live_bytes"])
            self._largest = max(self._largest, rss)
            if live:
                self._factors.append(rss / live)
            yield {
                "type": "cycle",
                "time": wall_time(int(row["time_ns"]), self.source.wall_offset_ns),
                "cycle": number,
                "rss_bytes": rss,
                "swapped_bytes": swapped,
                "heap_live_bytes": live,
                "heap_end_bytes": int(row["heap_end_bytes"]),
                "heap_goal_bytes": int(row["heap_goal_bytes"]),
                "amplification": round(rss / live, 4) if live else None,
            }

    def heading(self) -> str:
        return _LINE.format(*_NAMES)

    def line(self, record: Record) -> str:
        sizes = (bytes_text(record[f"{name}_bytes"]) for name in ("rss", "swapped", "heap_live", "heap_end", "heap_goal"))
        factor = "-" if record["amplification"] is None else f"{record['amplification']:.2f}"
        return _LINE.format(record["cycle"], *sizes, factor)

    def summary(self) -> Iterator[str]:
        yield ""
        if not self._factors:
            yield f"{self.source.name}: no GC cycle ended meanwhile."
            return
        low, half, high = np.percentile(self._factors, (0, 50, 100)).tolist()
        yield (
            f"{self.source.name}: {len(self._factors)} cycles, RSS / live heap {low:.2f} to {high:.2f}, median {half:.2f}; "
            f"largest RSS {bytes_text(self._largest)}"
        )

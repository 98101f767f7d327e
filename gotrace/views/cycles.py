"""RSS over live heap at the end of each GC cycle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gotrace.analysis.pauses import UNKNOWN
from gotrace.kernel.memory import PAGE
from gotrace.records.gc import known
from gotrace.records.times import moment
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events


class Cycles(View):
    """What was resident when each cycle ended, and what was live.

    ``factors`` are RSS / live heap of every cycle so far, ``largest`` is the largest RSS in bytes.
    """

    name = "cycles"
    stems = ("gc", "rss")

    def __init__(self) -> None:
        self._resident: dict[int, tuple[int, int]] = {}
        self.factors: list[float] = []
        self.largest = 0

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        assert batch is not None
        mine = self.source.kinds("rss").of(events, "rss")
        for cycle, file, anonymous, swapped, shared in mine[["cycle", "file", "anonymous", "swapped", "shared"]].tolist():
            self._resident[cycle] = ((file + anonymous + shared) * PAGE, swapped * PAGE)
        for row in batch.cycles:
            number = int(row["cycle"])
            if number not in self._resident or row["heap_live_bytes"] == UNKNOWN:
                continue
            rss, swapped = self._resident.pop(number)
            live = int(row["heap_live_bytes"])
            self.largest = max(self.largest, rss)
            if live:
                self.factors.append(rss / live)
            yield {
                "type": "cycle",
                **moment(int(row["time_ns"]), self.source.wall_offset_ns),
                "cycle": number,
                "rss_bytes": rss,
                "swapped_bytes": swapped,
                "heap_live_bytes": live,
                "heap_end_bytes": int(row["heap_end_bytes"]),
                "heap_goal_bytes": known(int(row["heap_goal_bytes"])),
                "rss_over_live": round(rss / live, 4) if live else None,
            }


VIEW = Cycles

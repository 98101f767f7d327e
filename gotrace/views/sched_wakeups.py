"""How long single goroutines waited for a P, to the nanosecond, and for how long they stay on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.histogram import Histogram
from gotrace.export.hdr_log import tag
from gotrace.records.sched import wakeups_record
from gotrace.records.times import moment
from gotrace.views.longest import Longest
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events


class SchedulerWakeups(View):
    """Adds up events; its ``result`` is of all of them. ``top`` is how many of the longest waits are told one by one."""

    name = "sched_wakeups"
    drawn_by = "sched_page"
    stems = ("wakeup",)

    def __init__(self, top: int = 5) -> None:
        self.top = top
        self.waited, self.stays, self.turns = Histogram(), Histogram(), Histogram()
        self.at_once = 0
        self._moves: Counter[tuple[int, int]] = Counter()
        self._movers: set[int] = set()
        self._longest = Longest(top)
        self.result: Record = {}

    @property
    def options(self) -> Record:
        return {"top": self.top}

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        kinds = self.source.kinds("wakeup")
        self._add_waits(kinds.of(events, "ran"))
        moved = kinds.of(events, "moved")
        self.stays.record((moved["time_ns"] - moved["since_ns"]).astype(np.int64))
        self.turns.record(moved["turns"].astype(np.int64))
        self._movers.update(np.unique(moved["goid"]).tolist())
        pairs, counts = np.unique(np.stack([moved["from_p"], moved["to_p"]]), axis=1, return_counts=True)
        for source, target, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
            self._moves[source, target] += count
        yield from ()

    def _add_waits(self, ran: Events) -> None:
        waits = ran["waited_ns"].astype(np.int64)
        self.at_once += int(np.count_nonzero(waits == 0))
        self.waited.record(waits[waits > 0])
        for place in np.argsort(-waits, kind="stable")[: self.top].tolist():
            wait, each = int(waits[place]), ran[place]
            if not wait or not self._longest.wants(wait):
                break
            who = {"goid": int(each["goid"]), "p": int(each["p"])}
            self._longest.add(wait, {**moment(int(each["time_ns"]), self.source.wall_offset_ns), **who, "wait_ns": wait})

    def end(self) -> Iterator[Record]:
        source = self.source
        self.result = {
            "type": self.name,
            **moment(source.now_ns, source.wall_offset_ns),
            "pid": int(source.header["target"]["pid"]),
            "length_ns": int(source.end["duration_ns"]),
            "lost": source.lost,
            **wakeups_record(
                self.waited,
                self.at_once,
                self._longest.records(),
                self._moves,
                len(self._movers),
                (self.turns, self.stays),
            ),
            "missing": {each["name"]: each["reason"] for each in source.header["probes"]["wakeup"]["missing"]},
        }
        yield self.result

    def histograms(self) -> dict[str, Histogram]:
        named = {"waited": self.waited, "stay_on_a_p": self.stays}
        return {tag("goroutine", name): each for name, each in named.items() if each.count}


VIEW = SchedulerWakeups

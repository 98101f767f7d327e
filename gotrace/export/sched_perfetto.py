"""A scheduler's events as a timeline for https://ui.perfetto.dev, of the process that was traced.

Tracks: one for each thread, with every wait for a CPU and after whom it got one; one for each P, with what it stole of
others, with the goroutines that got it after they had waited, or after they had run on another, and with those that had it
while a goroutine waited for long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gotrace.analysis.columns import Kinds, text_of
from gotrace.analysis.who_had_p import NOBODY_HAD_IT
from gotrace.export.perfetto import ProcessTrace
from gotrace.text import duration_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gotrace.kernel.ring import Events

STEMS = ("sched", "wakeup")


class Trace(ProcessTrace):
    """``why`` says of a wait's flags what it came from."""

    def __init__(self, file: BinaryIO, header: dict[str, Any], why: Callable[[int], str]) -> None:
        super().__init__(file, header)
        self._why = why
        self._kinds = {stem: Kinds.of_probe(header, stem) for stem in STEMS if stem in header["probes"]}
        self._tasks: dict[int, str] = {0: "nobody"}  # names, of other processes' threads too
        self._p_of: dict[tuple[int, int], int] = {}  # which one a goroutine got then
        self._had: set[tuple[int, int]] = set()  # turns that are drawn: P, and when they began

    def feed(self, events: Events) -> None:
        """Add events; those of one track come in the order of time."""
        events = events[np.argsort(events["time_ns"], kind="stable")]
        if (kinds := self._kinds.get("sched")) is not None:
            tasks = kinds.of(events, "task")
            for tid, low, high in tasks[["tid", "name_low", "name_high"]].tolist():
                self._tasks[tid] = printable(text_of(low, high))
            self._waits(kinds.of(events, "got_cpu"))
            steals = kinds.of(events, "steal")[["time_ns", "thief", "victim", "taken"]]
            for time_ns, thief, victim, taken in steals.tolist():
                if taken:
                    self.mark(self.p(thief), time_ns, f"took {taken} of P {victim}")
        if (kinds := self._kinds.get("wakeup")) is not None:
            for time_ns, goid, waited, p in kinds.of(events, "ran")[["time_ns", "goid", "waited_ns", "p"]].tolist():
                self._p_of[time_ns, goid] = p
                if waited:
                    self.mark(self.p(p), time_ns, f"goroutine {goid} had waited {duration_text(waited)}")
            for time_ns, goid, old, new in kinds.of(events, "moved")[["time_ns", "goid", "from_p", "to_p"]].tolist():
                self.mark(self.p(new), time_ns, f"goroutine {goid} came from P {old}")
            if "had_p" in kinds:  # since 0.2.0
                self._turns(kinds.of(events, "had_p"))

    def _turns(self, had: Events) -> None:
        """Those on a P do not overlap; several goroutines may have waited for the same."""
        names = ["time_ns", "waiter", "tid", "goid", "startpc", "begin_ns", "end_ns"]
        for time_ns, waiter, tid, goid, why, begin, end in had[names].tolist():
            p = self._p_of.get((time_ns, waiter))
            if p is None or (p, begin) in self._had:
                continue
            self._had.add((p, begin))
            name = f"goroutine {goid}" if goid else NOBODY_HAD_IT[why]
            # The next one begins where this ends, and may be in the file already: its beginning would come before this end.
            self.slice(self.p(p), begin, max(begin, end - 1), name, {"thread": tid})

    def _waits(self, got: Events) -> None:
        names = ("time_ns", "tid", "cpu", "runnable_ns", "holder", "flags")
        for end, tid, cpu, begin, holder, flags in got[list(names)].tolist():
            about = {"cpu": cpu, "after": self._tasks.get(holder, "?")}
            track = self.thread(tid, self._tasks.get(tid, ""))
            self.slice(track, begin, end, f"waits for a CPU: {self._why(flags)}", about)

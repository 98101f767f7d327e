"""The raw events of one process around its long pauses, cut out of the stream while it goes by.

A slice begins where its stop of the world was asked for, and ends a little after the world ran again, or where the next
stop was asked for: it has one pause, and all that was seen of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gotrace.analysis.columns import Array, Kinds, rows

# After a pause: threads that were woken by the restart get their CPUs, and a collection tells how it was.
AFTER_NS = 100_000_000
FOREVER_NS = (1 << 63) - 1

# A stack of a thread that sleeps is told when it falls asleep, which may be long before a stop in which it is asked for.
_STACKS_KEPT = 256


class Slice(NamedTuple):
    """Events of [begin_ns, end_ns), and stacks from before, in CLOCK_MONOTONIC; the pause began at ``start_ns``.

    ``lost`` counts what should be among the events and is not. Not ``whole``: the request to stop was not seen.
    """

    start_ns: int
    begin_ns: int
    end_ns: int
    length_ns: int
    whole: bool
    lost: int
    events: Array


class _Pause(NamedTuple):
    start_ns: int
    begin_ns: int
    end_ns: int
    length_ns: int
    whole: bool


class Evidence:
    """What was seen of one process, for as long as a pause of ``above_ns`` or more may need it.

    ``probes`` are the probes of a session's header. ``offset_ns`` is what the target's clock is ahead of ours.
    """

    def __init__(self, above_ns: int, probes: Mapping[str, Any], offset_ns: int = 0) -> None:
        self.above_ns, self._offset_ns = above_ns, offset_ns
        gc, tail = (Kinds(probes[stem]["kinds"]) for stem in ("gc", "tail"))
        self._gc, self._tail = gc, tail
        self._has_worldstop = bool(probes["gc"]["facts"]["has_worldstop"])
        self._of_gc = np.array(gc.numbers(*probes["gc"]["kinds"]), np.uint16)
        self._stack, self._asked, self._done = (tail.numbers(name)[0] for name in ("stack", "stop_asked", "restart_done"))
        (self._stw,) = gc.numbers("stw")
        self._kept: Array | None = None
        self._pauses: list[_Pause] = []
        self._losses = [(0, 0)]  # how many were lost, by when that was known
        self._cut: list[tuple[int, int, int]] = []  # from when to when how many were left out
        self.size = 0  # events that are kept

    def feed(self, events: Array, lost: int, now_ns: int, most: int) -> Array:
        """Take what came up to ``now_ns``, when ``lost`` were lost so far; keep ``most``. Returns those of the gc probe."""
        kept = events if self._kept is None or not len(self._kept) else np.concatenate([self._kept, events])
        self._losses.append((now_ns, lost))
        for stw in self._gc.of(events, "stw")[["time_ns", "tid", "start_ns"]].tolist():
            self._note(kept, *stw)
        self._keep(kept, most)
        return rows(events, np.isin(events["kind"], self._of_gc))

    def _note(self, kept: Array, end_ns: int, tid: int, start_ns: int) -> None:
        """A stop is over: it is a pause to keep, if it was long."""
        times, kinds = kept["time_ns"], kept["kind"]
        asked_ns = int(times[(kinds == self._asked) & (kept["tid"] == tid) & (times <= end_ns)].max(initial=0))
        if self._has_worldstop:
            start_ns -= self._offset_ns
        else:  # by the probe's clock
            start_ns = start_ns or asked_ns or end_ns
        length_ns = end_ns - start_ns  # until the world runs again
        if length_ns >= self.above_ns:
            over = np.isin(kinds, (self._done, self._stw)) & (times > asked_ns) & (times < start_ns)
            whole = asked_ns > 0 and not over.any()
            self._pauses.append(_Pause(start_ns, asked_ns if whole else start_ns, end_ns, length_ns, whole))

    def _under_way(self, kept: Array) -> int:
        """Since when the world is being stopped; `FOREVER_NS` if it is not."""
        asked = kept["time_ns"][kept["kind"] == self._asked].max(initial=0)
        over = kept["time_ns"][np.isin(kept["kind"], (self._done, self._stw))].max(initial=0)
        return int(asked) if asked > over else FOREVER_NS

    def _keep(self, kept: Array, most: int) -> None:
        since_ns = min([self._under_way(kept), *(pause.begin_ns for pause in self._pauses)])
        wanted = kept["time_ns"] >= since_ns
        wanted[np.flatnonzero(kept["kind"] == self._stack)[-_STACKS_KEPT:]] = True
        kept = rows(kept, wanted)
        if (surplus := len(kept) - most) > 0:  # how it began and what was last tell most
            middle = kept["time_ns"][most // 2 : most // 2 + surplus]
            self._cut.append((int(middle.min()), int(middle.max()), surplus))
            kept = np.concatenate([kept[: most // 2], kept[most // 2 + surplus :]])
        if since_ns == FOREVER_NS:
            self._losses, self._cut = self._losses[-1:], []
        self._kept, self.size = kept, len(kept)

    def due(self, now_ns: int) -> list[Slice]:
        """The slices of which everything has come by ``now_ns``."""
        found = []
        over = [each for each in self._pauses if each.end_ns + AFTER_NS <= now_ns]
        for pause in over:
            assert self._kept is not None
            self._pauses.remove(pause)
            times, kinds = self._kept["time_ns"], self._kept["kind"]
            next_ns = times[(kinds == self._asked) & (times > pause.end_ns)].min(initial=np.uint64(FOREVER_NS))
            end_ns = min(int(next_ns), pause.end_ns + AFTER_NS, now_ns)
            within = (times >= pause.begin_ns) & (times < end_ns)
            asked_for = self._tail.of(rows(self._kept, within), "off_cpu")
            wanted = np.concatenate([asked_for["stack"], asked_for["kernel_stack"]])
            numbers = self._tail.named(self._kept, "stack")["stack"]
            stacks = (kinds == self._stack) & (times < pause.begin_ns) & np.isin(numbers, wanted)
            before = [lost for when, lost in self._losses if when < pause.begin_ns] or [self._losses[0][1]]
            after = [lost for when, lost in self._losses if when >= end_ns] or [self._losses[-1][1]]
            lost = after[0] - before[-1]
            lost += sum(count for first, last, count in self._cut if last >= pause.begin_ns and first < end_ns)
            events = rows(self._kept, within | stacks)
            found.append(Slice(pause.start_ns, pause.begin_ns, end_ns, pause.length_ns, pause.whole, lost, events))
        if over and self._kept is not None:
            self._keep(self._kept, self.size)
        return found

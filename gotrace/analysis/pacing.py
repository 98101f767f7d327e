"""Why collections are as frequent as they are: what set the heap goals, how much room they left, what filled it.

All of it are the runtime's own numbers, as `gotrace.analysis.pauses.CYCLE` has them; only rates and means are computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gotrace.analysis.columns import Array, rows
from gotrace.analysis.pauses import GOAL_SETTERS, NO_LIMIT, NOT_READ, TRIGGERS, UNKNOWN
from gotrace.text import bytes_text, count_text, duration_text

_, MINIMUM, GOMEMLIMIT, _ = GOAL_SETTERS
NOT_SEEN = "unknown"
_HEAP = TRIGGERS.index("heap")
_MOVED_UP = 1.25  # times as much room as GOGC leaves: less comes from 64 KiB that every goal has above its trigger


@dataclass
class Room:
    """Of cycles whose goal one of `GOAL_SETTERS` set: how many, and sums over them in bytes."""

    cycles: int = 0
    room: int = 0
    live: int = 0  # after the cycle before


@dataclass
class Pacing:
    """Adds up cycles. What was set, and what counted towards the limit, is of the last one; UNKNOWN, NOT_READ as there.

    ``goals`` has, by who set their goals, the cycles that began because the heap had grown. ``allocated`` bytes and
    ``allocated_ns`` are of all cycles whose predecessor was seen. ``returned`` and ``scavenge_assist_ns`` are what
    happened from the first cycle's end to the last one's.
    """

    gc_percent: int = NOT_READ
    memory_limit: int = UNKNOWN
    heap_minimum: int = UNKNOWN
    counted: int = UNKNOWN
    percent_room: int = UNKNOWN  # what GOGC alone leaves the cycle after the last one
    percent_cycles: int = 0  # after how many cycles GOGC leaves something
    percent_rooms: int = 0  # the sum of it
    changed: bool = False  # what was set did
    goals: dict[str, Room] = field(default_factory=dict)
    allocated: int = 0
    allocated_ns: int = 0
    over_limit: int = 0  # cycles at whose end more was counted than the limit
    limiter_cycles: int = 0  # in which the limiter came on
    limiter_last: int = UNKNOWN
    _first: Array | None = None
    _last: Array | None = None

    def add(self, cycles: Array) -> None:
        """``cycles`` as of `gotrace.analysis.pauses.CYCLE`, in their order."""
        if not len(cycles):
            return
        read = rows(cycles, cycles["gc_percent"] != NOT_READ)
        if len(read):
            self._settings(read)
        for setter in (UNKNOWN, *range(len(GOAL_SETTERS))):
            of_it = rows(cycles, (cycles["trigger"] == _HEAP) & (cycles["goal_set_by"] == setter))
            if len(of_it):
                found = self.goals.setdefault(NOT_SEEN if setter == UNKNOWN else GOAL_SETTERS[setter], Room())
                found.cycles += len(of_it)
                found.room += int(of_it["room_bytes"].sum())
                found.live += int((of_it["heap_end_bytes"] - of_it["allocated_bytes"]).sum())
        self._allocations(cycles)
        self._last = cycles[-1:].copy()

    def _settings(self, cycles: Array) -> None:
        limits, percents = cycles["memory_limit_bytes"], cycles["gc_percent"]
        last = cycles[-1]
        known = self.gc_percent != NOT_READ
        before = (self.gc_percent, self.memory_limit) if known else (int(percents[0]), int(limits[0]))
        self.changed |= bool((percents != before[0]).any() or (limits != before[1]).any())
        self.gc_percent, self.memory_limit = int(last["gc_percent"]), int(last["memory_limit_bytes"])
        self.heap_minimum, self.counted = int(last["heap_minimum_bytes"]), int(last["counted_bytes"])
        goal = int(last["percent_goal_bytes"])
        self.percent_room = NO_LIMIT if goal == NO_LIMIT else goal - int(last["heap_live_bytes"])
        left = rows(cycles, cycles["percent_goal_bytes"] != NO_LIMIT)
        self.percent_cycles += len(left)
        self.percent_rooms += int(np.maximum(left["percent_goal_bytes"] - left["heap_live_bytes"], 0).sum())
        self.over_limit += int((cycles["counted_bytes"] > limits).sum())
        self.limiter_cycles += int((cycles["limiter_cycle"] == cycles["cycle"]).sum())
        self.limiter_last = int(last["limiter_cycle"])
        self._first = cycles[:1].copy() if self._first is None else self._first

    def _allocations(self, cycles: Array) -> None:
        begins = cycles["end_ns"][:-1]
        begins = np.concatenate([cycles["end_ns"][:1] if self._last is None else self._last["end_ns"], begins])
        known = (cycles["allocated_bytes"] != UNKNOWN) & (cycles["end_ns"] > begins)
        self.allocated += int(cycles["allocated_bytes"][known].sum())
        self.allocated_ns += int((cycles["end_ns"] - begins)[known].sum())

    def by_percent(self, room: float) -> float:
        """How much of the mean ``room`` GOGC alone leaves: all of it, unless the runtime moves goals up.

        It does so to sweep before the next cycle begins: `sweepMinHeapDistance` of runtime/mgc.go, 1 MiB.
        """
        alone = self.percent_rooms / self.percent_cycles if self.percent_cycles else room
        return alone if room > _MOVED_UP * alone else room

    def since_first(self, column: str) -> int | None:
        """By how much one of what the runtime adds up has grown from the first cycle's end to the last one's, if known."""
        if self._first is None or self._last is None:
            return None
        first, last = int(self._first[column][0]), int(self._last[column][0])
        return None if UNKNOWN in (first, last) else last - first

    @property
    def rate(self) -> float | None:
        """Bytes allocated a second, by the pacer's count; None if no two cycles followed one another.

        It counts a span in full as soon as a P takes it: up to a span of each size class and P more in each cycle.
        """
        return self.allocated * 1e9 / self.allocated_ns if self.allocated_ns else None

    def leading(self) -> tuple[str, Room] | None:
        """Who set most of the goals that are known."""
        known = {name: room for name, room in self.goals.items() if name != NOT_SEEN}
        return max(known.items(), key=lambda item: item[1].cycles) if known else None

    @property
    def grown(self) -> int:
        """How many cycles began because the heap had grown."""
        return sum(room.cycles for room in self.goals.values())


def percent_text(gc_percent: int) -> str:
    """GOGC as it is set."""
    return "unknown" if gc_percent == NOT_READ else "off" if gc_percent < 0 else str(gc_percent)


def limit_text(size: int) -> str:
    """GOMEMLIMIT as it is set."""
    return "unknown" if size == UNKNOWN else "off" if size == NO_LIMIT else bytes_text(size)


def sentences(pacing: Pacing) -> list[str]:
    """Why collections are as frequent or dear as they are, with the evidence; none if none began by the heap's growth."""
    found = pacing.leading()
    told = []
    if found is not None:
        who, room = found
        told.append(_goal(pacing, who, room))
        limited = pacing.goals.get(GOMEMLIMIT)
        if who != GOMEMLIMIT and limited is not None:
            told.append(f"GOMEMLIMIT set the goal of {count_text(limited.cycles, 'other')}.")
    elif pacing.goals:
        told.append(
            "What set the goals is unknown: no cycle was seen in full, from the end of the previous one to its own."
        )
    if pacing.over_limit:
        told.append(
            f"At the end of {count_text(pacing.over_limit, 'cycle')} memory in use exceeded GOMEMLIMIT"
            f"{'' if pacing.changed else f' ({limit_text(pacing.memory_limit)})'}."
        )
    if pacing.over_limit or GOMEMLIMIT in pacing.goals:
        told.append(_returned(pacing))
    if pacing.limiter_cycles:
        told.append(
            f"The GC CPU limiter was active in {count_text(pacing.limiter_cycles, 'cycle')}: the "
            "collector used more than half of the CPU time, so the runtime let the heap exceed its goal."
        )
    return told


def _goal(pacing: Pacing, who: str, room: Room) -> str:
    mean_room, mean_live = (size / room.cycles for size in (room.room, room.live))
    left = f"room for {bytes_text(mean_room)}" if mean_room >= 1 else "no room"
    leaves = f"{left} above the live heap of {bytes_text(mean_live)}"
    # Where they changed, no one value stands for all cycles.
    gogc = "GOGC" if pacing.changed else f"GOGC {percent_text(pacing.gc_percent)}"
    which = f"{room.cycles} of {pacing.grown}" if room.cycles < pacing.grown else f"all {pacing.grown}"
    share = f"of {which} cycles triggered by heap growth" if pacing.grown > 1 else "of the cycle triggered by heap growth"
    if who == GOMEMLIMIT:
        limit = "" if pacing.changed else f" {limit_text(pacing.memory_limit)}"
        alone = f", {gogc} alone would leave {bytes_text(max(0, pacing.percent_room))}"
        if pacing.changed or pacing.percent_room == NO_LIMIT:
            alone = ""
        text = f"GOMEMLIMIT{limit} set the goal {share}: it leaves {leaves}{alone}"
    elif (by_gogc := pacing.by_percent(mean_room)) < mean_room and not pacing.changed:
        least = f"The heap is so small that {gogc} gives it the minimum goal, {bytes_text(pacing.heap_minimum)}, which"
        text = (
            f"{least if who == MINIMUM else gogc} would leave room for {bytes_text(by_gogc)} above the live heap of "
            f"{bytes_text(mean_live)}, but the runtime moved the goal {share} up to {bytes_text(mean_room)} above it, to "
            "leave time for sweeping"
        )
    elif who == MINIMUM:
        least = "" if pacing.changed else f", {bytes_text(pacing.heap_minimum)}"
        text = f"The heap is so small that the goal {share} was the minimum for {gogc}{least}: it leaves {leaves}"
    else:
        text = f"{gogc} set the goal {share}: it leaves {leaves}"
    if not pacing.rate:
        return f"{text}."
    fills = f", which fills that in {duration_text(mean_room * 1e9 / pacing.rate)}" if mean_room >= 1 else ""
    return f"{text}. By the pacer's count, the program allocates {bytes_text(pacing.rate)}/s{fills}."


def _returned(pacing: Pacing) -> str:
    returned, took = pacing.since_first("returned_bytes"), pacing.since_first("scavenge_assist_ns")
    if returned is None:
        return "How much memory allocations had to return to the kernel first is unknown."
    if not returned:
        return "No allocation had to return memory to the kernel first."
    took_text = "" if took is None else f", which cost {duration_text(took)} of CPU time"
    return f"Allocations returned {bytes_text(returned)} to the kernel before they could continue{took_text}."

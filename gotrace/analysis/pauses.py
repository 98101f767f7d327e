"""From raw GC events to pauses, cycles and sweeps: structured arrays, all times in CLOCK_MONOTONIC nanoseconds.

The numbers are the runtime's own wherever it keeps them; what each means, and between which two moments it is taken,
is said at the columns below.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import Array, Kinds, distinct, joined, rows

UNKNOWN = -1
_CLOCK_SKEW_NS = 1000  # two CPUs' clocks are never seen further apart than this

PAUSE = np.dtype(
    [
        ("start_ns", "<i8"),  # stopping began: worldStop.startedStopping; up to Go 1.21 work.pauseStart
        ("stopping_ns", "<i8"),  # until every P had stopped; UNKNOWN where the runtime keeps no stamp
        ("stopped_ns", "<i8"),  # from there to the end the runtime reports; UNKNOWN likewise
        ("total_ns", "<i8"),  # what the runtime adds to MemStats.PauseNs or /sched/pauses/total
        ("restart_lag_ns", "<i8"),  # how much later than the reported end the world actually ran
        ("reason", "<i4"),  # index into GcDecoder.reasons
        ("cycle", "<i8"),  # work.cycles for a collection's pauses, UNKNOWN for others
        ("goid", "<i8"),  # the goroutine that stopped the world, UNKNOWN where its offset is not known
        ("tid", "<i4"),
        ("probe_clock", "?"),  # start_ns is the probe's own time, not the runtime's
    ]
)

CYCLE = np.dtype(
    [
        ("time_ns", "<i8"),  # when the world ran again
        ("cycle", "<i8"),
        ("trigger", "<i1"),  # index into TRIGGERS, UNKNOWN if its beginning was not seen
        ("sweep_termination_ns", "<i8"),  # gctrace's three clock columns
        ("mark_ns", "<i8"),
        ("mark_termination_ns", "<i8"),
        ("end_ns", "<i8"),  # work.tEnd, when sweeping begins
        ("pause_ns", "<i8"),  # MemStats.PauseNs of this cycle
        ("assist_ns", "<i8"),  # CPU time of mark assists, gctrace's first of three in the second cpu column, or UNKNOWN
        ("heap_start_bytes", "<i8"),  # gctrace's a->b->c and goal
        ("heap_end_bytes", "<i8"),
        ("heap_live_bytes", "<i8"),
        ("heap_goal_bytes", "<i8"),  # or UNKNOWN
        ("maxprocs", "<i4"),
        # What was set when it ended, in gcController: GOGC (-1: off; NOT_READ) and GOMEMLIMIT (NO_LIMIT: off).
        ("gc_percent", "<i4"),
        ("memory_limit_bytes", "<i8"),
        ("heap_minimum_bytes", "<i8"),  # the least goal that GOGC gives: 4 MiB * GOGC / 100
        ("percent_goal_bytes", "<i8"),  # the goal that GOGC alone gives the next cycle; NO_LIMIT: none
        ("counted_bytes", "<i8"),  # what counted towards GOMEMLIMIT when it ended
        ("returned_bytes", "<i8"),  # since the program began, what allocations returned to the kernel before going on
        ("scavenge_assist_ns", "<i8"),  # and the CPU time that took them
        ("limiter_cycle", "<i8"),  # the last cycle in which the GC CPU limiter came on; 0: none
        ("goal_set_by", "<i1"),  # index into GOAL_SETTERS, UNKNOWN where the cycle before was not seen
        ("room_bytes", "<i8"),  # from what was live after the cycle before up to the goal, UNKNOWN likewise
        ("allocated_bytes", "<i8"),  # from there to the end of marking: what was allocated
    ]
)

SWEEP = np.dtype([("time_ns", "<i8"), ("cycle", "<i8"), ("sweep_ns", "<i8")])

NOT_READ = -2  # in place of a GOGC
NO_LIMIT = (1 << 63) - 1

GOAL_SETTERS = ("GOGC", "minimum heap", "GOMEMLIMIT", "nothing")
_GOGC, _MINIMUM, _GOMEMLIMIT, _NOTHING = range(4)

TRIGGERS = ("heap", "periodic", "forced")
_HEAP, _PERIODIC, _FORCED = range(3)

SWEEP_TERMINATION, MARK_TERMINATION = "GC sweep termination", "GC mark termination"
# "gcing" is what Go 1.20 and older keep in m.preemptoff during a mark termination (and nothing in a sweep termination).
_COLLECTIONS = (SWEEP_TERMINATION, MARK_TERMINATION, "gcing")


def gogc_text(percent: int) -> str | None:
    """What GOGC a cycle's ``gc_percent`` is: "off" or a number; None where it was not read."""
    return None if percent == NOT_READ else "off" if percent < 0 else str(percent)


def stood_ns(pauses: Array) -> Array:
    """How long each of `PAUSE` was, until the world ran again."""
    lengths: Array = pauses["total_ns"] + np.maximum(0, pauses["restart_lag_ns"])
    return lengths


_LIMIT_COLUMNS = {
    "counted_bytes": "counted",
    "returned_bytes": "returned",
    "scavenge_assist_ns": "scavenge_assist_ns",
    "limiter_cycle": "limiter_cycle",
}


def _no_cycle() -> Array:
    """A row of `CYCLE` that is before none."""
    row = np.zeros(1, CYCLE)
    row["cycle"] = UNKNOWN - 1
    return row


def _goals(before: Array, cycles: Array) -> tuple[Array, Array, Array]:
    """What set the goal of each of ``cycles`` (``before``: that before it), its room and what was allocated.

    The runtime takes the least of two goals: that of GOGC, fixed when the cycle before ended, or anew by
    debug.SetGCPercent, and that of GOMEMLIMIT. So one below the former is the latter's. One above is the former's, moved
    up by what the runtime leaves itself for sweeping.
    """
    seen = before["cycle"] == cycles["cycle"] - 1
    goal, by_percent = cycles["heap_goal_bytes"], before["percent_goal_bytes"]
    same = (before["gc_percent"] == cycles["gc_percent"]) & (cycles["gc_percent"] != NOT_READ)
    setters = np.select(
        [
            ~seen | ~same | (goal == UNKNOWN) | (by_percent == UNKNOWN),
            (by_percent == NO_LIMIT) & (cycles["memory_limit_bytes"] == NO_LIMIT),
            goal < by_percent,
            by_percent <= before["heap_minimum_bytes"],
        ],
        [UNKNOWN, _NOTHING, _GOMEMLIMIT, _MINIMUM],
        _GOGC,
    )
    live = before["heap_live_bytes"]
    room = np.where(seen & (goal != UNKNOWN), np.maximum(goal - live, 0), UNKNOWN)
    allocated = np.where(seen, np.maximum(cycles["heap_end_bytes"] - live, 0), UNKNOWN)
    return setters, room, allocated


@dataclass
class Batch:
    """What one call of `GcDecoder.feed` completed, each oldest first.

    ``at`` holds for each of the three, ascending, which of the events given to that call completed it.
    """

    pauses: Array
    cycles: Array
    sweeps: Array
    at: tuple[Array, Array, Array]

    def part(self, begin: int, end: int) -> Batch:
        """What was completed by the events from number ``begin`` up to, and without, number ``end``."""
        bounds = [slice(*np.searchsorted(at, (begin, end)).tolist()) for at in self.at]
        pauses, cycles, sweeps = bounds
        at = (self.at[0][pauses], self.at[1][cycles], self.at[2][sweeps])
        return Batch(self.pauses[pauses], self.cycles[cycles], self.sweeps[sweeps], at)


@dataclass(frozen=True)
class WireFormat:
    """The probe's kinds, and the numbers of its flags."""

    kinds: Kinds
    worldstop: int
    forcegc_goroutine: int
    asked: int
    user_forced: int


class _Stop(NamedTuple):
    """An event of a stop, as Go 1.21 or older has it."""

    time_ns: int
    tid: int
    start_ns: int
    now_ns: int
    word: int
    flags: int


class _Work(NamedTuple):
    """What was in `work` then; ``reason`` is where the words are, in 48 bits, and how many."""

    time_ns: int
    tid: int
    reason: int
    pause_start: int
    end: int
    mark_term: int
    sweep_term: int


class _ByCycle:
    """A number for each cycle, until the cycle is forgotten."""

    def __init__(self) -> None:
        self._cycles = self._values = np.zeros(0, np.int64)

    def add(self, cycles: Array, values: Array) -> None:
        if len(cycles):
            self._cycles = np.concatenate([self._cycles, cycles.astype(np.int64)])
            self._values = np.concatenate([self._values, values.astype(np.int64)])

    def of(self, cycles: Array) -> Array:
        """The number last added for each of ``cycles``, UNKNOWN where there is none."""
        if not len(self._cycles):
            return np.full(len(cycles), UNKNOWN, np.int64)
        order = np.argsort(self._cycles, kind="stable")
        places = np.searchsorted(self._cycles, cycles.astype(np.int64), "right", order) - 1
        at = order[np.maximum(places, 0)]
        return np.where((places >= 0) & (self._cycles[at] == cycles), self._values[at], UNKNOWN)

    def forget(self, before: int) -> None:
        """Drop the cycles that come before ``before``."""
        if len(self._cycles):
            kept = self._cycles >= before
            self._cycles, self._values = self._cycles[kept], self._values[kept]


@dataclass
class GcDecoder:
    """Turns batches of raw events into pauses, cycles and sweeps; holds what the next batch has to complete.

    ``reason_words`` maps the runtime's stwReason to its words; ``read_string(address, length)`` gives the words that a
    Go release without stwReason (1.20 and older) points to. ``has_worldstop`` is false up to Go 1.21.
    ``clock_offset_ns`` is what the target's time namespace adds to CLOCK_MONOTONIC: its time stamps are brought back to
    the host's clock. ``reasons`` are the words that a pause's reason is an index into.

    ``incomplete`` counts events whose other half was lost.
    """

    wire: WireFormat
    reason_words: dict[int, str]
    read_string: Any
    knows_forced: bool = True
    knows_goid: bool = True
    has_worldstop: bool = True
    clock_offset_ns: int = 0
    incomplete: int = 0
    reasons: list[str] = field(default_factory=list)
    _read: dict[int, str] = field(default_factory=dict)
    _pending: Array | None = None
    _fresh: int = 0
    _last_cycle: int = UNKNOWN
    _cycle_before: Array = field(default_factory=_no_cycle)
    _last_pause_start: int = 0
    _last_swept: int = UNKNOWN
    _triggers: _ByCycle = field(default_factory=_ByCycle)
    _ended: _ByCycle = field(default_factory=_ByCycle)

    def feed(self, events: Array) -> Batch:
        """Decode ``events`` (the ring's dtype) together with what earlier batches left over."""
        ours = np.flatnonzero(self.wire.kinds.ours(events))
        if len(ours) < len(events):
            events = events.take(ours)
        held = 0 if self._pending is None else len(self._pending)
        everything = events if self._pending is None or not held else joined([self._pending, events])
        used = np.zeros(len(everything), bool)
        kinds = np.ascontiguousarray(everything["kind"])
        pauses, pauses_at = self._pauses(everything, kinds, used)
        cycles, cycles_at = self._cycles(everything, kinds, used)
        sweeps, sweeps_at = self._sweeps(everything, kinds, used)
        # An event that found no partner in two batches never will: the halves are emitted back to back.
        stale = ~used[:held]
        self.incomplete += int(stale.sum())
        self._pending = rows(everything[held:], ~used[held:])
        # Taken back to places in what was given; the last of an event's parts is never one that was held.
        at = [ours[np.maximum.accumulate(each) - held] for each in (pauses_at, cycles_at, sweeps_at)]
        return Batch(pauses, cycles, sweeps, (at[0], at[1], at[2]))

    def _words(self, string: int) -> str:
        """What a string constant of the target says: each is read once."""
        if string not in self._read:
            self._read[string] = self.read_string(string & ((1 << 48) - 1), string >> 48) or "unknown"
        return self._read[string]

    def reason_id(self, words: str) -> int:
        if words not in self.reasons:
            self.reasons.append(words)
        return self.reasons.index(words)

    def _pauses(self, events: Array, kinds: Array, used: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
        of = self.wire.kinds
        is_stw = kinds == of.number("stw")
        stw = of.named(rows(events, is_stw), "stw")
        flags = (stw["word"] >> 8) & 0xFF
        modern = (flags & self.wire.worldstop) != 0
        # Up to Go 1.21 each has a companion with the times in `work`.
        works = np.flatnonzero(kinds == of.number("stw_work"))
        out = np.zeros(len(stw), PAUSE)
        keep = np.ones(len(stw), bool)
        positions = np.flatnonzero(is_stw)

        start, finish, now = (stw[name].astype(np.int64) for name in ("start_ns", "finish_ns", "now_ns"))
        known = (finish >= start) & (finish <= now) & (finish > 0)
        out["start_ns"] = start - self.clock_offset_ns
        out["total_ns"] = now - start
        out["stopping_ns"] = np.where(known, finish - start, UNKNOWN)
        out["stopped_ns"] = np.where(known, now - finish, UNKNOWN)
        out["restart_lag_ns"] = stw["time_ns"].astype(np.int64) - (now - self.clock_offset_ns)
        out["goid"] = stw["goid"].astype(np.int64) if self.knows_goid else UNKNOWN
        out["tid"] = stw["tid"]
        out["cycle"] = stw["word"] >> 32
        codes = (stw["word"] & 0xFF).astype(int)
        for code in distinct(codes[modern]):
            words = self.reason_words.get(int(code), f"stwReason {int(code)}")
            out["reason"][codes == code] = self.reason_id(words)

        if self.has_worldstop:
            keep &= modern  # the others: the stop that was under way while the probes were attached
            used[works] = True
        old = np.flatnonzero(keep & ~modern)
        if len(old):
            companions = of.named(events.take(works), "stw_work")
            keep[old], with_them = self._old_pauses(out, old, stw.take(old), flags.take(old), companions)
            used[works[with_them]] = True

        # Numbers that cannot be times of one pause are no pause: an unknown Go release may pass them differently.
        sane = (out["total_ns"] >= 0) & (out["start_ns"] > 0) & (out["restart_lag_ns"] >= -_CLOCK_SKEW_NS)
        self.incomplete += int((keep & ~sane).sum())
        keep &= sane

        is_gc = np.isin(out["reason"], [self.reason_id(SWEEP_TERMINATION), self.reason_id(MARK_TERMINATION)])
        sweep_term = keep & (out["reason"] == self.reason_id(SWEEP_TERMINATION))
        self._triggers.add(out["cycle"][sweep_term], self._trigger(flags[sweep_term]))
        out["cycle"][~is_gc | (out["cycle"] == 0)] = UNKNOWN
        used[positions] = True
        return rows(out, keep), positions[keep]

    def _old_pauses(self, out: Array, old: Array, stw: Array, flags: Array, works: Array) -> tuple[list[bool], list[int]]:
        """Complete the pauses ``old`` of Go 1.21 or older in place; whether something can be said about each, and which of
        ``works`` belong to one."""
        rows_of = zip(*(works[name].tolist() for name in _Work._fields), strict=True)
        companion = {each[:2]: (number, _Work(*each)) for number, each in enumerate(rows_of)}
        known, used = [], []
        columns = (stw[name].tolist() for name in _Stop._fields[:-1])
        for at, *each in zip(old.tolist(), *columns, flags.tolist(), strict=True):
            stop = _Stop(*each)
            number, work = companion.pop((stop.time_ns, stop.tid), (UNKNOWN, None))
            if work is not None:
                used.append(number)
            found = self._old_pause(stop, work)
            if found is not None:
                out["reason"][at], out["start_ns"][at], out["total_ns"][at], out["probe_clock"][at] = found[:4]
                if found[4] is not None:
                    out["restart_lag_ns"][at] = found[4]
            known.append(found is not None)
        out["stopping_ns"][old] = out["stopped_ns"][old] = UNKNOWN
        return known, used

    def _old_pause(self, stw: _Stop, work: _Work | None) -> tuple[int, int, int, bool, int | None] | None:
        """(reason, start, total, whether by our own clock, restart lag if it is not from ``now``), or None.

        Up to Go 1.21 a collection's pause is [work.pauseStart, end], the end being work.tEnd for a mark termination that
        was final and the restart's own time otherwise. Any other stop has only our time of the request.
        """
        code = stw.word & 0xFF
        asked = bool(stw.flags & self.wire.asked)
        string = 0 if work is None else work.reason
        words = self.reason_words.get(code, f"stwReason {code}")
        if string:
            words = self._words(string)
        if asked and words not in _COLLECTIONS and (string or code):
            start = stw.start_ns  # our own clock, so without the time namespace's offset
            return self.reason_id(words), start, stw.now_ns - self.clock_offset_ns - start, True, None
        if work is None:
            self.incomplete += 1
            return None
        start, end, terminating = work.pause_start, work.end, work.mark_term
        final = start == terminating and end >= start
        if not final and start not in (work.sweep_term, terminating):
            return None
        if start <= self._last_pause_start and not asked:
            return None  # a stop whose request was not seen, after the collection we already know
        self._last_pause_start = start
        finished = end if final else stw.now_ns
        reason = self.reason_id(MARK_TERMINATION if start == terminating else SWEEP_TERMINATION)
        own_start = start - self.clock_offset_ns
        return reason, own_start, finished - start, False, stw.time_ns - (finished - self.clock_offset_ns)

    def _cycles(self, events: Array, kinds: Array, used: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
        parts = ("cycle_clock", "cycle_heap", "cycle_work")
        at = [np.flatnonzero(kinds == number) for number in self.wire.kinds.numbers(*parts)]
        times = [events["time_ns"][indices] for indices in at]
        if not all(np.array_equal(times[0], stamps) for stamps in times):
            complete = functools.reduce(np.intersect1d, times)
            at = [indices[np.searchsorted(stamps, complete)] for indices, stamps in zip(at, times, strict=True)]
        for indices in at:
            used[indices] = True
        stamped = events["time_ns"].take(at[0])
        pacing, limit = (self._beside(events, kinds, used, stamped, name) for name in ("cycle_pacing", "cycle_limit"))
        clock, heap, work = (
            self.wire.kinds.named(events.take(indices), name) for indices, name in zip(at, parts, strict=True)
        )
        # A probe on a conditional branch (ARM64, Go 1.19) fires again when the stack grows: the first one counts.
        numbers = clock["cycle"].astype(np.int64)
        fresh = np.ones(len(numbers), bool)
        fresh[1:] = numbers[1:] != numbers[:-1]
        if len(fresh):
            fresh[0] = numbers[0] != self._last_cycle
            self._last_cycle = int(numbers[-1])
        stamps = np.stack([clock[name].astype(np.int64) for name in ("sweep_term", "mark", "mark_term", "end")])
        sane = (np.diff(stamps, axis=0) >= 0).all(axis=0) & (stamps[0] > 0)
        self.incomplete += int((fresh & ~sane).sum())
        fresh &= sane
        completed = functools.reduce(np.maximum, at)[fresh]
        clock, heap, work, stamps = rows(clock, fresh), rows(heap, fresh), rows(work, fresh), stamps[:, fresh]
        out = np.zeros(len(clock), CYCLE)
        out["time_ns"] = clock["time_ns"]
        out["cycle"] = clock["cycle"]
        out["sweep_termination_ns"] = stamps[1] - stamps[0]
        out["mark_ns"] = stamps[2] - stamps[1]
        out["mark_termination_ns"] = stamps[3] - stamps[2]
        out["end_ns"] = stamps[3] - self.clock_offset_ns
        for name in ("start_bytes", "end_bytes", "live_bytes", "goal_bytes"):
            out[f"heap_{name}"] = heap[name]
        for name in ("pause_ns", "assist_ns", "maxprocs"):
            out[name] = work[name]
        self._pacing(out, (pacing[0][fresh], rows(pacing[1], fresh)), (limit[0][fresh], rows(limit[1], fresh)))
        out["trigger"] = self._triggers.of(out["cycle"])
        self._triggers.forget(self._last_cycle + 1)
        self._ended.add(out["cycle"], out["end_ns"])
        return out, completed

    def _beside(
        self, events: Array, kinds: Array, used: npt.NDArray[np.bool_], times: Array, name: str
    ) -> tuple[npt.NDArray[np.bool_], Array]:
        """The events of a kind that came with those at ``times``, and for which of these there is one.

        Version 0.1.0 has none, and a session where its fields are not known.
        """
        there = np.zeros(len(times), bool)
        at = np.flatnonzero(kinds == self.wire.kinds.number(name)) if name in self.wire.kinds else np.zeros(0, np.int64)
        if not len(at) or not len(times):
            return there, np.zeros(len(times), events.dtype)
        places = np.minimum(np.searchsorted(events["time_ns"].take(at), times), len(at) - 1)
        found = at[places]
        there = events["time_ns"].take(found) == times
        used[found[there]] = True
        return there, self.wire.kinds.named(events.take(found), name)

    def _pacing(self, out: Array, pacing: tuple[Array, Array], limit: tuple[Array, Array]) -> None:
        """Fill in what was set when each cycle ended, and what its own goal came from."""
        for name in ("memory_limit", "heap_minimum", "percent_goal"):
            values = np.minimum(pacing[1][name], np.uint64(NO_LIMIT)).astype(np.int64) if pacing[0].any() else UNKNOWN
            out[f"{name}_bytes"] = np.where(pacing[0], values, UNKNOWN)
        percent = pacing[1]["gc_percent"].astype(np.uint32).view(np.int32) if pacing[0].any() else NOT_READ
        out["gc_percent"] = np.where(pacing[0], percent, NOT_READ)
        for name, column in _LIMIT_COLUMNS.items():
            out[name] = np.where(limit[0], limit[1][column].astype(np.int64), UNKNOWN) if limit[0].any() else UNKNOWN
        if not len(out):
            return
        before = joined([self._cycle_before, out])[:-1]
        out["goal_set_by"], out["room_bytes"], out["allocated_bytes"] = _goals(before, out)
        self._cycle_before = out[-1:].copy()

    def _trigger(self, flags: Array) -> Array:
        """What began a collection, from its sweep termination: only then is userForced surely this cycle's own."""
        otherwise = _HEAP if self.knows_forced and self.knows_goid else UNKNOWN
        periodic = np.where(flags & self.wire.forcegc_goroutine, _PERIODIC, otherwise)
        return np.where(flags & self.wire.user_forced, _FORCED, periodic)

    def _sweeps(self, events: Array, kinds: Array, used: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
        positions = np.flatnonzero(kinds == self.wire.kinds.number("sweep_end"))
        used[positions] = True
        # One that comes before its cycle's end is the sweeper going to sleep late: the next cycle's sweep termination
        # has done the rest of its work already.
        ends = self.wire.kinds.named(events.take(positions), "sweep_end")
        cycles, when = ends["cycle"].astype(np.int64), ends["time_ns"].astype(np.int64)
        ended = self._ended.of(cycles)
        at = np.flatnonzero((ended != UNKNOWN) & (when > ended) & (cycles > self._last_swept))
        cycles, first = np.unique(cycles[at], return_index=True)
        at = at[first]
        out = np.zeros(len(at), SWEEP)
        out["time_ns"], out["cycle"], out["sweep_ns"] = when[at], cycles, when[at] - ended[at]
        self._last_swept = int(cycles.max(initial=self._last_swept))
        self._ended.forget(self._last_cycle)
        return out, positions[at]

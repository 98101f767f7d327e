"""The records of `gotrace.views.gc`: one per pause and cycle, a start and a summary around them, and their schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypedDict

from gotrace.analysis.assists import Assists
from gotrace.analysis.causes import CLASSES, NO_P, Explainer, Explanation, asking, class_sums, sentence
from gotrace.analysis.columns import Array
from gotrace.analysis.gc_summary import GcSummary, statistics
from gotrace.analysis.pacing import NOT_SEEN, Pacing, sentences
from gotrace.analysis.pauses import (
    GOAL_SETTERS,
    MARK_TERMINATION,
    NOT_READ,
    SWEEP_TERMINATION,
    TRIGGERS,
    UNKNOWN,
    Batch,
)
from gotrace.arch import BY_GOARCH
from gotrace.records.advice import WithAdvice
from gotrace.records.heap import Allocated
from gotrace.records.schema import Keys, OneOf
from gotrace.records.times import Moment, moment
from gotrace.records.watched import Counted
from gotrace.text import duration_text, printable

SCHEMA_VERSION = 1

# The type of the one record that is not JSON: it holds the histograms of an interval.
INTERVAL = "interval"

# What may not have ended, in `Source.in_progress` and in a record.
STOP, MARK = "stop of the world", "mark phase"

Record = dict[str, Any]


class OfOne(TypedDict, total=False):
    """A record of one of several processes traced at once."""

    pid: Annotated[int, "the process, if several are traced"]


class Names(TypedDict):
    """What is not available, and why."""

    name: str
    reason: str


class Point(TypedDict):
    """A probed instruction; ``file`` if it is not in the executable."""

    name: str
    symbol: str
    address: str
    instruction: str
    emulated: bool
    file: str


class Start(Moment):
    """What is traced and how."""

    type: Literal["start"]
    schema: Literal[1]
    pid: int
    exe: str
    go_version: str
    arch: Annotated[str, OneOf(tuple(BY_GOARCH))]
    stripped: bool
    pie: bool
    probes: list[Point]
    missing: Annotated[list[Names], "what is not available for this target, and why"]


class Stw(Moment, OfOne):
    """A pause, reported when it ends; its time is when stopping began."""

    type: Literal["stw"]
    reason: Annotated[str, "in the runtime's own words"]
    cycle: Annotated[int | None, "the GC cycle of a collection's pause"]
    goid: Annotated[int | None, "the goroutine that stopped the world"]
    tid: int
    stopping_ns: Annotated[int | None, "from the request until every P had stopped; null up to Go 1.21"]
    stopped_ns: Annotated[int | None, "from then to the end, as the runtime reports it"]
    total_ns: Annotated[int, "what the runtime reports: the sum of the two"]
    restart_lag_ns: Annotated[int, "how much later than the reported end the world actually ran"]
    clock: Literal["runtime", "probe"]


class Cycle(Moment, OfOne):
    """A collection, reported when it is over."""

    type: Literal["cycle"]
    cycle: Annotated[int, "work.cycles, the number gctrace prints"]
    trigger: Annotated[str | None, OneOf((*TRIGGERS, None))]
    sweep_termination_ns: Annotated[int, "gctrace's clock column"]
    mark_ns: Annotated[int, "gctrace's clock column"]
    mark_termination_ns: Annotated[int, "gctrace's clock column"]
    pause_ns: Annotated[int, "MemStats.PauseNs of the cycle"]
    assist_ns: Annotated[int | None, "CPU time of mark assists"]
    heap_start_bytes: int
    heap_end_bytes: int
    heap_live_bytes: int
    heap_goal_bytes: int | None
    maxprocs: int
    gc_percent: Annotated[int | None, "GOGC as set at the cycle's end; -1: off"]
    memory_limit_bytes: Annotated[int | None, "GOMEMLIMIT likewise; 2^63-1: off"]
    heap_minimum_bytes: Annotated[int | None, "the minimum goal that GOGC gives"]
    percent_goal_bytes: Annotated[int | None, "the goal that GOGC alone gives the next cycle; 2^63-1: none"]
    counted_bytes: Annotated[int | None, "what counted towards GOMEMLIMIT at the cycle's end"]
    returned_bytes: Annotated[int | None, "since the program started: what allocations had to return to the kernel first"]
    scavenge_assist_ns: Annotated[int | None, "since the program started: the CPU time this took"]
    limiter_cycle: Annotated[int | None, "the last cycle in which the GC CPU limiter came on; 0: none"]
    goal_set_by: Annotated[str | None, OneOf((*GOAL_SETTERS, None))]
    room_bytes: Annotated[int | None, "from the live heap of the cycle before up to the goal"]
    allocated_bytes: Annotated[int | None, "allocated from there to the end of marking, by the pacer's count"]


class Sweep(OfOne):
    """Sweeping, reported when the last span of a cycle was swept."""

    type: Literal["sweep"]
    cycle: int
    sweep_ns: Annotated[int, "from the cycle's end to its last span"]


class Assist(Moment, OfOne):
    """A mark assist that held a goroutine, marking or parked, reported when it is over; its time is the beginning."""

    type: Literal["assist"]
    goid: int | None
    held_ns: Annotated[int, "until the goroutine resumed its own work"]
    parked_ns: Annotated[int, "of that, parked on the assist queue, and until it ran again"]
    works: Annotated[int, "how often it marked"]


_Causes = Annotated[dict[str, int], Keys(CLASSES)]


class Parts(TypedDict):
    """Nanoseconds by cause, for each part of a pause."""

    stopping: _Causes
    stopped: _Causes
    restart: _Causes


_Code = Annotated[dict[str, list[str]], Keys(CLASSES)]


class Code(TypedDict):
    """Functions by cause, of its longest piece in each part of a pause, where known."""

    stopping: _Code
    stopped: _Code
    restart: _Code


class WaitedFor(TypedDict):
    """A P that had to be stopped, and its thread."""

    p: int | None
    tid: int
    stopped_after_ns: int


class RunAgain(TypedDict):
    """A thread that the restart woke."""

    tid: int
    after_ns: int


class Explained(Moment, OfOne):
    """One of the longest pauses, and what it waited for."""

    type: Literal["explained"]
    reason: str
    cycle: int | None
    goid: int | None
    tid: Annotated[int, "the thread that stopped the world"]
    length_ns: Annotated[int, "until every P had been handed out: the sum over all classes and parts"]
    total_ns: Annotated[int, "what the runtime reports"]
    cause: Annotated[str, OneOf(CLASSES)]
    sentence: str
    asked_by: Annotated[list[str], "the stack of the goroutine that asked for it, innermost first; empty if unknown"]
    parts: Parts
    code: Annotated[Code, "what the thread that the world waited for was running, innermost first"]
    waited_for: Annotated[list[WaitedFor], "Ps that had to be stopped, the last one first"]
    run_again: Annotated[list[RunAgain], "threads woken by the restart, and how long after its end they ran"]


class WaitedForStill(TypedDict):
    """A P that has not stopped yet; null where it has no thread or goroutine."""

    p: int
    tid: int | None
    goid: int | None
    code: Annotated[list[str], "what its thread was last seen running, innermost first; empty if unknown"]


class InProgress(Moment, OfOne):
    """What had not ended when tracing did; its time is when it began."""

    type: Literal["in_progress"]
    what: Annotated[str, OneOf((STOP, MARK))]
    first_seen: Annotated[bool, "its beginning is unknown: the time is when it was first seen"]
    lasted_ns: Annotated[int, "until it was last seen: it took at least as long"]
    reason: Annotated[str | None, "of a stop, in the runtime's own words"]
    cycle: Annotated[int | None, "the GC cycle of a mark phase"]
    goid: Annotated[int | None, "the goroutine that stopped the world"]
    tid: Annotated[int | None, "its thread"]
    asked_by: Annotated[list[str], "the stack of that goroutine, innermost first"]
    stopped: Annotated[bool | None, "whether the world has stopped, so that what lasts is the work it was stopped for"]
    waits_for: Annotated[list[WaitedForStill], "Ps that have not stopped"]
    sentence: str


Numbers = TypedDict(
    "Numbers", {"min": int, "p50": int, "p90": int, "p99": int, "p99.9": int, "max": int, "sum": int}, total=False
)


class Statistics(Counted, Numbers):
    """Statistics in nanoseconds; the numbers are present if anything was counted."""


class Events(TypedDict):
    """Events of the probes."""

    received: int
    lost: Annotated[int, "found no room, left out by the kernel, or left without their counterpart"]


class Cost(TypedDict):
    """What tracing cost the target and the machine; null: unknown, because the recording was cut off."""

    probe_hits: Annotated[int | None, "how often the target hit a probe"]
    target_ns_estimate: Annotated[
        int | None, "hits times the cost of one, measured on this machine, plus the time of probes that are timed"
    ]
    tool_cpu_s: Annotated[float | None, "CPU time of gotrace itself and its children"]
    tool_rss_bytes: Annotated[int | None, "resident memory of the process that keeps running"]


class AskedBy(TypedDict):
    """Pauses for one reason, requested by the same code."""

    reason: str
    count: int
    code: Annotated[list[str], "the goroutine's stack, innermost first; empty if unknown"]


class Child(TypedDict):
    """A Go program among the descendants of the process."""

    pid: int
    exe: str
    go_version: str
    cycles: Annotated[int, "collections it has counted since it was first seen, at least"]


class NotSeen(TypedDict):
    """What ran in another copy of the runtime, or in a child, and is in no other number."""

    libraries: Annotated[list[str], "files with Go code of their own: plugins, shared libraries"]
    cycles: Annotated[int, "collections the runtime counted all the same, at least"]
    children: Annotated[list[Child], "those that collect while the process does not"]


class Paced(TypedDict):
    """Why collections are as frequent as they are; null: unknown, as in the cycles it sums up."""

    gc_percent: Annotated[int | None, "GOGC as last set; -1: off"]
    memory_limit_bytes: Annotated[int | None, "GOMEMLIMIT likewise; 2^63-1: off"]
    changed: Annotated[bool, "whether either changed during tracing"]
    counted_bytes: Annotated[int | None, "what counted towards GOMEMLIMIT at the last cycle's end"]
    goal_set_by: Annotated[
        dict[str, int],
        Keys((*GOAL_SETTERS, NOT_SEEN)),
        "cycles triggered by heap growth, by what set their goal",
    ]
    room_bytes: Annotated[
        int | None, "from the live heap up to the goal: the mean over the cycles of the most frequent setter"
    ]
    live_bytes: Annotated[int | None, "the live heap, likewise"]
    allocated_bytes_per_s: Annotated[float | None, "by the pacer's count, which counts partly used spans in full"]
    over_limit: Annotated[int, "cycles at whose end the count exceeded the limit"]
    returned_bytes: Annotated[int | None, "what allocations had to return to the kernel first, since the first cycle's end"]
    scavenge_assist_ns: Annotated[int | None, "the CPU time this took"]
    limiter_cycles: Annotated[int | None, "cycles in which the GC CPU limiter came on"]
    sentences: list[str]


class Assisted(TypedDict):
    """How long mark assists held goroutines."""

    held: Statistics
    parked: Annotated[Statistics, "assists that were parked"]
    longest: Assist | None
    begun_before: Annotated[int, "how many had begun before tracing; not included in the others"]


class Summary(OfOne, WithAdvice):
    """The summary, at the end."""

    type: Literal["summary"]
    duration_ns: int
    ended: Annotated[str, "why tracing ended"]
    events: Events
    cost: Cost
    attach_ns: Annotated[int, "from the command's start until every probe was in place"]
    cycles: int
    triggers: Annotated[dict[str, int], Keys((*TRIGGERS, "unknown")), "why cycles began; unknown: before tracing did"]
    pacing: Paced
    asked_by: Annotated[list[AskedBy] | None, "most frequent first; null if pauses are not explained"]
    allocated: Annotated[Allocated | None, "null if pauses are not explained, or it was not recorded"]
    pauses: Annotated[
        dict[str, dict[str, Statistics]],
        "reason, then part (stopping, stopped, total; restart: after it), then statistics in ns",
    ]
    phases: dict[str, Statistics]
    assists: Annotated[Assisted | None, "null: not traced"]
    not_seen: Annotated[NotSeen | None, "null: unknown, because the recording was cut off or is of version 0.1"]


# What a plugin or library means.
OF_A_COPY = "pauses and cycles may run in its copy of the runtime, where there is no probe"


def known(value: int) -> int | None:
    """A number of `gotrace.analysis.pauses`, None where that is UNKNOWN."""
    return None if value == UNKNOWN else value


def start_record(header: Record) -> Record:
    """What is traced and how; ``header`` as `Session.header` makes it."""
    target, clock = header["target"], header["clock"]
    probes = header["probes"].values()
    return {
        "type": "start",
        "schema": SCHEMA_VERSION,
        "pid": target["pid"],
        "exe": printable(target["exe"]),
        **{name: target[name] for name in ("go_version", "arch", "stripped", "pie")},
        **moment(clock["begin_ns"], clock["wall_offset_ns"]),
        "probes": [point for probe in probes for point in probe["points"]],
        "missing": [item for probe in probes for item in probe["missing"]],
    }


def batch_records(batch: Batch, reasons: list[str], wall_offset_ns: int, assists: Array | None = None) -> list[Record]:
    """One record for each pause, cycle, sweep and of ``assists`` (ASSIST), in the order in which they ended."""
    pauses = batch.pauses
    ends = [
        *(pauses["start_ns"] + pauses["total_ns"] + pauses["restart_lag_ns"]).tolist(),
        *batch.cycles["time_ns"].tolist(),
        *batch.sweeps["time_ns"].tolist(),
    ]
    records = [
        *_pause_records(batch, reasons, wall_offset_ns),
        *_cycle_records(batch, wall_offset_ns),
        *({"type": "sweep", "cycle": cycle, "sweep_ns": sweep_ns} for _, cycle, sweep_ns in batch.sweeps.tolist()),
    ]
    if assists is not None:
        ends += assists["end_ns"].tolist()
        records += (assist_record(each, wall_offset_ns) for each in assists)
    return [records[place] for place in sorted(range(len(ends)), key=ends.__getitem__)]


def assist_record(assist: Any, wall_offset_ns: int) -> Record:
    """A row of `gotrace.analysis.assists.ASSIST`."""
    begin = int(assist["begin_ns"])
    return {
        "type": "assist",
        **moment(begin, wall_offset_ns),
        "goid": int(assist["goid"]) or None,
        "held_ns": int(assist["end_ns"]) - begin,
        "parked_ns": int(assist["parked_ns"]),
        "works": int(assist["works"]),
    }


def _pause_records(batch: Batch, reasons: list[str], wall_offset_ns: int) -> Iterator[Record]:
    for start, stopping, stopped, total, lag, reason, cycle, goid, tid, probe_clock in batch.pauses.tolist():
        yield {
            "type": "stw",
            **moment(start, wall_offset_ns),
            "reason": reasons[reason],
            "cycle": known(cycle),
            "goid": known(goid),
            "tid": tid,
            "stopping_ns": known(stopping),
            "stopped_ns": known(stopped),
            "total_ns": total,
            "restart_lag_ns": lag,
            "clock": "probe" if probe_clock else "runtime",
        }


_MAY_BE_UNKNOWN = (
    *("assist_ns", "heap_goal_bytes", "memory_limit_bytes", "heap_minimum_bytes", "percent_goal_bytes", "counted_bytes"),
    *("returned_bytes", "scavenge_assist_ns", "limiter_cycle", "room_bytes", "allocated_bytes"),
)


def _cycle_records(batch: Batch, wall_offset_ns: int) -> Iterator[Record]:
    names = batch.cycles.dtype.names or ()
    for row in batch.cycles.tolist():
        record = dict(zip(names, row, strict=True))
        when, trigger = record.pop("time_ns"), record.pop("trigger")
        del record["end_ns"]
        record |= {name: known(record[name]) for name in _MAY_BE_UNKNOWN}
        setter, percent = record["goal_set_by"], record["gc_percent"]
        record["goal_set_by"] = None if setter == UNKNOWN else GOAL_SETTERS[setter]
        record["gc_percent"] = None if percent == NOT_READ else percent
        yield {
            "type": "cycle",
            **moment(when, wall_offset_ns),
            "trigger": None if trigger == UNKNOWN else TRIGGERS[trigger],
            **record,
        }


def explanation_records(
    told: list[Explanation], explainer: Explainer, reasons: list[str], wall_offset_ns: int
) -> Iterator[Record]:
    """The longest pauses, longest first, with what they waited for."""
    for each in told:
        stop = each.stop
        parts = {"stopping": each.stopping, "stopped": each.stopped, "restart": each.restart}
        yield {
            "type": "explained",
            **moment(stop.begin, wall_offset_ns),
            "reason": reasons[stop.pause["reason"]],
            "cycle": known(int(stop.pause["cycle"])),
            "goid": known(int(stop.pause["goid"])),
            "tid": stop.stopper,
            "length_ns": stop.length,
            "total_ns": int(stop.pause["total_ns"]),
            "cause": each.cause,
            "sentence": printable(sentence(each, explainer)),
            "asked_by": list(map(printable, explainer.asked_by(stop.asked_stack))),
            "parts": {name: class_sums(pieces) for name, pieces in parts.items()},
            "code": {
                name: {kind: list(map(printable, code)) for kind, code in explainer.code_in(pieces, stop).items()}
                for name, pieces in parts.items()
            },
            "waited_for": [
                {"p": None if p == NO_P else p, "tid": tid, "stopped_after_ns": after} for p, tid, after in each.late
            ],
            "run_again": [{"tid": tid, "after_ns": after} for tid, after in each.run_again],
        }


def in_progress_record(found: Record, code: Callable[[int], list[str]], wall_offset_ns: int) -> Record:
    """One of `Source.in_progress`; ``code(tid)`` are the functions that a thread was seen running."""
    waits_for = [
        {"p": p, "tid": tid or None, "goid": goid or None, "code": code(tid)} for p, tid, goid in found.get("waits_for", ())
    ]
    record = {
        "type": "in_progress",
        "what": found["what"],
        **moment(found["since_ns"], wall_offset_ns),
        "first_seen": found.get("first_seen", False),
        "lasted_ns": max(0, found["seen_ns"] - found["since_ns"]),
        "reason": _reason(found) if found["what"] == STOP else None,
        "cycle": found.get("cycle"),
        "goid": found.get("goid") or None,
        "tid": found.get("tid") or None,
        "asked_by": list(map(printable, asking(found.get("asked_by", ())))),
        "stopped": found.get("stopped"),
        "waits_for": waits_for,
    }
    return {**record, "sentence": printable(_in_progress(record))}


def _reason(found: Record) -> str:
    """The runtime's words; a collection's stops are told apart by who asked for them."""
    if "runtime.gcMarkDone" in found["asked_by"]:
        return MARK_TERMINATION
    if "runtime.gcStart" in found["asked_by"]:
        return SWEEP_TERMINATION
    return str(found["reason"]) or "unknown"


def _in_progress(record: Record) -> str:
    lasted = duration_text(record["lasted_ns"])
    if record["what"] == MARK:
        return f"GC cycle {record['cycle']} has been marking for {lasted} and has not ended"
    who = f" by goroutine {record['goid']}" if record["goid"] else ""
    place = f" in {code_text(record['asked_by'])}" if record["asked_by"] else ""
    since = f"at least {lasted}" if record["first_seen"] else lasted
    told = f"a stop-the-world pause ({record['reason']}) requested {since} ago{who}{place} has not ended: "
    if record["stopped"]:
        return f"{told}the world has stopped, and thread {record['tid']} is working or held up"
    if not record["waits_for"]:
        return f"{told}the reason is unknown"
    return f"{told}it is waiting for {' and '.join(map(_held_by, record['waits_for']))}"


def code_text(names: Sequence[str]) -> str:
    """The innermost functions, without what every goroutine begins with."""
    return printable(" < ".join([name for name in names if name not in ("runtime.main", "runtime.goexit")][:4]))


def _held_by(waited: Record) -> str:
    if not waited["tid"]:
        return f"P {waited['p']}, which has no thread"
    goroutine = f", goroutine {waited['goid']}" if waited["goid"] else ""
    code = f", which is running {code_text(waited['code'])}" if waited["code"] else ""
    return f"thread {waited['tid']} (P {waited['p']}{goroutine}){code}"


def callers(explainer: Explainer, reasons: list[str]) -> list[Record]:
    """Who requested the pauses that were seen, most first."""
    found: dict[tuple[str, tuple[str, ...]], int] = {}
    for (reason, stack), count in explainer.callers.items():
        key = reasons[reason], tuple(map(printable, explainer.asked_by(stack)))
        found[key] = found.get(key, 0) + count
    most_first = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    return [{"reason": reason, "count": count, "code": list(code)} for (reason, code), count in most_first]


def json_pacing(pacing: Pacing) -> Record:
    """What `Paced` has."""
    leading = pacing.leading()
    rate = pacing.rate
    room = live = None
    if leading is not None:
        room, live = (round(size / leading[1].cycles) for size in (leading[1].room, leading[1].live))
    return {
        "gc_percent": None if pacing.gc_percent == NOT_READ else pacing.gc_percent,
        "memory_limit_bytes": known(pacing.memory_limit),
        "changed": pacing.changed,
        "counted_bytes": known(pacing.counted),
        "goal_set_by": {name: room.cycles for name, room in pacing.goals.items()},
        "room_bytes": room,
        "live_bytes": live,
        "allocated_bytes_per_s": None if rate is None else round(rate, 1),
        "over_limit": pacing.over_limit,
        "returned_bytes": pacing.since_first("returned_bytes"),
        "scavenge_assist_ns": pacing.since_first("scavenge_assist_ns"),
        "limiter_cycles": None if pacing.limiter_last == UNKNOWN else pacing.limiter_cycles,
        "sentences": sentences(pacing),
    }


def _assisted(assists: Assists, wall_offset_ns: int) -> Record:
    longest = assists.longest
    return {
        "held": statistics(assists.held),
        "parked": statistics(assists.parked),
        "longest": assist_record(longest, wall_offset_ns) if longest is not None else None,
        "begun_before": assists.begun_before,
    }


def summary_record(
    summary: GcSummary,
    about: Record,
    asked_by: list[Record] | None,
    allocated: Record | None = None,
    assists: Assists | None = None,
    wall_offset_ns: int = 0,
) -> Record:
    """The closing record; ``about`` has what the session knows (duration_ns, events, cost, attach_ns, …)."""
    return {
        "type": "summary",
        **about,
        "cycles": summary.cycles,
        "triggers": summary.triggers,
        "pacing": json_pacing(summary.pacing),
        "asked_by": asked_by,
        "allocated": allocated,
        "pauses": {
            reason: {part: statistics(histogram) for part, histogram in parts.items()}
            for reason, parts in summary.pauses.items()
        },
        "phases": {name: statistics(histogram) for name, histogram in summary.phases.items()},
        "assists": _assisted(assists, wall_offset_ns) if assists is not None else None,
    }

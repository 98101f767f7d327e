"""The records of `gotrace.views.sched`: what the scheduler did, in an interval and altogether."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from gotrace.analysis.histogram import Histogram
from gotrace.analysis.scheduling import CPU_CLASSES, TRACKED, Samples, Totals, Waits, slices_between, waits_between
from gotrace.analysis.who_had_p import GOROUTINE, NOBODY, NOBODY_HAD_IT, Part
from gotrace.records.schema import Keys
from gotrace.records.times import Moment
from gotrace.records.watched import Statistics, statistics

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


class Bucket(TypedDict):
    """A bucket of the runtime's histogram: waits of ``from_ns`` up to, not including, ``to_ns``; the last is unbounded."""

    from_ns: int
    to_ns: int | None
    count: int


Latency = TypedDict(
    "Latency",
    {
        "samples": Annotated[int, "the runtime keeps one goroutine wait in eight"],
        "mean_ns": Annotated[float | None, "each sample is taken for the middle of its bucket; null: there are none"],
        "p50_ns": Annotated[int | None, "the upper edge of a bucket, at most a quarter too high"],
        "p90_ns": int | None,
        "p95_ns": int | None,
        "p99_ns": int | None,
        "p99.9_ns": int | None,
        "max_ns": int | None,
        "buckets": list[Bucket],
        "calls": Annotated[int, "returns from system calls, which up to Go 1.25 are kept as waits of 0; not in samples"],
    },
)


# Runnable goroutines that wait for a P: means over samples, and the most in one.
Queue = TypedDict("Queue", {"local": float, "global": float, "max": int})


class Moves(TypedDict):
    """How often a P was seen with another thread, CPU or memory node than in the sample before."""

    threads: int
    cpus: int
    nodes: int


class OfP(TypedDict):
    """One P."""

    p: int
    slices: Annotated[int, "time slices it gave to goroutines; a goroutine that hands over to another passes its slice on"]
    running: Annotated[float, "share of the time"]
    queued: float
    queued_max: int
    moves: Moves
    cpus: Annotated[dict[str, float], "share of the time its thread was on each CPU, or waited for it"]


class Threads(TypedDict):
    """What the kernel reports: all threads of the process."""

    count: int
    ran_ns: int
    waited_ns: Annotated[int, "runnable, but on no CPU; includes time taken by a quota"]
    switched: Annotated[int, "how often a thread got a CPU"]
    spinning: Annotated[float, "Ms looking for work, mean"]
    idle: Annotated[float, "Ms asleep for lack of work, mean"]


class Limits(TypedDict):
    """What there is to run on."""

    gomaxprocs: int
    cpus: Annotated[list[int], "CPUs it may use"]
    cores: Annotated[int, "number of cores these belong to"]
    capacities: Annotated[list[int], "of its CPUs, at most 1024; several if there are several kinds of cores"]
    quota_cpus: Annotated[float | None, "CPUs its cgroup may use on average; null: no limit"]
    limited_by: str | None
    throttled_ns: Annotated[int | None, "how long the quota kept threads of the cgroup from running, over all CPUs"]
    throttled_periods: int | None
    periods: int | None


class Cpus(TypedDict):
    """What else the CPUs it may use did, summed over them; the kernel counts in ticks of 1 to 10 ms."""

    others_ns: Annotated[int, "busy with anything but its threads"]
    stolen_ns: Annotated[int, "given to other machines by the hypervisor"]
    idle_ns: int


class CpuClasses(TypedDict):
    """Where the Ps' time went between the ends of two collections: /cpu/classes in runtime/metrics."""

    gc_ns: Annotated[int, "marking, mark assists and pauses"]
    scavenge_ns: int
    user_ns: int
    idle_ns: int
    total_ns: int


class Goroutines(TypedDict):
    """The goroutines that exist."""

    count: int
    system: Annotated[int, "how many of them are the runtime's own"]
    states: Annotated[dict[str, int], "how many of the program's are in each state"]


class _Sched(Moment):
    pid: int
    length_ns: int
    samples: int
    limits: Limits
    goroutines: Annotated[Goroutines | None, "null: unknown"]
    created: Annotated[int, "goroutines created"]
    turns: Annotated[int, "how often a goroutine that had waited got a P: eight times the samples"]
    slices: int
    latency: Latency
    waiting_ns: Annotated[int, "how long all goroutines together waited for a P: eight times the samples' time"]
    mutex_wait_ns: Annotated[int | None, "how long goroutines waited for mutexes, /sync/mutex/wait/total; null: unknown"]
    queue: Queue
    while_queued: Annotated[
        dict[str, float],
        Keys(("world_stopped", "p_idle", "ps_taken")),
        "conditions while goroutines were queued, as shares",
    ]
    statuses: Annotated[dict[str, float], Keys(("idle", "running", "syscall", "stopped")), "Ps by status, means"]
    moves: Moves
    ps: list[OfP]
    threads: Threads
    cpus: Cpus
    cpu_classes: Annotated[CpuClasses | None, "null: unknown, or no collection has ended"]


class SchedInterval(_Sched):
    """Since the last record."""

    type: Literal["sched_interval"]


class Sched(_Sched):
    """From the beginning to the end, or to the exit of the process."""

    type: Literal["sched"]
    advice: list[str]
    missing: Annotated[dict[str, str], "what is unknown, and why"]


class ThreadWaits(TypedDict):
    """Waits of threads for a CPU, from when a thread could run until it did."""

    woken: Annotated[Statistics, "after sleeping"]
    preempted: Annotated[Statistics, "after being preempted"]
    sum_ns: int
    throttled: Annotated[int, "how many were held by a CPU quota"]
    throttled_ns: int


class Holder(TypedDict):
    """What held the CPU that a thread of the target got, and for how much of its waits."""

    name: str
    own: Annotated[bool, "threads of the target"]
    held_ns: int


class HolderOfOne(Holder):
    """One task during one wait."""

    tid: Annotated[int, "0: the CPU was idle"]


class LongWait(Moment):
    """One wait; its time is the end."""

    tid: int
    cpu: Annotated[int, "the CPU it got"]
    wait_ns: int
    preempted: bool
    throttled: bool
    holders: Annotated[
        list[HolderOfOne], "what held this CPU during that time, longest first; empty if a quota held the thread"
    ]
    unknown_ns: Annotated[
        int, "part of the wait for which that is unknown: it waited for another CPU, or there were too many"
    ]


class Stolen(TypedDict):
    """Goroutines that went from the queue of one P to another."""

    thief: int
    victim: int
    goroutines: int


class Steals(TypedDict):
    """Attempts of Ps without work to steal from the queues of others."""

    attempts: int
    failed: Annotated[int, "attempts that found nothing"]
    failure_rate: float | None
    goroutines: int
    by: list[Stolen]


class SchedEvents(Moment):
    """What events show, over the whole time."""

    type: Literal["sched_events"]
    pid: int
    length_ns: int
    lost: int
    waits: ThreadWaits
    holders: Annotated[
        list[Holder],
        "of waits not held by a quota, largest first: of waits below 1 ms, what had the CPU last, of"
        " longer ones the last 16 that had it",
    ]
    longest: list[LongWait]
    steals: Annotated[Steals | None, "null: unknown"]
    missing: dict[str, str]


class HadP(TypedDict):
    """What the P that a goroutine got was doing for part of its wait."""

    what: Annotated[Literal["goroutine", "nobody", "stop"], "held by a goroutine or by none, or the world was stopped"]
    goid: Annotated[int | None, "the one that had it"]
    function: Annotated[str | None, "the function that goroutine started in; null: unknown"]
    reason: Annotated[str | None, "why nobody had it: idle, handed over, locked thread, looking for work; or of the stop"]
    held_ns: int
    no_cpu_ns: Annotated[int, "while the thread had the P, or was about to, and had no CPU"]
    throttled_ns: Annotated[int, "of that, because of a CPU quota"]
    behind: Annotated[dict[str, int], "of the rest, how long by the task that it got the CPU after; '': the CPU was idle"]
    taken: Annotated[bool, "the P was taken from the goroutine while it was in a system call"]


class _Ran(Moment):
    goid: int
    p: int
    wait_ns: int


class LongestWait(_Ran, total=False):
    """One wait of a goroutine; its time is when it began to run."""

    had_p: Annotated[list[HadP], "with --explain, for waits of 1 ms or more: what had that P, longest first"]
    unknown_ns: Annotated[int, "part of the wait that the last turns on that P do not explain"]


class Moved(TypedDict):
    """Goroutines that moved from one P to another."""

    from_p: int
    to_p: int
    count: int


Turns = TypedDict("Turns", {"p50": int, "p90": int, "p95": int, "p99": int, "p99.9": int, "max": int}, total=False)


class Spread(Statistics, total=False):
    """Statistics with one more percentile."""

    p95_ns: int


class GoroutineMoves(TypedDict):
    """Goroutines that get another P than before."""

    count: int
    goroutines: Annotated[int, "how many have moved"]
    turns: Annotated[Turns, "how many turns they had stayed on one P before; empty: none has moved"]
    stays: Annotated[Spread, "how long, from the first turn on it to the first on the next"]
    by: list[Moved]


class SchedWakeups(Moment):
    """Individual goroutines, over the whole time."""

    type: Literal["sched_wakeups"]
    pid: int
    length_ns: int
    lost: int
    waited: Annotated[Spread, "one in eight goroutine waits for a P, the ones the runtime samples, exactly"]
    at_once: Annotated[int, "turns without a wait: up to Go 1.25, returns from system calls"]
    longest: list[LongestWait]
    moves: GoroutineMoves
    missing: dict[str, str]


def had_p_record(
    part: Part, functions: Mapping[int, str], reasons: Sequence[str], tasks: Mapping[int, str]
) -> dict[str, Any]:
    """A `HadP`; the names of functions by address, of stops by number, of tasks by thread."""
    is_goroutine = part.what == GOROUTINE
    behind: dict[str, int] = {}
    for tid, ns in part.behind.items():
        name = tasks.get(tid, "?")
        behind[name] = behind.get(name, 0) + ns
    return {
        "what": part.what,
        "goid": part.which if is_goroutine else None,
        "function": (functions.get(part.startpc) or None) if is_goroutine else None,
        "reason": None if is_goroutine else NOBODY_HAD_IT[part.which] if part.what == NOBODY else reasons[part.which],
        "held_ns": part.held_ns,
        "no_cpu_ns": part.no_cpu_ns,
        "throttled_ns": part.throttled_ns,
        "behind": behind,
        "taken": part.taken,
    }


def wakeups_record(
    waited: Histogram,
    at_once: int,
    longest: list[dict[str, Any]],
    moves: Mapping[tuple[int, int], int],
    goroutines: int,
    stays: tuple[Histogram, Histogram],
) -> dict[str, Any]:
    """The parts of `SchedWakeups` that are counted; ``stays`` before a move: turns, and ns."""
    turns, times = stays
    return {
        "waited": statistics(waited, PERCENTILES),
        "at_once": at_once,
        "longest": longest,
        "moves": {
            "count": sum(moves.values()),
            "goroutines": goroutines,
            "turns": {name.removesuffix("_ns"): n for name, n in statistics(turns, PERCENTILES).items() if name != "count"},
            "stays": statistics(times, PERCENTILES),
            "by": [{"from_p": old, "to_p": new, "count": count} for (old, new), count in sorted(moves.items())],
        },
    }


def events_record(
    waits: dict[str, Histogram],
    throttled: tuple[int, int],
    holders: Mapping[tuple[str, bool], int],
    longest: list[dict[str, Any]],
    attempts: tuple[int, int],
    stolen: Mapping[tuple[int, int], int],
) -> dict[str, Any]:
    """The parts of `SchedEvents` that are counted; ``attempts``: how many there were, and how many failed."""
    tried, failed = attempts
    by_ns = sorted(holders.items(), key=lambda each: -each[1])
    return {
        "waits": {
            **{name: statistics(each) for name, each in waits.items()},
            "sum_ns": sum(each.sum for each in waits.values()),
            "throttled": throttled[0],
            "throttled_ns": throttled[1],
        },
        "holders": [{"name": name, "own": own, "held_ns": ns} for (name, own), ns in by_ns if ns],
        "longest": longest,
        "steals": {
            "attempts": tried,
            "failed": failed,
            "failure_rate": failed / tried if tried else None,
            "goroutines": sum(stolen.values()),
            "by": [
                {"thief": thief, "victim": victim, "goroutines": count} for (thief, victim), count in sorted(stolen.items())
            ],
        },
    }


def sched_record(
    pid: int,
    before: Totals,
    after: Totals,
    samples: Samples,
    limits: dict[str, Any],
    cpus: dict[str, int],
    goroutines: Sequence[tuple[str, bool, int]] | None,
    zeros_are_calls: bool,
) -> dict[str, Any]:
    """What happened between two readings, without what it is and when it was."""
    waits, slices = waits_between(before, after, zeros_are_calls), slices_between(before, after)
    mutex = None
    if before.mutex_wait_ns is not None and after.mutex_wait_ns is not None:
        mutex = after.mutex_wait_ns - before.mutex_wait_ns
    time_ns = max(1, samples.time_ns)
    return {
        "pid": pid,
        "length_ns": after.at_ns - before.at_ns,
        "samples": samples.count,
        "limits": limits,
        "goroutines": _goroutines(goroutines) if goroutines is not None else None,
        "created": after.created - before.created,
        "turns": TRACKED * waits.samples,
        "slices": sum(slices.values()),
        "latency": _latency(waits),
        "waiting_ns": int(TRACKED * waits.sum_ns()),
        "mutex_wait_ns": mutex,
        "queue": {
            "local": samples.local_queue_ns / time_ns,
            "global": samples.global_queue_ns / time_ns,
            "max": samples.most_queued,
        },
        "while_queued": samples.while_queued(),
        "statuses": {name: met / time_ns for name, met in samples.statuses_ns.items()},
        "moves": samples.moves()._asdict(),
        "ps": [
            {
                "p": p.number,
                "slices": slices.get(p.number, 0),
                "running": p.running_ns / p.time_ns,
                "queued": p.queued_ns / p.time_ns,
                "queued_max": p.most_queued,
                "moves": p.moves._asdict(),
                "cpus": {str(cpu): met / p.time_ns for cpu, met in sorted(p.cpus_ns.items())},
            }
            for p in samples.ps.values()
            if p.time_ns
        ],
        "threads": {
            "count": after.threads,
            "ran_ns": after.ran_ns - before.ran_ns,
            "waited_ns": after.waited_ns - before.waited_ns,
            "switched": after.switched - before.switched,
            "spinning": samples.spinning_ns / time_ns,
            "idle": samples.idle_ns / time_ns,
        },
        "cpus": cpus,
        "cpu_classes": _cpu_classes(before.cpu, after.cpu),
    }


def _cpu_classes(before: list[int] | None, after: list[int] | None) -> dict[str, int] | None:
    if before is None or after is None or before == after:
        return None
    return {f"{name}_ns": new - old for name, old, new in zip(CPU_CLASSES, before, after, strict=True)}


def _latency(waits: Waits) -> dict[str, Any]:
    count = waits.samples
    values = waits.percentiles(PERCENTILES) if count else [None] * len(PERCENTILES)
    buckets = waits.buckets()
    longest = (buckets[-1][1] or buckets[-1][0]) if count else None
    return {
        "samples": count,
        "mean_ns": waits.sum_ns() / count if count else None,
        **{f"p{each:g}_ns": value for each, value in zip(PERCENTILES, values, strict=True)},
        "max_ns": longest,
        "buckets": [{"from_ns": low, "to_ns": high, "count": number} for low, high, number in buckets],
        "calls": waits.calls,
    }


def _goroutines(states: Sequence[tuple[str, bool, int]]) -> dict[str, Any]:
    own: dict[str, int] = {}
    for state, system, count in sorted(states, key=lambda each: -each[2]):
        if not system:
            own[state] = own.get(state, 0) + count
    return {
        "count": sum(count for *_, count in states),
        "system": sum(count for _, system, count in states if system),
        "states": own,
    }

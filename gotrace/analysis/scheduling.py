"""What samples and counters of a Go scheduler come to. Times in nanoseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.text import count_text, duration_text

Counts = npt.NDArray[np.int64]

# The runtime keeps the wait of every eighth turn of a goroutine (gTrackingPeriod of runtime/runtime2.go).
TRACKED = 8
# p.status of runtime/runtime2.go. In a system call a P is up to Go 1.25.
IDLE, RUNNING, SYSCALL, STOPPED = 0, 1, 2, 3
STATUSES = {IDLE: "idle", RUNNING: "running", SYSCALL: "syscall", STOPPED: "stopped"}
_NEW, _OLD = 160, 720  # buckets of a timeHistogram, and up to Go 1.19


class P(NamedTuple):
    """One P in a sample: ``tid`` is the thread that has it (0: none), ``cpu`` where that was last (-1: unknown)."""

    number: int
    status: int
    queued: int
    tid: int
    cpu: int


class Sample(NamedTuple):
    """The scheduler at one moment; ``stopping``: the world is stopped, or about to be."""

    at_ns: int
    ps: tuple[P, ...]
    global_queue: int
    idle_ps: int
    spinning_ms: int
    idle_ms: int
    stopping: bool

    @classmethod
    def of(cls, told: Sequence[Any]) -> Sample:
        """A sample that was JSON."""
        at_ns, ps, *rest = told
        return cls(at_ns, tuple(P(*p) for p in ps), *rest)

    @property
    def queued(self) -> int:
        """Runnable goroutines that wait for a P."""
        return self.global_queue + sum(p.queued for p in self.ps)


class Totals(NamedTuple):
    """What was counted since the program began. None: the release does not record it, or it is not found.

    ``waits`` are the buckets of how long goroutines were runnable before they ran, ``beyond`` the longer ones;
    ``mutex_wait_ns`` is /sync/mutex/wait/total of runtime/metrics; ``created`` are goroutines, ``slices`` the time slices
    of each P as (P, slices): its schedtick, of 32 bits. Since tracing began, of all threads: time on a CPU, time runnable
    without one, how often they got one. ``cpu`` has `CPU_CLASSES`, as of the end of the last collection.
    """

    at_ns: int
    waits: list[int]
    beyond: int
    mutex_wait_ns: int | None
    created: int
    slices: list[tuple[int, int]]
    threads: int
    ran_ns: int
    waited_ns: int
    switched: int
    cpu: list[int] | None = None


# The part of runtime.cpuStats that is read: what Ps' time went to, in nanoseconds (runtime/mstats.go). The collector's has
# marking, assists and pauses in it; total is GOMAXPROCS times the time that has passed.
CPU_CLASSES = {"gc": 32, "scavenge": 56, "idle": 64, "user": 72, "total": 80}


def bounds(buckets: int) -> Counts:
    """The edges of a timeHistogram's buckets, one more than there are: 160 of them, or 720 as Go 1.19 has.

    runtime/histogram.go: four to each power of two from 256 on, the first four of 64 each; before sixteen, from 16 on.
    """
    if buckets == _NEW:
        steps = np.arange(4)
        rest = [(1 << (power + 7)) + (steps << (power + 5)) for power in range(1, _NEW // 4)]
        last = 1 << (_NEW // 4 + 7)
        return np.concatenate([64 * steps, *rest, [last]])
    if buckets == _OLD:
        steps = np.arange(16)
        rest = [(1 << (power + 3)) + (steps << (power - 1)) for power in range(1, _OLD // 16)]
        return np.concatenate([steps, *rest, [1 << (_OLD // 16 + 3)]])
    raise ValueError(f"no Go release has a time histogram with {buckets} buckets")


@dataclass(frozen=True)
class Waits:
    """How long goroutines were runnable before they ran, as the runtime counts every eighth turn of each.

    ``counts`` by bucket of `bounds`; ``beyond`` were longer than all of them. ``calls``: returns from system calls, which
    up to Go 1.25 stand in the first bucket and are not in ``counts``; a wait as short as that bucket's cannot be told from
    them.
    """

    counts: Counts
    beyond: int
    calls: int

    @property
    def samples(self) -> int:
        return int(self.counts.sum()) + self.beyond

    def sum_ns(self) -> float:
        """Of all samples, each taken for the middle of its bucket: in half nanoseconds, so that sums add up."""
        edges = bounds(len(self.counts))
        return int(self.counts @ (edges[1:] + edges[:-1])) / 2 + self.beyond * int(edges[-1])

    def percentiles(self, wanted: Sequence[float]) -> list[int]:
        """What so many percent of the waits did not exceed: the upper edge of a bucket, at most a quarter too high."""
        edges, up_to_here = bounds(len(self.counts)), np.cumsum(self.counts)
        places = [np.searchsorted(up_to_here, max(1, np.ceil(each / 100 * self.samples))) for each in wanted]
        return [int(edges[min(int(place) + 1, len(edges) - 1)]) for place in places]

    def buckets(self) -> list[tuple[int, int | None, int]]:
        """(from, to, count) of those that have any; None for what is beyond all of them."""
        edges = bounds(len(self.counts))
        found: list[tuple[int, int | None, int]] = [
            (int(edges[at]), int(edges[at + 1]), int(self.counts[at])) for at in np.flatnonzero(self.counts)
        ]
        return [*found, (int(edges[-1]), None, self.beyond)] if self.beyond else found


def slices_between(before: Totals, after: Totals) -> dict[int, int]:
    """The time slices that each P gave between two readings."""
    old, new = ({p[0]: p[1] for p in each.slices} for each in (before, after))
    return {number: (count - old.get(number, 0)) & 0xFFFFFFFF for number, count in new.items()}


def waits_between(before: Totals, after: Totals, zeros_are_calls: bool) -> Waits:
    """What was counted between two readings."""
    counts = np.array(after.waits, np.int64) - np.array(before.waits, np.int64)
    calls = 0
    if zeros_are_calls:
        calls, counts[0] = int(counts[0]), 0
    return Waits(counts, after.beyond - before.beyond, calls)


class Moves(NamedTuple):
    """How often a P was met with another thread, on another CPU, on another memory node than in the sample before."""

    threads: int
    cpus: int
    nodes: int


@dataclass
class OfP:
    """What was seen of one P: sums over samples of the time that each stands for, on each CPU too."""

    number: int
    time_ns: int = 0
    running_ns: int = 0
    queued_ns: int = 0
    most_queued: int = 0
    moves: Moves = Moves(0, 0, 0)
    cpus_ns: dict[int, int] = field(default_factory=dict)
    last: P | None = None  # the last that had a thread

    def add(self, p: P, time_ns: int, nodes: Mapping[int, int]) -> None:
        self.time_ns += time_ns
        self.running_ns += time_ns * (p.status == RUNNING)
        self.queued_ns += time_ns * p.queued
        self.most_queued = max(self.most_queued, p.queued)
        if not p.tid or p.cpu < 0:
            return
        self.cpus_ns[p.cpu] = self.cpus_ns.get(p.cpu, 0) + time_ns
        if (last := self.last) is not None:
            moved = p.tid != last.tid, p.cpu != last.cpu, nodes.get(p.cpu) != nodes.get(last.cpu)
            self.moves = Moves(*(count + more for count, more in zip(self.moves, moved, strict=True)))
        self.last = p


WORLD_STOPPED, P_IDLE, PS_TAKEN = "world_stopped", "p_idle", "ps_taken"


class Samples:
    """Adds up samples. Each stands for the time since the one before, or since ``begin_ns``: on a busy machine they come
    late. ``nodes`` has the memory node of each CPU.

    ``met`` is what goroutines that waited for a P met: `WORLD_STOPPED`, `P_IDLE` or `PS_TAKEN`, by how many for how long.
    """

    def __init__(self, nodes: Mapping[int, int], begin_ns: int) -> None:
        self._nodes, self._at_ns = nodes, begin_ns
        self.count = self.time_ns = 0
        self.ps: dict[int, OfP] = {}
        self.local_queue_ns = self.global_queue_ns = self.most_queued = self.spinning_ns = self.idle_ns = 0
        self.statuses_ns = dict.fromkeys(STATUSES.values(), 0)
        self.met = {WORLD_STOPPED: 0, P_IDLE: 0, PS_TAKEN: 0}

    def add(self, sample: Sample) -> None:
        time_ns = max(0, sample.at_ns - self._at_ns)
        self._at_ns = sample.at_ns
        self.count += 1
        self.time_ns += time_ns
        queued = sample.queued
        self.local_queue_ns += time_ns * (queued - sample.global_queue)
        self.global_queue_ns += time_ns * sample.global_queue
        self.most_queued = max(self.most_queued, queued)
        self.spinning_ns += time_ns * sample.spinning_ms
        self.idle_ns += time_ns * sample.idle_ms
        self.met[WORLD_STOPPED if sample.stopping else P_IDLE if sample.idle_ps else PS_TAKEN] += time_ns * queued
        for p in sample.ps:
            self.statuses_ns[STATUSES.get(p.status, "idle")] += time_ns
            self.ps.setdefault(p.number, OfP(p.number)).add(p, time_ns, self._nodes)

    def next(self) -> Samples:
        """Those that come after these."""
        found = Samples(self._nodes, self._at_ns)
        found.ps = {number: OfP(number, last=p.last) for number, p in self.ps.items()}
        return found

    def while_queued(self) -> dict[str, float]:
        """``met`` as shares; empty if no goroutine was ever met waiting."""
        total = sum(self.met.values())
        return {why: queued / total for why, queued in self.met.items()} if total else {}

    def moves(self) -> Moves:
        """Of all Ps."""
        return Moves(*(sum(of) for of in zip((0, 0, 0), *(p.moves for p in self.ps.values()), strict=True)))


_MUCH = 0.2  # of the time: what takes so much of it is worth a sentence
_LITTLE = 0.05  # CPUs: what costs less is not


def advice(record: Mapping[str, Any]) -> list[str]:
    """What the numbers of a record of `gotrace.records.sched` show, as far as they exclude the alternatives."""
    found = []
    limits, threads, queue = record["limits"], record["threads"], record["queue"]
    ps, cpus, quota = limits["gomaxprocs"], len(limits["cpus"]), limits["quota_cpus"]
    if ps > cpus:
        found.append(f"GOMAXPROCS is {ps}, but its threads may run on only {count_text(cpus, 'CPU')}.")
    if quota is not None and ps > max(1, math.ceil(quota)):
        found.append(
            f"GOMAXPROCS is {ps}, but the quota is {quota:.3g} CPUs: once it is used up, every P stalls until the next "
            f"period."
        )
    if len(limits["capacities"]) > 1:
        kinds = " and ".join(map(str, limits["capacities"]))
        found.append(f"Its CPUs differ in capacity ({kinds}): the same work takes longer on some.")
    if ps > limits["cores"] and cpus >= ps:
        found.append(f"Its {count_text(ps, 'P')} share {count_text(limits['cores'], 'core')} (SMT).")
    wanted = threads["ran_ns"] + threads["waited_ns"]
    held_back = threads["waited_ns"] / wanted if wanted else 0.0
    if held_back >= _MUCH and threads["waited_ns"] >= _LITTLE * record["length_ns"]:
        found.append(f"{held_back:.0%} of the time when its threads needed a CPU, they had none: {_who(record)}.")
    elif queue["local"] + queue["global"] >= 1 and record["while_queued"].get(PS_TAKEN, 0) >= 1 - _MUCH:
        found.append(
            "Goroutines wait because every P is taken, while its threads get their CPUs: it needs more Ps or CPUs, or less "
            "work."
        )
    return found


def _who(record: Mapping[str, Any]) -> str:
    """Who had the CPUs for which its threads waited, as far as that is sure."""
    threads, cpus, limits = record["threads"], record["cpus"], record["limits"]
    least, length, throttled = threads["waited_ns"] / 2, record["length_ns"], limits["throttled_ns"]
    if throttled is None:
        return "the reason is unknown"
    # Several threads may wait at one CPU that is throttled, and the kernel counts its time once; but a quota that was used
    # up is what limits them, whoever else there was.
    quota, periods = limits["quota_cpus"], limits["throttled_periods"]
    used_up = quota is not None and threads["ran_ns"] >= (1 - _MUCH) * quota * length and 2 * periods >= limits["periods"]
    if used_up or throttled >= least:
        return f"the quota throttled them for {duration_text(throttled)}, summed over CPUs"
    part = (
        f"a quota throttled them for part of it ({duration_text(throttled)}, summed over CPUs), "
        if throttled >= least / 5
        else ""
    )
    if cpus["idle_ns"] < cpus["others_ns"] + cpus["stolen_ns"]:
        if cpus["stolen_ns"] >= least:
            return f"{part}the hypervisor took {cpus['stolen_ns'] / length:.2f} CPUs"
        if cpus["others_ns"] >= least:
            return f"{part}other processes and the kernel used {cpus['others_ns'] / length:.2f} CPUs"
    if threads["ran_ns"] >= (1 - _MUCH) * len(limits["cpus"]) * length:
        return "they competed with each other"
    return f"{part}--events shows what had the CPUs"

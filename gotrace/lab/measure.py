"""One measured run: a service under load, from outside, and what its pauses, its memory and its scheduler come to."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gotrace.analysis.histogram import Histogram as Distribution
from gotrace.analysis.stats.percentiles import enough
from gotrace.api import replaying
from gotrace.kernel.cpus import CpuTimes, cpu_times
from gotrace.kernel.host import online_cpus, text_of
from gotrace.lab.children import Group
from gotrace.lab.grown import Grown, Growth, unknown
from gotrace.lab.load_result import Histogram
from gotrace.lab.seconds import SECOND, Seconds
from gotrace.run.sources import programs
from gotrace.run.target import Target, watched
from gotrace.views.gc import Gc
from gotrace.views.memory import Looks
from gotrace.views.sched import Scheduler
from gotrace.views.sched_events import SchedulerEvents
from gotrace.views.sched_wakeups import SchedulerWakeups
from gotrace.views.view import Record, View, records_of

# How often the ring is read where nothing but the collector's events come: each time wakes a CPU that the service may need.
# What comes meanwhile at 3,000 collections a second is half of the ring.
_POLL_NS = 500_000_000
_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
_PARTS = ("total", "stopping", "stopped")

Values = dict[str, float | None]


@dataclass
class Seen:
    """What came of a run: records of `gotrace.records`, by type, while the load lasted. Times in CLOCK_MONOTONIC ns."""

    begin_ns: int = 0
    end_ns: int = 0
    pauses: list[Record] = field(default_factory=list)
    cycles: list[Record] = field(default_factory=list)
    memory: list[Record] = field(default_factory=list)
    sched: Record | None = None
    events: SchedulerEvents | None = None  # these two have seen everything
    wakeups: SchedulerWakeups | None = None
    summary: Record = field(default_factory=dict)
    explained: list[Record] = field(default_factory=list)
    peak_rss_bytes: int | None = None
    allocated_bytes: int | None = None  # by the runtime's own count, since the load began
    stolen_share: float = 0.0
    load_status: int = 0
    tool_cpu_s: float = 0.0  # of this process, while it watched
    seconds: dict[str, list[float]] = field(default_factory=dict)  # as `Seconds.values` has them
    grown: Grown = field(default_factory=lambda: unknown("it was not asked"))

    @property
    def lost(self) -> int:
        """Events."""
        return int(self.summary["events"]["lost"]) if self.summary else 0

    def add(self, record: Record) -> None:
        """Keep what metrics are made of."""
        kind = record["type"]
        if kind == "stw":
            self.pauses.append(record)
        elif kind == "cycle":
            self.cycles.append(record)
        elif kind == "memory":
            self.memory.append(record)
        elif kind == "sched":
            self.sched = record
        elif kind == "summary":
            self.summary = record
        elif kind == "explained":
            self.explained.append(record)


def watch(
    pid: int,
    load: Callable[[], Group],
    recording: Path,
    explained: int = 0,
    touches: bool = True,
    events: bool = False,
    wakeups: bool = False,
) -> Seen:
    """Trace a process for as long as the load runs, which is started when the probes are in place. Raises GotraceError.

    ``recording`` keeps the raw events, which are decoded when the load is over; the ``explained`` longest pauses come with
    their causes. Without ``touches`` the kernel's high-water mark of its RSS stays, and is not used. ``events`` are those
    of its threads and of Ps that steal, ``wakeups`` of single goroutines, as of `gotrace sched`.
    """
    views: list[View] = [Looks(SECOND), Scheduler(thrifty=True)]
    seen, ended_ns = Seen(), list[int]()
    seen.events = SchedulerEvents() if events else None
    seen.wakeups = SchedulerWakeups() if wakeups else None
    later: list[View] = [each for each in (seen.events, seen.wakeups) if each is not None]
    stems = ["gc", *(["tail"] if explained else []), *(stem for view in later for stem in view.stems)]
    process: Group | None = None
    waiting: threading.Thread | None = None
    told, looked = os.eventfd(0), False

    def wait(child: Group) -> None:
        child.wait()
        ended_ns.append(time.monotonic_ns())
        os.eventfd_write(told, 1)

    def until() -> str:
        nonlocal process, waiting, looked
        if process is None:
            if touches:
                _forget_peak(pid)
            process = load()
            seconds.begin()
            seen.begin_ns = time.monotonic_ns()
            waiting = threading.Thread(target=wait, args=(process,), daemon=True)
            waiting.start()
            os.eventfd_write(told, 1)  # so that what is asked once at the beginning is asked now
        elif not looked:
            looked = bool(os.eventfd_read(told))
        elif not ended_ns:
            seconds.look()
        return "the load ended" if ended_ns else ""

    try:
        with watched(stems, pid) as target:
            seconds = Seconds(target.process)  # now, for it may take long to find out how
            growth = Growth(target.process)
            target.until, target.wakes = until, (told,)
            if stems == ["gc"]:
                target.poll_ns = _POLL_NS
            before, tool = cpu_times(online_cpus()), time.process_time()
            for _, source, own in programs(target, views, str(recording), later=later):
                for _, records in records_of(source, own):
                    for record in records:
                        seen.add(record)
            _check(target)
            seen.allocated_bytes = seconds.allocated()
            seen.peak_rss_bytes = _peak(pid) if touches else None
            seen.stolen_share = _stolen(before, cpu_times(online_cpus()))
            seen.tool_cpu_s = time.process_time() - tool
            growth.end()
            seen.grown, seen.seconds = growth.result(), seconds.values
        _check(target)  # probes take a while to remove
    finally:
        if process is not None:
            process.end()
        if waiting is not None:
            waiting.join()
        os.close(told)
    # Now that nobody has to wait for it.
    for record in replaying(str(recording), Gc(SECOND, explained=explained), *later):
        seen.add(record)
    seen.end_ns = ended_ns[0] if ended_ns else target.end_ns
    seen.load_status = process.returncode if process is not None else 0
    return seen


def _check(target: Target) -> None:
    if target.stop.signal:
        raise KeyboardInterrupt


def _forget_peak(pid: int) -> None:
    """VmHWM begins anew: proc_pid_clear_refs(5), since Linux 4.0."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def _peak(pid: int) -> int | None:
    for line in text_of("/proc", str(pid), "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return None


def _stolen(before: CpuTimes, after: CpuTimes) -> float:
    stolen = after.stolen_ns - before.stolen_ns
    whole = stolen + after.busy_ns - before.busy_ns + after.idle_ns - before.idle_ns
    return stolen / whole if whole else 0.0


def metrics(seen: Seen) -> Values:
    """What a run comes to, without its load's own; None: unknown, or too few values for that percentile."""
    length_ns = seen.end_ns - seen.begin_ns
    pauses = [each for each in seen.pauses if seen.begin_ns <= each["monotonic_ns"] <= seen.end_ns]
    found: Values = {}
    for part in _PARTS:
        values = np.array([each[f"{part}_ns"] for each in pauses if each[f"{part}_ns"] is not None], np.int64)
        found |= {f"stw.{part}.{name}": value for name, value in percentiles(values).items()}
    found["stw.share"] = sum(each["total_ns"] for each in pauses) / length_ns
    found |= _of_cycles([each for each in seen.cycles if seen.begin_ns <= each["monotonic_ns"] <= seen.end_ns], length_ns)
    found |= _of_memory(seen)
    if seen.sched is not None:
        found |= _of_sched(seen.sched)
    if seen.events is not None:
        found |= _of_events(seen.events)
    if seen.wakeups is not None:
        found["sched.binding.p95"] = _p95(seen.wakeups.stays)
        found["sched.wait.p95"] = _p95(seen.wakeups.waited)
    return found


def percentiles(values: npt.NDArray[np.int64]) -> Values:
    """Those of a run that it has values for, by the name of the percentile, and the largest: the values themselves."""
    histogram = Histogram.of(values)
    found = {f"p{each:g}": histogram.percentile(each) if enough(len(values), each) else None for each in _PERCENTILES}
    return {**found, "max": float(values.max()) if len(values) else None}


def _of_cycles(cycles: list[Record], length_ns: int) -> Values:
    marks = np.array([each["mark_ns"] for each in cycles], np.int64)
    assists = [each["assist_ns"] for each in cycles]
    assisted = None
    if cycles and None not in assists:
        assisted = sum(each["assist_ns"] / max(1, each["maxprocs"]) for each in cycles) / length_ns
    goals = [each["heap_goal_bytes"] for each in cycles if each["heap_goal_bytes"] is not None]
    return {
        "gc.cycles_per_s": len(cycles) / length_ns * 1e9,
        "gc.mark.mean": float(marks.mean()) if len(marks) else None,
        "gc.mark.p95": percentiles(marks)["p95"],
        "gc.assist.share": assisted,
        "heap.live.mean": float(np.mean([each["heap_live_bytes"] for each in cycles])) if cycles else None,
        "heap.goal.mean": float(np.mean(goals)) if goals else None,
    }


def _of_memory(seen: Seen) -> Values:
    inside = [each for each in seen.memory if seen.begin_ns <= each["monotonic_ns"] <= seen.end_ns] or seen.memory
    rss = [each["rss_bytes"] for each in inside]
    factors = [each["amplification"] for each in inside if each["amplification"] is not None]
    known = [each for each in (seen.peak_rss_bytes, *rss) if each is not None]
    return {
        "rss.peak": float(max(known)) if known else None,
        "rss.mean": float(np.mean(rss)) if rss else None,
        "mem.amplification": float(np.mean(factors)) if factors else None,
    }


def _of_sched(sched: Mapping[str, Any]) -> Values:
    latency, length_ns = sched["latency"], sched["length_ns"]
    throttled = sched["limits"]["throttled_ns"]
    samples = latency["samples"]
    found: Values = {
        "cpu": sched["threads"]["ran_ns"] / length_ns,
        "gc.cpu_share": None,
        "sched.latency.mean": latency["mean_ns"],
        "sched.p_moves.nodes": sched["moves"]["nodes"] / length_ns * 1e9,
        "throttled.share": throttled / (length_ns * max(1, len(sched["limits"]["cpus"])))
        if throttled is not None
        else None,
    }
    classes = sched["cpu_classes"]
    if classes is not None and classes["total_ns"] > classes["idle_ns"]:
        found["gc.cpu_share"] = classes["gc_ns"] / (classes["total_ns"] - classes["idle_ns"])
    for each in (50.0, 95.0, 99.0):
        found[f"sched.latency.p{each:g}"] = latency[f"p{each:g}_ns"] if enough(samples, each) else None
    return found


def _of_events(view: SchedulerEvents) -> Values:
    waits = Distribution()
    waits.add(view.woken)
    waits.add(view.preempted)
    return {
        "sched.cpu_wait.p95": _p95(waits),
        "steal.failure_rate": view.failed / view.attempts if view.attempts else None,
    }


def _p95(found: Distribution) -> float | None:
    return float(found.percentile(95)) if enough(found.count, 95) else None

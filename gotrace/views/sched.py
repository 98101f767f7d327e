"""What the scheduler of the runtime does with goroutines, and the kernel with its threads."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.analysis.histogram import Histogram
from gotrace.analysis.scheduling import Sample, Samples, Totals, advice
from gotrace.errors import GotraceError, TargetError
from gotrace.kernel import numa
from gotrace.kernel.cgroup import cpu_group
from gotrace.kernel.cpus import CpuTimes, cpu_times, cpus_for
from gotrace.records.sched import sched_record
from gotrace.records.times import moment
from gotrace.views.view import Interval, Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events
    from gotrace.runtime.books import Books
    from gotrace.runtime.scheduler import Glance

_SECOND = 1_000_000_000
_SAMPLE_NS = 10_000_000
_RARELY = 20  # a sample is taken after this many times its own length at the earliest
_TIMED = 4  # every so many samples that length is taken


class Scheduler(View):
    """Samples the scheduler a hundred times a second, less often where that would take more than a twentieth of a CPU.

    There is a record of every ``interval_ns`` (0: none), and one of everything, the ``result``. Goroutines are counted by
    state once an interval. ``thrifty`` leaves that out, and samples as often as events are fetched: for who measures
    something else at the same time.
    """

    name = "sched"
    drawn_by = "sched_page"

    def __init__(self, interval_ns: int = 0, thrifty: bool = False) -> None:
        self.interval_ns, self.thrifty = interval_ns, thrifty
        self.look_ns = 0 if thrifty else _SAMPLE_NS
        self._period_ns = min(interval_ns or _SECOND, _SECOND)
        self._machine: Record = {}
        self._all = self._some = Samples({}, 0)  # from the beginning, in this interval
        self._first: Reading | None = None
        self._told: Reading | None = None  # up to which intervals tell
        self._last: Reading | None = None
        self._seen: list[Glance] = []  # since the last portion
        self._waiting: list[Sample] = []  # since the last reading
        self._pause_ns = _SAMPLE_NS // 2
        self._sample_ns = self._read_ns = self._line_ns = 0  # when the next is due
        self.result: Record | None = None

    @property
    def options(self) -> Record:
        return {"interval_ns": self.interval_ns, "thrifty": self.thrifty}

    def prepare(self, books: Books) -> None:
        _ = books.scheduler, self.thrifty or books.goroutines

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source
        if self._first is None:
            self._machine = source.ask("scheduler's machine", self._ask_machine) or {}
            nodes = {int(cpu): node for cpu, node in self._machine.get("nodes", {}).items()}
            self._first = self._told = self._read()
            begin_ns = self._first.totals.at_ns if self._first is not None else source.now_ns
            self._all, self._some = Samples(nodes, begin_ns), Samples(nodes, begin_ns)
            self._read_ns = self._line_ns = source.begin_ns
            self._read_ns, self._line_ns = self.next_ns(self._period_ns), self.next_ns(self.interval_ns)
        self._waiting += map(Sample.of, source.ask("scheduler samples", self._ask_samples) or ())
        if source.now_ns >= self._read_ns or source.last:
            self._read_ns = self.next_ns(self._period_ns)
            reading = self._read()
            if reading is not None:  # else these samples are of a time of which nothing else is known
                for sample in self._waiting:
                    self._all.add(sample)
                    self._some.add(sample)
                self._last, self._waiting = reading, []
        if self.interval_ns and (source.now_ns >= self._line_ns or source.last):
            self._line_ns = self.next_ns(self.interval_ns)
            if self._told is not None and self._last is not None and self._some.count:
                yield self._record("sched_interval", self._told, self._last, self._some)
                self._told, self._some = self._last, self._some.next()

    def end(self) -> Iterator[Record]:
        if self._first is not None and self._last is not None:
            record = self._record("sched", self._first, self._last, self._all)
            self.result = {**record, "advice": advice(record), "missing": self._machine.get("missing", {})}
            yield self.result

    def of_interval(self, record: Record) -> Interval | None:
        if record["type"] != "sched_interval":
            return None
        length_ns = record["length_ns"]
        return Interval(record["monotonic_ns"] - length_ns, length_ns, [(None, _histogram(record))])

    def histograms(self) -> dict[str, Histogram]:
        found = _histogram(self.result) if self.result is not None else Histogram()
        return {"runnable": found} if found.count else {}

    def _ask_machine(self) -> Record:
        source = self.source
        pid, books = source.process.pid, source.books.scheduler.books
        missing = dict(books.missing)
        if "schedt.totalMutexWaitTime" not in books.offsets:
            missing["goroutines' mutex wait time"] = f"{books.go_version} does not record it"
        if self.thrifty:
            missing["goroutines by state"] = "they were not counted"
        else:
            try:
                source.books.goroutines.states()
            except GotraceError as error:
                missing["goroutines by state"] = error.message
        try:
            cpu_group(pid)
        except GotraceError as error:
            missing["CPU quota"] = error.message
        nodes = {str(cpu): node for cpu, node in numa.topology().cpus.items()}
        return {"nodes": nodes, "zeros_are_calls": books.zeros_are_calls, "missing": missing}

    def look(self) -> None:
        if self._first is None or time.monotonic_ns() < self._sample_ns:
            return
        began = time.thread_time_ns() if not len(self._seen) % _TIMED else 0
        with contextlib.suppress(TargetError):  # it has ended, or its books were changed whenever they were read
            self._seen.append(self.source.books.scheduler.glance())
        if began:
            self._pause_ns = max(_SAMPLE_NS // 2, _RARELY * (time.thread_time_ns() - began))
        self._sample_ns = time.monotonic_ns() + self._pause_ns

    def _ask_samples(self) -> list[Sample]:
        self.look()
        seen, self._seen = self._seen, []
        return [sample for each in seen if (sample := self.source.books.scheduler.sample(each)) is not None]

    def _read(self) -> Reading | None:
        told = self.source.ask("scheduler", self._ask_totals)
        if told is None:
            return None
        times = CpuTimes(*told["times"])
        return Reading(Totals(*told["totals"]), told["cpus"], times, told["group"], told["states"])

    def _ask_totals(self) -> Record:
        source, missing = self.source, self._machine["missing"]
        pid = source.process.pid
        cpus = cpus_for(pid)
        return {
            "totals": source.books.scheduler.totals(),
            "cpus": dataclasses.asdict(cpus),
            "times": cpu_times(cpus.allowed),
            "group": None if "CPU quota" in missing else dataclasses.asdict(cpu_group(pid)),
            "states": None if "goroutines by state" in missing else self._states(),
        }

    def _states(self) -> list[tuple[str, bool, int]] | None:
        try:
            found: list[tuple[str, bool, int]] = self.source.books.goroutines.states()
        except TargetError:  # as in `_ask_sample`
            return None
        return found

    def _record(self, kind: str, before: Reading, after: Reading, samples: Samples) -> Record:
        source = self.source
        found = sched_record(
            source.header["target"]["pid"],
            before.totals,
            after.totals,
            samples,
            _limits(before, after),
            _shares(before, after),
            after.states,
            self._machine["zeros_are_calls"],
        )
        return {"type": kind, **moment(after.totals.at_ns, source.wall_offset_ns), **found}


def _histogram(record: Record) -> Histogram:
    """The runtime's samples, each taken for the middle of its bucket."""
    found = Histogram()
    for bucket in record["latency"]["buckets"]:
        middle = (bucket["from_ns"] + (bucket["to_ns"] or bucket["from_ns"])) // 2
        found.record(np.full(bucket["count"], middle))
    return found


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was counted up to a moment, and what held then: CPUs, control group, goroutines by state."""

    totals: Totals
    cpus: Record
    times: CpuTimes
    group: Record | None
    states: list[Any] | None


def _shares(before: Reading, after: Reading) -> Record:
    """Who had the CPUs."""
    more = CpuTimes(*(max(0, new - old) for new, old in zip(after.times, before.times, strict=True)))
    own = after.totals.ran_ns - before.totals.ran_ns
    return {"others_ns": max(0, more.busy_ns - own), "stolen_ns": more.stolen_ns, "idle_ns": more.idle_ns}


def _limits(before: Reading, after: Reading) -> Record:
    group, old = after.group, before.group
    found: Record = {
        "gomaxprocs": len(after.totals.slices),
        "cpus": list(after.cpus["allowed"]),
        "cores": after.cpus["cores"],
        "capacities": list(after.cpus["capacities"]),
        "quota_cpus": group["quota_cpus"] if group is not None else None,
        "limited_by": group["limited_by"] if group is not None else None,
    }
    for name in ("throttled_ns", "throttled_periods", "periods"):
        known = group is not None and old is not None
        found[name] = max(0, group[name] - old[name]) if known else None  # type: ignore[index]
    return found


VIEW = Scheduler

"""What is known of each traced process, and of the service that it is a part of: series and what feeds them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gotrace.agent import families as of
from gotrace.agent.course import Course
from gotrace.agent.spool import WORST
from gotrace.analysis.columns import distinct
from gotrace.analysis.gc_summary import CONCURRENT_MARK, PARTS, SWEEP, part_of
from gotrace.analysis.pauses import NO_LIMIT, NOT_READ, TRIGGERS, UNKNOWN, Batch, gogc_text
from gotrace.export.metrics.model import Exemplar, Histogram, Number, Registry, Resource
from gotrace.find.processes import TICKS, stat_of
from gotrace.probes.gc import decoder
from gotrace.runtime.metrics import longest_of

if TYPE_CHECKING:
    from gotrace.agent.books import Books
    from gotrace.agent.spool import Window
    from gotrace.analysis.columns import Array
    from gotrace.export.metrics.model import Family
    from gotrace.find.processes import GoProcess
    from gotrace.records.kept import KeptPause
    from gotrace.runtime.metrics import Reading
    from gotrace.shared import SharedSession

_COLLECTOR = ("GC sweep termination", "GC mark termination")
_VERSION_LABEL = "app.kubernetes.io/version"
_NO_GOAL = 1 << 62  # with GOGC and GOMEMLIMIT off the runtime takes the largest number that it has, less what it sweeps


def resource_of(process: GoProcess) -> Resource:
    """The labels of a process's series, by the semantic conventions: a service's processes have equal ones."""
    container, place = process.container, process.place
    unit = place.unit.removesuffix(".service")
    labels = {
        "service.name": container.service or container.name or unit or process.name,
        "service.namespace": container.namespace,
        "k8s.namespace.name": container.namespace,
        "k8s.pod.name": container.pod,
        "k8s.container.name": container.name if container.pod else "",
        "process.executable.name": process.name,
    }
    return Resource.of(labels, {"container.id": place.container})


@dataclass
class Usage:
    """What /proc says of a process."""

    rss: int
    user_s: float
    system_s: float
    minor: int
    major: int

    @classmethod
    def of(cls, process: GoProcess) -> Usage:
        """Raises OSError when it is gone."""
        fields = stat_of(process.pid)  # minflt is 10, majflt 12, utime 14, stime 15
        return cls(
            rss=process.rss_bytes(),
            user_s=int(fields[11]) / TICKS,
            system_s=int(fields[12]) / TICKS,
            minor=int(fields[7]),
            major=int(fields[9]),
        )


class Build(NamedTuple):
    """Of a process: "" where it is not known. ``version`` is that of its Kubernetes label, else its build's content."""

    go_version: str
    build_id: str
    version: str


def _agreed(builds: set[Build], name: str) -> str | None:
    """What all have in common; None if they differ, or nobody knows."""
    (found, *others) = {getattr(each, name) for each in builds} or {""}
    return None if others else found or None


class Service:
    """The series of a resource, and its processes that are traced."""

    def __init__(self, registry: Registry, resource: Resource, window: Window | None = None) -> None:
        self.resource = resource
        self.processes: set[Observed] = set()
        self.is_stale = False  # what its processes have together is to be added up again
        self.ended_at = 0.0  # when the last of them had ended, by time.monotonic
        self.registry = registry
        self.window = window
        self.lost = 0  # events, since the window began
        self.settings: dict[str, Any] = {"gogc": None, "gomaxprocs": None}  # at the end of the last collection
        self._builds: set[Build] = set()  # of processes of the window
        self._kept: dict[tuple[Family, tuple[str, ...]], Number | Histogram] = {}

    def number(self, family: Family, *values: str) -> Number:
        """The series of a counter or gauge; the same each time."""
        found = self._kept.get((family, values))
        if found is None:
            found = self._kept[family, values] = self.registry.number(family, self.resource, *values)
        assert isinstance(found, Number)
        return found

    def observe(self, family: Family, labels: tuple[str, ...], values_ns: Array, exemplar: Exemplar | None = None) -> None:
        """Add to the series of a histogram, and to the window."""
        found = self._kept.get((family, labels))
        if found is None:
            found = self._kept[family, labels] = self.registry.histogram(family, self.resource, *labels)
        assert isinstance(found, Histogram)
        found.observe(values_ns, exemplar)
        if self.window is not None:
            self.window.add(family, labels, values_ns)

    def count(self, family: Family, values_ns: Array, counts: Array) -> None:
        """Add ``counts`` of each value to the one series of a histogram."""
        found = self._kept.get((family, ()))
        if found is None:
            found = self._kept[family, ()] = self.registry.histogram(family, self.resource)
        assert isinstance(found, Histogram)
        found.count(values_ns, counts)

    def explain(self, kept: KeptPause) -> None:
        """Name the cause of a pause that is the exemplar of its histograms, and the recording that tells all of it."""
        for series in (self._kept.get((of.STW, (kept["reason"], "total"))), self._kept.get((of.GC_PAUSE, ()))):
            if not isinstance(series, Histogram) or (longest := series.exemplar) is None:
                continue
            labels = dict(longest.labels)
            if (longest.value_ns, labels["pid"]) == (kept["total_ns"], str(kept["pid"])):
                labels |= {"cause": kept["cause"], "recording": kept["file"]}
                series.exemplar = Exemplar.of(longest.value_ns, labels, longest.time_ns)

    def ended(self, end_ns: int, since_1970_ns: int) -> dict[str, Any]:
        """Its window up to ``end_ns``, see `Window.ended`, and what its processes have together then, as JSON."""
        assert self.window is not None
        totals = {name: sum(getattr(each, name) for each in self.processes) for name in ("rss", "live", "goal")}
        heaps = [each.reading.heap if each.reading is not None else None for each in self.processes]
        told = {
            "labels": dict(self.resource.labels),
            "processes": len(self.processes),
            **{f"{name}_bytes": value for name, value in totals.items()},
            "heap_bytes": sum(filter(None, heaps)) if heaps and None not in heaps else None,
            **{name: _agreed(self._builds, name) for name in Build._fields},
            **self.settings,
            "lost": self.lost,
            **self.window.ended(end_ns, since_1970_ns),
        }
        self.lost, self._builds = 0, {each.build for each in self.processes}
        return told

    def joined(self, observed: Observed) -> None:
        """Another process of it is traced."""
        self.processes.add(observed)
        self._builds.add(observed.build)

    def refresh(self) -> None:
        """Set what its processes have together now, if one of them was observed."""
        if not self.is_stale:
            return
        self.is_stale = False
        self.number(of.PROCESSES).set(len(self.processes))
        for family, name in ((of.MEMORY_USAGE, "rss"), (of.HEAP_LIVE, "live"), (of.GC_GOAL, "goal")):
            self._set(family, sum(getattr(each, name) for each in self.processes) or None)
        for family, name in ((of.GOGC, "gogc"), (of.MEMORY_LIMIT, "limit")):
            values = [value for each in self.processes if (value := getattr(each, name)) is not None]
            self._set(family, max(values, default=None))
        read = [each.reading for each in self.processes if each.reading is not None]
        used = [(each.stack, each.used - each.stack) for each in read if each.stack is not None and each.used is not None]
        for kind, sizes in zip(("stack", "other"), zip(*used, strict=True), strict=False):
            self.number(of.MEMORY_USED, kind).set(sum(sizes))
        if goroutines := [each.goroutines for each in read if each.goroutines is not None]:
            self.number(of.GOROUTINES).set(sum(goroutines))
        both = [(each.rss, each.live) for each in self.processes if each.rss and each.live]
        if both:
            self.number(of.AMPLIFICATION).set(sum(rss for rss, _ in both) / sum(live for _, live in both))
        if self.processes:
            oldest = min(each.process.start for each in self.processes)
            self.number(of.UPTIME).set(time.clock_gettime(time.CLOCK_BOOTTIME) - oldest / TICKS)
        else:
            # It has none of them any more; what it counted stays.
            self._drop({family for family, _ in self._kept if family.kind == "gauge"} - {of.PROCESSES})

    def _set(self, family: Family, value: float | None) -> None:
        """A gauge; None: there is no such thing now, or nobody knows it."""
        if value is not None:
            self.number(family).set(value)
        elif (family, ()) in self._kept:
            self._drop({family})

    def _drop(self, gone: set[Family]) -> None:
        self.registry.drop(self.resource, gone)
        self._kept = {key: series for key, series in self._kept.items() if key[0] not in gone}


@dataclass(eq=False)
class Observed:
    """A traced process. ``rss``, ``live`` and ``goal`` are bytes, 0 while they are unknown; ``gogc`` in percent and
    ``limit`` in bytes are None where they are off, too; ``longest_ns`` is a pause; ``reading`` is what its runtime's
    ``books`` said last."""

    process: GoProcess
    session: SharedSession
    service: Service
    rss: int = 0
    live: int = 0
    goal: int = 0
    gogc: int | None = None
    limit: int | None = None
    cycles: int = 0
    longest_ns: int = 0
    cost_ns: int = 0
    cpu_s: float = 0
    attached_at: float = field(default_factory=time.monotonic)
    course: Course = field(default_factory=Course)
    books: Books | None = None
    reading: Reading | None = None

    def __post_init__(self) -> None:
        session = self.session
        header = session.header(session.begin_ns)
        self._wall_offset_ns = header["clock"]["wall_offset_ns"]
        self._decoder = decoder(header, session.static_text)
        self._lost = 0
        self._observed_at = self.attached_at
        self._usage: Usage | None = None
        target = header["target"]
        build_id, go_version = str(target["build_id"] or ""), str(target["go_version"] or "")
        label = self.process.container.labels.get(_VERSION_LABEL, "")
        self.build = Build(go_version, build_id, label or build_id.rpartition("/")[2][:12])
        self.service.joined(self)
        about = (target["exe"], target["build_id"], target["go_version"], self.process.place.container)
        self._own = Resource((*self.service.resource.labels, ("process.pid", str(session.process.pid))))
        self.service.registry.number(of.TARGET, self._own, *about)

    def observe(self, last: bool = False) -> None:
        """Everything since the last time: events, losses and cost, and what /proc says of a process that has not ended."""
        batch = self._decoder.feed(self.session.read())
        self._add_pauses(batch.pauses)
        self._add_cycles(batch)
        lost = self.session.lost + self._decoder.incomplete
        more_lost = max(0, lost - self._lost)
        self.service.number(of.LOST).add(more_lost)
        self.service.lost += more_lost
        self._lost = max(lost, self._lost)
        cost_ns = round(self.session.hits_and_ns()[1])
        self.service.number(of.OVERHEAD).add(max(0, cost_ns - self.cost_ns) / 1e9)
        self.cost_ns = max(cost_ns, self.cost_ns)
        ran_s = None
        if last:
            self.service.processes.discard(self)
            self.service.registry.drop(self._own)
        else:
            ran_s = self._add_usage()
            self._add_books()
        self.course.add(batch, self._decoder.reasons, self._wall_offset_ns, self._observed_at, ran_s, more_lost)
        self._observed_at = time.monotonic()
        self.service.is_stale = True

    def _add_pauses(self, pauses: Array) -> None:
        if not len(pauses):
            return
        self.longest_ns = max(self.longest_ns, int(pauses["total_ns"].max()))
        collector = np.zeros(len(pauses), bool)
        for number in distinct(pauses["reason"]).tolist():
            reason = self._decoder.reasons[number]
            own = pauses["reason"] == number
            if reason in _COLLECTOR:
                collector |= own
            for part in PARTS:
                values, _ = part_of(pauses[own], part)
                known = values[values != UNKNOWN]
                if len(known):
                    exemplar = self._longest(pauses[own]) if part == "total" else None
                    self.service.observe(of.STW, (reason, part), known, exemplar)
        if collector.any():
            self.service.observe(of.GC_PAUSE, (), pauses["total_ns"][collector], self._longest(pauses[collector]))
        if self.service.window is not None:
            longer = pauses[pauses["total_ns"] > self.service.window.least_ns]
            for pause in longer[np.argsort(longer["total_ns"])[-WORST:]]:
                self.service.window.note(*self._about(pause), self.session.process.pid)

    def _longest(self, pauses: Array) -> Exemplar:
        length, when, reason = self._about(pauses[int(pauses["total_ns"].argmax())])
        return Exemplar.of(length, {"reason": reason, "pid": str(self.session.process.pid)}, when)

    def _about(self, pause: Array) -> tuple[int, int, str]:
        """How long it was, when it began (ns since 1970), and what for."""
        reason = self._decoder.reasons[int(pause["reason"])]
        return int(pause["total_ns"]), int(pause["start_ns"]) + self._wall_offset_ns, reason

    def _add_cycles(self, batch: Batch) -> None:
        cycles, sweeps, service = batch.cycles, batch.sweeps, self.service
        for phase, lengths in ((SWEEP, sweeps["sweep_ns"]), (CONCURRENT_MARK, cycles["mark_ns"])):
            if len(lengths):
                service.observe(of.PHASE, (phase,), lengths)
        if not len(cycles):
            return
        self.cycles += len(cycles)
        service.number(of.GC_CYCLES).add(len(cycles))
        assists = cycles["assist_ns"]
        service.number(of.ASSIST).add(int(assists[assists != UNKNOWN].sum()) / 1e9)
        triggers, counts = np.unique(cycles["trigger"], return_counts=True)
        for trigger, count in zip(triggers.tolist(), counts.tolist(), strict=True):
            service.number(of.TRIGGERS, "unknown" if trigger == UNKNOWN else TRIGGERS[trigger]).add(count)
        allocated = cycles["allocated_bytes"]
        service.number(of.ALLOCATED).add(int(allocated[allocated != UNKNOWN].sum()))
        last = cycles[-1]
        self._set_heap(int(last["heap_live_bytes"]), int(last["heap_goal_bytes"]))
        service.number(of.PROCESSORS).set(int(last["maxprocs"]))
        service.settings = {"gogc": gogc_text(int(last["gc_percent"])), "gomaxprocs": int(last["maxprocs"])}
        if last["gc_percent"] != NOT_READ:
            self._set_pacing(int(last["gc_percent"]), int(last["memory_limit_bytes"]))

    def _set_heap(self, live: int, goal: int) -> None:
        self.live, self.goal = live, goal if 0 < goal < _NO_GOAL else 0

    def _set_pacing(self, gogc: int, limit: int) -> None:
        """What is set now, which the program may have changed."""
        self.gogc = gogc if gogc >= 0 else None
        self.limit = limit if 0 <= limit < NO_LIMIT else None

    def _add_books(self) -> None:
        now = self.books.read() if self.books is not None else None
        if now is None:
            return
        before, self.reading, service = self.reading or now, now, self.service
        if now.allocated is not None and before.allocated is not None:
            service.number(of.MEMORY_ALLOCATED).add(max(0, now.allocated - before.allocated))
        if now.allocations is not None and before.allocations is not None:
            service.number(of.MEMORY_ALLOCATIONS).add(max(0, now.allocations - before.allocations))
        if now.waits is not None and before.waits is not None:
            service.count(of.SCHEDULE, longest_of(len(now.waits)), now.waits - before.waits)
        if now.gogc is not None and now.limit is not None:
            self._set_pacing(now.gogc, now.limit)
        if not self.cycles and now.live is not None and now.goal is not None:  # of a collection before tracing began
            self._set_heap(now.live, now.goal)

    def _add_usage(self) -> float | None:
        """Returns the CPU time since the last one, None if it is not known."""
        try:
            now = Usage.of(self.process)
        except OSError:
            return None
        is_first = self._usage is None
        before = self._usage or Usage(0, now.user_s, now.system_s, now.minor, now.major)
        service, self._usage = self.service, now
        self.rss, self.cpu_s = now.rss, now.user_s + now.system_s
        service.number(of.CPU_TIME, "user").add(max(0, now.user_s - before.user_s))
        service.number(of.CPU_TIME, "system").add(max(0, now.system_s - before.system_s))
        service.number(of.PAGING_FAULTS, "minor").add(max(0, now.minor - before.minor))
        service.number(of.PAGING_FAULTS, "major").add(max(0, now.major - before.major))
        return None if is_first else max(0.0, now.user_s - before.user_s) + max(0.0, now.system_s - before.system_s)

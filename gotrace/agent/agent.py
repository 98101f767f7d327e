"""The agent: finds Go processes, traces them all with probes that they share, and keeps what is exported of them.

One thread does everything but answering requests. It sleeps until a process ends or half a second is over; then it reads
the ring, and of each process whose turn it is what has come. Nothing is done for all processes at once: neither finding
nor attaching nor decoding may take the CPU from whoever is there to work.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gotrace
from gotrace.agent import families as of
from gotrace.agent.books import Books, Finder
from gotrace.agent.course import Course
from gotrace.agent.services import Observed, Service, resource_of
from gotrace.agent.spool import Spool, Window
from gotrace.agent.states import EXPENSIVE, FAILED, TRACED, WAITS
from gotrace.errors import GotraceError, NoRoomError
from gotrace.export.metrics.model import MOST_SERIES, Registry, Resource
from gotrace.find.processes import GoProcess, Scanner
from gotrace.find.selection import TOO_YOUNG, Selection
from gotrace.kernel.child import Child
from gotrace.text import printable, program_text

if TYPE_CHECKING:
    from gotrace.agent.explanations import Explanations
    from gotrace.agent.push import Push
    from gotrace.find.kubelet import Kubelet
    from gotrace.run.target import Say
    from gotrace.shared import SharedProbes

POLL_S = 0.5  # how often the ring is read, at least
_HURRY_S, _FULL = 0.1, 0.1  # or so often, where it was so full
_OBSERVE_S = 1, 10  # how often a process's events are decoded: less often the more there are
_OBSERVED_A_SECOND = 10
_SCAN_S = 30
_ATTACH_S = 0.2  # from one to the next: 5 a second
_COST_S = 60  # over which the cost to a process is judged
_LEAST_COST_NS = 1_000_000  # in that time: what costs less is nothing to anybody
_RETRY_S = 600
_NO_ROOM_S = 60
_SPOOL_S = 60
_PATIENCE_S = 1  # for the child that says what the machine is made of
_GONE_S = 120  # a service without processes keeps its series that long: at least two scrapes


def _machine() -> dict[str, Any]:
    """What is known of this machine, in a child: an agent has no use for the modules that tell it."""
    from gotrace.kernel.machine import host

    return {name: value for name, value in host().items() if value is not None and not isinstance(value, list)}


@dataclass(frozen=True)
class Bounds:
    """Of an agent: ``processes`` that are traced at once, ``series`` that are exported, and ``cost``, which is how much of
    its CPU time tracing may take from a process; ``explaining``: with what its pauses wait for."""

    processes: int = 200
    series: int = MOST_SERIES
    cost: float = 0.001
    explaining: float = 0.01


@dataclass
class _Known:
    """A Go process that was found, and what is to become of it."""

    process: GoProcess
    state: str
    reason: str = ""
    again_at: float = 0  # by time.monotonic: when it may be traced
    observed: Observed | None = None
    observe_at: float = 0
    judged_at: float = 0
    cost_ns: int = 0
    cpu_s: float = 0


@dataclass
class Agent:
    """Call `step` again and again, and `close` in the end."""

    probes: SharedProbes
    scanner: Scanner
    selection: Selection
    say: Say
    bounds: Bounds = field(default_factory=Bounds)
    spool: Spool | None = None
    detailed: bool = False  # whether everything about one process is known from its beginning, before anybody asks
    now: Callable[[], float] = time.monotonic
    kubelet: Kubelet | None = None  # who is asked for names of containers, if anybody is
    explanations: Explanations | None = None
    push: Push | None = None  # what sends metrics, if anything does

    def __post_init__(self) -> None:
        self.registry = Registry(of.ALL, self.bounds.series)
        self.own = Resource.of({"service.name": "gotrace", "service.version": gotrace.__version__})
        self.known: dict[int, _Known] = {}
        self.services: dict[Resource, Service] = {}
        self.seen: Counter[str] = Counter()  # processes by state, at the last scan
        self.ready = False
        self._finder = Finder(self.now)
        self._scan_at = self._attach_at = 0.0
        self._spool_at = self.now() + _SPOOL_S
        self._waits = self._hurries = self._no_room = False
        self._young: dict[int, float] = {}  # pids that executed a program, and when they will be old enough
        self._poll = select.poll()
        self._pid_of: dict[int, int] = {}  # by the descriptor that tells its end
        self._cpu_s = 0.0
        self._measured_at = -float(_COST_S)
        self._problem = self._otlp_problem = ""
        self._spool_fails = False
        self._machine: dict[str, Any] = {}
        self._asked = Child(_machine) if self.spool is not None else None
        self._left_out = self.probes.left_out()
        self._number(of.BUILD, gotrace.__version__, os.uname().release)
        self.note_settings(True)

    def _number(self, family: Any, *values: str) -> Any:
        return self.registry.number(family, self.own, *values)

    def step(self) -> None:
        """Wait, for `POLL_S` at most, and do what is due."""
        until_s = _HURRY_S if self._hurries else _ATTACH_S if self._waits else POLL_S
        ended = [self._pid_of[fd] for fd, _ in self._poll.poll(until_s * 1000) if fd in self._pid_of]
        fill = self.probes.fill()
        self._hurries = fill > _FULL
        self._number(of.RING_FILL).set(fill)
        for pid in self.probes.read():
            self._young[pid] = self.now() + self.selection.min_age_s
            if pid in self.known and self.known[pid].observed is None:
                self._end(pid, "executed another program")
        if self.explanations is not None:
            self.explanations.step()
        for pid in ended:
            self._end(pid, "exited")
        for pid, known in list(self.known.items()):
            if known.observed is not None and known.observed.session.executed_ns:
                self._end(pid, "executed another program")
        now = self.now()
        if now >= self._scan_at:
            self._scan()
        self._look_at_young(now)
        self._waits = self._attach(now)
        for known in list(self.known.values()):
            if known.observed is not None and now >= known.observe_at:
                known.observed.observe()
                known.observe_at = now + self._every_s()
                self._judge(known, now)
        self._refresh()
        if now >= self._spool_at:
            self._spool_at = now + _SPOOL_S
            self._write_spool()
        for resource, service in list(self.services.items()):
            if not service.processes and now - service.ended_at >= _GONE_S:
                self.registry.drop(resource)
                del self.services[resource]
        self._observe_itself()

    def _refresh(self) -> None:
        for service in self.services.values():
            service.refresh()

    def _every_s(self) -> float:
        return min(max(len(self.probes.sessions) / _OBSERVED_A_SECOND, _OBSERVE_S[0]), _OBSERVE_S[1])

    def _scan(self) -> None:
        self._scan_at = self.now() + _SCAN_S
        found = {each.pid: each for each in self.scanner.scan().processes}
        for pid in [pid for pid, known in self.known.items() if found.get(pid) is None]:
            self._end(pid, "exited")
        for process in found.values():
            self._found(process)
        self._count()
        self.ready = True

    def _look_at_young(self, now: float) -> None:
        for pid in [pid for pid, old_at in self._young.items() if now >= old_at]:
            del self._young[pid]
            process = self.scanner.look(pid)
            if process is not None:
                self._found(process)

    def _found(self, process: GoProcess) -> None:
        known = self.known.get(process.pid)
        if known is not None and not known.process.is_same(process):
            self._end(process.pid, "exited")
            known = None
        if known is not None and known.state in (TRACED, EXPENSIVE, FAILED, WAITS):
            return
        why = self.selection.why_not(process)
        self.known[process.pid] = _Known(process, why or WAITS, process.executable.refusal)

    def _count(self) -> None:
        counts = Counter(known.state for known in self.known.values())
        for state in {*self.seen, *counts}:
            self._number(of.SCANNED, state).set(counts[state])
        self.seen = counts

    def _attach(self, now: float) -> bool:
        """Trace the next one, if it is time; whether there are others that wait."""
        waits = [known for known in self.known.values() if known.state in (WAITS, EXPENSIVE) and known.again_at <= now]
        if not waits or len(self.probes.sessions) >= self.bounds.processes:
            return False
        if now >= self._attach_at:
            self._attach_at = now + _ATTACH_S
            self._trace(waits[0])
            self._count()
        return len(waits) > 1

    def _trace(self, known: _Known) -> None:
        process, now = known.process, self.now()
        try:
            session = self.probes.add(process.pid)
        except GotraceError as error:
            if not process.is_same(self.scanner.look(process.pid)):
                self._end(process.pid, "exited")  # it was over before it could be traced
                return
            known.reason = error.message
            if isinstance(error, NoRoomError):
                known.state, known.again_at = WAITS, now + _NO_ROOM_S
                if not self._no_room:
                    self.say(f"Processes wait to be traced: {error.message}; {error.hint}.")
                self._no_room = True
                return
            known.state = FAILED
            self._number(of.FAILURES).add(1)
            self.say(f"pid {process.pid} ({printable(process.name)}) cannot be traced: {error.message}.")
            return
        known.reason = ""
        resource = resource_of(process)
        service = self.services.get(resource)
        if service is None:
            window = Window(time.monotonic_ns()) if self.spool is not None else None
            service = self.services[resource] = Service(self.registry, resource, window)
        books = Books(session.process, self._finder)
        known.observed = Observed(process, session, service, course=Course(self.detailed), books=books)
        known.state = TRACED
        known.observe_at, known.judged_at = now + self._every_s(), now
        known.cost_ns, known.cpu_s = 0, 0
        if self.explanations is not None:
            self.explanations.watch(session, dict(resource.labels), service.explain)
        if session.exit_fd is not None:
            self._poll.register(session.exit_fd, select.POLLIN)
            self._pid_of[session.exit_fd] = process.pid
        self._number(of.ATTACHES).add(1)

    def _end(self, pid: int, reason: str, state: str = "") -> None:
        """A process is over, or no longer traced if there is a ``state`` that it is in then."""
        known = self.known[pid]  # others see it for as long as what it did is not all counted
        observed = known.observed
        if observed is not None:
            fd = observed.session.exit_fd
            if fd is not None:
                self._poll.unregister(fd)
                del self._pid_of[fd]
            observed.observe(last=True)
            if self.explanations is not None:
                self.explanations.end(observed.session)
            self.probes.remove(pid)
            observed.service.ended_at = self.now()
            self._number(of.DETACHES, reason).add(1)
        known.observed, known.state = None, state
        if not state:
            del self.known[pid]
        self._count()

    def _judge(self, known: _Known, now: float) -> None:
        """Leave a process alone for a while that pays too much for being traced."""
        observed = known.observed
        assert observed is not None
        if now - known.judged_at < _COST_S:
            return
        cost_ns, cpu_s = observed.cost_ns - known.cost_ns, observed.cpu_s - known.cpu_s
        explanations = self.explanations
        explained = explanations is not None and explanations.is_watching(observed.session)
        bound = max(_LEAST_COST_NS, (self.bounds.explaining if explained else self.bounds.cost) * cpu_s * 1e9)
        if cost_ns > bound:
            cost_ns = round(cost_ns * self._measure_again())
        known.judged_at, known.cost_ns, known.cpu_s = now, observed.cost_ns, observed.cpu_s
        if cost_ns <= bound:
            return
        share = f"{cost_ns / 1e7 / max(cpu_s, 1e-9):.2f}%"
        pid, name = known.process.pid, program_text(known.process.exe, known.process.executable.go_version)
        if explanations is not None and explained:
            self.say(
                f"pid {pid} ({name}): tracing took {share} of its CPU time, so its pauses are not explained for "
                f"{_RETRY_S // 60} minutes."
            )
            explanations.rest(observed.session, _RETRY_S)
            return
        self.say(
            f"pid {pid} ({name}): tracing took {share} of its CPU time; detached, next attempt in {_RETRY_S // 60} minutes."
        )
        known.again_at = now + _RETRY_S
        self._end(pid, "cost", EXPENSIVE)

    def _measure_again(self) -> float:
        """What a hit costs, for the machine may have been busy when it was measured. Returns by what all costs fall."""
        if self.now() - self._measured_at < _COST_S:  # it takes a quarter of a second
            return 1.0
        self._measured_at = self.now()
        share = self.probes.measure_again()
        for known in self.known.values():
            if known.observed is not None:
                known.observed.cost_ns = round(known.observed.cost_ns * share)
                known.cost_ns = round(known.cost_ns * share)
        return share

    def _write_spool(self) -> None:
        """A minute of every service, whose processes are observed up to now."""
        if self.spool is None:
            return
        for known in self.known.values():
            if known.observed is not None:
                known.observed.observe()
        host = os.uname()
        about = {
            "host": {"name": host.nodename, "kernel": host.release, "machine": host.machine, "made_of": self._made_of()},
            "agent": gotrace.__version__,
        }
        end_ns = time.monotonic_ns()
        since_1970_ns = time.time_ns() - end_ns
        self.spool.write([{**about, **service.ended(end_ns, since_1970_ns)} for service in self.services.values()])
        failures = self._number(of.SPOOL_FAILURES)
        lost = self.spool.failures - failures.value
        failures.reach(self.spool.failures)
        if bool(lost) != self._spool_fails:
            self._spool_fails = bool(lost)
            self.say(f"The spool cannot be written: {self.spool.problem}." if lost else "The spool is writable again.")

    def _made_of(self) -> dict[str, Any]:
        """The machine, as a child has found out: {} where that is not known."""
        if self._asked is not None and self._asked.is_done(_PATIENCE_S):
            with contextlib.suppress(GotraceError):
                self._machine = self._asked.result()
            self._asked = None
        return self._machine

    def _observe_itself(self) -> None:
        times = os.times()
        cpu_s = times.user + times.system + times.children_user + times.children_system
        self._number(of.AGENT_CPU).add(max(0, cpu_s - self._cpu_s))
        self._cpu_s = cpu_s
        with open("/proc/self/statm") as file:
            self._number(of.AGENT_RSS).set(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        left_out = self.probes.left_out()
        self._number(of.LEFT_OUT).add(left_out - self._left_out)
        self._left_out = left_out
        for outcome, count in self.explanations.outcomes.items() if self.explanations is not None else ():
            self._number(of.EXPLANATIONS, outcome).reach(count)
        if self.kubelet is not None:
            self._number(of.KUBELET_UP).set(int(not self.kubelet.problem))
            for reason, count in list(self.kubelet.failures.items()):  # another thread asks
                self._number(of.KUBELET_ERRORS, reason).reach(count)
            if self.kubelet.problem != self._problem and self.kubelet.problem:
                self.say(f"Pod names unavailable: {self.kubelet.problem}.")
            self._problem = self.kubelet.problem
        if self.push is not None:
            self._number(of.OTLP_SENT).reach(self.push.sent)
            self._number(of.OTLP_FAILED).reach(self.push.failed)
            self._number(of.OTLP_REJECTED).reach(self.push.rejected)
            problem = self.push.problem
            if problem and not self._otlp_problem:
                self.say(f"Metrics do not reach the collector at {self.push.collector}: {problem}.")
            elif self._otlp_problem and not problem:
                self.say(f"Metrics reach the collector at {self.push.collector} again.")
            self._otlp_problem = problem
        self._number(of.SERIES).set(self.registry.series)
        self._number(of.BEYOND).reach(self.registry.beyond)

    def note_settings(self, are_read: bool) -> None:
        """Export whether they could be read the last time, and when they could."""
        self._number(of.RELOADED).set(int(are_read))
        if are_read:
            self._number(of.RELOADED_AT).set(time.time())

    def change(self, selection: Selection, bounds: Bounds) -> None:
        """Trace what is selected now, and no more of who is not; what was counted of them stays."""
        dearer = bounds.cost > self.bounds.cost
        self.selection, self.bounds = selection, bounds
        self.registry.bound(bounds.series)
        for pid, known in list(self.known.items()):
            if dearer and known.state == EXPENSIVE:
                known.again_at = 0
            why = selection.why_not(known.process)
            if why and why != TOO_YOUNG and known.state in (TRACED, EXPENSIVE, FAILED, WAITS):
                self._end(pid, why, why)
        for pid in list(self.probes.sessions)[bounds.processes :]:
            self._end(pid, "the bound on processes", WAITS)
        self._scan_at = 0.0

    def close(self) -> None:
        """No more of any process."""
        for pid in list(self.known):
            self._end(pid, "the agent ended")
        self._refresh()
        if self.explanations is not None:
            self.explanations.close()
        self._write_spool()
        self._finder.close()

    def processes(self) -> list[dict[str, Any]]:
        """What is known of every Go process, as JSON."""
        return [_row(known) for known in list(self.known.values())]  # another thread asks

    def traced(self) -> list[Observed]:
        """Every process that is traced."""
        return [each for known in list(self.known.values()) if (each := known.observed) is not None]

    def process(self, pid: int) -> dict[str, Any] | None:
        """The same of one, and `Course.details`; None if there is none that is traced."""
        known = self.known.get(pid)
        observed = known.observed if known is not None else None
        if known is None or observed is None:
            return None
        return {**_row(known), **observed.course.details()}


def _row(known: _Known) -> dict[str, Any]:
    observed = known.observed
    return {
        "pid": known.process.pid,
        "name": printable(known.process.name),
        "exe": printable(known.process.exe),
        "go_version": known.process.executable.go_version,
        "state": known.state,
        "reason": known.reason,
        **(_told(observed) if observed is not None else {}),
    }


def _told(observed: Observed) -> dict[str, Any]:
    return {
        "service": dict(observed.service.resource.labels),
        "traced_s": round(time.monotonic() - observed.attached_at, 3),
        "cycles": observed.cycles,
        "longest_pause_ns": observed.longest_ns,
        "rss_bytes": observed.rss,
        "heap_live_bytes": observed.live or None,
        "heap_goal_bytes": observed.goal or None,
        "lost": observed.session.lost,
        "cost_ns": observed.cost_ns,
        "cpu_s": observed.cpu_s,
        **observed.course.told(),
        **({"unknown": observed.books.unknown} if observed.books is not None and observed.books.unknown else {}),
    }

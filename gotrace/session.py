"""One target and its probes: from an executable file to events, and back to nothing.

Opening a session resolves the target's probe points, compiles the probes, loads and attaches them; whatever fails, all that
was done so far is undone. Both slow steps (disassembly, compilation) run in short-lived children at the same time and
are cached, so that a second start takes milliseconds. Closing a session detaches every probe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import functools
import mmap
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import gotrace
from gotrace import cache
from gotrace.arch import host_arch
from gotrace.errors import GotraceError, HostError, TargetError, told_of
from gotrace.kernel import bpf
from gotrace.kernel.executable import Executable
from gotrace.kernel.family import Family
from gotrace.kernel.host import cpu_name, kernel_pid, online_cpus, require_tracing
from gotrace.kernel.keeper import EXECUTED, READY, Keeper
from gotrace.kernel.process import MemoryMapping, OpenFile, Process, family, is_there
from gotrace.kernel.windows import Windows
from gotrace.made import Made, code_stamp, require_same_arch
from gotrace.probe import FOREVER_NS, Missing, Plan, Point, is_library, time_of

if TYPE_CHECKING:
    from gotrace.kernel.pmu import PmuEvent
    from gotrace.kernel.ring import Events
    from gotrace.probe import Probe, ProbeModule, Traceable

    Compile = Callable[..., Any]
    Files = dict[str, OpenFile]  # by `Point.file`, the executable as ""

_FAMILY = 10_000  # processes that a target may have started before
_MOST_FILES = 1024  # of a family that were looked at
SAMPLE_NS = 1_003_009  # 997 times a second: out of step with what happens every millisecond


@dataclass(frozen=True)
class Cost:
    """What tracing cost: to the target, and to the machine."""

    probe_hits: int
    target_ns_estimate: int
    tool_cpu_s: float
    tool_rss_bytes: int


class Follow(enum.Enum):
    """Where a session goes on when its process executes another program.

    TREE: if that is not a Go program, with the first one that the process or those that it starts then execute.
    """

    NOTHING, PROCESS, TREE = range(3)


class NextProgram(NamedTuple):
    """The program that a process executed; ``reason`` says why it is not traced, or is empty.

    ``late_ns`` is how long it had run before it could be stopped to set its probes; 0 for not at all.
    """

    pid: int
    exe: str
    reason: str
    late_ns: int


def _counts(parts: dict[str, LoadedProbe]) -> tuple[int, dict[str, dict[str, int]]]:
    """What was counted so far: losses, those that the kernel counts too, and the hits of each probe."""
    lost = next(iter(parts.values())).loaded.maps["lost"].words()[0]
    lost += sum(part.loaded.left_out() for part in parts.values())
    return lost, {stem: part.hits for stem, part in parts.items()}


class Readable(Protocol):
    """What events are read from: a ring, or whoever reads one for several sessions."""

    def read(self) -> Events: ...


class LoadedProbe:
    """One probe of a session: its declaration, its plan for the target, and what is loaded of it."""

    def __init__(self, module: ProbeModule, plan: Plan, loaded: bpf.LoadedObject) -> None:
        self.module = module
        self.probe = module.PROBE
        self.plan = plan
        self.loaded = loaded

    def describe(self) -> dict[str, Any]:
        """The part of a session's header about this probe."""
        return {
            "kinds": self.probe.header_kinds(),
            "points": [
                {
                    "name": point.name,
                    "symbol": point.symbol,
                    "address": f"{point.address:#x}",
                    "instruction": point.instruction,
                    "emulated": point.emulated,
                    "file": point.file,
                }
                for point in self.plan.points
            ],
            "missing": [dataclasses.asdict(item) for item in self.plan.missing],
            "facts": self.plan.facts,
        }

    def lacks(self, program: str, reason: str) -> None:
        """Note that one of the probe's programs, which it can do without, is not attached."""
        self.plan = dataclasses.replace(self.plan, missing=(*self.plan.missing, Missing(program, reason)))

    def extend(self, plan: Plan) -> None:
        """Note what is attached besides, of files that its plan did not have."""
        own = self.plan
        points, libraries = (*own.points, *plan.points), (*own.libraries, *plan.libraries)
        self.plan = dataclasses.replace(own, points=points, libraries=libraries, missing=(*own.missing, *plan.missing))

    def followed(self) -> Iterator[bytes]:
        """The processes that a probe follows by itself, as its table has them."""
        if self.probe.tree:
            yield from (key for key, _ in self.loaded.maps["followed"].items())

    @property
    def hits(self) -> dict[str, int]:
        """How often the target ran into each program, and what else of it is counted."""
        return dict(zip(self.probe.counts, self.loaded.maps["hits"].words(), strict=True))


class Session:
    """Probes attached to a process; their events come in one stream. Use `opened`."""

    def __init__(
        self,
        process: Traceable,
        parts: dict[str, LoadedProbe],
        bias: int,
        bases: dict[str, int],
        exe: int,
        counters: list[str],
        sampled: str,
    ) -> None:
        self.process = process
        self.parts = parts
        self.counters = counters  # their names, in the order of their numbers
        self.sampled = sampled  # the event's name; "" for the clock
        self.attach_ns = 0
        # Events and counts are those of [begin_ns, end_ns) in CLOCK_MONOTONIC, though probes are set one by one before it.
        self.begin_ns = 0
        self.end_ns = FOREVER_NS
        self.received = 0  # the events that were read so far, of this program
        self._always = [kind.number for part in parts.values() for kind in part.probe.kinds if kind.once]
        self.executed_ns = 0  # when the process executed another program, if it has; see `next_program`
        self.mapped: list[tuple[MemoryMapping, int]] = []  # with a descriptor of the file, by the program that was executed
        self._exe = exe  # a descriptor: stays readable when the process is gone and when root is given up
        self.ns_per_hit = (0.0, 0.0)  # of an instruction that is emulated, and of one that is not
        self.bias = bias  # of a position-independent executable
        self._bases = bases
        self.late: list[int] = []  # probes of libraries that were mapped later
        self._known: set[str] = set()  # files that were looked at, by their paths
        self._looked_ns = 0
        self._ring: Readable | None = None
        self._keeper: Keeper | None = None
        self._windows: Windows | None = None
        self._family: Family | None = None
        self._told: list[dict[str, Any]] = []  # of it, and not asked for yet
        self._ahead: list[Events] = []  # read before it was their turn: of the program that was executed
        # What was counted before ``begin_ns``, and when the program executed another.
        self._before = (0, {stem: dict.fromkeys(part.probe.counts, 0) for stem, part in parts.items()})
        self._until: tuple[int, dict[str, dict[str, int]]] | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the first probe: what it says of the executable, every other says too."""
        return next(iter(self.parts.values())).plan

    @property
    def ring(self) -> Readable:
        # Mapped at the first read, not at the start: events wait in the kernel, and numpy need not load before that.
        if self._ring is None:
            from gotrace.kernel.ring import RingReader

            events = self._maps["events"]
            self._ring = RingReader(events.fd, events.spec.max_entries)
        return self._ring

    def _counts(self) -> tuple[int, dict[str, dict[str, int]]]:
        return _counts(self.parts)

    @property
    def _maps(self) -> dict[str, bpf.Map]:
        return next(iter(self.parts.values())).loaded.maps

    def header(self, begin_ns: int) -> dict[str, Any]:
        """What has to be known to understand this session's events, as JSON; see `gotrace.recording.format`.

        ``begin_ns`` is when tracing began, in CLOCK_MONOTONIC as every time without another name.
        """
        plan = self.plan
        host = os.uname()
        return {
            "gotrace": gotrace.__version__,
            "target": {
                "pid": self.process.pid,
                "exe": self.process.exe_name,
                "build_id": plan.build_id,
                "go_version": plan.go_version,
                "arch": plan.arch,
                "stripped": plan.stripped,
                "pie": plan.pie,
                "bias": self.bias,
                "libraries": self._libraries(),
            },
            "host": {
                "name": host.nodename,
                "kernel": host.release,
                "machine": host.machine,
                "cpus": len(online_cpus()),
                "cpu": cpu_name(),
            },
            "clock": {
                "begin_ns": begin_ns,
                "wall_offset_ns": time.time_ns() - time.monotonic_ns(),
                "target_offset_ns": self._target_offset_ns(),
            },
            "attach_ns": self.attach_ns,
            "counters": self.counters,
            "sampled": self.sampled,
            "probes": {stem: part.describe() for stem, part in self.parts.items()},
        }

    def _target_offset_ns(self) -> int:
        return self.process.time_offset_ns()

    def _libraries(self) -> list[dict[str, Any]]:
        """Those that any probe was given; ``bias`` is what is added to a link-time address to get a run-time one."""
        found = dict.fromkeys(each for part in self.parts.values() for each in part.plan.libraries)
        return [
            {"path": each.path, "build_id": each.build_id, "bias": self._bases[each.path] - each.code_vaddr}
            for each in found
            if each.path in self._bases  # not those that were mapped later
        ]

    def begin(self) -> None:
        """From now on events count, and what is counted: not what was seen while the probes were set."""
        self._ahead.append(self.ring.read())
        self._before = self._counts()
        self.begin_ns = time.monotonic_ns()

    def read(self) -> Events:
        """Every event since the last call; once another program was executed, only those of the one before."""
        events = self.ring.read()
        self._listen()
        if self._windows is not None:
            self._ahead += self._ended_windows()
        if self._ahead:
            from gotrace.analysis.columns import joined

            events, self._ahead = joined([*self._ahead, events]), []
        if self.executed_ns:
            later = events["time_ns"] >= self.executed_ns
            self._ahead.append(events[later])
            events = events[~later]
        if len(events):
            from gotrace.kernel.ring import within

            events = within(events, self.begin_ns, self.end_ns, self._always)
        self.received += len(events)
        return events

    def open_windows(self) -> None:
        """From now on probes that are set for short windows only are."""
        if self._windows is None:
            return
        points = [(part, point) for part in self._windowed for point in part.plan.points]
        places = [(part.loaded.programs[point.program], point.file_offset) for part, point in points]
        self._windows.start(self.process.pid, self._exe, places)

    def close_windows(self) -> None:
        """No more of them for now; that is, too, when one that is open ends."""
        if self._windows is not None:
            self._windows.stop()

    @property
    def _windowed(self) -> list[LoadedProbe]:
        return [part for part in self.parts.values() if part.probe.window_ns]

    def _ended_windows(self) -> Iterator[Events]:
        """Those that ended since the last call, as events."""
        from gotrace.kernel.ring import windows

        assert self._windows is not None
        upto = min(self.end_ns, self.executed_ns or FOREVER_NS) - 1
        ended = [(begin, min(end, upto)) for begin, end in self._windows.ended() if begin < upto]
        for part in self._windowed:
            yield windows(next(kind.number for kind in part.probe.kinds if kind.of_session), ended)

    @property
    def lost(self) -> int:
        """Events that found the ring full, and numbers that could not be read from this program, since it began.

        With those that were not looked at, for the program that does was at work on that CPU already.
        """
        lost, _ = self._until or self._counts()
        return lost - self._before[0]

    def probe_libraries(self) -> list[dict[str, Any]]:
        """Probe what the process has mapped since the last call, and say what: of probes that are declared ``later``.

        Of each file its path, build_id, points (names), and the ``late_ns`` for which it had been mapped at most; with the
        first, what is missing of all ([name, reason]). Where the processes that it starts are followed it is what
        `_FamilyProbes` says of each. Raises GotraceError.
        """
        assert isinstance(self.process, Process)
        if self._family is not None:
            told, self._told = self._told, []
            return told
        begin_ns, self._looked_ns = self._looked_ns, time.monotonic_ns()
        parts = [part for part in self.parts.values() if part.probe.later]
        wanted = functools.partial(_is_wanted, [part.module for part in parts])
        paths = {each.path for each in self.process.mappings() if each.executable and wanted(each.path)}
        if not paths - self._known:
            return []
        plans = []
        with opened_files([part.module for part in parts], self.process) as files:
            new = {path: file for path, file in files.items() if path and path not in self._known}
            self._known |= paths | set(new)
            prepared = _prepared([part.module for part in parts], self.process, {"": files[""], **new})
            for part, (plan, obj) in zip(parts, prepared, strict=True):
                plan = dataclasses.replace(plan, points=tuple(point for point in plan.points if point.file))
                plan = _as_mapped(plan, self.process, new)
                part.loaded.add(obj, {point.program for point in plan.points})
                for point in plan.points:
                    verify(new[point.file].fd, point)
                _attach_points(part.loaded, plan.points, self.process.pid, new, self.late)
                part.extend(plan)
                plans.append(plan)
        late_ns = time.monotonic_ns() - begin_ns
        first = next(iter(new), "")
        return [
            {
                "path": path,
                "build_id": next((each.build_id for each in plan.libraries if each.path == path), ""),
                "points": [point.name for point in plan.points if point.file == path and not point.returns],
                "missing": [[item.name, item.reason] for item in plan.missing if path == first],
                "late_ns": late_ns,
            }
            for plan in plans
            for path in new
        ]

    def _listen(self) -> None:
        """Take what there is to be told of the family."""
        told = self._family.receive(0) if self._family is not None else None
        while told is not None:
            self._take(told)
            told = self._family.receive(0) if self._family is not None else None

    def _take(self, told: dict[str, Any]) -> None:
        for stem, plan in told.pop("plans", {}).items():
            self.parts[stem].extend(Plan.from_json(plan))
        if len(self._told) < _FAMILY:
            self._told.append(told)

    def running(self) -> int:
        """How many of the processes that it has started are there, though it has ended; 0 while it runs."""
        if self._family is None or not self.process.wait(0):
            return 0
        numbers = {int.from_bytes(key, sys.byteorder) for part in self.parts.values() for key in part.followed()}
        return sum(map(is_there, numbers - {self.process.pid}))

    def follow(self, family: Family) -> None:
        """Leave what the processes that it starts map to ``family``."""
        self._family = family
        for told in family.first:
            self._take(told)

    def looked_at(self, since_ns: int, paths: Iterable[str]) -> None:
        """These libraries have their probes, or cannot: all that had been mapped at ``since_ns``."""
        self._known, self._looked_ns = set(paths), since_ns

    def static_text(self, address: int, length: int) -> str:
        """``length`` bytes at a run-time address of the executable's read-only data, as text; "" if there are none."""
        from gotrace.binary.elf import Elf

        try:
            with Elf(mmap.mmap(self._exe, 0, prot=mmap.PROT_READ), self.process.exe_path) as elf:
                return elf.read(address - self.bias, min(length, 256)).decode("utf-8", "replace")
        except GotraceError:
            return ""

    def wait(self, seconds: float, *others: int) -> bool:
        """Sleep up to ``seconds``; True as soon as the target has exited. Ends too when ``executed_ns`` is set.

        ``others`` are descriptors that end it.
        """
        if self._keeper is None or self.executed_ns:
            return self.process.wait(seconds, *others)
        assert isinstance(self.process, Process)
        exited = self.process.wait(seconds, self._keeper.fd, *others)
        told = self._keeper.receive(0)
        if told is not None:
            self.executed_ns, self._until = told[1]["time_ns"], told[1]["counts"]
        failure = self._windows.failure() if self._windows is not None else None
        if failure is None or exited or self.executed_ns:
            return exited
        if not (self.process.wait(0.05) or self.process.exec_changed()):  # else that is why
            raise failure
        return self.process.wait(0)

    def keep(self, keeper: Keeper) -> None:
        """Leave the probes to ``keeper``, and listen to it."""
        self._keeper = keeper

    def set_by(self, windows: Windows) -> None:
        """Leave probes that are set for short windows to ``windows``."""
        self._windows = windows

    def next_program(self, seconds: float) -> NextProgram | None:
        """What became of the program that was executed; None if that is unknown within ``seconds``.

        Where it is traced this session is about it from now on, and what `read` gives is its own.
        """
        assert self._keeper is not None
        told = self._keeper.receive(seconds)
        while told is not None and told[0] == EXECUTED:  # by way of a program that is not traced
            told = self._keeper.receive(seconds)
        if told is None:
            return None
        what, about, fds = told
        if what == READY:
            self._turn_to(about, fds)
        return NextProgram(about["pid"], about["exe"], about.get("reason", ""), about.get("late_ns", 0))

    def _turn_to(self, about: dict[str, Any], fds: list[int]) -> None:
        self.received, self._before, self._until, self.end_ns = 0, about["counts"], None, FOREVER_NS
        for stem, part in self.parts.items():
            part.plan = Plan.from_json(about["plans"][stem])
        assert isinstance(self.process, Process)
        self.process = self.process.renamed(about["pid"], about["exe"], fds[1])
        self.bias, self.attach_ns, self.executed_ns = about["bias"], about["held_ns"], 0
        self._bases = about["bases"]
        with bpf.closing_all(self.late):
            self.looked_at(about["released_ns"], self._bases)
        os.dup2(fds[0], self._exe)
        os.close(fds[0])
        self.mapped = list(zip((MemoryMapping(*each) for each in about["mapped"]), fds[2:], strict=True))
        self.begin_ns = about["released_ns"]

    def calibrate(self) -> None:
        """Measure what a hit costs here; needs root, so do it before giving root up."""
        from gotrace.kernel.calibrate import probe_cost_ns

        self.ns_per_hit = probe_cost_ns()

    def hits_and_ns(self) -> tuple[int, float]:
        """How often the probes were hit, and what the target waited for them: an estimate."""
        hits, target_ns = 0, 0.0
        _, counted = self._until or self._counts()
        for stem, part in self.parts.items():
            stepped = {point.program for point in part.plan.points if not point.emulated}
            counts = {name: total - self._before[1][stem][name] for name, total in counted[stem].items()}
            target_ns += sum(counts[time_of(name)] for name in part.probe.timed)
            for name in part.probe.hits:
                count = counts[name]
                hits += count
                in_target = self.ns_per_hit[name in stepped] + part.probe.walk_ns
                target_ns += count * (in_target if bpf.is_uprobe(name) else part.probe.kernel_hit_ns)
        return hits, target_ns

    def cost(self) -> Cost:
        hits, target_ns = self.hits_and_ns()
        times = os.times()
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        cpu = times.user + times.system + times.children_user + times.children_system
        if self._keeper is not None:
            keeper_cpu, keeper_bytes = self._keeper.cost()
            cpu, resident = cpu + keeper_cpu, resident + keeper_bytes
        if self._family is not None:
            cpu += self._family.cpu_s()
        if self._windows is not None:
            cpu += self._windows.cpu_s()
        return Cost(hits, round(target_ns), round(cpu, 3), resident)


@contextlib.contextmanager
def opened(
    modules: Sequence[ProbeModule],
    process: Traceable,
    sample_ns: int = SAMPLE_NS,
    without: Sequence[str] = (),
    counters: Sequence[PmuEvent] = (),
    sampled: Sequence[PmuEvent] = (),
    follow: Follow = Follow.NOTHING,
) -> Iterator[Session]:
    """Attach the probes of ``modules`` (of `gotrace.probes`) to ``process``; detached on the way out.

    Every ``sample_ns`` each CPU is sampled, by probes that do so. Programs named in ``without`` are left out, and
    a probe's optional ones where the kernel cannot attach them: then the plan's ``missing`` has them.
    ``counters`` are counted by a probe that reads some; those of one name, which belong to different CPUs, are one.
    ``sampled`` is what is sampled by a probe that does, as often as the clock otherwise; one event for each kind of CPU.
    ``follow`` says whether the program that the process executes next gets the probes too.

    Raises HostError, TargetError, BinaryError or LoadError with nothing left attached.
    """
    begin = time.monotonic_ns()
    foreign = _open_files()
    require_tracing()
    ring_bytes = max(module.PROBE.ring_bytes for module in modules)
    fds: list[int] = []
    with bpf.closing_all(fds), contextlib.ExitStack() as stack:
        # One descriptor for all that follows: should the process execute another program, nothing touches that one.
        files = stack.enter_context(opened_files(modules, process))
        exe = files[""].fd
        prepared = _prepared(modules, process, files)
        parts: dict[str, LoadedProbe] = {}
        shared: dict[str, bpf.Map] = {}
        # Probes on files, and a look at all that the family maps, where every probe follows that by itself.
        family = all(each.PROBE.tree and each.PROBE.later for each in modules) and kernel_pid(process.pid) > 0
        for module, (plan, obj) in zip(modules, prepared, strict=True):
            plan = _as_mapped(plan.leaving_out(without), process, files, every=family)
            in_kernel = {name for name in obj.programs if not bpf.is_uprobe(name)}
            wanted = ({point.program for point in plan.points} | in_kernel) - set(plan.without)
            loaded = stack.enter_context(bpf.load(obj.with_ring(ring_bytes), wanted, shared))
            shared = {name: loaded.maps[name] for name in ("events", "lost")}
            parts[module.PROBE.stem] = LoadedProbe(module, plan, loaded)
        first = next(iter(parts.values())).plan
        bias = process.load_bias(first.first_vaddr, exe) if first.pie else 0
        counted = list(dict.fromkeys(event.name for event in counters))
        for part in parts.values():
            if part.probe.counters:
                _open_counters(part, counters, counted)
        _configure(parts, process, bias, files, len(counted))
        for part in parts.values():
            for name, program in part.loaded.programs.items():
                try:
                    fds.extend(attach_to_kernel(part.probe, program, name, sample_ns, sampled))
                except HostError as error:
                    if name not in part.probe.optional:
                        raise
                    part.lacks(name, error.message)
        for part in parts.values():
            if part.probe.tree:
                _follow_family(part, process.pid)
        probes: list[int] = []
        with bpf.closing_all(probes):
            _attach_to_program(parts, -1 if family else process.pid, files, probes)
            bases = {path: file.base for path, file in files.items()}
            session = Session(process, parts, bias, bases, exe, counted, sampled[0].name if sampled else "")
            session.looked_at(begin, files)
            stack.enter_context(bpf.closing_all(session.late))
            for part in parts.values():
                if part.probe.window_ns:
                    windows = Windows(part.probe.window_ns, part.probe.every_ns, foreign)
                    session.set_by(stack.enter_context(contextlib.closing(windows)))
            if family:
                known = {cache.identity(file.fd)[:2] for file in files.values()}
                looking = _FamilyProbes(parts, known)
                names = [name for each in modules for name in each.PROBE.libraries]
                followed = Family(process.pid, looking.look, _linkers_site, names, foreign)
                session.follow(stack.enter_context(contextlib.closing(followed)))
            if follow is Follow.NOTHING:
                fds += probes
                probes.clear()
            else:
                assert not isinstance(process, Executable)
                renew = functools.partial(_renewed, parts, without, len(counted))
                counts = functools.partial(_counts, parts)
                keeper = Keeper(process.pid, probes, renew, counts, tree=follow is Follow.TREE, foreign=foreign)
                session.keep(stack.enter_context(contextlib.closing(keeper)))
        session.attach_ns = time.monotonic_ns() - begin
        yield session


def _open_files() -> list[int]:
    """Descriptors of the program that we are part of, but for the standard streams."""
    return [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2]


def _configure(parts: dict[str, LoadedProbe], process: Traceable, bias: int, files: Files, counters: int) -> None:
    """Tell the probes about a program, after a last look at its instructions."""
    for part in parts.values():
        part.loaded.maps["config"].write_words(settings(part, process, bias, counters))
        for point in part.plan.points:
            verify(files[point.file].fd, point)


def _attach_to_program(parts: dict[str, LoadedProbe], pid: int, files: Files, probes: list[int]) -> None:
    """Set the probes of a program and its libraries, but for windows; their descriptors are added to ``probes``."""
    for part in parts.values():
        if not part.probe.window_ns:
            _attach_points(part.loaded, part.plan.points, pid, files, probes)
    for part in parts.values():
        if part.probe.attached:  # what was seen before, was seen in parts
            part.loaded.maps["config"].write_words([1], part.probe.config.index("attached"))


def _attach_points(loaded: bpf.LoadedObject, points: Iterable[Point], pid: int, files: Files, probes: list[int]) -> None:
    for point in points:
        path, program = _path(files[point.file].fd), loaded.programs[point.program]
        probes.append(bpf.attach_uprobe(program, path, point.file_offset, pid, point.returns))


def _renewed(
    parts: dict[str, LoadedProbe], without: Sequence[str], counters: int, process: Process
) -> tuple[dict[str, Any], list[int], list[int]]:
    """Give a process that has just executed a program the probes of that; see `gotrace.kernel.keeper.Renew`."""
    from gotrace.binary.elf import Elf
    from gotrace.binary.identity import identify

    probes: list[int] = []
    modules = [part.module for part in parts.values()]
    with opened_files(modules, process) as files:
        exe = files[""].fd
        if any(part.probe.go for part in parts.values()):
            with naming(process, files), Elf.open(_path(exe)) as elf:
                identify(elf)  # raises what a program that is not Go's is told by, sooner than all that follows
        prepared = _prepared(modules, process, files)
        for part, (plan, obj) in zip(parts.values(), prepared, strict=True):
            # What runs in the kernel stays as it is attached, or lacking.
            lacking = tuple(item for item in part.plan.missing if item.name in part.probe.hits)
            plan = _as_mapped(plan.leaving_out(without), process, files)
            part.plan = dataclasses.replace(plan, missing=(*plan.missing, *lacking))
            part.loaded.forget(kept=("config", "lost", "hits", "followed"))
            part.loaded.add(obj, {point.program for point in part.plan.points})
        first = next(iter(parts.values())).plan
        bias = process.load_bias(first.first_vaddr, exe) if first.pie else 0
        _configure(parts, process, bias, files, counters)
        try:
            _attach_to_program(parts, process.pid, files, probes)
        except GotraceError:
            with bpf.closing_all(probes):
                raise
        mapped = process.opened_code() if any(part.probe.names_code for part in parts.values()) else []
        plans = {stem: part.plan.to_json() for stem, part in parts.items()}
        bases = {path: file.base for path, file in files.items()}
        about = {"plans": plans, "bias": bias, "bases": bases, "mapped": [mapping for mapping, _ in mapped]}
        memory = os.dup(process.memory_fd) if process.memory_fd >= 0 else os.open(os.devnull, os.O_RDONLY)
        return about, probes, [os.dup(exe), memory, *(fd for _, fd in mapped)]


def _open_counters(part: LoadedProbe, counters: Sequence[PmuEvent], names: list[str]) -> None:
    """Start counting on every CPU that has the event. Raises HostError."""
    places, table = part.probe.counters, part.loaded.maps["counters"]
    assert len(names) <= places
    for event, cpu in _places(counters):
        fd = event.opened(cpu)
        try:
            table.put_event(cpu * places + names.index(event.name), fd)
        finally:
            os.close(fd)


def _places(events: Sequence[PmuEvent]) -> Iterator[tuple[PmuEvent, int]]:
    """Each event with each CPU that has it."""
    from gotrace.kernel.tlb_events import cpus_of

    for event in events:
        yield from ((event, cpu) for cpu in cpus_of(event) or online_cpus())


def attach_to_kernel(
    probe: Probe, program: int, name: str, sample_ns: int = SAMPLE_NS, sampled: Sequence[PmuEvent] = ()
) -> Iterator[int]:
    """Attach a program that runs in the kernel to what its name and its probe say; not one of a uprobe."""
    if name.startswith(bpf.RAW_TRACEPOINT):
        yield bpf.attach_raw_tracepoint(program, name.removeprefix(bpf.RAW_TRACEPOINT))
    elif name.startswith(bpf.TRACE_EVENT):
        yield bpf.attach_tracepoint(program, *name.removeprefix(bpf.TRACE_EVENT).split("__", 1))
    elif name in probe.samples and sampled:
        for event, cpu in _places(sampled):
            if event.rare:
                yield bpf.attach_every(program, event.type, event.config, event.name, cpu)
                continue
            yield bpf.attach_samples(program, event.type, event.config, event.name, cpu, round(1e9 / sample_ns))
    elif name in (*probe.samples, *probe.ticks):
        period_ns = (name in probe.ticks and probe.tick_ns) or sample_ns
        for cpu in online_cpus():
            yield bpf.attach_software_event(program, "cpu_clock", cpu, period_ns)
    elif name.startswith(bpf.SOFTWARE_EVENT):
        for cpu in online_cpus():
            yield bpf.attach_software_event(program, name.removeprefix(bpf.SOFTWARE_EVENT), cpu)


def _follow_family(part: LoadedProbe, pid: int) -> None:
    """Tell a probe that follows a tree of processes which there are already: it sees who they fork from then on."""
    known: set[int] = set()
    first = [pid] if pid > 0 else []  # there is none of a control group
    while new := {*first, *family(pid, _FAMILY)} - known:
        known |= new
        for each in new:
            part.loaded.maps["followed"].put(each.to_bytes(4, sys.byteorder), b"\1")


def _path(descriptor: int) -> str:
    """A name for the very file of a descriptor, here and in children."""
    return f"/proc/self/fd/{descriptor}"


@contextlib.contextmanager
def naming(process: Traceable, files: Files) -> Iterator[None]:
    """Say what is wrong with a file by a name that means something to people."""
    try:
        yield
    except GotraceError as error:
        message = error.message
        for path, file in sorted(files.items(), key=lambda each: -each[1].fd):  # /proc/self/fd/12 before /proc/self/fd/1
            message = message.replace(_path(file.fd), path or process.exe_path)
        raise type(error)(message, error.hint, detail=error.detail) from None


def _prepared(modules: Sequence[ProbeModule], process: Traceable, files: Files) -> list[tuple[Plan, bpf.BpfObject]]:
    """Plans for what is open as ``files`` and compiled probes, from the cache or from children that all work at once."""
    with contextlib.ExitStack() as stack:
        objects = [compiled(stack, module.PROBE) for module in modules]
        plans = [planned(stack, module, files) for module in modules]
        # The plans first: a target that cannot be traced need not wait for the compiler.
        with naming(process, files):
            found = [Plan.from_json(each.json()) for each in plans]
        return list(zip(found, (bpf.BpfObject.from_json(each.json()) for each in objects), strict=True))


def compiled(
    stack: contextlib.ExitStack, probe: Probe, many: int = 0, how: Callable[[Compile], Compile] | None = None
) -> Made:
    """The `BpfObject` of a probe, as JSON; ``many`` as in `Probe.cflags`, ``how`` as `gotrace.kernel.aside.aside`."""
    from gotrace.kernel.compiler import host_cflags

    host = (*host_cflags(), _headers(), os.uname().machine)
    key = cache.key("object", probe.source(), *probe.cflags(many), *host)
    # on a slow (or emulated) processor it takes a minute and more
    return Made(stack, key, how(probe.compile) if how else probe.compile, many, cpu_seconds=180)


def planned(stack: contextlib.ExitStack, module: ProbeModule, files: Files) -> Made:
    """The `Plan` of a probe for what is open as ``files``, as JSON."""
    identity = [(path, *cache.identity(file.fd)) for path, file in files.items()]
    paths = {path: _path(file.fd) for path, file in files.items()}
    key = cache.key("plan", module.PROBE.stem, gotrace.__version__, code_stamp(), *identity)
    return Made(stack, key, resolve, module, paths, cpu_seconds=30)


def resolve(module: ProbeModule, paths: dict[str, str]) -> Plan:
    """The plan of one probe; disassembles, so run it in a child. ``paths`` says where to open each of `Files`."""
    from gotrace.binary.program import GoProgram, Program

    probe, libraries = module.PROBE, {path: place for path, place in paths.items() if _is_wanted([module], path)}
    opened = GoProgram.open(paths[""]) if probe.go else Program.open(paths[""], libraries)
    with opened as program:
        require_same_arch(program)
        plan = module.plan(cast("GoProgram", program))  # a probe that needs no Go makes do with a `Program`
    at_home = not (probe.later or probe.tools or probe.spare)
    if not plan.points and at_home and any(bpf.is_uprobe(name) for name in probe.hits):
        reasons = "; ".join(item.reason for item in plan.missing)
        what = "this Go program" if probe.go else "this program"
        raise TargetError(f"nothing in {what} can be probed safely: {reasons}", "`gotrace doctor` shows details")
    return plan


def _is_wanted(modules: Sequence[ProbeModule], path: str) -> bool:
    """Whether a probe wants this library, or tool."""
    libraries = any(is_library(path, name) for module in modules for name in module.PROBE.libraries)
    return libraries or any(os.path.basename(path) in module.PROBE.tools for module in modules)


@contextlib.contextmanager
def opened_files(modules: Sequence[ProbeModule], process: Traceable) -> Iterator[Files]:
    """The target's executable, and what else of it to probe."""
    with contextlib.ExitStack() as stack:
        try:
            exe = os.open(process.exe_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            gone = process.exe_path.startswith("/proc/") and error.errno in (errno.ENOENT, errno.ESRCH)
            if gone:
                raise TargetError("the target has exited", "give a program that is running") from error
            told = told_of(error)
            raise TargetError(f"cannot read {told.message}", told.hint) from error
        stack.callback(os.close, exe)
        libraries: Files = {}
        if any(module.PROBE.libraries or module.PROBE.of_starts for module in modules):  # a process may have many mappings
            libraries = process.open_libraries(functools.partial(_is_wanted, modules))
        for file in libraries.values():
            stack.callback(os.close, file.fd)
        yield {"": OpenFile(exe, 0), **libraries}


def verify(descriptor: int, point: Point) -> None:
    """The last look before a breakpoint is written: the running file has the very instruction that was resolved."""
    found = os.pread(descriptor, len(point.code), point.file_offset)
    if found != point.code:
        raise TargetError(
            f"{point.symbol} at {point.address:#x} holds {found.hex()} instead of {point.code.hex()}",
            "the executable changed while it was being read; try again",
        )


def _as_mapped(plan: Plan, process: Traceable, files: Files, every: bool = False) -> Plan:
    """The plan without points of libraries whose code in memory is not that of the file: whoever patched it jumps there.

    A breakpoint, which another tracer may have set, is the exception. With ``every`` in no process that maps the file, for
    a probe on a file is one for each of them.
    """
    memory = process.memory_fd if isinstance(process, Process) else -1
    if memory < 0:
        return plan
    patched = _patched(plan.points, memory, {path: file.base for path, file in files.items() if path})
    for pid, bases in _mapping(files).items() if every else ():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", buffering=0) as other:
            found = _patched(plan.points, other.fileno(), bases, unreadable=False)
            patched += [point for point in found if point not in patched]
    reason = "its code in memory differs from its file: something in the process has replaced it"
    missing = [Missing(point.name, reason) for point in patched if not point.returns]
    points = tuple(point for point in plan.points if point not in patched)
    return dataclasses.replace(plan, points=points, missing=(*plan.missing, *missing))


def _patched(points: Iterable[Point], memory: int, bases: Mapping[str, int], unreadable: bool = True) -> list[Point]:
    """Those of libraries at ``bases`` that a process's memory has other code at, or none that can be read."""
    trap, found = host_arch().uprobe_breakpoint, []
    for point in points:
        if point.file in bases:
            code = b""
            with contextlib.suppress(OSError):
                code = os.pread(memory, len(point.code), bases[point.file] + point.file_offset)
            if code not in (point.code, trap + point.code[len(trap) :]) and (code or unreadable):
                found.append(point)
    return found


def _mapping(files: Files) -> dict[int, dict[str, int]]:
    """{pid: {path: base}} of every process that has mapped some of these libraries as code; the paths are ours."""
    found: dict[int, dict[str, int]] = {}
    inodes = {os.stat(file.fd).st_ino: path for path, file in files.items() if path}
    wanted = re.compile(b"^(\\w+)-\\w+ r.x. (\\w+) \\S+ (%s) " % b"|".join(b"%d" % inode for inode in inodes), re.M)
    for pid in filter(str.isdigit, os.listdir("/proc") if inodes else ()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as file:
            for begin, offset, inode in wanted.findall(file.read()):
                found.setdefault(int(pid), {})[inodes[int(inode)]] = int(begin, 16) - int(offset, 16)
    return found


class _FamilyProbes:
    """What a family of processes maps, probed file by file: in a process of its own, see `gotrace.kernel.family`."""

    def __init__(self, parts: dict[str, LoadedProbe], known: set[tuple[int, ...]]) -> None:
        self._parts, self._known = parts, known
        self._modules = [part.module for part in parts.values()]
        self._probes: list[int] = []

    def look(self, process: Process, late_ns: int | None) -> dict[str, Any] | None:
        """Probe what ``process`` has mapped of files that have no probes yet; None where it has no such library at all.

        As a message: its pid, its exe, the ``libraries`` that it has, ``late_ns`` as given, and where files are new the
        ``files`` (path, build_id, points) with the ``plans`` and what is ``missing``. Raises GotraceError.
        """
        libraries = [each.path for each in process.mappings() if each.executable and _is_wanted(self._modules, each.path)]
        about = {"pid": process.pid, "exe": process.exe_name, "libraries": sorted(set(libraries)), "late_ns": late_ns}
        with opened_files(self._modules, process) as files:
            new = {path: file for path, file in files.items() if cache.identity(file.fd)[:2] not in self._known}
            if "" in new and not _may_have(self._modules, new[""].fd):
                self._known.add(cache.identity(new.pop("").fd)[:2])
            if not new:
                return about if libraries else None
            if len(self._known) + len(new) > _MOST_FILES:
                raise TargetError(
                    f"probes would be needed in more than {_MOST_FILES} files of the process family", "trace one of them"
                )
            self._known |= {cache.identity(file.fd)[:2] for file in new.values()}
            plans = {}
            for part, (plan, obj) in zip(
                self._parts.values(), _prepared(self._modules, process, {"": files[""], **new}), strict=True
            ):
                plan = _as_mapped(plan, process, new, every=True)
                points = tuple(point for point in plan.points if point.file in new)
                part.loaded.add(obj, {point.program for point in points})
                for point in points:
                    verify(new[point.file].fd, point)
                _attach_points(part.loaded, points, -1, new, self._probes)
                plans[part.probe.stem] = dataclasses.replace(plan, points=points)
        builds = {each.path: each.build_id for plan in plans.values() for each in plan.libraries}
        probed = [(point.file, point.name) for plan in plans.values() for point in plan.points if not point.returns]
        told = [
            {
                "path": path or process.exe_name,
                "build_id": builds.get(path, ""),
                "points": [name for file, name in probed if file == path],
            }
            for path in new
        ]
        missing = [[each.name, each.reason] for plan in plans.values() for each in plan.missing]
        about |= {"files": told, "missing": missing, "plans": {stem: plan.to_json() for stem, plan in plans.items()}}
        return about


def _linkers_site(path: str) -> int:
    """Where a dynamic linker stands still for debuggers when it has mapped libraries; glibc's and musl's do."""
    from gotrace.binary import code
    from gotrace.binary.elf import Elf

    with Elf.open(path) as elf:
        return code.function_site(elf, "_dl_debug_state").file_offset


def _may_have(modules: Sequence[ProbeModule], fd: int) -> bool:
    """Whether an executable may have libraries' functions inside, by names: most have not, and need no closer look."""
    with contextlib.suppress(ValueError, OSError), mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
        return any(data.find(text) >= 0 for module in modules for text in module.PROBE.inside)
    return False


def settings(part: LoadedProbe, process: Traceable, bias: int, counters: int) -> list[int]:
    """The words of the probe's settings: from the plan, and from its module about this host."""
    plan = part.plan
    config = {**plan.config, **part.module.settings(process)}
    if part.probe.counters:
        config["counters"] = counters
    unknown = set(config) - set(part.probe.config)
    assert not unknown, unknown
    values = {name: config.get(name, 0) for name in part.probe.config}
    return [(value + bias if value and name in plan.addresses else value) for name, value in values.items()]


def _headers() -> str:
    from gotrace.kernel.compiler import ebpf_folder

    texts = []
    for folder, _, names in sorted(os.walk(os.path.join(ebpf_folder(), "include"))):
        for name in sorted(names):
            with open(os.path.join(folder, name)) as file:
                texts.append(file.read())
    return "".join(texts)

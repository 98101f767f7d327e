"""One target and its probes: from an executable file to events, and back to nothing.

Opening a session resolves the target's probe points, compiles the probes, loads and attaches them; whatever fails, all that
was done so far is undone. Both slow steps (disassembly, compilation) run in short-lived children at the same time and
are cached, so that a second start takes milliseconds. Closing a session detaches every probe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gotrace
from gotrace import cache
from gotrace.errors import GotraceError, HostError, TargetError
from gotrace.kernel import bpf
from gotrace.kernel.child import Child
from gotrace.kernel.host import online_cpus, require_tracing
from gotrace.probe import Missing, Plan, Point, Probe

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.executable import Executable
    from gotrace.kernel.pmu import PmuEvent
    from gotrace.kernel.process import Process
    from gotrace.kernel.ring import Events, RingReader

    Target = Process | Executable

SAMPLE_NS = 1_003_009  # 997 times a second: out of step with what happens every millisecond

HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Cost:
    """What tracing cost: to the target, and to the machine."""

    probe_hits: int
    target_ns_estimate: int
    tool_cpu_s: float
    tool_rss_bytes: int


class Part:
    """One probe of a session: its declaration, its plan for the target, and what is loaded of it."""

    def __init__(self, module: Any, plan: Plan, loaded: bpf.LoadedObject) -> None:
        self.module = module
        self.probe: Probe = module.PROBE
        self.plan = plan
        self.loaded = loaded

    def describe(self) -> dict[str, Any]:
        """The part of a session's header about this probe."""
        return {
            "kinds": {
                kind.name: {"number": kind.number, "columns": kind.columns, "text": kind.text} for kind in self.probe.kinds
            },
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

    @property
    def hits(self) -> dict[str, int]:
        """How often the target ran into each program."""
        return dict(zip(self.probe.hits, self.loaded.maps["hits"].words(), strict=True))

    def left_out(self, program: str) -> int:
        """How often the kernel did not run a program since it was at work on that CPU already; 0 before Linux 5.12."""
        with open(f"/proc/self/fdinfo/{self.loaded.programs[program]}") as file:
            misses = [line.split()[1] for line in file if line.startswith("recursion_misses:")]
        return int(misses[0]) if misses else 0


class Session:
    """Probes attached to a process; their events come in one stream. Use `opened`."""

    def __init__(
        self, process: Target, parts: dict[str, Part], bias: int, exe: int, counters: list[str], sampled: str
    ) -> None:
        self.process = process
        self.parts = parts
        self.counters = counters  # their names, in the order of their numbers
        self.sampled = sampled  # the event's name; "" for the clock
        self.attach_ns = 0
        self._exe = exe  # a descriptor: stays readable when the process is gone and when root is given up
        self.ns_per_hit = (0.0, 0.0)  # of an instruction that is emulated, and of one that is not
        self._bias = bias
        self._ring: RingReader | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the first probe: what it says of the executable, every other says too."""
        return next(iter(self.parts.values())).plan

    @property
    def ring(self) -> RingReader:
        # Mapped at the first read, not at the start: events wait in the kernel, and numpy need not load before that.
        if self._ring is None:
            from gotrace.kernel.ring import RingReader

            events = self._maps["events"]
            self._ring = RingReader(events.fd, events.spec.max_entries)
        return self._ring

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
                "bias": self._bias,
            },
            "host": {"name": host.nodename, "kernel": host.release, "machine": host.machine, "cpus": len(online_cpus())},
            "clock": {
                "begin_ns": begin_ns,
                "wall_offset_ns": time.time_ns() - time.monotonic_ns(),
                "target_offset_ns": self.process.time_offset_ns(),
            },
            "attach_ns": self.attach_ns,
            "counters": self.counters,
            "sampled": self.sampled,
            "probes": {stem: part.describe() for stem, part in self.parts.items()},
        }

    def read(self) -> Events:
        """Every event since the last call."""
        return self.ring.read()

    @property
    def lost(self) -> int:
        """Events that found the ring full, and numbers that could not be read from the target, since attaching."""
        return self._maps["lost"].words()[0]

    def static_text(self, address: int, length: int) -> str:
        """``length`` bytes at a run-time address of the executable's read-only data, as text; "" if there are none."""
        from gotrace.binary.elf import Elf

        try:
            with Elf(mmap.mmap(self._exe, 0, prot=mmap.PROT_READ), self.process.exe_path) as elf:
                return elf.read(address - self._bias, min(length, 256)).decode("utf-8", "replace")
        except GotraceError:
            return ""

    def wait(self, seconds: float) -> bool:
        """Sleep up to ``seconds``; True as soon as the target has exited."""
        return self.process.wait_exit(seconds)

    def calibrate(self) -> None:
        """Measure what a hit costs here; needs root, so do it before giving root up."""
        from gotrace.kernel.calibrate import probe_cost_ns

        self.ns_per_hit = probe_cost_ns()

    def cost(self) -> Cost:
        hits, target_ns = 0, 0.0
        for part in self.parts.values():
            stepped = {point.program for point in part.plan.points if not point.emulated}
            for name, count in part.hits.items():
                hits += count
                target_ns += count * (self.ns_per_hit[name in stepped] if bpf.is_uprobe(name) else part.probe.kernel_hit_ns)
        times = os.times()
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        cpu = times.user + times.system + times.children_user + times.children_system
        return Cost(hits, round(target_ns), round(cpu, 3), resident)


@contextlib.contextmanager
def opened(
    modules: Sequence[Any],
    process: Target,
    sample_ns: int = SAMPLE_NS,
    without: Sequence[str] = (),
    counters: Sequence[PmuEvent] = (),
    sampled: Sequence[PmuEvent] = (),
) -> Iterator[Session]:
    """Attach the probes of ``modules`` (of `gotrace.probes`) to ``process``; detached on the way out.

    Every ``sample_ns`` each CPU is looked at, by probes that do so. Programs named in ``without`` are left out,
    and those named in a module's ``OPTIONAL`` where the kernel cannot attach them: then the plan's ``missing`` has them.
    ``counters`` are counted by a probe that reads some; those of one name, which belong to different CPUs, are one.
    ``sampled`` is what is sampled by a probe that does, as often as the clock otherwise; one event for each kind of CPU.

    Raises HostError, TargetError, BinaryError or LoadError with nothing left attached.
    """
    begin = time.monotonic_ns()
    require_tracing()
    prepared = _prepared(modules, process)
    ring_bytes = max(module.PROBE.ring_bytes for module in modules)
    fds: list[int] = []
    with bpf.closing_all(fds), contextlib.ExitStack() as stack:
        parts: dict[str, Part] = {}
        shared: dict[str, bpf.Map] = {}
        for module, (plan, obj) in zip(modules, prepared, strict=True):
            plan = plan.leaving_out(without)
            in_kernel = {name for name in obj.programs if not bpf.is_uprobe(name)}
            wanted = ({point.program for point in plan.points} | in_kernel) - set(plan.without)
            loaded = stack.enter_context(bpf.load(obj.with_ring(ring_bytes), wanted, shared))
            shared = {name: loaded.maps[name] for name in ("events", "lost")}
            parts[module.PROBE.stem] = Part(module, plan, loaded)
        first = next(iter(parts.values())).plan
        bias = process.load_bias(first.first_vaddr) if first.pie else 0
        exe = stack.enter_context(_opened(process.exe_path))
        counted = list(dict.fromkeys(event.name for event in counters))
        for part in parts.values():
            if "counters" in part.loaded.maps:
                _open_counters(part, counters, counted)
            part.loaded.maps["config"].write_words(_settings(part, process, bias, len(counted)))
            for point in part.plan.points:
                with _opened(point.file) if point.file else contextlib.nullcontext(exe) as file:
                    _verify(file, point)
        for part in parts.values():
            for name, program in part.loaded.programs.items():
                try:
                    fds.extend(_attach_to_kernel(program, name, sample_ns, sampled))
                except HostError as error:
                    if name not in getattr(part.module, "OPTIONAL", ()):
                        raise
                    part.lacks(name, error.message)
            for point in part.plan.points:
                program = part.loaded.programs[point.program]
                fds.append(bpf.attach_uprobe(program, point.file or process.exe_path, point.file_offset, process.pid))
        for part in parts.values():
            if "attached" in part.probe.config:  # what was seen before, was seen in parts
                part.loaded.maps["config"].write_words([1], list(part.probe.config).index("attached"))
        session = Session(process, parts, bias, exe, counted, sampled[0].name if sampled else "")
        session.attach_ns = time.monotonic_ns() - begin
        yield session


def _open_counters(part: Part, counters: Sequence[PmuEvent], names: list[str]) -> None:
    """Start counting on every CPU that has the event. Raises HostError."""
    places, table = part.probe.constants["COUNTERS"], part.loaded.maps["counters"]
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


def _attach_to_kernel(program: int, name: str, sample_ns: int, sampled: Sequence[PmuEvent]) -> Iterator[int]:
    """Attach a program that runs in the kernel to what its name says; a uprobe's program is attached to nothing here."""
    if name.startswith(bpf.RAW_TRACEPOINT):
        yield bpf.attach_raw_tracepoint(program, name.removeprefix(bpf.RAW_TRACEPOINT))
    elif name.startswith(bpf.TRACE_EVENT):
        yield bpf.attach_tracepoint(program, *name.removeprefix(bpf.TRACE_EVENT).split("__", 1))
    elif name == bpf.SAMPLE and sampled:
        for event, cpu in _places(sampled):
            yield bpf.attach_samples(program, event.type, event.config, event.name, cpu, round(1e9 / sample_ns))
    elif name.startswith((bpf.SOFTWARE_EVENT, bpf.SAMPLE)):
        event_name = "cpu_clock" if name == bpf.SAMPLE else name.removeprefix(bpf.SOFTWARE_EVENT)
        for cpu in online_cpus():
            yield bpf.attach_software_event(program, event_name, cpu, sample_ns if event_name == "cpu_clock" else 1)


def _prepared(modules: Sequence[Any], process: Target) -> list[tuple[Plan, bpf.BpfObject]]:
    """Plans for the target's executable and compiled probes, from the cache or from children that all work at once."""
    from gotrace.kernel.compiler import host_cflags

    exe = (gotrace.__version__, _code_stamp(), *process.identity())
    host = (*host_cflags(), _headers(), os.uname().machine)
    with contextlib.ExitStack() as stack:
        plans, objects = [], []
        for module in modules:
            probe: Probe = module.PROBE
            object_key = cache.key("object", probe.source(), *probe.cflags(), *host)
            objects.append(_Made(stack, object_key, probe.compile))
            plan_key = cache.key("plan", probe.stem, *exe)
            plans.append(_Made(stack, plan_key, resolve, module.__name__, process.exe_path, cpu_seconds=30))
        # The plans first: a target that cannot be traced need not wait for the compiler.
        found = [Plan.from_json(each.json()) for each in plans]
        return list(zip(found, (bpf.BpfObject.from_json(each.json()) for each in objects), strict=True))


def of_executable(process: Process, name: str, make: Callable[[str], Any]) -> Any:
    """``make(path)`` of a target's executable as JSON, made in a child or taken from the cache under ``name``."""
    key = cache.key(name, gotrace.__version__, _code_stamp(), *process.identity())
    with contextlib.ExitStack() as stack:
        return _Made(stack, key, make, process.exe_path, cpu_seconds=30).json()


class _Made:
    """Something that takes long to make: from the cache, or from a child that is at work until `json` is called."""

    def __init__(self, stack: contextlib.ExitStack, key: str, make: Callable[..., Any], *args: Any, **limits: int) -> None:
        self._key = key
        self._entry = cache.get(key)
        self._child = None if self._entry else Child(make, *args, **limits)
        stack.callback(self._abandon)

    def json(self) -> Any:
        if self._child is not None:
            child, self._child = self._child, None
            self._entry = child.result().to_json()
            cache.put(self._key, self._entry)
        return self._entry

    def _abandon(self) -> None:
        if self._child is not None:
            self._child.abandon()


def resolve(module_name: str, path: str) -> Plan:
    """The plan of one probe for one executable file; disassembles, so run it in a child."""
    import importlib

    from gotrace.binary.program import GoProgram

    with GoProgram.open(path) as program:
        require_same_arch(program)
        plan: Plan = importlib.import_module(module_name).plan(program)
        if not plan.points:
            reasons = "; ".join(item.reason for item in plan.missing)
            raise TargetError(f"nothing in this Go program can be probed safely: {reasons}", "`gotrace doctor` has more")
        return plan


def require_same_arch(program: GoProgram) -> None:
    """Raises TargetError for a program of another architecture than this machine's."""
    host = HOST_ARCH.get(os.uname().machine)
    if program.arch != host:
        raise TargetError(
            f"the target is a Go program for {program.arch}, this machine is {host}",
            f"run gotrace on a {program.arch} machine",
        )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """A descriptor of the target's executable, or of its dynamic linker."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        what = "the target has exited" if path.startswith("/proc/") else f"{path} cannot be read any more"
        raise TargetError(what, "give a running Go program, or one that stays where it is") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _verify(descriptor: int, point: Point) -> None:
    """The last look before a breakpoint is written: the running file has the very instruction that was resolved."""
    found = os.pread(descriptor, len(point.code), point.file_offset)
    if found != point.code:
        raise TargetError(
            f"{point.symbol} at {point.address:#x} holds {found.hex()} instead of {point.code.hex()}",
            "the executable changed while it was looked at; try again",
        )


def _settings(part: Part, process: Target, bias: int, counters: int) -> list[int]:
    """The words of the probe's settings: from the plan, and from the module's ``settings(process)`` about this host."""
    plan = part.plan
    config = {**plan.config, **(part.module.settings(process) if hasattr(part.module, "settings") else {})}
    if "counters" in part.probe.config:
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


def _code_stamp() -> str:
    """Changes whenever the code that makes plans does: a plan of an older gotrace must not be used by a newer one."""
    from gotrace import binary, probe, probes

    paths = [probe.__file__]
    for package in (binary, probes):
        with os.scandir(package.__path__[0]) as files:
            paths += sorted(file.path for file in files if file.is_file())
    return ",".join(f"{os.path.basename(path)}:{os.stat(path).st_mtime_ns}" for path in paths)

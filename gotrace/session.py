"""One target and one probe: from an executable file to events, and back to nothing.

Opening a session resolves the target's probe points, compiles the probe, loads it and attaches it; whatever fails, all that
was done so far is undone. Both slow steps (disassembly, compilation) run in short-lived children at the same time and
are cached, so that a second start takes milliseconds. Closing a session detaches every probe.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gotrace
from gotrace import cache
from gotrace.errors import GotraceError, TargetError
from gotrace.kernel import bpf
from gotrace.kernel.child import Child
from gotrace.kernel.host import require_tracing
from gotrace.probe import Plan, Point, Probe

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.process import Process
    from gotrace.kernel.ring import Events, RingReader

HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Cost:
    """What tracing cost: to the target, and to the machine."""

    probe_hits: int
    target_ns_estimate: int
    tool_cpu_s: float
    tool_rss_bytes: int


class Session:
    """A probe attached to a process. Use `opened`."""

    def __init__(self, probe: Probe, process: Process, plan: Plan, loaded: bpf.LoadedObject, bias: int, exe: int) -> None:
        self.probe = probe
        self.process = process
        self.plan = plan
        self.attach_ns = 0
        self._ns_per_hit = (0.0, 0.0)
        self._loaded = loaded
        self._bias = bias
        self._exe = exe  # stays readable when the process is gone and when root is given up
        self._ring: RingReader | None = None

    @property
    def ring(self) -> RingReader:
        # Mapped at the first read, not at the start: events wait in the kernel, and numpy need not load before that.
        if self._ring is None:
            from gotrace.kernel.ring import RingReader

            events = self._loaded.maps["events"]
            self._ring = RingReader(events.fd, events.spec.max_entries)
        return self._ring

    def read(self) -> Events:
        """Every event since the last call."""
        return self.ring.read()

    @property
    def lost(self) -> int:
        """Events that found the ring full, and numbers that could not be read from the target, since attaching."""
        return self._loaded.maps["lost"].words()[0]

    @property
    def hits(self) -> dict[str, int]:
        """How often the target ran into each probe."""
        return dict(zip(self.probe.hits, self._loaded.maps["hits"].words(), strict=True))

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

        self._ns_per_hit = probe_cost_ns()

    def cost(self) -> Cost:
        by_program = self.hits
        hits = sum(by_program.values())
        stepped = {point.program for point in self.plan.points if not point.emulated}
        target_ns = sum(count * self._ns_per_hit[name in stepped] for name, count in by_program.items())
        times = os.times()
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        cpu = times.user + times.system + times.children_user + times.children_system
        return Cost(hits, round(target_ns), round(cpu, 3), resident)


@contextlib.contextmanager
def opened(module: Any, process: Process) -> Iterator[Session]:
    """Attach the probe of ``module`` (a module of `gotrace.probes`) to ``process``; detached on the way out.

    Raises HostError, TargetError, BinaryError or LoadError with nothing left attached.
    """
    begin = time.monotonic_ns()
    require_tracing()
    probe: Probe = module.PROBE
    plan, obj = _prepared(module, process)
    fds: list[int] = []
    with (
        bpf.load(obj, {point.program for point in plan.points}) as loaded,
        bpf.closing_all(fds),
        contextlib.ExitStack() as stack,
    ):
        bias = process.load_bias(plan.first_vaddr) if plan.pie else 0
        loaded.maps["config"].write_words(_settings(probe, plan, bias))
        exe = stack.enter_context(_executable(process))
        for point in plan.points:
            _verify(exe, point)
        for point in plan.points:
            program = loaded.programs[point.program]
            fds.append(bpf.attach_uprobe(program, process.exe_path, point.file_offset, process.pid))
        session = Session(probe, process, plan, loaded, bias, exe)
        session.attach_ns = time.monotonic_ns() - begin
        yield session


def _prepared(module: Any, process: Process) -> tuple[Plan, bpf.BpfObject]:
    """The plan for the target's executable and the compiled probe, from the cache or from two children at work."""
    from gotrace.kernel.compiler import host_cflags

    probe: Probe = module.PROBE
    source, cflags = probe.source(), probe.cflags()
    plan_key = cache.key("plan", gotrace.__version__, _code_stamp(module), probe.stem, *process.identity())
    object_key = cache.key("object", source, *cflags, *host_cflags(), _headers(), os.uname().machine)
    plan_entry, object_entry = cache.get(plan_key), cache.get(object_key)
    compiling = None if object_entry else Child(probe.compile)
    resolving = None if plan_entry else Child(resolve, module.__name__, process.exe_path, cpu_seconds=30)
    try:
        plan = Plan.from_json(plan_entry) if plan_entry else None
        if resolving is not None:
            plan = resolving.result()
    except GotraceError:
        if compiling is not None:
            compiling.abandon()
        raise
    assert plan is not None
    obj = bpf.BpfObject.from_json(object_entry) if object_entry else None
    if compiling is not None:
        obj = compiling.result()
        cache.put(object_key, obj.to_json())
    assert obj is not None
    if resolving is not None:
        cache.put(plan_key, plan.to_json())
    return plan, obj


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
def _executable(process: Process) -> Iterator[int]:
    """A descriptor of the target's executable."""
    try:
        descriptor = os.open(process.exe_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TargetError(f"process {process.pid} has exited", "give the pid of a running Go program") from error
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


def _settings(probe: Probe, plan: Plan, bias: int) -> list[int]:
    unknown = set(plan.config) - set(probe.config)
    assert not unknown, unknown
    values = {name: plan.config.get(name, 0) for name in probe.config}
    return [(value + bias if value and name in plan.addresses else value) for name, value in values.items()]


def _headers() -> str:
    from gotrace.kernel.compiler import ebpf_folder

    texts = []
    for folder, _, names in sorted(os.walk(os.path.join(ebpf_folder(), "include"))):
        for name in sorted(names):
            with open(os.path.join(folder, name)) as file:
                texts.append(file.read())
    return "".join(texts)


def _code_stamp(module: Any) -> str:
    """Changes whenever the code that makes plans does: a plan of an older gotrace must not be used by a newer one."""
    package = os.path.join(os.path.dirname(__file__), "binary")
    with os.scandir(package) as files:
        stamps = sorted(f"{file.name}:{file.stat().st_mtime_ns}" for file in files if file.is_file())
    return ",".join([*stamps, str(os.stat(module.__file__).st_mtime_ns)])

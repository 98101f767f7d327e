"""Probes that many processes share: loaded once, set once for each executable file, and told apart by the process.

A probe that is set for one process alone is looked at, too, by every other process that runs the same file, 25 ns each:
with a hundred processes of one file a hit would take 3.2 us instead of 0.6. So a probe is set on the file, and looks up
whose hit it is: an entry in a table has the process's settings; who has none is left alone.

An entry goes, in the kernel, when its process executes another program, before the first instruction of that, or is gone:
``ebpf/processes.c``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from gotrace import cache
from gotrace.analysis.columns import joined
from gotrace.errors import GotraceError, HostError, NoRoomError, TargetError
from gotrace.kernel import bpf
from gotrace.kernel.btf import TASK_FIELDS, task_settings
from gotrace.kernel.calibrate import probe_cost_ns
from gotrace.kernel.compiler import compile_object, ebpf_text, host_cflags
from gotrace.kernel.host import allow_descriptors, require_descriptors, require_tracing
from gotrace.kernel.privileges import in_initial_namespace
from gotrace.kernel.process import Process
from gotrace.kernel.ring import Events, RingReader, no_events
from gotrace.kernel.same_file import is_same_to_probes
from gotrace.made import Made
from gotrace.probe import Plan
from gotrace.session import (
    LoadedProbe,
    Session,
    attach_to_kernel,
    compiled,
    naming,
    opened_files,
    planned,
    settings,
    verify,
)

if TYPE_CHECKING:
    from gotrace.probe import Point, ProbeModule
    from gotrace.runtime.symbols import Symbols
    from gotrace.session import Compile

MOST = 1024  # processes at once
RING_BYTES = 4 << 20
_DESCRIPTORS = 100  # have to be free before one more is traced, for it and for all else that opens files

Held = TypeVar("Held")

_EXECUTED = 1  # the kind of its event


def _watch(stack: contextlib.ExitStack, stems: Sequence[str], how: Callable[[Compile], Compile] | None) -> Made:
    """``ebpf/processes.c``, which forgets processes for the probes ``stems``, as JSON. Raises HostError."""
    fields = task_settings(TASK_FIELDS)
    numbers = {"TASK_PID": fields["task_pid"], "TASK_TGID": fields["task_tgid"], "KIND_EXECUTED": _EXECUTED}
    numbers |= {"CONFIG_SLOTS": 1, "HIT_SLOTS": 1, "MANY": 1}
    flags = tuple(f"-D{name}={number}" for name, number in numbers.items())
    tables = [f"BPF_HASH({_table(stem)}, u32, u64, 1);" for stem in stems]
    forget = [f"\t{_table(stem)}.delete(&tgid);" for stem in stems]
    made = "\n".join([*tables, "static __always_inline void forget(u32 tgid)", "{", *forget, "}", ""])
    text = ebpf_text("ring.bpf.h") + made + ebpf_text("processes.c")
    key = cache.key("processes", text, *flags, *host_cflags(), os.uname().machine)
    return Made(stack, key, how(compile_object) if how else compile_object, text, flags, cpu_seconds=180)


def _table(stem: str) -> str:
    return f"config_of_{stem}"


class _Part(LoadedProbe):
    """One probe of one process: its own counts, of a loaded probe that others share."""

    def __init__(self, module: ProbeModule, plan: Plan, loaded: bpf.LoadedObject, pid: int) -> None:
        super().__init__(module, plan, loaded)
        self._key = _key(pid)
        self._last = (0,) * (1 + len(self.probe.counts))

    def counted(self) -> tuple[int, ...]:
        """What was lost, and the hits of each program."""
        found = self.loaded.maps["counts"].get(self._key)
        if found is not None:
            self._last = struct.unpack(f"={len(self._last)}Q", found)
        return self._last

    @property
    def hits(self) -> dict[str, int]:
        return dict(zip(self.probe.counts, self.counted()[1:], strict=True))

    def count(self) -> None:
        """From now on, from 0."""
        counts = self.loaded.maps["counts"]
        counts.put(self._key, bytes(counts.spec.value_size))

    def begin(self, words: Sequence[int]) -> None:
        """From now on its hits count; ``words`` are its settings, which come last."""
        self._words = words
        if "of_host" in self.loaded.maps:
            self.loaded.maps["of_host"].write_words(words)
        for each in _per_process(self.loaded):
            if each.spec.name not in ("config", "counts"):
                each.put(self._key, bytes(each.spec.value_size))
        self.loaded.maps["config"].put(self._key, struct.pack(f"={len(words)}Q", *words))

    def suspend(self) -> None:
        """None of its hits counts, until it is to `resume`."""
        self.loaded.maps["config"].delete(self._key)

    def resume(self) -> None:
        self.begin(self._words)

    def forget(self) -> None:
        self.counted()
        for each in _per_process(self.loaded):
            each.delete(self._key)


class _Inbox:
    """What stands for a ring of its own."""

    def __init__(self) -> None:
        self._events: list[Events] = []
        self.sieve: Callable[[Events], Events] = lambda events: events  # what of them is to be read

    def put(self, events: Events) -> None:
        self._events.append(self.sieve(events))

    def read(self) -> Events:
        events, self._events = self._events, []
        return joined(events) if events else no_events()


class SharedSession(Session):
    """One process of `SharedProbes`. `SharedProbes.read` has to be called for it to have events."""

    process: Process

    def __init__(
        self,
        process: Process,
        parts: dict[str, _Part],
        bias: int,
        exe: int,
        stack: contextlib.ExitStack,
        symbols: Symbols | None = None,
    ) -> None:
        super().__init__(process, dict(parts), bias, {}, exe, [], "")
        self.symbols = symbols  # only where a probe takes stacks
        self._offset_ns = process.time_offset_ns()
        self._ring = self.inbox = _Inbox()
        self._own = parts
        self._stack = stack
        self.exit_fd = process.exit_fd
        self.opened_ns = 0  # what it executed before is what is traced
        self.looked_at(time.monotonic_ns(), [""])

    def _counts(self) -> tuple[int, dict[str, dict[str, int]]]:
        counted = {stem: part.counted() for stem, part in self._own.items()}
        hits = {stem: dict(zip(self._own[stem].probe.counts, each[1:], strict=True)) for stem, each in counted.items()}
        return sum(each[0] for each in counted.values()), hits

    def suspend(self, stem: str) -> None:
        """No more events of one of its probes, until it is to `resume`."""
        self._own[stem].suspend()

    def resume(self, stem: str) -> None:
        """Its events come again, unless the process has executed another program."""
        self._own[stem].resume()
        if self.executed_ns or self.process.exec_changed():
            self._own[stem].suspend()

    def _target_offset_ns(self) -> int:
        return self._offset_ns  # also when the process is gone

    def holding(self, context: contextlib.AbstractContextManager[Held]) -> Held:
        """Enter ``context`` until the session is closed."""
        return self._stack.enter_context(context)

    def close(self) -> None:
        """No more of it; its counts stay as they are."""
        self._stack.close()


@dataclasses.dataclass
class _File:
    """An executable file that has its probes, for as long as any process of it is traced."""

    plans: dict[str, Plan]
    probes: list[int] = dataclasses.field(default_factory=list)
    exe: int = -1  # a descriptor, while it has probes
    processes: Counter[tuple[int, ...]] = dataclasses.field(default_factory=Counter)  # by what its file seems to be

    @property
    def points(self) -> list[Point]:
        return [point for plan in self.plans.values() for point in plan.points]

    def is_in(self, process: Process, bias: int) -> bool:
        """Whether its probes are in the memory of a process; what cannot be read is taken for it."""
        with contextlib.suppress(OSError):
            return all(
                os.pread(process.memory_fd, len(point.code), point.address + bias) != point.code for point in self.points
            )
        return True


class SharedProbes:
    """Use `opened`. For one thread."""

    def __init__(self, modules: Sequence[ProbeModule], parts: dict[str, bpf.LoadedObject], ring: RingReader) -> None:
        self._modules = modules
        self._parts = parts
        self._ring = ring
        self._files: dict[tuple[int, ...], _File] = {}
        self._closing: list[threading.Thread] = []
        kinds = [kind for module in modules for kind in module.PROBE.kinds]
        stacks = any(kind.name == "stack" for kind in kinds)
        self._stack_columns = {column for kind in kinds for column in kind.columns} if stacks else set()
        self.sessions: dict[int, SharedSession] = {}  # by pid
        self.ns_per_hit = (0.0, 0.0)
        self.keys: list[str] = []  # of what was compiled, in the cache

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls,
        modules: Sequence[ProbeModule],
        ring_bytes: int = RING_BYTES,
        how: Callable[[Compile], Compile] | None = None,
        attaches: bool = True,
    ) -> Iterator[SharedProbes]:
        """Load the probes of ``modules``; none is set. Raises HostError or LoadError.

        Nothing stays set on the way out. ``how`` they are compiled, if they have to be: see `compiled`.
        Without ``attaches`` they are loaded, but not attached to the kernel's own events: nobody is to be traced.
        """
        require_tracing()
        allow_descriptors()
        if not in_initial_namespace("pid"):
            raise HostError(
                "several processes can be traced only from the host's PID namespace",
                "run the container with the host's PID namespace (podman run --pid=host; hostPID: true)",
            )
        with contextlib.ExitStack() as stack:
            made = [compiled(stack, module.PROBE, MOST, how) for module in modules]
            watch = _watch(stack, [module.PROBE.stem for module in modules], how)
            parts: dict[str, bpf.LoadedObject] = {}
            shared: dict[str, bpf.Map] = {}
            for module, each in zip(modules, made, strict=True):
                obj = bpf.BpfObject.from_json(each.json()).with_ring(ring_bytes)
                parts[module.PROBE.stem] = loaded = stack.enter_context(bpf.load(obj, None, shared))
                shared = {"events": loaded.maps["events"]}
            tables = {_table(stem): part.maps["config"] for stem, part in parts.items()}
            watched = stack.enter_context(bpf.load(bpf.BpfObject.from_json(watch.json()), None, shared | tables))
            for name, program in watched.programs.items():
                stack.callback(os.close, bpf.attach_raw_tracepoint(program, name.removeprefix(bpf.RAW_TRACEPOINT)))
            found = cls(modules, parts, RingReader(shared["events"].fd, ring_bytes, of_many=True))
            found.keys = [each.key for each in (*made, watch)]
            found.ns_per_hit = probe_cost_ns()
            for module in modules if attaches else ():
                for name, program in parts[module.PROBE.stem].programs.items():
                    if not bpf.is_uprobe(name):
                        for fd in attach_to_kernel(module.PROBE, program, name):
                            stack.callback(os.close, fd)
            stack.callback(found.close)
            yield found

    def add(self, pid: int) -> SharedSession:
        """Trace a process, until `remove`. Raises GotraceError, with nothing changed."""
        if len(self.sessions) >= MOST:
            raise NoRoomError(f"{MOST} processes are already being traced", "exclude some of them")
        require_descriptors(_DESCRIPTORS)
        begin = time.monotonic_ns()
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(Process.open(pid))
            opened_ns = time.monotonic_ns()
            files = stack.enter_context(opened_files(self._modules, process))
            exe = files[""].fd
            identity = cache.identity(exe)
            file = self._files.get(identity) or self._same(identity, exe)
            if file is None:
                file = _File(dict(self._plans(process, exe)))
            parts = {
                module.PROBE.stem: _Part(module, file.plans[module.PROBE.stem], self._parts[module.PROBE.stem], pid)
                for module in self._modules
            }
            first = next(iter(file.plans.values()))
            bias = process.load_bias(first.first_vaddr, exe) if first.pie else 0
            for part in parts.values():
                words = settings(part, process, bias, 0)
                part.count()
                part.begin(words)
                stack.callback(part.forget)
            if not file.probes:
                self._set(file, exe)
            self._files[identity] = file
            file.processes[identity] += 1
            stack.callback(self._leave, identity)
            if process.exec_changed():
                raise GotraceError(f"process {pid} has just executed another program", "try again")
            if not file.is_in(process, bias):
                raise TargetError(
                    f"process {pid} runs a different file from the one now at its path",
                    "restart it: a container's file is copied when changed, even by chmod",
                )
            symbols = None
            if self._stack_columns:
                from gotrace.runtime.symbols import Symbols

                symbols = stack.enter_context(Symbols.of(process, kernel="kernel_stack" in self._stack_columns))
            session = SharedSession(process, parts, bias, exe, stack.pop_all(), symbols)
        session.opened_ns = opened_ns
        session.ns_per_hit = self.ns_per_hit
        session.attach_ns = time.monotonic_ns() - begin
        session.begin()
        self.sessions[pid] = session
        return session

    def _plans(self, process: Process, exe: int) -> Iterator[tuple[str, Plan]]:
        from gotrace.kernel.process import OpenFile

        files = {"": OpenFile(exe, 0)}
        with contextlib.ExitStack() as stack:
            made = {module.PROBE.stem: planned(stack, module, files) for module in self._modules}
            with naming(process, files):
                for stem, each in made.items():
                    plan = Plan.from_json(each.json())
                    for point in plan.points:
                        verify(exe, point)
                    yield stem, plan

    def _same(self, identity: tuple[int, ...], exe: int) -> _File | None:
        """What is this file to the kernel, though not by its numbers: that of another container of the same image."""
        for file in {id(each): each for each in self._files.values()}.values():
            if any(each[2:4] == identity[2:4] for each in file.processes):  # size and mtime
                first = file.points[0].file_offset
                free = [point.file_offset + len(point.code) for point in file.points]
                if is_same_to_probes(file.exe, exe, first, free):
                    return file
        return None

    def _set(self, file: _File, exe: int) -> None:
        """Set the probes of a file. Raises HostError, with none of them set."""
        file.exe = os.dup(exe)
        path = f"/proc/self/fd/{exe}"
        try:
            for stem, plan in file.plans.items():
                for point in plan.points:
                    program = self._parts[stem].programs[point.program]
                    file.probes.append(bpf.attach_uprobe(program, path, point.file_offset))
        except HostError:
            os.close(file.exe)
            with bpf.closing_all(file.probes):
                raise

    def _leave(self, identity: tuple[int, ...]) -> None:
        file = self._files[identity]
        file.processes[identity] -= 1
        if not file.processes[identity]:
            del self._files[identity], file.processes[identity]
        if not file.processes:
            os.close(file.exe)
            self._closing = [each for each in self._closing if each.is_alive()]
            for probe in file.probes:  # each waits until no CPU can be in its program
                self._closing.append(threading.Thread(target=os.close, args=(probe,)))
                self._closing[-1].start()

    def remove(self, pid: int) -> None:
        """No more of a process: its session has what it had."""
        session = self.sessions.pop(pid)
        session.close()

    def read(self) -> list[int]:
        """Give each session its events since the last call. Returns who has executed another program since.

        A traced process that did is told by its session's ``executed_ns``, too.
        """
        executed = []
        for pid, events in self._ring.read_by_process().items():
            execs = events["time_ns"][events["kind"] == _EXECUTED]
            session = self.sessions.get(pid)
            if len(execs):
                executed.append(pid)
                events = events[events["kind"] != _EXECUTED]
                if session is not None and not session.executed_ns:
                    later = execs[execs >= session.opened_ns]
                    session.executed_ns = int(later[0]) if len(later) else 0
            if session is not None and len(events):
                session.inbox.put(events)
        return executed

    def measure_again(self) -> float:
        """Look again at what a hit costs, and keep the least: the rest was others' doing. Returns by what costs fall."""
        old, new = self.ns_per_hit, probe_cost_ns()
        if not all(old) or not all(new):
            return 1.0
        self.ns_per_hit = min(old[0], new[0]), min(old[1], new[1])
        for session in self.sessions.values():
            session.ns_per_hit = self.ns_per_hit
        return self.ns_per_hit[0] / old[0]

    def left_out(self) -> int:
        """How often the kernel did not run one of the programs, of whatever process: see `bpf.LoadedObject.left_out`."""
        return sum(part.left_out() for part in self._parts.values())

    def fill(self) -> float:
        """How full the ring is, 0 to 1."""
        return self._ring.fill()

    def close(self) -> None:
        """Detach from all; back when nothing is set any more."""
        for pid in list(self.sessions):
            self.remove(pid)
        for thread in self._closing:
            thread.join()


def _per_process(loaded: bpf.LoadedObject) -> list[bpf.Map]:
    """The tables that have an entry for each process: what the C text declares by PER_TARGET."""
    return [each for each in loaded.maps.values() if each.spec.type == bpf.MAP_TYPE_HASH and each.spec.max_entries == MOST]


def _key(pid: int) -> bytes:
    return pid.to_bytes(4, sys.byteorder)

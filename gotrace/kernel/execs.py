"""Seeing a process execute another program, and holding it before the first instruction of that (``ebpf/execs.c``).

A process that we have not started cannot be traced all the time: each of its signals would have to pass through us. So
BPF reports an execve and keeps the process in it for the moment that it takes to ask for a stop by ptrace (measured:
0.05 ms). The same is done where the dynamic linker has mapped libraries, before anything of them runs, at
``_dl_debug_state``, the place for debuggers in glibc's and musl's: `ExecWatch.watch_linker`. Whoever waits here does so as
a real-time thread, for the process may have the last free CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gotrace import cache
from gotrace.arch import host_arch
from gotrace.kernel import bpf, ptrace
from gotrace.kernel.barrier import Barrier
from gotrace.kernel.btf import TASK_FIELDS, task_settings
from gotrace.kernel.child import Child
from gotrace.kernel.compiler import compile_object, ebpf_folder, host_cflags
from gotrace.kernel.privileges import in_initial_namespace

_WORDS = ("pid", "namespace", "namespace_dev", "tree", "task_pid", "task_tgid", "notices", "seen", "cpu")
_NOTICE = struct.Struct("=IIQ4IQQ")  # the ring's own header, then struct notice
_BUSY = 1 << 31  # of a record's length: see `gotrace.kernel.ring`
_NO_CPU = 1 << 32
_NOTHING_BYTES = 16  # of a function that returns at once
_RESET_ON_FORK = 0x40000000

_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Exec:
    """A process has executed a program, at ``time_ns`` (CLOCK_MONOTONIC), and is held before its first instruction.

    Or it has ``linked`` libraries, and is held before the first instruction of these. ``late_ns``: or it could be stopped
    only so long afterwards. ``held`` is None where it could not be stopped at all.
    """

    pid: int
    time_ns: int
    held: ptrace.Stopped | None
    late_ns: int = 0
    linked: bool = False

    def release(self) -> None:
        if self.held is not None:
            self.held.release()


@dataclass
class Asked:
    """Who was asked to stop, if it could be ``seized``: a process, or a thread of it that is in its dynamic ``linker``."""

    pid: int
    tid: int
    time_ns: int
    linker: tuple[int, int] | None
    seized: bool = False

    def stopped(self, held: ptrace.Stopped | None) -> Exec:
        """It has stopped, or is gone."""
        on_time = held and (_is_at(self.tid, *self.linker) if self.linker else _is_in_execve(self.pid))
        late_ns = 0 if on_time else time.monotonic_ns() - self.time_ns
        return Exec(self.pid, self.time_ns, held, late_ns, self.linker is not None)

    def try_stopped(self) -> Exec | None:
        """None while it has not come to it; of a process it is the first thread."""
        state = ptrace.has_stopped(self.tid) if self.seized else False
        if state is None:
            return None
        return self.stopped(ptrace.Stopped(self.tid, alone=True) if state else None)


class ExecWatch:
    """Watches one process, or a ``tree``: it and all that it starts from now on. Use `opened`.

    For one thread: whoever called `next` has to release what it returned.
    """

    def __init__(self, loaded: bpf.LoadedObject) -> None:
        self._loaded = loaded
        self._words = loaded.maps["words"]
        ring = loaded.maps["notices"]
        self.fd = ring.fd  # readable when something was executed
        self._size = ring.spec.max_entries
        self._position = mmap.mmap(ring.fd, mmap.PAGESIZE)
        self._shared = mmap.mmap(ring.fd, mmap.PAGESIZE + 2 * self._size, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._barrier = Barrier()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, pid: int, tree: bool) -> Iterator[ExecWatch]:
        """Raises HostError or LoadError where the kernel does not let us."""
        with contextlib.ExitStack() as stack:
            obj = _compiled()
            kernel = {name for name in obj.programs if not bpf.is_uprobe(name)}
            loaded = stack.enter_context(bpf.load(obj, kernel))
            watch = cls(loaded)
            space = os.stat("/proc/self/ns/pid")
            fields = task_settings(TASK_FIELDS)
            watch._words.write_words(
                [
                    *(pid, 0 if in_initial_namespace("pid") else space.st_ino, space.st_dev, tree),
                    *(fields["task_pid"], fields["task_tgid"], 0, 0, _NO_CPU),
                ]
            )
            for name, program in loaded.programs.items():
                stack.callback(os.close, bpf.attach_raw_tracepoint(program, name.removeprefix(bpf.RAW_TRACEPOINT)))
            yield watch

    def watch_linker(self, path: str, file_offset: int) -> int:
        """Tell, too, when one of them is in ``_dl_debug_state`` of this dynamic linker: the probe's descriptor.

        Raises HostError or LoadError.
        """
        self._loaded.add(_compiled(), {"linked"})
        return bpf.attach_uprobe(self._loaded.programs["linked"], path, file_offset)

    def follow(self, pids: Iterable[int]) -> None:
        """These belong to the tree already, by their numbers in the kernel."""
        for pid in pids:
            self._loaded.maps["followed"].put(pid.to_bytes(4, sys.byteorder), b"\1")

    def is_alone(self) -> bool:
        """Whether nothing of the tree is left. What has ended is, until it was waited for."""
        return not self._loaded.maps["followed"].items()

    def turn_to(self, pid: int, tree: bool) -> None:
        """Watch another process, or no longer what it starts."""
        self._put("pid", pid)
        self._put("tree", tree)

    def _put(self, name: str, value: int) -> None:
        self._words.write_words([value], _WORDS.index(name))

    def next(self, seconds: float, *others: int) -> Exec | None:
        """Sleep until something is executed; None after ``seconds``, or as soon as one of the descriptors is readable."""
        asked = self.ask(seconds, *others)
        if asked is None:
            return None
        return asked.stopped(ptrace.Stopped(asked.pid) if asked.seized else None)

    def ask(self, seconds: float, *others: int) -> Asked | None:
        """The same, without waiting until it has stopped."""
        with first_in_line() as is_first:
            self._put("cpu", _libc.sched_getcpu() if is_first else _NO_CPU)
            if self._is_empty():
                poll = select.poll()
                for fd in (self.fd, *others):
                    poll.register(fd, select.POLLIN)
                poll.poll(seconds * 1000)
            self._put("cpu", _NO_CPU)  # awake: who comes now has to wait
            return self._take()

    def has_more(self) -> bool:
        """Whether something else was executed by now."""
        return not self._is_empty()

    def _is_empty(self) -> bool:
        return struct.unpack_from("=Q", self._position) == struct.unpack_from("=Q", self._shared)

    def _take(self) -> Asked | None:
        if self._is_empty():
            return None
        (at,) = struct.unpack_from("=Q", self._position)
        place = mmap.PAGESIZE + at % self._size
        self._barrier()  # the kernel's position first, then what it covers, which may still be written
        (length,) = struct.unpack_from("=I", self._shared, place)
        if length & _BUSY:
            return None
        self._barrier()
        _, _, time_ns, pid, tid, number, _, *linker = _NOTICE.unpack_from(self._shared, place)
        linked = any(linker)
        # Of who links libraries it is that thread alone: others may be in calls that would be interrupted.
        asked = Asked(pid, tid if linked else pid, time_ns, (linker[0], linker[1]) if linked else None)
        asked.seized = bool(pid) and ptrace.seize(asked.tid)
        self._put("seen", number)
        struct.pack_into("=Q", self._position, 0, at + (length + 8 + 7) // 8 * 8)
        return asked


@contextlib.contextmanager
def first_in_line() -> Iterator[bool]:
    """Be woken before anybody else is run, where that is allowed."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | _RESET_ON_FORK, os.sched_param(1))
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, *before)


def _is_at(tid: int, entry: int, caller: int) -> bool:
    """Whether a thread stands in a function that does nothing, or has just returned from it to its caller."""
    try:
        with open(f"/proc/{tid}/syscall") as file:
            pc = int(file.read().split()[-1], 0)
    except (OSError, ValueError):
        return False
    return pc == caller or entry <= pc < entry + _NOTHING_BYTES


def _is_in_execve(pid: int) -> bool:
    """Whether a stopped thread has not left the system call yet: its registers are those of execve, with no arguments.

    proc_pid_syscall(5): number, six arguments, stack pointer, program counter; for what was interrupted elsewhere -1.
    """
    try:
        with open(f"/proc/{pid}/syscall") as file:
            fields = file.read().split()
    except OSError:
        return False
    return len(fields) == 9 and int(fields[0], 0) in host_arch().syscall_execve and set(fields[1:7]) == {"0x0"}


def _compiled() -> bpf.BpfObject:
    with open(os.path.join(ebpf_folder(), "execs.c")) as file:
        text = file.read()
    flags = (f"-DWORDS={len(_WORDS)}", *(f"-DWORD_{name.upper()}={slot}" for slot, name in enumerate(_WORDS)))
    key = cache.key("execs", text, *flags, *host_cflags(), os.uname().machine)
    entry = cache.get(key)
    if entry is None:
        entry = Child(compile_object, text, flags).result().to_json()
        cache.put(key, entry)
    return bpf.BpfObject.from_json(entry)

"""The CPUs that a process may use, and what its threads got of them, as /proc and sysfs have it.

Documentation/ABI/stable/sysfs-devices-system-cpu and scheduler/sched-stats.rst of the kernel.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from gotrace.errors import TargetError
from gotrace.kernel.host import cpus_of, text_of

_CPU = "sys/devices/system/cpu/cpu{}"


@dataclass(frozen=True)
class Cpus:
    """``allowed`` are those that the threads of a process may run on; ``cores`` how many cores these belong to.

    ``capacities`` are what each can do by the kernel's reckoning (1024 is the fastest), in ascending order without
    repetition: several where cores are of different kinds, none where the kernel does not say.
    """

    allowed: tuple[int, ...]
    cores: int
    capacities: tuple[int, ...]


def cpus_for(pid: int, root: str = "/") -> Cpus:
    """Raises TargetError if the process has exited."""
    try:
        allowed = tuple(sorted(os.sched_getaffinity(pid)))
    except OSError:
        raise TargetError(f"process {pid} has exited", "give the pid of a running Go program") from None
    siblings = {text_of(root, _CPU.format(cpu), "topology/thread_siblings_list") or str(cpu) for cpu in allowed}
    capacities = {int(text) for cpu in allowed if (text := text_of(root, _CPU.format(cpu), "cpu_capacity")).isdigit()}
    return Cpus(allowed, len({min(cpus_of(each)) for each in siblings}), tuple(sorted(capacities)))


def cpu_ns(pid: int) -> int:
    """The CPU time of a process so far, those of its threads that have ended too. Raises TargetError if it has exited."""
    words = text_of("/proc", str(pid), "stat").rpartition(")")[2].split()
    if len(words) < 13:
        raise TargetError(f"process {pid} has exited", "give the pid of a running Go program")
    return (int(words[11]) + int(words[12])) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


class CpuTimes(NamedTuple):
    """What CPUs did since the machine began, summed over them: ``busy_ns`` by whomever, ``stolen_ns`` went to another
    machine of the hypervisor's. The kernel counts in ticks of 1 to 10 ms.
    """

    busy_ns: int
    idle_ns: int
    stolen_ns: int


def cpu_times(cpus: Collection[int]) -> CpuTimes:
    """Of these CPUs, from /proc/stat (proc_stat(5))."""
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    busy = idle = stolen = 0
    wanted = {f"cpu{cpu}" for cpu in cpus}
    with open("/proc/stat") as file:
        for line in file:
            name, *words = line.split()
            if name in wanted:
                user, nice, system, idles, waiting, irq, soft, *rest = map(int, words)
                busy += user + nice + system + irq + soft
                idle += idles + waiting
                stolen += rest[0] if rest else 0
    return CpuTimes(busy * tick, idle * tick, stolen * tick)


class Turns(NamedTuple):
    """What threads got: on a CPU, runnable without one (a CPU quota counts as that), and how often they got one."""

    ran_ns: int
    waited_ns: int
    times: int


class ThreadTurns:
    """Adds up what the threads of a process got since this was made. One that ends between two calls is seen up to the
    first of them.
    """

    def __init__(self, pid: int) -> None:
        self._folder = f"/proc/{pid}/task"
        self._pid = pid
        self._gone = Turns(0, 0, 0)
        self._last: dict[int, Turns] = {}
        self._first = dict(self._read())

    def total(self) -> tuple[Turns, int]:
        """What they got, and how many threads there are. Raises TargetError if the process has exited."""
        now = self._read()
        for tid, turns in self._last.items():
            if tid not in now or now[tid].ran_ns < turns.ran_ns:  # it has ended; the number may be another's now
                self._gone = _added(self._gone, _less(turns, self._first.pop(tid, _NONE)))
        self._last = now
        found = self._gone
        for tid, turns in now.items():
            found = _added(found, _less(turns, self._first.get(tid, _NONE)))
        return found, len(now)

    def _read(self) -> dict[int, Turns]:
        found = {}
        try:
            names = os.listdir(self._folder)
        except OSError:
            raise TargetError(f"process {self._pid} has exited", "give the pid of a running Go program") from None
        for name in names:
            with contextlib.suppress(OSError, ValueError), open(f"{self._folder}/{name}/schedstat") as file:
                found[int(name)] = Turns(*map(int, file.read().split()))
        return found


_NONE = Turns(0, 0, 0)


def _added(one: Turns, other: Turns) -> Turns:
    return Turns(*(a + b for a, b in zip(one, other, strict=True)))


def _less(one: Turns, other: Turns) -> Turns:
    return Turns(*(a - b for a, b in zip(one, other, strict=True)))


def last_cpu(stat: str | bytes) -> int:
    """The CPU that a thread is on, or was on last, from its /proc/PID/task/TID/stat: field 39 of proc_pid_stat(5)."""
    text = stat.decode("utf-8", "replace") if isinstance(stat, bytes) else stat
    return int(text.rpartition(")")[2].split()[36])  # from field 3 on


class ThreadCpus:
    """On which CPU threads are, or were last; their files stay open, so that asking often costs little."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._files: dict[int, int] = {}

    def stat(self, tid: int) -> bytes:
        """What `last_cpu` is told by; empty if the thread is gone."""
        try:
            if tid not in self._files:
                self._files[tid] = os.open(f"/proc/{self._pid}/task/{tid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._files[tid], 1024, 0)
        except OSError:
            self._forget(tid)
            return b""

    def _forget(self, tid: int) -> None:
        if (file := self._files.pop(tid, None)) is not None:
            os.close(file)

    def close(self) -> None:
        for tid in list(self._files):
            self._forget(tid)

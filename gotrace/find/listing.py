"""What each Go process is doing in a few numbers: /proc's, its control group's, and its runtime's own.

Nothing is probed and nothing is stopped: a few words of each process's memory are read.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from gotrace.binary.heap import HeapPlaces, find_heap
from gotrace.errors import GotraceError, HostError, TargetError
from gotrace.find.processes import TICKS, GoProcess
from gotrace.kernel.cgroup import cpu_group
from gotrace.kernel.memory import Memory
from gotrace.kernel.process import Process
from gotrace.made import Made, bias_in, finding
from gotrace.runtime.heap import HeapReader

if TYPE_CHECKING:
    from gotrace.records.ps import PsPlace, PsProcess

T = TypeVar("T")

_OF_RUNTIME = ("gomaxprocs", "heap_live_bytes", "gc_cycles", "gc_per_s")
_NO_NAME = "the container runtime's files about it cannot be read"


class _Counted(NamedTuple):
    """At one moment; ``gc_cycles`` None: unknown."""

    at_s: float
    cpu_s: float
    gc_cycles: int | None
    heap_live: int | None = None
    gomaxprocs: int | None = None


class _Listed:
    """A process that is listed."""

    def __init__(self, process: GoProcess) -> None:
        self.process = process
        self.unknown: dict[str, str] = {}
        self._reader: HeapReader | None = None
        self._began = _Counted(0.0, 0.0, 0)
        if process.executable.refusal:
            self._unknown(_OF_RUNTIME, "it cannot be traced")

    @contextlib.contextmanager
    def opened(self) -> Iterator[Process]:
        """Raises TargetError if it has exited, HostError if its memory cannot be read."""
        with Process.open(self.process.pid) as opened:
            if not self.process.is_there():
                raise TargetError("it has exited")
            if opened.identity() != self.process.file:
                raise TargetError("it has executed another program since")
            if opened.memory_fd < 0:
                raise HostError("its memory cannot be read: run as root (sudo)")
            yield opened

    def read_with(self, places: HeapPlaces) -> None:
        """Where its runtime's books are. Raises as `opened` does."""
        with self.opened() as opened:
            self._reader = HeapReader(places, Memory(opened.pid), bias_in(opened, places))

    def _unknown(self, names: Iterable[str], why: str) -> None:
        self.unknown |= dict.fromkeys(names, why)

    def begin(self) -> bool:
        """What is counted from now on is in its rates, not what was since it began. Raises TargetError or OSError."""
        self._began = self._counted()
        return True

    def cannot(self, error: GotraceError) -> None:
        self._reader = None
        self._unknown(_OF_RUNTIME, error.message)

    def _counted(self) -> _Counted:
        cycles = live = gomaxprocs = None
        if self._reader is not None:
            try:
                counters = self._reader.counters()
                cycles, live, gomaxprocs = counters.num_gc, counters.heap_marked, self._reader.gomaxprocs()
            except GotraceError as error:
                self.cannot(error)
        return _Counted(time.clock_gettime(time.CLOCK_BOOTTIME), self.process.cpu_s(), cycles, live, gomaxprocs)

    def record(self) -> PsProcess:
        """Everything, as it is now. Raises TargetError or OSError if the process has exited."""
        process, pid = self.process, self.process.pid
        now = self._counted()
        if now.gomaxprocs is None:
            self.unknown.setdefault("gomaxprocs", "its Ps were not found")
        began_s = self._began.at_s or process.start / TICKS
        period = max(now.at_s - began_s, 1 / TICKS)
        quota = None
        try:
            quota = cpu_group(pid).quota_cpus
        except HostError as error:
            self.unknown["quota_cpus"] = error.message
        cpus, rss_bytes = len(os.sched_getaffinity(pid)), process.rss_bytes()
        if not process.is_there():  # or all this may be another one's
            raise TargetError("it has exited")
        executable = process.executable
        if process.place.container and not process.container.name:
            self.unknown["container"] = _NO_NAME
        cycles = None if now.gc_cycles is None or self._began.gc_cycles is None else now.gc_cycles - self._began.gc_cycles
        return {
            "type": "process",
            "pid": pid,
            "name": process.name,
            "exe": process.exe,
            "go_version": executable.go_version or None,
            "path": executable.path or None,
            "stripped": executable.stripped,
            "refusal": executable.refusal or None,
            "hint": executable.hint or None,
            "age_s": now.at_s - process.start / TICKS,
            **place_of(process),
            "cpus_used": (now.cpu_s - self._began.cpu_s) / period,
            "cpus": cpus,
            "gomaxprocs": now.gomaxprocs,
            "quota_cpus": quota,
            "rss_bytes": rss_bytes,
            "heap_live_bytes": now.heap_live,
            "gc_cycles": now.gc_cycles,
            "gc_per_s": None if cycles is None else cycles / period,
            "longest_pause_ns": None,
            "traced_s": None,
            "period_s": period,
            "unknown": self.unknown,
        }


def place_of(process: GoProcess) -> PsPlace:
    """Where it runs, as a record has it."""
    place, container = process.place, process.container
    return {
        "runtime": place.runtime or None,
        "container_id": place.container or None,
        "container": container.name or None,
        "image": container.image or None,
        "namespace": container.namespace or None,
        "pod": container.pod or None,
        "pod_uid": place.pod or None,
        "unit": place.unit or None,
        "user": place.user or None,
    }


def listed(
    processes: Sequence[GoProcess], wait_s: float = 0, tell: Callable[[str], None] = lambda _: None
) -> list[PsProcess]:
    """A record of each process that is still there. Rates are averages since its start, or over ``wait_s`` seconds.

    ``tell`` is called with how far it is: an executable that was never looked at is disassembled first, in children, as
    many at once as there are CPUs, and what is found is kept.
    """
    found = [_Listed(process) for process in processes]
    _find_books(found, tell)
    if wait_s:
        found = [each for each in found if _there(each.begin)]
        time.sleep(wait_s)
    return [record for each in found if (record := _there(each.record)) is not None]


def _there(asked: Callable[[], T]) -> T | None:
    """What a process answers; None if it has exited."""
    try:
        return asked()
    except (TargetError, OSError):
        return None


def _find_books(listed: Sequence[_Listed], tell: Callable[[str], None]) -> None:
    """Find the books of each executable once, for each process that runs it."""
    by_file: dict[tuple[int, ...], list[_Listed]] = {}
    for each in listed:
        if not each.unknown:
            by_file.setdefault(each.process.file, []).append(each)
    with contextlib.ExitStack() as stack:
        at_work: list[tuple[list[_Listed], Made]] = []
        for number, members in enumerate(by_file.values()):
            for each in members:
                try:
                    with each.opened() as opened:
                        at_work.append((members, finding(stack, opened, "heap", find_heap)))
                    break
                except GotraceError as error:
                    each.cannot(error)
            if len(at_work) == (os.cpu_count() or 1):
                tell(f"{number} of {len(by_file)}")
                _give(*at_work.pop(0))
        for members, made in at_work:
            _give(members, made)


def _give(members: Sequence[_Listed], made: Made) -> None:
    """What was found of their executable, or why nothing was."""
    places: HeapPlaces | GotraceError
    try:
        places = HeapPlaces(**made.json())
    except GotraceError as error:
        places = error
    for each in members:
        try:
            if isinstance(places, GotraceError):
                raise places
            each.read_with(places)
        except GotraceError as error:
            each.cannot(error)

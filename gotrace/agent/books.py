"""The books of the runtimes of the processes that are traced: found once for each executable, read every ten seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gotrace.agent import families as of
from gotrace.binary.metric_places import ALLOCATIONS, GOROUTINES, MEMORY, SCHEDULE, MetricPlaces
from gotrace.errors import GotraceError, HostError, TargetError
from gotrace.kernel.memory import KeptMemory
from gotrace.made import Made, bias_in, finding
from gotrace.runtime.metrics import MetricsReader, Reading

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.process import Process

EVERY_S = 10.0
_FIND_S = 3.0  # until it is asked what was found: it takes 0.3 s, and nobody else may wait meanwhile
_MOST_FILES = 256
_FAMILIES = {
    MEMORY: (of.MEMORY_USED, of.MEMORY_ALLOCATED),
    ALLOCATIONS: (of.MEMORY_ALLOCATIONS,),
    GOROUTINES: (of.GOROUTINES,),
    SCHEDULE: (of.SCHEDULE,),
}

Found = MetricPlaces | str  # or why nothing was


def _find(program: GoProgram) -> MetricPlaces:
    from gotrace.binary.metrics import find_metrics  # which disassembles: in the child alone

    return find_metrics(program)


@dataclass
class Finder:
    """Where the books of each executable file are: looked for in a child, one at a time."""

    now: Callable[[], float] = time.monotonic
    _found: dict[tuple[int, ...], Found] = field(default_factory=dict)
    _at_work: tuple[tuple[int, ...], Made, contextlib.ExitStack, float] | None = None

    def places(self, process: Process) -> Found | None:
        """None while that is not known yet."""
        file = process.identity()
        found = self._found.get(file)
        if found is None and self._at_work is None:
            stack = contextlib.ExitStack()
            try:
                self._at_work = file, finding(stack, process, "metrics", _find), stack, self.now() + _FIND_S
            except GotraceError as error:
                found = self._keep(file, error.message)
        elif found is None and self._at_work is not None and self._at_work[3] <= self.now():
            of_file, made, stack, _ = self._at_work
            self._at_work = None
            with stack:
                try:
                    told = self._keep(of_file, MetricPlaces(**made.json()))
                except GotraceError as error:
                    told = self._keep(of_file, error.message)
            found = told if of_file == file else None
        return found

    def _keep(self, file: tuple[int, ...], found: Found) -> Found:
        if len(self._found) >= _MOST_FILES:
            self._found.clear()
        self._found[file] = found
        return found

    def close(self) -> None:
        """Whatever is being looked for is not wanted any more."""
        if self._at_work is not None:
            self._at_work[2].close()
            self._at_work = None


@dataclass
class Books:
    """Of one process. ``unknown``: the metrics that it has not, and why."""

    process: Process
    finder: Finder
    unknown: dict[str, str] = field(default_factory=dict)
    _reader: MetricsReader | None = None
    _at: float = 0

    def read(self) -> Reading | None:
        """What is in them now, if it is time."""
        now = self.finder.now()
        if now < self._at:
            return None
        if self._reader is None and not self._open():
            return None
        assert self._reader is not None
        self._at = now + EVERY_S
        try:
            return self._reader.read()
        except GotraceError:  # it ends, or its runtime has not begun
            return None

    def _open(self) -> bool:
        try:
            places = self.finder.places(self.process)
            if places is None:
                return False
            if isinstance(places, str):
                raise HostError(places)
            if self.process.memory_fd < 0:
                raise HostError("its memory cannot be read")
            memory = KeptMemory(self.process.pid, self.process.memory_fd)
            self._reader = MetricsReader(places, memory, bias_in(self.process, places))
            self.unknown = {family.name: why for part, why in places.missing.items() for family in _FAMILIES[part]}
        except TargetError:
            self._at = float("inf")  # it has exited
        except GotraceError as error:
            self._at = float("inf")
            self.unknown = {family.name: error.message for families in _FAMILIES.values() for family in families}
        return self._reader is not None

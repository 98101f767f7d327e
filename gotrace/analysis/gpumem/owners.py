"""Whose calls are whose: the programs that a family of processes executes, and their threads.

A number is given again: a process that is forked may have that of one which is gone, and what a process executes has memory
of its own. So a call belongs to what its thread belonged to at that time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Program:
    """What a process runs since ``begin_ns`` (0: before tracing); ``parent``: the program that it was forked in, or -1."""

    pid: int
    begin_ns: int
    parent: int = -1


@dataclass
class Owners:
    """``programs`` are numbered in order; the first is the target's."""

    programs: list[Program]
    _current: dict[int, int] = field(default_factory=dict)  # by pid
    _threads: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)  # since when, and what: by tid

    def __post_init__(self) -> None:
        self._current = {each.pid: number for number, each in enumerate(self.programs)}

    def forked(self, time_ns: int, pid: int, parent: int) -> None:
        self._begin(Program(pid, time_ns, self.of_pid(parent)))

    def executed(self, time_ns: int, pid: int) -> None:
        number = self._begin(Program(pid, time_ns))
        self._belongs(pid, time_ns, number)

    def thread(self, time_ns: int, tid: int, pid: int) -> None:
        """``tid`` is a thread of ``pid``, from now on at least."""
        self._belongs(tid, time_ns, self.of_pid(pid))

    def of_pid(self, pid: int) -> int:
        """What the process runs, as far as is known by now."""
        if pid not in self._current:
            self._begin(Program(pid, 0))
        return self._current[pid]

    def of(self, tids: npt.NDArray[np.uint32], times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The number of the program of each call, by its thread and time."""
        found = np.zeros(len(tids), np.int64)
        for tid in np.unique(tids).tolist():
            if tid in self._threads:
                since, owners = self._threads[tid]
                where = np.flatnonzero(tids == tid)
                at = np.searchsorted(np.array(since), times[where], side="right") - 1
                found[where] = np.array(owners)[np.maximum(at, 0)]
        return found

    def _begin(self, program: Program) -> int:
        self.programs.append(program)
        self._current[program.pid] = len(self.programs) - 1
        return self._current[program.pid]

    def _belongs(self, tid: int, time_ns: int, number: int) -> None:
        since, owners = self._threads.setdefault(tid, ([], []))
        if not owners or owners[-1] != number:
            since.append(time_ns)
            owners.append(number)

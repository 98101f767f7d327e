"""Go programs that a process has started: a launcher may do nothing itself, and have the work done in a child."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gotrace.errors import GotraceError, TargetError
from gotrace.kernel.memory import KeptMemory, Memory
from gotrace.kernel.process import Process, family
from gotrace.made import bias_in, found_in
from gotrace.runtime.pace import next_look

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram


@dataclass
class Child:
    """A Go program, and how often it has collected since it was first looked at."""

    pid: int
    exe: str
    go_version: str
    cycles: int = 0


class Children:
    """The family of one process, as far as it can be read: descriptors stay usable when root is given back. Use `close`."""

    def __init__(self, pid: int) -> None:
        self.found: list[Child] = []
        self.pid = pid
        self._known: set[tuple[int, str]] = set()
        self._others: set[tuple[int, ...]] = set()  # executables that are no Go programs
        self._counts: list[tuple[Memory, int, int]] = []  # of those in `found`: where, and what was counted at first
        self._stack = contextlib.ExitStack()
        self._next_ns = 0

    def look(self, last: bool = False) -> list[Child]:
        """Those that have begun to collect since then. New ones are sought once a second, and at the ``last`` call."""
        begin = time.monotonic_ns()
        if begin >= self._next_ns or last:
            for pid in family(self.pid):
                self._add(pid)
            self._next_ns = next_look(begin)
        collecting = []
        for child, (memory, address, before) in zip(self.found, self._counts, strict=True):
            with contextlib.suppress(GotraceError):  # it has ended
                had, child.cycles = child.cycles, memory.half(address) - before & 0xFFFFFFFF
                if child.cycles and not had:
                    collecting.append(child)
        return collecting

    def _add(self, pid: int) -> None:
        try:
            exe = os.readlink(f"/proc/{pid}/exe")
            if (pid, exe) in self._known:
                return
            with contextlib.ExitStack() as stack:
                process = stack.enter_context(Process.open(pid))
                file = process.identity()
                if file in self._others:
                    return
                try:
                    counter = found_in(process, "cycle counter", _Counter, _where_cycles_are_counted)
                except GotraceError:
                    if not process.wait(0):
                        self._others.add(file)
                    return
                memory = KeptMemory(pid, process.memory_fd)
                address = counter.address + bias_in(process, counter)
                self._counts.append((memory, address, memory.half(address)))
                self.found.append(Child(pid, process.exe_name, counter.go_version))
                self._known.add((pid, exe))
                self._stack.push(stack.pop_all())
        except (GotraceError, OSError):
            pass  # gone, somebody else's, or it has just executed its program and not mapped it yet: looked at again

    def close(self) -> None:
        self._stack.close()


@dataclass(frozen=True)
class _Counter:
    """Where a program's runtime counts its cycles (``address``, at link time)."""

    address: int
    go_version: str
    pie: bool
    first_vaddr: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _where_cycles_are_counted(program: GoProgram) -> _Counter:
    """Raises GotraceError where that is not known."""
    from gotrace.binary.globals import find_globals

    address = find_globals(program).work_cycles
    if address is None:
        raise TargetError("where the runtime counts its cycles is unknown", "")
    return _Counter(address, program.go_version, program.pie, program.elf.first_vaddr)

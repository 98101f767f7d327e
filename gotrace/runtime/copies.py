"""Go code of a process that is not its program's: a plugin's, a shared library's. It comes with a copy of the runtime.

A plugin shares the runtime's variables with the program, but what it calls is its own copy of the runtime's functions. Of a
pause or a cycle that begins there the probes in the program's executable see nothing (Go 1.19: not all); nor of the
ends of later cycles, if the goroutines that mark were started there. A library built with ``-buildmode=c-shared``
has variables of its own, too.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from gotrace.binary.elf import GO_BUILD_ID, PROGRAM_HEADER, PT_NOTE, notes
from gotrace.errors import GotraceError
from gotrace.kernel.memory import PAGE, Memory
from gotrace.kernel.process import Process
from gotrace.runtime.pace import next_look


class Copies:
    """Watches one process. ``libraries`` are the paths of the files that were found, as the process names them.

    ``cycles`` is how many collections at least its runtime has counted that no probe has seen: ``work_cycles`` is where
    the runtime counts them (a run-time address, 0 if unknown), ``seen`` gives how many the probes did.
    """

    def __init__(self, process: Process, memory: Memory, work_cycles: int, seen: Callable[[], int]) -> None:
        self.libraries: list[str] = []
        self.cycles = 0
        self._process = process
        self._memory = memory
        self._work = work_cycles
        self._seen = seen
        self._known = {process.exe_name}
        self._next_ns = 0
        self._before = (memory.half(work_cycles) if work_cycles else 0, seen())

    def has_seen(self) -> bool:
        """Whether the probes have seen a collection."""
        return self._seen() > self._before[1]

    def look(self, last: bool = False) -> list[str]:
        """The libraries that are there since the last call; once a second and at the ``last`` one. Raises GotraceError."""
        if self._work:
            counted = self._memory.half(self._work) - self._before[0]
            under_way = 1  # counted as it begins, seen as it ends
            self.cycles = max(self.cycles, counted - (self._seen() - self._before[1]) - under_way)
        begin = time.monotonic_ns()
        if begin < self._next_ns and not last:
            return []
        found = []
        for mapping in self._process.mappings():
            if mapping.offset == 0 and mapping.path.startswith("/") and mapping.path not in self._known:
                self._known.add(mapping.path)
                if self._is_go(mapping.begin, mapping.end):
                    found.append(mapping.path)
        self.libraries += found
        self._next_ns = next_look(begin)  # it may have very many mappings
        return found

    def _is_go(self, begin: int, end: int) -> bool:
        """Whether the mapped file is an ELF file that Go's linker has put its note in."""
        try:
            head = self._memory.read(begin, min(PAGE, end - begin))
            if head[:5] != b"\x7fELF\2":
                return False
            (at,), (size, count) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<HH", head, 54)
            for number in range(min(count, (len(head) - at) // max(size, 1))):
                kind, _, _, address, _, length, _, _ = PROGRAM_HEADER.unpack_from(head, at + number * size)
                if kind == PT_NOTE and address + length <= end - begin:
                    data = self._memory.read(begin + address, min(length, PAGE))
                    if any((name, kind) == GO_BUILD_ID for name, kind, _ in notes(data)):
                        return True
        except (GotraceError, struct.error):
            pass  # it was taken away again, or is no such file
        return False

"""The heap profile that a Go program takes of itself, read from outside while it runs: the runtime's own samples.

The runtime publishes a profile one collection late, so that what is garbage by then is not in it. Nothing is stopped: a
sample may be counted while it is read, in one number and not yet in another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.goroutines import Called
from gotrace.analysis.heap_profile import HeapProfile, between
from gotrace.binary.profiles import ProfilePlaces
from gotrace.binary.program import GoProgram
from gotrace.errors import TargetError
from gotrace.kernel.memory import KeptMemory, Memory
from gotrace.made import of_executable, require_same_arch
from gotrace.runtime.pace import next_look

if TYPE_CHECKING:
    from gotrace.kernel.process import Process

_BLOCK = 64 << 10  # buckets lie in few places, one behind the other: what is around one is read with it
_MOST = 1 << 22
_MOST_DEPTH = 1 << 12
_MEMORY = 1  # memProfile of runtime/mprof.go
_CYCLES = 3


class ProfileReader:
    """Reads the profile of one process; raises BinaryError if it takes none."""

    def __init__(self, process: Process) -> None:
        self.places = ProfilePlaces(**of_executable(process, "profiles", profiles_of))
        self.program = GoProgram.open(process.exe_path)
        self.pid = process.pid
        kept = process.memory_fd >= 0  # it is good when root has been given back, too
        self._memory = KeptMemory(process.pid, process.memory_fd) if kept else Memory(process.pid)
        self._bias = process.load_bias(self.places.first_vaddr) if self.places.pie else 0
        self._blocks: dict[int, bytes] = {}

    def heap(self, published: bool = True) -> HeapProfile:
        """The profile now, of all samples or as it was ``published``. Raises TargetError or HostError."""
        self._blocks = {}
        at, bias = self.places.offsets, self._bias
        rate = self._memory.word(self.places.rate + bias)
        if not 0 < rate < 1 << 62:
            raise TargetError(
                f"process {self.pid} takes no heap profile: its MemProfileRate is 0",
                "do not set it to 0; `gotrace mem` shows what its memory consists of",
            )
        cycle = self._memory.half(self.places.cycle + bias) >> 1
        header, record = at["bucket.sizeof"], at["memRecord.sizeof"]
        stacks: list[tuple[int, ...]] = []
        sizes, counts = [], []
        bucket = self._memory.word(self.places.mbuckets + bias)
        while bucket:
            head = self._read(bucket, header)
            if int.from_bytes(head[at["bucket.typ"] :][:8], "little") != _MEMORY or len(stacks) > _MOST:
                raise self._inconsistent()
            depth = int.from_bytes(head[at["bucket.nstk"] :][:8], "little")
            if depth > _MOST_DEPTH:
                raise self._inconsistent()
            rest = self._read(bucket + header, 8 * depth + record)
            stacks.append(tuple(address - bias for address in np.frombuffer(rest, "<u8", depth).tolist()))
            sizes.append(int.from_bytes(head[at["bucket.size"] :][:8], "little"))
            counts.append(self._counts(rest[8 * depth :], cycle, published))
            bucket = int.from_bytes(head[at["bucket.allnext"] :][:8], "little")
        allocs, frees = np.array(counts, np.int64).reshape(-1, 2).T
        return HeapProfile(stacks, np.array(sizes, np.int64), allocs, frees, rate, cycle, published)

    def _counts(self, record: bytes, cycle: int, published: bool) -> tuple[int, int]:
        """Allocations and frees: what the runtime has added up, and what it is to add to that."""
        at = self.places.offsets
        future, size = at["memRecord.future"], at["memRecordCycle.sizeof"]
        kept = [cycle % _CYCLES] if published else range(_CYCLES)
        places = [at["memRecord.active"], *(future + size * number for number in kept)]
        return (
            sum(int.from_bytes(record[place + at["memRecordCycle.allocs"] :][:8], "little") for place in places),
            sum(int.from_bytes(record[place + at["memRecordCycle.frees"] :][:8], "little") for place in places),
        )

    def _read(self, address: int, size: int) -> bytes:
        """Bytes of a bucket, which never moves: from what was read around others, where it lies there."""
        begin, end = address // _BLOCK, (address + size - 1) // _BLOCK
        if begin == end:
            if begin not in self._blocks:
                try:
                    self._blocks[begin] = self._memory.read(begin * _BLOCK, _BLOCK)
                except TargetError:  # there is not so much memory around it
                    return self._memory.read(address, size)
            return self._blocks[begin][address % _BLOCK :][:size]
        return self._memory.read(address, size)

    def _inconsistent(self) -> TargetError:
        return TargetError(f"the heap profile in process {self.pid} is inconsistent", "try again, or report it")

    def called(self, stack: tuple[int, ...]) -> list[Called]:
        """The functions of a stack, innermost first.

        Each address stands for one function, be it inlined; only what the outermost was inlined into may be cut off.
        """
        table = self.program.pclntab
        found: list[Called] = []
        for number, pc in enumerate(stack):
            frames = table.frames(pc - 1)
            kept = frames if number == len(stack) - 1 else frames[:1]
            found += [Called(each.function, each.file, each.line, None if each is not frames[-1] else 0) for each in kept]
        return found


class Allocations:
    """What a process allocates from the first look at its profile on."""

    def __init__(self, reader: ProfileReader) -> None:
        self.reader = reader
        self._first: HeapProfile | None = None
        self._first_ns = self._next_ns = 0

    def look(self, last: bool = False) -> tuple[HeapProfile, int] | None:
        """What was sampled since the first look, and how long ago that was in ns; None if it is not time to look again.

        The ``last`` look is at once. Raises what `ProfileReader.heap` does.
        """
        began = time.monotonic_ns()
        if not last and began < self._next_ns:
            return None
        profile = self.reader.heap(published=False)
        self._next_ns = next_look(began)
        if self._first is None:
            self._first, self._first_ns = profile, began
        return between(self._first, profile), began - self._first_ns


def profiles_of(path: str) -> ProfilePlaces:
    """Where the profiles of an executable are; disassembles, so run it in a child."""
    from gotrace.binary.profiles import find_profiles

    with GoProgram.open(path) as program:
        require_same_arch(program)
        return find_profiles(program)

"""The profiles that a Go program takes of itself, read from outside while it runs: the runtime's own samples.

Of the heap the runtime publishes a profile one collection late, so that what is garbage by then is not in it. Nothing is
stopped: a sample may be counted while it is read, in one number and not yet in another.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.contention import BLOCK, MUTEX, Contention
from gotrace.analysis.goroutines import Called
from gotrace.analysis.heap_profile import HeapProfile, between
from gotrace.binary.profiles import INSTEAD, ContentionPlaces, ProfilePlaces, find_contention, find_profiles
from gotrace.binary.program import GoProgram
from gotrace.errors import NoProfileError, TargetError
from gotrace.kernel.calibrate import tick_ns
from gotrace.kernel.memory import KeptMemory, Memory
from gotrace.made import bias_in, found_in
from gotrace.runtime.pace import next_look

if TYPE_CHECKING:
    from gotrace.kernel.process import Process

_BLOCK = 64 << 10  # buckets lie in few places, one behind the other: what is around one is read with it
_MOST = 1 << 22
_MOST_DEPTH = 1 << 12
# bucket.typ: memProfile, blockProfile and mutexProfile of runtime/mprof.go.
_MEMORY = 1
_KINDS = {2: BLOCK, 3: MUTEX}
_CYCLES = 3
_BLOCK_RECORD = 16


class _Buckets:
    """Reads lists of what was sampled by stack."""

    def __init__(self, process: Process, places: ProfilePlaces | ContentionPlaces) -> None:
        self.program = GoProgram.open(process.exe_path)
        self.pid = process.pid
        kept = process.memory_fd >= 0  # it is good when root has been given back, too
        self._memory = KeptMemory(process.pid, process.memory_fd) if kept else Memory(process.pid)
        self._bias, self._offsets = bias_in(process, places), places.offsets
        self._blocks: dict[int, bytes] = {}

    def _each(self, head: int, record: int) -> Iterator[tuple[int, tuple[int, ...], int, bytes]]:
        """Kind, stack, size and a record of so many bytes, of each bucket of the list at ``head``; link-time addresses."""
        at, header, count = self._offsets, self._offsets["bucket.sizeof"], 0
        self._blocks = {}
        bucket = self._memory.word(head + self._bias)
        while bucket:
            data = self._read(bucket, header)
            kind, size, depth, bucket_after = (
                int.from_bytes(data[at[f"bucket.{name}"] :][:8], "little") for name in ("typ", "size", "nstk", "allnext")
            )
            count += 1
            if depth > _MOST_DEPTH or count > _MOST:
                raise self._inconsistent()
            rest = self._read(bucket + header, 8 * depth + record)
            stack = tuple(address - self._bias for address in np.frombuffer(rest, "<u8", depth).tolist())
            yield kind, stack, size, rest[8 * depth :]
            bucket = bucket_after

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

    def called(self, stack: tuple[int, ...]) -> list[Called]:
        """The functions of a stack, innermost first.

        An address stands for one inlined function if those that this was inlined into follow with their own; else for all
        of them: those of the outermost may be cut off, and since Go 1.23 only the innermost frames of contention have
        several (fpTracebackPartialExpand of runtime/mprof.go).
        """
        found: list[Called] = []
        frames = [self.program.pclntab.frames(pc - 1) for pc in stack]
        for each, following in zip(frames, [*frames[1:], None], strict=True):
            kept = each[:1] if len(each) > 1 and following == each[1:] else each
            found += [Called(one.function, one.file, one.line, None if one is not each[-1] else 0) for one in kept]
        return found

    def _inconsistent(self) -> TargetError:
        return TargetError(f"the profile in process {self.pid} is inconsistent", "try again, or report it")


class ProfileReader(_Buckets):
    """Reads the heap profile of one process; raises NoProfileError if it takes none, BinaryError if it is not found."""

    def __init__(self, process: Process) -> None:
        self.places = found_in(process, "profiles", ProfilePlaces, find_profiles)
        super().__init__(process, self.places)

    def heap(self, published: bool = True) -> HeapProfile:
        """The profile now, of all samples or as it was ``published``. Raises TargetError or HostError."""
        rate = self.rate()
        cycle = self._memory.half(self.places.cycle + self._bias) >> 1
        stacks: list[tuple[int, ...]] = []
        sizes, counts = [], []
        for kind, stack, size, record in self._each(self.places.mbuckets, self._offsets["memRecord.sizeof"]):
            if kind != _MEMORY:
                raise self._inconsistent()
            stacks.append(stack)
            sizes.append(size)
            counts.append(self._counts(record, cycle, published))
        allocs, frees = np.array(counts, np.int64).reshape(-1, 2).T
        return HeapProfile(stacks, np.array(sizes, np.int64), allocs, frees, rate, cycle, published)

    def rate(self) -> int:
        """How many bytes are allocated from one sample to the next. Raises NoProfileError if nothing is sampled."""
        rate = self._memory.word(self.places.rate + self._bias)
        if not 0 < rate < 1 << 62:
            raise NoProfileError(f"process {self.pid} has no heap profile: its MemProfileRate is 0", INSTEAD)
        return rate

    def _counts(self, record: bytes, cycle: int, published: bool) -> tuple[int, int]:
        """Allocations and frees: what the runtime has added up, and what it is to add to that."""
        at = self._offsets
        future, size = at["memRecord.future"], at["memRecordCycle.sizeof"]
        kept = [cycle % _CYCLES] if published else range(_CYCLES)
        places = [at["memRecord.active"], *(future + size * number for number in kept)]
        return (
            sum(int.from_bytes(record[place + at["memRecordCycle.allocs"] :][:8], "little") for place in places),
            sum(int.from_bytes(record[place + at["memRecordCycle.frees"] :][:8], "little") for place in places),
        )


def takes_profile(process: Process) -> bool:
    """Whether a Go process takes a heap profile of itself. Raises what keeps that from being known."""
    try:
        return ProfileReader(process).rate() > 0
    except NoProfileError:
        return False


class ContentionReader(_Buckets):
    """Reads the mutex profile and the block profile of one process; raises BinaryError where they cannot be found."""

    def __init__(self, process: Process) -> None:
        places = found_in(process, "contention", ContentionPlaces, find_contention)
        super().__init__(process, places)
        self._lists = places.lists
        self._tick_ns = tick_ns()

    def contention(self) -> dict[str, Contention]:
        """What was waited since the program began, by `MUTEX` and `BLOCK`. Raises TargetError or HostError."""
        found: dict[str, list[tuple[tuple[int, ...], float, int]]] = {kind: [] for kind in _KINDS.values()}
        at = self._offsets
        for head in self._lists:
            for kind, stack, _, record in self._each(head, _BLOCK_RECORD):
                if kind not in _KINDS:
                    raise self._inconsistent()
                (count,) = struct.unpack_from("<d", record, at["blockRecord.count"])
                (ticks,) = struct.unpack_from("<q", record, at["blockRecord.cycles"])
                found[_KINDS[kind]].append((stack, count, ticks))
        return {kind: self._profile(rows) for kind, rows in found.items()}

    def _profile(self, rows: list[tuple[tuple[int, ...], float, int]]) -> Contention:
        counts = np.array([count for _, count, _ in rows], np.float64)
        ticks = np.array([ticks for *_, ticks in rows], np.float64)
        return Contention([stack for stack, *_ in rows], counts, ticks * self._tick_ns)


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

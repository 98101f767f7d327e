"""The scheduler of a Go process as its own runtime keeps it, read from outside while it runs.

Nothing is stopped and nothing is probed. A number is read whole; different numbers of one sample may be some microseconds
apart.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gotrace.analysis.scheduling import CPU_CLASSES, P, Sample, Totals
from gotrace.binary.scheduler import SchedulerBooks, find_books
from gotrace.errors import TargetError
from gotrace.kernel.cpus import ThreadCpus, ThreadTurns, last_cpu
from gotrace.kernel.memory import Memory
from gotrace.kernel.numa import threads_here
from gotrace.made import bias_in, found_in

if TYPE_CHECKING:
    from gotrace.kernel.process import Process

_MOST_PS, _MOST_MS = 1 << 12, 1 << 16
_MOST_QUEUED = 257  # 256 in the ring of a P, and the one that runs next
_TRIES = 5


class _Head(NamedTuple):
    """Of runtime.sched."""

    nmidle: int
    npidle: int
    nmspinning: int
    gcwaiting: int
    runqsize: int
    goidgen: int


class _OfP(NamedTuple):
    """Of a P."""

    id: int
    status: int
    schedtick: int
    m: int
    goidcache: int
    goidcacheend: int
    runqhead: int
    runqtail: int
    runnext: int


# How many bytes each has.
_HEAD = {name: 8 if name == "goidgen" else 4 for name in _Head._fields}
_WORDS = ("m", "goidcache", "goidcacheend", "runnext")
_OF_P = {name: 8 if name in _WORDS else 4 for name in _OfP._fields}
_BEFORE_PS = 2 + len(_HEAD)


class Glance(NamedTuple):
    """What `SchedulerReader.glance` sees: numbers as they were read, and of each P its thread (0: none) with its stat."""

    at_ns: int
    numbers: tuple[int, ...]
    tids: list[int]
    stats: list[bytes]


class SchedulerReader:
    """Reads the scheduler of one process; raises TargetError or BinaryError where it cannot be found."""

    def __init__(self, process: Process) -> None:
        self.books = found_in(process, "scheduler", SchedulerBooks, find_books)
        self._bias = bias_in(process, self.books)
        self.pid = process.pid
        self._memory = Memory(process.pid)
        self._sched, self._allp = self.books.sched + self._bias, self.books.allp + self._bias
        self._at = self.books.offsets
        self._find_places(0, 0)
        self._cpus, self._turns = ThreadCpus(process.pid), ThreadTurns(process.pid)
        self._here: dict[int, int] = {}  # the number here of each thread by its own
        self._threads = {0: 0}  # the thread of each M, by its number here

    def close(self) -> None:
        """Give back the files of its threads, which are opened again when they are asked for."""
        self._cpus.close()

    def glance(self) -> Glance:
        """The scheduler now, for `sample`. Raises TargetError or HostError.

        No more is done than has to be at once: who looks a hundred times a second at a busy machine finds neither its code
        nor its data in the caches, and runs at a seventh of its speed.
        """
        numbers = self._numbers()
        at_ns = time.monotonic_ns()
        known = self._threads
        ms = [numbers[place] for place in self._m_places]
        try:
            tids = [known[m] for m in ms]
        except KeyError:
            known |= zip(ms, self._tids(ms), strict=True)
            tids = [known[m] for m in ms]
        stat = self._cpus.stat
        return Glance(at_ns, numbers, tids, [stat(tid) if tid else b"" for tid in tids])

    def sample(self, glance: Glance) -> Sample | None:
        """What was seen; None where a queue's two ends were not of one moment."""
        head, ps = self._named(glance.numbers)
        queued = [(p.runqtail - p.runqhead & 0xFFFFFFFF) + (p.runnext != 0) for p in ps]
        if max(queued) > _MOST_QUEUED:
            return None
        return Sample(
            at_ns=glance.at_ns,
            ps=tuple(
                P(p.id, p.status, length, tid, last_cpu(stat) if stat else -1)
                for p, length, tid, stat in zip(ps, queued, glance.tids, glance.stats, strict=True)
            ),
            global_queue=head.runqsize,
            idle_ps=head.npidle,
            spinning_ms=head.nmspinning,
            idle_ms=head.nmidle,
            stopping=head.gcwaiting != 0,
        )

    def totals(self) -> Totals:
        """What was counted up to now. Raises TargetError or HostError."""
        at, memory = self._at, self._memory
        self._threads = {0: 0}  # an M may be another thread's by now
        head, ps = self._named(self._numbers())
        buckets = (at["timeHistogram.underflow"] - at["timeHistogram.counts"]) // 8
        begin = self._sched + at["schedt.timeToRun"]
        counts = memory.words(begin + at["timeHistogram.counts"], buckets).tolist()
        beyond = memory.word(begin + at["timeHistogram.overflow"]) if "timeHistogram.overflow" in at else 0
        created = head.goidgen - sum(p.goidcacheend - p.goidcache for p in ps)
        turns, threads = self._turns.total()
        return Totals(
            at_ns=time.monotonic_ns(),
            waits=counts,
            beyond=beyond,
            mutex_wait_ns=self._mutex_wait(),
            created=created,
            slices=[(p.id, p.schedtick) for p in ps],
            threads=threads,
            ran_ns=turns.ran_ns,
            waited_ns=turns.waited_ns,
            switched=turns.times,
            cpu=self._cpu(),
        )

    def _cpu(self) -> list[int] | None:
        if not self.books.cpu_stats:
            return None
        begin = self.books.cpu_stats + self._bias
        places = [(begin + offset, 8) for offset in CPU_CLASSES.values()]
        return [int.from_bytes(each, "little") for each in self._memory.read_many(places)]

    def _numbers(self) -> tuple[int, ...]:
        """The array of Ps, the head of sched and each P, as `_named` names them."""
        for _ in range(_TRIES):
            self._fill()
            numbers = self._form.unpack(self._room.data)
            pointer, length = numbers[:2]
            if (pointer, length) == self._list:
                return numbers
            if not 0 < length <= _MOST_PS:
                raise TargetError(f"process {self.pid} has no Ps", "its runtime has not started yet: try again")
            self._find_places(pointer, length)
        raise TargetError(f"the Ps of process {self.pid} are inconsistent", "try again, or report it")

    @staticmethod
    def _named(numbers: tuple[int, ...]) -> tuple[_Head, list[_OfP]]:
        """The head of sched, and each P."""
        width = len(_OF_P)
        ps = [_OfP(*numbers[begin : begin + width]) for begin in range(_BEFORE_PS, len(numbers), width)]
        return _Head(*numbers[2:_BEFORE_PS]), ps

    def _find_places(self, pointer: int, length: int) -> None:
        """What is read of so many Ps, whose addresses are an array."""
        self._list = pointer, length
        ps = self._memory.words(pointer, length).tolist() if length else []
        at = self._at
        places = [(self._allp, 16), *((self._sched + at[f"schedt.{self._name(n)}"], size) for n, size in _HEAD.items())]
        places += [(p + at[f"p.{name}"], size) for p in ps for name, size in _OF_P.items()]
        letters = {4: "I", 8: "Q"}
        self._form = struct.Struct("<QQ" + "".join(letters[size] for _, size in places[1:]))
        self._room = np.zeros(self._form.size, np.uint8)
        self._fill = self._memory.filling(np.array(places, np.uint64), self._room)
        first = _BEFORE_PS + _OfP._fields.index("m")
        self._m_places = range(first, first + len(ps) * len(_OF_P), len(_OF_P))

    def _name(self, name: str) -> str:
        """Since Go 1.25 the global queue knows its length itself."""
        return "runq.size" if name == "runqsize" and "schedt.runqsize" not in self._at else name

    def _tids(self, ms: Sequence[int]) -> list[int]:
        """The thread of each M by its number here; 0 for none."""
        place = self._at["m.procid"]
        found = [int.from_bytes(each, "little") for each in self._memory.read_many([(m + place, 8) for m in ms if m])]
        if unknown := {own for own in found if own} - self._here.keys():
            self._here |= threads_here(self.pid, unknown)
        tids = iter(found)
        return [self._here.get(next(tids), 0) if m else 0 for m in ms]

    def _mutex_wait(self) -> int | None:
        """What goroutines waited for mutexes, and threads for the runtime's own locks (the latter since Go 1.22)."""
        at = self._at
        if "schedt.totalMutexWaitTime" not in at or not self.books.allm:
            return None
        total = self._memory.word(self._sched + at["schedt.totalMutexWaitTime"])
        if "schedt.totalRuntimeLockWaitTime" not in at:
            return total
        total += self._memory.word(self._sched + at["schedt.totalRuntimeLockWaitTime"])
        m = self._memory.word(self.books.allm + self._bias)
        for _ in range(_MOST_MS):
            if not m:
                break
            places = [(m + at[f"m.{name}"], 8) for name in ("alllink", "mLockProfile.waitTime")]
            m, waited = (int.from_bytes(each, "little") for each in self._memory.read_many(places))
            total += waited
        return total

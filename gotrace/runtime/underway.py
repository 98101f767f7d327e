"""What a Go process is in the middle of, read from its runtime's own books: a stop of the world, a mark phase.

Nothing is stopped and nothing is probed. A stop that stands shows in the scheduler: every P has stopped but those which
it waits for, and the one that keeps its M belongs to the thread that stops the world.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gotrace.errors import GotraceError

if TYPE_CHECKING:
    from gotrace.kernel.memory import Memory

_STOPPED = 3  # _Pgcstop of runtime/runtime2.go
_FROZEN = 0x7FFFFFFF  # freezeStopWait: a process that dies stops the world for good, by nobody
_MOST_PS, _MOST_FRAMES, _MOST_TEXT = 1 << 12, 32, 64


class Waited(NamedTuple):
    """A P that has not stopped, its thread and goroutine; 0 where it has none."""

    p: int
    tid: int
    goid: int


@dataclass(frozen=True)
class Standing:
    """A stop of the world that has not ended. Times are CLOCK_MONOTONIC ns of the process's own time namespace.

    ``since_ns`` is when stopping began, None up to Go 1.22; ``reason`` the runtime's words, "" for a collection's.
    ``asked_by`` are the return addresses on the stack of the goroutine that asked, innermost first.
    ``stopped``: every P has stopped, and what goes on is the work for which the world was stopped.
    """

    since_ns: int | None
    tid: int
    goid: int
    reason: str
    asked_by: tuple[int, ...]
    stopped: bool
    waits_for: tuple[Waited, ...]


@dataclass(frozen=True)
class Marking:
    """A GC cycle that has not ended, and since when it marks."""

    cycle: int
    since_ns: int


class UnderwayReader:
    """Reads the books of one process; ``places`` as `gotrace.binary.scheduler.SchedulerPlaces` has them in JSON."""

    def __init__(self, places: dict[str, Any], work_cycles: int, memory: Memory, bias: int) -> None:
        self._at: dict[str, int] = places["offsets"]
        self._sched, self._allp = places["sched"] + bias, places["allp"] + bias
        self._work = work_cycles + bias if work_cycles else 0
        self._memory = memory

    def stop(self) -> Standing | None:
        """The stop of the world that stands; None if there is none, or it ended while it was read. Raises GotraceError."""
        if not self._is_stopping():
            return None
        found = self._stop()
        return found if found is not None and self._is_stopping() and found == self._stop() else None

    def _is_stopping(self) -> bool:
        return self._memory.read(self._sched + self._at["schedt.gcwaiting"], 1) != b"\0"

    def _stop(self) -> Standing | None:
        at, memory = self._at, self._memory
        wait = _signed(memory.read(self._sched + at["schedt.stopwait"], 4))
        if wait == _FROZEN:
            return None
        pointer, count = memory.words(self._allp, 2).tolist()
        if not 0 < count <= _MOST_PS:
            return None
        fields = {"id": 4, "status": 4, "m": 8} | ({"gcStopTime": 8} if "p.gcStopTime" in at else {})
        ps = memory.words(pointer, count).tolist()
        texts = memory.read_many([(p + at[f"p.{name}"], size) for p in ps for name, size in fields.items()])
        numbers = [int.from_bytes(text, "little") for text in texts]
        rows = [dict(zip(fields, numbers[i : i + len(fields)], strict=True)) for i in range(0, len(numbers), len(fields))]
        stoppers = [row for row in rows if row["status"] == _STOPPED and row["m"]]
        if len(stoppers) != 1:
            return None
        (stopper,) = stoppers
        tid, g, goid = self._thread(stopper["m"])
        waits_for = tuple(
            Waited(row["id"], *self._thread(row["m"])[::2]) for row in rows if row["status"] != _STOPPED and wait > 0
        )
        return Standing(
            since_ns=stopper.get("gcStopTime"),
            tid=tid,
            goid=goid,
            reason=self._text(stopper["m"] + at["m.preemptoff"]),
            asked_by=tuple(self._stack(g)) if g else (),
            stopped=wait <= 0,
            waits_for=waits_for,
        )

    def _thread(self, m: int) -> tuple[int, int, int]:
        """(thread, address of its goroutine, number of that) of an M; zeros where there is none."""
        if not m:
            return 0, 0, 0
        tid, g = (self._memory.word(m + self._at[f"m.{name}"]) for name in ("procid", "curg"))
        return tid, g, self._memory.word(g + self._at["g.goid"]) if g else 0

    def _text(self, place: int) -> str:
        pointer, length = self._memory.words(place, 2).tolist()
        return self._memory.read(pointer, length).decode("utf-8", "replace") if 0 < length <= _MOST_TEXT else ""

    def _stack(self, g: int) -> Iterator[int]:
        """The return addresses of a goroutine that has left for the system stack, by its frame records, innermost first."""
        fp = self._memory.word(g + self._at["g.sched"] + self._at["gobuf.bp"])
        for _ in range(_MOST_FRAMES):
            try:
                above, caller = self._memory.words(fp, 2).tolist()
            except GotraceError:
                return
            if not caller:
                return
            yield caller
            if above <= fp:
                return
            fp = above

    def marking(self) -> Marking | None:
        """The mark phase that is under way. Raises GotraceError."""
        if not self._work:
            return None
        # &work.cycles: cycles, maxprocs, tSweepTerm, tMark, tMarkTerm, tEnd, the same in every release
        cycle, _, sweep_term, mark, _, end = self._memory.words(self._work, 6).tolist()
        return Marking(cycle & 0xFFFFFFFF, mark) if mark >= sweep_term > end else None


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)

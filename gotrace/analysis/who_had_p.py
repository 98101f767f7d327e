"""Who had the P that a goroutine got after a long wait. Times in nanoseconds, of CLOCK_MONOTONIC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

GOROUTINE, NOBODY, STOP = "goroutine", "nobody", "stop"
# Why a P is without a goroutine: there was nothing to do; another thread is to have it; the next goroutine's own thread is
# to have it; a thread has it, and looks for one.
IDLE, HANDED_OVER, LOCKED, ACQUIRED = range(4)
NOBODY_HAD_IT = {IDLE: "idle", HANDED_OVER: "handed over", LOCKED: "locked thread", ACQUIRED: "looking for work"}

Span = tuple[int, int]


class Turn(NamedTuple):
    """A goroutine had the P, on thread ``tid``, and began in the function at ``startpc``; or none had it, if goid is 0.

    Then ``startpc`` says why: `IDLE` and so on; thread ``tid`` has left it, or has `ACQUIRED` it.
    """

    tid: int
    goid: int
    startpc: int
    begin_ns: int
    end_ns: int


class NoCpu(NamedTuple):
    """A thread could run and had no CPU: a quota held it, or it was behind task ``holder`` (0: the CPU was idle)."""

    begin_ns: int
    end_ns: int
    holder: int
    throttled: bool


@dataclass
class Part:
    """Of a wait, what one goroutine had of it (``what`` is `GOROUTINE`), or `NOBODY`, or a `STOP` of the world.

    ``which``: goid, why nobody had it, or the reason of the stop. While it had the P its thread was without a CPU for
    ``no_cpu_ns``, because of a quota for ``throttled_ns`` of that, else ``behind`` tasks. ``taken``: another thread took
    the P from it, which happens in system calls only.
    """

    what: str
    which: int
    startpc: int = 0
    held_ns: int = 0
    no_cpu_ns: int = 0
    throttled_ns: int = 0
    behind: dict[int, int] = field(default_factory=dict)
    taken: bool = False


def parts_of(
    wait: Span, turns: Sequence[Turn], stops: Sequence[tuple[int, int, int]], no_cpu: Mapping[int, Sequence[NoCpu]]
) -> list[Part]:
    """The parts of a wait, the longest first; what they leave of it is unknown.

    ``turns`` are the last on the P, one behind the other; ``stops`` are (begin, end, reason), ``no_cpu`` is by thread.
    """
    found: dict[tuple[str, int], Part] = {}
    turns = sorted(turns, key=lambda turn: turn.begin_ns)
    for turn, following in zip(turns, [*turns[1:], None], strict=False):
        # A P that nobody had waits for the thread that took it then.
        tid = turn.tid if turn.goid or following is None else following.tid
        rest = [_common(wait, (turn.begin_ns, turn.end_ns))]
        for begin, end, reason in stops:
            stopped = sum(_length(_common(span, (begin, end))) for span in rest)
            if stopped:
                found.setdefault((STOP, reason), Part(STOP, reason)).held_ns += stopped
                rest = [piece for span in rest for piece in _without(span, (begin, end))]
        held = sum(map(_length, rest))
        if not held:
            continue
        key = (GOROUTINE, turn.goid) if turn.goid else (NOBODY, turn.startpc)
        part = found.setdefault(key, Part(*key, startpc=turn.startpc))
        part.held_ns += held
        part.taken |= bool(
            turn.goid
            and following is not None
            and (following.goid, following.startpc) == (0, HANDED_OVER)
            and following.tid != turn.tid
        )
        for each in no_cpu.get(tid, ()):
            without = sum(_length(_common(span, (each.begin_ns, each.end_ns))) for span in rest)
            part.no_cpu_ns += without
            if each.throttled:
                part.throttled_ns += without
            elif without:
                part.behind[each.holder] = part.behind.get(each.holder, 0) + without
    return sorted(found.values(), key=lambda part: -part.held_ns)


def _length(span: Span) -> int:
    return max(0, span[1] - span[0])


def _common(one: Span, other: Span) -> Span:
    return max(one[0], other[0]), min(one[1], other[1])


def _without(span: Span, taken: Span) -> Iterator[Span]:
    for piece in ((span[0], min(span[1], taken[0])), (max(span[0], taken[1]), span[1])):
        if _length(piece):
            yield piece

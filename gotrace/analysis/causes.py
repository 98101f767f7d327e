"""Why a stop-the-world took its time: every nanosecond of it is put into one class, by evidence.

At any moment of a stop the world waits for one thread, its owner: while Ps are being stopped, the thread that carries the
P that stops last (a P may change threads); from then on, the thread that asked for the stop. What the owner was doing is
known without sampling, from four signals: whether it was on a CPU, in which state it left it and whether its cgroup was
throttled then, whether a page fault was open, and whether the preemption signal was pending (the thread is inside the
kernel: in a system call, or interrupted) or delivered without effect (non-preemptible code). Time that no evidence
decides is `UNKNOWN`.

Times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gotrace.analysis.columns import Array, Kinds, rows, text_of
from gotrace.analysis.pauses import UNKNOWN as NOT_KNOWN
from gotrace.analysis.stacks import Frame, StackTable
from gotrace.text import count_text, duration_text

# The classes. HANDSHAKE is what every stop takes: sending a signal, its arrival, a thread's waking up; WORK is what the
# stop is for.
QUOTA, CPU, STOPPED, TRACED, FROZEN = "CPU quota", "waiting for a CPU", "stopped by a signal", "traced", "frozen"
FAULT, KERNEL, INTERRUPTED, NO_PREEMPT = "page fault", "in the kernel", "interrupted", "not preemptible"
LOCK, BLOCKED, HANDSHAKE, WORK, UNKNOWN = "runtime lock", "blocked", "handshake", "work", "unknown"
_KEPT = (QUOTA, CPU, STOPPED, TRACED, FROZEN, FAULT)
CAUSES = (*_KEPT, KERNEL, INTERRUPTED, NO_PREEMPT, LOCK, BLOCKED)
CLASSES = (*CAUSES, HANDSHAKE, WORK, UNKNOWN)

# What a healthy handshake takes at most; measured: delivery 5 us (p99 42), stopping after it 20-70 us, waking up 11 us.
DELIVERY_NS, REACTION_NS, WAKE_UP_NS, UNSIGNALLED_NS = 50_000, 150_000, 50_000, 100_000

# The runtime sends its signal again every 100 us, in fact every 180 us; half of them may find the sender waiting itself.
_RETRY_NS = 500_000

# Two probes at the same place, and what a restart wakes, are no further apart.
_SAME_NS = 1_000_000

# A stop that is over meets its pause in the same batch of events or the next: one that never did is not kept.
_FORGOTTEN_NS = 10_000_000_000

NO_P = (1 << 64) - 1
_REQUEST = ("runtime.stopTheWorld", "runtime.systemstack")  # what a goroutine runs to stop the world
SIGNAL_FRAMES = ("runtime.sigtramp", "runtime.sigtrampgo", "runtime.sighandler", "runtime.sigreturn__sigaction")
# task states at sched_switch: include/linux/sched.h
_SLEEPING = 0x3
_HELD = {0x8000: FROZEN, 8: TRACED, 4: STOPPED}


@dataclass(frozen=True)
class TailFormat:
    """The probe's kinds, and the numbers of its flags."""

    kinds: Kinds
    handed_off: int
    off_throttled: int
    wake_throttled: int
    off_in_fault: int
    fault_major: int
    signal_blocked: int


class Off(NamedTuple):
    """A time off the CPU: from ``begin`` to ``end``; ``wake`` is 0 if it was not woken (it stayed runnable)."""

    begin: int
    end: int
    wake: int
    state: int
    flags: int
    waker: int
    cpu: int  # the one it came back to
    stack: int
    kernel_stack: int = 0  # where it went to sleep, if in a page fault


class Burst(NamedTuple):
    """Page faults one right after the other."""

    begin: int
    end: int
    faults: int
    flags: int
    address: int
    place: str = ""  # what was mapped there, if that was known at once


class Signal(NamedTuple):
    """A preemption signal that reached a thread during the stop: the first, or one of those that followed."""

    sent: int  # 0 if that was not seen
    delivered: int
    stack: int
    in_syscall: bool
    blocked: bool = False  # by the thread, when it was sent


class Seen(NamedTuple):
    """A thread on a CPU during the stop, seen by the clock."""

    time: int
    stack: int
    in_syscall: bool


class PStop(NamedTuple):
    """A P stopped, or was handed to another thread to be stopped by it."""

    time: int
    tid: int
    p: int
    handed_off: bool
    signal_sent: int  # since when a signal was pending for the thread, 0 if none was
    deliveries: int
    blocked: bool = False  # the signal, by the thread


@dataclass
class Stop:
    """Everything seen of one stop-the-world."""

    asked: int
    stopper: int
    asked_stack: int = 0
    stops: list[PStop] = field(default_factory=list)
    off: dict[int, list[Off]] = field(default_factory=dict)
    bursts: dict[int, list[Burst]] = field(default_factory=dict)
    signals: dict[int, list[Signal]] = field(default_factory=dict)  # of each thread, in the order of delivery
    seen: dict[int, list[Seen]] = field(default_factory=dict)
    ran: list[tuple[int, int, int, int]] = field(default_factory=list)  # (begin, end, CPU, thread)
    restart: int = 0  # when it was asked to run again; for the part of that name, see `reported`
    end: int = 0  # when every P had been handed out
    pause: Any = None  # the row of `pauses.PAUSE`

    @property
    def begin(self) -> int:
        """When stopping began, by the runtime's clock where it has one."""
        return max(self.asked, int(self.pause["start_ns"]))

    @property
    def stopped(self) -> int:
        """When every P had stopped; up to Go 1.21 the last that was seen to."""
        if int(self.pause["stopping_ns"]) != NOT_KNOWN:
            return min(max(self.begin, int(self.pause["start_ns"] + self.pause["stopping_ns"])), self.end)
        return max((each.time for each in self.stops), default=self.begin)

    @property
    def reported(self) -> int:
        """The end of the total that the runtime reports: of a mark termination before the Ps are woken, else after."""
        return min(max(self.stopped, int(self.pause["start_ns"] + self.pause["total_ns"])), self.end)

    @property
    def length(self) -> int:
        return self.end - self.begin


class Piece(NamedTuple):
    """Part of a stop: the thread the world waited for, and the class of the time; ``about`` is the evidence."""

    begin: int
    end: int
    tid: int
    kind: str
    about: Any = None

    @property
    def length(self) -> int:
        return self.end - self.begin


@dataclass
class Explanation:
    """A pause with its parts, each a list of pieces without gaps, and what it waited for most.

    The parts are those of `gotrace.analysis.pauses.PAUSE`: ``restart`` is what follows the end that the runtime reports.
    """

    stop: Stop
    stopping: list[Piece]
    stopped: list[Piece]
    restart: list[Piece]
    late: list[tuple[int, int, int]]  # of each P that was waited for: (p, thread, when it stopped after the request)
    run_again: list[tuple[int, int]]  # threads woken by the restart: (thread, when it ran after its end)

    @property
    def pieces(self) -> list[Piece]:
        return [*self.stopping, *self.stopped, *self.restart]

    def classes(self) -> dict[str, int]:
        """Nanoseconds in each class; they add up to the pause."""
        return class_sums(self.pieces)

    @property
    def cause(self) -> str:
        """The largest class; HANDSHAKE and WORK when nothing lengthened it."""
        sums = self.classes()
        return max(CLASSES, key=lambda kind: sums.get(kind, 0))


def asking(names: Sequence[str]) -> list[str]:
    """What led to a request to stop the world, from its whole stack: innermost first, without the request itself."""
    own = [place for place, name in enumerate(names) if name.startswith(_REQUEST)]
    return list(names[max(own, default=-1) + 1 :])


def stack_of(piece: Piece, stop: Stop) -> int:
    """Where its thread was in a piece: where it left the CPU or the signal reached it, or was seen; 0 if unknown."""
    if isinstance(piece.about, (Off, Signal)) and piece.about.stack:
        return piece.about.stack
    seen = [each.stack for each in stop.seen.get(piece.tid, []) if piece.begin <= each.time < piece.end]
    if seen:
        return seen[-1]
    signals = stop.signals.get(piece.tid, [])
    before = [signal for signal in signals if signal.delivered <= piece.begin]
    return before[-1].stack if before else signals[0].stack if signals else 0


def class_sums(pieces: Iterable[Piece]) -> dict[str, int]:
    """Nanoseconds in each class."""
    sums: dict[str, int] = {}
    for piece in pieces:
        if piece.length:
            sums[piece.kind] = sums.get(piece.kind, 0) + piece.length
    return sums


class Explainer:
    """Collects the evidence of each stop from the event stream, and keeps that of the ``top`` longest.

    ``frames`` as in `StackTable`; ``place`` says what is mapped at an address of data, "" if unknown.
    """

    def __init__(
        self,
        wire: TailFormat,
        frames: Callable[[Sequence[int]], Sequence[Frame]],
        place: Callable[[int], str],
        top: int,
    ) -> None:
        self.wire = wire
        self.stacks = StackTable(wire.kinds.numbers("stack"), frames)
        self.tasks: dict[int, tuple[str, int]] = {}  # thread -> its name and its process
        self._top = top
        self._place = place
        self._longest: list[tuple[int, int, Stop]] = []
        self._current: Stop | None = None
        self._done: list[Stop] = []  # over, and not met their pause yet
        self._last: Stop | None = None
        self._signals_seen = False
        self._fields = wire.kinds.numbers(
            *("stop_asked", "p_stopped", "restart_done", "off_cpu", "preempt_signal", "faults", "ran"),
            *(("in_stop",) if "in_stop" in wire.kinds else ()),
        )
        self._seen: dict[int, int] = {}  # the stack that each thread was seen with last, on a CPU and in a stop
        self.callers: Counter[tuple[int, int]] = Counter()  # pauses by reason and the stack of who asked
        self.without_evidence = 0  # pauses whose stop was not seen whole

    def feed(self, events: Array, pauses: Array) -> None:
        """Add a batch of events and the pauses that were decoded from it."""
        self.stacks.feed(events)
        told = self.wire.kinds.of(events, "task")
        for tid, low, high, tgid in told[["tid", "name_low", "name_high", "tgid"]].tolist():
            self.tasks[tid] = (text_of(low, high).decode("utf-8", "replace"), tgid)
        for row in self.wire.kinds.each(rows(events, np.isin(events["kind"], self._fields))):
            self._event(*row)
        for pause in pauses:
            self._pause(pause)

    def _event(self, kind: str, time: int, tid: int, cpu: int, of: dict[str, int]) -> None:
        stop = self._current
        if kind == "in_stop":
            self._seen[tid] = of["stack"]
            if stop is not None:
                stop.seen.setdefault(tid, []).append(Seen(time, of["stack"], bool(of["in_syscall"])))
        elif kind == "stop_asked":
            self._current = Stop(time, tid, of.get("stack", 0))
        elif kind == "off_cpu":
            begin, word = of["off_ns"], of["word"]
            off = Off(
                begin,
                time,
                of["wake_ns"],
                word & 0xFFFF,
                word >> 16 & 0xFFFF,
                word >> 32,
                cpu,
                of["stack"],
                of.get("kernel_stack", 0),
            )
            for each in (stop, self._last):
                if each is not None and begin < (each.end or time):
                    each.off.setdefault(tid, []).append(off)
        elif stop is None:
            return
        elif kind == "ran":
            stop.ran.append((of["begin_ns"], time, cpu, tid))
        elif kind == "p_stopped":
            handed_off = of["how"] == self.wire.handed_off
            blocked = bool(of.get("blocked"))
            stop.stops.append(PStop(time, tid, of["p"], handed_off, of["signal_ns"], of["deliveries"], blocked))
        elif kind == "preempt_signal":
            self._signals_seen = True
            how = of["in_syscall"]
            signal = Signal(of["sent_ns"], time, of["stack"], bool(how & 1), bool(how & self.wire.signal_blocked))
            stop.signals.setdefault(tid, []).append(signal)
        elif kind == "faults":
            count, flags = of["count"] & 0xFFFFFFFF, of["count"] >> 32
            stop.bursts.setdefault(tid, []).append(
                Burst(of["begin_ns"], of["end_ns"], count, flags, of["address"], self._place(of["address"]))
            )
        elif kind == "restart_done" and stop.stopper == tid:
            stop.restart, stop.end = max(of["restart_ns"], stop.asked), time
            self._done.append(stop)
            self._last, self._current = stop, None
            while self._done[0].end < time - _FORGOTTEN_NS:
                del self._done[0]

    def _pause(self, pause: Any) -> None:
        end = int(pause["start_ns"] + pause["total_ns"] + pause["restart_lag_ns"])
        for number, stop in enumerate(self._done):
            if stop.asked <= end and abs(stop.end - end) < _SAME_NS and stop.stopper == int(pause["tid"]):
                stop.pause, stop.end = pause, end
                self.callers[int(pause["reason"]), stop.asked_stack] += 1
                del self._done[: number + 1]
                # the time it was asked for tells equals apart, and never compares stops
                heapq.heappush(self._longest, (stop.length, stop.asked, stop))
                if len(self._longest) > self._top:
                    heapq.heappop(self._longest)
                return
        self.without_evidence += 1

    def code_in(self, pieces: Iterable[Piece], stop: Stop) -> dict[str, list[str]]:
        """By class: what the thread ran in its longest piece of that, functions innermost first; without unknown ones."""
        longest: dict[str, Piece] = {}
        for piece in pieces:
            if piece.length > (longest[piece.kind].length if piece.kind in longest else 0):
                longest[piece.kind] = piece
        found = {}
        for kind, piece in longest.items():
            names = [name for name in self.stacks.names(stack_of(piece, stop)) if name not in SIGNAL_FRAMES]
            if names:
                found[kind] = names
        return found

    def code_of(self, tid: int) -> list[str]:
        """What a thread was seen running last, in a stop: functions, innermost first; none if it was not."""
        return self.stacks.names(self._seen.get(tid, 0))

    def asked_by(self, stack: int) -> list[str]:
        """Who asked for a stop: functions, innermost first, from where the request is the runtime's own affair."""
        return asking(self.stacks.names(stack))

    def place_of(self, burst: Burst) -> str:
        """What was mapped where page faults happened last: what is known of it by now, or the address."""
        return burst.place or self._place(burst.address) or f"{burst.address:#x}"

    def longest(self) -> list[Explanation]:
        """The longest stops, longest first, explained."""
        return [self.explain(stop) for _, _, stop in sorted(self._longest, key=lambda each: -each[0])]

    def explain(self, stop: Stop) -> Explanation:
        begin, stopped, reported, end = stop.begin, stop.stopped, stop.reported, stop.end
        asked_again = min(max(stop.restart, stopped), end)
        stopping: list[Piece] = []
        at = begin
        for tid, until in self._owners(stop, begin, stopped):
            stopping += self._classify(stop, tid, at, until)
            at = until
        stopping += self._classify(stop, stop.stopper, at, stopped)
        late = [(each.p, each.tid, each.time - begin) for each in stop.stops if not each.handed_off and each.time > begin]
        again = {
            tid: off.end - end
            for tid, offs in stop.off.items()
            for off in offs
            if off.end > end and asked_again <= off.wake <= end + _SAME_NS
        }
        return Explanation(
            stop,
            stopping,
            list(self._classify(stop, stop.stopper, stopped, reported, own_work=True)),
            list(self._classify(stop, stop.stopper, reported, end, own_work=True)),
            sorted(late, key=lambda each: -each[2]),
            sorted(again.items(), key=lambda each: -each[1]),
        )

    @staticmethod
    def _owners(stop: Stop, begin: int, stopped: int) -> Iterator[tuple[int, int]]:
        """(thread, until when the world waited for it), up to the last P's stop."""
        last = max((each for each in stop.stops if not each.handed_off and begin < each.time <= stopped), default=None)
        if last is None:
            return
        for each in sorted(stop.stops):
            if each.handed_off and each.p == last.p != NO_P and begin < each.time < last.time:
                yield each.tid, each.time
        # The event is at the beginning of the P's stop: it is complete when that thread wakes the one which waits for it.
        sleeps = [off for off in stop.off.get(stop.stopper, []) if off.begin <= last.time < off.wake <= stopped]
        yield last.tid, max((off.wake for off in sleeps if not off.state & sum(_HELD)), default=last.time)

    def _classify(
        self, stop: Stop, tid: int, begin: int, end: int, own_work: bool = False, depth: int = 0
    ) -> Iterator[Piece]:
        """Pieces without gaps for one thread from ``begin`` to ``end``; ``own_work``: the stop is for what it does."""
        at = begin
        for off in sorted(stop.off.get(tid, [])):
            if off.end <= at or off.begin >= end:
                continue
            if off.begin > at:
                yield from self._on_cpu(stop, tid, at, min(off.begin, end), own_work, depth)
            yield from self._off_cpu(stop, tid, off, max(at, off.begin), min(off.end, end), depth)
            at = min(off.end, end)
        if at < end:
            yield from self._on_cpu(stop, tid, at, end, own_work, depth)

    def _off_cpu(self, stop: Stop, tid: int, off: Off, begin: int, end: int, depth: int) -> Iterator[Piece]:
        wake = min(max(off.wake or off.end, begin), end)
        state, wire = off.state, self.wire
        waiting = Piece(wake, end, tid, CPU, off)
        if off.flags & wire.wake_throttled:
            waiting = waiting._replace(kind=QUOTA)
        elif off.wake and off.end - off.wake <= WAKE_UP_NS:
            waiting = waiting._replace(kind=HANDSHAKE)
        held = next((kind for bit, kind in _HELD.items() if state & bit), None)
        if held is not None:
            yield Piece(begin, wake, tid, held, off)
        elif state & _SLEEPING:
            yield from self._asleep(stop, tid, off, begin, wake, depth)
        else:
            yield Piece(begin, end, tid, QUOTA if off.flags & wire.off_throttled else CPU, off)
            return
        if wake < end:
            yield waiting

    def _asleep(self, stop: Stop, tid: int, off: Off, begin: int, end: int, depth: int) -> Iterator[Piece]:
        names = self.stacks.names(off.stack)
        if off.flags & self.wire.off_in_fault:
            yield Piece(begin, end, tid, FAULT, off)
        elif _among(names, "runtime.lock2", "runtime.lockWithRank"):
            holder = off.waker if depth < 2 and self._is_ours(stop, off.waker) else 0
            held = list(self._classify(stop, holder, begin, end, depth=depth + 1)) if holder else []
            for piece in held or [Piece(begin, end, tid, LOCK, off)]:
                # Only what kept that thread from going on: had it gone to sleep, it would not have held the lock.
                yield piece if piece.kind in _KEPT else Piece(piece.begin, piece.end, tid, LOCK, off)
        elif (
            tid == stop.stopper
            and begin >= stop.begin
            and _among(names, "runtime.notetsleep", "runtime.notetsleep_internal")
        ):
            # It waits for the others, which are the owners then: a long wait without one is not explained.
            yield Piece(begin, end, tid, HANDSHAKE if end - begin <= REACTION_NS else UNKNOWN, off)
        elif _among(names, "runtime.notesleep", "runtime.mPark", "runtime.stopm") and end - begin <= UNSIGNALLED_NS:
            yield Piece(begin, end, tid, HANDSHAKE, off)  # an idle thread that is being given a P
        else:
            yield Piece(begin, end, tid, BLOCKED, off)

    def _is_ours(self, stop: Stop, tid: int) -> bool:
        return tid in stop.off or any(each.tid == tid for each in stop.stops)

    def _on_cpu(self, stop: Stop, tid: int, begin: int, end: int, own_work: bool, depth: int) -> Iterator[Piece]:
        at = begin
        for burst in sorted(stop.bursts.get(tid, [])):
            if burst.end <= max(at, burst.begin) or burst.begin >= end:
                continue
            if burst.begin > at:
                yield from self._running(stop, tid, at, burst.begin, own_work, depth)
                at = burst.begin
            until = min(burst.end, end)
            yield Piece(at, until, tid, FAULT, burst)
            at = until
        if at < end:
            yield from self._running(stop, tid, at, end, own_work, depth)

    def _running(self, stop: Stop, tid: int, begin: int, end: int, own_work: bool, depth: int) -> Iterator[Piece]:
        """On a CPU and in no page fault: the preemption signal decides."""
        if own_work or (tid == stop.stopper and not depth):
            usual = HANDSHAKE if end - begin <= REACTION_NS else UNKNOWN
            yield Piece(begin, end, tid, WORK if own_work else usual)
            return
        if depth:  # followed from another thread's wait: what signals tell is about the stop, not about that
            yield Piece(begin, end, tid, HANDSHAKE)
            return
        signals = stop.signals.get(tid)
        if not signals:
            pending = next((each for each in stop.stops if each.tid == tid and each.signal_sent), None)
            signals = [
                Signal(pending.signal_sent if pending else end, 1 << 63, 0, False, bool(pending and pending.blocked))
            ]
        at = begin
        before: Signal | None = None
        for signal in signals:
            took = min(signal.delivered, stop.stopped) - signal.sent
            # Later ones come to a thread that is being waited for already: their own way is none of it, if it is short.
            known = signal.sent if signal.sent and (before is None or took > DELIVERY_NS) else signal.delivered
            sent = min(max(known, at), end)
            delivered = min(max(signal.delivered, sent), end)
            if at < sent:
                yield from self._signalled(stop, tid, at, sent, before)
            if sent < delivered:
                yield (
                    self._undelivered(stop, tid, sent, delivered, signal)
                    if took > DELIVERY_NS
                    else Piece(sent, delivered, tid, HANDSHAKE, signal)
                )
            at, before = delivered, signal
        if at < end:
            yield from self._signalled(stop, tid, at, end, before)

    @staticmethod
    def _undelivered(stop: Stop, tid: int, sent: int, delivered: int, signal: Signal) -> Piece:
        """A signal was on its way for long: the thread was inside the kernel, if it had not blocked the signal.

        If it had, or the signal never came, only what the thread was seen doing tells.
        """
        seen = [each for each in stop.seen.get(tid, []) if sent <= each.time < delivered]
        in_kernel = all(each.in_syscall for each in seen) if seen else signal.in_syscall and not signal.blocked
        if seen:
            signal = signal._replace(stack=seen[-1].stack)
        if in_kernel:
            kind = KERNEL
        elif not signal.blocked:
            kind = INTERRUPTED
        else:
            kind = UNKNOWN if not seen or any(each.in_syscall for each in seen) else NO_PREEMPT
        return Piece(sent, delivered, tid, kind, signal)

    def _signalled(self, stop: Stop, tid: int, begin: int, end: int, signal: Signal | None) -> Iterator[Piece]:
        """What the thread did since ``signal`` was delivered, None: since before the first was sent."""
        if signal is None:
            yield from self._unsignalled(stop, tid, begin, end, ever=self._signals_seen)
            return
        took = max((each.time for each in stop.stops if each.tid == tid), default=stop.stopped)
        took -= stop.signals[tid][0].delivered
        kind = HANDSHAKE if took <= REACTION_NS else NO_PREEMPT if self._resists(stop, tid, signal, took) else UNKNOWN
        yield Piece(begin, end, tid, kind, signal)

    def _resists(self, stop: Stop, tid: int, signal: Signal, took: int) -> bool:
        """Whether the thread ran code that cannot be preempted, after a signal had reached it.

        The runtime's own code cannot. Other code can almost everywhere: then it takes that the signal came again and again,
        or the thread may not have run at all (a hypervisor may have had the CPU, which is not reported).
        """
        names = [name for name in self.stacks.names(signal.stack) if name not in SIGNAL_FRAMES]
        if names and names[0].startswith(("runtime.", "internal/runtime/")):
            return True
        deliveries = max((each.deliveries for each in stop.stops if each.tid == tid), default=0)
        return deliveries > 1 + took // _RETRY_NS

    def _unsignalled(self, stop: Stop, tid: int, begin: int, end: int, ever: bool) -> Iterator[Piece]:
        """No signal was sent to the running thread yet; ``ever`` says whether the runtime sends any.

        The thread that should send it may not have been running itself. If it was, and none was ever seen in the whole run,
        then the runtime sends none (GODEBUG=asyncpreemptoff=1), and the other ran code without a preemption point.
        """
        if end - begin <= UNSIGNALLED_NS:
            yield Piece(begin, end, tid, HANDSHAKE)
            return
        for piece in self._classify(stop, stop.stopper, begin, end, depth=1):
            if piece.kind in CAUSES:
                yield piece
            else:
                yield Piece(piece.begin, piece.end, tid, UNKNOWN if ever else NO_PREEMPT)


# Of the causes that need no more than the thread and the time.
_SENTENCES = {
    WORK: "the runtime's own work in the stop took {took}",
    QUOTA: "{who} was throttled for {took} by its cgroup's CPU quota",
    STOPPED: "{who} was stopped by a signal (SIGSTOP) for {took}",
    TRACED: "{who} was held by a debugger (ptrace) for {took}",
    FROZEN: "{who} was frozen by its cgroup's freezer for {took}",
    UNKNOWN: "{took} of thread {tid} is not explained by the evidence",
}


def sentence(told: Explanation, explainer: Explainer) -> str:
    """What a person on call needs: which thread the world was waiting for, and what held it up."""
    cause = told.cause
    of_it = [piece for piece in told.pieces if piece.kind == cause]
    if not of_it:
        return "nothing took measurable time"
    tid, length = _longest_first((piece.tid, piece.length) for piece in of_it)[0]
    who = f"thread {tid}"
    if tid == told.stop.stopper:
        who += " (which is stopping the world)"
    its_own = [piece for piece in of_it if piece.tid == tid]
    about = max(its_own, key=lambda piece: piece.length).about
    took = duration_text(length)
    if cause == HANDSHAKE:
        return f"nothing unusual: stopping every P took {duration_text(sum(piece.length for piece in told.stopping))}"
    if cause in _SENTENCES:
        return _SENTENCES[cause].format(who=who, took=took, tid=tid)
    if cause == CPU:
        other = _who_ran(its_own, told, explainer)
        if not other:
            return f"{who} was runnable and got an idle CPU only after {took}: the machine or its hypervisor was slow"
        return f"{who} was runnable and waited {took} for a CPU held by {other}"
    if cause == FAULT:
        whole = told.stop.bursts.get(tid, [])
        bursts = [each for each in whole if any(each.begin < piece.end and each.end > piece.begin for piece in its_own)]
        sleeps = [piece for piece in of_it if isinstance(piece.about, Off)]
        kind = "page faults"
        if sleeps:
            asleep = max(sleeps, key=lambda piece: piece.length).about
            kind = f"a page fault that {fault_slept(explainer.stacks.names(asleep.kernel_stack))}"
        elif any(burst.flags & explainer.wire.fault_major for burst in bursts):
            kind = "a page fault that had to wait for I/O"
        count = sum(burst.faults for burst in bursts)
        many = f" ({count_text(count, 'fault')})" if count > 1 else ""
        last = max(bursts, key=lambda burst: burst.end - burst.begin, default=None)
        where = f" at {explainer.place_of(last)}" if last is not None else ""
        within = explainer.code_in(its_own, told.stop).get(FAULT, [])
        return f"{who} spent {took} in {kind}{many}{where}" + (f", in {' < '.join(within[:4])}" if within else "")
    stack = about.stack if about is not None else 0
    names = [name for name in explainer.stacks.names(stack) if name not in SIGNAL_FRAMES]
    place = " < ".join(names[:4])
    if cause == NO_PREEMPT:
        if about is None:
            return f"{who} ran for {took} without a preemption point, and the runtime sends no signals (asyncpreemptoff=1)"
        what = "with its signals blocked" if isinstance(about, Signal) and about.blocked else "non-preemptible code"
        return f"{who} ran {what} for {took}: {place or 'its stack is unknown'}"
    if cause == KERNEL:
        return f"{who} was in the kernel for {took}" + (f", called by {place}" if place else "")
    if cause == INTERRUPTED:
        code = f" while running {names[0]}" if names else ""
        return f"{who} lost its CPU for {took}{code} to an interrupt or the hypervisor"
    if cause == LOCK:
        return f"{who} waited {took} for a runtime lock: {place}"
    return f"{who} slept for {took}" + (f" in {place}" if place else "")  # BLOCKED


# What a page fault does while it sleeps, by functions of the kernel's mm/ that only it has on its stack; the first that
# fits, for reading from swap waits for a page as reading from a file does.
_FAULT_SLEEPS = (
    (("handle_userfault",), "waited for another program to supply the page (userfaultfd)"),
    (("migration_entry_wait",), "waited for the page to be moved"),
    (("do_swap_page", "swapin_readahead", "swap_readpage", "swap_read_folio"), "waited for the page to be read from swap"),
    (("try_to_free_pages", "try_to_free_mem_cgroup_pages", "shrink_node"), "had to reclaim memory first"),
    (("filemap_fault", "filemap_read_folio", "do_read_fault"), "waited for the page to be read from a file"),
    (("rwsem_down_read_slowpath", "rwsem_down_write_slowpath"), "waited for a lock of the address space (mmap_lock)"),
)


def fault_slept(names: Sequence[str]) -> str:
    """What a page fault did that slept; ``names`` are the functions of the kernel it was in, innermost first."""
    for functions, words in _FAULT_SLEEPS:
        if any(name.split(".")[0] in functions for name in names):
            return words
    ours = [name for name in names if "schedule" not in name]
    return f"slept in {ours[0]}" if ours else "slept"


def _who_ran(waits: list[Piece], told: Explanation, explainer: Explainer) -> str:
    """Who had the CPU most of the time that these waits took; "" if it was idle."""
    stop = told.stop
    own = explainer.tasks.get(stop.stopper, ("", 0))[1]
    shares: list[tuple[int, int]] = []
    for piece in waits:
        for begin, end, cpu, tid in stop.ran:
            if cpu == piece.about.cpu and begin < piece.end and end > piece.begin and tid != piece.tid:
                shares.append((tid, min(end, piece.end) - max(begin, piece.begin)))
    if not shares:
        return ""
    processes = []
    for tid, length in shares:
        name, tgid = explainer.tasks.get(tid, ("", 0))
        ours = tid in stop.off or (tgid and tgid == own)
        processes.append(((0, "") if ours else (tgid or tid, name), length))
    (pid, name), _ = _longest_first(processes)[0]
    if not pid:
        return "other threads of the program"
    return f"`{name}` (pid {pid})" if name else f"pid {pid}"


def _longest_first(lengths: Iterable[tuple[Any, int]]) -> list[tuple[Any, int]]:
    sums: dict[Any, int] = {}
    for key, length in lengths:
        sums[key] = sums.get(key, 0) + length
    return sorted(sums.items(), key=lambda each: -each[1])


def _among(names: Sequence[str], *wanted: str) -> bool:
    return any(name in wanted for name in names[:12])

"""Spans of time from pairs of events that perf recorded, and histograms of how long they took.

An event's name and text are perf's (tools/perf/builtin-script.c); which ones belong together:

* ``sched:sched_switch``: a thread is off the CPU from when it is switched away from until it is switched to. Both are in
  the text, and the first is recorded on the thread itself; the second only if the thread before it was recorded too
  (`perf record -a`). An arrival that was not recorded gives no span, and none that is wrong, for a thread leaves again.
* ``raw_syscalls:sys_enter`` and ``sys_exit``, or ``syscalls:sys_enter_NAME`` and ``sys_exit_NAME``: a system call, on one
  thread.
* uprobes (`perf probe`) whose names end in stopTheWorldWithSema and startTheWorldWithSema: a stop of a Go program's world,
  up to the request to restart it. One at a time in a process, on any of its threads. perf itself would name a probe on
  runtime.stopTheWorldWithSema "runtime", so a name has to be given: ``perf probe -x PROGRAM
  stopTheWorldWithSema=runtime.stopTheWorldWithSema``. (Never with %return: that crashes a Go program whose stack moves.)

All of it needs every occurrence: events of which perf took only some (`perf record -F`, or ``-c`` other than 1) would give
spans that never were. `perf record` takes every tracepoint and uprobe unless told otherwise. Of context switches a gap
shows on a CPU whose idle task is recorded too: who leaves is not who came. No span reaches across one. (Linux 6.18 was seen
to record the idle task of the first CPU only; arrivals from another's are missing then, departures are not.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import Kinds
from gotrace.analysis.histogram import Histogram

OFF_CPU, STOP = "off CPU", "stop the world"
SWITCH = "sched:sched_switch"

_MOST = 1 << 18  # beginnings that wait for their end: more than these are of a file that has no ends
_LONGEST_SWITCH = 500  # two names have 15 characters each; a longer text would take the pattern long


class Span(NamedTuple):
    """What a thread did from ``begin_ns`` to ``end_ns``."""

    begin_ns: int
    end_ns: int
    tid: int
    what: str


_Handler = Callable[[str, int, int, "int | None", Hashable], "Span | None"]


class Pairs:
    """Feed it every event in order of time; it returns what ended there. ``gaps`` counts context switches not recorded."""

    def __init__(self) -> None:
        self.gaps = 0
        self._begun: dict[Hashable, tuple[int, str]] = {}
        self._handlers: dict[str, _Handler | None] = {}
        self._away: dict[int, int] = {}  # thread -> since when
        self._running: dict[int, int] = {}  # CPU -> the thread that came last
        self._whole: set[int] = set()  # CPUs whose idle task is recorded too

    def takes(self, event: str) -> bool:
        """Whether events of this name are of a pair."""
        try:
            return self._handlers[event] is not None
        except KeyError:
            if len(self._handlers) >= _MOST:
                self._handlers.clear()
            handler = self._handlers[event] = self._handler(event)
            return handler is not None

    def feed(self, event: str, text: str, time_ns: int, tid: int, cpu: int | None, process: Hashable) -> Span | None:
        """One event of the thread ``tid`` on ``cpu``; ``process`` is anything that identifies its process."""
        handler = self._handlers[event] if self.takes(event) else None
        return handler(text, time_ns, tid, cpu, process) if handler is not None else None

    def _handler(self, event: str) -> _Handler | None:
        group, _, name = event.partition(":")
        if event == SWITCH:
            return self._switch
        if group == "raw_syscalls" and name in ("sys_enter", "sys_exit"):
            begins = name == "sys_enter"

            def numbered(text: str, time_ns: int, tid: int, _: int | None, __: Hashable) -> Span | None:
                found = _SYSCALL.match(text)
                return self._side(begins, ("NR", tid), f"syscall {found[1]}", time_ns, tid) if found else None

            return numbered
        if group == "syscalls" and (found := _NAMED.fullmatch(name)):
            begins, what = found[1] == "enter", f"syscall {found[2]}"
            return lambda _, time_ns, tid, __, ___: self._side(begins, (what, tid), what, time_ns, tid)
        if found := _WORLD.search(event):
            begins = found[1] == "stop"
            return lambda _, time_ns, tid, __, process: self._side(begins, (STOP, process), STOP, time_ns, tid)
        return None

    def _switch(self, text: str, time_ns: int, tid: int, cpu: int | None, _: Hashable) -> Span | None:
        found = (_SWITCH.fullmatch(text) or _SWITCH_SHORT.fullmatch(text)) if len(text) < _LONGEST_SWITCH else None
        if found is None:
            return None
        left, came = int(found[1]), int(found[2])
        if cpu is not None and len(self._running) < _MOST:
            if not left:
                self._whole.add(cpu)
            if cpu in self._whole and self._running.get(cpu, left) != left:
                self.gaps += 1
                self._away.clear()
            self._running[cpu] = came
        begin_ns = self._away.pop(came, None)
        if left:
            if len(self._away) >= _MOST:
                self._away.clear()
            self._away[left] = time_ns
        return Span(begin_ns, time_ns, came, OFF_CPU) if begin_ns is not None and begin_ns <= time_ns else None

    def _side(self, begins: bool, key: Hashable, what: str, time_ns: int, tid: int) -> Span | None:
        if begins:
            if len(self._begun) >= _MOST:
                self._begun.clear()
            self._begun[key] = time_ns, what
            return None
        begun = self._begun.pop(key, None)
        if begun is None or begun[1] != what or begun[0] > time_ns:
            return None
        return Span(begun[0], time_ns, tid, what)


# The kernel's own format (TP_printk in include/trace/events/sched.h), and that of perf's plugin for it.
_SWITCH = re.compile(
    r"prev_comm=.* prev_pid=(\d{1,10}) prev_prio=-?\d+ prev_state=\S+ ==> next_comm=.* next_pid=(\d{1,10}) next_prio=-?\d+",
    re.S,
)
_SWITCH_SHORT = re.compile(r".*:(\d{1,10}) \[-?\d+\] \S+ ==> .*:(\d{1,10}) \[-?\d+\]", re.S)
_SYSCALL = re.compile(r"NR (-?\d{1,10})\b")
_NAMED = re.compile(r"sys_(enter|exit)_(\w+)")
_WORLD = re.compile(r":\w*?(stop|start)TheWorldWithSema(?:_\d+)?$")


class Waits:
    """Time off the CPU with the stacks that the threads left it with, from events of the kinds sample and span.

    ``names(reference)`` is the text a number stands for. ``open`` is how many times a thread left and was not seen again.
    """

    def __init__(self, kinds: Kinds, names: Callable[[int], str]) -> None:
        self.open = 0
        self._kinds = kinds
        self._names = names
        self._left: dict[tuple[int, int], int] = {}  # (thread, when it left) -> its stack

    def feed(self, events: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """A row of (stack or 0, begin, end, thread) for each wait that ended."""
        samples = self._named(events, "sample", "event", SWITCH)
        samples = samples[samples["tid"] != 0]  # an idle CPU waits for nothing
        for tid, time_ns, stack in zip(*(samples[name].tolist() for name in ("tid", "time_ns", "stack")), strict=True):
            self._left[tid, time_ns] = stack
        self.open += len(samples)
        spans = self._named(events, "span", "what", OFF_CPU)
        rows = []
        for tid, begin, end in zip(*(spans[name].tolist() for name in ("tid", "begin_ns", "time_ns")), strict=True):
            stack = self._left.pop((tid, begin), None)
            self.open -= stack is not None
            rows.append((stack or 0, begin, end, tid))
        # a thread leaves again only after it came
        self._left = dict({tid: ((tid, at), stack) for (tid, at), stack in self._left.items()}.values())
        return np.array(rows, np.uint64).reshape(-1, 4)

    def _named(self, events: npt.NDArray[Any], kind: str, column: str, name: str) -> npt.NDArray[Any]:
        found = self._kinds.of(events, kind)
        wanted = [each for each in np.unique(found[column]).tolist() if self._names(each) == name]
        return found[np.isin(found[column], np.array(wanted, np.uint64))]


class SpanHistograms:
    """Histograms of spans per interval of time, from events of the kind span: columns begin_ns, what, pid.

    ``names(what)`` is the text a number stands for. A span counts where it ends. ``interval_ns`` 0: one for all.
    """

    def __init__(self, kinds: Kinds, names: Callable[[int], str], begin_ns: int, interval_ns: int) -> None:
        self._kinds = kinds
        self._names = names
        self._begin_ns = begin_ns
        self._interval_ns = interval_ns
        self._at = 0
        self._open: dict[str, Histogram] = {}

    def feed(self, events: npt.NDArray[Any]) -> Iterator[tuple[int, dict[str, Histogram]]]:
        """Count a batch; yields (number of the interval, name -> histogram in ns) of each interval that is complete."""
        spans = self._kinds.of(events, "span")
        if not len(spans):
            return
        ends, begins = spans["time_ns"].astype(np.int64), spans["begin_ns"].astype(np.int64)
        # perf sorts by time; what comes late all the same counts as of now
        at = np.maximum.accumulate(np.maximum(self._interval(ends), self._at))
        what = spans["what"]
        for interval in np.unique(at).tolist():
            if interval != self._at:
                yield from self.finish()
                self._at = interval
            inside = at == interval
            for each in np.unique(what[inside]).tolist():
                histogram = self._open.setdefault(self._names(each), Histogram())
                wanted = inside & (what == each)
                histogram.record(ends[wanted] - begins[wanted])

    def _interval(self, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return (ends - self._begin_ns) // self._interval_ns if self._interval_ns else np.zeros(len(ends), np.int64)

    def finish(self) -> Iterator[tuple[int, dict[str, Histogram]]]:
        """The last interval, if there is anything in it."""
        if self._open:
            yield self._at, self._open
            self._open = {}

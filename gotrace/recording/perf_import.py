"""A recording made of what `perf script` printed (`gotrace.recording.perf_script`).

Its header is that of any recording with a part called "perf", whose kinds are `KINDS`. An event of the kind

* ``sample`` is one sample: ``event`` is its event's name, as text (`format.NUMBERED`), ``period`` what it stands for in
  what that event counts (1 where perf did not print it), ``stack`` the number of its stack or 0, ``address`` the data
  address or 0, ``pid`` its process, 0 where perf did not print it.
* ``stack`` is as in `gotrace.probe.stack_kind`. Its addresses are numbers for the functions that perf named, made here, for
  several processes share the true ones; so they carry `EXACT`, and the rows of functions say what each is.
* ``task`` names a thread, as in the probe "tail", with its process.
* ``span`` is something that took a thread from ``begin_ns`` to the event's time, ``what`` it was as text.

Times are perf's, in nanoseconds; 0 where perf did not print them. ``cpu`` is 65535 where it did not. The end's entry
"perf" has the counts: samples by event, spans by name, lines, lines that were not understood, and samples of which a part
was left out, by that part; and the events that perf took only in part.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import gotrace
from gotrace.analysis.spans import Pairs
from gotrace.analysis.stacks import EXACT, Frame
from gotrace.arch import BY_MACHINE
from gotrace.recording import format as form
from gotrace.recording.perf_script import PerfScript, Sample, Stack
from gotrace.recording.writer import Writer

SAMPLE, STACK, TASK, SPAN = 0x901, 0x902, 0x903, 0x904
KINDS: dict[str, dict[str, Any]] = {
    "sample": {"number": SAMPLE, "columns": ["period", "stack", "event", "address", "pid"], "text": "event"},
    "stack": {"number": STACK, "columns": ["stack", "place", "pc0", "pc1", "pc2"], "text": ""},
    "task": {"number": TASK, "columns": ["name_low", "name_high", "pid"], "text": ""},
    "span": {"number": SPAN, "columns": ["begin_ns", "what", "pid"], "text": "what"},
}
NO_CPU = 0xFFFF

_MASK_32, _MASK_64 = (1 << 32) - 1, (1 << 64) - 1
# More than these are of no file of perf's: what comes then is forgotten and numbered again, or reported together.
_MOST_TASKS, _MOST_FUNCTIONS, _MOST_TEXTS = 1 << 16, 1 << 20, 1 << 12
OTHERS = "[others]"


def header(script: PerfScript, begin_ns: int) -> dict[str, Any]:
    """`Session.header`'s form, with the facts of perf's own header, as far as ``script`` has been read."""
    facts = script.facts
    machine = facts.get("arch", "")
    arch = BY_MACHINE.get(machine or platform.machine())
    cpus = facts.get("nrcpus online", "")
    return {
        "gotrace": gotrace.__version__,
        "target": {
            "pid": 0,
            "exe": "",
            "build_id": "",
            "go_version": "",
            "arch": arch.goarch if arch else machine,
            "stripped": False,
            "pie": False,
            "bias": 0,
        },
        "host": {
            "name": facts.get("hostname", ""),
            "kernel": facts.get("os release", ""),
            "machine": machine or platform.machine(),
            "cpus": int(cpus) if cpus.isascii() and cpus.isdigit() and len(cpus) < 9 else 0,
        },
        "clock": {"begin_ns": begin_ns, "wall_offset_ns": 0, "target_offset_ns": 0},
        "attach_ns": 0,
        "probes": {
            "perf": {
                "kinds": KINDS,
                "points": [],
                "missing": [],
                "facts": {
                    "source": "perf script",
                    "perf": facts.get("perf version", ""),
                    "command": facts.get("cmdline", ""),
                },
            }
        },
    }


class Importer:
    """Writes the rows of samples. ``wanted(comm, pid)`` chooses whose.

    ``samples`` counts what was written, by event; ``spans`` too, by name; ``stacks`` is how many distinct ones there were.
    ``partial`` are events that would make spans, did not perf take only some of them; ``gaps`` is as in `Pairs`.
    """

    def __init__(
        self,
        writer: Writer,
        dtype: np.dtype[Any],
        wanted: Callable[[str, int | None], bool],
        partial: frozenset[str] | set[str] = frozenset(),
    ) -> None:
        self.samples: Counter[str] = Counter()
        self.spans: Counter[str] = Counter()
        self.stacks = 0
        self.begin_ns = self.end_ns = 0
        self.partial: set[str] = set()
        self.notes: list[str] = []  # what else there is to say, for people
        self._sampled = partial
        self._writer = writer
        self._dtype = dtype
        self._wanted = wanted
        self._pairs = Pairs()
        self._tasks: dict[int, tuple[str, int | None]] = {}
        self._texts: dict[str, int] = {}
        self._functions: dict[Frame, int] = {}
        self._last_function = 0
        self._rows: list[tuple[int, ...]] = []

    def add(self, samples: list[Sample]) -> None:
        """Take the next samples. Raises OSError where the recording cannot be written."""
        for sample in samples:
            comm, pid, tid, cpu, time_ns, event, period, address, text, stack = sample
            time_ns, tid = time_ns or 0, (tid or 0) & _MASK_32
            task = self._tasks.get(tid)
            if task is None or task[0] != comm or (pid is not None and task[1] != pid):
                self._name_task(time_ns, tid, comm, pid)
            if text and time_ns:
                self._pair(event, text, time_ns, tid, cpu, period)
            if not self._wanted(comm, pid):
                continue
            number = 0
            if stack is not None:
                number = stack.number or self._add_stack(time_ns, tid, stack)
            reference = self._texts.get(event) or self._text(event)
            self.samples[event if reference != self._texts.get(OTHERS) else OTHERS] += 1
            if not self.begin_ns or time_ns < self.begin_ns:
                self.begin_ns = time_ns
            if time_ns > self.end_ns:
                self.end_ns = time_ns
            weight = 1 if period is None else min(period, _MASK_64)
            at = NO_CPU if cpu is None else cpu & NO_CPU
            who = (pid or 0) & _MASK_32
            self._rows.append((time_ns, tid, SAMPLE, at, weight, number, reference, address or 0, who))
        if self._rows:
            self._writer.events(np.array(self._rows, self._dtype))
            self._rows = []

    def _name_task(self, time_ns: int, tid: int, comm: str, pid: int | None) -> None:
        if len(self._tasks) >= _MOST_TASKS:
            self._tasks.clear()
        self._tasks[tid] = comm, pid
        if self._wanted(comm, pid):
            # 16 bytes in two words, as the kernel keeps it
            name = comm.encode("utf-8", "replace")[:16].ljust(16, b"\0")
            low, high = (int.from_bytes(part, "little") for part in (name[:8], name[8:]))
            self._rows.append((time_ns, tid, TASK, NO_CPU, low, high, (pid or 0) & _MASK_32, 0, 0))

    @property
    def gaps(self) -> int:
        return self._pairs.gaps

    def _pair(self, event: str, text: str, time_ns: int, tid: int, cpu: int | None, period: int | None) -> None:
        if not self._pairs.takes(event):
            return
        if event in self._sampled or (period is not None and period != 1):
            self.partial.add(event if len(self.partial) < _MOST_TEXTS else OTHERS)
        if event in self.partial:
            return
        comm, pid = self._tasks.get(tid, ("", None))
        span = self._pairs.feed(event, text, time_ns, tid, cpu, pid or comm)
        if span is None:
            return
        comm, pid = self._tasks.get(span.tid, ("", None))
        if self._wanted(comm, pid):
            what = self._texts.get(span.what) or self._text(span.what)
            self.spans[span.what if what != self._texts.get(OTHERS) else OTHERS] += 1
            row = (span.end_ns, span.tid & _MASK_32, SPAN, NO_CPU, span.begin_ns, what, (pid or 0) & _MASK_32, 0, 0)
            self._rows.append(row)

    def _text(self, name: str) -> int:
        if len(self._texts) >= _MOST_TEXTS and name != OTHERS:
            return self._texts.get(OTHERS) or self._text(OTHERS)
        reference = self._texts[name] = form.NUMBERED | len(self._texts) + 1
        self._writer.note(form.TEXT, reference, name.encode())
        return reference

    def _add_stack(self, time_ns: int, tid: int, stack: Stack) -> int:
        self.stacks += 1
        stack.number = self.stacks
        addresses = [self._functions.get(frame) or self._function(frame) for frame in stack.frames]
        place = len(addresses) << 32 | EXACT
        addresses += [0, 0]
        for at in range(0, len(stack.frames), 3):
            self._rows.append((time_ns, tid, STACK, NO_CPU, stack.number, place | at, *addresses[at : at + 3]))
        return stack.number

    def _function(self, frame: Frame) -> int:
        if len(self._functions) >= _MOST_FUNCTIONS:
            self._functions.clear()
        self._last_function += 1
        number = self._functions[frame] = self._last_function
        self._writer.note(form.FRAMES, number, json.dumps([frame]).encode())
        return number

    def end(self, script: PerfScript, ended: str) -> dict[str, Any]:
        """What a recording ends with."""
        cost = dict.fromkeys(("probe_hits", "target_ns_estimate", "tool_cpu_s", "tool_rss_bytes"), 0)
        return {
            "duration_ns": self.end_ns - self.begin_ns,
            "ended": ended,
            "received": self.samples.total(),
            "lost": script.lost,
            "cost": cost,
            "perf": {
                "events": dict(self.samples),
                "spans": dict(self.spans),
                "partial": sorted(self.partial),
                "lines": script.lines,
                "garbage": script.garbage,
                "left_out": dict(script.left_out),
            },
        }

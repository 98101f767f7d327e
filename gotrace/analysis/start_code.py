"""Which code a start spent its time in, from the events of the probe `startcode`: samples and calls, by init function.

A sample belongs to the init function that the runtime's loop over inits had called, or to main.main; what it did for
that is the first function below it that is known to do such work (`KINDS`), or the kernel's page faults and the
allocator. Before main.main only the main thread counts, which runs every init.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gotrace.analysis.columns import Array, Kinds
from gotrace.analysis.stacks import Frame, StackTable
from gotrace.analysis.timeline import LINKER, MAIN, PROGRAM, Start

REGEXPS, TEMPLATES, FILES, NAMES, MEMORY, COLLECTOR, DATA, OWN = (
    "regexps",
    "templates",
    "files",
    "names",
    "memory",
    "collector",
    "program's data",
    "own code",
)
MAIN_MAIN = "main.main"
_OF_STAGES = {LINKER: LINKER, PROGRAM: MAIN_MAIN}
_LOOPS = ("runtime.doInit1", "runtime.doInit")
# In the order in which each function is tried, from the init function inwards.
KINDS = (
    (TEMPLATES, re.compile(r"(text|html)/template[./]")),
    (REGEXPS, re.compile(r"regexp[./]")),
    (NAMES, re.compile(r"net\.\(\*Resolver\)|net\.Lookup")),
    (FILES, re.compile(r"os\.(ReadFile|ReadDir|Open|OpenFile|Stat|Lstat|openFileNolog|\(\*File\)\.)|io/ioutil\.Read")),
)
_COLLECTOR = re.compile(r"runtime\.(gcAssistAlloc|gcStart$|GC$|deductSweepCredit|gcMarkDone)")
_ALLOCATOR = re.compile(r"runtime\.(mallocgc|makeslice|growslice|newobject|memclr|mapassign|makemap)")
_KERNEL_FAULT = re.compile(r"(asm_)?exc_page_fault|do_user_addr_fault|el0_da|do_page_fault|handle_mm_fault")

Place = tuple[str, int]  # file and line


@dataclass
class Work:
    """What one init function, or main.main, did of one kind: samples, by the line of it that called for it."""

    samples: int = 0
    places: Counter[Place] = field(default_factory=Counter)
    callees: Counter[str] = field(default_factory=Counter)  # the function that the line called


@dataclass
class Calls:
    """Calls of one function for an init function or main.main, by line; ``ns`` from each begin to its end, where that
    is seen.
    """

    count: int = 0
    places: Counter[Place] = field(default_factory=Counter)
    ns: int = 0


class Fault(NamedTuple):
    """A page fault of one thread; ``section`` is of the executable, or "", ``major`` 1 if it read a disk."""

    begin_ns: int
    end_ns: int
    section: str
    major: int


@dataclass
class Touched:
    """Page faults in one section, of which ``major`` read a disk."""

    faults: int = 0
    major: int = 0
    ns: int = 0


@dataclass
class StartCode:
    """One start. ``samples`` are of each owner; ``work`` is by (owner, kind) and ``calls`` by (owner, function called).

    ``touched`` is by (init function, main.main or the stage `timeline.LINKER`, section), of the main thread; the section
    is "" for memory that is not of the executable's file.
    """

    samples: Counter[str] = field(default_factory=Counter)
    work: dict[tuple[str, str], Work] = field(default_factory=dict)
    calls: dict[tuple[str, str], Calls] = field(default_factory=dict)
    touched: dict[tuple[str, str], Touched] = field(default_factory=dict)
    faults: int = 0
    hits: int = 0
    sampled: int = 0
    without_owner: int = 0  # samples of which no owner is known, before main.main and in its thread
    beside_main: int = 0  # samples' worth of time in which others ran while main.main was waiting for them, or for a CPU
    maxprocs: int | None = None  # GOMAXPROCS as it was set last, None where that was not seen


class Collector:
    """Collects the events while starts are traced. `feed` them as they come; then `of` each start.

    ``functions(address)`` are the frames at a link-time address, innermost first; ``kernel(addresses)`` those of the
    kernel. ``entry`` is where the program begins, by which the load bias of each process is told. Each CPU was sampled
    every ``sample_ns``.
    """

    def __init__(
        self,
        header: Mapping[str, Any],
        functions: Callable[[int], Sequence[Frame]],
        kernel: Callable[[Sequence[int]], Sequence[Frame]],
        sample_ns: int,
    ) -> None:
        self._sample_ns = sample_ns
        self._kinds = Kinds.of_probe(header, "startcode")
        self._entries = Kinds.of_probe(header, "coldstart")
        points = header["probes"]["coldstart"]["points"]
        self._entry = next((int(point["address"], 16) for point in points if point["name"] == "entry"), 0)
        self._addresses = {int(each["address"], 16): each["name"] for each in header["probes"]["startcode"]["points"]}
        self._functions = functions
        self._bias = 0
        self._known: dict[int, Sequence[Frame]] = {}
        self._sections: list[tuple[str, int, int]] = header["probes"]["startcode"]["facts"].get("sections", [])
        stack = [self._kinds.number("stack")]
        self._stacks = StackTable(stack, self._frames)
        self._kernel_stacks = StackTable(stack, kernel)
        self._kept: list[Array] = []
        self._began: list[Array] = []

    def _frames(self, addresses: Sequence[int]) -> Sequence[Frame]:
        found: list[Frame] = []
        for address in addresses:
            at = address - self._bias
            if at not in self._known:
                self._known[at] = self._functions(at)
            found += self._known[at]
        return found

    def feed(self, events: Array) -> None:
        """Keep what will be asked for."""
        self._stacks.feed(events)
        self._kernel_stacks.feed(events)
        ours = self._kinds.ours(events) & (events["kind"] != self._kinds.number("stack"))
        self._kept.append(events[ours])
        self._began.append(events[events["kind"] == self._entries.number("entry")])

    def of(self, start: Start) -> StartCode:
        """What was seen of a start that is over."""
        events, began = (np.concatenate(each) for each in (self._kept, self._began))
        end_ns = start.exec_ns + start.total_ns

        def within(array: Array, processes: Array) -> Array:
            mine = (processes & np.uint64(0xFFFFFFFF)) == start.pid
            kept: Array = array[mine & (array["time_ns"] >= start.exec_ns) & (array["time_ns"] <= end_ns)]
            return kept

        # the first column of every kind has the process in its lower half
        events = within(events, self._kinds.named(events, "start_return")["tgid"])
        began = within(began, self._entries.named(began, "entry")["process"])
        events = events[np.argsort(events["time_ns"], kind="stable")]
        self._bias = int(self._entries.of(began, "entry")["pc"][0]) - self._entry if len(began) else 0
        out = StartCode()
        faults = self._faults(events)
        self._touch(start, faults.get(start.pid, []), out)
        out.faults = sum(map(len, faults.values()))
        open_calls: dict[int, tuple[Calls, int]] = {}
        main = next((row for row in start.rows if (row.stage, row.depth) == (PROGRAM, 0)), None)
        main_ns = main.begin_ns + start.exec_ns if main else end_ns
        sampled: list[tuple[int, str]] = []  # of main.main's time: when, and of whom
        for name, time_ns, tid, _, of in self._kinds.each(events):
            if name == "start_return":
                out.hits += 1
                if tid in open_calls:
                    calls, begun = open_calls.pop(tid)
                    calls.ns += time_ns - begun
                continue
            if name == "start_fault":
                continue
            if name == "start_procs":
                out.hits += 1
                out.maxprocs = of["procs"]
                continue
            frames = self._stacks.frames(of["stack"])
            owner, place, inner = owner_of(frames)
            if name == "start_call":
                out.hits += 1
                # The innermost function is the one whose entry was hit.
                callee = next((each.function for each in frames if each.kind != "inlined"), "")
                if owner and callee:
                    calls = out.calls.setdefault((owner, callee), Calls())
                    calls.count += 1
                    calls.places[place] += 1
                    open_calls[tid] = calls, time_ns
                continue
            out.sampled += 1
            if time_ns >= main_ns:
                sampled.append((time_ns, owner))
            if not owner:
                out.without_owner += tid == start.pid
                continue
            out.samples[owner] += 1
            kind = self._kind(inner, of["kernel_stack"], nearest(faults.get(tid, []), time_ns))
            work = out.work.setdefault((owner, kind), Work())
            work.samples += 1
            work.places[place] += 1
            work.callees[inner[-1].function if inner else ""] += 1
        out.beside_main = beside(sampled, MAIN_MAIN, self._sample_ns)
        return out

    def _faults(self, events: Array) -> dict[int, list[Fault]]:
        """The page faults of each thread, in their order; none of a recording that has none."""
        found: dict[int, list[Fault]] = {}
        if "start_fault" not in self._kinds:
            return found
        faults = self._kinds.of(events, "start_fault")
        at = faults["address"].astype(np.int64) - self._bias
        sections = np.full(len(faults), "", object)
        for name, begin, end in reversed(self._sections):
            sections[(at >= begin) & (at < end)] = name
        columns = (faults["begin_ns"], faults["time_ns"], sections, faults["tgid"] >> np.uint64(32))
        for tid, *fault in zip(faults["tid"].tolist(), *(each.tolist() for each in columns), strict=True):
            found.setdefault(tid, []).append(Fault(*fault))
        return found

    def _touch(self, start: Start, faults: Sequence[Fault], out: StartCode) -> None:
        """Add up page faults by who is at work: the rows in which the main thread runs one after the other."""
        spans = [
            (row.begin_ns + start.exec_ns, row.end_ns + start.exec_ns, row.name if row.depth else _OF_STAGES[row.stage])
            for row in start.rows
            if (row.stage, row.depth) == (MAIN, 2) or (row.depth == 0 and row.stage in _OF_STAGES)
        ]
        for each in faults:
            owner = next((name for begin, end, name in spans if begin <= each.begin_ns < end), "")
            touched = out.touched.setdefault((owner, each.section), Touched())
            touched.faults += 1
            touched.major += each.major
            touched.ns += each.end_ns - each.begin_ns

    def _kind(self, inner: Sequence[Frame], kernel_stack: int, section: str) -> str:
        """What was done in a sample; ``section`` is that of the page fault it may be in."""
        names = [frame.function for frame in inner]
        for name in reversed(names):
            for kind, pattern in KINDS:
                if pattern.match(name):
                    return kind
        if any(map(_COLLECTOR.match, names)):
            return COLLECTOR
        if any(_KERNEL_FAULT.match(name) for name in self._kernel_stacks.names(kernel_stack)):
            return DATA if section else MEMORY
        return MEMORY if any(map(_ALLOCATOR.match, names)) else OWN


def beside(sampled: Sequence[tuple[int, str]], owner: str, sample_ns: int) -> int:
    """How many samples' worth of time others were on a CPU while ``owner`` was on none.

    ``sampled`` are (time, owner) in the order of time. A sample stands for ``sample_ns``; where several CPUs were
    sampled, time counts once.
    """

    def covered(times: Sequence[int]) -> int:
        return int(np.minimum(np.diff(times), sample_ns).sum()) + sample_ns if times else 0

    others = covered([time_ns for time_ns, _ in sampled]) - covered([time_ns for time_ns, of in sampled if of == owner])
    return round(others / sample_ns)


def nearest(faults: Sequence[Fault], time_ns: int) -> str:
    """The section of the page fault that a thread was in then, or on its way to or from; "" if it is not the program's."""
    after = bisect.bisect_left(faults, time_ns, key=lambda each: each.end_ns)
    near = faults[max(0, after - 1) : after + 1]
    return min(near, key=lambda each: max(each.begin_ns - time_ns, time_ns - each.end_ns)).section if near else ""


def owner_of(frames: Sequence[Frame]) -> tuple[str, Place, Sequence[Frame]]:
    """(the init function or main.main that a stack belongs to, its line, the frames inside it); "" if there is none."""
    for number, frame in enumerate(frames):
        if number and frame.function in _LOOPS:
            owner = frames[number - 1]
            return owner.function, (owner.file, owner.line), frames[: number - 1]
        if frame.function == MAIN_MAIN:
            return MAIN_MAIN, (frame.file, frame.line), frames[:number]
    return "", ("", 0), frames

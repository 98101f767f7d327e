"""GPU memory of a process and of those that it starts, by the calls of its CUDA libraries and of PyTorch's allocator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gotrace.analysis.gpumem import calls, summary
from gotrace.analysis.gpumem.layers import CALL, MAPPED, Layers, joined, now
from gotrace.analysis.gpumem.owners import Owners, Program
from gotrace.analysis.gpumem.space import GROWTHS
from gotrace.analysis.stacks import StackTable
from gotrace.export.gpumem_page.draw import Drawing
from gotrace.probes.gpumem import EXECUTED
from gotrace.records.times import moment
from gotrace.runtime.code_of import CodeOf
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gotrace.analysis.pauses import Batch
    from gotrace.analysis.stacks import Frame
    from gotrace.kernel.ring import Events
    from gotrace.runtime.books import Books

BIN_NS = 10_000_000
_NOT_YET = "recorded by an earlier gotrace, which did not trace child processes"
_OLD = "stack"  # what stacks were called while the target's own were taken alone: a recording has their names


class GpuMemory(View):
    """Each process's spaces at the end, and a line of all every ``interval_ns`` (0: none); ``bin_ns`` is a column of the
    pictures.

    ``results`` are the records of the end, and ``drawing`` what is drawn of each, of the processes that asked for memory:
    whose requests failed most comes first, then who held most. ``libraries`` are the files with probes, as records have
    them.
    """

    name = "gpumem"
    stems = ("gpumem",)
    drawn_by = "gpumem_page.draw"
    tells_cost = True

    def __init__(self, interval_ns: int = 0, bin_ns: int = BIN_NS, top: int = 10) -> None:
        self.interval_ns, self.bin_ns, self.top = interval_ns, bin_ns, top
        self._rows: list[npt.NDArray[np.void]] = []
        self._of: list[npt.NDArray[np.int64]] = []  # whose they are, by `Owners`
        self._layers: dict[int, Layers] = {}
        self._seen: Counter[str] = Counter()
        self._told_ns = 0
        self._stacks: StackTable | None = None
        self._names: dict[int, list[str]] = {}
        self._code = CodeOf()
        self._named = 0  # the process whose stack is being named
        self._exes: dict[int, str] = {}
        self.libraries: list[Record] = []
        self._others: list[Record] = []
        self._running = 0
        self.results: list[Record] = []
        self._drawings: list[Drawing] = []

    @property
    def options(self) -> Record:
        return {name: getattr(self, name) for name in ("interval_ns", "bin_ns", "top")}

    @property
    def sees(self) -> bool:
        """Whether anything is probed by now."""
        return any(each["functions"] for each in self.libraries)

    def prepare(self, books: Books) -> None:
        self._code.of(books.pid)  # it may be short

    def begin(self) -> Iterator[Record]:
        source = self.source
        self._told_ns = source.begin_ns
        self._kinds = source.kinds("gpumem")
        target = source.header["target"]
        self._owners = Owners([Program(target["pid"], 0)])
        self._exes[0] = target["exe"]
        stacks = "call_stack" if "call_stack" in self._kinds else _OLD
        self._stacks = StackTable(self._kinds.numbers(stacks), self._frames if stacks != _OLD else source.frames)
        about = source.header["probes"]["gpumem"]
        files = list(dict.fromkeys(point["file"] for point in about["points"]))
        for path in files or [""] * bool(about["missing"]):
            names = [point["name"] for point in about["points"] if point["file"] == path]
            missing = [[each["name"], each["reason"]] for each in about["missing"]] if path == (files or [""])[0] else []
            self.libraries.append(
                {"path": path, "functions": list(dict.fromkeys(names)), "missing": missing, "late_ns": None}
            )
        yield from ()

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source
        self._learn(events)
        for each in source.ask("libraries", lambda: source.tracing.probe_libraries() or None, of_host=True) or ():
            self._take(each)
        for each in source.ask("others", lambda: None) or ():
            self._others.append({**each, "reason": _NOT_YET})
        if source.last:
            self._running = source.ask("running", lambda: int(source.tracing.running()), of_host=True) or 0
        self._name(events)
        rows = self._calls(events)
        self._rows.append(rows)
        self._of.append(self._owners.of(rows["tid"], rows["time_ns"]))
        if self.interval_ns:
            for number, own in self._by_owner(rows, self._of[-1]):
                self._layers.setdefault(number, Layers()).feed(own)
            length = source.now_ns - self._told_ns
            if length >= self.interval_ns or source.last:
                yield self._interval(length)

    def _take(self, told: Record) -> None:
        """What is said of a process and of what it has mapped; or, as it once was, of a library."""
        if "pid" not in told:
            about = {name: told[name] for name in ("path", "missing", "late_ns")}
            self.libraries.append({**about, "functions": told["points"]})
            return
        self._exes[self._owners.of_pid(told["pid"])] = told["exe"]
        if "reason" in told:
            self._others.append({name: told[name] for name in ("pid", "exe", "libraries", "reason")})
        for each in told.get("files", ()):
            about = {"path": each["path"], "functions": each["points"], "late_ns": told["late_ns"] or None}
            self.libraries.append(about | {"missing": told["missing"] if each is told["files"][0] else []})

    def _learn(self, events: Events) -> None:
        """Whose threads these are, and what became of processes, in order."""
        if "thread" not in self._kinds:
            return
        found = events[np.isin(events["kind"], self._kinds.numbers("thread", "process"))]
        thread = self._kinds.number("thread")
        for event in found[np.argsort(found["time_ns"], kind="stable")]:
            time_ns, words = int(event["time_ns"]), [int(event[letter]) for letter in "abc"]
            if event["kind"] == thread:
                self._owners.thread(time_ns, int(event["tid"]), words[0])
                continue
            self._code.forget(words[1])
            if words[0] == EXECUTED:
                self._owners.executed(time_ns, words[1])
            else:
                self._owners.forked(time_ns, words[1], words[2])

    def _name(self, events: Events) -> None:
        """Name the stacks now, while what is there has surely a name."""
        assert self._stacks is not None
        whole = self._stacks.feed(events)
        if _OLD in self._kinds:
            self._names |= {stack: self._stacks.names(stack) for stack in whole}
        elif whole:
            found = self._kinds.of(events, "call_stack")
            of = self._owners.of(found["tid"], found["time_ns"].astype(np.int64))
            pids = {int(stack): self._owners.programs[number].pid for stack, number in zip(found["stack"], of, strict=True)}
            told = self.source.ask("stacks", lambda: self._names_of(whole, pids), of_host=True) or {}
            self._names |= {int(stack): names for stack, names in told.items()}

    def _names_of(self, stacks: Sequence[int], pids: dict[int, int]) -> Record:
        assert self._stacks is not None
        found = {}
        for stack in stacks:
            self._named = pids.get(stack, 0)
            found[str(stack)] = self._stacks.names(stack)
        return found

    def _frames(self, addresses: Sequence[int]) -> Sequence[Frame]:
        return self._code.frames(self._named, addresses)

    def _calls(self, events: Events) -> npt.NDArray[np.void]:
        kinds = self._kinds
        parts = []
        for kind in ("call", "trace"):
            found = kinds.of(events, kind)
            rows = np.zeros(len(found), CALL)
            for name, column in zip(("call", "address", "size", "stream", "pool"), kinds.columns(kind), strict=True):
                rows[name] = found[column]
            rows["time_ns"], rows["tid"], rows["trace"] = found["time_ns"], found["tid"], kind == "trace"
            parts.append(rows)
        return np.concatenate(parts)

    @staticmethod
    def _by_owner(rows: npt.NDArray[np.void], of: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.void]]]:
        for number in np.unique(of).tolist():
            yield number, joined([rows[of == number]])

    def _interval(self, length: int) -> Record:
        counts: Counter[str] = Counter()
        for layers in self._layers.values():
            for key, space in layers.spaces.items():
                if key.kind != MAPPED:
                    counts += space.counts
        since = counts - self._seen
        self._seen, self._told_ns = counts, self.source.now_ns
        return {
            "type": "gpumem_interval",
            **moment(self.source.now_ns, self.source.wall_offset_ns),
            "length_ns": length,
            **now(self._layers.values()),
            "requests": since["requests"],
            "growths": {name: since[name] for name in GROWTHS.values()},
            "ooms": since["ooms"],
        }

    def end(self) -> Iterator[Record]:
        self._code.close()
        rows, of = np.concatenate(self._rows), np.concatenate(self._of)
        found = [self._result(number, own) for number, own in self._by_owner(rows, of)]
        found = found or [self._result(0, np.zeros(0, CALL))]
        found.sort(key=lambda each: self._weight(each.result))
        for each in found:
            each.result["processes"] = len(found)
        self._drawings, self.results = found, [each.result for each in found]
        yield from self.results

    @staticmethod
    def _weight(result: Record) -> tuple[int, int, int]:
        failures = sum(each["ooms"] + each["growths"]["merge_failure"] for each in result["spaces"])
        return (-failures, -result["peak_reserved"], result["pid"])

    def _exe(self, number: int) -> str:
        """What a program is called, or else the one that it was forked in; "?" if that is unknown."""
        while number >= 0:
            if number in self._exes:
                return self._exes[number]
            number = self._owners.programs[number].parent
        return "?"

    def _result(self, number: int, rows: npt.NDArray[np.void]) -> Drawing:
        """The record of one process, and what it was made of."""
        source, layers = self.source, Layers()
        layers.feed(rows)
        courses = layers.courses()
        spaces = [summary.space(key, course, layers, rows) for key, course in sorted(courses.items())]
        live, reserved = summary.peaks(course for key, course in courses.items() if key.kind != MAPPED)
        pid, exe = self._owners.programs[number].pid, self._exe(number)
        result = {
            "type": self.name,
            **moment(source.now_ns, source.wall_offset_ns),
            "target": source.name,
            "pid": pid,
            "exe": exe,
            "watched_ns": source.now_ns - source.begin_ns,
            "lost": source.lost,
            "libraries": self.libraries,
            "others": self._others,
            "running": self._running,
            "calls": {
                name: {"count": layers.calls[name, False] + layers.calls[name, True], "failed": layers.calls[name, True]}
                for name in calls.OPS
                if layers.calls[name, False] + layers.calls[name, True]
            },
            "nested": layers.nested,
            "traced": int(rows["trace"].sum()),
            "peak_live": live,
            "peak_reserved": reserved,
            "spaces": spaces,
            "failed": [self._failure(each) for each in summary.failures(courses, rows)],
            "advice": summary.advice(spaces),
            "device_free": layers.mem_info[1] if layers.mem_info else None,
        }
        return Drawing(result, courses, rows, source.begin_ns, source.now_ns, self.bin_ns)

    def drawing(self) -> Sequence[Drawing]:
        return self._drawings

    def _failure(self, each: summary.Failure) -> Record:
        key = each.key
        return {
            "kind": key.kind,
            "device": None if key.device < 0 else key.device,
            "handle": key.handle,
            "why": each.why,
            "size": each.size,
            "count": each.times,
            "tid": each.tid,
            "stack": self._names.get(each.stack, []),
        }


VIEW = GpuMemory

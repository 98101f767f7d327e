"""From the events of the probe `tree` to every process that one starts: what each executed, and the files it named."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gotrace.analysis.columns import Array, Kinds

OPENED, RENAMED, REMOVED = range(3)  # what a call does to a file
_CHUNK, _MOST_CHUNKS = 32, 64  # of ebpf/tree.bpf.c
_TOOL = re.compile(r"/pkg/tool/\w+/([\w.-]+)$")
ENTRY = re.compile(r"/([0-9a-f]{2})/\1[0-9a-f]{62}-[ad](?:/|$)")  # of the build cache; a program is in a folder of its own
WORK = re.compile(r"(/[^=:]*/(?:go-build\d+/b\d+|go-link-\d+))(?:/|$)")


@dataclass
class Text:
    length: int
    chunks: dict[int, bytes] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.chunks) >= min(-(-self.length // _CHUNK), _MOST_CHUNKS)

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks[part] for part in sorted(self.chunks))[: self.length]


@dataclass(eq=False)
class Execution:
    """A program that a process executed, until it ended or executed another; CLOCK_MONOTONIC, and the time of all threads.

    ``status`` is as wait(2) reports it; None where it has not ended, or executed another.
    """

    pid: int
    parent: Execution | None
    begin_ns: int
    cpu_ns: int
    runnable_ns: int
    text: Text
    end_ns: int | None = None
    status: int | None = None

    @property
    def arguments(self) -> list[str]:
        return [each.decode("utf-8", "replace") for each in self.text.data.rstrip(b"\0").split(b"\0")]

    @property
    def name(self) -> str:
        return os.path.basename(self.arguments[0])

    def option(self, name: str) -> str:
        """What follows ``name`` among its arguments, or ""."""
        given = self.arguments
        return given[given.index(name) + 1] if name in given[:-1] else ""

    @property
    def tool(self) -> str:
        """Which of Go's tools it is ("compile"), or ""."""
        found = _TOOL.search(self.arguments[0])
        return found[1] if found else ""

    @property
    def listed(self) -> str:
        """The file that lists the packages it was given, or ""."""
        if not self.tool:
            return ""
        last = self.arguments[-1]
        return self.option("-importcfg") or (last if last.endswith("/vet.cfg") else "")

    @property
    def work(self) -> str:
        """The folder below $WORK that it works in: the first that its arguments name, or ""."""
        where = self.option("-o") or self.option("-objdir")
        found = next(filter(None, map(WORK.search, [where, *self.arguments[1:], self.arguments[0]])), None)
        return found[1] if found else ""


@dataclass
class File:
    call: int
    flags: int
    result: int
    begin_ns: int
    end_ns: int
    text: Text


@dataclass
class Tree:
    """One run of the command: the process that was started, and all below it."""

    pid: int
    begin_ns: int
    end_ns: int | None = None
    status: int | None = None
    executions: list[Execution] = field(default_factory=list)
    files: list[File] = field(default_factory=list)


class Decoder:
    """Collects the events of a session. `feed` them as they come; then `builds`."""

    def __init__(self, kinds: Kinds, starter: int) -> None:
        self._kinds, self._starter = kinds, starter
        self.trees: list[Tree] = []
        self._tree: dict[int, Tree] = {}
        self._now: dict[int, Execution | None] = {}  # what each process executes
        self._texts: dict[tuple[int, int], Text] = {}  # by who reported it, and when
        self._unlisted: list[Execution] = []  # whose list of packages, if any, was not asked for yet

    def feed(self, events: Array) -> None:
        mine = events[self._kinds.ours(events)]
        for name, time_ns, tid, _, of in self._kinds.each(mine):
            getattr(self, f"_on_{name}")(time_ns, tid, of)

    def ended(self, pid: int) -> bool:
        """Whether the end of what was started as ``pid`` last was seen."""
        return any(tree.pid == pid and tree.end_ns is not None for tree in self.trees[-1:])

    def _on_forked(self, time_ns: int, _: int, of: dict[str, int]) -> None:
        pid, parent = of["process"], of["parent"]
        if parent == self._starter:
            self.trees.append(Tree(pid, time_ns))
            self._tree[pid] = self.trees[-1]
        elif parent in self._tree:
            self._tree[pid] = self._tree[parent]
        self._now[pid] = self._now.get(parent)

    def _on_executed(self, time_ns: int, tid: int, of: dict[str, int]) -> None:
        pid = of["process"]
        text = self._texts[tid, time_ns] = Text(of["length"])
        if pid not in self._tree:
            return
        before = self._now.get(pid)
        if before is not None and before.pid == pid:
            self._end(before, time_ns, of)
            before = before.parent
        execution = Execution(pid, before, time_ns, of["cpu_ns"], of["runnable_ns"], text)
        self._now[pid] = execution
        self._tree[pid].executions.append(execution)
        self._unlisted.append(execution)

    def _end(self, execution: Execution, time_ns: int, of: dict[str, int]) -> None:
        execution.end_ns = time_ns
        execution.cpu_ns = of["cpu_ns"] - execution.cpu_ns
        execution.runnable_ns = of["runnable_ns"] - execution.runnable_ns

    def _on_exited(self, time_ns: int, _: int, of: dict[str, int]) -> None:
        pid = of["process"]
        execution, tree = self._now.pop(pid, None), self._tree.pop(pid, None)
        if execution is not None and execution.pid == pid:
            self._end(execution, time_ns, of)
            execution.status = of["status"]
        if tree is not None and tree.pid == pid:
            tree.end_ns, tree.status = time_ns, of["status"]

    def _on_file(self, time_ns: int, tid: int, of: dict[str, int]) -> None:
        text = self._texts[tid, time_ns] = Text(of["length"])
        tree = self._tree.get(of["process"])
        if tree is not None:
            result = of["result"] - (1 << 64 if of["result"] >> 63 else 0)
            call = of["call"]
            tree.files.append(File(call & 0xFFFFFFFF, call >> 32, result, of["begin_ns"], time_ns, text))

    def _on_arguments(self, time_ns: int, tid: int, of: dict[str, int]) -> None:
        if (text := self._texts.get((tid, time_ns))) is not None:
            words = (of[f"text{number}"] for number in range(4))
            text.chunks[of["part"]] = b"".join(word.to_bytes(8, "little") for word in words)

    _on_path = _on_arguments

    def to_read(self) -> Iterator[str]:
        """The lists of packages that were given to compilers and linkers since the last call: to be read at once."""
        whole = [each for each in self._unlisted if each.text.complete]
        self._unlisted = [each for each in self._unlisted if not each.text.complete]
        yield from filter(None, (each.listed for each in whole))

"""From the events of the probe `tree` to builds: what a go command had done, for which package, and what was cached.

What a process does its arguments say (``compile -p net/http``). Which packages came from the cache say the lists that the
go command writes for its compiler and linker (importcfg): a package's file lies in ``$WORK`` if it was just built, or in
GOCACHE. A module's download is from when its ``.zip`` is begun until it has its name, unzipping from when the mark
``.partial`` is made until it is removed (cmd/go/internal/modfetch/fetch.go).
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gotrace.analysis.columns import Array, Kinds
from gotrace.analysis.timeline import UNDER_WAY, Row, Start

DOWNLOAD, UNZIP, COMPILE, ASSEMBLE, CGO, C_TOOLS = "download", "unzip", "compile", "assemble", "cgo", "C toolchain"
LINK, VET, TOOL_ID, RUN, OTHER, GO = "link", "vet", "tool versions", "run", "other programs", "go command alone"
UNKNOWN = "unknown"
# In the order of a build.
STAGES = (DOWNLOAD, UNZIP, TOOL_ID, CGO, COMPILE, ASSEMBLE, C_TOOLS, VET, LINK, RUN, OTHER, GO)

COMPILING = (CGO, COMPILE, ASSEMBLE, C_TOOLS)

_TOOLS = {"compile": COMPILE, "asm": ASSEMBLE, "cgo": CGO, "link": LINK, "vet": VET}
_TOOL = re.compile(r"/pkg/tool/\w+/([\w.-]+)$")
_WORK = re.compile(r"(/[^=:]*/(?:go-build\d+/b\d+|go-link-\d+))(?:/|$)")
_PROGRAM = re.compile(r"/go-build\d+/b\d+/(?:exe/([^/]+)|([^/]+\.test))$")  # of go run and go test
_ENTRY = re.compile(r"/([0-9a-f]{2})/\1[0-9a-f]{62}-([ad])$")
_MODULE = re.compile(r"/cache/download/(.+)/@v/(.+?)\.(zip\d*\.tmp|zip|partial|mod)$")
_OPENED, _RENAMED, _REMOVED = range(3)
_O_ACCESS, _O_CREAT, _ENOENT = 3, 0o100, -2
_CHUNK, _MOST_CHUNKS = 32, 64  # of ebpf/tree.bpf.c


@dataclass
class _Text:
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
    text: _Text
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
    def listed(self) -> str:
        """The file that lists the packages it was given, or ""."""
        if not _TOOL.search(self.arguments[0]):
            return ""
        last = self.arguments[-1]
        return self.option("-importcfg") or (last if last.endswith("/vet.cfg") else "")

    @property
    def work(self) -> str:
        """The folder below $WORK that it works in: the first that its arguments name, or ""."""
        where = self.option("-o") or self.option("-objdir")
        found = next(filter(None, map(_WORK.search, [where, *self.arguments[1:]])), None)
        return found[1] if found else ""


@dataclass
class _File:
    call: int
    flags: int
    result: int
    begin_ns: int
    end_ns: int
    text: _Text


@dataclass
class _Tree:
    """One run of the command: the process that was started, and all below it."""

    pid: int
    begin_ns: int
    end_ns: int | None = None
    status: int | None = None
    executions: list[Execution] = field(default_factory=list)
    files: list[_File] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """What was done for a package, a module or a program, from ``begin_ns`` to ``end_ns`` since the build's begin.

    ``cpu_ns`` and ``runnable_ns`` are those of all threads of its processes together; None for what the go command does in
    itself. ``status`` is that of its exit, None where it had not ended or is no process.
    """

    stage: str
    name: str
    begin_ns: int
    end_ns: int
    cpu_ns: int | None = None
    runnable_ns: int | None = None
    status: int | None = None
    ended: bool = True
    work: str = ""


@dataclass(frozen=True)
class Item:
    """Steps of one stage, or of one package in it (``name``, or ""): nanoseconds.

    ``wall_ns`` is how long at least one of them ran, ``alone_ns`` of that how long nothing else of the build ran.
    """

    stage: str
    name: str
    begin_ns: int
    wall_ns: int
    alone_ns: int
    cpu_ns: int | None
    runnable_ns: int | None
    steps: int
    detail: str = ""


@dataclass(frozen=True)
class Build:
    """One run of a go command, or of another. ``exit_code`` is as a shell reports it; None: it had not ended.

    ``cached`` are the packages that came from the build cache, ``prebuilt`` those that came with the toolchain, as far as
    something built was given them; ``found``, ``not_found`` and ``stored`` are entries of the build cache. ``chain`` is the
    longest wait: what is last, of what that was given the one that was ready last, and so on; the first of it first.
    ``unread`` are lists of packages that could not be read.
    """

    pid: int
    begin_ns: int
    total_ns: int
    exit_code: int | None
    steps: tuple[Step, ...]
    items: tuple[Item, ...]
    compiled: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    prebuilt: tuple[str, ...] = ()
    found: int = 0
    not_found: int = 0
    stored: int = 0
    mod_files: int = 0
    chain: tuple[Step, ...] = ()
    unread: int = 0
    cut: int = 0

    def stage(self, name: str) -> Item | None:
        return next((item for item in self.items if item.stage == name and not item.name), None)

    def start(self) -> Start:
        """As a start, for comparisons and spreads: a stage's and a package's time is that in which something of it ran."""
        rows = [
            Row(item.stage, item.name, int(bool(item.name)), item.begin_ns, item.wall_ns, 0, 0, 0, 0, 0)
            for item in self.items
        ]
        ended = "its end" if self.exit_code is None else f"exit {self.exit_code}"
        return Start(self.pid, self.begin_ns, self.total_ns, ended, tuple(rows), exit_code=self.exit_code)


class Decoder:
    """Collects the events of a session. `feed` them as they come; then `builds`."""

    def __init__(self, kinds: Kinds, starter: int) -> None:
        self._kinds, self._starter = kinds, starter
        self.trees: list[_Tree] = []
        self._tree: dict[int, _Tree] = {}
        self._now: dict[int, Execution | None] = {}  # what each process executes
        self._texts: dict[tuple[int, int], _Text] = {}  # by who reported it, and when
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
            self.trees.append(_Tree(pid, time_ns))
            self._tree[pid] = self.trees[-1]
        elif parent in self._tree:
            self._tree[pid] = self._tree[parent]
        self._now[pid] = self._now.get(parent)

    def _on_executed(self, time_ns: int, tid: int, of: dict[str, int]) -> None:
        pid = of["process"]
        text = self._texts[tid, time_ns] = _Text(of["length"])
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
        text = self._texts[tid, time_ns] = _Text(of["length"])
        tree = self._tree.get(of["process"])
        if tree is not None:
            result = of["result"] - (1 << 64 if of["result"] >> 63 else 0)
            call = of["call"]
            tree.files.append(_File(call & 0xFFFFFFFF, call >> 32, result, of["begin_ns"], time_ns, text))

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

    def builds(self, lists: Mapping[str, str | None], now_ns: int) -> list[Build]:
        """Every run so far; ``lists`` has the texts of `to_read`'s files, None of those that could not be read."""
        return [_build(tree, lists, now_ns) for tree in self.trees if tree.executions]


def packages_in(text: str) -> dict[str, str]:
    """{import path: file} of an importcfg; of a vet.cfg only the package itself, in the folder that it is vetted in."""
    if text.startswith("{"):
        own = {name: re.search(rf'^\t"{name}": "([^"]*)"', text, re.MULTILINE) for name in ("ImportPath", "VetxOutput")}
        path, file = own["ImportPath"], own["VetxOutput"]
        return {path[1]: file[1]} if path is not None and file is not None else {}
    lines = (line.removeprefix("packagefile ") for line in text.splitlines() if line.startswith("packagefile "))
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _build(tree: _Tree, lists: Mapping[str, str | None], now_ns: int) -> Build:
    end_ns = tree.end_ns or now_ns
    given = {each.listed: each for each in tree.executions if each.text.complete}
    given.pop("", None)
    files = {path: packages_in(lists.get(path) or "") for path in given}
    names = {match[1]: name for each in files.values() for name, file in each.items() if (match := _WORK.search(file))}
    for each in tree.executions:
        if (name := each.option("-importpath") or each.option("-p")) and name != "main" and _TOOL.search(each.arguments[0]):
            names.setdefault(each.work, name)
    for path, each in given.items():  # of a link the last argument is the main package's file
        names.update((each.work, name) for name, file in files[path].items() if file == each.arguments[-1])
    names.pop("", None)
    holders = _holders(tree)
    steps = [
        *(_of_execution(each, holders, tree.begin_ns, end_ns, names) for each in tree.executions if each not in holders),
        *_of_modules(tree, end_ns),
    ]
    steps.sort(key=lambda step: step.begin_ns)
    compiled = {step.name for step in steps if step.stage == COMPILE and step.status == 0}
    tried = {step.name for step in steps if step.stage == COMPILE}
    cached = {name for each in files.values() for name, file in each.items() if _ENTRY.search(file)} - tried
    others = {name for each in files.values() for name, file in each.items() if not _WORK.search(file)}
    total = end_ns - tree.begin_ns
    items = _items(steps, total, holders)
    return Build(
        tree.pid,
        tree.begin_ns,
        total,
        _exit_code(tree.status),
        tuple(steps),
        tuple(items),
        tuple(sorted(compiled)),
        tuple(sorted(cached)),
        tuple(sorted(others - cached - tried)),
        **_entries(tree.files),
        chain=tuple(_chain(steps, given, files)),
        unread=sum(lists.get(path) is None for path in given),
        cut=sum(not each.text.complete for each in tree.executions),
    )


def _exit_code(status: int | None) -> int | None:
    if status is None:
        return None
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def _holders(tree: _Tree) -> list[Execution]:
    """Those that only start the others and wait: the command, and a go command below it with all between them."""
    found = [each for each in tree.executions if each.pid == tree.pid]
    for each in tree.executions:
        if _TOOL.search(each.arguments[0]):
            parent = each.parent
            while parent is not None and parent not in found and not _TOOL.search(parent.arguments[0]):
                found.append(parent)
                parent = parent.parent
    return found


def _of_execution(
    each: Execution, holders: list[Execution], begin_ns: int, until_ns: int, names: Mapping[str, str]
) -> Step:
    stage, name = _meaning(each, holders)
    whose: Execution | None = each
    while whose is not None and whose.work not in names:
        whose = whose.parent
    work = whose.work if whose is not None else each.work
    if stage not in (TOOL_ID, OTHER, RUN):
        name = names.get(work, name or UNKNOWN)
    ended = each.end_ns is not None
    cpu, runnable = (each.cpu_ns, each.runnable_ns) if ended else (None, None)
    end = (each.end_ns or until_ns) - begin_ns
    status = _exit_code(each.status)
    return Step(stage, name, each.begin_ns - begin_ns, end, cpu, runnable, status, ended, work)


def _meaning(each: Execution, holders: list[Execution]) -> tuple[str, str]:
    """(stage, name) of what a process does; the name is "" where only its folder tells the package."""
    tool = _TOOL.search(each.arguments[0])
    if tool is not None:
        if any(given.startswith("-V=") or given == "-flags" for given in each.arguments[1:]):
            return TOOL_ID, tool[1]
        stage = _TOOLS.get(tool[1])
        return (stage, each.option("-p") or each.option("-importpath")) if stage else (OTHER, tool[1])
    if _WORK.search(each.arguments[0]):
        return RUN, each.name
    if each.parent is not None and each.parent not in holders:
        inner = _meaning(each.parent, holders)
        if inner[0] in (CGO, LINK):
            return C_TOOLS, ""
        if inner[0] != OTHER:
            return inner
    handed = next(filter(None, map(_PROGRAM.search, each.arguments)), None)  # to another program, by -exec
    if handed is not None and handed.string != each.option("-o"):
        return RUN, handed[1] or handed[2]
    return (C_TOOLS, "") if each.work else (OTHER, each.name)


def _of_modules(tree: _Tree, until_ns: int) -> Iterator[Step]:
    begun: dict[tuple[str, str], int] = {}
    for file in sorted(tree.files, key=lambda each: each.end_ns):
        match = _MODULE.search(file.text.data.decode("utf-8", "replace"))
        if match is None or file.result < 0:
            continue
        name = re.sub("!(.)", lambda found: found[1].upper(), f"{match[1]}@{match[2]}")
        ending = match[3]
        if file.call == _OPENED and file.flags & _O_CREAT and ending not in ("zip", "mod"):
            begun.setdefault((UNZIP if ending == "partial" else DOWNLOAD, name), file.begin_ns)
        done = {(_RENAMED, "zip"): DOWNLOAD, (_REMOVED, "partial"): UNZIP}.get((file.call, ending))
        if done is not None and (done, name) in begun:
            yield Step(done, name, begun.pop((done, name)) - tree.begin_ns, file.end_ns - tree.begin_ns)
    for (stage, name), begin_ns in begun.items():
        yield Step(stage, name, begin_ns - tree.begin_ns, until_ns - tree.begin_ns, ended=False)


def _entries(files: Sequence[_File]) -> dict[str, int]:
    """How many entries of the build cache were found, not found and stored; how many go.mod files were fetched."""
    seen: dict[str, set[str]] = {"found": set(), "not_found": set(), "stored": set(), "mod_files": set()}
    for file in files:
        path = file.text.data.decode("utf-8", "replace")
        entry, module = _ENTRY.search(path), _MODULE.search(path)
        if entry is not None and entry[2] == "a" and file.call == _OPENED:
            if file.flags & _O_CREAT and file.result >= 0:
                seen["stored"].add(path)
            elif not file.flags & _O_ACCESS and file.result >= 0 and path not in seen["stored"]:
                seen["found"].add(path)
            elif file.result == _ENOENT:
                seen["not_found"].add(path)
        elif module is not None and module[3] == "mod" and file.call == _RENAMED and file.result >= 0:
            seen["mod_files"].add(path)
    return {name: len(paths) for name, paths in seen.items()}


Span = tuple[int, int]


def union(spans: Iterable[Span]) -> list[Span]:
    """Where at least one of ``spans`` is: disjoint, in order."""
    found: list[Span] = []
    for begin, end in sorted(span for span in spans if span[0] < span[1]):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def length(spans: Iterable[Span]) -> int:
    return sum(end - begin for begin, end in spans)


def alone(spans: Mapping[str, Sequence[Span]]) -> dict[str, int]:
    """How long each of several, by name, ran while no other did."""
    changes = sorted(
        (at, step, name)
        for name, each in spans.items()
        for begin, end in union(each)
        for at, step in ((begin, 1), (end, -1))
    )
    found = dict.fromkeys(spans, 0)
    running: set[str] = set()
    before = 0
    for at, step, name in changes:
        if len(running) == 1:
            found[next(iter(running))] += at - before
        (running.add if step > 0 else running.discard)(name)
        before = at
    return found


def _items(steps: Sequence[Step], total: int, holders: Sequence[Execution]) -> list[Item]:
    of_stage: dict[str, list[Step]] = {}
    for step in steps:
        of_stage.setdefault(step.stage, []).append(step)
    # A compiler that waits for the assembler it started is no other than that: what counts is for whom.
    by_name = alone(_spans(steps, lambda step: f"{step.name}\0{'' if step.stage in (CGO, C_TOOLS) else step.stage}"))
    by_stage = alone(_spans(steps, lambda step: C_TOOLS if step.stage == CGO else step.stage))
    found = []
    for stage in STAGES:
        mine = of_stage.get(stage, [])
        if not mine:
            continue
        found.append(_item(stage, "", mine, by_stage.get(stage, 0)))
        of_name: dict[str, list[Step]] = {}
        for step in mine:
            of_name.setdefault(step.name, []).append(step)
        for name, those in of_name.items():
            key = f"{name}\0{'' if stage in (CGO, C_TOOLS) else stage}"
            found.append(_item(stage, name, those, by_name[key]))
    busy = union((step.begin_ns, step.end_ns) for step in steps)
    idle = total - length(busy)
    ended = [each for each in holders if each.end_ns is not None]
    known = len(ended) == len(holders)
    cpu, runnable = (sum(getattr(each, name) for each in ended) if known else None for name in ("cpu_ns", "runnable_ns"))
    found.append(Item(GO, "", 0, idle, idle, cpu, runnable, len(holders)))
    return found


def _spans(steps: Sequence[Step], key: Callable[[Step], str]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for step in steps:
        found.setdefault(key(step), []).append((step.begin_ns, step.end_ns))
    return found


def _item(stage: str, name: str, steps: Sequence[Step], alone_ns: int) -> Item:
    spans = union((step.begin_ns, step.end_ns) for step in steps)
    known = all(step.cpu_ns is not None for step in steps)
    cpu, runnable = (sum(getattr(step, each) for step in steps) if known else None for each in ("cpu_ns", "runnable_ns"))
    failed = [f"exit {step.status}" for step in steps if step.status]
    detail = failed[:1] + [UNDER_WAY] * any(not step.ended for step in steps)
    wall = length(spans)
    begin = min(step.begin_ns for step in steps)
    return Item(stage, name, begin, wall, min(alone_ns, wall), cpu, runnable, len(steps), ", ".join(detail))


def packages(build: Build, stages: Sequence[str] = (*COMPILING, VET)) -> list[Step]:
    """What each package took in ``stages``, as one step each; the longest first."""
    of: dict[str, list[Step]] = {}
    for step in build.steps:
        if step.stage in stages:
            of.setdefault(step.name, []).append(step)
    found = []
    for steps in of.values():
        wall = length(union((step.begin_ns, step.end_ns) for step in steps))
        known = all(step.cpu_ns is not None for step in steps)
        cpu = sum(step.cpu_ns or 0 for step in steps) if known else None
        found.append(replace(steps[0], end_ns=steps[0].begin_ns + wall, cpu_ns=cpu))
    return sorted(found, key=lambda step: step.begin_ns - step.end_ns)


def _chain(steps: Sequence[Step], given: Mapping[str, Execution], files: Mapping[str, Mapping[str, str]]) -> Iterator[Step]:
    """Backwards from the last that was linked or compiled: of what it was given, what was ready last."""
    of_work: dict[str, list[Step]] = {}
    for step in steps:
        if step.stage in COMPILING:
            of_work.setdefault(step.work, []).append(step)
    units = {
        work: replace(those[-1], begin_ns=those[0].begin_ns, end_ns=max(step.end_ns for step in those), stage=COMPILE)
        for work, those in of_work.items()
        if work
    }
    needs: dict[tuple[str, bool], set[str]] = {}
    for path, each in given.items():
        works = {match[1] for file in files[path].values() if (match := _WORK.search(file))}
        needs.setdefault((each.work, path.endswith(".link")), set()).update(works)
    last = max((step for step in steps if step.stage in (LINK, COMPILE)), key=lambda step: step.end_ns, default=None)
    found: list[Step] = []
    while last is not None:
        found.append(last)
        before = [units[work] for work in needs.get((last.work, last.stage == LINK), ()) if work in units]
        # what overlaps was not waited for
        before = [unit for unit in before if unit.begin_ns < last.begin_ns >= unit.end_ns - 1_000_000]
        last = max(before, key=lambda unit: unit.end_ns, default=None)
    return reversed(found)

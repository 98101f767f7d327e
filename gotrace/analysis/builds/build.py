"""A build as a whole: its stages and packages with what they took, what came from caches, what its end waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gotrace.analysis.builds.caches import Packages, entries, modules, packages_in
from gotrace.analysis.builds.chain import chain
from gotrace.analysis.builds.overlaps import Span, alone, length
from gotrace.analysis.builds.processes import ENTRY, WORK, Execution, Tree
from gotrace.analysis.builds.steps import (
    C_TOOLS,
    CGO,
    COMPILE,
    COMPILING,
    GO,
    STAGES,
    VET,
    Step,
    exit_code,
    holders_of,
    step_of,
)
from gotrace.analysis.timeline import UNDER_WAY, Row, Start


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
    something built was given them; ``found``, ``not_found`` and ``stored`` are when entries of the build cache were,
    ``mod_files`` when go.mod files were fetched: nanoseconds since its begin. ``chain`` is the
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
    found: tuple[int, ...] = ()
    not_found: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()
    mod_files: tuple[int, ...] = ()
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


def builds(trees: Iterable[Tree], lists: Mapping[str, str | None], now_ns: int) -> list[Build]:
    """Of each run; ``lists`` has the texts of the files that `Decoder.to_read` names, None of those that were not read."""
    return [_build(tree, lists, now_ns) for tree in trees if tree.executions]


def _build(tree: Tree, lists: Mapping[str, str | None], now_ns: int) -> Build:
    end_ns = tree.end_ns or now_ns
    given = {each.listed: each for each in tree.executions if each.text.complete}
    given.pop("", None)
    files = {path: packages_in(lists.get(path) or "") for path in given}
    names = _names(tree, given, files)
    holders = holders_of(tree)
    steps = [
        *(step_of(each, holders, tree.begin_ns, end_ns, names) for each in tree.executions if each not in holders),
        *modules(tree, end_ns),
    ]
    steps.sort(key=lambda step: step.begin_ns)
    tried = {step.name for step in steps if step.stage == COMPILE}
    others = {name: file for each in files.values() for name, file in each if not WORK.search(file)}
    cached = {name for name, file in others.items() if ENTRY.search(file)} - tried
    total = end_ns - tree.begin_ns
    return Build(
        tree.pid,
        tree.begin_ns,
        total,
        exit_code(tree.status),
        tuple(steps),
        tuple(_items(steps, total, holders)),
        tuple(sorted({step.name for step in steps if step.stage == COMPILE and step.status == 0})),
        tuple(sorted(cached)),
        tuple(sorted(others.keys() - cached - tried)),
        **entries(tree),
        chain=tuple(chain(steps, given, files)),
        unread=sum(lists.get(path) is None for path in given),
        cut=sum(not each.text.complete for each in tree.executions),
    )


def _names(tree: Tree, given: Mapping[str, Execution], files: Mapping[str, Packages]) -> dict[str, str]:
    """Which package is built in which folder below $WORK."""
    names = {match[1]: name for each in files.values() for name, file in each if (match := WORK.search(file))}
    for each in tree.executions:
        if each.tool and (name := each.option("-importpath") or each.option("-p")) and name != "main":
            names.setdefault(each.work, name)
    for path, each in given.items():  # of a link the last argument is the main package's file
        names.update((each.work, name) for name, file in files[path] if file == each.arguments[-1])
    names.pop("", None)
    return names


def _items(steps: Sequence[Step], total: int, holders: Sequence[Execution]) -> list[Item]:
    by_stage = _alone(steps, lambda step: step.stage)
    # cgo waits for the compilers that it starts: what is alone then are they
    with_cgo = _alone(steps, lambda step: C_TOOLS if step.stage == CGO else step.stage)
    by_stage[C_TOOLS] = with_cgo.get(C_TOOLS, 0) - by_stage.get(CGO, 0)
    by_name = _alone(steps, _for_whom)
    found = []
    for stage, mine in sorted(_grouped(steps, lambda step: step.stage).items(), key=lambda each: STAGES.index(each[0])):
        found.append(_item(stage, "", mine, by_stage[stage]))
        for name, those in _grouped(mine, lambda step: step.name).items():
            found.append(_item(stage, name, those, by_name[_for_whom(those[0])]))
    idle = total - length(_spans(steps))
    known = all(each.end_ns is not None for each in holders)
    cpu, runnable = (sum(getattr(each, name) for each in holders) if known else None for name in ("cpu_ns", "runnable_ns"))
    return [*found, Item(GO, "", 0, idle, idle, cpu, runnable, len(holders))]


def _for_whom(step: Step) -> str:
    return f"{step.name}\0{'' if step.stage in (CGO, C_TOOLS) else step.stage}"


def _grouped(steps: Iterable[Step], key: Callable[[Step], str]) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(key(step), []).append(step)
    return found


def _spans(steps: Iterable[Step]) -> list[Span]:
    return [(step.begin_ns, step.end_ns) for step in steps]


def _alone(steps: Sequence[Step], key: Callable[[Step], str]) -> dict[str, int]:
    return alone({name: _spans(those) for name, those in _grouped(steps, key).items()})


def _item(stage: str, name: str, steps: Sequence[Step], alone_ns: int) -> Item:
    wall = length(_spans(steps))
    known = all(step.cpu_ns is not None for step in steps)
    cpu, runnable = (sum(getattr(step, each) for step in steps) if known else None for each in ("cpu_ns", "runnable_ns"))
    failed = [f"exit {step.status}" for step in steps if step.status]
    detail = failed[:1] + [UNDER_WAY] * any(not step.ended for step in steps)
    begin = min(step.begin_ns for step in steps)
    return Item(stage, name, begin, wall, min(alone_ns, wall), cpu, runnable, len(steps), ", ".join(detail))


def packages(build: Build, stages: Sequence[str] = (*COMPILING, VET)) -> list[Step]:
    """What each package took in ``stages``, as one step each; the longest first."""
    mine = [step for step in build.steps if step.stage in stages]
    found = []
    for steps in _grouped(mine, lambda step: step.name).values():
        known = all(step.cpu_ns is not None for step in steps)
        cpu = sum(step.cpu_ns or 0 for step in steps) if known else None
        found.append(replace(steps[0], end_ns=steps[0].begin_ns + length(_spans(steps)), cpu_ns=cpu))
    return sorted(found, key=lambda step: step.begin_ns - step.end_ns)

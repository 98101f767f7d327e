"""A pipeline, as people write it: ``gotrace.pipeline/1``. Steps, each of one kind, and what each needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from gotrace.errors import UsageError
from gotrace.lab import yaml_file
from gotrace.lab.plan_file import PlanBody
from gotrace.text import printable

SCHEMA = "gotrace.pipeline/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Build(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`go build` of a package, for each architecture; ``{arch}`` in ``out`` and ``{out}`` in ``smoke`` stand for theirs.

    ``smoke`` is a command by architecture that has to end well with what was built, in an emulated machine if need be.
    """

    package: str
    out: str
    flags: list[str] = []
    arch: list[Literal["amd64", "arm64"]] = []
    dir: str = "."
    env: dict[str, str] = {}
    smoke: dict[str, list[str]] = {}


class Compare(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Reports against each other: names of steps that are needed, or folders."""

    reports: list[str]
    margin: str = "5%"
    all: bool = False


class Gate(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A report judged, against another one or by itself, by ``margin`` and ``require`` or the rules in a ``file``."""

    report: str
    against: str = ""
    judge: str = ""
    file: str = ""
    margin: str = ""
    require: list[str] = []
    inconclusive: Literal["pass", "fail", ""] = ""


class Reproduce(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The plan of a report again."""

    report: str
    margin: str = "3%"


class Topo(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The topology of a machine from the files that it ``read``s, or with ``nodes`` of one in each."""

    read: list[str]
    nodes: bool = False
    max_crossings: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None


class Followed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A command that is followed, to its end or for a ``duration``."""

    command: list[str]
    duration: str = ""


class GpuMem(Followed, forbid_unknown_fields=True, kw_only=True):
    """A command whose GPU memory is followed."""

    bin: str = "10ms"


class DataPath(Followed, forbid_unknown_fields=True, kw_only=True):
    """A command whose calls on files are followed; rows are data sets where there are patterns of some."""

    by: Literal["call", "file", "dir", "mount", "fs"] = "call"
    dataset: list[str] = []
    epoch: str = ""


class Step(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A step: its name, what it needs, and of its kinds exactly one.

    ``files`` are read by it, beside those that its kind is known to read; ``makes`` are what a ``shell`` step writes.
    """

    name: str
    needs: list[str] = []
    files: list[str] = []
    makes: list[str] = []
    build: Build | None = None
    baseline: PlanBody | None = None
    compare: Compare | None = None
    gate: Gate | None = None
    reproduce: Reproduce | None = None
    topo: Topo | None = None
    gpumem: GpuMem | None = None
    datapath: DataPath | None = None
    shell: str | None = None

    @property
    def kind(self) -> str:
        """The one that it is of."""
        return next(kind for kind in kinds() if getattr(self, kind) is not None)


class Pipeline(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Steps; the folder ``out`` gets what they write."""

    schema: Literal["gotrace.pipeline/1"]
    steps: list[Step]
    out: str = "out"


def kinds() -> tuple[str, ...]:
    """Of steps, as they are written."""
    return tuple(each.name for each in msgspec.structs.fields(Step) if each.name not in ("name", "needs", "files", "makes"))


def read(path: str) -> Pipeline:
    """A pipeline whose steps are in an order in which each comes after what it needs. Raises UsageError."""
    found = yaml_file.read(path, Pipeline, SCHEMA)
    if not found.steps:
        raise UsageError(f"{printable(path)} has no steps", "steps: [{name: measure, baseline: {…}}]")
    seen = set()
    for step in found.steps:
        name = printable(step.name)
        if not _NAME.fullmatch(step.name):
            raise UsageError(f"{name!r} is not a valid step name", "use letters, digits, - and _: at most 64")
        if step.name in seen:
            raise UsageError(f"two steps have the name {name}", "give each its own name")
        seen.add(step.name)
        kind = [each for each in kinds() if getattr(step, each) is not None]
        if len(kind) != 1:
            what = f"has {len(kind)} kinds: {', '.join(kind)}" if kind else "is of no kind"
            raise UsageError(f"the step {name} {what}", f"give it one of {', '.join(kinds())}")
        if step.makes and step.shell is None:
            raise UsageError(f"the step {name} has `makes`, which only shell steps may have", "leave it out")
    for step in found.steps:
        for need in step.needs:
            if need not in seen:
                raise UsageError(
                    f"the step {printable(step.name)} needs {printable(need)!r}, which is not a step",
                    f"there are {', '.join(sorted(seen))}",
                )
    found.steps = _in_order(found.steps)
    return found


def _in_order(steps: Sequence[Step]) -> list[Step]:
    """Each after what it needs, else as they are written. Raises UsageError for a circle."""
    done: list[Step] = []
    left = list(steps)
    while left:
        names = {each.name for each in done}
        free = next((each for each in left if names.issuperset(each.needs)), None)
        if free is None:
            raise UsageError(
                f"steps depend on each other in a cycle: {_circle(left)}", "a step runs after the steps that it needs"
            )
        done.append(free)
        left.remove(free)
    return done


def _circle(steps: Sequence[Step]) -> str:
    """One of those that there are among steps each of which needs another of them."""
    needs = {each.name: [need for need in each.needs if need in {other.name for other in steps}] for each in steps}
    path = [steps[0].name]
    while path.count(path[-1]) < 2:
        path.append(needs[path[-1]][0])
    return " needs ".join(path[path.index(path[-1]) :])


def needed(steps: Sequence[Step], name: str) -> set[str]:
    """Every step that comes before one, however far."""
    by_name: dict[str, Any] = {each.name: each for each in steps}
    found: set[str] = set()
    left = list(by_name[name].needs)
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += by_name[each].needs
    return found

"""What each process of a build was for, by its arguments (``compile -p net/http``) and the folder that it worked in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gotrace.analysis.builds.processes import ENTRY, WORK, Execution, Tree

DOWNLOAD, UNZIP, COMPILE, ASSEMBLE, CGO, C_TOOLS = "download", "unzip", "compile", "assemble", "cgo", "C toolchain"
LINK, VET, TOOL_ID, RUN, OTHER, GO = "link", "vet", "tool versions", "run", "other programs", "go command alone"
UNKNOWN = "unknown"
# In the order of a build.
STAGES = (DOWNLOAD, UNZIP, TOOL_ID, CGO, COMPILE, ASSEMBLE, C_TOOLS, VET, LINK, RUN, OTHER, GO)
COMPILING = (CGO, COMPILE, ASSEMBLE, C_TOOLS)
_PROGRAM = re.compile(r"/go-build\d+/b\d+/(?:exe/([^/]+)|([^/]+\.test))$")  # of go run and go test
_TOOLS = {"compile": COMPILE, "asm": ASSEMBLE, "cgo": CGO, "link": LINK, "vet": VET}


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


def exit_code(status: int | None) -> int | None:
    """Of what wait(2) reports, as a shell does."""
    if status is None:
        return None
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def holders_of(tree: Tree) -> list[Execution]:
    """Those that only start the others and wait: the command, and a go command below it with all between them."""
    found = [each for each in tree.executions if each.pid == tree.pid]
    for each in tree.executions:
        parent = each.parent if each.tool else None
        while parent is not None and parent not in found and not parent.tool:
            found.append(parent)
            parent = parent.parent
    return found


def step_of(each: Execution, holders: Sequence[Execution], begin_ns: int, until_ns: int, names: Mapping[str, str]) -> Step:
    """``names`` are those of packages, by the folders that they are built in."""
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
    return Step(stage, name, each.begin_ns - begin_ns, end, cpu, runnable, exit_code(each.status), ended, work)


def _meaning(each: Execution, holders: Sequence[Execution]) -> tuple[str, str]:
    """(stage, name) of what a process does; the name is "" where only its folder tells the package."""
    if tool := each.tool:
        if any(given.startswith("-V=") or given == "-flags" for given in each.arguments[1:]):
            return TOOL_ID, tool
        stage = _TOOLS.get(tool)
        return (stage, each.option("-p") or each.option("-importpath")) if stage else (OTHER, tool)
    # from Go 1.24 on the cache has programs too
    if WORK.search(each.arguments[0]) or ENTRY.search(each.arguments[0]):
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

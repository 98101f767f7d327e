"""Builds as JSON objects: one per run of the command, and one for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

from gotrace.analysis.builds.build import Build, packages
from gotrace.analysis.builds.steps import Step
from gotrace.analysis.start_summary import summary
from gotrace.records.gc import Cost
from gotrace.records.starts import medians
from gotrace.records.times import Moment, moment

Record = dict[str, Any]


class BuildStep(TypedDict):
    """Work on a package, a module or a program; nanoseconds since the command was forked."""

    stage: Annotated[
        str, "download, unzip, compile, assemble, cgo, C toolchain, link, vet, tool versions, run, other programs"
    ]
    name: Annotated[str, "the package, module or program; unknown: there is no evidence"]
    begin_ns: int
    duration_ns: int
    cpu_ns: Annotated[
        int | None, "of all threads; null: unknown, because the go command does it itself, or it had not ended"
    ]
    runnable_ns: Annotated[int | None, "time threads waited for a CPU, summed; null like cpu_ns"]
    exit_code: Annotated[int | None, "null: it had not ended, or is not a process"]
    ended: bool


class BuildItem(TypedDict):
    """All steps of a stage, or of one name in it."""

    stage: str
    name: Annotated[str, "empty: the whole stage"]
    begin_ns: int
    wall_ns: Annotated[int, "how long at least one of its steps ran"]
    alone_ns: Annotated[int, "how much of that time nothing else in the build ran"]
    cpu_ns: int | None
    runnable_ns: int | None
    steps: int


class BuildPackage(TypedDict):
    """What a package took in all stages except link and run."""

    name: str
    wall_ns: int
    cpu_ns: int | None


class GoBuild(Moment):
    """One run of a go command, or of any command with --tree; the time is that of its fork."""

    type: Literal["build"]
    number: Annotated[int, "in chronological order, from 0"]
    pid: int
    total_ns: Annotated[int, "from its fork to its exit"]
    exit_code: Annotated[int | None, "as a shell reports it; null: it had not ended"]
    items: list[BuildItem]
    steps: list[BuildStep]
    packages: Annotated[list[BuildPackage], "most expensive first"]
    compiled: list[str]
    cached: Annotated[list[str], "packages from the build cache, used by something that was built"]
    prebuilt: Annotated[list[str], "packages that came with the toolchain"]
    cache_found: Annotated[int, "build cache entries that were found"]
    cache_not_found: int
    cache_stored: int
    mod_files: Annotated[int, "go.mod files fetched"]
    chain: Annotated[list[BuildStep], "the critical path: each step began when the one before it was ready"]
    unread: Annotated[int, "package lists that were gone before they could be read: cached may be incomplete"]
    cut: Annotated[int, "processes some of whose arguments were lost"]


class BuildPart(TypedDict):
    """A row over all runs that have it; low to high is the 95 % interval of the median."""

    stage: str
    name: str
    depth: int
    count: int
    median_ns: int
    median_low_ns: int
    median_high_ns: int


class BuildSummary(TypedDict):
    """All runs, and how tracing ended."""

    type: Literal["build_summary"]
    duration_ns: int
    ended: str
    received: int
    lost: int
    cost: Cost
    builds: int
    parts: list[BuildPart]


def build_record(build: Build, number: int, wall_offset_ns: int) -> Record:
    """One build; times are nanoseconds since its begin, but ``monotonic_ns`` (CLOCK_MONOTONIC) and ``time``."""
    return {
        "type": "build",
        "number": number,
        **moment(build.begin_ns, wall_offset_ns),
        "pid": build.pid,
        "total_ns": build.total_ns,
        "exit_code": build.exit_code,
        "items": [
            {name: value for name, value in dataclasses.asdict(item).items() if name != "detail"} for item in build.items
        ],
        "steps": [_step(step) for step in build.steps],
        "packages": [
            {"name": each.name, "wall_ns": each.end_ns - each.begin_ns, "cpu_ns": each.cpu_ns} for each in packages(build)
        ],
        **{name: list(getattr(build, name)) for name in ("compiled", "cached", "prebuilt")},
        "cache_found": len(build.found),
        "cache_not_found": len(build.not_found),
        "cache_stored": len(build.stored),
        "mod_files": len(build.mod_files),
        "chain": [_step(step) for step in build.chain],
        "unread": build.unread,
        "cut": build.cut,
    }


def _step(step: Step) -> Record:
    return {
        "stage": step.stage,
        "name": step.name,
        "begin_ns": step.begin_ns,
        "duration_ns": step.end_ns - step.begin_ns,
        "cpu_ns": step.cpu_ns,
        "runnable_ns": step.runnable_ns,
        "exit_code": step.status,
        "ended": step.ended,
    }


def summary_record(builds: Sequence[Build], about: Record) -> Record:
    """All runs; ``about`` is what the session knows (its end, losses and cost)."""
    parts = summary([build.start() for build in builds]).parts
    return {
        "type": "build_summary",
        **about,
        "parts": [medians(part) for part in parts],
    }

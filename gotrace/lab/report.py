"""The report of a baseline: its types, its schema, and its file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast

from gotrace.errors import UsageError
from gotrace.kernel.machine import Host
from gotrace.lab.container import ContainerOf
from gotrace.lab.flames import Flames
from gotrace.lab.grown import Grown
from gotrace.lab.load_cpu import LoadCpu
from gotrace.lab.seconds import Course
from gotrace.lab.start import StartOf
from gotrace.records.schema import schema_of
from gotrace.run.files import created
from gotrace.text import printable

SCHEMA = "gotrace.baseline/1"
NAME = "report.json"


class VersionOf(TypedDict):
    """What was measured."""

    name: str
    command: list[str]
    exe: str
    go_version: str
    build_id: str
    exe_bytes: int
    pid: Annotated[
        int | None, "of a process that ran before: every run is of it, so they share its luck; null: each has its own"
    ]
    build: Annotated[list[str] | None, "the flags of `go build` that made it; null: it was there"]
    container: Annotated[ContainerOf | None, "null: none"]


class Preload(TypedDict):
    """The load before the measured one."""

    length_ns: int
    course: Annotated[Course | None, "null: it was to last so long, whatever the service did"]
    unsteady: Annotated[str | None, "why it was not steady at the end of it; null: it was, or that was not asked"]


class Run(TypedDict):
    """One process, under load once. Times in nanoseconds, sizes in bytes, shares and rates as the metrics' names say."""

    version: str
    round: Annotated[int, "runs of one round were neighbors in time, each version once"]
    order: Annotated[int, "the number of the run, from 0 on"]
    time: Annotated[str, "when its load began"]
    length_ns: Annotated[int, "from the load's start to its end"]
    valid: bool
    reasons: Annotated[list[str], "why it does not count"]
    notes: Annotated[list[str], "what is to be known of it, and does not keep it from counting"]
    start: Annotated[StartOf | None, "null: it was not traced"]
    preload: Preload
    course: Annotated[Course, "while it was measured; metrics are of all of it"]
    heap_growth: Grown
    metrics: Annotated[dict[str, float | None], "null: unknown, or too few values for that percentile"]
    load: Annotated[dict[str, Any], "what the load tool reported"]
    load_cpu: Annotated[LoadCpu | None, "null: not known"]
    lost: Annotated[int, "events"]
    cost: Annotated[dict[str, Any], "what measuring took"]
    yardstick: Annotated[list[float], "loops per second of a fixed piece of work, before and after"]
    longest: Annotated[list[dict[str, Any]], "the longest pauses, each with its cause"]
    recording: Annotated[str, "the raw events; relative to the report"]


class Extended(TypedDict):
    """Runs that were added to a report that was complete."""

    time: str
    first: Annotated[int, "the order of the first of them"]
    after: Annotated[int, "how many runs of each version were planned before"]
    runs: Annotated[int, "how many more of each"]


class Baseline(TypedDict):
    """A report."""

    schema: Literal["gotrace.baseline/1"]
    tool: Annotated[str, "the version of gotrace"]
    time: str
    complete: bool
    cut_off: Annotated[str | None, "why it is not complete"]
    plan: dict[str, Any]
    host: Host
    versions: list[VersionOf]
    runs: list[Run]
    flames: Annotated[Flames | None, "null: not wanted, or not yet"]
    extended: list[Extended]


def schema() -> dict[str, Any]:
    """JSON Schema of `Baseline`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA, **schema_of(Baseline)}


def write(report: Baseline, folder: Path) -> Path:
    """Write the report, over the one that is there, so that a crash leaves the one or the other. Raises GotraceError."""
    path, new = folder / NAME, folder / f".{NAME}.new"
    with created(str(new), True) as file:
        file.write(json.dumps(report, indent=1).encode() + b"\n")
    os.replace(new, path)
    return path


def file_of(path: str) -> Path:
    """The report's own file, of its folder or of itself."""
    return Path(path, NAME) if os.path.isdir(path) else Path(path)


def read(path: str) -> Baseline:
    """The report of a folder, or of a file. Raises UsageError where there is none, or it is none of ours."""
    file = file_of(path)
    name = printable(str(file))
    try:
        if file.exists() and not file.is_file():
            raise UsageError(f"{name} is not a file", "give a folder written by `gotrace baseline --out`")
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(
            f"cannot read {name}: {error.strerror}", "give a folder written by `gotrace baseline --out`"
        ) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{name} is not JSON", "give a folder written by `gotrace baseline --out`") from None
    kind = found.get("schema") if isinstance(found, dict) else None
    if kind != SCHEMA:
        known = isinstance(kind, str) and kind.startswith("gotrace.baseline/")
        what = f"is a report in a different version ({printable(str(kind))})" if known else "is not a baseline report"
        raise UsageError(f"{name} {what}", f"this gotrace reads {SCHEMA}")
    return cast(Baseline, found)


class _NeededHost(TypedDict):
    host_class: str


class _NeededVersion(TypedDict):
    name: str
    go_version: str


class _NeededRun(TypedDict):
    version: str
    round: int
    order: int
    length_ns: int
    valid: bool
    reasons: list[str]
    metrics: dict[str, float | None]
    load: dict[str, Any]
    lost: int


class _NeededIfThere(TypedDict, total=False):
    extended: list[Extended]


class _Needed(_NeededIfThere):
    """What of a `Baseline` a comparison or a gate needs: it may come from anywhere, and from an older gotrace."""

    complete: bool
    cut_off: str | None
    plan: dict[str, Any]
    host: _NeededHost
    versions: list[_NeededVersion]
    runs: list[_NeededRun]


def whole(path: str) -> Baseline:
    """`read`, and checked: what is compared or judged may come from anywhere. Raises UsageError."""
    import msgspec

    report = read(path)
    try:
        msgspec.convert(report, _Needed)
    except msgspec.ValidationError as error:
        what = printable(str(error)).replace("`", "")
        raise UsageError(f"the report of {printable(path)} is damaged: {what}", "measure again") from None
    return report

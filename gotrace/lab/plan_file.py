"""A plan in a file, ``gotrace.plan/1``, which is also what a pipeline's step `baseline` says: read into a `Plan`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from gotrace.errors import UsageError
from gotrace.kernel.host import cpus_of
from gotrace.lab import yaml_file
from gotrace.lab.build import Build
from gotrace.lab.container import Container, tool_of
from gotrace.lab.load import parse_load
from gotrace.lab.plan import MOST_RUNS, Plan, Version
from gotrace.lab.pprof import url_of
from gotrace.lab.service import Ready
from gotrace.text import duration_ns, printable

SCHEMA = "gotrace.plan/1"


class BuildFile(msgspec.Struct, forbid_unknown_fields=True):
    """What `go build` makes of a package; ``go`` is the command."""

    package: str
    flags: list[str] = []
    go: str = "go"


class ContainerFile(msgspec.Struct, forbid_unknown_fields=True):
    """An image and its limits: ``cpus`` and ``memory`` as podman has them, ``options`` others of `podman run`."""

    image: str
    cpus: float | None = None
    memory: str | None = None
    options: list[str] = []
    tool: list[str] = []


class VersionFile(msgspec.Struct, forbid_unknown_fields=True):
    """A version: the ``command`` that starts it, as a list of words, or a build or a container and its arguments."""

    command: list[str] = []
    build: BuildFile | None = None
    container: ContainerFile | None = None
    args: list[str] = []


class LoadFile(msgspec.Struct, forbid_unknown_fields=True):
    """A load: the tool and its arguments; ``prints`` names the tool whose output it prints, if it is not a known one."""

    tool: str
    args: list[str] = []
    prints: str = ""


class PlanBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is measured and how; ``emulated``: on a machine that is emulated, whose times say nothing about any other."""

    versions: dict[str, VersionFile]
    load: LoadFile
    runs: int = 10
    preload: str = "5s"
    ready: str = ""
    cpus: str = ""
    load_cpus: str = ""
    max_drift: str = "3%"
    explain: bool = False
    events: bool = False
    wakeups: bool = False
    coldstart: bool = False
    flame: bool | None = None
    pprof: str = ""
    seed: int = 1
    emulated: bool = False


class PlanFile(PlanBody, forbid_unknown_fields=True, kw_only=True):
    """A file of its own."""

    schema: Literal["gotrace.plan/1"]


def read(path: str) -> Plan:
    """The plan in a file. Raises UsageError."""
    return plan_of(yaml_file.read(path, PlanFile, SCHEMA))


def plan_of(body: PlanBody) -> Plan:
    """What it says, resolved. Raises UsageError."""
    if not body.versions:
        raise UsageError("a plan needs at least one version", "versions: {server: {command: [./server]}}")
    versions = tuple(_version(name, version) for name, version in body.versions.items())
    if not 1 <= body.runs <= MOST_RUNS:
        raise UsageError(f"runs: {body.runs} is out of range", f"from 1 to {MOST_RUNS}")
    load = parse_load([body.load.tool, *body.load.args], body.load.prints)
    return Plan(
        versions=versions,
        load=load,
        runs=body.runs,
        warmup_ns=None if body.preload == "auto" else duration("preload", body.preload),
        ready=Ready.parse(body.ready) if body.ready else ready_of(load.command),
        seed=body.seed,
        cpus=cpus("cpus", body.cpus),
        load_cpus=cpus("load_cpus", body.load_cpus),
        most_drift=share("max_drift", body.max_drift),
        explained=5 if body.explain else 0,
        emulated=body.emulated,
        events=body.events,
        wakeups=body.wakeups,
        coldstart=body.coldstart,
        flame=any(version.build for version in versions) if body.flame is None else body.flame,
        pprof=url_of(body.pprof) if body.pprof else None,
    )


def _version(name: str, found: VersionFile) -> Version:
    build, container, args = found.build, found.container, tuple(found.args)
    what = f"the version {printable(name)!r}"
    if sum(map(bool, (found.command, build, container))) != 1 or not name:
        raise UsageError(f"{what} needs a name, and one of command, build and container", "command: [./server, -v]")
    if build is not None:
        if not build.package or not build.go:
            raise UsageError(f"{what} has a build without a package, or without go", "build: {package: ./cmd/server}")
        return Version(name, (build.package, *args), Build(build.package, tuple(build.flags), build.go))
    if container is not None:
        tool, options = tool_of(container.tool), tuple(container.options)
        return Version(name, args, container=Container(container.image, tool, container.memory, container.cpus, options))
    if args or not found.command[0]:
        raise UsageError(f"{what} has args besides its command, or an empty command", "command: [./server, -v]")
    return Version(name, tuple(found.command))


def ready_of(load: Sequence[str]) -> Ready:
    """That the address which a load's command goes to accepts. Raises UsageError if it has none."""
    urls = [word for word in load if word.startswith(("http://", "https://"))]
    if not urls:
        raise UsageError("the load command has no address to tell when the service is ready", "give --ready tcp:PORT")
    return Ready.of_url(urls[-1])


_CPUS = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", re.ASCII)


def cpus(name: str, text: str) -> tuple[int, ...]:
    """A list of CPUs, 0-3,6; none for "". Raises UsageError, with the name of the option."""
    ranges = [[int(end) for end in part.split("-")] for part in text.split(",")] if _CPUS.fullmatch(text) else [[]]
    if text and not all(ends and ends == sorted(ends) for ends in ranges):
        raise UsageError(f"cannot read {name} {printable(text)!r}", "write 0-3,6")
    return tuple(cpus_of(text))


def duration(name: str, text: str) -> int:
    """Nanoseconds. Raises UsageError."""
    try:
        return duration_ns(text)
    except ValueError:
        raise UsageError(
            f"cannot read {name}: {printable(text)!r} is not a duration", "write 10s, 250ms or 1m30s"
        ) from None


def share(name: str, text: str) -> float:
    """Of a percentage, "5%": 0.05. Raises UsageError."""
    try:
        number, percent, rest = text.partition("%")
        found = float(number) / 100
        if not percent or rest or not 0 <= found <= 10:
            raise ValueError
        return found
    except ValueError:
        raise UsageError(f"cannot read {name}: {printable(text)!r} is not a percentage", "write 5%") from None

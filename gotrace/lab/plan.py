"""What a baseline does, resolved before anything is started: versions, runs in their order, load, times."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypedDict, TypeVar

from gotrace.errors import UsageError
from gotrace.lab.build import Build
from gotrace.lab.container import Container
from gotrace.lab.load import Load, parse_load
from gotrace.lab.pprof import url_of
from gotrace.lab.seconds import LEAST_SECONDS
from gotrace.lab.service import Ready
from gotrace.text import printable

_T = TypeVar("_T")


class VersionJson(TypedDict):
    """A version, as a report has it."""

    name: str
    command: list[str]
    build: dict[str, Any] | None
    container: dict[str, Any] | None


class PlanJson(TypedDict):
    """A plan, as a report has it: what `Plan` says, and ``load_format``, "" if the load's command is of a known tool."""

    versions: list[VersionJson]
    pid: int | None
    load: list[str]
    load_format: str
    runs: int
    warmup_ns: int | None
    ready: str
    seed: int
    most_drift: float
    cpus: list[int]
    load_cpus: list[int]
    explained: int
    events: bool
    wakeups: bool
    coldstart: bool
    flame: bool
    pprof: str | None
    emulated: bool


MOST_RUNS = 1000  # of each version
_AROUND_NS = 3_000_000_000  # start, probes, yardstick and end of a run
# What reports of earlier releases do not have, and what they meant.
_EARLIER = {"load_format": "", "pid": None, "pprof": None} | dict.fromkeys(
    ("emulated", "events", "wakeups", "coldstart", "flame"), False
)
_EARLIER_VERSION = {"build": None, "container": None}


@dataclass(frozen=True)
class Version:
    """A build, or a setting, of the service: ``command`` starts it.

    With a ``build`` its first word is the executable, the package's until that is built; with a ``container`` it is the
    arguments of the image's entry point.
    """

    name: str
    command: tuple[str, ...]
    build: Build | None = None
    container: Container | None = None

    def to_json(self) -> VersionJson:
        build = self.build
        return {
            "name": self.name,
            "command": list(self.command),
            "build": {**vars(build), "flags": list(build.flags)} if build is not None else None,
            "container": self.container.to_json() if self.container is not None else None,
        }


@dataclass(frozen=True)
class Plan:
    """Versions, the load, and how often; times in nanoseconds, ``seed`` of the order.

    ``most_drift`` is by how much the machine's own speed may change during a run that counts, as a share. ``cpus`` and
    ``load_cpus`` are those that the service and the load may use; empty: all. Of each run the ``explained`` longest pauses
    come with their causes, which costs the service more than the rest, as do ``events`` of threads and of Ps that steal,
    ``wakeups`` of single goroutines, and ``coldstart``, which traces the start of each run. ``warmup_ns`` is None where
    each process is under load until it is steady. ``pid`` is of an already running process, and is put under load in every
    run. ``emulated``: the machine is, as its user says; its times are compared with nothing. With ``flame`` one more run of
    each version, which is not counted, says where CPU time goes. ``pprof`` is the address of the service's own heap
    profile, which is asked before and after each run.
    """

    versions: tuple[Version, ...]
    load: Load
    runs: int
    warmup_ns: int | None
    ready: Ready
    seed: int
    cpus: tuple[int, ...] = ()
    load_cpus: tuple[int, ...] = ()
    most_drift: float = 0.03
    explained: int = 0
    pid: int | None = None
    emulated: bool = False
    events: bool = False
    wakeups: bool = False
    coldstart: bool = False
    flame: bool = False
    pprof: str | None = None

    @property
    def estimated_ns(self) -> int | None:
        """About how long it takes, or at least; None if the load does not say how long it lasts."""
        length = self.load.asked.duration_ns
        warmup = LEAST_SECONDS * 1_000_000_000 if self.warmup_ns is None else self.warmup_ns
        runs = len(self.versions) * (self.runs + self.flame)
        return runs * (length + warmup + _AROUND_NS) if length else None

    def order(self) -> list[tuple[int, Version]]:
        """(round, version): each round has every version once, in an order of its own."""
        return ordered(self.versions, self.runs, self.seed)

    def to_json(self) -> PlanJson:
        return {
            "versions": [each.to_json() for each in self.versions],
            "pid": self.pid,
            "load": list(self.load.command),
            "load_format": "" if self.load.at is not None else self.load.tool,
            "runs": self.runs,
            "warmup_ns": self.warmup_ns,
            "ready": str(self.ready),
            "seed": self.seed,
            "most_drift": self.most_drift,
            "cpus": list(self.cpus),
            "load_cpus": list(self.load_cpus),
            "explained": self.explained,
            "events": self.events,
            "wakeups": self.wakeups,
            "coldstart": self.coldstart,
            "flame": self.flame,
            "pprof": self.pprof,
            "emulated": self.emulated,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Plan:
        """What `to_json` gave. Raises UsageError for all that it does not know: a part of a plan is another plan."""
        _refuse_unknown("the plan", found, PlanJson)
        versions = found.get("versions")
        named = tuple(_version(number, each) for number, each in enumerate(versions if isinstance(versions, list) else []))
        told = _converted({**_EARLIER, **found, "versions": []}, PlanJson, "the plan")
        if not named or len({each.name for each in named}) < len(named):
            _refuse("the plan has no versions, or two with the same name")
        if not all(each.command or each.container or told["pid"] is not None for each in named):
            _refuse("the plan has a version without a command")
        times = (told["warmup_ns"] or 0, told["explained"], told["most_drift"])
        if not 1 <= told["runs"] <= MOST_RUNS or not all(0 <= each < math.inf for each in times):
            _refuse("the plan has a number out of range")
        return cls(
            versions=named,
            load=parse_load(told["load"], told["load_format"]),
            runs=told["runs"],
            warmup_ns=told["warmup_ns"],
            ready=Ready.parse(told["ready"]),
            seed=told["seed"],
            cpus=tuple(told["cpus"]),
            load_cpus=tuple(told["load_cpus"]),
            most_drift=told["most_drift"],
            explained=told["explained"],
            pid=told["pid"],
            emulated=told["emulated"],
            events=told["events"],
            wakeups=told["wakeups"],
            coldstart=told["coldstart"],
            flame=told["flame"],
            pprof=url_of(told["pprof"]) if told["pprof"] is not None else None,
        )


def _version(number: int, found: Any) -> Version:
    what = f"version {number} of the plan"
    _refuse_unknown(what, found, VersionJson)
    told = _converted({**_EARLIER_VERSION, **found}, VersionJson, what)
    made: dict[str, Any] = {}
    for name, kind in (("build", Build), ("container", Container)):
        each = found.get(name)
        if each is not None:
            _refuse_unknown(f"{what}, {name},", each, kind)
            made[name] = _converted(each, kind, f"{what}, {name},")
    return Version(told["name"], tuple(told["command"]), **made)


def _converted(found: Any, kind: type[_T], what: str) -> _T:
    import msgspec

    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        _refuse(f"{what} cannot be read: {printable(str(error)).replace('`', '')}")


def _refuse_unknown(what: str, found: object, known: type) -> None:
    """What is null is not there."""
    if not isinstance(found, Mapping):
        _refuse(f"{what} is not an object")
    for key in sorted(key for key, value in found.items() if value is not None and key not in known.__annotations__):
        _refuse(f"{what} has an unknown key: {printable(str(key)[:80])!r}")


def _refuse(message: str) -> NoReturn:
    raise UsageError(message, "it was written by another version of gotrace: use that one, or measure again")


def ordered(versions: Sequence[Version], runs: int, seed: int) -> list[tuple[int, Version]]:
    """Interleaved, so that a machine that becomes slower does so for all of them: in random order within each round.

    By simulation AAAABBBB finds a difference in 38 % of comparisons without one, where the machine drifts; this in 5 %.
    """
    shuffled = random.Random(seed)
    found = []
    for number in range(runs):
        found += [(number, version) for version in shuffled.sample(list(versions), len(versions))]
    return found

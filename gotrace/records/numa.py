"""The records of `gotrace.views.numa`: faults, threads, Ps and memory by node. Nodes are texts where they name members."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from gotrace.records.memory import Missing
from gotrace.records.schema import Keys
from gotrace.records.times import Moment
from gotrace.records.watched import Statistics, Watched

_ByNode = dict[str, int]


class Node(TypedDict):
    """A memory node: what ran on its CPUs, and the process's memory on it."""

    node: int
    cpus: list[int]
    distance: _ByNode
    ran_ns: int
    bytes: Annotated[int | None, "null: unknown"]


class Matrix(TypedDict):
    """Rows: the node of the CPU; columns: that of the page."""

    rows: list[int]
    columns: list[Any]
    counts: list[list[int]]


class Ps(TypedDict, total=False):
    """Ps by the node of their thread's CPU, and those without one; omitted if unknown."""

    ps: _ByNode
    ps_idle: int


class Sampled(Ps, total=False):
    """By node: threads whose turn on a CPU ended since the last sample, and resident bytes."""

    threads: _ByNode
    bytes: _ByNode


class Sample(Moment, Sampled):
    """Where things were at that time."""


class Numa(Watched):
    """The summary, at the end."""

    type: Literal["numa"]
    nodes: list[Node]
    memory: Annotated[dict[str, _ByNode], "by part, then node; -1 is unknown"]
    memory_age_ns: Annotated[
        int | None, "how long before the end memory and policies were last read: longer if the process exited; null: never"
    ]
    faults: Matrix
    remote_share: float | None
    accesses: Annotated[dict[str, dict[str, int | None]], "by event, then node of the CPUs; null: never counted"]
    hinting_faults: int | None
    policies: Annotated[dict[str, int], "bytes of mappings by policy"]
    balancing: bool | None
    balancing_threads: Annotated[dict[str, int | None], "what automatic NUMA balancing did to threads"]
    threads_moved: int
    move_gaps: Annotated[Statistics, "between two migrations of a thread to another node"]
    ps_moved: int | None
    pages_moved: int
    pages_not_moved: int
    series: list[Sample]
    missing: Missing
    advice: str


class NumaInterval(Moment, Ps):
    """What was seen since the last record; Ps as in the last sample."""

    type: Literal["numa_interval"]
    length_ns: int
    faults: Annotated[dict[str, int], Keys(("local", "remote", "unknown"))]
    hinting_faults: int
    threads_moved: int
    pages_moved: int
    ran_ns: _ByNode

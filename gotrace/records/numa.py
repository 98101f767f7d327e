"""The records of `gotrace.views.numa`: faults, threads, Ps and memory by node. Nodes are texts where they name members."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from gotrace.records.memory import Missing
from gotrace.records.schema import Keys
from gotrace.records.times import Moment
from gotrace.records.watched import Statistics, Watched

_ByNode = dict[str, int]


class Node(TypedDict):
    """A memory node: what ran on its CPUs, and what of the process lies on it."""

    node: int
    cpus: list[int]
    distance: _ByNode
    ran_ns: int
    bytes: Annotated[int | None, "null: unknown"]


class Matrix(TypedDict):
    """Row: the node of the CPU, column: that of the page."""

    rows: list[int]
    columns: list[Any]
    counts: list[list[int]]


class Ps(TypedDict, total=False):
    """Ps by the node of their thread's CPU, and those that have none; left out if unknown."""

    ps: _ByNode
    ps_idle: int


class Sampled(Ps, total=False):
    """By node: how many threads had a turn on a CPU that ended since the last sample, and resident bytes."""

    threads: _ByNode
    bytes: _ByNode


class Sample(Moment, Sampled):
    """Where things were then."""


class Numa(Watched):
    """Everything, at the end."""

    type: Literal["numa"]
    nodes: list[Node]
    memory: Annotated[dict[str, _ByNode], "part, then node; -1 is unknown"]
    memory_age_ns: Annotated[
        int | None, "how long before the end memory and policies were read: longer ago if it ended; null: never"
    ]
    faults: Matrix
    remote_share: float | None
    accesses: Annotated[dict[str, dict[str, int | None]], "event, then the node of the CPUs; null: never counted"]
    hinting_faults: int | None
    policies: Annotated[dict[str, int], "policy of mappings, and their bytes"]
    balancing: bool | None
    balancing_threads: Annotated[dict[str, int | None], "what automatic NUMA balancing did with threads"]
    threads_moved: int
    move_gaps: Annotated[Statistics, "between two migrations of a thread to another node"]
    ps_moved: int | None
    pages_moved: int
    pages_not_moved: int
    series: list[Sample]
    missing: Missing
    advice: str


class NumaInterval(Moment, Ps):
    """What was seen since the last one; Ps as the last sample has them."""

    type: Literal["numa_interval"]
    length_ns: int
    faults: Annotated[dict[str, int], Keys(("local", "remote", "unknown"))]
    hinting_faults: int
    threads_moved: int
    pages_moved: int
    ran_ns: _ByNode

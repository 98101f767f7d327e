"""The records of `gotrace topo`: a machine's topology with its verdicts, nodes against each other, and NCCL's settings."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

_Answer = Literal["yes", "possible", "pxn", "unknown", "no"]
_Numa = Literal["same", "other", "unknown"]


class Judged(TypedDict):
    """Whether NCCL does it by default. ``possible``: the distance allows it; the other conditions are unknown."""

    answer: _Answer
    why: str
    source: Annotated[str, "the source of the distance"]


class TopoGpu(TypedDict):
    """A GPU."""

    name: str
    bus: Annotated[str, "empty: unknown"]
    node: Annotated[str | None, "its NUMA node, or its CPUs if the node has no number; null: unknown"]
    cpus: str
    rank: int | None
    near_nics: Annotated[list[str] | None, "the nearest NICs within PXB; null: unknown"]
    gdr: Annotated[Judged | None, "with the best NIC for it; null: no NIC is known"]
    gdr_nic: str | None


class TopoPort(TypedDict):
    """A port of a NIC."""

    device: str
    port: int
    state: str | None
    physical: str | None
    gbps: float | None
    layer: str | None
    usable: Annotated[bool | None, "null: no source says"]
    source: str


class TopoNic(TypedDict):
    """A NIC, or one of its ports if NCCL counts it as a NIC."""

    name: str
    label: Annotated[str, "its name in the matrix or the log"]
    bus: str
    node: str | None
    gbps: float | None
    usable: bool | None


class TopoPair(TypedDict):
    """A cell of the compatibility matrix."""

    one: str
    other: str
    level: Annotated[str, "?: unknown"]
    numa: Annotated[_Numa, "whether both are in one NUMA node"]
    p2p: Annotated[Judged | None, "of two GPUs"]
    gdr: Annotated[Judged | None, "of a GPU and a NIC"]


class TopoRing(TypedDict):
    """A ring of AllReduce."""

    channel: int
    stops: list[str]
    closes: Annotated[bool, "whether the last sends to the first"]
    crossings: Annotated[int, "known crossings of NUMA nodes"]
    crossings_at_most: Annotated[int, "if every unknown edge crosses too"]
    farthest: str
    over_limit: bool
    source: Annotated[str | None, "null: computed by gotrace, because no log has one"]


class TopoFinding(TypedDict):
    """A finding."""

    code: str
    severity: Literal["wrong", "warning", "note"]
    what: str
    do: str
    why: str
    source: str
    devices: list[str]


class TopoFabric(TypedDict):
    """The switches between nodes."""

    switches: int
    nodes: list[str]
    hops: Annotated[dict[str, int], "by number of switches between two nodes, how many pairs are that far apart"]
    pairs: Annotated[dict[str, int | None], "by 'node node'; null: no path"]


class Topology(TypedDict):
    """One machine."""

    type: Literal["topology"]
    name: str
    sources: list[str]
    gpus: list[TopoGpu]
    nics: list[TopoNic]
    ports: list[TopoPort]
    pairs: list[TopoPair]
    rings: list[TopoRing]
    max_crossings: int
    others: Annotated[dict[str, int | None], "PCI devices of unknown kind, and their NUMA nodes"]
    fabric: TopoFabric | None
    findings: list[TopoFinding]
    notes: list[str]


class TopoDifference(TypedDict):
    """A difference between two machines; null: absent, or unknown."""

    what: str
    one: str | None
    other: str | None


class TopologyDiff(TypedDict):
    """Two machines."""

    type: Literal["topology_diff"]
    one: str
    other: str
    differences: list[TopoDifference]


class OddNode(TypedDict):
    """A node that differs from most; ``one`` is what most have, ``other`` what it has."""

    node: str
    differences: list[TopoDifference]


class TopologyNodes(TypedDict):
    """Many nodes at once."""

    type: Literal["topology_nodes"]
    nodes: list[str]
    odd: list[OddNode]
    undecided: Annotated[list[str], "what no majority has in common"]


class TopoSetting(TypedDict):
    """An NCCL variable. ``value`` null: unset it."""

    variable: str
    value: str | None
    measure: Annotated[bool, "true: it may help, but has to be measured first"]
    why: str
    changes: str
    source: str


class TopologySettings(TypedDict):
    """What to set."""

    type: Literal["topology_settings"]
    name: str
    settings: list[TopoSetting]
    left_alone: Annotated[list[str], "variables that are right as they are, each with the reason"]

"""What is known of one machine: GPUs, NICs, ports, and how far they are from each other, each with who says so.

A level is a word: of `nvidia-smi topo -m` (PIX, PXB, PHB, NODE, SYS, NV12) or of NCCL (LOC, NVL, NVB, C2C, PIX, PXB, P2C,
PXN, PHB, SYS, NET, DIS). NCCL has no NODE, it calls that PHB. `nvidia-smi` prints SYS for some pairs within a NUMA node,
so that its SYS proves no crossing; NCCL's does, for that is a path from one of its CPU nodes, which are NUMA nodes, to
another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from gotrace.errors import GotraceError

# Near to far, as NCCL orders its path types (src/include/graph.h), with NODE of nvidia-smi behind PHB.
ORDER = ("LOC", "NVL", "NVB", "C2C", "PIX", "PXB", "P2C", "PXN", "PHB", "NODE", "SYS", "NET", "DIS")
NEAR = frozenset({"LOC", "PIX", "PXB"})  # NCCL's default for P2P and for GPUDirect RDMA over PCIe
_WITHIN_NODE = NEAR | {"PHB", "NODE"}
UNKNOWN = "?"

NCCL_LOG, NCCL_XML, SYSFS, LSPCI, SMI, ENVIRONMENT = "NCCL log", "NCCL XML", "sysfs", "lspci", "nvidia-smi", "environment"
IBSTAT, IBSTATUS, IBV_DEVINFO, NETDEV, FABRIC = "ibstat", "ibstatus", "ibv_devinfo", "ibdev2netdev", "ibnetdiscover"
# Whom to believe first.
TRUST = (NCCL_LOG, NCCL_XML, SYSFS, LSPCI, SMI, IBSTAT, IBSTATUS, IBV_DEVINFO, NETDEV, FABRIC, ENVIRONMENT)
MOST_DEVICES = 512  # of one machine: pairs are looked at one by one


class TopologyError(GotraceError):
    """A file that cannot be read as a topology."""


@dataclass(frozen=True)
class Source:
    """Who says something: a kind of `TRUST`, the file's name, and the line (0: none in particular)."""

    kind: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.kind}, {place}" if place else self.kind

    @property
    def nccl(self) -> bool:
        return self.kind in (NCCL_LOG, NCCL_XML)


@dataclass
class Gpu:
    """``numa`` is the node whose CPUs are near, ``memory_node`` that of its own memory (Grace); None: unknown.

    ``name`` is GPU0… by nvidia-smi's number, which is by bus address; of NCCL's log it is the bus address, for that has no
    numbers. ``gdr``: whether its driver offers GPUDirect RDMA. ``linked``: whether it is known which NVLinks it has.
    """

    name: str
    index: int | None = None
    bus: str = ""
    numa: int | None = None
    numa_text: str = ""
    memory_node: int | None = None
    cpus: str = ""
    rank: int | None = None
    gdr: bool | None = None
    linked: bool = True


@dataclass
class Nic:
    """``name`` is the device's (mlx5_0) where that is known, ``label`` that of a matrix (NIC0), ``number`` NCCL's."""

    name: str
    label: str = ""
    number: int | None = None
    bus: str = ""
    numa: int | None = None
    gdr: bool | None = None
    gbps: float | None = None
    card: str = ""  # the same for ports of one card

    @property
    def named(self) -> bool:
        """Whether the name is the device's, and not a number or a bus address in its place."""
        return self.name != self.bus and not re.fullmatch(r"(NIC|NET/)\d+", self.name)


@dataclass
class Port:
    """A port of an RDMA device. ``rate`` in Gb/s. What a source does not say is None."""

    device: str
    port: int
    source: Source
    state: str | None = None  # Down, Initializing, Armed, Active
    physical: str | None = None  # Polling, Disabled, LinkUp
    rate: float | None = None
    layer: str | None = None  # InfiniBand, Ethernet
    sm_lid: int | None = None
    card: str = ""  # System image GUID
    type: str = ""

    @property
    def usable(self) -> bool | None:
        """Whether data can pass; None if its state is not known."""
        if self.state is None:
            return None
        return self.state == "Active" and self.physical in ("LinkUp", None)


@dataclass(frozen=True)
class Seen:
    """A level, and who says so. ``pcie``: of PCIe alone, because that source does not know of NVLinks."""

    level: str
    source: Source
    pcie: bool = False


@dataclass(frozen=True)
class Ring:
    """Devices in the order of the data, with NICs at its ends, or none: then it closes. ``source`` None: found by us."""

    channel: int
    stops: tuple[str, ...]
    closes: bool = False
    source: Source | None = None

    @property
    def edges(self) -> list[tuple[str, str]]:
        edges = list(zip(self.stops, self.stops[1:], strict=False))
        return [*edges, (self.stops[-1], self.stops[0])] if self.closes and len(self.stops) > 1 else edges


@dataclass
class Remark:
    """Something a source says that is a finding of its own: its code, text and source; for `verdicts`."""

    code: str
    text: str
    source: Source
    devices: tuple[str, ...] = ()


Pair = tuple[str, str]


def pair_of(one: str, other: str) -> Pair:
    return (one, other) if one <= other else (other, one)


@dataclass
class Facts:
    """What one source says of one machine, and what all of them say together."""

    source: Source
    host: str = ""
    gpus: list[Gpu] = field(default_factory=list)
    nics: list[Nic] = field(default_factory=list)
    seen: dict[Pair, list[Seen]] = field(default_factory=dict)
    p2p: dict[Pair, tuple[str, Source]] = field(default_factory=dict)
    gdr: dict[tuple[str, str], tuple[bool, Source]] = field(default_factory=dict)  # GPU and NIC, as the log says it
    links: dict[str, tuple[int, int, Source]] = field(default_factory=dict)  # GPU -> NVLinks that are up, and all
    ports: list[Port] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)
    environment: dict[str, tuple[str, Source]] = field(default_factory=dict)
    netdevs: dict[str, tuple[str, bool]] = field(default_factory=dict)  # RDMA device -> interface, and whether it is up
    others: dict[str, int | None] = field(default_factory=dict)  # PCI devices of which it is not known what they are
    vendors: set[str] = field(default_factory=set)  # of processors
    affinity: dict[str, tuple[frozenset[int], Source]] = field(default_factory=dict)  # GPU -> CPUs its process may use
    node_cpus: dict[int, frozenset[int]] = field(default_factory=dict)
    transports: list[tuple[str, str, Source]] = field(default_factory=list)  # of NCCL's channels: what, how
    default_route: str = ""
    cut: Source | None = None
    remarks: list[Remark] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fabric: object = None

    def see(self, one: str, other: str, level: str, source: Source | None = None, pcie: bool = False) -> None:
        self.seen.setdefault(pair_of(one, other), []).append(Seen(level, source or self.source, pcie))

    def gpu(self, name: str) -> Gpu | None:
        return next((gpu for gpu in self.gpus if gpu.name == name), None)

    def nic(self, name: str) -> Nic | None:
        return next((nic for nic in self.nics if name in (nic.name, nic.label)), None)

    def told(self, one: str, other: str) -> Seen | None:
        """The level of a pair, by the source that is trusted most of those that know it whole."""
        found = self.seen.get(pair_of(one, other), [])
        return next((each for each in found if not each.pcie), next(iter(found), None))

    def level(self, one: str, other: str) -> str:
        found = self.told(one, other)
        return found.level if found else UNKNOWN

    @property
    def gpu_pairs(self) -> Iterator[tuple[Gpu, Gpu]]:
        return combinations(self.gpus, 2)


def links_of(level: str) -> int | None:
    """How many NVLinks a level tells of: 12 for NV12. None: no NVLink, or NCCL's NVL, which has no number."""
    match = re.fullmatch(r"NV(\d+)", level)
    return int(match[1]) if match else None


def is_nvlink(level: str) -> bool:
    """Whether data goes over NVLink, directly or by another GPU, or over a chip-to-chip link."""
    return level in ("NVL", "NVB", "C2C") or links_of(level) is not None


def rank(level: str) -> int:
    """How far: smaller is nearer. What is unknown is behind everything."""
    if links_of(level) is not None:
        level = "NVL"
    return ORDER.index(level) if level in ORDER else len(ORDER)


def within_node(level: str) -> bool:
    """Whether the level itself says that both are in one NUMA node."""
    return level in _WITHIN_NODE


def agree(one: str, other: str) -> bool:
    """Whether two sources say the same in their own words.

    NODE is NCCL's PHB; what nvidia-smi calls PXB is PIX for NCCL where it flattens a switch of two levels; detours of NCCL
    (NVB, PXN, P2C) say nothing of the direct way.
    """
    if one == other or (is_nvlink(one) and is_nvlink(other) and None in (links_of(one), links_of(other))):
        return True
    if {one, other} <= {"PHB", "NODE"} or {one, other} <= {"PIX", "PXB"}:
        return True
    return bool({one, other} & {"NVB", "PXN", "P2C", "C2C"})


class Nodes:
    """Which NUMA node each device of a machine belongs to, as far as somebody says so.

    By its NUMA column or attribute; else by its CPU affinity, where those of the machine differ (the driver gives all CPUs
    to a device of which it does not know the node); else by a level that stays within a node. Nodes without a number are
    called by their CPUs.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._of: dict[str, str] = {}
        texts = {gpu.cpus for gpu in facts.gpus if gpu.cpus}
        apart = len(texts) > 1 and all(not cpu_set(a) & cpu_set(b) for a, b in combinations(sorted(texts), 2))
        numbered = {gpu.cpus: str(gpu.numa) for gpu in facts.gpus if gpu.numa is not None and gpu.cpus}
        for gpu in facts.gpus:
            if gpu.numa is not None:
                self._of[gpu.name] = str(gpu.numa)
            elif apart and gpu.cpus:
                self._of[gpu.name] = numbered.get(gpu.cpus, f"CPUs {gpu.cpus}")
        for nic in facts.nics:
            if nic.numa is not None:
                self._of[nic.name] = str(nic.numa)
        close: dict[str, list[str]] = {}
        for (one, other), found in facts.seen.items():
            if any(within_node(each.level) for each in found):
                close.setdefault(one, []).append(other)
                close.setdefault(other, []).append(one)
        left = list(self._of)
        while left:
            here = left.pop()
            for other in close.get(here, ()):
                if other not in self._of:
                    self._of[other] = self._of[here]
                    left.append(other)

    def of(self, name: str) -> str | None:
        return self._of.get(name)

    def differ(self, one: str, other: str) -> bool | None:
        """Whether the way from one to the other leaves the NUMA node; None: nobody says so."""
        a, b = self._of.get(one), self._of.get(other)
        if a is not None and b is not None and a.isdecimal() == b.isdecimal():
            return a != b
        found = self.facts.told(one, other)
        if found and within_node(found.level):
            return False
        return True if found and found.level == "SYS" and found.source.nccl else None

    def crossing(self, one: str, other: str) -> bool | None:
        """Whether data between the two crosses NUMA nodes: over NVLink it does not, wherever they are."""
        found = self.facts.told(one, other)
        if found and is_nvlink(found.level):
            return False
        differ = self.differ(one, other)
        return None if differ and found is not None and found.pcie else differ


def cpu_set(text: str) -> frozenset[int]:
    """CPUs of a list such as "0-23,48-71". Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        begin, end = int(first), int(last or first)
        if end - begin > 1 << 16:
            raise ValueError(text)
        found.update(range(begin, end + 1))
    return frozenset(found)


def mask_set(text: str) -> frozenset[int]:
    """CPUs of a mask in words of 32 bits, "ff,000000ff". Raises ValueError."""
    value = 0
    for word in text.split(","):
        value = value << 32 | int(word, 16)
    return frozenset(at for at in range(value.bit_length()) if value >> at & 1)


def list_text(cpus: Iterable[int]) -> str:
    """As `cpu_set` reads it."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def bus_of(number: int) -> str:
    """The bus address of NCCL's number of it, which is its hexadecimal digits: 0x2a000 is 0000:2a:00.0."""
    return f"{number >> 20:04x}:{number >> 12 & 0xFF:02x}:{number >> 4 & 0xFF:02x}.{number & 0xF:x}"


def natural(name: str) -> tuple[object, ...]:
    """To sort by: mlx5_2 before mlx5_10."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for people, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

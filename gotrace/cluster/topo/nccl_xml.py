"""NCCL's own description of a machine: what NCCL_TOPO_DUMP_FILE writes and NCCL_TOPO_FILE reads, dumps and stubs by hand.

Levels are computed as NCCL does (src/graph/topo.cc, paths.cc): PIX by one switch, PXB between switches, PHB by the CPU, SYS
between CPUs; a Broadcom switch that shows two levels (1000:c010, 1000:c030) is one. A `gpu` element tells which NVLinks a
GPU has. Where it is missing, NCCL asks the driver when it reads the file: they are unknown then, not absent.

The file may be anybody's. Python's own parser is used, after every document type is refused: entities, which could read
other files or expand without end, can be declared nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING
from xml.parsers import expat

from gotrace.cluster.topo.model import (
    MOST_DEVICES,
    NCCL_XML,
    Facts,
    Gpu,
    Nic,
    Remark,
    Source,
    TopologyError,
    listed,
    mask_set,
    pair_of,
)
from gotrace.text import printable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_DEEPEST = 64
_NVSWITCH = "0x068000"
_BUS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# GT/s of each generation of PCIe, and what one lane of it carries, in GB/s, as NCCL counts: 12 for 16 lanes of 8 GT/s.
_LANE_GBS = {2.5: 0.1875, 5.0: 0.375, 8.0: 0.75, 16.0: 1.5, 32.0: 3.0, 64.0: 6.0}


@dataclass
class _Pci:
    """A PCI device: its way up to the CPU, nearest first."""

    bus: str
    kind: str
    cpu: int  # number of the cpu element
    numa: int | None
    above: tuple[str, ...]
    speed: float | None
    width: int | None
    told_link: bool
    element: Element
    ways: tuple[Element, ...] = ()  # switches, as they are in the file, the CPU's first
    nets: list[Element] = field(default_factory=list)


def parse_xml(text: str, first: int, file: str) -> Facts:
    """The facts of a `system` element. Raises TopologyError."""
    from xml.etree import ElementTree

    source = Source(NCCL_XML, file, first)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise TopologyError(
            f"{printable(file)}: it declares a document type, which NCCL's files never do", "remove <!DOCTYPE …>"
        )
    try:
        system = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise TopologyError(
            f"{printable(file)}:{first + line - 1}:{column + 1}: not XML: {expat.ErrorString(error.code)}",
            "dump it again: NCCL_TOPO_DUMP_FILE=topo.xml",
        ) from None
    return of_system(system, source)


def of_system(system: Element, source: Source) -> Facts:
    """The facts of such an element, wherever it is from. Raises TopologyError."""
    facts = Facts(source)
    found: list[_Pci] = []
    for number, cpu in enumerate(system.iter("cpu")):
        numa = _whole(cpu.get("numaid"))
        numa = None if numa is None or numa < 0 else numa
        _affinity(facts, cpu, numa)
        if vendor := cpu.get("vendor"):
            facts.vendors.add(vendor)
        found += _devices(cpu, number, numa, source.file)
    if len(found) > MOST_DEVICES:
        raise TopologyError(
            f"{printable(source.file)}: {len(found)} PCI devices are more than {MOST_DEVICES}", "give one machine"
        )
    gpus = [each for each in found if each.kind == "gpu"]
    _add_gpus(facts, gpus)
    nics = [each for each in found if each.kind == "nic"]
    names = _add_nics(facts, nics)
    facts.others = {each.bus: each.numa for each in found if each.kind == "other"}
    ends = [*zip(gpus, [(gpu.name,) for gpu in facts.gpus], strict=True), *zip(nics, names, strict=True)]
    for (one, mine), (other, theirs) in combinations(ends, 2):
        level = _level(one, other)
        unlinked = one.kind == other.kind == "gpu" and not (_linked(one) and _linked(other))
        for name in mine:
            for name_ in theirs:
                facts.see(name, name_, level, pcie=unlinked)
    for pci, same in ends:
        for name, other_name in combinations(same, 2):
            facts.see(name, other_name, "PIX" if pci.kind == "nic" else "LOC")
    _add_nvlinks(facts, gpus)
    _remark_links(facts, found)
    return facts


def _devices(cpu: Element, number: int, numa: int | None, file: str) -> Iterator[_Pci]:
    """All PCI devices below a CPU but bridges, and network cards that hang from the CPU itself."""
    stack: list[tuple[Element, tuple[tuple[str, Element], ...]]] = [(cpu, ())]
    while stack:
        element, way = stack.pop()
        if len(way) > _DEEPEST:
            raise TopologyError(f"{printable(file)}: PCI devices more than {_DEEPEST} deep", "this is no machine's")
        for child in reversed(element):
            if child.tag == "pci":
                stack.append((child, (*way, (child.get("busid", "").lower(), child))))
        if element is cpu:
            for at, nic in enumerate(cpu.findall("nic")):
                yield _Pci(f"nic{number}.{at}", "nic", number, numa, (), None, None, False, nic, (), nic.findall("net"))
            continue
        kind = _kind(element)
        if kind == "bridge":
            continue
        switches = _flattened([each for _, each in way[:-1]])
        link = element.get("link_speed")
        yield _Pci(
            way[-1][0],
            kind,
            number,
            numa,
            switches,
            _speed(link),
            _whole(element.get("link_width")),
            link is not None,
            element,
            tuple(each for _, each in way[:-1]),
            element.findall("nic/net"),
        )


def _kind(element: Element) -> str:
    """What a PCI device is: by its class, else by what is within it."""
    if element.find("gpu") is not None:
        return "gpu"
    if element.find("nic") is not None:
        return "nic"
    code = element.get("class", "").lower()
    for prefix, kind in (("0x0604", "bridge"), ("0x0302", "gpu"), ("0x0300", "gpu"), ("0x0200", "nic"), ("0x0207", "nic")):
        if code.startswith(prefix):
            return kind
    return "bridge" if element.find("pci") is not None else "other"


def _flattened(switches: list[Element]) -> tuple[str, ...]:
    """The bus addresses of switches on the way, nearest first; of a Broadcom switch in two levels only the upper one."""
    kept: list[Element] = []
    for element in switches:
        generation = _broadcom(element, level=1)
        if kept and generation and _broadcom(kept[-1], level=0) == generation:
            continue
        kept.append(element)
    return tuple(element.get("busid", "").lower() for element in reversed(kept))


def _broadcom(element: Element, level: int) -> int:
    """The generation of a Broadcom switch that NCCL flattens, for its upper (0) or lower (1) level; else 0."""
    keys = ("vendor", "device", "subsystem_vendor", "subsystem_device")
    vendor, device, sub_vendor, sub_device = (_whole(element.get(key)) for key in keys)
    if vendor != 0x1000 or sub_vendor != 0x1000 or sub_device is None:
        return 0
    if device == 0xC010 and sub_device & 0xF000 == 0xA000:
        return 4
    return 5 if device == 0xC030 and sub_device & 0xF000 == level * 0x1000 else 0


def _level(one: _Pci, other: _Pci) -> str:
    if one.cpu != other.cpu:
        return "SYS"
    common = [bus for bus in one.above if bus in other.above]
    if not common:
        return "PHB"
    return "PIX" if one.above.index(common[0]) == other.above.index(common[0]) == 0 else "PXB"


def _linked(pci: _Pci) -> bool:
    """Whether the file tells which NVLinks this GPU has. One that leads to the GPU itself tells nothing."""
    gpu = pci.element.find("gpu")
    return gpu is not None and not any(link.get("target", "").lower() == pci.bus for link in gpu.findall("nvlink"))


def _add_gpus(facts: Facts, gpus: list[_Pci]) -> None:
    inner = {each.bus: each.element.find("gpu") for each in gpus}
    numbers = [_whole(gpu.get("dev")) if gpu is not None else None for gpu in inner.values()]
    if None in numbers or len(set(numbers)) < len(gpus) or len(inner) < len(gpus):
        if len(inner) < len(gpus):
            raise TopologyError(f"{printable(facts.source.file)}: two GPUs have one bus address", "give one machine")
        numbers = [sorted(inner).index(bus) for bus in inner]
        if gpus:
            facts.notes.append("GPUs are numbered by bus address, as nvidia-smi does: the XML has no numbers.")
    order = sorted(range(len(gpus)), key=lambda at: numbers[at] or 0)
    gpus[:] = [gpus[at] for at in order]
    for at, pci in zip(sorted(n for n in numbers if n is not None), gpus, strict=True):
        gpu = inner[pci.bus]
        made = Gpu(f"GPU{at}", at, pci.bus, pci.numa, "" if pci.numa is None else str(pci.numa), linked=_linked(pci))
        if gpu is not None:
            made.rank = _whole(gpu.get("rank"))
            made.gdr = {"1": True, "0": False}.get(gpu.get("gdr", ""))
        facts.gpus.append(made)


def _add_nics(facts: Facts, nics: list[_Pci]) -> list[tuple[str, ...]]:
    """The NICs, and for each PCI device the names of its ports."""
    nics.sort(key=lambda each: (min((_whole(net.get("dev")) or 0 for net in each.nets), default=0), each.bus))
    names = []
    used: set[str] = set()
    for pci in nics:
        mine = []
        nets: list[Element | None] = [*pci.nets] or [None]
        for net in nets:
            name = (net.get("name") if net is not None else None) or pci.bus
            if name in used:
                name = f"{name}:{net.get('port') if net is not None else ''}"
            if name in used:
                raise TopologyError(f"{printable(facts.source.file)}: two NICs are named {printable(name)}", "rename one")
            used.add(name)
            nic = Nic(name, bus=pci.bus if _BUS.fullmatch(pci.bus) else "", numa=pci.numa)
            nic.number = len(facts.nics)
            if net is not None:
                nic.gdr = {"1": True, "0": False}.get(net.get("gdr", ""))
                speed = _whole(net.get("speed"))
                nic.gbps = speed / 1000 if speed else None
                guid = _whole(net.get("guid"))
                nic.card = f"{guid:x}" if guid else ""
            facts.nics.append(nic)
            mine.append(name)
        names.append(tuple(mine))
    return names


def _add_nvlinks(facts: Facts, gpus: list[_Pci]) -> None:
    """NVLinks over PCIe: all links of both where they end in NVSwitches, else those from one to the other."""
    by_bus = {pci.bus: gpu for pci, gpu in zip(gpus, facts.gpus, strict=True)}
    direct: dict[tuple[str, str], int] = {}
    switched: dict[str, int] = {}
    selves: list[str] = []
    for pci, gpu in zip(gpus, facts.gpus, strict=True):
        for link in pci.element.iterfind("gpu/nvlink"):
            count, target = _whole(link.get("count")) or 0, link.get("target", "").lower()
            if target == pci.bus:
                selves.append(gpu.name)
            elif link.get("tclass", "").lower() == _NVSWITCH:
                switched[gpu.name] = switched.get(gpu.name, 0) + count
            elif target in by_bus:
                direct[gpu.name, by_bus[target].name] = count
    if selves:
        text = f"the NVLinks of {listed(selves)} lead to themselves: they connect no GPUs"
        facts.remarks.append(Remark("nvlink-self", text, facts.source, tuple(selves)))
    for one, other in facts.gpu_pairs:
        count = min(switched.get(one.name, 0), switched.get(other.name, 0)) or max(
            direct.get((one.name, other.name), 0), direct.get((other.name, one.name), 0)
        )
        if count and one.linked and other.linked:
            facts.seen[pair_of(one.name, other.name)] = []
            facts.see(one.name, other.name, f"NV{count}")


def _affinity(facts: Facts, cpu: Element, numa: int | None) -> None:
    mask = cpu.get("affinity")
    if not mask or numa is None:
        return
    try:
        facts.node_cpus[numa] = mask_set(mask)
    except ValueError:
        facts.remarks.append(
            Remark("mask-odd", f"the affinity of NUMA node {numa} is not a mask: {printable(mask[:60])}", facts.source)
        )


def _remark_links(facts: Facts, found: list[_Pci]) -> None:
    """Links whose speed cannot be read, switches whose way up is slower than what is behind them, and odd masks."""
    silent = sorted(
        each.bus for each in found if each.told_link and not (each.speed and each.width) and each.kind != "other"
    )
    if silent:
        text = f"the PCIe links of {listed(silent)} have no speed or width: NCCL then assumes 0.2 GB/s"
        facts.remarks.append(Remark("pcie-slow", text, facts.source))
    slow: dict[str, str] = {}
    for pci in found:
        for switch in pci.ways:
            mine, behind = _gbs(switch), (_LANE_GBS.get(pci.speed or 0) or 0) * (pci.width or 0)
            if pci.kind == "gpu" and mine and mine < behind:
                link = f"{switch.get('link_speed', '').replace(' PCIe', '')} x{switch.get('link_width')}"
                slow[switch.get("busid", "")] = f"{link} ({mine:g} GB/s) above a GPU with {behind:g} GB/s"
    if slow:
        text = f"the uplink of {listed(sorted(slow))} is {printable(next(iter(slow.values())))}"
        facts.remarks.append(Remark("pcie-slow", text, facts.source))
    counted = {numa: len(cpus) for numa, cpus in facts.node_cpus.items()}
    for numa, count in sorted(counted.items()):
        others = sorted(other for node, other in counted.items() if node != numa)
        if len(others) > 1 and others[0] == others[-1] != count:
            text = f"the affinity mask of NUMA node {numa} has {count} CPUs, that of each other node {others[0]}"
            facts.remarks.append(Remark("mask-odd", text, facts.source))
    if any(bus.startswith("ffff:ff:") for pci in found for bus in pci.above):
        facts.notes.append("The XML was written by hand: its switches have made-up bus addresses.")


def _gbs(switch: Element) -> float:
    speed = _LANE_GBS.get(_speed(switch.get("link_speed")) or 0)
    return (speed or 0) * (_whole(switch.get("link_width")) or 0)


def _whole(text: str | None) -> int | None:
    try:
        return int(text, 0) if text and len(text) < 40 else None
    except ValueError:
        return None


def _speed(text: str | None) -> float | None:
    """GT/s of "32.0 GT/s PCIe"."""
    match = re.match(r"(\d{1,3}(?:\.\d)?) GT/s", text or "")
    return float(match[1]) if match else None

"""NCCL's log (NCCL_DEBUG=INFO, NCCL_DEBUG_SUBSYS=INIT,GRAPH,NET,ENV): what it saw, and what it decided.

Lines that are not understood are passed over, for they differ from version to version: path types go by their names, and
both `bw` and the older `speed` are known, `GPU/AB000` and the newer `GPU/0-ab000`. Lines of several hosts may be mixed.

A ring has ranks. Which GPU a rank is, only the system tree or `rank 0 … busId` says; one that is left over is found by
elimination. Otherwise it stays a rank, and where it is stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from gotrace.cluster.topo.model import (
    MOST_DEVICES,
    NCCL_LOG,
    Facts,
    Gpu,
    Nic,
    Remark,
    Ring,
    Source,
    TopologyError,
    bus_of,
    cpu_set,
    listed,
    mask_set,
    pair_of,
)
from gotrace.text import printable

LINE = re.compile(r"(?:^|\s)([\w.-]+):(\d+):(\d+) \[(-?\d+)\] NCCL (?:INFO|WARN|TRACE) ?(.*)$")
_ID = r"([0-9A-Fa-f]+)(?:-([0-9A-Fa-f]+))*"  # AB000, or behind the machine's number 0-ab000
_NOWHERE = 1 << 32  # NCCL's number of a CPU that stands for no NUMA node is -1
_CPU = re.compile(rf"CPU/{_ID} \((\d+)/(-?\d+)/(-?\d+)\)\s*$")
_TREE = re.compile(rf"(\s*)\+ (\w+)\[([\d.]+)\] - (GPU|NET|NIC|PCI|NVS|CPU)/{_ID}(?: \((\w+)[^)]*\))?")
_PATHS = re.compile(rf"(GPU|NET)/{_ID} :(.*)$")
_PATH = re.compile(rf"(GPU|NET|CPU)/{_ID} \((\d+)/([\d.]+)/(\w+)\)")
_PATTERN = re.compile(r"Pattern (\d+), crossNic (\d+), nChannels (\d+), (?:bw|speed) ([\d.]+)/([\d.]+), type (\w+)/(\w+)")
_CHANNEL = re.compile(r"\s*(\d+) :((?: (?:GPU|NET)/\d+(?:-[0-9A-Fa-f]+)*)+)\s*$")
_AFFINITY = re.compile(r"Setting affinity for GPU (\d+) to (?:mask )?([0-9a-fA-F,-]+)\s*$")
_ENVIRONMENT = re.compile(r"(NCCL_\w+) set (?:by environment )?to (.*?)\.?\s*$")
_TRANSPORT = re.compile(r"Channel \d+(?:/\d+)? : (\d+)\[\w+\] -> (\d+)\[\w+\] (?:\[\w+\] )?via (\S+)")
_ORDERED = re.compile(r"Channel (\d+)/\d+ :((?:\s+\d+)+)\s*$")
_RANK = re.compile(r"rank (\d+) nranks \d+ cudaDev (\d+)(?: nvmlDev (\d+))? busId ([0-9a-fA-F]+)")
_DEVICES = re.compile(r"\[(\d+)\]([\w.-]+):(\d+)/(\w+)")
_GDR_OF = re.compile(r"GPU Direct RDMA (Enabled|Disabled) for GPU ([0-9a-fA-F]+) / HCA ([0-9a-fA-F]+) \(distance")
_GDR = re.compile(r"GPU Direct RDMA (Enabled|Disabled) for HCA \d+ '([\w.-]+)(?::\d+)?'")
_VENDORS = {"1": "GenuineIntel", "2": "AuthenticAMD"}  # src/include/graph.h, of architecture 1, x86
_RING = 4  # the pattern


@dataclass
class _Thread:
    """What the lines of one thread of a rank are about."""

    cpu: int | None = None
    way: list[tuple[int, str]] = field(default_factory=list)  # indentation and name
    pattern: int = 0
    intra: str = ""


@dataclass
class _Host:
    facts: Facts
    gpus: dict[int, Gpu] = field(default_factory=dict)  # by NCCL's number of the bus address
    nets: dict[int, int | None] = field(default_factory=dict)  # number -> CPU
    cpus: set[int] = field(default_factory=set)
    ways: dict[str, tuple[int | None, tuple[str, ...]]] = field(default_factory=dict)  # in the tree
    nvlinked: set[str] = field(default_factory=set)  # GPUs of the tree with NVLinks
    devices: dict[int, str] = field(default_factory=dict)  # number of NET -> name
    offers: dict[str, bool] = field(default_factory=dict)  # NIC -> GPUDirect RDMA
    direct: dict[tuple[int, int], tuple[bool, Source]] = field(default_factory=dict)  # GPU and NIC: GPUDirect RDMA
    rings: dict[int, tuple[list[str], str, Source]] = field(default_factory=dict)
    orders: dict[int, tuple[list[int], Source]] = field(default_factory=dict)  # channel -> ranks, of all hosts
    rows: list[tuple[str, int, list[tuple[str, int, str]], Source]] = field(default_factory=list)
    slow: dict[str, Source] = field(default_factory=dict)
    threads: dict[tuple[str, str], _Thread] = field(default_factory=dict)


def parse_log(lines: Sequence[tuple[int, str]], file: str) -> list[Facts]:
    """The facts of each host that has lines, (number, text) each. Raises TopologyError."""
    hosts: dict[str, _Host] = {}
    for number, line in lines:
        match = LINE.search(line)
        if match is None:
            continue
        name, pid, tid, cuda, text = match.groups()
        if name not in hosts:
            hosts[name] = _Host(Facts(Source(NCCL_LOG, file, number), name))
            if len(hosts) > MOST_DEVICES:
                raise TopologyError(f"{printable(file)}: more than {MOST_DEVICES} hosts", "give fewer hosts at a time")
        host = hosts[name]
        _line(host, host.threads.setdefault((pid, tid), _Thread()), text, Source(NCCL_LOG, file, number))
        if len(host.gpus) + len(host.nets) > MOST_DEVICES:
            raise TopologyError(
                f"{printable(file)}:{number}: more than {MOST_DEVICES} devices", "this is not the log of one machine"
            )
    return [_finished(host) for _, host in sorted(hosts.items())]


def _net(stop: str) -> int:
    """The number of a NIC in a ring: decimal, behind the machine's number hexadecimal."""
    text = stop.partition("/")[2]
    return int(text.rpartition("-")[2][:6], 16 if "-" in text else 10)


def _number(first: str, second: str | None) -> int:
    """The last part of 0-ab000, which names the machine first, or all of AB000."""
    return int((second or first)[:12], 16)


def _line(host: _Host, thread: _Thread, text: str, source: Source) -> None:
    facts = host.facts
    if match := _CPU.match(text):
        thread.cpu, thread.way = _number(match[1], match[2]), []
        host.cpus.add(thread.cpu)
        if match[3] == "1" and match[4] in _VENDORS:
            facts.vendors.add(_VENDORS[match[4]])
    elif match := _TREE.match(text):
        _tree(host, thread, match, source)
    elif match := _PATHS.match(text):
        found = [(kind, _number(a, b), level) for kind, a, b, _, _, level in _PATH.findall(match[4])]
        host.rows.append((match[1], _number(match[2], match[3]), found, source))
        for kind, number, _ in found:
            _known(host, kind, number)
    elif match := _PATTERN.match(text):
        thread.pattern, thread.intra = int(match[1]), match[6]
    elif thread.pattern == _RING and (match := _CHANNEL.match(text)):
        host.rings.setdefault(int(match[1][:6]), (match[2].split(), thread.intra, source))
        for stop in match[2].split():
            if stop.startswith("NET"):
                host.nets.setdefault(_net(stop), None)
    elif match := _AFFINITY.match(text):
        try:
            cpus = cpu_set(match[2]) if "-" in match[2] else mask_set(match[2][:2000])
            facts.affinity[f"{int(match[1][:6])}"] = cpus, source
        except ValueError:
            facts.notes.append(f"The affinity of GPU {match[1]} cannot be read: {printable(match[2][:60])}.")
    elif match := _ENVIRONMENT.search(text):
        facts.environment[match[1]] = match[2], source
    elif match := _TRANSPORT.search(text):
        facts.transports.append((f"{match[1]} -> {match[2]}", match[3], source))
    elif match := _ORDERED.match(text):
        host.orders.setdefault(int(match[1][:6]), ([int(rank[:9]) for rank in match[2].split()], source))
    elif match := _RANK.search(text):
        gpu = _known(host, "GPU", int(match[4][:12], 16))
        gpu.rank = int(match[1]) if gpu.rank is None else gpu.rank  # of the first communicator, as the rings
        gpu.index = int(match[3][:4]) if match[3] else None  # cudaDev counts what CUDA_VISIBLE_DEVICES has left
    elif text.startswith("NET/IB : Using"):
        host.devices.update({int(at): name for at, name, _, _ in _DEVICES.findall(text)})
    elif text.startswith("NET/IB : No device found"):
        facts.remarks.append(Remark("log-no-ib", "NCCL found no RDMA device (NET/IB : No device found)", source))
    elif match := re.match(r"Using network (\w+)", text):
        facts.transports.append(("network", match[1], source))
    elif match := _GDR_OF.search(text):
        host.direct[int(match[2][:12], 16), int(match[3][:6], 16)] = match[1] == "Enabled", source
    elif match := _GDR.search(text):
        host.offers[match[2]] = match[1] == "Enabled"


def _known(host: _Host, kind: str, number: int) -> Gpu:
    if kind == "NET":
        host.nets.setdefault(number, None)
    elif kind == "CPU":
        host.cpus.add(number)
    elif number not in host.gpus:
        host.gpus[number] = Gpu(bus_of(number), bus=bus_of(number))
    return host.gpus.get(number) or Gpu("")


def _tree(host: _Host, thread: _Thread, match: re.Match[str], source: Source) -> None:
    indent, link, bandwidth, kind = len(match[1]), match[2], float(match[3][:12]), match[4]
    number = _number(match[5], match[6])
    thread.way = [each for each in thread.way if each[0] < indent]
    above = tuple(name for _, name in reversed(thread.way))
    name = f"{kind}/{number:x}"
    if link == "PCI" and 0 < bandwidth < 1:
        host.slow.setdefault(f"{kind}/{bus_of(number)}", source)
    if link == "NVL" and thread.way:
        host.nvlinked.add(thread.way[-1][1])
    if kind in ("GPU", "NET") and link != "NVL":
        gpu = _known(host, kind, number)
        if kind == "GPU" and match[7] and match[7].isdecimal():
            gpu.rank = int(match[7][:9])
        host.ways[name] = thread.cpu, above
    thread.way.append((indent, name))


def _homes(host: _Host) -> None:
    """The CPU node of each device: from the tree, else from the path tables, where SYS is a path to another CPU node."""
    homes: dict[tuple[str, int], int] = {}
    for name, (cpu, _) in host.ways.items():
        if cpu is not None:
            homes[name[:3], int(name[4:], 16)] = cpu
    for kind, number, found, _ in host.rows:
        cpus = {at: level for each, at, level in found if each == "CPU"}
        near = [at for at, level in cpus.items() if level != "SYS"]
        if len(near) != 1:
            continue
        homes.setdefault((kind, number), near[0])
        far = set(cpus) - set(near)
        for each, at, level in found:
            if each == "CPU" or level in ("DIS", "NET"):
                continue
            if level == "SYS" and len(far) == 1:
                homes.setdefault((each, at), next(iter(far)))
            elif level in ("LOC", "PIX", "PXB", "PHB", "P2C"):
                homes.setdefault((each, at), near[0])
    for (kind, number), cpu in homes.items():
        if kind == "NET":
            host.nets[number] = cpu if cpu < _NOWHERE else None
        elif number in host.gpus and cpu < _NOWHERE:
            host.gpus[number].numa, host.gpus[number].numa_text = cpu, str(cpu)


def _finished(host: _Host) -> Facts:
    facts = host.facts
    _homes(host)
    facts.gpus = [gpu for _, gpu in sorted(host.gpus.items())]
    numbers = [gpu.index for gpu in facts.gpus]
    for gpu in facts.gpus:
        gpu.linked = False
        if gpu.index is not None and numbers.count(gpu.index) == 1:
            gpu.name = f"GPU{gpu.index}"
        else:
            gpu.index = None
    for number, cpu in sorted(host.nets.items()):
        name = host.devices.get(number, f"NET/{number}")
        if facts.nic(name):
            name = f"NET/{number}"
        facts.nics.append(Nic(name, f"NET/{number}", number, numa=cpu, gdr=host.offers.get(name)))
    for number, name in sorted(host.devices.items()):
        if number not in host.nets and not facts.nic(name):
            facts.nics.append(Nic(name, f"NET/{number}", number, gdr=host.offers.get(name)))
    _see(host)
    _rings(host)
    for (number, net), told in host.direct.items():
        if number in host.gpus and net in host.nets:
            facts.gdr[host.gpus[number].name, _name(host, "NET", net)] = told
    if host.slow:
        text = (
            f"the PCIe link of {listed(sorted(host.slow))} counts as less than 1 GB/s for NCCL: its speed could not be read"
        )
        facts.remarks.append(Remark("pcie-slow", text, next(iter(host.slow.values()))))
    return facts


def _name(host: _Host, kind: str, number: int) -> str:
    if kind == "GPU":
        return host.gpus[number].name
    found = host.facts.nic(f"NET/{number}")
    return found.name if found else f"NET/{number}"


def _see(host: _Host) -> None:
    facts = host.facts
    for kind, number, found, source in host.rows:
        if kind == "GPU" and number not in host.gpus:
            _known(host, kind, number)
        for other, at, level in found:
            if other != "CPU" and (kind, number) != (other, at) and not (kind == "GPU" and number not in host.gpus):
                one, two = _name(host, kind, number), _name(host, other, at)
                if all(each.level != level for each in facts.seen.get(pair_of(one, two), ())):
                    facts.see(one, two, level, source)
    for (one, (cpu, way)), (other, (cpu_, way_)) in combinations(sorted(host.ways.items()), 2):
        if cpu is None or cpu_ is None:
            continue
        nic = next((name for name in way if name.startswith("NIC/")), None)
        way, way_ = (tuple(name for name in each if name.startswith("PCI/")) for each in (way, way_))
        common = [name for name in way if name in way_]
        level = "SYS" if cpu != cpu_ else "PHB"
        if nic is not None and nic in host.ways[other][1]:
            level = "LOC"
        elif common and cpu == cpu_:
            level = "PIX" if way.index(common[0]) == way_.index(common[0]) == 0 else "PXB"
        first, second = (_name(host, each[:3], int(each[4:], 16)) for each in (one, other))
        facts.see(first, second, level, pcie={one, other} <= host.nvlinked)


def _rings(host: _Host) -> None:
    facts = host.facts
    ranks = {gpu.rank: gpu.name for gpu in facts.gpus if gpu.rank is not None}
    there = {int(rank) for stops, _, _ in host.rings.values() for rank in _ranks(stops)}
    left = [gpu for gpu in facts.gpus if gpu.rank is None]
    missing = sorted(there - set(ranks))
    if len(missing) == len(left) == 1:
        left[0].rank = missing[0]
        ranks[missing[0]] = left[0].name
    elif missing and there:
        facts.notes.append(
            f"Which GPUs ranks {listed([str(each) for each in missing])} use is not in this log:"
            " set NCCL_DEBUG_SUBSYS=INIT,GRAPH."
        )
    for channel, (stops, intra, source) in sorted(host.rings.items()):
        names = []
        for stop in stops:
            kind, _, text = stop.partition("/")
            if kind == "NET":
                names.append(_name(host, "NET", _net(stop)))
            elif "-" in text:
                number = int(text.rpartition("-")[2][:12], 16)
                names.append(_known(host, "GPU", number).name)
            else:
                names.append(ranks.get(int(text[:9], 10) if text.isdecimal() else -1, f"rank {text}"))
        closes = not stops[0].startswith("NET")
        facts.rings.append(Ring(channel, tuple(names), closes, source))
        if intra == "NVL":
            for one, other in zip(names, names[1:], strict=False):
                if facts.gpu(one) and facts.gpu(other):
                    facts.see(one, other, "NVL", source)

    if not facts.rings:  # without GRAPH there is the order of ranks: a ring, if all of them are here
        for channel, (order, source) in sorted(host.orders.items()):
            if len(order) > 1 and all(rank in ranks for rank in order):
                facts.rings.append(Ring(channel, tuple(ranks[rank] for rank in order), True, source))


def _ranks(stops: Sequence[str]) -> list[str]:
    return [stop[4:13] for stop in stops if stop.startswith("GPU/") and stop[4:].isdecimal()]

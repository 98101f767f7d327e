"""PCI devices from `lspci -vvv` and from sysfs: where GPUs and NICs sit, and what sends their traffic a longer way.

With Access Control Services on a bridge (SrcValid+ ReqRedir+) peer-to-peer traffic goes up to the root and back, and with
an IOMMU that translates through it: both GPUDirect P2P and RDMA lose most of their bandwidth, or do not work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gotrace.cluster.topo.model import LSPCI, SYSFS, Facts, Gpu, Port, Remark, Source, listed, natural
from gotrace.cluster.topo.nccl_xml import of_system
from gotrace.cluster.topo.ports import physical_of, state_of
from gotrace.text import count_text

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

DEVICE = re.compile(r"((?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (?:\"?[A-Za-z0-9][^:]*)(?: \[[0-9a-f]{4}\])?: ")
_ACS = re.compile(r"\s*ACSCtl:\s.*\bSrcValid\+.*\bReqRedir\+")
_BUS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def parse_lspci(lines: Sequence[str], first: int, file: str) -> Facts:
    """`lspci -vvv`, as root: without that capabilities are denied."""
    facts = Facts(Source(LSPCI, file, first))
    redirected: list[str] = []
    at: Source = facts.source
    bus = title = ""
    denied = False
    found: dict[str, Gpu] = {}
    for number, line in enumerate(lines, first):
        if match := DEVICE.match(line):
            bus, title = match[1] if match[1].count(":") == 2 else f"0000:{match[1]}", line
            if "NVIDIA" in line and re.search(r" (3D|VGA compatible) controller", line):
                found[bus] = Gpu("", bus=bus, linked=False)
        elif _ACS.match(line) and "bridge" in title and bus not in redirected:
            at = Source(LSPCI, file, number) if not redirected else at
            redirected.append(bus)
        elif "Capabilities: <access denied>" in line:
            denied = True
        elif bus in found and (match := re.match(r"\s*NUMA node: (\d+)\s*$", line)):
            found[bus].numa, found[bus].numa_text = int(match[1][:9]), match[1][:9]
    for index, (_, gpu) in enumerate(sorted(found.items())):
        gpu.name, gpu.index = f"GPU{index}", index
        facts.gpus.append(gpu)
    if redirected:
        bridges = f"{count_text(len(redirected), 'bridge')}: {listed(redirected, 4)}"
        text = f"ACS redirects peer-to-peer traffic through the root complex on {bridges}"
        facts.remarks.append(Remark("acs", text, at, tuple(redirected)))
    if denied:
        facts.notes.append("lspci was not run as root: whether ACS is enabled is unknown.")
    return facts


def read_sysfs(root: str = "/") -> Facts | None:
    """What the kernel says of this machine's PCI devices, RDMA ports, IOMMU and default route; None without PCI devices.

    ``root`` stands in for / in tests.
    """
    from xml.etree.ElementTree import Element, SubElement

    source = Source(SYSFS)
    root = os.path.abspath(root)
    base = os.path.join(root, "sys/bus/pci/devices")
    names = sorted(name for name in _listdir(base) if _BUS.fullmatch(name))
    devices = _infiniband(root)
    system = Element("system")
    cpus: dict[str, Element] = {}
    made: dict[str, Element] = {}
    for name in names:
        # The links are in the order of names; a device's way is its real path.
        way = [part for part in os.path.realpath(os.path.join(base, name)).split(os.sep) if _BUS.fullmatch(part)]
        if not _text(root, base, name, "class").startswith(("0x0300", "0x0302", "0x0200", "0x0207")):
            continue
        numa = _text(root, base, name, "numa_node") or "-1"
        if numa not in cpus:
            cpus[numa] = SubElement(system, "cpu", numaid=numa)
        above = cpus[numa]
        for part in way:
            key = f"{numa} {part}"
            if key not in made:
                made[key] = SubElement(above, "pci", _attributes(root, base, part))
            above = made[key]
        if rdma := [device for device, bus in devices.items() if bus == name]:
            nic = SubElement(above, "nic")
            for device in sorted(rdma, key=natural):
                SubElement(nic, "net", name=device)
    for element in list(system.iter("pci")):
        # Graphics that are not NVIDIA's, and interfaces that are not RDMA's, are of no concern.
        foreign = element.get("class", "").startswith("0x03") and element.get("vendor") != "0x10de"
        plain = element.get("class", "").startswith("0x02") and element.find("nic") is None
        if foreign or plain:
            element.set("class", "0xffffff")
    facts = of_system(system, source)
    facts.others = {}
    _read_ports(facts, root)
    groups = _listdir(os.path.join(root, "sys/kernel/iommu_groups"))
    if groups and "iommu=pt" not in _text(root, "proc/cmdline"):
        text = f"the IOMMU is on ({len(groups)} groups) and iommu=pt is not on the kernel's command line"
        facts.remarks.append(Remark("iommu", text, Source(SYSFS, "/sys/kernel/iommu_groups")))
    for line in _text(root, "proc/net/route").splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000":
            facts.default_route = words[0]
            break
    return facts if names else None


def _infiniband(root: str) -> dict[str, str]:
    """RDMA devices, and the bus address of each ("" if it is no PCI device)."""
    base = os.path.join(root, "sys/class/infiniband")
    found = {}
    for name in sorted(_listdir(base), key=natural)[:256]:
        bus = os.path.basename(os.path.realpath(os.path.join(base, name, "device")))
        found[name] = bus if _BUS.fullmatch(bus) else ""
    return found


def _read_ports(facts: Facts, root: str) -> None:
    for device in _infiniband(root):
        base = os.path.join("sys/class/infiniband", device)
        card = _text(root, base, "sys_image_guid").replace(":", "").lstrip("0")
        for port in sorted(name for name in _listdir(os.path.join(root, base, "ports")) if name.isdecimal()):
            folder = os.path.join(base, "ports", port)
            rate = re.match(r"[\d.]+", _text(root, folder, "rate"))
            facts.ports.append(
                Port(
                    device,
                    int(port),
                    Source(SYSFS, f"/{folder}"),
                    state_of(_text(root, folder, "state")),
                    physical_of(_text(root, folder, "phys_state")),
                    float(rate[0]) if rate else None,
                    _text(root, folder, "link_layer") or None,
                    card=card,
                    type=_text(root, base, "hca_type"),
                )
            )


def _attributes(root: str, base: str, bus: str) -> dict[str, str]:
    keys = ("class", "vendor", "device", "subsystem_vendor", "subsystem_device")
    found = {key: _text(root, base, bus, key) for key in keys}
    found |= {key: _text(root, base, bus, f"current_{key}") for key in ("link_speed", "link_width")}
    return {"busid": bus, **{key: text for key, text in found.items() if text}}


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _text(root: str, *parts: str) -> str:
    try:
        with open(os.path.join(root, *parts), encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16).strip()
    except (OSError, ValueError):
        return ""

"""Ports of RDMA devices, as `ibstat`, `ibstatus`, `ibv_devinfo` and `ibdev2netdev` print them, and NVLinks of `nvidia-smi`.

What a source does not say stays None. `ibdev2netdev` says whether an interface is up, which for an InfiniBand port only
means that it has an IP address: it says nothing about the port.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gotrace.cluster.topo.model import (
    IBSTAT,
    IBSTATUS,
    IBV_DEVINFO,
    NETDEV,
    SMI,
    Facts,
    Port,
    Source,
    TopologyError,
    natural,
)
from gotrace.text import printable

_STATES = {"down": "Down", "init": "Initializing", "initializing": "Initializing", "armed": "Armed", "active": "Active"}
_PHYSICAL = {"linkup": "LinkUp", "polling": "Polling", "disabled": "Disabled", "sleep": "Sleep"}
NETDEV_LINE = re.compile(r"(\S+) port (\d+) ==> (\S+) \((Up|Down)\)\s*$")
NVLINK_GPU = re.compile(r"GPU (\d+): ")
NVLINK_LINK = re.compile(r"\s*Link (\d+): (.*\S)\s*$")
_KEY = re.compile(r"\s*([A-Za-z_ ]+?):\s*(.*?)\s*$")


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _rate(text: str) -> float | None:
    match = re.match(r"\d{1,6}(?:\.\d{1,3})?", text)
    return float(match[0]) if match else None


def state_of(text: str) -> str | None:
    """A port's state in the words of ibstat: of "4: ACTIVE", "PORT_DOWN (1)", "Initializing"; None: no state."""
    match = re.match(r"(?:\d+:\s*)?(?:PORT_)?([A-Za-z]+)", text)
    return _STATES.get(match[1].lower()) if match else None


def physical_of(text: str) -> str | None:
    """The physical state, likewise, of "5: LinkUp"; None: it is not said."""
    match = re.match(r"(?:\d+:\s*)?([A-Za-z]+)", text)
    return _PHYSICAL.get(match[1].lower(), match[1][:20]) if match else None


def _set(port: Port, key: str, text: str) -> None:
    """One line of any of the three."""
    key = key.lower().replace("_", " ")
    if key == "state":
        port.state = state_of(text)
    elif key in ("physical state", "phys state"):
        port.physical = physical_of(text)
    elif key == "rate":
        port.rate = _rate(text)
    elif key == "link layer":
        port.layer = text if text in ("InfiniBand", "Ethernet") else None
    elif key == "sm lid":
        port.sm_lid = _number(text)


def parse_ibstat(lines: Sequence[str], first: int, file: str) -> Facts:
    """`ibstat`: devices in the order of names as text (mlx5_10 before mlx5_2); "ibpanic" at the end is no port."""
    facts = Facts(Source(IBSTAT, file, first))
    device = kind = card = ""
    port: Port | None = None
    for number, line in enumerate(lines, first):
        if match := re.match(r"\s*CA '([^']+)'", line):
            device, kind, card, port = match[1], "", "", None
        elif match := re.match(r"\s*Port (\d+):\s*$", line):
            port = Port(device, int(match[1]), Source(IBSTAT, file, number), card=card, type=kind)
            facts.ports.append(port)
        elif match := _KEY.match(line):
            if match[1] == "CA type":
                kind = match[2]
            elif match[1] == "System image GUID":
                card = _guid(match[2])
            elif port is not None:
                _set(port, match[1], match[2])
    return _sorted(facts)


def parse_ibstatus(lines: Sequence[str], first: int, file: str) -> Facts:
    """`ibstatus`."""
    facts = Facts(Source(IBSTATUS, file, first))
    for number, line in enumerate(lines, first):
        if match := re.match(r"\s*Infiniband device '([^']+)' port (\d+) status:", line):
            facts.ports.append(Port(match[1], int(match[2]), Source(IBSTATUS, file, number)))
        elif facts.ports and (match := _KEY.match(line)):
            _set(facts.ports[-1], match[1], match[2])
    return _sorted(facts)


def parse_devinfo(lines: Sequence[str], first: int, file: str) -> Facts:
    """`ibv_devinfo`, which does not say how fast a port is, nor its physical state."""
    facts = Facts(Source(IBV_DEVINFO, file, first))
    device = kind = card = ""
    port: Port | None = None
    for number, line in enumerate(lines, first):
        match = _KEY.match(line)
        if match is None:
            continue
        key, text = match[1], match[2]
        if key == "hca_id":
            device, kind, card, port = text, "", "", None
        elif key == "port" and text.isdecimal():
            port = Port(device, int(text), Source(IBV_DEVINFO, file, number), card=card, type=kind)
            facts.ports.append(port)
        elif key == "vendor_part_id":
            kind = f"MT{text}"
        elif key == "sys_image_guid":
            card = _guid(text)
        elif port is not None:
            _set(port, key, text)
    return _sorted(facts)


def parse_netdevs(lines: Sequence[str], first: int, file: str) -> Facts:
    """`ibdev2netdev`."""
    facts = Facts(Source(NETDEV, file, first))
    for line in lines:
        if match := NETDEV_LINE.match(line.strip()):
            facts.netdevs[match[1]] = match[3], match[4] == "Up"
    return facts


def parse_nvlinks(lines: Sequence[str], first: int, file: str) -> Facts:
    """`nvidia-smi nvlink -s`: of each GPU how many links have a rate, and how many there are."""
    facts = Facts(Source(SMI, file, first))
    gpu = ""
    for number, line in enumerate(lines, first):
        if match := NVLINK_GPU.match(line.strip()):
            gpu = f"GPU{int(match[1])}"
        elif gpu and (match := NVLINK_LINK.match(line)):
            up, every, source = facts.links.get(gpu, (0, 0, Source(SMI, file, number)))
            facts.links[gpu] = up + bool(re.match(r"[\d.]+ GB/s", match[2])), every + 1, source
    return facts


def _guid(text: str) -> str:
    """A GUID without what only its spelling has; "" for one that is not set."""
    return text.lower().removeprefix("0x").replace(":", "").lstrip("0")


def _sorted(facts: Facts) -> Facts:
    seen = set()
    for port in facts.ports:
        if (port.device, port.port) in seen:
            place = f"{printable(port.source.file)}:{port.source.line}"
            raise TopologyError(
                f"{place}: {printable(port.device)} port {port.port} appears twice",
                "give the output of one machine, or of several with --nodes",
            )
        seen.add((port.device, port.port))
    facts.ports.sort(key=lambda port: (natural(port.device), port.port))
    return facts

"""What NCCL does between two devices by default, and why: peer-to-peer, and GPUDirect RDMA.

The rules are NCCL's (src/graph/paths.cc of 2026-06): P2P up to PXB, on AMD with at most two GPUs up to SYS, and only where
the driver's own P2P status is OK; GPUDirect RDMA up to PXB (P2C with a chip-to-chip link), if both the GPU's driver and the
NIC offer it; PXN through a GPU that is connected by NVLink and has the NIC that near.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gotrace.cluster.topo.model import NEAR, ORDER, Facts, Gpu, Nic, is_nvlink, links_of, pair_of, rank

Answer = Literal["yes", "possible", "pxn", "unknown", "no"]
# Best first.
ANSWERS: tuple[Answer, ...] = ("yes", "possible", "pxn", "unknown", "no")

_STATUS = {
    "CNS": "the chipset does not support it",
    "GNS": "the GPU does not support it",
    "TNS": "the topology does not support it",
    "NS": "it is not supported",
    "DR": "it is disabled by a registry key of the driver",
    "U": "the driver does not know",
}


@dataclass(frozen=True)
class Verdict:
    """Whether, and why. ``possible``: the distance allows it, what else it takes is not known. ``via``: the GPU of PXN."""

    answer: Answer
    why: str
    source: str
    via: str = ""


# What NCCL takes for a level (ncclGetLevel of src/graph/paths.cc): these words, in capitals, and the numbers of old.
LEVELS = tuple(level for level in ORDER if level not in ("NODE", "NET", "DIS"))
_NUMBERED = ("LOC", "PIX", "PXB", "PHB", "SYS")


def level_set(facts: Facts, variable: str) -> str | None:
    """The level that a variable sets; None: it is not set, or NCCL ignores what it says."""
    value = facts.environment.get(variable, ("", None))[0].strip()
    if number := re.match(r"[0-9]+", value):
        return _NUMBERED[min(int(number[0][:9]), len(_NUMBERED) - 1)]
    return value if value in LEVELS else None


def _limit(facts: Facts, variable: str, default: str) -> tuple[str, str]:
    """How far is near enough, and who says so: a variable that names a level, or NCCL's default."""
    level = level_set(facts, variable)
    if level is None:
        return default, f"NCCL's default, {default}"
    return level, f"{variable}={level} ({facts.environment[variable][1]})"


def p2p(facts: Facts, one: str, other: str) -> Verdict:
    """Whether NCCL moves data between two GPUs without the host's memory."""
    told = facts.told(one, other)
    status, said = facts.p2p.get(pair_of(one, other), ("", None))
    if told is None:
        return Verdict("unknown", "their distance is unknown", "")
    source = f"{told.source}; {said}" if said else str(told.source)
    if facts.environment.get("NCCL_P2P_DISABLE", ("", None))[0] == "1":
        return Verdict("no", "NCCL_P2P_DISABLE=1", str(facts.environment["NCCL_P2P_DISABLE"][1]))
    if status and status != "OK":
        return Verdict("no", f"P2P status {status}: {_STATUS.get(status, 'not OK')}", source)
    limit, by = _limit(facts, "NCCL_P2P_LEVEL", "PXB")
    if is_nvlink(told.level) and rank(told.level) <= rank(limit):
        return Verdict("yes", told.level, source)
    if rank(told.level) <= rank(limit):
        if status == "OK":
            return Verdict("yes", f"{told.level}, P2P status OK", source)
        return Verdict("possible", f"{told.level} is near enough; the P2P status is unknown", source)
    if told.pcie:
        return Verdict("unknown", f"{told.level} by PCIe; this file does not show NVLinks", source)
    if len(facts.gpus) <= 2 and level_set(facts, "NCCL_P2P_LEVEL") is None and facts.vendors <= {"AuthenticAMD"}:
        if facts.vendors:
            return Verdict(
                "yes" if status else "possible", f"{told.level}: with AMD and two GPUs, NCCL goes that far", source
            )
        return Verdict(
            "unknown", f"{told.level}: NCCL does so only with AMD processors, and the processor is unknown", source
        )
    return Verdict("no", f"{told.level} is farther than {by}", source)


def gdr(facts: Facts, gpu: Gpu, nic: Nic) -> Verdict:
    """Whether data goes from the NIC to the GPU's memory and back without the host's."""
    own = _gdr_directly(facts, gpu, nic)
    if own.answer in ("yes", "possible") or facts.environment.get("NCCL_PXN_DISABLE", ("", None))[0] == "1":
        return own
    relays = []
    for peer in facts.gpus:
        way = facts.level(gpu.name, peer.name)
        if peer is not gpu and is_nvlink(way) and _gdr_directly(facts, peer, nic).answer in ("yes", "possible"):
            relays.append((-(links_of(way) or 0), peer.index or 0, peer.name))
    if relays:
        name = min(relays)[2]
        return Verdict("pxn", f"through {name}: {own.why}", own.source, name)
    return own


def _gdr_directly(facts: Facts, gpu: Gpu, nic: Nic) -> Verdict:
    if said := facts.gdr.get((gpu.name, nic.name)):
        return Verdict("yes" if said[0] else "no", f"NCCL says {'Enabled' if said[0] else 'Disabled'}", str(said[1]))
    told = facts.told(gpu.name, nic.name)
    if told is None:
        return Verdict("unknown", "their distance is unknown", "")
    source = str(told.source)
    for device, what in ((gpu, ": nvidia-peermem or DMA-BUF is missing"), (nic, "")):
        if device.gdr is False:
            return Verdict("no", f"{device.name} does not offer GPUDirect RDMA{what}", source)
    limit, by = _limit(facts, "NCCL_NET_GDR_LEVEL", "PXB")
    if rank(told.level) <= rank(limit) or told.level == "P2C":
        if gpu.gdr and nic.gdr:
            return Verdict("yes", f"{told.level}, and both offer it", source)
        return Verdict("possible", f"{told.level} is near enough; whether both offer it is unknown", source)
    if not told.source.nccl and any(each.memory_node is not None for each in facts.gpus):
        return Verdict("unknown", f"{told.level}: nvidia-smi does not show chip-to-chip links, which NCCL uses", source)
    return Verdict("no", f"{told.level} is farther than {by}", source)


def best_gdr(facts: Facts, gpu: Gpu) -> tuple[Verdict, Nic | None]:
    """The best of a GPU's NICs for it, the nearest of those that are equal."""
    found = [
        (ANSWERS.index(verdict.answer), rank(facts.level(gpu.name, nic.name)), at, verdict, nic)
        for at, nic in enumerate(facts.nics)
        for verdict in [gdr(facts, gpu, nic)]
    ]
    if not found:
        return Verdict("unknown", "no NIC is known", ""), None
    _, _, _, verdict, nic = min(found, key=lambda each: each[:3])
    return verdict, nic


def near_nics(facts: Facts, gpu: Gpu) -> list[Nic]:
    """A GPU's own NICs: those as near as the nearest, within PXB."""
    levels = {nic.name: rank(facts.level(gpu.name, nic.name)) for nic in facts.nics}
    nearest = min(levels.values(), default=len(ORDER))
    if nearest > max(rank(level) for level in NEAR):
        return []
    return [nic for nic in facts.nics if levels[nic.name] == nearest]


def usable(facts: Facts, nic: Nic) -> bool | None:
    """Whether one of the NIC's ports can pass data; None: nobody says."""
    known = [port.usable for port in facts.ports if port.device == nic.name and port.usable is not None]
    return any(known) if known else None

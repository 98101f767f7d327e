"""Which of NCCL's variables to set on this machine, each with why and what it changes; and which to leave alone.

NCCL_IB_DISABLE=1 is in nobody's interest and never recommended: it does not switch to RoCE, it switches RoCE off, too.
What may help and may harm is marked to be measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gotrace.cluster.topo.model import Facts, Nodes, Port, listed, natural, pair_of
from gotrace.cluster.topo.rings import compute_nics, counted
from gotrace.cluster.topo.rules import best_gdr, p2p, usable
from gotrace.cluster.topo.verdicts import findings
from gotrace.records.topo import TopologySettings, TopoSetting


def settings(facts: Facts) -> TopologySettings:
    """All of them. Names are as they are: who writes them for a shell or a file has to quote them."""
    return TopologySettings(
        type="topology_settings",
        name=facts.host,
        settings=[*_unset(facts), *_hca(facts), *_gdr(facts), *_p2p(facts), *_files(facts), *_socket(facts)],
        left_alone=list(_left(facts)),
    )


def _setting(variable: str, value: str | None, why: str, changes: str, source: str, measure: bool = False) -> TopoSetting:
    return TopoSetting(variable=variable, value=value, measure=measure, why=why, changes=changes, source=source)


def _unset(facts: Facts) -> Iterator[TopoSetting]:
    """What is set and harms: the findings say it."""
    nodes = Nodes(facts)
    for finding in findings(facts, nodes, counted(facts, nodes), 1 << 30):
        match = re.fullmatch(r"unset (NCCL_\w+)", finding.do)
        if match and finding.code.startswith("env-"):
            yield _setting(match[1], None, finding.what, "NCCL chooses by itself again", finding.source)


def _hca(facts: Facts) -> Iterator[TopoSetting]:
    """The ports of the GPUs' NICs that are up, at the rate that most of them have, by exact names."""
    names = {nic.name for nic in compute_nics(facts) if nic.named}
    live = [port for port in facts.ports if port.usable and (port.device in names or not names)]
    if (facts.ports and not live) or any(map(_efa, names)):
        return
    if live:
        layers = {port.layer for port in live if port.layer}
        best = max(port.rate or 0 for port in live)
        chosen = sorted({port.device for port in live if (port.rate or 0) == best}, key=natural)
        dropped = sorted({port.device for port in facts.ports} - set(chosen), key=natural)
        why = f"up at {best:g} Gb/s" if best else "up"
        why += " and nearest to the GPUs" if names else "; which NICs are near GPUs is unknown here"
        if len(layers) > 1:
            why += f"; of different link layers ({', '.join(sorted(layers))}): keep those of one fabric"
        changes = f"leaves out {listed(dropped)}" if dropped else "keeps NCCL from using devices that are added later"
        if silent := sorted(names - {port.device for port in facts.ports}, key=natural):
            changes += f"; add {listed(silent)} if active: their port states are unknown"
        changes += _merged([port for port in live if port.device in chosen])
        yield _setting("NCCL_IB_HCA", "=" + ",".join(chosen), why, changes, str(live[0].source))
    elif names:
        near = sorted(names, key=natural)
        why = "nearest to the GPUs; whether their ports are up is unknown here: see ibstat"
        others = sorted({nic.name for nic in facts.nics} - names, key=natural)
        changes = f"leaves out {listed(others)}" if others else "keeps NCCL from using devices that are added later"
        source = str(facts.sources[0]) if facts.sources else ""
        yield _setting("NCCL_IB_HCA", "=" + ",".join(near), why, changes, source, measure=bool(facts.ports))


def _efa(name: str) -> bool:
    """rdma-core (rdma_rename) calls what is neither InfiniBand, RoCE nor iWARP rdma, and then its place on the bus."""
    return re.match(r"rdmap\d|efa_\d", name) is not None


def _merged(ports: Sequence[Port]) -> str:
    """Which ports NCCL makes one device of (NCCL_IB_MERGE_NICS is on by default)."""
    cards: dict[str, list[str]] = {}
    for port in ports:
        if port.card:
            cards.setdefault(port.card, []).append(port.device)
    both = [" and ".join(devices) for devices in cards.values() if len(set(devices)) > 1]
    return f"; ports of one card become one device: {listed(both, 4)}" if both else ""


def _gdr(facts: Facts) -> Iterator[TopoSetting]:
    """PHB only where every GPU's NIC is no nearer than the processor, and to be measured."""
    if not facts.nics or "NCCL_NET_GDR_LEVEL" in facts.environment:
        return
    off = [gpu for gpu in facts.gpus if best_gdr(facts, gpu)[0].answer == "no"]
    able = [nic for nic in facts.nics if nic.gdr is not False]
    reach = [gpu for gpu in off if any(facts.level(gpu.name, nic.name) in ("PHB", "NODE") for nic in able)]
    if reach and all(gpu.gdr is not False for gpu in reach):
        verdict = best_gdr(facts, reach[0])[0]
        yield _setting(
            "NCCL_NET_GDR_LEVEL",
            "PHB",
            f"{listed([gpu.name for gpu in reach])}: {verdict.why}",
            "NICs write to GPU memory through the processor, which some forward fast and others do not",
            verdict.source,
            measure=True,
        )


def _p2p(facts: Facts) -> Iterator[TopoSetting]:
    """Farther P2P only where the driver says that it works."""
    if "NCCL_P2P_LEVEL" in facts.environment:
        return
    able = []
    for one, other in facts.gpu_pairs:
        status, source = facts.p2p.get(pair_of(one.name, other.name), ("", None))
        if status == "OK" and p2p(facts, one.name, other.name).answer == "no":
            able.append((facts.level(one.name, other.name), source))
    if able:
        level = "SYS" if any(each == "SYS" for each, _ in able) else "PHB"
        yield _setting(
            "NCCL_P2P_LEVEL",
            level,
            f"the driver allows P2P on {len(able)} pairs that are farther apart than NCCL goes by default",
            "GPUs write to each other through the processor instead of host memory",
            str(able[0][1]),
            measure=True,
        )


def _files(facts: Facts) -> Iterator[TopoSetting]:
    remark = next((each for each in facts.remarks if each.code == "pcie-slow"), None)
    if remark is not None and "NCCL_TOPO_FILE" not in facts.environment:
        yield _setting(
            "NCCL_TOPO_FILE",
            "/path/to/topology.xml",
            remark.text,
            "in a VM: the cloud's file for this instance type replaces what the VM hides",
            str(remark.source),
            measure=True,
        )


def _socket(facts: Facts) -> Iterator[TopoSetting]:
    if facts.default_route and "NCCL_SOCKET_IFNAME" not in facts.environment:
        yield _setting(
            "NCCL_SOCKET_IFNAME",
            f"={facts.default_route}",
            f"{facts.default_route} has the default route",
            "NCCL's bootstrap uses it, and not a container bridge",
            "sysfs, /proc/net/route",
        )


def _left(facts: Facts) -> Iterator[str]:
    best = [best_gdr(facts, gpu)[0].answer for gpu in facts.gpus]
    if facts.nics and best and all(each in ("yes", "possible", "pxn") for each in best):
        yield "NCCL_NET_GDR_LEVEL: every GPU reaches a NIC within PXB, or through another GPU; the default is right."
    if efa := [nic.name for nic in facts.nics if _efa(nic.name)]:
        yield f"NCCL_IB_HCA: {listed(efa, 4)}: EFA is used by libfabric's plugin (aws-ofi-nccl), not by NCCL's InfiniBand."
    if facts.nics:
        yield "NCCL_CROSS_NIC: whether rails are connected cannot be seen from one node."
        yield "NCCL_IB_GID_INDEX: NCCL 2.21 and later choose it; for earlier versions, show_gids prints that of RoCE v2."
    if any(usable(facts, nic) for nic in facts.nics) or any(port.usable for port in facts.ports):
        yield "NCCL_IB_DISABLE: leave it unset. 1 does not switch to RoCE, it disables RoCE as well."

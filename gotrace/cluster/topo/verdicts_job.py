"""What a job is set to that does harm here, and what its log says that it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gotrace.cluster.topo import variables
from gotrace.cluster.topo.finding import Finding, device_names, live_ports
from gotrace.cluster.topo.model import Facts, is_nvlink, listed, pair_of, rank
from gotrace.cluster.topo.rings import compute_nics
from gotrace.cluster.topo.rules import best_gdr, level_set
from gotrace.text import count_text

_SETTABLE = ("LOC", "PIX", "PXB", "PHB", "SYS")


def environment(facts: Facts) -> Iterator[Finding]:
    """Settings that do harm here."""
    settings = {name: (value.strip(), str(source)) for name, (value, source) in facts.environment.items()}

    def value(name: str) -> str:
        return settings.get(name, ("", ""))[0]

    live = live_ports(facts)
    ports = f"{count_text(len(live), 'RDMA port')} up: {listed([port.device for port in live], 4)}"
    if value("NCCL_IB_DISABLE") not in ("", "0"):
        yield Finding(
            "env-ib-disable",
            "wrong" if live else "warning",
            f"NCCL_IB_DISABLE={value('NCCL_IB_DISABLE')} disables InfiniBand and RoCE: NCCL uses TCP sockets",
            "unset NCCL_IB_DISABLE",
            ports if live else "whether this node has active RDMA ports is unknown",
            settings["NCCL_IB_DISABLE"][1],
        )
    if value("NCCL_NET").lower() == "socket" and live:
        source = settings["NCCL_NET"][1]
        yield Finding("env-socket", "wrong", "NCCL_NET=Socket leaves the RDMA ports idle", "unset NCCL_NET", ports, source)
    # A name is a prefix, but for one behind "="; what is behind "^" is left out.
    taken = [name.lstrip("=") for name in value("NCCL_SOCKET_IFNAME").split(",") if name]
    if taken and not taken[0].startswith("^") and all(name.split(":")[0] == "lo" for name in taken):
        yield Finding(
            "env-loopback",
            "warning",
            f"NCCL_SOCKET_IFNAME={value('NCCL_SOCKET_IFNAME')} names the loopback interface: nodes cannot reach each other",
            "unset NCCL_SOCKET_IFNAME, unless the job has one node",
            "the start-up of every job, and all data where there is no RDMA, goes over this interface",
            settings["NCCL_SOCKET_IFNAME"][1],
        )
    for name in sorted(settings):
        if near := variables.meant(name):
            yield Finding(
                "env-unknown",
                "warning",
                f"{name} is set, but unknown to NCCL: it has no effect",
                f"is it {near}?",
                "NCCL ignores unknown names",
                settings[name][1],
            )
    if value("NCCL_P2P_DISABLE") == "1" and len(facts.gpus) != 1:
        yield Finding(
            "env-p2p",
            "wrong",
            "NCCL_P2P_DISABLE=1: GPUs exchange everything through host memory",
            "unset NCCL_P2P_DISABLE",
            "it disables NVLink, too",
            settings["NCCL_P2P_DISABLE"][1],
        )
    if value("NCCL_SHM_DISABLE") == "1":
        yield Finding(
            "env-shm",
            "warning",
            "NCCL_SHM_DISABLE=1: GPUs without peer-to-peer exchange data over the network",
            "unset NCCL_SHM_DISABLE",
            "within a node, NCCL uses shared memory where P2P is not possible",
            settings["NCCL_SHM_DISABLE"][1],
        )
    for name, code in (("NCCL_NET_GDR_LEVEL", "env-gdr"), ("NCCL_P2P_LEVEL", "env-p2p")):
        if value(name) and level_set(facts, name) is None:
            yield Finding(
                code,
                "warning",
                f"{name}={value(name)} names no level: NCCL ignores it",
                f"unset it, or write one of {', '.join(_SETTABLE)}",
                "NCCL accepts these words, in upper case",
                settings[name][1],
            )
    if level_set(facts, "NCCL_NET_GDR_LEVEL") == "LOC":
        yield Finding(
            "env-gdr",
            "wrong",
            f"NCCL_NET_GDR_LEVEL={value('NCCL_NET_GDR_LEVEL')} disables GPUDirect RDMA",
            "unset NCCL_NET_GDR_LEVEL",
            "no NIC is that near",
            settings["NCCL_NET_GDR_LEVEL"][1],
        )
    elif level_set(facts, "NCCL_NET_GDR_LEVEL") == "SYS" and facts.gpus:
        yield Finding(
            "env-gdr",
            "warning",
            f"NCCL_NET_GDR_LEVEL={value('NCCL_NET_GDR_LEVEL')} lets NICs write to GPUs on the other side of the machine",
            "measure it against NCCL_NET_GDR_LEVEL unset, and keep the faster setting",
            "across sockets, that is often slower than a copy through host memory",
            settings["NCCL_NET_GDR_LEVEL"][1],
        )
    level = level_set(facts, "NCCL_P2P_LEVEL")
    if level == "LOC":
        yield Finding(
            "env-p2p",
            "wrong",
            f"NCCL_P2P_LEVEL={value('NCCL_P2P_LEVEL')}: GPUs exchange everything through host memory",
            "unset NCCL_P2P_LEVEL",
            "no other GPU is that near",
            settings["NCCL_P2P_LEVEL"][1],
        )
    elif level and rank(level) > rank("PXB"):
        far = [
            (one.name, other.name)
            for one, other in facts.gpu_pairs
            if rank("PXB") < rank(facts.level(one.name, other.name)) <= rank(level)
            and facts.p2p.get(pair_of(one.name, other.name), ("", None))[0] != "OK"
        ]
        if far:
            yield Finding(
                "env-p2p",
                "warning",
                f"NCCL_P2P_LEVEL={level} is beyond NCCL's default, and no P2P status says OK for {len(far)} such pairs",
                "see nvidia-smi topo -p2p r, and measure it against NCCL_P2P_LEVEL unset",
                f"{far[0][0]} to {far[0][1]} is {facts.level(*far[0])}",
                settings["NCCL_P2P_LEVEL"][1],
                far[0],
            )
    if value("NCCL_PXN_DISABLE") == "1":
        plain = replace(facts, environment={k: v for k, v in facts.environment.items() if k != "NCCL_PXN_DISABLE"})
        lost = [
            gpu.name for gpu in facts.gpus if best_gdr(facts, gpu)[0].answer == "no" and best_gdr(plain, gpu)[1] is not None
            and best_gdr(plain, gpu)[0].answer == "pxn"
        ]  # fmt: skip
        if lost:
            yield Finding(
                "env-pxn",
                "warning",
                f"NCCL_PXN_DISABLE=1: {listed(lost)} cannot use the NIC of another GPU over NVLink",
                "unset NCCL_PXN_DISABLE",
                "they have no NIC of their own within PXB",
                settings["NCCL_PXN_DISABLE"][1],
                tuple(lost),
            )
    yield from _hca(facts, *settings.get("NCCL_IB_HCA", ("", "")))


def _hca(facts: Facts, value: str, source: str) -> Iterator[Finding]:
    """NCCL_IB_HCA: `^` excludes, `=` is exact, and else a name is the beginning of names."""
    text = value.lstrip("^=")
    devices = device_names(facts)
    if not text or not devices:
        return
    exact, excludes = "=" in value[:2], value.startswith("^")
    names = [part.split(":")[0] for part in text.split(",") if part]
    taken = [each for each in devices if any(each == name if exact else each.startswith(name) for name in names)]
    more = [
        each for each in taken if each not in names and any(name in devices and each.startswith(name) for name in names)
    ]
    if more and not exact:
        yield Finding(
            "env-hca",
            "wrong",
            f"NCCL_IB_HCA={value} {'leaves out' if excludes else 'takes'} {listed(more)} too",
            f"export NCCL_IB_HCA={'^' if excludes else ''}={text}",
            "names match as prefixes: without a leading =, mlx5_1 also means mlx5_10",
            source,
            tuple(more),
        )
    used = [each for each in devices if (each in taken) != excludes]
    states = {name: [port for port in facts.ports if port.device == name] for name in used}
    down = [name for name, ports in states.items() if ports and not any(port.usable for port in ports)]
    if facts.ports and not any(port.usable for ports in states.values() for port in ports) and live_ports(facts):
        yield Finding(
            "env-hca",
            "wrong",
            f"NCCL_IB_HCA={value} leaves no active port",
            "correct the names",
            f"active are {listed([port.device for port in live_ports(facts)])}",
            source,
        )
    elif down:
        do = f"take out {listed(down)}" if not excludes else f"add {listed(down)}"
        what = f"NCCL_IB_HCA={value} includes {listed(down)}, which cannot pass data"
        yield Finding("env-hca", "warning", what, do, "no port of it is Active", source, tuple(down))
    live = {port.device for port in live_ports(facts)}
    left = [nic.name for nic in compute_nics(facts) if nic.name in live and nic.name not in used] if facts.gpus else []
    if left and live & set(used):
        yield Finding(
            "env-hca",
            "note",
            f"NCCL_IB_HCA={value} leaves out {listed(left)}, which {'are' if len(left) > 1 else 'is'} up",
            "add those on the same fabric",
            "for some GPUs, no other NIC is nearer",
            source,
            tuple(left),
        )


def log(facts: Facts) -> Iterator[Finding]:
    """What NCCL's log says it does."""
    sockets = [each for each in facts.transports if each[1].startswith("NET/Socket") or each[1].lower() == "socket"]
    if sockets:
        live = live_ports(facts)
        yield Finding(
            "log-socket",
            "wrong" if live else "warning",
            "NCCL uses TCP sockets between nodes",
            "check the NET/IB lines earlier in the log; unset NCCL_IB_DISABLE and NCCL_NET",
            f"{count_text(len(live), 'RDMA port')} up" if live else "whether this node has active RDMA ports is unknown",
            str(sockets[0][2]),
        )
    over_ib = [each for each in facts.transports if each[1].startswith("NET/IB/")]
    without = [each for each in over_ib if "GDRDMA" not in each[1]]
    if without:
        yield Finding(
            "log-no-gdr",
            "wrong",
            f"GPUDirect RDMA is not used on {len(without)} of {len(over_ib)} connections over the network",
            "load nvidia-peermem (or a driver with DMA-BUF) and check which NIC is near which GPU: gotrace topo show",
            f"{without[0][0]} goes via {without[0][1]}, without /GDRDMA",
            str(without[0][2]),
        )
    nvlinked = facts.gpus and all(is_nvlink(facts.level(a.name, b.name)) for a, b in facts.gpu_pairs)
    shared = [each for each in facts.transports if each[1].startswith("SHM")]
    if shared and nvlinked and len(facts.gpus) > 1:
        yield Finding(
            "log-shm",
            "wrong",
            f"{len(shared)} connections within the node go through host memory, though all GPUs have NVLink",
            "unset NCCL_P2P_DISABLE and NCCL_P2P_LEVEL; in containers give all GPUs to every process",
            f"{shared[0][0]} goes via {shared[0][1]}",
            str(shared[0][2]),
        )

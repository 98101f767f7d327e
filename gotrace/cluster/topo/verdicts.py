"""What is wrong with a machine for NCCL, with the evidence, who gave it, and what to change.

``wrong`` costs speed or a job and can be changed; a ``warning`` may; a ``note`` is a trap for who configures by hand. No
finding claims more than its source shows: an interface without an address is no port that is down, SYS is no crossing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gotrace.cluster.topo import variables
from gotrace.cluster.topo.model import (
    NCCL_LOG,
    NCCL_XML,
    NEAR,
    SMI,
    UNKNOWN,
    Facts,
    Gpu,
    Nic,
    Nodes,
    Port,
    cpu_set,
    is_nvlink,
    links_of,
    list_text,
    listed,
    natural,
    pair_of,
    rank,
    within_node,
)
from gotrace.cluster.topo.rings import Counted, compute_nics
from gotrace.cluster.topo.rules import best_gdr, level_set, near_nics, p2p
from gotrace.text import count_text

Severity = Literal["wrong", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("wrong", "warning", "note")
CROSSINGS = 2  # the least that a ring over two NUMA nodes without NVLink can have


@dataclass(frozen=True)
class Finding:
    """``what`` is wrong, in one sentence; ``do`` what to change; ``why`` the evidence; ``source`` who gave it."""

    code: str
    severity: Severity
    what: str
    do: str
    why: str
    source: str
    devices: tuple[str, ...] = ()


# Of remarks that a source made: how bad it is, and what to do.
_REMARKS: dict[str, tuple[Severity, str, str]] = {
    "acs": (
        "wrong",
        "disable ACS on these bridges (in the BIOS, or setpci -s BRIDGE ECAP_ACS+0x6.w=0000), unless this is a VM host",
        "with SrcValid+ and ReqRedir+, traffic between PCIe devices goes up to the root complex and back",
    ),
    "iommu": (
        "warning",
        "boot with iommu=pt, unless devices are passed through to VMs",
        "with a translating IOMMU, peer-to-peer traffic goes through the root complex, or fails",
    ),
    "pcie-slow": (
        "warning",
        "in a VM, give NCCL the cloud's topology file (NCCL_TOPO_FILE); on bare metal, compare LnkCap with LnkSta in "
        "lspci -vv",
        "NCCL rates every path by its slowest link, and chooses rings accordingly",
    ),
    "mask-odd": ("warning", "correct the affinity in the file", "NCCL binds its threads to these CPUs"),
    "nvlink-self": (
        "warning",
        "correct the nvlink targets in the file, or remove these elements: NCCL then asks the driver",
        "an nvlink element names the GPU or switch at the other end",
    ),
    "contradiction": (
        "warning",
        "find out which of the two is outdated or from another machine",
        "the two sources contradict each other",
    ),
    "log-no-ib": (
        "wrong",
        "make the RDMA devices visible to the job (in containers /dev/infiniband, and the driver's user-space library)",
        "NCCL then uses TCP sockets",
    ),
}
_SETTABLE = ("LOC", "PIX", "PXB", "PHB", "SYS")
_ORDER = (
    "odd-node",
    "env-ib-disable",
    "env-loopback",
    "env-unknown",
    "env-socket",
    "log-socket",
    "log-no-ib",
    "port-down",
    "port-initializing",
    "nvlink-dead",
    "nvlink-uneven",
    "p2p-status",
    "acs",
    "log-no-gdr",
    "crossings",
)


def findings(facts: Facts, nodes: Nodes, rings: Sequence[Counted], most_crossings: int | None) -> list[Finding]:
    """Everything, the worst first. ``most_crossings`` None: nobody has set a limit."""
    found = [
        *_environment(facts),
        *_log(facts),
        *_ports(facts),
        *_nvlinks(facts),
        *_p2p(facts, rings),
        *_crossings(rings, most_crossings),
        *_gdr(facts),
        *_nics(facts),
        *_distances(facts, nodes),
        *_columns(facts, nodes),
        *_affinity(facts),
        *_whole(facts),
    ]
    for remark in facts.remarks:
        severity, do, why = _REMARKS[remark.code]
        found.append(Finding(remark.code, severity, remark.text, do, why, str(remark.source), remark.devices))
    places = {code: at for at, code in enumerate(_ORDER)}
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), places.get(each.code, len(_ORDER))))


def _live(facts: Facts) -> list[Port]:
    return [port for port in facts.ports if port.usable]


def _environment(facts: Facts) -> Iterator[Finding]:
    """Settings that do harm here."""
    settings = {name: (value.strip(), str(source)) for name, (value, source) in facts.environment.items()}

    def value(name: str) -> str:
        return settings.get(name, ("", ""))[0]

    live = _live(facts)
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
    devices = _devices(facts)
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
    if facts.ports and not any(port.usable for ports in states.values() for port in ports) and _live(facts):
        yield Finding(
            "env-hca",
            "wrong",
            f"NCCL_IB_HCA={value} leaves no active port",
            "correct the names",
            f"active are {listed([port.device for port in _live(facts)])}",
            source,
        )
    elif down:
        do = f"take out {listed(down)}" if not excludes else f"add {listed(down)}"
        what = f"NCCL_IB_HCA={value} includes {listed(down)}, which cannot pass data"
        yield Finding("env-hca", "warning", what, do, "no port of it is Active", source, tuple(down))
    live = {port.device for port in _live(facts)}
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


def _log(facts: Facts) -> Iterator[Finding]:
    """What NCCL's log says it does."""
    sockets = [each for each in facts.transports if each[1].startswith("NET/Socket") or each[1].lower() == "socket"]
    if sockets:
        live = _live(facts)
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


def _ports(facts: Facts) -> Iterator[Finding]:
    """Ports that cannot pass data, and those that are slower than their like."""
    near = {nic.name for gpu in facts.gpus for nic in near_nics(facts, gpu)}
    groups: dict[tuple[str, str | None], list[Port]] = {}
    for port in facts.ports:
        name = f"{port.device} port {port.port}"
        mine = f"{port.device} is the nearest NIC of a GPU" if port.device in near else "no GPU is known to be near it"
        if port.usable and port.rate is not None:
            groups.setdefault((port.type, port.layer), []).append(port)
        if port.usable is not False:
            continue
        source = str(port.source)
        if port.state in ("Initializing", "Armed"):
            yield Finding(
                "port-initializing",
                "wrong",
                f"{name} is {port.state}: its link is up, but no data can pass",
                "start a subnet manager, or check the fabric's: sminfo, systemctl status opensm",
                f"physical state {port.physical or 'unknown'}, SM lid {'unknown' if port.sm_lid is None else port.sm_lid}",
                source,
                (port.device,),
            )
            continue
        off = port.physical == "Disabled"
        do = (
            "enable it if the job needs it, or exclude it from NCCL_IB_HCA"
            if off
            else "check cable, transceiver, switch port"
        )
        physical = f" ({port.physical})" if port.physical else ""
        severity: Severity = "warning" if off and port.device not in near else "wrong"
        yield Finding("port-down", severity, f"{name} is {port.state}{physical}", do, mine, source, (port.device,))
    for alike in groups.values():
        usual, count = Counter(port.rate for port in alike).most_common(1)[0]
        for port in alike:
            if usual is not None and port.rate is not None and port.rate < usual and count > 1:
                yield Finding(
                    "port-slow",
                    "wrong" if port.device in near else "warning",
                    f"{port.device} port {port.port} runs at {port.rate:g} Gb/s",
                    "check cable and switch port: a lane may be down; otherwise exclude it from NCCL_IB_HCA",
                    f"{count} ports of the same kind run at {usual:g} Gb/s",
                    str(port.source),
                    (port.device,),
                )


def _nvlinks(facts: Facts) -> Iterator[Finding]:
    """Links that are down, and a GPU that has fewer than all the others have among each other."""
    dark = [name for name, (up, _, _) in facts.links.items() if not up]
    for name, (up, every, source) in sorted(facts.links.items(), key=lambda each: natural(each[0])):
        if up == every or (not up and name != dark[0]):
            continue
        what = f"{name} has {every - up} of {every} NVLinks down" if up else f"no NVLink is up on {listed(dark)}"
        yield Finding(
            "nvlink-dead",
            "wrong" if up else "warning",
            what,
            "look for Xid 74 in dmesg; reset or replace the GPU or its bridge; on HGX, check nvidia-fabricmanager",
            "nvidia-smi nvlink -s shows no speed for them",
            str(source),
            (name,) if up else tuple(dark),
        )
    levels = {(one.name, other.name): facts.level(one.name, other.name) for one, other in facts.gpu_pairs}
    most = max((links_of(level) or 0 for level in levels.values()), default=0)
    for gpu in facts.gpus if len(facts.gpus) > 3 and most else ():
        mine = [level for pair, level in levels.items() if gpu.name in pair]
        rest = [level for pair, level in levels.items() if gpu.name not in pair]
        if set(rest) == {f"NV{most}"} and all(level != UNKNOWN and (links_of(level) or 0) < most for level in mine):
            told = facts.told(gpu.name, next(other.name for other in facts.gpus if other is not gpu))
            yield Finding(
                "nvlink-uneven",
                "wrong",
                f"{gpu.name} reaches the others by {listed(sorted(set(mine)))} only, while the others have NV{most}",
                "check nvidia-smi nvlink -s, look for Xid 74 in dmesg; reset or replace the GPU",
                f"all pairs not including {gpu.name} are NV{most}",
                str(told.source) if told else "",
                (gpu.name,),
            )


def _p2p(facts: Facts, rings: Sequence[Counted]) -> Iterator[Finding]:
    """Pairs that could have P2P and have not, and rings that go through host memory."""
    bad = []
    for one, other in facts.gpu_pairs:
        status = facts.p2p.get(pair_of(one.name, other.name), ("", None))[0]
        level = facts.level(one.name, other.name)
        if status and status != "OK" and (is_nvlink(level) or level in NEAR):
            bad.append((one.name, other.name, level, status))
    if bad:
        one_name, other_name, level, status = bad[0]
        verdict = p2p(facts, one_name, other_name)
        yield Finding(
            "p2p-status",
            "wrong",
            f"{one_name} and {other_name} are {level} apart, and have no peer-to-peer access"
            + (f" (as {len(bad) - 1} more pairs)" if len(bad) > 1 else ""),
            "disable ACS and the IOMMU, update the driver; over NVLink, NCCL stops with an error",
            verdict.why,
            verdict.source,
            (one_name, other_name),
        )
    edges = {tuple(sorted(edge)) for each in rings for edge in each.ring.edges}
    off = []
    for one_name, other_name in sorted(edges):
        if facts.gpu(one_name) and facts.gpu(other_name):
            verdict = p2p(facts, one_name, other_name)
            if verdict.answer == "no":
                off.append((one_name, other_name, verdict))
    if off and not bad:
        one_name, other_name, verdict = off[0]
        known = facts.p2p.get(pair_of(one_name, other_name), ("", None))[0]
        do = "there is no setting for it: it is the hardware or its driver" if known not in ("", "OK") else ""
        do = (
            do or "if nvidia-smi topo -p2p r says OK for them, measure with NCCL_P2P_LEVEL=SYS; if not, NVLink bridges help"
        )
        count = sum(p2p(facts, a.name, b.name).answer == "no" for a, b in facts.gpu_pairs)
        yield Finding(
            "p2p-off",
            "warning",
            f"a ring has to go through host memory: {count} of {len(list(facts.gpu_pairs))} pairs of GPUs have no P2P",
            do,
            f"{one_name} to {other_name}: {verdict.why}",
            verdict.source,
            (one_name, other_name),
        )


def _crossings(rings: Sequence[Counted], asked: int | None) -> Iterator[Finding]:
    """The best ring that there is may be above a limit that nobody has set: that is how the machine is built."""
    most = CROSSINGS if asked is None else asked
    over = [each for each in rings if each.low > most]
    if over:
        worst = max(over, key=lambda each: each.low)
        ours = worst.ring.source is None
        yield Finding(
            "crossings",
            "warning" if ours and asked is None else "wrong",
            f"{len(over)} of {len(rings)} rings cross NUMA nodes more than {most} times:"
            f" ring {worst.ring.channel} {worst.low} times",
            "give the job GPUs and NICs of fewer NUMA nodes; with NPS4 or SNC, test whether one node per socket is faster",
            ("our best ring: " if ours else "") + " ".join(worst.ring.stops),
            "found by us" if ours else str(worst.ring.source),
            worst.ring.stops,
        )


def _gdr(facts: Facts) -> Iterator[Finding]:
    if not facts.nics:
        return
    off = [gpu for gpu in facts.gpus if best_gdr(facts, gpu)[0].answer == "no"]
    if not off:
        return
    verdict, nic = best_gdr(facts, off[0])
    levels = {gpu.name: min((facts.level(gpu.name, each.name) for each in facts.nics), key=rank) for gpu in off}
    within = [name for name, level in levels.items() if level in ("PHB", "NODE")]
    do = "put a NIC below the same PCIe switch, or use GPUs that have one"
    if any(device is not None and device.gdr is False for device in (off[0], nic)):
        do = "load nvidia-peermem, or use a driver with DMA-BUF: without either, no NIC can reach GPU memory"
    elif within:
        some = f" for {listed(within)}" if len(within) < len(off) else ""
        do = f"measure with NCCL_NET_GDR_LEVEL=PHB{some}: whether the processor forwards it fast cannot be told here"
    yield Finding(
        "gdr-off",
        "warning",
        f"{_all_or(facts, off)} no GPUDirect RDMA: data to and from the network is copied through host memory",
        do,
        f"{off[0].name}, nearest NIC {nic.name if nic else '?'}: {verdict.why}",
        verdict.source,
        tuple(gpu.name for gpu in off),
    )


def _all_or(facts: Facts, gpus: Sequence[Gpu]) -> str:
    if len(gpus) == len(facts.gpus) > 1:
        return f"all {len(gpus)} GPUs have"
    return listed([gpu.name for gpu in gpus]) + (" has" if len(gpus) == 1 else " have")


def _devices(facts: Facts) -> list[str]:
    """Every RDMA device that some source names by its own name."""
    names = {nic.name for nic in facts.nics if nic.named}
    return sorted(names | {port.device for port in facts.ports} | set(facts.netdevs), key=natural)


def _nics(facts: Facts) -> Iterator[Finding]:
    """NICs that GPUs share, and numbers and names that mislead."""
    nics = compute_nics(facts)
    own = {gpu.name: near_nics(facts, gpu) for gpu in facts.gpus}
    relayed = {gpu.name: best_gdr(facts, gpu)[0].via for gpu in facts.gpus if not own[gpu.name]}
    relayed = {name: via for name, via in relayed.items() if via}
    smi = next((str(source) for source in facts.sources if source.kind in (NCCL_LOG, NCCL_XML, SMI)), "")
    whole = all(facts.told(gpu.name, nic.name) for gpu in facts.gpus for nic in facts.nics)
    if whole and nics and len(nics) < len(facts.gpus):
        yield Finding(
            "nic-shared",
            "note",
            f"{len(facts.gpus)} GPUs share {len(nics)} NIC{'s' * (len(nics) > 1)}: {listed([nic.name for nic in nics], 4)}",
            "nothing, if it was built that way; otherwise check whether a NIC is missing: lspci, ibstat",
            "each GPU gets that much less network bandwidth",
            smi,
        )
    elif relayed:
        pairs = [f"{name} through {via}" for name, via in relayed.items()]
        yield Finding(
            "nic-shared",
            "note",
            f"{listed(list(relayed))} {'have' if len(relayed) > 1 else 'has'} no NIC within PXB",
            "keep PXN enabled (NCCL_PXN_DISABLE unset)",
            f"over NVLink NCCL uses another GPU's NIC (PXN): {listed(pairs, 4)}",
            smi,
            tuple(relayed),
        )
    lacking = [gpu for gpu in facts.gpus if not own[gpu.name]]
    if whole and 0 < 4 * len(lacking) <= len(facts.gpus):
        one = len(lacking) == 1
        yield Finding(
            "nic-missing",
            "warning",
            f"{listed([gpu.name for gpu in lacking])} {'has' if one else 'have'} no NIC within PXB, the other GPUs have",
            "check whether a NIC has fallen off the bus: lspci, dmesg, and another machine of the same kind",
            f"{len(facts.gpus) - len(lacking)} of {len(facts.gpus)} GPUs have NICs of their own",
            smi,
            tuple(gpu.name for gpu in lacking),
        )
    yield from _numbers(facts, own, smi)
    devices = _devices(facts)
    for name in devices:
        longer = [other for other in devices if other != name and other.startswith(name) and other[len(name) :].isdecimal()]
        if longer:
            yield Finding(
                "prefix-trap",
                "note",
                f"NCCL_IB_HCA={name} would also match {listed(longer, 4)}",
                f"write it with =: NCCL_IB_HCA=={name}",
                "NCCL matches names as prefixes",
                str(facts.sources[0]) if facts.sources else "",
                (name, *longer),
            )
            break


def _numbers(facts: Facts, own: dict[str, list[Nic]], source: str) -> Iterator[Finding]:
    """GPU i without NIC i among its nearest, and NIC i that is not device i."""
    if len(facts.nics) < 2:
        return
    off = [
        gpu
        for gpu in facts.gpus
        if gpu.index is not None and own[gpu.name] and all(nic.number != gpu.index for nic in own[gpu.name])
    ]
    if off:
        gpu = off[0]
        yield Finding(
            "index-trap",
            "note",
            f"the nearest NIC of GPU i is not NIC i: {gpu.name} has {listed([nic.name for nic in own[gpu.name]], 4)}",
            "choose NICs by name, not by number",
            f"{len(off)} of {len(facts.gpus)} GPUs",
            source,
            tuple(each.name for each in off),
        )
        return
    named = [nic for nic in facts.nics if nic.label.startswith("NIC") and nic.name != nic.label]
    wrong = [nic for nic in named if _digits(nic.name) not in (None, _digits(nic.label))]
    if wrong:
        nic = wrong[0]
        yield Finding(
            "index-trap",
            "note",
            f"NIC numbers are not device numbers: {nic.label} is {nic.name}",
            "use the names in the legend for NCCL_IB_HCA, not the numbers in the matrix",
            f"{len(wrong)} of {len(named)} NICs",
            source,
            tuple(each.name for each in wrong),
        )


def _digits(name: str) -> str | None:
    parts = natural(name)
    last = parts[-1] if parts else None
    return str(last[0]) if isinstance(last, tuple) and last[0] != -1 else None


def _distances(facts: Facts, nodes: Nodes) -> Iterator[Finding]:
    """SYS between GPUs of one NUMA node."""
    odd = [
        (one, other)
        for one, other in facts.gpu_pairs
        if (told := facts.told(one.name, other.name))
        and told.level == "SYS"
        and not told.source.nccl
        and nodes.differ(one.name, other.name) is False
    ]
    if odd:
        one, other = odd[0]
        told = facts.told(one.name, other.name)
        yield Finding(
            "sys-same-node",
            "warning",
            f"{len(odd)} pairs of GPUs within one NUMA node are SYS: no NVLink is visible, and no near PCIe path",
            "if they have NVLink, check nvidia-smi nvlink -s and systemctl status nvidia-fabricmanager; a VM may hide it",
            f"{one.name} and {other.name} are both on NUMA node {nodes.of(one.name)}: so SYS does not prove a crossing",
            str(told.source) if told else "",
            (one.name, other.name),
        )


def _columns(facts: Facts, nodes: Nodes) -> Iterator[Finding]:
    """Levels within a NUMA node between devices that are told to be on two."""
    odd = [
        (one.name, other.name)
        for one, other in facts.gpu_pairs
        if within_node(facts.level(one.name, other.name)) and one.numa is not None and other.numa not in (None, one.numa)
    ]
    if odd:
        one_name, other_name = odd[0]
        told = facts.told(one_name, other_name)
        yield Finding(
            "contradiction",
            "warning",
            f"{one_name} and {other_name} are {facts.level(one_name, other_name)}, which is within a NUMA node, and on"
            f" nodes {nodes.of(one_name)} and {nodes.of(other_name)}",
            "find out which of the two is wrong: /sys/bus/pci/devices/*/numa_node",
            f"{len(odd)} pairs of GPUs",
            str(told.source) if told else "",
            (one_name, other_name),
        )


def _affinity(facts: Facts) -> Iterator[Finding]:
    """CPUs of a process that are not near its GPU."""
    for number, (cpus, source) in sorted(facts.affinity.items()):
        gpu = next((each for each in facts.gpus if each.index is not None and str(each.index) == number), None)
        if gpu is None:
            continue
        near = cpu_set(gpu.cpus) if gpu.cpus else facts.node_cpus.get(gpu.numa if gpu.numa is not None else -1)
        if near and not cpus <= near:
            yield Finding(
                "affinity",
                "warning",
                f"the process of {gpu.name} may run on CPUs that are not near it: {list_text(cpus - near)[:60]}",
                "bind it to the GPU's NUMA node (numactl, or the launcher's binding), or set NCCL_IGNORE_CPU_AFFINITY=1",
                f"near are {list_text(near)[:60]}",
                str(source),
                (gpu.name,),
            )


def _whole(facts: Facts) -> Iterator[Finding]:
    """Whether all there is to see was seen."""
    if facts.cut is not None:
        yield Finding(
            "cut",
            "warning",
            f"the matrix is truncated at line {facts.cut.line}: the missing part is unknown",
            "save it to a file: nvidia-smi topo -m > topo.txt",
            "its last row or rows are incomplete",
            str(facts.cut),
        )
    devices = facts.gpus or facts.nics or facts.ports or facts.others or facts.links or facts.p2p
    if not (devices or facts.rings or facts.transports or facts.environment or facts.netdevs or facts.fabric):
        yield Finding(
            "nothing",
            "wrong",
            "no GPU, NIC or port is described: nothing to check",
            "nvidia-smi topo -m > topo.txt; ibstat > ibstat.txt; gotrace topo check topo.txt ibstat.txt",
            "a clean result covers only what was checked",
            str(facts.sources[0]) if facts.sources else "",
        )
    if not facts.gpus and facts.others:
        yield Finding(
            "no-gpu",
            "warning",
            f"no device is known to be a GPU: {len(facts.others)} PCI devices have no class",
            "read NCCL's own dump instead: NCCL_TOPO_DUMP_FILE=topo.xml",
            "this file says only which NUMA node they are on",
            next((str(source) for source in facts.sources if source.kind == NCCL_XML), ""),
        )

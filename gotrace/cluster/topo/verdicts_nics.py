"""What is wrong between GPUs and the network: ports, GPUDirect RDMA, shared or missing NICs, misleading names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gotrace.cluster.topo.finding import Finding, Severity, device_names
from gotrace.cluster.topo.model import NCCL_LOG, NCCL_XML, SMI, Facts, Gpu, Nic, Port, listed, natural, rank
from gotrace.cluster.topo.rings import compute_nics
from gotrace.cluster.topo.rules import best_gdr, near_nics


def ports(facts: Facts) -> Iterator[Finding]:
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


def gdr(facts: Facts) -> Iterator[Finding]:
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


def nics(facts: Facts) -> Iterator[Finding]:
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
    devices = device_names(facts)
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

"""The facts of several sources about one machine as one: who is trusted most is believed, contradictions are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gotrace.cluster.topo.model import (
    LSPCI,
    NCCL_LOG,
    SYSFS,
    TRUST,
    Facts,
    Gpu,
    Nic,
    Pair,
    Remark,
    Seen,
    Source,
    agree,
    natural,
    pair_of,
)

_UNNUMBERED = (LSPCI, SYSFS)


def machines(parts: Sequence[Facts], name: str) -> list[Facts]:
    """One machine for each host that a log names; what names none belongs to the only host, or to ``name``."""
    hosts = sorted({part.host for part in parts if part.host})
    if len(hosts) < 2:
        return [joined(parts, hosts[0] if hosts else name)]
    found = [joined([part for part in parts if part.host == host], host) for host in hosts]
    rest = [part for part in parts if not part.host]
    return [*found, *([joined(rest, name)] if rest else [])]


def joined(parts: Sequence[Facts], name: str) -> Facts:
    """One machine. Devices are matched by bus address, by name, or by their number in the order of bus addresses."""
    parts = sorted(parts, key=lambda part: TRUST.index(part.source.kind))
    whole = Facts(parts[0].source if parts else Source(""), name)
    # Names are those of the source that numbers the most GPUs: a log has bus addresses alone.
    # lspci and sysfs have none either, but for the order of addresses, in which there may be GPUs that are not used.
    base = max(
        parts,
        key=lambda part: (
            part.source.kind not in _UNNUMBERED and any(gpu.index is not None for gpu in part.gpus),
            len([gpu for gpu in part.gpus if gpu.index is not None]),
            bool(part.gpus),
        ),
    )
    whole.gpus = [replace(gpu) for gpu in sorted(base.gpus, key=lambda gpu: (gpu.index is None, gpu.index, gpu.bus))]
    for part in parts:
        called = _gpu_names(whole, part)
        if called is None:
            whole.notes.append(
                f"{part.source} has {len(part.gpus)} GPUs and {base.source} {len(base.gpus)}: they could not be matched."
            )
            continue
        called |= _nic_names(whole, part, parts)
        _take(whole, part, called)
    whole.nics.sort(key=lambda nic: (nic.number is None, nic.number or 0, natural(nic.name)))
    for found in whole.seen.values():
        found.sort(key=lambda seen: TRUST.index(seen.source.kind))
    whole.remarks += _contradictions(whole)
    whole.ports.sort(key=lambda port: (natural(port.device), port.port))
    return whole


def _gpu_names(whole: Facts, part: Facts) -> dict[str, str] | None:
    """What the GPUs of a source are called in the whole; None: nobody knows which they are."""
    if not part.gpus or not whole.gpus:
        return {}
    by_bus = {gpu.bus: gpu.name for gpu in whole.gpus if gpu.bus}
    known = {gpu.name: by_bus[gpu.bus] for gpu in part.gpus if gpu.bus in by_bus}
    if len(known) == len(part.gpus):
        return known
    sure = part.source.kind not in _UNNUMBERED or len(part.gpus) == len(whole.gpus)
    if (
        sure
        and all(gpu.index is not None for gpu in part.gpus)
        and not (known or (by_bus and all(gpu.bus for gpu in part.gpus)))
    ):
        return {gpu.name: f"GPU{gpu.index}" for gpu in part.gpus}
    if len(part.gpus) == len(whole.gpus) and not by_bus:
        ordered = sorted(part.gpus, key=lambda gpu: gpu.bus)
        return {gpu.name: other.name for gpu, other in zip(ordered, whole.gpus, strict=True)}
    return None


def _nic_names(whole: Facts, part: Facts, parts: Sequence[Facts]) -> dict[str, str]:
    """Likewise of NICs: by bus address, by name, and those of a matrix without a legend by what they are called there."""
    by_bus = {nic.bus: nic.name for each in parts for nic in each.nics if nic.bus and nic.name != nic.bus}
    return {nic.name: by_bus[nic.bus] for nic in part.nics if nic.name == nic.bus and nic.bus in by_bus}


def _take(whole: Facts, part: Facts, called: dict[str, str]) -> None:
    def name(old: str) -> str:
        return called.get(old, old)

    for gpu in part.gpus:
        mine = whole.gpu(name(gpu.name))
        if mine is None:
            if part.source.kind not in (SYSFS, NCCL_LOG) or not whole.gpus:
                whole.gpus.append(replace(gpu))
            continue
        if mine.numa is not None and gpu.numa is not None and mine.numa != gpu.numa:
            text = f"{mine.name} is on NUMA node {gpu.numa} for {part.source}, on {mine.numa} for others"
            whole.remarks.append(Remark("contradiction", text, part.source, (mine.name,)))
        _fill(mine, gpu)
    for nic in part.nics:
        own = whole.nic(name(nic.name))
        if own is None:
            whole.nics.append(replace(nic, name=name(nic.name)))
        else:
            _fill(own, nic)
    for (one, other), seen in part.seen.items():
        whole.seen.setdefault(pair_of(name(one), name(other)), []).extend(seen)
    for (one, other), status in part.p2p.items():
        whole.p2p.setdefault(pair_of(name(one), name(other)), status)
    for (gpu_name, nic_name), said in part.gdr.items():
        whole.gdr.setdefault((name(gpu_name), name(nic_name)), said)
    for gpu_name, links in part.links.items():
        whole.links.setdefault(name(gpu_name), links)
    _take_ports(whole, part)
    if not whole.rings:
        whole.rings = [replace(ring, stops=tuple(map(name, ring.stops))) for ring in part.rings]
    for variable, value in part.environment.items():
        whole.environment.setdefault(variable, value)
    whole.netdevs |= part.netdevs
    whole.others |= part.others
    whole.vendors |= part.vendors
    whole.affinity |= part.affinity
    for node, cpus in part.node_cpus.items():
        whole.node_cpus.setdefault(node, cpus)
    whole.transports += part.transports
    whole.default_route = whole.default_route or part.default_route
    whole.cut = whole.cut or part.cut
    whole.remarks += part.remarks
    whole.notes += [note for note in part.notes if note not in whole.notes]
    whole.sources.append(part.source)
    whole.fabric = whole.fabric or part.fabric


def _fill(mine: Gpu | Nic, other: Gpu | Nic) -> None:
    """What the source that is trusted more does not say."""
    for key, value in vars(other).items():
        if key == "linked":
            mine.linked = mine.linked or value  # type: ignore[union-attr]
        elif vars(mine)[key] in (None, "") and value not in (None, ""):
            setattr(mine, key, value)


def _take_ports(whole: Facts, part: Facts) -> None:
    for port in part.ports:
        mine = next((each for each in whole.ports if (each.device, each.port) == (port.device, port.port)), None)
        if mine is None:
            whole.ports.append(replace(port))
            continue
        if mine.state and port.state and mine.state != port.state:
            text = f"{port.device} port {port.port} is {mine.state} for {mine.source}, {port.state} for {port.source}"
            whole.remarks.append(Remark("contradiction", text, port.source, (port.device,)))
        for key, value in vars(port).items():
            if vars(mine)[key] in (None, "") and value not in (None, ""):
                setattr(mine, key, value)
    for port in whole.ports:
        nic = whole.nic(port.device)
        if nic is not None and port.card and not nic.card:
            nic.card = port.card


def _contradictions(whole: Facts) -> list[Remark]:
    """Pairs of which two sources say different things, once for each pair of sources."""
    found: dict[tuple[Source, Source], list[tuple[Pair, Seen, Seen]]] = {}
    for pair, seen in sorted(whole.seen.items()):
        whole_ones = [each for each in seen if not each.pcie]
        for other in whole_ones[1:]:
            if not agree(whole_ones[0].level, other.level):
                key = replace(whole_ones[0].source, line=0), replace(other.source, line=0)
                found.setdefault(key, []).append((pair, whole_ones[0], other))
    remarks = []
    for cases in found.values():
        (one, two), first, other = cases[0]
        more = f", and {len(cases) - 1} more pairs differ" if len(cases) > 1 else ""
        text = f"{one} to {two} is {first.level} for {first.source}, {other.level} for {other.source}{more}"
        remarks.append(Remark("contradiction", text, other.source, (one, two)))
    return remarks

"""A machine's facts as a record: the compatibility matrix, rings, and findings."""

from __future__ import annotations

from typing import Literal

from gotrace.cluster.topo.fabric import Fabric
from gotrace.cluster.topo.model import Facts, Gpu, Nodes
from gotrace.cluster.topo.rings import Counted, counted
from gotrace.cluster.topo.rules import Verdict, best_gdr, gdr, near_nics, p2p, usable
from gotrace.cluster.topo.verdicts import findings
from gotrace.cluster.topo.verdicts_gpus import CROSSINGS
from gotrace.records.topo import (
    Judged,
    TopoFabric,
    TopoFinding,
    TopoGpu,
    Topology,
    TopoNic,
    TopoPair,
    TopoPort,
    TopoRing,
)


def topology(facts: Facts, most_crossings: int | None = None) -> Topology:
    """Everything about one machine. ``most_crossings``: how often a ring may cross NUMA nodes (None: `CROSSINGS`)."""
    nodes = Nodes(facts)
    rings = counted(facts, nodes)
    found = findings(facts, nodes, rings, most_crossings)
    most_crossings = CROSSINGS if most_crossings is None else most_crossings
    return Topology(
        type="topology",
        name=facts.host,
        sources=list(dict.fromkeys(map(str, facts.sources))),
        gpus=[_gpu(facts, nodes, gpu) for gpu in facts.gpus],
        nics=[
            TopoNic(
                name=nic.name,
                label=nic.label,
                bus=nic.bus,
                node=nodes.of(nic.name),
                gbps=nic.gbps,
                usable=usable(facts, nic),
            )
            for nic in facts.nics
        ],
        ports=[
            TopoPort(
                device=port.device,
                port=port.port,
                state=port.state,
                physical=port.physical,
                gbps=port.rate,
                layer=port.layer,
                usable=port.usable,
                source=str(port.source),
            )
            for port in facts.ports
        ],
        pairs=_pairs(facts, nodes),
        rings=[_ring(each, most_crossings) for each in rings],
        max_crossings=most_crossings,
        others=facts.others,
        fabric=_fabric(facts.fabric) if isinstance(facts.fabric, Fabric) else None,
        findings=[
            TopoFinding(
                code=each.code,
                severity=each.severity,
                what=each.what,
                do=each.do,
                why=each.why,
                source=each.source,
                devices=list(each.devices),
            )
            for each in found
        ],
        notes=facts.notes,
    )


def _judged(verdict: Verdict) -> Judged:
    return Judged(answer=verdict.answer, why=verdict.why, source=verdict.source)


def _gpu(facts: Facts, nodes: Nodes, gpu: Gpu) -> TopoGpu:
    verdict, nic = best_gdr(facts, gpu)
    near = [each.name for each in near_nics(facts, gpu)]
    known = near or all(facts.told(gpu.name, each.name) for each in facts.nics)
    return TopoGpu(
        name=gpu.name,
        bus=gpu.bus,
        node=nodes.of(gpu.name),
        cpus=gpu.cpus,
        rank=gpu.rank,
        near_nics=near if known else None,
        gdr=_judged(verdict) if nic is not None else None,
        gdr_nic=nic.name if nic is not None else None,
    )


def _numa(nodes: Nodes, one: str, other: str) -> Literal["same", "other", "unknown"]:
    differ = nodes.differ(one, other)
    return "unknown" if differ is None else "other" if differ else "same"


def _pairs(facts: Facts, nodes: Nodes) -> list[TopoPair]:
    pairs = [
        TopoPair(
            one=one.name,
            other=other.name,
            level=facts.level(one.name, other.name),
            numa=_numa(nodes, one.name, other.name),
            p2p=_judged(p2p(facts, one.name, other.name)),
            gdr=None,
        )
        for one, other in facts.gpu_pairs
    ]
    for gpu in facts.gpus:
        for nic in facts.nics:
            pairs.append(
                TopoPair(
                    one=gpu.name,
                    other=nic.name,
                    level=facts.level(gpu.name, nic.name),
                    numa=_numa(nodes, gpu.name, nic.name),
                    p2p=None,
                    gdr=_judged(gdr(facts, gpu, nic)),
                )
            )
    return pairs


def _ring(each: Counted, most: int) -> TopoRing:
    return TopoRing(
        channel=each.ring.channel,
        stops=list(each.ring.stops),
        closes=each.ring.closes,
        crossings=each.low,
        crossings_at_most=each.high,
        farthest=each.farthest,
        over_limit=each.low > most,
        source=str(each.ring.source) if each.ring.source else None,
    )


def _fabric(fabric: Fabric) -> TopoFabric:
    return TopoFabric(
        switches=len(fabric.switches),
        nodes=sorted(fabric.nodes),
        hops={key: count for key, count in fabric.counts().items()},
        pairs={f"{one} {other}": hops for (one, other), hops in fabric.hops().items()},
    )

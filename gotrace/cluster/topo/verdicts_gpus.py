"""What is wrong between GPUs: NVLinks, peer-to-peer access, rings, and levels that contradict NUMA nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.cluster.topo.finding import Finding
from gotrace.cluster.topo.model import (
    NEAR,
    UNKNOWN,
    Facts,
    Nodes,
    is_nvlink,
    links_of,
    listed,
    natural,
    pair_of,
    within_node,
)
from gotrace.cluster.topo.rings import Counted
from gotrace.cluster.topo.rules import p2p

CROSSINGS = 2  # the least that a ring over two NUMA nodes without NVLink can have


def nvlinks(facts: Facts) -> Iterator[Finding]:
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


def peers(facts: Facts, rings: Sequence[Counted]) -> Iterator[Finding]:
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


def crossings(rings: Sequence[Counted], asked: int | None) -> Iterator[Finding]:
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


def distances(facts: Facts, nodes: Nodes) -> Iterator[Finding]:
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


def columns(facts: Facts, nodes: Nodes) -> Iterator[Finding]:
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

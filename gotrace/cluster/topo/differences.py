"""Machines against each other: two of them, and many at once, of which the odd one is the finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gotrace.records.topo import OddNode, TopoDifference, Topology, TopologyDiff, TopologyNodes


def _signature(found: Topology) -> dict[str, str]:
    """What can be compared of a machine, by what it is: levels, NUMA nodes, ports, and what is wrong."""
    said: dict[str, str] = {}
    for gpu in found["gpus"]:
        if gpu["node"] is not None:
            said[f"{gpu['name']} NUMA node"] = gpu["node"]
    for pair in found["pairs"]:
        if pair["level"] != "?":
            said[f"{pair['one']} to {pair['other']}"] = pair["level"]
    for port in found["ports"]:
        name = f"{port['device']} port {port['port']}"
        said[f"{name} state"] = port["state"] or "unknown"
        if port["gbps"] is not None:
            said[f"{name} rate"] = f"{port['gbps']:g} Gb/s"
    for nic in found["nics"]:
        said[nic["name"]] = "there"
    for finding in found["findings"]:
        if finding["severity"] == "wrong":
            said[f"{finding['code']} {' '.join(finding['devices'][:2])}".strip()] = finding["what"]
    return said


def differences(one: Topology, other: Topology) -> TopologyDiff:
    """What two machines do not have in common."""
    a, b = _signature(one), _signature(other)
    return TopologyDiff(
        type="topology_diff",
        one=one["name"],
        other=other["name"],
        differences=[
            TopoDifference(what=key, one=a.get(key), other=b.get(key))
            for key in dict.fromkeys([*a, *b])
            if a.get(key) != b.get(key)
        ],
    )


def odd_nodes(found: Sequence[Topology]) -> TopologyNodes:
    """Which nodes are not as more than half of all are, and in what."""
    said = [_signature(each) for each in found]
    odd: dict[str, list[TopoDifference]] = {}
    undecided = []
    for key in dict.fromkeys(key for each in said for key in each):
        values = Counter(each.get(key) for each in said)
        usual, count = values.most_common(1)[0]
        if count == len(said):
            continue
        if count * 2 <= len(said):
            undecided.append(key)
            continue
        for each, mine in zip(found, said, strict=True):
            if mine.get(key) != usual:
                odd.setdefault(each["name"], []).append(TopoDifference(what=key, one=usual, other=mine.get(key)))
    return TopologyNodes(
        type="topology_nodes",
        nodes=[each["name"] for each in found],
        odd=[OddNode(node=name, differences=each) for name, each in sorted(odd.items())],
        undecided=undecided,
    )


def wrong(found: Sequence[Topology], compared: TopologyNodes | None) -> bool:
    """Whether something is wrong with a machine, or a node is not as the others: then a check fails."""
    apart = compared is not None and bool(compared["odd"] or compared["undecided"])
    return apart or any(each["severity"] == "wrong" for machine in found for each in machine["findings"])

"""AllReduce rings, and how often each crosses NUMA nodes: those of NCCL's log, else the best that we find.

A ring is NIC, GPUs, NIC, or GPUs that close; the ways from and to the NIC count. NVLink crosses nothing, wherever its ends
are. NCCL's own search is bound by time and by bandwidths that it counts itself, so that what it builds may be another ring.
"""

from __future__ import annotations

from dataclasses import dataclass

from gotrace.cluster.topo.model import Facts, Nic, Nodes, Ring, is_nvlink, rank
from gotrace.cluster.topo.rules import best_gdr, near_nics, usable

EXACT = 9  # GPUs: of more the search is by nearest neighbours
# Crossings and edges of which it is unknown, the farthest NIC, the latter of the former, the farthest level, all levels.
_STARTS = 64
_Cost = tuple[int, int, int, int, int]
_NONE: _Cost = (0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Counted:
    """A ring with its crossings: ``low`` are known, ``high`` if all edges that nobody knows about cross too."""

    ring: Ring
    low: int
    high: int
    farthest: str


def counted(facts: Facts, nodes: Nodes) -> list[Counted]:
    """The rings of the log, or ours."""
    return [_count(facts, nodes, ring) for ring in facts.rings or found(facts, nodes)]


def _count(facts: Facts, nodes: Nodes, ring: Ring) -> Counted:
    edges = [nodes.crossing(*edge) for edge in ring.edges]
    levels = [facts.level(*edge) for edge in ring.edges]
    low = sum(each is True for each in edges)
    return Counted(ring, low, low + sum(each is None for each in edges), max(levels, key=rank, default="LOC"))


def compute_nics(facts: Facts) -> list[Nic]:
    """The NICs that rings end at, without those known to be down.

    Of each GPU those within PXB; else, unless it has another GPU's (PXN), the nearest of its NUMA node. Where no GPU has
    any, the nearest there are.
    """
    levels = {gpu.name: {nic.name: rank(facts.level(gpu.name, nic.name)) for nic in facts.nics} for gpu in facts.gpus}
    own = {nic.name for gpu in facts.gpus for nic in near_nics(facts, gpu)}
    for gpu in facts.gpus:
        nearest = min(levels[gpu.name].values(), default=rank("SYS"))
        if rank("PXB") < nearest < rank("SYS") and best_gdr(facts, gpu)[0].answer != "pxn":
            own |= {name for name, level in levels[gpu.name].items() if level == nearest}
    if not own:
        best = {nic.name: min((each[nic.name] for each in levels.values()), default=0) for nic in facts.nics}
        own = {name for name, level in best.items() if level == min(best.values())}
    return [nic for nic in facts.nics if nic.name in own and usable(facts, nic) is not False]


def found(facts: Facts, nodes: Nodes) -> list[Ring]:
    """A ring for each NIC of a GPU, with as few crossings as can be; without NICs one that closes."""
    names = [gpu.name for gpu in facts.gpus]
    nics = compute_nics(facts)
    if not names or (len(names) < 2 and not nics):
        return []
    costs = {(one, other): _edge(facts, nodes, one, other) for one in names for other in names if one != other}
    paths = _paths(names, costs) if len(set(costs.values())) > 1 else None
    rings = []
    for channel, nic in enumerate(nics):
        ends = {name: _edge(facts, nodes, nic.name, name) for name in names}
        if paths is None:  # any path will do: what counts are its ends
            first, *rest = sorted(names, key=lambda name: ends[name])
            rings.append(Ring(channel, (nic.name, first, *sorted(rest[1:], key=names.index), *rest[:1], nic.name)))
            continue
        best = min(paths, key=lambda pair: _sum(_sum(ends[pair[0]], paths[pair][0]), ends[pair[1]]))
        rings.append(Ring(channel, (nic.name, *paths[best][1], nic.name)))
    if not nics and paths is None:
        rings.append(Ring(0, tuple(names), closes=True))
    elif not nics and paths is not None:
        best = min(paths, key=lambda pair: _sum(paths[pair][0], costs[pair[1], pair[0]]))
        rings.append(Ring(0, paths[best][1], closes=True))
    return rings


def _edge(facts: Facts, nodes: Nodes, one: str, other: str) -> _Cost:
    crossing = nodes.crossing(one, other)
    level = facts.level(one, other)
    far = 0 if is_nvlink(level) else rank(level)
    nic = far if facts.gpu(one) is None else 0
    return int(crossing is not False), nic, int(crossing is None), far, far


def _sum(one: _Cost, other: _Cost) -> _Cost:
    return one[0] + other[0], max(one[1], other[1]), one[2] + other[2], max(one[3], other[3]), one[4] + other[4]


def _paths(names: list[str], costs: dict[tuple[str, str], _Cost]) -> dict[tuple[str, str], tuple[_Cost, tuple[str, ...]]]:
    """For pairs of ends a path through all GPUs."""
    return _exact(names, costs) if len(names) <= EXACT else _nearest(names, costs)


def _cost(path: tuple[str, ...], costs: dict[tuple[str, str], _Cost]) -> _Cost:
    total = _NONE
    for edge in zip(path, path[1:], strict=False):
        total = _sum(total, costs[edge])
    return total


def _exact(names: list[str], costs: dict[tuple[str, str], _Cost]) -> dict[tuple[str, str], tuple[_Cost, tuple[str, ...]]]:
    """Held and Karp: the cheapest path over each set of GPUs, from each first to each last one."""
    found: dict[tuple[str, str], tuple[_Cost, tuple[str, ...]]] = {}
    for first in names:
        best: dict[tuple[frozenset[str], str], tuple[_Cost, tuple[str, ...]]] = {
            (frozenset((first,)), first): (_NONE, (first,))
        }
        for _ in names[1:]:
            longer: dict[tuple[frozenset[str], str], tuple[_Cost, tuple[str, ...]]] = {}
            for (been, last), (cost, path) in best.items():
                for name in names:
                    if name in been:
                        continue
                    total = _sum(cost, costs[last, name])
                    key = been | {name}, name
                    if key not in longer or total < longer[key][0]:
                        longer[key] = total, (*path, name)
            best = longer
        for (_, last), (cost, path) in best.items():
            found[first, last] = cost, path
    return found


def _nearest(names: list[str], costs: dict[tuple[str, str], _Cost]) -> dict[tuple[str, str], tuple[_Cost, tuple[str, ...]]]:
    """Always on to the cheapest GPU that is left: of many GPUs, not always the best."""
    found = {}
    for first in names[:_STARTS]:
        path, left = [first], [name for name in names if name != first]
        while left:
            path.append(min(left, key=lambda name: costs[path[-1], name]))
            left.remove(path[-1])
        found[first, path[-1]] = _cost(tuple(path), costs), tuple(path)
    return found

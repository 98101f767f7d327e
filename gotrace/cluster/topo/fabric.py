"""The switches between nodes, from `ibnetdiscover`: how many there are on the shortest way from one node to another."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from gotrace.cluster.topo.model import FABRIC, Facts, Source

OWNER = re.compile(r'(Switch|Ca|Rt)\s+\d+\s+"([SHR]-[0-9a-fA-F]+)"\s*#\s*"([^"]*)"')
_LINK = re.compile(r'\[\d+\](?:\([0-9a-fA-F]+\))?\s+"([SHR]-[0-9a-fA-F]+)"\[\d+\]')
# Not nodes of a job: what switches compute with.
_AGGREGATION = "Aggregation Node"


@dataclass
class Fabric:
    """``links``: guid -> guids; ``names``: guid -> description, whose first word is the node's name for an adapter."""

    source: Source
    links: dict[str, set[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def switches(self) -> list[str]:
        return sorted(guid for guid in self.links if guid.startswith("S-"))

    @property
    def nodes(self) -> dict[str, list[str]]:
        """The adapters of each node, by its name."""
        found: dict[str, list[str]] = {}
        for guid, name in sorted(self.names.items()):
            if guid.startswith("H-") and _AGGREGATION not in name:
                found.setdefault((name.split() or [guid])[0], []).append(guid)
        return found

    def distances(self, start: str) -> dict[str, int]:
        """Switches on the shortest way to every other adapter. An adapter passes nothing on."""
        found = {start: 0}
        left = deque([start])
        while left:
            here = left.popleft()
            if here != start and not here.startswith("S-"):
                continue
            for other in sorted(self.links.get(here, ())):
                if other not in found:
                    found[other] = found[here] + 1
                    left.append(other)
        return {guid: steps - 1 for guid, steps in found.items() if guid != start and not guid.startswith("S-")}

    def hops(self) -> dict[tuple[str, str], int | None]:
        """For each pair of nodes the switches between their nearest adapters; None: there is no way."""
        nodes = self.nodes
        from_: dict[str, dict[str, int]] = {}
        for name, guids in nodes.items():
            ways: dict[str, int] = {}
            for guid in guids:
                for other, count in self.distances(guid).items():
                    ways[other] = min(count, ways.get(other, count))
            from_[name] = ways
        return {
            (one, other): min((from_[one][guid] for guid in nodes[other] if guid in from_[one]), default=None)
            for one, other in combinations(sorted(nodes), 2)
        }

    def counts(self) -> dict[str, int]:
        """How many pairs of nodes are that many switches apart; "none" have no way between them."""
        counted = Counter("none" if hops is None else str(hops) for hops in self.hops().values())
        return dict(sorted(counted.items()))


def parse_fabric(lines: Sequence[str], first: int, file: str) -> Facts:
    """`ibnetdiscover`. Links are taken by the quoted GUIDs: those in brackets lack leading zeros."""
    source = Source(FABRIC, file, first)
    fabric = Fabric(source)
    owner = ""
    for line in lines:
        text = line.strip()
        if match := OWNER.match(text):
            owner = match[2].lower().replace("s-", "S-").replace("h-", "H-").replace("r-", "R-")
            fabric.names[owner] = match[3]
            fabric.links.setdefault(owner, set())
        elif owner and (match := _LINK.match(text)):
            other = match[1][0] + match[1][1:].lower()
            fabric.links[owner].add(other)
            fabric.links.setdefault(other, set()).add(owner)
    facts = Facts(source)
    facts.fabric = fabric
    return facts

"""Where memory lies and where threads run on a machine with several memory nodes: tables from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.analysis.heap_pages import LIVE, PARTS, Pages
from gotrace.analysis.histogram import Histogram

UNKNOWN = -1
SPANS = "spans in use"  # live objects and the waste between them lie on the same pages
_MOSTLY, _MUCH, _SPREAD = 0.9, 0.5, 0.25


def by_part(pages: Pages, nodes: npt.NDArray[np.int16]) -> dict[str, dict[int, int]]:
    """Bytes by part and node; ``nodes`` is that of each page, or `UNKNOWN`."""
    found: dict[str, dict[int, int]] = {}
    for number, name in enumerate(PARTS):
        numbers, counts = np.unique(nodes[pages.part == number], return_counts=True)
        if len(numbers):
            label = SPANS if name == LIVE else name
            found[label] = {int(n): int(count) * pages.size for n, count in zip(numbers, counts, strict=True)}
    return found


def matrix(cpu: npt.NDArray[np.integer], memory: npt.NDArray[np.integer], nodes: Sequence[int]) -> npt.NDArray[np.int64]:
    """How many events by the node of the CPU (rows) and of the page (columns, the last one unknown)."""
    rows = np.searchsorted(nodes, cpu)
    columns = np.where(np.isin(memory, nodes), np.searchsorted(nodes, memory), len(nodes))
    found = np.zeros((len(nodes), len(nodes) + 1), np.int64)
    known = np.isin(cpu, nodes)
    np.add.at(found, (rows[known], columns[known]), 1)
    return found


def remote_share(found: npt.NDArray[np.int64]) -> float | None:
    """Of the events whose page's node is known, the share with another one than the CPU's; None where there are none."""
    known = found[:, :-1]
    total = int(known.sum())
    return 1 - float(np.trace(known)) / total if total else None


def local_and_remote(found: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Of a `matrix`: how many events are of a page on the CPU's node, on another, and on an unknown one."""
    local, unknown = int(np.trace(found[:, :-1])), int(found[:, -1].sum())
    return local, int(found.sum()) - local - unknown, unknown


def things_by_node(things: npt.NDArray[np.integer], nodes: npt.NDArray[np.integer]) -> dict[int, int]:
    """How many different ``things`` (of 32 bits) are met on each node; one that is met on several counts on each."""
    pairs = np.unique(nodes.astype(np.int64) << 32 | things.astype(np.int64))
    numbers, counts = np.unique(pairs >> 32, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


class Moves:
    """On which node each of several things was seen last, and how often one was then seen on another.

    ``gaps`` is the time between two moves of the same thing, in nanoseconds.
    """

    def __init__(self) -> None:
        self.node: dict[int, int] = {}
        self.count = 0
        self.gaps = Histogram()
        self._moved_ns: dict[int, int] = {}

    def see(self, thing: int, node: int, time_ns: int) -> None:
        """Times ascend, but for events that overtook one another: then the gap is 0."""
        if self.node.setdefault(thing, node) == node:
            return
        self.node[thing] = node
        self.count += 1
        if thing in self._moved_ns:
            self.gaps.record(np.array([max(0, time_ns - self._moved_ns[thing])]))
        self._moved_ns[thing] = time_ns


@dataclass(frozen=True)
class Evidence:
    """What advice is given from: how many nodes there are, shares of the threads' time and of the heap by node."""

    nodes: int
    ran: dict[int, float]
    heap: dict[int, float]
    bound: bool  # a policy was set


def advice(seen: Evidence) -> str:
    """One sentence where it is clear what to do, "" elsewhere."""
    if seen.nodes < 2:
        return ""
    where = max(seen.ran, key=lambda node: seen.ran[node], default=None)
    if where is None or not seen.heap or seen.bound:
        return ""
    elsewhere = 1 - seen.heap.get(where, 0.0)
    if seen.ran[where] >= _MOSTLY and elsewhere >= _MUCH:
        return (
            f"Threads ran on node {where} for {seen.ran[where]:.0%} of their time, but {elsewhere:.0%} of the heap is "
            f"elsewhere: start it with numactl --cpunodebind={where} --membind={where}."
        )
    heaviest = max(seen.heap, key=lambda node: seen.heap[node])
    spread = [node for node, share in seen.ran.items() if share >= _SPREAD]
    if len(spread) > 1 and seen.heap[heaviest] >= _MOSTLY:
        return (
            f"Threads ran on {len(spread)} nodes and {seen.heap[heaviest]:.0%} of the heap is on node {heaviest}: spread "
            "it with numactl --interleave=all, or run one process per node."
        )
    return ""

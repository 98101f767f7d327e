"""Where memory lies and where threads run on a machine with several memory nodes: tables from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.analysis.heap_pages import LIVE, PARTS, Pages

UNKNOWN = -1
SPANS = "spans in use"  # live objects and the waste between them lie on the same pages
_MOSTLY, _MUCH, _SPREAD = 0.9, 0.5, 0.25


def by_part(pages: Pages, nodes: npt.NDArray[np.int16], page: int) -> dict[str, dict[int, int]]:
    """Bytes by part and node; ``nodes`` is that of each page, `UNKNOWN` where it cannot be told."""
    found: dict[str, dict[int, int]] = {}
    for number, name in enumerate(PARTS):
        numbers, counts = np.unique(nodes[pages.part == number], return_counts=True)
        if len(numbers):
            label = SPANS if name == LIVE else name
            found[label] = {int(n): int(count) * page for n, count in zip(numbers, counts, strict=True)}
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


@dataclass(frozen=True)
class Evidence:
    """What advice is given from: shares of the threads' time and of the heap by node."""

    ran: dict[int, float]
    heap: dict[int, float]
    bound: bool  # a policy was set


def advice(seen: Evidence) -> str:
    """One sentence where it is clear what to do, "" elsewhere."""
    if len(seen.heap) < 2 and len(seen.ran) < 2 and set(seen.heap) == set(seen.ran):
        return ""
    where = max(seen.ran, key=lambda node: seen.ran[node], default=None)
    if where is None or seen.bound:
        return ""
    elsewhere = 1 - seen.heap.get(where, 0.0)
    if seen.ran[where] >= _MOSTLY and elsewhere >= _MUCH:
        return (
            f"Threads ran on node {where} for {seen.ran[where]:.0%} of their time, and {elsewhere:.0%} of the heap lies "
            f"elsewhere: start it with numactl --cpunodebind={where} --membind={where}."
        )
    heaviest = max(seen.heap, key=lambda node: seen.heap[node])
    spread = [node for node, share in seen.ran.items() if share >= _SPREAD]
    if len(spread) > 1 and seen.heap[heaviest] >= _MOSTLY:
        return (
            f"Threads ran on {len(spread)} nodes and {seen.heap[heaviest]:.0%} of the heap lies on node {heaviest}: spread "
            "it with numactl --interleave=all, or run one process per node."
        )
    return ""

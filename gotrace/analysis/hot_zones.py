"""Where starts spend their time, from the container tool that was asked for them on: stages by how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gotrace.analysis.container_stages import NO_PULL, PULL, SANDBOX, UNPACK
from gotrace.analysis.gc_summary import percentiles
from gotrace.analysis.start_summary import StartSummary, median
from gotrace.analysis.timeline import CONTAINER, Start
from gotrace.text import bytes_text, count_text


@dataclass(frozen=True)
class Zone:
    """A stage over the ``count`` starts that have it; nanoseconds, ``low`` and ``high`` are those of its `Part`.

    ``share`` is the median of its shares of those starts; ``advice`` says what would change it, where something that was
    measured does, or is "".
    """

    name: str
    count: int
    median: float
    low: float
    high: float
    p90: float
    share: float
    advice: str


def zones(starts: Sequence[Start], summary: StartSummary) -> list[Zone]:
    """The longest first: stages of a container, and whole ones behind execve. ``summary`` is that of ``starts``."""
    found = []
    for part in summary.parts[1:]:
        if part.depth != (part.stage == CONTAINER):
            continue
        name = part.name or part.stage
        shares = [taken / start.whole_ns for start in starts if (taken := _taken(start, part.stage, part.name))]
        p90 = float(percentiles(part.histogram, (90.0,))[0])
        share = median(shares) if shares else 0.0
        found.append(Zone(name, part.count, part.median, part.low, part.high, p90, share, _advice(name, starts)))
    return sorted(found, key=lambda zone: -zone.median)


def _taken(start: Start, stage: str, name: str) -> int:
    return sum(row.duration_ns for row in start.rows if (row.stage, row.name) == (stage, name) and row.depth == bool(name))


def _advice(name: str, starts: Sequence[Start]) -> str:
    """By what was counted while it went on."""
    containers = [start.container for start in starts if start.container is not None]
    if name in (PULL, UNPACK):
        pulled = [each for each in containers if each.layers]
        if not pulled:
            return NO_PULL if all(each.layers == 0 for each in containers) else ""
        layers = round(median([each.layers or 0 for each in pulled]))
        known = [each.unpacked_bytes for each in pulled if each.unpacked_bytes is not None]
        size = f", {bytes_text(round(median(known)))} unpacked" if known else ""
        return f"pull it ahead of time, or make its layers smaller: {count_text(layers, 'layer')}{size}"
    if name == SANDBOX and all(each.pod for each in containers):
        return "CNI plugins set up the pod's network: one with hostNetwork needs none"
    if name == SANDBOX:
        return "it created and set up a network namespace: containers of one pod, and --network=host, do not need their own"
    return ""

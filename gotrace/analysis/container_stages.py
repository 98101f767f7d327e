"""The stages in front of the execve of a program in a container, and whose each moment is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PULL, UNPACK, SNAPSHOT, SANDBOX, CREATE = "image pull", "unpack", "snapshot", "sandbox (network)", "create"
CGROUP, NAMESPACES, MOUNTS, INIT = "cgroup", "namespaces", "mounts", "runtime (runc init)"
NO_PULL = "no layer was missing"
OF_TOOLS = (PULL, UNPACK, SNAPSHOT, SANDBOX)  # which the kernel does not show
OF_KERNEL = (CGROUP, NAMESPACES, MOUNTS)
# The innermost last.
_DEPTH = {name: number for number, name in enumerate((PULL, SANDBOX, MOUNTS, NAMESPACES, SNAPSHOT, CGROUP, UNPACK))}


class Interval(NamedTuple):
    """When a stage was under way."""

    stage: str
    begin_ns: int
    end_ns: int


def partition(bases: Sequence[tuple[int, str]], over: Sequence[Interval], begin_ns: int, end_ns: int) -> list[Interval]:
    """[begin_ns, end_ns) cut into pieces, each of one stage, neighbours of different ones.

    The innermost interval of ``over`` has the time; where there is none, the last of ``bases`` that has begun.
    """
    edges = {begin_ns, end_ns, *(at for at, _ in bases)}
    edges |= {at for each in over for at in (each.begin_ns, each.end_ns)}
    cuts = sorted(at for at in edges if begin_ns <= at <= end_ns)
    pieces: list[Interval] = []
    for at, until in zip(cuts, cuts[1:], strict=False):
        there = [each.stage for each in over if each.begin_ns <= at and until <= each.end_ns]
        base = next((name for since, name in reversed(bases) if since <= at), "")
        stage = max(there, key=_DEPTH.__getitem__) if there else base
        if pieces and pieces[-1].stage == stage:
            pieces[-1] = pieces[-1]._replace(end_ns=until)
        else:
            pieces.append(Interval(stage, at, until))
    return pieces

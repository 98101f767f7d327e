"""Spans of time, from a begin to an end, of which any number may overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Span = tuple[int, int]


def union(spans: Iterable[Span]) -> list[Span]:
    """Where at least one of ``spans`` is: disjoint, in order."""
    found: list[Span] = []
    for begin, end in sorted(span for span in spans if span[0] < span[1]):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def length(spans: Iterable[Span]) -> int:
    """How long at least one of ``spans`` is."""
    return sum(end - begin for begin, end in union(spans))


def alone(spans: Mapping[str, Sequence[Span]]) -> dict[str, int]:
    """How long each of several, by name, ran while no other did."""
    changes = sorted(
        (at, step, name)
        for name, each in spans.items()
        for begin, end in union(each)
        for at, step in ((begin, 1), (end, -1))
    )
    found = dict.fromkeys(spans, 0)
    running: set[str] = set()
    before = 0
    for at, step, name in changes:
        if len(running) == 1:
            found[next(iter(running))] += at - before
        (running.add if step > 0 else running.discard)(name)
        before = at
    return found


def lanes(spans: Sequence[Span], keys: Sequence[str]) -> list[tuple[int, int]]:
    """(lane, depth) of each of ``spans``, which are in the order of their begins.

    What lies within another of its key is one deeper in the same lane; else a lane is that of its key before, or the
    first, if nothing else is there then. There are no more of them than are needed at once.
    """
    taken: list[int] = []  # until when each lane is
    before: dict[str, list[tuple[int, int]]] = {}  # of a key: what goes on, outermost first, as (lane, end)
    found = []
    for (begin, end), key in zip(spans, keys, strict=True):
        ran = before.get(key, [])
        around = [each for each in ran if each[1] > begin]
        if around and all(until >= end for _, until in around):
            lane = around[0][0]
        else:
            around, free = [], [number for number, until in enumerate(taken) if until <= begin]
            lane = next((each for each, _ in ran if each in free), free[0] if free else len(taken))
            taken[lane:] = [end, *taken[lane + 1 :]]
        before[key] = [*around, (lane, end)]
        found.append((lane, len(around)))
    return found

"""The record of `gotrace.views.heap_spans`: which code allocates, by the spans that it uses up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from gotrace.analysis.allocations import NOTHING, Seen, WindowSums, standard_error
from gotrace.analysis.stacks import INLINED, Frame
from gotrace.records.gc import Cost
from gotrace.records.heap import Function, is_runtimes
from gotrace.records.times import Moment
from gotrace.text import printable

Stack = tuple[tuple[str, str, int, bool], ...]
UNKNOWN: Stack = (("[unknown stack]", "", 0, False),)


class SpanAllocations(TypedDict):
    """What one stack has allocated, estimated from its share of what was seen."""

    stack: Annotated[list[Function], "innermost first, without the runtime's own allocation functions"]
    alloc_objects: Annotated[int, "tiny objects that share a 16-byte block count as one"]
    alloc_bytes: int
    share: Annotated[float, "of the bytes that were seen, 0 to 1"]
    share_error: Annotated[
        float | None, "its standard error, from the differences between windows; null: unknown, with fewer than 5"
    ]
    spans: Annotated[int, "used-up spans and large objects seen"]


class HeapSpans(Moment):
    """What was allocated since the first reading of the runtime's counter, most bytes first."""

    type: Literal["heap_spans"]
    pid: int
    length_ns: Annotated[int, "from the first reading to the last"]
    windows: Annotated[int, "how often allocations were watched"]
    windows_ns: Annotated[int, "for how long in total"]
    seen_bytes: Annotated[int, "of spans used up in windows, and of large objects"]
    alloc_objects: Annotated[int, "an estimate"]
    alloc_bytes: Annotated[int, "by the runtime's own counter; spans in use count with what was put in later"]
    lost: Annotated[int, "events that found no room"]
    cost: Annotated[Cost | None, "in the last record"]
    stacks: list[SpanAllocations]


def spans_record(
    sums: WindowSums, named: Mapping[int, Sequence[Frame]], length_ns: int, alloc_bytes: int
) -> dict[str, Any]:
    """What `HeapSpans` has of ``sums``; ``named`` are the functions of each stack, innermost first: none if unknown."""
    found: dict[Stack, Seen] = {}
    for number, seen in sums.stacks.items():
        stack = _of_program(named[number])
        found[stack] = found.get(stack, NOTHING) + seen
    whole = sum(found.values(), start=NOTHING)
    total = int(whole.bytes.sum())
    scale = alloc_bytes / total if total else 0.0
    stacks = [_estimate(stack, seen, whole, scale, sums.windows) for stack, seen in found.items()]
    return {
        "length_ns": length_ns,
        "windows": sums.windows,
        "windows_ns": sums.open_ns,
        "seen_bytes": total,
        "alloc_objects": round(whole.objects * scale),
        "alloc_bytes": alloc_bytes,
        "stacks": sorted(stacks, key=lambda each: -each["share"]),
    }


def _estimate(stack: Stack, seen: Seen, whole: Seen, scale: float, windows: int) -> dict[str, Any]:
    size = int(seen.bytes.sum())
    return {
        "stack": [dict(zip(("function", "file", "line", "inlined"), each, strict=True)) for each in stack],
        "alloc_objects": round(seen.objects * scale),
        "alloc_bytes": round(size * scale),
        "share": size / int(whole.bytes.sum()),
        "share_error": standard_error(seen.bytes, whole.bytes, windows),
        "spans": seen.spans,
    }


def _of_program(frames: Sequence[Frame]) -> Stack:
    """Without the runtime's own functions that allocate for the program, and the root, as of a heap profile."""
    kept = [each for each in frames if each.function != "runtime.goexit"]
    first = next((at for at, each in enumerate(kept) if not is_runtimes(each.function)), 0)
    stack = ((printable(each.function), printable(each.file), each.line, each.kind == INLINED) for each in kept[first:])
    return tuple(stack) or UNKNOWN


def by_functions(stacks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stacks put together where they go through the same functions, at whatever lines.

    Their errors are added, which is the most that they can be.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for each in stacks:
        key = tuple(one["function"] for one in each["stack"])
        if key not in found:
            found[key] = dict(each)
            continue
        into = found[key]
        for name in ("alloc_objects", "alloc_bytes", "share", "spans"):
            into[name] += each[name]
        if into["share_error"] is not None:
            into["share_error"] += each["share_error"]
    return sorted(found.values(), key=lambda each: -each["share"])

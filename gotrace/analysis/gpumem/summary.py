"""What a run's GPU memory comes to: by space, over all of them, which requests failed, and what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.gpumem import calls
from gotrace.analysis.gpumem.layers import MAPPED, POOL, TORCH, UNKNOWN, Key, Layers
from gotrace.analysis.gpumem.space import GROWTHS, MERGE_FAILURE, Course

# What was free side by side for so long, and could not be joined.
LONG_NS = 1_000_000_000
OOM_BY_FRAGMENTATION = "oom_by_fragmentation"


class Failure(NamedTuple):
    """Requests of one size that came from one place and were not served from what was free: why, and how often."""

    key: Key
    why: str
    size: int
    tid: int
    stack: int
    times: int


def space(key: Key, course: Course, layers: Layers, rows: npt.NDArray[np.void]) -> dict[str, Any]:
    """One space at the end, and its extremes; what nobody reports is None. The events' ``row`` is one of ``rows``."""
    states, mapped = course.states, key.kind == MAPPED
    last = {name: int(states[name][-1]) if len(states) else 0 for name in ("live", "reserved", "largest")}
    growths = Counter(states["growth"][states["growth"] > 0].tolist())
    requests = states["request"][(states["request"] > 0)]
    told = layers.told.get(key, {})
    reserved_at, told_reserved = told.get(calls.RESERVED_NOW, (0, None))
    before = int(np.searchsorted(course.events["time_ns"], reserved_at)) - 1
    broken = course.fragmentation()
    return {
        "kind": key.kind,
        "device": None if key.device == UNKNOWN else key.device,
        "handle": key.handle,
        "at_least": key.kind == POOL or course.untold > 0,
        "live": None if mapped else last["live"],
        "reserved": last["reserved"],
        "largest_hole": None if mapped else last["largest"],
        "fragmentation": None if mapped else float(broken[-1]) if len(broken) else 0.0,
        "peak_live": None if mapped else int(states["live"].max(initial=0)),
        "peak_reserved": int(states["reserved"].max(initial=0)),
        "worst_fragmentation": None if mapped else float(broken.max(initial=0)),
        "requests": len(requests),
        "streams": len(np.unique(rows["stream"][course.events["row"]])),
        "growths": {name: 0 if mapped else growths[number] for number, name in GROWTHS.items()},
        "ooms": int((states["oom"] > 0).sum()),
        "ooms_by_fragmentation": int((states["oom"] == 2).sum()),
        "too_small_share": course.too_small(int(np.quantile(requests, 0.9))) if len(requests) and not mapped else None,
        "adjacent": [] if mapped else [{"at": at, "bytes": size} for at, size in course.adjacent(LONG_NS)],
        "unknown_frees": course.unknown_frees,
        "missed_frees": course.missed_frees,
        "release_threshold": told.get(calls.RELEASE_THRESHOLD, (0, None))[1],
        "told_reserved": told_reserved,
        "reserved_when_told": None if told_reserved is None else int(states["reserved"][before]) if before >= 0 else 0,
    }


def peaks(courses: Iterable[Course]) -> tuple[int, int]:
    """The most bytes that were live, and reserved, in all spaces together."""
    courses = list(courses)
    times = np.concatenate([np.zeros(0, np.int64), *(course.events["time_ns"] for course in courses)])
    at, which = np.unique(times, return_inverse=True)  # what passes from one space to another is never in both
    found = []
    for name in ("live", "reserved"):
        steps = np.zeros(len(at), np.int64)
        np.add.at(steps, which, np.concatenate([times[:0], *(np.diff(each.states[name], prepend=0) for each in courses)]))
        found.append(int(np.cumsum(steps).max(initial=0)))
    return found[0], found[1]


def failures(courses: dict[Key, Course], rows: npt.NDArray[np.void]) -> list[Failure]:
    """Merge failures, refused reuse and OOMs by who asked, most bytes first; the events' ``row`` is one of ``rows``."""
    found: Counter[tuple[Key, str, int, int, int]] = Counter()
    for key, course in courses.items():
        states = course.states
        failed = (states["growth"] >= MERGE_FAILURE) | (states["oom"] > 0)
        if key.kind == MAPPED:
            continue
        asked = rows[course.events["row"][failed]]
        stacks = calls.stack(asked["call"]).tolist()
        for state, tid, stack in zip(states[failed].tolist(), asked["tid"].tolist(), stacks, strict=True):
            _, _, _, request, kind, oom = state
            why = GROWTHS[kind] if kind else OOM_BY_FRAGMENTATION if oom == 2 else "oom"
            found[key, why, request, tid, stack] += 1
    every = [Failure(*what, count) for what, count in found.items()]
    return sorted(every, key=lambda each: (-each.size * each.times, each))


def advice(spaces: Iterable[dict[str, Any]]) -> list[str]:
    """What is worth a try, where that is clear."""
    found = []
    spaces = list(spaces)
    torch = [each for each in spaces if each["kind"] == TORCH]
    if any(each["adjacent"] or each["growths"]["merge_failure"] or each["ooms_by_fragmentation"] for each in torch):
        found.append(
            "PyTorch cannot merge free blocks across segments: try "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True (pytorch.org/docs/stable/notes/cuda.html)"
        )
    pools = [each for each in spaces if each["kind"] == POOL]
    broken = [each for each in pools if each["growths"]["merge_failure"] or each["ooms_by_fragmentation"]]
    if broken:
        found.append(
            "requests of many sizes share a pool, and its free memory is fragmented: use a pool per size, or separate "
            "pools for long-lived and short-lived memory (cudaMemPoolCreate)"
        )
    if any(each["growths"]["refused_reuse"] and each["streams"] > 1 for each in pools):
        found.append(
            "holes that were large enough were not used, and the pool serves several streams: memory freed on one "
            "stream is available to another only once an event orders them, so free it on the stream that allocates next"
        )
    if any((each["told_reserved"] or 0) < (each["reserved_when_told"] or 0) for each in pools):
        found.append(
            "a pool returns free memory, and has to get it again: it does so at each synchronization, above its "
            "release threshold (0 by default); cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, …) "
            "lets it keep more"
        )
    return found

"""Calls of several layers: each byte in one space, each OOM once."""

from __future__ import annotations

import numpy as np

from gotrace.analysis.gpumem import calls, summary
from gotrace.analysis.gpumem.layers import CALL, DIRECT, POOL, TORCH, Key, Layers, joined

MIB = 1 << 20
ALLOCATOR = 0xAAA


def call(name, address=0, size=0, result=0, tid=7, nested=0):
    return (0, tid, calls.OPS[name] | nested << 8 | result << 16, address, size, 0, 0, False)


def trace(action, address=0, size=0, tid=7):
    return (0, tid, calls.ACTIONS.index(action), address, size, 0, ALLOCATOR, True)


def layers(*rows):
    events = np.array(list(rows), CALL)
    events["time_ns"] = np.arange(len(rows)) * 1000
    found = Layers()
    found.feed(events)
    return found


def live(found):
    return {key.kind: int(course.states["live"][-1]) for key, course in found.courses().items()}


def test_what_the_runtime_asked_the_driver_counts_once():
    found = layers(call("malloc", 4096, 1024, nested=1), call("malloc", 4096, 1024), call("malloc", 8192, 512))
    assert live(found) == {DIRECT: 1536} and found.nested == 1 and found.calls["malloc", False] == 2


def test_a_segment_is_pytorchs():
    rows = [call("malloc", 4096, 2 * MIB), trace("segment_alloc", 4096, 2 * MIB), trace("alloc", 4096, MIB)]
    found = layers(*rows)
    assert live(found) == {TORCH: MIB}
    assert summary.peaks(found.courses().values()) == (MIB, 2 * MIB)
    # whichever way round it is given back
    both = trace("segment_free", 4096, 2 * MIB), call("free", 4096)
    for ends in (both, both[::-1]):
        course = layers(*rows, trace("free_completed", 4096, MIB), *ends).courses()[Key(TORCH, 0, ALLOCATOR)]
        assert course.states["reserved"][-1] == 0 and not course.unknown_frees
    # an address that the program had for itself before
    found = layers(call("malloc", 4096, 512), call("free", 4096), trace("segment_alloc", 4096, MIB))
    own = found.courses()[Key(DIRECT, -1, 0)]
    assert len(own.blocks) == 1 and not own.unknown_frees


def test_what_pytorch_tries_is_one_oom():
    refused = call("malloc", 0, 9 * MIB, result=2)
    found = layers(refused, refused, refused, trace("oom", 0, 9 * MIB)).courses()
    assert {key.kind: int((course.states["oom"] > 0).sum()) for key, course in found.items()} == {TORCH: 1}
    # what another thread was refused, or this one before it was served, is its own
    rows = [refused, call("malloc", 4096, 512), call("malloc", 0, MIB, result=2, tid=8), refused, trace("oom", 0, 9 * MIB)]
    found = layers(*rows).courses()
    assert {key.kind: int((course.states["oom"] > 0).sum()) for key, course in found.items()} == {TORCH: 1, DIRECT: 2}


def test_other_errors_are_no_oom():
    assert not layers(call("malloc", 0, 512, result=35), call("free", 4096, result=1)).courses()


def test_frees_are_sorted_to_where_they_began():
    """Another thread was given the address before the free had returned, and is reported first."""
    rows = np.array(
        [call("malloc_async", 4096, 512), call("malloc_async", 4096, 1024, tid=8), call("free_async", 4096)], CALL
    )
    rows["time_ns"] = [1, 3, 2]
    found = Layers()
    found.feed(joined([rows]))
    course = found.courses()[Key(POOL, -1, 0)]
    assert course.states["live"].tolist() == [512, 0, 1024] and course.missed_frees == course.unknown_frees == 0

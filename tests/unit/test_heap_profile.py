"""What the samples of a heap profile stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gotrace.analysis.heap_profile import HeapProfile, between, by_stack
from gotrace.records.heap import VALUES, by_functions, functions_of
from gotrace.views.heap import changes

EMPTY = dict.fromkeys(("samples", *VALUES), 0)


def profile(rows, rate):
    """Rows are (stack, size, allocations, frees)."""
    stacks, sizes, allocs, frees = zip(*rows, strict=True)
    return HeapProfile(list(stacks), *(np.array(each, np.int64) for each in (sizes, allocs, frees)), rate, 1, True)


def scaled(objects, size, rate):
    """scaleHeapSample of Go's runtime/pprof/protomem.go, line by line."""
    if not objects or not size:
        return 0, 0
    if rate <= 1:
        return objects, objects * size
    scale = 1 / (1 - math.exp(-size / rate))
    return int(objects * scale), int(objects * size * scale)


@pytest.mark.parametrize("rate", [1, 512, 512 << 10, 1 << 40])
@pytest.mark.parametrize("size", [8, 1024, 32 << 10, 1 << 20, 1 << 40])
def test_samples_are_scaled_as_pprof_does(size, rate):
    found = profile([((1, 2), size, 7, 3)], rate).estimates()
    for name, objects in (("alloc", 7), ("inuse", 4)):
        told = int(found[f"{name}_objects"][0]), int(found[f"{name}_bytes"][0])
        assert told == pytest.approx(scaled(objects, size, rate), rel=1e-3)  # 1 - exp(-x) is not exact for small x


def test_nothing_is_nothing():
    found = profile([((1,), 64, 0, 0), ((2,), 0, 5, 0)], 512).estimates()
    assert all(values.tolist() == [0, 0] for name, values in found.items() if name.endswith("bytes"))


def test_sizes_of_one_stack_are_summed():
    found = by_stack(profile([((1, 2), 8, 5, 1), ((1, 2), 16, 2, 2), ((1,), 8, 1, 0)], 1))
    assert found[1, 2] == {"alloc_objects": 7, "alloc_bytes": 72, "inuse_objects": 4, "inuse_bytes": 32, "samples": 7}
    assert found[(1,)]["inuse_bytes"] == 8


def test_what_was_allocated_between():
    """Stacks that are new, and sizes that are new to a stack; what was there before, and was freed since, is not in it."""
    before = profile([((1, 2), 8, 5, 1), ((3,), 8, 4, 0)], 1)
    after = profile([((4,), 64, 3, 2), ((1, 2), 16, 2, 2), ((1, 2), 8, 9, 9), ((3,), 8, 4, 4)], 1)
    found = {stack: (each["alloc_bytes"], each["samples"]) for stack, each in by_stack(between(before, after)).items()}
    assert found == {(4,): (192, 3), (1, 2): (32 + 32, 6), (3,): (0, 0)}


def test_what_grew():
    def stacks(**sizes):
        return [
            {"stack": [{"function": f"main.{name}", "file": "/m.go", "line": 1, "inlined": False}], "inuse_bytes": size}
            for name, size in sizes.items()
        ]

    def at(line, in_use, size):
        return {
            **stacks(a=size)[0],
            "stack": [{**stacks(a=0)[0]["stack"][0], "line": line}],
            **EMPTY,
            "inuse_bytes": in_use,
        }

    # Two lines of one function, whose order has changed.
    before, after = by_functions([at(1, 9, 0), at(2, 5, 0)]), by_functions([at(2, 8, 0), at(1, 9, 0)])
    rows = changes(before, after, "inuse_bytes", functions_of)
    assert [(row.first, row.last) for row in rows] == [(14, 17)]

    rows = changes(stacks(a=10, b=5, c=7), stacks(a=12, b=5, c=3, d=100), "inuse_bytes")
    assert [(row.first, row.last, row.stack[0]["function"]) for row in rows] == [(0, 100, "main.d"), (10, 12, "main.a")]

"""What is made of allocations that were seen in windows."""

from __future__ import annotations

import os
import random
import time

import numpy as np
import pytest

from gotrace.analysis.allocations import FEWEST, GROUPS, NOTHING, WindowSums, standard_error
from gotrace.analysis.stacks import INLINED, USER, Frame
from gotrace.errors import HostError
from gotrace.kernel import bpf
from gotrace.kernel.windows import Windows
from gotrace.records.heap_spans import by_functions, spans_record

EVENT = np.dtype([("time_ns", "<u8"), ("bytes", "<u8"), ("objects", "<u8"), ("stack", "<u8")])


def events(*rows):
    return np.array(list(rows), EVENT)


def frame(name, kind=USER):
    return Frame(name, f"{name}.go", 7, "", kind)


def test_only_what_is_in_a_window_counts():
    """From its begin on, up to its end; whenever the window or the event is told of, and in whatever order."""
    sums = WindowSums()
    sums.add(events((99, 1, 1, 5), (100, 8, 2, 5), (150, 16, 1, 6), (199, 32, 4, 5)), [])
    assert not sums.stacks and not sums.windows
    sums.add(events((310, 64, 1, 5), (250, 1, 1, 5)), [(100, 200)])
    assert {stack: (seen.bytes.sum(), seen.objects, seen.spans) for stack, seen in sums.stacks.items()} == {
        5: (40, 6, 2),
        6: (16, 1, 1),
    }
    sums.add(events(), [(300, 400)])
    sums.add(events((399, 128, 1, 5), (400, 1, 1, 5), (199, 2, 1, 6)), [])  # late, but of a window that is known
    sums.add(events(), [(500, 600)])
    assert (sums.windows, sums.open_ns) == (3, 300)
    assert sums.stacks[5].bytes.tolist()[:3] == [40, 192, 0] and sums.stacks[6].bytes.tolist()[:2] == [18, 0]
    assert sums.stacks[5].spans == 4


def test_the_standard_error_is_that_of_many_tries():
    """Of shares that differ from window to window: what it says is how much the estimates scatter."""
    draw = np.random.default_rng(7)
    for windows in (8, GROUPS, 5 * GROUPS):
        shares, told = [], []
        for _ in range(400):
            whole = draw.integers(50, 150, windows)
            part = draw.binomial(whole, draw.choice([0.1, 0.3], windows))
            grouped = [np.bincount(np.arange(windows) % GROUPS, each, GROUPS).astype(np.int64) for each in (part, whole)]
            shares.append(part.sum() / whole.sum())
            told.append(standard_error(*grouped, windows))
        assert np.mean(told) == pytest.approx(np.std(shares), rel=0.15), windows
        assert np.mean(shares) == pytest.approx(0.2, abs=0.01)
    assert standard_error(NOTHING.bytes, NOTHING.bytes, 5) is None
    assert standard_error(np.ones(GROUPS, np.int64), np.ones(GROUPS, np.int64), FEWEST - 1) is None


def test_the_record():
    """Shares of what the runtime counted, without the runtime's own frames; what is unknown has a row of its own."""
    sums = WindowSums()
    rows = [(10, 600, 6, 1), (11, 200, 2, 2), (60, 100, 1, 3), (61, 100, 1, 4)]
    sums.add(events(*rows), [(0, 50), (50, 100)])
    assert {each["share_error"] for each in spans_record(sums, dict.fromkeys(range(5), ()), 1, 1)["stacks"]} == {None}
    sums.add(events(), [(100, 200), (200, 300), (300, 400)])
    leaf, root = [frame("runtime.mallocgc"), frame("internal/runtime/maps.grow")], [frame("runtime.goexit")]
    named = {
        1: [*leaf, frame("main.a", INLINED), frame("main.b"), *root],
        2: [*leaf, frame("main.a", INLINED), frame("main.b"), *root],
        3: [frame("runtime.mallocgc"), frame("runtime.bgsweep"), *root],
        4: [],
    }
    record = spans_record(sums, named, 1000, 5000)
    assert [record[name] for name in ("windows", "windows_ns", "seen_bytes", "alloc_objects", "alloc_bytes")] == [
        *(5, 400, 1000, 50, 5000)
    ]
    first, *others = record["stacks"]
    assert first["stack"] == [
        {"function": "main.a", "file": "main.a.go", "line": 7, "inlined": True},
        {"function": "main.b", "file": "main.b.go", "line": 7, "inlined": False},
    ]
    assert (first["alloc_bytes"], first["alloc_objects"], first["share"], first["spans"]) == (4000, 40, 0.8, 2)
    assert first["share_error"] == pytest.approx(np.sqrt(5 / 4 * (160**2 + 160**2)) / 1000)
    assert [[each["function"] for each in row["stack"]] for row in others] == [
        ["runtime.mallocgc", "runtime.bgsweep"],
        ["[unknown stack]"],
    ]
    assert spans_record(WindowSums(), {}, 1000, 5000)["stacks"] == []


def test_lines_of_one_function_are_put_together():
    stack = [{"function": "main.a", "file": "", "line": 1, "inlined": False}]
    row = {"stack": stack, "alloc_objects": 1, "alloc_bytes": 8, "share": 0.25, "share_error": 0.01, "spans": 2}
    other = {**row, "stack": [{**stack[0], "line": 2}], "share": 0.5}
    third = {**row, "stack": [{**stack[0], "function": "main.b"}], "share_error": None}
    found = by_functions([row, other, third])
    assert [(each["share"], each["share_error"], each["spans"]) for each in found] == [(0.75, 0.02, 4), (0.25, None, 2)]
    assert row["share"] == 0.25


def test_windows_are_at_random_times(monkeypatch):
    """One in each part of the time, anywhere in it; the last ends when it has to; what fails is said."""
    monkeypatch.setattr(bpf, "attach_uprobe", lambda *_: os.open(os.devnull, os.O_RDONLY))
    random.seed(3)
    windows = Windows(2_000_000, 20_000_000)
    begin_ns = time.monotonic_ns()
    windows.start(1, 0, [(0, 0)])
    time.sleep(0.4)
    windows.stop()
    ended = windows.ended()
    assert 8 <= len(ended) <= 21 and windows.failure() is None
    assert all(end - begin >= 2_000_000 for begin, end in ended[:-1])
    assert len({(begin - begin_ns) % 20_000_000 // 4_000_000 for begin, _ in ended}) >= 3
    time.sleep(0.05)
    assert windows.ended() == []
    windows.start(1, 0, [(0, 0)])
    time.sleep(0.1)
    windows.stop()
    assert windows.ended()
    windows.close()
    monkeypatch.setattr(bpf, "attach_uprobe", refuse)
    windows = Windows(1_000_000, 1_000_000)
    windows.start(1, 0, [(0, 0)])
    while windows.failure() is None:
        time.sleep(0.01)
    assert windows.failure().message == "the kernel refused"
    windows.stop()
    windows.close()


def refuse(*_):
    raise HostError("the kernel refused", "no hint")

"""Which functions a traceback shows, how goroutines are put together, and what several dumps come to."""

from __future__ import annotations

import numpy as np
import pytest

from gotrace.analysis.goroutines import GOROUTINE, Called, Dump, Sums, alike, is_system, printed_name, shown
from gotrace.export.goroutine_text import blocks
from gotrace.views.goroutines import CREATED_BY, STATE, grown, merged


def stack(*names, wrappers=()):
    return [Called(name, "/x.go", 1, 1, name in wrappers) for name in names]


@pytest.mark.parametrize(
    ("names", "version", "kept"),
    [
        (("runtime.gopark", "runtime.chanrecv1", "main.f", "runtime.goexit"), (1, 27), ["main.f"]),
        (("runtime.gopark", "runtime.Gosched", "main.f"), (1, 19), ["runtime.Gosched", "main.f"]),
        (("main.g", "runtime.gopanic", "main.f"), (1, 22), ["main.g", "runtime.gopanic", "main.f"]),
        (("runtime.gopanic", "main.f"), (1, 22), ["main.f"]),
        (("runtime.(*Func).Name", "main.f"), (1, 22), ["main.f"]),
        (("runtime.(*Func).Name", "main.f"), (1, 23), ["runtime.(*Func).Name", "main.f"]),
        (("runtime.(*mheap).Alloc", "main.f"), (1, 23), ["main.f"]),
        (("main.f", "runtime.runFinalizers"), (1, 24), ["main.f"]),
        (("main.f", "runtime.runFinalizers"), (1, 25), ["main.f", "runtime.runFinalizers"]),
        (("crosscall2", "main.f"), (1, 27), ["main.f"]),
        # nothing would be left
        (
            ("runtime.gopark", "runtime.bgsweep", "runtime.goexit"),
            (1, 27),
            ["runtime.gopark", "runtime.bgsweep", "runtime.goexit"],
        ),
        ((), (1, 27), []),
    ],
)
def test_what_a_traceback_shows(names, version, kept):
    found = stack(*names)
    assert [each.function for each, show in zip(found, shown(found, version), strict=True) if show] == kept


def test_a_wrapper_is_shown_only_where_it_failed():
    wrapper = "main.(*T).M"
    for callee, is_shown in (("main.T.M", False), ("runtime.panicwrap", True), ("runtime.sigpanic", True)):
        found = stack(callee, wrapper, "main.f", wrappers=(wrapper,))
        assert shown(found, (1, 27))[1] is is_shown


def test_whose_goroutine_it_is():
    assert is_system("runtime.bgsweep", stack("runtime.gopark", "runtime.bgsweep"))
    assert not is_system("runtime.main", stack("main.main", "runtime.main"))
    assert is_system("runtime.runFinalizers", stack("runtime.gopark", "runtime.runFinalizers"))
    assert not is_system("runtime.runFinalizers", stack("main.close", "runtime.runFinalizers"))
    assert not is_system("main.f", ())


def test_names_as_a_traceback_has_them():
    assert printed_name("main.Map[go.shape.int,go.shape.struct { main.x []int }].f") == "main.Map[...].f"
    assert printed_name("runtime.gopanic") == "panic" and printed_name("main.f") == "main.f"
    assert printed_name("main.]odd[") == "main.]odd["


def record(at_ns, *groups):
    """A dump; a group is (state, functions, numbers of its goroutines)."""
    told = []
    for state, names, numbers in groups:
        frames = [{"function": name, "file": "/x.go", "line": 3, "offset": 5, "shown": True} for name in names or ()]
        ones = [
            {"goid": n, "parent": 1, "waits_ns": 1, "waits_most_ns": 125_000_000_000, "locked": n == 7} for n in numbers
        ]
        by = {"function": "main.main", "file": "/m.go", "line": 9, "offset": 1, "shown": True}
        told.append(
            {
                "state": state,
                "stack": frames if names is not None else None,
                "torn": False,
                "sampled": False,
                "system": False,
                "created_by": by,
                "labels": {"user": "ann"} if 7 in numbers else {},
                "count": len(numbers),
                "longest_wait_ns": 1,
                "longest_wait_most_ns": 125_000_000_000,
                "goroutines": ones,
            }
        )
    return {"type": "goroutines", "monotonic_ns": at_ns, "count": sum(g["count"] for g in told), "groups": told}


def test_text_is_the_runtimes():
    dump = record(0, ("chan receive", ["main.f", "main.Map[x].g"], [7, 3]), ("syscall", ["main.r"], [1]))
    first, second, third = blocks(dump)
    assert first == "goroutine 1 [syscall, 2 minutes]:\nmain.r(...)\n\t/x.go:3 +0x5\n"
    frames = "main.f(...)\n\t/x.go:3 +0x5\nmain.Map[...].g(...)\n\t/x.go:3 +0x5\n"
    rest = f"{frames}created by main.main in goroutine 1\n\t/m.go:9 +0x1\n"
    assert second == f"goroutine 3 [chan receive, 2 minutes] {{user: ann}}:\n{rest}"
    assert third == f"goroutine 7 [chan receive, 2 minutes, locked to thread] {{user: ann}}:\n{rest}"


@pytest.mark.parametrize("depth", [99, 100, 101, 1000])
def test_a_deep_stack_is_cut_in_its_middle(depth):
    (text,) = blocks(record(0, ("select", [f"main.f{n}" for n in range(depth)], [5])))
    assert text.count("main.f") == min(depth, 100) and (f"...{depth - 100} frames elided...\n" in text) == (depth > 100)
    assert "main.f0(" in text and f"main.f{depth - 1}(" in text


def test_dumps_are_weighted_by_the_time_between_them():
    sums = Sums()
    sums.add(record(1000, ("chan receive", ["main.f"], [5, 6])))
    alone = sums.profile()
    assert (alone.unit, alone.weights.tolist(), alone.counts.tolist()) == ("goroutines", [2], [2])
    sums.add(record(1010, ("chan receive", ["main.f"], [5, 6, 8]), ("running", None, [9])))
    sums.add(record(1030, ("chan receive", ["main.f"], [5])))
    found = sums.profile()
    stacks = {tuple(f.function for f in found.stack(n)): int(found.weights[n]) for n in range(len(found))}
    assert stacks == {("[waits: chan receive]", "main.f"): 3 * 10 + 1 * 20, ("[running]",): 10}
    assert found.unit == "nanoseconds" and (sums.begin_ns, sums.end_ns, sums.dumps) == (1000, 1030, 3)


def test_what_grew_and_what_is_put_together():
    before = record(0, ("chan receive", ["main.f"], [5]), ("select", ["main.g"], [6, 8, 13]))
    after = record(
        0,
        ("chan receive", ["main.f"], [5, 10, 11]),
        ("select", ["main.g"], [6]),
        ("sleep", ["main.h"], [12]),
        ("runnable", ["main.g"], [8]),
    )
    assert [(row.first, row.last, row.group["state"]) for row in grown(before, after)] == [
        (1, 3, "chan receive"),
        (0, 1, "sleep"),
    ]
    assert [(g["state"], g["count"]) for g in merged(before["groups"] + after["groups"], STATE)] == [
        ("chan receive", 4),
        ("select", 4),
        ("sleep", 1),
        ("runnable", 1),
    ]
    assert len(merged(after["groups"], CREATED_BY)) == 4


def test_who_is_alike():
    rows = np.zeros(6, GOROUTINE)
    rows["stack"], rows["reason"] = [0, 0, 1, 0, 0, -2], [3, 3, 3, 3, 4, 3]
    dump = Dump(0, 0, rows, [((1, 1),), ((2, 2),)], 0, [()])
    assert [sorted(places.tolist()) for places in alike(dump)][0] == [0, 1, 3]
    assert sorted(map(len, alike(dump))) == [1, 1, 1, 3] and dump.torn == 1
    assert list(alike(Dump(0, 0, rows[:0], [], 0, [()]))) == []

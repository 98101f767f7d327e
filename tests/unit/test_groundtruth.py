"""The yardstick itself: gctrace lines of every release, and numbers rendered as the runtime prints them."""

from __future__ import annotations

import pytest

from groundtruth import bucket_counts, gctrace, render_mib, render_ms

LINE = "gc 12 @0.045s 3%: 0.012+1.2+0.003 ms clock, 0.024+0.1/0.9/0+0.006 ms cpu, 4->5->2 MB, 4 MB goal, "
TAIL = "0 MB stacks, 0 MB globals, 2 P"


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0"),
        (999, "0"),
        (1_000, "0.001"),
        (10_999, "0.010"),
        (99_999, "0.099"),
        (100_000, "0.10"),
        (109_999, "0.10"),
        (999_999, "0.99"),
        (1_000_000, "1.0"),
        (1_099_999, "1.0"),
        (9_999_999, "9.9"),
        (10_000_000, "10"),
        (10_999_999, "10"),
        (3_600_000_000_000, "3600000"),
    ],
)
def test_milliseconds_are_cut_off_as_the_runtime_cuts_them(ns, text):
    assert render_ms(ns) == text


def test_sizes_are_cut_off():
    assert [render_mib(size) for size in (0, (1 << 20) - 1, 1 << 20, (5 << 20) - 1)] == ["0", "0", "1", "4"]


@pytest.mark.parametrize(("ending", "forced"), [("", False), (" (forced)", True)])
def test_a_line(ending, forced):
    found = gctrace(LINE + TAIL + ending + "\n")[12]
    assert (found.cycle, found.clock, found.assist_cpu) == (12, ("0.012", "1.2", "0.003"), "0.1")
    assert (found.heap, found.goal, found.procs, found.forced) == (("4", "5", "2"), "4", 2, forced)


def test_a_line_about_goroutine_leaks():  # Go 1.26 and later
    assert list(gctrace(LINE.replace("3%", "3% (checking for goroutine leaks)") + TAIL)) == [12]


def test_torn_lines_are_left_out():
    whole = LINE + TAIL
    torn = [
        whole[:40],
        "hello " + whole,
        whole[:60] + "hello" + whole[60:],
        whole + "hello",
        whole[: whole.index(" ms cpu")],
    ]
    assert gctrace("\n".join(torn)) == {}
    assert list(gctrace("\n".join(["begin", *torn, whole, "end"]))) == [12]


def test_buckets_are_closed_below_and_open_above():
    # 1 ns and 256 ns as runtime/metrics gives them: seconds, with open ends that JSON cannot say
    buckets = [-1.0, 0.0, 1e-9, 2.56e-7, 1e300]
    assert bucket_counts(buckets, [-5, 0, 1, 255, 256, 10**12]).tolist() == [1, 1, 2, 2]
    assert bucket_counts(buckets, []).tolist() == [0, 0, 0, 0]

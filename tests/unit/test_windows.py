"""Windows against a loop over every nanosecond."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gotrace.analysis import windows
from gotrace.analysis.pauses import CYCLE, PAUSE, UNKNOWN
from gotrace.analysis.windows import Windows

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


def made(spans):
    begins, ends = (np.array([span[part] for span in spans], np.int64) for part in (0, 1))
    return Windows.of(begins, ends)


@given(SPANS, SPANS)
def test_overlap_and_contain(spans, asked):
    inside = {ns for begin, end in spans for ns in range(begin, end)}
    found = made(spans)
    assert found.length == len(inside)
    assert np.all(found.ends[:-1] < found.begins[1:])
    times = np.arange(-2, 65)
    assert found.contain(times).tolist() == [ns in inside for ns in times.tolist()]
    asked = [(begin, max(begin, end)) for begin, end in asked]
    begins, ends = (np.array([span[part] for span in asked], np.int64) for part in (0, 1))
    expected = [len(inside & set(range(begin, end))) for begin, end in asked]
    assert found.overlap(begins, ends).tolist() == expected


def test_pauses():
    pauses = np.zeros(3, PAUSE)
    pauses["start_ns"] = [100, 200, 300]
    pauses["stopping_ns"] = [5, UNKNOWN, 7]
    pauses["total_ns"] = [10, 20, 30]
    pauses["restart_lag_ns"] = [1, -3, 2]
    assert [each.tolist() for each in windows.of_pauses(pauses, False, 0)] == [[100, 200, 300], [111, 220, 332]]
    assert [each.tolist() for each in windows.of_pauses(pauses, False, 20)] == [[200, 300], [220, 332]]
    assert [each.tolist() for each in windows.of_pauses(pauses, True, 0)] == [[100, 300], [105, 307]]


def test_cycles():
    cycles = np.zeros(1, CYCLE)
    cycles["end_ns"], cycles["mark_termination_ns"], cycles["mark_ns"], cycles["sweep_termination_ns"] = 1000, 10, 200, 5
    assert [each.tolist() for each in windows.of_cycles(cycles, True)] == [[790], [990]]
    assert [each.tolist() for each in windows.of_cycles(cycles, False)] == [[785], [1000]]

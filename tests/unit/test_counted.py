"""Counts by phase: nothing is lost or counted twice, whatever the stretches and phases are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotrace.analysis.columns import Kinds
from gotrace.analysis.counted import ASSIST, PLACES, WORKER, Counted
from gotrace.analysis.phases import MARK, MUTATOR, PHASES, STW, SWEEP, phases_of, split
from gotrace.analysis.windows import Windows
from gotrace.kernel.ring import wire_dtype
from gotrace.probes.tlb import PROBE

times = st.integers(0, 1000)
intervals = st.lists(st.tuples(times, times).map(sorted), max_size=8)


def windows(stw=(), mark=(), sweep=()):
    return {
        name: Windows.of(*(np.array([each[part] for each in pairs], np.int64) for part in (0, 1)))
        for name, pairs in ((STW, stw), (MARK, mark), (SWEEP, sweep))
    }


KINDS = Kinds(PROBE.header_kinds())


def events(kind, rows):
    """(begin, end, the other columns) each."""
    found = KINDS.named(np.zeros(len(rows), wire_dtype()), kind)
    for row, (begin, end, *rest) in zip(found, rows, strict=True):
        row["begin_ns"], row["time_ns"] = begin, end
        for name, value in zip(KINDS.columns(kind)[1:], rest, strict=True):
            row[name] = value
    return found


@given(intervals, intervals, intervals, intervals)
def test_shares_are_those_of_every_nanosecond(stw, mark, sweep, asked):
    phases = windows(stw, mark, sweep)
    asked = [(begin, end) for begin, end in asked if end > begin]
    begins, ends = (np.array([each[part] for each in asked], np.int64) for part in (0, 1))
    shares = split(begins, ends, phases)
    for (begin, end), row in zip(asked, shares, strict=True):
        each = phases_of(np.arange(begin, end), phases)
        wanted = np.bincount(each, minlength=len(PHASES)) / (end - begin)
        assert row == pytest.approx(wanted, abs=1e-9)


@given(st.lists(st.tuples(times, st.integers(1, 100), st.integers(0, 2), st.integers(0, 1000)), max_size=20), intervals)
def test_nothing_is_lost(stretches, mark):
    rows = [(begin, begin + length, number) for begin, length, _, number in stretches]
    works = [work for _, _, work, _ in stretches]
    counted = Counted.empty(2)
    stretch = events(
        "stretch", [(begin, end, end - begin, work) for (begin, end, _), work in zip(rows, works, strict=True)]
    )
    counts = events(
        "counted", [(b, e, 1 | work << 8, n, e - b, e - b) for (b, e, n), work in zip(rows, works, strict=True)]
    )
    counted.add(stretch, counts, windows(mark=mark))
    assert counted.ran_ns.sum() == pytest.approx(sum(end - begin for begin, end, _ in rows))
    assert counted.counts[1].sum() == pytest.approx(sum(number for *_, number in rows)) and not counted.counts[0].any()
    assert counted.scaled()[1] == pytest.approx(counted.counts[1])
    for place, number in ((ASSIST, 1), (WORKER, 2)):
        lengths = [end - begin for (begin, end, _), work in zip(rows, works, strict=True) if work == number]
        assert counted.ran_ns[PLACES.index(place)] == pytest.approx(sum(lengths))


def test_counts_for_a_part_of_the_time_are_scaled():
    counted = Counted.empty(3)
    none = events("stretch", [])
    counted.add(none, events("counted", [(0, 100, 0, 50, 100, 25), (0, 100, 1, 0, 100, 0)]), windows())
    scaled = counted.scaled()
    assert scaled[0, PLACES.index(MUTATOR)] == 200 and np.isnan(scaled[1, 0]) and not scaled[2].any()


def test_what_was_divided_is_told():
    counted = Counted.empty(0)
    counted.add(events("stretch", [(0, 100, 100, 0), (100, 200, 100, 1)]), events("counted", []), windows(mark=[(70, 300)]))
    assert counted.minor_ns == pytest.approx(30)
    assert dict(zip(PLACES, counted.ran_ns.tolist(), strict=True)) == pytest.approx(
        {MUTATOR: 70, MARK: 30, WORKER: 0, ASSIST: 100, SWEEP: 0, STW: 0}
    )

"""GPU memory's arithmetic: the worked example, the definitions by a twin that keeps every 512 bytes apart, heat maps."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.analysis.gpumem.bins import Columns, by_address, by_size, lines
from gotrace.analysis.gpumem.space import (
    ALLOC,
    EVENT,
    FREE,
    MAP,
    MERGE_FAILURE,
    NEEDED,
    OOM,
    REFUSED_REUSE,
    SEGMENT,
    SEGMENT_FREE,
    TRIM,
    UNMAP,
    replay,
)

MIB, UNIT = 1 << 20, 512


def stream(*rows, step_ns=1000):
    """Events of (op, address, size), ``step_ns`` apart."""
    return np.array([(at * step_ns, *row, at) for at, row in enumerate(rows)], EVENT)


def test_worked_example():
    """A 40, B 20, C 40 MiB side by side; A and C freed: 80 free in two holes. 60 does not fit, 90 does once B is free."""
    course = replay(
        stream(
            *((ALLOC, 0, 40 * MIB), (ALLOC, 40 * MIB, 20 * MIB), (ALLOC, 60 * MIB, 40 * MIB)),
            *((FREE, 0, 0), (FREE, 60 * MIB, 0)),
            (ALLOC, 100 * MIB, 60 * MIB),
            (FREE, 40 * MIB, 0),
            (ALLOC, 0, 90 * MIB),
        )
    )
    states = course.states
    assert [each // MIB for each in states["reserved"].tolist()] == [40, 60, 100, 100, 100, 160, 160, 160]
    assert course.free()[4] == 80 * MIB and states["largest"][4] == 40 * MIB and course.fragmentation()[4] == 0.5
    assert states["growth"].tolist() == [NEEDED, NEEDED, NEEDED, 0, 0, MERGE_FAILURE, 0, 0]
    assert course.fragmentation()[6] == 0 and states["largest"][6] == 100 * MIB
    assert states["reserved"][-1] == 160 * MIB and states["live"][-1] == 150 * MIB
    assert course.extents.tolist() == [[0, 160 * MIB]] and course.holes["end"].tolist() == [100 * MIB]
    assert course.too_small(60 * MIB) == 1 and course.too_small(10 * MIB) == 0


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # the hole would have done: freed on another stream
        ([(ALLOC, 0, 1024), (FREE, 0, 0), (ALLOC, 4096, 1024)], [NEEDED, 0, REFUSED_REUSE]),
        # sizes are rounded to 512: what is asked for by the byte fits exactly
        ([(ALLOC, 0, 1000), (FREE, 0, 0), (ALLOC, 0, 1024)], [NEEDED, 0, 0]),
        # partly from the last hole, partly new: it grew
        ([(ALLOC, 0, 1024), (FREE, 0, 0), (ALLOC, 512, 2048)], [NEEDED, 0, NEEDED]),
        # after a trim everything free is gone
        ([(ALLOC, 0, 1024), (FREE, 0, 0), (TRIM, 0, 0), (ALLOC, 0, 1024)], [NEEDED, 0, 0, NEEDED]),
        ([(ALLOC, 0, 1024), (FREE, 0, 0), (TRIM, 0, 1024), (ALLOC, 0, 1024)], [NEEDED, 0, 0, 0]),
    ],
)
def test_why_it_grew(rows, expected):
    assert replay(stream(*rows)).states["growth"].tolist() == expected


def test_segments_do_not_join():
    """Two segments side by side, free: 4 MiB, and no request of more than 2 can be served from them."""
    rows = [(SEGMENT, 0, 2 * MIB), (SEGMENT, 2 * MIB, 2 * MIB), (OOM, 0, 3 * MIB), (OOM, 0, 5 * MIB)]
    course = replay(stream(*rows, (SEGMENT, 8 * MIB, 4 * MIB), (ALLOC, 8 * MIB, 3 * MIB), step_ns=10**9), told=True)
    assert course.states["largest"].tolist()[:2] == [2 * MIB, 2 * MIB]
    assert course.states["oom"].tolist() == [0, 0, 2, 1, 0, 0]
    # by what was asked for; the first two, from which nothing was, by themselves
    assert course.states["growth"].tolist() == [NEEDED, REFUSED_REUSE, 0, 0, 0, MERGE_FAILURE]
    assert course.adjacent(10**9) == [(2 * MIB, 4 * MIB)] and course.adjacent(5 * 10**9) == []
    # mapped into one reservation they are one
    joined = replay(stream((MAP, 0, 2 * MIB), (MAP, 2 * MIB, 2 * MIB), (OOM, 0, 3 * MIB)), told=True)
    assert joined.states["largest"].tolist()[-1] == 4 * MIB and joined.adjacent(0) == []


def test_what_was_there_before():
    course = replay(stream((FREE, 0, 0), (ALLOC, 512, 512), (ALLOC, 512, 1024), (FREE, 512, 0), (FREE, 512, 0)))
    assert (course.unknown_frees, course.missed_frees) == (2, 1)
    assert course.states["live"].tolist() == [0, 512, 1024, 0, 0] and len(course.blocks) == 2


def test_a_free_that_is_reported_late():
    """Its call had not returned when the address was handed out again: it is that of the block before."""
    events = stream((ALLOC, 0, 512), (ALLOC, 0, 1024), (FREE, 0, 0), (FREE, 0, 0))
    events["time_ns"] = [0, 2000, 1000, 3000]
    course = replay(events)
    assert (course.unknown_frees, course.missed_frees) == (0, 0)
    assert course.states["live"].tolist() == [512, 1024, 1024, 0]


def test_segments_from_before():
    """A block where nobody has announced a segment: what is held is a lower bound then."""
    course = replay(stream((ALLOC, 0, 512), (SEGMENT, 4096, 1024), (ALLOC, 4096, 512)), told=True)
    assert course.untold == 512 and course.states["reserved"].tolist() == [512, 1536, 1536]
    assert course.states["growth"].tolist() == [0, 0, NEEDED]


class Twin:
    """Every unit of 512 bytes by itself: the definitions, word for word."""

    def __init__(self, told):
        self.told, self.held, self.live, self.walls = told, set(), {}, []

    def holes(self):
        found, free = [], sorted(self.held - {unit for units in self.live.values() for unit in units})
        for unit in free:
            if found and found[-1][-1] == unit - 1 and unit not in self.walls:
                found[-1].append(unit)
            else:
                found.append([unit])
        return found

    def step(self, op, address, size):
        holes = self.holes()
        free, largest = sum(map(len, holes)), max(map(len, holes), default=0)
        units, at, kind = -(-size // UNIT), address // UNIT, 0
        if op == ALLOC:
            self.live.pop(at, None)
            holes = self.holes()
            free, largest = sum(map(len, holes)), max(map(len, holes), default=0)
            wanted = set(range(at, at + units))
            if not wanted <= self.held and not self.told:
                kind = NEEDED if free < units else MERGE_FAILURE if units > largest else REFUSED_REUSE
            self.held |= wanted
            self.live[at] = wanted
        elif op == FREE:
            self.live.pop(at, None)
        elif op in (SEGMENT, MAP):
            self.held |= set(range(at, at + units))
            self.walls += [at, at + units] if op == SEGMENT else []
        elif op in (SEGMENT_FREE, UNMAP):
            gone = set(range(at, at + units))
            self.held -= gone
            self.live = {begin: block for begin, block in self.live.items() if begin not in gone}
            for wall in (at, at + units) if op == SEGMENT_FREE else ():
                self.walls.remove(wall)
        elif op == TRIM and len(self.held) * UNIT > size:
            self.held = {unit for block in self.live.values() for unit in block}
        holes = self.holes()
        live = sum(map(len, self.live.values()))
        return live * UNIT, len(self.held) * UNIT, max(map(len, holes), default=0) * UNIT, kind


@st.composite
def pools(draw):
    """What a pool could do: blocks that do not overlap; frees of what is live, or of what nobody knows; trims."""
    rows, live = [], {}
    for _ in range(draw(st.integers(1, 40))):
        what = draw(st.sampled_from("aaaaffft?"))
        if what == "a":
            at, units = draw(st.integers(0, 40)), draw(st.integers(1, 8))
            if all(at + units <= begin or at >= begin + length or at == begin for begin, length in live.items()):
                if any(begin != at and begin < at + units and begin >= at for begin in live):
                    continue
                live[at] = units
                rows.append((ALLOC, at * UNIT, units * UNIT - draw(st.integers(0, 511))))
        elif what == "f" and live:
            at = draw(st.sampled_from(sorted(live)))
            del live[at]
            rows.append((FREE, at * UNIT, 0))
        elif what == "t":
            rows.append((TRIM, 0, draw(st.integers(0, 60)) * UNIT))
        elif what == "?":
            rows.append((FREE, 10**6, 0))
    return rows


@st.composite
def segments(draw):
    """Segments of 8 units in slots that may touch, blocks in them, segments given back; some are mappings, which join."""
    rows, have, live = [], {}, {}
    for _ in range(draw(st.integers(1, 50))):
        what = draw(st.sampled_from("ssaaaaafffg"))
        slot = draw(st.integers(0, 4))
        if what == "s" and slot not in have:
            have[slot] = draw(st.sampled_from((SEGMENT, SEGMENT, MAP)))
            rows.append((have[slot], slot * 8 * UNIT, 8 * UNIT))
        elif what == "g" and slot in have:
            rows.append((SEGMENT_FREE if have.pop(slot) == SEGMENT else UNMAP, slot * 8 * UNIT, 8 * UNIT))
            live = {at: units for at, units in live.items() if at // 8 != slot}
        elif what == "a" and slot in have:
            at, units = slot * 8 + draw(st.integers(0, 7)), draw(st.integers(1, 4))
            fits = at + units <= slot * 8 + 8
            if fits and all(at + units <= begin or at >= begin + length for begin, length in live.items()):
                live[at] = units
                rows.append((ALLOC, at * UNIT, units * UNIT))
        elif what == "f" and live:
            at = draw(st.sampled_from(sorted(live)))
            del live[at]
            rows.append((FREE, at * UNIT, 0))
    return rows


def check_twin(rows, told):
    course = replay(stream(*rows), told)
    twin = Twin(told)
    for number, (row, state) in enumerate(zip(rows, course.states.tolist(), strict=True)):
        live, held, largest, kind = twin.step(*row)
        assert state[:3] == (live, held, largest), (number, row)
        assert told or state[4] == kind, (number, row)
    holes = [(hole[0] * UNIT, (hole[-1] + 1) * UNIT) for hole in twin.holes()]
    assert list(zip(course.holes["begin"].tolist(), course.holes["end"].tolist(), strict=True)) == holes
    return course


@given(pools())
@settings(max_examples=150, deadline=None)
def test_like_its_twin(rows):
    check_twin(rows, told=False)


@given(segments())
@settings(max_examples=150, deadline=None)
def test_like_its_twin_where_segments_are_announced(rows):
    check_twin(rows, told=True)


@given(pools(), st.integers(300, 5000), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_heat_maps(rows, bin_ns, height):
    """Cell by cell, unit by unit and nanosecond by nanosecond."""
    course = replay(stream(*rows))
    end = len(rows) * 1000
    columns = Columns.of(0, end, bin_ns, 10**6)
    cells, firsts = by_address(course, columns, height, end)
    units = np.concatenate([np.arange(begin, stop, UNIT) for begin, stop in course.extents.tolist()] or [[]])
    if len(units):
        live = np.zeros((len(units), columns.count * bin_ns // 100))  # 100 ns at a time: all times are multiples of 1000
        for address, size, begin, stop, _ in course.blocks.tolist():
            at = int(np.searchsorted(units, address))
            live[at : at + size // UNIT, begin // 100 : min(stop, end) // 100] = 1
        if bin_ns % 100 == 0 and len(units) % height == 0:
            expected = live.reshape(height, len(units) // height, columns.count, bin_ns // 100).mean(axis=(1, 3))
            assert np.allclose(cells, expected)
        assert np.isclose(cells.sum() * len(units) * UNIT / height * bin_ns, live.sum() * UNIT * 100)
        assert firsts[0] == units[0]
    failures, requests, classes = by_size(course, columns)
    asked = [size for op, _, size in rows if op == ALLOC]
    assert requests.sum() == len(asked) and failures.sum() == (course.states["growth"] == MERGE_FAILURE).sum()
    assert not asked or classes[0] <= min(-(-size // UNIT) * UNIT for size in asked) < 2 * classes[0]
    found = lines(course, columns)
    assert found.peak.max(initial=0) == course.states["live"].max(initial=0)
    assert found.live[-1] == course.states["live"][-1] if len(rows) else True
    for column in range(columns.count):
        before = course.states[course.events["time_ns"] < (column + 1) * bin_ns]
        if column < columns.count - 1:
            assert found.reserved[column] == (before["reserved"][-1] if len(before) else 0)


def test_columns_widen():
    columns = Columns.of(0, 60_000, 10, 1000)
    assert (columns.bin_ns, columns.count) == (60, 1000)
    assert Columns.of(5, 5, 10, 1000).count == 1


def test_many_events():
    """Half of them frees, at random, among ten thousand holes: a million would take some seconds of a slow machine."""
    random = np.random.default_rng(1)
    slots, live, rows, events = 20_000, set(), [], np.zeros(200_000, EVENT)
    picks = random.integers(0, slots, len(events)).tolist()
    for slot in picks:
        rows.append((FREE if slot in live else ALLOC, slot))
        live.symmetric_difference_update((slot,))
    events["op"], events["address"] = np.array(rows).T
    events["address"] *= np.uint64(4096)
    events["size"], events["time_ns"] = 4096, np.arange(len(events)) * 1000
    begin = time.process_time()
    course = replay(events)
    took = time.process_time() - begin
    assert course.states["live"][-1] == len(live) * 4096
    assert took < 5, took
    begin = time.process_time()
    by_address(course, Columns.of(0, 10**9, 10_000_000, 2000), 96, 10**9)
    assert time.process_time() - begin < 5

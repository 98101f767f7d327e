"""`gotrace.analysis.who_had_p` against a count of every nanosecond."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gotrace.analysis.who_had_p import (
    ACQUIRED,
    GOROUTINE,
    HANDED_OVER,
    IDLE,
    LOCKED,
    NOBODY,
    STOP,
    NoCpu,
    Turn,
    parts_of,
)

END = 60
THREADS = (7, 8, 9)
_edges = st.lists(st.integers(0, END), min_size=2, max_size=8, unique=True).map(sorted)


@st.composite
def turns(draw):
    edges = draw(_edges)
    found = []
    for begin, end in zip(edges, edges[1:], strict=False):
        goid = draw(st.sampled_from((0, 0, 1, 2, 3)))
        startpc = draw(st.sampled_from((IDLE, HANDED_OVER, LOCKED, ACQUIRED))) if not goid else 1000 + goid
        found.append(Turn(draw(st.sampled_from(THREADS)), goid, startpc, begin, end))
    return found


@st.composite
def spans(draw):
    """Some that do not overlap."""
    edges = draw(_edges)
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(turns(), spans(), st.fixed_dictionaries({tid: spans() for tid in THREADS}), st.data())
def test_every_nanosecond_is_told_once(turns, stops, waits, data):
    begin = data.draw(st.integers(0, END - 1))
    wait = begin, data.draw(st.integers(begin + 1, END))
    no_cpu = {
        tid: [NoCpu(low, high, data.draw(st.integers(20, 22)), data.draw(st.booleans())) for low, high in each]
        for tid, each in waits.items()
    }
    held, without, throttled, behind = Counter(), Counter(), Counter(), Counter()
    for now in range(*wait):
        at = next((number for number, turn in enumerate(turns) if turn.begin_ns <= now < turn.end_ns), None)
        if at is None:
            continue
        turn = turns[at]
        if any(low <= now < high for low, high in stops):
            held[STOP, 5] += 1
            continue
        key = (GOROUTINE, turn.goid) if turn.goid else (NOBODY, turn.startpc)
        held[key] += 1
        tid = turn.tid if turn.goid or at + 1 == len(turns) else turns[at + 1].tid
        for each in no_cpu[tid]:
            if each.begin_ns <= now < each.end_ns:
                without[key] += 1
                throttled[key] += each.throttled
                behind[key, each.holder] += not each.throttled
    found = parts_of(wait, turns[::-1], [(low, high, 5) for low, high in stops], no_cpu)
    assert {(part.what, part.which): part.held_ns for part in found} == {key: ns for key, ns in held.items() if ns}
    assert [part.held_ns for part in found] == sorted((part.held_ns for part in found), reverse=True)
    for part in found:
        key = part.what, part.which
        assert (part.no_cpu_ns, part.throttled_ns) == (without[key], throttled[key])
        assert part.behind == {tid: ns for (of, tid), ns in behind.items() if of == key and ns}


def test_a_p_is_taken_from_a_goroutine_by_another_thread():
    def taken(by):
        turns = [Turn(7, 1, 1001, 0, 10), Turn(by, 0, HANDED_OVER, 10, 12), Turn(9, 2, 1002, 12, 20)]
        return {part.which: part.taken for part in parts_of((2, 20), turns, [], {}) if part.what == GOROUTINE}

    assert taken(8) == {1: True, 2: False}
    assert taken(7) == {1: False, 2: False}  # its own thread blocks: LockOSThread


def test_nothing_is_known():
    assert parts_of((0, 10), [], [(2, 3, 1)], {}) == []

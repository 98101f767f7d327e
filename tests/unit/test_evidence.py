"""Slices of the event stream around long pauses: each has its pause and all that was seen of it, however it came."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotrace.analysis.evidence import AFTER_NS, FOREVER_NS, Evidence
from gotrace.kernel.ring import wire_dtype
from gotrace.probe import probe_module

PROBES = {
    stem: {"kinds": probe_module(stem).PROBE.header_kinds(), "facts": {"has_worldstop": True}} for stem in ("gc", "tail")
}
NUMBER = {name: kind["number"] for probe in PROBES.values() for name, kind in probe["kinds"].items()}
MS = 1_000_000
MOST = 1 << 12


def event(kind, time_ns, tid=7, **columns):
    row = np.zeros(1, wire_dtype())
    names = next(probe["kinds"][kind]["columns"] for probe in PROBES.values() if kind in probe["kinds"])
    row["time_ns"], row["kind"], row["tid"] = time_ns, NUMBER[kind], tid
    for name, value in columns.items():
        row["abcde"[names.index(name)]] = value
    return row


def stop(begin_ns, length_ns, evidence=3):
    """A stop of the world, as its events come: with threads that come back to their CPUs in it."""
    step = length_ns // (evidence + 1)
    inside = [event("off_cpu", begin_ns + at * step, 8, stack=99) for at in range(1, evidence + 1)]
    end_ns = begin_ns + length_ns
    return [
        event("stop_asked", begin_ns),
        *inside,
        event("stw", end_ns, start_ns=begin_ns + 10, now_ns=end_ns - length_ns // 2),  # the runtime reports half of it
        event("restart_done", end_ns + 5),
        event("cycle_clock", end_ns + 20),
        event("off_cpu", end_ns + 1000, 9),
    ]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.integers(20_000, 40 * MS), min_size=1, max_size=12),
    gaps=st.lists(st.integers(5_000, 300 * MS), min_size=12, max_size=12),
    cuts=st.lists(st.integers(0, 120), max_size=8),
)
def test_each_long_pause_is_cut_out_whole(lengths, gaps, cuts):
    """In whatever portions the events are read."""
    stream, begins, at = [event("stack", 5, stack=99), event("stack", 6, stack=98)], [], 1_000_000_000
    for length, gap in zip(lengths, gaps, strict=False):
        begins.append(at)
        stream += stop(at, length)
        at += length + gap
    evidence, found, gc = Evidence(5 * MS, PROBES), [], 0
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for begin, end in zip(edges, edges[1:], strict=False):
        portion = np.concatenate(stream[begin:end])
        now_ns = int(portion["time_ns"].max())
        gc += len(evidence.feed(portion, 0, now_ns, MOST))
        found += evidence.due(now_ns)
    found += evidence.due(FOREVER_NS)
    assert gc == 2 * len(lengths)
    long = [(begin, length) for begin, length in zip(begins, lengths, strict=True) if length - 10 >= 5 * MS]
    assert [(each.begin_ns, each.length_ns) for each in found] == [(begin, length - 10) for begin, length in long]
    for each in found:
        kinds = each.events["kind"].tolist()
        assert each.whole and each.lost == 0 and kinds.count(NUMBER["stw"]) == kinds.count(NUMBER["stop_asked"]) == 1
        assert kinds.count(NUMBER["off_cpu"]) == 4 and kinds.count(NUMBER["restart_done"]) == 1
        assert kinds.count(NUMBER["stack"]) == 1  # the one that is asked for, and no other
        assert each.end_ns - each.begin_ns <= each.length_ns + 10 + AFTER_NS
    assert evidence.size <= 256  # stacks alone: nothing goes on


def test_what_is_not_whole_says_so():
    """The request was lost, or other events, or they were too many: each is told."""
    evidence = Evidence(5 * MS, PROBES)
    evidence.feed(np.concatenate(stop(1_000_000_000, 8 * MS)), 0, 1_010_000_000, MOST)
    evidence.feed(np.concatenate(stop(2_000_000_000, 8 * MS)[1:]), 0, 2_010_000_000, MOST)
    evidence.feed(np.concatenate(stop(3_000_000_000, 8 * MS)), 3, 3_010_000_000, MOST)
    evidence.feed(np.concatenate(stop(4_000_000_000, 8 * MS)), 3, 4_010_000_000, MOST)
    evidence.feed(np.concatenate(stop(5_000_000_000, 8 * MS, evidence=5000)), 3, 5_010_000_000, MOST)
    found = evidence.due(FOREVER_NS)
    assert [(each.whole, bool(each.lost)) for each in found] == [
        (True, False),
        (False, True),  # what was lost up to the next look may have been of its aftermath
        (True, True),
        (True, False),
        (True, True),
    ]
    assert all(each.length_ns == 8 * MS - 10 for each in found)

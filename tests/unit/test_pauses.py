"""The decoder on raw events made by hand: pairing over batches, double hits, lost halves, nonsense."""

from __future__ import annotations

import numpy as np
import pytest

from gotrace.analysis.columns import Kinds
from gotrace.analysis.gc_summary import GcSummary
from gotrace.analysis.pacing import Pacing, sentences
from gotrace.analysis.pauses import NO_LIMIT, NOT_READ, TRIGGERS, UNKNOWN, GcDecoder, WireFormat
from gotrace.kernel.ring import wire_dtype
from gotrace.probes.gc import FLAG_ASKED, FLAG_FORCEGC_GOROUTINE, FLAG_USER_FORCED, FLAG_WORLDSTOP, PROBE
from gotrace.records.gc import batch_records, json_pacing

NUMBER = {kind.name: kind.number for kind in PROBE.kinds}
REASONS = {0: "unknown", 1: "GC mark termination", 2: "GC sweep termination", 7: "read mem stats"}


def decoder(**options):
    wire = WireFormat(
        Kinds(PROBE.header_kinds()),
        worldstop=FLAG_WORLDSTOP,
        forcegc_goroutine=FLAG_FORCEGC_GOROUTINE,
        asked=FLAG_ASKED,
        user_forced=FLAG_USER_FORCED,
    )
    return GcDecoder(
        wire, REASONS, lambda address, length: {(1000, 14): "read mem stats"}.get((address, length), ""), **options
    )


def events(*rows):
    """Rows of (kind, time, a, b, c, d, e)."""
    out = np.zeros(len(rows), wire_dtype())
    for i, (kind, time_ns, *values) in enumerate(rows):
        out[i]["kind"], out[i]["time_ns"], out[i]["tid"] = NUMBER[kind], time_ns, 5
        for name, value in zip("abcde", values, strict=False):
            out[i][name] = value
    return out


def word(reason, flags=FLAG_WORLDSTOP, cycle=3):
    return reason | flags << 8 | cycle << 32


CYCLE = (
    ("cycle_clock", 9000, 3, 1000, 1200, 5000, 5600),
    ("cycle_heap", 9000, 3, 4 << 20, 5 << 20, 2 << 20, 8 << 20),
    ("cycle_work", 9000, 3, 700, 42, 2),
)


def test_a_pause_with_worldstop():
    batch = decoder().feed(events(("stw", 2010, word(7, cycle=3), 17, 1000, 1600, 2000)))
    (pause,) = batch.pauses
    assert (pause["start_ns"], pause["stopping_ns"], pause["stopped_ns"], pause["total_ns"]) == (1000, 600, 400, 1000)
    assert (pause["restart_lag_ns"], pause["goid"], pause["tid"], pause["cycle"]) == (10, 17, 5, -1)
    assert not pause["probe_clock"]


def test_stopping_time_that_is_not_known():
    (pause,) = decoder().feed(events(("stw", 2010, word(1), 17, 1000, 0, 2000))).pauses
    assert (pause["stopping_ns"], pause["stopped_ns"], pause["total_ns"]) == (-1, -1, 1000)


@pytest.mark.parametrize(
    ("flags", "trigger"), [(0, "heap"), (FLAG_FORCEGC_GOROUTINE, "periodic"), (FLAG_USER_FORCED, "forced")]
)
def test_a_cycle_and_what_began_it(flags, trigger):
    stop = ("stw", 1210, word(2, FLAG_WORLDSTOP | flags), 17, 1000, 1100, 1200)
    batch = decoder().feed(events(stop, *CYCLE, ("sweep_end", 9600, 3)))
    (cycle,) = batch.cycles
    assert TRIGGERS[cycle["trigger"]] == trigger
    clocks = (cycle["sweep_termination_ns"], cycle["mark_ns"], cycle["mark_termination_ns"])
    assert clocks == (200, 3800, 600)
    assert (cycle["pause_ns"], cycle["assist_ns"], cycle["maxprocs"]) == (700, 42, 2)
    assert cycle["heap_live_bytes"] == 2 << 20
    assert batch.sweeps.tolist() == [(9600, 3, 4000)]


def test_a_sweeper_that_goes_to_sleep_in_the_next_cycle():
    assert len(decoder().feed(events(("sweep_end", 5000, 3), *CYCLE)).sweeps) == 0


def test_a_cycle_whose_beginning_was_not_seen():
    assert decoder().feed(events(*CYCLE)).cycles["trigger"].tolist() == [-1]


@pytest.mark.parametrize("cut", [1, 2])
def test_a_cycle_that_is_cut_by_the_end_of_a_batch(cut):
    decode = decoder()
    assert len(decode.feed(events(*CYCLE[:cut])).cycles) == 0
    assert len(decode.feed(events(*CYCLE[cut:])).cycles) == 1
    assert decode.incomplete == 0


def test_a_half_that_was_lost_is_counted():
    decode = decoder()
    decode.feed(events(*CYCLE[:2]))
    decode.feed(events())
    decode.feed(events())
    assert decode.incomplete == 2


def test_a_probe_that_hits_twice_gives_one_cycle():
    decode = decoder()
    again = [(kind, time + 50, *values) for kind, time, *values in CYCLE]
    assert len(decode.feed(events(*CYCLE, *again)).cycles) == 1
    assert len(decode.feed(events(*again)).cycles) == 0


@pytest.mark.parametrize(
    ("start", "finish", "now", "time"), [(5000, 0, 2000, 5010), (0, 0, 2000, 2010), (1000, 0, 900_000, 2000)]
)
def test_times_that_cannot_be_are_no_pause(start, finish, now, time):
    decode = decoder()
    assert len(decode.feed(events(("stw", time, word(1), 1, start, finish, now))).pauses) == 0
    assert decode.incomplete == 1


def test_clocks_that_run_backwards_are_no_cycle():
    decode = decoder()
    wrong = ("cycle_clock", 9000, 3, 5000, 1200, 5000, 5600)
    assert len(decode.feed(events(wrong, *CYCLE[1:])).cycles) == 0
    assert decode.incomplete == 1


def test_a_stop_that_was_under_way_at_the_start_is_no_loss():
    decode = decoder()
    under_way = events(("stw_work", 2010, 0, 1000, 900, 800, 700), ("stw", 2010, word(0, 0), 17, 0, 0, 2000))
    for batch in (under_way, events(), events()):
        assert len(decode.feed(batch).pauses) == 0
    assert decode.incomplete == 0


def old_decoder():
    return decoder(has_worldstop=False)


class TestOldReleases:
    """Go 1.21 and older: the times of a collection come from `work`, any other stop has our own time only."""

    def test_sweep_termination(self):
        work = ("stw_work", 2010, 0, 1000, 1000, 500, 700)
        (pause,) = old_decoder().feed(events(work, ("stw", 2010, word(0, FLAG_ASKED), 1, 990, 0, 2000))).pauses
        assert (pause["start_ns"], pause["total_ns"], pause["cycle"]) == (1000, 1000, 3)

    def test_mark_termination_ends_before_the_restart(self):
        work = ("stw_work", 2010, 0, 1000, 500, 1000, 1800)
        (pause,) = old_decoder().feed(events(work, ("stw", 2010, word(1, FLAG_ASKED), 1, 990, 0, 2000))).pauses
        assert (pause["total_ns"], pause["restart_lag_ns"]) == (800, 210)

    def test_mark_termination_that_has_to_mark_on(self):
        work = ("stw_work", 2010, 0, 1000, 500, 1000, 400)
        (pause,) = old_decoder().feed(events(work, ("stw", 2010, word(1, FLAG_ASKED), 1, 990, 0, 2000))).pauses
        assert pause["total_ns"] == 1000

    def test_reason_in_words(self):
        decode = old_decoder()
        work = ("stw_work", 2010, 1000 | 14 << 48, 100, 50, 100, 200)
        (pause,) = decode.feed(events(work, ("stw", 2010, word(0, FLAG_ASKED), 1, 990, 0, 2000))).pauses
        assert decode.reasons[pause["reason"]] == "read mem stats"
        assert pause["probe_clock"] and pause["total_ns"] == 1010 and pause["cycle"] == -1

    def test_a_stop_whose_request_was_not_seen_is_not_a_second_collection(self):
        decode = old_decoder()
        work = (0, 1000, 500, 1000, 1800)
        first = events(("stw_work", 2010, *work), ("stw", 2010, word(1, FLAG_ASKED), 1, 990, 0, 2000))
        second = events(("stw_work", 9010, *work), ("stw", 9010, word(0, 0), 1, 0, 0, 9000))
        assert len(decode.feed(first).pauses) == 1
        assert len(decode.feed(second).pauses) == 0


def test_time_namespace():
    (pause,) = decoder(clock_offset_ns=10_000).feed(events(("stw", 2010, word(7), 1, 11000, 11600, 12000))).pauses
    assert (pause["start_ns"], pause["total_ns"], pause["restart_lag_ns"]) == (1000, 1000, 10)


def test_time_that_what_began_before_took():
    """Of what had begun before the time that is summed up, only the rest counts for its share."""
    stop = ("stw", 1210, word(2), 17, 1000, 1100, 1200)
    batch = decoder().feed(events(stop, *CYCLE, ("sweep_end", 9600, 3)))
    whole, late = GcSummary(), GcSummary(begin_ns=1150)
    for summary in (whole, late):
        summary.add(batch, ["GC sweep termination"])
    name = "GC sweep termination"
    assert whole.time_ns == {
        (name, "stopping"): 100,
        (name, "stopped"): 100,
        (name, "total"): 200,
        (name, "restart"): 10,
        ("concurrent mark", ""): 3800,
        ("mark assist", ""): 21,
        ("sweep", ""): 4000,
    }
    assert late.time_ns == {**whole.time_ns, (name, "stopping"): 0, (name, "stopped"): 50, (name, "total"): 50}
    later = GcSummary(begin_ns=2000)
    later.add(batch, ["GC sweep termination"])
    assert later.time_ns["concurrent mark", ""] == 3000 and later.time_ns["mark assist", ""] == 0
    assert later.phases["concurrent mark"].sum == 3800  # of the whole, as gctrace has it


def test_a_goal_that_is_not_known():
    """It and what assists took are null, not 0, and count nowhere."""
    unknown = (1 << 64) - 1
    clock, heap, work = CYCLE
    gc = decoder()
    batch = gc.feed(events(clock, (*heap[:-1], unknown), (*work[:4], unknown, *work[5:])))
    (record,) = batch_records(batch, gc.reasons, 0)
    assert (record["heap_goal_bytes"], record["assist_ns"]) == (None, None)
    assert (record["heap_live_bytes"], record["pause_ns"]) == (2 << 20, 700)
    summary = GcSummary()
    summary.add(batch, gc.reasons)
    assert "mark assist" not in summary.phases or not summary.phases["mark assist"].count
    assert summary.last_heap["live"] == 2 << 20 and summary.last_heap["goal"] == UNKNOWN


MIB = 1 << 20
NONE = (1 << 64) - 1  # of a word that the runtime or the probe has no number for
OFF = (1 << 32) - 1


def paced(number, live, goal, percent_goal, percent=100, limit=NO_LIMIT, counted=60 * MIB, limiter=0, kinds=2):
    """One triggered by heap growth, a second after the one before, and whose heap grew by 8 MiB to its goal."""
    at = number * 10**9
    stop = ("stw", at + 100, word(2, cycle=number), 17, at + 10, at + 50, at + 90)
    parts = [
        ("cycle_clock", at + 9000, number, at, at + 90, at + 5000, at + 5600),
        ("cycle_heap", at + 9000, number, goal - MIB, goal, live, goal),
        ("cycle_pacing", at + 9000, number, percent, limit, 4 * MIB * percent // 100, percent_goal),
        ("cycle_limit", at + 9000, number, counted, number * MIB, number * 10**6, limiter),
        ("cycle_work", at + 9000, number, 700, 42, 2),
    ]
    return [stop, *parts[: 2 + kinds], parts[-1]]


def summed(*cycles, batches=1):
    gc, pacing = decoder(), Pacing()
    found = []
    for part in np.array_split(np.arange(len(cycles)), batches):
        batch = gc.feed(events(*(row for place in part for row in cycles[place])))
        pacing.add(batch.cycles)
        found += [each for each in batch_records(batch, gc.reasons, 0) if each["type"] == "cycle"]
    assert gc.incomplete == 0
    return pacing, found


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_goals_of_gogc(batches):
    cycles = [paced(each, 40 * MIB, 44 * MIB, 44 * MIB, percent=10) for each in (1, 2, 3)]
    pacing, found = summed(*cycles, batches=batches)
    assert [each["goal_set_by"] for each in found] == [None, "GOGC", "GOGC"]
    assert [each["room_bytes"] for each in found] == [None, 4 * MIB, 4 * MIB]
    assert [each["allocated_bytes"] for each in found] == [None, 4 * MIB, 4 * MIB]
    assert (pacing.gc_percent, pacing.memory_limit, pacing.rate) == (10, NO_LIMIT, pytest.approx(4 * MIB))
    assert sentences(pacing) == [
        "GOGC 10 set the goal of 2 of 3 cycles triggered by heap growth: it leaves room for 4.00 MiB above the live heap "
        "of 40.0 MiB. By the pacer's count, the program allocates 4.00 MiB/s, which fills that in 1.00 s."
    ]


def test_goals_that_the_runtime_moves_up():
    """GOGC leaves a small heap less than the 1 MiB that the runtime leaves itself for sweeping."""
    cycles = [paced(each, 3 * MIB, 4 * MIB, 3 * MIB + MIB // 2, percent=10) for each in (1, 2, 3)]
    pacing, found = summed(*cycles)
    assert [each["goal_set_by"] for each in found] == [None, "GOGC", "GOGC"]
    assert (pacing.by_percent(MIB), pacing.by_percent(MIB // 2 + 64 * 1024)) == (MIB // 2, MIB // 2 + 64 * 1024)
    assert sentences(pacing) == [
        "GOGC 10 would leave room for 512 KiB above the live heap of 3.00 MiB, but the runtime moved the goal of 2 of 3 "
        "cycles triggered by heap growth up to 1.00 MiB above it, to leave time for sweeping. By the pacer's count, the "
        "program allocates 1.00 MiB/s, which fills that in 1.00 s."
    ]


def test_the_least_goal():
    pacing, found = summed(*(paced(each, MIB, 4 * MIB, 4 * MIB) for each in (1, 2)))
    assert found[1]["goal_set_by"] == "minimum heap"
    assert sentences(pacing)[0].startswith("The heap is so small that the goal of 1 of 2 cycles")
    assert "the minimum for GOGC 100, 4.00 MiB: it leaves room for 3.00 MiB" in sentences(pacing)[0]


def test_the_least_goal_that_the_runtime_moves_up():
    """Below GOGC 25 the minimum is less than what the runtime leaves itself for sweeping above any heap."""
    minimum = 4 * MIB // 10
    cycles = [paced(each, MIB // 4, MIB // 4 + MIB, minimum, percent=10) for each in (1, 2, 3)]
    pacing, found = summed(*cycles)
    assert [each["goal_set_by"] for each in found] == [None, "minimum heap", "minimum heap"]
    assert sentences(pacing)[0].startswith(
        "The heap is so small that GOGC 10 gives it the minimum goal, 410 KiB, which would leave room for 154 KiB above "
        "the live heap of 256 KiB, but the runtime moved the goal of 2 of 3 cycles triggered by heap growth up to 1.00 MiB "
        "above it, to leave time for sweeping."
    )


def test_goals_of_the_limit():
    cycles = [paced(each, 48 * MIB, 48 * MIB, 96 * MIB, limit=50 * MIB, limiter=min(each, 2)) for each in (1, 2, 3)]
    pacing, found = summed(*cycles)
    assert [each["goal_set_by"] for each in found] == [None, "GOMEMLIMIT", "GOMEMLIMIT"]
    assert (pacing.over_limit, pacing.limiter_cycles, pacing.limiter_last) == (3, 2, 2)
    goal, over, returned, limiter = sentences(pacing)
    assert "it leaves no room above the live heap of 48.0 MiB, GOGC 100 alone would leave 48.0 MiB." in goal
    assert over == "At the end of 3 cycles memory in use exceeded GOMEMLIMIT (50.0 MiB)."
    assert (
        returned
        == "Allocations returned 2.00 MiB to the kernel before they could continue, which cost 2.00 ms of CPU time."
    )
    assert "was active in 2 cycles" in limiter


def test_gogc_that_is_off():
    pacing, found = summed(*(paced(each, 48 * MIB, 49 * MIB, NONE, OFF, 50 * MIB) for each in (1, 2)))
    assert (found[1]["gc_percent"], found[1]["percent_goal_bytes"]) == (-1, NO_LIMIT)
    assert found[1]["goal_set_by"] == "GOMEMLIMIT" and "alone" not in sentences(pacing)[0]
    _, found = summed(*(paced(each, 48 * MIB, NO_LIMIT >> 1, NONE, OFF) for each in (1, 2)))
    assert found[1]["goal_set_by"] == "nothing"


@pytest.mark.parametrize(
    "second", [paced(2, 40 * MIB, 44 * MIB, 44 * MIB, percent=10), paced(3, 40 * MIB, 80 * MIB, 80 * MIB)]
)
def test_what_set_a_goal_is_not_known(second):
    """GOGC was set anew, or the cycle before was not seen."""
    pacing, found = summed(paced(1, 40 * MIB, 80 * MIB, 80 * MIB), second)
    assert [each["goal_set_by"] for each in found] == [None, None]
    assert json_pacing(pacing)["goal_set_by"] == {"unknown": 2}
    assert sentences(pacing)[0].startswith("What set the goals is unknown")


def test_fields_that_are_not_known():
    pacing, found = summed(*(paced(each, 40 * MIB, 44 * MIB, 44 * MIB, kinds=0) for each in (1, 2)))
    assert (pacing.gc_percent, pacing.memory_limit, pacing.counted) == (NOT_READ, UNKNOWN, UNKNOWN)
    unknown = {"gc_percent", "memory_limit_bytes", "counted_bytes", "limiter_cycle", "goal_set_by"}
    assert {found[1][name] for name in unknown} == {None}
    told = json_pacing(pacing)
    assert {told[name] for name in ("gc_percent", "memory_limit_bytes", "returned_bytes", "limiter_cycles")} == {None}

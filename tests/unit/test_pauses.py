"""The decoder on raw events made by hand: pairing over batches, double hits, lost halves, nonsense."""

from __future__ import annotations

import numpy as np
import pytest

from gotrace.analysis.pauses import TRIGGERS, GcDecoder, WireFormat
from gotrace.kernel.ring import wire_dtype
from gotrace.probes.gc import FLAG_ASKED, FLAG_FORCEGC_GOROUTINE, FLAG_USER_FORCED, FLAG_WORLDSTOP, PROBE

NUMBER = {kind.name: kind.number for kind in PROBE.kinds}
REASONS = {0: "unknown", 1: "GC mark termination", 2: "GC sweep termination", 7: "read mem stats"}


def decoder(**options):
    wire = WireFormat(
        **NUMBER,
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

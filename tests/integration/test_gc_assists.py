"""How long mark assists hold goroutines, against the program's own clock around each of its allocations."""

from __future__ import annotations

import collections
import json
import statistics

import pytest

import targets

pytestmark = pytest.mark.bpf

LONG_NS = 1_000_000  # what the program prints


@pytest.mark.alone  # what has the CPUs meanwhile is in an allocation's time, and in no assist's
@pytest.mark.parametrize("version", [one for one in targets.MATRIX if one.startswith(("1.19.", "1.22.", "1.27."))])
def test_how_long_goroutines_are_held(version, start, trace, gotrace, tmp_path):
    target = start(targets.build("assister", version))
    recording = tmp_path / "run.gotrace"
    tracer = trace("--pid", str(target.pid), "--assists", "-o", str(recording))
    target.go()
    truth = target.truth()
    assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    summary, assists = tracer.records[-1], tracer.of("assist")
    assert summary["events"]["lost"] == 0
    assert summary["assists"]["begun_before"] <= 1  # that of the main goroutine, which allocates before it waits

    # Each is within what its goroutine timed, but for those of the main goroutine.
    allocations = collections.defaultdict(list)
    for each in truth["Long"]:
        allocations[each["Goid"]].append((each["Begin"], each["End"]))
    held = collections.Counter()
    long = [each for each in assists if each["held_ns"] >= LONG_NS and each["goid"] in allocations]
    assert len(long) > 20
    for each in assists:
        begin, end = each["monotonic_ns"], each["monotonic_ns"] + each["held_ns"]
        around = [(b, e) for b, e in allocations.get(each["goid"], ()) if b <= begin and end <= e]
        assert around or each["goid"] not in allocations or each["held_ns"] < LONG_NS, each
        if around:
            held[(each["goid"], *around[0])] += each["held_ns"]
    # And hardly anything else is in that time, unless another goroutine took its place in between.
    shares = [ns / (end - begin) for (_, begin, end), ns in held.items()]
    assert statistics.median(shares) > 0.95 and max(shares) <= 1
    assert any(each["parked_ns"] for each in long)
    assert all(0 <= each["parked_ns"] <= each["held_ns"] for each in assists)

    # Who is not parked marks, which the runtime counts as CPU time, or has been preempted.
    if truth["AssistSeconds"] >= 0:
        marked = sum(each["held_ns"] - each["parked_ns"] for each in assists) / 1e9
        assert 0.9 * truth["AssistSeconds"] <= marked

    # With so many in assists the GC CPU limiter often comes on.
    assert tracer.of("cycle")[-1]["limiter_cycle"] == truth["LimiterCycle"]

    told = summary["assists"]
    assert told["held"]["count"] == len(assists) and told["held"]["sum"] == sum(each["held_ns"] for each in assists)
    assert told["longest"] == max(assists, key=lambda each: each["held_ns"])
    assert told["held"]["max"] == told["longest"]["held_ns"]
    parked = [each["parked_ns"] for each in assists if each["parked_ns"]]
    assert (told["parked"]["count"], told["parked"]["max"]) == (len(parked), max(parked))
    assert all(each["works"] >= 1 for each in assists)

    # A report of the recording says the same.
    done = gotrace("report", str(recording), "--format", "ndjson")
    assert [json.loads(line) for line in done.stdout.splitlines()][1:] == tracer.records[1:], done.stderr
    assert "goroutine in an assist  held" in gotrace("report", str(recording)).stdout

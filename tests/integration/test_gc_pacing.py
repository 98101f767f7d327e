"""What is set, what set the heap goals and what that cost, against runtime/metrics, MemStats and the program itself."""

from __future__ import annotations

import collections

import pytest

import targets

pytestmark = pytest.mark.bpf

MIB = 1 << 20
OFF = (1 << 63) - 1
CASES = {
    # arguments, what sets the goals, GOGC, GOMEMLIMIT
    "little growth": (["-percent", "10", "-live", "20"], "GOGC", 10, OFF),
    "small heap": (["-live", "0"], "minimum heap", 100, OFF),
    "over the limit": (["-live", "40", "-limit", "50"], "GOMEMLIMIT", 100, 50 * MIB),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("version", [one for one in targets.MATRIX if one.startswith(("1.19.", "1.22.", "1.27."))])
def test_what_sets_the_pace(version, case, start, trace):
    arguments, setter, percent, limit = CASES[case]
    target = start(targets.build("pacer", version), *arguments, "-cycles", "40")
    tracer = trace("--pid", str(target.pid))
    target.go()
    truth = target.truth()
    assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    cycles, summary = tracer.of("cycle"), tracer.records[-1]
    pacing, metrics = summary["pacing"], truth["Metrics"]
    (last,) = (each for each in cycles if each["cycle"] == truth["NumGC"])  # what was read right after it
    assert summary["events"]["lost"] == 0

    assert (truth["Percent"], truth["Limit"]) == (percent, limit)
    assert {(each["gc_percent"], each["memory_limit_bytes"]) for each in cycles} == {(percent, limit)}
    assert (pacing["gc_percent"], pacing["memory_limit_bytes"], pacing["changed"]) == (percent, limit, False)
    assert metrics.get("/gc/gogc:percent", percent) == percent
    assert metrics.get("/gc/gomemlimit:bytes", limit) == limit
    assert last["heap_minimum_bytes"] == 4 * MIB * percent // 100

    # The goal of the next cycle, by the runtime's word.
    goal = metrics["/gc/heap/goal:bytes"]
    if setter == "GOMEMLIMIT":
        assert goal < last["percent_goal_bytes"]
    else:
        assert goal == last["percent_goal_bytes"]
    assert (last["percent_goal_bytes"] == last["heap_minimum_bytes"]) == (setter == "minimum heap")
    # A heap that grew a lot in a late cycle is not at its least any more.
    grown = [each for each in cycles if each["trigger"] == "heap"]
    setters = collections.Counter(each["goal_set_by"] or "unknown" for each in grown)
    assert setters == pacing["goal_set_by"] and setters.most_common(1)[0][0] == setter and len(grown) > 30
    assert cycles[0]["goal_set_by"] is None
    assert any(name in pacing["sentences"][0] for name in ("GOGC", "GOMEMLIMIT"))
    assert pacing["sentences"][0].startswith({"minimum heap": "The heap is so small"}.get(setter, setter))

    # What was counted at the end of the last cycle. The scavenger returns memory meanwhile, and nothing is mapped.
    most, least = truth["Mapped"]
    assert least - 1 * MIB <= last["counted_bytes"] <= most + 1 * MIB
    over = sum(each["counted_bytes"] > limit for each in cycles)
    assert pacing["over_limit"] == over and (over > 20) == (setter == "GOMEMLIMIT")
    # The collector counts what is in a span that a P holds as allocated.
    allocated = sum(each["allocated_bytes"] or 0 for each in cycles if each["cycle"] <= last["cycle"])
    assert allocated == pytest.approx(truth["TotalAlloc"], rel=0.15)

    assert last["limiter_cycle"] == metrics["/gc/limiter/last-enabled:gc-cycle"]
    name = "/cpu/classes/scavenge/assist:cpu-seconds"
    if name in metrics:
        assert last["scavenge_assist_ns"] == round(metrics[name] * 1e9)
        # Without a limit allocations may return some, too, where the heap has just grown.
        assert min(last["returned_bytes"], pacing["returned_bytes"]) >= (MIB if setter == "GOMEMLIMIT" else 0)
    else:
        assert {each["returned_bytes"] for each in cycles} == {each["scavenge_assist_ns"] for each in cycles} == {None}

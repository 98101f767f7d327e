"""Every number of `gotrace gc` against the Go runtime's own, on stripped programs of every release of the matrix."""

from __future__ import annotations

import collections
import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

import targets
from groundtruth import bucket_counts, check_against_runtime, gctrace, rendered

pytestmark = pytest.mark.bpf

# What stops the world in the program `nongc`, per round, in each release's own words.
STOPS = {
    "1.19": {
        "read mem stats": 1,
        "GOMAXPROCS": 1,
        "stack trace": 1,
        "profile": 2,
        "profile cleanup": 1,
        "write heap dump": 1,
        "start tracing": 1,
        "stop tracing": 1,
    },
    "1.21": {
        "read mem stats": 1,
        "GOMAXPROCS": 1,
        "all goroutines stack trace": 1,
        "goroutine profile": 2,
        "goroutine profile cleanup": 1,
        "write heap dump": 1,
        "start trace": 1,
        "stop trace": 1,
    },
    "1.22": {
        "read mem stats": 1,
        "GOMAXPROCS": 1,
        "all goroutines stack trace": 1,
        "goroutine profile": 2,
        "goroutine profile cleanup": 1,
        "write heap dump": 1,
        "start trace": 1,
    },
    "1.23": {
        "read mem stats": 1,
        "GOMAXPROCS": 1,
        "all goroutines stack trace": 1,
        "goroutine profile": 1,
        "goroutine profile cleanup": 1,
        "write heap dump": 1,
        "start trace": 1,
    },
}


def expected_stops(version):
    """The newest entry of STOPS that is not newer than ``version``."""
    minor = int(version.split(".")[1])
    return STOPS[max((key for key in STOPS if int(key.split(".")[1]) <= minor), key=lambda key: int(key.split(".")[1]))]


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.MATRIX)
def test_collections(version, matrix, load, start, trace):
    target = start(targets.build("gcload", version), *load.collect(), env={"GODEBUG": "gctrace=1"})
    tracer = trace("--pid", str(target.pid))
    target.go()
    truth = target.truth()
    assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    check_against_runtime(tracer, truth, gctrace(target.stderr.read_text()), load)
    begin = tracer.records[0]
    assert begin["go_version"].startswith(f"go{version}") and begin["stripped"] and not begin["pie"]
    assert {record["trigger"] for record in tracer.of("cycle")[1:]} == {"heap", "forced"}
    summary = tracer.records[-1]
    assert summary["ended"] == "target exited"
    for reason in ("GC sweep termination", "GC mark termination"):
        totals = [stop["total_ns"] for stop in tracer.of("stw") if stop["reason"] == reason]
        statistics = summary["pauses"][reason]["total"]
        assert (statistics["count"], statistics["sum"]) == (len(totals), sum(totals))
        assert (statistics["min"], statistics["max"]) == (min(totals), max(totals))
    if version >= "1.22":
        buckets = truth["Histograms"]["/sched/pauses/total/gc:seconds"]
        ours = [stop["total_ns"] for stop in tracer.of("stw") if stop["cycle"] is not None]
        # those before we came, or in the middle of which we came, are not ours
        assert 0 <= sum(buckets["Counts"]) - len(ours) <= 2 * min(record["cycle"] for record in tracer.of("cycle"))


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.MATRIX)
def test_other_stops(version, matrix, load, start, trace):
    rounds = load.rounds
    target = start(targets.build("nongc", version), str(rounds))
    tracer = trace("--pid", str(target.pid))
    target.go()
    truth = target.truth()
    assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    stops = tracer.of("stw")
    counts = collections.Counter(stop["reason"] for stop in stops)
    assert counts == {reason: rounds * n for reason, n in expected_stops(version).items()}
    assert {stop["cycle"] for stop in stops} == {None}
    assert {stop["clock"] for stop in stops} == {"runtime" if version >= "1.22" else "probe"}
    for name, after in truth["After"].items():
        part = "stopping_ns" if "stopping" in name else "total_ns"
        theirs = [b - a for a, b in zip(truth["Before"][name]["Counts"], after["Counts"], strict=True)]
        assert bucket_counts(after["Buckets"], (stop[part] for stop in stops)).tolist() == theirs, name


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.SOME)
def test_periodic_collections(version, start, trace):
    target = start(targets.build("periodic", version), "5", env={"GODEBUG": "gctrace=1"})
    tracer = trace("--pid", str(target.pid))
    target.go()
    truth = target.truth()
    assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    cycles, log = tracer.of("cycle"), gctrace(target.stderr.read_text())
    assert truth["NumForcedGC"] == 1 and len(cycles) == truth["NumGC"]
    assert [cycle["trigger"] for cycle in cycles] == ["forced"] + ["periodic"] * (len(cycles) - 1)
    assert [rendered(cycle) for cycle in cycles] == [log[cycle["cycle"]] for cycle in cycles]


BUILDS = [
    pytest.param(version, flavour, marks=[pytest.mark.everywhere] * ((version, flavour) in targets.EVERYWHERE_FLAVOURS))
    for version in ("1.19.8", "1.22.10", "1.27.3")
    for flavour in ("default", "pie-stripped", "pgo", "noopt", "nosections", "cgo-internal", "cgo-external-pie")
    if version in targets.MATRIX and flavour in targets.flavours_of(version, targets.HOST_ARCH)
]
BUILDS.append(pytest.param("1.25.5", "experiment"))


@pytest.mark.parametrize(("version", "flavour"), BUILDS)
def test_build_flavours(version, flavour, load, start, trace):
    load = dataclasses.replace(load, collections=120)
    target = start(targets.build("gcload", version, flavour), *load.collect(), env={"GODEBUG": "gctrace=1"})
    tracer = trace("--pid", str(target.pid))
    target.go()
    truth = target.truth()
    assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    check_against_runtime(tracer, truth, gctrace(target.stderr.read_text()), load)
    assert tracer.of("sweep")


@pytest.fixture
def pages_on_the_move():
    """NUMA balancing as fast as the kernel goes: every page of every process is made inaccessible 140 times a second."""
    folder = Path("/sys/kernel/debug/sched/numa_balancing")
    if not folder.exists():
        subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=True)
    settings = {"scan_size_mb": "16", "scan_period_max_ms": "7", "scan_period_min_ms": "7", "scan_delay_ms": "0"}
    places = {folder / name: value for name, value in settings.items()} | {Path("/proc/sys/kernel/numa_balancing"): "1"}
    before = {place: place.read_text() for place in places}
    for place, value in places.items():
        place.write_text(value)
    yield lambda: int(re.search(r"^numa_hint_faults (\d+)", Path("/proc/vmstat").read_text(), re.M)[1])
    for place, value in before.items():
        place.write_text(value)


@pytest.mark.everywhere
@pytest.mark.numa
@pytest.mark.alone  # what others compare with has faults of the kernel's own then
def test_pages_that_are_away_are_read(pages_on_the_move, load, start, trace):
    """A probe that reads a page just then has to take the page fault, as the target would."""
    target = start(targets.build("gcload"), *load.collect(), env={"GODEBUG": "gctrace=1"})
    tracer = trace("--pid", str(target.pid))
    faults = pages_on_the_move()
    target.go()
    truth = target.truth()
    assert pages_on_the_move() - faults > 1000
    assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    check_against_runtime(tracer, truth, gctrace(target.stderr.read_text()), load)

"""What has not ended when tracing does: a stop of the world, a mark phase. It is told as such, and as long as it lasts."""

from __future__ import annotations

import json
import re
import time

import pytest

import targets
from conftest import until

pytestmark = pytest.mark.bpf

FOR_EVER = "1000000000000"
SLACK_NS = 2_000_000_000 if targets.EMULATED else 200_000_000
RELEASES = targets.SOME


@pytest.fixture
def wedge(start):
    """wedge(after_ms, rounds, version) -> a program whose world does not stop from then on."""

    def run(after_ms, rounds=FOR_EVER, version=targets.NEWEST):
        if version not in targets.MATRIX:
            pytest.skip(f"Go {version} is not to be had on this system")
        program = targets.build("wedge", version)
        return start(program, str(after_ms), rounds, env={"GODEBUG": "asyncpreemptoff=1"})

    return run


def only(records):
    (found,) = [record for record in records if record["type"] == "in_progress"]
    assert found["what"] == "stop of the world" and not found["stopped"]
    return found


def check_waits(found, truth):
    """For whom, by the program's own words."""
    assert found["reason"] == "read mem stats" and found["asked_by"][:2] == ["runtime.ReadMemStats", "main.main"]
    assert found["goid"] == 1 and found["tid"] != truth["tid"]
    (waited,) = found["waits_for"]
    assert (waited["tid"], waited["goid"]) == (truth["tid"], truth["goid"])
    return waited


@pytest.mark.everywhere
@pytest.mark.parametrize("version", RELEASES)
def test_a_stop_that_had_begun_before(version, wedge, gotrace, tmp_path):
    """The program was stuck when somebody came to see why."""
    program = wedge(100, version=version)
    truth = program.truth()
    time.sleep(0.5)
    files = [tmp_path / "run.ndjson", tmp_path / "run.gotrace"]
    outputs = [word for file in files for word in ("-o", str(file))]
    done = gotrace(
        "gc", "--pid", str(program.pid), "-d", "4s" if targets.EMULATED else "1s", "--explain", *outputs, "-o", "-"
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in files[0].read_text().splitlines()]
    found = only(records)
    waited = check_waits(found, truth)
    assert waited["code"][0] == "main.waitForFlag"
    end = records[0]["monotonic_ns"] + records[-1]["duration_ns"]
    assert found["monotonic_ns"] + found["lasted_ns"] == end
    assert found["first_seen"] == (version != targets.NEWEST)  # older ones do not keep when it was asked for
    if version == targets.NEWEST:
        assert truth["begin_ns"] <= found["monotonic_ns"] <= truth["begin_ns"] + SLACK_NS
    assert found["lasted_ns"] >= (0 if targets.EMULATED else 500_000_000)
    text = done.stdout
    assert "No stop-the-world pause and no GC cycle has ended." in text and f"NOT ENDED: {found['sentence']}." in text
    assert "which is running main.waitForFlag < main.main.func1" in text
    assert re.search(r">[\d.]+ (ms|s|min) +stop still in progress", text)
    # A recording gives the same.
    report = gotrace("report", str(files[1]), "--explain", "--format", "ndjson").stdout
    assert only(map(json.loads, report.splitlines())) == found


def test_a_stop_that_outlasts_the_tracing(wedge, trace):
    program = wedge(1000)
    tracer = trace("--pid", str(program.pid), "-d", "2s")
    truth = program.truth()
    assert tracer.finish() == 0
    found = only(tracer.records)
    check_waits(found, truth)
    assert truth["begin_ns"] <= found["monotonic_ns"] <= truth["begin_ns"] + SLACK_NS
    ended = [stop["monotonic_ns"] for stop in tracer.of("stw")]
    assert ended and max(ended) < found["monotonic_ns"]


def test_a_program_that_is_killed_in_a_stop(wedge, trace):
    program = wedge(500)
    tracer = trace("--pid", str(program.pid))
    truth = program.truth()
    time.sleep(0.5)
    program.process.kill()
    assert tracer.finish() == 0
    assert tracer.records[-1]["ended"] == "target exited"
    found = only(tracer.records)
    check_waits(found, truth)
    assert found["lasted_ns"] >= 300_000_000


def test_a_long_stop_that_ends(wedge, trace):
    """It is told while it lasts, and counted when it has ended."""
    program = wedge(500, "1500000000")
    tracer = trace("--pid", str(program.pid), "-d", "4s", "-i", "250ms")
    program.truth()
    assert tracer.finish() == 0
    assert not tracer.of("in_progress")
    longest = max(stop["total_ns"] for stop in tracer.of("stw"))
    told = [float(number) for number in re.findall(r">(\d+) ms +stop still in progress", tracer.stdout)]
    assert longest > 300_000_000 and told and max(told) * 1e6 < longest


def test_a_mark_phase(start, gotrace, tmp_path):
    """Whose cycle ends only later, as gctrace says."""
    program = start(targets.build("marker"), "200", "60", env={"GODEBUG": "gctrace=1"})
    program.go()
    number = re.compile(r"^gc (\d+) @", re.M)
    until(lambda: number.search(program.stderr.read_text()), 60)
    for _ in range(30):
        done = gotrace("gc", "--pid", str(program.pid), "-d", "50ms", "--format", "ndjson")
        ended = {int(cycle) for cycle in number.findall(program.stderr.read_text())}
        records = [json.loads(line) for line in done.stdout.splitlines()]
        marking = [each for each in records if each["type"] == "in_progress" and each["what"] == "mark phase"]
        if marking:
            break
    (found,) = marking
    cycles = [record["cycle"] for record in records if record["type"] == "cycle"]
    assert found["cycle"] not in cycles and found["cycle"] - 1 in {0, *ended}
    until(lambda: found["cycle"] in map(int, number.findall(program.stderr.read_text())), 60)
    end = records[0]["monotonic_ns"] + records[-1]["duration_ns"]
    assert found["monotonic_ns"] + found["lasted_ns"] == end

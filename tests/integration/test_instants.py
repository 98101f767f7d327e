"""Events and time count from the same instant to the same instant: rates and shares are those of the program."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

import targets
from conftest import GOTRACE

pytestmark = [pytest.mark.bpf, pytest.mark.alone]

PER_SECOND = 50
SECOND = 1_000_000_000


@pytest.fixture
def tick(start):
    """tick(seconds) -> a program that collects fifty times a second, and has begun to."""

    def run(seconds):
        return start(targets.build("tick"), str(seconds))

    return run


def rates(text):
    """The column GC/s of the lines that come while it runs."""
    return [float(rate) for rate in re.findall(r"(?m)^(?:\d\d:\d\d:\d\d| *\+[\d.]+ m?s) +([\d.]+) ", text)]


def is_close(found, seconds):
    return abs(found - PER_SECOND * seconds) <= 1


def check_summary(text, seconds):
    count, rate = re.search(r"GC cycles: (\d+) \(([\d.]+)/s; ", text).groups()
    assert is_close(int(count), seconds) and abs(float(rate) - PER_SECOND) <= 1 / seconds + 0.05, text
    shares = [float(line.split("%")[0].split()[-1]) for line in text.splitlines() if line.endswith("%")]
    assert shares and all(share <= 100 for share in shares), text


@pytest.mark.parametrize("duration", ["500ms", "1s", "3s"])
def test_of_a_process(duration, tick, gotrace, tmp_path):
    seconds = int(duration.removesuffix("ms")) / 1000 if duration.endswith("ms") else int(duration[:-1])
    program = tick(seconds + 3)
    records, recording = tmp_path / "run.ndjson", tmp_path / "run.gotrace"
    outputs = ("-o", str(records), "-o", str(recording), "-o", "-")
    done = gotrace("gc", "--pid", str(program.pid), "-d", duration, "--explain", *outputs)
    assert done.returncode == 0, done.stderr
    # Live and replayed, the very same; every line, and the whole.
    lines = rates(done.stdout)
    assert len(lines) == max(1, seconds) and all(abs(rate - PER_SECOND) <= 1 / min(1, seconds) for rate in lines), lines
    check_summary(done.stdout, seconds)
    report = gotrace("report", str(recording), "--explain").stdout
    assert rates(report) == lines
    check_summary(report, seconds)
    # What was told lies between the first instant and the last.
    first, *_, last = told = [json.loads(line) for line in records.read_text().splitlines()]
    begin, end = first["monotonic_ns"], first["monotonic_ns"] + last["duration_ns"]
    assert last["duration_ns"] == round(seconds * SECOND)
    cycles = [record["monotonic_ns"] for record in told if record["type"] == "cycle"]
    assert all(begin <= at < end for at in cycles) and last["cycles"] == len(cycles)
    stops = [record for record in told if record["type"] == "stw"]
    ends = [record["monotonic_ns"] + record["total_ns"] + record["restart_lag_ns"] for record in stops]
    assert all(begin <= at < end for at in ends)
    assert sum(parts["total"]["count"] for parts in last["pauses"].values()) == len(stops)
    # The program says when each of its collections had ended.
    truth = program.truth()["ended"]
    assert abs(len(cycles) - sum(begin <= at < end for at in truth)) <= 1
    # Single events, and nothing but what they refer to from before.
    lines = gotrace("export", str(recording), "-o", "-", "--format", "ndjson").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert len(events) == last["events"]["received"]
    assert all(begin <= event["monotonic_ns"] < end for event in events if event["type"] not in ("stack", "task"))


def test_of_a_command(gotrace, tmp_path):
    """From its first instruction on: the program's start belongs to the time."""
    path = tmp_path / "first.ndjson"
    done = gotrace("gc", "-i", "1s", "-o", str(path), "--", str(targets.build("tick")), "2")
    ended = json.loads(done.stdout)["ended"]
    assert is_close(len(ended), 2)
    begin = json.loads(path.read_text().splitlines()[0])["monotonic_ns"]
    for second, rate in enumerate(rates(done.stderr)[:2]):
        assert abs(rate - sum(0 <= at - begin - second * SECOND < SECOND for at in ended)) <= 1, done.stderr
    count, rate, seconds = re.search(r"GC cycles: (\d+) \(([\d.]+)/s; .*?([\d.]+) s, ended by", done.stderr, re.S).groups()
    assert int(count) == 100 and abs(float(rate) - 100 / float(seconds)) <= 2.5
    # Of one that ends at once: its own time, and no more than starting and ending takes it.
    path = tmp_path / "x.ndjson"
    ended = json.loads(gotrace("gc", "-o", str(path), "--", str(targets.build("tick")), "0.1").stdout)["ended"]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    begin, length = records[0]["monotonic_ns"], records[-1]["duration_ns"]
    assert ended[-1] <= begin + length <= ended[-1] + 60_000_000


@pytest.mark.parametrize("probe", ["profile", "offcpu"])
def test_stacks(probe, tick, gotrace, tmp_path):
    """A thread that is always busy is sampled for as long as it was watched, and no longer."""
    recording = tmp_path / "run.gotrace"
    mode = "--on-cpu" if probe == "profile" else "--off-cpu"
    for _ in range(4):  # somebody else may have had its CPU
        program = tick(5)
        options = ("--probes", probe, "-d", "1s", "-o", str(recording), "--force")
        done = gotrace("record", "--pid", str(program.pid), *options)
        assert done.returncode == 0, done.stderr
        text = gotrace("flame", str(recording), mode, "-o", "-", "--format", "folded").stdout
        weights = {stack: int(weight) for stack, _, weight in (line.rpartition(" ") for line in text.splitlines())}
        busy = sum(weight for stack, weight in weights.items() if "main.busy" in stack)
        if probe != "profile":
            break
        assert busy <= 1.02 * SECOND
        if busy >= 0.9 * SECOND:
            break
    assert busy >= 0.9 * SECOND or probe != "profile"
    events = gotrace("export", str(recording), "-o", "-", "--format", "ndjson").stdout.splitlines()
    times = [event["monotonic_ns"] for event in map(json.loads, events) if event["type"] not in ("stack", "task")]
    assert max(times) - min(times) <= SECOND


def test_raw_events(tick):
    program = tick(5)
    command = [*GOTRACE, "rss", "--pid", str(program.pid), "-d", "1s"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    *events, last = map(json.loads, text.splitlines())
    assert len(events) == last["received"]
    assert not events or max(e["monotonic_ns"] for e in events) - min(e["monotonic_ns"] for e in events) <= SECOND

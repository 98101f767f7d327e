"""What `gotrace mem`, `tlb` and `numa` have in common: recordings that tell the same, the schema, the page, bad ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import jsonschema
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

import targets
from conftest import GOTRACE

pytestmark = pytest.mark.bpf

COMMANDS = {
    "mem": ("mem", "-i", "500ms"),
    "cycles": ("mem", "--cycles"),
    "faults": ("mem", "--faults"),
    "numa": ("numa", "-i", "500ms"),
    "tlb": ("tlb", "-i", "500ms", "-e", "page-faults", "-e", "cpu-clock"),
}


@pytest.fixture
def busy(start):
    """A program that allocates, collects and takes page faults, longer than probes take to be compiled anywhere."""
    target = start(targets.build("gcload"), "-seconds", "300", "-workers", "1")
    target.go()
    yield target.pid
    target.process.kill()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.everywhere, pytest.mark.thorough] * (name in ("mem", "numa")))
        for name in COMMANDS
    ],
)
def test_a_report_is_what_was_printed(name, busy, gotrace, tmp_path):
    path = tmp_path / "run.gotrace"
    live = gotrace(*COMMANDS[name], "--pid", str(busy), "-d", "2s", "-o", str(path))
    assert live.returncode == 0, live.stderr
    again = gotrace("report", str(path))
    assert again.returncode == 0, again.stderr
    assert again.stdout == live.stdout and len(live.stdout.splitlines()) > 3
    page = tmp_path / "page.html"
    made = gotrace("export", str(path), "-o", str(page))
    assert made.returncode == 0, made.stderr
    assert page.read_text().startswith("<!DOCTYPE html>") and "Content-Security-Policy" in page.read_text()
    refused = gotrace(*COMMANDS[name], "--pid", str(busy), "-d", "1s", "-o", str(path))
    assert refused.returncode == 1 and "--force" in refused.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_line_fits_the_schema(name, busy, gotrace, tmp_path):
    schema = json.loads(gotrace("mem", "--json-schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    output = tmp_path / "out.ndjson"
    done = gotrace(*COMMANDS[name], "--pid", str(busy), "-d", "2s", "--format", "ndjson", "-o", str(output))
    assert done.returncode == 0, done.stderr
    assert output.read_text() == done.stdout
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records
    for record in records:
        check.validate(record)


@pytest.mark.parametrize("name", ["faults", "numa"])
def test_how_long_faults_took(name, busy, gotrace, tmp_path):
    """The interval log has every fault whose beginning was seen, as hdrh reads it."""
    path, log = tmp_path / "run.gotrace", tmp_path / "run.hlog"
    done = gotrace(*COMMANDS[name], "--pid", str(busy), "-d", "2s", "-o", str(path))
    assert done.returncode == 0, done.stderr
    assert gotrace("export", str(path), "-o", str(log)).returncode == 0
    events = gotrace("export", str(path), "-o", "-", "--format", "ndjson").stdout.splitlines()
    faults = [each for each in map(json.loads, events) if each["type"] == "fault" and each["begin_ns"]]
    counts = 0
    reader = HistogramLogReader(str(log), HdrHistogram(1, 3_600_000_000_000, 3))
    while (histogram := reader.get_next_interval_histogram()) is not None:
        counts += histogram.get_total_count()
    assert counts == len(faults) > 10
    told = gotrace("export", str(path), "-o", str(tmp_path / "run.hgrm"))
    assert told.returncode == 0 and "minor_fault" in (tmp_path / "run.hgrm").read_text()


def test_a_page_of_everything(busy, gotrace, tmp_path):
    """Live, in one go: looks, cycles and faults."""
    page = tmp_path / "mem.html"
    done = gotrace("mem", "--pid", str(busy), "-d", "2s", "-i", "500ms", "-o", str(page))
    assert done.returncode == 0, done.stderr
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "live objects" in done.stdout and "cycles, RSS / live heap" in done.stdout and "page faults in" in done.stdout


def test_a_recorder_that_was_killed_leaves_what_it_had(busy, gotrace, tmp_path):
    path = tmp_path / "run.gotrace"
    command = [*GOTRACE, "mem", "--pid", str(busy), "-i", "200ms", "-d", "60s", "-o", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr.readline().startswith("Tracing")
        time.sleep(2)
        tracer.send_signal(signal.SIGKILL)
    told = gotrace("report", str(path))
    assert told.returncode == 0 and "truncated" in told.stderr
    assert told.stdout.count(" MiB") > 20


@pytest.mark.parametrize("name", ["mem", "numa", "tlb"])
def test_targets_that_cannot_be_watched(name, gotrace, gotrace_as_nobody):
    gone = gotrace(name, "--pid", "4194303")
    assert gone.returncode == 1 and len(gone.stderr.splitlines()) == 2
    ours = gotrace(name, "--pid", str(os.getpid()))
    assert ours.returncode == 1 and "Traceback" not in ours.stderr
    refused = gotrace_as_nobody(name, "--pid", str(os.getpid()))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert gotrace(name).returncode == 2
    assert gotrace(name, "--pid", "1", "-o", "x.unknown").returncode == 2


def test_ctrl_c_ends_it_with_what_there_is(busy):
    command = [*GOTRACE, "tlb", "--pid", str(busy), "-d", "60s", "-e", "page-faults", "--format", "ndjson"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr.readline().startswith("Tracing")
        time.sleep(1)
        tracer.send_signal(signal.SIGINT)
        out, err = tracer.communicate(timeout=30)
    assert tracer.returncode == 0, err
    assert json.loads(out.splitlines()[0])["watched_ns"] > 0.5e9


@pytest.mark.parametrize("name", ["mem", "numa", "tlb"])
def test_a_target_that_executes_another_program(name, start):
    """Its memory is no longer what it was: the watch ends, with what was seen before."""
    target = start(targets.build("execer"), "-wait", "/bin/sleep", "30")
    begin = time.monotonic()
    command = [*GOTRACE, name, "--pid", str(target.pid), "-d", "60s", "-i", "100ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        # what needs no probe says nothing before its first look
        assert tracer.stdout.readline().split()[0] == "time" if name == "mem" else tracer.stderr.readline().startswith("Tr")
        target.go()
        out, err = tracer.communicate(timeout=60)
    assert tracer.returncode == 0, err
    assert out and time.monotonic() - begin < 50

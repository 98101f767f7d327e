"""What `gotrace gc` and `gotrace doctor` write, read back by others: JSON Schema, hdrh's log reader."""

from __future__ import annotations

import json
import re
import subprocess
import time

import jsonschema
import pytest

import targets
from conftest import GOTRACE
from pages import Parsed

pytestmark = pytest.mark.bpf


@pytest.fixture
def load(start):
    """A target that collects a few hundred times a second for a while."""
    target = start(targets.build("gcload"), "-seconds", "60", "-live", "1")
    target.go()
    return target


def test_every_line_fits_the_schema(load, gotrace, tmp_path):
    schema = json.loads(gotrace("gc", "--json-schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    done = gotrace("gc", "--pid", str(load.pid), "-d", "1s", "--format", "ndjson")
    lines = done.stdout.splitlines()
    for line in lines:
        check.validate(json.loads(line))
    assert {json.loads(line)["type"] for line in lines} - {"in_progress"} == {"start", "stw", "cycle", "sweep", "summary"}
    path = tmp_path / "all.json"
    assert gotrace("gc", "--pid", str(load.pid), "-d", "500ms", "-o", str(path)).returncode == 0
    records = json.loads(path.read_text())
    for record in records:
        check.validate(record)
    assert records[0]["type"] == "start" and records[-1]["type"] == "summary"


def test_lines_come_as_they_happen(load):
    """One object a line, flushed: a reader sees pauses while the tracing goes on."""
    command = [*GOTRACE, "gc", "--pid", str(load.pid), "-d", "30s", "--format", "ndjson"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    begin = time.monotonic()
    while json.loads(process.stdout.readline())["type"] != "stw":
        assert time.monotonic() - begin < 10
    process.kill()
    process.communicate()


def test_min_pause_hides_single_pauses_only(load, trace):
    tracer = trace("--pid", str(load.pid), "-d", "1s", "--min-pause", "200us")
    assert tracer.finish() == 0
    assert all(stop["total_ns"] >= 200_000 for stop in tracer.of("stw"))
    counted = sum(part["total"]["count"] for part in tracer.records[-1]["pauses"].values())
    assert counted > len(tracer.of("stw"))
    assert counted >= 2 * tracer.records[-1]["cycles"] - 2


def test_interval_log_holds_every_pause(load, gotrace, tmp_path):
    """hdrh's reader finds, under each reason's and part's tag, exactly the pauses of the summary."""
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    hlog, hgrm, records = (str(tmp_path / name) for name in ("out.hlog", "out.hgrm", "out.ndjson"))
    files = ["--hlog", hlog, "--hgrm", hgrm, "-o", records]
    assert gotrace("gc", "--pid", str(load.pid), "-d", "2s", "-i", "300ms", *files).returncode == 0
    reference = HdrHistogram(1, 3_600_000_000_000, 3)
    reader = HistogramLogReader(hlog, reference)
    counts: dict[str, int] = {}
    lines = 0
    while (histogram := reader.get_next_interval_histogram()) is not None:
        tag = histogram.get_tag() or ""
        counts[tag] = counts.get(tag, 0) + histogram.get_total_count()
        lines += 1
    reader.close()
    with open(records) as file:
        summary = json.loads(file.readlines()[-1])
    expected = {
        f"{re.sub(' ', '_', reason)}.{part}": statistics["count"]
        for reason, parts in summary["pauses"].items()
        for part, statistics in parts.items()
    }
    assert {tag: count for tag, count in counts.items() if tag} == expected
    assert counts[""] == sum(parts["total"]["count"] for parts in summary["pauses"].values())
    assert lines >= 5 * 7  # intervals of 0.3 to 0.4 s, each with every pause and six tags
    with open(hgrm) as file:
        assert "#[Max     =" in file.read()


def test_table(load, gotrace):
    done = gotrace("gc", "--pid", str(load.pid), "-d", "1500ms", "-i", "500ms")
    assert re.match(r"Tracing pid \d+ \(.*gcload, go1\.27\.3\)… Ctrl-C to end\.\n$", done.stderr)
    for word in ("GC sweep termination", "GC mark termination", "stopping", "stopped", "total", "concurrent mark"):
        assert word in done.stdout
    for word in ("p99.9", "share", "GC cycles:", "goal", " 0 lost", "clock: the runtime's own", "ended by: duration"):
        assert word in done.stdout
    assert 2 <= len(re.findall(r"^(?:\d\d:\d\d:\d\d\.\d{3}| *\+\S+ ms) ", done.stdout, re.M)) <= 4


@pytest.mark.started  # it says what memory it has
def test_summary_agrees_with_the_records(load, trace):
    tracer = trace("--pid", str(load.pid), "-d", "1s")
    assert tracer.finish() == 0
    summary = tracer.records[-1]
    assert summary["cycles"] == len(tracer.of("cycle"))
    assert summary["phases"]["concurrent mark"]["sum"] == sum(cycle["mark_ns"] for cycle in tracer.of("cycle"))
    assert summary["phases"]["sweep"]["count"] == len(tracer.of("sweep"))
    cost = summary["cost"]
    assert cost["probe_hits"] >= 5 * summary["cycles"] and cost["target_ns_estimate"] > 100 * cost["probe_hits"]
    assert 0 < cost["tool_rss_bytes"] < 60 << 20
    assert 0.9e9 < summary["duration_ns"] < 1.6e9
    assert summary["attach_ns"] > 0


def test_doctor(load, gotrace):
    host = gotrace("doctor")
    assert host.returncode == 0 and "[ok] BPF ring buffer" in host.stdout and "[no]" not in host.stdout
    both = gotrace("doctor", "--pid", str(load.pid), "--format", "json")
    checks = json.loads(both.stdout)
    assert both.returncode == 0
    names = {check["name"] for check in checks["target"]}
    assert {"Go program", "linking", "gc: cycle", "gc: restart begin"} <= names
    assert gotrace("doctor", "/bin/sleep").returncode == 1
    assert "not a Go program" in gotrace("doctor", "/bin/sleep").stdout
    assert gotrace("doctor", "--pid", "1", "/bin/sleep").returncode == 2
    other = targets.build("lifecycle", arch={"amd64": "arm64", "arm64": "amd64"}[targets.HOST_ARCH])
    assert "this machine is" in gotrace("doctor", str(other)).stdout


def test_doctor_without_root(gotrace_as_nobody):
    done = gotrace_as_nobody("doctor")
    assert done.returncode == 1
    assert "[no] privileges" in done.stdout and "sudo" in done.stdout


def test_names_of_a_target_cannot_act_on_the_terminal(start, tmp_path, gotrace):
    program = tmp_path / "evil\x1b[2J\u202ename"
    program.write_bytes(targets.build("lifecycle").read_bytes())
    program.chmod(0o755)
    target = start(program)
    done = gotrace("gc", "--pid", str(target.pid), "-d", "300ms")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr and "\u202e" not in done.stderr
    assert "evil\\x1b[2J" in done.stderr


def test_a_probe_needs_no_command_of_its_own(load):
    """The general command: every event under the names its probe declares."""
    import click.testing

    from gotrace.cli.raw import command_for
    from gotrace.probes import gc

    done = click.testing.CliRunner().invoke(command_for("gc"), ["--pid", str(load.pid), "-d", "500ms"])
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    columns = {kind.name: set(kind.columns) for kind in gc.PROBE.kinds}
    for record in records[:-1]:
        # and the words of a reason, where a stop of an older Go has one
        assert set(record) - {"text"} == {"type", "monotonic_ns", "time", "tid", "cpu"} | columns[record["type"]]
    assert {"stw", "cycle_clock", "sweep_end"} <= {record["type"] for record in records}
    assert records[-1] == {"type": "summary", "received": len(records) - 1, "lost": 0}


def test_a_page_is_the_same_from_a_recording(load, gotrace, tmp_path):
    """To the byte, with and without explanations; and it has every pause of the records."""
    files = [str(tmp_path / name) for name in ("live.html", "run.gotrace", "run.ndjson")]
    outputs = [word for file in files for word in ("-o", file)]
    done = gotrace("gc", "--pid", str(load.pid), "-d", "300ms", "--explain", "--top", "3", *outputs)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again.html"
    assert gotrace("report", files[1], "--explain", "--top", "3", "-o", str(again)).returncode == 0
    live = (tmp_path / "live.html").read_text()
    assert live == again.read_text()
    found = Parsed(live)
    records = [json.loads(line) for line in (tmp_path / "run.ndjson").read_text().splitlines()]
    summary, begin_ns = records[-1], records[0]["monotonic_ns"]
    counts = {each["name"]: each["count"] for each in found.figures[0]["reasons"]}
    assert counts == {reason: parts["total"]["count"] for reason, parts in summary["pauses"].items()}
    of_each = sorted((each for each in records if each["type"] == "stw"), key=lambda each: each["monotonic_ns"])
    assert found.figures[0]["at"] == [(each["monotonic_ns"] - begin_ns) // 1000 for each in of_each]
    assert len(found.tables["Each of them"]) == 4
    assert gotrace("report", files[1], "-o", str(again), "--force").returncode == 0
    assert "use --explain" in again.read_text()

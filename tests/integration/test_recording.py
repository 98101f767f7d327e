"""Recordings: what is in them, what survives a crash, and that a report prints what was printed live."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, until
from gotrace.probe import all_probes
from gotrace.recording import format as form
from gotrace.recording.reader import Recording
from gotrace.records.all import schema_of_command

pytestmark = pytest.mark.bpf


def contents(path):
    """(header, every event, every note, end)"""
    with Recording.open(str(path)) as recording:
        chunks = list(recording.chunks())
        notes = [note for chunk in chunks for note in chunk.notes]
        return recording.header, np.concatenate([chunk.events for chunk in chunks]), notes, recording.end


@pytest.mark.everywhere
@pytest.mark.thorough
@pytest.mark.parametrize("version", [targets.MATRIX[0], targets.NEWEST])
def test_a_report_prints_what_was_printed_live(tmp_path, gotrace, start, version):
    """Table, JSON, interval log and percentiles, line by line and number for number."""
    target = start(targets.build("gcload", version), "-seconds", "3", "-percent", "50")
    files = {
        name: tmp_path / name
        for name in ("live.ndjson", "live.hlog", "live.hgrm", "later.ndjson", "later.hlog", "later.hgrm")
    }
    record = tmp_path / "run.gotrace"
    how = ["--interval", "300ms", "--explain", "--top", "5"]

    def outputs(name):
        return [
            "-o",
            str(files[f"{name}.ndjson"]),
            "--hlog",
            str(files[f"{name}.hlog"]),
            "--hgrm",
            str(files[f"{name}.hgrm"]),
        ]

    command = [*GOTRACE, "gc", "--pid", str(target.pid), *how, *outputs("live"), "--record", str(record)]
    tracer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tracer.stderr.readline()
    target.go()
    target.truth()
    target.finish()
    live, errors = tracer.communicate(timeout=60)
    assert tracer.returncode == 0, errors
    later = gotrace("report", str(record), *how, *outputs("later"))
    assert later.returncode == 0, later.stderr
    assert later.stdout == live
    assert "longest pauses" in live and len(live.splitlines()) > 20
    for kind in ("ndjson", "hlog", "hgrm"):
        # Two events of the same microsecond on two CPUs may come in either order when they are read in other portions.
        written = [sorted(files[f"{name}.{kind}"].read_text().splitlines()) for name in ("later", "live")]
        assert written[0] == written[1], kind
    assert len([line for line in files["live.ndjson"].read_text().splitlines() if '"stw"' in line]) > 5


@pytest.fixture
def recorded(tmp_path, start):
    """A recording of a few seconds of a program that collects all the time: (path, what the program says of itself)."""
    path = tmp_path / "run.gotrace"
    target = start(targets.build("gcload"), "-seconds", "3", "-percent", "30")
    command = [*GOTRACE, "record", "--pid", str(target.pid), "-o", str(path)]
    recorder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    recorder.stderr.readline()
    target.go()
    truth = target.truth()
    target.finish()
    out, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0 and out == ""
    assert f"wrote {path} (" in errors and "0 lost" in errors and "ended by: target exited" in errors
    return path, truth


def test_it_holds_what_the_runtime_says(recorded):
    path, truth = recorded
    header, events, notes, end = contents(path)
    kinds = {name: kind["number"] for probe in header["probes"].values() for name, kind in probe["kinds"].items()}
    cycles = events["a"][events["kind"] == kinds["cycle_work"]]
    pauses = dict(zip(cycles.tolist(), events["b"][events["kind"] == kinds["cycle_work"]].tolist(), strict=True))
    last = truth["NumGC"]
    for cycle in range(max(2, last - 100), last + 1):
        assert pauses[cycle] == truth["PauseNs"][(cycle + 255) % 256]
    assert end is not None and end["received"] == len(events) and end["lost"] == 0
    assert header["target"]["go_version"] == f"go{targets.NEWEST}" and header["target"]["build_id"]
    threads = {note.a: note.data for note in notes if note.kind == form.THREAD}
    assert set(threads.values()) == {b"gcload"} and threads.keys() <= set(events["tid"].tolist())
    assert set(events["tid"][events["kind"] == kinds["stw"]].tolist()) <= threads.keys()
    # every stack has names, from the program's own table
    names = {note.a: json.loads(note.data) for note in notes if note.kind == form.FRAMES}
    functions = {symbol[0] for symbols in names.values() for symbol in symbols}
    assert {"runtime.stopTheWorldWithSema", "runtime.futex"} & functions


def test_any_arrow_reader_reads_it(recorded):
    import duckdb

    path, _ = recorded
    _, events, notes, _ = contents(path)
    with pa.OSFile(str(path)) as file:
        rows = pa.ipc.open_stream(file).read_all()
    assert rows.num_rows == len(events) + len(notes)
    assert rows.column_names == [*form.COLUMNS, "data"]
    counted = dict(duckdb.sql("select kind, count(*) from rows group by kind").fetchall())
    numbers, counts = np.unique(events["kind"], return_counts=True)
    assert {kind: count for kind, count in counted.items() if kind >= form.FIRST_EVENT} == dict(
        zip(numbers.tolist(), counts.tolist(), strict=True)
    )


def test_a_file_cut_off_anywhere_opens_up_to_its_last_whole_chunk(recorded, tmp_path, gotrace):
    path, _ = recorded
    whole = path.read_bytes()
    _, events, _, _ = contents(path)
    cut = tmp_path / "cut.gotrace"
    seen = set()
    with pa.OSFile(str(path)) as file:
        begin = pa.ipc.open_stream(file) and file.tell()
    for size in [*range(begin, len(whole), max(1, (len(whole) - begin) // 40)), len(whole) - 9]:
        cut.write_bytes(whole[:size])
        with Recording.open(str(cut)) as recording:
            found = [chunk.events for chunk in recording.chunks()]
        count = sum(map(len, found))
        seen.add(count)
        if count:
            assert np.array_equal(np.concatenate(found), events[:count])
    assert len(seen) > 2
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    done = gotrace("report", str(cut))
    assert done.returncode == 0
    assert "recording truncated" in done.stdout and "truncated" in done.stderr
    # what it cost is noted at the end
    assert "cost: unknown; ready after" in done.stdout and "0 probe hits" not in done.stdout
    done = gotrace("report", str(cut), "--format", "ndjson")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert set(summary["cost"].values()) == {None} and summary["events"]["received"] > 0
    jsonschema.validate(summary, schema_of_command("gc"))


@pytest.mark.everywhere
@pytest.mark.thorough
def test_kill_9_loses_at_most_the_last_second(tmp_path, start):
    path = tmp_path / "run.gotrace"
    target = start(targets.build("gcload"), "-seconds", "30", "-percent", "20")
    command = [*GOTRACE, "record", "--pid", str(target.pid), "-o", str(path)]
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    recorder.stderr.readline()
    target.go()
    until(lambda: path.exists() and path.stat().st_size > 3000, PATIENCE_S)
    time.sleep(2)
    killed = time.monotonic_ns()
    recorder.send_signal(signal.SIGKILL)
    recorder.wait()
    recorder.stderr.close()
    _, events, _, end = contents(path)
    assert end is None
    assert killed - int(events["time_ns"].max()) < 1_000_000_000


def test_what_is_no_recording(tmp_path, gotrace, recorded):
    path, _ = recorded
    none = "is not a gotrace recording"
    for name, data, said in (
        ("empty", b"", none),
        ("text", b"hello\n" * 100, none),
        ("head", path.read_bytes()[:40], "is cut off in its header"),
    ):
        other = tmp_path / name
        other.write_bytes(data)
        done = gotrace("report", str(other))
        assert done.returncode == 1 and said in done.stderr and "hint:" in done.stderr
    assert gotrace("report", str(tmp_path / "absent")).returncode == 1
    # an Arrow stream of somebody else's
    other = tmp_path / "other"
    with pa.OSFile(str(other), "wb") as file, pa.ipc.new_stream(file, pa.schema([("x", pa.int32())])) as stream:
        stream.write_batch(pa.record_batch([pa.array([1], pa.int32())], names=["x"]))
    assert "is not a gotrace recording" in gotrace("report", str(other)).stderr
    # one of a later version
    with pa.OSFile(str(path)) as file:
        source = pa.ipc.open_stream(file)
        header = json.loads(source.schema.metadata[form.METADATA_KEY])
        header["version"] = form.VERSION + 1
        schema = source.schema.with_metadata({form.METADATA_KEY: json.dumps(header)})
        with pa.OSFile(str(other), "wb") as out, pa.ipc.new_stream(out, schema):
            pass
    done = gotrace("report", str(other))
    assert done.returncode == 1 and f"version {form.VERSION + 1}" in done.stderr


def test_it_does_not_overwrite(recorded, gotrace):
    path, _ = recorded
    before = path.read_bytes()
    done = gotrace("record", "--pid", str(os.getpid()), "-o", str(path))
    assert done.returncode == 1 and "exists" in done.stderr and "--force" in done.stderr
    done = gotrace("report", str(path), "-o", str(path), "--force")
    assert done.returncode == 2 and "same file" in done.stderr
    assert path.read_bytes() == before


def test_a_full_disk_ends_it_with_a_sentence(tmp_path, start, gotrace):
    target = start(targets.build("gcload"), "-seconds", "20", "-percent", "20")
    target.go()
    done = gotrace("record", "--pid", str(target.pid), "-o", "/dev/full", "--format", "gotrace", "--force", "-d", "10s")
    assert done.returncode == 1 and "cannot write /dev/full: No space left on device" in done.stderr


def test_probes_that_do_not_exist(gotrace):
    done = gotrace("record", "--pid", str(os.getpid()), "--probes", "gc,nonsense", "-o", "/tmp/never.gotrace")
    assert done.returncode == 2 and "'nonsense'" in done.stderr
    assert all(stem in done.stderr for stem in all_probes())

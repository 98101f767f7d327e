"""`gotrace export`: every format is read back by a tool of somebody else's."""

from __future__ import annotations

import csv
import json
import re
import subprocess

import numpy as np
import pytest

import groundtruth
import targets
from conftest import GOTRACE
from gotrace.recording import format as form
from gotrace.recording.reader import Recording

pytestmark = pytest.mark.bpf


class Recorded:
    """A recording, what the recorded program says of itself, and what `gotrace report` says of it."""

    def __init__(self, folder):
        self.path = folder / "run.gotrace"
        program = [str(targets.build("gcload")), "-cycles", "400", "-percent", "30"]
        command = [*GOTRACE, "record", "-o", str(self.path), "--", *program]
        done = subprocess.run(command, input="\n", capture_output=True, text=True, timeout=180, check=True)
        self.truth = json.loads(done.stdout)
        with Recording.open(str(self.path)) as recording:
            self.header = recording.header
            self.events = np.concatenate([chunk.events for chunk in recording.chunks()])
            assert recording.lost == 0
        report = [*GOTRACE, "report", str(self.path), "--format", "ndjson"]
        text = subprocess.run(report, capture_output=True, text=True, timeout=60, check=True).stdout
        self.report = [json.loads(line) for line in text.splitlines()]
        self.exported = {}

    def export(self, ending):
        if ending not in self.exported:
            path = self.path.with_name(f"run.{ending}")
            command = [*GOTRACE, "export", str(self.path), "-o", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout) == (0, "")
            assert re.fullmatch(rf"wrote {re.escape(str(path))} \([\d.]+ \w+\)\n", done.stderr)
            self.exported[ending] = path
        return self.exported[ending]

    def kinds(self):
        """number -> name"""
        return {k["number"]: name for probe in self.header["probes"].values() for name, k in probe["kinds"].items()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return Recorded(tmp_path_factory.mktemp("export"))


def test_parquet_in_duckdb(recorded):
    import duckdb

    path = recorded.export("parquet")
    numbers, counts = np.unique(recorded.events["kind"], return_counts=True)
    expected = {recorded.kinds()[number]: count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}
    assert dict(duckdb.sql(f"select type, count(*) from '{path}' group by type").fetchall()) == expected
    pauses = dict(duckdb.sql(f"select cycle, pause_ns from '{path}' where type = 'cycle_work'").fetchall())
    last = recorded.truth["NumGC"]
    for cycle in range(max(2, last - 100), last + 1):
        assert pauses[cycle] == recorded.truth["PauseNs"][(cycle + 255) % 256]
    offset = recorded.header["clock"]["wall_offset_ns"]
    kept = 1000 if duckdb.__version__.startswith("1.") else 1  # nanoseconds: DuckDB 1 has no finer times with a zone
    wrong = f"select count(*) from '{path}' where epoch_ns(time) // {kept} != (monotonic_ns + {offset}) // {kept}"
    assert duckdb.sql(wrong).fetchall() == [(0,)]
    absent = f"select count(*) from '{path}' where (type = 'cycle_work') != (pause_ns is not null)"
    assert duckdb.sql(absent).fetchall() == [(0,)]
    # nearly every stack has its functions, the outermost first
    stacks = duckdb.sql(f"select frames from '{path}' where type = 'off_cpu' and stack != 0").fetchall()
    named = [frames for (frames,) in stacks if frames]
    assert len(named) >= 0.99 * len(stacks) > 10
    assert any(frames.startswith("runtime.mcall;runtime.park_m;runtime.schedule;runtime.findRunnable") for frames in named)


def test_csv_and_ndjson_are_the_same_events(recorded):
    lines = [json.loads(line) for line in recorded.export("ndjson").read_text().splitlines()]
    assert len(lines) == len(recorded.events)
    with recorded.export("csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        columns = {name: text for name, text in row.items() if name in line and name not in ("time", "frames")}
        assert columns == {name: str(line[name]) for name in columns}
        assert {name for name, text in row.items() if text} - {"frames"} == set(line) - {"frames"}
        if row["frames"]:
            names = [name.removesuffix("_[k]").removesuffix("_[i]") for name in row["frames"].split(";")]
            # instantiated generics have semicolons in their names, which separate functions here
            assert names == [name.replace(";", ":") for name in line["frames"][::-1]]
    first = recorded.events[0]
    assert (lines[0]["monotonic_ns"], lines[0]["tid"]) == (int(first["time_ns"]), int(first["tid"]))
    assert all(event["kind"] >= form.FIRST_EVENT for event in recorded.events[:10])


def test_words_of_releases_that_only_point_to_them(tmp_path):
    """Up to Go 1.20 a stop's reason is a string in the executable; a recording holds it, and so does what is made of it."""
    path = tmp_path / "run.gotrace"
    program = [str(targets.build("gcload", targets.MATRIX[0])), "-seconds", "1"]
    subprocess.run([*GOTRACE, "record", "-o", str(path), "--", *program], input=b"\n", capture_output=True, check=True)
    text = subprocess.run([*GOTRACE, "export", str(path), "-o", "-", "--format", "ndjson"], capture_output=True, check=True)
    texts = {line.get("text") for line in map(json.loads, text.stdout.splitlines()) if line["type"] == "stw_work"}
    assert texts & {"gcing", "read mem stats"}


def test_histograms_in_hdrh(recorded):
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    totals = [record["total_ns"] for record in recorded.report if record["type"] == "stw"]
    total = HdrHistogram(1, 3_600_000_000_000, 3)
    reader = HistogramLogReader(str(recorded.export("hlog")), total)
    while (found := reader.get_next_interval_histogram()) is not None:
        if found.get_tag() is None:
            total.add(found)
    assert total.get_total_count() == len(totals)
    assert total.get_max_value() == total.get_highest_equivalent_value(max(totals))
    assert f"Total count    = {len(totals):>12}]" in recorded.export("hgrm").read_text()


@pytest.fixture(scope="module")
def timeline(recorded):
    return groundtruth.Timeline(recorded.export("perfetto"))


def test_perfetto_has_every_pause(recorded, timeline):
    stws = {r["monotonic_ns"]: r for r in recorded.report if r["type"] == "stw"}
    whole = {begin: (name, end, about) for name, begin, end, depth, about in timeline.slices["STW"] if depth == 0}
    assert whole.keys() == stws.keys()
    parts = {(name, begin): end for name, begin, end, depth, _ in timeline.slices["STW"] if depth == 1}
    for begin, record in stws.items():
        name, end, about = whole[begin]
        assert (name, about["total_ns"], about["tid"]) == (record["reason"], record["total_ns"], record["tid"])
        assert end == begin + record["total_ns"] + max(0, record["restart_lag_ns"])
        stopped = begin + record["stopping_ns"]
        assert parts["stopping", begin] == stopped
        assert parts["stopped", stopped] == begin + record["total_ns"]
    header = recorded.header["clock"]
    assert timeline.clocks == {3: header["begin_ns"], 1: header["begin_ns"] + header["wall_offset_ns"]}


def test_perfetto_has_every_cycle_and_the_heap(recorded, timeline):
    cycles = {f"GC cycle {r['cycle']}": r for r in recorded.report if r["type"] == "cycle"}
    told = {name: (begin, end, about) for name, begin, end, depth, about in timeline.slices["GC"] if depth == 0}
    assert told.keys() == cycles.keys() and len(told) > 100
    phases = ("sweep_termination_ns", "mark_ns", "mark_termination_ns")
    for name, record in cycles.items():
        begin, end, about = told[name]
        assert end - begin == sum(record[phase] for phase in phases)
        assert about["assist_ns"] == record["assist_ns"] and about.get("trigger") == record["trigger"]
    marks = [end - begin for name, begin, end, _, _ in timeline.slices["GC"] if name == "concurrent mark"]
    assert marks == [record["mark_ns"] for record in cycles.values()]
    for counter, columns in (("heap live", ["heap_live_bytes"]), ("heap in use", ["heap_start_bytes", "heap_end_bytes"])):
        expected = [record[column] for record in cycles.values() for column in columns]
        assert [value for _, value in timeline.counters[counter]] == expected
    sweeps = [end - begin for _, begin, end, _, _ in timeline.slices["sweep"]]
    assert sorted(sweeps) == sorted(record["sweep_ns"] for record in recorded.report if record["type"] == "sweep")


def test_perfetto_has_threads_and_ps(recorded, timeline):
    names = {number: name for number, name in recorded.kinds().items()}
    of = {name: recorded.events[recorded.events["kind"] == number] for number, name in names.items()}
    off = [each for track, slices in timeline.slices.items() if track.startswith("thread ") for each in slices]
    assert len([each for each in off if each[3] == 0]) == len(of["off_cpu"]) > 10
    by_tid = {f"thread {tid}" for tid in of["off_cpu"]["tid"].tolist()}
    assert by_tid <= {timeline.tracks[uuid] for uuid in timeline.tracks}
    pauses = [each for each in timeline.slices["STW"] if each[3] == 0]
    ps = [each for track, slices in timeline.slices.items() if track.startswith("P ") for each in slices if each[3] == 0]
    assert {(begin, end) for _, begin, end, _, _ in ps} <= {(begin, end) for _, begin, end, _, _ in pauses}
    assert len(ps) > 10


def test_what_cannot_be_exported(recorded, tmp_path, gotrace):
    done = gotrace("export", str(recorded.path), "-o", str(tmp_path / "x.doc"))
    assert done.returncode == 2 and "--format" in done.stderr and ".parquet" in done.stderr
    done = gotrace("export", str(recorded.path), "-o", str(recorded.path), "--format", "csv", "--force")
    assert done.returncode == 2 and "same file" in done.stderr
    there = tmp_path / "there.csv"
    there.write_text("mine")
    done = gotrace("export", str(recorded.path), "-o", str(there))
    assert done.returncode == 1 and "--force" in done.stderr and there.read_text() == "mine"
    for format_ in ("ndjson", "csv", "parquet", "hlog", "hgrm", "perfetto", "svg", "html", "folded", "pprof", "speedscope"):
        done = gotrace("export", str(recorded.path), "-o", "/dev/full", "--format", format_, "--force")
        assert done.returncode == 1, format_
        assert "cannot write /dev/full: No space left on device" in done.stderr, format_
        assert "Traceback" not in done.stderr


def test_a_recording_that_was_cut_off(recorded, tmp_path, gotrace):
    cut = tmp_path / "cut.gotrace"
    cut.write_bytes(recorded.path.read_bytes()[:-2000])
    for ending in ("ndjson", "parquet", "perfetto", "hlog", "svg", "pb.gz"):
        done = gotrace("export", str(cut), "-o", str(tmp_path / f"cut.{ending}"))
        assert done.returncode == 0 and "truncated" in done.stderr and (tmp_path / f"cut.{ending}").stat().st_size

"""The interval log, read back by the readers it is for: hdrh's, and HdrHistogram's own where Java and its jar are."""

from __future__ import annotations

import glob
import io
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given
from hypothesis import strategies as st

from gotrace.analysis.histogram import HIGHEST, LOWEST, SIGNIFICANT_DIGITS, Histogram
from gotrace.export import hdr_log, hgrm

START = 1_700_000_000.1239

JARS = [
    os.environ.get("HDRHISTOGRAM_JAR", ""),
    "/usr/share/java/hdrhistogram.jar",  # Debian's libhdrhistogram-java
    *sorted(glob.glob(os.path.expanduser("~/.m2/repository/org/hdrhistogram/HdrHistogram/*/HdrHistogram-*.jar"))),
]


def histogram(*values: int) -> Histogram:
    out = Histogram()
    out.record(np.array(values, np.int64))
    return out


def read_back(path: Path) -> list[HdrHistogram]:
    reader = HistogramLogReader(str(path), HdrHistogram(LOWEST, HIGHEST, SIGNIFICANT_DIGITS))
    found = []
    while (interval := reader.get_next_interval_histogram()) is not None:
        found.append(interval)
    reader.close()
    return found


def written(*intervals: tuple[str | None, float, float, Histogram]) -> str:
    file = io.StringIO()
    writer = hdr_log.Writer(file, START)
    for interval in intervals:
        writer.write(*interval)
    return file.getvalue()


@pytest.mark.parametrize(
    ("reason", "part", "expected"),
    [
        ("GC mark termination", "total", "GC_mark_termination.total"),
        ("GOMAXPROCS", "stopping", "GOMAXPROCS.stopping"),
        ("ReadMetricsSlow (test)", "stopped", "ReadMetricsSlow_test.stopped"),
        ("concurrent mark", "", "concurrent_mark"),
        ("a, b\r\n", "total", "a_b.total"),
        ("", "total", "unknown.total"),
    ],
)
def test_tags(reason: str, part: str, expected: str) -> None:
    assert hdr_log.tag(reason, part) == expected


@given(st.text(), st.text())
def test_tags_hold_no_delimiter(reason: str, part: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?", hdr_log.tag(reason, part))


def test_the_text() -> None:
    lines = written(
        ("GC.total", START, START + 1.0, histogram(12_345_678)), (None, START + 1, START + 2, Histogram())
    ).splitlines()
    blobs = histogram(12_345_678).encode().decode(), Histogram().encode().decode()
    assert lines == [
        "#[Logged with gotrace; values are nanoseconds]",
        "#[Histogram log format version 1.3]",
        "#[StartTime: 1700000000.124 (seconds since epoch), Tue Nov 14 22:13:20 UTC 2023]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
        f"Tag=GC.total,1700000000.124,1.000,12.354,{blobs[0]}",  # the upper end of 12.345678 ms's bucket
        f"1700000001.124,1.000,0.000,{blobs[1]}",
    ]


def test_hdrh_reads_it_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    intervals = []
    for second in range(5):
        for tag in ("GC_mark_termination.total", "GC_sweep_termination.total", None):
            numbers = np.exp(rng.uniform(5, 25, 1_000)).astype(np.int64)
            intervals.append((tag, START + second, START + second + 1.0, histogram(*numbers.tolist())))
    path = tmp_path / "pauses.hlog"
    path.write_text(written(*intervals))
    found = read_back(path)
    assert len(found) == len(intervals)
    for theirs, (tag, start, end, ours) in zip(found, intervals, strict=True):
        assert theirs.get_tag() == tag
        assert theirs.get_start_time_stamp() == pytest.approx(start * 1_000, abs=1)
        assert theirs.get_end_time_stamp() == pytest.approx(end * 1_000, abs=1)
        assert theirs.get_total_count() == ours.count
        assert theirs.get_max_value() == hdr_log.hdr_max(ours)
        np.testing.assert_array_equal(np.frombuffer(theirs.counts, np.int64)[: len(ours.counts)], ours.counts)


def test_a_clock_set_back_hides_no_interval(tmp_path: Path) -> None:
    path = tmp_path / "pauses.hlog"
    path.write_text(written(("t", START - 30, START - 29, histogram(5)), ("t", START + 1, START, histogram(6))))
    assert [interval.get_max_value() for interval in read_back(path)] == [5, 6]


def test_out_of_range_values_are_told(tmp_path: Path) -> None:
    path = tmp_path / "pauses.hlog"
    path.write_text(written(("t", START, START + 1, histogram(5, -1, -1))))
    assert "#[t: 2 values out of range in the next interval]\nTag=t," in path.read_text()
    assert [interval.get_total_count() for interval in read_back(path)] == [1]


def test_each_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pauses.hlog"
    with path.open("w") as file:
        writer = hdr_log.Writer(file, START)
        for count in (1, 2):
            writer.write("t", START, START + 1, histogram(5))
            assert len(read_back(path)) == count
        writer.comment("two\nlines")
        assert path.read_text().endswith("\n#two lines\n")


def test_histogram_log_processor_reads_it(tmp_path: Path) -> None:
    jar = next(filter(os.path.exists, JARS), None)
    if jar is None or shutil.which("java") is None:
        pytest.skip("needs Java and HdrHistogram's jar (Debian: default-jre-headless, libhdrhistogram-java)")
    numbers = np.exp(np.random.default_rng(3).normal(10, 2, 20_000)).astype(np.int64)
    halves = [histogram(*half.tolist()) for half in np.split(numbers, 2)]
    path = tmp_path / "pauses.hlog"
    other = ("other", START, START + 1, histogram(1, -1))
    path.write_text(
        written(("GC.total", START, START + 1, halves[0]), other, ("GC.total", START + 1, START + 2, halves[1]))
    )

    def processor(*arguments: str) -> str:
        command = ["java", "-cp", jar, "org.HdrHistogram.HistogramLogProcessor", "-i", str(path), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stderr == ""
        return result.stdout

    assert processor("-listtags").split()[-2:] == ["GC.total", "other"]
    printed = processor("-tag", "GC.total", "-outputValueUnitRatio", str(hgrm.UNIT_NS))
    assert printed.startswith("#[StartTime: 1700000000.124 ")
    assert printed.partition("\n")[2].rstrip("\n") == hgrm.distribution(histogram(*numbers.tolist())).rstrip("\n")

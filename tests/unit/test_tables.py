"""Lines and summaries for people: their times of day, their percentiles, and the name of what they are written to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gotrace.analysis.gc_summary import GcSummary
from gotrace.analysis.histogram import Histogram
from gotrace.cli.text import clock, gc, numa
from gotrace.cli.text.layout import Column, Lines, Rows
from gotrace.cli.text.table import _WHOSE
from gotrace.errors import GotraceError
from gotrace.records.gc import INTERVAL
from gotrace.run.files import Sink, complain_of
from gotrace.views.gc import Gc

MS = 10**6


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def interval(begin_ns: int, length_ns: int) -> dict[str, Any]:
    summary = GcSummary(brief=True)
    return {"type": INTERVAL, "begin_ns": begin_ns, "length_ns": length_ns, "in_stop": None, "lost": 0, "summary": summary}


def times(interval_ns: int, lengths: list[int]) -> list[object]:
    view = Gc(interval_ns)
    view.source = SimpleNamespace(header={}, wall_offset_ns=0)  # type: ignore[assignment]
    begins = np.cumsum([0, *lengths[:-1]]).tolist()
    rows = [gc.line(view, interval(begin, length)) for begin, length in zip(begins, lengths, strict=True)]
    assert all(len(str(row[0])) <= gc.columns(view)[0].width for row in rows if row is not None)
    return [row[0] for row in rows if row is not None]


def test_lines_more_often_than_every_second_have_times_of_their_own() -> None:
    assert times(100 * MS, [100 * MS] * 3) == ["00:00:00.100", "00:00:00.200", "00:00:00.300"]
    assert times(1000 * MS, [1000 * MS] * 2) == ["00:00:01", "00:00:02"]
    record = {"time": "1970-01-01T00:00:01.234567890Z"}
    assert (clock.clock(record), clock.clock(record, 100 * MS)) == ("00:00:01", "00:00:01.234")


def test_the_last_line_says_how_long_it_is() -> None:
    assert times(100 * MS, [100 * MS, 37 * MS]) == ["00:00:00.100", "+37.0 ms"]


def test_no_percentile_exceeds_the_maximum() -> None:
    histogram = Histogram()
    histogram.record(np.array([99_940]))  # its bucket ends at 99,967, which would read 100 us
    assert numa._times(histogram) == "p50 99.9 us, p99 99.9 us, max 99.9 us"


def test_a_long_name_does_not_shift_a_line_of_several_processes() -> None:
    lines = Lines([Column("time", 8), *_WHOSE, Column("GC/s", 6)], None)
    ends = [len(line) for line in (lines.heading, *(lines.line(("10:00:00", 7, "n" * size, 1.0)) for size in (3, 24)))]
    assert len(set(ends)) == 1 and f"{'n' * 14}…" in lines.line(("", 7, "n" * 24, ""))


@pytest.mark.parametrize("width", [60, 38, 3000])
def test_long_names_leave_numbers_their_room(width: int) -> None:
    """They share what numbers leave, or half of the line if that is more; then columns go by rank."""
    names = [Column("host", left=True), Column("type", left=True, gap=2)]
    numbers = ["1.2 ms", "34.5 ms", "678.9 ms", "234,567"]
    columns = [*names, *(Column(head, rank=rank, gap=2) for rank, head in enumerate(("p50", "p99", "max", "values")))]
    heading, line = Rows(columns, [["h" * width, "t" * width, *numbers]]).lines(80)
    assert heading.split() == [column.name for column in columns]
    assert line.split("  ") == [f"{'h' * 20}…", f"{'t' * 20}…", *numbers] and len(line) == 80
    *_, line = Rows(columns, [["h" * width, "t" * width, *numbers]]).lines(40)
    assert line.split("  ") == [f"{'h' * 10}…", f"{'t' * 9}…", *numbers[:2]] and len(line) <= 40


def test_a_full_disk_is_not_called_a_terminal() -> None:
    with contextlib.suppress(OSError), open("/dev/full", "w") as file:  # closing it fails like writing to it
        sink = Sink.screen(file)
        sink.write("x" * (1 << 20))
        sink.flush()
        with pytest.raises(GotraceError, match="cannot write standard output: No space left"):
            complain_of(sink)

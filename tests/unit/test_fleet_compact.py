"""Compaction: every percentile, count and sum is what it was before, whatever was added, and wherever it was cut off."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gotrace.analysis.exponential import buckets_of
from gotrace.cli.main import main
from gotrace.fleet.compact import compact
from gotrace.fleet.database import opened
from gotrace.fleet.percentiles import merged
from gotrace.fleet.store import adding
from gotrace.fleet.trend import UNITS, _series
from gotrace.fleet.trend_points import make

DAY_NS, MINUTE_NS = 86_400 * 10**9, 60 * 10**9
BEGIN_NS = 20_000 * DAY_NS  # a day in 2024
REASONS = ("GC sweep termination", "GC mark termination")
MEANS = ("rss.mean", "heap.live.mean", "heap.goal.mean")
GROUPS = ((), ("host",), ("host", "slot"), ("reason",), ("service", "version"), ("emulated", "host", "reason"))
Window = tuple[int, int, int, bool, list[int]]  # host, minute, version, whether the longest are known, values

WINDOWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 179) | st.integers(1430, 1449),
        st.integers(0, 1),
        st.integers(0, 9).map(bool),
        st.lists(st.integers(0, 10**9), min_size=1, max_size=40),
    ),
    max_size=40,
    unique_by=lambda window: window[:2],
)


def written(folder: Path, windows: list[Window], additions: int = 3) -> str:
    """As an agent's spools, in several additions; and one recording in the same hour, which is no window."""
    for number in range(additions):
        with adding(str(folder)) as addition:
            names = [f"spool-{number}-{host}" for host in range(2)]  # of each host its own
            addition.add("source", [{"source": name, "kind": "spool", "added_ns": BEGIN_NS} for name in names])
            for host, minute, version, known, values in windows[number::additions]:
                _window(addition, (f"web-{host}", minute, f"v{version}", names[host]), known, values)
    with adding(str(folder)) as addition:
        addition.add("source", [{"source": "rec", "kind": "recording", "added_ns": BEGIN_NS}])
        _window(addition, ("web-0", 5, "v0", "rec"), True, [5, 5000, 10**6])
        _window(addition, ("web-0", 6, "v0", "rec"), True, [7])
    return str(folder)


def _window(addition: Any, about: tuple[str, int, str, str], known: bool, values: list[int]) -> None:
    host, minute, version, source = about
    of = {"host": host, "fingerprint": host, "service": "shop", "version": version, "source": source}
    of["start_ns"] = BEGIN_NS + minute * MINUTE_NS  # type: ignore[assignment]
    sizes = {"rss_bytes": sum(values), "heap_bytes": max(values) or None, "lost": len(values)}
    addition.add("period", [{**of, "length_ns": MINUTE_NS, "gogc": "100", "processes": 1, **sizes}])
    for at, reason in enumerate(REASONS):
        own = np.array(values[at::2], np.int64)
        if len(own):
            series = {**of, "metric": "stw.total", "label": reason}
            indexes, counts = buckets_of(own)
            total = {"count": len(own), "zeros": int((own == 0).sum()), "sum_ns": int(own.sum())}
            total |= {"min_ns": int(own.min()), "max_ns": int(own.max()), "length_ns": MINUTE_NS}
            addition.add("total", [{**series, **total}])
            addition.add("hist", [{**series, "bucket": int(b), "n": int(n)} for b, n in zip(indexes, counts, strict=True)])
    if known:
        longest = sorted(((value, REASONS[at % 2]) for at, value in enumerate(values)), reverse=True)[:16]
        rows = [{**of, "metric": "stw.total", "label": reason, "value_ns": value} for value, reason in longest]
        addition.add("worst", [{**row, "time_ns": at, "stack": [f"f{at}"]} for at, row in enumerate(rows)])


class Near(float):
    """A mean of memory: that of an hour is a whole number of bytes."""

    __hash__ = float.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(float(self) - float(other)) <= 1


def answers(folder: str, *, trends: bool = True) -> list[Any]:
    """All that is asked of windows: to the last count and nanosecond."""
    database = opened(folder)
    found: list[Any] = [database.broken, database.notes]
    found += [merged(database, "stw.total", by, (0, 50, 90, 99, 99.9, 100)) for by in GROUPS]
    for sql in (
        "select host, version, label, bucket, sum(n)::bigint from hist group by all order by all",
        "select host, version, label, sum(count)::bigint, sum(zeros)::bigint, sum(sum_ns)::bigint, min(min_ns), "
        "max(max_ns) from total group by all order by all",
        "select host, sum(lost)::bigint, sum(length_ns)::bigint, max(processes) from period group by all order by all",
        "select value_ns, label, host, time_ns, stack from worst order by all desc limit 16",
        "select * from period where source = 'rec' order by all",
        "select * from total where source = 'rec' order by all",
        "select * from worst where source = 'rec' order by all",
        "select source, kind from source order by all",
    ):
        found.append(database.rows(sql))
    for unit in UNITS.values() if trends else ():
        make(database, unit.ns)
        series = list(_series(database, ("host", "version"), None, None, None))
        for each in series:
            found.append((each.metric, each.at, each.hosts, *map(Near if each.metric in MEANS else float, each.values)))
    return found


@settings(max_examples=5, deadline=None, phases=[Phase.generate])  # each takes a second: no smaller ones are sought
@given(windows=WINDOWS)
def test_every_answer_is_the_same(tmp_path_factory: pytest.TempPathFactory, windows: list[Window]) -> None:
    folder = written(tmp_path_factory.mktemp("f") / "fleet", windows)
    before = answers(folder)
    first = compact(folder, 1)
    assert answers(folder) == before and not first.left
    again = compact(folder, 1)
    assert not again.days
    # minutes that come late are merged with the hours that are there
    with adding(folder) as addition:
        _window(addition, ("web-0", 200, "v0", "spool-0-0"), True, [3, 4])
        _window(addition, ("web-0", 201, "v0", "spool-0-0"), True, [5])
    late = answers(folder)
    assert compact(folder, 1).days and answers(folder) == late


def test_minutes_are_hours_and_files_are_few(tmp_path: Path) -> None:
    windows = [(0, minute, 0, True, [minute + 1, 2 * minute, 10**6 + minute]) for minute in range(120)]
    folder = written(tmp_path / "f", windows, additions=40)
    found = compact(folder, 1)
    assert found.days == ["2024-10-04"] and not compact(folder, 1).days
    assert found.files[0] > 200 and found.files[1] == 5 and found.size[1] < found.size[0] / 10
    database = opened(folder)
    # each of 40 spools has three minutes of each of two hours or fewer: an hour of each is a row
    assert database.rows("select count(*), sum(length_ns) from period where source != 'rec'")[0][1] == 120 * MINUTE_NS
    kept = database.rows("select source, start_ns, count(*) from worst where source != 'rec' group by all")
    assert all(start % (60 * MINUTE_NS) == 0 and count <= 16 for _, start, count in kept)
    lately = compact(folder, 20_000)
    assert not lately.days and not lately.left  # nothing is so old


def test_the_longest_of_an_hour_are_the_longest_of_its_minutes(tmp_path: Path) -> None:
    windows = [(0, minute, 0, True, list(range(minute * 100, minute * 100 + 40))) for minute in range(60)]
    folder = written(tmp_path / "f", windows, additions=1)
    compact(folder, 1)
    rows = opened(folder).rows("select value_ns, stack, start_ns from worst where source = 'spool-0-0' order by 1 desc")
    assert [row[0] for row in rows] == [5939 - at for at in range(16)]
    assert {row[2] for row in rows} == {BEGIN_NS} and rows[0][1] == ["f0"]


class Killed(BaseException):
    """Nothing is done after it, as if the process were gone."""


def steps(monkeypatch: pytest.MonkeyPatch, most: int) -> Iterator[int]:
    """From the journal on only so many files are renamed or removed; yields how many were."""
    done = 0

    def counted(real: Any) -> Any:
        def step(*arguments: Any, **more: Any) -> Any:
            nonlocal done
            if done >= most:
                raise Killed
            done += 1
            return real(*arguments, **more)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", counted(os.rename))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        yield done
    yield done


def test_wherever_it_is_killed_nothing_is_lost_or_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [(0, minute, 0, True, [minute, 5 * minute]) for minute in range(0, 60, 7)]
    whole = written(tmp_path / "whole", windows, additions=1)
    before = answers(whole, trends=False)
    most, ended = 0, False
    while not ended:
        folder = str(tmp_path / f"cut{most}")
        shutil.copytree(whole, folder)
        cut = steps(monkeypatch, most)
        next(cut)
        try:
            compact(folder, 1)
            ended = True
        except Killed:
            pass
        next(cut)
        assert answers(folder, trends=False) == before, most
        with adding(folder):  # whoever comes next ends it
            pass
        assert answers(folder, trends=False) == before
        assert not list(Path(folder).glob("*/*/.*.part")) and not (Path(folder) / ".adding").exists()
        most += 1
    assert most > 10  # files were removed and renamed, one by one


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "f", [(0, minute, 0, True, [1, 2]) for minute in range(60)])

    def ended(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["fleet", "compact", folder, *arguments])
        return (int(end.value.code or 0), *capsys.readouterr())

    (broken, *_) = sorted((tmp_path / "f" / "hist").glob("*/*.parquet"))
    data = broken.read_bytes()
    broken.write_bytes(b"PAR1")
    status, text, error = ended()
    assert status == 3 and "nothing to compact" in text and "2024-10-04 left as it is" in error
    broken.write_bytes(data)
    status, text, _ = ended()
    assert status == 0 and text.startswith("1 day (2024-10-04 to 2024-10-04): ")
    assert ended() == (0, "nothing to compact\n", "")
    assert ended("--older", "5h")[0] == 2 and ended("--older", "0d")[0] == 2

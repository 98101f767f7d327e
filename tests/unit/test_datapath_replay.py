"""The load of recorded calls, and the calls made again: against plain Python, by hand, and with hostile recordings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from datapath_recordings import DEVICE, FOLDER, REGULAR, Made
from hypothesis import given
from hypothesis import strategies as some

from gotrace.analysis import datapath_load as load
from gotrace.analysis import datapath_replay as plan
from gotrace.probes.datapath import TEXT
from gotrace.records.all import schema_of_command

GOTRACE = [sys.executable, "-m", "gotrace.cli", "datapath", "replay"]
_CALL = some.tuples(some.integers(0, 200), some.integers(0, 90), some.integers(0, 3), some.integers(0, 50))


def replay(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GOTRACE, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@given(some.lists(_CALL, max_size=20), some.integers(1, 60))
def test_a_course_is_that_of_plain_python(told: list[tuple[int, int, int, int]], width_ns: int) -> None:
    calls = np.zeros(len(told), load.CALL)
    calls["begin_ns"], calls["end_ns"] = [each[0] for each in told], [each[0] + each[1] for each in told]
    classes, moved = (np.array([each[at] for each in told], np.int64) for at in (2, 3))
    found = load.course(calls, classes, moved, 0, 300, width_ns)
    for at, (begin, length) in enumerate(zip(found.begins.tolist(), found.lengths.tolist(), strict=True)):
        own = [each for each in told if begin <= each[0] < begin + length]
        assert found.counts[:, at].tolist() == [sum(each[2] == kind for each in own) for kind in range(4)]
        assert found.read_bytes[at] == sum(each[3] for each in own if each[2] == load.READ)
        assert found.written_bytes[at] == sum(each[3] for each in own if each[2] == load.WRITE)
        running = [sum(each[0] <= ns < each[0] + each[1] for each in told) for ns in range(begin, begin + length)]
        assert found.in_flight[at] == pytest.approx(sum(running) / length)
        assert found.most_in_flight[at] == max(running)
        took = sorted(each[1] for each in own)
        for share, value in ((50, found.p50_ns[at]), (99, found.p99_ns[at])):
            assert value == (took[-(-len(took) * share // 100) - 1] if took else -1)
    assert found.lengths.sum() == 300


def test_intervals_have_round_lengths() -> None:
    lengths = (0, 1, 39_000_000, 41_000_000, 10**9, 40 * 10**9, 3600 * 10**9)
    assert [load.width(each) / 1e6 for each in lengths] == [1, 1, 1, 2, 50, 1000, 100_000]


_OPERATION = some.tuples(some.sampled_from([plan.OPEN, plan.READ, plan.WRITE, plan.SEEK, plan.STAT]), some.integers(0, 2))


@given(some.lists(some.tuples(_OPERATION, some.integers(0, 9), some.booleans(), some.integers(1, 3)), max_size=25))
def test_offsets_are_those_of_plain_python(told: list[Any]) -> None:
    rows = np.zeros(len(told), plan.OPERATION)
    positions: dict[Any, int] = {}
    expected = []
    openers = {(file, tid) for (kind, file), _, _, tid in told if kind == plan.OPEN}
    for row, ((kind, file), value, positioned, tid) in zip(rows, told, strict=True):
        moves, process = kind in (plan.READ, plan.WRITE), tid // 2
        row["kind"], row["file"], row["process"], row["size"] = kind, file, process, value if moves else 0
        row["tid"], whose = tid, tid if (file, tid) in openers else 0
        key = file, process, whose, positioned and moves
        if kind == plan.OPEN:
            positions[file, process, whose, False] = positions[file, process, whose, True] = 0
        elif kind == plan.SEEK:
            positions[file, process, whose, False] = value
        expected.append(positions.get(key, 0))
        positions[key] = positions.get(key, 0) + (value if moves else 0)
    results = np.array([value for _, value, _, _ in told], np.int64)
    moves = np.isin(rows["kind"], (plan.READ, plan.WRITE))
    positioned = np.array([each[2] for each in told], bool) & moves
    found = plan.offsets(rows, results, positioned)
    relevant = moves | (rows["kind"] == plan.SEEK)
    assert found[relevant].tolist() == np.array(expected, np.int64)[relevant].tolist()


@given(some.lists(some.tuples(some.integers(0, 3), some.integers(0, 60), some.integers(1, 20)), max_size=30))
def test_ranges_are_the_bytes_that_are_read(told: list[tuple[int, int, int]]) -> None:
    rows = np.zeros(len(told), plan.OPERATION)
    rows["kind"] = plan.READ
    for at, name in enumerate(("file", "offset", "size")):
        rows[name] = [each[at] for each in told]
    found = plan.ranges(rows, plan.READ)
    listed = [
        (file, at) for file, begin, end in zip(*(each.tolist() for each in found), strict=True) for at in range(begin, end)
    ]
    assert listed == sorted({(file, at) for file, begin, size in told for at in range(begin, begin + size)})
    ends = {file: max(begin + size for of, begin, size in told if of == file) for file, _, _ in told}
    assert plan.sizes(found, 4).tolist() == [ends.get(file, 0) for file in range(4)]


def test_threads_share_workers_that_are_free() -> None:
    rows = np.zeros(4, plan.OPERATION)
    rows["tid"], rows["begin_ns"], rows["took_ns"] = [7, 8, 9, 7], [0, 5, 30, 20], [1, 3, 1, 2]
    assert plan.workers(rows).tolist() == [0, 1, 1, 0]


def simple(path: Path) -> None:
    """Two threads: a file of 12 KiB, read twice from its beginning and once from 8 KiB on, and one that is written."""
    with Made(path) as made:
        made.file(1, b"", mode=FOLDER)
        made.file(2, b"data")
        made.file(3, b"out")
        made.file(4, b"/nowhere", mode=TEXT)
        made.file(5, b"null", mode=DEVICE)
        for process, tid in ((10, 10), (11, 12)):
            made.call("openat", 2, 3, 0, tid=tid, process=process)
            for at in range(3):
                made.call("read", 2, 4096, 10_000_000 * (at + 1), tid=tid, process=process)
            made.call("read", 2, 0, 40_000_000, tid=tid, process=process)
            made.call("close", 2, 0, 50_000_000, tid=tid, process=process)
        made.call("lseek", 2, 8192, 60_000_000)
        made.call("read", 2, 4096, 61_000_000)
        made.call("newfstatat", 4, -2, 62_000_000)
        made.call("newfstatat", 2, 0, 63_000_000)
        made.call("openat", 3, 4, 70_000_000)
        made.call("write", 3, 10_000, 71_000_000)
        made.call("fsync", 3, 0, 72_000_000)
        made.call("fstat", 3, 0, 73_000_000)
        made.call("mmap", 2, 1 << 40, 74_000_000)
        made.call("openat", 3, -13, 75_000_000)
        made.call("read", 5, 100, 76_000_000)
        made.call("read", 2, 1 << 40, 200_000_000)


def test_what_is_made_again(tmp_path: Path) -> None:
    simple(tmp_path / "run.gotrace")
    done = replay(tmp_path / "run.gotrace", "--into", tmp_path / "into", "--format", "json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    jsonschema.validate(found, schema_of_command("datapath"))
    rows = {each["call"]: (each["recorded"], each["replayed"], each["failed"]) for each in found["calls"]}
    assert rows == {
        "read": (10, 9, 0),
        "openat": (4, 3, 0),
        "close": (2, 2, 0),
        "newfstatat": (2, 2, 0),
        **dict.fromkeys(("lseek", "write", "fsync", "fstat"), (1, 1, 0)),
    }
    assert {(each["call"], each["calls"]) for each in found["left_out"]} == {("mmap", 1), ("openat", 1), ("read", 1)}
    assert found["recorded"] == 23 == found["replayed"] + sum(each["calls"] for each in found["left_out"])
    assert found["other_calls"] == 1 and found["written_bytes"] == 12288 and found["workers"] == 2
    assert found["ended"] == "all was replayed" and 73_000_000 < found["took_ns"] < 5_000_000_000
    assert found["resident"] in (None, 1.0)
    sizes = sorted((tmp_path / "into" / name).stat().st_size for name in os.listdir(tmp_path / "into"))
    assert sizes == [0, 10_000, 12288] or sizes == [10_000, 12288]
    again = replay(tmp_path / "run.gotrace", "--into", tmp_path / "into")
    assert again.returncode == 1 and "it is not empty" in again.stderr
    faster = replay(tmp_path / "run.gotrace", "--into", tmp_path / "gone", "--speed", "max", "--remove", "--format", "json")
    assert faster.returncode == 0 and json.loads(faster.stdout)[0]["took_ns"] < found["took_ns"]
    assert not (tmp_path / "gone").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    simple(tmp_path / "run.gotrace")
    done = replay(
        tmp_path / "run.gotrace", "--into", tmp_path / "into", "--dry-run", "-i", "100ms", "-o", tmp_path / "x.html"
    )
    assert done.returncode == 0 and set(os.listdir(tmp_path)) == {"run.gotrace", "x.html"}, done.stderr
    assert "12.0 KiB are written first, the calls write up to 9.77 KiB more" in done.stderr
    # nine reads, one write, one sync and eleven others in the first 100 ms; the last read is at 200 ms
    (first, *_) = [line.split() for line in done.stdout.splitlines() if line.lstrip().startswith("0 ns")]
    assert first[2:6] == ["90", "10", "10", "110"]
    (result,) = json.loads(replay(tmp_path / "run.gotrace", "-i", "100ms", "--format", "json").stdout)
    jsonschema.validate(result, schema_of_command("datapath"))
    assert [each["reads"] for each in result["intervals"]][:3:2] == [9, 1]
    assert result["intervals"][0]["read_bytes"] == 7 * 4096 and result["intervals"][0]["written_bytes"] == 10_000


def snapshot(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() and not path.is_symlink() else None)
        for path in sorted(folder.rglob("*"))
        if path.name != "into" and "into" not in path.relative_to(folder).parts
    }


HOSTILE = (
    *(b"../../victim", b"/victim", b"..", b".", b"\xff\xfe\n\x1b[31m", b"0", b"1/../../victim", b"absent-3", b"~"),
    *(b"a" * 255, b"-rf", b"\0"),
)


def test_a_hostile_recording_stays_in_its_folder(tmp_path: Path) -> None:
    """Names that lead elsewhere, as texts and as names of files; sizes and numbers that no call has."""
    (tmp_path / "victim").write_text("untouched")
    with Made(tmp_path / "run.gotrace") as made:
        made.file(1, b"", mode=FOLDER)
        node = 2
        for name in HOSTILE:
            for mode in (REGULAR, FOLDER, TEXT, 0xA000):
                made.file(node, name, mode=mode)
                for call, result in (("openat", 3), ("write", 7), ("read", 5), ("newfstatat", 0), ("newfstatat", -2)):
                    made.call(call, node, result, node * 1000)
                node += 1
        for result in (-(1 << 63), -5000, (1 << 63) - 1, 0x7FFFF001):
            for call in ("read", "write", "lseek", "openat"):
                made.call(call, 2, result, 0)
        made.call("read", 1 << 63, 5, 0)  # of a node that nobody told of
        made.file(node, b"loop", parent=node + 1)
        made.file(node + 1, b"loop", parent=node, mode=FOLDER)
        made.call("openat", node, 3, 0)
        made.call("write", 1, 5, 0)  # to a folder
    before = snapshot(tmp_path)
    done = replay(tmp_path / "run.gotrace", "--into", tmp_path / "into", "--speed", "max", "--format", "json")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert snapshot(tmp_path) == before
    there = list((tmp_path / "into").iterdir())
    assert there and all(each.name.isdecimal() and not each.is_symlink() for each in there)
    assert all(each.stat().st_size < 1000 for each in there if each.is_file())
    (found,) = json.loads(done.stdout)
    counted = found["replayed"] + found["failed"] + sum(each["calls"] for each in found["left_out"])
    assert counted == found["recorded"] and found["not_reached"] == 0 and found["failed"] > 0


def test_what_cannot_be_replayed_into(tmp_path: Path) -> None:
    with Made(tmp_path / "large.gotrace") as made:
        made.file(1, b"", mode=FOLDER)
        made.file(2, b"large")
        for at in range(1 << 11):
            made.call("read", 2, 0x7FFFF000, at)  # 4 TiB
    simple(tmp_path / "run.gotrace")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with Made(tmp_path / "nothing.gotrace") as made:
        made.file(1, b"", mode=FOLDER)
        made.call("getdents64", 1, 50, 0)
    for recording, into, status, said in (
        ("large", "into", 1, "the replay writes 4.00 TiB, but only"),
        ("run", "link", 1, "cannot replay into"),
        ("run", "full", 1, "it is not empty"),
        ("run", "none/at/all", 1, "No such file or directory"),
        ("run", "run.gotrace", 1, "Not a directory"),
        ("nothing", "into2", 1, "no calls that can be replayed"),
    ):
        done = replay(tmp_path / f"{recording}.gotrace", "--into", tmp_path / into)
        assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not os.listdir(tmp_path / "elsewhere") and os.listdir(tmp_path / "full") == ["x"]
    for options, said in (
        (("--cold",), "--cold has no effect without --into"),
        (("--into", "x", "-i", "1s"), "--interval has no effect without --dry-run"),
        (("--into", "x", "--speed", "0"), "invalid speed"),
        (("--into", "x", "--speed", "nan"), "invalid speed"),
        (("--into", "x", "--cold", "--sparse"), "are mutually exclusive"),
    ):
        done = replay(tmp_path / "run.gotrace", *options)
        assert done.returncode == 2 and said in done.stderr, done.stderr

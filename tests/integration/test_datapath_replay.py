"""`gotrace datapath replay` of real programs: the load against single calls, the replay against strace."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S

pytestmark = pytest.mark.bpf

PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
_WRITES = {"write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice"}
_READS = {"read", "pread64", "readv", "preadv", "preadv2", "page fault"}

# Four threads read files of 300 kB, four times, and look for one that is not there; then one sync.
_LOADER = """
import os, sys, threading, time
folder = sys.argv[1]
for number in range(10):
    with open(f"{folder}/{number}", "wb", buffering=0) as file:
        file.write(os.urandom(300_000))
        os.fsync(file.fileno())
def load():
    for _ in range(4):
        for number in range(10):
            fd = os.open(f"{folder}/{number}", os.O_RDONLY)
            while os.read(fd, 65536):
                pass
            os.close(fd)
            os.path.exists(f"{folder}/absent{number}")
        time.sleep(0.1)
threads = [threading.Thread(target=load) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A recording of the program above, and its calls one by one."""
    folder = tmp_path_factory.mktemp("loader")
    (folder / "data").mkdir()
    outputs = ["-o", str(folder / "run.gotrace"), "-o", str(folder / "calls.ndjson"), "--min", "1ns"]
    command = [*GOTRACE, "datapath", *outputs, "--", PYTHON, "-c", _LOADER, str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    records = [json.loads(line) for line in (folder / "calls.ndjson").read_text().splitlines()]
    assert records[-1]["lost"] == 0
    return folder / "run.gotrace", records


def replay(*arguments: object) -> dict[str, Any]:
    command = [*GOTRACE, "datapath", "replay", *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_the_load_is_that_of_single_calls(recorded: tuple[Path, list[dict[str, Any]]]) -> None:
    """Every rate, the bytes, the mean in flight and the percentile of each interval."""
    path, records = recorded
    total = records[-1]["all"]
    found = replay(path, "-i", "50ms")
    # Those on pipes, sockets and devices have no file: their paths begin with no slash, or with /dev.
    calls = [each for each in records[:-1] if (each["path"] or "").startswith("/") and not each["path"].startswith("/dev/")]
    assert (
        found["calls"] == len(calls) == total["calls"] - total["other_calls"]
        and found["other_calls"] == total["other_calls"]
    )
    assert sum(found[f"{kind}_ns"] for kind in ("reads", "writes", "syncs", "metadata")) == sum(
        each["duration_ns"] for each in calls
    )
    assert found["metadata_ns"] == total["metadata_ns"]
    for interval in found["intervals"]:
        begin, end = interval["monotonic_ns"], interval["monotonic_ns"] + interval["length_ns"]
        own = [each for each in calls if begin <= each["monotonic_ns"] < end]
        reads, writes = ([each for each in own if each["call"] in kind] for kind in (_READS, _WRITES))
        metadata = [each for each in own if each["metadata"]]
        assert [interval[kind] for kind in ("reads", "writes", "metadata")] == [*map(len, (reads, writes, metadata))]
        assert interval["syncs"] == len(own) - len(reads) - len(writes) - len(metadata)
        for kind, singles in (("read", reads), ("written", writes)):
            moved = sum(
                each["pages"] * 4096 if each["call"] == "page fault" else max(0, each["result"]) for each in singles
            )
            assert interval[f"{kind}_bytes"] == moved
        overlaps = (
            min(end, each["monotonic_ns"] + each["duration_ns"]) - max(begin, each["monotonic_ns"]) for each in calls
        )
        assert interval["in_flight"] == pytest.approx(sum(each for each in overlaps if each > 0) / interval["length_ns"])
        took = sorted(each["duration_ns"] for each in own)
        assert interval["p99_ns"] == (took[-(-len(took) * 99 // 100) - 1] if took else None)


_CALLED = re.compile(r"^(\w+)\(.*\) += (-?\d+)")


def test_what_is_replayed_is_what_strace_sees(recorded: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Calls, bytes and errors of the replay itself; offsets stay within files of the sizes that the program had made."""
    path, _ = recorded
    into, log, result = tmp_path / "into", tmp_path / "strace", tmp_path / "result.json"
    calls = "openat,preadv,preadv2,pwritev,pwritev2,fsync,newfstatat"
    command = ["strace", "-ff", "-y", "-s", "20", "-e", f"trace={calls}", "-o", str(log)]  # a file for each process
    subprocess.run(
        [*command, *GOTRACE, "datapath", "replay", str(path), "--into", str(into), "--speed", "max", "-o", str(result)],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    (found,) = json.loads(result.read_text())
    rows = {each["call"]: each for each in found["calls"]}
    assert found["failed"] == found["not_reached"] == 0 and found["ended"] == "all was replayed"
    assert found["recorded"] == found["replayed"] + sum(each["calls"] for each in found["left_out"])
    seen: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    absent = 0
    for line in (line for each in tmp_path.glob("strace.*") for line in each.read_text(errors="replace").splitlines()):
        if (match := _CALLED.match(line)) and f"<{into}" in line:
            call = match[1].removesuffix("2")
            seen[call] += 1
            moved[call] += max(0, int(match[2]))
            absent += "absent-" in line and int(match[2]) == -1
    # ten files of 300 kB, read five times at most by each of four threads: 4 x 4 x 10 whole files
    assert moved["preadv"] >= 160 * 300_000 and moved["pwritev"] >= 10 * 300_000
    assert seen["preadv"] == sum(rows[each]["recorded"] - of(found, each) for each in ("read", "pread64") if each in rows)
    assert seen["pwritev"] == rows["write"]["replayed"] >= 10 and seen["fsync"] == rows["fsync"]["replayed"] == 10
    assert absent >= 160
    sizes = Counter((into / name).stat().st_size for name in os.listdir(into) if (into / name).is_file())
    assert sizes[300_000] == 10 and max(sizes) < 50 << 20


def of(found: dict[str, Any], call: str) -> int:
    return sum(each["calls"] for each in found["left_out"] if each["call"] == call)


@pytest.mark.alone
def test_time_is_kept(recorded: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """As fast as recorded, four times as fast, and without waiting; the program sleeps for 0.4 s."""
    path, records = recorded
    calls = [each for each in records[:-1] if (each["path"] or "").startswith("/")]
    length_ns = calls[-1]["monotonic_ns"] - calls[0]["monotonic_ns"]
    found = [replay(path, "--into", tmp_path / str(speed), "--speed", speed, "--remove") for speed in (1, 4, "max")]
    assert found[0]["took_ns"] == pytest.approx(length_ns, rel=0.3) and found[0]["took_ns"] > 0.97 * length_ns
    assert length_ns / 4 * 0.97 < found[1]["took_ns"] < length_ns
    assert found[2]["took_ns"] < found[0]["took_ns"]
    assert found[0]["late"]["p50_ns"] < 20_000_000 and not os.listdir(tmp_path)


def test_cold_files_are_read_from_their_disk(recorded: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = recorded
    folder = targets.ROOT / "tests" / f".replay-{os.getpid()}"  # not in memory, as /tmp may be
    try:
        found = replay(path, "--into", folder, "--speed", "max", "--cold", "--remove")
        warm = replay(path, "--into", folder, "--speed", "max", "--remove")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert found["resident"] == 0 and warm["resident"] > 0.9


def test_ctrl_c_ends_it(recorded: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """At once, with what was done until then; no process stays, files do."""
    path, _ = recorded
    into = tmp_path / "into"
    command = [*GOTRACE, "datapath", "replay", str(path), "--into", str(into), "--speed", "0.01", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as started:
        time.sleep(3)
        os.killpg(started.pid, signal.SIGINT)
        text, said = started.communicate(timeout=20)
    assert started.returncode == 130 and b"Traceback" not in said, said
    (found,) = json.loads(text)
    assert found["ended"] == "Ctrl-C" and found["not_reached"] > 0 and into.is_dir()
    assert (
        found["replayed"] + found["failed"] + found["not_reached"] + sum(each["calls"] for each in found["left_out"])
        == found["recorded"]
    )
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)

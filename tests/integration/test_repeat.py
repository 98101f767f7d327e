"""`gotrace reproduce` of recordings: a program on a file system that takes its time, and then takes more of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, Others
from gotrace.recording.reader import Recording

pytestmark = pytest.mark.bpf

PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
# 120 reads of 5 ms each, of files that are opened anew.
_READER = """
import os, sys
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # what it takes to get a CPU is no part of a read
for number in range(12):
    fd = os.open(f"{sys.argv[1]}/reading/{number}", os.O_RDONLY)
    for block in range(10):
        os.pread(fd, 4096, block * 8192)
    os.close(fd)
print("read")
"""


@contextmanager
def slowfs(point: Path, percent: int) -> Iterator[None]:
    """It takes so much of its 5 ms."""
    point.mkdir(exist_ok=True)
    command = [str(targets.build("slowfs", flavour=targets.C)), str(point), str(percent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "mounted\n"
        try:
            yield
        finally:
            server.communicate(timeout=30)


def reproduce(path: Path, *options: object) -> tuple[int, dict[str, Any]]:
    command = [*GOTRACE, "reproduce", str(path), *map(str, options), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.startswith("{"), done.stderr  # what the command prints is not among it
    return done.returncode, json.loads(done.stdout)


@pytest.mark.alone
def test_the_same_and_a_slower_file_system(tmp_path: Path) -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this host has no /dev/fuse")
    point, path = tmp_path / "slow", tmp_path / "run.gotrace"
    command = [*GOTRACE, "datapath", "-o", str(path), "--", PYTHON, "-c", _READER, str(point)]
    Others.wait_quiet(10)
    others = Others()
    with slowfs(point, 100):
        subprocess.run(command[-4:], check=True, capture_output=True, timeout=PATIENCE_S)  # the interpreter, into memory
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
        status, same = reproduce(path, "-n", 6, "--margin", "5%")
    with slowfs(point, 150):
        slower_status, slower = reproduce(path, "-n", 6)
    with Recording.open(str(path)) as recording:
        header = recording.header
    assert header["command"] == {"words": command[-4:], "folder": os.getcwd()}
    assert header["machine"]["kernel"] == os.uname().release and header["machine"]["links"] is not None
    rows = {row["metric"]: row for row in same["metrics"]}
    assert rows["calls"]["found"] == rows["bytes"]["found"] == "same"
    assert rows["bytes"]["then"] >= 120 * 4096 and rows["time in calls"]["then"] >= 120 * 5_000_000
    # On a machine with much else to do nothing may be told; a difference must not.
    assert (status, same["answer"]) in ((0, "reproduced"), (3, "cannot tell")), same["metrics"]
    assert (slower_status, slower["answer"]) in ((1, "not reproduced"), (3, "cannot tell")), slower
    if others.share() < 0.2:
        assert (same["answer"], slower["answer"]) == ("reproduced", "not reproduced"), (same, slower)
    # The one run that was recorded may have been held up more than the mean of six.
    changed = {row["metric"]: row for row in slower["metrics"]}["time in calls"]
    assert changed["change"][0] / rows["time in calls"]["change"][0] == pytest.approx(1.50, abs=0.03)


def test_a_command_that_fails_and_a_replay(tmp_path: Path) -> None:
    """Exit status 5; and the calls made again, of which nothing can be told that takes microseconds."""
    path, folder = tmp_path / "run.gotrace", tmp_path / "data"
    folder.mkdir()
    script = "import os, sys; os.rmdir(sys.argv[1]); [os.stat('/') for _ in range(500)]"
    command = [*GOTRACE, "datapath", "-o", str(path), "--", PYTHON, "-c", script, str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    done = subprocess.run([*GOTRACE, "reproduce", str(path)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 5 and "ended with status 1" in done.stderr
    status, found = reproduce(path, "--replay", "--into", tmp_path / "into", "-n", 2)
    assert (status, found["answer"], found["how"]) == (3, "cannot tell", "replay")
    assert "of the time in calls is the replay's own" in found["reasons"][0]
    rows = {row["metric"]: row for row in found["metrics"]}
    assert rows["calls"]["found"] == "same" and rows["calls"]["then"] >= 500 and not (tmp_path / "into").exists()

"""What tests of `coldstart --containers` share."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import debian
import targets
from conftest import GOTRACE, PATIENCE_S

# Where systemd runs, their packages would start servers that nobody asked for.
REQUIRED = os.environ.get("GOTRACE_REQUIRE_BPF") and not Path("/run/systemd/system").exists()

# A folder with programs of a version that no Debian release has.
TRY = os.environ.get("GOTRACE_TRY")
_DOCKER = ("docker.io", "docker-cli", "containerd")


def tried(tool):
    return ["tried"] if TRY and Path(TRY, tool).exists() else []


def path_of(suite, daemon):
    """PATH with the containerd or dockerd of a Debian release, the one that is tried, or this machine's ("")."""
    path = os.environ["PATH"]
    if suite == "tried":
        return f"{TRY}:{path_of('sid', daemon) if daemon == 'dockerd' else path}"
    if not suite:
        return path
    names = ("containerd",) if daemon == "containerd" and suite != "sid" else _DOCKER  # in sid the same for both
    tree = debian.unpacked(suite, "amd64", *(each for each in names if suite != "bookworm" or each != "docker-cli"))
    return f"{tree}/usr/bin:{tree}/usr/sbin:{path}"


def mine(folder):
    """A program that nobody else starts meanwhile."""
    return Path(shutil.copy(targets.build("gcload"), folder / "app"))


@contextlib.contextmanager
def watching(program, *options, runs=1, until="main", env=None):
    """A list, in which stands afterwards what `coldstart --containers` saw of the starts that are made inside."""
    command = [*GOTRACE, "coldstart", "--exe", program, "--containers", "-n", runs]
    command += ["--until", until, "--format", "json"]
    tracer = subprocess.Popen(
        list(map(str, [*command, *options])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        said = ""
        while "Waiting" not in said:
            said += (line := tracer.stderr.readline())
            assert line, said
        seen = []
        yield seen
        out, rest = tracer.communicate(timeout=PATIENCE_S)
        assert tracer.returncode == 0, said + rest
        *starts, summary = json.loads(out)
        assert summary["lost"] == 0
        for start in starts:
            if start["container"] is not None:
                whole_and_contiguous(start)
        seen += [*starts, said + rest]
    finally:
        tracer.kill()
        tracer.wait()


def stages(start):
    return [row for row in start["rows"] if row["stage"] == "container" and row["depth"] == 1]


def took(start, name):
    return sum(row["duration_ns"] for row in stages(start) if row["name"] == name)


def whole_and_contiguous(start):
    (top, *_) = (row for row in start["rows"] if row["depth"] == 0)
    parts = stages(start)
    assert top["stage"] == "container" and top["begin_ns"] == parts[0]["begin_ns"] == -top["duration_ns"]
    assert sum(part["duration_ns"] for part in parts) == top["duration_ns"]
    assert all(one["begin_ns"] + one["duration_ns"] == two["begin_ns"] for one, two in itertools.pairwise(parts))
    assert all(part["duration_ns"] > 0 for part in parts)


def wall_ns():
    """From CLOCK_MONOTONIC to the time of day, but for the least time between two looks."""
    return max(time.time_ns() - time.monotonic_ns() for _ in range(100))


def told_by(events):
    """Topic -> when containerd told it, ns of the day in UTC, in the order of time."""
    told = collections.defaultdict(list)
    for line in events.read_text().splitlines():
        if match := re.match(r"\S+ (\d\d):(\d\d):(\d\d)\.(\d+) \S+ \S+ \S+ (/\S+)", line):
            hours, minutes, seconds = (int(match[number]) for number in (1, 2, 3))
            nanoseconds = int(match[4].ljust(9, "0")[:9])
            told[match[5]].append(((hours * 60 + minutes) * 60 + seconds) * 10**9 + nanoseconds)
    return told

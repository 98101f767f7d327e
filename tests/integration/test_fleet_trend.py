"""A deployment that makes a real service start later, in real measurements at the times at which they were made."""

from __future__ import annotations

import subprocess

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S
from gotrace.fleet.add import add
from gotrace.fleet.database import opened
from gotrace.fleet.machines import Told
from gotrace.fleet.trend import Unit, trend

pytestmark = pytest.mark.bpf
MS = 10**6


def test_a_deployment_is_found_where_it_was(tmp_path):
    """v1 waits for 0.2 s before it listens, v2 for a second. A point is as long as a start: nobody waits for hours here."""
    program = targets.build("shop")
    folder = str(tmp_path / "fleet")
    for version, wait, starts in (("v1", "200ms", 12), ("v2", "1s", 7)):
        recording = tmp_path / f"{version}.gotrace"
        words = ["coldstart", "-n", str(starts), "--until", "listen", "-o", str(recording), "--"]
        subprocess.run(
            [*GOTRACE, *words, program, "-init", wait, "-port", "0"],
            check=True,
            timeout=PATIENCE_S,
            capture_output=True,
        )
        add(folder, [str(recording)], Told(host_name="web-1", version=version))
    database = opened(folder)
    ((deployed,),) = database.rows("select min(start_ns) from run where version = 'v2'")
    unit = Unit("0.2 s", 200 * MS, 1000, str)
    found = trend(database, metric="start.listen", unit=unit)
    (together,) = found.found
    (change,) = together.changes
    assert together.at == deployed // unit.ns
    assert (change.points_before, change.points_after) == (12, 7)
    assert change.before >= 200 * MS and change.after >= 1000 * MS and change.worse and change.new
    assert together.differences == [("version", "v1", "v2")] and found.status == 1

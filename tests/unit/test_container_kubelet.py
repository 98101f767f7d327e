"""Recordings of real kubelets' pods, which scripts/try-kubelet made, against what the kubelet's own log said of that run.

A .json beside each has the log's lines, ns from the program's execve. The log is cut to microseconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "testdata" / "kubelet"
OTHERS = "other containers of the pod"


@pytest.mark.parametrize("version", sorted(path.stem for path in FOLDER.glob("*.gotrace")))
def test_each_line_of_its_log_lies_in_its_row(version):
    command = [sys.executable, "-m", "gotrace.cli", "report", f"{version}.gotrace", "--format", "json"]
    start, _ = json.loads(subprocess.run(command, cwd=FOLDER, capture_output=True, check=True).stdout)
    rows = [
        (row["name"], row["begin_ns"], row["begin_ns"] + row["duration_ns"])
        for row in start["rows"]
        if row["stage"] == "container" and row["depth"]
    ]
    told = json.loads((FOLDER / f"{version}.json").read_text())
    assert rows[0][0] == "kubelet (to SyncPod)" and rows[1][0] == "kubelet (SyncPod)"

    def there(line):
        return next(name for name, begin, end in rows if begin <= told[line] + 1000 and told[line] < end)

    lines = {
        "seen": "kubelet (to SyncPod)",
        "sync": "kubelet (SyncPod)",
        "waits for volumes": "kubelet (volumes)",
        "has volumes": "kubelet (volumes)",
        "creates sandbox": "kubelet (SyncPod)",
        "created sandbox": "kubelet (SyncPod)",
        "creates init container": "kubelet (SyncPod)",
        "sync exit": "kubelet (SyncPod)",
        "next sync": "kubelet (SyncPod)",
        "creates container": "kubelet (SyncPod)",
    }
    assert {line: there(line) for line in lines} == lines
    # Nothing but what the log tells of lies between its lines.
    for first, second, names in (
        ("creates sandbox", "created sandbox", {"kubelet (sandbox)", "RunPodSandbox", "sandbox (network)"}),
        ("creates init container", "sync exit", {OTHERS}),
        ("sync exit", "next sync", {"kubelet (between syncs)"}),
    ):
        inside = {name for name, begin, end in rows if told[first] < begin and end < told[second]}
        assert names <= inside and not any(name.startswith("kubelet") for name in inside - names), (first, inside)
    mine = {name for name, begin, _ in rows if begin > told["creates container"]}
    assert {"kubelet (container)", "kubelet (image)", "PullImage", "image pull", "unpack", "StartContainer"} <= mine
    container = start["container"]
    assert (container["tool"], container["layers"], container["unseen"]) == ("kubelet", 1, [])
    assert (container["pod"]["namespace"], container["pod"]["container"]) == ("shop", "app")

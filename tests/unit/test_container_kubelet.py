"""Recordings of real kubelets' pods, which scripts/try-kubelet made, against what the kubelet's own log said of that run.

A .json beside each has the log's lines, ns from the program's execve. The log is cut to microseconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gotrace.analysis.container_daemons import Step
from gotrace.analysis.container_kubelet import Span, spans

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


@pytest.mark.parametrize(("before", "after"), [(10, 20), (20, 10)])
@pytest.mark.parametrize("was_seen_again", [True, False])
def test_a_kubelet_that_was_restarted_in_syncpod(before, after, was_seen_again):
    """When the first one saw the pod is no part of the start that the second one made."""
    stages, labels = ("pod_seen", "pod_sync"), ("uid",)

    def begins(time_ns, stage, process):
        of = {"process": process, "stage": stages.index(stage), "g": 1}
        label = {"process": process, "label": 0, "key_bytes": 3, "attempt": 0}
        return [Step(time_ns, "stage_begins", of, ""), Step(time_ns, "label", label, "uid")]

    steps = [*begins(100, "pod_seen", before), *begins(200, "pod_sync", before)]
    if was_seen_again:
        steps += begins(1000, "pod_seen", after)
    steps += begins(1100, "pod_sync", after)
    found = spans(steps, stages, labels, {"uid": "uid"}, Span(1200, 1300, "RunPodSandbox"), 1400, 0)
    to_sync = [Span(1000, 1100, "kubelet (to SyncPod)")] if was_seen_again else []
    assert found == [*to_sync, Span(1100, 0, "kubelet (SyncPod)")]
    # One whose functions are not probed, of another version: all that is known is that the first one had ended.
    steps = [*steps[:4], Step(300, "ended", {"process": before}, "")]
    assert spans(steps, stages, labels, {"uid": "uid"}, Span(1200, 1300, "RunPodSandbox"), 1400, 0) == []

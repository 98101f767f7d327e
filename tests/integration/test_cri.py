"""coldstart --containers of pods: against the clocks of CRI's client, a network and a registry, and containerd's events."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import cri
import targets
from conftest import until
from containers import REQUIRED, stages, told_by, tried, wall_ns, watching

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(targets.EMULATED, reason="container tools' own functions are known on amd64"),
]
CALLS = {"RunPodSandbox", "PullImage", "CreateContainer", "StartContainer"}
LONG = "a" * 250


@pytest.fixture
def registry():
    made = cri.Registry()
    yield made
    made.close()


def spans(start):
    """(name, begin, end) of each stage, CLOCK_MONOTONIC."""
    at = start["monotonic_ns"]
    return [(row["name"], at + row["begin_ns"], at + row["begin_ns"] + row["duration_ns"]) for row in stages(start)]


def holds(start, name, *times):
    """Whether all ``times`` lie within one stage of that name."""
    return any(each == name and begin < min(times) and max(times) < end for each, begin, end in spans(start))


def check_calls(start, calls, others=()):
    """Calls and what lies between them are where the client has them; ``others`` are of other containers."""
    for name, begin, end in (found := spans(start)):
        if name in CALLS or name.startswith("other"):
            mine = (call for call in (calls if name in CALLS else others) if call.name == name or call in others)
            assert any(call.begin_ns < begin < end < call.end_ns for call in mine), name
    assert sum(name.startswith("other") for name, _, _ in found) == len(others)
    assert found[0][0] == calls[0].name and calls[0].begin_ns < found[0][1] < calls[0].end_ns
    for one, two in itertools.pairwise(sorted([*calls, *others], key=lambda call: call.begin_ns)):
        assert holds(start, "between CRI calls", one.end_ns, two.begin_ns), (one, two)
    assert calls[-1].name == "StartContainer" and calls[-1].begin_ns < found[-1][1] < start["monotonic_ns"]


@pytest.mark.parametrize("suite", ["", "trixie", "sid", *tried("containerd")], ids=lambda suite: suite or "installed")
def test_pods(suite, registry, tmp_path):
    if shutil.which("containerd") is None or shutil.which("runc") is None:
        assert not REQUIRED, "scripts/setup test installs containerd"
        pytest.skip("no containerd")
    waits = targets.build("starter")
    program = Path(shutil.copy(waits, tmp_path / "app"))  # that nobody else starts meanwhile
    pause = registry.add("pause", "/starter", "-wait", files={"starter": waits})
    image = registry.add("app", "/nothing", files={"layer": os.urandom(1 << 20)})
    mounts = [("/app", program)]
    with cri.running(tmp_path, pause, suite) as (client, ctr, network):

        def start(sandbox, pod, name, attempt=0):
            identity = client.create(sandbox, pod, name, image, "/app", "-wait", mounts=mounts, attempt=attempt)
            time.sleep(0.01)
            client.start(identity)
            return identity

        with open(tmp_path / "events", "w") as log:
            events = subprocess.Popen([*ctr, "events"], stdout=log, env={**os.environ, "TZ": "UTC"})
        sandboxes = []
        try:
            with watching(program, runs=5, env={"PATH": client.path}) as seen:
                pod, bare = client.config("shop", "api-0", "u-1"), client.config("dark", LONG, "u-2", own_network=False)
                sandboxes.append(client.run_sandbox(pod))
                client.pull(image, pod)
                ids = [start(sandboxes[0], pod, "app"), start(sandboxes[0], pod, "side")]
                client.ask("ExecSync", {1: ids[1], 2: ["/app", "-exit", "0"]})
                client.ask("StopContainer", {1: ids[0]})
                ids.append(start(sandboxes[0], pod, "app", attempt=1))
                sandboxes.append(client.run_sandbox(bare))
                ids.append(start(sandboxes[1], bare, "app"))
                calls = list(client.calls)
            until(lambda: (tmp_path / "events").read_text().count("/tasks/start") == 6)
        finally:
            events.terminate()
            events.wait()
            for sandbox in sandboxes:
                client.stop(sandbox)
    first, side, executed, again, alone, said = seen
    sandbox, pull, create, begin, create_side, begin_side, _, _, create_again, begin_again, *of_alone = calls
    assert "is not traced" not in said

    assert executed["container"] is None and "a container that ran already" in " ".join(executed["notes"])
    told = [each["container"] for each in (first, side, again, alone)]
    assert [each["id"] for each in told] == ids and {each["tool"] for each in told} == {"containerd"}
    assert all(each["unseen"] == [] for each in told)
    of_pod = {"namespace": "shop", "name": "api-0", "uid": "u-1", "container": "app", "attempt": 0}
    assert told[0]["pod"] == of_pod and told[1]["pod"] == {**of_pod, "container": "side"}
    assert told[2]["pod"] == {**of_pod, "attempt": 1}
    assert told[3]["pod"] == {**of_pod, "namespace": "dark", "name": LONG[:192] + "…", "uid": "u-2"}

    check_calls(first, [sandbox, pull, create, begin])
    check_calls(side, [sandbox, pull, create_side, begin_side], others=[create, begin])
    check_calls(again, [create_again, begin_again])
    check_calls(alone, of_alone)

    # What was pulled, by the registry's clock: the sandbox's own image, and the container's.
    assert [each["layers"] for each in told] == [1, 1, 0, 0]
    version = subprocess.run(["containerd", "--version"], env={"PATH": client.path}, capture_output=True, text=True).stdout
    own = "PullImage (the sandbox's)" if " 1." in version or " v1." in version else "RunPodSandbox"  # it needs no call
    for name, layer in zip((own, "image pull"), registry.layers, strict=True):
        assert holds(first, name, *layer)
    assert pull.begin_ns < next(begin for name, begin, _ in spans(first) if name == "unpack") < pull.end_ns
    assert {"image pull", "unpack", "sandbox (network)"} <= set(told[2]["absent"])

    # The network, by its own clock.
    assert holds(first, "sandbox (network)", *(int(line) - wall_ns() for line in network.read_text().split()))
    assert "sandbox (network)" in told[3]["absent"]

    # containerd tells of a container once it is made, and of a task when runc has made it, not started.
    events, day = told_by(tmp_path / "events"), 86_400 * 10**9
    made, tasks = events["/containers/create"], events["/tasks/create"]  # the first and the fifth are sandboxes
    for number, seen_start in zip((1, 2, 3, 5), (first, side, again, alone), strict=True):
        to_day = wall_ns() - (seen_start["monotonic_ns"] + wall_ns()) // day * day
        begun = {name: begin + to_day for name, begin, _ in reversed(spans(seen_start))}
        assert begun["snapshot"] < made[number] < begun["StartContainer"] < tasks[number]
        assert tasks[number] < seen_start["monotonic_ns"] + to_day

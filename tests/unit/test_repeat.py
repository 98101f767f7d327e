"""`gotrace.lab.repeat` on runs whose truth is known, and the machine that a recording was made on, from made sysfs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datapath_recordings import FOLDER, Made
from scipy import stats

from gotrace.analysis.stats.multiple import holm
from gotrace.kernel import links, machine
from gotrace.lab import repeat
from gotrace.lab.compare import NotComparableError

VALUES = {"calls": 1e4, "bytes": 1e8, "time in calls": 1e9, "metadata share": 0.3, "metadata p99": 1e6, "data p99": 5e6}


def runs(count: int, spread: float, seed: int = 1, **factors: float) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    scaled = {name: value * factors.get(name.replace(" ", "_"), 1) for name, value in VALUES.items()}
    return [{name: value * np.exp(random.normal(0, spread)) for name, value in scaled.items()} for _ in range(count)]


def test_intervals_are_students() -> None:
    """Of a mean and one value more: against scipy's t distribution."""
    now = runs(6, 0.02)
    found = {row.metric: row for row in repeat.judge(VALUES, now, 0.03, "command").metrics}
    expected = {}
    for name, value in VALUES.items():
        logs = np.log([each[name] / value for each in now])
        error = logs.std(ddof=1) * np.sqrt(1 + 1 / 6)
        low, high = stats.t.interval(0.9, 5, logs.mean(), error)
        assert found[name].change == pytest.approx(tuple(np.exp([logs.mean(), low, high])))
        beyond = (abs(logs.mean()) - np.log1p(0.03)) / error
        expected[name] = min(1.0, 2 * stats.t.sf(beyond, 5)) if beyond > 0 else 1.0
    corrected = dict(zip(expected, holm(list(expected.values())), strict=True))
    assert {name: row.differs_p for name, row in found.items()} == pytest.approx(corrected)


@pytest.mark.parametrize(
    ("count", "spread", "factors", "answer", "code"),
    [
        (6, 0.003, {}, "reproduced", 0),
        (6, 0.003, {"time_in_calls": 1.08}, "not reproduced", 1),
        (6, 0.003, {"calls": 0.9}, "not reproduced", 1),
        (6, 0.003, {"data_p99": 2}, "not reproduced", 1),  # not needed, and different all the same
        (6, 0.05, {}, "cannot tell", 3),
        (1, 0, {}, "cannot tell", 3),
        (2, 0, {}, "reproduced", 0),  # without any variance
        (2, 0, {"bytes": 1.1}, "not reproduced", 1),
    ],
)
def test_answers(count: int, spread: float, factors: dict[str, float], answer: str, code: int) -> None:
    found = repeat.judge(VALUES, runs(count, spread, **factors), 0.03, "command")
    assert (found.answer, found.exit_code) == (answer, code), found
    json.dumps(found.to_json(), allow_nan=False)
    unlike = repeat.judge(VALUES, runs(count, spread, **factors), 0.03, "command", ["another machine"])
    assert unlike.answer == "cannot tell" and unlike.reasons == ("another machine",)


def test_how_often_it_is_wrong() -> None:
    """A run of the same kind is hardly ever said to differ; one at the margin is hardly ever said to be the same."""
    random = np.random.default_rng(7)
    same, beyond = [], []
    for seed in range(400):
        then = {name: value * np.exp(random.normal(0, 0.02)) for name, value in VALUES.items()}
        same.append(repeat.judge(then, runs(5, 0.02, seed), 0.03, "command").answer)
        (row,) = [
            row
            for row in repeat.judge(then, runs(5, 0.02, seed, calls=1.03), 0.03, "command").metrics
            if row.metric == "calls"
        ]
        beyond.append(row.found)
    assert same.count("not reproduced") <= 0.06 * 400 and beyond.count("same") <= 0.08 * 400


def test_what_is_not_there() -> None:
    nothing: dict[str, float | None] = {**VALUES, "data p99": None, "bytes": 0.0}
    found = {row.metric: row.found for row in repeat.judge(nothing, [dict(nothing)] * 3, 0.03, "command").metrics}
    assert set(found.values()) == {"same"}
    for then, now in ((nothing, VALUES), (VALUES, nothing)):
        rows = {row.metric: row.found for row in repeat.judge(then, [dict(now)] * 3, 0.03, "command").metrics}
        assert (rows["bytes"], rows["data p99"]) == ("differs", "cannot tell")  # there may have been too few for it
    noted = repeat.judge({**VALUES, repeat.COLD: 1.0}, [{**VALUES, repeat.COLD: 0.02}] * 3, 0.03, "command").notes
    assert noted == ("reads that missed the page cache: 100% then, 2% now",)


def device(root: Path, address: str, kind: str, **files: str) -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    for name, text in {"class": kind, **files}.items():
        (folder / name).write_text(f"{text}\n")


def test_links_of_a_made_sysfs(tmp_path: Path) -> None:
    full = {"max_link_width": "16", "max_link_speed": "32.0 GT/s PCIe"}
    now = {"current_link_width": "8", "current_link_speed": "16.0 GT/s PCIe"}
    device(tmp_path, "0000:17:00.0", "0x030200", **full, **now)
    device(tmp_path, "0000:18:00.0", "0x020700", **full, current_link_width="16", current_link_speed="32.0 GT/s PCIe")
    device(tmp_path, "0000:19:00.0", "0x020000", **{**full, "max_link_width": "255"}, current_link_width="0")
    device(tmp_path, "0000:01:00.0", "0x010802", **full, **now)  # a disk
    device(tmp_path, "0000:02:00.0", "0x020000")  # of a virtual machine
    device(tmp_path, "0000:18:00.1", "0x020700", **full, **now)  # a virtual function
    (tmp_path / "sys/bus/pci/devices/0000:18:00.1/physfn").symlink_to("../0000:18:00.0")
    found = links.pcie_links(str(tmp_path))
    assert [links.link_text(each) for each in found] == [
        "x8 of x16, 16.0 GT/s of 32.0 GT/s",
        "x16 of x16, 32.0 GT/s of 32.0 GT/s",
        "? of ?, ? of 32.0 GT/s",
    ]
    assert [(each["device"], each["kind"]) for each in found] == [
        ("0000:17:00.0", "gpu"),
        ("0000:18:00.0", "nic"),
        ("0000:19:00.0", "nic"),
    ]
    assert links.pcie_links(str(tmp_path / "nothing")) == []


def test_nvlinks() -> None:
    text = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\n" + "".join(f"\t Link {at}: 26.562 GB/s\n" for at in range(17))
    text += "\t Link 17: <inactive>\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2)\n\t Link 0: 26.562 GB/s\nGPU 2: other\n"
    assert links.nvlinks(text) == ["GPU 0: 17 at 26.562 GB/s, 1 inactive", "GPU 1: 1 at 26.562 GB/s", "GPU 2: none"]
    assert links.nvlinks("no devices were found") == []


def link(kind: str, **more: Any) -> dict[str, Any]:
    at = "0000:17:00.0" if kind == "gpu" else "0000:18:00.0"
    whole = {"width": 16, "max_width": 16, "speed": "32.0 GT/s", "max_speed": "32.0 GT/s"}
    return {"device": at, "kind": kind, **whole, **more}


FULL = "x16 of x16, 32.0 GT/s of 32.0 GT/s"
HOST = {**machine.host(), "governor": "performance", "kernel": "6.8.0-45-generic"}
HOST |= {"links": [link("gpu"), link("nic")], "nvlinks": ["GPU 0: 18 at 26.562 GB/s"]}


@pytest.mark.parametrize(
    ("changed", "said", "matters"),
    [
        ({"governor": "powersave"}, "governor: performance then, powersave now", True),
        ({"governor": None}, "governor: performance then, unknown now", False),
        ({"kernel": "6.8.0-47-generic"}, "kernel: 6.8.0-45-generic then, 6.8.0-47-generic now", False),
        ({"kernel": "6.11.0"}, "kernel: 6.8.0-45-generic then, 6.11.0 now", True),
        (
            {"links": [link("gpu", width=8), link("nic")]},
            f"PCIe link of the gpu 0000:17:00.0: {FULL} then, x8 of x16, 32.0 GT/s of 32.0 GT/s now",
            True,
        ),
        (
            {"links": [link("gpu", speed="2.5 GT/s"), link("nic")]},  # idle
            f"PCIe link of the gpu 0000:17:00.0: {FULL} then, x16 of x16, 2.5 GT/s of 32.0 GT/s now",
            False,
        ),
        (
            {"links": [link("gpu"), link("nic", speed="16.0 GT/s")]},
            f"PCIe link of the nic 0000:18:00.0: {FULL} then, x16 of x16, 16.0 GT/s of 32.0 GT/s now",
            True,
        ),
        (
            {"links": [link("gpu")]},
            f"PCIe link of the nic 0000:18:00.0: {FULL} then, not there now",
            True,
        ),
        (
            {"nvlinks": ["GPU 0: 17 at 26.562 GB/s, 1 inactive"]},
            "NVLink: GPU 0: 18 at 26.562 GB/s then, GPU 0: 17 at",
            True,
        ),
        ({"nvlinks": None}, "NVLink: GPU 0: 18 at 26.562 GB/s then, unknown now", False),
    ],
)
def test_differences_are_named(changed: dict[str, Any], said: str, matters: bool) -> None:
    (found,) = machine.differences(HOST, {**HOST, **changed})
    assert str(found).startswith(said) and found.matters is matters
    assert not list(machine.differences(HOST, HOST))


def test_another_machine_is_refused(tmp_path: Path) -> None:
    host = machine.host()
    with pytest.raises(NotComparableError) as refused:
        repeat.check({"machine": {**host, "cpus": host["cpus"] + 1, "cores": 99}})
    assert refused.value.exit_code == 4 and f"cpus: {host['cpus'] + 1} then, {host['cpus']} now; cores: 99" in str(
        refused.value
    )
    assert repeat.check({"machine": {**host, "cores": 99}}, anyway=True)[0] == [f"cores: 99 then, {host['cores']} now"]
    assert repeat.check({"machine": host}) == ([], [])
    with pytest.raises(NotComparableError, match="does not say which machine"):
        repeat.check({})
    words = {"words": ["true", "\x1b[31m"], "folder": "/nowhere"}
    for name, header in (("same", {"machine": host}), ("other", {"machine": {**host, "cores": 99}}), ("none", {})):
        with Made(tmp_path / f"{name}.gotrace", command=words, **header) as made:
            made.file(1, b"", mode=FOLDER)
            made.call("openat", 1, 3, 0)
    with Made(tmp_path / "pid.gotrace", command=None, machine=host) as made:
        made.file(1, b"", mode=FOLDER)
    for name, options, status, said in (
        ("other", ("--dry-run",), 4, f"cores: 99 then, {host['cores']} now"),
        ("other", ("--dry-run", "--anyway"), 0, "NOT COMPARABLE: cores: 99 then"),
        ("none", ("--dry-run",), 4, "does not say which machine"),
        ("same", ("--dry-run",), 0, r"command: true '\x1b[31m'"),
        ("same", ("--dry-run",), 0, "note: started in /nowhere then"),
        ("pid", ("--dry-run",), 2, "the recording is not of a command"),
        ("same", ("--replay",), 2, "--replay needs a folder"),
        ("same", ("--into", "x"), 2, "--into has no effect without --replay"),
        ("same", ("--out", "x"), 2, "--out has no effect without a report"),
    ):
        command = [sys.executable, "-m", "gotrace.cli", "reproduce", str(tmp_path / f"{name}.gotrace"), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == status and said in done.stdout + done.stderr, (name, done.stdout, done.stderr)
        assert "\x1b" not in done.stdout + done.stderr

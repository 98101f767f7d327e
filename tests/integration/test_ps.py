"""gotrace ps: every number against /proc, the program's own runtime/metrics, and what podman says."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from agents import Agent

import services
from conftest import Target, cpu_quota, until
from gotrace.find.listing import listed
from gotrace.find.processes import Scanner
from gotrace.records.all import schema_of_command
from gotrace.text import duration_text
from targets import MATRIX, NEWEST, build

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Target]


def asked(target: Target, command: str) -> dict[str, float]:
    """What it says behind a command."""
    assert target.process.stdin is not None
    target.process.stdin.write(f"{command}\n")
    target.process.stdin.flush()
    return dict(target.truth())


def records(done: subprocess.CompletedProcess[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Each process, and the last record."""
    assert done.returncode == 0, done.stderr
    *processes, last = map(json.loads, done.stdout.splitlines())
    check = jsonschema.Draft202012Validator(schema_of_command("ps"))
    for each in (*processes, last):
        check.validate(each)
    return processes, last


def status(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1])


@pytest.mark.bpf
@pytest.mark.everywhere
@pytest.mark.parametrize("version", [MATRIX[0], "1.22.10", NEWEST])
def test_numbers_of_a_process(version: str, gotrace: Run, start: Start) -> None:
    program = build("lister", version)
    with cpu_quota(150_000, 100_000) as (join, _):
        target = start(program, env={"GOMAXPROCS": "3"})
        join.write_text(str(target.pid))
        os.sched_setaffinity(target.pid, {0})
        asked(target, "keep 8")
        truth = asked(target, "gc 7")
        (process,), last = records(gotrace("ps", "--format", "ndjson", "--select", f"pid={target.pid}"))
        assert abs(process["rss_bytes"] - 1024 * status(target.pid, "VmRSS")) <= 256 << 10
        stat = Path(f"/proc/{target.pid}/stat").read_text().rpartition(")")[2].split()
        assert process["cpus_used"] * process["period_s"] == pytest.approx((int(stat[11]) + int(stat[12])) / 100, abs=0.03)
        target.finish()
    assert process["gc_cycles"] == truth["/gc/cycles/total:gc-cycles"] >= 8
    assert process["gomaxprocs"] == truth["/sched/gomaxprocs:threads"] == 3
    if version != MATRIX[0]:  # Go 1.19 has no such metric
        assert process["heap_live_bytes"] == truth["/gc/heap/live:bytes"]
    assert process["heap_live_bytes"] >= 8 << 20
    assert process["gc_per_s"] == pytest.approx(process["gc_cycles"] / process["age_s"], rel=0.05)
    assert (process["quota_cpus"], process["cpus"], process["unknown"], process["refusal"]) == (1.5, 1, {}, None)
    assert (process["name"], process["exe"], process["go_version"]) == ("lister", str(program), f"go{version}")
    assert process["stripped"] and process["path"] == "targets/lister"
    assert last["shown"] == 1 <= last["go"] < last["seen"]


def test_rates_over_a_time(gotrace: Run, start: Start) -> None:
    target = start(build("lister"))
    before = asked(target, "gc 50")
    asked(target, "beat")
    begin = time.monotonic()
    (process,), last = records(gotrace("ps", "-w", "1s", "--format", "ndjson", "--select", f"pid={target.pid}"))
    after = asked(target, "end")
    rate = (after["/gc/cycles/total:gc-cycles"] - before["/gc/cycles/total:gc-cycles"]) / (time.monotonic() - begin)
    assert last["wait_s"] == 1 and process["period_s"] == pytest.approx(1, abs=0.3)
    assert process["gc_per_s"] == pytest.approx(rate, rel=0.4) and rate > 20


@pytest.fixture
def container(tmp_path: Path) -> Iterator[str]:
    """The name of a container of podman in which the lister runs, with half a CPU."""
    with services.image_of(build("lister"), tmp_path) as (run, name):
        subprocess.run([*run, "-d", "--cpus", "0.5", f"{name}:1", "/lister"], check=True, capture_output=True)
        yield name


@pytest.mark.bpf
@pytest.mark.everywhere
def test_a_container_is_what_podman_says(container: str, gotrace: Run) -> None:
    told = json.loads(subprocess.run(["podman", "inspect", container], capture_output=True, check=True).stdout)[0]
    (process,), _ = records(gotrace("ps", "--format", "ndjson", "--select", f"container={container}"))
    assert process["pid"] == told["State"]["Pid"]
    assert (process["runtime"], process["container_id"], process["container"], process["image"]) == (
        *("podman", told["Id"], told["Name"], told["ImageName"]),
    )
    assert process["quota_cpus"] == told["HostConfig"]["NanoCpus"] / 1e9 == 0.5
    (by_id,), _ = records(gotrace("ps", "--format", "ndjson", "--select", f"container={told['Id'][:12]}"))
    assert by_id["pid"] == process["pid"]
    table = gotrace("ps").stdout
    assert re.search(rf"^ *{process['pid']} +lister .* podman {container} .* 0\.50 ", table, re.M)


@pytest.mark.bpf
def test_without_root(gotrace_as_nobody: Run, start: Start) -> None:
    """One's own process in full; others are counted."""
    start(build("lister"))
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        program = shutil.copy(build("lister"), folder)
        nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
        with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **nobody) as own:
            try:
                time.sleep(0.2)
                (process,), last = records(gotrace_as_nobody("ps", "--format", "ndjson"))
                said = gotrace_as_nobody("ps").stdout
            finally:
                own.kill()
    assert (process["pid"], process["unknown"], process["gc_cycles"]) == (own.pid, {}, 0)
    assert (last["go"], last["shown"]) == (1, 1) and last["unreadable"] >= 1
    assert "could not be inspected (run as root)." in said


def test_what_is_selected_and_what_is_not_there(gotrace: Run, start: Start, tmp_path: Path) -> None:
    named = shutil.copy(build("lister"), tmp_path / "quite-a-name")
    target = start(Path(named))
    processes, _ = records(gotrace("ps", "--format", "ndjson", "--select", "name=quite-*", "--select", "name=no"))
    assert [each["pid"] for each in processes] == [target.pid]
    done = gotrace("ps", "--select", "name=quiet-a-name")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "gotrace: no process matches name=quiet-a-name"
    assert second.startswith("  hint: closest: quite-a-name")
    done = gotrace("ps", "--select", "nmae=x")
    assert done.returncode == 2 and "expected KEY=GLOB" in done.stderr
    assert json.loads(gotrace("ps", "--json", "--select", f"pid={target.pid}").stdout)[0]["pid"] == target.pid


def test_one_that_cannot_be_traced(gotrace: Run, start: Start, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(build("lister").read_bytes().replace(f"go{NEWEST}".encode(), b"go1.18.9"))
    old.chmod(0o755)
    target = start(old)
    (process,), _ = records(gotrace("ps", "--format", "ndjson", "--select", f"pid={target.pid}"))
    assert (process["refusal"], process["go_version"]) == ("it was built with go1.18.9", "go1.18.9")
    assert process["rss_bytes"] > 0 and set(process["unknown"].values()) == {"it cannot be traced"}
    said = gotrace("ps", "--select", f"pid={target.pid}").stdout
    assert f"{target.pid} cannot be traced: it was built with go1.18.9 (gotrace supports Go 1.19 and later)." in said


def test_one_that_ends_or_executes_another_program_meanwhile(start: Start) -> None:
    """The first is left out; of the second nothing is read where another program has its books."""
    ended, other = (start(build("lister")) for _ in range(2))
    time.sleep(0.1)
    found = {each.pid: each for each in Scanner().scan().processes}
    ended.process.kill()
    ended.process.wait()
    (record,) = listed([found[ended.pid], dataclasses.replace(found[other.pid], file=(1,))])
    assert (record["pid"], record["gc_cycles"]) == (other.pid, None)
    assert record["unknown"]["gc_cycles"] == "it has executed another program since"
    assert listed([dataclasses.replace(found[other.pid], start=1)]) == []  # its pid is another one's by now


@pytest.mark.bpf
def test_the_longest_pause_is_an_agents(gotrace: Run, start: Start, tmp_path: Path) -> None:
    """What it has traced of one process, and of another that it leaves alone that this is so."""
    name = f"paused{os.getpid()}"
    program = Path(shutil.copy(build("gcload", NEWEST), tmp_path / name))
    ours, other = start(program, "-cycles", "100"), start(build("lister"))
    agent = Agent("--select", f"name={name}", "--min-age", "0s")
    try:
        until(lambda: agent.traced() == {ours.pid}, 60)
        ours.go()
        truth = ours.truth()
        time.sleep(2.5)
        url = f"http://127.0.0.1:{agent.port}"
        told = json.loads(agent.get(f"/processes?pid={ours.pid}"))
        select = ("--select", f"pid={ours.pid}", "--select", f"pid={other.pid}", "--connect", url)
        found, _ = records(gotrace("ps", "--format", "ndjson", *select))
        traced, alone = sorted(found, key=lambda each: each["pid"] != ours.pid)
        assert traced["longest_pause_ns"] == told["longest_pause_ns"] >= max(truth["PauseNs"][:100]) // 2
        assert 2 < traced["traced_s"] < traced["age_s"] and traced["unknown"] == {}
        assert alone["longest_pause_ns"] is None
        assert alone["unknown"]["longest_pause_ns"] == "not traced by the agent"
        longest = re.escape(duration_text(told["longest_pause_ns"]))
        assert re.search(rf"^ *{ours.pid} .* {longest} ", gotrace("ps", *select).stdout, re.M)
        closed = gotrace("ps", "--connect", "http://127.0.0.1:22990")
        assert closed.returncode == 1 and ": Connection refused" in closed.stderr
    finally:
        agent.process.kill()
        agent.process.communicate()

"""`gotrace reproduce` on a real service, whose speed is set by how long it sleeps: the same, and then a slower one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import targets
from gotrace.kernel import machine
from gotrace.lab import baseline, reproduce
from gotrace.lab.load import parse_load
from gotrace.lab.plan import Plan, Version
from gotrace.lab.report import read
from gotrace.lab.reproduce import NEEDED
from gotrace.lab.service import Ready
from services import free_port, names_with, needs_wrk

RUNS = 6
MARGIN = 0.5  # of which the load of other tests leaves something


def made(script: Path, program: Path, wait: str, port: int) -> None:
    """What the plan starts: the same command, whatever it comes to."""
    shutil.copy(program, script.with_name("server"))
    script.write_text(f"#!/bin/sh\nexec {script.with_name('server')} -port {port} -work 0 -allocate 1 -wait {wait}\n")
    script.chmod(0o755)


@needs_wrk
@pytest.mark.bpf
def test_the_same_and_a_slower_service(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_YARDSTICK_S", 0.01)
    monkeypatch.setattr(baseline, "MOST_STOLEN", 1.0)  # it sleeps, whoever has the CPUs
    port = free_port()
    script = tmp_path / "start"
    made(script, targets.build("shop"), "20ms", port)
    plan = Plan(
        versions=(Version("shop", (str(script),)),),
        load=parse_load(f"wrk -t1 -c12 -d1s http://127.0.0.1:{port}/ping"),
        runs=RUNS,
        warmup_ns=0,
        ready=Ready("127.0.0.1", port),
        seed=1,
        most_drift=1000.0,
    )
    baseline.run(plan, tmp_path / "then", False)
    then = read(str(tmp_path / "then"))
    throughput = [run["metrics"]["throughput"] for run in then["runs"] if run["valid"]]
    assert all(value <= 12 / 0.02 for value in throughput)  # what sleeping allows

    now, same = reproduce.repeat(then, tmp_path / "same", MARGIN)
    assert now["complete"] and same.binaries[0].same
    rows = {row.metric: row for row in same.metrics}
    # A machine that is busy with other tests may not be able to tell.
    assert rows["throughput"].runs == (RUNS, RUNS) and {rows[name].found for name in NEEDED} <= {"same", "cannot tell"}

    # Five times as slow, and built by another Go.
    made(script, targets.build("shop", targets.RELEASES[-2]), "100ms", port)
    _, slower = reproduce.repeat(then, tmp_path / "slower", MARGIN)
    rows = {row.metric: row for row in slower.metrics}
    assert (slower.answer, slower.exit_code) == ("not reproduced", 1)
    assert rows["throughput"].found == rows["latency.p50"].found == "differs", slower
    assert rows["throughput"].change is not None and rows["throughput"].change[0] < 0.5
    assert not slower.binaries[0].same and slower.binaries[0].now["go_version"].startswith("go1.26")
    assert not names_with(str(port)) & {"wrk", "server"}


@needs_wrk
@pytest.mark.bpf
def test_the_command(gotrace, tmp_path):
    """One run then and one now: nothing can be told of that, and the exit status says so."""
    port = free_port()
    script = tmp_path / "start"
    made(script, targets.build("shop"), "1ms", port)
    url = f"http://127.0.0.1:{port}/ping"
    words = ["--load", f"wrk -t1 -c4 -d1s {url}", "-n", "1", "--preload", "0", "--max-drift", "1000"]
    done = gotrace("baseline", *words, "--out", str(tmp_path / "then"), "--", str(script))
    assert done.returncode == 0, done.stderr
    made(script, targets.build("shop", targets.RELEASES[-2]), "1ms", port)
    out = str(tmp_path / "now")
    done = gotrace("reproduce", str(tmp_path / "then"), "--out", out, "-o", str(tmp_path / "x.json"))
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("CANNOT TELL within 3%\n") and "NOT THE SAME BINARY: start was go1.27" in done.stdout
    told = json.loads((tmp_path / "x.json").read_text())
    assert told["answer"] == "cannot tell" and told["binaries"][0]["same"] is False
    plans = [json.loads((tmp_path / name / "report.json").read_text())["plan"] for name in ("then", "now")]
    assert plans[0] == plans[1]
    done = gotrace("reproduce", str(tmp_path / "then"), "--out", out)
    assert done.returncode == 2 and "already has a report" in done.stderr

"""`gotrace run` on a real service: built, measured, compared, and measured again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, until
from services import free_port, names_with, needs_wrk

PIPELINE = """
schema: gotrace.pipeline/1
steps:
  - name: build
    build: {{package: ., dir: {sources}, out: shop}}
  - name: measure
    needs: [build]
    baseline:
      versions: {{old: {{command: [./shop, -port, "{port}"]}}, new: {{command: [./shop, -port, "{port}", -work, 100us]}}}}
      load: {{tool: wrk, args: [-t1, -c4, -d1s, "http://127.0.0.1:{port}/ping"]}}
      runs: {runs}
      preload: 0s
      max_drift: 1000%
  - name: compare
    needs: [measure]
    compare: {{reports: [measure]}}
  - name: tell
    needs: [compare]
    shell: cp out/compare/compare.json told
    makes: [told]
  - name: again
    needs: [tell, measure]
    reproduce: {{report: measure}}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in targets.environment(targets.NEWEST).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{targets.go(targets.NEWEST).parent}:{os.environ['PATH']}")


def written(runs):
    port = free_port()
    Path("p.yaml").write_text(PIPELINE.format(port=port, runs=runs, sources=targets.SOURCES / "shop"))
    return str(port)


@needs_wrk
@pytest.mark.bpf
def test_a_pipeline(gotrace):
    written(1)
    done = gotrace("run", "p.yaml")
    # Of one run nobody can tell whether it is reproduced.
    assert done.returncode == 3, done.stderr
    assert "again: cannot tell\n" in done.stdout and "compare: new against old:\n" in done.stdout
    state = json.loads(Path("out/pipeline.json").read_text())["steps"]
    assert {name: each["status"] for name, each in state.items()} == {
        **dict.fromkeys(("build", "measure", "compare", "tell"), "done"),
        "again": "failed",
    }
    assert state["again"]["exit_code"] == 3
    (pair,) = json.loads(Path("told").read_text())["comparisons"]
    report = json.loads(Path("out/measure/report.json").read_text())
    values = {run["version"]: run["metrics"]["throughput"] for run in report["runs"] if run["valid"]}
    (row,) = (row for row in pair["metrics"] if row["metric"] == "throughput")
    assert (row["a"], row["b"]) == (values["old"], values["new"])
    assert json.loads(Path("out/again/reproduce.json").read_text())["answer"] == "cannot tell"
    assert "run 0: old (1 of 2)" in Path("out/measure.log").read_text()
    # What was done stays done; a report that is not there any more is measured anew, and so is all that it leads to.
    done = gotrace("run", "p.yaml", "--resume", "--only", "build", "--only", "measure", "--only", "compare")
    assert done.returncode == 0 and done.stderr.count("already done") == 3 and done.stdout == ""


@needs_wrk
@pytest.mark.bpf
def test_ctrl_c_while_it_measures():
    port = written(50)
    with subprocess.Popen([*GOTRACE, "run", "p.yaml"], stderr=subprocess.PIPE, text=True) as process:
        until(lambda: Path("out/measure/report.json").exists(), PATIENCE_S)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in said, said
    until(lambda: not {"wrk", "shop"} & names_with(port))
    state = json.loads(Path("out/pipeline.json").read_text())["steps"]
    assert {name: each["status"] for name, each in state.items()} == {"build": "done", "measure": "interrupted"}
    dry = subprocess.run([*GOTRACE, "run", "p.yaml", "--resume", "--dry-run"], capture_output=True, text=True)
    assert dry.returncode == 0 and "1. build: build (done before; " in dry.stdout, dry.stderr

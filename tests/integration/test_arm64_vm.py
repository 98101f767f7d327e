"""scripts/arm64-vm: commands in the emulated machine, and what is left behind when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

import targets
from conftest import until

pytestmark = pytest.mark.arm64_vm
VM = str(targets.ROOT / "scripts" / "arm64-vm")
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT], ids=["TERM", "KILL", "INT"])


@pytest.fixture
def launch(tmp_path):
    """launch(*arguments, **environment) -> the process; and processes() -> the command lines of all it has started."""
    mark = uuid.uuid4().hex
    started = []

    def run(*arguments, **environment):
        env = {**os.environ, "TMPDIR": str(tmp_path), "MARK": mark, **environment}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([VM, *arguments], cwd=tmp_path, env=env, text=True, **options)
        started.append(process)
        return process

    def processes():
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_bytes())
            except OSError:
                continue  # it has ended
        return found

    yield run, processes
    for process in started:
        process.kill()
        process.communicate()


def test_a_command(launch, tmp_path):
    """Its status, both its outputs, and the files it leaves."""
    run, processes = launch
    script = "uname -m; echo aside >&2; gotrace doctor --format json >doctor.json; nproc; numactl -H | head -n 1; exit 7"
    process = run("--cpus", "1", "--nodes", "1", "--memory", "1024", "run", "--", "sh", "-c", script)
    out, aside = process.communicate(timeout=120)
    assert (process.returncode, out, aside) == (7, "aarch64\n1\navailable: 1 nodes (0)\n", "aside\n")
    assert '"aarch64"' in (tmp_path / "doctor.json").read_text()
    assert processes() == [] and [path.name for path in tmp_path.iterdir()] == ["doctor.json"]


def test_one_that_never_ends(launch):
    run, processes = launch
    process = run("--timeout", "8", "run", "--", "sleep", "1000")
    _, aside = process.communicate(timeout=60)
    assert process.returncode == 1 and "stopped after 8 s" in aside
    assert processes() == []


PIPELINE = """
schema: gotrace.pipeline/1
steps:
  - name: build
    build:
      package: .
      dir: {sources}
      out: bin/shop-{{arch}}
      arch: [amd64, arm64]
      smoke: {{amd64: [sh, -c, "uname -m && {{out}} -h"], arm64: [{vm}, run, --, sh, -c, "uname -m && {{out}} -h"]}}
"""


def test_the_smoke_step_of_a_pipeline(gotrace, tmp_path, monkeypatch):
    """What was built for the other architecture runs in the machine, and is marked."""
    monkeypatch.chdir(tmp_path)
    for name, value in targets.environment(targets.NEWEST).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{targets.go(targets.NEWEST).parent}:{os.environ['PATH']}")
    Path("p.yaml").write_text(PIPELINE.format(sources=targets.SOURCES / "shop", vm=VM))
    done = gotrace("run", "p.yaml")
    assert done.returncode == 0 and "smoke test of arm64: ok (emulated)\n" in done.stdout, done.stderr
    log = Path("out/build.log").read_text()
    assert "\nx86_64\n" in log and "\naarch64\n" in log and log.count("Usage of ./bin/shop-") == 2, log
    (step,) = json.loads(Path("out/pipeline.json").read_text())["steps"].values()
    told = [{"arch": arch, "emulated": arch == "arm64", "ended": 0} for arch in ("amd64", "arm64")]
    assert step["data"] == {"smoke": told}
    Path("bin/shop-arm64").write_bytes(Path("bin/shop-amd64").read_bytes())  # another's does not run there
    shown = subprocess.run([VM, "run", "--", "./bin/shop-arm64", "-h"], capture_output=True, timeout=120)
    assert shown.returncode != 0


@SIGNALS
def test_killed_while_it_runs(number, launch):
    run, processes = launch
    process = run("run", "--", "sh", "-c", "echo up; sleep 1000")
    assert process.stdout.readline() == "up\n"
    assert any(b"qemu" in line for line in processes())
    process.send_signal(number)
    assert process.wait(30) != 0
    until(lambda: processes() == [], 10)


@SIGNALS
def test_killed_while_it_builds(number, launch, tmp_path):
    """Nothing of what it had begun passes for whole; the next one begins anew."""
    run, processes = launch
    cache = tmp_path / "cache"
    process = run("build", GOTRACE_CACHE=str(cache))
    until(lambda: list(cache.glob("arm64/building-kernel-*/apt/lists/*")), 60)
    time.sleep(1)
    process.send_signal(number)
    assert process.wait(30) != 0
    until(lambda: processes() == [], 10)
    left = {path.name for path in (cache / "arm64").iterdir()}
    assert left - {".lock", "archives"} <= {name for name in left if name.startswith("building-")}

"""A process by its name, container or unit instead of its pid: one, several, none."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import GOTRACE, PATIENCE_S, Target, Tracer, cpu_quota, until
from services import image_of
from targets import build

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Target]


def named(folder: Path, name: str) -> Path:
    """The same program under a name that no other process has."""
    return Path(shutil.copy(build("gcload"), folder / f"{name}-{os.getpid()}"))


def on_its_own(terminal: int) -> Callable[[], None]:
    """What makes a terminal the controlling one of a new session, so that it sends what keys mean."""

    def become() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    return become


def test_one_that_fits(gotrace: Run, start: Start, tmp_path: Path) -> None:
    target = start(named(tmp_path, "lone"))
    done = gotrace("mem", "--name", f"lone-{os.getpid()}")
    assert done.returncode == 0 and f"pid {target.pid} (" in done.stdout, done.stdout
    assert gotrace("mem", "--name", f"lo?e-{os.getpid()}").returncode == 0


@pytest.mark.bpf
@pytest.mark.everywhere
def test_a_container(gotrace: Run, start: Start, trace: Callable[..., Tracer], tmp_path: Path) -> None:
    """Its program counts as many collections as are seen of it from outside."""
    with image_of(build("gcload"), tmp_path) as (run, name):
        target = start(Path(run[0]), *run[1:], f"{name}:1", "/gcload", "-cycles", "60")
        inspect = ["podman", "inspect", "-f", "{{.State.Running}} {{.State.Pid}}", name]
        until(lambda: subprocess.run(inspect, capture_output=True, text=True).stdout.startswith("true "))
        _, pid = subprocess.run(inspect, capture_output=True, text=True).stdout.split()
        (process,) = json.loads(gotrace("ps", "--json", "--select", f"container={name}").stdout)[:1]
        assert (process["pid"], process["container"], process["runtime"]) == (int(pid), name, "podman")
        tracer = trace("--container", name)
        target.go()
        truth = target.truth()
        assert target.finish() == 0 and tracer.finish(PATIENCE_S) == 0
    seen = [cycle["cycle"] for cycle in tracer.of("cycle")]
    assert seen == list(range(process["gc_cycles"] + 1, truth["NumGC"] + 1)) and len(seen) >= 60


def test_several_are_listed(gotrace: Run, start: Start, tmp_path: Path) -> None:
    pids = [start(named(tmp_path, name)).pid for name in ("twin-a", "twin-b")]
    done = gotrace("sched", "--name", f"twin-?-{os.getpid()}", "-d", "1s")
    assert done.returncode == 2 and f"2 processes match name=twin-?-{os.getpid()}: " in done.stderr
    assert [f"{pid} (twin-{letter}-{os.getpid()}" in done.stderr for pid, letter in zip(pids, "ab", strict=True)] == [
        True
    ] * 2
    assert "give --pid PID" in done.stderr


@pytest.mark.parametrize("answer", ["2\n", "\x03", "\x04"])
def test_on_a_terminal_it_asks(answer: str, start: Start, tmp_path: Path) -> None:
    """Ctrl-C and the end of input are answers, too."""
    pids = sorted(start(named(tmp_path, name)).pid for name in ("twin-a", "twin-b"))
    ours, theirs = pty.openpty()
    command = [*GOTRACE, "mem", "--name", f"twin-?-{os.getpid()}"]
    child = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True, preexec_fn=on_its_own(theirs)
    )
    os.close(theirs)
    shown = b""

    def read(wanted: bytes) -> None:
        """Until that is shown, or nothing more will be."""
        nonlocal shown
        end = time.monotonic() + 60
        with contextlib.suppress(OSError):
            while not (wanted and wanted in shown) and time.monotonic() < end:
                if select.select([ours], [], [], 1)[0]:
                    shown += os.read(ours, 4096)

    try:
        read(b"Which one")
        assert re.search(rb"1  %d \(twin.*\n.*2  %d \(twin" % tuple(pids), shown), shown
        time.sleep(0.3)  # Python is deaf to a signal between its last look and the read: a person is never that quick
        os.write(ours, answer.encode())
        found, _ = child.communicate(timeout=60)
        read(b"")
    finally:
        child.kill()
        os.close(ours)
    assert (f"pid {pids[1]} (" in found) == (child.returncode == 0) == (answer == "2\n"), shown
    assert b"Traceback" not in shown


def test_none_that_fits(gotrace: Run, start: Start, tmp_path: Path) -> None:
    start(named(tmp_path, "lone"))
    done = gotrace("gc", "--name", f"loan-{os.getpid()}", "-d", "1s")
    assert done.returncode == 1 and done.stderr.startswith(f"gotrace: no process matches name=loan-{os.getpid()}\n")
    assert f"  hint: closest: lone-{os.getpid()}" in done.stderr
    done = gotrace("gc", "--name", "x\x1b[31m", "--container", "y", "-d", "1s")
    assert done.returncode == 1 and "no process matches name=x\\x1b[31m,container=y" in done.stderr


@pytest.mark.bpf
def test_who_sees_less_is_told(gotrace_as_nobody: Run) -> None:
    done = gotrace_as_nobody("mem", "--name", "nothing-is-called-so")
    assert done.returncode == 1 and re.search(r"; \d+ processes could not be inspected: run as root", done.stderr), (
        done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mem"], "no process given"),
        (["mem", "--pid", "1", "--unit", "x"], "--pid and --unit are mutually exclusive"),
        (["datapath", "--cgroup", "/", "--container", "x"], "--container and --cgroup are mutually exclusive"),
        (["faults", "--name", "a", "--name", "b"], "--name was given twice"),
    ],
)
def test_what_cannot_be_meant(arguments: list[str], message: str, gotrace: Run) -> None:
    done = gotrace(*arguments)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.bpf
def test_a_unit(gotrace: Run, start: Start) -> None:
    """Whatever made the control group: its name is what systemd calls it."""
    with cpu_quota(100_000, 100_000) as (join, _):
        unit = join.parent / "lone-test.service"
        unit.mkdir()
        target = start(build("lister"))
        (unit / "cgroup.procs").write_text(str(target.pid))
        for name in ("lone-test", "lone-test.service", "lone-*"):
            assert f"pid {target.pid} (" in gotrace("mem", "--unit", name).stdout
        told: dict[str, Any] = json.loads(gotrace("ps", "--json", "--select", "unit=lone-test").stdout)[0]
        assert (told["pid"], told["unit"]) == (target.pid, "lone-test.service")
        target.finish()
        unit.rmdir()


@pytest.mark.bpf
def test_gc_takes_all_that_fit(gotrace: Run, start: Start, tmp_path: Path) -> None:
    pids = {start(named(tmp_path, name)).pid for name in ("twin-a", "twin-b")}
    done = gotrace("gc", "--name", f"twin-?-{os.getpid()}", "-d", "500ms", "--format", "ndjson")
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["pid"] for line in done.stdout.splitlines() if '"pid"' in line} == pids
    done = gotrace("gc", "--name", f"twin-a-{os.getpid()}", "-d", "500ms", "--format", "ndjson")
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[0])["type"] == "start", done.stderr

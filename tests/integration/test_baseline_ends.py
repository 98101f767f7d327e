"""What `gotrace baseline` has started ends with it, however it was started and however gotrace ends."""

from __future__ import annotations

import shutil
import signal
import subprocess

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, until
from gotrace.lab.service import Ready
from services import free_port, needs_wrk


def command(folder, load, service, *options):
    """One run, of a service that is started by these words."""
    words = ["--load", load, "-n", "1", "--max-drift", "1000", "--out", str(folder / "out"), *options]
    return [*GOTRACE, "baseline", *words, "--", *map(str, service)]


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_wrk
@pytest.mark.bpf
def test_a_load_in_a_script(tmp_path):
    """What it has started does not go on beside the measured one."""
    port, log = free_port(), tmp_path / "log"
    load = script(
        tmp_path / "load",
        f"echo begin >> {log}\nwrk -t1 -c2 -d2s http://127.0.0.1:{port}/ping\necho end >> {log}",
    )
    options = ("--load-format", "wrk", "--ready", f"tcp:{port}", "--preload", "1s")
    words = command(tmp_path, load, [targets.build("shop"), "-port", port], *options)
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    told = log.read_text().split()
    assert done.returncode == 0, done.stderr
    assert told[:2] == ["begin", "begin"] and told.count("end") == told.count("begin") / 2, told


@needs_wrk
@pytest.mark.bpf
@pytest.mark.parametrize(("setsid", "number"), [(False, None), (True, None), (False, signal.SIGKILL)])
def test_a_service_in_a_script(setsid, number, tmp_path):
    """One that has made itself a session ends, too, but not by the death of gotrace: nobody is left who knows of it."""
    port = free_port()
    prefix = f"{shutil.which('setsid')} " if setsid else ""
    service = script(tmp_path / "service", f"{prefix}{targets.build('shop')} -port {port} &\nsleep 600")
    load = f"wrk -t1 -c2 -d{1 if number is None else 60}s http://127.0.0.1:{port}/ping"
    process = subprocess.Popen(command(tmp_path, load, [service], "--preload", "0"), stderr=subprocess.PIPE)
    ready = Ready("127.0.0.1", port)
    if number is not None:
        until(ready.met)
        process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert number is not None or process.returncode == 0, err
    until(lambda: not ready.met())


@needs_wrk
@pytest.mark.bpf
def test_no_run_counts(tmp_path):
    port = free_port()
    load = f"wrk -t1 -c2 -d1s http://127.0.0.1:{port}/nothing"
    words = command(tmp_path, load, [targets.build("shop"), "-port", port], "--preload", "0")
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1 and "100% of the requests failed" in done.stderr
    # A repeated run has a number of its own, which is that of its files and in the tables.
    assert "run 1: shop (1 of 1, again)\n" in done.stderr and "run 1 does not count: " in done.stdout
    assert (tmp_path / "out" / "runs" / "0001.gotrace").exists()

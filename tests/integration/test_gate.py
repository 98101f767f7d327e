"""`gotrace gate` on what `gotrace baseline` has measured of a real service."""

from __future__ import annotations

import json

import numpy as np
import pytest

import targets
from gotrace.lab.gate import report_of
from services import free_port, needs_wrk


def load(port):
    """Short, and on a machine that may be busy with other tests."""
    words = ["--load", f"wrk -t1 -c2 -d1s http://127.0.0.1:{port}/ping", "--preload", "0"]
    return [*words, "--max-drift", "1000"]


@needs_wrk
@pytest.mark.bpf
def test_a_service_and_what_is_required_of_it(tmp_path, gotrace):
    out, port = str(tmp_path / "out"), free_port()
    done = gotrace("baseline", *load(port), "-n", "5", "--out", out, "--", str(targets.build("shop")), "-port", str(port))
    assert done.returncode == 0, done.stderr
    _, report = report_of(out)  # which checks that it is whole
    counted = [run["metrics"] for run in report["runs"] if run["valid"]]
    assert len(counted) == 5, report["runs"]
    met = ["--require", "rss.peak <= 1GiB and errors.share <= 1%", "--require", "throughput > 1/s"]
    done = gotrace("gate", out, *met, "--format", "json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["verdict"] == "pass", done.stdout + done.stderr
    for row in found["metrics"]:
        values = [each[row["metric"]] for each in counted]
        assert (row["measured"], row["low"], row["high"]) == (np.median(values), min(values), max(values))
    done = gotrace("gate", out, *met, "--require", "rss.peak <= 1MiB")
    assert done.returncode == 1 and "fail (kept by 0 of 5 runs)" in done.stdout and "FAIL: rss.peak" in done.stdout


@needs_wrk
@pytest.mark.bpf
def test_a_service_that_dies_is_not_judged(tmp_path, gotrace):
    """In its second run, so that there is a report."""
    out, port, script = tmp_path / "out", free_port(), tmp_path / "serve"
    shop = f"exec {targets.build('shop')} -port {port}"
    script.write_text(f"#!/bin/sh\n[ -e {tmp_path}/ran ] && {shop} -dies 50\ntouch {tmp_path}/ran\n{shop}\n")
    script.chmod(0o755)
    done = gotrace("baseline", *load(port), "-n", "2", "--out", str(out), "--", str(script))
    assert done.returncode != 0 and (out / "report.json").exists(), done.stderr
    done = gotrace("gate", str(out), "--require", "throughput > 1/s", "--inconclusive", "pass")
    assert done.returncode == 5 and "the service exited under load" in done.stderr, done.stderr

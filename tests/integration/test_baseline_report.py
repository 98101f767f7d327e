"""`make baseline-report`, with fewer and shorter runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import jsonschema
import pytest

from conftest import PATIENCE_S
from gotrace.lab.report import schema
from services import free_port, needs_wrk

ROOT = Path(__file__).parents[2]


@needs_wrk
@pytest.mark.bpf
def test_the_demos_service_under_load(tmp_path):
    port = free_port()
    settings = {"RUNS": "1", "LOAD_S": "1", "PRELOAD": "0", "PORT": str(port), "OUT": str(tmp_path / "out")}
    command = ["make", "-C", str(ROOT), "--no-print-directory", "baseline-report"]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "baseline" / "report.json").read_text())
    jsonschema.validate(report, schema())
    values = report["runs"][-1]["metrics"]
    assert report["complete"] and values["throughput"] > 100 and values["errors.share"] == 0
    assert "throughput" in done.stdout and str(tmp_path / "out" / "baseline" / "report.json") in done.stdout
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", port)) != 0

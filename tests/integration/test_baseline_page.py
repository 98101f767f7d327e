"""The page that `gotrace baseline` writes beside its report, of a real service under a real load."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

import targets
from gotrace.lab.metrics import METRICS
from pages import Parsed
from services import free_port, needs_wrk


@needs_wrk
@pytest.mark.bpf
def test_the_page_beside_the_report(tmp_path: Any, gotrace: Any) -> None:
    port = free_port()
    folder = tmp_path / "out"
    words = ["--load", f"wrk -t1 -c4 -d1s http://127.0.0.1:{port}/ping", "--out", str(folder), "-n", "2", "--preload", "0"]
    command = [str(targets.build("shop")), "-port", str(port)]
    done = gotrace("baseline", *words, "--max-drift", "1000", "--explain", "--", *command)
    assert done.returncode == 0 and f"Wrote {folder}/report.html." in done.stderr, done.stderr
    report = json.loads((folder / "report.json").read_text())
    text = (folder / "report.html").read_text()
    page = Parsed(text)
    rows = {row[0]: row for row in [*page.tables["Summary of the runs"][1:], *page.tables["All other metrics"][1:]]}
    counted = [run for run in report["runs"] if run["valid"]]
    for name, row in rows.items():
        values = [run["metrics"][name] for run in counted if run["metrics"][name] is not None]
        assert row[1:4] == [METRICS[name].text(each) for each in (float(np.median(values)), min(values), max(values))]
        assert row[5] == str(len(values))
    assert {"throughput", "stw.total.max", "rss.peak", "start.ready"} <= rows.keys()
    assert len(page.tables["In the order in which they were measured"]) == 1 + len(report["runs"])
    assert "Latency: percentiles" in page.heads and "The longest pauses" in page.heads
    # Its own longest pause, and the program's name, stand there.
    longest = max(pause["total_ns"] for run in counted for pause in run["longest"])
    assert page.tables["All that were explained"][1][0] == f"1. {METRICS['stw.total.max'].text(longest)}"
    assert str(targets.build("shop")) in text and not re.search(r"https?://(?!127)", text.partition("<body>")[2])

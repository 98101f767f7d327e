"""Regressions planted in a service: each is named where it is, and nowhere else."""

from __future__ import annotations

import pytest

import targets
from gotrace.kernel import machine
from gotrace.lab import baseline
from gotrace.lab.compare import compare, sides_of
from gotrace.lab.load import parse_load
from gotrace.lab.metrics import PRIMARY
from gotrace.lab.plan import Plan, Version
from gotrace.lab.service import Ready
from services import free_port, needs_wrk


@needs_wrk
@pytest.mark.bpf
@pytest.mark.alone
def test_a_straggler_and_a_slow_start(tmp_path, monkeypatch):
    """Ten pairs, as eight metrics need nine; effects that are larger than what a busy machine does by itself."""
    monkeypatch.setattr(machine, "yardstick", lambda: 1.0)  # takes a second, twice a run
    port = free_port()
    same = (str(targets.build("shop")), "-port", str(port))
    plan = Plan(
        versions=(Version("old", same), Version("new", (*same, "-straggle", "40ms", "-every", "400ms", "-init", "300ms"))),
        load=parse_load(f"wrk -t1 -c4 -d1s http://127.0.0.1:{port}/ping"),
        runs=10,
        warmup_ns=200_000_000,
        ready=Ready("127.0.0.1", port),
        seed=1,
        most_drift=10,
    )
    report = baseline.run(plan, tmp_path / "out", False)
    assert report["complete"]
    for run in report["runs"]:  # as planned: where wrk gets no CPU it lasts some 2 % longer, too much for longest pauses
        run["load"]["duration_ns"] = 10**9
    told = {row.metric: row for row in compare(*sides_of([("out", report)]), 0.05, everything=True)}
    worst, start = told["stw.total.max"], told["start.ready"]
    assert start.verdict == "worse" and start.b - start.a > 250e6, start
    assert worst.b >= 40e6 and worst.b > 2 * worst.a, worst
    assert worst.verdict == "worse", worst
    # What follows from it: a world that stands still for a tenth of the time serves less, and Ps that wait for a straggler
    # are the collector's time, by the runtime's own rule.
    follows = {"stw.total.max", "stw.total.p99", "gc.cpu_share", "throughput"}
    wrong = {name for name in PRIMARY if told[name].verdict == "worse"} - follows
    assert len(wrong) <= 1, {name: told[name] for name in wrong}  # Holm allows one in a twentieth of comparisons

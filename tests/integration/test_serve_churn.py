"""The agent among processes that come and go at random: it knows what there is, and nothing stays of what was."""

from __future__ import annotations

import json
import os
import time

import pytest
from agents import changed
from churn import Churn, calm, named_copies

import targets
from conftest import until

pytestmark = pytest.mark.bpf

SECONDS = float(os.environ.get("GOTRACE_CHURN_S", "12"))
SEED = int(os.environ.get("GOTRACE_CHURN_SEED", "1"))


def test_at_random(agent, matrix, tmp_path):
    """Programs of every release: started, stopped, killed, replaced; with scrapes all the time.

    Longer with GOTRACE_CHURN_S, otherwise with GOTRACE_CHURN_SEED. What happens is drawn by the seed, when it does is not.
    """
    prefix = f"crio-churn{os.getpid()}"
    churn = Churn(
        named_copies(tmp_path / "loads", prefix, matrix, "gcload"),
        named_copies(tmp_path / "execers", f"{prefix}-x", (matrix[0], targets.NEWEST), "execer"),
        SEED,
    )
    # Series go after two seconds instead of two minutes, and all processes are looked through each second.
    settings = changed("agent._GONE_S = 2; agent._SCAN_S = 1")
    serving = agent("--select", f"name={prefix}-*", "--min-age", "0s", command=settings)
    until(serving.is_ready)
    try:

        def run(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                churn.step()
                time.sleep(0.02)
                if sum(churn.done.values()) % 20 == 0:
                    serving.samples()

        def as_it_is() -> bool:
            rows = [each for each in json.loads(serving.get("/processes")) if each["state"] != "not selected"]
            told = [(each["pid"], each["exe"], each["go_version"]) for each in rows if each["state"] == "traced"]
            there = [(pid, exe, f"go{exe.rpartition('-')[2]}") for pid, exe in churn.there().items()]
            return len(told) == len(rows) and sorted(told) == sorted(there)

        run(SECONDS / 3)
        churn.end()
        until(lambda: not serving.traced())
        before = calm(serving.process.pid)
        for _ in range(2):
            run(SECONDS / 3)
            until(as_it_is, 20)
        churn.end()
        until(lambda: not serving.traced())
        until(lambda: {dict(labels).get("service_name") for _, labels in serving.samples()} == {"gotrace"}, 20)
        descriptors, resident = calm(serving.process.pid)
        # A connection may still be there; of a program whose probes stayed there would be eight.
        assert descriptors <= before[0] + 2 and resident < before[1] + (2 << 20), (before, descriptors, resident)
        failures = serving.values("gotrace_agent_attach_failures_total")
        assert not serving.values("gotrace_target_info")
        attached = serving.one("gotrace_agent_attaches_total")
        assert sum(serving.values("gotrace_agent_detaches_total")) == attached > SECONDS / 2
        assert serving.finish() == serving.head and not failures  # it said nothing else
        print(dict(churn.done), attached, before, (descriptors, resident))
    finally:
        churn.end()

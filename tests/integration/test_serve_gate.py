"""`/gate` of the agent: processes that are alike do not fail, those that are planted to be worse do, by name."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from agents import Agent, changed

import targets
from conftest import Target, until

pytestmark = pytest.mark.bpf

# Windows of two seconds, so that the test need not wait a minute, in each of which all are observed.
COMMAND = changed("from gotrace.agent import windows; windows.WINDOW_S, agent._OBSERVED_A_SECOND = 2, 100")
GROUPS = {"a": (), "same": (), "more": ("-every", "25ms"), "longer": ("-goroutines", "3000", "-every", "200ms")}
CANARY = json.dumps({"name": "shop", "namespace": "shop", "phase": "Progressing", "metadata": {}}).encode()


def asked(agent: Agent, body: bytes | None = None, **query: object) -> tuple[int, str]:
    """Status and body."""
    url = f"http://127.0.0.1:{agent.port}/gate?{urlencode(query, doseq=True)}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.alone  # what other tests take from one of two processes is a difference, too
def test_what_is_planted_fails(start: Callable[..., Target], tmp_path) -> None:
    prefix = f"gate{os.getpid()}"
    shutil.copy(targets.build("stopper"), tmp_path / "stopper")
    for name in GROUPS:
        os.link(tmp_path / "stopper", tmp_path / f"{prefix}-{name}")
    worst = start(tmp_path / f"{prefix}-longer", "-goroutines", "10000")  # by more than a busy machine does
    ours = {name: [start(tmp_path / f"{prefix}-{name}", *options) for _ in range(5)] for name, options in GROUPS.items()}
    agent = Agent("--select", f"name={prefix}-*", "--min-age", "0s", command=COMMAND)

    def verdict(baseline: str, candidate: str, **query: object) -> tuple[dict[str, Any], dict[str, str]]:
        """The answer, and the verdict of each metric."""
        status, text = asked(agent, baseline=baseline, candidate=candidate, **query)
        answer = json.loads(text)
        assert status == 200 and answer["verdict"] == answer["result"]["verdict"]
        return answer["result"], {each["metric"]: each["verdict"] for each in answer["result"]["metrics"]}

    def of(name: str) -> str:
        return f"name={prefix}-{name}"

    try:
        until(agent.is_ready)
        found, rows = verdict(of("a"), of("same"))
        assert (found["verdict"], rows, found["status"]) == ("inconclusive", {}, 3)
        assert found["sentence"].startswith("inconclusive: no process of the baseline")
        until(lambda: len(agent.traced()) == 21, 60)
        time.sleep(22)

        found, rows = verdict(of("a"), of("same"))
        assert found["verdict"] != "fail" and len(rows) == 3 and found["b"]["runs"] == 5, found
        found, rows = verdict(of("a"), of("same"), metric="gc.cycles_per_s", margin=100)
        assert found["verdict"] == "pass" and found["metrics"][0]["a"] == pytest.approx(10, rel=0.3)
        found, rows = verdict(of("a"), of("more"))
        assert (
            found["verdict"] == "fail" and rows["gc.cycles_per_s"] == "fail" and "gc.cycles_per_s" in found["sentence"]
        ), found
        found, rows = verdict(of("a"), of("longer"), metric=["stw.total.p95", "stw.share"])
        assert rows == {"stw.total.p95": "fail", "stw.share": "fail"}, found
        assert found["metrics"][0]["p"] <= 0.05 and found["metrics"][0]["b"] > 2 * found["metrics"][0]["a"]

        one, same, longer = (f"pid={each.pid}" for each in (ours["a"][0], ours["same"][0], worst))
        until(lambda: verdict(one, same)[1] and verdict(one, longer)[1], 40)
        found, rows = verdict(one, same)
        assert found["verdict"] == "inconclusive", found  # one of each never passes
        found, rows = verdict(one, longer)
        assert (found["verdict"], rows["stw.share"]) == ("fail", "fail"), json.dumps(found)
        found, rows = verdict(one, same, metric="gc.cycles_per_s", margin=100)
        assert found["verdict"] == "inconclusive" and "to pass" in found["metrics"][0]["reason"]

        found, rows = verdict(of("a"), of("nobody"))
        assert (found["verdict"], found["problem"]) == ("inconclusive", "no process of the candidate is traced")
        assert "is in both the baseline and the candidate" in verdict(of("*"), of("a"))[0]["sentence"]

        status, said = asked(agent, CANARY, baseline=of("a"), candidate=of("longer"), metric="stw.share")
        assert (status, said) == (409, "fail: stw.share\n")
        query = {"baseline": of("a"), "candidate": of("same"), "metric": "gc.cycles_per_s", "margin": 100}
        assert asked(agent, CANARY, **query) == (200, "pass: 1 condition met\n")
        assert asked(agent, b"[]", **query)[0] == 400
    finally:
        agent.process.kill()
        agent.process.communicate()

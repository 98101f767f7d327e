"""`gotrace.lab.reproduce` and the plan that it repeats, on reports whose truth is known."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import gotrace
from gotrace.errors import UsageError
from gotrace.kernel import machine
from gotrace.lab.build import Build
from gotrace.lab.compare import NotComparableError
from gotrace.lab.container import Container
from gotrace.lab.load import parse_load
from gotrace.lab.metrics import PRIMARY
from gotrace.lab.plan import Plan, Version
from gotrace.lab.report import SCHEMA
from gotrace.lab.reproduce import Reproduction, check, expected, judge
from gotrace.lab.service import Ready
from services import needs_wrk

VALUES = {"throughput": 12_000, "latency.p50": 400_000, "latency.p99": 5e6, "stw.total.p99": 3e5, "stw.total.max": 2e6}
VALUES |= {"gc.cpu_share": 0.08, "rss.peak": 5e7, "rss.mean": 4e7, "rss.growth": 1e5}
LOAD = ["wrk", "-t1", "-c4", "-d2s", "http://127.0.0.1:21300/ping"]


def plan(*names: str, **more: Any) -> Plan:
    versions = tuple(Version(name, ("true", name)) for name in names)
    told = {"runs": 10, "warmup_ns": 200_000_000, "ready": Ready("127.0.0.1", 21300), "seed": 3, **more}
    return Plan(versions=versions, load=parse_load(LOAD), **told)


def report(
    seed: int, spread: float, noisy: tuple[str, ...] = (), runs: int = 10, names: tuple[str, ...] = ("s",), **factors: float
) -> Any:
    """Runs whose metrics are those of `VALUES`, times a factor, and vary by ``spread``; the ``noisy`` ones by 40 %."""
    random = np.random.default_rng(seed)
    found = []
    for round_ in range(runs):
        for name in names:
            metrics = {
                metric: value
                * factors.get(metric.replace(".", "_"), 1)
                * np.exp(random.normal(0, 0.4 if metric in noisy else spread))
                for metric, value in VALUES.items()
            } | {"alloc.per_request": 6e4}
            of_run = {
                "version": name,
                "round": round_,
                "order": len(found),
                "valid": True,
                "reasons": [],
                "lost": 0,
                "metrics": metrics,
                "length_ns": 10**10,
            }
            found.append({**of_run, "yardstick": [1e5, 1e5], "load": {"tool": "wrk", "version": "4.1.0"}})
    about = {"go_version": "go1.27.3", "build_id": "a/b/c/d", "exe": "/s", "exe_bytes": 7, "command": ["true"]}
    return {
        "schema": SCHEMA,
        "tool": gotrace.__version__,
        "complete": True,
        "cut_off": None,
        "host": {**machine.host()},
        "plan": {**plan(*names).to_json(), "runs": runs},
        "versions": [{"name": name, **about} for name in names],
        "runs": found,
    }


TRACED = ("events", "wakeups", "coldstart")
NOISY = ("stw.total.max", "rss.growth", "stw.total.p99", "gc.cpu_share")


def answers(found: Reproduction) -> dict[str, str]:
    return {row.metric: row.found for row in found.metrics}


# --- The plan


def test_a_plan_is_what_its_report_says() -> None:
    plans = [
        plan("a"),
        plan("a", "b", cpus=(0, 2), load_cpus=(1,), most_drift=0.5, explained=5, seed=-1),
        plan("a", ready=Ready("::1", 80, "/healthz")),
        plan("a", ready=Ready("::1", 80)),
        plan("a", warmup_ns=None),
        plan("a", pid=7),
        *(plan("a", **{name: True}) for name in TRACED),
        replace(plan("a"), versions=(Version("x", ("./x", "-y"), Build("./cmd/x", ("-gcflags=-l",), "/go/bin/go")),)),
        replace(
            plan("a"), versions=(Version("x", (), container=Container("i:1", ("podman",), "1g", 1.5, ("--env=A=1",))),)
        ),
        Plan((Version("x", ("./x", "-y", "ü \x1b")),), parse_load(["./load", "8080"], "wrk"), 3, 0, Ready("h", 1), 1),
    ]
    for each in plans:
        told = json.loads(json.dumps(each.to_json()))
        assert Plan.from_json(told) == each
        assert Plan.from_json(told).to_json() == told


def test_a_plan_of_an_earlier_release() -> None:
    told: dict[str, Any] = {**plan("a").to_json()}
    for key in ("load_format", "emulated", "pid", "flame", "pprof", *TRACED):
        del told[key]
    told["versions"] = [{"name": "a", "command": ["true", "a"]}]
    assert Plan.from_json(told) == plan("a")


def test_what_is_not_there_is_no_part_of_a_plan() -> None:
    told: dict[str, Any] = {**plan("a").to_json(), "place": None}
    told["versions"] = [{**told["versions"][0], "place": None}]
    assert Plan.from_json(told) == plan("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"place": {}}, "the plan has an unknown key: 'place'"),
        ({"versions": [{"name": "a", "command": ["x"], "pid": 7}]}, "version 0 of the plan has an unknown key: 'pid'"),
        (
            {"versions": [{"name": "a", "command": ["x"], "build": {"pkg": "."}}]},
            "version 0 of the plan, build, has an unknown key",
        ),
        ({"versions": [{"name": "a", "command": ["x"], "build": {}}]}, "version 0 of the plan, build, cannot be read"),
        ({"versions": [{"name": 7, "command": ["x"]}]}, "version 0 of the plan cannot be read"),
        ({"versions": []}, "the plan has no versions"),
        ({"versions": [{"name": "a", "command": []}]}, "a version without a command"),
        ({"versions": [{"name": "a", "command": ["x"]}] * 2}, "two with the same name"),
        ({"versions": ["a"]}, "version 0 of the plan is not an object"),
        ({"runs": "ten"}, "the plan cannot be read: Expected int, got str - at \\$.runs"),
        ({"runs": 0}, "out of range"),
        ({"runs": 10**9}, "out of range"),
        ({"most_drift": float("nan")}, "out of range"),
        ({"load": ["wrkk"]}, "'wrkk' is not a supported load tool"),
        ({"ready": "\x1b[31m"}, "cannot read --ready"),
        ({"cpus": [1.5]}, "the plan cannot be read"),
        ({"\x1b": 1}, "x1b"),
    ],
)
def test_what_it_does_not_know_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan.from_json({**plan("a").to_json(), **change})
    for key in set(plan("a").to_json()) - {"load_format", "emulated", "pid", "flame", "pprof", "versions", *TRACED}:
        told: dict[str, Any] = {**plan("a").to_json()}
        del told[key]
        with pytest.raises(UsageError, match="missing required field"):
            Plan.from_json(told)


# --- The answer


def test_the_same_service_is_reproduced_and_a_slower_one_is_not() -> None:
    found = [judge(report(seed, 0.01, NOISY), report(1000 + seed, 0.01, NOISY), 0.03).answer for seed in range(40)]
    assert found.count("reproduced") >= 28 and found.count("not reproduced") <= 3
    slower = {"throughput": 1 / 1.05, "latency_p50": 1.05, "latency_p99": 1.05}
    found = [
        judge(report(seed, 0.01, NOISY), report(1000 + seed, 0.01, NOISY, **slower), 0.03).answer for seed in range(40)
    ]
    assert found.count("not reproduced") >= 32 and "reproduced" not in found


def test_a_faster_one_is_not_reproduced_either() -> None:
    found = judge(report(1, 0.01), report(2, 0.01, throughput=1.08), 0.03)
    assert (found.answer, found.exit_code) == ("not reproduced", 1)
    assert found.reasons == ("more than the margin away: throughput",)
    assert answers(found)["throughput"] == "differs"


def test_a_noisy_machine_reproduces_nothing() -> None:
    """Now or then: with 10 runs that vary by 6 % nobody can show anything to be within 3 %."""
    for seed in range(60):
        for then, now in ((0.005, 0.06), (0.06, 0.06), (0.06, 0.005)):
            found = judge(report(seed, then), report(1000 + seed, now), 0.03)
            assert found.answer != "reproduced" and found.reasons
    noisy = judge(report(1, 0.06), report(2, 0.06), 0.03)
    assert noisy.exit_code == 3 and "too much variation" in noisy.reasons[0] and "throughput" in noisy.reasons[0]
    noisy = judge(report(1, 0.005), report(2, 0.06), 0.03)
    assert noisy.exit_code == 3 and noisy.reasons[0].startswith("not shown to be the same: throughput")


def test_a_change_at_the_margin_is_rarely_called_the_same() -> None:
    found = [judge(report(seed, 0.01), report(1000 + seed, 0.01, throughput=1.03), 0.03).answer for seed in range(100)]
    assert found.count("reproduced") <= 10  # 5 % are allowed, if every other metric is found to be the same


def test_what_is_judged_is_settled_by_the_report_alone() -> None:
    then = report(1, 0.01, NOISY)
    judged = {each.metric: each.judged for each in expected(then, 0.03)}
    assert judged == {name: name not in NOISY for name in PRIMARY}
    needed = {each.metric: each.runs for each in expected(then, 0.03)}
    assert (needed["stw.total.max"] or 0) > 1000
    found = judge(then, report(2, 0.01, ()), 0.03)
    assert {row.metric: row.judged for row in found.metrics} == judged


def test_a_metric_that_is_not_judged_can_still_differ() -> None:
    found = judge(report(1, 0.01, NOISY), report(2, 0.01, NOISY, stw_total_max=8), 0.03)
    assert found.answer == "not reproduced" and found.reasons == ("more than the margin away: stw.total.max",)


def test_the_numbers_are_scipys() -> None:
    one, other = report(1, 0.01), report(2, 0.01, latency_p50=1.06)
    found = judge(one, other, 0.03)
    (row,) = (row for row in found.metrics if row.metric == "latency.p50")
    a, b = (np.log([run["metrics"]["latency.p50"] for run in each["runs"]]) for each in (one, other))
    margin = np.log(1.03)
    above = stats.mannwhitneyu(b - margin, a, alternative="greater", method="exact").pvalue
    assert row.differs_p == pytest.approx(min(1, 2 * above * len(PRIMARY)))
    assert row.same_p == pytest.approx(stats.mannwhitneyu(b - margin, a, alternative="less", method="exact").pvalue)
    assert row.change is not None
    assert row.change[0] == pytest.approx(np.exp(np.median([y - x for x in a for y in b])))
    assert (row.then, row.now) == (pytest.approx(np.exp(np.median(a))), pytest.approx(np.exp(np.median(b))))


def test_too_few_runs_cannot_tell() -> None:
    found = judge(report(1, 0.001, runs=4), report(2, 0.001, runs=4), 0.03)
    assert found.answer == "cannot tell" and {row.reason for row in found.metrics} == {"4 runs: too few"}
    assert [row.metric for row in found.metrics if row.judged] == ["throughput", "latency.p50"]
    cut = report(2, 0.001)
    cut["runs"] = cut["runs"][:3]
    cut["complete"] = False
    found = judge(report(1, 0.001), cut, 0.03)
    assert found.answer == "cannot tell" and "not everything planned was measured now" in found.notes


def test_zero_then_and_now_is_the_same() -> None:
    one, other = report(1, 0.002), report(2, 0.002)
    for run in one["runs"] + other["runs"]:
        run["metrics"]["gc.cpu_share"] = 0.0
        run["metrics"]["rss.growth"] = 0.0
        del run["metrics"]["stw.total.p99"]
    found = judge(one, other, 0.03)
    assert found.answer == "reproduced" and answers(found)["gc.cpu_share"] == "same"
    other["runs"][0]["metrics"]["gc.cpu_share"] = 0.1
    assert judge(one, other, 0.03).answer == "cannot tell"


def test_what_there_was_then_has_to_be_there_now() -> None:
    one, other = report(1, 0.002), report(2, 0.002)
    for run in other["runs"]:
        run["metrics"]["latency.p99"] = None
    found = judge(one, other, 0.03)
    assert found.answer == "cannot tell" and found.reasons == ("not shown to be the same: latency.p99",)


def test_a_slower_machine_is_not_a_slower_service() -> None:
    one, other = report(1, 0.002), report(2, 0.002, throughput=0.9)
    for run in other["runs"]:
        run["yardstick"] = [0.9e5, 0.9e5]
    found = judge(one, other, 0.03)
    assert found.answer == "cannot tell" and found.reasons == ("the machine itself is 10% slower than it was then",)


def test_another_load_tool_is_another_measurement() -> None:
    one, other = report(1, 0.002), report(2, 0.002)
    for run in other["runs"]:
        run["load"] = {"tool": "wrk", "version": "5.0"}
    assert judge(one, other, 0.03).reasons == ("the reports differ in their version of the load tool",)


def test_versions_are_one_family() -> None:
    names = ("a", "b")
    one, other = (report(seed, 0.004, NOISY, names=names) for seed in (1, 2))
    assert judge(one, other, 0.03).answer == "reproduced"
    for run in other["runs"]:
        if run["version"] == "b":
            run["metrics"]["throughput"] *= 1.1
    found = judge(one, other, 0.03)
    assert found.answer == "not reproduced" and found.reasons == ("more than the margin away: b's throughput",)
    assert len(found.metrics) == 2 * len(PRIMARY)


def test_another_binary_is_said() -> None:
    one, other = report(1, 0.002, NOISY), report(2, 0.002, NOISY)
    assert judge(one, other, 0.03).binaries[0].same
    other["versions"][0]["build_id"] = "x/y"
    found = judge(one, other, 0.03)
    assert not found.binaries[0].same and found.answer == "reproduced"


def test_another_kind_of_machine(tmp_path: Path) -> None:
    then = report(1, 0.002)
    assert check(then, plan("s"), tmp_path, False, False) == ""
    then["host"]["host_class"] = "another"
    with pytest.raises(NotComparableError, match="a different kind of machine") as caught:
        check(then, plan("s"), tmp_path, False, False)
    assert caught.value.exit_code == 4
    assert check(then, plan("s"), tmp_path, False, True)
    then = report(1, 0.002)
    then["tool"] = "0.1.0"
    with pytest.raises(NotComparableError, match="version of gotrace"):
        check(then, plan("s"), tmp_path, False, False)
    assert judge(then, report(2, 0.002), 0.03).reasons == ("the reports differ in their version of gotrace",)
    assert judge(then, report(2, 0.002), 0.03, "of different kinds of machines").answer == "cannot tell"


# --- The command


@needs_wrk
def test_on_the_command_line(gotrace: Any, tmp_path: Path) -> None:
    then, out = tmp_path / "then", tmp_path / "now"
    then.mkdir()

    def said(told: Any, *options: str) -> Any:
        (then / "report.json").write_text(json.dumps(told))
        return gotrace("reproduce", str(then), "--out", str(out), *options)

    whole = report(1, 0.01, NOISY)
    done = said(whole, "--dry-run")
    assert done.returncode == 0 and not out.exists(), done.stderr
    assert (
        "version s: true s" in done.stdout and "judged within 3% (s): throughput, latency.p50, latency.p99" in done.stdout
    )
    assert "not judged: stw.total.max (in the report it varies by " in done.stdout
    other = copy.deepcopy(whole)
    other["host"]["host_class"] = "another"
    for told, options, status, message in (
        (other, (), 4, "a different kind of machine"),
        ({**whole, "plan": {**whole["plan"], "place": 7}}, (), 2, "unknown key: 'place'"),
        ({**whole, "schema": "gotrace.baseline/9"}, (), 2, "in a different version"),
        (whole, ("--margin", "0"), 2, "--margin"),
        ({**whole, "plan": {**whole["plan"], "versions": [{"name": "s", "command": ["/none"]}]}}, (), 2, "no command"),
    ):
        done = said(told, *options)
        assert (done.returncode, message in done.stderr, len(done.stderr.splitlines())) == (status, True, 2), done.stderr
    assert "NOT COMPARABLE" in said(other, "--dry-run", "--anyway").stdout
    over = gotrace("reproduce", str(then), "--out", str(then), "--force")
    assert over.returncode == 2 and "overwrite the old one" in over.stderr
    assert gotrace("reproduce", str(tmp_path / "none"), "--out", str(out)).returncode == 2
    # What ends at once is no service.
    done = said(whole)
    assert done.returncode == 5 and "the service exited before it was ready" in done.stderr, done.stderr

"""`gotrace.lab.gate` on reports whose truth is known: what passes, fails, and cannot be told."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gate_reports import EXACT, VALUES, report
from gotrace.errors import UsageError
from gotrace.lab.gate import Gated, Row, Rules, judge, sides
from gotrace.lab.metrics import PRIMARY
from gotrace.lab.requirements import parse_all
from gotrace.lab.runs import ONE_SAMPLE


def judged(of: dict[str, Any], against: dict[str, Any] | None = None, *, anyway: bool = False, **rules: Any) -> Gated:
    """The result for reports called out and before; ``require`` are texts."""
    required = parse_all(rules.pop("require", ()))
    before = ("before", against) if against is not None else None
    return judge(*sides(("out", of), before), Rules(requirements=required, **rules), anyway)  # type: ignore[arg-type]


def row(gated: Gated, metric: str) -> Row:
    (found,) = (each for each in gated.rows if each.metric == metric)
    return found


def values(of: dict[str, Any], version: str, metric: str) -> list[float]:
    return [run["metrics"][metric] for run in of["runs"] if run["version"] == version]


THREE = {"latency.p50": 0.05, "latency.p99": 0.05, "throughput": 0.05}


def test_a_pass_is_earned_and_a_fail_is_proved() -> None:
    """40 gates each: of one that has not changed, one that is worse by 20 %, and one at the margin."""
    ended: dict[str, Counter[str]] = {}
    for name, factors in (("same", {}), ("worse", {"latency.p99": 1.2}), ("at the margin", {"latency.p99": 1.05})):
        of = [judged(report({"A": {}, "B": factors}, 10, 0.02, seed), margins=THREE) for seed in range(40)]
        ended[name] = Counter(each.verdict for each in of)
    assert ended["same"]["fail"] == 0 and ended["same"]["pass"] >= 30
    assert ended["worse"]["pass"] == 0 and ended["worse"]["fail"] >= 36
    assert ended["at the margin"]["pass"] <= 5 and ended["at the margin"]["fail"] <= 5


def test_fewer_answers_are_worse() -> None:
    gated = judged(report({"A": {}, "B": {"throughput": 0.8}}), margins=THREE)
    found = row(gated, "throughput")
    assert (gated.verdict, found.verdict, found.operator) == ("fail", "fail", ">")
    assert found.limit == pytest.approx(1 / 1.05) and found.required == "above -4.76%"
    better = judged(report({"A": {}, "B": {"throughput": 1.5, "latency.p99": 0.5}}), margins=THREE)
    assert better.verdict == "pass"


def test_the_numbers_are_scipys() -> None:
    both = report({"A": {}, "B": {"latency.p99": 1.2}}, 10, 0.03, 3)
    found = row(judged(both, margins={"latency.p99": 0.05}), "latency.p99")
    differences = np.log(values(both, "B", "latency.p99")) - np.log(values(both, "A", "latency.p99"))
    beyond = stats.wilcoxon(differences - math.log(1.05), alternative="greater").pvalue
    assert found.p == pytest.approx(min(2 * beyond, 1))
    walsh = sorted((x + y) / 2 for i, x in enumerate(differences) for y in differences[i:])
    assert found.measured == pytest.approx(math.exp(np.median(walsh)))
    # Each end of the interval is right in 95 %: the test of a change as large as that end is not significant at 5 %.
    for end, alternative in ((found.high, "less"), (found.low, "greater")):
        assert end is not None
        inside, outside = (math.log(end) + side * 1e-9 * (1 if alternative == "less" else -1) for side in (-1, 1))
        at = [stats.wilcoxon(differences - each, alternative=alternative).pvalue for each in (inside, outside)]
        assert at[0] > 0.05 >= at[1]


def test_two_reports_are_two_sets() -> None:
    one, other = report({"s": {}}, 8, 0.01, 1), report({"s": {"latency.p50": 1.5}}, 8, 0.01, 2)
    gated = judged(other, one, margins={"latency.p50": 0.05, "rss.peak": 0.5})
    found = row(gated, "latency.p50")
    logs = [np.log(values(each, "s", "latency.p50")) for each in (one, other)]
    beyond = stats.mannwhitneyu(logs[1] - math.log(1.05), logs[0], alternative="greater", method="exact").pvalue
    assert found.verdict == "fail" and found.p == pytest.approx(min(2 * beyond * 2, 1))  # the smaller of two: Holm
    assert any("Not interleaved" in note for note in gated.notes)


def test_the_primary_metrics_are_judged_unless_others_are_named() -> None:
    gated = judged(report({"A": {}, "B": {}}))
    assert [each.metric for each in gated.rows] == list(PRIMARY)
    growth = row(gated, "rss.growth")
    assert growth.limit == pytest.approx(0.05 * np.median(values(gated.b.report, "A", "rss.mean")) / 60)  # type: ignore[arg-type]
    assert growth.required.startswith("below +") and growth.required.endswith("MiB/min")


def test_requirements_are_on_the_median_run() -> None:
    of = report({"s": {}}, 10, 0.02, 4)
    p99 = sorted(values(of, "s", "latency.p99"))
    for limit, verdict, reason in (
        (p99[-1] * 1.001, "pass", ""),
        (p99[8] * 1.0001, "pass", "kept by 9 of 10 runs"),
        (p99[7] * 1.0001, "inconclusive", "kept by 8 of 10 runs"),
        (p99[1] * 0.9999, "fail", "kept by 1 of 10 runs"),
        (p99[0] * 0.99, "fail", "kept by 0 of 10 runs"),
    ):
        gated = judged(of, require=[f"latency.p99 <= {limit:.0f}ns"])
        (found,) = gated.rows
        assert (gated.verdict, found.reason) == (verdict, reason)
        assert found.measured == np.median(p99) and (found.low, found.high) == (p99[1], p99[8])
        broken = sum(value > round(limit) for value in p99)
        assert found.p == pytest.approx(stats.binomtest(broken, 10, alternative="greater").pvalue)
    of_two = judged(of, require=["latency.p99 <= 1ms and throughput >= 1/s"])
    assert [each.verdict for each in of_two.rows] == ["fail", "pass"] and of_two.verdict == "fail"
    assert of_two.rows[0].p == pytest.approx(1 / 2**10)  # each is a question of its own


def test_error_rates_of_a_requirement() -> None:
    """At its limit at most 5 % pass; by two spreads within it, nearly all; so far beyond it, none."""
    passed: dict[float, int] = {}
    for factor in (1.0, 0.9, 1.1):
        passed[factor] = 0
        for seed in range(100):
            of = report({"s": {"latency.p99": factor}}, 10, 0.0, seed)  # which leaves 5 % from run to run
            passed[factor] += judged(of, require=["latency.p99 <= 5ms"]).verdict == "pass"
    assert passed[1.0] <= 7 and passed[0.9] >= 90 and passed[1.1] == 0


@pytest.mark.parametrize("runs", [1, 2, 4])
def test_few_runs_are_inconclusive_whatever_they_say(runs: int) -> None:
    for require in ("latency.p99 <= 1s", "latency.p99 <= 1ns"):
        gated = judged(report({"s": {}}, runs), require=[require])
        assert gated.verdict == "inconclusive" and gated.rows[0].more == 5 - runs
        assert gated.rows[0].text(gated.rows[0].low) == "?"
    pairs = judged(report({"A": {}, "B": {"latency.p50": 3}}, runs), margins={"latency.p50": 0.05})
    assert (pairs.verdict, pairs.rows[0].more, pairs.rows[0].interval) == ("inconclusive", 6 - runs, "-")


def test_one_run_breaks_what_every_run_has_to_keep() -> None:
    of = report({"s": {}}, 10, 0.0)
    for run in of["runs"]:
        run["metrics"] |= {"stw.total.max": 1e6, "errors.share": 0.0, "latency.p99": 1e6}
    of["runs"][3]["metrics"] |= {"stw.total.max": 3e6, "errors.share": 0.0001, "latency.p99": 3e6}
    gated = judged(of, require=["stw.total.max <= 2ms", "errors.share == 0", "latency.p99 <= 2ms", "errors.share <= 1%"])
    assert [each.verdict for each in gated.rows] == ["inconclusive", "inconclusive", "pass", "pass"]
    assert [each.reason for each in gated.rows[:3]] == [*["broken by 1 of 10 runs"] * 2, "kept by 9 of 10 runs"]
    assert gated.rows[0].more is None  # no number of runs makes up for it


def test_what_is_unknown_is_never_met() -> None:
    of = report({"s": {}}, 10)
    for run in of["runs"][:3]:
        run["metrics"]["stw.total.p99"] = None
    (found,) = judged(of, require=["stw.total.p99 <= 1s"]).rows
    assert (found.verdict, found.reason) == ("inconclusive", "kept by 7 of 10 runs, no value in 3")
    assert found.interval.endswith("to ?")
    (other,) = judged(of, require=["stw.total.p99 >= 1s"]).rows
    assert other.verdict == "inconclusive" and other.interval.startswith("? to")  # 7 runs break it: not enough of 10
    for run in of["runs"]:
        run["metrics"]["stw.total.p99"] = math.nan
    (found,) = judged(of, require=["stw.total.p99 <= 1s"]).rows
    assert (found.verdict, found.reason, found.measured) == ("inconclusive", "no values", None)


def test_lost_events_earn_nothing() -> None:
    """Pauses are then at least what is told: that may fail, not pass."""
    of = report({"A": {}, "B": {"stw.total.p99": 2.0}}, 10, 0.01)
    low = ["stw.total.p99 <= 1s", "latency.p99 <= 1s", "stw.total.p99 <= 1ns"]
    margins = {"stw.total.p99": 0.05, "latency.p99": 0.05}
    of["runs"][1 if of["runs"][1]["version"] == "B" else 0]["lost"] = 7
    gated = judged(of, require=low, margins=margins)
    assert [each.verdict for each in gated.rows] == ["fail", "pass", "inconclusive", "pass", "fail"]
    assert gated.rows[2].reason == "events were lost" and any("7 events of B LOST" in note for note in gated.notes)
    for run in of["runs"]:
        run["lost"] = 7 * (run["version"] == "A")
    gated = judged(of, require=low, margins=margins)
    assert [each.verdict for each in gated.rows] == ["inconclusive", "pass", "pass", "pass", "fail"]


def test_failing_requests_cannot_hide_in_runs_that_do_not_count() -> None:
    of = report({"A": {}, "B": {}}, 10, 0.01)
    bad = {**of["runs"][-1], "valid": False, "reasons": ["2% of the requests failed"]}
    bad["metrics"] = {**bad["metrics"], "errors.share": 0.02}
    of["runs"].append({**bad, "version": "A"})
    assert judged(of, margins=THREE).verdict == "pass"
    of["runs"].append({**bad, "version": "B"})
    gated = judged(of, margins=THREE)
    assert gated.verdict == "inconclusive"
    assert {each.reason for each in gated.rows} == {"requests failed in invalid runs"}
    assert any(note == "1 run of B does not count: 2% of the requests failed." for note in gated.notes)


def test_reports_that_end_early() -> None:
    of = report({"A": {}, "B": {"latency.p99": 2}}, 10, 0.01)
    of["complete"], of["cut_off"] = False, "Ctrl-C"
    gated = judged(of, margins=THREE)
    assert {each.metric: each.verdict for each in gated.rows} == {
        "latency.p50": "inconclusive",
        "latency.p99": "fail",
        "throughput": "inconclusive",
    }
    of["cut_off"] = "the service exited under load: signal 9"
    gated = judged(of, margins=THREE)
    assert (gated.ended(), gated.ended("pass"), gated.verdict, gated.rows) == (5, 5, "inconclusive", [])
    assert "the service exited under load" in gated.sentence


def test_reports_that_are_not_comparable() -> None:
    one, other = report({"s": {}}, 8, 0.01, 1), report({"s": {"latency.p50": 1.5}}, 8, 0.01, 2)
    other["host"]["host_class"] = "y"
    gated = judged(other, one, margins=THREE)
    assert gated.ended("pass") == 4 and gated.counted("pass") == "inconclusive" and not gated.rows
    gated = judged(other, one, margins=THREE, require=["latency.p50 <= 1ns"], anyway=True)
    assert [each.verdict for each in gated.rows] == [*["inconclusive"] * 3, "fail"] and gated.ended() == 1
    assert gated.notes[0].startswith("NOT COMPARABLE: ")
    assert judged(other, one, margins=THREE, anyway=True).ended() == 3


def test_planned_looks_share_the_risk() -> None:
    of = report({"A": {}, "B": {}}, 10, 0.02, 1)
    one, two = (row(judged(of, margins=THREE, looks=looks), "latency.p99") for looks in (1, 2))
    assert two.high > one.high and two.confidence > 0.95 > one.confidence  # type: ignore[operator]


def test_more_runs_would_settle_it() -> None:
    """So many as are said are enough in four of five cases, if the change is what it seemed to be."""
    of = report({"A": {}, "B": {"latency.p99": 1.02}}, 8, 0.05, 11)
    found = row(judged(of, margins={"latency.p99": 0.05}), "latency.p99")
    assert found.verdict == "inconclusive" and found.more is not None and found.measured is not None
    differences = np.log(values(of, "B", "latency.p99")) - np.log(values(of, "A", "latency.p99"))
    rng = np.random.default_rng(12)
    spread, pairs = float(np.std(differences, ddof=1)), 8 + found.more
    passed = 0
    for _ in range(100):
        more = rng.normal(math.log(found.measured), spread, pairs)
        passed += stats.wilcoxon(more - math.log(1.05), alternative="less").pvalue <= 0.05
    assert 65 <= passed <= 95


def test_which_version_is_judged() -> None:
    three: Any = report({"A": {}, "B": {}, "C": {}}, 6)
    one: Any = report({"s": {}}, 6)
    a, b = sides(("out", three), None, "C")
    assert a is not None and (a.name, b.name) == ("A", "C")
    a, b = sides(("out", three), ("one", one), "A")
    assert a is not None and (a.name, b.name) == ("one", "out") and {run["version"] for run in b.runs} == {"A"}
    assert sides(("one", one))[0] is None
    for given, message in (
        ((("out", three),), "out has 3 versions"),
        ((("out", three), None, "D"), "out has no version 'D'"),
        ((("out", three), None, "A"), "A is what the others are compared with"),
        ((("one", one), ("out", three)), "out has 3 versions"),
    ):
        with pytest.raises(UsageError, match=message):
            sides(*given)  # type: ignore[arg-type]


def test_what_there_is_nothing_to_judge_by() -> None:
    of = report({"s": {}})
    for rules, message in (
        ({}, "there is nothing to judge by"),
        ({"margins": {"latency.p99": 0.05}}, "latency.p99 has a margin, but there is nothing to compare with"),
        ({"require": ["sched.latency.p99 <= 1ms"]}, "out has no metric sched.latency.p99"),
    ):
        with pytest.raises(UsageError, match=message):
            judged(of, **rules)
    with pytest.raises(UsageError) as error:
        judged(of, require=["latency.p95 <= 1s"])
    assert error.value.hint == "it has latency.p99 and latency.p50"


def test_a_metric_of_zero_has_no_ratio() -> None:
    found = row(judged(report({"A": {}, "B": {}}), margins={"errors.share": 0.05}), "errors.share")
    assert (found.verdict, found.reason, found.more) == ("inconclusive", "0 in all runs", None)
    assert {*VALUES, *EXACT} >= set(PRIMARY)


def test_runs_of_one_process_pass_nothing() -> None:
    of = report({"A": {}, "B": {}}, 10, 0.01)
    of["versions"][0]["pid"] = 1234
    gated = judged(of, margins=THREE)
    assert gated.verdict == "inconclusive" and {each.reason for each in gated.rows} == {ONE_SAMPLE}

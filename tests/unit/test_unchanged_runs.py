"""Forty real runs of one service, dealt to two versions that do not differ: how often a difference is found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import unchanged
from gotrace.lab.metrics import PRIMARY
from gotrace.lab.report import SCHEMA


def test_what_was_measured() -> None:
    whole = unchanged.report()
    assert whole["schema"] == SCHEMA and whole["complete"] and whole["host"]["cpu"]
    assert len({each["go_version"] for each in whole["versions"]}) == 1
    assert len(unchanged.rounds(whole)) >= 20
    for run in whole["runs"]:
        assert set(PRIMARY) <= run["metrics"].keys()
        counts = sum(count for _, count in run["requests"])  # type: ignore[typeddict-item]
        assert counts == pytest.approx(run["metrics"]["throughput"] * run["length_ns"] / 1e9, rel=0.25)


def test_compare_raises_few_false_alarms() -> None:
    """Holm allows one in 5 % of comparisons; without it there are some in a quarter of them."""
    found = unchanged.alarms(200)
    assert found.any / found.comparisons <= 0.05, found
    assert found.uncorrected / found.comparisons > 0.15
    assert found.words["cannot tell"] > found.words["same"] > 0  # such a machine cannot show more


def test_a_gate_does_not_fail() -> None:
    found = unchanged.outcomes(500)
    assert found["fail"] < 5, found


def test_a_gate_fails_where_it_should() -> None:
    """By 10 % of a metric that runs agree in; where they are 20 % apart that cannot be shown, nor does it pass."""
    assert unchanged.outcomes(60, "rss.peak", 1.1)["fail"] > 54
    assert unchanged.outcomes(60, "throughput", 2)["fail"] > 54
    noisy = unchanged.outcomes(60, "latency.p50", 1.1)
    assert noisy["inconclusive"] > 45 and noisy["pass"] == 0


def test_how_others_judge() -> None:
    found = unchanged.pooled_alarms(200)
    assert found["requests"] > 0.7 and found["pooled p99"] > 0.28
    assert found["p99 of runs"] <= 0.07


def test_versions_that_do_not_take_turns() -> None:
    found = unchanged.drift_alarms(1000)
    assert found["blocks"] > 0.3
    assert found["turns"] < 0.07


def test_the_tests_of_requests_are_those_that_others_do() -> None:
    rng = np.random.default_rng(9)
    for runs in unchanged.dealt(3, 4, rng):
        a, b = runs[:2], runs[2:]
        values = [
            np.concatenate([np.repeat(*np.array(run["requests"]).T) for run in side])  # type: ignore[typeddict-item]
            for side in (a, b)
        ]
        p = stats.mannwhitneyu(*values, use_continuity=False).pvalue
        assert unchanged.by_requests(a, b) == (p <= 0.05)
        resampled = [
            np.percentile(rng.choice(values[1], len(values[1])), 99, method="inverted_cdf")
            - np.percentile(rng.choice(values[0], len(values[0])), 99, method="inverted_cdf")
            for _ in range(100)
        ]
        low, high = np.percentile(resampled, [2.5, 97.5])
        assert unchanged.by_pooled_p99(a, b, rng) == (low > 0 or high < 0)

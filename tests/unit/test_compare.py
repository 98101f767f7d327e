"""`gotrace.lab.compare` and `gotrace compare` on reports whose truth is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gate_reports import VALUES, report
from gotrace.analysis.stats.ranks import signed_rank
from gotrace.analysis.stats.verdicts import look
from gotrace.lab.compare import CANNOT_TELL, NotComparableError, compare, require_comparable, sides_of
from gotrace.lab.metrics import METRICS, PRIMARY


def words(found: Any) -> dict[str, str]:
    return {row.metric: row.verdict for row in found}


def test_what_got_worse_is_named_and_nothing_else() -> None:
    wrong = missed = 0
    for seed in range(40):
        both = report({"A": {}, "B": {"latency.p99": 1.3, "throughput": 0.8}}, 10, 0.03, seed)
        a, b = sides_of([("out", both)])  # type: ignore[list-item]
        told = words(compare(a, b, 0.05))
        assert set(told) == set(PRIMARY)
        missed += (told["latency.p99"] != "worse") + (told["throughput"] != "worse")
        wrong += any(told[name] in ("better", "worse") for name in told if name not in ("latency.p99", "throughput"))
    assert missed <= 4 and wrong <= 4  # 80 and 40 of them; Holm allows 5 % in the family


def test_better_is_what_the_metric_means_by_it() -> None:
    both = report({"A": {}, "B": {"latency.p50": 0.5, "throughput": 2}}, 10, 0.02, 1)
    told = words(compare(*sides_of([("out", both)]), 0.05))  # type: ignore[list-item]
    assert told["latency.p50"] == told["throughput"] == "better" and told["rss.peak"] == "same"


def test_the_numbers_are_scipys() -> None:
    both = report({"A": {}, "B": {"latency.p50": 1.1}}, 10, 0.03, 3)
    (row,) = (row for row in compare(*sides_of([("out", both)]), 0.05) if row.metric == "latency.p50")  # type: ignore[list-item]
    of_a, of_b = ([run["metrics"]["latency.p50"] for run in both["runs"] if run["version"] == name] for name in "AB")
    differences = np.log(of_b) - np.log(of_a)
    assert row.p == pytest.approx(stats.wilcoxon(differences).pvalue)
    walsh = [(x + y) / 2 for i, x in enumerate(differences) for y in differences[i:]]
    assert row.change is not None and row.change[0] == pytest.approx(np.exp(np.median(walsh)))
    assert (row.a, row.b) == (np.median(of_a), np.median(of_b))
    greater = np.mean([(y > x) + 0.5 * (y == x) for x in of_a for y in of_b])
    assert row.greater == pytest.approx(greater)


def test_two_reports_are_two_sets() -> None:
    one, other = report({"s": {}}, 8, 0.02, 1), report({"s": {"latency.p50": 1.5}}, 8, 0.02, 2)
    a, b = sides_of([("a", one), ("b", other)])  # type: ignore[list-item]
    require_comparable(a, b)
    rows = {row.metric: row for row in compare(a, b, 0.05)}
    assert rows["latency.p50"].verdict == "worse"
    values = [[run["metrics"]["latency.p50"] for run in each["runs"]] for each in (one, other)]
    assert rows["latency.p50"].p == pytest.approx(stats.mannwhitneyu(*values, method="exact").pvalue)


def test_looking_twice_is_wrong_more_often() -> None:
    """And not with half of the risk for each look, as the gate has it."""
    random = np.random.default_rng(1)
    runs = random.normal(size=(1500, 20))
    early, late = (np.array([signed_rank(each[:count]).two_sided for each in runs]) for count in (10, 20))
    either = np.minimum(early, late)
    once, twice, halved = (
        float(np.mean(p <= level)) for p, level in ((late, 0.05), (either, 0.05), (either, look(0.05, 2)))
    )
    assert once == pytest.approx(0.05, abs=0.015) and twice == pytest.approx(0.08, abs=0.015) and halved <= 0.055


def test_too_few_runs_tell_nothing() -> None:
    both = report({"A": {}, "B": {"latency.p50": 3}}, 5, 0.01, 1)
    rows = compare(*sides_of([("out", both)]), 0.05, everything=True)  # type: ignore[list-item]
    assert {row.verdict for row in rows} == {CANNOT_TELL} and len(rows) == len(METRICS)
    assert {row.reason for row in rows if VALUES.get(row.metric)} == {"5 runs: too few"}


def test_a_metric_of_zero_has_no_ratio() -> None:
    both = report({"A": {}, "B": {}}, 8, 0.01, 1)
    for run in both["runs"]:
        run["metrics"]["gc.cpu_share"] = 0.0
    (row,) = (row for row in compare(*sides_of([("out", both)]), 0.05) if row.metric == "gc.cpu_share")  # type: ignore[list-item]
    assert (row.verdict, row.reason) == (CANNOT_TELL, "0 in all runs")


def test_on_the_command_line(gotrace: Any, tmp_path: Any) -> None:
    for name, factor in (("a", 1.0), ("b", 1.4)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "report.json").write_text(json.dumps(report({"s": {"latency.p50": factor}}, 8, 0.02, len(name))))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    done = gotrace("compare", a, b)
    assert done.returncode == 0 and "\nworse: latency.p50\n" in done.stdout and "Not interleaved" in done.stdout
    (pair,) = json.loads(gotrace("compare", a, b, "--format", "json").stdout)["comparisons"]
    assert next(row for row in pair["metrics"] if row["metric"] == "latency.p50")["verdict"] == "worse"
    text = json.loads((tmp_path / "b/report.json").read_text())
    other = {**text, "host": {"host_class": "y"}}
    (tmp_path / "b/report.json").write_text(json.dumps(other))
    refused = gotrace("compare", a, b)
    assert refused.returncode == 4 and "different kinds of machines" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2
    done = gotrace("compare", a, b, "--anyway")
    assert done.returncode == 0 and "NOT COMPARABLE" in done.stdout and "\nworse: " not in done.stdout
    text["schema"] = "gotrace.baseline/9"
    (tmp_path / "b/report.json").write_text(json.dumps(text))
    for folders in ((a, b), (a,), (a, a)):
        refused = gotrace("compare", *folders)
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 2
    (tmp_path / "b/report.json").write_text("[]")
    assert "is not a baseline report" in gotrace("compare", a, b).stderr


def test_reports_of_different_loads_are_not_comparable() -> None:
    one, other = report({"s": {}}, 8, 0.02, 1), report({"s": {}}, 8, 0.02, 2)
    other["plan"]["load"] = ["hey"]
    with pytest.raises(NotComparableError, match="differ in their load"):
        require_comparable(*sides_of([("a", one), ("b", other)]))  # type: ignore[list-item]


def test_the_longest_pause_is_compared_between_runs_of_equal_length_only() -> None:
    both = report({"A": {}, "B": {}}, 8, 0.01, 1)
    for length_ns, reason in ((10_050_000_000, ""), (10_200_000_000, "runs of different lengths")):
        for run in both["runs"]:
            run["length_ns"] = length_ns if run["version"] == "B" else 10**10
        found = {row.metric: row.reason for row in compare(*sides_of([("out", both)]), 0.05)}  # type: ignore[list-item]
        assert found["stw.total.max"] == reason and not found["stw.total.p99"]
    for run in both["runs"]:  # it is the load's own length that counts, not how long its process took to start and to end
        run["load"]["duration_ns"] = 10**10
    (row,) = (row for row in compare(*sides_of([("out", both)]), 0.05) if row.metric == "stw.total.max")  # type: ignore[list-item]
    assert not row.reason


@pytest.mark.parametrize("of", ["events", "wakeups", "coldstart"])
def test_reports_that_trace_more_are_not_comparable(of: str) -> None:
    """Those of an earlier release did not."""
    one, other = report({"s": {}}, 8, 0.02, 1), report({"s": {}}, 8, 0.02, 2)
    other["plan"][of] = False
    require_comparable(*sides_of([("a", one), ("b", other)]))  # type: ignore[list-item]
    other["plan"][of] = True
    with pytest.raises(NotComparableError, match="that are traced"):
        require_comparable(*sides_of([("a", one), ("b", other)]))  # type: ignore[list-item]


@pytest.mark.parametrize(("of", "what"), [("version", "version of the load tool"), ("tool", "version of gotrace")])
def test_reports_of_other_tools_are_not_comparable(of: str, what: str) -> None:
    one, other = report({"s": {}}, 8, 0.02, 1), report({"s": {}}, 8, 0.02, 2)
    if of == "tool":
        other["tool"] = "0.1.0"
    else:
        other["runs"][3]["load"]["version"] = "4.2.0"
    with pytest.raises(NotComparableError, match=f"differ in their {what}"):
        require_comparable(*sides_of([("a", one), ("b", other)]))  # type: ignore[list-item]


def test_runs_of_one_process_are_one_sample() -> None:
    one, other = report({"s": {}}, 10, 0.01, 1), report({"s": {"latency.p50": 1.5}}, 10, 0.01, 2)
    other["versions"][0]["pid"] = 1234
    for sides in (("a", one), ("b", other)), (("b", other), ("a", one)):
        rows = compare(*sides_of(sides), 0.05)  # type: ignore[arg-type]
        assert {(row.verdict, row.reason) for row in rows} == {(CANNOT_TELL, "all runs of one process: a single sample")}
        assert all(row.a is not None and row.b is not None for row in rows)

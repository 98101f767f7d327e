"""The pages of `gotrace baseline` and `gotrace compare`: their numbers, their pictures, and names that would do harm."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import VALUES, report

from conftest import HOSTILE
from gotrace.export.charts.runs import Curve, Dot, Scale, curves, dots, forest
from gotrace.export.picture.frame import escaped
from gotrace.lab import baseline_page, compare_page, groups_page
from gotrace.lab.compare import sides_of
from gotrace.lab.groups import grouped
from gotrace.lab.metrics import METRICS
from gotrace.lab.pairs import compared
from gotrace.text import duration_text
from pages import MOST, Parsed

WAITS = {"A": {"work": 100_000}, "B": {"work": 90_000, "waiting for a CPU": 2_000_000}}


def comparison(found: Any, everything: bool = False, anyway: bool = False) -> str:
    return compare_page.page(compared(sides_of([("out", found)]), 0.05, anyway), everything)


def attributes(markup: str, tag: str) -> list[dict[str, str]]:
    return [dict(re.findall(r'(\w[\w-]*)="([^"]*)"', each)) for each in re.findall(rf"<{tag} ([^>]*)>", markup)]


def test_numbers_of_a_baseline_are_those_of_its_runs() -> None:
    found = report({"old": {}, "new": {"latency.p99": 2}}, 9, 0.05, waits={"old": WAITS["A"], "new": WAITS["B"]})
    found["runs"][4] |= {"valid": False, "reasons": ["the machine's own speed changed by 4% meanwhile"], "lost": 3}
    page = Parsed(baseline_page.page(found, "out"))
    main, others = page.tables["Summary of the runs"], page.tables["All other metrics"]
    rows = {(row[0], row[1]): row for row in (*main[1:], *others[1:])}
    for metric in VALUES:
        for version in ("old", "new"):
            values = [run["metrics"][metric] for run in found["runs"] if run["version"] == version and run["valid"]]
            text = METRICS[metric].text
            spread = "-" if not VALUES[metric] else f"{np.std(values, ddof=1) / abs(np.median(values)):.1%}"
            told = [text(float(np.median(values))), text(min(values)), text(max(values)), spread, str(len(values))]
            assert rows[metric, version][2:7] == told
    assert len(rows) == 2 * len(VALUES)
    runs = page.tables["In the order in which they were measured"]
    assert (
        len(runs) == 19 and runs[5][4] == "NO" and runs[5][7:] == ["3", "the machine's own speed changed by 4% meanwhile"]
    )
    assert [row[4] for row in runs].count("yes") == 17
    pauses = page.tables["All that were explained"]
    assert len(pauses) == 18 and pauses[1][0] == "1. 2.09 ms" and pauses[1][5] == "waiting for a CPU: it waited"
    assert ["load", "wrk -d2s http://127.0.0.1:1/"] in page.tables["The plan"]
    assert ["provider", "unknown"] in page.tables["The machine"] and ["memory", "16.0 GiB"] in page.tables["The machine"]
    assert not page.scripts  # it needs none


def test_dots_are_the_runs_in_the_order_of_time() -> None:
    random = np.random.default_rng(1)
    values = random.normal(100, 10, 12).tolist()
    markup = dots([Dot(at, value, f"{value}") for at, value in enumerate(values)], "x", 12, [(0, 100.0)])
    found = attributes(markup, "circle")
    xs, ys = ([float(each[name]) for each in found] for name in ("cx", "cy"))
    assert xs == sorted(xs) and np.diff(xs) == pytest.approx(np.full(11, xs[1] - xs[0]), abs=0.21)
    assert (np.argsort(ys) == np.argsort(values)[::-1]).all()  # up is more
    least, most = min(values), max(values)
    assert ys == pytest.approx([25 - 20 * (value - least) / (most - least) for value in values], abs=0.06)
    one = attributes(dots([Dot(0, 5.0, "5"), Dot(1, 5.0, "5")], "x", 2), "circle")
    assert {each["cy"] for each in one} == {"15.0"}
    assert dots([], "x", 0) == ""


def test_a_forest_is_to_scale() -> None:
    scale = Scale.of([(1.1, 1.05, 1.2), (0.5, 0.45, 0.6), (math.inf, 1, math.inf)], 0.05)
    assert scale.low == pytest.approx(1 / scale.high) and scale.high >= 1 / 0.45
    assert scale.x(1) == pytest.approx(85) and scale.x(1.2) - 85 == pytest.approx(85 - scale.x(1 / 1.2))
    markup = forest(scale, 0.05, 1.1, 1.05, 1.2, "worse", "x")
    band, square = attributes(markup, "rect")
    assert float(band["x"]) == pytest.approx(scale.x(1 / 1.05), abs=0.06)
    assert float(band["x"]) + float(band["width"]) == pytest.approx(scale.x(1.05), abs=0.11)
    assert float(square["x"]) + 4 == pytest.approx(scale.x(1.1), abs=0.06) and square["class"] == "worse"
    line = next(each for each in attributes(markup, "line") if each["class"] == "interval")
    assert (float(line["x1"]), float(line["x2"])) == pytest.approx((scale.x(1.05), scale.x(1.2)), abs=0.06)
    assert 'class="beyond"' not in markup
    wide = Scale.of([(1.1, 0.001, 900)], 0.05)
    assert wide.high < 4 and forest(wide, 0.05, 1.1, 0.001, 900, "cannot tell", "x").count('class="beyond"') == 2
    for high in (1.03, 1.2, 2, 10, 500):
        ticks = Scale(1 / high, high).ticks()
        assert 1.0 in ticks and all(1 / high <= each <= high for each in ticks)


def test_percentile_curves_are_those_of_the_runs() -> None:
    found = report({"only": {}}, 5)
    (curve,) = baseline_page._latency(found, ["only"])
    of_runs = []
    for run in found["runs"]:
        histogram = run["load"]["histogram"]
        of_runs.append(np.repeat(histogram["value_ns"], histogram["count"]))
    assert [point[0] for point in curve.points] == [25, 50, 75, 90, 95, 98, 99, 99.5]  # of 2,000 values there is no p99.9
    for percentile, *three in curve.points:
        each = [np.percentile(values, percentile, method="inverted_cdf") for values in of_runs]
        assert three == [min(each), np.median(each), max(each)]
    markup = curves([curve], duration_text, "latency")
    circles = attributes(markup, "circle")
    xs = [float(each["cx"]) for each in circles]
    places = [-math.log10(1 - point[0] / 100) for point in curve.points]
    share = (places[3] - places[0]) / (places[-1] - places[0])
    assert (xs[3] - xs[0]) / (xs[-1] - xs[0]) == pytest.approx(share, abs=0.01)
    ys = [float(each["cy"]) for each in circles]
    logs = np.log([point[2] for point in curve.points])
    assert (ys[0] - ys[3]) / (ys[0] - ys[-1]) == pytest.approx((logs[3] - logs[0]) / (logs[-1] - logs[0]), abs=0.01)
    assert curves([Curve("x", [], [])], duration_text, "none") == ""
    (stops,) = baseline_page._pauses(found, ["only"])
    assert [point[0] for point in stops.points] == [50, 95, 99]
    assert stops.points[2][2] == np.median([run["metrics"]["stw.total.p99"] for run in found["runs"]])


def test_a_comparison_says_what_the_table_says() -> None:
    found = report({"A": {}, "B": {"latency.p99": 1.5, "rss.peak": 1.3, "stw.total.p99": 3}}, 12, 0.02, waits=WAITS)
    (pair,) = compared(sides_of([("out", found)]), 0.05)  # type: ignore[list-item]
    page = Parsed(comparison(found))
    table = page.tables["Metric by metric"]
    assert [row[0] for row in table[1:-1]] == [row.metric for row in pair.shown()]
    for cells, row in zip(table[1:-1], pair.shown(), strict=True):
        metric = METRICS[row.metric]
        assert cells[1:3] == [metric.text(row.a), metric.text(row.b)] and cells[7] == pair.verdict(row)
        if metric.dimension != "growth" and row.change:
            value, low, high = row.change
            assert cells[3] == f"{value - 1:+.1%}" and cells[5] == f"{low - 1:+.1%} to {high - 1:+.1%}"
            assert cells[6] == f"{row.adjusted_p:.4f}"
    text = " ".join("".join(page.words).split())
    assert "worse: latency.p99, stw.total.p99, rss.peak" in text
    for note in pair.notes():
        assert note in text
    assert ["waiting for a CPU", "0 ns", "2.00 ms"] in page.tables[
        "What the 12 and 12 longest pauses waited for, mean of a pause"
    ]
    assert len(re.findall(r'<svg class="forest"', comparison(found))) == len(table) - 2  # growth has none, the axis is one


def test_warnings() -> None:
    one, other = report({"s": {}}, seed=1), report({"s": {}}, seed=2, host={"host_class": "y"})
    other |= {"complete": False, "cut_off": "Ctrl-C"}
    other["runs"][0]["lost"] = 5
    page = compare_page.page(compared(sides_of([("a", one), ("b", other)]), 0.05, True))  # type: ignore[list-item]
    for text in (
        "Not comparable: the reports are from different",
        "Not interleaved",
        "report of b is incomplete",
        "5 events",
    ):
        assert text in page
    assert "verdict worse" not in page.partition("<body>")[2]
    page = baseline_page.page(other, "b")  # type: ignore[arg-type]
    assert "Cut off: Ctrl-C" in page


@pytest.mark.parametrize("name", HOSTILE)
def test_names_do_no_harm(name: str) -> None:
    found = report(
        {name: {}, f"B{name}": {}}, 6, command=("./shop", name), waits={name: WAITS["A"], f"B{name}": WAITS["B"]}
    )
    found["plan"]["load"] = ["wrk", name]
    found["host"] |= {"cpu": name, "kernel": name, "provider": name, "instance": name}
    found["cut_off"] = name
    for version in found["versions"]:
        version |= {"exe": name, "go_version": name}
    for run in found["runs"]:
        run |= {"reasons": [name], "notes": [name], "time": "2026-11-29T12:00:00.000000000Z"}
        for pause in run["longest"]:
            pause |= {"reason": name, "cause": name, "sentence": name}
    made = [baseline_page.page(found, name), comparison(found, True)]  # type: ignore[arg-type]
    made += [groups_page.page(grouped([(name, found)], by), by) for by in ("vendor", "go", "host")]  # type: ignore[list-item]
    for page in made:
        page.encode()
        seen = Parsed(page)
        tags = {tag for tag, _ in seen.tags}
        assert not tags & {"script", "img", "b", "iframe", "a", "link", "object"} and "<![CDATA" not in page
        assert not any(key.startswith("on") or key in ("style", "src", "href") for _, found_ in seen.tags for key in found_)
        assert "default-src 'none'" in page and "script-src 'none'" in page and "http-equiv" in page
        assert not name or escaped(name) in page
        assert "\0" not in page and "\x1b" not in page and "\u202e" not in page


def test_what_may_be_unknown() -> None:
    found = report({"s": {}}, 2)
    for run in found["runs"]:
        run |= {"metrics": {**dict.fromkeys(VALUES, None), "throughput": 0.0}, "cost": {}}
        run["load"] |= {"histogram": None, "percentiles_ns": {"p50": 1e6, "p90": 2e6, "p99": None}}
    found["plan"]["warmup_ns"] = None
    page = Parsed(baseline_page.page(found, ""))  # type: ignore[arg-type]
    assert [row[0] for row in page.tables["Summary of the runs"][1:]] == ["throughput"]
    assert ["warmup", "until it is steady"] in page.tables["The plan"]
    assert "Latency: percentiles" in page.heads and "Stop-the-world pauses: percentiles" not in page.heads
    assert page.tables["Each run"][1] == ["0", "s", "?", "?", "0.00 s", "?"]
    found["runs"] = []
    assert "runs that count" in baseline_page.page(found, "")  # type: ignore[arg-type]


def test_a_page_of_many_runs_is_not_large() -> None:
    page = baseline_page.page(report({"A": {}}, 1000), "many")  # type: ignore[arg-type]
    assert len(page) < 2 * MOST
    assert len(baseline_page.page(report({"A": {}, "B": {}}, 20), "few")) < MOST  # type: ignore[arg-type]


def test_a_page_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = report({"s": {}}, 2)
    assert baseline_page.written(found, tmp_path, False) == f"Wrote {tmp_path}/report.html."
    before = (tmp_path / "report.html").read_text()
    found["cut_off"] = "Ctrl-C"
    assert "already exists" in baseline_page.written(found, tmp_path, False)
    assert (tmp_path / "report.html").read_text() == before
    assert baseline_page.written(found, tmp_path, True).startswith("Wrote")
    assert "Cut off: Ctrl-C" in (tmp_path / "report.html").read_text()
    assert baseline_page.written(found, tmp_path / "none", False).startswith("No page: cannot write")
    del found["host"]
    assert baseline_page.written(found, tmp_path, True) == "No page: KeyError: 'host'."
    assert "Cut off: Ctrl-C" in (tmp_path / "report.html").read_text()

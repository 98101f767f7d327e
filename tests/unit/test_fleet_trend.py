"""Changes of a fleet over time: planted ones are found on their day, and what the machines changed is named first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import numpy as np
import pytest
from fleet_days import DAY_NS, FIRST, MACHINE, Days
from scipy.stats import false_discovery_control

from gotrace.cli.main import main
from gotrace.fleet.database import opened
from gotrace.fleet.tables import middle_ns, middle_sql
from gotrace.fleet.trend import UNITS, _changes, _series, trend
from gotrace.fleet.trend_points import make

MS = 10**6


def fleet(folder: Path, step: float, at: int = 40, *, days: int = 60, metric: str = "latency.p99", **changed: Any) -> str:
    """Five hosts, 3 % between days; from day ``at`` on ``step`` times as much, with ``changed`` (machine, version, …)."""
    rng = np.random.default_rng(3)
    made = Days()
    for host in range(5):
        for day in range(days):
            value = 20 * MS * (1 + host / 50) * (1 + 0.03 * rng.normal())
            late = day >= at
            made.run(
                f"web-{host}",
                day + 0.5,
                {metric: value * (step if late else 1), "rss.peak": 1e8 * (1 + 0.01 * rng.normal())},
                **(changed if late else {}),
            )
    return made.write(folder)


def test_a_slower_version_is_found_on_its_day(tmp_path: Path) -> None:
    folder = fleet(tmp_path / "f", 1.2, 50, version="v2")
    found = trend(opened(folder))
    (together,) = found.found
    (change,) = together.changes
    assert together.at == FIRST // DAY_NS + 50
    assert change.series.metric == "latency.p99" and change.ratio == pytest.approx(1.2, abs=0.03)
    assert together.differences == [("version", "v1", "v2")] and not together.of_machines
    assert change.new and change.worse and found.status == 1
    assert (change.points_before, change.points_after) == (50, 10)
    assert found.series == 2 and change.p == 0.001 and change.q == 0.002
    # an old change is told, and does not fail; one for the better neither
    assert trend(opened(folder), new=9).status == 0
    assert trend(opened(fleet(tmp_path / "better", 0.8, 50))).status == 0
    assert trend(opened(fleet(tmp_path / "rate", 0.8, 50, metric="throughput"))).status == 1
    assert not trend(opened(fleet(tmp_path / "small", 1.03, 30))).found


def test_a_clock_that_is_ahead_makes_nothing_old(tmp_path: Path) -> None:
    folder, ahead = fleet(tmp_path / "f", 1.2, 50, version="v2"), Days()
    ahead.run("next-year", 365, {"latency.p99": 20 * MS})
    added = {"source": "test", "added_ns": FIRST + 60 * DAY_NS}
    ahead.write(tmp_path / "f", source=[added])
    found = trend(opened(folder))
    assert (
        found.status == 1
        and found.new_worse
        and found.notes
        == [
            "The clock of next-year was ahead: data up to 2027-08-01, which is later than it was added. "
            "New is counted from 2026-09-30."
        ]
    )


def test_by_the_hour_a_slower_version_is_found_in_its_hour(tmp_path: Path) -> None:
    """Two days, in which a deployment at 14:20 of the second one took all hosts until 14:40."""
    rng, made = np.random.default_rng(8), Days()
    for host in range(5):
        for quarter in range(4 * 48):
            hours = quarter / 4
            late = hours >= 38 + 1 / 3 + host / 15
            value = 20 * MS * (1 + host / 50) * (1 + 0.03 * rng.normal()) * (1.3 if late else 1)
            made.run(f"web-{host}", hours / 24, {"latency.p99": value}, version="v2" if late else "v1")
    folder = made.write(tmp_path / "f")
    found = trend(opened(folder), unit=UNITS["hour"])
    ((together,), (change,)) = found.found, found.found[0].changes
    # half of that hour was slower, and the hour before it may be so by its noise alone
    assert found.unit.text(together.at) in [f"2026-08-02T{hour}:00Z" for hour in (13, 14, 15)]
    assert change.new and change.worse and found.status == 1 and change.ratio == pytest.approx(1.3, abs=0.04)
    assert change.points_before + change.points_after == 48
    assert together.differences[0][0] == "version" and not together.of_machines
    assert trend(opened(folder), unit=UNITS["hour"], new=5).status == 0
    assert trend(opened(folder)).short == 1  # two days say nothing by the day


def test_the_median_is_over_hosts_of_medians(tmp_path: Path) -> None:
    made = Days()
    for host, values in {"a": [1, 2, 90], "b": [5], "c": [7, 9]}.items():
        for number, value in enumerate(values):
            made.run(host, number / 10, {"latency.p50": value})
    made.run("c", 0.9, {"latency.p50": 1000}, valid=False)
    made.run("e", 0.9, {"latency.p50": 1000}, machine={**MACHINE, "emulated": True})
    database = opened(made.write(tmp_path / "f"))
    make(database)
    (series,) = _series(database, ("service",), None, None, None)
    assert (series.values, series.hosts) == ((5.0,), (3,))


def test_what_the_machines_changed_is_named_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = {**MACHINE, "kernel": "6.8.0", "huge_pages": "always", "instance": "c7i.xlarge"}
    folder = fleet(tmp_path / "f", 1.2, 50, machine=machine, version="v2", go_version="go1.27.3")
    (together,) = trend(opened(folder)).found
    names = [name for name, _, _ in together.differences]
    assert names == ["instance", "kernel", "huge_pages", "go_version", "version"]
    with pytest.raises(SystemExit) as ended:
        main(["fleet", "trend", folder])
    text = capsys.readouterr().out
    assert ended.value.code == 1
    assert (
        text.index("kernel: 6.1.0 -> 6.8.0")
        < text.index("go version: go1.26.1 -> go1.27.3")
        < text.index("version: v1 -> v2")
    )
    assert "2026-09-20" in text and "+19.4%" in text


def test_histograms_of_agents(tmp_path: Path) -> None:
    """p99 of a day is that of all its values, within a bucket; nothing of a day with too few."""
    rng = np.random.default_rng(5)
    of = {"host": "a", "fingerprint": "x", "service": "shop", "version": "v1", "metric": "stw.total", "source": "s"}
    hist, total, every = [], [], []
    for minute in range(10):
        values = rng.lognormal(-8, 1, 100)
        every += values.tolist()
        where = {**of, "start_ns": FIRST + minute * 60 * 10**9}
        buckets, counts = np.unique(np.ceil(np.log2(values) * 32).astype(int), return_counts=True)
        hist += [
            {**where, "label": "", "bucket": b, "n": n} for b, n in zip(buckets.tolist(), counts.tolist(), strict=True)
        ]
        total.append({**where, "label": "", "count": 101, "zeros": 1})
    hist.append({**of, "label": "", "start_ns": FIRST + 3 * DAY_NS, "bucket": 3, "n": 99})
    hist.append({**of, "label": "", "start_ns": FIRST + 4 * DAY_NS, "bucket": 3, "n": 9999, "source": "of runs"})
    every += [0.0] * 10
    database = opened(
        Days().write(
            tmp_path / "f", hist=hist, total=total, source=[{"source": "of runs", "kind": "baseline", "added_ns": FIRST}]
        )
    )
    make(database)
    rows = {(metric, day): value for metric, day, value in database.rows("select metric, point, value from points")}
    day = FIRST // DAY_NS
    assert set(rows) == {("stw.total.p50", day), ("stw.total.p99", day), ("stw.total.p50", day + 3)}
    for percent in (50, 99):
        exact = np.percentile(every, percent, method="inverted_cdf") * 1e9
        assert rows[f"stw.total.p{percent}", day] == pytest.approx(exact, rel=0.0111)


def test_the_middle_of_a_bucket_is_the_same_in_python_and_in_sql() -> None:
    found = duckdb.sql(f"select bucket, {middle_sql('bucket')} from range(-960, 1100) of(bucket)").fetchall()
    for bucket, middle in found:
        assert middle == pytest.approx(middle_ns(bucket), rel=1e-14)
        low, high = (2 ** (end / 32) * 1e9 for end in (bucket - 1, bucket))
        assert low < middle < high and max(middle / low, high / middle) < 1.011


def test_many_series_of_noise(tmp_path: Path) -> None:
    """At q 0.05 over all of them: in 20 fleets of 60 series no more than a false alarm or two; and q is SciPy's."""
    from gotrace.fleet.trend import Series

    rng = np.random.default_rng(6)
    alarms, days = 0, tuple(range(60))
    for _ in range(20):
        rows = [
            Series(
                (),
                f"m{n}",
                "",
                days,
                tuple((1 + 0.03 * rng.normal(size=60) + 0.35 * (rng.random(60) < 0.05)).tolist()),
                days,
            )
            for n in range(60)
        ]
        alarms += bool(list(_changes(rows, 1199, 0)))
    assert alarms <= 3
    rows[5] = Series((), "m5", "", days, tuple(np.repeat([1.0, 1.2], 30).tolist()), days)
    (change,) = _changes(rows, 1199, 0)
    assert change.p == 1 / 1200
    assert change.q == pytest.approx(float(false_discovery_control([change.p] + [1.0] * 59)[0]))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fleet(tmp_path / "f", 1.0, 5, days=10)

    def ended(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["fleet", "trend", folder, *arguments])
        return (int(end.value.code or 0), *capsys.readouterr())

    status, text, _ = ended()
    assert status == 0 and "at least 14 days" in text
    status, text, _ = ended("--format", "json")
    assert json.loads(text)["too_short"] == 2
    schema = json.loads(ended("--json-schema")[1])
    jsonschema.validate(json.loads(text), schema)
    slower = fleet(tmp_path / "slower", 1.2, 50, version="v2")
    with pytest.raises(SystemExit):
        main(["fleet", "trend", slower, "--format", "json"])
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, schema)
    assert told["changes"][0]["at"] == "2026-09-20" and told["per"] == "day"
    assert ended("--since", "36h")[0] == 2 and ended("--since", "13h", "--per", "hour")[0] == 2
    assert ended("--metric", "nothing")[0] == 2 and ended("--by", "moon")[0] == 2 and ended("--since", "x")[0] == 2
    (broken, *_) = sorted((tmp_path / "f" / "value").glob("*/*.parquet"))
    broken.write_bytes(b"PAR1")
    status, text, _ = ended()
    assert status == 3 and broken.name in text

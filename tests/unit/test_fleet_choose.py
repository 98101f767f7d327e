"""A choice of machines against answers by hand, the front by brute force, and intervals by SciPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from fleet_days import MACHINE, Days
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, mannwhitneyu

from gotrace.cli.main import main
from gotrace.errors import UsageError
from gotrace.fleet.choose import Choice, budget_of, choose, pareto
from gotrace.fleet.choose_burst import burstable
from gotrace.fleet.database import opened
from gotrace.fleet.prices import Price, read, usable
from gotrace.lab.requirements import parse_all

MS = 10**6
SLOS = parse_all(["latency.p99<=80ms", "stw.total.p99<=1ms"])
HEAD = "provider,instance,region,per_hour,currency,date,origin\n"
TYPES = {  # p99 in ms, STW p99 in ms, rate, price, spread between hosts
    "small": (70, 0.8, 1000, 0.036, 0.02),
    "large": (40, 0.2, 2000, 0.144, 0.02),
    "steady": (75, 0.8, 1000, 0.072, 0.001),
    "worse": (72, 0.9, 900, 0.040, 0.03),  # than small, in everything
    "slow": (79, 0.5, 3000, 0.010, 0.05),  # the interval reaches above 80 ms
    "stopping": (30, 1.5, 9000, 0.010, 0.01),
}


def add(made: Days, name: str, values: tuple[float, ...], hosts: int = 6, runs: int = 4, **more: Any) -> None:
    p99, stw, rate, _, spread = values
    for host in range(hosts):
        factor = 1 + spread * (host - (hosts - 1) / 2)
        for number in range(runs):
            metrics = {"latency.p99": p99 * MS * factor, "stw.total.p99": stw * MS * factor, "throughput": rate / factor}
            made.run(f"{name}-{host}", (0.1, 0.3, 1.3, 1.9)[number], metrics, machine={**MACHINE, "instance": name}, **more)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = Days()
    for name, values in TYPES.items():
        add(made, name, values)
    add(made, "few", TYPES["large"], hosts=4)
    add(made, "brief", TYPES["large"], runs=1)
    made.run("only-latency-1", 0, {"latency.p99": MS}, machine={**MACHINE, "instance": "unmeasured"})
    return made.write(tmp_path_factory.mktemp("fleet") / "f")


def price(name: str, per_hour: float, **changed: Any) -> Price:
    of = {"region": "eu-central-1", "currency": "USD", "date": "2026-11-01", "origin": "list", **changed}
    return Price("aws", name, per_hour=per_hour, **of)


PRICES = usable([price(name, values[3]) for name, values in TYPES.items()], None, None)


def named(choice: Choice) -> dict[str, str]:
    return {each.instance: each.cut for each in choice.candidates}


def test_by_hand(fleet: str) -> None:
    """small costs 0.036 / 3.6 = 0.01 a million, steady 0.02, large 0.144 / 7.2 = 0.02 (and is faster, less steady)."""
    choice = choose(opened(fleet), SLOS, PRICES)
    cut = named(choice)
    assert cut["few"] == "not enough: 4 of 5 hosts"
    assert cut["brief"] == "not enough: 1 of 3 quarters of the day, 1 of 2 days"
    assert cut["unmeasured"] == "not measured: stw.total.p99"
    assert cut["slow"].startswith("latency.p99 79.0 ms (") and cut["stopping"].startswith("stw.total.p99 1.50 ms (")
    assert [each.instance for each in choice.beaten] == ["worse"] and choice.beaten[0].beaten_by == "aws small"
    assert [(rule.take.instance, rule.when) for rule in choice.rules] == [
        ("small", "the cheapest that meets every limit"),
        ("large", "if latency.p99 must be below 70.0 ms"),
        ("steady", f"if hosts and days must differ by less than {choice.rules[0].take.spread:.1%}"),
    ]
    costs = {each.instance: each.cost.value for each in choice.candidates if each.cost}
    assert costs["small"] == pytest.approx(0.01, rel=1e-3) and costs["large"] == pytest.approx(0.02, rel=1e-3)
    small = next(each for each in choice.candidates if each.instance == "small")
    assert small.stability.between == pytest.approx(np.std(np.log(1 + 0.02 * (np.arange(6) - 2.5)), ddof=1))
    assert small.stability.within == pytest.approx(0)
    assert (small.runs, small.enough) == (24, (6, 3, 2))
    hosts = {each.instance: list(each.measured.hosts["latency.p99"].values()) for each in choice.candidates}
    assert mannwhitneyu(hosts["small"], hosts["worse"]).pvalue > 0.05
    assert set(choice.beaten[0].letters) & set(small.letters) and not set(choice.rules[1].take.letters) & set(small.letters)


def test_a_metric_that_nothing_has(tmp_path: Path) -> None:
    made = Days()
    made.run("one", 0, {"latency.p50": MS})
    choice = choose(opened(made.write(tmp_path / "f")), SLOS, {})
    assert not choice.candidates and choice.status == 1
    assert "Nothing in the fleet has a value of latency.p99 or stw.total.p99 for " in choice.notes[-1]


def test_the_end_of_the_interval_decides(fleet: str) -> None:
    """A type whose median keeps the limit and whose interval does not is out; so is one that is at least so fast."""
    slow = next(each for each in choose(opened(fleet), SLOS, PRICES).candidates if each.instance == "slow")
    of = slow.measured.estimates["latency.p99"]
    assert of.value < 80 * MS < of.high
    faster = choose(opened(fleet), parse_all(["throughput>=990/s", "latency.p99<=100ms"]), PRICES)
    assert named(faster)["small"] and not named(faster)["steady"] and faster.metric == "latency.p99"


def test_interval_is_that_of_scipy(tmp_path: Path) -> None:
    made, rng = Days(), np.random.default_rng(4)
    values = rng.lognormal(3, 0.2, 12)
    for host, value in enumerate(values):
        made.run(f"h{host}", 0, {"latency.p99": value * MS})
    (found,) = choose(opened(made.write(tmp_path / "f")), parse_all(["latency.p99<=1s"]), {}).candidates
    theirs = bootstrap((values,), np.median, n_resamples=20_000, method="BCa", random_state=1).confidence_interval
    of = found.measured.estimates["latency.p99"]
    assert of.value == pytest.approx(np.median(values) * MS)
    assert (of.low, of.high) == (pytest.approx(theirs.low * MS, rel=0.03), pytest.approx(theirs.high * MS, rel=0.03))


def test_the_rate_is_the_highest_load_that_keeps_all(tmp_path: Path) -> None:
    made = Days()
    for plan, p99, rate in (("a", 10, 100), ("b", 60, 500), ("c", 200, 900)):
        add(made, "c7g.xlarge", (p99, 0.1, rate, 0, 0.01), plan=plan)
    (found,) = choose(opened(made.write(tmp_path / "f")), SLOS, {}).candidates
    assert found.measured.plan == "b" and found.measured.estimates["throughput"].value == pytest.approx(500, rel=0.01)


def test_budget_and_no_prices(fleet: str) -> None:
    database = opened(fleet)
    within = choose(database, SLOS, PRICES, budget_of("0.072/h"))
    assert [rule.take.instance for rule in within.rules] == ["small", "steady"]
    assert "0.144 USD/h in eu-central-1 (list, 2026-11-01)" in named(within)["large"]
    without = choose(database, SLOS, {})
    assert without.rules[0].take.instance == "large" and "No prices" in without.notes[0] and not without.by_cost
    with pytest.raises(UsageError):
        choose(database, SLOS, {}, 1.0)
    for bad in ("0.12", "x/h", "0/h", "-1/h", "nan/h", "0.12/d"):
        with pytest.raises(UsageError):
            budget_of(bad)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_the_front_by_brute_force(rows: list[tuple[int, int, int]]) -> None:
    def beats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    assert pareto(rows).tolist() == [not any(beats(other, row) for other in rows) for row in rows]


@pytest.mark.parametrize(
    ("of", "is_one"),
    [
        ("aws t3.micro", True),
        ("aws t4g.2xlarge", True),
        ("aws c7g.xlarge", False),
        ("aws trn1.2xlarge", False),
        ("azure Standard_B2ats_v2", True),
        ("azure Standard_D2s_v5", False),
        ("gcp e2-small", True),
        ("gcp e2-standard-2", False),
        ("hetzner t3.micro", False),
    ],
)
def test_burstable(of: str, is_one: bool) -> None:
    assert (burstable(*of.split()) is not None) == is_one


def test_a_machine_on_credits_beats_no_other(tmp_path: Path) -> None:
    made = Days()
    for name in ("t3.large", "m7i.large"):
        add(made, name, TYPES["large"])
    prices = usable([price("t3.large", 0.01), price("m7i.large", 0.1)], None, None)
    choice = choose(opened(made.write(tmp_path / "f")), SLOS, prices)
    assert [rule.take.instance for rule in choice.rules] == ["t3.large", "m7i.large"]
    assert choice.rules[1].when == "the cheapest that is not burstable" and choice.rules[1].unsure == "aws t3.large"


def test_rules_among_types_that_are_not_burstable(tmp_path: Path) -> None:
    """Where one on credits is better than each of them: which is the cheapest, and why one would pay more."""
    made = Days()
    types = {"t3.large": (40, 0.2, 2000, 0.01, 0.001), "m7i.large": (70, 0.8, 1000, 0.036, 0.02)}
    types["c7i.large"] = (60, 0.8, 1000, 0.05, 0.03)
    for name, values in types.items():
        add(made, name, values)
    database = opened(made.write(tmp_path / "f"))
    choice = choose(database, SLOS, usable([price(name, values[3]) for name, values in types.items()], None, None))
    assert [(rule.take.instance, rule.when) for rule in choice.rules] == [
        ("t3.large", "the cheapest that meets every limit"),
        ("m7i.large", "the cheapest that is not burstable"),
        ("c7i.large", "if latency.p99 must be below 70.0 ms on a type that is not burstable"),
    ]
    choice = choose(database, SLOS[1:], usable([price("T3.large", 1)], None, None))
    assert [rule.when for rule in choice.rules] == [
        "the best stw.total.p99",
        "the best stw.total.p99 that is not burstable",
    ]
    assert choice.notes[0].endswith("ranked by stw.total.p99.")
    assert choice.notes[1] == "There are prices for other types: aws T3.large."


def test_burstable_unless_past_its_credits(tmp_path: Path) -> None:
    made = Days()
    for name, hours in (("t3.micro", 15), ("t4g.micro", 17)):
        for host in range(5):
            machine = {**MACHINE, "instance": name}
            for number in range(4):
                metrics = {"latency.p99": 10 * MS, "cpu": 3.9}
                made.run(f"{name}-{host}", number * 0.8, metrics, machine=machine, length_ns=hours * 3600 * 10**9)
    choice = choose(opened(made.write(tmp_path / "f")), SLOS[:1], {})
    assert [each.past_credits for each in choice.candidates] == [False, True]
    assert sum("spends CPU credits" in note for note in choice.notes) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("provider,instance\n", "no column"),
        (f"{HEAD}aws,a,,x,USD,2026-01-01,l\n", "line 2"),
        (f"{HEAD}aws,a,,-1,USD,2026-01-01,l\n", "not a price per hour"),
        (f"{HEAD}aws,a,,nan,USD,2026-01-01,l\n", "not a price per hour"),
        (f"{HEAD}aws,a,,1,$,2026-01-01,l\n", "no currency"),
        (f"{HEAD}aws,a,,1,USD,yesterday,l\n", "no date"),
        (f"{HEAD},a,,1,USD,2026-01-01,l\n", "provider is empty"),
        (f"{HEAD}aws,a,,1,USD,2026-01-01,l,more\n", "more values"),
        (f"{HEAD}aws,a,,1\n", "currency is empty"),
    ],
)
def test_prices_that_cannot_be_right(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UsageError, match=says):
        read(str(tmp_path / "p.csv"))


def test_prices() -> None:
    """The newest of a region, the lowest of regions; never two currencies."""
    found = usable([price("a", 3), price("a", 2, date="2026-10-01"), price("a", 2.5, region="us")], None, None)
    assert found["aws", "a"].per_hour == 2.5
    assert usable([price("a", 3), price("a", 2.5, region="us")], None, "eu-central-1")["aws", "a"].per_hour == 3
    mixed = [price("a", 3), price("b", 2, currency="EUR")]
    with pytest.raises(UsageError, match="in EUR and USD, which are not converted") as refused:
        usable(mixed, None, None)
    assert refused.value.hint == "choose one: --currency EUR"
    with pytest.raises(UsageError, match="no prices for --currency usd --region eu-central-1") as refused:
        usable(mixed, "usd", "eu-central-1")
    assert refused.value.hint == "there are prices: EUR in eu-central-1, USD in eu-central-1"
    assert set(usable(mixed, "EUR", None)) == {("aws", "b")}
    with pytest.raises(UsageError, match="two prices"):
        usable([price("a", 3), price("a", 4)], None, None)


def test_what_all_types_cost_with_the_front(fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cost of a million and p99: slow 0.00093 and 79 ms, small 0.01 and 70 ms, large 0.02 and 40 ms; no other is on it."""
    csv, page = tmp_path / "p.csv", tmp_path / "page.html"
    priced = [name for name in TYPES if name != "stopping"] + ["few"]
    csv.write_text(HEAD + "".join(f"aws,{name},,{TYPES.get(name, [0.01] * 4)[3]},USD,2026-11-01,list\n" for name in priced))

    def show(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["fleet", "show", fleet, "--metric", "throughput", *arguments])
        assert not end.value.code
        return capsys.readouterr().out

    found = json.loads(show("--prices", str(csv), "--format", "json", "-o", str(page)))
    jsonschema.validate(found, json.loads(show("--json-schema")))
    (costs,) = found["costs"]
    assert costs["front"] == ["aws large", "aws slow", "aws small"]
    assert {each["type"]: each["why"] for each in costs["without"]} == {
        **dict.fromkeys(("aws brief", "aws stopping", "aws unmeasured"), "no price is known")
    }
    of = {each["instance"]: each for each in costs["types"]}
    assert of["slow"]["cost_of_a_million"]["value"] == pytest.approx(0.01 / 3000 / 3600 * 1e6, rel=1e-3)
    assert of["few"]["cut"] == "not enough: 4 of 5 hosts" and of["few"]["cost_of_a_million"]["low"] is None
    assert '"kind":"costs"' in page.read_text() and "Cost of a million requests of shop" in show("--prices", str(csv))
    assert json.loads(show("--format", "json"))["costs"] == []


def test_command(fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ended(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["fleet", "choose", fleet, *arguments])
        return (int(end.value.code or 0), *capsys.readouterr())

    csv = tmp_path / "p.csv"
    csv.write_text(HEAD + "".join(f"aws,{name},<b>,{values[3]},USD,2026-11-01,list\n" for name, values in TYPES.items()))
    slos = ["--slo", "latency.p99<=80ms", "--slo", "stw.total.p99<=1ms"]
    outputs = [tmp_path / f"tree.{ending}" for ending in ("svg", "html", "json", "md")]
    arguments = [*slos, "--prices", str(csv), *(part for path in outputs for part in ("-o", str(path)))]
    status, text, error = ended(*arguments)
    assert status == 0, error
    assert "within 0.036 USD/h: aws small" in text and "if latency.p99 must be below 70.0 ms" in text
    assert "4 of 5 hosts" in text and "beaten by aws small" in text and "2026-08-01" in text
    svg, page, tree, markdown = (path.read_text() for path in outputs)
    assert "aws small" in "".join(ElementTree.fromstring(svg).itertext())
    assert '"kind":"costs"' in page and "<b>" not in page and "&lt;b&gt;" in page and "aws small" in markdown
    found = json.loads(tree)
    schema = json.loads(ended("--json-schema")[1])
    jsonschema.validate(found, schema)
    bare = json.loads(ended("--slo", "latency.p99<=1ms", "--format", "json")[1])  # no type, and no price
    jsonschema.validate(bare, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**bare, "types": [{**bare["types"][0], "runs": None}]}, schema)
    assert [each["take"] for each in found["rules"]] == ["aws small", "aws large", "aws steady"]
    assert ended(*slos, "--prices", str(csv), "--budget", "0.001/h")[0] == 1
    for bad in (
        ["--slo", "nothing<=1ms"],
        [],
        [*slos, "--service", "x"],
        [*slos, "--budget", "1/h"],
        ["--slo", "cpu==1CPUs"],
    ):
        assert ended(*bad)[0] == 2, bad

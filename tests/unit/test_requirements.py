"""What is required of a run: how it is read, what of it is refused, and what meets it."""

from __future__ import annotations

from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotrace.errors import UsageError
from gotrace.lab.metrics import MEASURED_IN, METRICS, PRIMARY, Dimension, Metric, find, least_values
from gotrace.lab.requirements import UNITS, Requirement, evaluate, parse, parse_all, parse_quantity, verdict
from gotrace.text import percent_text

# A unit of each dimension, written out: so many of the base unit.
SIZES = {
    "ns": "1", "us": "1000", "ms": "1000000", "s": "1000000000", "min": "60000000000",
    "B": "1", "kB": "1000", "MB": "1000000", "GB": "1000000000", "KiB": "1024", "MiB": "1048576", "GiB": "1073741824",
    "/s": "1", "/min": "1/60", "/h": "1/3600", "%": "1/100", "CPUs": "1", "": "1",
}  # fmt: skip
OPERATORS = ("<=", "<", ">=", ">", "==")


def of(dimension: Dimension) -> Metric:
    """The metric that is measured in it, and in nothing else."""
    return next(each for each in METRICS.values() if each.dimension == dimension)


def numbers() -> st.SearchStrategy[str]:
    digits = st.text("0123456789", min_size=1, max_size=12)
    whole = st.tuples(st.sampled_from(["", "-", "+"]), digits).map("".join)
    return st.one_of(whole, st.tuples(whole, digits).map(".".join))


@st.composite
def requirements(draw: st.DrawFn) -> str:
    metric = METRICS[draw(st.sampled_from(sorted(METRICS)))]
    unit = draw(st.sampled_from(sorted(UNITS[metric.dimension])))
    spaces = st.sampled_from(["", " ", "  ", "\t"])
    number = draw(numbers())
    return f"{metric.name}{draw(spaces)}{draw(st.sampled_from(OPERATORS))}{draw(spaces)}{number}{draw(spaces)}{unit}"


@given(st.lists(requirements(), min_size=1, max_size=4))
def test_what_is_printed_is_read_as_the_same(texts: list[str]) -> None:
    read = parse(" and ".join(texts))
    assert read == parse_all(texts)
    assert parse(" and ".join(map(str, read))) == read
    assert [str(each) for each in parse_all(map(str, read))] == [str(each) for each in read]


@given(numbers(), st.sampled_from([(dimension, unit) for dimension, units in UNITS.items() for unit in units]))
def test_units_convert_exactly(number: str, place: tuple[Dimension, str]) -> None:
    dimension, unit = place
    value = parse_quantity(f"{number} {unit}", of(dimension).name).value
    size, _, per = unit.partition("/")
    factor = Fraction(SIZES[size]) * (Fraction(SIZES[f"/{per}"]) if per else 1)
    assert value == Fraction(number) * factor


def test_every_dimension_has_units_and_metrics() -> None:
    assert set(UNITS) == set(MEASURED_IN) == set(get_args(Dimension)) == {each.dimension for each in METRICS.values()}


@given(st.one_of(
    st.text(),
    st.text("latency.p9 <=>28mskiB/%,'and-+_\u00b5\x1b\n", max_size=40),
    st.lists(st.sampled_from([
        "latency.p99", "rss.growth", "cpu", "<=", "==", "=", "<", "28", "-", ".", "1e5", "ms", "%", "/", "s", "MiB", "CPUs",
        " ", "and", ",", "_", "9" * 40, "\u0660",
    ]), max_size=10).map("".join),
    requirements().flatmap(lambda text: st.integers(0, len(text)).map(lambda at: text[:at] + text[at + 1 :])),
))  # fmt: skip
def test_garbage_is_refused_by_an_error_for_people(text: str) -> None:
    for metric in ("latency.p99", "rss.growth", "mem.amplification"):
        for read in (parse, lambda each, metric=metric: parse_quantity(each, metric)):
            try:
                read(text)
            except UsageError as error:
                assert error.exit_code == 2
                assert error.hint
                assert (error.message + error.hint).isprintable()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "an empty requirement", "for example"),
        ("latncy.p99 <= 1ms", "no metric 'latncy.p99'", "did you mean latency.p99"),
        ("p99 <= 1ms", "no metric 'p99'", "latency.p99"),
        ("qwertyuiop <= 1ms", "no metric", "metrics begin with throughput, latency, errors, stw, gc, alloc, rss"),
        ("latency <= 1ms", "'latency' is several metrics", "latency.p50, latency.p90"),
        ("latency.p99 <= 1MiB", "latency.p99 is not measured in MiB", "measured in time (ns, us, ms, s, min)"),
        ("latency.p99 <= 28", "latency.p99 needs a unit", "measured in time"),
        ("throughput >= 12500", "throughput needs a unit", "/s, /min, /h"),
        ("throughput >= 12,500/s", "without thousands separators", "write 12500"),
        ("throughput >= 1'250'000.5/s", "without thousands separators", "write 1250000.5"),
        ("throughput >= 12_500/s", "without thousands separators", "write 12500"),
        ("rss.peak <= 64mib", "no unit 'mib'", "did you mean MiB?"),
        ("rss.growth <= 1MiB", "not measured in MiB", "bytes per time"),
        ("rss.growth <= 1MiB/day", "no unit 'MiB/day'", "/s, /min, /h"),
        ("mem.amplification <= 2x", "no unit 'x'", "a plain number"),
        ("mem.amplification <= 200%", "not measured in %", "a plain number"),
        ("errors.share <= 0.01", "needs a unit", "%"),
        ("latency.p99 = 1ms", "'=' is not a comparison", "write =="),
        ("latency.p99 \u2264 1ms", "expected <=", "write <= or >="),
        ("latency.p99 <= ms", "expected a number", "measured in time"),
        ("latency.p99", "expected <=", "for example"),
        ("latency.p99 <= 1ms or cpu < 2 CPUs", "expected 'and'", "joined by 'and'"),
        ("latency.p99 <= 1ms and", "expected a metric, at the end", "for example"),
        ("28ms >= latency.p99", "expected a metric, at '28ms", "for example"),
        ("latency.p99 <= " + "9" * 31 + "ms", "at most 30 digits", "larger unit"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("stw.total.p99 <= 350us", "stw.total.p99 <= 350us"),
        ("latency.p99.9<28 \u00b5s", "latency.p99.9 < 28us"),
        ("latency.max < 28\u03bcs", "latency.max < 28us"),
        ("rss.growth <= 1 MiB/min", "rss.growth <= 1MiB/min"),
        ("rss.growth <= 2%", "rss.growth.share <= 2%"),
        ("cpu <= 3.50 cpu", "cpu <= 3.50 CPUs"),
        ("errors.share == 0", "errors.share == 0"),
        ("mem.amplification < 1.5", "mem.amplification < 1.5"),
    ],
)
def test_what_may_be_written_otherwise(text: str, read: str) -> None:
    assert [str(each) for each in parse(text)] == [read]


def one(text: str) -> Requirement:
    (requirement,) = parse(text)
    return requirement


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("latency.p99 <= 28ms", {27.999e6: "met", 28e6: "met", 28.001e6: "broken"}),
        ("latency.p99 < 28ms", {27.999e6: "met", 28e6: "broken"}),
        ("throughput >= 12500/s", {12500.0: "met", 12499.9: "broken"}),
        ("throughput > 12500/s", {12500.0: "broken"}),
        ("errors.share == 0", {0.0: "met", 1e-9: "broken"}),
        ("rss.growth <= 1MiB/min", {1048576 / 60: "met", 17500.0: "broken", -5e9: "met"}),
        # as floats: 2 % is not a fraction of two
        ("gc.cpu_share <= 2%", {0.02: "met", 0.0201: "broken"}),
        ("gc.cpu_share == 2%", {0.02: "met"}),
        ("rss.growth <= 2%", {0.02: "met"}),
        ("cpu <= 3.5 CPUs", {float("inf"): "broken"}),
    ],
)
def test_what_meets_it(text: str, values: dict[float, str]) -> None:
    requirement = one(text)
    for value, expected in values.items():
        assert requirement.check({requirement.metric: value}).verdict == expected


def test_unknown_is_not_met() -> None:
    requirement = one("latency.p99 <= 28ms")
    for values in ({}, {"latency.p99": None}, {"latency.p99": float("nan")}, {"latency.p50": 1.0}):
        outcome = requirement.check(values)
        assert (outcome.verdict, outcome.value) == ("unknown", None)
        assert str(outcome) == "latency.p99 is ?, required <= 28ms"


def test_all_together() -> None:
    both = parse("latency.p99 <= 28ms and throughput >= 100/s")
    values: dict[str, float | None] = {"latency.p99": 31.2e6, "throughput": 12_500.0}
    outcomes = evaluate(both, values)
    assert [str(each) for each in outcomes] == [
        "latency.p99 is 31.2 ms, required <= 28ms",
        "throughput is 12,500/s, required >= 100/s",
    ]
    assert [each.verdict for each in outcomes] == ["broken", "met"]
    assert verdict(outcomes) == "broken"
    assert verdict(evaluate(both, {**values, "latency.p99": 1.0})) == "met"
    assert verdict(evaluate(both, {"throughput": 1e6})) == "unknown"
    assert verdict(evaluate(both, {"throughput": 1.0})) == "broken"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("latency.p99", 28e6, "28.0 ms"),
        ("rss.peak", 3 << 29, "1.50 GiB"),
        ("rss.growth", 1048576 / 60, "1.00 MiB/min"),
        ("throughput", 12_543.2, "12,543/s"),
        ("gc.cycles_per_s", 0.2345, "0.234/s"),
        ("gc.cpu_share", 0.0255, "2.55%"),
        ("cpu", 3.456, "3.46 CPUs"),
        ("cpu", 1.0, "1 CPU"),
        ("mem.amplification", 1.5, "1.5"),
        ("cpu.per_request", 81_250.0, "81.2 us"),
        ("latency.p99", None, "?"),
    ],
)
def test_values_for_people(name: str, value: float | None, shown: str) -> None:
    assert find(name).text(value) == shown


def test_percent_text() -> None:
    assert [percent_text(share) for share in (0, 0.00012, 0.0025, 0.125, 0.9994, 0.9996, 1, 12.5, -0.031)] == [
        "0%", "0.012%", "0.25%", "12.5%", "99.9%", "100%", "100%", "1250%", "-3.1%"
    ]  # fmt: skip


def test_the_metrics() -> None:
    load, pauses = ("throughput", "latency.p50", "latency.p99"), ("stw.total.p99", "stw.total.max")
    assert (*load, *pauses, "gc.cpu_share", "alloc.per_request", "rss.peak", "rss.growth") == PRIMARY
    assert [name for name, metric in METRICS.items() if metric.better == "more"] == ["throughput", "sched.binding.p95"]
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.meaning
        assert "\n" not in metric.meaning
        assert not metric.as_share or METRICS[metric.as_share].dimension == "share"


def test_the_values_that_a_percentile_needs() -> None:
    needed = {"p50": 6, "p90": 36, "p95": 72, "p99": 368, "p99.9": 3688}
    assert {name: least_values(name) for name in needed} == needed
    for name in METRICS:
        first, _, percentile = name.rpartition(".p")
        assert least_values(name) == needed.get(f"p{percentile}" if first else "", 1)

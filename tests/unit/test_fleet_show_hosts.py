"""Statistics over hosts, against scipy and answers worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gotrace.fleet.show_hosts import Enough, letters, letters_of, median_of, quarters, stability


@pytest.mark.parametrize("count, method", [(5, "percentile"), (7, "percentile"), (9, "BCa"), (15, "BCa"), (41, "BCa")])
def test_the_interval_of_a_median_is_scipys(count: int, method: str) -> None:
    """scipy draws other numbers: ends may be a neighbour's where the level lies just between two hosts."""
    values = np.exp(np.random.default_rng(count).normal(0, 0.3, count))
    found = median_of(values.tolist())
    true = stats.bootstrap((values,), np.median, n_resamples=10_000, method=method, rng=np.random.default_rng(5))
    row = np.sort(values)

    def place(value: float) -> int:
        return int(np.searchsorted(row, value * (1 - 1e-12)))

    assert found.value == np.median(values) and found.confidence == 0.95
    assert abs(place(found.low) - place(true.confidence_interval.low)) <= 1
    assert abs(place(found.high) - place(true.confidence_interval.high)) <= 1
    assert median_of(values.tolist()) == found  # seeded


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(100):
        found = median_of(np.exp(rng.normal(0, 0.5, 12)).tolist())
        hits += found.low <= 1 <= found.high
    assert hits >= 88


def test_too_few_hosts_have_no_interval() -> None:
    assert median_of([1.0, 2.0, 9.0, 4.0]).value == 3
    assert math.isinf(median_of([1.0, 2.0, 9.0, 4.0]).low)
    equal = median_of([7.0] * 9)
    assert (equal.value, equal.low, equal.high) == (7, 7, 7)


def test_letters_by_hand() -> None:
    """Of the means A 1, B 2, C 3, D 4, E 5 those at least three apart differ, but for B and E: C is like all others."""
    assert letters_of("ABCDE", [("A", "D"), ("A", "E")]) == {"A": "a", "B": "ab", "C": "ab", "D": "b", "E": "b"}
    assert letters_of("ABCDE", [("A", "D"), ("A", "E"), ("B", "E")]) == {
        "A": "a",
        "B": "ab",
        "C": "abc",
        "D": "bc",
        "E": "c",
    }
    assert letters_of("AB", []) == {"A": "a", "B": "a"}
    assert letters_of("ABC", itertools.combinations("ABC", 2)) == {"A": "a", "B": "b", "C": "c"}  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 7).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.sampled_from([*itertools.combinations(range(n), 2)])))
    )
)
def test_two_groups_share_a_letter_exactly_if_they_do_not_differ(drawn: tuple[int, set[tuple[int, int]]]) -> None:
    count, pairs = drawn
    names = [f"g{number}" for number in range(count)]
    found = letters_of(names, [(names[a], names[b]) for a, b in sorted(pairs)])
    for a, b in itertools.combinations(range(count), 2):
        assert bool(set(found[names[a]]) & set(found[names[b]])) == ((a, b) not in pairs)
    columns = Counter(letter for of in found.values() for letter in of)
    assert all(columns.values())


def test_p_values_are_scipys_with_holm() -> None:
    groups = {"a": [1.0, 2, 3, 4, 5.5], "b": [5.0, 6, 7, 8, 9], "c": [20.0, 21, 22, 23, 24]}
    found = letters(groups)
    raw = {
        pair: stats.mannwhitneyu(groups[pair[0]], groups[pair[1]], method="exact").pvalue
        for pair in itertools.combinations("abc", 2)
    }
    order = sorted(raw, key=lambda pair: raw[pair])
    most, holm = 0.0, {}
    for at, pair in enumerate(order):
        most = max(most, min(1, raw[pair] * (3 - at)))
        holm[pair] = most
    assert found.p == pytest.approx(holm)
    assert found.of == {"a": "a", "b": "b", "c": "c"}


def test_spreads_between_and_within() -> None:
    """Hosts 0.1 apart in logarithms, each of them 0.02 from one quarter to the next."""
    rng = np.random.default_rng(1)
    hosts = np.exp(rng.normal(0, 0.1, 4000))
    over_time = [np.exp(np.log(host) + rng.normal(0, 0.02, 4)).tolist() for host in hosts]
    found = stability(hosts.tolist(), over_time)
    assert found.between == pytest.approx(0.1, rel=0.05) and found.within == pytest.approx(0.02, rel=0.05)
    assert stability([1.0], [[1.0]]) == (None, None)
    assert stability([0.0, 1.0], []) == (None, None)


def test_what_is_enough() -> None:
    assert Enough(5, 3, 2).lacking == ""
    assert Enough(4, 1, 1).lacking == "4 of 5 hosts, 1 of 3 quarters of the day, 1 of 2 days"
    assert quarters(["8", "9", "13"]) == (2, 2)  # quarters 0 and 1 of day 2, and 1 of day 3

"""Change points against SciPy's energy distance, all permutations by brute force, and how often noise alone has one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import energy_distance, rankdata

from gotrace.analysis.stats.e_divisive import change_points, divergences, doubled_ranks, largest

ROWS = st.lists(st.integers(0, 9).map(float), min_size=2, max_size=30)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_divergences_are_those_of_scipy(row: list[float]) -> None:
    ranks = doubled_ranks(np.array(row))
    assert np.array_equal(ranks, 2 * rankdata(row))
    size = len(row)
    theirs = [m * (size - m) / size * energy_distance(ranks[:m], ranks[m:]) ** 2 for m in range(1, size)]
    assert divergences(ranks[None])[0] == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("row", [[1, 2, 3, 7, 8, 9, 10], [4, 1, 3, 2, 6, 5, 7], [1, 1, 1, 2, 1, 2, 2]])
def test_p_is_that_of_the_maximum_over_all_orders(row: list[float]) -> None:
    ranks = doubled_ranks(np.array(row, float))
    orders = np.array(list(itertools.permutations(ranks.tolist())))
    of_all = divergences(orders)[:, 1:5].max(axis=1)
    exact = (of_all >= divergences(ranks[None])[0, 1:5].max() - 1e-9).mean()
    _, p = largest(row, 19_999, side=2)
    assert p == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("outliers", [False, True])
def test_noise_alone_has_no_more_changes_than_p_says(outliers: bool) -> None:
    """3,000 series of 60 days: 3 are expected at 0.001 (10 or more in 0.1 % of cases), 150 at 0.05."""
    rng = np.random.default_rng(7)
    rows = 1 + rng.normal(0, 0.03, (3000, 60))
    if outliers:
        rows += 0.35 * (rng.random(rows.shape) < 0.05)
    p = np.array([largest(row)[1] for row in rows])
    assert (p <= 0.001).sum() < 10
    assert 100 < (p <= 0.05).sum() < 200


def test_planted_changes_are_found_where_they_are() -> None:
    rng = np.random.default_rng(8)
    for change, least in ((0.05, 0.65), (0.1, 0.99), (0.2, 0.99)):
        hits = 0
        for _ in range(200):
            row = 1 + rng.normal(0, 0.03, 60)
            row[40:] *= 1 + change
            hits += any(abs(place - 40) <= 3 for place, _ in change_points(row))
        assert hits / 200 >= least, (change, hits)


def test_several_changes_and_none() -> None:
    rng = np.random.default_rng(9)
    row = np.repeat([1.0, 1.3, 1.0], 30) + rng.normal(0, 0.03, 90)
    assert [place for place, _ in change_points(row)] == [30, 60]
    assert change_points([]) == [] == change_points([2.0] * 40)
    assert change_points([1.0] * 6 + [2.0] * 6) == []  # so few cannot show it

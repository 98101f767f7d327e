"""The short ones: corrections for many questions, Student's t, percentiles, marks, and what may go into a statistic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gotrace.analysis.stats import multiple, outliers, percentiles, student, values

quick = settings(deadline=None, max_examples=60)
probabilities = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.04, 0.05, 0.3, 1.0]) | st.floats(0, 1), max_size=7)
rows = st.lists(st.integers(-1000, 1000).map(lambda number: number / 8), min_size=2, max_size=12)


@quick
@given(probabilities)
def test_holm_is_the_closure_of_bonferroni(p: list[float]) -> None:
    """A hypothesis is rejected if every set of hypotheses that it belongs to is, by its smallest p times its size."""
    sets = [each for size in range(1, len(p) + 1) for each in itertools.combinations(range(len(p)), size)]
    expected = [
        max(min(1.0, len(each) * min(p[other] for other in each)) for each in sets if one in each) for one in range(len(p))
    ]
    assert multiple.holm(p).tolist() == pytest.approx(expected)


@quick
@given(probabilities)
def test_benjamini_hochberg_is_scipys(p: list[float]) -> None:
    assert multiple.benjamini_hochberg(p).tolist() == pytest.approx(list(stats.false_discovery_control(p)) if p else [])


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    for correct in (multiple.holm, multiple.benjamini_hochberg):
        with pytest.raises(ValueError, match="probability|NaN"):
            correct([0.5, bad])


def test_twenty_metrics_cry_wolf_and_holm_does_not() -> None:
    p = np.random.default_rng(3).uniform(size=(2000, 20))
    assert np.mean((p <= 0.05).any(axis=1)) == pytest.approx(0.64, abs=0.03)
    assert np.mean([(multiple.holm(row) <= 0.05).any() for row in p]) <= 0.06


@pytest.mark.filterwarnings("ignore:Precision loss")
@quick
@given(rows, rows)
def test_welch_is_scipys(a: list[float], b: list[float]) -> None:
    found = student.welch(a, b)
    if found is None:
        assert np.ptp(a) == np.ptp(b) == 0
        return
    theirs = stats.ttest_ind(b, a, equal_var=False)
    assert (found.t, found.freedom) == pytest.approx((theirs.statistic, theirs.df), rel=1e-6)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-5, abs=1e-300)


def test_welch_needs_two_values_that_vary() -> None:
    assert student.welch([1], [2, 3]) is None
    assert student.welch([1, 1], [2, 2]) is None
    with pytest.raises(ValueError, match="NaN"):
        student.welch([1, math.nan], [2, 2])


@quick
@given(st.floats(0.5, 1e5), st.floats(1e-6, 1 - 1e-6))
def test_quantiles_are_scipys(freedom: float, probability: float) -> None:
    assert student.quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("probability", "freedom"), [(0, 1), (1, 1), (0.5, 0), (math.nan, 1)])
def test_quantiles_of_nothing(probability: float, freedom: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        student.quantile(probability, freedom)


@pytest.mark.parametrize(("percentile", "needed"), [(50, 6), (90, 36), (99, 368), (99.9, 3688), (10, 36)])
def test_values_needed_for_an_interval(percentile: float, needed: int) -> None:
    assert percentiles.values_needed(percentile) == needed
    assert not percentiles.enough(needed - 1, percentile) and percentiles.enough(needed, percentile)
    assert percentiles.rank_interval(needed - 1, percentile) is None
    assert percentiles.rank_interval(needed, percentile) is not None
    # what the largest, or the smallest, of the values misses on its side
    far = max(percentile, 100 - percentile) / 100
    assert far**needed <= 0.025 < far ** (needed - 1)


@quick
@given(st.integers(1, 20_000), st.sampled_from([5, 50, 90, 99, 99.9]), st.sampled_from([0.9, 0.95]))
def test_rank_intervals_are_those_of_the_binomial(count: int, percentile: float, confidence: float) -> None:
    found = percentiles.rank_interval(count, percentile, confidence)
    if found is None:
        assert count < percentiles.values_needed(percentile, confidence)
        return
    low, high = found
    below = stats.binom(count, percentile / 100)
    error = (1 - confidence) / 2
    assert below.cdf(low - 1) <= error + 1e-9 < below.cdf(low) + 2e-9
    assert below.sf(high - 1) <= error + 1e-9 < below.sf(high - 2) + 2e-9


def test_rank_intervals_hold_the_percentile() -> None:
    rng = np.random.default_rng(4)
    low, high = percentiles.rank_interval(1000, 99) or (0, 0)
    samples = np.sort(rng.uniform(size=(2000, 1000)), axis=1)
    assert 0.945 < np.mean((samples[:, low - 1] <= 0.99) & (samples[:, high - 1] >= 0.99)) < 0.98


@pytest.mark.parametrize("percentile", [0, 100, -1, math.nan])
def test_percentiles_lie_between(percentile: float) -> None:
    with pytest.raises(ValueError, match="between"):
        percentiles.values_needed(percentile)


@quick
@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_marks_are_five_deviations_away(row: list[float]) -> None:
    found = outliers.marks(row)
    assert len(found) == len(row)
    assert found.sum() < max(len(row) / 2, 1)
    deviation = stats.median_abs_deviation(row, scale=1 / 1.4826) if row else 0
    if deviation > 0:
        assert found.tolist() == [abs(value - np.median(row)) > 5 * deviation for value in row]


def test_marks() -> None:
    assert outliers.marks([10, 11, 9, 10.5, 9.5, 30]).tolist() == [False] * 5 + [True]
    assert not outliers.marks([7.0] * 10).any()
    assert outliers.marks([7.0] * 9 + [8.0]).tolist() == [False] * 9 + [True]  # no median deviation
    assert not outliers.marks([7.0] * 6 + [8.0, 8.0, 9.0, 9.0]).any()
    assert not outliers.marks([1.0]).any() and not outliers.marks([1.0, 1e9]).any() and not outliers.marks([]).any()
    with pytest.raises(ValueError, match="NaN"):
        outliers.marks([1.0, math.nan])
    normal = np.random.default_rng(5).normal(size=(500, 10))
    assert np.mean([outliers.marks(row).any() for row in normal]) < 0.1


def test_what_may_go_in() -> None:
    assert values.logs([1, math.e]).tolist() == pytest.approx([0, 1])
    for bad in ([0.0], [-1.0]):
        with pytest.raises(ValueError, match="ratio"):
            values.logs(bad)
    with pytest.raises(ValueError, match="dimensions"):
        values.checked([[1.0]])
    assert values.spread([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert values.spread([1.0, 3.0], [10.0, 12.0], [5.0]) == pytest.approx(math.sqrt(2))
    assert math.isnan(values.spread([1.0]))

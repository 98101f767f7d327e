"""Whether the median run keeps a limit: against scipy, by simulation, and against the interval printed beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gotrace.analysis.stats.limits import LEAST_RUNS, hits_needed, median_of, more_than_half_p, runs_to_show


@settings(deadline=None)
@given(st.integers(1, 60).flatmap(lambda runs: st.tuples(st.just(runs), st.integers(0, runs))))
def test_chances_are_scipys(drawn: tuple[int, int]) -> None:
    runs, hits = drawn
    assert more_than_half_p(hits, runs) == pytest.approx(stats.binomtest(hits, runs, alternative="greater").pvalue)


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e9, 1e9).filter(lambda value: value != 0), min_size=1, max_size=40, unique=True),
    st.floats(-1e9, 1e9),
    st.sampled_from([0.05, 0.025]),
)
def test_the_interval_is_the_tests(values: list[float], limit: float, alpha: float) -> None:
    """Its upper end lies within the limit exactly if so many runs keep it that chance does not explain it."""
    interval = median_of(values, alpha)
    kept = sum(value <= limit for value in values)
    assert (interval.high <= limit) == (more_than_half_p(kept, len(values)) <= alpha)
    broken = sum(value > limit for value in values)
    assert (interval.low > limit) == (more_than_half_p(broken, len(values)) <= alpha)
    assert interval.value == pytest.approx(np.median(values))
    if math.isfinite(interval.low):
        assert interval.confidence == pytest.approx(
            1 - 2 * more_than_half_p(values_up_to(values, interval.high), len(values))
        )


def values_up_to(values: list[float], high: float) -> int:
    return sum(value <= high for value in values)


def test_fewer_than_five_runs_show_nothing() -> None:
    assert [hits_needed(runs) for runs in range(1, 11)] == [None, None, None, None, 5, 6, 7, 7, 8, 9]
    assert LEAST_RUNS == 5 and hits_needed(20) == 15
    few = median_of([1.0, 2.0, 3.0, 4.0])
    assert (few.value, few.low, few.high) == (2.5, -math.inf, math.inf)


def test_a_run_of_which_nothing_is_known_is_beyond() -> None:
    assert median_of([1.0, 2.0, 3.0, math.inf, math.inf]).high == math.inf
    assert median_of([math.inf] * 6).value == math.inf
    for bad in ([], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="no median"):
            median_of(bad)


@pytest.mark.parametrize(("spread", "distance", "passes"), [(0.02, 0.05, 1.0), (0.03, 0.05, 0.92), (0.05, 0.05, 0.51)])
def test_error_rates_of_ten_runs(spread: float, distance: float, passes: float) -> None:
    """At the limit at most 5 % pass, and at most 5 % fail; within it by 5 %, so many pass."""
    rng = np.random.default_rng(7)
    trials, limit = 2000, 1.0
    at_the_limit = np.exp(rng.normal(0, spread, (trials, 10))) * limit
    below = np.exp(rng.normal(-distance, spread, (trials, 10))) * limit
    highs = [median_of(row).high <= limit for row in at_the_limit]
    lows = [median_of(row).low > limit for row in at_the_limit]
    assert np.mean(highs) <= 0.05 and np.mean(lows) <= 0.05
    # 9 of 10 runs have to keep it: this is how often they do
    share = stats.norm.cdf(distance / spread)
    assert stats.binom.sf(8, 10, share) == pytest.approx(passes, abs=0.02)
    assert np.mean([median_of(row).high <= limit for row in below]) == pytest.approx(passes, abs=0.03)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.8, 0.7])
def test_so_many_runs_show_it_in_four_of_five_cases(share: float) -> None:
    runs = runs_to_show(share)
    assert runs is not None
    needed = hits_needed(runs)
    assert needed is not None and stats.binom.sf(needed - 1, runs, share) >= 0.8
    fewer = hits_needed(runs - 1)
    assert fewer is None or stats.binom.sf(fewer - 1, runs - 1, share) < 0.8
    assert runs_to_show(0.5) is None

"""What looks into a run: warm-up against every division there is, trends against scipy, pooled percentiles simulated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gotrace.analysis.histogram import Histogram, highest_values
from gotrace.analysis.stats import bootstrap, trend, warmup

quick = settings(deadline=None, max_examples=40)


def cost(values: np.ndarray, noise: float) -> float:
    """-2 ln of the likelihood without its constant, with the likeliest deviation of ``noise`` or more."""
    deviation = max(float(values.std()), noise)
    return float(2 * len(values) * math.log(deviation / noise) + np.sum((values - values.mean()) ** 2) / deviation**2)


def least_cost(values: np.ndarray, noise: float, penalty: float) -> float:
    """Of every division into segments that there is."""
    places = range(1, len(values))
    divisions = itertools.chain.from_iterable(itertools.combinations(places, count) for count in range(len(values)))
    return min(cost_of(values, list(each), noise, penalty) for each in divisions)


def cost_of(values: np.ndarray, points: list[int], noise: float, penalty: float) -> float:
    return penalty * len(points) + sum(cost(part, noise) for part in np.split(values, points))


@quick
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=10), st.sampled_from([0.1, 1.0, 3.0]), st.floats(0.1, 12))
def test_change_points_are_the_best_of_all(values: list[int], noise: float, penalty: float) -> None:
    row = np.array(values, float)
    found = warmup.change_points(row, noise, penalty).tolist()
    assert found == sorted(set(found)) and all(0 < each < len(row) for each in found)
    assert cost_of(row, found, noise, penalty) == pytest.approx(least_cost(row, noise, penalty), abs=1e-6)


def test_pruning_loses_nothing_in_long_series() -> None:
    """Against the same recursion with every start kept."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        row = np.concatenate([rng.normal(rng.uniform(50, 60), rng.uniform(0.5, 2), rng.integers(5, 40)) for _ in range(4)])
        penalty, best, points = 8.0, [-8.0], [[]]
        for end in range(1, len(row) + 1):
            costs = [best[start] + cost(row[start:end], 0.5) + penalty for start in range(end)]
            place = int(np.argmin(costs))
            best.append(costs[place])
            points.append([*points[place], *([place] if place else [])])
        assert warmup.change_points(row, 0.5, penalty).tolist() == points[-1]


@pytest.mark.parametrize("count", [20, 60, 180])
@pytest.mark.parametrize("spread", [0.002, 0.03, 0.2])
def test_noise_is_flat(count: int, spread: float) -> None:
    rng = np.random.default_rng(2)
    found = [warmup.classify(rng.normal(100, 100 * spread, count)) for _ in range(25)]
    assert {each.kind for each in found} == {"flat"}
    assert all(each.steady_from == 0 for each in found)


def steps(*parts: tuple[float, int], spread: float = 0.03, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(level, level * spread, count) for level, count in parts])


def test_planted_change_points_are_found() -> None:
    exact = 0
    for seed in range(40):
        found = warmup.segments(steps((200, 10), (120, 15), (100, 60), seed=seed))
        assert len(found) == 3
        exact += [each.begin for each in found] == [0, 10, 25]
        assert abs(found[1].begin - 10) <= 1 and abs(found[2].begin - 25) <= 2
        assert found[2].mean == pytest.approx(100, rel=0.02)
    assert exact >= 30
    loud = warmup.segments(np.concatenate([steps((100, 60), spread=0.01), steps((100, 60), spread=0.1)]))  # variance alone
    assert len(loud) == 2 and abs(loud[1].begin - 60) <= 3


def test_classes() -> None:
    down = steps((200, 10), (120, 15), (100, 60))
    assert warmup.classify(down).kind == "warmed up" and warmup.classify(down).steady_from == 25
    assert warmup.classify(down, lower_is_better=False).kind == "slowing down"
    assert warmup.classify(steps((100, 30), (140, 60))).kind == "slowing down"
    neither = warmup.classify(steps((100, 30), (140, 60)), lower_is_better=None)
    assert neither.kind == "warmed up" and neither.steady_from == 30
    late = warmup.classify(steps((100, 60), (140, 10)))
    assert late.kind == "no steady state" and late.steady_from is None
    assert warmup.classify(steps((100, 60), (140, 10)), settled=8).kind == "slowing down"
    again = warmup.classify(steps((100, 30), (140, 20), (100, 30)))
    assert again.kind == "warmed up" and again.steady_from == 50
    assert warmup.classify(np.full(14, 7.0)).kind == warmup.classify([]).kind == "no steady state"


def test_what_is_no_change() -> None:
    assert warmup.classify(np.zeros(60)).kind == warmup.classify(np.full(60, 7.0)).kind == "flat"
    assert warmup.classify(np.arange(60) % 2).kind == "flat"
    rng = np.random.default_rng(4)
    assert warmup.classify(np.repeat(rng.normal(100, 3, 30), 4)).kind == "flat"  # a heap between collections
    assert warmup.classify(100 + np.arange(120) % 10 * 5).kind == "flat"  # a sawtooth
    spike = steps((100, 60))
    spike[50] = 500
    assert warmup.classify(spike).kind == "flat"
    first = steps((500, 3), (100, 60))  # slow first seconds are no outliers
    assert warmup.classify(first).kind == "warmed up" and warmup.classify(first).steady_from == 3
    with pytest.raises(ValueError, match="NaN"):
        warmup.classify([1.0, math.nan])


@quick
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40))
def test_segments_are_the_whole(values: list[float]) -> None:
    found = warmup.segments(values)
    assert found[0].begin == 0 and found[-1].end == len(values)
    assert all(one.end == other.begin for one, other in itertools.pairwise(found))


def test_a_run_is_as_steady_as_its_worst_metric() -> None:
    flat, warmed = warmup.classify(steps((100, 60))), warmup.classify(steps((200, 10), (100, 50)))
    slow, never = warmup.classify(steps((100, 20), (150, 40))), warmup.classify(steps((100, 55), (200, 5)))
    assert warmup.worst([flat]) == ("flat", 0)
    assert warmup.worst([flat, warmed]) == ("warmed up", 10)
    assert warmup.worst([slow, warmed]) == ("slowing down", 20)
    assert warmup.worst([flat, never]) == warmup.worst([]) == ("no steady state", None)


@pytest.mark.filterwarnings("ignore:invalid value")  # scipy's, of values without any variance
@quick
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-9, 9)), min_size=2, max_size=25), st.sampled_from([0.9, 0.95]))
def test_theil_sen_is_scipys(points: list[tuple[int, int]], confidence: float) -> None:
    x, y = np.array(points, float).T
    if len(set(x)) == 1:
        with pytest.raises(ValueError, match="one time"):
            trend.theil_sen(x, y)
        return
    found = trend.theil_sen(x, y, confidence)
    theirs = stats.theilslopes(y, x, confidence)
    assert found.value == pytest.approx(theirs.slope)
    # scipy ends at the outermost slope where the interval has no end, and has none where ties leave no variance
    has_interval = len(set(y)) > 1 and not math.isnan(theirs.low_slope)
    if found.low > -math.inf and has_interval:
        assert found.low == pytest.approx(theirs.low_slope)
    if found.high < math.inf and has_interval:
        assert found.high == pytest.approx(theirs.high_slope)
    assert found.low <= found.value <= found.high


def test_intervals_of_slopes_hold_the_truth() -> None:
    rng = np.random.default_rng(5)
    times = np.arange(60.0)
    found = [trend.theil_sen(times, 3 * times + rng.standard_t(3, 60)) for _ in range(300)]
    assert np.mean([each.low <= 3 <= each.high for each in found]) == pytest.approx(0.95, abs=0.045)


def wandering(rng: np.random.Generator, count: int, likeness: float) -> np.ndarray:
    row = np.empty(count)
    row[0] = rng.normal() / math.sqrt(1 - likeness**2)
    for place, step in enumerate(rng.normal(size=count - 1), 1):
        row[place] = likeness * row[place - 1] + step
    return row


def test_growth_knows_that_neighbours_resemble_each_other() -> None:
    """Sen's interval of samples of which each is 0.8 of the last one holds the truth in half of all cases."""
    rng = np.random.default_rng(6)
    times = np.arange(300.0)
    rows = [0.05 * times + wandering(rng, 300, 0.8) for _ in range(80)]
    naive, blocks = [trend.theil_sen(times, row) for row in rows], [trend.growth(times, row) for row in rows]
    assert np.mean([each.low <= 0.05 <= each.high for each in naive]) < 0.75
    assert np.mean([each.low <= 0.05 <= each.high for each in blocks]) >= 0.87
    assert np.mean([math.isinf(each.low) for each in blocks]) < 0.2


def test_growth_of_long_and_of_short_series() -> None:
    rng = np.random.default_rng(7)
    times = np.arange(100_000.0)
    found = trend.growth(times, 2 * times + rng.normal(0, 1000, len(times)))
    assert found.low < 2 < found.high and found.high - found.low < 0.01
    short = trend.growth([0, 1, 2], [5, 6, 7])
    assert (short.value, short.low, short.high) == (1, -math.inf, math.inf)
    still = trend.growth(range(60), [7.0] * 60)
    assert (still.value, still.low, still.high) == (0, 0, 0)
    assert trend.block_size(rng.normal(size=100)) == 1
    assert (trend.block_size(np.repeat(rng.normal(size=50), 4)) or 0) >= 4
    assert trend.block_size(np.arange(100.0)) is None and trend.block_size([]) is None


def test_what_has_no_slope_is_refused() -> None:
    for call in (trend.theil_sen, trend.growth):
        with pytest.raises(ValueError, match="at least 2"):
            call([1], [1])
        with pytest.raises(ValueError, match="NaN"):
            call([1, 2], [1, math.nan])
        with pytest.raises(ValueError, match="one value for each time"):
            call([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="ascend"):
        trend.growth([2, 1], [1, 2])
    with pytest.raises(ValueError, match="too many slopes"):
        trend.theil_sen(range(3000), range(3000))


def test_pooled_percentiles_are_those_of_one_histogram() -> None:
    rng = np.random.default_rng(8)
    runs = [rng.integers(1, 2000, count) for count in rng.integers(50, 400, 9)]
    histogram = Histogram()
    histogram.record(np.concatenate(runs))
    by_bucket = []
    for run in runs:
        one = Histogram()
        one.record(run)
        indexes, counts = one.nonzero()
        by_bucket.append((highest_values(indexes).astype(float), counts))
    for percentile in (1, 50, 99, 99.9, 100):
        found = bootstrap.pooled_percentile([bootstrap.counted(run) for run in runs], percentile, resamples=500)
        assert found.value == histogram.percentile(percentile)
        assert found.low <= found.value <= found.high
        assert found == bootstrap.pooled_percentile(by_bucket, percentile, resamples=500)


def test_splitting_in_halves_resamples_as_drawing_each_value_does() -> None:
    rng = np.random.default_rng(9)
    runs = [rng.integers(0, 40, 30) + rng.integers(0, 10) for _ in range(8)]
    drawn = []
    for _ in range(4000):
        chosen = rng.integers(0, 8, 8)
        drawn.append(np.sort(np.concatenate([rng.choice(runs[each], 30) for each in chosen]))[round(240 * 0.9) - 1])
    support, up_to = bootstrap._up_to([bootstrap.counted(run) for run in runs])
    split = rng.multinomial(8, np.full(8, 1 / 8), 4000) * 30
    found = support[bootstrap._resampled(up_to, split, np.full(4000, round(240 * 0.9)), rng)]
    assert stats.ks_2samp(drawn, found).pvalue > 0.001


def test_pooled_intervals_know_of_runs() -> None:
    """Of ten runs that differ by 5 % the interval holds the median nearly as often as it says."""
    rng = np.random.default_rng(10)
    held = 0
    for _ in range(100):
        runs = [bootstrap.counted((100 + 5 * rng.normal() + rng.normal(0, 10, 200)).round(1)) for _ in range(10)]
        found = bootstrap.pooled_percentile(runs, 50, resamples=400)
        held += found.low <= 100 <= found.high
    assert held >= 84


def test_pooled_percentiles_need_runs() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        bootstrap.pooled_percentile([bootstrap.counted([1.0])] * 7, 50)
    with pytest.raises(ValueError, match="no values"):
        bootstrap.pooled_percentile([bootstrap.counted([1.0])] * 7 + [(np.array([1.0]), np.array([0]))], 50)
    with pytest.raises(ValueError, match="NaN"):
        bootstrap.counted([math.nan])
    found = bootstrap.pooled_percentile([bootstrap.counted([3.0])] * 8, 50)
    assert (found.value, found.low, found.high) == (3, 3, 3)

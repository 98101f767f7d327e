"""How often verdicts, gates and what they say of their own power are right: by simulation, with fixed seeds.

Spread is what one run differs by from the next, relative. Bounds are the rates themselves with four standard errors of the
number of trials.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from gotrace.analysis.stats import power, ranks
from gotrace.analysis.stats.changes import Change, Paired, Separate
from gotrace.analysis.stats.multiple import benjamini_hochberg, holm
from gotrace.analysis.stats.verdicts import Question, gate, look, same_p, together, verdicts

Rng = np.random.Generator
FIVE = math.log(1.05)


def pairs(rng: Rng, count: int, spread: float, change: float = 0.0) -> Paired:
    return Paired(math.log1p(change) + rng.normal(0, spread, count) - rng.normal(0, spread, count))


def sets(rng: Rng, count: int, spread: float, change: float = 0.0) -> Separate:
    return Separate(rng.normal(0, spread, count), rng.normal(math.log1p(change), spread, count))


def near(rate: float, expected: float, trials: int) -> bool:
    return abs(rate - expected) <= 4 * math.sqrt(max(expected * (1 - expected), 0.01) / trials) + 0.01


def test_a_family_of_unchanged_metrics_raises_few_false_alarms() -> None:
    """Eight metrics of ten pairs, that share half of what moves them."""
    rng = np.random.default_rng(1)
    alarms = uncorrected = 0
    for _ in range(1000):
        rows = rng.normal(size=(8, 10)) + rng.normal(size=10)
        p = [ranks.signed_rank(row).two_sided for row in rows]
        alarms += (holm(p) <= 0.05).any()
        uncorrected += min(p) <= 0.05
    assert alarms / 1000 <= 0.05
    assert uncorrected / 1000 > 0.15


@pytest.mark.parametrize("made", [pairs, sets])
def test_verdicts_of_an_unchanged_version(made: Callable[[Rng, int, float], Change]) -> None:
    rng = np.random.default_rng(2)
    trials, alarms = 150, 0
    for _ in range(trials):
        found = verdicts([Question(made(rng, 10, 0.03), FIVE) for _ in range(8)])
        alarms += any(verdict.changed for verdict in found)
        assert all((verdict.same_p < 0.05) == (verdict.word == "same") for verdict in found)
    assert alarms / trials <= 0.05


def test_requests_are_not_runs() -> None:
    """What not to do: two sets of five runs of one program, 2 % apart from run to run, compared request by request."""
    rng = np.random.default_rng(3)
    trials, by_request, by_run = 30, 0, 0
    for _ in range(trials):
        runs = [rng.normal(0, 0.02) + rng.normal(0, 0.5, 10_000) for _ in range(10)]
        by_request += ranks.mann_whitney(np.concatenate(runs[:5]), np.concatenate(runs[5:])).two_sided <= 0.05
        medians = [float(np.median(run)) for run in runs]
        by_run += ranks.mann_whitney(medians[:5], medians[5:]).two_sided <= 0.05
    assert by_request / trials > 0.5
    assert by_run / trials < 0.2


def test_looking_again_and_again_is_paid_for() -> None:
    rng = np.random.default_rng(4)
    trials, greedy, planned = 400, 0, 0
    for _ in range(trials):
        a, b = rng.normal(size=(2, 30))
        greedy += any(ranks.mann_whitney(a[:n], b[:n]).two_sided <= 0.05 for n in (5, 10, 15, 20, 25, 30))
        planned += any(ranks.mann_whitney(a[:n], b[:n]).two_sided <= look(0.05, 2) for n in (10, 20))
    assert greedy / trials > 0.09
    assert planned / trials <= 0.06
    assert look(0.05, 1) == 0.05
    with pytest.raises(ValueError, match="one look"):
        look(0.05, 0)


@pytest.mark.parametrize(
    ("spread", "passes_unchanged", "fails_ten", "passes_five"),
    [(0.02, 1.0, 0.995, 0.045), (0.03, 0.94, 0.85, 0.045), (0.05, 0.59, 0.43, 0.045)],
)
def test_a_gate_of_ten_pairs(spread: float, passes_unchanged: float, fails_ten: float, passes_five: float) -> None:
    rng = np.random.default_rng(5)
    trials = 400

    def outcomes(change: float) -> Counter[str]:
        return Counter(gate([Question(pairs(rng, 10, spread, change), FIVE)])[0].outcome for _ in range(trials))

    unchanged, five, ten = outcomes(0), outcomes(0.05), outcomes(0.1)
    assert near(unchanged["pass"] / trials, passes_unchanged, trials)
    assert near(ten["fail"] / trials, fails_ten, trials)
    assert near(five["pass"] / trials, passes_five, trials)
    assert unchanged["fail"] == 0 and ten["pass"] <= 0.01 * trials
    assert five["fail"] / trials <= 0.05


def test_a_gate_of_eight_unchanged_metrics_does_not_fail() -> None:
    rng = np.random.default_rng(6)
    outcomes = Counter(
        together([each.outcome for each in gate([Question(pairs(rng, 10, 0.03), FIVE) for _ in range(8)])])
        for _ in range(100)
    )
    assert outcomes["fail"] == 0 and outcomes["pass"] > 30


@pytest.mark.parametrize(
    ("runs", "rates"), [(5, (0.99, 0.40, 0.07)), (10, (1.0, 0.87, 0.37)), (20, (1.0, 1.0, 0.83))], ids=str
)
def test_sameness_within_three_percent_is_proved_so_often(runs: int, rates: tuple[float, ...]) -> None:
    """The rates of t tests, for spreads of 1, 2 and 3 %; ranks stay a little below where power is middling."""
    rng = np.random.default_rng(7)
    trials = 300
    for spread, expected in zip((0.01, 0.02, 0.03), rates, strict=True):
        margin = math.log(1.03)
        found = [verdicts([Question(sets(rng, runs, spread), margin)])[0].word for _ in range(trials)]
        rate = found.count("same") / trials
        assert -0.12 < rate - expected < 0.08


@pytest.mark.parametrize("paired", [True, False], ids=["pairs", "sets"])
@pytest.mark.parametrize(("runs", "alpha"), [(7, 0.05), (10, 0.05), (20, 0.05), (12, 0.05 / 8)])
def test_the_least_change_is_found_in_four_of_five_cases(paired: bool, runs: int, alpha: float) -> None:
    rng = np.random.default_rng(8)
    trials = 500
    change = power.least_change(0.02, runs, paired=paired, alpha=alpha)

    def made() -> Change:
        if paired:
            return Paired(rng.normal(change, 0.02, runs))
        return Separate(rng.normal(0, 0.02, runs), rng.normal(change, 0.02, runs))

    found = sum(made().test().two_sided <= alpha for _ in range(trials))
    assert near(found / trials, 0.79, trials)


@pytest.mark.parametrize("paired", [True, False], ids=["pairs", "sets"])
@pytest.mark.parametrize("same", [True, False], ids=["same", "no worse"])
@pytest.mark.parametrize("runs", [8, 15])
def test_the_least_margin_is_kept_in_four_of_five_cases(paired: bool, same: bool, runs: int) -> None:
    rng = np.random.default_rng(9)
    trials, kept = 300, 0
    margin = power.least_margin(0.02, runs, paired=paired, same=same)
    for _ in range(trials):
        change: Change = Paired(rng.normal(0, 0.02, runs)) if paired else Separate(*rng.normal(0, 0.02, (2, runs)))
        kept += (same_p(change, margin) if same else change.test(margin).less) <= 0.05
    assert near(kept / trials, 0.79, trials)


def test_the_least_change_by_spread_and_runs() -> None:
    """Of t tests 5 runs show 2.02 spreads, 10 runs 1.33 and 20 runs 0.91; exact rank tests need so much more."""
    for runs, of_t, ours in ((5, 2.02, 2.26), (10, 1.33, 1.39), (20, 0.91, 0.93)):
        found = power.least_change(1.0, runs, paired=False)
        assert found == pytest.approx(ours, abs=0.005)
        assert 1.02 < found / of_t < 1.12


def test_too_few_runs_can_show_nothing() -> None:
    assert power.least_change(0.02, 5, paired=True) == math.inf
    assert power.least_change(0.02, 3, paired=False) == math.inf
    assert power.least_change(0.02, 8, paired=True, alpha=0.05 / 8) == math.inf
    assert power.least_change(0.02, 9, paired=True, alpha=0.05 / 8) < math.inf  # nine pairs, or six a side, for Holm
    assert power.least_change(0.02, 5, paired=False, alpha=0.05 / 8) == math.inf
    assert power.least_change(0.02, 6, paired=False, alpha=0.05 / 8) < math.inf


@pytest.mark.parametrize("paired", [True, False])
def test_so_many_runs_are_the_fewest_that_will_do(paired: bool) -> None:
    fewest = 6 if paired else 5  # from which on anything is said
    for spread in (0.01, 0.05, 0.3):
        needed = power.runs_to_find(spread, FIVE, paired=paired)
        assert power.least_change(spread, needed, paired=paired) <= FIVE
        assert needed == fewest or power.least_change(spread, needed - 1, paired=paired) > FIVE
        needed = power.runs_to_pass(spread, FIVE, paired=paired)
        assert power.least_margin(spread, needed, paired=paired) <= FIVE
        # the textbook's formula, which knows neither t nor ranks, asks for fewer
        textbook = (1 if paired else 2) * ((1.96 + 0.84) * spread / FIVE) ** 2
        assert textbook < power.runs_to_find(spread, FIVE, paired=paired) < 1.08 * textbook + 7
    with pytest.raises(ValueError, match="spread"):
        power.runs_to_find(math.nan, FIVE, paired=paired)
    with pytest.raises(ValueError, match="nothing at all"):
        power.runs_to_find(0.02, 0.0, paired=paired)
    assert power.runs_to_find(0.0, FIVE, paired=paired) == fewest


def test_words() -> None:
    noise = np.array([0.003, -0.002, 0.001, -0.004, 0.002, -0.001, 0.004, -0.003])
    up, slightly = Paired(noise + 0.1), Paired(noise + 0.01)
    assert [each.word for each in verdicts([Question(up, FIVE), Question(up, FIVE, lower_is_better=False)])] == [
        "worse",
        "better",
    ]
    assert verdicts([Question(Paired(noise - 0.1), FIVE)])[0].word == "better"
    (within,) = verdicts([Question(slightly, FIVE)])
    assert within.word == "same" and within.changed and within.same_p < 0.05
    (wide,) = verdicts([Question(Paired(noise * 50), FIVE)])
    assert wide.word == "cannot tell" and not wide.changed
    (found,) = verdicts([Question(up, FIVE)], alpha=0.1, adjusted=benjamini_hochberg)
    assert found.estimate.low < 0.1 < found.estimate.high and found.p == found.adjusted_p == pytest.approx(2 / 2**8)
    # in a family of eight, no eight pairs can be significant
    assert verdicts([Question(up, FIVE)] * 8)[0].adjusted_p == pytest.approx(8 * 2 / 2**8)
    assert verdicts([Question(up, FIVE)] * 8)[0].word == "cannot tell"
    assert verdicts([]) == [] and gate([]) == []


def test_gates() -> None:
    noise = np.array([0.003, -0.002, 0.001, -0.004, 0.002, -0.001, 0.004, -0.003])
    up, down = Paired(noise + 0.1), Paired(noise - 0.1)
    assert [gate([Question(each, FIVE)])[0].outcome for each in (up, down, Paired(noise), Paired(noise * 50))] == [
        "fail",
        "pass",
        "pass",
        "inconclusive",
    ]
    assert [gate([Question(each, FIVE, lower_is_better=False)])[0].outcome for each in (up, down)] == ["pass", "fail"]
    # growth, that may be negative: at most 1 MiB a minute more
    growth = Separate([-0.1, 0.0, 0.1, 0.05, -0.05], [0.2, 0.1, 0.0, 0.15, 0.05])
    assert gate([Question(growth, 1.0)])[0].outcome == "pass"
    assert together([]) == together(["pass", "inconclusive"]) == "inconclusive"
    assert together(["pass", "fail", "inconclusive"]) == "fail" and together(["pass", "pass"]) == "pass"


@pytest.mark.parametrize("change", [Paired([0.1] * 5), Paired([0.1]), Separate([0.0] * 4, [0.1] * 9), Separate([0], [1])])
def test_too_few_runs_cannot_tell(change: Change) -> None:
    assert not change.enough
    assert verdicts([Question(change, FIVE)])[0].word == "cannot tell"
    assert gate([Question(change, FIVE)])[0].outcome == "inconclusive"


def test_constants_and_what_is_refused() -> None:
    for change in (Paired([0.0] * 10), Separate([3.0] * 10, [3.0] * 10)):
        assert change.enough and change.spread == 0
        (found,) = verdicts([Question(change, FIVE)])
        assert found.word == "same" and not found.changed and found.p == 1
        assert gate([Question(change, FIVE)])[0].outcome == "pass"
    for margin in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="margin"):
            Question(Paired([0.0] * 10), margin)
    for make in (lambda: Paired([math.nan]), lambda: Separate([1.0], [math.inf]), lambda: Separate([], [1.0])):
        with pytest.raises(ValueError, match="NaN|at least"):
            make()
    assert Paired([0.1] * 6).least_p == pytest.approx(0.03125) and Separate([0] * 5, [1] * 6).runs == 5

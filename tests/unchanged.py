"""Runs of one and the same service, and how often comparisons of them find a difference that is not there.

The runs are real (tests/testdata/baselines/unchanged.json, which benchmarks/false_alarms.py measures anew). The comparisons
are simulated from them: each deals some of the runs, or of the rounds of two neighbours, to two versions that do not
differ. Seeded.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats import ranks
from gotrace.lab.compare import Side, compare
from gotrace.lab.gate import Rules, judge
from gotrace.lab.metrics import METRICS
from gotrace.lab.report import Baseline, Run

DATA = Path(__file__).parent / "testdata" / "baselines" / "unchanged.json"
VERSIONS = ("A", "B")
PAIRS, MARGIN, ALPHA = 10, 0.05, 0.05
POOLED = 5  # runs a side whose requests are thrown together
_SUB = 64  # buckets to a doubling, of latencies

Rng = np.random.Generator


@functools.cache
def report() -> Baseline:
    """As it was measured, without what no comparison reads. It is not to be changed."""
    return cast(Baseline, json.loads(DATA.read_text()))


def trimmed(whole: Baseline) -> dict[str, Any]:
    """A report of two versions that are one, as it is kept: of each run its metrics and how long requests took, in buckets.

    Both rounded: a metric to six digits, a latency to 1/64 of a doubling.
    """
    runs = []
    for run in whole["runs"]:
        if run["valid"]:
            kept = {name: run[name] for name in ("version", "round", "order", "valid", "length_ns", "lost")}  # type: ignore[literal-required]
            known = {name: value for name, value in run["metrics"].items() if value is not None}
            kept["metrics"] = {name: float(f"{value:.6g}") for name, value in known.items()}
            kept["requests"] = _buckets(run["load"]["histogram"])
            runs.append(kept)
    versions = [{name: each[name] for name in ("name", "go_version")} for each in whole["versions"]]  # type: ignore[literal-required]
    return {**whole, "versions": versions, "runs": runs}


def _buckets(histogram: dict[str, list[int]]) -> list[list[int]]:
    """[bucket, how many], ascending: a bucket is 64 times the binary logarithm of the nanoseconds."""
    found: Counter[int] = Counter()
    for value, count in zip(histogram["value_ns"], histogram["count"], strict=True):
        found[math.floor(_SUB * math.log2(max(1, value)))] += count
    return [[bucket, found[bucket]] for bucket in sorted(found)]


def rounds(whole: Baseline) -> list[tuple[Run, Run]]:
    """Neighbours in time, of which each round has two."""
    found: dict[int, dict[str, Run]] = {}
    for run in whole["runs"]:
        found.setdefault(run["round"], {})[run["version"]] = run
    return [(of["A"], of["B"]) for _, of in sorted(found.items()) if len(of) == 2]


def versions_that_do_not_differ(whole: Baseline, rng: Rng, count: int = PAIRS) -> tuple[Side, Side]:
    """So many of the measured rounds, a coin deciding for each which of its two runs is whose."""
    measured = rounds(whole)
    a, b = list[Run](), list[Run]()
    for number, which in enumerate(rng.choice(len(measured), count, replace=False)):
        pair = measured[which] if rng.random() < 0.5 else measured[which][::-1]
        for side, run in zip((a, b), pair, strict=True):
            side.append({**run, "round": number})
    return Side("A", whole, a), Side("B", whole, b)


def worse(side: Side, planted: str, factor: float) -> Side:
    """A version with a metric that is so much worse in all of its runs."""
    by = factor if METRICS[planted].better == "less" else 1 / factor
    runs: list[Run] = []
    for run in side.runs:
        value = run["metrics"][planted]
        assert value is not None
        runs.append({**run, "metrics": {**run["metrics"], planted: value * by}})
    return Side(side.name, side.report, runs)


@dataclass(frozen=True)
class Alarms:
    """Of ``comparisons`` of nothing: ``any`` told at least one metric as better or worse, ``by_metric`` which."""

    comparisons: int
    any: int
    by_metric: Counter[str]
    uncorrected: int  # that had p <= 0.05 for at least one, each by itself
    words: Counter[str]


def alarms(comparisons: int, seed: int = 1, everything: bool = False) -> Alarms:
    """What `compare` says of versions that do not differ, ten pairs each."""
    whole, rng = report(), np.random.default_rng(seed)
    some = uncorrected = 0
    by_metric, words = Counter[str](), Counter[str]()
    for _ in range(comparisons):
        rows = [each for each in compare(*versions_that_do_not_differ(whole, rng), MARGIN, everything) if each.primary]
        wrong = [row.metric for row in rows if row.verdict in ("better", "worse")]
        some += bool(wrong)
        by_metric.update(wrong)
        words.update(row.verdict for row in rows)
        uncorrected += any(row.p is not None and row.p <= ALPHA for row in rows)
    return Alarms(comparisons, some, by_metric, uncorrected, words)


def outcomes(comparisons: int, planted: str = "", factor: float = 1.0, seed: int = 1) -> Counter[str]:
    """What gates say of versions that do not differ, but in the metric ``planted``, which is worse by ``factor``."""
    whole, rng = report(), np.random.default_rng(seed)
    found = Counter[str]()
    for _ in range(comparisons):
        a, b = versions_that_do_not_differ(whole, rng)
        found[judge(a, worse(b, planted, factor) if planted else b, Rules(MARGIN)).verdict] += 1
    return found


# --- How others judge


def by_requests(a: Sequence[Run], b: Sequence[Run]) -> bool:
    """Mann and Whitney's test of all requests of the one side against all of the other: whether it finds a difference."""
    buckets, (of_a, of_b) = _pooled(a, b)
    n_a, n_b = int(of_a.sum()), int(of_b.sum())
    both, total = of_a + of_b, n_a + n_b
    rank = np.cumsum(both) - (both - 1) / 2
    u = float(rank @ of_b) - n_b * (n_b + 1) / 2
    ties = float(np.sum(both.astype(float) ** 3 - both)) / (total * (total - 1))
    deviation = math.sqrt(n_a * n_b / 12 * (total + 1 - ties))
    return math.erfc(abs(u - n_a * n_b / 2) / deviation / math.sqrt(2)) <= ALPHA


def by_pooled_p99(a: Sequence[Run], b: Sequence[Run], rng: Rng, resamples: int = 2000) -> bool:
    """Whether a bootstrap of all requests finds a difference of p99: its 95 % interval excludes 0.

    Of a resample's sorted values the one at a rank is that of the pool at a share that has a beta distribution.
    """
    buckets, sides = _pooled(a, b)
    found = []
    for counts in sides:
        size = int(counts.sum())
        rank = math.ceil(0.99 * size)
        shares = rng.beta(rank, size - rank + 1, resamples)
        found.append(buckets[np.searchsorted(np.cumsum(counts) / size, shares)])
    low, high = np.percentile(found[1] - found[0], [2.5, 97.5])
    return bool(low > 0 or high < 0)


def _pooled(a: Sequence[Run], b: Sequence[Run]) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.int64]]]:
    """All buckets, and how many requests each side has in each."""
    arrays = [np.concatenate([np.array(run["requests"], np.int64) for run in side]) for side in (a, b)]  # type: ignore[typeddict-item]
    buckets = np.unique(np.concatenate([each[:, 0] for each in arrays]))
    counts = []
    for each in arrays:
        of = np.zeros(len(buckets), np.int64)
        np.add.at(of, np.searchsorted(buckets, each[:, 0]), each[:, 1])
        counts.append(of)
    return buckets, counts


def by_p99_of_runs(a: Sequence[Run], b: Sequence[Run]) -> bool:
    """Mann and Whitney's test of a p99 for each run."""
    return ranks.mann_whitney(*(_logs(side, "latency.p99") for side in (a, b))).two_sided <= ALPHA


def _logs(runs: Sequence[Run], name: str) -> npt.NDArray[np.float64]:
    return np.log(np.array([run["metrics"][name] for run in runs], np.float64))


def dealt(comparisons: int, count: int, rng: Rng) -> Iterator[list[Run]]:
    """So many of the measured runs, in random order."""
    runs = report()["runs"]
    for _ in range(comparisons):
        yield [runs[each] for each in rng.choice(len(runs), count, replace=False)]


def pooled_alarms(comparisons: int, seed: int = 2) -> dict[str, float]:
    """The share of comparisons of nothing, five runs a side, in which each of three tests of latency finds a difference."""
    rng = np.random.default_rng(seed)
    judges: dict[str, Callable[[list[Run], list[Run]], bool]] = {
        "requests": by_requests,
        "pooled p99": lambda a, b: by_pooled_p99(a, b, rng),
        "p99 of runs": by_p99_of_runs,
    }
    found = Counter[str]()
    for runs in dealt(comparisons, 2 * POOLED, np.random.default_rng(seed + 1)):
        found.update(name for name, judge in judges.items() if judge(runs[:POOLED], runs[POOLED:]))
    return {name: found[name] / comparisons for name in judges}


def drift_alarms(comparisons: int, spreads: float = 1.5, name: str = "latency.p50", seed: int = 4) -> dict[str, float]:
    """The same where the machine becomes steadily slower: from the first of twenty runs to the last by so many spreads.

    Ten runs of the one version and then ten of the other, against ten pairs in random order.
    """
    spread = float(np.std(_logs(report()["runs"], name), ddof=1))
    slower = np.linspace(0, spreads * spread, 2 * PAIRS)
    rng = np.random.default_rng(seed)
    blocks = turns = 0
    for runs in dealt(comparisons, 2 * PAIRS, rng):
        values = _logs(runs, name) + slower
        blocks += ranks.mann_whitney(values[:PAIRS], values[PAIRS:]).two_sided <= ALPHA
        signs = rng.choice([-1, 1], PAIRS)
        turns += ranks.signed_rank(signs * (values[1::2] - values[::2])).two_sided <= ALPHA
    return {"blocks": blocks / comparisons, "turns": turns / comparisons}

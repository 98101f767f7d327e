"""Exponential buckets: which one a value is in, decided anew in whole numbers, and how too many are joined."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.analysis.exponential import CLASSIC_NS, MOST_FILLED, SCHEMA, Exponential

LARGEST = 2**63 - 1


def bucket(value: int, schema: int) -> int:
    """The smallest i with value / 10**9 <= 2**(i / 2**schema)."""
    above, below = value ** (1 << schema), 10 ** (9 << schema)
    index = above.bit_length() - below.bit_length() - 1
    while above << max(0, -index) > below << max(0, index):
        index += 1
    return index


def boundary(index: int) -> int:
    """About where bucket ``index`` of the finest schema ends."""
    return min(LARGEST, max(1, round(10**9 * 2.0 ** (index / 32))))


def values() -> st.SearchStrategy[int]:
    close = st.tuples(st.integers(-957, 1060).map(boundary), st.integers(-2, 2)).map(lambda pair: sum(pair))
    powers = st.integers(-9, 33).map(lambda power: 10**9 * 2**power if power > 0 else 10**9 // 2**-power)
    around = st.tuples(powers, st.integers(-1, 1)).map(lambda pair: sum(pair))
    classic = st.tuples(st.sampled_from(CLASSIC_NS), st.integers(-1, 1)).map(lambda pair: sum(pair))
    return st.one_of(close, around, classic, st.integers(0, LARGEST)).map(lambda each: min(LARGEST, max(0, each)))


@settings(deadline=None)
@given(st.lists(st.lists(values(), max_size=120), max_size=5), st.booleans())
def test_every_value_is_counted_in_its_bucket(parts: list[list[int]], merge: bool) -> None:
    found = Exponential()
    for part in parts:
        array = np.array(part, np.uint64)
        found = found.merged(Exponential().plus(array)) if merge else found.plus(array)
    every = [value for part in parts for value in part]
    expected = Counter(bucket(value, found.schema) for value in every if value)
    assert dict(zip(found.indexes.tolist(), found.counts.tolist(), strict=True)) == dict(expected)
    assert all(first < second for first, second in pairwise(found.indexes.tolist()))
    assert (found.count, found.sum_ns, found.zeros) == (len(every), sum(every), every.count(0))
    assert (found.min_ns, found.max_ns) == (min(every, default=0), max(every, default=0))
    uppers = [*CLASSIC_NS, LARGEST]
    assert found.classic.cumsum().tolist() == [sum(value <= upper for value in every) for upper in uppers]
    # No finer than it may be, and no coarser than it has to be.
    assert len(found.indexes) <= MOST_FILLED
    assert found.schema == SCHEMA or len({bucket(value, found.schema + 1) for value in every if value}) > MOST_FILLED


def test_too_many_buckets_are_halved_for_good() -> None:
    spread = np.array([boundary(index) for index in range(-900, 900, 5)])
    found = Exponential().plus(spread)
    assert found.schema == 1  # 56 powers of two: 225 buckets in schema 2, 113 in schema 1
    assert found.plus(np.array([1])).schema == 1
    assert Exponential().plus(np.array([1])).merged(found).schema == 1
    assert found.merged(found).counts.tolist() == (2 * found.counts).tolist()


def test_it_does_not_change() -> None:
    one = Exponential().plus(np.array([5, 7]))
    one.plus(np.array([9]))
    one.merged(one)
    assert (one.count, one.sum_ns, one.counts.tolist()) == (2, 12, [1, 1])


@pytest.mark.parametrize("wrong", [np.array([-1]), np.array([2**63], np.uint64), np.array([1.5])])
def test_what_are_no_nanoseconds_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="nanoseconds are"):
        Exponential().plus(wrong)


def test_narrow_integers_do_not_overflow() -> None:
    found = Exponential().plus(np.full(1000, 2**31 - 1, np.int32))
    assert found.sum_ns == 1000 * (2**31 - 1)


@given(st.dictionaries(values(), st.integers(0, 40), max_size=200), st.lists(values(), max_size=20))
def test_what_was_counted_elsewhere_is_as_if_it_were_counted_here(counted: dict[int, int], before: list[int]) -> None:
    own = Exponential().plus(np.array(before, np.int64))
    keys, counts = (np.array(list(each), np.int64) for each in (counted.keys(), counted.values()))
    one, other = own.plus_counted(keys, counts), own.plus(np.repeat(keys, counts))
    assert str(one) == str(other)

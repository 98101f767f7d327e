"""The histogram against hdrh's, value by value: counts, percentiles and encoded bytes must be the same."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.analysis.histogram import (
    BUCKETS,
    COUNTS_LENGTH,
    HIGHEST,
    LARGEST_RECORDABLE,
    LOWEST,
    SIGNIFICANT_DIGITS,
    SUB_BUCKETS,
    Histogram,
    bucket_indexes,
    highest_values,
    lowest_values,
)

PERCENTILES = [0.0, 1e-9, 0.1, 25.0, 50.0, 66.6, 90.0, 95.0, 99.0, 99.9, 99.99, 99.9999999, 100.0, 101.0]

# Numbers of every magnitude, their neighbourhoods of powers of two, and what has no bucket.
magnitudes = st.integers(0, 42).flatmap(lambda bits: st.integers(0, (1 << bits) - 1 if bits else 0))
edges = st.builds(lambda bits, offset: (1 << bits) + offset, st.integers(0, 43), st.integers(-3, 3))
values = st.one_of(magnitudes, edges, st.integers(-(2**63), 2**63 - 1))
arrays = st.lists(values, max_size=60).map(lambda numbers: np.array(numbers, np.int64))


def hdrh_of(*parts: np.ndarray) -> tuple[HdrHistogram, int]:
    """hdrh's histogram of the same values, and how many it refused."""
    theirs = HdrHistogram(LOWEST, HIGHEST, SIGNIFICANT_DIGITS)
    refused = sum(not theirs.record_value(value) for part in parts for value in part.tolist())
    return theirs, refused


def ours_of(*parts: np.ndarray) -> Histogram:
    out = Histogram()
    for part in parts:
        out.record(part)
    return out


def all_counts(histogram: Histogram) -> np.ndarray:
    return np.pad(histogram.counts, (0, COUNTS_LENGTH - len(histogram.counts)))


def state(histogram: Histogram) -> tuple[object, ...]:
    numbers = (histogram.count, histogram.sum, histogram.min, histogram.max, histogram.out_of_range)
    return (*numbers, all_counts(histogram).tolist())


def assert_same(ours: Histogram, theirs: HdrHistogram, refused: int) -> None:
    np.testing.assert_array_equal(all_counts(ours), np.frombuffer(theirs.counts, np.int64))
    assert ours.count == theirs.total_count
    assert ours.out_of_range == refused
    assert ours.max == theirs.max_value
    assert ours.min == (theirs.min_value if ours.count else 0)
    assert ours.encode() == theirs.encode()


def test_layout_is_hdrhs() -> None:
    theirs = HdrHistogram(LOWEST, HIGHEST, SIGNIFICANT_DIGITS)
    layout = (theirs.bucket_count, theirs.sub_bucket_count, theirs.counts_len)
    assert layout == (BUCKETS, SUB_BUCKETS, COUNTS_LENGTH)
    assert theirs.record_value(LARGEST_RECORDABLE)
    assert not theirs.record_value(LARGEST_RECORDABLE + 1)


def test_every_bucket_begins_and_ends_where_hdrhs_does() -> None:
    # A larger value never has a smaller index (the conversion to float64 is exact, and the rest of the arithmetic keeps
    # order), so this proves the index of every value there is.
    theirs = HdrHistogram(LOWEST, HIGHEST, SIGNIFICANT_DIGITS)
    indexes = np.arange(COUNTS_LENGTH)
    lowest, highest = lowest_values(indexes), highest_values(indexes)
    np.testing.assert_array_equal(lowest, [theirs.get_value_from_index(index) for index in range(COUNTS_LENGTH)])
    np.testing.assert_array_equal(highest[:-1] + 1, lowest[1:])
    assert (lowest[0], highest[-1]) == (0, LARGEST_RECORDABLE)
    np.testing.assert_array_equal(bucket_indexes(lowest), indexes)
    np.testing.assert_array_equal(bucket_indexes(highest), indexes)
    assert [theirs._counts_index_for(value) for value in highest.tolist()] == indexes.tolist()


def test_indexes_around_powers_of_two() -> None:
    theirs = HdrHistogram(LOWEST, HIGHEST, SIGNIFICANT_DIGITS)
    around = {(1 << bits) + offset for bits in range(43) for offset in range(-40, 41)}
    numbers = np.array(sorted(number for number in around if 0 <= number <= LARGEST_RECORDABLE))
    assert bucket_indexes(numbers).tolist() == [theirs._counts_index_for(number) for number in numbers.tolist()]


@settings(deadline=None, max_examples=150)
@given(arrays)
def test_counts_and_encoding_are_hdrhs(numbers: np.ndarray) -> None:
    ours = ours_of(numbers)
    assert_same(ours, *hdrh_of(numbers))
    assert ours.sum == sum(number for number in numbers.tolist() if 0 <= number <= LARGEST_RECORDABLE)


@settings(deadline=None, max_examples=40)
@given(arrays, st.lists(st.floats(0.0, 100.0), max_size=3))
def test_percentiles_are_hdrhs(numbers: np.ndarray, percentiles: list[float]) -> None:
    ours, theirs = ours_of(numbers), hdrh_of(numbers)[0]
    wanted = PERCENTILES + percentiles
    assert ours.percentiles(wanted) == [theirs.get_value_at_percentile(percentile) for percentile in wanted]
    assert ours.percentile(50) == theirs.get_value_at_percentile(50)


@settings(deadline=None)
@given(st.lists(arrays, max_size=4))
def test_merging_is_recording_together(parts: list[np.ndarray]) -> None:
    merged = Histogram()
    for part in parts:
        merged.add(ours_of(part))
    assert state(merged) == state(ours_of(*parts))
    assert state(merged) == state(ours_of(*reversed(parts)))


@pytest.mark.parametrize("seed", range(3))
def test_many_values(seed: int) -> None:
    # More than a chunk, of all magnitudes in random order, some out of range in every chunk but the last.
    rng = np.random.default_rng(seed)
    numbers = np.exp(rng.uniform(0, np.log(LARGEST_RECORDABLE), 200_000)).astype(np.int64)
    numbers[:150_000:1_000] = -1
    numbers[1:150_000:1_000] = LARGEST_RECORDABLE + 1
    ours, (theirs, refused) = ours_of(numbers), hdrh_of(numbers)
    assert refused == 300
    assert_same(ours, theirs, refused)
    assert ours.percentiles(PERCENTILES) == [theirs.get_value_at_percentile(p) for p in PERCENTILES]


def test_a_chunk_with_nothing_in_range() -> None:
    ours = ours_of(np.full(100_000, -5), np.array([2**63 - 1, -(2**63)]))
    assert state(ours)[:5] == (0, 0, 0, 0, 100_002)
    assert ours.percentiles([0, 50, 100]) == [0, 0, 0]
    assert ours.encode() == HdrHistogram(LOWEST, HIGHEST, SIGNIFICANT_DIGITS).encode()


@pytest.mark.parametrize("dtype", ["<i8", ">i8", "<u8", "i4", "u2", "u1"])
def test_any_integer_array(dtype: str) -> None:
    numbers = np.arange(250, dtype=dtype)
    assert state(ours_of(numbers)) == state(ours_of(numbers.astype(np.int64)))
    assert state(ours_of(numbers.reshape(10, 25)[:, ::2])) == state(ours_of(numbers.reshape(10, 25)[:, ::2].ravel()))


def test_a_column_of_records_and_unsigned_numbers_beyond_int64() -> None:
    rows = np.zeros(3, [("kind", "u2"), ("ns", "<u8")])
    rows["ns"] = [7, 2**64 - 1, 2**63]
    ours = ours_of(rows["ns"])
    assert (ours.count, ours.sum, ours.out_of_range) == (1, 7, 2)


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError):
        Histogram().record(np.array([1.5]))  # type: ignore[arg-type]


def test_recording_leaves_the_array_alone() -> None:
    numbers = np.array([5, -1, 3_000, LARGEST_RECORDABLE + 1])
    numbers.flags.writeable = False
    assert ours_of(numbers).count == 2


def test_reset_and_nonzero() -> None:
    ours = ours_of(np.array([3, 3, 5_000, -1]))
    indexes, counts = ours.nonzero()
    assert (lowest_values(indexes).tolist(), counts.tolist()) == ([3, 5_000], [2, 1])
    assert "count=3" in repr(ours)
    ours.reset()
    assert state(ours) == state(Histogram())


def test_counts_cannot_be_written_from_outside() -> None:
    with pytest.raises(ValueError, match="read-only"):
        ours_of(np.array([1])).counts[0] = 1


def test_memory_follows_the_largest_value() -> None:
    assert Histogram().counts.nbytes == 0
    assert ours_of(np.array([1_000_000])).counts.nbytes < 100_000
    assert ours_of(np.array([LARGEST_RECORDABLE])).counts.nbytes == COUNTS_LENGTH * 8


def test_importing_it_does_not_import_hdrh() -> None:
    code = "import sys, gotrace.analysis.histogram as h; h.Histogram(); sys.exit('hdrh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

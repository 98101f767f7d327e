"""An HDR histogram that takes whole numpy arrays: nanoseconds from 1 ns to 1 h at three significant digits.

Counts are bit for bit those of ``hdrh.histogram.HdrHistogram(1, 3_600_000_000_000, 3)``, the Python port of
HdrHistogram, whose encoder is used for the wire format; only recording and reading are done here, in bulk.

Buckets (HdrHistogram's AbstractHistogram, "countsArrayIndex"): values below 2048 have a bucket each; from there every
power of two is divided into 1024 buckets of equal width. A bucket is known by its index in the counts array.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

LOWEST, HIGHEST, SIGNIFICANT_DIGITS = 1, 3_600_000_000_000, 3
SUB_BUCKETS = 2048  # the power of two that distinguishes 2 * 10**SIGNIFICANT_DIGITS values
BUCKETS = 32  # powers of two from SUB_BUCKETS on, until HIGHEST is covered
COUNTS_LENGTH = (BUCKETS + 1) * SUB_BUCKETS // 2
# The last bucket ends beyond HIGHEST. Like every HdrHistogram we record what has a bucket: 0 too, and up to 73 minutes.
LARGEST_RECORDABLE = (SUB_BUCKETS << (BUCKETS - 1)) - 1

_HALF = SUB_BUCKETS // 2
_HALF_BITS = _HALF.bit_length() - 1
_MANTISSA_BITS, _EXPONENT_BIAS = 52, 1023
# Values are recorded this many at a time: a chunk and its scratch space stay in a core's second-level cache.
_CHUNK = 1 << 15


def bucket_indexes(values: IntArray) -> IntArray:
    """The index of each value's bucket; values must be in 0..LARGEST_RECORDABLE.

    A float64 is already a histogram bucket: exponent, then mantissa. Shifted right so that ten mantissa bits remain,
    its bits count in steps of 1/1024 of a power of two, which is what indexes do from 1024 on. The conversion is exact
    (values have 42 bits, a mantissa 53), so nothing is rounded into the next bucket.
    """
    indexes: IntArray = values.astype(np.float64).view(np.int64)
    indexes >>= _MANTISSA_BITS - _HALF_BITS
    indexes -= (_EXPONENT_BIAS + _HALF_BITS - 1) << _HALF_BITS
    # Below 1024 the index is the value itself, and the number above is never larger than it; from 1024 on it is never
    # smaller than 1024. Hence one maximum serves both.
    np.maximum(indexes, np.minimum(values, _HALF), out=indexes)
    return indexes


def lowest_values(indexes: IntArray) -> IntArray:
    """The smallest value of each bucket, in the values' unit."""
    shift = np.maximum((indexes >> _HALF_BITS) - 1, 0)
    lowest: IntArray = (indexes - (shift << _HALF_BITS)) << shift
    return lowest


def highest_values(indexes: IntArray) -> IntArray:
    """The largest value of each bucket: what HdrHistogram reports for a percentile that falls into it."""
    return lowest_values(indexes) + bucket_widths(indexes) - 1


def bucket_widths(indexes: IntArray) -> IntArray:
    """How many integers share each bucket."""
    widths: IntArray = 1 << np.maximum((indexes >> _HALF_BITS) - 1, 0)
    return widths


class Histogram:
    """Counts of integer values, usually nanoseconds.

    ``count``, ``sum``, ``min`` and ``max`` are exact over all recorded values (0 while there are none). Percentiles are
    a bucket's upper end, at most 0.1 % above the truth, and so can exceed ``max`` by as much. ``out_of_range`` counts
    the values that have no bucket, negative or above LARGEST_RECORDABLE: they are in none of the other numbers.

    Memory: 8 bytes a bucket, up to the largest value's; 0 when empty, 92 KB for values up to 1 ms, 270 KB at most.
    """

    __slots__ = ("_counts", "count", "max", "min", "out_of_range", "sum")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._counts: IntArray = np.zeros(0, np.int64)
        self.count = 0
        self.sum = 0
        self.min = 0
        self.max = 0
        self.out_of_range = 0

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} min={self.min} max={self.max} out_of_range={self.out_of_range}>"

    @property
    def counts(self) -> IntArray:
        """Counts by bucket index, a read-only view; buckets past its end are empty."""
        view: IntArray = self._counts.view()
        view.flags.writeable = False
        return view

    def record(self, values: npt.NDArray[np.integer[Any]]) -> None:
        """Count every value of an integer array of any shape. Raises TypeError for other kinds of arrays."""
        flat = values.reshape(-1)
        for begin in range(0, len(flat), _CHUNK):
            # An unsigned number too large for int64 becomes negative here, and so is out of range as it should be.
            self._record_chunk(flat[begin : begin + _CHUNK].astype(np.int64, casting="same_kind", copy=False))

    def _record_chunk(self, values: IntArray) -> None:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > LARGEST_RECORDABLE:
            inside = values[(values >= 0) & (values <= LARGEST_RECORDABLE)]
            self.out_of_range += len(values) - len(inside)
            if len(inside):
                self._record_chunk(inside)
            return
        indexes = bucket_indexes(values)
        first = int(indexes.min())
        indexes -= first  # so that the counts of a chunk are as few as its values are spread
        counts = np.bincount(indexes)
        self._reserve(first + len(counts))
        self._counts[first : first + len(counts)] += counts
        # 2**15 values of 42 bits: the sum of a chunk cannot overflow
        self._note(len(values), int(values.sum()), low, high)

    def add(self, other: Histogram) -> None:
        """Count everything that ``other`` has counted, as if it had been recorded here."""
        self.out_of_range += other.out_of_range
        if other.count:
            self._reserve(len(other._counts))
            self._counts[: len(other._counts)] += other._counts
            self._note(other.count, other.sum, other.min, other.max)

    @classmethod
    def of_buckets(cls, indexes: IntArray, counts: IntArray, total: int, high: int) -> Histogram:
        """What was counted elsewhere, by `bucket_indexes`; an index may come more than once. The least is its bucket's."""
        found = cls()
        if len(indexes):
            found._reserve(int(indexes.max()) + 1)
            np.add.at(found._counts, indexes, counts)
            found._note(int(counts.sum()), total, int(lowest_values(indexes.min(keepdims=True))[0]), high)
        return found

    def _reserve(self, length: int) -> None:
        if length > len(self._counts):
            counts = np.zeros(-(-length // _HALF) * _HALF, np.int64)
            counts[: len(self._counts)] = self._counts
            self._counts = counts

    def _note(self, count: int, total: int, low: int, high: int) -> None:
        self.min = min(self.min, low) if self.count else low
        self.max = max(self.max, high)
        self.count += count
        self.sum += total

    def nonzero(self) -> tuple[IntArray, IntArray]:
        """(indexes, counts) of the buckets that hold something, ascending."""
        indexes = np.flatnonzero(self._counts)
        return indexes, self._counts[indexes]

    def percentile(self, percentile: float) -> int:
        """The value that ``percentile`` (0 to 100) percent of all values do not exceed; 0 when empty."""
        return self.percentiles([percentile])[0]

    def percentiles(self, percentiles: Iterable[float]) -> list[int]:
        """`percentile` of each, in the order given."""
        indexes, counts = self.nonzero()
        if not self.count:
            return [0 for _ in percentiles]
        up_to_here = np.cumsum(counts)
        lowest, highest = lowest_values(indexes), highest_values(indexes)
        out = []
        for percentile in percentiles:
            # hdrh's arithmetic to the letter (get_target_count_at_percentile), or ties would fall elsewhere
            wanted = max(int(min(percentile, 100.0) * self.count / 100 + 0.5), 1)
            position = min(int(np.searchsorted(up_to_here, wanted)), len(indexes) - 1)
            out.append(int((highest if percentile else lowest)[position]))
        return out

    def encode(self) -> bytes:
        """The histogram in HdrHistogram's V2 compressed format, in base64: a "histoblob"."""
        # Imported here and not above: start-up is short of milliseconds (hdrh costs two to four, and memory), and
        # most runs, and the start of every run, have nothing to encode.
        from hdrh.histogram import HdrHistogram

        out = HdrHistogram(LOWEST, HIGHEST, SIGNIFICANT_DIGITS)
        np.frombuffer(out.counts, np.int64)[: len(self._counts)] = self._counts
        out.total_count = self.count
        if self.count:
            out.min_value, out.max_value = self.min, self.max
        encoded: bytes = out.encode()
        # hdrh's histogram and encoder hold each other; untied, their 300 KB go now and not at some garbage collection.
        out.encoder = None
        return encoded

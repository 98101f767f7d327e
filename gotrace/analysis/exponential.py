"""A histogram with exponential buckets that takes whole numpy arrays of nanoseconds: Prometheus calls it native.

Bucket i of schema n holds the values v with 2**((i - 1) * 2**-n) < v <= 2**(i * 2**-n), in seconds; schema n + 1 merges
exactly into n (https://prometheus.io/docs/specs/native_histograms/). Values are whole nanoseconds, so the boundaries are
known as whole nanoseconds too, and which bucket a value belongs to is decided in integers: exact, at powers of two as
well. OpenTelemetry's exponential histogram is the same thing with indexes that are one less.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

SCHEMA = 5  # 32 buckets for each power of two, each 2.2 % wide
MOST_FILLED = 160  # buckets; with more, pairs of them are joined
# Upper ends of the classic buckets, for servers that do not take exponential ones.
CLASSIC_NS = (
    *(10_000, 25_000, 50_000, 100_000, 250_000, 500_000),
    *(1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 500_000_000, 1_000_000_000),
)

_MOST_PENDING = 256

_PER_OCTAVE = 1 << SCHEMA
_LARGEST_NS = 2**63 - 1
_CHUNK = 1 << 16  # values at a time, so that scratch space stays small
_NO_INDEXES, _NO_COUNTS = np.zeros(0, np.int16), np.zeros(0, np.int64)
_CLASSIC = np.array(CLASSIC_NS)


@dataclass(frozen=True, slots=True, eq=False)
class Exponential:
    """Counts of values in nanoseconds. It does not change: `plus` and `merged` give a new one, so readers need no lock."""

    schema: int = SCHEMA
    indexes: npt.NDArray[np.int16] = field(default_factory=lambda: _NO_INDEXES)  # of filled buckets, ascending
    counts: IntArray = field(default_factory=lambda: _NO_COUNTS)  # of each of them
    zeros: int = 0  # values of exactly 0, which no exponential bucket holds
    count: int = 0
    sum_ns: int = 0
    min_ns: int = 0  # 0 without values, like the next
    max_ns: int = 0
    classic: IntArray = field(default_factory=lambda: np.zeros(len(CLASSIC_NS) + 1, np.int64))  # not cumulative

    def plus(self, values: npt.NDArray[np.integer]) -> Exponential:
        """With ``values``: any number of whole nanoseconds, 0 to 2**63 - 1. Raises ValueError for others."""
        values = nanoseconds(values)
        if not values.size:
            return self
        least, most = int(values.min()), int(values.max())
        indexes, counts = buckets_of(values)
        classic = np.zeros(len(CLASSIC_NS) + 1, np.int64)
        for start in range(0, values.size, _CHUNK):
            classic += np.bincount(_CLASSIC.searchsorted(values[start : start + _CHUNK]), minlength=len(classic))
        # In two halves: neither sum can leave 64 bits. Values below 2**32 need but one.
        high = int((values >> 32).sum()) << 32 if most >> 32 else 0
        seen = Exponential(
            SCHEMA,
            indexes,
            counts,
            zeros=values.size - int(counts.sum()),
            count=values.size,
            sum_ns=high + int((values & 0xFFFFFFFF).sum()),
            min_ns=least,
            max_ns=most,
            classic=classic,
        )
        return self.merged(seen)

    def plus_counted(self, values: npt.NDArray[np.integer], counts: IntArray) -> Exponential:
        """With ``counts`` of each of ``values``, for what was counted elsewhere: values as in `plus`, counts from 0 on."""
        values, counts = values[counts > 0].astype(np.int64), counts[counts > 0]
        if not values.size:
            return self
        seen = Exponential(
            SCHEMA,
            *buckets_of_counted(values, counts),
            zeros=int(counts[values == 0].sum()),
            count=int(counts.sum()),
            sum_ns=sum(value * count for value, count in zip(values.tolist(), counts.tolist(), strict=True)),
            min_ns=int(values.min()),
            max_ns=int(values.max()),
            classic=np.bincount(_CLASSIC.searchsorted(values), counts, len(CLASSIC_NS) + 1).astype(np.int64),
        )
        return self.merged(seen)

    def merged(self, other: Exponential) -> Exponential:
        """Both together, exactly, in the coarser of the two schemas or a coarser one."""
        if not self.count or not other.count:
            return self if self.count else other._bounded()
        schema = min(self.schema, other.schema)
        one, two = self.coarser(schema), other.coarser(schema)
        indexes, counts = _summed((one.indexes, two.indexes), (one.counts, two.counts))
        return Exponential(
            schema,
            indexes,
            counts,
            self.zeros + other.zeros,
            self.count + other.count,
            self.sum_ns + other.sum_ns,
            min(self.min_ns, other.min_ns),
            max(self.max_ns, other.max_ns),
            self.classic + other.classic,
        )._bounded()

    def coarser(self, schema: int) -> Exponential:
        """In a coarser schema: each bucket then is 2**(difference) of the finer ones."""
        shift = self.schema - schema
        if shift <= 0:
            return self
        indexes, counts = _summed((-(-self.indexes >> shift),), (self.counts,))
        return replace(self, schema=schema, indexes=indexes, counts=counts)

    def _bounded(self) -> Exponential:
        bounded = self
        while len(bounded.indexes) > MOST_FILLED:
            bounded = bounded.coarser(bounded.schema - 1)
        return bounded


class Growing:
    """Values that come a few at a time: to count a few takes as long as to count hundreds, so the last ones wait.

    Readers need no lock: what there is is one attribute, replaced at once.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: tuple[Exponential, IntArray] = (Exponential(), _NO_COUNTS)

    @property
    def values(self) -> Exponential:
        """All of them."""
        counted, last = self._seen
        return counted.plus(last)

    def add(self, values_ns: npt.NDArray[np.integer]) -> None:
        """More, as in `Exponential.plus`."""
        counted, last = self._seen
        last = np.concatenate([last, nanoseconds(values_ns)])
        self._seen = (counted.plus(last), _NO_COUNTS) if len(last) > _MOST_PENDING else (counted, last)

    def add_counted(self, values_ns: npt.NDArray[np.integer], counts: IntArray) -> None:
        """More, as in `Exponential.plus_counted`."""
        counted, last = self._seen
        self._seen = counted.plus_counted(values_ns, counts), last


def nanoseconds(values: npt.NDArray[np.integer]) -> IntArray:
    """``values`` as `Exponential` takes them. Raises ValueError for what are none."""
    if values.dtype.kind not in "iu":
        raise ValueError(f"nanoseconds are integers, not {values.dtype}")
    if values.size and ((least := int(values.min())) < 0 or int(values.max()) > _LARGEST_NS):
        raise ValueError(f"nanoseconds are 0 to 2**63 - 1, not {least if least < 0 else int(values.max())}")
    return values.astype(np.int64, copy=False)


def buckets_of(values: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int16], IntArray]:
    """The filled buckets of nanoseconds in `SCHEMA`, however many, and the number of ``values`` in each; without zeros."""
    first, boundaries = _boundaries()
    indexes, counts = _NO_INDEXES, _NO_COUNTS
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        within = (boundaries.searchsorted(part[part > 0]) + first).astype(np.int16)
        indexes, counts = _summed((indexes, within), (counts, np.ones(len(within), np.int64)))
    return indexes, counts


def buckets_of_counted(values: npt.NDArray[np.integer], counts: IntArray) -> tuple[npt.NDArray[np.int16], IntArray]:
    """The same of ``counts`` of each of ``values``."""
    positive = values > 0
    first, boundaries = _boundaries()
    indexes = (boundaries.searchsorted(values[positive]) + first).astype(np.int16)
    return _summed((indexes,), (counts[positive],))


def _summed(
    indexes: tuple[npt.NDArray[np.int16], ...], counts: tuple[IntArray, ...]
) -> tuple[npt.NDArray[np.int16], IntArray]:
    """Every index once, ascending, and the sum of its counts."""
    every = np.concatenate(indexes)
    if not every.size:
        return _NO_INDEXES, _NO_COUNTS
    first = int(every.min())
    # Weights are floats, which are exact up to 2**53: nobody has seen as many values.
    dense = np.bincount(every - first, np.concatenate(counts))
    filled = dense.nonzero()[0]
    return (filled + first).astype(np.int16), dense[filled].astype(np.int64)


@functools.cache
def _boundaries() -> tuple[int, IntArray]:
    """The index of the first bucket in `SCHEMA` that holds a whole nanosecond, and the largest ns of that and each further.

    The largest whole v with v / 10**9 <= 2**(i / 32) is the 32nd root of 2**i * 10**288, rounded down.
    """

    def largest(index: int) -> int:
        power = 10 ** (9 * _PER_OCTAVE)
        root: int = power << index if index >= 0 else power >> -index
        for _ in range(SCHEMA):
            root = math.isqrt(root)
        return root

    first = math.floor(-math.log2(10**9) * _PER_OCTAVE)
    while not largest(first):
        first += 1
    ends: list[int] = []
    while not ends or ends[-1] < _LARGEST_NS:
        ends.append(min(largest(first + len(ends)), _LARGEST_NS))
    return first, np.array(ends)

"""Values of a metric, as rows of the tables: their total, their buckets, and the longest of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gotrace.agent.spool import WORST
from gotrace.analysis.exponential import buckets_of_counted

Array = npt.NDArray[np.int64]
# A table, and columns of rows of it: equally long lists or arrays, or one value for all.
Part = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Whose:
    """What was measured, and when: what stands in front of every row of a run or window."""

    host: str
    fingerprint: str | None
    service: str
    version: str | None
    start_ns: int
    length_ns: int | None
    source: str

    def of(self) -> dict[str, Any]:
        """Columns that all tables of measurements have."""
        names = ("host", "fingerprint", "service", "version", "start_ns", "source")
        return {name: getattr(self, name) for name in names}

    def lasting(self) -> dict[str, Any]:
        """With how long it was."""
        return {**self.of(), "length_ns": self.length_ns}


def histogram(
    whose: Whose,
    metric: str,
    label: str,
    buckets: tuple[Any, Any],
    total: Mapping[str, Any],
) -> Iterator[Part]:
    """Buckets of `gotrace.analysis.exponential.SCHEMA` and their counts; ``total`` are the columns of the table "total"."""
    series = {"metric": metric, "label": label}
    yield "total", {**whose.lasting(), **series, **total}
    if len(buckets[0]):
        yield "hist", {**whose.of(), **series, "bucket": buckets[0], "n": buckets[1]}


def of_counted(whose: Whose, metric: str, label: str, values_ns: Array, counts: Array) -> Iterator[Part]:
    """Of ``counts`` of each of some values, from 0 ns on; nothing of none."""
    if not len(values_ns):
        return
    total = {
        "count": int(counts.sum()),
        "zeros": int(counts[values_ns == 0].sum()),
        "sum_ns": int(values_ns @ counts),
        "min_ns": int(values_ns.min()),
        "max_ns": int(values_ns.max()),
    }
    yield from histogram(whose, metric, label, buckets_of_counted(values_ns, counts), total)


def of_values(whose: Whose, metric: str, label: str, values_ns: Array) -> Iterator[Part]:
    """Of single values."""
    yield from of_counted(whose, metric, label, *np.unique(values_ns, return_counts=True))


def longest_counted(whose: Whose, metric: str, values_ns: Array, counts: Array) -> Iterator[Part]:
    """The longest of values that ascend, of which no more is known."""
    last = np.repeat(values_ns[-WORST:], np.minimum(counts[-WORST:], WORST))[-WORST:]
    if len(last):
        yield "worst", {**whose.of(), "metric": metric, "label": "", "value_ns": last[::-1]}

"""What a load tool measured, whichever it was, and its form in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gotrace.records.load import KINDS, PERCENTILES, Distribution, Load, Model, Trust


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many requests took how long: ``values_ns`` ascend and are distinct, ``counts`` are positive."""

    values_ns: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values_ns: NDArray[np.int64]) -> Histogram:
        """Of single values, in any order."""
        return cls(*np.unique(values_ns, return_counts=True))

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def percentile(self, percent: float) -> float | None:
        """The smallest value that at least ``percent`` of all values do not exceed; None if there are no values."""
        if not len(self.values_ns):
            return None
        # The rank is rounded before it is rounded up: 99.9 % of 1000 must not become the 1000th for 2**-50's sake.
        rank = max(1, math.ceil(round(percent / 100 * self.total, 6)))
        return float(self.values_ns[int(np.searchsorted(np.cumsum(self.counts), rank))])

    def record(self) -> Distribution:
        return {"value_ns": self.values_ns.tolist(), "count": self.counts.tolist()}

    def mean(self) -> float | None:
        return float(self.values_ns @ self.counts) / self.total if len(self.values_ns) else None


@dataclass(frozen=True, eq=False)
class LoadResult:
    """One run of a load tool. Times are nanoseconds; None is what the tool does not give."""

    tool: str
    requests: int  # that ended, with an answer or without
    answered: int  # with any status
    duration_ns: int
    errors: Mapping[str, int]  # kind, of `KINDS`, to count; kinds without any are left out
    percentiles_ns: Mapping[str, float | None]  # has all of `PERCENTILES`
    percentiles_are: Trust
    resolution_ns: int = 1000
    mean_ns: float | None = None
    min_ns: float | None = None
    max_ns: float | None = None
    histogram: Histogram | None = None
    printed_ns: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    model: Model = "closed"
    wanted_rate: float | None = None
    version: str = ""
    asked: tuple[str, ...] = ()  # the user's command: what two results must share to be compared
    command: tuple[str, ...] = ()  # the one that was run

    def __post_init__(self) -> None:
        unknown = set(self.errors) - set(KINDS) | set(self.percentiles_ns) ^ set(PERCENTILES)
        assert not unknown, unknown

    @property
    def throughput(self) -> float:
        """Answers per second, whatever their status."""
        return self.answered * 1e9 / self.duration_ns if self.duration_ns else 0.0

    @property
    def failed(self) -> int:
        """Requests that failed; one that failed in two ways may count twice, but there are never more than requests."""
        return min(self.requests, sum(self.errors.values()))

    @property
    def rate_share(self) -> float | None:
        """The achieved rate as a share of the one asked for; None if none was."""
        return self.throughput / self.wanted_rate if self.wanted_rate else None

    def metrics(self) -> dict[str, float | None]:
        """The values of `gotrace.lab.metrics` that a load gives. Percentiles of too few values are None."""
        from gotrace.lab.metrics import least_values

        known: dict[str, float | None] = {
            "throughput": self.throughput,
            "errors.share": self.failed / self.requests if self.requests else None,
            "latency.max": self.max_ns,
            "latency.mean": self.mean_ns,
        }
        for name in ("p50", "p90", "p95", "p99", "p99.9"):
            enough = self.answered >= least_values(name)
            known[f"latency.{name}"] = self.percentiles_ns[name] if enough else None
        return known

    def record(self) -> Load:
        """Its form in JSON: see `gotrace.records.load`."""
        histogram = self.histogram
        return {
            "type": "load",
            "tool": self.tool,
            "version": self.version or None,
            "asked": list(self.asked),
            "command": list(self.command),
            "model": self.model,
            "wanted_rate": self.wanted_rate,
            "requests": self.requests,
            "answered": self.answered,
            "errors": dict(self.errors),
            "duration_ns": self.duration_ns,
            "throughput": self.throughput,
            "percentiles_ns": dict(self.percentiles_ns),
            "percentiles_are": self.percentiles_are,
            "resolution_ns": self.resolution_ns,
            "printed_ns": dict(self.printed_ns),
            "mean_ns": self.mean_ns,
            "min_ns": self.min_ns,
            "max_ns": self.max_ns,
            "histogram": histogram.record() if histogram else None,
            "notes": list(self.notes),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LoadResult:
        """The opposite of `record`; KeyError or TypeError for what is none."""
        histogram = record["histogram"]
        arrays = histogram and [np.array(histogram[name], np.int64) for name in ("value_ns", "count")]
        same = ["tool", "model", "wanted_rate", "requests", "answered", "errors", "duration_ns", "percentiles_ns"]
        same += ["percentiles_are", "resolution_ns", "printed_ns", "mean_ns", "min_ns", "max_ns"]
        return cls(
            **{name: record[name] for name in same},
            version=record["version"] or "",
            asked=tuple(record["asked"]),
            command=tuple(record["command"]),
            notes=tuple(record["notes"]),
            histogram=Histogram(*arrays) if arrays else None,
        )


def from_histogram(histogram: Histogram) -> dict[str, Any]:
    """What a result says of its latencies if all of them are known."""
    values = histogram.values_ns
    return {
        "percentiles_ns": {name: histogram.percentile(float(name[1:])) for name in PERCENTILES},
        "percentiles_are": "exact",
        "mean_ns": histogram.mean(),
        "min_ns": float(values[0]) if len(values) else None,
        "max_ns": float(values[-1]) if len(values) else None,
        "histogram": histogram,
    }


def percentiles(known: Mapping[str, float | None]) -> dict[str, float | None]:
    """All of `PERCENTILES`; None where ``known`` has none."""
    return {name: known.get(name) for name in PERCENTILES}


def errors(**counts: int) -> dict[str, int]:
    """By kind, without those of which there are none."""
    return {kind: count for kind, count in counts.items() if count}

"""Metrics before they have a format: families, the resources they are of, and their series, whose number is bounded.

A family is named as in OpenTelemetry's semantic conventions (``go.memory.gc.pause.duration``, unit ``s``); Prometheus'
name for it (``go_memory_gc_pause_duration_seconds``) follows by OpenTelemetry's rules for compatibility
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/). Values of labels come from targets:
they are made harmless and short here, so that no format gets others.
"""

from __future__ import annotations

import functools
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from gotrace.analysis.exponential import CLASSIC_NS, Exponential, Growing
from gotrace.text import printable

Pairs = tuple[tuple[str, str], ...]
Kind = Literal["counter", "gauge", "histogram", "info"]

MOST_SERIES = 5_000
MOST_LABEL_BYTES = 256
MOST_EXEMPLAR_CHARS = 128  # of all names and values together: the limit of OpenMetrics
EXEMPLAR_NS = 60 * 10**9  # for so long the longest is kept; then the next takes its place
OTHER = "~other"

_NAME = re.compile(r"[a-z][a-z0-9]*([._][a-z0-9]+)*")
# UCUM's units as Prometheus' words.
_UNITS = {"s": "seconds", "By": "bytes", "1": "ratio"}


@dataclass(frozen=True)
class Family:
    """Metrics of one name. ``unit`` is a UCUM unit: "s", "By", "1", "{event}" for counts of something, or "".

    A histogram is fed nanoseconds and is in seconds. ``labels`` are the names of what tells its series apart, beside the
    resource. Raises ValueError for names that no format could take.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *self.labels):
            if not _NAME.fullmatch(name) or name in ("le", "quantile"):
                raise ValueError(f"not the name of a metric or a label: {name!r}")
        if self.kind == "histogram" and self.unit != "s":
            raise ValueError(f"{self.name}: a histogram is one of seconds")

    @functools.cached_property
    def prometheus_unit(self) -> str:
        """The unit in a Prometheus name: seconds, bytes; ratio for a gauge of unit 1; "" for what is counted."""
        return "" if self.unit == "1" and self.kind != "gauge" else _UNITS.get(self.unit, "")

    @functools.cached_property
    def prometheus_name(self) -> str:
        """With the unit, without the endings that samples have (``_total``, ``_info``)."""
        name = self.name.replace(".", "_")
        unit = self.prometheus_unit
        return name if not unit or name.endswith(f"_{unit}") else f"{name}_{unit}"

    @functools.cached_property
    def sample_name(self) -> str:
        """What its samples are called in Prometheus' own formats."""
        return self.prometheus_name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


@dataclass(frozen=True)
class Resource:
    """What series are of: a service, as far as its labels tell it from others. Processes with equal labels share series.

    ``labels`` are on every series; ``more`` (its instance, its container) is for OTLP's Resource alone.
    """

    labels: Pairs
    more: Pairs = field(default=(), compare=False)

    @classmethod
    def of(cls, labels: Mapping[str, str], more: Mapping[str, str] | None = None) -> Resource:
        """With labels made harmless; those without a value are left out. Raises ValueError for a name that is none."""
        for name in (*labels, *(more or {})):
            if not _NAME.fullmatch(name) or name in ("le", "quantile"):
                raise ValueError(f"not the name of a label: {name!r}")
        return cls(_cleaned(labels.items()), _cleaned((more or {}).items()))


@dataclass(frozen=True)
class Exemplar:
    """One of the values of a histogram, in nanoseconds, with what else is known of it, and when it was (ns since 1970)."""

    value_ns: int
    labels: Pairs
    time_ns: int

    @classmethod
    def of(cls, value_ns: int, labels: Mapping[str, str], time_ns: int) -> Exemplar:
        """With labels made harmless, and cut to what OpenMetrics allows.

        Quotes become single ones: client_python's parser takes an escaped one in an exemplar for the end of its value.
        """
        kept, left = [], MOST_EXEMPLAR_CHARS
        for name, value in labels.items():
            value = label_value(value).replace('"', "'")[: max(0, left - len(name))]
            if value and _NAME.fullmatch(name):
                kept.append((name, value))
                left -= len(name) + len(value)
        return cls(value_ns, tuple(kept), time_ns)


@dataclass(slots=True)
class _Series:
    resource: Resource
    labels: Pairs  # of the family
    created_ns: int  # since 1970: what it counts is from then on


@dataclass(slots=True)
class Number(_Series):
    """A counter, a gauge, or an info's 1."""

    value: float = 0

    def add(self, more: float) -> None:
        """``more`` since the last time; not negative."""
        if more < 0:
            raise ValueError("counters do not fall")
        self.value += more

    def reach(self, total: float) -> None:
        """Add what is missing to ``total``, of what is counted elsewhere."""
        self.add(max(0, total - self.value))

    def set(self, value: float) -> None:
        """Of a gauge."""
        self.value = value


@dataclass(slots=True)
class Histogram(_Series):
    """The values of a histogram so far, and the longest of the last minute."""

    exemplar: Exemplar | None = None
    _values: Growing = field(default_factory=Growing)

    @property
    def values(self) -> Exponential:
        """All of them."""
        return self._values.values

    def count(self, values_ns: npt.NDArray[np.integer], counts: npt.NDArray[np.int64]) -> None:
        """``counts`` of each of the values, as in `Exponential.plus_counted`."""
        self._values.add_counted(values_ns, counts)

    def observe(self, values_ns: npt.NDArray[np.integer], exemplar: Exemplar | None = None) -> None:
        """More values, as in `Exponential.plus`; ``exemplar`` is one of them and is kept if it is the longest."""
        self._values.add(values_ns)
        kept = self.exemplar
        if exemplar and (not kept or exemplar.value_ns >= kept.value_ns or exemplar.time_ns - kept.time_ns > EXEMPLAR_NS):
            self.exemplar = exemplar

    @staticmethod
    def classic(values: Exponential, exemplar: Exemplar | None) -> Iterator[tuple[float, int, Exemplar | None]]:
        """Cumulative buckets: the upper end in seconds, the count up to it, and the exemplar where it is in."""
        counts = values.classic.cumsum().tolist()
        lower = -1
        for upper, count in zip((*CLASSIC_NS, None), counts, strict=True):
            within = exemplar and lower < exemplar.value_ns and (upper is None or exemplar.value_ns <= upper)
            yield (float("inf") if upper is None else upper / 1e9), count, (exemplar if within else None)
            lower = upper or 0


Series = TypeVar("Series", Number, Histogram)
Collected = Sequence[tuple[Family, Sequence[Number | Histogram]]]


class Registry:
    """The series of all families, at most ``most_series``; one thread makes and drops them, any may collect.

    A histogram is one series: so Prometheus counts a native one, while a classic one takes 18 there. Beyond nine tenths of
    the bound new counters and histograms are added up under the service ``~other``, and gauges, which cannot be added up,
    are left out; ``beyond`` counts both.
    """

    def __init__(self, families: Iterable[Family], most_series: int = MOST_SERIES) -> None:
        self._series: dict[Family, dict[tuple[Resource, Pairs], Number | Histogram]] = {family: {} for family in families}
        names = [family.sample_name for family in self._series]
        if len(set(names)) < len(names):
            raise ValueError(f"two families of one name: {sorted(names)}")
        self.bound(most_series)
        self.series = 0
        self.beyond = 0  # series that were asked for and not made, each time they were asked for
        self.dropped = 0  # resources that went

    def bound(self, most_series: int) -> None:
        """From now on; series that there are stay."""
        self._most_others = most_series - len(self._series)  # one is kept for the last resort of each family
        self._most = self._most_others * 9 // 10

    def number(self, family: Family, resource: Resource, *values: str, created_ns: int = 0) -> Number:
        """The series of a counter, gauge or info; ``values`` are those of the family's labels, in their order.

        Keep what is returned: to ask again takes longer, and is counted where there is no room. ``created_ns`` is since
        when it counts, if not from now on.
        """
        made = self._of(Number, family, resource, values, created_ns)
        if family.kind == "info":
            made.value = 1
        return made

    def histogram(self, family: Family, resource: Resource, *values: str, created_ns: int = 0) -> Histogram:
        """The series of a histogram, as in `number`."""
        return self._of(Histogram, family, resource, values, created_ns)

    def drop(self, resource: Resource, families: Iterable[Family] | None = None) -> None:
        """Forget what is of a resource that ended, or of some families what it has no more.

        Series of it that are still held are shown no more.
        """
        before = self.series
        for series in self._series.values() if families is None else [self._series[family] for family in families]:
            for key in [key for key in series if key[0] == resource]:
                del series[key]
                self.series -= 1
        self.dropped += families is None and self.series < before

    def collect(self) -> Collected:
        """Every family that has series, as they are now; what they hold may go on."""
        return [(family, list(series.values())) for family, series in self._series.items() if series]

    def _of(self, kind: type[Series], family: Family, resource: Resource, values: Sequence[str], created_ns: int) -> Series:
        if (kind is Histogram) is not (family.kind == "histogram"):
            raise TypeError(f"{family.name} is a {family.kind}")
        series = self._series[family]
        labels = _own_labels(family.labels, tuple(values))
        found = series.get((resource, labels))
        if found is None and self.series >= self._most:
            self.beyond += 1
            if family.kind in ("gauge", "info"):
                return kind(resource, labels, created_ns)  # in nobody's books
            resource = Resource((("service.name", OTHER),))
            if (resource, labels) not in series and self.series >= self._most_others:
                labels = tuple((name, OTHER) for name in family.labels)
            found = series.get((resource, labels))
        if found is None:
            if {name.replace(".", "_") for name, _ in resource.labels} & {name.replace(".", "_") for name in family.labels}:
                raise ValueError(f"{family.name}: a label of this name is the resource's")
            found = series[resource, labels] = kind(resource, labels, created_ns or time.time_ns())
            self.series += 1
        assert isinstance(found, kind)
        return found


def prometheus_pairs(pairs: Pairs) -> Pairs:
    """Labels with the names that Prometheus takes."""
    return tuple((name.replace(".", "_"), value) for name, value in pairs)


def label_value(text: str) -> str:
    """What somebody else chose, harmless and at most 256 bytes; two that differ stay different, and from ``~other``."""
    clean = printable(text.replace("\\", "\\\\"))
    if clean == OTHER:
        return f"\\x7e{OTHER[1:]}"
    data = clean.encode()
    if len(data) <= MOST_LABEL_BYTES:
        return clean
    end = f"~{zlib.crc32(data):08x}"
    return data[: MOST_LABEL_BYTES - len(end)].decode(errors="ignore") + end


@functools.lru_cache(1024)
def _own_labels(names: tuple[str, ...], values: tuple[str, ...]) -> Pairs:
    """Kept, so that the many series of equal labels share them."""
    return _cleaned(zip(names, values, strict=True))


def _cleaned(pairs: Iterable[tuple[str, str]]) -> Pairs:
    return tuple((name, label_value(value)) for name, value in pairs if value)

"""OpenTelemetry's protocol: an ExportMetricsServiceRequest with exponential histograms, all of them cumulative.

The messages are those of https://github.com/open-telemetry/opentelemetry-proto (v1, stable), with the fields used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gotrace.analysis.exponential import Exponential
from gotrace.export.metrics.model import Collected, Exemplar, Family, Histogram, Number, Pairs, Resource
from gotrace.export.protobuf import Encoder, decoded

CONTENT_TYPE = "application/x-protobuf"

MESSAGES = {
    "ExportMetricsServiceRequest": {"resource_metrics": (1, "repeated ResourceMetrics")},
    "ResourceMetrics": {"resource": (1, "Resource"), "scope_metrics": (2, "repeated ScopeMetrics")},
    "Resource": {"attributes": (1, "repeated KeyValue")},
    "ScopeMetrics": {"scope": (1, "InstrumentationScope"), "metrics": (2, "repeated Metric")},
    "InstrumentationScope": {"name": (1, "string"), "version": (2, "string")},
    "Metric": {
        "name": (1, "string"),
        "description": (2, "string"),
        "unit": (3, "string"),
        "gauge": (5, "Gauge"),
        "sum": (7, "Sum"),
        "exponential_histogram": (10, "ExponentialHistogram"),
    },
    "Gauge": {"data_points": (1, "repeated NumberDataPoint")},
    "Sum": {
        "data_points": (1, "repeated NumberDataPoint"),
        "aggregation_temporality": (2, "int32"),
        "is_monotonic": (3, "bool"),
    },
    "ExponentialHistogram": {
        "data_points": (1, "repeated ExponentialHistogramDataPoint"),
        "aggregation_temporality": (2, "int32"),
    },
    "NumberDataPoint": {
        "start_time_unix_nano": (2, "fixed64"),
        "time_unix_nano": (3, "fixed64"),
        "as_double": (4, "double"),
        "as_int": (6, "sfixed64"),
        "attributes": (7, "repeated KeyValue"),
    },
    "ExponentialHistogramDataPoint": {
        "attributes": (1, "repeated KeyValue"),
        "start_time_unix_nano": (2, "fixed64"),
        "time_unix_nano": (3, "fixed64"),
        "count": (4, "fixed64"),
        "sum": (5, "double"),
        "scale": (6, "sint32"),
        "zero_count": (7, "fixed64"),
        "positive": (8, "Buckets"),
        "exemplars": (11, "repeated Exemplar"),
        "min": (12, "double"),
        "max": (13, "double"),
    },
    "Buckets": {"offset": (1, "sint32"), "bucket_counts": (2, "repeated uint64")},
    "Exemplar": {
        "time_unix_nano": (2, "fixed64"),
        "as_double": (3, "double"),
        "filtered_attributes": (7, "repeated KeyValue"),
    },
    "KeyValue": {"key": (1, "string"), "value": (2, "AnyValue")},
    "AnyValue": {"string_value": (1, "string")},
}
_encoded = Encoder(MESSAGES)

_CUMULATIVE = 2  # AggregationTemporality


def request(collected: Collected, time_ns: int, version: str) -> bytes:
    """Everything at ``time_ns`` (since 1970), one Resource for each service; ``version`` is gotrace's."""
    scope = {"name": "gotrace", "version": version}
    by_resource: dict[Resource, list[bytes]] = {}
    for family, series in collected:
        of: dict[Resource, list[Number | Histogram]] = {}
        for each in series:
            of.setdefault(each.resource, []).append(each)
        for resource, those in of.items():
            by_resource.setdefault(resource, []).append(_metric(family, those, time_ns))
    return _encoded(
        "ExportMetricsServiceRequest",
        {
            "resource_metrics": [
                {
                    "resource": {"attributes": _attributes(resource.labels + resource.more)},
                    "scope_metrics": [{"scope": scope, "metrics": metrics}],
                }
                for resource, metrics in by_resource.items()
            ]
        },
    )


def rejected(response: bytes) -> tuple[int, str]:
    """How many points a collector that took the rest refused, and what it says of that. Raises ValueError.

    An ExportMetricsServiceResponse holds partial_success (1), that rejected_data_points (1) and error_message (2).
    """
    partial = dict(decoded(response)).get(1, b"")
    found = dict(decoded(partial)) if isinstance(partial, bytes) else {}
    count, message = found.get(1, 0), found.get(2, b"")
    if not isinstance(count, int) or not isinstance(message, bytes):
        raise ValueError("not an ExportMetricsServiceResponse")
    return count, message.decode(errors="replace")


def _metric(family: Family, series: list[Number | Histogram], time_ns: int) -> bytes:
    points = [_point(family, each, time_ns) for each in series]
    kinds: Mapping[str, tuple[str, dict[str, Any]]] = {
        "histogram": ("exponential_histogram", {"aggregation_temporality": _CUMULATIVE}),
        "counter": ("sum", {"aggregation_temporality": _CUMULATIVE, "is_monotonic": True}),
    }
    kind, more = kinds.get(family.kind, ("gauge", {}))
    metric = {"name": family.name, "description": family.help, "unit": family.unit, kind: {"data_points": points, **more}}
    return _encoded("Metric", metric)


def _point(family: Family, series: Number | Histogram, time_ns: int) -> dict[str, Any]:
    point: dict[str, Any] = {
        "attributes": _attributes(series.labels),
        "start_time_unix_nano": None if family.kind in ("gauge", "info") else series.created_ns,
        "time_unix_nano": time_ns,
    }
    if isinstance(series, Histogram):
        return point | _exponential(series.values, series.exemplar)
    value = series.value
    whole = isinstance(value, int) and abs(value) < 1 << 63
    return point | ({"as_int": value} if whole else {"as_double": value})


def _exponential(values: Exponential, exemplar: Exemplar | None) -> dict[str, Any]:
    first, dense = 0, np.zeros(0, np.int64)
    if len(values.indexes):
        first = int(values.indexes[0])
        dense = np.zeros(int(values.indexes[-1]) - first + 1, np.int64)
        dense[values.indexes - first] = values.counts
    return {
        "count": values.count,
        "sum": values.sum_ns / 1e9,
        "min": values.min_ns / 1e9 if values.count else None,
        "max": values.max_ns / 1e9 if values.count else None,
        "scale": values.schema,
        "zero_count": values.zeros,
        # Its bucket i ends where Prometheus' i + 1 does.
        "positive": {"offset": first - 1, "bucket_counts": dense.tolist()},
        "exemplars": [
            {
                "time_unix_nano": exemplar.time_ns,
                "as_double": exemplar.value_ns / 1e9,
                "filtered_attributes": _attributes(exemplar.labels),
            }
        ]
        if exemplar
        else [],
    }


def _attributes(pairs: Pairs) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"string_value": value}} for name, value in pairs]

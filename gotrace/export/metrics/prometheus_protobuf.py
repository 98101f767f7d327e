"""Prometheus' protobuf format: native histograms, and classic buckets beside for servers that do not take these.

The messages are those of io.prometheus.client with the numbers that fields have today
(https://github.com/prometheus/prometheus/blob/main/prompb/io/prometheus/client/metrics.proto), each with its length before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from gotrace.analysis.exponential import Exponential
from gotrace.export.metrics.model import Collected, Exemplar, Family, Histogram, Number, Pairs, prometheus_pairs
from gotrace.export.protobuf import Encoder, varint

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

MESSAGES = {
    "MetricFamily": {
        "name": (1, "string"),
        "help": (2, "string"),
        "type": (3, "int32"),
        "metric": (4, "repeated Metric"),
        "unit": (5, "string"),
    },
    "Metric": {
        "label": (1, "repeated LabelPair"),
        "gauge": (2, "Gauge"),
        "counter": (3, "Counter"),
        "histogram": (7, "Histogram"),
    },
    "LabelPair": {"name": (1, "string"), "value": (2, "string")},
    "Gauge": {"value": (1, "double")},
    "Counter": {"value": (1, "double"), "created_timestamp": (3, "Timestamp")},
    "Histogram": {
        "sample_count": (1, "uint64"),
        "sample_sum": (2, "double"),
        "bucket": (3, "repeated Bucket"),
        "schema": (5, "sint32"),
        "zero_threshold": (6, "double"),
        "zero_count": (7, "uint64"),
        "positive_span": (12, "repeated BucketSpan"),
        "positive_delta": (13, "repeated sint64"),
        "created_timestamp": (15, "Timestamp"),
        "exemplars": (16, "repeated Exemplar"),
    },
    "Bucket": {"cumulative_count": (1, "uint64"), "upper_bound": (2, "double"), "exemplar": (3, "Exemplar")},
    "BucketSpan": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Exemplar": {"label": (1, "repeated LabelPair"), "value": (2, "double"), "timestamp": (3, "Timestamp")},
    "Timestamp": {"seconds": (1, "int64"), "nanos": (2, "int32")},  # google.protobuf.Timestamp
}
_encoded = Encoder(MESSAGES)

# MetricType.
_TYPES = {"counter": 0, "gauge": 1, "info": 1, "histogram": 4}
# Of client_golang: below any value, and not 0, by which a server knows a native histogram even before its first value.
ZERO_THRESHOLD = 2.0**-128


def page(collected: Collected) -> Iterator[bytes]:
    """The page, a series at a time."""
    labels = functools.cache(_labels)
    for family, series in collected:
        head = {
            "name": family.sample_name,
            "help": family.help,
            "type": _TYPES[family.kind],
            "unit": family.prometheus_unit or None,
        }
        metrics = [(labels(each.resource.labels) + labels(each.labels) + _metric(family, each),) for each in series]
        parts = [_encoded("MetricFamily", head), *(_encoded("MetricFamily", {"metric": metric}) for metric in metrics)]
        yield varint(sum(map(len, parts)))
        yield from parts


def _metric(family: Family, series: Number | Histogram) -> bytes:
    """What a Metric has beside its labels."""
    if isinstance(series, Histogram):
        return _encoded("Metric", {"histogram": _histogram(series)})
    if family.kind == "counter":
        counter = {"value": series.value, "created_timestamp": _timestamp(series.created_ns)}
        return _encoded("Metric", {"counter": counter})
    return _encoded("Metric", {"gauge": {"value": series.value}})


def _labels(pairs: Pairs) -> bytes:
    return _encoded("Metric", {"label": [{"name": name, "value": value} for name, value in prometheus_pairs(pairs)]})


def _histogram(series: Histogram) -> dict[str, Any]:
    values, longest = series.values, series.exemplar
    spans, deltas = spans_and_deltas(values)
    return {
        "sample_count": values.count,
        "sample_sum": values.sum_ns / 1e9,
        "bucket": [
            {"cumulative_count": count, "upper_bound": upper, "exemplar": _exemplar(exemplar) if exemplar else None}
            for upper, count, exemplar in series.classic(values, longest)
        ],
        "schema": values.schema,
        "zero_threshold": ZERO_THRESHOLD,
        "zero_count": values.zeros,
        "positive_span": [{"offset": offset, "length": length} for offset, length in spans],
        "positive_delta": deltas,
        "created_timestamp": _timestamp(series.created_ns),
        "exemplars": [_exemplar(longest)] if longest else [],
    }


def spans_and_deltas(values: Exponential) -> tuple[list[tuple[int, int]], list[int]]:
    """Filled buckets as (gap to the last span or to 0, length), and their counts as differences."""
    spans: list[tuple[int, int]] = []
    end = 0
    for index in values.indexes.tolist():
        if spans and index == end:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((index - end, 1))
        end = index + 1
    counts = values.counts.tolist()
    return spans, [count - before for before, count in zip([0, *counts], counts, strict=False)]


def _exemplar(exemplar: Exemplar) -> dict[str, Any]:
    return {
        "label": [{"name": name, "value": value} for name, value in prometheus_pairs(exemplar.labels)],
        "value": exemplar.value_ns / 1e9,
        "timestamp": _timestamp(exemplar.time_ns),
    }


def _timestamp(time_ns: int) -> dict[str, int]:
    return {"seconds": time_ns // 10**9, "nanos": time_ns % 10**9}

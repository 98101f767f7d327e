"""Prometheus' text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/): classic histograms only."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from gotrace.export.metrics.model import Collected, Histogram, Pairs, prometheus_pairs

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def page(collected: Collected) -> Iterator[bytes]:
    """The page, a series at a time."""
    label_text = functools.cache(labels_as_text)
    for family, series in collected:
        name = family.sample_name
        kind = "gauge" if family.kind == "info" else family.kind
        yield f"# HELP {name} {escaped(family.help, quotes=False)}\n# TYPE {name} {kind}\n".encode()
        for each in series:
            labels = label_text(each.resource.labels), label_text(each.labels)
            if isinstance(each, Histogram):
                yield "".join(_histogram(name, labels, each)).encode()
            else:
                yield f"{name}{braced(*labels)} {number_text(each.value)}\n".encode()


def _histogram(name: str, labels: tuple[str, ...], series: Histogram) -> Iterator[str]:
    values = series.values
    for upper, count, _ in series.classic(values, None):
        yield f"{name}_bucket{braced(*labels, bucket_label(upper))} {count}\n"
    yield f"{name}_sum{braced(*labels)} {number_text(values.sum_ns / 1e9)}\n"
    yield f"{name}_count{braced(*labels)} {values.count}\n"


def escaped(text: str, quotes: bool = True) -> str:
    """A label's value, or with ``quotes`` False a help text, as it stands in a line."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def labels_as_text(pairs: Pairs) -> str:
    """Labels without their braces."""
    return ",".join([f'{name}="{escaped(value)}"' for name, value in prometheus_pairs(pairs)])


def bucket_label(upper: float) -> str:
    """The upper end of a bucket, in seconds, written as in OpenMetrics so that it is the same label in every format."""
    return f'le="{number_text(upper)}"'


def braced(*labels: str) -> str:
    """Labels with braces, if there are any."""
    text = ",".join(filter(None, labels))
    return f"{{{text}}}" if text else ""


def number_text(value: float) -> str:
    """A sample's value: infinities and NaN as Go writes them."""
    text = repr(value)
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)

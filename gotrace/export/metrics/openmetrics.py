"""OpenMetrics 1.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/): units, when counting began, exemplars.

Like text 0.0.4 it has classic histograms only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from gotrace.export.metrics.model import Collected, Exemplar, Histogram
from gotrace.export.metrics.prometheus_text import braced, bucket_label, escaped, labels_as_text, number_text

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def page(collected: Collected) -> Iterator[bytes]:
    """The page, a series at a time."""
    label_text = functools.cache(labels_as_text)
    for family, series in collected:
        name, unit = family.prometheus_name, family.prometheus_unit
        yield f"# TYPE {name} {family.kind}\n".encode()
        if unit:
            yield f"# UNIT {name} {unit}\n".encode()
        yield f"# HELP {name} {escaped(family.help)}\n".encode()
        for each in series:
            labels = label_text(each.resource.labels), label_text(each.labels)
            created = f"{name}_created{braced(*labels)} {_seconds(each.created_ns)}\n"
            if isinstance(each, Histogram):
                yield "".join((*_histogram(name, labels, each), created)).encode()
            else:
                line = f"{family.sample_name}{braced(*labels)} {number_text(each.value)}\n"
                yield (line + created if family.kind == "counter" else line).encode()
    yield b"# EOF\n"


def _histogram(name: str, labels: tuple[str, ...], series: Histogram) -> Iterator[str]:
    values = series.values
    for upper, count, exemplar in series.classic(values, series.exemplar):
        yield f"{name}_bucket{braced(*labels, bucket_label(upper))} {count}{_exemplar(exemplar)}\n"
    yield f"{name}_count{braced(*labels)} {values.count}\n"
    yield f"{name}_sum{braced(*labels)} {number_text(values.sum_ns / 1e9)}\n"


def _exemplar(exemplar: Exemplar | None) -> str:
    if not exemplar:
        return ""
    return f" # {{{labels_as_text(exemplar.labels)}}} {number_text(exemplar.value_ns / 1e9)} {_seconds(exemplar.time_ns)}"


def _seconds(time_ns: int) -> str:
    return f"{time_ns // 10**9}.{time_ns % 10**9:09}"

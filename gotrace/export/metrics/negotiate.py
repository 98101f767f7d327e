"""Which format a client gets, by its Accept header: as Prometheus' own library chooses (prometheus/common, expfmt)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gotrace.export.metrics import openmetrics, prometheus_protobuf, prometheus_text
from gotrace.export.metrics.model import Collected


class Format(NamedTuple):
    """A content type, and what makes a page of it."""

    content_type: str
    page: Callable[[Collected], Iterator[bytes]]


TEXT = Format(prometheus_text.CONTENT_TYPE, prometheus_text.page)
OPENMETRICS = Format(openmetrics.CONTENT_TYPE, openmetrics.page)
PROTOBUF = Format(prometheus_protobuf.CONTENT_TYPE, prometheus_protobuf.page)
# The same text, by the name that its draft had: who does not say which version is meant gets this.
OPENMETRICS_DRAFT = OPENMETRICS._replace(content_type=openmetrics.CONTENT_TYPE.replace("1.0.0", "0.0.1"))


def negotiated(accept: str) -> Format:
    """The best of what ``accept`` (a header) asks for that there is; text 0.0.4 if it asks for nothing we have."""
    for kind, parameters in _by_preference(accept):
        version = parameters.get("version", "")
        if kind == "application/vnd.google.protobuf":
            asked = parameters.get("proto"), parameters.get("encoding")
            if asked == ("io.prometheus.client.MetricFamily", "delimited"):
                return PROTOBUF
        elif kind == "application/openmetrics-text" and version == "1.0.0":
            return OPENMETRICS
        elif kind == "application/openmetrics-text" and version in ("", "0.0.1"):
            return OPENMETRICS_DRAFT
        elif kind == "text/plain" and version in ("", "0.0.4"):
            return TEXT
    return TEXT


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    return any(kind == "gzip" for kind, _ in _by_preference(accept_encoding))


def _by_preference(header: str) -> list[tuple[str, dict[str, str]]]:
    """What a header lists, with its parameters: the greatest q first, then as written; what has q=0 is left out."""
    found = []
    for part in header.split(","):
        kind, *rest = (each.strip() for each in part.split(";"))
        parameters = {
            name.strip().lower(): value.strip().strip('"') for name, _, value in (each.partition("=") for each in rest)
        }
        try:
            quality = min(1.0, float(parameters.get("q", 1)))
        except ValueError:
            quality = 1.0
        if kind and quality > 0:
            found.append((quality, kind.lower(), parameters))
    found.sort(key=lambda each: -each[0])
    return [(kind, parameters) for _, kind, parameters in found]

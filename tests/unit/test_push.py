"""Sending by OTLP: to a collector that takes, refuses, delays and dies, and the settings of OpenTelemetry's SDKs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from collectors import Collector, collecting, rejecting
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from conftest import PATIENCE_S
from gotrace.agent.push import Destination, Push
from gotrace.errors import UsageError
from gotrace.export.metrics.model import Family, Registry, Resource

LOST = Family("gotrace.events.lost", "counter", "{event}", "Events that were lost.")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def registry() -> Registry:
    made = Registry([LOST])
    made.number(LOST, Resource.of({"service.name": "shop"})).add(7)
    return made


def value(message: ExportMetricsServiceRequest) -> float:
    return float(message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].as_int)


def test_it_sends_every_interval_and_at_the_end(collector: Collector) -> None:
    destination = Destination.of(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{collector.url}/base/",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%2Cb, X-Tenant = shop ",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
        }
    )
    assert destination
    source = registry()
    push = Push(source, destination, "0.9").start()
    collector.wait(3)
    source.number(LOST, Resource.of({"service.name": "shop"})).add(1)
    push.close()
    times, paths, headers, sent = zip(*collector.requests, strict=True)
    assert set(paths) == {"/base/v1/metrics"}
    assert {(each["Content-Type"], each["api-key"], each["X-Tenant"]) for each in headers} == {
        ("application/x-protobuf", "a,b", "shop")
    }
    assert {each["Content-Encoding"] for each in headers} == {"gzip"}
    assert value(sent[0]) == 7 and value(sent[-1]) == 8
    assert times[2] - times[0] >= 0.19
    assert (push.sent, push.failed, push.problem) == (len(sent), 0, "")


def test_what_passes_is_tried_again_with_what_is_true_by_then(collector: Collector) -> None:
    collector.answers = [
        (503, {"Retry-After": "1"}, b""),
        (429, {}, b""),
        (400, {}, b"no"),
        (200, {}, rejecting(1, "too\nold")),
    ]
    push = Push(registry(), Destination(collector.url, {}, interval_s=1.2), "0.9").start()
    collector.wait(5)
    push.close()
    times = [each[0] for each in collector.requests]
    gaps = [second - first for first, second in zip(times[:4], times[1:5], strict=True)]
    assert gaps[0] >= 0.95  # as the collector said
    assert gaps[1] >= 0.75  # the second failure: 2 s, but never longer than an interval
    assert gaps[2] >= 1.15 and gaps[3] >= 1.15  # no use in hurrying
    assert (push.failed, push.rejected) == (3, 1)
    assert {value(each[3]) for each in collector.requests} == {7}


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([(404, {}, b"")], "status 404"),
        ([(302, {"Location": "http://127.0.0.1:1/"}, b"")], "status 302"),
        ([(200, {}, b"\xff" * 20)], "the response is not OTLP"),
        ([(200, {}, b"<html>")], "the response is not OTLP"),
    ],
)
def test_what_went_wrong_is_said(collector: Collector, answers: list[Any], problem: str) -> None:
    collector.answers = answers
    push = Push(registry(), Destination(collector.url, {}), "0.9")
    push.start().close()
    assert (push.sent, push.failed, push.problem) == (0, 1, problem)


def test_nobody_there(collector: Collector) -> None:
    collector.server_close()
    push = Push(registry(), Destination(collector.url, {}, interval_s=0.2), "0.9").start()
    end = time.monotonic() + PATIENCE_S
    while push.failed < 2 and time.monotonic() < end:
        time.sleep(0.01)
    push.close()
    assert push.failed >= 2 and push.sent == 0 and push.problem.startswith("ConnectionRefusedError")


def test_settings_are_those_of_the_sdks() -> None:
    assert Destination.of({}) is None
    found = Destination.of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"})
    assert found == Destination("http://c:4318/v1/metrics", {}, 60, 10, True)
    found = Destination.of(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://m/otlp?x=1",
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
            "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "b=2",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "500",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
    )
    assert found == Destination("https://m/otlp?x=1", {"b": "2"}, 1, 0.5, False, "/ca.pem")
    found = Destination.of({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://m/otlp"}, "http://here:1/")
    assert found and found.url == "http://here:1/v1/metrics"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://:x/"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a\r\nb/"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "key"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "key=a%0d%0ab"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "60s"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, wrong: str) -> None:
    with pytest.raises(UsageError) as raised:
        Destination.of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", name: wrong})
    assert raised.value.hint and raised.value.message.isprintable()

"""Metrics: the registry and its bounds, and every format read back by its own reader, whatever a target calls itself."""

from __future__ import annotations

import io
import re
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from gotrace.analysis.exponential import CLASSIC_NS
from gotrace.export.metrics import openmetrics, otlp, prometheus_protobuf, prometheus_text
from gotrace.export.metrics.model import (
    EXEMPLAR_NS,
    MOST_EXEMPLAR_CHARS,
    MOST_LABEL_BYTES,
    OTHER,
    Exemplar,
    Family,
    Registry,
    Resource,
    label_value,
)
from gotrace.export.metrics.negotiate import OPENMETRICS, OPENMETRICS_DRAFT, PROTOBUF, TEXT, negotiated, takes_gzip
from gotrace.export.protobuf import Encoder, decoded, messages

PAUSES = Family("go.pause.duration", "histogram", "s", 'Pauses of "the" world\\\nand more.', ("go.pause.reason",))
LOST = Family("gotrace.events.lost", "counter", "{event}", "Events that were lost.", ("why",))
WAITED = Family("gotrace.stw.cause", "counter", "s", "Seconds.", ("cause",))
MEMORY = Family("go.memory.used", "gauge", "By", "Memory.", ("go.memory.type",))
RATIO = Family("gotrace.memory.amplification", "gauge", "1", "RSS / heap.")
TARGET = Family("gotrace.target", "info", "", "A target.", ("exe",))
FAMILIES = (PAUSES, LOST, WAITED, MEMORY, RATIO, TARGET)
SHOP = Resource.of({"service.name": "shop", "k8s.pod.name": "shop-1"}, {"service.instance.id": "ns.shop-1.api"})
BEGAN, NOW = 1_700_000_000_123_456_789, 1_700_000_100_000_000_000

CHARS = st.characters() | st.sampled_from('\\"\n\r\0{}=,# \u2028\ud800\udcff')
ATTACKS = [
    '"} 1\n# HELP evil x\nevil 1\n',
    "\n# EOF\n",
    "\\",
    '\\"',
    "\n# TYPE a counter",
    'le="1"',
    "\udcff\udcfe",
    "~other",
    "\0",
]
names = st.text(CHARS, min_size=1, max_size=40) | st.sampled_from(ATTACKS) | st.text("aä☃🎉", min_size=200, max_size=400)


def filled(*services: str, values: list[int] | None = None, reason: str = "GC mark", cause: str = "run queue") -> Registry:
    registry = Registry(FAMILIES)
    for service in services or ("shop",):
        resource = Resource.of({"service.name": service, "k8s.pod.name": "p"}, {"service.instance.id": service})
        pauses = registry.histogram(PAUSES, resource, reason, created_ns=BEGAN)
        if values is None or values:
            array = np.array(values or [10_000, 10_001, 30_000_000], np.uint64)
            pauses.observe(array, Exemplar.of(int(array.max()), {"cause": cause}, NOW))
        registry.number(LOST, resource, "ring full", created_ns=BEGAN).add(7)
        registry.number(WAITED, resource, cause, created_ns=BEGAN).add(0.25)
        registry.number(MEMORY, resource, "stack").set(2**60 + 1)
        registry.number(RATIO, resource).set(float("nan"))
        registry.number(TARGET, resource, service)
    return registry


def page(module: Any, registry: Registry) -> bytes:
    return b"".join(module.page(registry.collect()))


def samples(families: Iterator[Metric]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def protobuf_families(data: bytes) -> list[Message]:
    """Read by Google's library: each message with its length before it."""
    kind, stream, found = messages("test.prometheus", prometheus_protobuf.MESSAGES)["MetricFamily"], io.BytesIO(data), []
    while first := stream.read(1):
        size, shift = first[0] & 0x7F, 7
        while first[0] & 0x80:
            first = stream.read(1)
            size, shift = size | (first[0] & 0x7F) << shift, shift + 7
        found.append(kind.FromString(stream.read(size)))
    return found


def labels_of(metric: Any) -> dict[str, str]:
    return {pair.name: pair.value for pair in metric.label}


def native_buckets(histogram: Any) -> dict[int, int]:
    """Index -> count, of spans and differences."""
    found, index, count, deltas = {}, 0, 0, iter(histogram.positive_delta)
    for span in histogram.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            found[index] = count
            index += 1
    assert next(deltas, None) is None
    return found


# --- Whatever a target calls itself


@settings(deadline=None)
@given(names, names, names, st.lists(st.integers(0, 2**63 - 1), max_size=30))
def test_no_name_gets_out_of_its_place(service: str, reason: str, cause: str, values: list[int]) -> None:
    registry = filled(service, values=values, reason=reason, cause=cause)
    clean = {"service_name": label_value(service), "k8s_pod_name": "p"}
    expected = {
        "go_pause_duration_seconds": clean | {"go_pause_reason": label_value(reason)},
        "gotrace_events_lost_total": clean | {"why": "ring full"},
        "gotrace_stw_cause_seconds_total": clean | {"cause": label_value(cause)},
        "go_memory_used_bytes": clean | {"go_memory_type": "stack"},
        "gotrace_memory_amplification_ratio": clean,
        "gotrace_target_info": clean | {"exe": label_value(service)},
    }
    bucket = "go_pause_duration_seconds_bucket"
    for families, module in ((text_families, prometheus_text), (openmetrics_families, openmetrics)):
        text = page(module, registry).decode()
        found = samples(families(text))
        created = {name for name in found if name.endswith("_created")}
        sums = {f"go_pause_duration_seconds_{part}" for part in ("bucket", "sum", "count")}
        assert set(found) - created == (expected.keys() - {"go_pause_duration_seconds"}) | sums
        for name, labels in expected.items():
            for each in found.get(name, found[bucket]):
                assert {key: value for key, value in each.labels.items() if key != "le"} == labels
        assert {len(each) for name, each in found.items() if name != bucket} == {1}
        assert [each.value for each in found[bucket]] == [
            sum(value <= upper for value in values) for upper in (*CLASSIC_NS, 2**63)
        ]
        assert found["go_pause_duration_seconds_sum"][0].value == sum(values) / 1e9
        exemplars = [each.exemplar for each in found[bucket] if each.exemplar]
        if module is openmetrics and values:
            (exemplar,) = exemplars
            assert exemplar.value == max(values) / 1e9 and float(exemplar.timestamp) == NOW / 1e9
            assert label_value(cause).replace('"', "'").startswith(exemplar.labels["cause"])

    families = protobuf_families(page(prometheus_protobuf, registry))
    assert {family.name: labels_of(family.metric[0]) for family in families} == expected
    assert {len(family.metric) for family in families} == {1}
    series = registry.collect()[0][1][0]
    histogram = families[0].metric[0].histogram
    assert native_buckets(histogram) == dict(
        zip(series.values.indexes.tolist(), series.values.counts.tolist(), strict=True)
    )

    (resource,) = ExportMetricsServiceRequest.FromString(otlp.request(registry.collect(), NOW, "1")).resource_metrics
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert attributes == {
        "service.name": label_value(service),
        "k8s.pod.name": "p",
        "service.instance.id": label_value(service),
    }
    (point,) = resource.scope_metrics[0].metrics[0].exponential_histogram.data_points
    assert [(each.key, each.value.string_value) for each in point.attributes] == [("go.pause.reason", label_value(reason))]


@given(st.text(CHARS, max_size=600))
def test_a_label_is_short_and_harmless(text: str) -> None:
    value = label_value(text)
    assert len(value.encode()) <= MOST_LABEL_BYTES and value.isprintable()
    if "~" not in value:  # it was not cut
        assert re.sub(r"\\(\\|[nrt]|x..|u....|U.{8})", unescaped, value) == text


def unescaped(found: re.Match[str]) -> str:
    text = found[1]
    if text[0] not in "xuU":
        return {"n": "\n", "r": "\r", "t": "\t"}.get(text, text)
    code = int(text[1:], 16)
    return chr(code + 0xDC00 if text[0] == "x" and code >= 0x80 else code)  # a byte that is not UTF-8


def test_names_that_look_alike_stay_different() -> None:
    assert len({label_value(each) for each in ("a\nb", "a\\nb", "\udc85", "\x85", "\\x85")}) == 5
    assert label_value(OTHER) == r"\x7eother" != label_value(r"\x7eother")


def test_long_names_that_differ_stay_different() -> None:
    assert label_value("ä" * 300 + "1") != label_value("ä" * 300 + "2")


# --- What each format has


def test_openmetrics_has_units_and_when_counting_began() -> None:
    text = page(openmetrics, filled()).decode()
    families = {family.name: family for family in openmetrics_families(text)}
    assert text.endswith("# EOF\n")
    assert {name: (family.type, family.unit) for name, family in families.items()} == {
        "go_pause_duration_seconds": ("histogram", "seconds"),
        "gotrace_events_lost": ("counter", ""),
        "gotrace_stw_cause_seconds": ("counter", "seconds"),
        "go_memory_used_bytes": ("gauge", "bytes"),
        "gotrace_memory_amplification_ratio": ("gauge", "ratio"),
        "gotrace_target": ("info", ""),
    }
    assert families["go_pause_duration_seconds"].documentation == PAUSES.help
    found = samples(iter(families.values()))
    assert {name for name in found if name.endswith("_created")} == {
        "go_pause_duration_seconds_created",
        "gotrace_events_lost_created",
        "gotrace_stw_cause_seconds_created",
    }
    assert found["gotrace_events_lost_created"][0].value == BEGAN / 1e9
    assert found["go_memory_used_bytes"][0].value == 2**60 + 1
    assert [each.labels["le"] for each in found["go_pause_duration_seconds_bucket"]][-2:] == ["1.0", "+Inf"]


def test_protobuf_has_native_and_classic_buckets() -> None:
    families = {family.name: family for family in protobuf_families(page(prometheus_protobuf, filled()))}
    assert {name: family.type for name, family in families.items()} == {
        "go_pause_duration_seconds": 4,
        "gotrace_events_lost_total": 0,
        "gotrace_stw_cause_seconds_total": 0,
        "go_memory_used_bytes": 1,
        "gotrace_memory_amplification_ratio": 1,
        "gotrace_target_info": 1,
    }
    histogram = families["go_pause_duration_seconds"].metric[0].histogram
    assert (histogram.schema, histogram.sample_count, histogram.zero_count) == (5, 3, 0)
    assert histogram.zero_threshold == 2**-128
    # 10 and 10.001 us are in the same bucket, 9.87 to 10.09 us.
    assert native_buckets(histogram) == {-531: 2, -161: 1}
    assert [each.cumulative_count for each in histogram.bucket] == [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]
    created = histogram.created_timestamp
    assert (created.seconds, created.nanos) == divmod(BEGAN, 10**9)
    (exemplar,) = histogram.exemplars
    assert (exemplar.value, exemplar.timestamp.seconds) == (0.03, NOW // 10**9)
    assert [each.HasField("exemplar") for each in histogram.bucket].index(True) == 11
    counter = families["gotrace_events_lost_total"].metric[0].counter
    assert (counter.value, counter.created_timestamp.seconds) == (7, BEGAN // 10**9)


def test_otlp_has_a_resource_for_each_service() -> None:
    registry = filled("a", "b")
    found = ExportMetricsServiceRequest.FromString(otlp.request(registry.collect(), NOW, "0.9"))
    assert [each.resource.attributes[-1].value.string_value for each in found.resource_metrics] == ["a", "b"]
    (scope,) = found.resource_metrics[1].scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("gotrace", "0.9")
    metrics = {metric.name: metric for metric in scope.metrics}
    assert {name: (metric.unit, metric.WhichOneof("data")) for name, metric in metrics.items()} == {
        "go.pause.duration": ("s", "exponential_histogram"),
        "gotrace.events.lost": ("{event}", "sum"),
        "gotrace.stw.cause": ("s", "sum"),
        "go.memory.used": ("By", "gauge"),
        "gotrace.memory.amplification": ("1", "gauge"),
        "gotrace.target": ("", "gauge"),
    }
    histogram = metrics["go.pause.duration"].exponential_histogram
    (point,) = histogram.data_points
    assert histogram.aggregation_temporality == metrics["gotrace.events.lost"].sum.aggregation_temporality == 2
    assert metrics["gotrace.events.lost"].sum.is_monotonic
    assert (point.count, point.scale, point.start_time_unix_nano, point.time_unix_nano) == (3, 5, BEGAN, NOW)
    assert (point.sum, point.min, point.max) == (30_020_001 / 1e9, 1e-5, 0.03)
    # Bucket i of OTLP is i + 1 of Prometheus.
    filled_at = {point.positive.offset + at: count for at, count in enumerate(point.positive.bucket_counts) if count}
    assert filled_at == {-532: 2, -162: 1}
    assert point.exemplars[0].as_double == 0.03 and point.exemplars[0].time_unix_nano == NOW
    memory = metrics["go.memory.used"].gauge.data_points[0]
    assert memory.as_int == 2**60 + 1 and not memory.start_time_unix_nano


def test_what_a_collector_rejected_is_read() -> None:
    response = ExportMetricsServiceResponse()
    assert otlp.rejected(response.SerializeToString()) == (0, "")
    response.partial_success.rejected_data_points = 300
    response.partial_success.error_message = "too many"
    assert otlp.rejected(response.SerializeToString()) == (300, "too many")


@given(st.binary(max_size=60))
def test_any_answer_of_a_collector_is_read_or_refused(data: bytes) -> None:
    try:
        count, text = otlp.rejected(data)
    except ValueError:
        return
    assert isinstance(count, int) and isinstance(text, str)


TYPES = {
    **dict.fromkeys(("int64", "sint64", "sfixed64"), st.integers(-(2**63), 2**63 - 1)),
    **dict.fromkeys(("int32", "sint32"), st.integers(-(2**31), 2**31 - 1)),
    **dict.fromkeys(("uint64", "fixed64"), st.integers(0, 2**64 - 1)),
    "uint32": st.integers(0, 2**32 - 1),
    "bool": st.booleans(),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=200),
    "bytes": st.binary(max_size=200),
}
TABLE = {
    "Whole": {
        **{type_: (number, type_) for number, type_ in enumerate(TYPES, 14)},
        **{f"{type_}s": (number, f"repeated {type_}") for number, type_ in enumerate(TYPES, 100)},
        "whole": (1, "Whole"),
        "wholes": (2, "repeated Whole"),
    }
}
_fields = st.fixed_dictionaries(
    {}, optional={**TYPES, **{f"{type_}s": st.lists(values, max_size=4) for type_, values in TYPES.items()}}
)


@settings(deadline=None)
@given(
    st.recursive(
        _fields,
        lambda inner: st.fixed_dictionaries({}, optional={"whole": inner, "wholes": st.lists(inner, max_size=2)}),
        max_leaves=4,
    )
)
def test_messages_are_written_as_google_writes_them(values: dict[str, Any]) -> None:
    data = Encoder(TABLE)("Whole", values)
    kind = messages("test.wire", TABLE)["Whole"]
    assert kind.FromString(data) == kind(**values)
    assert len(data) == kind(**values).ByteSize()
    assert {number for number, _ in decoded(data)} == {field.number for field, _ in kind(**values).ListFields()}
    for number, value in decoded(data):
        if number == TABLE["Whole"]["double"][0]:
            assert struct.unpack("<d", value) == (values["double"],)


# --- The registry


def test_beyond_the_bound_counts_are_added_up_and_the_rest_is_left_out() -> None:
    registry = Registry(FAMILIES, most_series=100)
    for at in range(300):
        resource = Resource.of({"service.name": f"s{at}"})
        registry.number(LOST, resource, f"why {at}").add(1)
        registry.number(MEMORY, resource, "stack").set(at)
        registry.histogram(PAUSES, resource, f"reason {at}").observe(np.array([at]))
    collected = dict(registry.collect())
    shown = sum(map(len, collected.values()))
    assert shown == registry.series <= 100
    assert registry.beyond == 900 - 84
    # None was lost.
    assert sum(each.value for each in collected[LOST]) == 300
    assert sum(each.values.count for each in collected[PAUSES]) == 300
    others = [each for each in collected[LOST] if each.resource.labels == (("service.name", OTHER),)]
    assert others and others[-1].labels == (("why", OTHER),)
    assert all(each.resource.labels != (("service.name", OTHER),) for each in collected[MEMORY])


def test_what_ended_goes_and_begins_anew() -> None:
    registry = filled("a", "b")
    a = Resource.of({"service.name": "a", "k8s.pod.name": "p"})
    before = registry.number(LOST, a, "ring full")
    assert before.value == 7
    registry.drop(a)
    registry.drop(a)
    assert (registry.series, registry.dropped) == (6, 1)
    before.add(1)  # of somebody who holds it still
    found = samples(openmetrics_families(page(openmetrics, registry).decode()))
    assert {each.labels["service_name"] for each in found["gotrace_events_lost_total"]} == {"b"}
    after = registry.number(LOST, a, "ring full")
    assert after.value == 0 and after.created_ns > before.created_ns


def test_equal_labels_are_one_series_and_empty_ones_none() -> None:
    registry = Registry([LOST])
    first = registry.number(LOST, Resource.of({"service.name": "a", "k8s.pod.name": ""}, {"service.instance.id": "1"}), "")
    second = registry.number(LOST, Resource.of({"service.name": "a"}, {"service.instance.id": "2"}), "")
    assert first is second and first.labels == ()


def test_the_longest_of_a_minute_is_kept() -> None:
    pauses = Registry([PAUSES]).histogram(PAUSES, SHOP, "GC")
    for value, time_ns, kept in ((5, 0, 5), (3, 1, 5), (9, 2, 9), (4, EXEMPLAR_NS + 2, 9), (4, EXEMPLAR_NS + 3, 4)):
        pauses.observe(np.array([value]), Exemplar.of(value, {}, time_ns))
        assert pauses.exemplar.value_ns == kept


def test_an_exemplar_is_as_short_as_openmetrics_wants() -> None:
    exemplar = Exemplar.of(1, {"cause": "ä" * 200, "thread": "x", "": "y"}, 0)
    assert sum(len(name) + len(value) for name, value in exemplar.labels) == MOST_EXEMPLAR_CHARS
    assert [name for name, _ in exemplar.labels] == ["cause"]


def test_what_cannot_be_a_family() -> None:
    for name, labels in (("a-b", ()), ("Go.gc", ()), ("a", ("le",)), ("a", ("b c",)), ("a..b", ())):
        with pytest.raises(ValueError, match="not the name"):
            Family(name, "counter", "", "", labels)
    with pytest.raises(ValueError, match="histogram is one of seconds"):
        Family("a", "histogram", "By", "")
    with pytest.raises(ValueError, match="two families"):
        Registry([Family("a.b", "gauge", "s", ""), Family("a.b.seconds", "gauge", "s", "")])
    registry = Registry([LOST, Family("a", "counter", "", "", ("service.name",))])
    with pytest.raises(ValueError, match="resource's"):
        registry.number(Family("a", "counter", "", "", ("service.name",)), SHOP, "x")
    with pytest.raises(TypeError):
        registry.histogram(LOST, SHOP, "x")
    with pytest.raises(ValueError, match="do not fall"):
        registry.number(LOST, SHOP, "x").add(-1)


def test_a_page_is_of_one_piece_while_values_come() -> None:
    registry = filled()
    pauses = registry.histogram(PAUSES, SHOP, "GC")
    ended = threading.Event()

    def goes_on() -> None:
        at = 0
        while not ended.is_set():
            at += 1
            pauses.observe(np.arange(at % 50, dtype=np.int64) * at)
            registry.number(LOST, SHOP, f"{at % 100}").add(1)
            registry.drop(SHOP) if at % 500 == 0 else None

    writer = threading.Thread(target=goes_on)
    writer.start()
    try:
        for _ in range(100):
            for family in protobuf_families(page(prometheus_protobuf, registry)):
                for histogram in (metric.histogram for metric in family.metric if metric.HasField("histogram")):
                    assert sum(native_buckets(histogram).values()) + histogram.zero_count == histogram.sample_count
                    assert histogram.bucket[-1].cumulative_count == histogram.sample_count
    finally:
        ended.set()
        writer.join()


# --- Which format

# As these versions ask: 2.42 and 3.0 without native histograms, 2.42 with them, 3.8 (scrape_protocols of that release).
P_242 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
P_NATIVE = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited," + P_242.replace(
    "1.0.0", "1.0.0;q=0.8"
)
P_3 = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (P_242, OPENMETRICS),
        (P_NATIVE, PROTOBUF),
        (P_3, PROTOBUF),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("application/openmetrics-text", OPENMETRICS_DRAFT),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=2.0.0, application/openmetrics-text;version=1.0.0;q=0.1", OPENMETRICS),
        ("text/plain;version=0.0.3,application/openmetrics-text;version=1.0.0;q=0.1", OPENMETRICS),
        ("text/plain;q=0.5,application/openmetrics-text;version=1.0.0;q=0.6", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", OPENMETRICS_DRAFT),
        ("application/openmetrics-text;q=0,text/plain;q=0.1", TEXT),
        ('application/vnd.google.protobuf;proto="io.prometheus.client.MetricFamily";encoding="delimited"', PROTOBUF),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", TEXT),
        ("application/vnd.google.protobuf", TEXT),
        ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        (";;,,=;q=x", TEXT),
    ],
)
def test_the_accept_header_chooses(accept: str, expected: Any) -> None:
    assert negotiated(accept) == expected


@given(st.text(st.sampled_from('atexplin/;,=q0.1* "\0ä'), max_size=80))
def test_any_accept_header_gets_a_format(accept: str) -> None:
    assert negotiated(accept).content_type
    assert takes_gzip(accept) in (True, False)


def test_gzip_where_it_is_taken() -> None:
    assert takes_gzip("gzip") and takes_gzip("br;q=1, gzip;q=0.5") and not takes_gzip("gzip;q=0") and not takes_gzip("")

"""Load tools: which command is run for a user's, and what is read from outputs in each tool's form."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotrace.errors import GotraceError, LoadToolError, UsageError
from gotrace.lab import load as lab
from gotrace.lab.load_result import Histogram, LoadResult
from gotrace.lab.load_tools.tool import Asked, Output, duration_ns, kind_of
from gotrace.lab.load_tools.wrk import uncorrected
from gotrace.records.load import PERCENTILES, Load
from gotrace.records.schema import json_schema

URL = "http://127.0.0.1:8080/ping"
S = 10**9
MS = 10**6


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (f"wrk {URL}", Asked(10 * S, threads=2)),
        (f"wrk -t4 -c100 -d30s {URL}", Asked(30 * S, threads=4)),
        (f"wrk {URL} --duration=2m", Asked(120 * S, threads=2)),
        (f"wrk -H '-d: 5s' -d 30 {URL}", Asked(30 * S, threads=2)),
        (f"taskset -c 2,3 nice -n 5 /usr/bin/wrk -d 1h {URL}", Asked(3600 * S, threads=2)),
        (f"env LUA_PATH=/opt/wrk wrk -d 5 {URL}", Asked(5 * S, threads=2)),
        (f"hey {URL}", Asked(None, 200)),
        (f"hey -z 1m30s -q 10 -c 20 -cpus 3 {URL}", Asked(90 * S, None, 200.0, threads=3)),
        (f"hey -disable-keepalive -n=1000 --c 5 {URL}", Asked(None, 1000)),
        (f"ab -n 100 -k -c10 {URL}", Asked(None, 100, threads=1)),
        (f"ab -t 30 -n 1000000 {URL}", Asked(30 * S, 1_000_000, threads=1)),
        (f"h2load -n 5000 -c10 {URL}", Asked(None, 5000, threads=1)),
        (f"h2load -D 500ms --warm-up-time=2s --rps 100 -c 4 -t 2 {URL}", Asked(2500 * MS, None, 400.0, threads=2)),
        (f"oha -z30s -c 100 {URL}", Asked(30 * S)),
        (f"oha -n 1000 -q 50 --latency-correction {URL}", Asked(None, 1000, 50.0, "open")),
        ("vegeta attack -rate=100/1m -duration=1m -targets t.txt", Asked(60 * S, None, 100 / 60, "open")),
        ("vegeta -cpus 2 attack -targets=t.txt -lazy -rate 250", Asked(None, None, 250.0, "open")),
        ("vegeta attack -rate=0 -max-workers=10 -duration 5s -targets=t.txt", Asked(5 * S)),
        ("k6 run --vus 10 --duration 30s script.js", Asked(30 * S)),
    ],
)
def test_what_a_command_line_asks_for(command: str, asked: Asked) -> None:
    assert lab.parse_load(command).asked == asked


@pytest.mark.parametrize(
    ("command", "model", "note"),
    [
        (f"ab -n 5 -t 30 {URL}", "closed", "50,000"),
        (f"oha -q 50 {URL}", "open", "--latency-correction"),
        ("k6 run script.js", "unknown", "script decides"),
    ],
)
def test_what_has_to_be_known_of_it(command: str, model: str, note: str) -> None:
    asked = lab.parse_load(command).asked
    assert asked.model == model
    assert any(note in each for each in asked.notes)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("", "empty"),
        ("wrk 'http://x/", "unbalanced quote"),
        ("./load.sh", "not a supported load tool"),
        ("bash -c 'wrk http://x/'", "not a supported load tool"),
        ("wrk http://x/ | tee out", "needs a shell"),
        ("wrk http://x/ > out", "needs a shell"),
        ("sleep 1 && wrk http://x/", "needs a shell"),
        ("wrk -R 100 http://x/", "wrk2"),
        ("hey -o csv http://x/", "omits"),
        ("ab -w http://x/", "HTML"),
        ("oha --output-format csv http://x/", "JSON"),
        ("vegeta report results.bin", "vegeta attack"),
        ("vegeta attack -rate=10", "standard input"),
        ("k6 archive script.js", "k6 run"),
        ("wrk\0 http://x/", "NUL"),
    ],
)
def test_what_cannot_be_meant(command: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        lab.parse_load(command)
    assert says in caught.value.message + caught.value.hint
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


@given(st.one_of(st.text(), st.lists(st.text(), max_size=6)), st.sampled_from(["", *lab.tools(), lab.OWN_FORMAT, "x"]))
def test_any_command_is_taken_or_refused(command: str | list[str], output_format: str) -> None:
    try:
        lab.parse_load(command, output_format)
    except UsageError as error:
        assert (error.message + error.hint).isprintable()


WORDS = ["-d", "-z", "-n", "1", "30s", "-D", "-q", "-rate", "0/0", "-c", "attack", "run", "-o", "--", "-", "x=", "-t", "é"]


@given(st.sampled_from(sorted(lab.tools())), st.lists(st.sampled_from([*WORDS, "-targets=t"]), max_size=8))
def test_options_in_any_order_are_taken_or_refused(tool: str, arguments: list[str]) -> None:
    try:
        asked = lab.parse_load([tool, *arguments]).asked
        lab.tools()[tool].prepare(arguments, Path("/f"), "")
    except UsageError:
        return
    assert asked.rate is None or asked.rate > 0


def prepared(command: str, help_text: str = "") -> tuple[list[str], str]:
    load = lab.parse_load(command)
    assert load.at is not None
    ready = lab.tools()[load.tool].prepare(load.command[load.at + 1 :], Path("/f"), help_text)
    return list(ready.arguments), ready.results


@pytest.mark.parametrize(
    ("command", "arguments", "results"),
    [
        ("wrk -d1s http://x/", "-s /f/wrk.lua --latency -d1s http://x/", "/f/wrk.json"),
        ("wrk --latency http://x/", "-s /f/wrk.lua --latency http://x/", "/f/wrk.json"),
        ("wrk -s own.lua http://x/", "--latency -s own.lua http://x/", ""),
        ("wrk --unheard-of http://x/", "--unheard-of http://x/", ""),
        ("hey -z 1s http://x/", "-z 1s http://x/", ""),
        ("ab -n 5 http://x/", "-e /f/ab.csv -n 5 http://x/", "/f/ab.csv"),
        ("ab -e own.csv http://x/", "-e own.csv http://x/", "own.csv"),
        ("h2load -n5 http://x/", "--log-file=/f/h2load.tsv -n5 http://x/", "/f/h2load.tsv"),
        ("h2load --log-file own http://x/", "--log-file own http://x/", "own"),
        ("oha http://x/", "--json http://x/", ""),
        ("oha -j http://x/", "-j http://x/", ""),
        ("vegeta attack -targets=t", "attack -targets=t", "-"),
        ("vegeta attack -targets=t -output r.bin", "attack -targets=t -output r.bin", "r.bin"),
        ("k6 run --summary-export own.json --summary-trend-stats avg s.js", None, "own.json"),
    ],
)
def test_the_command_that_is_run(command: str, arguments: str | None, results: str) -> None:
    expected = command.split()[1:] if arguments is None else arguments.split()
    assert prepared(command) == (expected, results)


def test_the_command_that_is_run_depends_on_the_tool() -> None:
    newer = "      --output-format <OUTPUT_FORMAT>  Output format [default: text]"
    assert prepared("oha http://x/", newer)[0] == ["--output-format", "json", "http://x/"]
    arguments, results = prepared("k6 run -u 5 s.js")
    assert results == "/f/k6.json"
    assert arguments[:3] == ["run", "--summary-export", results]
    assert arguments[3:5] == ["--summary-trend-stats", "avg,min,med,max,p(50),p(75),p(90),p(95),p(99),p(99.9),p(99.99)"]
    assert arguments[5:] == ["-u", "5", "s.js"]


@given(st.integers(0, 10**7))
def test_durations(ms: int) -> None:
    minutes, rest = divmod(ms, 60_000)
    for text in (f"{ms}ms", f"{ms / 1000}s", f"{minutes}m{rest}ms", f"{minutes}m {rest}ms", f"{ms / 1000:.3f}"):
        assert duration_ns(text) == ms * MS
    assert [duration_ns(text) for text in ("", "s", "1x", "-1s", "1s5", "1,5s")] == [None] * 6


WRK = """Running 2s test @ http://127.0.0.1:44425/ping
  1 threads and 10 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.29ms    5.45ms  60.65ms   97.08%
    Req/Sec    28.31k     7.06k   36.74k    70.00%
  Latency Distribution
     50%  239.00us
     75%  318.00us
     90%    1.59ms
     99%   36.01ms
  56301 requests in 2.01s, 5.69MB read
  Socket errors: connect 1, read 20, write 3, timeout 4
  Non-2xx or 3xx responses: 500
Requests/sec:  27995.45
Transfer/sec:      2.83MB
"""


def read(tool: str, text: str) -> LoadResult:
    """As with --load-format."""
    return lab.tools()[tool].read(Output(text, Asked()))


def test_what_wrk_prints() -> None:
    result = read("wrk", WRK)
    assert (result.requests, result.answered, result.failed) == (56_325, 56_301, 528)
    assert result.errors == {"connect": 1, "read": 20, "write": 3, "timeout": 4, "status": 500}
    assert result.throughput == pytest.approx(27_995.45)
    assert result.duration_ns == pytest.approx(2.01e9, rel=0.003)
    expected = {"p50": 239e3, "p75": 318e3, "p90": 1.59e6, "p95": None, "p99": 36.01e6, "p99.9": None, "p99.99": None}
    assert {name: value and pytest.approx(value) for name, value in result.percentiles_ns.items()} == expected
    assert (result.mean_ns, result.max_ns, result.percentiles_are) == (1.29e6, 60.65e6, "estimated")
    assert any("adds" in note for note in result.notes)


def corrected(counts: dict[int, int], interval: int) -> dict[int, int]:
    """What wrk makes of its latencies: for each, all that would have followed it at the interval."""
    result = dict(counts)
    for value in sorted(counts):
        for later in range(value - interval, interval, -interval) if value >= 2 * interval else ():
            result[later] = result.get(later, 0) + counts[value]
    return result


@given(st.dictionaries(st.integers(1, 500), st.integers(1, 1000), min_size=1), st.integers(1, 300))
def test_wrks_correction_is_taken_back(counts: dict[int, int], interval: int) -> None:
    seen = sorted(corrected(counts, interval).items())
    found = uncorrected(*(np.array(each, np.int64) for each in zip(*seen, strict=True)), interval)  # type: ignore[misc]
    assert found is not None
    assert dict(zip(*(each.tolist() for each in found), strict=True)) == counts


def test_a_histogram_that_wrk_cannot_have_corrected_so() -> None:
    assert uncorrected(np.array([10, 12]), np.array([1, 2]), 2) is None


TOLD: dict[str, Any] = {
    "requests": 40, "duration_us": 2000, "errors": {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0},
    "min_us": 100, "max_us": 1500, "mean_us": 700.0,
    "percentiles_us": {"p50": 500, "p75": 600, "p90": 700, "p95": 1000, "p99": 1500, "p99.9": 1500, "p99.99": 1500},
    "histogram": [[100, 39], [1000, 1], [1500, 1]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "kind", "p50"),
    [
        ({}, "exact", 100e3),  # 10 connections, so that the interval is 500 us: the one at 1000 us was added
        ({"requests": 41}, "estimated", 500e3),  # one more than there are values
        ({"histogram": None}, "estimated", 500e3),  # it took too long to write
    ],
)
def test_latencies_that_wrk_adds_are_taken_out_or_told(
    change: dict[str, Any], kind: str, p50: float, tmp_path: Path
) -> None:
    path = tmp_path / "wrk.json"
    path.write_text(json.dumps({**TOLD, **change}))
    result = lab.tools()["wrk"].read(Output(WRK, Asked(), path))
    assert (result.percentiles_are, result.percentiles_ns["p50"]) == (kind, p50)
    assert (
        bool(result.histogram)
        == bool(result.printed_ns)
        == (kind == "exact")
        != any("adds" in each for each in result.notes)
    )
    path.write_text("{")
    with pytest.raises(LoadToolError, match="a file of results"):
        lab.tools()["wrk"].read(Output(WRK, Asked(), path))


OHA: dict[str, Any] = {
    "summary": {
        "successRate": 0.99,
        "total": 2.0,
        "slowest": 0.3,
        "fastest": 0.001,
        "average": 0.01,
        "requestsPerSec": 500.0,
        "totalData": 5000,
        "sizePerRequest": 5,
        "sizePerSec": 2500.0,
    },
    "responseTimeHistogram": {"0.001": 1, "0.3": 5},
    "latencyPercentiles": {
        "p10": 0.002, "p25": 0.003, "p50": 0.005, "p75": 0.007, "p90": 0.02, "p95": 0.03, "p99": 0.1, "p99.9": 0.2,
        "p99.99": None,
    },
    "rps": {"mean": 1.0, "stddev": 1.0, "max": 1.0, "percentiles": {}},
    "details": {"DNSDialup": {}, "DNSLookup": {}},
    "statusCodeDistribution": {"200": 980, "500": 8},
    "errorDistribution": {"aborted due to deadline": 50, "connection refused (os error 111)": 2, "operation timed out": 10},
}  # fmt: skip


def test_what_oha_prints() -> None:
    result = read("oha", json.dumps(OHA))
    assert (result.requests, result.answered, result.duration_ns) == (1000, 988, 2 * S)
    assert result.errors == {"connect": 2, "timeout": 10, "status": 8}
    assert result.throughput == 494.0
    assert (result.percentiles_ns["p99"], result.percentiles_ns["p99.99"]) == (1e8, None)
    assert (result.mean_ns, result.min_ns, result.max_ns) == (1e7, 1e6, pytest.approx(3e8))


VEGETA: dict[str, Any] = {
    "latencies": {
        "total": 237119463, "mean": 2371194, "50th": 2854306, "90th": 3228223, "95th": 3478629, "99th": 3530000,
        "max": 3660505, "min": 1949582,
    },
    "bytes_in": {"total": 606700, "mean": 6067},
    "bytes_out": {"total": 0, "mean": 0},
    "earliest": "2015-09-19T14:45:50.645818631+02:00",
    "latest": "2015-09-19T14:45:51.635818575+02:00",
    "end": "2015-09-19T14:45:51.639325797+02:00",
    "duration": 989999944,
    "wait": 3507222,
    "requests": 100,
    "rate": 101.01010672380401,
    "throughput": 91.0,
    "success": 0.92,
    "status_codes": {"0": 3, "200": 92, "503": 5},
    "errors": ["503 Service Unavailable", 'Get "http://x/": dial tcp 127.0.0.1:1: connect: connection refused'],
}  # fmt: skip


def test_what_vegeta_prints() -> None:
    result = read("vegeta", json.dumps(VEGETA))
    assert (result.requests, result.answered, result.duration_ns) == (100, 97, 993507166)
    assert result.errors == {"connect": 3, "status": 5}
    assert result.percentiles_ns["p50"] == 2854306
    assert result.percentiles_ns["p99.9"] is None
    assert (result.mean_ns, result.max_ns, result.percentiles_are) == (2371194, 3660505, "estimated")


K6: dict[str, Any] = {
    "metrics": {
        "http_reqs": {"count": 3000, "rate": 99.5},
        "http_req_duration": {"avg": 5.5, "min": 1.25, "med": 5, "max": 90.5, "p(90)": 9, "p(95)": 12, "p(99)": 40},
        "http_req_failed": {"passes": 30, "fails": 2970, "thresholds": {"rate<0.05": False}, "value": 0.01},
        "iterations": {"count": 3000, "rate": 99.5},
    }
}


def test_what_k6_exports() -> None:
    result = read("k6", json.dumps(K6))
    assert (result.requests, result.errors) == (3000, {"other": 30})
    assert result.throughput == pytest.approx(99.5)
    assert {name: value for name, value in result.percentiles_ns.items() if value} == {
        "p50": 5e6, "p90": 9e6, "p95": 12e6, "p99": 40e6
    }  # fmt: skip
    assert (result.mean_ns, result.min_ns, result.max_ns) == (5.5e6, 1.25e6, 90.5e6)
    deeper = {"metrics": {name: {"type": "", "values": each} for name, each in K6["metrics"].items()}}
    assert read("k6", json.dumps(deeper)).record() == result.record()


def test_hey_keeps_a_million() -> None:
    text = "Summary:\n  Total:\t10.0000 secs\n  Slowest:\t0.1000 secs\n  Fastest:\t0.0001 secs\n  Average:\t0.0040 secs\n"
    text += "\nLatency distribution:\n  50% in 0.0009 secs\n  0% in 0.0000 secs\n"
    text += "\nStatus code distribution:\n  [200]\t2000000 responses\n\nError distribution:\n  [3]\tunexpected EOF\n"
    result = read("hey", text)
    assert (result.requests, result.answered, result.errors) == (2_000_003, 2_000_000, {"read": 3})
    assert result.mean_ns == pytest.approx(2e6)
    assert [name for name, value in result.percentiles_ns.items() if value] == ["p50"]
    assert any("first million" in note for note in result.notes)


def test_h2load_with_percentiles() -> None:
    """As later versions print them."""
    text = """
finished in 2.00s, 500.00 req/s, 60KB/s
requests: 1000 total, 1000 started, 1000 done, 990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 990 2xx, 0 3xx, 4 4xx, 6 5xx
traffic: 1KB (1000) total, 1KB (1000) headers (space savings 0.00%), 1KB (1000) data
                     min         max      median         p95         p99        mean         sd        +/- sd
request     :      100us     12.50ms       1.00ms      2.00ms      3.00ms     1.50ms       100us    97.00%
"""
    result = read("h2load", text)
    assert result.errors == {"status": 10}
    assert {name: value for name, value in result.percentiles_ns.items() if value} == {"p50": 1e6, "p95": 2e6, "p99": 3e6}
    assert (result.mean_ns, result.min_ns, result.max_ns) == (1.5e6, 1e5, 12.5e6)


@pytest.mark.parametrize("tool", lab.tools())
@pytest.mark.parametrize(
    "text", ["", "\n\n", "command not found: \x1b[2J\nmore", "[]", "{}", "null", '{"metrics": 5}', WRK[:200]]
)
def test_garbage(tool: str, text: str) -> None:
    with pytest.raises(LoadToolError) as caught:
        read(tool, text)
    error = caught.value
    assert error.exit_code == 5
    assert "expected" in error.message
    assert (error.message + error.hint).isprintable()
    assert ("it printed nothing" if not text.strip() else "first line") in error.message


@pytest.mark.parametrize(
    ("tool", "text"), [("oha", json.dumps(OHA)), ("vegeta", json.dumps(VEGETA)), ("k6", json.dumps(K6)), ("wrk", WRK)]
)
def test_damaged_output_is_garbage_or_read(tool: str, text: str) -> None:
    for at in range(0, len(text), 7):
        for damaged in (text[:at], text[:at] + text[at + 3 :], text[:at] + "x" + text[at + 1 :]):
            try:
                read(tool, damaged)
            except GotraceError as error:
                assert isinstance(error, LoadToolError)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('Get "http://x/": dial tcp 127.0.0.1:1: connect: connection refused', "connect"),
        ('Get "http://x/": context deadline exceeded (Client.Timeout exceeded while awaiting headers)', "timeout"),
        ("read tcp 127.0.0.1:2->127.0.0.1:1: read: connection reset by peer", "read"),
        ("unexpected EOF", "read"),
        ("write: broken pipe", "write"),
        ("malformed HTTP response", "other"),
    ],
)
def test_kinds_of_errors(message: str, kind: str) -> None:
    assert kind_of(message) == kind


VALUES = st.lists(st.integers(0, 10**6), min_size=1, max_size=300)


@given(VALUES, st.sampled_from([name[1:] for name in PERCENTILES]))
def test_percentiles_of_a_histogram(values: list[int], percent: str) -> None:
    rank = math.ceil(Fraction(percent) * len(values) / 100)
    assert Histogram.of(np.array(values, np.int64)).percentile(float(percent)) == sorted(values)[rank - 1]


def test_ranks_do_not_suffer_from_binary_fractions() -> None:
    histogram = Histogram.of(np.arange(1, 10_001, dtype=np.int64))
    assert [histogram.percentile(float(name[1:])) for name in PERCENTILES] == [5000, 7500, 9000, 9500, 9900, 9990, 9999]


RESULTS = [read("wrk", WRK), read("oha", json.dumps(OHA)), read("vegeta", json.dumps(VEGETA)), read("k6", json.dumps(K6))]


@pytest.mark.parametrize("result", RESULTS, ids=lambda each: each.tool)
def test_json(result: LoadResult) -> None:
    schema = json_schema("load", [Load])
    jsonschema.Draft202012Validator.check_schema(schema)
    record = json.loads(json.dumps(result.record()))
    jsonschema.validate(record, schema)
    assert LoadResult.from_record(record).record() == record


def test_json_with_a_histogram() -> None:
    histogram = Histogram.of(np.array([5, 3, 5], np.int64))
    nothing = dict.fromkeys(PERCENTILES)
    result = LoadResult("x", 3, 3, 10, {}, nothing, "exact", histogram=histogram, version="1", command=("x", "y"))
    record = result.record()
    assert record["histogram"] == {"value_ns": [3, 5], "count": [1, 2]}
    assert LoadResult.from_record(record).record() == record
    assert read_own(record).record() == record


def read_own(record: object) -> LoadResult:
    return lab._own(Output(json.dumps(record), Asked()))


@pytest.mark.parametrize("record", [None, [], {}, {"type": "load", "histogram": None}, "x"])
def test_our_own_form_that_is_none(record: object) -> None:
    with pytest.raises(LoadToolError):
        read_own(record)


def test_percentiles_of_too_few_values_are_no_metrics() -> None:
    known = dict.fromkeys(PERCENTILES, 1.0)
    counts = [(5, 0), (6, 1), (36, 2), (72, 3), (368, 4), (3688, 5)]
    for answered, taken in counts:
        metrics = LoadResult("x", answered, answered, S, {}, known, "exact").metrics()
        assert sum(metrics[f"latency.{name}"] is not None for name in ("p50", "p90", "p95", "p99", "p99.9")) == taken
        assert metrics["throughput"] == answered


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of the others that programs are looked for in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def run(command: str, folder: Path, output_format: str = "") -> LoadResult:
    return lab.run(lab.parse_load(command, output_format), folder)


def test_oha_is_run_as_its_version_wants_it(path: Path, tmp_path: Path) -> None:
    (tmp_path / "sample").write_text(json.dumps(OHA))
    script = (
        f'case "$*" in --help) echo " --output-format x";; --version) echo oha 1.15.0;; *) cat {tmp_path}/sample;; esac'
    )
    fake(path, "oha", script)
    result = run("oha -q 500 -z 2s http://x/", tmp_path)
    assert result.asked == ("oha", "-q", "500", "-z", "2s", "http://x/")
    assert result.command == ("oha", "--output-format", "json", "-q", "500", "-z", "2s", "http://x/")
    assert (result.version, result.model, result.wanted_rate, result.rate_share) == ("1.15.0", "open", 500.0, 0.988)


def test_vegeta_is_run_twice(path: Path, tmp_path: Path) -> None:
    (tmp_path / "sample").write_text(json.dumps(VEGETA))
    script = f"""case $1 in
    -version) printf 'Version: 12.11.1\\nCommit: x\\n';;
    attack) printf '\\377binary';;
    report) test "$(od -An -tx1 "$3" | tr -d ' ')" = ff62696e617279 && cat {tmp_path}/sample;;
    esac"""
    fake(path, "vegeta", script)
    result = run("vegeta attack -targets=t -rate=100", tmp_path)
    assert (result.requests, result.version, result.wanted_rate) == (100, "12.11.1", 100.0)
    fake(path, "vegeta", "[ $1 = attack ] || { echo 'no results' >&2; exit 1; }")
    with pytest.raises(LoadToolError, match="cannot read its results: no results"):
        run("vegeta attack -targets=t -rate=100", tmp_path)


def test_results_of_an_earlier_run_are_not_read(path: Path, tmp_path: Path) -> None:
    (tmp_path / "k6.json").write_text(json.dumps(K6))
    fake(path, "k6", "exit 0")
    with pytest.raises(LoadToolError, match="cannot be read"):
        run("k6 run s.js", tmp_path)


def test_k6_may_miss_its_thresholds(path: Path, tmp_path: Path) -> None:
    (tmp_path / "sample").write_text(json.dumps(K6))
    fake(path, "k6", f'[ "$1" = version ] && echo "k6 v0.49.0 (x)" && exit; cp {tmp_path}/sample "$3"; exit 99')
    result = run("k6 run s.js", tmp_path)
    assert (result.requests, result.version, result.model) == (3000, "0.49.0", "unknown")
    assert any("status 99" in note for note in result.notes)


def test_any_command_with_a_format(path: Path, tmp_path: Path) -> None:
    fake(path, "load.sh", f"cat <<'E'\n{WRK}E")
    result = run("load.sh a b", tmp_path, "wrk")
    assert (result.requests, result.command, result.model) == (56_325, ("load.sh", "a", "b"), "closed")
    fake(path, "load.sh", f"cat <<'E'\n{json.dumps(RESULTS[1].record())}\nE")
    assert run("load.sh", tmp_path, lab.OWN_FORMAT).answered == 988


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo first >&2; echo 'unable to connect' >&2; exit 3", r"exit status 3\): unable to connect$"),
        ("exit 1", "said nothing"),
        ("kill -9 $$", "SIGKILL"),
        ("echo hello", "first line is 'hello'"),
        (
            f"cat <<'E'\n{WRK.replace('56301 requests', '0 requests').replace('27995.45', '0.00')}E",
            "no response to 24 requests",
        ),
    ],
)
def test_what_fails_says_so(script: str, says: str, path: Path, tmp_path: Path) -> None:
    fake(path, "wrong", script)
    with pytest.raises(LoadToolError, match=says) as caught:
        run("wrong", tmp_path, "wrk")
    assert caught.value.exit_code == 5
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("command", "hint"),
    [("wrk http://x/", "apt-get install wrk"), ("ab http://x/", "apache2-utils"), ("k6 run s", "grafana.com")],
)
def test_a_tool_that_is_not_there(command: str, hint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoadToolError, match="not installed") as caught:
        run(command, tmp_path)
    assert hint in caught.value.hint
    with pytest.raises(LoadToolError, match="no command"):
        run("nothing", tmp_path, "wrk")

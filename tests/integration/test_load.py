"""Load tools of Debian against a service that counts for itself."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

import targets
from conftest import Target
from gotrace.errors import LoadToolError
from gotrace.lab.load import finish, parse_load, prepare, start
from gotrace.lab.load_cpu import judged
from gotrace.lab.load_result import LoadResult

MS = 10**6
CONNECTIONS = 4


class Served:
    """The service, and what it has counted since the last time it was asked."""

    def __init__(self, target: Target) -> None:
        self._target = target
        assert target.process.stdout is not None
        self.url = f"http://{target.process.stdout.readline().strip()}/ping"
        self._before: dict[str, int] = {}

    def counts(self) -> dict[str, int]:
        self._target.go()
        now = self._target.truth()
        since = {name: now[name] - self._before.get(name, 0) for name in ("asked", "refused", "cut")}
        self._before = now
        return {**now, **since}


@pytest.fixture
def served(start: Callable[..., Target]) -> Served:  # noqa: F811
    return Served(start(targets.build("served")))


def run(command: str, folder: Path) -> tuple[LoadResult, str]:
    """The result, and what the tool printed."""
    ready = prepare(parse_load(command), folder)
    with start(ready) as process:
        status = process.wait(60)
    return finish(ready, status), ready.stdout.read_text()


def near(count: int, result: int) -> bool:
    """Requests that were under way at the end, one on each connection, were served and not counted by the tool."""
    return result <= count <= result + CONNECTIONS


TIMED = {
    "wrk": f"wrk -t1 -c{CONNECTIONS} -d1s {{}}",
    "hey": f"hey -c {CONNECTIONS} -z 1s {{}}",
    "h2load": f"h2load --h1 -c{CONNECTIONS} -D 1s {{}}",
    "ab": f"ab -q -k -c {CONNECTIONS} -n 2000 {{}}",
}


@pytest.mark.parametrize("tool", TIMED)
def test_requests_and_refusals_are_those_the_service_counted(tool: str, served: Served, tmp_path: Path) -> None:
    result, _ = run(TIMED[tool].format(f"{served.url}?refuse=10"), tmp_path)
    counts = served.counts()
    assert result.tool == tool
    assert result.requests == result.answered > 100
    assert near(counts["asked"], result.answered)
    assert set(result.errors) == {"status"}
    assert near(counts["refused"], result.errors["status"])
    assert result.throughput == pytest.approx(result.answered * 1e9 / result.duration_ns)
    if tool != "ab":
        assert result.duration_ns == pytest.approx(1e9, rel=0.3)
    assert result.metrics()["errors.share"] == pytest.approx(0.1, rel=0.1)
    assert result.version or tool == "hey"


@pytest.mark.parametrize("tool", TIMED)
def test_latencies_are_those_that_were_planted(tool: str, served: Served, tmp_path: Path) -> None:
    command = TIMED[tool].replace("-n 2000", "-n 200").format(f"{served.url}?delay=20ms")
    result, _ = run(command, tmp_path)
    counts = served.counts()
    p50 = result.percentiles_ns["p50"]
    assert p50 is not None
    assert result.max_ns is not None
    # hey rounds to 0.1 ms, to the nearest
    slack = result.resolution_ns
    assert 20 * MS <= counts["p50_ns"] - slack <= p50 < counts["p50_ns"] + 20 * MS
    assert counts["max_ns"] - slack <= result.max_ns
    # Each connection waits for an answer before it asks again.
    mean = CONNECTIONS * 1e9 / result.throughput
    assert mean == pytest.approx(result.mean_ns or p50, rel=0.2)


def test_wrk_gives_every_latency(served: Served, tmp_path: Path) -> None:
    result, text = run(TIMED["wrk"].format(served.url) + " --latency", tmp_path)
    assert near(served.counts()["asked"], result.answered)
    assert result.percentiles_are == "exact"
    assert result.histogram is not None
    assert result.histogram.total == result.answered
    # What it prints for people is of its corrected latencies.
    printed = {f"p{percent}": us(value) for percent, value in re.findall(r"^ +(\d+)% +(\S+)$", text, re.M)}
    assert set(printed) == {"p50", "p75", "p90", "p99"}
    for name, value in printed.items():
        assert result.printed_ns[name] == pytest.approx(value * 1000, rel=0.006)
    longest = re.search(r"Latency +\S+ +\S+ +(\S+)", text)
    assert longest
    assert result.max_ns == pytest.approx(us(longest[1]) * 1000, rel=0.006)


def us(text: str) -> float:
    """wrk's and h2load's times."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1, "ms": 1000, "s": 1_000_000}[unit]


SLOW = """
function request()
  local x = 0
  for i = 1, 500000 do x = (x + i) % 7 end
  return wrk.format("GET", "/ping?" .. x)
end
"""


@pytest.mark.alone
def test_a_tool_that_has_no_time_left(served: Served, tmp_path: Path) -> None:
    """Its CPU time is the kernel's; and its latencies are its own: many times what the service took."""
    (tmp_path / "slow.lua").write_text(SLOW)
    for script, saturated in ((f"-s {tmp_path}/slow.lua", True), ("", False)):
        command = f"wrk -t1 -c{CONNECTIONS} -d2s {script} {served.url}" + ("" if saturated else "?delay=20ms")
        ready = prepare(parse_load(command), tmp_path)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with start(ready) as process:
            status = process.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result, used = finish(ready, status), process.used
        assert used is not None and used["threads"] == 1
        took = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
        assert used["cpu_ns"] / 1e9 == pytest.approx(took, abs=0.03)
        assert used["length_ns"] == pytest.approx(result.duration_ns, rel=0.3)
        reasons, _ = judged(used)
        assert [reason.startswith("the load tool was saturated") for reason in reasons] == [True] * saturated, used
        p50 = result.percentiles_ns["p50"]
        assert p50 is not None
        assert not saturated or p50 > 10 * served.counts()["p50_ns"]


def test_wrk_with_a_script_of_the_users_own(served: Served, tmp_path: Path) -> None:
    script = tmp_path / "own.lua"
    script.write_text('wrk.headers["X-Own"] = "1"\n')
    result, _ = run(f"wrk -t1 -c{CONNECTIONS} -d1s -s {script} {served.url}?refuse=10", tmp_path)
    counts = served.counts()
    assert near(counts["asked"], result.answered)
    assert near(counts["refused"], result.errors["status"])
    assert [name for name, value in result.percentiles_ns.items() if value] == ["p50", "p75", "p90", "p99"]
    assert (result.histogram, result.percentiles_are) == (None, "estimated")
    assert any("your script" in note for note in result.notes)


def test_late_answers_are_told(served: Served, tmp_path: Path) -> None:
    """wrk counts an answer after its timeout, but keeps no latency of it."""
    result, _ = run(f"wrk -t1 -c{CONNECTIONS} -d3s --timeout 1s {served.url}?delay=1200ms", tmp_path)
    assert result.errors == {"timeout": result.answered}
    assert result.max_ns is None
    assert any("timeout" in note for note in result.notes)


def test_connections_that_are_cut(served: Served, tmp_path: Path) -> None:
    result, _ = run(TIMED["wrk"].format(f"{served.url}?cut=10"), tmp_path)
    counts = served.counts()
    assert set(result.errors) == {"read"}
    assert near(counts["cut"], result.errors["read"])
    assert near(counts["asked"], result.requests)
    result, _ = run(f"ab -q -r -k -c {CONNECTIONS} -n 1000 {served.url}?cut=10", tmp_path)
    assert served.counts()["cut"] == result.failed


def test_ab_gives_microseconds(served: Served, tmp_path: Path) -> None:
    result, text = run(TIMED["ab"].format(served.url), tmp_path)
    assert served.counts()["asked"] == result.requests == 2000
    rows = re.findall(r"^ +(\d+)% +(\d+)", text, re.M)
    known = {f"p{percent}": int(ms) for percent, ms in rows} | {"max": int(rows[-1][1])}
    for name in ("p50", "p75", "p90", "p95", "p99"):
        value = result.percentiles_ns[name]
        assert value is not None
        assert int(value / MS + 0.5) == known[name]
    assert result.max_ns is not None
    assert int(result.max_ns / MS + 0.5) == known["max"]
    assert result.resolution_ns == 1000
    per_second = re.search(r"Requests per second: +([\d.]+)", text)
    assert per_second
    assert result.throughput == pytest.approx(float(per_second[1]))


def test_h2load_gives_every_latency(served: Served, tmp_path: Path) -> None:
    result, text = run(TIMED["h2load"].format(served.url) + " --warm-up-time=1s", tmp_path)
    assert result.histogram is not None
    assert result.histogram.total == result.answered
    # The warm-up's requests are not in it.
    assert served.counts()["asked"] > result.answered * 1.2
    row = re.search(r"time for request: +(\S+) +(\S+) +(\S+)", text)
    assert row
    for value, printed in zip((result.min_ns, result.max_ns, result.mean_ns), row.groups(), strict=True):
        assert value == pytest.approx(us(printed) * 1000, rel=0.006, abs=1000)
    per_second = re.search(r"finished in \S+, ([\d.]+) req/s", text)
    assert per_second
    assert result.throughput == pytest.approx(float(per_second[1]))


def test_hey_is_read_from_its_text(served: Served, tmp_path: Path) -> None:
    result, text = run(f"hey -c {CONNECTIONS} -n 400 -q 200 {served.url}", tmp_path)
    assert served.counts()["asked"] == result.requests == 400
    assert (result.wanted_rate, result.resolution_ns) == (200.0 * CONNECTIONS, 100_000)
    per_second = re.search(r"Requests/sec:\t([\d.]+)", text)
    assert per_second
    assert result.throughput == pytest.approx(float(per_second[1]), rel=0.001)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("wrk -d1s http://127.0.0.1:1/", "wrk failed .*Connection refused"),
        ("ab -n 5 http://127.0.0.1:1/", "ab failed .*Connection refused"),
        ("hey -n 50 http://127.0.0.1:1/", "no response to 50 requests .*connect 50"),
        ("h2load --h1 -n 5 http://127.0.0.1:1/", "no response to 5 requests"),
        ("wrk nonsense", "invalid URL"),
    ],
)
def test_nobody_listens(command: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(LoadToolError, match=says):
        run(command, tmp_path)


def test_the_form_in_json_is_whole(served: Served, tmp_path: Path) -> None:
    result, _ = run(TIMED["wrk"].format(served.url), tmp_path)
    record = json.loads(json.dumps(result.record()))
    assert LoadResult.from_record(record).record() == record

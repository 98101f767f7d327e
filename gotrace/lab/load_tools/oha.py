"""oha: a closed loop, or an open one with -q. Its JSON is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gotrace.errors import UsageError
from gotrace.lab.load_result import LoadResult, errors, percentiles
from gotrace.lab.load_tools.tool import (
    Asked,
    Options,
    Output,
    Prepared,
    Tool,
    count,
    duration_ns,
    getopt_options,
    kind_of,
    number,
)

_SHORT = "n:c:p:z:wq:m:H:t:A:d:D:Z:F:T:a:x:r:jo:u:Vh"
_LONG = """
    burst-delay= burst-rate= rand-regex-url urls-from-file max-repeat= dump-urls= latency-correction no-tui json fps=
    method= wait-ongoing-requests-after-deadline disable-compression disable-keepalive disable-redirects redirect= ipv4 ipv6
    no-pre-lookup insecure cacert= cert= key= connect-to= host= no-color unix-socket= vsock-addr= db-url= debug output=
    output-format= time-unit= stats-success-breakdown http-version= http2 proxy= proxy-header= proxy-http-version=
    proxy-http2 connect-timeout= basic-auth= aws-session= aws-sigv4= help version
"""
# Requests under way when the time was over: oha does not count them as failures either.
_DEADLINE = "aborted due to deadline"


def _options(arguments: Sequence[str]) -> Options:
    options = getopt_options(arguments, _SHORT, _LONG)
    if (options.last("output-format") or "json") != "json":
        raise UsageError("only oha's JSON output is supported", "remove --output-format from the load command")
    return options


def asked(arguments: Sequence[str]) -> Asked:
    options = _options(arguments)
    if options.unread:
        return Asked(model="unknown")
    rate = number((options.last("q") or "").lstrip("="))
    notes: tuple[str, ...] = ()
    if rate and not options.has("latency-correction"):
        notes = (
            "without --latency-correction, oha's latencies do not include the time a request waited for a free worker",
        )
    model = "open" if rate else "closed"
    if options.has("z"):
        return Asked(duration_ns((options.last("z") or "").lstrip("=")), None, rate, model, notes)  # type: ignore[arg-type]
    requests = count((options.last("n") or "200").lstrip("="))
    return Asked(None, requests, rate, model, notes)  # type: ignore[arg-type]


def prepare(arguments: Sequence[str], folder: Path, help_text: str) -> Prepared:
    options = _options(arguments)
    own = options.last("o", "output") or ""
    if options.has("j", "json", "output-format"):
        return Prepared(tuple(arguments), results=own)
    # From version 1.9 on it has the one, before that the other.
    json_wanted = ("--output-format", "json") if "--output-format" in help_text else ("--json",)
    return Prepared((*json_wanted, *arguments), results=own)


def read(output: Output) -> LoadResult:
    try:
        told = json.loads(output.results.read_text() if output.results else output.text)
        summary, statuses = told["summary"], told["statusCodeDistribution"]
        kinds: Counter[str] = Counter()
        for message, times in told["errorDistribution"].items():
            if message != _DEADLINE:
                kinds[kind_of(message)] += int(times)
        answered = sum(statuses.values())
        return LoadResult(
            tool="oha",
            requests=answered + sum(kinds.values()),
            answered=answered,
            duration_ns=round(summary["total"] * 1e9),
            errors=errors(**kinds, status=sum(times for code, times in statuses.items() if int(code) >= 400)),
            percentiles_ns=percentiles({name: _ns(value) for name, value in told["latencyPercentiles"].items()}),
            percentiles_are="exact",
            resolution_ns=1,
            mean_ns=_ns(summary["average"]),
            min_ns=_ns(summary["fastest"]),
            max_ns=_ns(summary["slowest"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise output.garbage("oha", "one object of JSON with 'summary' and 'statusCodeDistribution'") from None


def _ns(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e9


TOOL = Tool(
    name="oha",
    package="",
    page="https://github.com/hatoo/oha",
    version_arguments=("--version",),
    version_pattern=r"^oha (\S+)",
    asked=asked,
    prepare=prepare,
    read=read,
    needs_help=True,
)

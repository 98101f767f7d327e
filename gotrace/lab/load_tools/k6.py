"""k6: whichever loop its script makes. Its summary is exported to a file, with the percentiles that are wanted here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gotrace.errors import UsageError
from gotrace.lab.load_result import LoadResult, errors, percentiles
from gotrace.lab.load_tools.tool import Asked, Options, Output, Prepared, Tool, count, duration_ns, getopt_options
from gotrace.records.load import PERCENTILES

_SHORT = "u:d:i:s:o:e:c:a:l:t:pvqhw"
_LONG = """
    vus= duration= iterations= stage= out= env= config= address= log-output= log-format= type= paused verbose quiet help
    summary-export= summary-trend-stats= summary-time-unit= summary-mode= no-summary no-thresholds no-setup no-teardown
    no-color no-usage-report no-vu-connection-reuse no-connection-reuse insecure-skip-tls-verify throw batch= rps= tag=
    discard-response-bodies batch-per-host= user-agent= http-debug= blacklist-ip= block-hostnames= system-tags= dns= linger
    console-output= execution-segment= execution-segment-sequence= min-iteration-duration= max-redirects= local-ips=
    include-system-env-vars compatibility-mode= traces-output= profiling-enabled new-machine-readable-summary
"""
_STATISTICS = ",".join(["avg", "min", "med", "max", *(f"p({name[1:]})" for name in PERCENTILES)])


def _options(arguments: Sequence[str]) -> Options:
    if "run" not in arguments:
        raise UsageError("only `k6 run` generates load", "write: --load 'k6 run SCRIPT'")
    return getopt_options(arguments[list(arguments).index("run") + 1 :], _SHORT, _LONG)


def asked(arguments: Sequence[str]) -> Asked:
    options = _options(arguments)
    # Options about virtual users replace the scenarios of the script, and make a closed loop.
    closed = options.has("u", "vus", "d", "duration", "i", "iterations", "s", "stage")
    duration = duration_ns(options.last("d", "duration") or "")
    requests = count(options.last("i", "iterations"))
    notes = () if closed else ("the script decides when k6 sends requests, and how many",)
    return Asked(duration, requests if closed else None, None, "closed" if closed else "unknown", notes)


def prepare(arguments: Sequence[str], folder: Path, help_text: str) -> Prepared:
    options = _options(arguments)
    at = list(arguments).index("run") + 1
    own = options.last("summary-export")
    results = own or str(folder / "k6.json")
    added: tuple[str, ...] = () if own else ("--summary-export", results)
    notes: tuple[str, ...] = ()
    if options.has("summary-trend-stats"):
        notes = ("k6 gives only the percentiles in your --summary-trend-stats",)
    else:
        added += ("--summary-trend-stats", _STATISTICS)
    return Prepared((*arguments[:at], *added, *arguments[at:]), results=results, notes=notes)


def read(output: Output) -> LoadResult:
    try:
        metrics = json.loads(output.results.read_text() if output.results else output.text)["metrics"]
        # What handleSummary() is given has the numbers one level deeper.
        told = {name: metric.get("values", metric) for name, metric in metrics.items()}
        times, requests = told["http_req_duration"], told["http_reqs"]
        # Of this metric a request that failed is a "pass".
        failed = int(told.get("http_req_failed", {}).get("passes", 0))
        known = {f"p{name[2:-1]}": _ns(value) for name, value in times.items() if name.startswith("p(")}
        return LoadResult(
            tool="k6",
            requests=int(requests["count"]),
            answered=int(requests["count"]),
            duration_ns=round(requests["count"] * 1e9 / requests["rate"]) if requests["rate"] else 0,
            errors=errors(other=failed),
            percentiles_ns=percentiles({"p50": _ns(times.get("med")), **known}),
            percentiles_are="interpolated",
            resolution_ns=1,
            mean_ns=_ns(times.get("avg")),
            min_ns=_ns(times.get("min")),
            max_ns=_ns(times.get("max")),
            notes=("k6 does not say how requests failed, nor which got no response at all",) if failed else (),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise output.garbage("k6", "a summary with 'http_reqs' and 'http_req_duration', in the form up to k6 1") from None


def _ns(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds * 1e6


TOOL = Tool(
    name="k6",
    package="",
    page="https://grafana.com/docs/k6/latest/set-up/install-k6/",
    version_arguments=("version",),
    version_pattern=r"k6(?:\.exe)? v?(\S+)",
    asked=asked,
    prepare=prepare,
    read=read,
    good_exits=frozenset({0, 99}),  # 99: a threshold of the script was not kept
)

"""h2load, of nghttp2: a closed loop. It is made to write a line for each request, for it prints no percentiles.

That is one write to a file more for each request that it sends, and the same in every run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gotrace.lab.load_result import Histogram, LoadResult, errors, from_histogram, percentiles
from gotrace.lab.load_tools.tool import Asked, Options, Output, Prepared, Tool, count, duration_ns, getopt_options, number

_SHORT = "hvn:c:t:i:m:f:w:W:H:p:d:r:D:T:N:B:"
_LONG = """
    requests= clients= threads= input-file= max-concurrent-streams= max-frame-size= window-bits= connection-window-bits=
    header= ciphers= tls13-ciphers= no-tls-proto= data= rate= rate-period= duration= warm-up-time=
    connection-active-timeout= connection-inactivity-timeout= timing-script-file= base-uri= npn-list= alpn-list= h1 h3
    header-table-size= encoder-header-table-size= log-file= qlog-file-base= connect-to= rps= groups= no-udp-gso
    max-udp-payload-size= ktls sni= verbose version help
"""
_TIME = r"([\d.]+)(us|ms|s|m|h)"
_UNITS = {"us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def _options(arguments: Sequence[str]) -> Options:
    return getopt_options(arguments, _SHORT, _LONG)


def asked(arguments: Sequence[str]) -> Asked:
    options = _options(arguments)
    if options.unread:
        return Asked()
    each, clients = number(options.last("rps")), number(options.last("c", "clients") or "1")
    rate = each * clients if each and clients else None
    duration = duration_ns(options.last("D", "duration") or "0")
    threads = count(options.last("t", "threads") or "1")
    if not duration:
        return Asked(None, count(options.last("n", "requests") or "1"), rate, threads=threads)
    warmup = duration_ns(options.last("warm-up-time") or "0") or 0
    return Asked(duration + warmup, None, rate, threads=threads)


def prepare(arguments: Sequence[str], folder: Path, help_text: str) -> Prepared:
    options = _options(arguments)
    if options.unread:
        return Prepared(tuple(arguments), notes=options.note())
    own = options.last("log-file")
    if own is not None:
        return Prepared(tuple(arguments), results=own)
    results = str(folder / "h2load.tsv")
    return Prepared((f"--log-file={results}", *arguments), results=results)


def read(output: Output) -> LoadResult:
    text = output.text
    finished = re.search(rf"^finished in {_TIME}, ([\d.]+) req/s", text, re.M)
    requests = re.search(r"^requests: .* (\d+) done, .* (\d+) errored, (\d+) timeout", text, re.M)
    statuses = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text, re.M)
    if not finished or not requests or not statuses:
        raise output.garbage("h2load", "'finished in …', 'requests: …' and 'status codes: …'")
    done, errored, timeouts = map(int, requests.groups())
    by_class = [int(times) for times in statuses.groups()]
    answered = sum(by_class)
    per_second = float(finished[3])
    common: dict[str, Any] = {
        "tool": "h2load",
        "requests": answered + errored,
        "answered": answered,
        # The rate has more digits than the time.
        "duration_ns": round(done * 1e9 / per_second if per_second else float(finished[1]) * _UNITS[finished[2]]),
        "errors": errors(timeout=timeouts, other=errored - timeouts, status=by_class[2] + by_class[3]),
    }
    if output.results is None:
        return LoadResult(**common, **_printed(text))
    try:
        rows = np.fromfile(output.results, np.int64, sep=" ").reshape(-1, 3)
    except (OSError, ValueError):
        raise output.garbage("h2load", f"a file with a line for each of {done:,} requests") from None
    times = rows[rows[:, 1] > 0, 2]  # a status of -1: it failed
    if len(times) != answered:
        note = f"h2load wrote {len(times):,} latencies for {answered:,} responses, so only what it prints is used"
        return LoadResult(**common, **_printed(text), notes=(note,))
    return LoadResult(**common, **from_histogram(Histogram.of(times * 1000)))


def _printed(text: str) -> dict[str, Any]:
    """The numbers that it prints for people; 1.52 and earlier print no percentiles."""
    header = re.search(r"^ +(min +max .*?) +sd", text, re.M)
    row = re.search(r"^(?:time for request|request) *: +(.*)", text, re.M)
    known: dict[str, float | None] = {}
    if header and row:
        values = [float(value) * _UNITS[unit] for value, unit in re.findall(_TIME, row[1])]
        known = dict(zip(header[1].replace("median", "p50").split(), values, strict=False))
    return {
        "percentiles_ns": percentiles(known),
        "percentiles_are": "exact",
        "mean_ns": known.get("mean"),
        "min_ns": known.get("min"),
        "max_ns": known.get("max"),
    }


TOOL = Tool(
    name="h2load",
    package="nghttp2-client",
    page="https://nghttp2.org/documentation/h2load.1.html",
    version_arguments=("--version",),
    version_pattern=r"nghttp2/(\S+)",
    asked=asked,
    prepare=prepare,
    read=read,
    model="closed",
)

"""wrk 4: a closed loop. A script of ours makes it write every latency, in microseconds.

wrk "corrects" its latencies before it prints them. It takes the mean time between a connection's requests for the
interval at which they should have been sent, and for each latency of twice that or more it adds the latencies that
further requests would have had if they had been sent meanwhile. Nobody measured those. They are taken out again here,
which can be done exactly as the values say how many there must be left: one for each answer. wrk's own percentiles stay
beside the measured ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gotrace.errors import UsageError
from gotrace.lab.load_result import Histogram, LoadResult, errors, from_histogram, percentiles
from gotrace.lab.load_tools.tool import Asked, Options, Output, Prepared, Tool, count, duration_ns, getopt_options, number

_US = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6}
_TIME = r"([\d.]+)(us|ms|s|m|h)"
_CORRECTED = "wrk's own percentiles include latencies that it adds for requests it did not send"


def _options(arguments: Sequence[str]) -> Options:
    long = "connections= duration= threads= script= header= latency timeout= help version"
    options = getopt_options(arguments, "t:c:d:s:H:T:Lrv", long)
    if any(each.startswith(("-R", "--rate")) for each in arguments):
        raise UsageError("wrk has no -R: that is wrk2, which is not supported", "for a fixed rate use oha, vegeta or k6")
    return options


def asked(arguments: Sequence[str]) -> Asked:
    options = _options(arguments)
    if options.unread:
        return Asked()
    return Asked(duration_ns(options.last("d", "duration") or "10s"), threads=count(options.last("t", "threads") or "2"))


def prepare(arguments: Sequence[str], folder: Path, help_text: str) -> Prepared:
    options = _options(arguments)
    if options.unread:
        return Prepared(tuple(arguments), notes=options.note())
    latency = () if options.has("L", "latency") else ("--latency",)
    if options.has("s", "script"):
        note = "wrk runs your script, so its latencies are only those it prints: p50, p75, p90 and p99"
        return Prepared((*latency, *arguments), notes=(note,))
    script, results = folder / "wrk.lua", folder / "wrk.json"
    code = (Path(__file__).with_name("wrk.lua")).read_text()
    text = f"local path = {_lua_string(str(results))}\n{code}"
    return Prepared(("-s", str(script), *latency, *arguments), {str(script): text}, str(results))


def _lua_string(text: str) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode("utf-8", "surrogateescape")) + '"'


def read(output: Output) -> LoadResult:
    connections = re.search(r"^ +\d+ threads and (\d+) connections$", output.text, re.M)
    if not connections:
        raise output.garbage("wrk", "'Running … test @ …' and '… threads and … connections'")
    if output.results is None:
        return _printed(output)
    try:
        told = json.loads(output.results.read_text())
    except (OSError, ValueError):
        result = _printed(output)
        raise output.garbage("wrk", f"a file of results beside {result.requests:,} requests") from None
    counts = told["errors"]
    timeouts = counts["timeout"]
    unanswered = counts["connect"] + counts["read"] + counts["write"]
    common: dict[str, Any] = {
        "tool": "wrk",
        "requests": told["requests"] + unanswered,
        "answered": told["requests"],
        "duration_ns": told["duration_us"] * 1000,
        "errors": errors(**counts),
    }
    printed = {name: us * 1000.0 for name, us in told["percentiles_us"].items()}
    notes = (f"{timeouts:,} responses came after wrk's timeout: their latencies are unknown",) if timeouts else ()
    # The interval as wrk divides it, in whole numbers; with fewer requests than connections it corrects nothing.
    each = told["requests"] // int(connections[1])
    values = None
    if told["histogram"] is not None:
        pairs = np.array(told["histogram"], np.int64).reshape(-1, 2)
        values = uncorrected(pairs[:, 0], pairs[:, 1], told["duration_us"] // each if each else 0)
    if values is None or int(values[1].sum()) != told["requests"] - timeouts:
        return LoadResult(
            **common,
            percentiles_ns=percentiles(printed),
            percentiles_are="estimated",
            mean_ns=told["mean_us"] * 1000.0,
            min_ns=told["min_us"] * 1000.0,
            max_ns=told["max_us"] * 1000.0,
            notes=(*notes, _CORRECTED),
        )
    histogram = Histogram(values[0] * 1000, values[1])
    if histogram.total:
        common |= {"printed_ns": printed}
    return LoadResult(**common, **from_histogram(histogram), notes=notes)


def uncorrected(
    values_us: NDArray[np.int64], counts: NDArray[np.int64], interval_us: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The values that were measured, of a histogram that wrk has corrected; None if it cannot have been.

    For each value of at least two intervals wrk adds one at every interval below it, as long as that is more than one
    interval. There is then at each value what was measured there, and all that there is one interval above.
    """
    if interval_us <= 0 or not len(values_us):
        return values_us, counts
    above = np.minimum(np.searchsorted(values_us, values_us + interval_us), len(values_us) - 1)
    added = (values_us > interval_us) & (values_us[above] == values_us + interval_us)
    left = counts - np.where(added, counts[above], 0)
    return None if (left < 0).any() else (values_us[left > 0], left[left > 0])


def _printed(output: Output) -> LoadResult:
    """The numbers that wrk prints for people, with --latency."""
    text = output.text
    total = re.search(rf"^ +(\d+) requests in {_TIME}, ", text, re.M)
    average = re.search(rf"^ +Latency +{_TIME} +{_TIME} +{_TIME} ", text, re.M)
    if not total or not average:
        raise output.garbage("wrk", "'Latency …' and '… requests in …'")
    kinds = ("connect", "read", "write", "timeout")
    socket = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    counts = dict(zip(kinds, map(int, socket.groups()), strict=True)) if socket else dict.fromkeys(kinds, 0)
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    answered = int(total[1])
    rate = re.search(r"^Requests/sec: +([\d.]+)", text, re.M)
    # The rate has more digits than the time.
    per_second = number(rate[1]) if rate else None
    duration = round(answered * 1e9 / per_second) if per_second else _ns(total[2], total[3])
    lines = re.findall(rf"^ +([\d.]+)% +{_TIME}$", text, re.M)
    return LoadResult(
        tool="wrk",
        requests=answered + counts["connect"] + counts["read"] + counts["write"],
        answered=answered,
        duration_ns=int(duration),
        errors=errors(**counts, status=int(status[1]) if status else 0),
        percentiles_ns=percentiles({f"p{float(percent):g}": _ns(value, unit) for percent, value, unit in lines}),
        percentiles_are="estimated",
        mean_ns=_ns(average[1], average[2]),
        max_ns=_ns(average[5], average[6]),
        notes=(_CORRECTED,),
    )


def _ns(value: str, unit: str) -> float:
    return float(value) * _US[unit] * 1000


TOOL = Tool(
    name="wrk",
    package="wrk",
    page="https://github.com/wg/wrk",
    version_arguments=("-v",),
    version_pattern=r"^wrk (\S+) ",
    asked=asked,
    prepare=prepare,
    read=read,
    model="closed",
)

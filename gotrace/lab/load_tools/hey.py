"""hey: a closed loop, slowed down by -q. Its text is read, with latencies in steps of 0.1 ms.

Its other output, -o csv, has the same steps and the same limit of a million requests, but neither the requests that
failed nor how long all of it took, so that it is not asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from gotrace.errors import UsageError
from gotrace.lab.load_result import LoadResult, errors, percentiles
from gotrace.lab.load_tools.tool import Asked, Output, Tool, as_it_is, count, duration_ns, go_options, kind_of, number

_KEPT = 1_000_000


def asked(arguments: Sequence[str]) -> Asked:
    options = go_options(arguments, "h h2 help disable-compression disable-keepalive disable-redirects")
    if (options.last("o") or "") not in ("", "text"):
        raise UsageError("hey's -o csv omits failed requests", "remove -o from the load command")
    limit, workers = number(options.last("q")), number(options.last("c") or "50")
    rate = limit * workers if limit and workers else None
    cpus = count(options.last("cpus"))
    if options.has("z"):
        return Asked(duration_ns(options.last("z") or ""), None, rate, threads=cpus)
    return Asked(None, None if options.unread else count(options.last("n") or "200"), rate, threads=cpus)


def read(output: Output) -> LoadResult:
    text = output.text
    total = re.search(r"^ +Total:\s+([\d.]+) secs$", text, re.M)
    if not total or "Status code distribution:" not in text:
        raise output.garbage("hey", "'Summary:' and 'Status code distribution:'")
    statuses = [(int(code), int(times)) for code, times in re.findall(r"^ +\[(\d+)\]\t(\d+) responses$", text, re.M)]
    kinds: Counter[str] = Counter()
    for times, message in re.findall(r"^ +\[(\d+)\]\t(.*)$", text.partition("Error distribution:")[2], re.M):
        kinds[kind_of(message)] += int(times)
    answered, unanswered = sum(times for _, times in statuses), sum(kinds.values())
    lines = re.findall(r"^ +(\d+)% in ([\d.]+) secs$", text, re.M)
    mean = _ns(text, "Average")
    notes: tuple[str, ...] = ()
    if answered > _KEPT:
        notes = (f"hey keeps the latencies of the first million responses, of {answered:,}: percentiles are of those",)
        # It divides the sum over all by the number of those it kept.
        mean = mean and mean * _KEPT / answered
    return LoadResult(
        tool="hey",
        requests=answered + unanswered,
        answered=answered,
        duration_ns=round(float(total[1]) * 1e9),
        errors=errors(**kinds, status=sum(times for code, times in statuses if code >= 400)),
        # A line "0% in 0.0000 secs" stands for a percentile that it does not have.
        percentiles_ns=percentiles({f"p{percent}": float(value) * 1e9 for percent, value in lines if percent != "0"}),
        percentiles_are="exact",
        resolution_ns=100_000,
        mean_ns=mean,
        min_ns=_ns(text, "Fastest") if answered else None,
        max_ns=_ns(text, "Slowest") if answered else None,
        notes=notes,
    )


def _ns(text: str, name: str) -> float | None:
    found = re.search(rf"^ +{name}:\s+(\S+) secs$", text, re.M)
    value = number(found[1]) if found else None
    return None if value is None else value * 1e9


TOOL = Tool(
    name="hey",
    package="hey",
    page="https://github.com/rakyll/hey",
    version_arguments=(),
    version_pattern="",
    asked=asked,
    prepare=as_it_is,
    read=read,
    model="closed",
)

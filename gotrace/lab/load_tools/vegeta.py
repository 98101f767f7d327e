"""vegeta: an open loop. `vegeta attack` writes its results to a file, and `vegeta report -type=json` reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gotrace.errors import UsageError
from gotrace.lab.load_result import LoadResult, errors, percentiles
from gotrace.lab.load_tools.tool import Asked, Options, Output, Prepared, Tool, duration_ns, go_options, kind_of, number

_FLAGS = "chunked h2c http2 insecure keepalive lazy session-tickets h help"
_NAMES = {"p50": "50th", "p90": "90th", "p95": "95th", "p99": "99th"}
# Stands for the file that has the output of the first run.
STDOUT = "-"


def _options(arguments: Sequence[str]) -> Options:
    if "attack" not in arguments:
        raise UsageError("only `vegeta attack` generates load", "gotrace reads its results: remove `| vegeta report`")
    options = go_options(arguments[list(arguments).index("attack") + 1 :], _FLAGS)
    if options.rest:
        raise UsageError(f"vegeta attack takes no {options.rest[0]!r}", "`vegeta attack -h` lists its options")
    if not options.unread and (options.last("targets") or "stdin") == "stdin":
        raise UsageError("vegeta would read its targets from standard input", "put them in a file: -targets=FILE")
    return options


def asked(arguments: Sequence[str]) -> Asked:
    options = _options(arguments)
    if options.unread:
        return Asked(model="unknown")
    hits, _, per = (options.last("rate") or "50/1s").partition("/")
    unit = duration_ns(f"1{per}" if per.isalpha() else per) or 10**9
    found = number(hits)
    rate = found * 1e9 / unit if found else None  # 0 and "infinity": as fast as its workers can
    return Asked(duration_ns(options.last("duration") or "0") or None, None, rate, "open" if rate else "closed")


def prepare(arguments: Sequence[str], folder: Path, help_text: str) -> Prepared:
    own = _options(arguments).last("output") or "stdout"
    results = STDOUT if own == "stdout" else own
    return Prepared(tuple(arguments), results=results, after=("report", "-type=json", results))


def read(output: Output) -> LoadResult:
    try:
        told = json.loads(output.text)
        latencies, statuses = told["latencies"], {int(code): int(times) for code, times in told["status_codes"].items()}
        unanswered = statuses.pop(0, 0)
        # The messages stand there once each. Those of statuses begin with them; the others are why there was no answer.
        kinds = {kind_of(message) for message in told["errors"] or () if not message[:3].isdigit()}
        kind = kinds.pop() if len(kinds) == 1 else "other"
        answered = sum(statuses.values())
        counts = {kind: unanswered, "status": sum(times for code, times in statuses.items() if code >= 400)}
        return LoadResult(
            tool="vegeta",
            requests=answered + unanswered,
            answered=answered,
            duration_ns=told["duration"] + told["wait"],
            errors=errors(**counts),
            percentiles_ns=percentiles({name: latencies.get(key) for name, key in _NAMES.items()}),
            percentiles_are="estimated",
            resolution_ns=1,
            mean_ns=latencies["mean"],
            min_ns=latencies.get("min"),
            max_ns=latencies["max"],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise output.garbage(
            "vegeta", "what `vegeta report -type=json` prints, with 'latencies' and 'status_codes'"
        ) from None


TOOL = Tool(
    name="vegeta",
    package="",
    page="https://github.com/tsenart/vegeta",
    version_arguments=("-version",),
    version_pattern=r"Version: *v?(\S+)",
    asked=asked,
    prepare=prepare,
    read=read,
)

"""ab, of the Apache web server: a closed loop. It is made to write its percentiles, with microseconds, to a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gotrace.errors import UsageError
from gotrace.lab.load_result import LoadResult, errors, percentiles
from gotrace.lab.load_tools.tool import Asked, Options, Output, Prepared, Tool, count, duration_ns, getopt_options, number

_SHORT = "n:c:t:s:b:T:p:u:v:lrkVhwiIx:y:z:C:H:P:A:g:X:de:SqB:m:Z:f:E:"
_LIMIT = 50_000  # what -t sets -n to


def _options(arguments: Sequence[str]) -> Options:
    options = getopt_options(arguments, _SHORT, "")
    if options.has("w"):
        raise UsageError("ab's -w prints HTML, which is not supported", "remove -w from the load command")
    return options


def asked(arguments: Sequence[str]) -> Asked:
    options = _options(arguments)
    duration, requests = None, None if options.unread else 1
    for name, value in options.pairs:
        if name == "t":
            duration, requests = duration_ns(value), _LIMIT
        if name == "n":
            requests = count(value)
    notes = ("ab's -t also ends after 50,000 requests, unless -n follows it",) if duration and requests == _LIMIT else ()
    return Asked(duration, requests, notes=notes, threads=1)


def prepare(arguments: Sequence[str], folder: Path, help_text: str) -> Prepared:
    options = _options(arguments)
    if options.unread:
        return Prepared(tuple(arguments), notes=options.note())
    own = options.last("e")
    if own is not None:
        return Prepared(tuple(arguments), results=own)
    results = str(folder / "ab.csv")
    return Prepared(("-e", results, *arguments), results=results)


def read(output: Output) -> LoadResult:
    text = output.text
    complete = _number(text, r"Complete requests: +(\d+)")
    per_second = _number(text, r"Requests per second: +([\d.]+)")
    seconds = _number(text, r"Time taken for tests: +([\d.]+) seconds")
    if complete is None or seconds is None:
        raise output.garbage("ab", "'Complete requests:' and 'Time taken for tests:'")
    names = {"connect": "Connect", "read": "Receive", "length": "Length", "other": "Exceptions"}
    kinds = {kind: int(_number(text, rf"\(.*{name}: (\d+)") or 0) for kind, name in names.items()}
    status = int(_number(text, r"Non-2xx responses: +(\d+)") or 0)
    unanswered = kinds["connect"] + kinds["read"] + kinds["other"]
    notes: tuple[str, ...] = ()
    # An answer with another status is usually of another length too, and was counted for both.
    kinds["length"] = max(0, kinds["length"] - status)
    if kinds["length"]:
        notes = ("ab counts a response with a different length than the first as failed, unless run with -l",)
    rows = {}
    if output.results is not None:
        try:
            rows = dict(re.findall(r"^(\d+),([\d.]+)$", output.results.read_text(), re.M))
        except OSError:
            raise output.garbage("ab", f"a file of percentiles beside {complete:,.0f} requests") from None
    resolution = 1000 if rows else 1_000_000
    if not rows:
        rows = dict(re.findall(r"^ +(\d+)% +(\d+)(?: \(longest request\))?$", text, re.M))
    known = {percent: float(value) * 1e6 for percent, value in rows.items()}
    return LoadResult(
        tool="ab",
        requests=int(complete),
        answered=int(complete) - unanswered,
        # The rate has more digits than the time.
        duration_ns=round(complete * 1e9 / per_second) if per_second else round(seconds * 1e9),
        errors=errors(**kinds, status=status),
        percentiles_ns=percentiles({f"p{percent}": value for percent, value in known.items()}),
        percentiles_are="exact",
        resolution_ns=resolution,
        min_ns=known.get("0"),
        max_ns=known.get("100"),
        notes=notes,
    )


def _number(text: str, pattern: str) -> float | None:
    found = re.search(pattern, text)
    return number(found[1]) if found else None


TOOL = Tool(
    name="ab",
    package="apache2-utils",
    page="https://httpd.apache.org/docs/current/programs/ab.html",
    version_arguments=("-V",),
    version_pattern=r"Version (\S+)",
    asked=asked,
    prepare=prepare,
    read=read,
    model="closed",
)

"""`gotrace reproduce`, for people: the answer first, then what it was made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.cli.text.table import Table
from gotrace.lab.metrics import METRICS
from gotrace.lab.plan import Plan
from gotrace.lab.report import Baseline
from gotrace.lab.reproduce import Binary, Expected, Repeated, Reproduction, binaries_differ
from gotrace.run.files import Sink
from gotrace.text import count_text, printable

_COLUMNS = (
    Column("metric", 22, left=True),
    Column("then", 12),
    Column("now", 12),
    Column("change", 9),
    Column("90% interval", 20, rank=1),
    Column("p differs", 9, rank=3),
    Column("found", left=True, gap=2),
)
_MANY = 10_000  # that nobody would wait for


def expected(report: Baseline, plan: Plan, found: Sequence[Expected], within: float, other: str) -> Iterator[str]:
    """What would be judged, and what stands against it."""
    if other:
        yield f"NOT COMPARABLE: {printable(other)}. The verdict can only be: cannot tell."
    for text in binaries_differ(report, plan):
        yield f"NOT THE SAME BINARY: {printable(text)}"
    for version in plan.versions:
        own = [each for each in found if each.version == version.name]
        judged = ", ".join(each.metric for each in own if each.judged) or "nothing"
        yield f"judged within {within:g}% ({printable(version.name)}): {judged}"
        yield from (f"  {line}" for line in _beyond(own))


def _beyond(found: Sequence[Expected]) -> Iterator[str]:
    """What so many runs do not show."""
    for each in found:
        if not each.shows:
            yield f"{'required anyway' if each.judged else 'not judged'}: {each.metric} ({_why(each)})"


def _why(each: Expected) -> str:
    if each.runs is None or each.spread is None:
        return "the report has too few values"
    runs = f"{each.runs:,} runs" if each.runs < _MANY else "an impractical number of runs"
    return (
        f"in the report it varies by {METRICS[each.metric].text(each.spread)}: it would take {runs}"
        if (METRICS[each.metric].dimension == "growth")
        else f"in the report it varies by {each.spread:.1%} from run to run: it would take {runs}"
    )


def write(stream: Sink, format_: str, found: Reproduction, expected: Sequence[Expected]) -> None:
    """As a table, or as JSON."""
    if format_ == "json":
        stream.write(json.dumps(found.to_json(), indent=1) + "\n")
    else:
        Table(stream).print(_lines(found, expected))


def _lines(found: Reproduction, expected: Sequence[Expected]) -> Iterator[str | Rows]:
    within = f"{100 * found.margin:g}%"
    yield f"{found.answer.upper()} within {within}" if found.answer != "cannot tell" else f"CANNOT TELL within {within}"
    for reason in found.reasons:
        yield f"  {printable(reason)}"
    for binary in found.binaries:
        yield from _binary(binary)
    for note in found.notes:
        yield f"note: {printable(note)}"
    yield "Not interleaved: any drift between the two counts as a difference."
    for version in dict.fromkeys(row.version for row in found.metrics):
        rows = [row for row in found.metrics if row.version == version]
        counted = max((row.runs for row in rows), default=(0, 0))
        yield ""
        yield f"{printable(version)}: {count_text(counted[0], 'run')} then, {counted[1]:,} now"
        yield ""
        yield Rows(_COLUMNS, [_row(row) for row in rows if row.then is not None or row.now is not None])
        yield from _beyond([each for each in expected if each.version == version and each.runs is not None])


def _binary(binary: Binary) -> Iterator[str]:
    then, now = binary.then, binary.now
    if not binary.same:
        yield (
            f"NOT THE SAME BINARY: {printable(binary.version)} was {printable(then['go_version'])}, "
            f"{then['exe_bytes']:,} bytes, build id {_short(then['build_id'])}; it is {printable(now['go_version'])}, "
            f"{now['exe_bytes']:,} bytes, build id {_short(now['build_id'])}"
        )
    elif then["exe"] != now["exe"]:
        yield f"the same binary at another path: {printable(then['exe'])} then, {printable(now['exe'])} now"


def _short(build_id: str) -> str:
    """Of Go's build ids, which are 83 characters, the last part: it is of the content."""
    return printable(build_id.rpartition("/")[2][:12]) or "?"


def _row(row: Repeated) -> Row:
    metric = METRICS[row.metric]
    then, now = metric.text(row.then), metric.text(row.now)
    found = row.found if row.judged or row.found == "differs" else f"{row.found}, not judged"
    if row.change is None:
        return row.metric, then, now, "-", "-", "-", f"{found} ({row.reason})"
    is_growth = metric.dimension == "growth"
    change, low, high = (_change(each, is_growth) for each in row.change)
    return row.metric, then, now, change, f"{low} to {high}", f"{row.differs_p:.4f}", found


def _change(value: float, is_growth: bool) -> str:
    if not math.isfinite(value):
        return "?"
    return METRICS["rss.growth"].text(value) if is_growth else f"{value - 1:+.1%}"

"""What `gotrace sched --wakeups` adds, for people."""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.cli.text.clock import clock
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import count_text, duration_text
from gotrace.views.sched_wakeups import SchedulerWakeups
from gotrace.views.view import Record

TELLS_LOST = True

_PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9", "max")
_ROWS = (
    Column("a goroutine", 26, left=True),
    Column("count", 10),
    *(Column(name, 9, rank=rank) for name, rank in zip(_PERCENTILES, (0, 3, 1, 0, 4, 2), strict=True)),
)
_LONGEST = (Column("ran at", 12), Column("goroutine", 10), Column("on P", 5), Column("waited", 9))


def line(view: SchedulerWakeups, record: Record) -> Row | None:
    return None


def summary(view: SchedulerWakeups) -> Iterator[str | Rows]:
    found = view.result
    waited, moves, seconds = found["waited"], found["moves"], found["length_ns"] / 1e9
    yield ""
    yield f"Single goroutines, in {duration_text(found['length_ns'])}:"
    yield ""
    rows: list[Row] = []
    if waited["count"]:
        times = (duration_text(waited[f"{name}_ns"]) for name in _PERCENTILES)
        rows.append(("waited for a P (1 of 8)", f"{waited['count']:,}", *times))
    if moves["count"]:
        times = (duration_text(moves["stays"][f"{name}_ns"]) for name in _PERCENTILES)
        rows.append(("stayed on one P for", f"{moves['count']:,}", *times))
        rows.append(("and had turns there", f"{moves['count']:,}", *(f"{moves['turns'][name]:,}" for name in _PERCENTILES)))
    if rows:
        yield Rows(_ROWS, rows)
    if moves["count"]:
        yield (
            f"{count_text(moves['goroutines'], 'goroutine')} got another P than before, "
            f"{moves['count'] / seconds:,.1f} times in each second."
        )
    elif "moves" not in found["missing"]:
        yield "No goroutine got another P than before."
    if found["longest"]:
        yield ""
        yield Rows(
            _LONGEST,
            [(clock(each, 1), each["goid"], each["p"], duration_text(each["wait_ns"])) for each in found["longest"]],
        )
        yield ""
    for what, reason in found["missing"].items():
        yield f"Not available: {what} ({reason})."
    yield f"{count_text(found['lost'], 'event')} lost."

"""`gotrace contention` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.analysis.contention import BLOCK, MUTEX
from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows, more_rows
from gotrace.cli.text.stacks import in_a_line
from gotrace.text import count_text, duration_text
from gotrace.views.contention import Contention, Waited
from gotrace.views.view import Record

_LINE = (Column("delay by locks", 14), Column("waits", 10), Column("delay of waits", 14), Column("waits", 10))
_ROWS = (
    *(Column("delay", 9), Column("share", 6, rank=2), Column("waits", 10, rank=1), Column("mean", 9, rank=3)),
    Column("stack", left=True, elastic=24, gap=2),
)
_WHAT = {MUTEX: "others waited for locks held by this code", BLOCK: "this code waited"}
_TURNED_ON = {MUTEX: "runtime.SetMutexProfileFraction", BLOCK: "runtime.SetBlockProfileRate"}


def columns(view: Contention) -> Sequence[Column]:
    return (Column("time", width(view.interval_ns)), *_LINE)


def line(view: Contention, record: Record) -> Row | None:
    """Since the program began."""
    if not view.interval_ns:
        return None
    found = [record[kind] for kind in (MUTEX, BLOCK)]
    cells = [(duration_text(each["delay_ns"]), f"{each['count']:,}") if each["stacks"] else ("-", "-") for each in found]
    return (clock(record, view.interval_ns), *cells[0], *cells[1])


def summary(view: Contention) -> Iterator[str | Rows]:
    if view.first is None or view.last is None:
        return
    first, last, kind = view.first, view.last, view.kind
    since, ended = "since the program started", ""
    if view.interval_ns:
        yield ""
        since = f"in {duration_text(last['monotonic_ns'] - first['monotonic_ns'])}"
        ended = f"; ended by: {view.source.end['ended']}"
    yield f"{view.source.name}: {kind} profile, {since}{ended}"
    rows = view.waited()
    if not last[kind]["stacks"]:
        yield f"The profile is empty: the program does not collect it ({_TURNED_ON[kind]}), or nothing has waited."
        yield "`gotrace goroutines` shows what is waiting now, and `gotrace sched` the total mutex wait time."
    elif view.interval_ns and first is last:
        yield "Only one profile was taken, so there is nothing to compare: shorten --interval."
    elif not rows:
        yield "Nothing waited in this time."
    else:
        rows = _together(rows)
        total = sum(row.delay_ns for row in rows)
        yield f"{duration_text(total)} in {count_text(sum(row.waits for row in rows), 'wait')}: {_WHAT[kind]}"
        yield ""
        yield Rows(_ROWS, [_row(row, total) for row in rows[: view.top]])
        if len(rows) > view.top:
            yield f"{duration_text(sum(row.delay_ns for row in rows[view.top :]))} in {more_rows(len(rows), view.top)}"
    other = {MUTEX: BLOCK, BLOCK: MUTEX}[kind]
    if last[other]["stacks"]:
        yield ""
        yield f"There is also a {other} profile ({duration_text(last[other]['delay_ns'])}): --{other} shows it."


def _together(rows: Sequence[Waited]) -> list[Waited]:
    """Stacks through the same functions, at whatever lines; those in which there is nothing but the runtime are one."""
    found: dict[tuple[str, ...], list[Waited]] = {}
    for row in rows:
        names = tuple(each["function"] for each in row.stack)
        found.setdefault(() if all(name.startswith("runtime.") for name in names) else names, []).append(row)
    sums = [
        Waited(sum(row.waits for row in each), sum(row.delay_ns for row in each), each[0].stack if names else [])
        for names, each in found.items()
    ]
    return sorted(sums, key=lambda row: -row.delay_ns)


def _row(row: Waited, total: int) -> Row:
    mean = duration_text(row.delay_ns / row.waits) if row.waits else "?"
    share = f"{row.delay_ns / max(1, total):.1%}"
    stack = in_a_line([each["function"] for each in row.stack]) if row.stack else "the runtime's own locks"
    return (duration_text(row.delay_ns), share, f"{row.waits:,}", mean, stack)

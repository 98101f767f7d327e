"""`gotrace heap` for people, of a program whose allocations were seen span by span."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows, more_rows
from gotrace.cli.text.stacks import in_a_line
from gotrace.records.heap_spans import by_functions
from gotrace.text import bytes_text, cost_text
from gotrace.views.heap_spans import HeapSpans
from gotrace.views.view import Record

_LINE = (Column("allocated", 10), Column("objects", 14), Column("seen", 10), Column("windows", 8))
_STACK = Column("stack", left=True, elastic=24, gap=2)


def columns(view: HeapSpans) -> Sequence[Column]:
    return (Column("time", width(view.interval_ns)), *_LINE)


def line(view: HeapSpans, record: Record) -> Row | None:
    """Since the first reading."""
    if not view.interval_ns:
        return None
    sizes = [bytes_text(record[name]) for name in ("alloc_bytes", "seen_bytes")]
    return (
        clock(record, view.interval_ns),
        sizes[0],
        f"{record['alloc_objects']:,}",
        sizes[1],
        f"{record['windows']:,}",
    )


def summary(view: HeapSpans) -> Iterator[str | Rows]:
    last = view.last
    if last is None:
        return
    if view.interval_ns:
        yield ""
    yield f"{view.source.name}: {view.how()}; ended by: {view.source.end['ended']}"
    yield f"{view.how_much()}, by stack{'' if view.objects else '; ± is the standard error of a share'}:"
    yield ""
    rows = by_functions(last["stacks"])
    if rows:
        sizes = [Column("allocated", 10, rank=int(view.objects)), Column("objects", 14, rank=int(not view.objects))]
        shares = (Column("share", 6, rank=2), *(() if view.objects else (Column("±", 6, rank=3),)))
        heading = (*(sizes[::-1] if view.objects else sizes), *shares, Column("spans", 7, rank=4), _STACK)
        total = sum(each[view.value] for each in rows)
        rows.sort(key=lambda each: -int(each[view.value]))
        yield Rows(heading, [_row(view, each, total) for each in rows[: view.top]])
        if len(rows) > view.top:
            left = sum(each[view.value] for each in rows[view.top :])
            yield f"{f'{left:,} objects' if view.objects else bytes_text(left)} in {more_rows(len(rows), view.top)}"
    else:
        yield "No span was used up within a window: trace for longer (--duration)."
    yield ""
    for item in view.source.header["probes"]["alloc"]["missing"]:
        yield f"missing: {item['name']}: {item['reason']}"
    yield f"cost: {cost_text(last['cost'], view.source.end['duration_ns'])}"


def _row(view: HeapSpans, each: Record, total: int) -> Row:
    numbers = bytes_text(each["alloc_bytes"]), f"{each['alloc_objects']:,}"
    share = f"{100 * each[view.value] / total:.1f}%" if total else "-"
    error = "?" if each["share_error"] is None else f"{100 * each['share_error']:.1f}%"
    stack = in_a_line([one["function"] for one in each["stack"]])
    if view.objects:
        return (*numbers[::-1], share, f"{each['spans']:,}", stack)
    return (*numbers, share, error, f"{each['spans']:,}", stack)

"""`gotrace heap` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows, more_rows
from gotrace.cli.text.stacks import in_a_line
from gotrace.records.heap import by_functions, functions_of
from gotrace.text import bytes_text, duration_text
from gotrace.views.heap import ALLOC, INUSE, Heap, changes, differences
from gotrace.views.view import Record

_LINE = (Column("in use", 10), Column("objects", 12), Column("allocated", 12), Column("objects", 14), Column("cycle", 7))
_STACK = Column("stack", left=True, elastic=24, gap=2)


def columns(view: Heap) -> Sequence[Column]:
    return (Column("time", width(view.interval_ns)), *_LINE)


def line(view: Heap, record: Record) -> Row | None:
    if not view.interval_ns:
        return None
    in_use, allocated = (bytes_text(record[f"{kind}_bytes"]) for kind in ("inuse", "alloc"))
    used, made = (f"{record[f'{kind}_objects']:,}" for kind in ("inuse", "alloc"))
    return (clock(record, view.interval_ns), in_use, used, allocated, made, record["cycle"])


def summary(view: Heap) -> Iterator[str | Rows]:
    last = view.last
    if last is None:
        return
    sampled = f"sampled every {bytes_text(last['rate_bytes'])}"
    when = "as of the GC cycle before the last" if last["published"] else "up to now"
    if view.interval_ns:
        yield ""
        yield f"{view.source.name}: heap profile, {sampled}, {when}; ended by: {view.source.end['ended']}"
        yield from _growth(view)
        return
    told = (
        f": {bytes_text(last['inuse_bytes'])} in use, {bytes_text(last['alloc_bytes'])} allocated since the program started"
    )
    yield f"{view.source.name}: heap profile, {sampled}, {when}{told if last['stacks'] else ''}"
    yield ""
    stacks = by_functions(last["stacks"])
    rows = sorted((each for each in stacks if each[view.value]), key=lambda each: -int(each[view.value]))
    total = sum(each[view.value] for each in rows)
    heading = {"inuse": "in use", "alloc": "allocated"}[view.kind]
    sizes = [Column(heading, 10, rank=int(view.objects)), Column("objects", 12, rank=int(not view.objects))]
    columns = (*(sizes[::-1] if view.objects else sizes), Column("share", 6, rank=2), _STACK)
    if not rows:
        unseen = "No profile published yet: --now includes allocations that no GC cycle has seen."
        yield unseen if view.published else "Nothing sampled yet."
        return
    yield Rows(columns, [_row(view, each, total) for each in rows[: view.top]])
    yield from _more(view, len(rows), sum(each[view.value] for each in rows[view.top :]))


def _more(view: Heap, count: int, left: int) -> Iterator[str]:
    if count > view.top:
        size = f"{left:,} objects" if view.objects else bytes_text(left)
        yield f"{size} in {more_rows(count, view.top)}"


def _row(view: Heap, each: Record, total: int) -> Row:
    share = f"{100 * each[view.value] / total:.1f}%" if total else "-"
    numbers = bytes_text(each[f"{view.kind}_bytes"]), f"{each[f'{view.kind}_objects']:,}"
    return (*(numbers[::-1] if view.objects else numbers), share, _stack(each["stack"]))


def _stack(stack: Sequence[Record]) -> str:
    return in_a_line([each["function"] for each in stack])


def _growth(view: Heap) -> Iterator[str | Rows]:
    assert view.first is not None and view.last is not None
    seconds = (view.last["monotonic_ns"] - view.first["monotonic_ns"]) / 1e9
    if view.last is view.first:
        yield "Only one profile was taken, so there is nothing to compare: shorten --interval."
        return
    if view.last["cycle"] == view.first["cycle"] and view.last["published"]:
        yield "No GC cycle ended in this time, so no new profile was published: --now includes what was allocated since."
        return
    before, after = (by_functions(each["stacks"]) for each in (view.first, view.last))
    rows = changes(before, after, view.value, functions_of)
    what = {"inuse": "more in use", "alloc": "allocated"}[view.kind]
    total = sum(row.last - row.first for row in rows)
    size = f"{total:,} objects" if view.objects else bytes_text(total)
    passed = duration_text(seconds * 1e9)
    when = f"than {passed} before" if view.kind == INUSE else f"in {passed}"
    yield f"{size} {what} {when}, by stack:"
    yield ""
    names = {"at first": 2, "at last": 1, "growth": 0, "per s": 3}
    yield Rows(
        (*(Column(name, 10, rank=rank) for name, rank in names.items()), _STACK),
        [
            (*(_size(view, number) for number in (row.first, row.last, row.last - row.first)),)
            + (_size(view, (row.last - row.first) / seconds) if seconds else "-", _stack(row.stack))
            for row in rows[: view.top]
        ],
    )
    yield from _more(view, len(rows), sum(row.last - row.first for row in rows[view.top :]))


def _size(view: Heap, number: float) -> str:
    return f"{number:,.0f}" if view.objects else bytes_text(number)


def diff(before: Record, after: Record, value: str, top: int) -> Iterator[str | Rows]:
    """What changed from one profile to another; ``value`` is the number of a stack that is compared."""
    objects = value.endswith("objects")
    what = "allocated" if value.startswith(ALLOC) else "in use"
    noun = "objects " if objects else ""
    sizes = [_number(each[value], objects) for each in (before, after)]
    yield f"{sizes[0]} {noun}{what} in A, {sizes[1]} in B ({_signed(after[value] - before[value], objects)})"
    found = differences(by_functions(before["stacks"]), by_functions(after["stacks"]), value, functions_of)
    if not found:
        yield "No stack has changed."
        return
    yield ""
    columns = (Column("A", 10, rank=2), Column("B", 10, rank=1), Column("B - A", 11), _STACK)
    yield Rows(
        columns,
        [
            (
                *(_number(each, objects) for each in (row.first, row.last)),
                _signed(row.last - row.first, objects),
                _stack(row.stack),
            )
            for row in found[:top]
        ],
    )
    if len(found) > top:
        yield more_rows(len(found), top)


def _number(value: int, objects: bool) -> str:
    return f"{value:,}" if objects else bytes_text(value)


def _signed(value: int, objects: bool) -> str:
    return f"{'-' if value < 0 else '+'}{_number(abs(value), objects)}"

"""`gotrace goroutines` for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from gotrace.analysis.goroutines import ON_THEIR_WAY, printed_name
from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows, more_rows
from gotrace.cli.text.stacks import in_a_line
from gotrace.text import count_text, duration_text
from gotrace.views.goroutines import CREATED_BY, LABEL, STACK, Goroutines, Grown, differences, grown, merged
from gotrace.views.view import Record

_LINE = (
    Column("goroutines", 10, gap=2),
    Column("running", 8),
    Column("runnable", 8),
    Column("syscall", 8),
    Column("waiting", 8),
    Column("mostly", 60, left=True, elastic=16, gap=2),
)
_GROUPS = (Column("count", 8), Column("waits", 17, rank=2), Column("state", left=True, gap=2, elastic=12, rank=1))
_NEARLY = 1.1  # what a wait is at most, over what it is at least: then one of them will do
_BUSY = ("running", "runnable", "syscall")


def columns(view: Goroutines) -> Sequence[Column]:
    return (Column("time", width(view.interval_ns)), *_LINE)


def line(view: Goroutines, record: Record) -> Row | None:
    if not view.interval_ns:
        return None
    states = _states(record)
    busy = [states.pop(name, 0) for name in _BUSY]
    waiting = sum(states.values())
    mostly = ", ".join(f"{name} {count:,}" for name, count in states.most_common(3)) or "-"
    numbers = (f"{count:,}" for count in (sum(busy) + waiting, *busy, waiting))
    return (clock(record, view.interval_ns), *numbers, mostly)


def _states(record: Record) -> Counter[str]:
    found = Counter[str]()
    for group in record["groups"]:
        found[group["state"]] += group["count"]
    return found


def summary(view: Goroutines) -> Iterator[str | Rows]:
    last = view.last
    if last is None:
        return
    if view.interval_ns:
        yield ""
        yield from _growth(view)
        return
    own = f", {last['system']:,} of them the runtime's own{'' if view.system else ' (--all shows them)'}"
    took = duration_text(last["took_ns"])
    yield f"{view.source.name}: {count_text(last['count'], 'goroutine')}{own}; nothing was stopped, the dump took {took}"
    yield from _torn(last)
    yield ""
    shown = merged(last["groups"], view.by)
    rows = [(f"{each['count']:,}", _wait(each), _state(each)) for each in shown[: view.top]]
    if view.by in _WHERE:
        name, text = _WHERE[view.by]
        where = Column(name, left=True, elastic=24, gap=2)
        yield Rows((*_GROUPS, where), [(*row, text(each)) for row, each in zip(rows, shown, strict=False)])
    else:
        yield Rows(_GROUPS, rows)
    if not shown:
        yield "None has waited that long." if view.least_ns else "There are no others."
    left = shown[view.top :]
    if left:
        rest = count_text(sum(each["count"] for each in left), "goroutine")
        yield f"{rest} in {more_rows(len(shown), view.top)}"
    yield from _stuck(last)


def _state(group: Record) -> str:
    """With the system call, and its file, if they are in the same."""
    calls = [each["system_call"] for each in group["goroutines"]]
    if not calls or None in calls or len({each["name"] for each in calls}) > 1:
        return str(group["state"])
    files = {each["file"] for each in calls}
    file = f" {files.pop()}" if len(files) == 1 and "" not in files else ""
    return f"{group['state']}: {calls[0]['name']}{file}"


def _wait(group: Record) -> str:
    """The longest, as far as it is known."""
    least, most = group["longest_wait_ns"], group["longest_wait_most_ns"]
    if most is None:
        return "-" if group["state"] in ON_THEIR_WAY else "?"
    if least is None:
        return f"<{duration_text(most)}"
    return f">{duration_text(least)}" if most <= _NEARLY * least else f"{duration_text(least)} - {duration_text(most)}"


def _stack(group: Record) -> str:
    if group["stack"] is None:
        return "changed while it was read" if group["torn"] else "never found on a CPU"
    names = [each["function"] for each in group["stack"] if each["shown"]]
    return in_a_line(names) + (" (sampled)" if group["sampled"] else "")


def _created_by(group: Record) -> str:
    by = group["created_by"]
    return f"{printed_name(by['function'])} {by['file']}:{by['line']}" if by is not None and by["shown"] else "-"


def _labels(group: Record) -> str:
    return ", ".join(f"{key}={text}" for key, text in group["labels"].items()) or "-"


# What else a row has, by what it is of.
_WHERE: dict[str, tuple[str, Callable[[Record], str]]] = {
    STACK: ("stack", _stack),
    LABEL: ("labels", _labels),
    CREATED_BY: ("created by", _created_by),
}


def _torn(record: Record) -> Iterator[str]:
    if record["torn"]:
        yield f"{count_text(record['torn'], 'goroutine')} changed during every read: stack unknown."
    if record["broken"]:
        yield f"{count_text(record['broken'], 'stack')} could not be walked to the root: outer frames are missing."


def _stuck(record: Record) -> Iterator[str]:
    """What can be proved to wait for ever."""
    stuck = [group for group in record["groups"] if group["state"] in _FOR_EVER]
    if stuck:
        yield ""
    for group in stuck:
        yield f"{count_text(group['count'], 'goroutine')} can never continue ({group['state']}): {_stack(group)}"


_FOR_EVER = ("chan receive (nil chan)", "chan send (nil chan)")  # a select without cases is meant


def _growth(view: Goroutines) -> Iterator[str | Rows]:
    assert view.first is not None and view.last is not None
    passed_ns = view.last["monotonic_ns"] - view.first["monotonic_ns"]
    found = grown(view.first, view.last)
    first, last = (sum(_states(each).values()) for each in (view.first, view.last))
    yield (
        f"{view.source.name}: {first:,} goroutines at first, {last:,} {duration_text(passed_ns)} later "
        f"({last - first:+,}); {count_text(view.dumps, 'dump')}, nothing was stopped; ended by: {view.source.end['ended']}"
    )
    if view.dumps == 1:
        yield "Only one dump was taken, so there is nothing to compare: shorten --interval."
        return
    yield from _torn(view.last)
    if not found:
        yield "No stack has gained goroutines."
        return
    yield ""
    yield Rows(_GROWN, [_grown(each, passed_ns / 1e9) for each in found[: view.top]])


_GROWN = (
    *(Column("at first", 8, rank=3), Column("at last", 8, rank=2), Column("growth", 8)),
    *(Column("per min", 8, rank=4), Column("oldest", 17, rank=5)),
    *(Column("state", left=True, gap=2, elastic=12, rank=1), Column("stack", left=True, elastic=24, gap=2)),
)


def _grown(each: Grown, seconds: float) -> Row:
    rate = f"{(each.last - each.first) / seconds * 60:+,.1f}" if seconds else "-"
    numbers = f"{each.first:,}", f"{each.last:,}", f"{each.last - each.first:+,}", rate
    return (*numbers, _wait(each.group), each.group["state"], f"{_stack(each.group)}, created by {_created_by(each.group)}")


def diff(before: Record, after: Record, top: int) -> Iterator[str | Rows]:
    """What changed from one dump to another."""
    first, last = (sum(_states(each).values()) for each in (before, after))
    yield f"{first:,} goroutines in A, {last:,} in B ({last - first:+,})"
    found = differences(before, after)
    if not found:
        yield "No stack has changed."
        return
    yield ""
    yield Rows(_DIFFERENT, [_different(each) for each in found[:top]])
    if len(found) > top:
        yield more_rows(len(found), top)


_DIFFERENT = (
    *(Column("A", 8, rank=3), Column("B", 8, rank=2), Column("B - A", 8)),
    *(Column("state", left=True, gap=2, elastic=12, rank=1), Column("stack", left=True, elastic=24, gap=2)),
)


def _different(each: Grown) -> Row:
    where = f"{_stack(each.group)}, created by {_created_by(each.group)}"
    return (f"{each.first:,}", f"{each.last:,}", f"{each.last - each.first:+,}", each.group["state"], where)

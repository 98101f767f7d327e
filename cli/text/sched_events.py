"""What `gotrace sched --events` adds, for people."""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.cli.text.clock import clock
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import count_text, duration_text
from gotrace.views.sched_events import IDLE, SchedulerEvents
from gotrace.views.view import Record

TELLS_LOST = True

_WAITS = (
    Column("runnable without a CPU", 22, left=True),
    Column("count", 10),
    *(Column(name, 9, rank=rank) for name, rank in (("p50", 0), ("p90", 2), ("p99", 0), ("p99.9", 3), ("max", 0))),
)
_LONGEST = (
    Column("ended at", 12),
    Column("thread", 8),
    Column("CPU", 4, rank=2),
    Column("waited", 9),
    Column("CPU held by", left=True, elastic=16, gap=2),
)
_MOST_HOLDERS, _MOST_NAMED = 6, 4
_LITTLE = 0.05  # of a wait: what is less need not be known


def line(view: SchedulerEvents, record: Record) -> Row | None:
    return None


def summary(view: SchedulerEvents) -> Iterator[str | Rows]:
    found = view.result
    waits, seconds = found["waits"], found["length_ns"] / 1e9
    yield ""
    yield f"Events of {duration_text(found['length_ns'])}:"
    yield ""
    names = ("p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "max_ns")
    rows: list[Row] = []
    for name, of in (("after it was woken", waits["woken"]), ("after it was preempted", waits["preempted"])):
        rows.append((name, f"{of['count']:,}", *(duration_text(of[each]) if each in of else "-" for each in names)))
    yield Rows(_WAITS, rows)
    throttled = ""
    if waits["throttled"]:
        held = duration_text(waits["throttled_ns"] / seconds)
        throttled = f", {held} of it due to a quota ({count_text(waits['throttled'], 'wait')})"
    yield f"Threads waited {duration_text(waits['sum_ns'] / seconds)} per second for a CPU{throttled}."
    holders = found["holders"][:_MOST_HOLDERS]
    if holders:
        shown = ", ".join(f"{_holder(each)} {duration_text(each['held_ns'])}" for each in holders)
        known = sum(each["held_ns"] for each in found["holders"]) + waits["throttled_ns"]
        rest = f", ? {duration_text(waits['sum_ns'] - known)}" if waits["sum_ns"] > known else ""
        yield f"Held the CPU they waited for: {shown}{rest}."
    if found["longest"]:
        yield ""
        yield Rows(_LONGEST, [_long(each) for each in found["longest"]])
    yield ""
    yield from _steals(found["steals"], found["missing"], seconds)
    for what, reason in found["missing"].items():
        yield f"Not available: {what} ({reason})."
    yield f"{count_text(found['lost'], 'event')} lost."


def _holder(each: Record) -> str:
    if each["name"] == IDLE:
        return "nothing (CPU idle)"
    return "its own threads" if each["own"] else each["name"]


def _long(each: Record) -> Row:
    held = [f"{_holder(one)} {duration_text(one['held_ns'])}" for one in each["holders"][:_MOST_NAMED]]
    if each["unknown_ns"] > _LITTLE * each["wait_ns"]:
        held.append(f"? {duration_text(each['unknown_ns'])}")
    text = "throttled by a CPU quota" if each["throttled"] else ", ".join(held) or "?"
    return (clock(each, 1), each["tid"], each["cpu"], duration_text(each["wait_ns"]), text)


def _steals(steals: Record, missing: Record, seconds: float) -> Iterator[str]:
    if "steals" in missing:
        return
    if not steals["attempts"]:
        yield "No P tried to steal work."
        return
    yield (
        f"Ps tried to steal work {steals['attempts'] / seconds:,.1f} times per second, "
        f"{steals['failure_rate']:.1%} of them in vain, and took {steals['goroutines'] / seconds:,.1f} goroutines per "
        f"second."
    )
    most = sorted(steals["by"], key=lambda each: -each["goroutines"])[:_MOST_HOLDERS]
    if most:
        yield "Stolen, from P to P: " + ", ".join(f"{e['victim']} to {e['thief']} {e['goroutines']:,}" for e in most) + "."

"""`gotrace top`, in words: its columns, and what is said of one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import bytes_text, count_text, duration_text, printable

if TYPE_CHECKING:
    from gotrace.agent.remote import Details, Interval, Statistics
    from gotrace.agent.remote import Row as Process

NONE, UNKNOWN = "-", "?"
_BARS = "▁▂▃▄▅▆▇█"
_LEAST_NAME, _GAP = 12, 2
_A_LINE = 8  # of the columns, where there is one process


@dataclass(frozen=True)
class Field:
    """A column: ``value`` is what is sorted by (None: unknown, or there is none), ``rank`` decides which goes first."""

    name: str
    title: str
    width: int
    value: Callable[[Process], float | None]
    text: Callable[[float], str]
    rank: int
    none: str = UNKNOWN

    def cell(self, process: Process) -> str:
        value = self.value(process)
        return self.none if value is None else self.text(value)


def _of(value: Callable[[Interval], float | None]) -> Callable[[Process], float | None]:
    return lambda process: None if process.interval is None else value(process.interval)


def _rate(value: Callable[[Interval], float | None]) -> Callable[[Process], float | None]:
    """A second."""

    def rate(interval: Interval) -> float | None:
        total = value(interval)
        return None if total is None or interval.seconds <= 0 else total / interval.seconds

    return _of(rate)


def _percent(share: float) -> str:
    """Never wider than six characters, up to 99 CPUs."""
    return "<0.01%" if 0 < share < 0.0001 else f"{100 * share:.{2 if share < 0.0995 else 1 if share < 0.9995 else 0}f}%"


FIELDS = (
    Field("max", "longest pause", 8, _of(lambda each: each.max_ns), duration_text, 0, NONE),
    Field("p99", "p99 of pauses", 8, _of(lambda each: each.p99_ns), duration_text, 6, NONE),
    Field("p50", "median pause", 8, _of(lambda each: each.p50_ns), duration_text, 11, NONE),
    Field("paused", "share of time paused", 6, _rate(lambda each: each.paused_ns / 1e9), _percent, 1),
    Field("GC/s", "GC cycles per second", 6, _rate(lambda each: each.cycles), "{:.1f}".format, 2),
    Field("marking", "share of time marking", 7, _rate(lambda each: each.marking_ns / 1e9), _percent, 5),
    Field("MAF", "RSS / live heap", 5, lambda each: each.amplification, "{:.2f}".format, 4),
    Field("RSS", "RSS", 9, lambda each: each.rss_bytes or None, bytes_text, 3),
    Field("live", "live heap", 9, lambda each: each.heap_live_bytes, bytes_text, 7),
    Field("goal", "heap goal", 9, lambda each: each.heap_goal_bytes, bytes_text, 12),
    Field("CPU", "CPU", 6, _rate(lambda each: each.cpu_s), _percent, 3),
    Field("Ps", "GOMAXPROCS", 3, lambda each: each.gomaxprocs, "{:.0f}".format, 10),
    Field(
        "longest",
        "longest pause since tracing began",
        8,
        lambda each: each.longest_pause_ns or None,
        duration_text,
        8,
        NONE,
    ),
    Field("cycles", "collections", 8, lambda each: each.cycles, "{:,.0f}".format, 9),
    Field("lost", "events lost", 5, lambda each: each.lost, "{:,.0f}".format, 13),
    Field("cost", "cost of tracing", 8, lambda each: _cost(each), _percent, 14),
)
SORTS = [each for each in FIELDS if each.name in ("max", "paused", "marking", "GC/s", "MAF", "RSS", "CPU")]


def _cost(process: Process) -> float | None:
    return process.cost_ns / 1e9 / process.traced_s if process.traced_s else None


def shown(room: int) -> tuple[list[Field], int]:
    """The columns that there is room for beside a pid and a name, and the width of the name."""
    kept = list(FIELDS)
    beside = 7 + 3 * _GAP

    def width() -> int:
        return sum(each.width + _GAP for each in kept) + beside

    while kept and width() + _LEAST_NAME > room:
        kept.remove(max(kept, key=lambda each: each.rank))
    return kept, max(1, min(40, room - width()))


def ordered(rows: Iterable[Process], by: Field) -> list[Process]:
    """The greatest first, the unknown last."""

    def key(process: Process) -> tuple[float, str, int]:
        value = by.value(process)
        return (float("inf") if value is None else -value), process.name, process.pid

    return sorted(rows, key=key)


def fits(process: Process, wanted: str) -> bool:
    """Whether it is meant by a filter: a part of its name or path, or its pid."""
    wanted = wanted.lower()
    return wanted in process.name.lower() or wanted in process.exe.lower() or wanted == str(process.pid)


def name_of(process: Process) -> str:
    """Harmless on a terminal, whoever chose it, and an agent elsewhere may not have seen to that."""
    return printable(process.name or process.exe.rpartition("/")[2])


def untraced(rows: Sequence[Process], most: int) -> list[str]:
    """A line for each that is not traced, and why; what is beyond ``most`` is counted."""
    lines = [
        f"{each.pid:>7}  {name_of(each)}: {printable(each.state)}{f' ({printable(each.reason)})' if each.reason else ''}"
        for each in rows
    ]
    return lines if len(lines) <= most else [*lines[: most - 1], f"and {count_text(len(lines) - most + 1, 'more')[:-1]}"]


def spark(values: Sequence[float]) -> str:
    """A bar for each value, from 0 to the greatest."""
    most = max(values, default=0)
    return "".join(_BARS[min(7, int(8 * max(0, each) / most))] for each in values) if most else ""


def details(process: Details) -> Iterator[str | Rows]:
    """Everything about one process, as parts for `gotrace.cli.text.layout.rendered`."""
    yield f"{printable(process.exe)}, pid {process.pid}, {printable(process.go_version) or 'Go version unknown'}"
    yield f"traced for {duration_text(process.traced_s * 1e9)}"
    for fields in (FIELDS[:_A_LINE], FIELDS[_A_LINE:]):
        yield ""
        columns = [Column(each.name, width=each.width, rank=each.rank, gap=2) for each in fields]
        yield Rows(columns, [[each.cell(process) for each in fields]])
    yield ""
    yield f"Pauses {_since(process)}; percentiles accurate to 2.2%"
    yield _table("reason", [(each.reason, each.part, each) for each in process.reasons])
    if process.phases:
        yield ""
        yield _table("phase", [(each.phase, "", each) for each in process.phases])
    yield ""
    if process.heap:
        last = process.heap[-1]
        sizes = (("start", last.start), ("end", last.end), ("live", last.live), ("goal", last.goal))
        yield f"Heap, last {count_text(len(process.heap), 'cycle')}"
        courses = [spark([getattr(each, name) or 0 for each in process.heap]) for name, _ in sizes]
        yield Rows(
            (Column("", left=True), Column("last"), Column("", left=True, elastic=10, gap=2)),
            [(name, _size(size), course) for (name, size), course in zip(sizes, courses, strict=True)],
        )
        rss = bytes_text(process.rss_bytes) if process.rss_bytes else UNKNOWN
        maf = UNKNOWN if process.amplification is None else f"{process.amplification:.2f}"
        yield f"RSS {rss}, {maf} times the live heap"
        yield ""
    yield "Longest pauses"
    yield Rows(
        (Column("total"), Column("when", left=True, gap=2), Column("reason", left=True, gap=2)),
        [(duration_text(each.total_ns), _clock(each.time_ns), printable(each.reason)) for each in process.longest],
    )


def _since(process: Details) -> str:
    """What the numbers below cover: an agent begins to keep them when it is first asked."""
    if process.details_s is None:
        return "since this page was first opened"
    if process.details_s > process.traced_s - 1:
        return "since tracing began"
    return f"since this page was first opened, {duration_text(process.details_s * 1e9)} ago"


def _table(what: str, rows: Sequence[tuple[str, str, Statistics]]) -> Rows:
    def cells(name: str, part: str, each: Statistics) -> Row:
        times = (each.p50_ns, each.p90_ns, each.p99_ns, each.max_ns, each.sum_ns)
        return (printable(name), printable(part), f"{each.count:,}", *map(duration_text, times))

    heads = ("count", "p50", "p90", "p99", "max", "sum")
    columns = (Column(what, left=True, elastic=12), Column("part" if what == "reason" else "", left=True, gap=2))
    return Rows((*columns, *(Column(head, gap=2) for head in heads)), [cells(*row) for row in rows])


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else bytes_text(size)


def _clock(ns: int) -> str:
    try:
        return f"{time.strftime('%H:%M:%S', time.localtime(ns // 10**9))}.{ns // 10**6 % 1000:03}"
    except (OverflowError, OSError, ValueError):
        return UNKNOWN

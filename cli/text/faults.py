"""`gotrace mem --faults` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.analysis.fault_table import FaultTable
from gotrace.analysis.gc_summary import percentiles
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.phases import PHASES
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import count_text, duration_text, printable
from gotrace.views.faults import Faults
from gotrace.views.view import Record


def columns(_: Faults) -> Sequence[Column]:
    return ()


def line(_: Faults, __: Record) -> Row | None:
    return None


def summary(view: Faults) -> Iterator[str | Rows]:
    assert view.table is not None
    yield from lines(view.table, view.source.name, view.watched_ns)
    if view.exited:
        yield "The program exited before its mappings were read: faults cannot be attributed to parts of memory."
    elif view.in_progress is None:
        yield "Page faults still in progress: ?"
    for each in view.in_progress or ():
        where = f"{printable(each['part'])}, {each['address']:#x}"
        yield f"NOT ENDED: thread {each['tid']} has been in a page fault for {duration_text(each['lasted_ns'])} ({where})."


def lines(table: FaultTable, name: str, watched_ns: int) -> Iterator[str | Rows]:
    """The result as lines of text."""
    yield ""
    yield f"{name}: {count_text(table.total, 'page fault')} in {duration_text(watched_ns)}"
    yield ""
    rows: list[list[str]] = []
    for part, counts in table.counts.items():
        rows.append([part, *(f"{counts[phase]:,}" for phase in PHASES), f"{sum(counts.values()):,}"])
    sums = {phase: sum(counts[phase] for counts in table.counts.values()) for phase in PHASES}
    rows.append(["all", *(f"{sums[phase]:,}" for phase in PHASES), f"{table.total:,}"])
    lengths = [*((sums[phase], table.lengths_ns[phase]) for phase in PHASES), (table.total, watched_ns)]
    rows.append(["per second of phase", *(f"{count * 1e9 / ns:,.0f}" if ns else "-" for count, ns in lengths)])
    for title, histograms in (("minor", table.minor), ("major", table.major)):
        if any(histograms[phase].count for phase in PHASES):
            both = Histogram()
            for phase in PHASES:
                both.add(histograms[phase])
            shown = [*(histograms[phase] for phase in PHASES), both]
            for percentile in (50.0, 99.0):
                took = [duration_text(percentiles(each, (percentile,))[0]) if each.count else "-" for each in shown]
                rows.append([f"{title}, p{percentile:g}", *took])
    yield Rows(
        [Column("", 26, left=True), *(Column(phase, 16, rank=1) for phase in PHASES), Column("all", 10)], rows, parts=True
    )

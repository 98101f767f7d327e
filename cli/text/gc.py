"""`gotrace gc` for people: a line per interval while it runs, and the summary at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.advice.finding import lines
from gotrace.analysis.causes import UNKNOWN, class_sums, sentence
from gotrace.analysis.gc_summary import PERCENTILES, GcSummary, percentiles
from gotrace.cli.text.clock import time_of_day, width
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.cli.text.stacks import in_a_line
from gotrace.export.gc_words import (
    ALLOCATED_HEADS,
    allocated,
    cycles,
    heap_text,
    not_ended,
    not_seen,
    nothing_ended,
    of_a_slice,
    over_ns,
    pacing,
    rows,
    trust,
    unknown_share,
    without_evidence,
)
from gotrace.records.gc import INTERVAL, code_text
from gotrace.text import bytes_text, duration_text, printable
from gotrace.views.gc import Gc
from gotrace.views.view import Record

HEADING_EVERY = 20
# Of a pause: a part of it whose code is told.
_LARGE = 0.1
_MOST_CALLERS = 10
TELLS_LOST = True
_COLUMNS = (
    Column("GC/s", 6, rank=2, gap=2),
    Column("pauses", 6, gap=2),
    Column("p50", 8, rank=1, gap=2),
    Column("p99", 8, gap=2),
    Column("max", 8, gap=2),
    Column("longest", 22, rank=4, left=True, elastic=20, gap=2),
    Column("heap live", 9, rank=1),
    Column("goal", 9, rank=3, gap=2),
    Column("lost", 5, gap=2),
)


def columns(view: Gc) -> Sequence[Column]:
    return (Column("time", width(view.interval_ns)), *_COLUMNS)


def line(view: Gc, record: Record) -> Row | None:
    if record["type"] != INTERVAL:
        return None
    summary: GcSummary = record["summary"]
    length_ns, ended_ns = record["length_ns"], record["begin_ns"] + record["length_ns"] + view.source.wall_offset_ns
    pauses = summary.all_pauses()
    longest = max(summary.pauses.items(), key=lambda item: item[1]["total"].max, default=("-", {}))[0]
    times = ["-"] * 3
    if pauses.count:
        times = [duration_text(value) for value in (*percentiles(pauses, (50.0, 99.0)), pauses.max)]
    standing = record["in_stop"]
    if standing is not None and standing["seen_ns"] - standing["since_ns"] > pauses.max:
        times[-1], longest = f">{duration_text(standing['seen_ns'] - standing['since_ns'])}", "stop still in progress"
    heap = [heap_text(summary.last_heap[name]) if summary.last_heap else "-" for name in ("live", "goal")]
    over = over_ns(view.source.header, length_ns)
    rate = "-" if over is None else f"{summary.cycles * 1e9 / over:.1f}"
    # The last one is shorter than the others: its rate is of its own length, which stands in place of the time.
    partial = length_ns < view.interval_ns
    clock = f"+{duration_text(length_ns)}" if partial else time_of_day(ended_ns, view.interval_ns)
    return (clock, rate, pauses.count, *times, longest[:22], *heap, record["lost"])


_SUMMARY = (
    Column("stop reason / GC phase", left=True, elastic=12),
    Column("part", left=True, gap=2),
    Column("count", rank=1, gap=2),
    Column("min", rank=6, gap=2),
    *(Column(f"p{each:g}", rank={50.0: 3, 99.0: 2}.get(each, 7), gap=2) for each in PERCENTILES),
    Column("max", gap=2),
    Column("total", rank=5, gap=2),
    Column("share", rank=4, gap=2),
)


def summary(view: Gc) -> Iterator[str | Rows]:
    total, about, header = view.total, view.about, view.source.header
    over = over_ns(header, about["duration_ns"])
    yield ""
    shown, previous = [], ""
    for reason, *cells in rows(total, over, view.assisted):
        shown.append((reason if reason != previous else "", *cells))
        previous = reason
    yield Rows(_SUMMARY, shown, ruled=True, strong="total") if shown else nothing_ended(view.in_progress)
    for told in not_ended(view.in_progress, view.explainer is not None):
        if told.startswith("NOT"):
            yield ""
        yield told
    for told in not_seen(about["not_seen"]):
        yield ""
        yield told
    yield ""
    if told := cycles(total, over):
        yield told
        yield from pacing(total.pacing)
    yield from _assists(view)
    yield from of_a_slice(header, about["duration_ns"])
    yield from trust(about, header)
    if view.explainer is not None:
        yield from _explanations(view)
    if view.advice is not None:
        yield ""
        yield from lines(view.advice)


def _explanations(view: Gc) -> Iterator[str | Rows]:
    """The longest pauses, each with its parts and a sentence."""
    told, explainer = view.told, view.explainer
    assert explainer is not None
    yield f"\n{_longest(len(told))} and what the world waited for:" if told else "\nNo pause to explain."
    for number, each in enumerate(told, 1):
        stop = each.stop
        clock = time_of_day(stop.begin + view.source.wall_offset_ns, interval_ns=1)
        reported = int(stop.pause["total_ns"])
        until = (
            f" until running again (the runtime reports {duration_text(reported)})" if stop.length > 1.1 * reported else ""
        )
        headline = f"{duration_text(stop.length)} {view.reasons[stop.pause['reason']]}{until}, at {clock}: {each.cause}"
        yield f"\n{number:>3}. {headline}\n     {printable(sentence(each, explainer))}"
        if asked_by := explainer.asked_by(stop.asked_stack):
            yield f"     requested by {code_text(asked_by)}"
        for part, pieces in (("stopping", each.stopping), ("stopped", each.stopped), ("restart", each.restart)):
            sums = sorted(class_sums(pieces).items(), key=lambda item: -item[1])
            length = duration_text(sum(ns for _, ns in sums))
            code = {kind: names for kind, names in explainer.code_in(pieces, stop).items() if kind != each.cause}
            causes = [
                f"{kind} {duration_text(ns)}"
                + (f" ({code_text(code[kind])})" if kind in code and ns > _LARGE * stop.length else "")
                for kind, ns in sums
            ]
            yield f"     {part:<9} {length:>8}  {', '.join(causes)}".rstrip()
        if each.run_again:
            tid, after = each.run_again[0]
            count = len(each.run_again)
            woken = f"the last of {count} threads" if count > 1 else "the thread"
            yield f"     {woken} woken by the restart ran {duration_text(after)} later ({tid})"
    callers = view.callers if any(caller["code"] for caller in view.callers or ()) else None
    if callers:
        yield "\nWho requested the pauses:"
    for caller in (callers or [])[:_MOST_CALLERS]:
        yield f"{caller['count']:>6}  {caller['reason']}: {code_text(caller['code']) or '?'}"
    if callers and len(callers) > _MOST_CALLERS:
        yield f"        and {len(callers) - _MOST_CALLERS} others"
    yield from _allocated(view)
    if told:
        total = sum(each.stop.length for each in told)
        unknown = sum(each.classes().get(UNKNOWN, 0) for each in told)
        yield f"\n{unknown_share(unknown, total)}"
    if explainer.without_evidence:
        yield without_evidence(explainer.without_evidence)


_ALLOCATED = tuple(
    Column(head, rank=rank, left=head == "code", elastic=24 if head == "code" else 0, gap=2)
    for head, rank in zip(ALLOCATED_HEADS, (0, 1, 2, 0), strict=True)
)


def _allocated(view: Gc) -> Iterator[str | Rows]:
    told, found = allocated(view.allocated, view.total.cycles, in_a_line)
    if told:
        yield f"\n{told}{':' if found else '.'}"
    if found and view.allocated is not None:
        yield Rows(_ALLOCATED, found)
        if (left := view.allocated["bytes"] - sum(each["bytes"] for each in view.allocated["by"][: len(found)])) > 0:
            yield f"{bytes_text(left)} by other code."


def _assists(view: Gc) -> Iterator[str]:
    """The goroutine that a mark assist held longest."""
    assists = view.assisted
    if assists is None or any(item["name"] == "mark assists" for item in view.source.header["probes"]["assist"]["missing"]):
        return
    if assists.longest is None:
        yield "assists: no goroutine was held up by a mark assist"
        return
    begin, end, parked, works, goid = assists.longest.tolist()
    who = f"goroutine {goid}" if goid else "a goroutine"
    did = ("marked once" if works == 1 else f"marked {works} times" if works else "did not mark") + (
        f" and was parked for {duration_text(parked)}" if parked else ""
    )
    before = f"; {assists.begun_before} had begun before" if assists.begun_before else ""
    clock = time_of_day(begin + view.source.wall_offset_ns, interval_ns=1)
    yield f"assists: the longest held up {who} for {duration_text(end - begin)}, from {clock}: it {did}{before}"


def _longest(count: int) -> str:
    return f"The {count} longest pauses" if count > 1 else "The longest pause"

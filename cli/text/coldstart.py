"""What `gotrace coldstart` prints for people: the rows of one start with bars, or of many the parts with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from gotrace.advice.finding import lines
from gotrace.analysis import timeline
from gotrace.analysis.coldstart import ITSELF
from gotrace.analysis.gc_summary import percentiles
from gotrace.analysis.start_summary import ENOUGH, StartSummary, summaries
from gotrace.analysis.timeline import Row, Start, folded, merged, package_inits, places, starter_text
from gotrace.cli.text import hot_zones
from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.run import starts
from gotrace.run.files import Sink, complain_of, created
from gotrace.run.starts import Result, division
from gotrace.text import bytes_text, count_text, duration_text, growth_text, printable

if TYPE_CHECKING:
    from gotrace.cli.outputs import Wanted

_LEAST_SHARE = 0.005  # a shorter row is one of "N shorter"
_MUCH = 0.2  # of a start, that it waited for a CPU
_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_MOST_NAMED = 3
NAME = Column("", 38, left=True, elastic=22, keep_end=True)  # the end of a name says more than its beginning
_ONE = (
    NAME,
    Column("start", 9, rank=2),
    Column("duration", 9),
    Column("share", 6),
    Column("on-CPU", 9, rank=3),
    Column("runnable", 9, rank=4),
    Column("CPU quota", 9, rank=4),
    Column("blocked", 9, rank=4),
    Column("minor", 6, rank=5),
    Column("major", 5, rank=5),
    Column("pages", 6, rank=5),
    Column("heap", 9, rank=6),
    Column("", _BAR, rank=1, left=True),
    Column("", rank=7, left=True, elastic=16, gap=2),
)
_MANY = (
    NAME,
    Column("median", 9),
    Column("95 % interval", 21, rank=2),
    Column("p90", 9, rank=3),
    Column("p99", 9, rank=3),
    Column("starts", 6, rank=4),
    Column("CPU quota", 9, rank=6),
    Column("major", 5, rank=5),
    Column("pages", 6, rank=5),
    Column("", _BAR, rank=1, left=True, gap=2),
)


@dataclass(frozen=True)
class Shown:
    """How to show the table."""

    everything: bool = False
    longest_first: bool = False


def write(result: Result, wanted: Wanted, shown: Shown, screen: TextIO) -> None:
    """The starts to the screen and to every file but the recording; a table goes to ``screen``."""
    if wanted.screen:
        Table(Sink.screen(screen)).print(table(result, shown))
    for path, format_ in wanted.files:
        if format_ == "table":
            sink = Sink.created(path, wanted.force)
            Table(sink).print(table(result, shown))
            sink.close()
            complain_of(sink)
        elif format_ != "gotrace":
            with created(path, wanted.force) as file:
                starts.write(result, file, format_)


def table(result: Result, shown: Shown) -> Iterator[str | Rows]:
    """The waterfall of one start, or what many have in common."""
    found = summaries(result.starts)
    if len(found) > 1:
        runs = 1 + max(run for run, _ in places(result.starts))
        yield ""
        yield f"{result.title}: {len(result.starts)} starts in {count_text(runs, 'run')}"
    for place, summary in enumerate(found):
        which = result.title if len(found) == 1 else f"Start {place + 1} of {'the' if runs == 1 else 'a'} run"
        those = [result.starts[number] for number in summary.numbers]
        yield ""
        if len(those) == 1:
            (start,) = those
            started = f"started {starter_text(start)}"
            took = f"{duration_text(start.whole_ns)} from {hot_zones.begin(start)} {until(start)}"
            yield f"{which}, pid {start.pid}, {started}: {took}"
            yield ""
            yield from one_start(start, shown.everything, shown.longest_first)
        else:
            ends = ", ".join(f"{count} {end}" for end, count in _counted(map(until, those)))
            starters = [f"{count} started {whom}" for whom, count in _counted(map(_starter, those))]
            begins = " or ".join(dict.fromkeys(map(hot_zones.begin, those)))
            yield f"{which}: {len(those)} starts from {begins} ({ends}; {', '.join(starters)})"
            yield ""
            yield from many_starts(result.starts, summary, shown.everything)
        if any(start.container for start in those):
            yield ""
            yield from hot_zones.table(those, summary)
    if hint := division(result):
        yield hint
    yield from ending(result.about)
    if result.advice is not None:
        yield ""
        yield from lines(result.advice)


def until(start: Start) -> str:
    """What a start led to."""
    return "until it re-executed itself" if start.ended == ITSELF else f"to {printable(start.ended)}"


def _starter(start: Start) -> str:
    """As `starter_text`, but for the number, which is another in each run."""
    return starter_text(start).partition(" (pid")[0]


def _counted(names: Iterator[str]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return sorted(found.items(), key=lambda item: -item[1])


def one_start(start: Start, everything: bool, longest_first: bool) -> Iterator[str | Rows]:
    """The waterfall of one start as lines; ``longest_first`` sorts the parts of each stage by duration."""
    total = max(1, start.whole_ns)
    shown = _rows(start, everything, longest_first)
    rows = [_cells(row, start, total) for row in shown]
    before = sum(row.stage == timeline.CONTAINER for row in shown)
    rows[before:before] = hot_zones.unknown(start, len(_ONE))
    if start.unattributed_ns:
        took, share = duration_text(start.unattributed_ns), f"{start.unattributed_ns / total:.1%}"
        rows.append((timeline.UNATTRIBUTED, "-", took, share, *["?"] * (len(_ONE) - 6), "", ""))
    yield Rows(_ONE, rows)
    yield ""
    yield from _sentences(start)


def _rows(start: Start, everything: bool, longest_first: bool) -> list[Row]:
    rows = merged(start) if everything else folded(start)
    if not longest_first:
        return rows
    groups: list[list[Row]] = []
    for row in rows:
        if row.depth < 2 or not groups:
            groups.append([])
        groups[-1].append(row)
    order = {stage: number for number, stage in enumerate(timeline.STAGES)}
    groups.sort(key=lambda group: (order[group[0].stage], group[0].depth, -group[0].duration_ns))
    return [row for group in groups for row in group]


def _cells(row: Row, start: Start, total: int) -> tuple[str, ...]:
    counts = [f"{count:,}" for count in (row.minor_faults, row.major_faults, row.pages_read)]
    states = (row.on_cpu_ns, row.runnable_ns, row.throttled_ns, row.blocked_ns)
    waits = ["?" if ns is None else duration_text(ns) for ns in states]
    outside = row.stage == timeline.BEFORE  # of which nothing is part of the total
    begin_ns = row.begin_ns + start.asked_ns
    return (
        row_name(row.name or row.stage, row.depth),
        duration_text(row.begin_ns),
        duration_text(row.duration_ns),
        "-" if outside else f"{row.duration_ns / total:.1%}",
        *([*waits, *counts] if row.divided else ["?"] * (len(waits) + len(counts))),
        growth_text(row.heap_bytes, timeline.HEAP_KNOWN_FROM),
        "" if outside else bar(begin_ns / total, row.duration_ns / total),
        printable(row.detail),
    )


def bar(begin: float, share: float) -> str:
    """The row's place in the start; even the shortest is visible."""
    first = min(int(begin * _BAR), _BAR - 1)
    eighths = min(max(1, round(share * _BAR * 8)), (_BAR - first) * 8)
    return " " * first + "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def row_name(name: str, depth: int) -> str:
    """The first column: a name, indented."""
    return "  " * depth + printable(name)


def _sentences(start: Start) -> Iterator[str]:
    yield from hot_zones.sentences(start)
    total = max(1, start.total_ns)
    going_on = timeline.under_way(start)
    inits = sorted((row for row in package_inits(start) if row not in going_on), key=lambda row: -row.duration_ns)
    if inits:
        named = ", ".join(f"{printable(row.name)} {duration_text(row.duration_ns)}" for row in inits[:_MOST_NAMED])
        whole = sum(row.duration_ns for row in inits)
        packages = count_text(len(inits), "package")
        yield f"{packages} initialized in {duration_text(whole)} ({whole / total:.0%}). Slowest: {named}."
    if going_on:
        what = going_on[-1]
        yield f"{printable(what.name)} was still running after {duration_text(what.duration_ns)}."
    if throttled := timeline.throttled_ns(start):
        yield f"Its cgroup's CPU quota throttled it for {duration_text(throttled)} ({throttled / total:.0%})."
    if (runnable := timeline.runnable_ns(start)) is not None:
        yield from waited([runnable], total)
    if all(row.stage != timeline.UNDIVIDED for row in start.rows):
        yield gc_sentence(start)
    if start.listen_ns is not None:
        ready = "" if start.ready_ns is None else f"; first accept at {duration_text(start.ready_ns)}"
        yield f"First listen at {duration_text(start.listen_ns)}{ready}."
    yield from (printable(note) for note in start.notes)


def waited(runnable: Sequence[int], total: float) -> Iterator[str]:
    """How long starts waited for a CPU, where it is much of their time, ``total``."""
    took = statistics.median(runnable) if runnable else 0
    if took >= _MUCH * total:
        which = "It" if len(runnable) == 1 else "The median start"
        yield f"{which} was runnable for {duration_text(took)} ({took / total:.0%}): the CPUs were busy with other threads."


def gc_sentence(start: Start) -> str:
    """When the first GC ran, or that there was none."""
    if start.gc is None:
        return f"No GC began before the end ({printable(start.ended)})."
    gc = start.gc
    where = next((row for row in reversed(start.rows) if row.depth == 1 and row.begin_ns <= gc.asked_ns), None)
    during = f" during {printable(where.name if where.stage == timeline.MAIN else where.stage)}" if where else ""
    heap = f", {bytes_text(gc.heap_bytes)} live" if gc.heap_bytes else ""
    begun = f"First GC at {duration_text(gc.begin_ns)}{during} (trigger: {gc.trigger}{heap})"
    if gc.end_ns is None:
        return f"{begun}; it was still running at the end."
    pauses = f", pauses {' and '.join(map(duration_text, gc.pauses_ns))}" if gc.pauses_ns else ""
    return f"{begun}, took {duration_text(gc.end_ns - gc.begin_ns)}{pauses}."


def many_starts(starts: Sequence[Start], found: StartSummary, everything: bool) -> Iterator[str | Rows]:
    """The parts of all starts in one place: medians with 95 % intervals, p90, p99; then the outliers."""
    median = max(1.0, found.parts[0].median)
    hidden, rows = 0, []
    for part in found.parts:
        if part.depth and not everything and part.median < _LEAST_SHARE * median:
            hidden += 1
            continue
        p90, p99 = percentiles(part.histogram, (90.0, 99.0))
        interval = hot_zones.interval(part.count, part.low, part.high)
        quota = "?" if part.throttled is None else duration_text(part.throttled)
        counts = [f"{count:g}" for count in (part.major_faults, part.pages_read)]
        counts = ["?"] * len(counts) if part.stage == timeline.CONTAINER else counts  # nobody counts them
        times = (duration_text(part.median), interval, duration_text(p90), duration_text(p99))
        name = row_name(part.name or part.stage, part.depth)
        rows.append((name, *times, part.count, quota, *counts, "█" * round(part.median / median * _BAR)))
    yield Rows(_MANY, rows)
    if hidden:
        yield f"  ({count_text(hidden, 'row')} shorter than {_LEAST_SHARE:.1%} of the total; --all shows them)"
    yield ""
    if found.parts[0].count < ENOUGH:
        yield f"A 95 % interval of a median needs {ENOUGH} starts: -n {ENOUGH} or more."
    if found.slow_first:
        yield (
            f"The first start was slow: {duration_text(starts[found.numbers[0]].whole_ns)}, {found.slow_first:.1f} times "
            "the median of the others. It is included above; --warmup 1 excludes it."
        )
    those = [starts[number] for number in found.numbers]
    yield from waited([runnable for each in those if (runnable := timeline.runnable_ns(each)) is not None], median)
    for outlier in found.outliers:
        yield (
            f"Start {outlier.number + 1} took {duration_text(outlier.total_ns)}: {duration_text(outlier.excess_ns)} more "
            f"than usual in {printable(outlier.name)} ({outlier.stage})."
        )


def ending(about: dict[str, Any]) -> Iterator[str]:
    """What tracing cost, and what was lost."""
    cost = about["cost_per_start"]
    install, hits = duration_text(cost["install_ns"]), duration_text(cost["hits_ns"])
    # A copy of the program has no probes of its own.
    count = count_text(cost["hits"], "hit") if cost["hits"] else f"{count_text(cost['kernel_hits'], 'hit')} in the kernel"
    yield (
        f"Tracing added about {duration_text(cost['install_ns'] + cost['hits_ns'])} to each start: "
        f"{count_text(cost['probes'], 'probe')} set ({install}, in exec), {count} ({hits})."
    )
    if about["lost"]:
        yield f"{count_text(about['lost'], 'event')} LOST: the rows above may be incomplete."

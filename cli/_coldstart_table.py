"""What `gotrace coldstart` prints for people: the rows of one start with bars, or of many the parts with their spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gotrace.analysis import timeline
from gotrace.analysis.start_summary import StartSummary
from gotrace.analysis.timeline import Row, Start, folded, merged, package_inits
from gotrace.text import bytes_text, duration_text, printable

_LEAST_SHARE = 0.005  # a shorter row is one of "N shorter"
_NAME, _BAR = 38, 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_NUMBERS = "{:>9} {:>9} {:>6} {:>9} {:>9} {:>9} {:>6} {:>5} {:>6} {:>9}"
_HEAD = _NUMBERS.format("start", "duration", "share", "on-CPU", "runnable", "blocked", "minor", "major", "pages", "heap")
_MOST_NAMED = 3


def one_start(start: Start, everything: bool, longest_first: bool) -> Iterator[str]:
    """The waterfall of a start, a line each; longest first: the parts of each stage by their duration."""
    total = max(1, start.total_ns)
    yield f"{'':{_NAME}} {_HEAD}"
    for row in _rows(start, everything, longest_first):
        yield _line(row, start, total)
    if start.unattributed_ns:
        share = start.unattributed_ns / total
        yield f"{timeline.UNATTRIBUTED:{_NAME}} {'':>9} {duration_text(start.unattributed_ns):>9} {share:>6.1%}"
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


def _line(row: Row, start: Start, total: int) -> str:
    name = row_name(row.name or row.stage, row.depth)
    counts = [f"{count:,}" if count else "" for count in (row.minor_faults, row.major_faults, row.pages_read)]
    waits = [duration_text(ns) if ns else "" for ns in (row.on_cpu_ns, row.runnable_ns, row.blocked_ns)]
    outside = row.stage == timeline.BEFORE
    share = "" if outside else f"{row.duration_ns / total:.1%}"
    numbers = _NUMBERS.format(
        duration_text(row.begin_ns),
        duration_text(row.duration_ns),
        share,
        *(["", "", ""] if outside else waits),
        *counts,
        f"+{bytes_text(row.heap_bytes)}" if row.heap_bytes else "",
    )
    bar = "" if outside else _bar(row.begin_ns / total, row.duration_ns / total)
    detail = f"  {printable(row.detail)}" if row.detail else ""
    return f"{name} {numbers} {bar}{detail}".rstrip()


def _bar(begin: float, share: float) -> str:
    """Where in the start a row lies; even the shortest shows."""
    first = min(int(begin * _BAR), _BAR - 1)
    eighths = min(max(1, round(share * _BAR * 8)), (_BAR - first) * 8)
    return " " * first + "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def row_name(name: str, depth: int) -> str:
    """The first column: indented, and cut where it is too long; the end of a name tells more than its beginning."""
    name, width = printable(name), _NAME - 2 * depth
    return "  " * depth + f"{name if len(name) <= width else f'…{name[1 - width :]}':{width}}"


def _sentences(start: Start) -> Iterator[str]:
    total = max(1, start.total_ns)
    inits = sorted(package_inits(start), key=lambda row: -row.duration_ns)
    if inits:
        named = ", ".join(f"{printable(row.name)} {duration_text(row.duration_ns)}" for row in inits[:_MOST_NAMED])
        whole = sum(row.duration_ns for row in inits)
        yield f"{len(inits)} packages were initialised in {duration_text(whole)} ({whole / total:.0%}). Slowest: {named}."
    yield gc_sentence(start)
    if start.listen_ns is not None:
        ready = "" if start.ready_ns is None else f"; the first accept was answered at {duration_text(start.ready_ns)}"
        yield f"First listen at {duration_text(start.listen_ns)}{ready}."
    yield from (printable(note) for note in start.notes)


def gc_sentence(start: Start) -> str:
    """When the first collection was, or that there was none."""
    if start.gc is None:
        return f"No GC began before the end ({printable(start.ended)})."
    gc = start.gc
    where = next((row for row in reversed(start.rows) if row.depth == 1 and row.begin_ns <= gc.asked_ns), None)
    during = f" during {printable(where.name if where.stage == timeline.MAIN else where.stage)}" if where else ""
    heap = f", {bytes_text(gc.heap_bytes)} live" if gc.heap_bytes else ""
    begun = f"First GC at {duration_text(gc.begin_ns)}{during} (trigger: {gc.trigger}{heap})"
    if gc.end_ns is None:
        return f"{begun}; it was not over at the end."
    pauses = f", pauses {' and '.join(map(duration_text, gc.pauses_ns))}" if gc.pauses_ns else ""
    return f"{begun}, took {duration_text(gc.end_ns - gc.begin_ns)}{pauses}."


def many_starts(starts: Sequence[Start], found: StartSummary, everything: bool) -> Iterator[str]:
    """The parts of all starts: medians with their 95 % intervals, p90, p99; then what stands out."""
    columns = "{:>9} {:>21} {:>9} {:>9} {:>6} {:>5} {:>6}"
    median = max(1.0, found.parts[0].median)
    yield f"{'':{_NAME}} {columns.format('median', '95 % interval', 'p90', 'p99', 'starts', 'major', 'pages')}"
    hidden = 0
    for part in found.parts:
        if part.depth and not everything and part.median < _LEAST_SHARE * median:
            hidden += 1
            continue
        p90, p99 = part.histogram.percentiles((90.0, 99.0))
        interval = f"{duration_text(part.low)} … {duration_text(part.high)}"
        counts = [f"{count:g}" if count else "" for count in (part.major_faults, part.pages_read)]
        times = (duration_text(part.median), interval, duration_text(p90), duration_text(p99))
        numbers = columns.format(*times, part.count, *counts)
        name = row_name(part.name or part.stage, part.depth)
        yield f"{name} {numbers}  {'█' * round(part.median / median * _BAR)}".rstrip()
    if hidden:
        yield f"  ({hidden} rows shorter than {_LEAST_SHARE:.1%} of the total; --all shows them)"
    yield ""
    if found.slow_first:
        yield (
            f"The first start was slow: {duration_text(starts[0].total_ns)}, {found.slow_first:.1f} times the median of "
            "the others. It is counted above; --warmup 1 leaves it out."
        )
    for outlier in found.outliers:
        yield (
            f"Start {outlier.number + 1} took {duration_text(outlier.total_ns)}: {duration_text(outlier.excess_ns)} more "
            f"than usual in {printable(outlier.name)} ({outlier.stage})."
        )


def ending(about: dict[str, Any]) -> Iterator[str]:
    """What the observer cost, and what was lost."""
    cost = about["cost_per_start"]
    yield (
        f"Tracing added about {duration_text(cost['install_ns'] + cost['hits_ns'])} to each start: {cost['probes']} probes "
        f"set ({duration_text(cost['install_ns'])}, in exec), {cost['hits']} hits ({duration_text(cost['hits_ns'])})."
    )
    if about["lost"]:
        yield f"{about['lost']} events were LOST: what is missing may be among the rows above."

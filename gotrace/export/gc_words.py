"""What the table and the page about pauses say in the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gotrace.analysis.assists import Assists
from gotrace.analysis.gc_summary import MARK_ASSIST, PERCENTILES, GcSummary, percentiles
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.pacing import Pacing, limit_text, percent_text, sentences
from gotrace.analysis.pauses import NOT_READ
from gotrace.analysis.pauses import UNKNOWN as NOT_KNOWN
from gotrace.records.gc import MARK, OF_A_COPY, code_text
from gotrace.text import bytes_text, cost_text, count_text, duration_text, printable, program_text

Record = dict[str, Any]

# A mark phase that had begun when tracing ended is worth a line if it has lasted for so long.
_LONG_NS = 100_000_000


def nothing_ended(in_progress: Sequence[Record]) -> str:
    """What stands in place of numbers where there are none."""
    return f"No stop-the-world pause and no GC cycle {'has ended' if in_progress else 'was observed'}."


def over_ns(header: Record, duration_ns: int) -> int | None:
    """Over how long rates and shares are; None for a slice that an agent kept around one pause: it has none."""
    return None if "kept" in header else duration_ns


def of_a_slice(header: Record, duration_ns: int) -> Iterator[str]:
    """A line that says why a slice has no rates and no shares."""
    if over_ns(header, duration_ns) is None:
        length = duration_text(duration_ns)
        yield f"no rates or shares: these are {length} that an agent chose around one pause; phases may have begun before"


HEADS = ("count", "min", *(f"p{each:g}" for each in PERCENTILES), "max", "total", "share")


def rows(total: GcSummary, over_ns: int | None, assisted: Assists | None = None) -> Iterator[tuple[str, ...]]:
    """A stop reason or GC phase, its part, and what stands below `HEADS`; in the order of `GcSummary.rows`.

    Shares are of ``over_ns``, if not None.
    """
    for reason, part, histogram in total.rows():
        share = "-" if over_ns is None else f"{total.time_ns[reason, part] / max(1, over_ns):.3%}"
        shown = "of all Ps" if reason == MARK_ASSIST else part
        yield reason, shown, *_cells(histogram), share
    if assisted is not None:
        for part, histogram in (("held", assisted.held), ("parked", assisted.parked)):
            if histogram.count:
                yield "goroutine in an assist", part, *_cells(histogram), "-"


def _cells(histogram: Histogram) -> tuple[str, ...]:
    values = [histogram.min, *percentiles(histogram), histogram.max, histogram.sum]
    return (str(histogram.count), *map(duration_text, values))


def not_ended(in_progress: Sequence[Record], explained: bool) -> Iterator[str]:
    """A line for each `gotrace.records.gc.InProgress` that is worth it, and one on how to learn more."""
    for record in in_progress:
        if record["what"] == MARK and record["lasted_ns"] < _LONG_NS:
            continue
        yield f"NOT ENDED: {record['sentence']}."
        if not explained and any(each["tid"] for each in record["waits_for"]):
            yield "--explain shows what it is running."


def not_seen(found: Record | None) -> Iterator[str]:
    """A line for each `gotrace.records.gc.NotSeen`: what ran in code that has no probes."""
    if not found:
        return
    for child in found["children"]:
        who = f"a child, pid {child['pid']} ({program_text(child['exe'], child['go_version'])})"
        yield f"NOT TRACED: at least {count_text(child['cycles'], 'GC cycle')} of {who}."
    counted = f"the runtime counted at least {count_text(found['cycles'], 'cycle')} more" if found["cycles"] else ""
    if found["libraries"]:
        names = ", ".join(map(printable, found["libraries"]))
        yield f"NOT SEEN: Go code in {names}: {OF_A_COPY}{counted and '; ' + counted}."
    elif counted:
        yield f"NOT SEEN: {counted}; the reason is unknown."


def cycles(total: GcSummary, over_ns: int | None) -> str:
    """How many there were in ``over_ns`` (None: no rate) and why they began, and the last heap; "" if there were none."""
    if not total.last_heap:
        return ""
    heap = {name: heap_text(value) for name, value in total.last_heap.items()}
    rate = "" if over_ns is None else f"{total.cycles * 1e9 / max(1, over_ns):.1f}/s; "
    return (
        f"GC cycles: {total.cycles} ({rate}{_triggers(total)})   last heap: "
        f"{heap['start']} -> {heap['end']} -> {heap['live']} live, goal {heap['goal']}"
    )


def pacing(told: Pacing) -> Iterator[str]:
    """What is set, and why collections are as frequent as they are."""
    if told.gc_percent == NOT_READ:
        yield "set: GOGC ?, GOMEMLIMIT ?"
        return
    counted = f" ({bytes_text(told.counted)} counted towards it)" if told.counted != NOT_KNOWN else ""
    yield (
        f"set: GOGC {percent_text(told.gc_percent)}, GOMEMLIMIT {limit_text(told.memory_limit)}{counted}"
        f"{'; changed during tracing' if told.changed else ''}"
    )
    if found := sentences(told):
        yield f"pacing: {' '.join(found)}"


def _triggers(total: GcSummary) -> str:
    """Why cycles began."""
    words = {"heap": "heap growth", "periodic": "two minutes had passed", "forced": "runtime.GC()", "unknown": "unknown"}
    counts = sorted(total.triggers.items(), key=lambda item: -item[1])
    return ", ".join(words[name] if len(counts) == 1 else f"{count} {words[name]}" for name, count in counts)


def heap_text(size: int) -> str:
    """A size; with the collector off (GOGC=off) the goal is practically infinite."""
    return "-" if size == NOT_KNOWN else "off" if size < 0 or size >= 1 << 60 else bytes_text(size)


def unknown_share(unknown_ns: int, total_ns: int) -> str:
    """How much of the explained pauses is not."""
    return f"unknown: {unknown_ns / max(1, total_ns):.2%} of these {duration_text(total_ns)}"


def without_evidence(count: int) -> str:
    return f"Not explained, because tracing began during them: {count_text(count, 'pause')}"


ALLOCATED_HEADS = ("share", "allocated", "samples", "code")
_MOST_ALLOCATING = 10


def allocated(
    found: Record | None, cycles: int, code: Callable[[Sequence[str]], str] = code_text
) -> tuple[str, list[tuple[str, ...]]]:
    """A line on what a `gotrace.records.heap.Allocated` of so many cycles tells, and the rows below `ALLOCATED_HEADS`.

    ``code`` makes a text of a stack's functions.
    """
    if found is None or not cycles:
        return "", []
    if found["unknown"] is not None:
        return f"Which code allocates is unknown: {found['unknown']}", []
    every = f"one every {bytes_text(found['rate_bytes'])}"
    passed = duration_text(found["length_ns"])
    if not found["samples"]:
        return f"Which code allocates is unknown: no samples in {passed} ({every})", []
    size, count = bytes_text(found["bytes"]), count_text(found["samples"], "sample")
    rows: list[tuple[str, ...]] = []
    for each in found["by"][:_MOST_ALLOCATING]:
        share = f"{each['bytes'] / max(1, found['bytes']):.1%}"
        rows.append((share, bytes_text(each["bytes"]), f"{each['samples']:,}", code(each["code"]) or "?"))
    told = f"Which code allocated, of {size} in {passed}, by the program's own heap profile ({count}, {every})"
    return told, rows


def trust(about: Record, header: Record) -> Iterator[str]:
    """How far to trust the numbers; ``about`` as in `gotrace.records.gc.Summary`, ``header`` is the session's."""
    events, cost = about["events"], about["cost"]
    points = [point for probe in header["probes"].values() for point in probe["points"]]
    stepped = sum(not point["emulated"] for point in points)
    kind = "all on emulated instructions" if not stepped else f"{stepped} single-stepped"
    yield (
        f"trust: {count_text(len(points), 'probe')} ({kind}), events {events['received']} received, "
        f"{events['lost']} lost; clock: {header['probes']['gc']['facts']['clock']}"
    )
    yield (
        f"cost: {cost_text(cost, about['duration_ns'])}; ready after {duration_text(about['attach_ns'])}; "
        f"{about['duration_ns'] / 1e9:.1f} s, ended by: {about['ended']}"
    )
    for probe in header["probes"].values():
        for item in probe["missing"]:
            yield f"missing: {item['name']}: {item['reason']}"

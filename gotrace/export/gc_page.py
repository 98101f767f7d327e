"""A run of pauses and GC cycles as one HTML page, for people who were not there.

Its numbers are those of the table: of the same histograms, by the same words. Every long pause is drawn by itself; of a run
that has more than `gotrace.analysis.gc_course.MOST_PAUSES` the others are drawn as shades, so that a page of a million
pauses is hardly larger than one of some thousands. The page says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotrace.advice.finding import Advice, lines
from gotrace.analysis.assists import Assists
from gotrace.analysis.causes import CLASSES, UNKNOWN
from gotrace.analysis.columns import Array
from gotrace.analysis.gc_course import (
    BINS,
    BINS_PER_DECADE,
    HEAP,
    MOST_CYCLES,
    PHASES,
    SHORTEST_NS,
    SWEEP,
    Course,
    wider_counts,
)
from gotrace.analysis.gc_summary import PARTS, GcSummary, part_of, percentiles
from gotrace.analysis.pauses import MARK_TERMINATION, SWEEP_TERMINATION, stood_ns
from gotrace.analysis.pauses import UNKNOWN as NOT_KNOWN
from gotrace.export import gc_words
from gotrace.export.charts.page import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SAND,
    Page,
    Record,
    bar_chart,
    label,
    line,
    other_colour,
    size_unit,
    solid,
    time_chart,
)
from gotrace.records.gc import STOP, code_text, known
from gotrace.records.times import wall_time
from gotrace.text import count_text, duration_text

_REASONS = {
    SWEEP_TERMINATION: BLUE,
    MARK_TERMINATION: ORANGE,
    "read mem stats": GREEN,
    "GOMAXPROCS": PURPLE,
    "goroutine profile": "#8c6a4f",
    "goroutine profile cleanup": "#d8a98a",
    "all goroutines stack trace": "#cf7690",
    "start trace": "#6b6fb5",
    "stop trace": "#a3a05a",
}
# A wait of each class has a colour of its own; what every stop takes is grey.
_OF_CAUSES = (
    "#c8443a #e5a02d #8c6a4f #d8a98a #93c6e6 #9a62b8 #3b7dbd #6b6fb5 #3fa08f #dccb7c #cf7690 #a9afba #878d9a #3c3f48"
)
_CAUSES = dict(zip(CLASSES, _OF_CAUSES.split(), strict=True))
_MOST_CELLS = 12_000  # shades, in all charts
_MOST_BARS = 30
_MOST_EXPLAINED = 100  # rows of a table
_MOST_LISTED = 10
_ROWS_OF_TIME = 32  # a power of two
_MS = 1e6
_SHOWN_PARTS = ("total", *(part for part in PARTS if part != "total"))
_NAMES = ("Stop reason", "What the world waited for", "Requested by")
_PARTS_EXPLAINED = ("Stopping", "Stopped", "Restart")


@dataclass(frozen=True)
class Run:
    """What is drawn: ``records`` as of `gotrace.records.gc`, those of what was explained or has not ended, and the summary.

    ``header`` is `Session.header`'s; ``reasons`` are the words of the reasons by their numbers in ``course``.
    ``without_evidence`` counts pauses that could not be explained; None: explanations were not asked for.
    """

    header: Record
    records: Sequence[Record]
    total: GcSummary
    course: Course
    reasons: Sequence[str]
    without_evidence: int | None
    assisted: Assists | None = None
    advice: Advice | None = None

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record["type"] == kind]

    @property
    def about(self) -> Record:
        return self.of("summary")[-1]

    @property
    def begin_ns(self) -> int:
        return int(self.header["clock"]["begin_ns"])

    @property
    def over_ns(self) -> int | None:
        """As `gc_words.over_ns`."""
        return gc_words.over_ns(self.header, int(self.about["duration_ns"]))

    @property
    def end_ns(self) -> int:
        return self.begin_ns + int(self.about["duration_ns"])

    def ms(self, monotonic_ns: float) -> float:
        """Milliseconds since 1970."""
        return float(round((monotonic_ns + self.header["clock"]["wall_offset_ns"]) / _MS, 3))

    def utc(self, monotonic_ns: int) -> str:
        """To the millisecond; the date where the run is not of one day."""
        times = [
            wall_time(each, self.header["clock"]["wall_offset_ns"])[:23].replace("T", " ")
            for each in (monotonic_ns, self.begin_ns, self.end_ns)
        ]
        same = len({each[:10] for each in times}) == 1
        return times[0][11:] if same else times[0]


def page(title: str, run: Run) -> str:
    """The whole page; raises IndexError without a summary among the records."""
    made = Page()
    about, course = run.about, run.course
    _head(made, run)
    longest = course.longest()
    stops = [each for each in run.of("in_progress") if each["what"] == STOP]
    if len(longest) or stops:
        _pauses(made, run, longest, stops)
    rows = [(what, part or "-", *cells) for what, part, *cells in gc_words.rows(run.total, run.over_ns, run.assisted)]
    if rows:
        made.draw("How long each took", _ranges(run.total))
        made.say(
            "Each line runs from minimum to maximum, the bar on it from the median to p99, with marks at p90 and p99.9."
            " Percentiles are HdrHistogram's, with three significant digits. Stopping runs from the request until every P"
            " had stopped, stopped from then on; total, their sum, is what the runtime reports. Restart is the time "
            "after that until the"
            " world ran again. Shares are of the traced time; for mark assists, of the time of all"
            " Ps."
        )
        made.table("Pauses and GC phases", ("Stop reason, GC phase", "Part", *gc_words.HEADS), rows)
    if run.without_evidence is not None:
        _explained(made, run)
    elif len(longest):
        _longest(made, run, longest)
    _cycles(made, run)
    _by_time(made, run)
    if run.advice is not None:
        made.head("Advice")
        for told in lines(run.advice):
            made.say(told.strip())
    made.head("How far to trust these numbers")
    for told in gc_words.trust(about, run.header):
        made.say(told)
    if run.without_evidence is None:
        made.say("unknown: causes of pauses were not recorded; use --explain.")
    return made.made(title)


def _head(made: Page, run: Run) -> None:
    about, host, total = run.about, run.header["host"], run.total
    begin, end = (
        wall_time(each, run.header["clock"]["wall_offset_ns"])[:23].replace("T", " ") for each in (run.begin_ns, run.end_ns)
    )
    made.say(
        f"Stop-the-world pauses and GC cycles, {begin} to {end[11:] if end[:10] == begin[:10] else end} UTC"
        f" ({duration_text(about['duration_ns'])}, ended by: {about['ended']}). Host {host['name']}: Linux"
        f" {host['kernel']}, {host['machine']}, {count_text(host['cpus'], 'CPU')}. gotrace {run.header['gotrace']}."
    )
    if lost := about["events"]["lost"]:
        made.say(f"{count_text(lost, 'event')} lost: there may be more pauses and evidence than shown.", "lost")
    for told in gc_words.of_a_slice(run.header, about["duration_ns"]):
        made.say(f"{told[:1].upper()}{told[1:]}.")
    in_progress = run.of("in_progress")
    for told in gc_words.not_ended(in_progress, run.without_evidence is not None):
        made.say(told, "lost" if told.startswith("NOT") else "note")
    for told in gc_words.not_seen(about["not_seen"]):
        made.say(told, "lost")
    pauses = total.all_pauses()
    if not pauses.count and not total.cycles:
        made.say(gc_words.nothing_ended(in_progress))
        return
    over = run.over_ns
    stood = sum(ns for (_, part), ns in total.time_ns.items() if part == "total")
    p99 = duration_text(percentiles(pauses, (99.0,))[0]) if pauses.count else "-"
    heap = gc_words.heap_text(total.last_heap["live"]) if total.last_heap else "-"
    made.tiles(
        [
            ("pauses", f"{pauses.count:,}"),
            ("longest", duration_text(pauses.max) if pauses.count else "-"),
            ("p99", p99),
            *([("of the time stopped", f"{stood / max(1, over):.3%}")] if over is not None else []),
            (
                f"GC cycles, {total.cycles * 1e9 / max(1, over):.1f}/s" if over is not None else "GC cycles",
                f"{total.cycles:,}",
            ),
            ("live heap at the end", heap),
        ]
    )


def _pauses(made: Page, run: Run, longest: Array, stops: Sequence[Record]) -> None:
    course = run.course
    order = sorted(run.total.pauses, key=lambda reason: (-run.total.pauses[reason]["total"].sum, reason))
    place = {name: at for at, name in enumerate(order)}
    numbers = [place[run.reasons[reason]] for reason in longest["reason"].tolist()]
    counts, width_ns = _cells(course)
    figure: dict[str, Any] = {
        "kind": "pauses",
        "origin": run.ms(run.begin_ns),
        "end": run.ms(run.end_ns),
        "width": width_ns / _MS,
        "lowest": SHORTEST_NS,
        "perDecade": BINS_PER_DECADE,
        "reasons": [
            {"name": label(name), "colour": _colour(name), "count": run.total.pauses[name]["total"].count} for name in order
        ],
        "at": ((longest["start_ns"] - run.begin_ns) // 1000).tolist(),
        "reason": numbers,
        "cycle": [known(each) for each in longest["cycle"].tolist()],
        "goid": [known(each) for each in longest["goid"].tolist()],
        "charts": [],
        "open": [
            {
                "from": run.ms(max(each["monotonic_ns"], run.begin_ns)),
                "to": run.ms(each["monotonic_ns"] + each["lasted_ns"]),
            }
            for each in stops
        ],
    }
    for part in _SHOWN_PARTS:
        values = [known(each) for each in part_of(longest, part)[0].tolist()]
        shades = sorted([place[run.reasons[reason]], flat] for (reason, of_part), flat in counts.items() if of_part == part)
        if part == "total" or any(value is not None for value in values) or shades:
            figure["charts"].append({"axis": part, "values": values, "cells": shades})
    pauses = run.total.all_pauses()
    figure["lines"] = []
    if pauses.count:
        named = zip(("p50", "p99"), percentiles(pauses, (50.0, 99.0)), strict=True)
        figure["lines"] = [[name, value] for name, value in named]
    made.draw("Pauses over time", figure)
    drawn = "Every pause is a dot in each chart, at the time when stopping began."
    if (others := pauses.count - len(longest)) > 0:
        drawn = (
            f"Of {pauses.count:,} pauses the {len(longest):,} longest are dots in each chart, at the time when stopping"
            f" began. The other {others:,} are shaded: the darker, the more of"
            f" them in {duration_text(width_ns)}."
        )
    made.say(f"{drawn} Durations are on logarithmic axes, times are UTC. The lines are the p50 and p99 of all totals.")
    if figure["open"]:
        made.say("The red band is a stop-the-world pause that had not ended.")


def _cells(course: Course) -> tuple[dict[tuple[int, str], list[int]], int]:
    """The shades of each reason and part, flat: bin of time, bin of length, count; and how wide bins of time are, in ns."""
    counts, width_ns = course.counts(), course.width_ns
    while sum(map(np.count_nonzero, counts.values())) > _MOST_CELLS and width_ns < course.width_ns * BINS:
        counts, width_ns = {key: wider_counts(each) for key, each in counts.items()}, 2 * width_ns
    flat = {}
    for key, each in counts.items():
        times, lengths = np.nonzero(each)
        flat[key] = np.stack([times, lengths, each[times, lengths]], axis=1).reshape(-1).tolist()
    return flat, width_ns


def _colour(reason: str) -> str:
    return _REASONS.get(reason) or other_colour(reason)


def _ranges(total: GcSummary) -> Record:
    phases = dict(zip(("concurrent mark", "mark assist", "sweep"), (PURPLE, SAND, GREEN), strict=True))
    rows = []
    for reason, part, histogram in total.rows():
        values = [int(histogram.min), *percentiles(histogram), int(histogram.max)]
        colour = _colour(reason) if part else phases[reason]
        rows.append({"name": label(reason), "part": part, "colour": colour, "values": values})
    return {
        "kind": "ranges",
        "rows": rows,
        "heads": [head for head in gc_words.HEADS if head[0] == "p" or head in ("min", "max")],
    }


def _longest(made: Page, run: Run, longest: Array) -> None:
    """Without their causes."""
    lengths = stood_ns(longest)
    order = np.lexsort((longest["start_ns"], -lengths))[:_MOST_LISTED]
    longest, lengths = longest[order], lengths[order]
    parts = [[_text(ns, duration_text) for ns in part_of(longest, part)[0].tolist()] for part in _SHOWN_PARTS]
    rows = []
    for number, (pause, length_ns, *of_it) in enumerate(zip(longest, lengths.tolist(), *parts, strict=True), 1):
        cycle, goid = _text(int(pause["cycle"]), str, "-"), _text(int(pause["goid"]), str)
        reason, when = run.reasons[pause["reason"]], run.utc(int(pause["start_ns"]))
        rows.append((_numbered(number, length_ns), when, *of_it, reason, cycle, goid, str(pause["tid"])))
    made.head(f"The {len(rows)} longest pauses" if len(rows) > 1 else "The longest pause")
    heads = ("", "UTC", *(part.capitalize() for part in _SHOWN_PARTS), "Stop reason", "GC cycle", "Goroutine", "Thread")
    made.table("Until the world ran again, and by part", heads, rows, names=_NAMES)


def _numbered(number: int, length_ns: int) -> str:
    """How a pause is called in a bar and in a table."""
    return f"{number}. {duration_text(length_ns)}"


def _text(value: int, text: Callable[[int], str], otherwise: str = "?") -> str:
    return otherwise if value == NOT_KNOWN else text(value)


def _explained(made: Page, run: Run) -> None:
    told = run.of("explained")
    sums: dict[str, int] = {}
    parts: dict[str, dict[str, int]] = {part.lower(): {} for part in _PARTS_EXPLAINED}
    for each in told:
        for part, of in each["parts"].items():
            for kind, ns in of.items():
                sums[kind] = sums.get(kind, 0) + ns
                parts[part][kind] = parts[part].get(kind, 0) + ns
    total_ns = sum(each["length_ns"] for each in told)
    if told:
        shown = told[:_MOST_BARS]
        names = [_numbered(number, each["length_ns"]) for number, each in enumerate(shown, 1)]
        series = []
        for kind in CLASSES:
            values = [sum(of.get(kind, 0) for of in each["parts"].values()) for each in shown]
            if any(values):
                series.append(solid("bar", kind, values, _CAUSES[kind]))
        many = f"the {len(told)} longest pauses" if len(told) > 1 else "the longest pause"
        made.draw(f"What {many} waited for", bar_chart(names, series, unit="ns", stacked=True))
        left_out = f" Of {len(told)} pauses the first {len(shown)} have a bar." if len(shown) < len(told) else ""
        made.say(
            "Each bar is a pause, from the request until the world ran again; the runtime may report less. Every nanosecond"
            f" is attributed to exactly one class, by evidence.{left_out}"
        )
        rows = []
        for number, each in enumerate(told[:_MOST_EXPLAINED], 1):
            lengths = [duration_text(sum(each["parts"][part].values())) for part in parts]
            asked = code_text(each["asked_by"]) or "?"
            said = f"{each['cause']}: {each['sentence']}"
            when = run.utc(each["monotonic_ns"])
            rows.append((_numbered(number, each["length_ns"]), when, *lengths, each["reason"], said, asked))
        heads = ("", "UTC", *_PARTS_EXPLAINED, "Stop reason", "What the world waited for", "Requested by")
        left_out = f" (the first {len(rows)} of {len(told)})" if len(rows) < len(told) else ""
        made.table(f"Each of them{left_out}", heads, rows, names=_NAMES)
        by_class = []
        for kind, ns in sorted(sums.items(), key=lambda each: -each[1]):
            of_parts = [duration_text(parts[part][kind]) if kind in parts[part] else "-" for part in parts]
            of_it = sum(each["cause"] == kind for each in told)
            by_class.append((kind, duration_text(ns), f"{ns / max(1, total_ns):.2%}", *of_parts, str(of_it)))
        class_heads = ("Class", "Time", "Share", *_PARTS_EXPLAINED, "Pauses with this cause")
        made.table("All pauses by class", class_heads, by_class)
        made.say(f"{gc_words.unknown_share(sums.get(UNKNOWN, 0), total_ns)}.")
    else:
        made.say("No pause to explain.")
    if run.without_evidence:
        made.say(f"{gc_words.without_evidence(run.without_evidence)}.")
    callers = run.about["asked_by"] or []
    if not any(each["code"] for each in callers):
        return
    shown = callers[:_MOST_LISTED]
    left_out = f" (the first {len(shown)} of {len(callers)})" if len(shown) < len(callers) else ""
    rows = [(each["reason"], f"{each['count']:,}", code_text(each["code"]) or "?") for each in shown]
    made.table(f"Who requested the pauses{left_out}", ("Stop reason", "Pauses", "Requested by"), rows, names=_NAMES)


def _cycles(made: Page, run: Run) -> None:
    """Phases and the heap, of each cycle or by time."""
    course = run.course
    if not course.cycles:
        return
    each_cycle = course.each_cycle()
    names = None
    if each_cycle is not None:
        whens = [run.ms(int(cycle["end_ns"])) for cycle, _ in each_cycle]
        names = [f"the end of cycle {cycle['cycle']}" for cycle, _ in each_cycle]
        of_name = {name: [int(cycle[name]) for cycle, _ in each_cycle] for name in (*PHASES, *HEAP)}
        of_name[SWEEP] = [NOT_KNOWN if swept is None else swept for _, swept in each_cycle]
        of_what = "Each point is a cycle, at its end."
    else:
        width_ns, bins = course.bins()
        there = np.flatnonzero(bins["cycles"] > 0)
        whens = [run.ms(run.begin_ns + int(at) * width_ns) for at in there]
        of_name = {name: bins[name][there].tolist() for name in (*PHASES, *HEAP, SWEEP)}
        of_what = (
            f"Of {course.cycles:,} cycles, more than {MOST_CYCLES:,}, each point is the largest of those that ended within"
            f" {duration_text(width_ns)}."
        )
    phases = []
    kinds = (
        ("sweep termination", PHASES[0], BLUE),
        ("concurrent mark", PHASES[1], PURPLE),
        ("mark termination", PHASES[2], ORANGE),
        ("sweep", SWEEP, GREEN),
    )
    for name, key, colour in kinds:
        values = [None if each == NOT_KNOWN else max(each, SHORTEST_NS) for each in of_name[key]]
        if any(value is not None for value in values):
            phases.append(line(name, values, colour, width=1))
    whole = [min(whens[0], run.ms(run.begin_ns)), max(whens[-1], run.ms(run.end_ns))]  # as the pauses have it
    common: Record = {"times": whens, "length": 0, "whole": whole} | ({"names": names} if names else {})
    made.draw("Phases of the collector", {**common, "charts": [time_chart("length, logarithmic", phases, "ns", log=True)]})
    made.say(
        f"{of_what} A sweep ends when its last span has been swept; sweeps that had not ended, or ended unseen, are "
        f"left out."
    )
    heap = {name: [None if _is_off(each) else each for each in of_name[key]] for name, key, *_ in _HEAP_LINES}
    factor, unit = size_unit(max((each for of in heap.values() for each in of if each is not None), default=0))
    lines = []
    for name, _, colour, dash in _HEAP_LINES:
        sizes = [None if each is None else round(each / factor, 4) for each in heap[name]]
        if any(each is not None for each in sizes):
            lines.append(line(name, sizes, colour, dash, width=1 if colour == SAND else 2))
    made.draw("Heap", {**common, "charts": [time_chart(unit, lines, unit)]})
    made.say(f"{gc_words.cycles(run.total, run.over_ns)}.".replace("   ", "; "))
    for told in gc_words.pacing(run.total.pacing):
        made.say(f"{told.removesuffix('.')}.")
    told, rows = gc_words.allocated(run.about["allocated"], run.total.cycles)
    if rows:
        made.table(told, [head.capitalize() for head in gc_words.ALLOCATED_HEADS], rows, names=("Code",))
    elif told:
        made.say(f"{told}.")


_HEAP_LINES = (
    ("when marking began", "heap_start_bytes", SAND, "solid"),
    ("when marking ended", "heap_end_bytes", ORANGE, "solid"),
    ("live", "heap_live_bytes", BLUE, "solid"),
    ("goal", "heap_goal_bytes", INK, "dash"),
)


def _is_off(size: int) -> bool:
    return size < 0 or size >= 1 << 60


def _by_time(made: Page, run: Run) -> None:
    """What the charts show, as numbers."""
    width_ns, bins = run.course.bins(_ROWS_OF_TIME)
    rows = []
    for number, each in enumerate(bins):
        ns = [_text(int(each[name]), duration_text, "-") for name in ("longest_ns", *PHASES, SWEEP)]
        heap = [_text(int(each[name]), gc_words.heap_text, "-") for name in HEAP]
        counts = f"{each['pauses']:,}", ns[0], f"{each['cycles']:,}"
        rows.append((run.utc(run.begin_ns + number * width_ns), *counts, *ns[1:], *heap))
    heads = (
        *("From, UTC", "Pauses", "Longest", "GC cycles", "Sweep term.", "Mark", "Mark term.", "Sweep"),
        *("Heap at start", "at mark end", "live", "goal"),
    )
    made.table(f"The charts as numbers, each the maximum within {duration_text(width_ns)}", heads, rows, folded=True)

"""What the rules of cold starts are given, and what several of them compute."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gotrace.advice.finding import Finding, Gain, gain_text, place_of
from gotrace.analysis.start_code import DATA, MAIN_MAIN, MEMORY, Calls, StartCode, Work
from gotrace.analysis.start_summary import median
from gotrace.analysis.timeline import MAIN, PROGRAM, Row, Start
from gotrace.text import bytes_text, count_text, duration_text, printable

_RESAMPLES, _SEED = 4000, 20261130
LEAST_SHARE, LEAST_NS = 0.03, 500_000  # a smaller gain is not worth a line
_LEAST_SAMPLES = 10  # of fewer nothing is said


@dataclass(frozen=True)
class Seen:
    """Starts that are alike, each with its code; ``cgo`` are the packages that call C.

    ``quotas`` are the CPUs that each start's cgroup may use on average, as of its end, where it has a quota that is known.
    """

    starts: Sequence[Start]
    code: Sequence[StartCode]
    go_version: str = ""
    cgo: Sequence[str] = field(default_factory=tuple)
    quotas: Sequence[float | None] = field(default_factory=tuple)

    @property
    def total_ns(self) -> float:
        return median([start.total_ns for start in self.starts])

    def gain_of(self, gain: Gain) -> str:
        """The gain, and what it is a part of."""
        return f"{gain_text(gain)} of {duration_text(self.total_ns)} {self.until}"

    @property
    def until(self) -> str:
        """Before what, for all of them."""
        ends = {start.ended for start in self.starts}
        return f"before {printable(ends.pop())}" if len(ends) == 1 else "of the start"

    def is_worth(self, gain: Gain) -> bool:
        """Large enough, and surely not less than half of that."""
        enough = max(LEAST_SHARE * self.total_ns, LEAST_NS)
        return gain.value >= enough and gain.low >= enough / 2

    def check(self, change: str) -> str:
        record = "gotrace coldstart -n 20 -o"
        return f"{record} before.gotrace, {change}, {record} after.gotrace, then gotrace coldstart compare"


def _interval(draws: np.ndarray[Any, Any], value: float, starts: int) -> tuple[float, float]:
    """Of one start there is none: how starts differ is not known."""
    if starts < 2:
        return value, value
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def exact(values: Sequence[float], whole: float) -> Gain:
    """The median of what was measured in each start, with the bootstrap's interval."""
    array = np.asarray(values, float)
    medians = np.median(np.random.default_rng(_SEED).choice(array, (_RESAMPLES, len(array))), axis=1)
    value = float(np.median(array))
    low, high = _interval(medians, value, len(array))
    basis = f"measured in {count_text(len(array), 'start')}"
    return Gain(value, low, high, "ns", value / whole if whole else 0.0, basis)


def sampled(times: Sequence[float], part: int, whole: int, total: float) -> Gain:
    """``times`` of each start, of which ``part`` of ``whole`` samples belong to what would be saved.

    The interval joins that of the share (Jeffreys') with the bootstrap's of the median time.
    """
    rng = np.random.default_rng(_SEED)
    array = np.asarray(times, float)
    medians = np.median(rng.choice(array, (_RESAMPLES, len(array))), axis=1)
    drawn = medians * rng.beta(part + 0.5, whole - part + 0.5, _RESAMPLES)
    value = float(np.median(array)) * part / whole
    low, high = _interval(drawn, value, len(array))
    basis = f"{part} of {count_text(whole, 'sample')} in {count_text(len(array), 'start')}"
    return Gain(value, low, high, "ns", value / total if total else 0.0, basis)


def rows_by_start(seen: Seen, owner: str) -> list[tuple[Start, Row]]:
    """The row of an init function, or of main.main, in each start that has it."""
    stage, depth = (PROGRAM, 0) if owner == MAIN_MAIN else (MAIN, 2)
    return [
        (start, row)
        for start in seen.starts
        for row in start.rows
        if row.stage == stage and row.depth == depth and (row.name == owner or owner == MAIN_MAIN)
    ]


def collected_in(start: Start, row: Row) -> bool:
    """Whether the first collection of the start was under way in a row, at any time."""
    gc = start.gc
    return gc is not None and gc.asked_ns < row.end_ns and (gc.end_ns is None or gc.end_ns > row.begin_ns)


def busy_ns(seen: Seen, owner: str) -> list[int]:
    """How long the code of an init function, or of main.main, held up each start.

    Its waits are its own where a collection was under way, which its allocations have brought about; others are another
    rule's.
    """
    rows = rows_by_start(seen, owner)
    return [row.duration_ns - (0 if collected_in(start, row) else row.blocked_ns) for start, row in rows]


def owners(seen: Seen) -> Counter[str]:
    """How many samples each init function has in all starts.

    Those of main.main's time in which others ran are among its own: that time is the whole process's.
    """
    found: Counter[str] = Counter()
    for code in seen.code:
        found.update(code.samples)
        found.update({MAIN_MAIN: code.beside_main})
    return found


def work_of(seen: Seen, owner: str, kind: str) -> Work:
    found = Work()
    for code in seen.code:
        each = code.work.get((owner, kind), Work())
        found.samples += each.samples
        found.places.update(each.places)
        found.callees.update(each.callees)
    return found


def calls_of(seen: Seen, owner: str, *callees: str) -> Calls:
    """Calls in all starts."""
    found = Calls()
    for code, callee in itertools.product(seen.code, callees):
        each = code.calls.get((owner, callee), Calls())
        found.count += each.count
        found.ns += each.ns
        found.places.update(each.places)
    return found


def of_kind(
    seen: Seen,
    rule: str,
    kind: str,
    callees: Sequence[str],
    did: Callable[[int], str],
    mend: str,
    inits_only: bool = False,
    mainly: bool = False,
    least_share: float = LEAST_SHARE,
) -> Iterator[Finding]:
    """What every init function, and main.main before the end of the start, did of one kind, if that is worth a line.

    ``did(count)`` says it, with the number of calls of ``callees`` in one start. ``inits_only``: not main.main;
    ``mainly``: only where most samples are of this kind.
    """
    for owner, samples in owners(seen).items():
        work, rows = work_of(seen, owner, kind), [row for _, row in rows_by_start(seen, owner)]
        if work.samples < _LEAST_SAMPLES or not rows or (inits_only and owner == MAIN_MAIN):
            continue
        if mainly and 2 * work.samples < samples:
            continue
        took = busy_ns(seen, owner)
        gain = sampled(took, work.samples, samples, seen.total_ns)
        if not seen.is_worth(gain) or gain.share < least_share:
            continue
        calls = calls_of(seen, owner, *callees)
        places = calls.places or work.places
        more = len(places) - 1
        others = f" and {more} other lines" if more > 1 else " and another line" if more else ""
        name, where = printable(owner), f"{place_of(places.most_common(1)[0][0])}{others}"
        evidence = [
            f"{gain.basis} taken in {name} were in it; {name} took {duration_text(median(took))}, measured without sampling"
        ]
        if kind == MEMORY:
            evidence.append(f"{median([row.minor_faults for row in rows]):,.0f} page faults in it")
        if kind in (MEMORY, DATA):
            evidence += _touched(seen, owner, kind)
        grown = median([row.heap_bytes or 0 for row in rows])
        if grown >= 1 << 20:
            evidence.append(f"the heap grew by {bytes_text(grown)} in it")
        yield Finding(
            rule=rule,
            title=f"{name} {did(round(calls.count / len(seen.starts)))} ({where}): {seen.gain_of(gain)}",
            evidence=tuple(evidence),
            gain=gain,
            mend=mend,
            check=seen.check("change it"),
            excluded=f"Only samples with both {name} and the work on the stack count; waits, if a collection ran in it.",
        )


def _touched(seen: Seen, owner: str, kind: str) -> Iterator[str]:
    """Page faults of an init function: in new memory, or in that section of the executable that has most."""
    faults: Counter[str] = Counter()
    ns: Counter[str] = Counter()
    major = 0
    for code in seen.code:
        for (name, section), each in code.touched.items():
            if name == owner and bool(section) == (kind == DATA):
                faults[section] += each.faults
                ns[section] += each.ns
                major += each.major
    for section, count in faults.most_common(1):
        disk = f"; {major / len(seen.code):,.0f} of the program's pages came from a disk" if section else ""
        yield (
            f"{count / len(seen.code):,.0f} page faults in {printable(section) or 'new memory'} in one start, which took "
            f"{duration_text(ns[section] / len(seen.code))} from the beginning of each to its end{disk}"
        )


def stage_ns(seen: Seen, stage: str) -> list[float]:
    """How long a stage took, in each start."""
    return [sum(row.duration_ns for row in start.rows if row.stage == stage and row.depth == 0) for start in seen.starts]

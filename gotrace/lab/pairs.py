"""What `gotrace compare` says of two versions: verdicts, and what must stand beside them to be understood.

RSS by itself says little of Go: a collector that runs less often leaves more garbage, which looks like a leak. So the
live heap, the goal, the factor between RSS and heap and the rate of collections stand beside it. Where pauses got worse,
what the longest of them waited for does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gotrace.analysis.causes import CLASSES
from gotrace.errors import UsageError
from gotrace.lab.compare import CANNOT_TELL, Compared, NotComparableError, Side, compare_with_each, require_comparable
from gotrace.lab.metrics import METRICS
from gotrace.lab.report import VersionOf
from gotrace.lab.runs import extended_text
from gotrace.text import duration_text

BESIDE_RSS = ("gc.cycles_per_s", "heap.live.mean", "heap.goal.mean", "mem.amplification")
EXPLORATORY = "exploratory"
PEEKED = (
    "Looking and measuring on until something differs is wrong more often than p says; `gotrace gate` accounts for that."
)
_STOPS = "stw."
_LEAST_SHARE = 0.02  # of the longest pauses' time, for a class to be named


def version_of(side: Side) -> VersionOf:
    """What was measured; a side that goes by its report's name has that report's only version."""
    versions = side.report["versions"]
    return next((each for each in versions if each["name"] == side.name), versions[0])


@dataclass(frozen=True)
class Waited:
    """What the longest pauses of two versions waited for: classes to nanoseconds a pause, the largest difference first."""

    pauses: tuple[int, int]
    mean_ns: Mapping[str, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        return {"pauses": list(self.pauses), "mean_ns": {kind: list(each) for kind, each in self.mean_ns.items()}}


@dataclass(frozen=True)
class Pair:
    """Two sides, and every metric of them; ``warning`` says why they are not comparable, "" if they are."""

    a: Side
    b: Side
    rows: Sequence[Compared]
    warning: str
    margin: float

    @property
    def interleaved(self) -> bool:
        return self.a.report is self.b.report

    def row(self, name: str) -> Compared:
        return next(row for row in self.rows if row.metric == name)

    def shown(self, everything: bool = False) -> list[Compared]:
        """Those with values: all, or the primary ones and what stands beside RSS."""
        beside = BESIDE_RSS if any(self.row(name).b is not None for name in ("rss.peak", "rss.growth")) else ()
        return [
            row
            for row in self.rows
            if (everything or row.primary or row.metric in beside) and (row.a is not None or row.b is not None)
        ]

    def named(self, everything: bool = False) -> Iterator[tuple[str, list[str]]]:
        """Verdicts in words, the ones that matter most first, each with its metrics: primary ones, or all."""
        for word in ("worse", "better", "same", CANNOT_TELL):
            rows = [row for row in self.shown(everything) if row.verdict == word and (everything or row.primary)]
            if rows:
                yield self.word(word), [row.metric for row in rows]

    def word(self, verdict: str) -> str:
        return f"same within {100 * self.margin:g}%" if verdict == "same" else verdict

    def verdict(self, row: Compared) -> str:
        """A row's, for its cell in a table."""
        told = f"{row.verdict} ({row.reason})" if row.reason and row.change is None else row.verdict
        return told if row.primary else f"{told}, {EXPLORATORY}"

    def notes(self, everything: bool = False) -> Iterator[str]:
        """What else has to be said of what is `shown`, in sentences: of more runs, RSS, and what stops waited for."""
        for text in dict.fromkeys(extended_text(side.report) for side in (self.a, self.b)):
            if text:
                yield f"{text}. {PEEKED}"
        if about := self.rss():
            yield about
        names = [row.metric for row in self.shown(everything) if row.metric.startswith(_STOPS) and row.verdict == "worse"]
        if not names:
            return
        waited = self.waited()
        told = "not recorded on both sides (gotrace baseline --explain)" if waited is None else _waits(waited)
        yield f"Worse: {', '.join(names)}. What stops waited for: {told}."

    def rss(self) -> str:
        """RSS with what explains it; "" if it is not known or nothing may be judged."""
        peak = self.row("rss.peak")
        if peak.change is None or self.warning:
            return ""
        heap, goal, rate = (self.row(name) for name in ("heap.live.mean", "heap.goal.mean", "gc.cycles_per_s"))
        found = [_changed(peak, "Peak RSS"), _changed(heap, "the live heap"), _changed(goal, "its goal"), _often(rate)]
        return f"{found[0]}: {', '.join(found[1:])}."

    def waited(self) -> Waited | None:
        """What the explained pauses of both waited for; None where one side has none."""
        sums = [_classes(side) for side in (self.a, self.b)]
        counts = tuple(sum(len(run.get("longest") or ()) for run in side.runs) for side in (self.a, self.b))
        if not all(counts) or not all(sums):
            return None
        means = {
            kind: (sums[0].get(kind, 0) / counts[0], sums[1].get(kind, 0) / counts[1])
            for kind in CLASSES
            if kind in sums[0] or kind in sums[1]
        }
        order = sorted(means, key=lambda kind: -abs(means[kind][1] - means[kind][0]))
        return Waited((counts[0], counts[1]), {kind: means[kind] for kind in order})


def compared(sides: Sequence[Side], margin: float, anyway: bool = False) -> list[Pair]:
    """The first side with each of the others. Raises NotComparableError, unless ``anyway``: then nothing is judged."""
    warnings = []
    for other in sides[1:]:
        warnings.append("")
        try:
            require_comparable(sides[0], other)
        except NotComparableError as error:
            if not anyway:
                raise
            warnings[-1] = error.message
        except KeyError as error:
            raise UsageError(f"a report is damaged: its plan lacks the key {error.args[0]}", "measure again") from None
    found = []
    each_of = compare_with_each(sides[0], sides[1:], margin, everything=True)
    for other, warning, rows in zip(sides[1:], warnings, each_of, strict=True):
        if warning:
            for row in rows:
                row.verdict = CANNOT_TELL
        found.append(Pair(sides[0], other, rows, warning, margin))
    return found


def _waits(waited: Waited) -> str:
    whole = sum(max(each) for each in waited.mean_ns.values())
    told = [
        f"{kind} {duration_text(a)} to {duration_text(b)}"
        for kind, (a, b) in waited.mean_ns.items()
        if max(a, b) >= _LEAST_SHARE * whole
    ]
    return f"{', '.join(told)} (means of the {waited.pauses[0]:,} and {waited.pauses[1]:,} longest pauses, A to B)"


def _classes(side: Side) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in side.runs:
        for pause in run.get("longest") or ():
            for classes in pause.get("parts", {}).values():
                for kind, ns in classes.items():
                    found[kind] = found.get(kind, 0) + ns
    return found


def change_text(row: Compared, value: float | None = None) -> str:
    """By how much B differs, or another ``value`` of its interval: +4.0%, of growth in bytes a minute."""
    if value is None:
        if row.change is None:
            return "-"
        value = row.change[0]
    if not math.isfinite(value):
        return "?"
    metric = METRICS[row.metric]
    return metric.text(value) if metric.dimension == "growth" else f"{value - 1:+.1%}"


def _changed(row: Compared, what: str) -> str:
    if row.change is None:
        return f"{what}: cannot tell" if row.reason else f"{what} is unknown"
    if row.verdict == "same":
        return f"{what} did not change"
    if row.verdict == CANNOT_TELL:
        return f"{what}: cannot tell ({change_text(row)})"
    return f"{what} {change_text(row)}"


def _often(row: Compared) -> str:
    """Of the rate of collections."""
    if row.change is None or row.verdict in ("same", CANNOT_TELL):
        return _changed(row, "the rate of GC cycles")
    ratio = row.change[0]
    if 0.5 < ratio < 2:
        return f"GC ran {abs(ratio - 1):.0%} {'more' if ratio > 1 else 'less'} often"
    return f"GC ran {ratio:.3g}x as often" if ratio > 1 else f"GC ran {1 / ratio:.3g}x less often"

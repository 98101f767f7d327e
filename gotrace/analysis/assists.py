"""How long mark assists held goroutines: distributions, the longest, and who pays for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gotrace.analysis.columns import Array, Kinds, rows
from gotrace.analysis.histogram import Histogram

ASSIST = np.dtype(
    [
        ("begin_ns", "<i8"),  # CLOCK_MONOTONIC: gcAssistAlloc's entry
        ("end_ns", "<i8"),  # the goroutine goes on with what it was doing
        ("parked_ns", "<i8"),  # of that, on the assist queue and until it ran again
        ("works", "<i8"),  # how often it marked
        ("goid", "<i8"),  # 0: not known
    ]
)


@dataclass
class Assists:
    """Adds up assists, in nanoseconds. ``parked`` is of those that were; ``longest`` a row of ASSIST, if there was any.

    ``begun_before`` is how many had begun before they were traced, and are in nothing else.
    """

    kinds: Kinds
    held: Histogram = field(default_factory=Histogram)
    parked: Histogram = field(default_factory=Histogram)
    longest: Array | None = None
    begun_before: int = 0

    def add(self, events: Array) -> Array:
        """The assists among ``events``, as they ended."""
        found = self.kinds.of(events, "assist")
        out = np.zeros(len(found), ASSIST)
        for name in out.dtype.names or ():
            out[name] = found[name].astype(np.int64)
        begun = out["begin_ns"] > 0
        self.begun_before += int((~begun).sum())
        out = rows(out, begun)
        if not len(out):
            return out
        held = out["end_ns"] - out["begin_ns"]
        self.held.record(held)
        self.parked.record(out["parked_ns"][out["parked_ns"] > 0])
        longest = out[int(held.argmax())]
        if self.longest is None or held.max() > self.longest["end_ns"] - self.longest["begin_ns"]:
            self.longest = longest.copy()
        return out


PAYER = np.dtype(
    [(name, "<i8") for name in ("goid", "begin_ns", "end_ns", "parked_ns")] + [("stack", "<u8")]  # as in ASSIST
)
_MOST_PAYERS = 20_000  # beyond them goroutines are not told apart


@dataclass
class Paid:
    """Of one goroutine at one stack: so many assists, nanoseconds held by them, and of these parked."""

    count: int = 0
    held_ns: int = 0
    parked_ns: int = 0


@dataclass
class Payers:
    """Adds up assists in ``paid``, by (stack, goroutine); goroutine 0 is one that is not known, or several."""

    kinds: Kinds
    paid: dict[tuple[int, int], Paid] = field(default_factory=dict)

    def add(self, events: Array) -> Array:
        """Those among ``events`` as they ended, of PAYER; none of a recording that has no stacks of them."""
        if "assist_by" not in self.kinds:
            return np.zeros(0, PAYER)
        found = self.kinds.of(events, "assist_by")
        out = np.zeros(len(found), PAYER)
        for name in out.dtype.names or ():
            out[name] = found[name].astype(out.dtype[name])
        for goid, begin, end, parked, stack in out.tolist():
            key = (stack, goid if len(self.paid) < _MOST_PAYERS or (stack, goid) in self.paid else 0)
            each = self.paid.setdefault(key, Paid())
            each.count += 1
            each.held_ns += end - begin
            each.parked_ns += parked
        return out

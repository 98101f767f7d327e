"""What the rules for processes at work are given, and what several of them compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gotrace.advice.finding import Finding, Gain, gain_text, place_of
from gotrace.analysis.columns import Array
from gotrace.analysis.gc_slices import CYCLES, MARKING, STOPPED, Slices
from gotrace.analysis.pacing import Pacing
from gotrace.analysis.refaults import Taken
from gotrace.text import count_text, duration_text, printable

_RESAMPLES, _SEED = 4000, 20261130
_BLOCK = 4  # slices that are drawn together, for neighbours are alike
SECOND = 1e9
BACKGROUND, FREED, ALLOCATION, UNKNOWN = "background", "freed", "allocation", "unknown"
ENOUGH_SECONDS = 5  # of fewer the interval of a mean holds it far less often than with 95 %


@dataclass(frozen=True)
class Caller:
    """Who asked for a stop of the world ``count`` times: the first function that is not the runtime's, and its line."""

    reason: str
    function: str
    file: str
    line: int
    count: int
    forced: bool  # by runtime.GC or debug.FreeOSMemory


@dataclass(frozen=True)
class Payer:
    """A line whose allocations mark assists held up: by ``stacks`` of it (as `Slices` has them), ``count`` times.

    ``by_goroutine`` has nanoseconds by goroutine, 0 being those that are not known.
    """

    function: str
    file: str
    line: int
    stacks: tuple[str, ...]
    count: int
    held_ns: int
    parked_ns: int
    by_goroutine: Mapping[int, int]


@dataclass(frozen=True)
class Refilled:
    """A line that asks one `sync.Pool` or several for objects: ``count`` of ``bytes`` in all were made anew because
    collections had ``dropped`` some, by ``stacks`` of it (as `Slices` has them).

    ``most_kept`` is how many the pools would have had to keep at a time for none of that to happen.
    """

    function: str
    file: str
    line: int
    stacks: tuple[str, ...]
    count: int
    bytes: int
    dropped: int
    collections: int
    most_kept: int
    pools: int = 1


@dataclass(frozen=True)
class Returned:
    """Memory that the runtime returned to the kernel, ``bytes`` in all by ``stacks`` (as `Slices` has them), and the page
    faults in which it was ``taken`` again.

    ``who`` is `BACKGROUND`, `ALLOCATION`, `UNKNOWN`, or `FREED`: by debug.FreeOSMemory, at that line of ``function``.
    """

    who: str
    function: str
    file: str
    line: int
    stacks: tuple[str, ...]
    bytes: int
    taken: Taken


@dataclass(frozen=True)
class HugePages:
    """Of the ``looked_at`` pages that were faulted in again so many lay in ``huge`` ones, and so many in mappings that may
    get some (``eligible``). ``flags`` is what was asked for their mappings, as `gotrace.kernel.huge_pages.eligible` has it.
    """

    looked_at: int = 0
    huge: int = 0
    eligible: int = 0
    enabled: str = ""
    defrag: str = ""
    flags: str = ""


@dataclass(frozen=True)
class Hints:
    """Page faults that NUMA balancing provoked; ``faults`` is CPU node x page node, the last column unknown."""

    taken: Taken
    nodes: Sequence[int]
    faults: Array


@dataclass(frozen=True)
class Quota:
    """Of the CPU quota that the process is in: CPUs on average, and how long it kept its tasks from running."""

    cpus: float | None
    throttled_ns: int


@dataclass(frozen=True)
class Seen:
    """``quota``, ``cpu_rate`` and ``hints`` are None where they are unknown."""

    duration_ns: int
    slices: Slices
    pacing: Pacing
    callers: Sequence[Caller]
    quota: Quota | None
    go_version: str
    payers: Sequence[Payer] = ()
    pools: Sequence[Refilled] = ()
    cpu_rate: float | None = None  # nanoseconds of the process's CPU time in each second
    returned: Sequence[Returned] = ()
    huge_pages: HugePages = HugePages()
    hints: Hints | None = None

    def rate(self, what: str, *whose: str, factor: float = 1.0) -> Gain:
        """Nanoseconds (or what `Slices` has) of each second, with the bootstrap's interval over blocks of slices."""
        series = self.slices.series(what, self.duration_ns, *whose) * factor
        value = float(series.mean())
        low = high = value
        blocks = len(series) // _BLOCK
        if blocks >= ENOUGH_SECONDS:
            means = series[: blocks * _BLOCK].reshape(blocks, _BLOCK).mean(axis=1)
            drawn = np.random.default_rng(_SEED).choice(means, (_RESAMPLES, blocks)).mean(axis=1)
            low, high = (float(each) for each in np.percentile(drawn, (2.5, 97.5)))
        basis = f"measured in {count_text(blocks, 'second')}" if blocks > 1 else "measured once"
        return Gain(value, min(low, value), max(high, value), "ns/s", value / SECOND, basis)

    def of_cpu_time(self, what: str, *whose: str) -> Gain:
        """The same as a share of the process's CPU time; 0 where that is unknown."""
        gain = self.rate(what, *whose)
        return replace(gain, share=gain.value / self.cpu_rate if self.cpu_rate else 0.0)

    def check(self, change: str) -> str:
        return f"gotrace gc --pid PID -d 30s before and after, {change}: compare the total column and GC cycles per second"


def of_reasons(seen: Seen, rule: str, reasons: Sequence[str], what: str, mend: str, least: float) -> Finding | None:
    """Stops of the world for ``reasons``, if they take ``least`` nanoseconds of each second, and who asked for most."""
    gain = seen.rate(STOPPED, *reasons)
    count = sum(seen.slices.counts.get(reason, 0) for reason in reasons)
    if not count or gain.value < least:
        return None
    asked = sorted((each for each in seen.callers if each.reason in reasons), key=lambda each: -each.count)
    known = [each for each in asked if each.function]
    who = f"{printable(known[0].function)} ({place_of((known[0].file, known[0].line))})" if known else "the program"
    evidence = [f"{count_text(count, 'stop')} in {seen.duration_ns / SECOND:.1f} s, {gain.basis}"]
    if known:
        whole = sum(each.count for each in asked)
        evidence.append(
            f"the requester's stack was taken at {count_text(whole, 'stop')}: this line {known[0].count:,} times"
        )
    return Finding(
        rule=rule,
        title=f"{who} {what}: the world is stopped for {gain_text(gain)}",
        evidence=tuple(evidence),
        gain=gain,
        mend=mend,
        check=seen.check("without it"),
        excluded="The reason for each stop is the runtime's own; stops for GC are not counted.",
    )


def fewer_cycles(
    seen: Seen, rule: str, title: str, evidence: Sequence[str], keeps: float, mend: str, check: str
) -> Finding:
    """Collections by the heap's growth that become ``keeps`` times as frequent where the program allocates as fast as
    it did.

    It may allocate faster then, for it gets time back: at most by as much as it marked. That is the lower end of the
    gain. How long a cycle marks depends on who else wants the CPUs, so the gain is counted in cycles; its share, in
    marking.
    """
    cycles, marking = seen.rate(CYCLES, "heap"), seen.rate(MARKING, "heap")
    faster = min(1.0, keeps / max(0.01, 1 - min(1.0, marking.share)))
    low, high = cycles.low * (1 - faster), cycles.high * (1 - keeps)
    value = cycles.value * (1 - (keeps + faster) / 2)
    basis = (
        "lower bound: the program uses the time it gets back to allocate faster; upper bound: it allocates as fast as now"
    )
    gain = Gain(value, low, high, "cycles/s", marking.share * (1 - keeps), basis)
    return Finding(
        rule=rule,
        title=f"{title}: {gain_text(gain)} fewer, of {cycles.value:.1f}",
        evidence=(f"marking took {marking.share:.1%} of the time", *evidence),
        gain=gain,
        mend=mend,
        check=check,
        excluded="Only cycles triggered by heap growth count, whose goal the runtime's own numbers explain.",
    )


def lost_cpu(taken: Taken) -> Iterator[str]:
    """What the gain of page faults leaves out."""
    if taken.lost:
        yield f"not counted: {duration_text(taken.lost_ns)} in {taken.lost:,} more, in which the thread lost its CPU"


def first_line(stack: Sequence[Any], below: tuple[str, ...] = ()) -> tuple[str, str, int]:
    """(function, file, line) of the innermost frame that is not the runtime's nor begins as ``below``; else ("", "", 0)."""
    for frame in stack:
        if not frame.function.startswith(("runtime.", "runtime/", "internal/", *below)):
            return frame.function, frame.file, frame.line
    return "", "", 0

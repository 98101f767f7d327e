"""The program forces collections with runtime.GC or debug.FreeOSMemory.

Needs the runtime's trigger of each cycle, and the stack at the stop that begins it. Reported if forced cycles mark
for at least 1 % of the time. The gain is that time. Cycles that heap growth would have started instead take part of
it back, so it is an upper bound; its low end subtracts one forced cycle for each cycle that the allocation rate would
have started.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gotrace.advice.finding import Finding, gain_text, place_of
from gotrace.advice.running import SECOND, Seen
from gotrace.analysis.gc_slices import CYCLES, MARKING
from gotrace.text import printable

_LEAST = 0.01


def find(seen: Seen) -> Iterator[Finding]:
    gain, cycles = seen.rate(MARKING, "forced"), seen.rate(CYCLES, "forced")
    if gain.share < _LEAST:
        return
    gain = replace(gain, low=gain.low * (1 - _taken_back(seen, cycles.value)))
    asked = sorted((each for each in seen.callers if each.forced and each.function), key=lambda each: -each.count)
    who = f"{printable(asked[0].function)} ({place_of((asked[0].file, asked[0].line))})" if asked else "The program"
    stacks = (f"{asked[0].count} of the stacks at the stops that began them are at this line",) if asked else ()
    yield Finding(
        rule="forced collections",
        title=f"{who} forces {cycles.value:.1f} GC cycles per second: {gain_text(gain)} of marking",
        evidence=(f"the runtime reports these cycles as forced, {gain.basis}", *stacks),
        gain=gain,
        mend="Leave GC to the pacer; to bound memory, set GOMEMLIMIT (debug.SetMemoryLimit).",
        check=seen.check("without the call"),
        excluded="Cycles triggered by heap growth or by time are counted separately.",
    )


def _taken_back(seen: Seen, forced: float) -> float:
    """Which part of the forced cycles the heap's growth would have begun by itself; 0 to 1."""
    room, rate = seen.pacing.percent_room, seen.pacing.rate
    if rate is None or room <= 0 or not forced:
        return 1.0
    return min(1.0, rate / room / forced) if room < SECOND**2 else 0.0

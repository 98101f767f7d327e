"""The heap goal is so close that the program marks for much of its time, and GOGC sets it.

Needs what set the goal of each cycle. Reported if GOGC, or the minimum goal that it gives a small heap, set most
goals, and the marking that would be saved takes at least 5 % of the time. The gain is the cycles saved by doubling GOGC,
or by quadrupling it if the minimum goal set most: a cycle begins when the room above the live heap is filled. If either
leaves so little room that the runtime moves the goal up, as it does to 1 MiB above a small heap (always if the minimum
goal sets it and GOGC is below 25), the GOGC that doubles the room is used instead. This costs memory; the finding says
how much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.running import Seen, fewer_cycles
from gotrace.analysis.gc_slices import ASSISTS
from gotrace.analysis.pacing import GOMEMLIMIT, MINIMUM, sentences
from gotrace.text import bytes_text

_LEAST = 0.05


def find(seen: Seen) -> Iterator[Finding]:
    pacing, leading = seen.pacing, seen.pacing.leading()
    if leading is None or leading[0] == GOMEMLIMIT or pacing.changed or pacing.gc_percent <= 0 or pacing.memory_limit < 0:
        return
    who, sums = leading
    room, live = sums.room / sums.cycles, sums.live / sums.cycles
    alone = pacing.by_percent(room)
    # The least goal counts from nothing and grows with GOGC; GOGC's counts from the live heap.
    if who == MINIMUM:
        times = max(4, math.ceil((2 * room + live) / pacing.heap_minimum))
    else:
        times = max(2, math.ceil(2 * room / alone)) if alone else 0
    wider = max(times * pacing.heap_minimum - live, 0 if who == MINIMUM else times * alone)
    if room <= 0 or wider <= room or pacing.counted + wider - room > pacing.memory_limit:
        return
    gogc = times * pacing.gc_percent
    assists = seen.rate(ASSISTS)
    held = (f"mark assists took {assists.share:.1%} of the time of all Ps",) if assists.share >= 0.001 else ()
    found = fewer_cycles(
        seen,
        "goal",
        f"The heap goal is only {bytes_text(room)} above the live heap",
        (*sentences(pacing), *held),
        keeps=room / wider,
        mend=f"GOGC={gogc} raises that to {bytes_text(wider)}, for {bytes_text(wider - room)} more memory; or allocate "
        "less (gotrace heap --alloc shows where).",
        check=seen.check(f"with GOGC={gogc}"),
    )
    if found.gain.share >= _LEAST:
        yield found

"""GOMEMLIMIT makes the program collect more often than GOGC would.

Needs what set the goal of each cycle, and what GOGC alone would set for the next (Go 1.19 and later, from the
runtime's own numbers). Reported if GOMEMLIMIT set most goals, and marking that would be saved takes at least 5 % of
the time. The gain is the cycles saved if GOGC alone sets the goals: cycles then come at the allocation rate divided
by the room that GOGC leaves.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.running import Seen, fewer_cycles
from gotrace.analysis.pacing import GOMEMLIMIT, sentences
from gotrace.analysis.pauses import NO_LIMIT
from gotrace.text import bytes_text

_LEAST = 0.05


def find(seen: Seen) -> Iterator[Finding]:
    pacing, leading = seen.pacing, seen.pacing.leading()
    if leading is None or leading[0] != GOMEMLIMIT or pacing.changed or pacing.percent_room in (NO_LIMIT, -1):
        return
    room = leading[1].room / leading[1].cycles
    if pacing.percent_room <= room or pacing.counted < 0:
        return
    needed = pacing.counted + pacing.percent_room - room
    found = fewer_cycles(
        seen,
        "memory limit",
        f"GOMEMLIMIT {bytes_text(pacing.memory_limit)} is too small for the live heap",
        sentences(pacing),
        keeps=room / pacing.percent_room,
        mend=f"Raise GOMEMLIMIT to {bytes_text(1.1 * needed)} or more, the container's limit above it, or keep less alive.",
        check=seen.check(f"with GOMEMLIMIT={round(1.1 * needed)}"),
    )
    if found.gain.share >= _LEAST:
        yield found

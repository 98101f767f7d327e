"""Goroutines that allocate while the collector marks have to assist it, which takes much of their time.

Needs the beginning and end of each mark assist, and the stack that allocated. Reported if the goroutines held up at one
line are all known, were held up 20 times or more, and each for at least 5 % of the traced time on average; for a
goroutine that lived for only part of that time, the share of its own life is larger. The gain is the time for which all
of them were held up, measured: what is saved if nothing is allocated there while the collector marks. Its share is that
of one goroutine. If the goal or a memory limit makes the program collect so often, it is part of that finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gotrace.advice.finding import Finding, gain_text, place_of
from gotrace.advice.running import SECOND, Payer, Seen
from gotrace.analysis.gc_slices import HELD
from gotrace.text import count_text, duration_text, printable

_LEAST, _LEAST_COUNT = 0.05, 20


def find(seen: Seen) -> Iterator[Finding]:
    for payer in seen.payers:
        goroutines = len(payer.by_goroutine)
        each = payer.held_ns / seen.duration_ns / goroutines
        # Goroutine 0 are those that are not known, of which there may be any number.
        if payer.function and payer.count >= _LEAST_COUNT and 0 not in payer.by_goroutine and each >= _LEAST:
            yield _finding(seen, payer, each)


def _finding(seen: Seen, payer: Payer, each: float) -> Finding:
    gain = seen.rate(HELD, *payer.stacks)
    goroutines = len(payer.by_goroutine)
    most, held_ns = max(payer.by_goroutine.items(), key=lambda item: item[1])
    who = f"{printable(payer.function)} ({place_of((payer.file, payer.line))})"
    whose = (
        f"{goroutines} goroutines, {each:.1%} of the time of each, on average" if goroutines > 1 else f"{each:.1%} of it"
    )
    return Finding(
        rule="assists",
        title=f"{who} allocates during marking and has to assist: mark assists hold up {whose}, {gain_text(gain)} in all",
        evidence=(
            f"{count_text(payer.count, 'assist')} in {seen.duration_ns / SECOND:.1f} s, from start to end; "
            f"for {payer.parked_ns / payer.held_ns:.0%} of that time they were parked until others had marked enough",
            f"goroutine {most} was held up longest, for {duration_text(held_ns)}",
        ),
        gain=replace(gain, share=each),
        mend="Allocate less there (reuse memory, or see gotrace heap --alloc), or collect less often, with a larger GOGC "
        "and a GOMEMLIMIT: the nearer a cycle's goal, the more assist work falls on allocating goroutines.",
        check="gotrace gc --advise --pid PID -d 30s before and after: compare the time held up in assists",
        excluded="Only assists that marked or were parked count, not the allocation itself, nor sweeping.",
        by=("memory limit", "goal"),
    )

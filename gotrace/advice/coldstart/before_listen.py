"""main.main uses the CPU before the start is over, in one function that it calls.

Needs samples of main.main's stack, and a start that ended with listen. Reported if one line of main.main takes at
least 10 % of the start and 1 ms. Only its own goroutine counts, not others that it waits for. How much of it
listen itself needs cannot be seen: the gain is what is saved if all of it waits until after listen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gotrace.advice.finding import Finding, place_of
from gotrace.advice.starts import Seen, busy_ns, owners, sampled, work_of
from gotrace.analysis.start_code import MAIN_MAIN, MEMORY, OWN, Place
from gotrace.text import printable

_LEAST_SHARE, _LEAST_NS = 0.10, 1_000_000


def find(seen: Seen) -> Iterator[Finding]:
    took, samples = busy_ns(seen, MAIN_MAIN), owners(seen)[MAIN_MAIN]
    if not samples or not took or any(start.listen_ns is None for start in seen.starts):
        return
    works = [work_of(seen, MAIN_MAIN, kind) for kind in (OWN, MEMORY)]
    places: Counter[Place] = sum((work.places for work in works), Counter())
    for place, count in places.items():
        gain = sampled(took, count, samples, seen.total_ns)
        if gain.share < _LEAST_SHARE or gain.value < _LEAST_NS:
            continue
        callees: Counter[str] = sum((work.callees for work in works if place in work.places), Counter())
        called = callees.most_common(1)[0][0] if len(places) == 1 else ""
        yield Finding(
            rule="before listen",
            title=f"main.main works at {place_of(place)}{f' in {printable(called)}' if called else ''} before it listens: "
            f"{seen.gain_of(gain)}",
            evidence=(f"{gain.basis} taken while main.main ran were below this line",),
            gain=gain,
            mend="If the first requests do not need it, do it after listen, in a goroutine, and report readiness "
            "separately.",
            check=seen.check("move it behind listen"),
            excluded="Regexps, templates, files and names have their own rules, and are not counted here.",
        )

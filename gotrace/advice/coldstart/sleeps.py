"""An init function waits: its thread was blocked while it ran, but not on a disk or for a CPU.

Needs only the rows of a start. Reported if the thread was blocked for at least 3 % of the start and 1 ms in one init
function, and for at least 80 % of its time in every start, while no page was read and no collection was under
way. If the function looks up a name, the caller is named, with the time from the resolver's entry to its return. The
gain is the blocked time, measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding, place_of
from gotrace.advice.starts import Seen, calls_of, collected_in, exact, rows_by_start
from gotrace.analysis.timeline import MAIN
from gotrace.text import count_text, duration_text, printable

LOOKUPS = ("net.(*Resolver).lookupIPAddr", "net.(*Resolver).lookupHost")
_LEAST_NS = 1_000_000
_MOSTLY = 0.8  # of the init function: what allocates may have to wait for a collection, but works too


def find(seen: Seen) -> Iterator[Finding]:
    names = {row.name for start in seen.starts for row in start.rows if row.stage == MAIN and row.depth == 2}
    for owner in sorted(names):
        found = rows_by_start(seen, owner)
        rows = [row for _, row in found]
        if any(collected_in(start, row) or row.blocked_ns < _MOSTLY * row.duration_ns for start, row in found):
            continue
        gain = exact([row.blocked_ns for row in rows], seen.total_ns)
        if not seen.is_worth(gain) or gain.value < _LEAST_NS or any(row.pages_read for row in rows):
            continue
        calls = calls_of(seen, owner, *LOOKUPS)
        name, count = printable(owner), round(calls.count / len(seen.starts))
        evidence: tuple[str, ...] = ()
        did, mend = "waits", "Do not wait in an init: do it in main, after listen, or on first use."
        # A look-up that takes most of it is the reason, for an init function does one thing at a time.
        if count and calls.ns / len(seen.starts) > 0.8 * gain.value:
            where = place_of(calls.places.most_common(1)[0][0])
            did = f"looks up {count_text(count, 'name')} ({where})"
            took = duration_text(calls.ns / len(seen.starts))
            evidence = (f"between the resolver's entry and return, {took} passed in one start",)
            mend = "Look names up when connecting, not in an init; retries and timeouts belong there too."
        yield Finding(
            rule="sleeps",
            title=f"{name} {did}: {seen.gain_of(gain)}",
            evidence=(f"the thread was off-CPU for that long in this init function, {gain.basis}", *evidence),
            gain=gain,
            mend=mend,
            check=seen.check("change it"),
            excluded="Time waiting for a CPU or a CPU quota is counted separately, no page was read from disk, and the "
            "first GC cycle did not run in it.",
        )

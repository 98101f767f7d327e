"""Collections empty a sync.Pool, which is then filled again.

Needs what each collection drops from each pool, and each time that a pool had nothing to give: an object made then counts
only if a collection had dropped one from this pool earlier that has not been replaced since. Reported if such objects
are 10 % of all that is allocated, and marking takes at least 1 % of the time. The gain is what need not be allocated if
the pool keeps them; its low end leaves out objects private to one P, which others could not have taken.
An object's size is that of the last one dropped, with the array behind a slice that it begins with; what else it
points to, such as the tables of a gzip.Writer, is not counted. The share is of the marking, by bytes allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gotrace.advice.finding import Finding, Gain, gain_text, place_of
from gotrace.advice.running import SECOND, Refilled, Seen
from gotrace.analysis.gc_slices import MARKING, REFILLED, REFILLED_SHARED
from gotrace.text import bytes_text, count_text, printable

_LEAST, _LEAST_MARKING, _LEAST_COUNT = 0.10, 0.01, 20


def find(seen: Seen) -> Iterator[Finding]:
    allocated, marking = seen.pacing.rate, seen.rate(MARKING).share
    if not allocated or marking < _LEAST_MARKING:
        return
    for pool in seen.pools:
        gain = seen.rate(REFILLED, *pool.stacks)
        part = min(1.0, gain.value / allocated)
        if pool.function and pool.count >= _LEAST_COUNT and part >= _LEAST:
            low = min(gain.low, seen.rate(REFILLED_SHARED, *pool.stacks).low)
            yield _finding(seen, pool, part, replace(gain, low=low, unit="bytes/s", share=part * marking))


def _finding(seen: Seen, pool: Refilled, part: float, gain: Gain) -> Finding:
    size = pool.bytes / pool.count
    dropped = f"{count_text(pool.collections, 'collection')} dropped {count_text(pool.dropped, 'object')}"
    kept = count_text(pool.most_kept, "object")
    pools, them = ("its sync.Pool", "it") if pool.pools == 1 else (f"its {pool.pools} sync.Pools", "them")
    return Finding(
        rule="pools",
        title=f"{printable(pool.function)} ({place_of((pool.file, pool.line))}) fills {pools} again after "
        f"collections have emptied {them}: {gain_text(gain)}, {part:.0%} of what is allocated",
        evidence=(
            f"{dropped} that nobody had taken since the one before; {pool.count:,} of {size / 1024:,.1f} KiB on average "
            f"were made anew in {seen.duration_ns / SECOND:.1f} s",
        ),
        gain=gain,
        mend=f"Collect less often than the pool is at rest (a larger GOGC), or keep {kept} "
        f"({bytes_text(pool.most_kept * size)}) in a list of your own, a channel for example.",
        check="gotrace gc --advise --pid PID -d 30s before and after: compare the objects made anew",
        excluded="Objects that were never returned to the pool, or made because more were in use than ever before, do not "
        "count: no collection had dropped one.",
    )

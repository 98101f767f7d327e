"""The runtime returns memory of its heap to the kernel, and the program faults it in again.

Needs each range that the runtime returns, the stack that does it, and each page fault: one counts if its page was returned
while the program was traced and had not been touched since. The first touch of new memory does not count, nor do pages
that the kernel takes by itself. Reported if such faults take at least 2 % of the process's CPU time: the CPU time of the
same program varies by about that much from run to run, so a smaller gain could not be checked. The gain is the time from
the beginning of each fault to its end, measured; faults in which the thread lost its CPU are left out, and so is the cost
of returning the memory. Whether the memory would have been needed elsewhere in the meantime cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding, Gain, gain_text, place_of
from gotrace.advice.running import ALLOCATION, BACKGROUND, FREED, SECOND, UNKNOWN, HugePages, Returned, Seen, lost_cpu
from gotrace.analysis.gc_slices import REFAULTS
from gotrace.text import bytes_text, count_text, duration_text, printable

_LEAST, _LEAST_COUNT = 0.02, 100
_WHO = {
    BACKGROUND: "The background scavenger",
    ALLOCATION: "An allocation that needs more memory than the goal or limit has",
    UNKNOWN: "The runtime",
}
_ASKED = {"hg": "MADV_HUGEPAGE", "nh": "MADV_NOHUGEPAGE"}
_KEEP = "GODEBUG=madvdontneed=0 leaves the pages mapped until the kernel needs them (RSS then seems larger)"
_MEND = {
    BACKGROUND: f"{_KEEP}; or keep the heap goal from going up and down, with a larger GOGC and a GOMEMLIMIT.",
    ALLOCATION: f"Raise GOMEMLIMIT, or keep less alive; {_KEEP}.",
    UNKNOWN: f"{_KEEP}.",
    FREED: "Leave the call out: the runtime returns memory that stays unused by itself, in the background.",
}


def find(seen: Seen) -> Iterator[Finding]:
    for each in seen.returned:
        gain = seen.of_cpu_time(REFAULTS, *each.stacks)
        if gain.share >= _LEAST and each.taken.kept >= _LEAST_COUNT:
            yield _finding(seen, each, gain)


def _finding(seen: Seen, each: Returned, gain: Gain) -> Finding:
    place = place_of((each.file, each.line))
    who = f"{printable(each.function)} ({place}) calls debug.FreeOSMemory, which" if each.who == FREED else _WHO[each.who]
    taken = each.taken
    average = duration_text(taken.kept_ns / taken.kept)
    return Finding(
        rule="returned memory",
        title=f"{who} returns memory that is then faulted in again: page faults take {gain_text(gain)}, "
        f"{gain.share:.0%} of the process's CPU time",
        evidence=(
            f"{bytes_text(each.bytes)} returned in {seen.duration_ns / SECOND:.1f} s; "
            f"{count_text(taken.kept, 'page fault')} took its pages again, in {average} on average, {gain.basis}",
            *_sizes(seen.huge_pages),
            *lost_cpu(taken),
        ),
        gain=gain,
        mend=_MEND[each.who],
        check="gotrace gc --advise --pid PID -d 30s before and after: compare the page faults",
        excluded="Each of these pages had been returned by the runtime since it was last touched: new memory, and pages "
        "that the kernel took by itself, do not count.",
        by=("memory limit",) if each.who == ALLOCATION else (),
    )


def _sizes(pages: HugePages) -> Iterator[str]:
    """What is known of huge pages."""
    if pages.looked_at:
        asked = "".join(f" ({name})" for flag, name in _ASKED.items() if flag in pages.flags.split())
        yield (
            f"of {count_text(pages.looked_at, 'page')} looked up soon after their fault, {pages.huge:,} lay in huge pages, "
            f"and {pages.eligible:,} where there may be some{asked}; transparent huge pages: {pages.enabled}, "
            f"defrag: {pages.defrag}"
        )

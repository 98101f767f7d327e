"""The main goroutine works for the garbage collector while the program starts.

Needs samples, and a collection that began during the start. Reported if the main thread's samples in assists, in
sweeping and in starting a cycle come to at least 3 % of the start and 0.5 ms. The gain is that time on the main
thread only: mark workers on other CPUs do not delay the start and are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, busy_ns, owners, sampled, work_of
from gotrace.analysis.start_code import COLLECTOR
from gotrace.analysis.start_summary import median
from gotrace.text import bytes_text, duration_text, printable


def find(seen: Seen) -> Iterator[Finding]:
    if not all(start.gc for start in seen.starts):
        return
    for owner, samples in owners(seen).items():
        work, took = work_of(seen, owner, COLLECTOR), busy_ns(seen, owner)
        if not work.samples or not took:
            continue
        gain = sampled(took, work.samples, samples, seen.total_ns)
        if not seen.is_worth(gain):
            continue
        heaps = [start.gc.heap_bytes for start in seen.starts if start.gc and start.gc.heap_bytes]
        live = f", with {bytes_text(median(heaps))} live" if heaps else ""
        at = duration_text(median([start.gc.begin_ns for start in seen.starts if start.gc]))
        yield Finding(
            rule="collection",
            title=f"{printable(owner)} does work for the garbage collector: {seen.gain_of(gain)}",
            evidence=(f"{gain.basis} were in mark assists or sweeping", f"the first GC cycle began at {at}{live}"),
            gain=gain,
            mend="Start with GOGC=off and a GOMEMLIMIT, and call debug.SetGCPercent after listen; or allocate less.",
            check="GOGC=off gotrace coldstart -n 20 -o after.gotrace, then gotrace coldstart compare",
            excluded="Only what the main goroutine did itself is counted, not mark workers on other CPUs.",
        )

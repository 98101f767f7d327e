"""A CPU quota keeps the start off its CPUs.

Needs the scheduler's own account of throttling (Linux 6.6 and later); for advice on GOMAXPROCS, also the cgroup's
quota at the end of the start and the number of Ps that the runtime made. Reported if throttling takes at least 3 % of
the start and 0.5 ms. The gain is that time, measured: what a larger limit saves. GOMAXPROCS is mentioned if it is
larger than the quota, rounded up: threads that run at once then use up the quota early in each period. How much of
the gain a smaller GOMAXPROCS would bring is unknown until it is tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gotrace.advice.finding import BY_ITSELF, Finding
from gotrace.advice.starts import Seen, exact
from gotrace.analysis.timeline import throttled_ns


def find(seen: Seen) -> Iterator[Finding]:
    known = [throttled for start in seen.starts if (throttled := throttled_ns(start)) is not None]
    if len(known) < len(seen.starts):
        return
    gain = exact(known, seen.total_ns)
    if not seen.is_worth(gain):
        return
    pairs = zip((code.maxprocs for code in seen.code), seen.quotas, strict=False)
    larger = [(procs, cpus) for procs, cpus in pairs if procs and cpus is not None and procs > math.ceil(cpus)]
    evidence = ["throttling of its cgroup while its threads were runnable, from the scheduler's own accounting"]
    mend = "Raise the CPU limit for the start."
    if larger and len(larger) == len(seen.starts):
        procs, cpus = larger[-1]
        evidence.append(f"the runtime made {procs} Ps (GOMAXPROCS), but the quota is {cpus:g} CPUs")
        wanted = max(1, math.ceil(cpus))
        mend = f"Raise the CPU limit for the start, or try GOMAXPROCS={wanted}; {BY_ITSELF}."
    yield Finding(
        rule="quota",
        title=f"The CPU quota throttles the start: {seen.gain_of(gain)}",
        evidence=tuple(evidence),
        gain=gain,
        mend=mend,
        check=seen.check("raise the limit"),
        excluded="Waiting for CPUs held by others, and blocking, are counted separately.",
    )

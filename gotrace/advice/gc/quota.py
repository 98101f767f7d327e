"""A CPU quota throttles a program whose GOMAXPROCS is larger than the quota.

Needs the quota of the process's cgroup, how long it was throttled while it was traced, and the runtime's GOMAXPROCS.
Reported if GOMAXPROCS is larger than the quota, rounded up, and tasks were throttled for at least 1 % of the time.
How much of that would go away is unknown until it is tried: the gain is anything from nothing to all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gotrace.advice.finding import BY_ITSELF, Finding, Gain
from gotrace.advice.running import SECOND, Seen
from gotrace.text import duration_text

_LEAST = 0.01


def find(seen: Seen) -> Iterator[Finding]:
    quota, procs = seen.quota, seen.slices.maxprocs
    if quota is None or quota.cpus is None or procs <= math.ceil(quota.cpus):
        return
    throttled = quota.throttled_ns * SECOND / seen.duration_ns
    if throttled < _LEAST * SECOND:
        return
    wanted = max(1, math.ceil(quota.cpus))
    yield Finding(
        rule="quota",
        title=f"GOMAXPROCS is {procs}, and the CPU quota {quota.cpus:g} CPUs: its threads are throttled "
        f"for {duration_text(throttled)} per second in total",
        evidence=("the kernel's accounting of the cgroup during tracing", f"GOMAXPROCS {procs}, of the last cycle"),
        gain=Gain(
            throttled, 0.0, throttled, "ns/s", throttled / SECOND, "measured once; how much of it would go away is unknown"
        ),
        mend=f"GOMAXPROCS={wanted}, or raise the limit; {BY_ITSELF}.",
        check=seen.check(f"with GOMAXPROCS={wanted}"),
        excluded="Waiting for CPUs held by others is not throttling, and not counted.",
    )

"""A CPU quota keeps the start off its CPUs.

Needs the scheduler's own account of throttling (Linux 6.6 and later). Speaks where it comes to 3 % of the start and 0.5
ms. The gain is that time, measured. Go from 1.25 on sets GOMAXPROCS by the quota itself; an older one does not, which
is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, exact
from gotrace.analysis.timeline import throttled_ns


def find(seen: Seen) -> Iterator[Finding]:
    known = [throttled for start in seen.starts if (throttled := throttled_ns(start)) is not None]
    if len(known) < len(seen.starts):
        return
    gain = exact(known, seen.total_ns)
    if not seen.is_worth(gain):
        return
    version = re.match(r"go1\.(\d+)", seen.go_version)
    old = version is not None and int(version[1]) < 25
    yield Finding(
        rule="quota",
        title=f"The CPU quota keeps the start off its CPUs: {seen.gain_of(gain)}",
        evidence=("the scheduler's own account of its cgroup's throttling, while its threads could have run",),
        gain=gain,
        mend="Raise the CPU limit for the start"
        + (f"; {seen.go_version} sets GOMAXPROCS by the machine: set it to the quota." if old else "."),
        check=seen.check("raise the limit"),
        excluded="Waiting for CPUs that others had, and being blocked, are counted apart.",
    )

"""Automatic NUMA balancing makes pages inaccessible to learn who uses them, which causes hinting faults.

Needs each page fault, and the statistics that balancing keeps of a thread: a fault that changes them is a hinting fault.
Reported if these take at least 2 % of the process's CPU time: the CPU time of the same program varies by about that much
from run to run, so a smaller gain could not be checked. The gain is the time from the beginning of each to its end,
measured; faults in which the thread lost its CPU are left out. On a machine with one memory node, that is what balancing
costs. If there are several, and pages were moved, accesses to them may have become faster: how much that is worth is
unknown, so the gain begins at 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gotrace.advice.finding import Finding, gain_text
from gotrace.advice.running import SECOND, Hints, Seen, lost_cpu
from gotrace.analysis.gc_slices import HINTING
from gotrace.text import count_text, duration_text

_LEAST, _LEAST_COUNT = 0.02, 100


def find(seen: Seen) -> Iterator[Finding]:
    hints, gain = seen.hints, seen.of_cpu_time(HINTING)
    if hints is None or gain.share < _LEAST or hints.taken.kept < _LEAST_COUNT:
        return
    taken, one = hints.taken, len(hints.nodes) == 1
    if not one and taken.moved:
        gain = replace(gain, low=0.0)
    yield Finding(
        rule="hinting faults",
        title=f"Automatic NUMA balancing provokes page faults, which take {gain_text(gain)}, {gain.share:.0%} of the "
        "process's CPU time",
        evidence=(
            f"{count_text(taken.kept, 'hinting fault')} in {seen.duration_ns / SECOND:.1f} s, "
            f"of {duration_text(taken.kept_ns / taken.kept)} on average, {gain.basis}",
            *_nodes(hints),
            *lost_cpu(taken),
        ),
        gain=gain,
        mend="sysctl kernel.numa_balancing=0: with one memory node it has nothing to gain."
        if one
        else "Bind the process to the nodes whose memory it uses (numactl), which exempts that memory from balancing; "
        "gotrace numa shows which these are.",
        check="gotrace gc --advise --pid PID -d 30s before and after: compare the hinting faults",
        excluded="Only faults that the kernel added to its statistics of balancing for that thread count.",
    )


def _nodes(hints: Hints) -> Iterator[str]:
    """Where the pages were."""
    if len(hints.nodes) == 1:
        yield "the machine has one memory node: there is no other to move pages to"
        return
    known = hints.faults[:, :-1]
    if known.sum():
        remote = known.sum(axis=0) - np.diag(known)
        where = ", ".join(
            f"{count:,} on node {node}" for node, count in zip(hints.nodes, remote.tolist(), strict=True) if count
        )
        yield f"of {count_text(int(known.sum()), 'page')} looked up, on another node than the thread: {where or 'none'}"
    yield f"balancing moved {count_text(hints.taken.moved, 'page')} in them"

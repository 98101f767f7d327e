"""What a load tool took of the CPUs: where its own threads had no time left, latency and throughput are the tool's."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Collection, Sequence
from typing import Annotated, Any, TypedDict

from gotrace.errors import GotraceError
from gotrace.kernel.cpus import ThreadTurns
from gotrace.kernel.host import online_cpus, text_of
from gotrace.lab.children import Group
from gotrace.text import percent_text

_EVERY_S = 0.5
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
# Of the time of its threads. One that is never idle is not waiting for answers: they wait for it.
MOST_BUSY = 0.95
MOST_WAITED = 0.1


class LoadCpu(TypedDict):
    """The CPU time of a load tool while it ran."""

    length_ns: int
    cpus: Annotated[int, "that it may use"]
    threads: Annotated[int | None, "that make the load; null: not known"]
    cpu_ns: Annotated[int, "with that of the processes that it has waited for"]
    waited_ns: Annotated[int, "for how long its threads could have run and had no CPU, added up; at least"]


class Loading(Group):
    """A load that runs. It is known what it took as soon as it was waited for, for as long as that took."""

    used: LoadCpu | None = None

    def __init__(self, command: Sequence[str], cpus: Collection[int], threads: int | None, **options: Any) -> None:
        self._begin_ns = time.monotonic_ns()
        super().__init__(command, cpus, **options)
        self._cpus, self._threads = len(cpus or online_cpus()), threads

    def wait(self, timeout: float | None = None) -> int:
        if timeout is None and self.returncode is None and self.used is None:
            with contextlib.suppress(GotraceError, OSError, ValueError, IndexError):
                self._watch()
        return super().wait(timeout)

    def _watch(self) -> None:
        """Until it has ended, and still has its number."""
        turns, waited_ns = ThreadTurns(self.pid), 0
        with contextlib.closing(os.fdopen(os.pidfd_open(self.pid))) as process:
            while not select.select([process], [], [], _EVERY_S)[0]:
                waited_ns = turns.total()[0].waited_ns
        length_ns = time.monotonic_ns() - self._begin_ns
        # utime to cstime of proc_pid_stat(5), which a zombie has, too
        ticks = text_of("/proc", str(self.pid), "stat").rpartition(")")[2].split()[11:15]
        self.used = {
            "length_ns": length_ns,
            "cpus": self._cpus,
            "threads": self._threads,
            "cpu_ns": sum(map(int, ticks)) * _TICK_NS,
            "waited_ns": waited_ns,
        }


def judged(used: LoadCpu | None) -> tuple[list[str], list[str]]:
    """Why a run with such a load does not count, and what else is to be known of it."""
    if used is None:
        return [], []
    threads = used["threads"] or used["cpus"]
    busy = used["cpu_ns"] / (used["length_ns"] * min(threads, used["cpus"]))
    ran, waited = (used[name] / (used["length_ns"] * threads) for name in ("cpu_ns", "waited_ns"))
    if busy >= MOST_BUSY or (used["threads"] is not None and ran + waited >= MOST_BUSY):
        told = f"its threads ran for {percent_text(ran)} of the time and waited for a CPU for {percent_text(waited)}"
        return [f"the load tool was saturated ({told}): latency and throughput are its own"], []
    if waited >= MOST_WAITED:
        return [], [
            "the load tool waited for a CPU for more than a tenth of the time, which latencies include: separate it"
            " from the service with --cpus and --load-cpus"
        ]
    return [], []

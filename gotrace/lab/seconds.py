"""What a service does from second to second, and whether it does so evenly: has it warmed up?

CPU time, allocated bytes, GC cycles and the live heap, by counters that the kernel and the runtime keep anyway: a few
hundred bytes are read each second. RSS is not among them: its growth is a result, not a sign of a start.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypedDict

from gotrace.analysis.stats.warmup import SETTLED, Kind, Warmup, classify, worst
from gotrace.errors import TargetError
from gotrace.records.schema import OneOf
from gotrace.runtime.looker import Looker

if TYPE_CHECKING:
    from gotrace.kernel.process import Process

SECOND = 1_000_000_000
LEAST_SECONDS, LEAST_CYCLES = 20, 5  # of a warm-up that ends by itself
MOST_NS = 180 * SECOND
_KINDS = ("flat", "warmed up", "slowing down", "no steady state", None)
_CPU_CLOCK = 2  # CPUCLOCK_SCHED of include/linux/posix-timers_types.h


class Series(TypedDict):
    """One value for each second."""

    kind: Annotated[str | None, OneOf(_KINDS)]
    steady_from: Annotated[int | None, "the first second of the last state"]
    values: list[float]


class Course(TypedDict):
    """Second by second; null: fewer than 15 seconds, in which no state can be told."""

    kind: Annotated[str | None, OneOf(_KINDS)]
    steady_from: Annotated[int | None, "the first second in which all of them are in their last state; null: never"]
    cpu: Annotated[Series, "CPUs used by the process"]
    allocated: Annotated[Series, "bytes per second"]
    gc_cycles: Annotated[Series, "per second"]
    live_heap: Annotated[Series, "bytes that the last GC cycle left alive"]


NAMES: Mapping[str, str] = {
    "cpu": "CPU time",
    "allocated": "allocation",
    "gc_cycles": "GC cycles",
    "live_heap": "the live heap",
}
# Whether less is better. A closed loop asks as fast as it is answered: what is allocated follows the rate of answers, and
# says more of it than of their cost. The live heap is neither.
_LESS_IS_BETTER: Mapping[str, Mapping[str, bool | None]] = {
    "open": {"cpu": True, "allocated": True, "gc_cycles": True, "live_heap": None},
    "closed": {"cpu": None, "allocated": False, "gc_cycles": None, "live_heap": None},
}


class Seconds:
    """Counts of one process. Raises TargetError or BinaryError where its runtime's counters cannot be found."""

    def __init__(self, process: Process) -> None:
        self._counters = Looker(process).reader.counters
        self._clock = ~process.pid << 3 | _CPU_CLOCK
        self._pid = process.pid
        self.begin()

    def begin(self) -> None:
        """Now the first second begins."""
        self._first = self._last = self._read()
        self._due_ns = self._last[0] + SECOND
        self.cycles = 0
        self.values: dict[str, list[float]] = {name: [] for name in NAMES}

    def look(self) -> bool:
        """To be called often: whether another second is over, of which the values are there now. Raises TargetError."""
        now = time.monotonic_ns()
        if now < self._due_ns:
            return False
        self._due_ns += (now - self._due_ns) // SECOND * SECOND + SECOND  # one that comes late makes the next not shorter
        new, old = self._read(), self._last
        passed_s = (new[0] - old[0]) / SECOND
        found = {
            "cpu": (new[1] - old[1]) / SECOND / passed_s,
            "allocated": (new[2] - old[2]) / passed_s,
            "gc_cycles": (new[3] - old[3]) / passed_s,
            "live_heap": float(new[4]),
        }
        for name, value in found.items():
            self.values[name] += [value] * max(1, round(passed_s))  # else later seconds would be taken for earlier ones
        self.cycles += new[3] - old[3]
        self._last = new
        return True

    def allocated(self) -> int | None:
        """Bytes since it began; None: the process is gone, or its runtime's count is not known."""
        total = None
        with contextlib.suppress(TargetError):
            total = self._counters().total_alloc
        return None if total is None else total - self._first[2]

    def _read(self) -> tuple[int, int, int, int, int]:
        counters = self._counters()
        try:
            cpu_ns = time.clock_gettime_ns(self._clock)
        except OSError:
            raise TargetError(f"process {self._pid} has exited", "give the pid of a running Go program") from None
        return time.monotonic_ns(), cpu_ns, counters.total_alloc or 0, counters.num_gc, counters.heap_marked

    def course(self, model: str = "closed") -> Course:
        """What they come to; ``model`` is that of the load."""
        return course(self.values, model)

    def why_not_steady(self) -> str:
        """What is missing to a warm-up that may end; "" if nothing is."""
        if len(self.values["cpu"]) < LEAST_SECONDS:
            return f"fewer than {LEAST_SECONDS} seconds"
        if self.cycles < LEAST_CYCLES:
            return f"fewer than {LEAST_CYCLES} GC cycles"
        return unsteady(self.course())


def course(values: Mapping[str, list[float]], model: str = "closed") -> Course:
    """Values of each second, by `NAMES`."""
    better = _LESS_IS_BETTER.get(model, _LESS_IS_BETTER["closed"])
    enough = len(values["cpu"]) >= SETTLED
    found: dict[str, Warmup] = {}
    for name in NAMES if enough else ():
        found[name] = classify(values[name], lower_is_better=better[name])
    kind: Kind | None = None
    steady_from = None
    if enough:
        kind, steady_from = worst(found.values())
    series = {
        name: {
            "kind": found[name].kind if enough else None,
            "steady_from": found[name].steady_from if enough else None,
            "values": [float(f"{value:.6g}") for value in values[name]],
        }
        for name in NAMES
    }
    return {"kind": kind, "steady_from": steady_from, **series}  # type: ignore[typeddict-item]


def unsteady(found: Course) -> str:
    """What still changed in the last 15 seconds; "" if nothing did."""
    names = [said for name, said in NAMES.items() if found[name]["kind"] == "no steady state"]  # type: ignore[literal-required]
    return f"{' and '.join(names)} changed in the last {SETTLED} s" if names else ""


def note(found: Course) -> str:
    """What is to be known of a measured time of such a course; "" if it was even, or too short to tell."""
    kind, since = found["kind"], found["steady_from"]
    if kind == "no steady state":
        return f"no steady state during the measurement: {unsteady(found)}"
    if kind in (None, "flat"):
        return ""
    names = [said for name, said in NAMES.items() if found[name]["kind"] == kind]  # type: ignore[literal-required]
    what = " and ".join(names)
    if kind == "warmed up":
        return (
            f"it warmed up during the measurement, and was steady from second {since} on ({what}): use a longer --preload, "
            "or --preload auto"
        )
    return (
        f"it slowed down during the measurement: a different state, and not a better one, from second {since} on ({what})"
    )

"""`--advise` for a process at work: what the rules are given of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gotrace.advice.finding import Advice, advice
from gotrace.advice.running import ENOUGH_SECONDS, SECOND, Caller, Quota, Seen, first_line
from gotrace.analysis.causes import Explainer
from gotrace.analysis.gc_slices import Slices
from gotrace.analysis.gc_summary import GcSummary
from gotrace.analysis.pauses import Batch
from gotrace.errors import GotraceError
from gotrace.kernel.cgroup import cpu_group
from gotrace.views.view import Record, Source

_FORCED = ("runtime.GC", "runtime/debug.freeOSMemory", "runtime/debug.FreeOSMemory")
NOT_SEEN = (
    "NUMA placement (gotrace numa), huge pages (gotrace tlb), and which pools are filled again after each collection",
)


class Advisor:
    """Adds up what is asked for at the end; the kernel's account of a CPU quota is asked as the process runs."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._slices = Slices(source.begin_ns)
        self._quotas: list[Record] = []
        self._due_ns = 0

    def add(self, batch: Batch, reasons: Sequence[str]) -> None:
        """A portion of what happened."""
        self._slices.add(batch, reasons)
        due = self._source.now_ns >= self._due_ns or self._source.last
        found = self._source.ask("cpu_quota", self._quota, due)
        if found is not None:
            self._due_ns = self._source.now_ns + 1_000_000_000
            self._quotas = [*self._quotas[:1], found]

    def _quota(self) -> Record | None:
        try:
            group = cpu_group(self._source.process.pid)
        except GotraceError:
            return None
        return {"cpus": group.quota_cpus, "throttled_ns": group.throttled_ns}

    def of(self, total: GcSummary, duration_ns: int, explainer: Explainer | None, reasons: Sequence[str]) -> Advice:
        """What the rules find."""
        callers = _callers(explainer, reasons) if explainer is not None else []
        quota, not_seen = None, list(NOT_SEEN)
        if self._quotas:
            first, last = self._quotas[0], self._quotas[-1]
            quota = Quota(last["cpus"], last["throttled_ns"] - first["throttled_ns"])
        else:
            not_seen.append("the CPU quota of its cgroup")
        if duration_ns < ENOUGH_SECONDS * SECOND:
            not_seen.append(f"how much seconds differ: of fewer than {ENOUGH_SECONDS} no gain has an interval")
        if self._source.lost:
            not_seen.append(f"{self._source.lost} events that were lost")
        go_version = self._source.header["target"]["go_version"]
        return advice("gc", Seen(duration_ns, self._slices, total.pacing, callers, quota, go_version), not_seen)


def _callers(explainer: Explainer, reasons: Sequence[str]) -> list[Caller]:
    found: Counter[tuple[str, str, str, int, bool]] = Counter()
    for (reason, stack), count in explainer.callers.items():
        frames = explainer.stacks.frames(stack)
        forced = any(frame.function in _FORCED for frame in frames)
        function, file, line = first_line(frames)
        found[reasons[reason], function, file, line, forced] += count
    return [Caller(*key[:4], count, key[4]) for key, count in found.items()]

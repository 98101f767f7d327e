"""`--advise` for a process at work: what the rules are given of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gotrace.advice.finding import Advice, advice
from gotrace.advice.running import ENOUGH_SECONDS, SECOND, Caller, Payer, Quota, Refilled, Seen, first_line
from gotrace.analysis.assists import Paid, Payers
from gotrace.analysis.causes import Explainer
from gotrace.analysis.gc_slices import Slices
from gotrace.analysis.gc_summary import GcSummary
from gotrace.analysis.pauses import Batch
from gotrace.analysis.pools import Pools
from gotrace.analysis.stacks import StackTable
from gotrace.errors import GotraceError
from gotrace.kernel.cgroup import cpu_group
from gotrace.text import count_text
from gotrace.views.view import Record, Source

if TYPE_CHECKING:
    from gotrace.kernel.ring import Events

_FORCED = ("runtime.GC", "runtime/debug.freeOSMemory", "runtime/debug.FreeOSMemory")
_POOL = ("sync.",)
NOT_SEEN = ("NUMA placement (gotrace numa), huge pages (gotrace tlb)",)


class Advisor:
    """Adds up what is asked for at the end; the kernel's account of a CPU quota is asked as the process runs."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._slices = Slices(source.begin_ns)
        self._throttled_before: int | None = None
        self._throttled: Record | None = None
        self._due_ns = 0
        self._payers: Payers | None = None
        if "assist" in source.header["probes"]:
            kinds = source.kinds("assist")
            self._payers = Payers(kinds)
            self._stacks = StackTable(kinds.numbers("stack") if "stack" in kinds else (), source.frames)
        self._pools: Pools | None = None
        if "pool" in source.header["probes"]:
            kinds = source.kinds("pool")
            self._pools = Pools(kinds)
            self._pool_stacks = StackTable(kinds.numbers("stack"), source.frames)
            self._refills: dict[tuple[int, int], list[int]] = {}  # by (pool, stack): how many, and bytes
        self.look()

    def add(self, events: Events, batch: Batch, reasons: Sequence[str]) -> None:
        """A portion of what happened."""
        self._slices.add(batch, reasons)
        if self._payers is not None:
            self._stacks.feed(events)
            self._slices.add_held(self._payers.add(events))
        if self._pools is not None:
            self._pool_stacks.feed(events)
            refills = self._pools.add(events)
            self._slices.add_refills(refills)
            for each in refills:
                sums = self._refills.setdefault((int(each["pool"]), int(each["stack"])), [0, 0])
                sums[0] += 1
                sums[1] += int(each["object_bytes"])

    def look(self) -> None:
        """Whatever happened: a quota may have kept everything from it."""
        due = self._source.now_ns >= self._due_ns or self._source.last
        found = self._source.ask("throttled", self._quota, due)
        if found is not None:
            self._due_ns = self._source.now_ns + 1_000_000_000
            self._throttled = found

    def _quota(self) -> Record | None:
        try:
            group = cpu_group(self._source.process.pid)
        except GotraceError:
            return None
        if self._throttled_before is None:
            self._throttled_before = group.throttled_ns
        return {"cpus": group.quota_cpus, "throttled_ns": group.throttled_ns - self._throttled_before}

    def of(self, total: GcSummary, duration_ns: int, explainer: Explainer | None, reasons: Sequence[str]) -> Advice:
        """What the rules find."""
        callers = _callers(explainer, reasons) if explainer is not None else []
        quota, not_seen = None, list(NOT_SEEN)
        if self._throttled is not None:
            quota = Quota(self._throttled["cpus"], self._throttled["throttled_ns"])
        else:
            not_seen.append("the CPU quota of its cgroup")
        if duration_ns < ENOUGH_SECONDS * SECOND:
            not_seen.append(f"how much seconds vary: with fewer than {ENOUGH_SECONDS}, gains have no interval")
        assist = self._source.header["probes"].get("assist")
        if assist is None or any(item["name"] == "mark assists" for item in assist["missing"]):
            not_seen.append("which goroutines mark assists hold up")
        pool = self._source.header["probes"].get("pool")
        if pool is None or any(item["name"] == "pools" for item in pool["missing"]):
            not_seen.append("which pools are filled again after collections")
        elif self._pools is not None and self._pools.unfinished:
            not_seen.append(f"all pools at {count_text(self._pools.unfinished, 'collection')}")
        if self._source.lost:
            not_seen.append(f"{self._source.lost} lost events")
        go_version = self._source.header["target"]["go_version"]
        seen = Seen(duration_ns, self._slices, total.pacing, callers, quota, go_version, self._by_line(), self._refilled())
        return advice("gc", seen, not_seen)

    def _by_line(self) -> list[Payer]:
        """Who pays for mark assists, by line."""
        if self._payers is None:
            return []
        found: dict[tuple[str, str, int], dict[tuple[int, int], Paid]] = {}
        for (stack, goid), paid in self._payers.paid.items():
            found.setdefault(first_line(self._stacks.frames(stack)), {})[stack, goid] = paid
        out = []
        for line, those in found.items():
            held: Counter[int] = Counter()
            for (_, goid), paid in those.items():
                held[goid] += paid.held_ns
            stacks = tuple(str(stack) for stack in sorted({stack for stack, _ in those}))
            count, parked = (sum(getattr(paid, what) for paid in those.values()) for what in ("count", "parked_ns"))
            out.append(Payer(*line, stacks, count, held.total(), parked, held))
        return out

    def _refilled(self) -> list[Refilled]:
        """Which lines had to have objects made anew, of whichever of their pools: one for each size, for example."""
        found: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
        if self._pools is None:
            return []
        for key in self._refills:
            found.setdefault(first_line(self._pool_stacks.frames(key[1]), _POOL), []).append(key)
        out = []
        for line, keys in found.items():
            count, size = (sum(self._refills[key][what] for key in keys) for what in (0, 1))
            stacks, pools = tuple(sorted({str(stack) for _, stack in keys})), {pool for pool, _ in keys}
            dropped, kept = (sum(of.get(pool, 0) for pool in pools) for of in (self._pools.dropped, self._pools.most_kept))
            collections = max(self._pools.collections.get(pool, 0) for pool in pools)
            out.append(Refilled(*line, stacks, count, size, dropped, collections, kept, len(pools)))
        return out


def _callers(explainer: Explainer, reasons: Sequence[str]) -> list[Caller]:
    found: Counter[tuple[str, str, str, int, bool]] = Counter()
    for (reason, stack), count in explainer.callers.items():
        frames = explainer.stacks.frames(stack)
        forced = any(frame.function in _FORCED for frame in frames)
        function, file, line = first_line(frames)
        found[reasons[reason], function, file, line, forced] += count
    return [Caller(*key[:4], count, key[4]) for key, count in found.items()]

"""`--advise` for a process at work: what the rules are given of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.advice.finding import Advice, advice
from gotrace.advice.running import (
    ALLOCATION,
    BACKGROUND,
    ENOUGH_SECONDS,
    FREED,
    SECOND,
    UNKNOWN,
    Caller,
    Hints,
    HugePages,
    Payer,
    Quota,
    Refilled,
    Returned,
    Seen,
    first_line,
)
from gotrace.analysis.assists import Paid, Payers
from gotrace.analysis.causes import Explainer
from gotrace.analysis.columns import Array
from gotrace.analysis.gc_slices import HINTING, REFAULTS, Slices
from gotrace.analysis.gc_summary import GcSummary
from gotrace.analysis.pauses import Batch
from gotrace.analysis.placement import matrix
from gotrace.analysis.pools import Pools
from gotrace.analysis.refaults import Refaults, Taken
from gotrace.analysis.stacks import StackTable
from gotrace.errors import GotraceError
from gotrace.kernel import huge_pages, numa
from gotrace.kernel.cgroup import cpu_group
from gotrace.kernel.cpus import cpu_ns
from gotrace.kernel.memory import PAGE, Memory
from gotrace.text import bytes_text, count_text, duration_text
from gotrace.views.view import Record, Source

if TYPE_CHECKING:
    from gotrace.kernel.ring import Events

PROBES = ("assist", "pool", "refaults")  # what it is fed, if they are there
OF_ONE = frozenset({"refaults"})  # those of them that follow one process only
_FORCED = ("runtime.GC", "runtime/debug.freeOSMemory", "runtime/debug.FreeOSMemory")
_POOL = ("sync.",)
_FREED, _BACKGROUND = ("runtime/debug.freeOSMemory", "runtime/debug.FreeOSMemory"), "runtime.bgscavenge"
_ALLOCATES = "runtime.(*mheap).alloc"
_LOOK_UP, _ENOUGH = 32, 256  # pages a time, and in all
_SELDOM = 200  # a look at huge pages may take this part of the time: the target may have to wait for it
NOT_SEEN = ("how much remote memory costs (gotrace numa), TLB misses (gotrace tlb)",)


class Advisor:
    """Adds up what is asked for at the end; the kernel's account of a CPU quota is asked as the process runs."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._slices = Slices(source.begin_ns)
        self._throttled_before: int | None = None
        self._throttled: Record | None = None
        self._due_ns = 0
        self._blocked_ns = 0
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
        self._refaults: Refaults | None = None
        self._huge, self._sizes_due_ns, self._hints_due_ns = HugePages(), 0, 0
        self._hints: tuple[list[int], list[list[int]]] | None = None  # as of `_placed`
        self._cpu_before: tuple[int, int] | None = None
        self._cpu = (0, 0)  # as of `_used`
        if "refaults" in source.header["probes"]:
            kinds = source.kinds("refaults")
            self._refaults = Refaults(kinds)
            self._return_stacks = StackTable(kinds.numbers("stack"), source.frames)
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

        if self._refaults is not None:
            self._return_stacks.feed(events)
            refaults, hinting = self._refaults.add(events)
            self._slices.add_faults(REFAULTS, refaults)
            self._slices.add_faults(HINTING, hinting)
            self._look_up(refaults, hinting)

    def _look_up(self, refaults: Array, hinting: Array) -> None:
        """Of some of the pages that were faulted in: how large they are, and on which nodes. Answers are of all so far."""
        source = self._source
        due = len(refaults) > 0 and source.now_ns >= self._sizes_due_ns and self._huge.looked_at < _ENOUGH
        began_ns = time.monotonic_ns()
        sizes = source.ask("sizes of pages", lambda: self._sizes(refaults["address"]), due)
        if due:
            took_ns = time.monotonic_ns() - began_ns  # little, where none of the pages is there any more
            self._sizes_due_ns = source.now_ns + max(0 if sizes is None else 1_000_000_000, _SELDOM * took_ns)
        if sizes is not None:
            self._huge = HugePages(*sizes)
        due = len(hinting) > 0 and (self._hints is None or len(self._hints[0]) > 1 and source.now_ns >= self._hints_due_ns)
        self._hints = source.ask("nodes of hinting faults", lambda: self._placed(hinting), due) or self._hints
        if due:
            self._hints_due_ns = source.now_ns + 1_000_000_000

    @cached_property
    def _memory(self) -> Memory:
        """Of a process that is there: a recording has none."""
        return Memory(self._source.process.pid)

    def _sizes(self, addresses: Array) -> list[Any] | None:
        """`HugePages`, as JSON has it; None where the kernel does not say."""
        pid, some = self._source.process.pid, np.unique(addresses)[:_LOOK_UP].tolist()
        try:
            setting, found = huge_pages.setting(), self._memory.mapped_huge(some)
        except GotraceError:  # root was given back, and the process is another user's
            return None
        may = huge_pages.eligible(pid, [*found]) if found else None
        if setting is None or found is None or may is None:
            return None
        counts = [self._huge.looked_at + len(found), self._huge.huge + sum(found.values()), self._huge.eligible + may[0]]
        flags = " ".join(sorted({*self._huge.flags.split(), *may[1].split()}))
        return [*counts, setting.enabled, setting.defrag, flags]

    def _placed(self, faults: Array) -> tuple[list[int], list[list[int]]]:
        """The memory nodes, and how many of some faults were on which node's CPUs for a page of which."""
        topology = numa.topology()
        faults = faults[np.unique(faults["address"], return_index=True)[1][:_LOOK_UP]]
        cpus = np.array([topology.cpus.get(cpu, numa.UNKNOWN) for cpu in faults["cpu"].tolist()], np.int64)
        try:
            frames = self._memory.frames(faults["address"].astype(np.int64))
        except GotraceError:  # likewise
            frames = np.zeros(len(faults), np.uint64)
        pages = topology.node_of_frames(frames, PAGE)
        found = matrix(cpus, pages, topology.nodes)
        return list(topology.nodes), (found if self._hints is None else found + self._hints[1]).tolist()

    def look(self) -> None:
        """Whatever happened: a quota may have kept everything from it."""
        due = self._source.now_ns >= self._due_ns or self._source.last
        found = self._source.ask("throttled", self._quota, due)
        if found is not None:
            self._due_ns = self._source.now_ns + 1_000_000_000
            self._throttled = found
        used = self._source.ask("CPU time", self._used, due)
        if used is not None:
            self._cpu = used
        blocked_ns = self._source.ask("output blocked", self._source.blocked_ns, self._source.last, of_host=True)
        if blocked_ns is not None:
            self._blocked_ns = blocked_ns

    def _used(self) -> tuple[int, int] | None:
        """Since the first time: how long that is, and the process's CPU time."""
        try:
            now = time.monotonic_ns(), cpu_ns(self._source.process.pid)
        except GotraceError:
            return None
        if self._cpu_before is None:
            self._cpu_before = now
        return now[0] - self._cpu_before[0], now[1] - self._cpu_before[1]

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
        refaults = self._source.header["probes"].get("refaults")
        if refaults is None or any(item["name"] == "returned memory" for item in refaults["missing"]):
            not_seen.append("page faults of returned memory")
        elif self._refaults is not None:
            if not self._cpu[0]:
                not_seen.append("which share of its CPU time page faults take")
            if self._refaults.unfollowed:
                not_seen.append(f"page faults of {bytes_text(self._refaults.unfollowed)} that were returned")
        if self._blocked_ns:
            not_seen.append(f"samples from the {duration_text(self._blocked_ns)} for which writing output was blocked")
        if self._source.lost:
            not_seen.append(f"{self._source.lost} lost events")
        go_version = self._source.header["target"]["go_version"]
        hints = None
        if self._refaults is not None and self._hints is not None:
            hints = Hints(self._refaults.hinting, self._hints[0], np.array(self._hints[1]))
        seen = Seen(
            duration_ns,
            self._slices,
            total.pacing,
            callers,
            quota,
            go_version,
            self._by_line(),
            self._refilled(),
            self._cpu[1] * SECOND / self._cpu[0] if self._cpu[0] else None,
            self._returned(),
            self._huge,
            hints,
        )
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

    def _returned(self) -> list[Returned]:
        """Who returned memory, and how it was taken again."""
        found: dict[tuple[str, str, str, int], list[int]] = {}
        if self._refaults is None:
            return []
        for stack in self._refaults.of:
            frames = self._return_stacks.frames(stack)
            functions = [frame.function for frame in frames]
            who, line = UNKNOWN, ("", "", 0)
            if any(function in _FREED for function in functions):
                who, line = FREED, first_line(frames)
            elif any(function.startswith(_BACKGROUND) for function in functions):
                who = BACKGROUND
            elif any(function.startswith(_ALLOCATES) for function in functions):
                who = ALLOCATION
            found.setdefault((who, *line), []).append(stack)
        out = []
        for key, stacks in found.items():
            taken = sum((self._refaults.of[stack] for stack in stacks), Taken())
            size = sum(self._refaults.returned.get(stack, 0) for stack in stacks)
            out.append(Returned(*key, tuple(map(str, sorted(stacks))), size, taken))
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

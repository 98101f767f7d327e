"""Page faults, threads and Ps by memory node over time, and where the memory lies at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gotrace.analysis.counted import SUMS, counter_of, scaled, whole
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.placement import (
    SPANS,
    UNKNOWN,
    Evidence,
    Moves,
    advice,
    by_part,
    local_and_remote,
    matrix,
    remote_share,
    things_by_node,
)
from gotrace.errors import GotraceError, TargetError
from gotrace.export.hdr_log import tag
from gotrace.kernel import numa
from gotrace.kernel.bpf import RAW_TRACEPOINT
from gotrace.kernel.memory import PAGE, Memory
from gotrace.probes.faults import HINTING, MAJOR, MINOR
from gotrace.records.times import Moment, moment
from gotrace.records.watched import statistics
from gotrace.text import duration_text
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_BIG = 1 << 20  # mappings whose policy is advised by, and a heap that advice is given about
_SECOND = 1_000_000_000
_RARELY = 100  # a look at every page is repeated after this many times its own length
# Reading numa_maps blocks the process's mmap calls: what takes longer is not done every second.
_MAPS_NS = 20_000_000
# event -> what the tracepoint of that name reports
_BALANCING = {"balanced": "sched_move_numa", "swapped": "sched_swap_numa", "stuck": "sched_stick_numa"}


@dataclass
class Seen:
    """What was seen of a process: sums over the whole time. ``faults`` is CPU node x page node, the last column unknown;
    hinting faults are not in it.
    """

    faults: npt.NDArray[np.int64]
    ran_ns: dict[int, int] = field(default_factory=dict)
    minor: Histogram = field(default_factory=Histogram)
    major: Histogram = field(default_factory=Histogram)
    hinting: Histogram = field(default_factory=Histogram)
    threads: Moves = field(default_factory=Moves)
    ps: Moves = field(default_factory=Moves)
    pages_moved: int = 0
    pages_not_moved: int = 0
    balancing: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_BALANCING, 0))

    def totals(self) -> dict[str, int]:
        """What a line shows the increase of."""
        local, remote, unknown = local_and_remote(self.faults)
        return {
            "local": local,
            "remote": remote,
            "unknown": unknown,
            "hinting_faults": self.hinting.count,
            "threads_moved": self.threads.count,
            "pages_moved": self.pages_moved,
            **{f"ran on {node}": ns for node, ns in self.ran_ns.items()},
        }


class Placement(View):
    """Adds up events; the node of a faulted page is asked for as soon as the fault is known.

    Every second, or every ``interval_ns`` if that is shorter, a sample is taken: on which node each P has its thread, how
    many threads had a turn on a CPU of each node end meanwhile, how much memory lies on each. There is a record of what
    was seen in every ``interval_ns`` (0: none).
    """

    name = "numa"

    def __init__(self, interval_ns: int = 0, counting: bool = False) -> None:
        self.stems = ("faults", "tlb") if counting else ("faults",)
        self._counting = counting
        self._counted: dict[tuple[int, int], npt.NDArray[np.float64]] = {}  # counter, node: count, time enabled, counting
        self.interval_ns = interval_ns
        self._period_ns = min(interval_ns or _SECOND, _SECOND)
        self._topology: numa.Topology | None = None
        self.nodes: tuple[int, ...] = ()
        self._cpus: dict[int, int] = {}
        self._distance: list[list[int]] = []
        self.seen = Seen(np.zeros((0, 1), np.int64))
        self._missing: dict[str, str] = {}
        self._turns: list[Events] = []  # since the last sample
        self._series: list[Record] = []
        self._sample_ns = self._line_ns = self._bytes_ns = 0  # when the next is due
        self._placed_ns = self._place_ns = 0  # when that was known last, and when it is looked at again
        self._where: Record | None = None
        self._told_ns = 0  # up to when the records of intervals tell
        self._told: dict[str, int] = {}
        self.result: Record = {}

    @property
    def options(self) -> Record:
        return {"interval_ns": self.interval_ns, "counting": self._counting}

    def _begin(self) -> None:
        source = self.source
        nothing: Record = {"nodes": [0], "cpus": [], "distance": [[10]], "lacks_ps": ""}  # before 0.2.0, if it had exited
        told = source.ask("nodes", self._machine, of_host=True) or nothing
        self.nodes = tuple(told["nodes"])
        self._cpus = dict(told["cpus"])
        self._distance = told["distance"]
        self.seen.faults = np.zeros((len(self.nodes), len(self.nodes) + 1), np.int64)
        for lacking in source.header["probes"]["faults"]["missing"]:
            self._missing[lacking["name"].removeprefix(RAW_TRACEPOINT)] = lacking["reason"]
        if told["lacks_ps"]:
            self._missing["ps"] = told["lacks_ps"]
        self._told_ns = source.begin_ns
        self._sample_ns, self._line_ns = source.begin_ns + self._period_ns, source.begin_ns + self.interval_ns

    def _machine(self) -> Record:
        source = self.source
        self._topology = numa.topology()
        cpus = [list(pair) for pair in self._topology.cpus.items()]
        distance = [list(row) for row in self._topology.distance]
        try:
            lacks = source.books.looker.reader.lacks_processors()
        except GotraceError as error:  # it is gone, or another program by now
            lacks = error.message
        return {"nodes": list(self._topology.nodes), "cpus": cpus, "distance": distance, "lacks_ps": lacks}

    def _nodes_of(self, addresses: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """The node of the page at each address, now."""
        source, topology = self.source, self._topology
        assert topology is not None
        return topology.node_of_frames(Memory(source.process.pid).frames(addresses), PAGE)

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        if not self.nodes:
            self._begin()
        seen, source, kinds = self.seen, self.source, self.source.kinds("faults")
        faults, ran, moved = (kinds.of(events, name) for name in ("fault", "ran_on", "moved_pages"))
        if len(faults):
            self._add_faults(faults)
        self._turns.append(ran)
        lengths = (ran["time_ns"] - ran["begin_ns"]).astype(np.int64)
        for node in np.unique(ran["node"]).tolist():
            seen.ran_ns[node] = seen.ran_ns.get(node, 0) + int(lengths[ran["node"] == node].sum())
        placed = events[np.isin(events["kind"], kinds.numbers("ran_on", "moved_thread"))]
        for kind, time_ns, tid, _, of in kinds.each(placed):
            seen.threads.see(tid, of["node"] if kind == "ran_on" else self._cpus.get(of["to_cpu"], UNKNOWN), time_ns)
        seen.pages_moved += int(moved["succeeded"].sum())
        seen.pages_not_moved += int(moved["failed"].sum())
        for name in _BALANCING:
            seen.balancing[name] += int((events["kind"] == kinds.number(name)).sum())
        if self._counting:
            self._add_counts(source.kinds("tlb").of(events, "counted"))
        if source.now_ns >= self._sample_ns or source.last:
            self._sample_ns = self.next_ns(self._period_ns)
            self._add_sample()
        if not source.last:
            self._place(source.now_ns >= self._place_ns)
        if self.interval_ns and (source.now_ns >= self._line_ns or source.last):
            self._line_ns = self.next_ns(self.interval_ns)
            yield self._interval()

    def _add_counts(self, counted: Events) -> None:
        nodes = np.array([self._cpus.get(cpu, UNKNOWN) for cpu in counted["cpu"].tolist()], np.int64)
        numbers = counter_of(counted)
        for number, node in set(zip(numbers.tolist(), nodes.tolist(), strict=True)):
            mine = counted[(numbers == number) & (nodes == node)]
            sums = np.array([[mine[column].sum()] for column in SUMS], np.float64)
            self._counted[number, node] = self._counted.get((number, node), np.zeros((3, 1))) + sums

    def _accesses(self) -> dict[str, dict[str, int | None]]:
        """What was counted by threads on each node's CPUs; None: never counted."""
        counters = self.source.header["counters"]
        told: dict[str, dict[str, int | None]] = {event: {} for event in counters}
        for number, node in sorted(self._counted):
            told[counters[number]][str(node)] = whole(float(scaled(*self._counted[number, node])[0]))
        return told

    def _add_faults(self, faults: Events) -> None:
        seen = self.seen
        took = (faults["time_ns"] - faults["begin_ns"]).astype(np.int64)
        known = faults["begin_ns"] > 0
        for how, times in ((MINOR, seen.minor), (MAJOR, seen.major), (HINTING, seen.hinting)):
            times.record(took[known & (faults["how"] == how)])
        faults = faults[faults["how"] != HINTING]
        pages = (faults["address"] // np.uint64(PAGE) * np.uint64(PAGE)).astype(np.int64)
        addresses, back = np.unique(pages, return_inverse=True)
        told = self.source.ask("nodes of faulted pages", lambda: self._nodes_of(addresses).tolist())
        unknown = self.nodes[0] if len(self.nodes) == 1 else UNKNOWN
        nodes = np.array(told if told is not None else [unknown] * len(addresses), np.int64)[back]
        seen.faults += matrix(faults["node"].astype(np.int64), nodes, self.nodes)

    def _sampled(self) -> Record:
        """The CPU of each P's thread, None for a P without one; bytes by node; without what is unknown now."""
        source = self.source
        pid = source.process.pid
        told: Record = {}
        if "ps" not in self._missing:
            try:
                ps = source.books.looker.reader.processors()
                cpus = numa.cpus_of_threads(pid, {thread for _, thread in ps if thread})
                told["ps"] = [[number, cpus.get(thread)] for number, thread in ps]
            except TargetError:
                pass  # it has exited, or the list was changed while it was followed
        if "bytes" not in self._missing and source.now_ns >= self._bytes_ns:
            self._bytes_ns = self.next_ns(_SECOND)
            begin = time.thread_time_ns()  # not how long we waited for a CPU meanwhile
            told["bytes"] = [list(pair) for pair in numa.bytes_by_node(pid).items()]
            told["bytes_took_ns"] = time.thread_time_ns() - begin
        return told

    def _add_sample(self) -> None:
        source = self.source
        turns = np.concatenate(self._turns)
        self._turns = []
        sample: Record = {**self._now(), "threads": _by_node(things_by_node(turns["tid"], turns["node"]))}
        told = source.ask("sample", self._sampled) or {}
        if "ps" in told:
            nodes = {number: self._cpus.get(cpu, UNKNOWN) for number, cpu in told["ps"] if cpu is not None}
            for number, node in nodes.items():
                self.seen.ps.see(number, node, source.now_ns)
            counts = {node: list(nodes.values()).count(node) for node in {*self.nodes, *nodes.values()}}
            sample |= {"ps": _by_node(counts), "ps_idle": len(told["ps"]) - len(nodes)}
        if told.get("bytes"):
            sample["bytes"] = _by_node(dict(told["bytes"]))
        took = told.get("bytes_took_ns", 0)
        if took > _MAPS_NS:
            self._missing["bytes"] = f"reading numa_maps took {duration_text(took)}, too long to repeat every second"
        self._series.append(sample)

    def _now(self) -> Moment:
        return moment(self.source.now_ns, self.source.wall_offset_ns)

    def _interval(self) -> Record:
        """What was seen since the last interval; Ps as the last sample has them."""
        seen, now = self.seen, self.source.now_ns
        totals = seen.totals()
        more = {name: total - self._told.get(name, 0) for name, total in totals.items()}
        length = now - self._told_ns
        self._told, self._told_ns = totals, now
        last = self._series[-1] if self._series else {}
        return {
            "type": "numa_interval",
            **self._now(),
            "length_ns": length,
            "faults": {name: more[name] for name in ("local", "remote", "unknown")},
            **{name: more[name] for name in ("hinting_faults", "threads_moved", "pages_moved")},
            "ran_ns": {str(node): more.get(f"ran on {node}", 0) for node in self.nodes},
            **{name: last[name] for name in ("ps", "ps_idle") if name in last},
        }

    def _placed(self) -> Record:
        """Where everything is now; nodes are text, as JSON has them."""
        source, begin = self.source, time.monotonic_ns()
        look = source.books.looker.look()
        pages = look.resident.pages
        parts = by_part(pages, self._nodes_of(pages.address))
        policies: dict[str, int] = {}
        for each in numa.node_bytes(source.process.pid):
            size = sum(each.bytes.values())
            policies[each.policy] = policies.get(each.policy, 0) + size
        memory = {part: _by_node(sizes) for part, sizes in parts.items()}
        if source.process.wait(0):
            raise TargetError(f"process {source.process.pid} has exited", "")  # pages went away while they were looked at
        took = time.monotonic_ns() - begin
        return {"memory": memory, "policies": policies, "balancing": numa.balancing(), "took_ns": took}

    def _place(self, due: bool = True) -> None:
        """Learn where everything is, if it is there: the last time it was is what is known when it has exited."""
        placed = self.source.ask("placement", self._placed, due)
        if placed is not None:
            self._where, self._placed_ns = placed, self.source.now_ns
            self._place_ns = self.source.now_ns + max(_SECOND, _RARELY * placed.get("took_ns", 0))

    def end(self) -> Iterator[Record]:
        self._place()
        self.result = self._record(self._where)
        yield self.result

    def _record(self, placed: Record | None) -> Record:
        """The result as a JSON object; bytes, nanoseconds."""
        known = placed is not None
        placed = placed or {"memory": {}, "policies": {}, "balancing": None}
        seen, nodes, parts, policies = self.seen, self.nodes, placed["memory"], placed["policies"]
        ran = sum(seen.ran_ns.values())
        heap = {int(node): size for node, size in parts.get(SPANS, {}).items()}
        unknown = heap.pop(UNKNOWN, 0)
        total = sum(heap.values())
        evidence = Evidence(
            nodes=len(nodes),
            ran={node: ns / ran for node, ns in seen.ran_ns.items() if ran},
            heap={node: size / total for node, size in heap.items() if total >= max(_BIG, unknown)},
            bound=any(not policy.startswith(("default", "local")) for policy, size in policies.items() if size >= _BIG),
        )
        return {
            "type": self.name,
            "target": self.source.name,
            "watched_ns": self.source.now_ns - self.source.begin_ns,
            "nodes": [
                {
                    "node": node,
                    "cpus": sorted(cpu for cpu, of in self._cpus.items() if of == node),
                    "distance": {str(to): length for to, length in zip(nodes, self._distance[place], strict=False)},
                    "ran_ns": seen.ran_ns.get(node, 0),
                    "bytes": sum(sizes.get(str(node), 0) for sizes in parts.values()) if known else None,
                }
                for place, node in enumerate(nodes)
            ],
            "memory": parts,
            "memory_age_ns": self.source.now_ns - self._placed_ns if known else None,
            "faults": {"rows": list(nodes), "columns": [*nodes, "unknown"], "counts": seen.faults.tolist()},
            "remote_share": remote_share(seen.faults),
            "accesses": self._accesses(),
            "hinting_faults": seen.hinting.count,
            "policies": policies,
            "balancing": placed["balancing"],
            "balancing_threads": {
                name: None if tracepoint in self._missing else seen.balancing[name]
                for name, tracepoint in _BALANCING.items()
            },
            "threads_moved": seen.threads.count,
            "move_gaps": statistics(seen.threads.gaps, (50.0, 99.0)),
            "ps_moved": None if "ps" in self._missing else seen.ps.count,
            "pages_moved": seen.pages_moved,
            "pages_not_moved": seen.pages_not_moved,
            "series": self._series,
            "missing": self._missing,
            "lost": self.source.lost,
            "advice": advice(evidence),
        }

    def histograms(self) -> dict[str, Histogram]:
        seen = self.seen
        kinds = {"minor fault": seen.minor, "major fault": seen.major, "hinting fault": seen.hinting}
        kinds["between moves of a thread"] = seen.threads.gaps
        return {tag(kind): histogram for kind, histogram in kinds.items() if histogram.count}


def _by_node(values: dict[int, int]) -> dict[str, int]:
    """As JSON has it."""
    return {str(node): value for node, value in sorted(values.items())}


VIEW = Placement

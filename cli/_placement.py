"""`gotrace numa`: page faults, threads and Ps by memory node over time, and where the memory lies at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gotrace.analysis.counted import scaled, whole
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
from gotrace.cli._watch import Live, Record, View
from gotrace.errors import TargetError
from gotrace.export.hdr_log import tag
from gotrace.kernel import numa
from gotrace.kernel.bpf import RAW_TRACEPOINT
from gotrace.kernel.memory import PAGE, Memory
from gotrace.probes.faults import HINTING, MAJOR, MINOR
from gotrace.text import bytes_text, duration_text, printable

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_HINTING = "hinting faults, provoked by balancing and not among those above,"
_BIG = 1 << 20  # mappings whose policy is named
_SECOND = 1_000_000_000
# Reading numa_maps keeps the process from mapping memory meanwhile: what takes longer is not done every second.
_MAPS_NS = 20_000_000
# event -> what the tracepoint of that name tells
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
        self._interval_ns = interval_ns
        self._period_ns = min(interval_ns or _SECOND, _SECOND)
        self._topology: numa.Topology | None = None
        self._nodes: tuple[int, ...] = ()
        self._cpus: dict[int, int] = {}
        self._distance: list[list[int]] = []
        self._seen = Seen(np.zeros((0, 1), np.int64))
        self._missing: dict[str, str] = {}
        self._turns: list[Events] = []  # since the last sample
        self._series: list[Record] = []
        self._sample_ns = self._line_ns = self._bytes_ns = 0  # when the next is due
        self._told_ns = 0  # up to when the records of intervals tell
        self._told: dict[str, int] = {}
        self._result: Record = {}

    @property
    def options(self) -> Record:
        return {"interval_ns": self._interval_ns, "counting": self._counting}

    def _begin(self) -> None:
        source = self.source
        nothing: Record = {"nodes": [0], "cpus": [], "distance": [[10]], "lacks_ps": ""}
        told = source.ask("nodes", self._machine) or nothing
        self._nodes = tuple(told["nodes"])
        self._cpus = dict(told["cpus"])
        self._distance = told["distance"]
        self._seen.faults = np.zeros((len(self._nodes), len(self._nodes) + 1), np.int64)
        for lacking in source.header["probes"]["faults"]["missing"]:
            self._missing[lacking["name"].removeprefix(RAW_TRACEPOINT)] = lacking["reason"]
        if told["lacks_ps"]:
            self._missing["ps"] = told["lacks_ps"]
        self._told_ns = source.begin_ns
        self._sample_ns, self._line_ns = source.begin_ns + self._period_ns, source.begin_ns + self._interval_ns

    def _machine(self) -> Record:
        source = self.source
        assert isinstance(source, Live)
        self._topology = numa.topology()
        cpus = [list(pair) for pair in self._topology.cpus.items()]
        distance = [list(row) for row in self._topology.distance]
        lacks = source.looker.reader.lacks_processors()
        return {"nodes": list(self._topology.nodes), "cpus": cpus, "distance": distance, "lacks_ps": lacks}

    def _nodes_of(self, addresses: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """The node of the page at each address, now."""
        source, topology = self.source, self._topology
        assert isinstance(source, Live) and topology is not None
        return topology.node_of_frames(Memory(source.process.pid).frames(addresses), PAGE)

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        if not self._nodes:
            self._begin()
        seen, source, kinds = self._seen, self.source, events["kind"]
        fault, ran_on, moved_thread, moved_pages = (
            source.kind("faults", name) for name in ("fault", "ran_on", "moved_thread", "moved_pages")
        )
        if (kinds == fault).any():
            self._add_faults(events[kinds == fault])
        ran = events[kinds == ran_on]
        self._turns.append(ran)
        lengths = (ran["time_ns"] - ran["a"]).astype(np.int64)
        for node in np.unique(ran["b"]).tolist():
            seen.ran_ns[node] = seen.ran_ns.get(node, 0) + int(lengths[ran["b"] == node].sum())
        placed = events[np.isin(kinds, [ran_on, moved_thread])]
        for tid, which, a, b, time_ns in placed[["tid", "kind", "a", "b", "time_ns"]].tolist():
            seen.threads.see(tid, b if which == ran_on else self._cpus.get(a, UNKNOWN), time_ns)
        moved = events[kinds == moved_pages]
        seen.pages_moved += int(moved["a"].sum())
        seen.pages_not_moved += int(moved["b"].sum())
        for name in _BALANCING:
            seen.balancing[name] += int((kinds == source.kind("faults", name)).sum())
        if self._counting:
            self._add_counts(events[kinds == source.kind("tlb", "counted")])
        if source.now_ns >= self._sample_ns or source.last:
            self._sample_ns = self._after(self._period_ns)
            self._add_sample()
        if self._interval_ns and (source.now_ns >= self._line_ns or source.last):
            self._line_ns = self._after(self._interval_ns)
            yield self._interval()

    def _add_counts(self, counted: Events) -> None:
        nodes = np.array([self._cpus.get(cpu, UNKNOWN) for cpu in counted["cpu"].tolist()], np.int64)
        numbers = (counted["b"] & np.uint64(0xFF)).astype(np.int64)
        for number, node in set(zip(numbers.tolist(), nodes.tolist(), strict=True)):
            mine = counted[(numbers == number) & (nodes == node)]
            sums = np.array([[mine[column].sum()] for column in "cde"], np.float64)
            self._counted[number, node] = self._counted.get((number, node), np.zeros((3, 1))) + sums

    def _accesses(self) -> dict[str, dict[str, int | None]]:
        """What was counted by threads on each node's CPUs; None: never counted."""
        counters = self.source.header["counters"]
        told: dict[str, dict[str, int | None]] = {event: {} for event in counters}
        for number, node in sorted(self._counted):
            told[counters[number]][str(node)] = whole(float(scaled(*self._counted[number, node])[0]))
        return told

    def _after(self, period_ns: int) -> int:
        """The next multiple of a period since the beginning."""
        since = self.source.now_ns - self.source.begin_ns
        return self.source.begin_ns + (since // period_ns + 1) * period_ns

    def _add_faults(self, faults: Events) -> None:
        seen = self._seen
        took = (faults["time_ns"] - faults["a"]).astype(np.int64)
        known = faults["a"] > 0
        for how, times in ((MINOR, seen.minor), (MAJOR, seen.major), (HINTING, seen.hinting)):
            times.record(took[known & (faults["d"] == how)])
        faults = faults[faults["d"] != HINTING]
        pages = (faults["b"] // np.uint64(PAGE) * np.uint64(PAGE)).astype(np.int64)
        addresses, back = np.unique(pages, return_inverse=True)
        told = self.source.ask("nodes of faulted pages", lambda: self._nodes_of(addresses).tolist())
        nodes = np.array(told if told is not None else [UNKNOWN] * len(addresses), np.int64)[back]
        seen.faults += matrix(faults["c"].astype(np.int64), nodes, self._nodes)

    def _sampled(self) -> Record:
        """The CPU of each P's thread, None for a P without one; bytes by node; without what cannot be told now."""
        source = self.source
        assert isinstance(source, Live)
        pid = source.process.pid
        told: Record = {}
        if "ps" not in self._missing:
            try:
                ps = source.looker.reader.processors()
                cpus = numa.cpus_of_threads(pid, {thread for _, thread in ps if thread})
                told["ps"] = [[number, cpus.get(thread)] for number, thread in ps]
            except TargetError:
                pass  # it has exited, or the list was changed while it was followed
        if "bytes" not in self._missing and source.now_ns >= self._bytes_ns:
            self._bytes_ns = self._after(_SECOND)
            begin = time.monotonic_ns()
            told["bytes"] = [list(pair) for pair in numa.bytes_by_node(pid).items()]
            told["bytes_took_ns"] = time.monotonic_ns() - begin
        return told

    def _add_sample(self) -> None:
        source = self.source
        turns = np.concatenate(self._turns)
        self._turns = []
        sample: Record = {"time": self._wall(), "threads": _by_node(things_by_node(turns["tid"], turns["b"]))}
        told = source.ask("sample", self._sampled) or {}
        if "ps" in told:
            nodes = {number: self._cpus.get(cpu, UNKNOWN) for number, cpu in told["ps"] if cpu is not None}
            for number, node in nodes.items():
                self._seen.ps.see(number, node, source.now_ns)
            counts = {node: list(nodes.values()).count(node) for node in {*self._nodes, *nodes.values()}}
            sample |= {"ps": _by_node(counts), "ps_idle": len(told["ps"]) - len(nodes)}
        if told.get("bytes"):
            sample["bytes"] = _by_node(dict(told["bytes"]))
        took = told.get("bytes_took_ns", 0)
        if took > _MAPS_NS:
            self._missing["bytes"] = f"reading numa_maps took {duration_text(took)}, too long to do it every second"
        self._series.append(sample)

    def _wall(self) -> float:
        """Seconds since the epoch."""
        return (self.source.now_ns + self.source.wall_offset_ns) / 1e9

    def _interval(self) -> Record:
        """What was seen since the last interval; Ps as the last sample has them."""
        seen, now = self._seen, self.source.now_ns
        totals = seen.totals()
        more = {name: total - self._told.get(name, 0) for name, total in totals.items()}
        length = now - self._told_ns
        self._told, self._told_ns = totals, now
        last = self._series[-1] if self._series else {}
        return {
            "type": "numa_interval",
            "time": self._wall(),
            "length_ns": length,
            "faults": {name: more[name] for name in ("local", "remote", "unknown")},
            **{name: more[name] for name in ("hinting_faults", "threads_moved", "pages_moved")},
            "ran_ns": {str(node): more.get(f"ran on {node}", 0) for node in self._nodes},
            **{name: last[name] for name in ("ps", "ps_idle") if name in last},
        }

    def heading(self) -> str:
        names = "/".join(map(str, self._nodes))
        return _row(self._nodes, *_NAMES, f"ran on {names}", f"Ps on {names}", "idle")

    def line(self, record: Record) -> str:
        return line(record, self._nodes) if record["type"] == "numa_interval" else ""

    def _placed(self) -> Record:
        """Where everything is now; nodes are text, as JSON has them."""
        source = self.source
        assert isinstance(source, Live)
        look = source.looker.look()
        parts = by_part(look.pages, self._nodes_of(look.pages.address))
        policies: dict[str, int] = {}
        for each in numa.placements(source.process.pid):
            size = sum(each.bytes.values())
            policies[each.policy] = policies.get(each.policy, 0) + size
        memory = {part: _by_node(sizes) for part, sizes in parts.items()}
        return {"memory": memory, "policies": policies, "balancing": numa.balancing()}

    def end(self) -> Iterator[Record]:
        placed = self.source.ask("placement", self._placed) or {"memory": {}, "policies": {}, "balancing": None}
        self._result = self._record(placed)
        yield self._result

    def _record(self, placed: Record) -> Record:
        """The result as a JSON object; bytes, nanoseconds."""
        seen, nodes, parts, policies = self._seen, self._nodes, placed["memory"], placed["policies"]
        ran = sum(seen.ran_ns.values())
        heap = {int(node): size for node, size in parts.get(SPANS, {}).items()}
        evidence = Evidence(
            ran={node: ns / ran for node, ns in seen.ran_ns.items() if ran},
            heap={node: size / max(1, sum(heap.values())) for node, size in heap.items() if node != UNKNOWN},
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
                    "bytes": sum(sizes.get(str(node), 0) for sizes in parts.values()),
                }
                for place, node in enumerate(nodes)
            ],
            "memory": parts,
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
            "move_gaps": _statistics(seen.threads.gaps),
            "ps_moved": None if "ps" in self._missing else seen.ps.count,
            "pages_moved": seen.pages_moved,
            "pages_not_moved": seen.pages_not_moved,
            "series": self._series,
            "missing": self._missing,
            "lost": self.source.lost,
            "advice": advice(evidence),
        }

    def summary(self) -> Iterator[str]:
        yield from table(self._result, self._seen)

    def histograms(self) -> dict[str, Histogram]:
        seen = self._seen
        kinds = {"minor fault": seen.minor, "major fault": seen.major, "hinting fault": seen.hinting}
        kinds["between moves of a thread"] = seen.threads.gaps
        return {tag(kind): histogram for kind, histogram in kinds.items() if histogram.count}


def _by_node(values: dict[int, int]) -> dict[str, int]:
    """As JSON has it."""
    return {str(node): value for node, value in sorted(values.items())}


def _statistics(histogram: Histogram) -> dict[str, int]:
    if not histogram.count:
        return {"count": 0}
    p50, p99 = histogram.percentiles((50.0, 99.0))
    return {"count": histogram.count, "p50_ns": p50, "p99_ns": p99, "max_ns": histogram.max}


_LINE = "{:>8} {:>12} {:>13} {:>8} {:>8} {:>13} {:>11}  {:>{ran}}  {:>{ps}} {:>4}"
_NAMES = ("time", "local faults", "remote faults", "unknown", "hinting", "threads moved", "pages moved")


def _row(nodes: Sequence[int], *cells: str | int) -> str:
    """Cells as _NAMES has them, then the threads' time and the Ps by node, and the Ps without a thread."""
    names = len("/".join(map(str, nodes)))
    return _LINE.format(*cells, ran=max(7 + names, 5 * len(nodes)), ps=max(6 + names, 4 * len(nodes)))


def line(record: Record, nodes: Sequence[int]) -> str:
    """What was seen in an interval, in a line."""
    clock = time.strftime("%H:%M:%S", time.localtime(record["time"]))
    counts = [*record["faults"].values(), *(record[name] for name in ("hinting_faults", "threads_moved", "pages_moved"))]
    ran = record["ran_ns"].values()
    shares = "/".join(f"{ns / sum(ran):.0%}" for ns in ran) if sum(ran) else "-"
    ps = "/".join(str(record["ps"].get(str(node), 0)) for node in nodes) if "ps" in record else "-"
    return _row(nodes, clock, *(f"{count:,}" for count in counts), shares, ps, record.get("ps_idle", "-"))


def table(result: Record, seen: Seen) -> Iterator[str]:
    """The result for people, a line each."""
    nodes = [each["node"] for each in result["nodes"]]
    yield ""
    yield f"{result['target']}, watched for {duration_text(result['watched_ns'])}"
    if len(nodes) == 1:
        yield "This machine has one memory node: every access is local."
    yield ""
    yield f"{'node':>6} {'CPUs':<12} {'memory':>10} {'threads ran':>12}  distance to {', '.join(map(str, nodes))}"
    ran = max(1, sum(each["ran_ns"] for each in result["nodes"]))
    for each in result["nodes"]:
        share = f"{each['ran_ns'] / ran:.1%}"
        distance = ", ".join(str(value) for value in each["distance"].values())
        cpus = _ranges(each["cpus"])
        yield f"{each['node']:>6} {cpus:<12} {bytes_text(each['bytes']):>10} {share:>12}  {distance}"
    unknown = str(UNKNOWN)
    columns = [*map(str, nodes), *([unknown] if any(unknown in sizes for sizes in result["memory"].values()) else [])]
    names = [f"node {node}" if node != unknown else "unknown" for node in columns]
    if result["memory"]:
        yield ""
        yield f"{'resident memory':<26}" + "".join(f" {name:>10}" for name in names)
        for part, sizes in result["memory"].items():
            yield f"{part:<26}" + "".join(f" {bytes_text(sizes.get(node, 0)):>10}" for node in columns)
    yield ""
    yield f"{'page faults: CPU on':<26}" + "".join(f" {'on ' + str(each):>10}" for each in result["faults"]["columns"])
    for node, counts in zip(nodes, result["faults"]["counts"], strict=True):
        yield f"{f'node {node}':<26}" + "".join(f" {count:>10,}" for count in counts)
    if result["remote_share"] is not None and len(nodes) > 1:
        yield f"{result['remote_share']:.1%} of the faults whose page is known were for a page on another node."
    for event, by_node in result["accesses"].items():
        told = ", ".join(f"{count:,} on node {node}" for node, count in by_node.items() if count is not None)
        yield f"{printable(event)} by the CPUs' nodes: {told or 'none'}."
    for name, histogram in (("minor faults", seen.minor), ("major faults", seen.major), (_HINTING, seen.hinting)):
        if histogram.count:
            yield f"{histogram.count:,} {name} took {_times(histogram)}."
    yield ""
    policies = ", ".join(f"{printable(policy)} {bytes_text(size)}" for policy, size in result["policies"].items())
    balancing = {True: "on", False: "off", None: "not in this kernel"}[result["balancing"]]
    yield f"Policies: {policies or 'not known'}. The kernel's balancing is {balancing}."
    counts = result["balancing_threads"]
    if any(counts.values()):
        moved, swapped, stuck = ("?" if count is None else f"{count:,}" for count in counts.values())
        yield f"Balancing moved {moved} threads, let {swapped} change places with another, and could not move {stuck}."
    moved = f"{result['pages_moved']:,} pages were moved in its threads"
    failed = f" ({result['pages_not_moved']:,} could not be)" if result["pages_not_moved"] else ""
    yield f"{result['threads_moved']:,} times a thread was moved to another node; {moved}{failed}."
    if seen.threads.gaps.count:
        yield f"From one such move of a thread to its next: {_times(seen.threads.gaps)}."
    yield from _ps(result, nodes)
    for what, reason in result["missing"].items():
        yield f"{what} cannot be told: {reason}"
    if result["advice"]:
        yield result["advice"]


def _times(histogram: Histogram) -> str:
    p50, p99 = histogram.percentiles((50.0, 99.0))
    return f"p50 {duration_text(p50)}, p99 {duration_text(p99)}, max {duration_text(histogram.max)}"


def _ps(result: Record, nodes: Sequence[int]) -> Iterator[str]:
    samples = [sample for sample in result["series"] if "ps" in sample]
    if not samples:
        return
    means = [sum(sample["ps"].get(str(node), 0) for sample in samples) / len(samples) for node in nodes]
    idle = sum(sample["ps_idle"] for sample in samples) / len(samples)
    where = ", ".join(f"{mean:.1f} on node {node}" for node, mean in zip(nodes, means, strict=True))
    looks = f"Ps in the mean of {len(samples)} looks: {where}, {idle:.1f} without a thread"
    yield f"{looks}; {result['ps_moved']:,} times one was on another node than before."


def _ranges(cpus: list[int]) -> str:
    """0,1,2,5 -> 0-2,5"""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

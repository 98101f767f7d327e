"""Watching a process's page faults and threads for a while, and where its memory lies at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from gotrace.analysis.histogram import Histogram
from gotrace.analysis.placement import SPANS, UNKNOWN, Evidence, advice, by_part, matrix, remote_share
from gotrace.cli._gc_run import created
from gotrace.cli._mem_run import Looker
from gotrace.cli._watch import watching
from gotrace.kernel import numa
from gotrace.kernel.memory import PAGE, Memory
from gotrace.probe import Probe
from gotrace.text import bytes_text, duration_text, printable

_POLL_S = 0.05
_BIG = 1 << 20  # mappings whose policy is named


@dataclass
class Watched:
    """What was seen of a process: sums over the whole time."""

    nodes: tuple[int, ...]
    faults: npt.NDArray[np.int64]
    ran_ns: dict[int, int] = field(default_factory=dict)
    minor: Histogram = field(default_factory=Histogram)
    major: Histogram = field(default_factory=Histogram)
    threads_moved: int = 0
    pages_moved: int = 0
    pages_not_moved: int = 0
    lost: int = 0


class Watch:
    """Adds up events; the node of a faulted page is asked for as soon as the fault is known."""

    def __init__(self, probe: Probe, memory: Memory, machine: numa.Topology) -> None:
        self._kinds = {kind.name: kind.number for kind in probe.kinds}
        self._memory, self._machine = memory, machine
        self._last: dict[int, int] = {}
        self.seen = Watched(machine.nodes, np.zeros((len(machine.nodes), len(machine.nodes) + 1), np.int64))

    def feed(self, events: npt.NDArray[Any]) -> None:
        kind = events["kind"]
        faults = events[kind == self._kinds["fault"]]
        if len(faults):
            self._add_faults(faults)
        ran = events[kind == self._kinds["ran_on"]]
        lengths = (ran["time_ns"] - ran["a"]).astype(np.int64)
        for node in np.unique(ran["b"]).tolist():
            self.seen.ran_ns[node] = self.seen.ran_ns.get(node, 0) + int(lengths[ran["b"] == node].sum())
        both = events[np.isin(kind, [self._kinds["ran_on"], self._kinds["moved_thread"]])]
        for tid, which, a, b in both[["tid", "kind", "a", "b"]].tolist():
            if which == self._kinds["ran_on"]:
                self._last[tid] = b
                continue
            to = self._machine.cpus.get(a, UNKNOWN)
            self.seen.threads_moved += self._last.get(tid, to) != to
            self._last[tid] = to
        moved = events[kind == self._kinds["moved_pages"]]
        self.seen.pages_moved += int(moved["a"].sum())
        self.seen.pages_not_moved += int(moved["b"].sum())

    def _add_faults(self, faults: npt.NDArray[Any]) -> None:
        pages = (faults["b"] // np.uint64(PAGE) * np.uint64(PAGE)).astype(np.int64)
        addresses, back = np.unique(pages, return_inverse=True)
        nodes = self._machine.node_of_frames(self._memory.frames(addresses), PAGE)[back]
        self.seen.faults += matrix(faults["c"].astype(np.int64), nodes.astype(np.int64), self.seen.nodes)
        known = faults["a"] > 0
        took = (faults["time_ns"] - faults["a"]).astype(np.int64)
        self.seen.minor.record(took[known & (faults["d"] == 0)])
        self.seen.major.record(took[known & (faults["d"] == 1)])


def run(pid: int, duration: int, format_: str, output: str | None, force: bool, screen: TextIO) -> None:
    """Watch for ``duration`` nanoseconds, or until the process ends, and print what was seen."""
    machine = numa.topology()
    with watching(pid, ("faults",)) as target:
        tracing, stop, name = target.tracing, target.stop, target.name
        looker = Looker(target.process)
        watch = Watch(target.modules[0].PROBE, Memory(pid), machine)
        begin = time.monotonic_ns()
        look = None
        while time.monotonic_ns() - begin < duration and not stop.signal:
            if tracing.wait(min(_POLL_S, duration / 1e9)):
                break
            watch.feed(tracing.read())
        else:
            look = looker.look()
        watched_ns = time.monotonic_ns() - begin
        watch.feed(tracing.read()) if look is not None else None
        watch.seen.lost = tracing.lost
        parts: dict[str, dict[int, int]] = {}
        policies: dict[str, int] = {}
        if look is not None:
            frames = Memory(pid).frames(look.pages.address)
            parts = by_part(look.pages, machine.node_of_frames(frames, PAGE), PAGE)
            for each in numa.placements(pid):
                size = sum(each.bytes.values())
                policies[each.policy] = policies.get(each.policy, 0) + size
        result = record(name, machine, watch.seen, parts, policies, watched_ns)
    text = json.dumps(result, indent=1) + "\n"
    if output is not None:
        with created(output, force) as file:
            file.write(text)
    if format_ == "json":
        screen.write(text)
    else:
        for line in table(result, watch.seen):
            print(line, file=screen)


def record(
    name: str,
    machine: numa.Topology,
    seen: Watched,
    parts: dict[str, dict[int, int]],
    policies: dict[str, int],
    watched_ns: int,
) -> dict[str, Any]:
    """The result as a JSON object; bytes, nanoseconds."""
    ran = sum(seen.ran_ns.values())
    heap = parts.get(SPANS, {})
    evidence = Evidence(
        ran={node: ns / ran for node, ns in seen.ran_ns.items() if ran},
        heap={node: size / max(1, sum(heap.values())) for node, size in heap.items() if node != UNKNOWN},
        bound=any(not policy.startswith(("default", "local")) for policy, size in policies.items() if size >= _BIG),
    )
    return {
        "type": "numa",
        "target": name,
        "watched_ns": watched_ns,
        "nodes": [
            {
                "node": node,
                "cpus": sorted(cpu for cpu, of in machine.cpus.items() if of == node),
                "distance": dict(zip(machine.nodes, machine.distance[place], strict=False)),
                "ran_ns": seen.ran_ns.get(node, 0),
                "bytes": sum(sizes.get(node, 0) for sizes in parts.values()),
            }
            for place, node in enumerate(machine.nodes)
        ],
        "memory": parts,
        "faults": {"rows": list(machine.nodes), "columns": [*machine.nodes, "unknown"], "counts": seen.faults.tolist()},
        "remote_share": remote_share(seen.faults),
        "policies": policies,
        "balancing": numa.balancing(),
        "threads_moved": seen.threads_moved,
        "pages_moved": seen.pages_moved,
        "pages_not_moved": seen.pages_not_moved,
        "lost": seen.lost,
        "advice": advice(evidence),
    }


def table(result: dict[str, Any], seen: Watched) -> Iterator[str]:
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
    columns = [*nodes, *([UNKNOWN] if any(UNKNOWN in sizes for sizes in result["memory"].values()) else [])]
    names = [f"node {node}" if node != UNKNOWN else "unknown" for node in columns]
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
    for name, histogram in (("minor", seen.minor), ("major", seen.major)):
        if histogram.count:
            p50, p99 = histogram.percentiles((50.0, 99.0))
            times = f"p50 {duration_text(p50)}, p99 {duration_text(p99)}, max {duration_text(histogram.max)}"
            yield f"{histogram.count:,} {name} faults took {times}."
    yield ""
    policies = ", ".join(f"{printable(policy)} {bytes_text(size)}" for policy, size in result["policies"].items())
    balancing = {True: "on", False: "off", None: "not in this kernel"}[result["balancing"]]
    yield f"Policies: {policies or 'not known'}. The kernel's balancing is {balancing}."
    moved = f"{result['pages_moved']:,} pages were moved in its threads"
    failed = f" ({result['pages_not_moved']:,} could not be)" if result["pages_not_moved"] else ""
    yield f"{result['threads_moved']:,} times a thread was moved to another node; {moved}{failed}."
    if result["lost"]:
        yield f"{result['lost']:,} events were LOST."
    if result["advice"]:
        yield result["advice"]


def _ranges(cpus: list[int]) -> str:
    """0,1,2,5 -> 0-2,5"""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

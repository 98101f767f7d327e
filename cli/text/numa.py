"""`gotrace numa` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.analysis.gc_summary import percentiles
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.placement import UNKNOWN
from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import bytes_text, count_text, duration_text, printable
from gotrace.views.numa import Placement, Seen
from gotrace.views.view import Record

_HINTING = "NUMA hinting fault"


def columns(view: Placement) -> Sequence[Column]:
    names = "/".join(map(str, view.nodes))
    return (
        Column("time", width(view.interval_ns)),
        Column("local faults", 12),
        Column("remote faults", 13),
        Column("unknown", 8, rank=4),
        Column("hinting", 8, rank=3),
        Column("thread moves", 13, rank=1),
        Column("page moves", 11, rank=2),
        Column(f"ran on {names}", 5 * len(view.nodes), gap=2),
        Column(f"Ps on {names}", 4 * len(view.nodes), rank=1, gap=2),
        Column("idle", 4, rank=5),
    )


def line(view: Placement, record: Record) -> Row | None:
    return interval_line(record, view.nodes, view.interval_ns) if record["type"] == "numa_interval" else None


def summary(view: Placement) -> Iterator[str | Rows]:
    yield from table(view.result, view.seen)


def interval_line(record: Record, nodes: Sequence[int], interval_ns: int = 0) -> Row:
    """One interval in one line."""
    counts = [*record["faults"].values(), *(record[name] for name in ("hinting_faults", "threads_moved", "pages_moved"))]
    ran = record["ran_ns"].values()
    shares = "/".join(f"{ns / sum(ran):.0%}" for ns in ran) if sum(ran) else "-"  # nothing ran
    ps = "/".join(str(record["ps"].get(str(node), 0)) for node in nodes) if "ps" in record else "?"
    return (clock(record, interval_ns), *(f"{count:,}" for count in counts), shares, ps, record.get("ps_idle", "?"))


_NODES = (
    Column("node", 6),
    Column("CPUs", 12, left=True),
    Column("memory", 10),
    Column("threads ran", 12),
)


def table(result: Record, seen: Seen) -> Iterator[str | Rows]:
    """The result as lines of text."""
    nodes = [each["node"] for each in result["nodes"]]
    yield ""
    yield f"{result['target']}, observed for {duration_text(result['watched_ns'])}"
    if len(nodes) == 1:
        yield "This machine has one memory node: every access is local."
    yield ""
    ran = sum(each["ran_ns"] for each in result["nodes"])
    rows: list[Row] = []
    for each in result["nodes"]:
        distance = ", ".join(str(value) for value in each["distance"].values())
        size = "?" if each["bytes"] is None else bytes_text(each["bytes"])
        share = f"{each['ran_ns'] / ran:.1%}" if ran else "-"
        rows.append((each["node"], _ranges(each["cpus"]), size, share, distance))
    yield Rows([*_NODES, Column(f"distance to {', '.join(map(str, nodes))}", rank=1, left=True, gap=2)], rows)
    age = result["memory_age_ns"]
    if age is None:
        yield "The location of its memory is unknown: the process ended before it was read."
    elif age:
        yield f"The location of its memory was read {duration_text(age)} before it ended."
    unknown = str(UNKNOWN)
    shown = [*map(str, nodes), *([unknown] if any(unknown in sizes for sizes in result["memory"].values()) else [])]
    names = [f"node {node}" if node != unknown else "unknown" for node in shown]
    if result["memory"]:
        yield ""
        rows = [(part, *(bytes_text(sizes.get(node, 0)) for node in shown)) for part, sizes in result["memory"].items()]
        yield Rows(
            [Column("resident memory", 26, left=True), *(Column(name, 10, rank=1) for name in names)], rows, parts=True
        )
    yield ""
    rows = [
        (f"node {node}", *(f"{count:,}" for count in counts))
        for node, counts in zip(nodes, result["faults"]["counts"], strict=True)
    ]
    places = [Column(f"on {each}", 10, rank=1) for each in result["faults"]["columns"]]
    yield Rows([Column("page faults: CPU on", 26, left=True), *places], rows, parts=True)
    if result["remote_share"] is not None and len(nodes) > 1:
        yield f"{result['remote_share']:.1%} of the faults on pages with a known location hit a remote node."
    for event, by_node in result["accesses"].items():
        told = ", ".join(f"{'?' if count is None else f'{count:,}'} on node {node}" for node, count in by_node.items())
        yield f"{printable(event)} by CPU node: {told or 'none'}."
    for name, histogram in (("minor fault", seen.minor), ("major fault", seen.major), (_HINTING, seen.hinting)):
        if histogram.count:
            apart = " (caused by balancing, not counted above)" if name is _HINTING else ""
            yield f"{count_text(histogram.count, name)}{apart}: {_times(histogram)}."
    yield ""
    policies = ", ".join(f"{printable(policy)} {bytes_text(size)}" for policy, size in result["policies"].items())
    balancing = {True: "on", False: "off", None: "?" if age is None else "not supported by this kernel"}[
        result["balancing"]
    ]
    yield f"Policies: {policies or '?'}. Automatic NUMA balancing: {balancing}."
    counts = result["balancing_threads"]
    if any(counts.values()):
        moved, swapped, stuck = ("?" if count is None else f"{count:,}" for count in counts.values())
        yield f"Threads balanced: {moved} migrated, {swapped} swapped, {stuck} failed."
    moved = f"{count_text(result['pages_moved'], 'page')} migrated in the context of its threads"
    failed = f" ({result['pages_not_moved']:,} failed)" if result["pages_not_moved"] else ""
    yield f"{count_text(result['threads_moved'], 'thread migration')} between nodes; {moved}{failed}."
    if seen.threads.gaps.count:
        yield f"Time between migrations of the same thread: {_times(seen.threads.gaps)}."
    yield from _ps(result, nodes)
    for what, reason in result["missing"].items():
        yield f"Not available: {what} ({reason})."
    if result["advice"]:
        yield result["advice"]


def _times(histogram: Histogram) -> str:
    p50, p99 = percentiles(histogram, (50.0, 99.0))
    return f"p50 {duration_text(p50)}, p99 {duration_text(p99)}, max {duration_text(histogram.max)}"


def _ps(result: Record, nodes: Sequence[int]) -> Iterator[str]:
    samples = [sample for sample in result["series"] if "ps" in sample]
    if not samples:
        yield "Mean Ps by node: ?"
        return
    means = [sum(sample["ps"].get(str(node), 0) for sample in samples) / len(samples) for node in nodes]
    idle = sum(sample["ps_idle"] for sample in samples) / len(samples)
    where = ", ".join(f"{mean:.1f} on node {node}" for node, mean in zip(nodes, means, strict=True))
    mean = f"Mean Ps over {count_text(len(samples), 'sample')}: {where}, {idle:.1f} idle"
    yield f"{mean}; {count_text(result['ps_moved'], 'P migration')} between nodes."


def _ranges(cpus: list[int]) -> str:
    """0,1,2,5 -> 0-2,5"""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

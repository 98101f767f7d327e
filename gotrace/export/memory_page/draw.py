"""A process's memory as one HTML page of charts, from the JSON records of `gotrace mem`, `tlb` and `numa`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from gotrace.analysis.heap_pages import LIVE, PARTS, WHY
from gotrace.analysis.phases import PHASES
from gotrace.analysis.placement import SPANS
from gotrace.export.charts.page import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SAND,
    Page,
    Record,
    bar_chart,
    label,
    line,
    other_colour,
    over_time,
    percent,
    scaled,
    scaled_known,
    size_of,
    size_unit,
    solid,
    time_chart,
)
from gotrace.export.picture.frame import escaped
from gotrace.text import bytes_text, count_text, duration_text, printable

_OF_PARTS = "#3b7dbd #e5a02d #93c6e6 #3fa08f #cf7690 #9a62b8 #dccb7c #6b6fb5 #a3a05a #d8a98a #8c6a4f #878d9a #c3c7d0"
_NODES = _OF_PARTS.split()
_COLOURS = dict(zip((*PARTS, *PHASES), (*_OF_PARTS.split(), BLUE, ORANGE, GREEN, RED), strict=True))
# What the pages of live objects are called where objects are not counted, and what the collector makes threads do.
_COLOURS |= {SPANS: _COLOURS[LIVE], "heap objects": _COLOURS[LIVE], "mark worker": SAND, "assist": PURPLE}
_MAF = "#b8477f"
_LOG_FROM = 50  # an axis is logarithmic where values differ that much
_SECOND = 1000  # milliseconds, as all times in figures
_HEATS = 8  # steps of colour that the style has for counts
_LOST = {"memory": "snapshot", "cycle": "GC cycle", "faults": "page fault", "numa": "fault or thread", "tlb": "counter"}


def page(title: str, records: Sequence[dict[str, Any]], notes: Sequence[str] = ()) -> str:
    """A page with a chart or more for each type of record that is there; of "faults", "numa" and "tlb" for the last one."""
    found: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        found[record.get("type")].append(record)
    made = Page()
    for kind, of_kind in found.items():
        if lost := sum(record.get("lost", 0) for record in of_kind):
            what = count_text(lost, f"{_LOST.get(kind, 'other')} event")
            made.say(f"{what} lost: the true numbers are higher.", "lost")
    for note in notes:
        made.say(note)
    if found["memory"]:
        _memory(made, sorted(found["memory"], key=lambda look: look["time"]))
    if found["cycle"]:
        _cycles(made, found["cycle"])
    for kind, draw in (("faults", _faults), ("numa", _numa), ("tlb", _tlb)):
        if found[kind]:
            draw(made, found[kind][-1])
    if not made.heads:
        made.say("There is nothing to draw.")
    return made.made(title)


def _colour(name: str) -> str:
    """The same for the same name, wherever it is."""
    return _COLOURS.get(name) or other_colour(name)


def _ordered(known: Sequence[str], counts: Iterable[dict[str, Any]]) -> list[str]:
    """The names that are not always 0: those in ``known`` in that order, then the others as they come."""
    there = dict.fromkeys(name for each in counts for name, count in each.items() if count)
    return [*(name for name in known if name in there), *(name for name in there if name not in known)]


def _solid(style: str, name: str, values: list[Any]) -> Record:
    """`solid` in the colour that the name has wherever it is."""
    return solid(style, name, values, _colour(name))


def _ratio(name: str, axis: str, factors: list[float | None]) -> Record:
    """A chart of it, without series if it is never known."""
    known = any(factor is not None for factor in factors)
    return time_chart(axis, [line(name, factors, _MAF)] if known else [], zero=False)


def _cgroup(looks: Sequence[Record], factor: int, unit: str) -> Record:
    """A chart of what its control group uses and may use, without what is never known."""
    groups = [look["cgroup"] or {} for look in looks]
    lines = []
    kinds = (
        ("usage", "usage", BLUE, "solid"),
        ("working set", "working_set", GREEN, "solid"),
        ("page cache", "page_cache", SAND, "solid"),
        ("limit", "limit", RED, "dash"),
    )
    for name, key, colour, dash in kinds:
        sizes = [group.get(f"{key}_bytes") for group in groups]
        if any(size is not None for size in sizes):
            lines.append(line(name, scaled_known(sizes, factor), colour, dash))
    return time_chart(f"its control group, {unit}", lines, unit)


def _memory(made: Page, looks: Sequence[Record]) -> None:
    last, several = looks[-1], len(looks) > 1
    factor, unit = size_unit(max(look["rss_bytes"] for look in looks))
    heap = scaled((look["counters"]["heap_alloc"] for look in looks), factor)
    parts = _ordered(PARTS, [look["parts"] for look in looks])
    sizes = {part: [look["parts"].get(part, 0) for look in looks] for part in parts}
    of_parts = [_solid("area" if several else "bar", part, scaled(sizes[part], factor)) for part in parts]
    if several:
        rss = line("RSS", scaled((look["rss_bytes"] for look in looks), factor), INK, width=1)
        charts = [time_chart(unit, [*of_parts, rss, line("HeapAlloc", heap, INK, "dash")], unit)]
        factors = [look["amplification"] for look in looks]
        charts += [_ratio("MAF", "MAF, RSS / HeapAlloc", factors), _cgroup(looks, factor, unit)]
        figure = over_time(looks, charts)
    else:
        mark = {"name": "HeapAlloc", "style": "mark", "colour": INK, "values": heap}
        figure = bar_chart([""], [*of_parts, mark], unit=unit, stacked=True)
    made.draw("Resident memory by part", figure)
    times_that = "" if last["amplification"] is None else f" (RSS is {last['amplification']:.2f} times that)"
    made.say(
        f"{'At the end: ' if several else ''}RSS {bytes_text(last['rss_bytes'])}, of which in huge pages"
        f" {bytes_text(last['huge_bytes'])}; HeapAlloc {bytes_text(last['counters']['heap_alloc'])}{times_that};"
        f" swapped out {bytes_text(last['swap_bytes'])}. MAF is memory amplification, RSS / HeapAlloc."
    )
    made.say(_of_group(last["cgroup"]))
    rows = []
    for part, of in sizes.items():
        least = [bytes_text(min(of)), bytes_text(max(of))] if several else []
        share = percent(of[-1] / max(1, last["rss_bytes"]))
        rows.append((part, *least, bytes_text(of[-1]), share, WHY.get(part, "")))
    heads = ("Part", *(("Least", "Most", "At the end") if several else ("Size",)), "Share", "What it is")
    made.table("The parts of RSS", heads, rows)
    if last["regions"] is None:
        made.say("Largest mappings: ?")
    rows = []
    for each in last["regions"] or ():
        share = percent(each["bytes"] / max(1, last["rss_bytes"]))
        rows.append((printable(each["name"]), each["part"], f"{each['mappings']:,}", bytes_text(each["bytes"]), share))
    made.table("Largest mappings outside Go", ("Mapping", "Part", "Mappings", "Resident", "Share"), rows)


def _of_group(group: Record | None) -> str:
    if group is None:
        return "Cgroup: ?"
    sizes = ", ".join(
        f"{name.replace('_', ' ')} {size_of(group[f'{name}_bytes'])}" for name in ("usage", "working_set", "page_cache")
    )
    limit = (
        f"limit {size_of(group['limit_bytes'])} (of {printable(group['limited_by'])})" if group["limited"] else "no limit"
    )
    return f"Cgroup {printable(group['path'])}: {limit}; {sizes}."


def _cycles(made: Page, cycles: Sequence[Record]) -> None:
    factor, unit = size_unit(max(max(each["rss_bytes"], each["heap_goal_bytes"] or 0) for each in cycles))
    lines = []
    kinds = (
        ("RSS", "rss", INK, "solid"),
        ("live heap", "heap_live", BLUE, "solid"),
        ("heap goal", "heap_goal", ORANGE, "dash"),
    )
    for name, key, colour, dash in kinds if cycles[0]["heap_goal_bytes"] is not None else kinds[:-1]:
        lines.append(line(name, scaled((each[f"{key}_bytes"] for each in cycles), factor), colour, dash))
    charts = [
        time_chart(unit, lines, unit),
        _ratio("RSS / live", "RSS / live heap", [each["rss_over_live"] for each in cycles]),
    ]
    names = [f"cycle {each['cycle']}" for each in cycles]
    made.draw("At the end of each GC cycle", {**over_time(cycles, charts), "names": names})
    made.say(f"{count_text(len(cycles), 'cycle')}.")


def _heat(made: Page, head: str, rows: list[str], columns: list[str], counts: list[list[int]], shares: bool) -> None:
    """Counts as a table, and as colours by their logarithms."""
    total, most = max(1, sum(map(sum, counts))), max(1, max(map(max, counts)))
    made.head(head)
    heads = "".join(f"<th>{escaped(label(each))}</th>" for each in columns)
    made.html.append(f'<div class="wide" role="region" aria-label="{escaped(head)}" tabindex="0">\n<table class="heat">\n')
    made.html.append(f"<tr><th></th>{heads}</tr>\n")
    for row, of_row in zip(rows, counts, strict=True):
        made.html.append(f"<tr><th>{escaped(label(row))}</th>")
        for count in of_row:
            heat = round(_HEATS * math.log1p(count) / math.log1p(most))
            share = f"<small>{count / total:.1%}</small>" if shares else ""
            made.html.append(f'<td class="heat{heat}">{count:,}{share}</td>')
        made.html.append("</tr>\n")
    made.html.append("</table>\n</div>\n")


def _faults(made: Page, record: Record) -> None:
    counts, lengths, series = record["counts"], record["phases_ns"], record["series"]
    sums = {phase: sum(of_part.get(phase, 0) for of_part in counts.values()) for phase in PHASES}
    if shown := _ordered(PHASES, [each["counts"] for each in series]):
        columns = [_solid("column", phase, [each["counts"].get(phase, 0) for each in series]) for phase in shown]
        made.draw("Page faults per second", over_time(series, [time_chart("page faults", columns)], _SECOND))
    if counts:
        table = [[of_part.get(phase, 0) for phase in PHASES] for of_part in counts.values()]
        _heat(made, "Page faults by part and GC phase", [*counts], [*PHASES], table, False)
    made.say(f"{count_text(sum(sums.values()), 'page fault')}.")
    if record["in_progress"] is None:
        made.say("Page faults still in progress: ?")
    for each in record["in_progress"] or ():
        made.say(
            f"Not ended: thread {each['tid']} has been in a page fault for {duration_text(each['lasted_ns'])}"
            f" ({each['part']}, {each['address']:#x})."
        )
    rows = []
    for phase in PHASES:
        length = lengths.get(phase, 0)
        rows.append([phase, duration_text(length), f"{sums[phase] * 1e9 / length:,.0f}" if length else "-"])
        for found in (record["minor"].get(phase, {}), record["major"].get(phase, {})):
            took = [duration_text(found[key]) if key in found else "-" for key in ("p50_ns", "p99_ns")]
            rows[-1] += [f"{found.get('count', 0):,}", *took]
    heads = ("Phase", "Length", "Faults/s", "Minor", "p50", "p99", "Major", "p50", "p99")
    made.table("Fault service times by GC phase", heads, rows)


def _node(number: object) -> str:
    return "unknown" if str(number) in ("-1", "unknown") else f"node {number}"


def _by_node(sizes: Sequence[dict[Any, Any] | None]) -> dict[int, list[Any]]:
    """Of each node its value in each of ``sizes``, None where that is unknown; JSON makes texts of numbers."""
    ints = [None if each is None else {int(node): value for node, value in each.items()} for each in sizes]
    nodes = sorted({node for each in ints for node in each or ()}, key=lambda node: (node < 0, node))
    return {node: [None if each is None else each.get(node, 0) for each in ints] for node in nodes}


def _numa(made: Page, record: Record) -> None:
    faults, memory = record["faults"], record["memory"]
    if any(map(sum, faults["counts"])):
        rows = [f"CPU, {_node(each)}" for each in faults["rows"]]
        columns = [f"page, {_node(each)}" for each in faults["columns"]]
        _heat(made, "Page faults by node of the CPU and of the page", rows, columns, faults["counts"], True)
    if record["remote_share"] is not None:
        made.say(f"{record['remote_share']:.1%} of the faults on pages with a known location hit a remote node.")
    if record["policies"]:
        policies = ", ".join(f"{policy} {bytes_text(size)}" for policy, size in record["policies"].items())
        made.say(f"Policies: {policies}. {record['advice']}")
    parts = _ordered((SPANS, *PARTS), [{part: sum(sizes.values()) for part, sizes in memory.items()}])
    if there := _by_node([memory[part] for part in parts]):
        factor, unit = size_unit(max(map(sum, there.values())))
        by_part = zip(parts, zip(*there.values(), strict=True), strict=True)
        bars = [_solid("bar", part, scaled(sizes, factor)) for part, sizes in by_part]
        made.draw("Resident memory by node", bar_chart([*map(_node, there)], bars, unit=unit, stacked=True))
    if record["series"]:
        _node_series(made, record["series"])
    ran = max(1, sum(each["ran_ns"] for each in record["nodes"]))
    table = []
    for each in record["nodes"]:
        distances = ", ".join(f"{value} to {_node(node)}" for node, value in each["distance"].items())
        numbers = (f"{len(each['cpus'])}", size_of(each["bytes"]), percent(each["ran_ns"] / ran))
        table.append((_node(each["node"]), *numbers, distances))
    made.table("The machine's memory nodes", ("Node", "CPUs", "Memory", "Threads ran", "Distance"), table)


def _node_series(made: Page, series: Sequence[Record]) -> None:
    ps, threads, sizes = (_by_node([each.get(key) for each in series]) for key in ("ps", "threads", "bytes"))
    factor, unit = size_unit(max((size for of in sizes.values() for size in of if size is not None), default=0))

    def lines(name: str, of: dict[int, list[Any]], dash: str) -> list[Record]:
        return [line(f"{name}{_node(node)}", of[node], _NODES[node % len(_NODES)], dash) for node in of]

    charts = [
        time_chart("Ps, threads", lines("Ps, ", ps, "solid") + lines("threads, ", threads, "dot")),
        time_chart(unit, lines("memory, ", {node: scaled_known(of, factor) for node, of in sizes.items()}, "dash"), unit),
    ]
    if any(chart["series"] for chart in charts):
        made.draw("Ps, threads and memory by node", over_time(series, charts))


def _tlb(made: Page, record: Record) -> None:
    counters, lengths = record["counters"], record["phases_ns"]
    bars = []
    for phase in (phase for phase, length in lengths.items() if length):
        counts = [each["phases"].get(phase) for each in counters]
        rates = [None if count is None else round(count * 1e9 / lengths[phase], 3) for count in counts]
        bars.append(_solid("bar", phase, rates))
    if known := [rate for bar in bars for rate in bar["values"] if rate]:
        events = [label(each["event"]) for each in counters]
        log = max(known) > _LOG_FROM * min(known)
        figure = bar_chart(events, bars, "events per second on a CPU" + ", on a logarithmic axis" * log, log=log)
        made.draw("TLB and caches: events by GC phase", figure)
    rows = [(each["event"], f"{each['total']:,.0f}", percent(each["running_share"])) for each in counters]
    made.table("Counted events, and the share of time each was counted", ("Event", "Total", "Counted"), rows)
    keys = ("flushes", "pages", "whole")
    flushes = [(why, *(f"{of[key]:,}" for key in keys)) for why, of in record["flushes"].items()]
    made.table("TLB flushes", ("Reason", *keys), flushes)
    for each in record["reach"]:
        if each["share"] is not None:
            page_size = bytes_text(each["page"])
            made.say(f"The TLB covers at most {each['share']:.1%} of the memory in {page_size} pages at once.")
    for what, why in record["missing"]:
        made.say(f"Not counted: {what} ({why}).")

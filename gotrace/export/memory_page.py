"""A process's memory as one HTML page of charts, from the JSON records of `gotrace mem`, `tlb` and `numa`.

Nothing is loaded from elsewhere: plotly.js is within the page, and the page's own policy lets no other script run. Names
are the target's own: they go through `printable` and are escaped, in the page and in plotly's labels, which know some HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gotrace.analysis.heap_pages import LIVE, PARTS, WHY
from gotrace.analysis.phases import PHASES
from gotrace.analysis.placement import SPANS
from gotrace.export.picture import PAGE_HEAD, cut, escaped
from gotrace.text import bytes_text, duration_text, printable

_Record = dict[str, Any]

# To be told apart by those who see few colours too: neighbours differ in lightness.
_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SAND = "#3b7dbd", "#e5a02d", "#3fa08f", "#c8443a", "#9a62b8", "#dccb7c"
_OF_PARTS = "#3b7dbd #e5a02d #93c6e6 #3fa08f #cf7690 #9a62b8 #dccb7c #6b6fb5 #a3a05a #d8a98a #8c6a4f #878d9a #c3c7d0"
_NODES = _OF_PARTS.split()
_COLOURS = dict(zip((*PARTS, *PHASES), (*_OF_PARTS.split(), _BLUE, _ORANGE, _GREEN, _RED), strict=True))
# What the pages of live objects are called where objects are not counted, and what the collector makes threads do.
_COLOURS |= {SPANS: _COLOURS[LIVE], "heap objects": _COLOURS[LIVE], "mark worker": _SAND, "assist": _PURPLE}
_OTHERS = ("#5a6577", "#b5893c", "#7aa9a2", "#a3607f")  # of names that are not known here
_INK, _MAF = "ink", "#b8477f"  # the script knows what ink is in light and dark
_MAF_AXIS = {"title": {"text": "MAF"}}
_ROOM = 24  # cells of a label
_LOG_FROM = 50  # an axis is logarithmic where values differ that much
_LOST = {"memory": "looks", "cycle": "GC cycles", "faults": "page faults", "numa": "faults and threads", "tlb": "counts"}


def page(title: str, records: Sequence[dict[str, Any]], notes: Sequence[str] = ()) -> str:
    """A page with a chart or more for each type of record that is there; of "faults", "numa" and "tlb" for the last one."""
    from plotly.offline import get_plotlyjs

    found: dict[Any, list[_Record]] = defaultdict(list)
    for record in records:
        found[record.get("type")].append(record)
    made = _Page()
    for kind, of_kind in found.items():
        if lost := sum(record.get("lost") or 0 for record in of_kind):
            what = _LOST.get(kind, "other things")
            made.say(f"{lost:,} events about {what} were lost, so there were more than what is shown here.", "lost")
    for note in notes:
        made.say(note)
    if found["memory"]:
        _memory(made, sorted(found["memory"], key=lambda look: look["time"]))
    if found["cycle"]:
        _cycles(made, found["cycle"])
    for kind, draw in (("faults", _faults), ("numa", _numa), ("tlb", _tlb)):
        if found[kind]:
            draw(made, found[kind][-1])
    if not made.figures:
        made.say("There is nothing to draw.")
    figures = json.dumps(made.figures).replace("<", "\\u003c").replace("&", "\\u0026")
    scripts = (get_plotlyjs(), (Path(__file__).parent / "memory_page.js").read_text(encoding="utf-8"))
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    policy = _POLICY + " ".join(f"'sha256-{each}'" for each in hashes)
    pieces = [PAGE_HEAD.format(title=escaped(title)), _STYLE]
    pieces.append(f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n</head>\n<body>\n')
    pieces += [f"<h1>{escaped(title)}</h1>\n<noscript><p>The charts need JavaScript.</p></noscript>\n", *made.html]
    pieces.append(f'<script type="application/json" id="figures">{figures}</script>\n')
    pieces += [f"<script>{script}</script>\n" for script in scripts if made.figures]
    return "".join([*pieces, "</body>\n</html>\n"])


class _Page:
    """What the page consists of: pieces of HTML, and figures for plotly."""

    def __init__(self) -> None:
        self.html: list[str] = []
        self.figures: list[_Record] = []

    def say(self, text: str, kind: str = "note") -> None:
        self.html.append(f'<p class="{kind}">{escaped(text)}</p>\n')

    def draw(self, head: str, height: int, data: list[_Record], layout: _Record) -> None:
        """A chart ``height`` pixels high, and its legend."""
        legend = f'<ul class="legend">{"".join(map(_entry, data))}</ul>\n' if len(data) > 1 else ""
        chart = f'<div class="chart" role="figure" aria-label="{escaped(head)}" style="height: {height}px"></div>'
        self.html.append(f"<section>\n<h2>{escaped(head)}</h2>\n{legend}{chart}\n</section>\n")
        self.figures.append({"data": data, "layout": {**layout, "height": height}})

    def table(self, caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table, if it has rows. The first cell of each row is its head; columns of words are on the left."""
        if not rows:
            return
        words = {at for row in rows for at, cell in enumerate(row) if at == 0 or cell[:1].isalpha()}
        self.html.append(f"<h3>{escaped(caption)}</h3>\n")
        self.html.append(f'<div class="wide" role="region" aria-label="{escaped(caption)}" tabindex="0">\n<table>\n')
        for number, row in enumerate([heads, *rows]):
            self.html.append("<tr>")
            for at, cell in enumerate(row):
                tag, kind = "td" if number and at else "th", ' class="words"' if at in words else ""
                self.html.append(f"<{tag}{kind}>{escaped(cell)}</{tag}>")
            self.html.append("</tr>\n")
        self.html.append("</table>\n</div>\n")


def _label(name: str) -> str:
    """Somebody else's name for plotly, which knows some tags and entities, but not those of quotes."""
    return markup.escape(cut(printable(name), _ROOM), quote=False) or "(no name)"


def _colour(name: str) -> str:
    """The same for the same name, wherever it is."""
    return _COLOURS.get(name) or _OTHERS[zlib.crc32(printable(name).encode()) % len(_OTHERS)]


def _entry(trace: _Record) -> str:
    """Of a legend; the name is escaped already."""
    look = trace.get("line") or trace["marker"]
    colour = "currentcolor" if look["color"] == _INK else look["color"]
    thick = "0.7em" if trace["type"] == "bar" or "stackgroup" in trace else "2px"
    style = {"dash": "dashed", "dot": "dotted"}.get(look.get("dash"), "solid")
    swatch = f'<span style="border-top: {thick} {style} {colour}"></span>'
    return f'<li><button type="button" aria-pressed="true">{swatch}{trace["name"]}</button></li>'


def _ordered(known: Sequence[str], counts: Iterable[dict[str, Any]]) -> list[str]:
    """The names that are not always 0: those in ``known`` in that order, then the others as they come."""
    there = dict.fromkeys(name for each in counts for name, count in each.items() if count)
    return [*(name for name in known if name in there), *(name for name in there if name not in known)]


def _unit(largest: float) -> tuple[int, str]:
    return (1 << 30, " GiB") if largest >= 1 << 30 else (1 << 20, " MiB")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _scaled(sizes: Iterable[float], factor: int) -> list[float]:
    return [round(size / factor, 5) for size in sizes]


def _times(records: Iterable[_Record]) -> list[Any]:
    """For plotly: milliseconds since 1970, or ISO 8601 as it is."""
    return [each["time"] if isinstance(each["time"], str) else round(each["time"] * 1000, 3) for each in records]


def _line(name: str, times: list[Any], values: list[Any], colour: str, dash: str = "solid", width: float = 2) -> _Record:
    line = {"color": colour, "width": width, "dash": dash}
    return {"type": "scatter", "mode": "lines", "name": _label(name), "x": times, "y": values, "line": line}


def _bar(name: str, x: list[Any], y: list[Any], orientation: str = "h") -> _Record:
    marker = {"color": _colour(name)}
    return {"type": "bar", "name": _label(name), "orientation": orientation, "x": x, "y": y, "marker": marker}


def _over_time(made: _Page, head: str, upper: list[_Record], axis: _Record, lower: list[_Record], below: _Record) -> None:
    """A chart, and below it a smaller one with the same axis of time if there is something in it."""
    xaxis: _Record = {"type": "date", "title": {"text": "time, UTC"}, "hoverformat": "%Y-%m-%d %H:%M:%S.%2f"}
    layout: _Record = {"hovermode": "x unified", "xaxis": xaxis, "yaxis": {"rangemode": "tozero", **axis}}
    if lower:
        xaxis["anchor"] = "y2"
        layout |= {"yaxis": {**layout["yaxis"], "domain": [0.34, 1]}, "yaxis2": {"domain": [0, 0.24], **below}}
    made.draw(head, 500 if lower else 340, [*upper, *({**each, "yaxis": "y2"} for each in lower)], layout)


def _factors(records: Sequence[_Record], **more: Any) -> list[_Record]:
    """Memory amplification over time, if it is known at all."""
    factors = [each["amplification"] for each in records]
    known = any(factor is not None for factor in factors)
    return [{**_line("MAF", _times(records), factors, _MAF), **more}] if known else []


def _memory(made: _Page, looks: Sequence[_Record]) -> None:
    last, several, times = looks[-1], len(looks) > 1, _times(looks)
    factor, unit = _unit(max(look["rss_bytes"] for look in looks))
    heap = _scaled((look["counters"]["heap_alloc"] for look in looks), factor)
    parts = _ordered(PARTS, [look["parts"] for look in looks])
    sizes = {part: [look["parts"].get(part, 0) for look in looks] for part in parts}
    if several:
        data = [_line(part, times, _scaled(sizes[part], factor), _colour(part), width=0.5) for part in parts]
        data = [{**each, "stackgroup": "parts", "fillcolor": each["line"]["color"]} for each in data]
        data.append(_line("RSS", times, _scaled((look["rss_bytes"] for look in looks), factor), _INK, width=1))
        data.append(_line("HeapAlloc", times, heap, _INK, "dash"))
        _over_time(made, "Resident memory by part", data, {"ticksuffix": unit}, _factors(looks), _MAF_AXIS)
    else:
        data = [_bar(part, _scaled(sizes[part], factor), [""]) for part in parts]
        marker = {"symbol": "line-ns-open", "size": 50, "color": _INK, "line": {"width": 3}}
        data.append({"type": "scatter", "mode": "markers", "name": "HeapAlloc", "x": heap, "y": [""], "marker": marker})
        yaxis = {"type": "category", "visible": False}
        made.draw("Resident memory by part", 130, data, {"xaxis": {"ticksuffix": unit}, "yaxis": yaxis})
    times_that = "" if last["amplification"] is None else f" (RSS is {last['amplification']:.2f} times that)"
    made.say(
        f"{'At the end: ' if several else ''}RSS {bytes_text(last['rss_bytes'])}, of it in huge pages"
        f" {bytes_text(last['huge_bytes'])}; HeapAlloc {bytes_text(last['counters']['heap_alloc'])}{times_that};"
        f" swapped out {bytes_text(last['swap_bytes'])}. MAF is memory amplification, RSS / HeapAlloc."
    )
    rows = []
    for part, of in sizes.items():
        least = [bytes_text(min(of)), bytes_text(max(of))] if several else []
        share = _percent(of[-1] / max(1, last["rss_bytes"]))
        rows.append((part, *least, bytes_text(of[-1]), share, WHY.get(part, "")))
    heads = ("Part", *(("Least", "Most", "At the end") if several else ("Size",)), "Share", "What it is")
    made.table("The parts of RSS", heads, rows)


def _cycles(made: _Page, cycles: Sequence[_Record]) -> None:
    factor, unit = _unit(max(max(each["rss_bytes"], each["heap_goal_bytes"]) for each in cycles))
    lines, kinds = [], (("RSS", "rss", _INK), ("live heap", "heap_live", _BLUE), ("heap goal", "heap_goal", _ORANGE))
    for name, key, colour in kinds:
        lines.append(_line(name, _times(cycles), _scaled((each[f"{key}_bytes"] for each in cycles), factor), colour))
    texts = [f"cycle {each['cycle']}" for each in cycles]
    factors = _factors(cycles, mode="lines+markers", marker={"size": 5}, text=texts)
    _over_time(made, "At the end of each GC cycle", lines, {"ticksuffix": unit}, factors, _MAF_AXIS)
    made.say(f"{len(cycles):,} cycles. MAF is RSS / live heap here.")


def _heat(made: _Page, head: str, rows: list[str], columns: list[str], counts: list[list[int]], shares: bool) -> None:
    """Counts as colours (of their logarithms) and as text."""
    total = max(1, sum(map(sum, counts)))
    texts = [[f"{each:,}" + (f"<br>{each / total:.1%}" if shares else "") for each in row] for row in counts]
    z = [[math.log10(1 + each) for each in row] for row in counts]
    data = {"type": "heatmap", "x": [*map(_label, columns)], "y": [*map(_label, rows)], "z": z, "text": texts}
    axis = {"type": "category", "showgrid": False}
    layout = {"xaxis": {**axis, "side": "top"}, "yaxis": {**axis, "autorange": "reversed"}, "margin": {"b": 10}}
    made.draw(head, 40 + len(rows) * (52 if shares else 32), [data], layout)


def _faults(made: _Page, record: _Record) -> None:
    counts, lengths, series = record["counts"], record["phases_ns"], record.get("series") or []
    phases = [*PHASES, *(phase for phase in _ordered((), counts.values()) if phase not in PHASES)]
    sums = {phase: sum(of_part.get(phase, 0) for of_part in counts.values()) for phase in phases}
    if shown := _ordered(PHASES, [each["counts"] for each in series]):
        times = _times(series)
        bars = [_bar(phase, times, [each["counts"].get(phase, 0) for each in series], "v") for phase in shown]
        _over_time(made, "Page faults per second", bars, {}, [], {})
    if counts:
        table = [[of_part.get(phase, 0) for phase in phases] for of_part in counts.values()]
        _heat(made, "Page faults by part and phase of the collector", [*counts], phases, table, False)
    made.say(f"{sum(sums.values()):,} page faults.")
    rows = []
    for phase in phases:
        length = lengths.get(phase, 0)
        rows.append([phase, duration_text(length), f"{sums[phase] * 1e9 / length:,.0f}" if length else ""])
        for found in (record["minor"].get(phase, {}), record["major"].get(phase, {})):
            took = [duration_text(found[key]) if key in found else "" for key in ("p50_ns", "p99_ns")]
            rows[-1] += [f"{found.get('count', 0):,}", *took]
    heads = ("Phase", "Length", "Faults/s", "Minor", "p50", "p99", "Major", "p50", "p99")
    made.table("Phases, and how long their faults took", heads, rows)


def _node(number: object) -> str:
    return "unknown" if str(number) in ("-1", "unknown") else f"node {number}"


def _by_node(sizes: Sequence[dict[Any, Any]]) -> dict[int, list[Any]]:
    """Of each node its value in each of ``sizes``; JSON makes texts of numbers."""
    ints = [{int(node): value for node, value in each.items()} for each in sizes]
    nodes = sorted({node for each in ints for node in each}, key=lambda node: (node < 0, node))
    return {node: [each.get(node, 0) for each in ints] for node in nodes}


def _numa(made: _Page, record: _Record) -> None:
    faults, memory = record["faults"], record["memory"]
    if any(map(sum, faults["counts"])):
        rows = [f"CPU, {_node(each)}" for each in faults["rows"]]
        columns = [f"page, {_node(each)}" for each in faults["columns"]]
        _heat(made, "Page faults by node of the CPU and of the page", rows, columns, faults["counts"], True)
    if record["remote_share"] is not None:
        made.say(f"{record['remote_share']:.1%} of the faults whose page is known were for a page on another node.")
    if record.get("policies"):
        policies = ", ".join(f"{policy} {bytes_text(size)}" for policy, size in record["policies"].items())
        made.say(f"Policies: {policies}. {record.get('advice') or ''}")
    parts = _ordered((SPANS, *PARTS), [{part: sum(sizes.values()) for part, sizes in memory.items()}])
    if there := _by_node([memory[part] for part in parts]):
        factor, unit = _unit(max(map(sum, there.values())))
        by_part = zip(parts, zip(*there.values(), strict=True), strict=True)
        bars = [_bar(part, _scaled(sizes, factor), [*map(_node, there)]) for part, sizes in by_part]
        yaxis = {"type": "category", "autorange": "reversed"}
        made.draw("Resident memory by node", 60 + 48 * len(there), bars, {"xaxis": {"ticksuffix": unit}, "yaxis": yaxis})
    _node_series(made, record.get("series") or [])
    ran = max(1, sum(each["ran_ns"] for each in record["nodes"]))
    table = []
    for each in record["nodes"]:
        distances = ", ".join(f"{value} to {_node(node)}" for node, value in each["distance"].items())
        numbers = (f"{len(each['cpus'])}", bytes_text(each["bytes"]), _percent(each["ran_ns"] / ran))
        table.append((_node(each["node"]), *numbers, distances))
    made.table("The machine's memory nodes", ("Node", "CPUs", "Memory", "Threads ran", "Distance"), table)


def _node_series(made: _Page, series: Sequence[_Record]) -> None:
    ps, threads, sizes = (_by_node([each.get(key) or {} for each in series]) for key in ("ps", "threads", "bytes"))
    factor, unit = _unit(max(map(max, sizes.values()), default=0))
    times = _times(series)

    def lines(name: str, of: dict[int, list[Any]], dash: str) -> list[_Record]:
        return [_line(f"{name}{_node(node)}", times, of[node], _NODES[node % len(_NODES)], dash) for node in of]

    upper = lines("Ps, ", ps, "solid") + lines("threads, ", threads, "dot")
    lower = lines("memory, ", {node: _scaled(of, factor) for node, of in sizes.items()}, "dash")
    below = {"ticksuffix": unit, "rangemode": "tozero"}
    if upper or lower:
        _over_time(made, "Ps, threads and memory by node", upper, {"title": {"text": "Ps, threads"}}, lower, below)


def _tlb(made: _Page, record: _Record) -> None:
    counters, lengths = record["counters"], record["phases_ns"]
    phases = [phase for phase, length in lengths.items() if length]
    events = [_label(each["event"]) for each in counters]
    bars = []
    for phase in phases:
        rates = [(each["phases"].get(phase) or 0) * 1e9 / lengths[phase] for each in counters]
        bars.append(_bar(phase, [round(rate, 3) or None for rate in rates], events))
    if known := [rate for bar in bars for rate in bar["x"] if rate]:
        xaxis: _Record = {"title": {"text": "events per second on a CPU"}, "tickformat": "~s"}
        xaxis |= {"type": "log", "dtick": 1} if max(known) > _LOG_FROM * min(known) else {"type": "linear"}
        layout = {"barmode": "group", "xaxis": xaxis, "yaxis": {"type": "category", "autorange": "reversed"}}
        height = 70 + len(events) * (16 + 13 * len(bars))
        made.draw("TLB and caches: events by phase of the collector", height, bars, layout)
    rows = [(each["event"], f"{each['total']:,.0f}", _percent(each["running_share"])) for each in counters]
    made.table("What was counted, and how much of the time", ("Event", "Total", "Counted"), rows)
    if per := record.get("per_1000_instructions"):
        ratios = [
            (name, *("" if of.get(each) is None else f"{of[each]:,.3g}" for each in phases)) for name, of in per.items()
        ]
        made.table("Per 1,000 instructions", ("Event", *phases), ratios)
    flushes = {why: of if isinstance(of, dict) else {"flushes": of} for why, of in (record.get("flushes") or {}).items()}
    keys = [key for key in ("flushes", "pages", "whole") if any(key in of for of in flushes.values())]
    rows = [(why, *(f"{of.get(key, 0):,}" for key in keys)) for why, of in flushes.items()]
    made.table("TLB flushes", ("Reason", *keys), rows)
    reach = record.get("reach") or []
    for each in [reach] if isinstance(reach, dict) else reach:
        if each.get("share") is not None:
            page_size = bytes_text(each["page"])
            made.say(f"The TLB can map {each['share']:.1%} of what is in pages of {page_size} at once, at most.")
    for what, why in record.get("missing") or ():
        made.say(f"Not counted: {what} ({why}).")


_STYLE = """p {margin: 0.4em 0; overflow-wrap: anywhere}
.note, td.words, tr:first-child th {color: #5b5b66}
.lost {font-weight: 600; border-left: 4px solid #c8443a; padding-left: 0.6em}
.legend {list-style: none; display: flex; flex-wrap: wrap; gap: 0.2em 1em; padding: 0; margin: 0.3em 0; font-size: 13px}
.legend button {font: inherit; color: inherit; background: none; border: 0; padding: 0.1em 0; cursor: pointer}
.legend button[aria-pressed="false"] {opacity: 0.4; text-decoration: line-through}
.legend span {display: inline-block; width: 1.4em; vertical-align: middle; margin-right: 0.4em}
h3 {font-size: 13px; margin: 1.2em 0 0.3em}
.wide {overflow-x: auto}
table {font-size: 13px}
th, td {text-align: right; padding: 0.25em 0.6em; border-bottom: 1px solid #8883; white-space: nowrap; font-weight: 400}
.words {text-align: left; white-space: normal; min-width: 9em; overflow-wrap: anywhere}
td.words {min-width: 16em}
th:first-child {padding-left: 0}
@media (prefers-color-scheme: dark) {.note, td.words, tr:first-child th {color: #a3a3ae}}
</style>
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src "

"""A machine's topology as a picture (SVG) and as a page: self-contained, without a script, to be pasted into a ticket.

A box is a NUMA node: its GPUs are on the left, its NICs on the right, with a line from each GPU to its nearest NICs within
PXB. A GPU's edge says whether data goes to its best NIC directly. Names are anybody's: they are made printable and escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gotrace.export.charts.page import Markup, Page
from gotrace.export.picture.frame import asset, cut, escaped, filled, framed
from gotrace.records.topo import TopoGpu, Topology, TopologyNodes
from gotrace.text import count_text, printable

_BOX, _GAP, _PITCH, _HIGH = 370, 20, 38, 28  # pixels, as all that follow
_ACROSS = 3  # boxes side by side
WIDTH = _ACROSS * (_BOX + _GAP) + _GAP
_GPU, _NIC = 128, 136  # widths
_EDGE = {"yes": "yes", "possible": "yes", "pxn": "pxn", "no": "no", "unknown": "unknown"}
_KEY = "GPUDirect RDMA: green: yes, as far as distance decides; yellow: through another GPU's NIC; red: no; dashed: unknown"


def svg(found: Sequence[Topology]) -> str:
    """All machines, one below the other, as a file of its own."""
    parts = []
    top = 0
    for each in found:
        content, height = _machine(each, top)
        parts.append(content)
        top += height + _GAP
    style = f"<style>\n{asset('topology/picture.css')}</style>\n"
    title = escaped(", ".join(each["name"] or "topology" for each in found))
    picture = filled(
        "topology/picture.svg", width=WIDTH, height=max(top, 60), title=title, style=style, content="".join(parts)
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{picture}'


def page(found: Sequence[Topology], nodes: TopologyNodes | None = None) -> str:
    """The whole page: what is wrong, the picture, the matrix, rings and ports."""
    made = Page()
    if nodes is not None:
        _odd(made, nodes)
    for each in found:
        if len(found) > 1:
            made.head(each["name"] or "?")
        _page_of(made, each)
    title = f"Topology of {', '.join(each['name'] or '?' for each in found)}"
    style = f"{asset('charts/page.css')}{asset('topology/picture.css')}"
    return framed(title, "".join(made.html), style=style, scripts=[])


def _odd(made: Page, nodes: TopologyNodes) -> None:
    made.say(
        f"{count_text(len(nodes['nodes']), 'node')}, odd: {', '.join(each['node'] for each in nodes['odd']) or 'none'}",
        "lost" if nodes["odd"] else "note",
    )
    rows = [
        (each["node"], row["what"], row["other"] or "-", row["one"] or "-")
        for each in nodes["odd"]
        for row in each["differences"]
    ]
    made.table("What differs on the odd nodes", ("Node", "What", "It has", "Most have"), rows)


def _page_of(made: Page, found: Topology) -> None:
    counts = Counter(each["severity"] for each in found["findings"])
    made.tiles(
        [("wrong", str(counts["wrong"])), ("warnings", str(counts["warning"])), ("GPUs", str(len(found["gpus"])))]
        + [("NICs", str(len(found["nics"]))), ("maximum crossings of a ring", _most(found))]
    )
    for each in found["findings"]:
        what, do, why, severity = map(escaped, (each["what"], each["do"], each["why"], each["severity"]))
        source = escaped(f" ({each['source']})" if each["source"] else "")
        made.put(
            Markup(
                f'<div class="finding is-{severity}"><p class="what">{severity}: {what}.</p>'
                f'<p>{do}</p><p class="note">{why}{source}</p></div>'
            )
        )
    content, height = _machine(found, 0)
    title = escaped(f"Topology of {found['name']}")
    if found["gpus"] or found["nics"]:
        made.put(Markup(filled("topology/picture.svg", width=WIDTH, height=height, title=title, style="", content=content)))
        made.say(f"{_KEY}. Lines lead to the nearest NICs within PXB.")
    _tables(made, found)
    for note in found["notes"]:
        made.say(note)
    made.say(f"Read: {'; '.join(found['sources'])}.")


def _most(found: Topology) -> str:
    if not found["rings"]:
        return "-"
    worst = max(found["rings"], key=lambda ring: (ring["crossings"], ring["crossings_at_most"]))
    low, high = worst["crossings"], worst["crossings_at_most"]
    return str(low) if low == high else f"{low} to {high}"


def _tables(made: Page, found: Topology) -> None:
    levels: dict[tuple[str, str], str] = {}
    for pair in found["pairs"]:
        judged = pair["p2p"] or pair["gdr"]
        near = judged is not None and judged["answer"] in ("yes", "possible")
        levels[pair["one"], pair["other"]] = levels[pair["other"], pair["one"]] = f"{pair['level']}{'+' if near else ''}"
    gpus = [gpu["name"] for gpu in found["gpus"]]
    rows = [(name, *("X" if name == other else levels[name, other] for other in gpus)) for name in gpus]
    rows += [(nic["name"], *(levels[nic["name"], gpu] for gpu in gpus)) for nic in found["nics"]]
    made.table("Level; +: NCCL goes direct, as far as distance decides", ("", *gpus), rows if gpus else [])
    made.table(
        "GPUs",
        ("GPU", "Bus", "NUMA node", "Nearest NICs", "GPUDirect RDMA", "Why"),
        [
            (
                gpu["name"],
                gpu["bus"] or "?",
                gpu["node"] or "?",
                "?" if gpu["near_nics"] is None else ", ".join(gpu["near_nics"]) or "none within PXB",
                gpu["gdr"]["answer"] if gpu["gdr"] else "?",
                gpu["gdr"]["why"] if gpu["gdr"] else "?",
            )
            for gpu in found["gpus"]
        ],
        names=("Nearest NICs", "Why"),
    )
    made.table(
        f"Rings, limit of crossings {found['max_crossings']}",
        ("Ring", "Crossings", "Farthest", "Stops", "Source"),
        [
            (
                str(ring["channel"]) + (" ABOVE THE LIMIT" if ring["over_limit"] else ""),
                f"{ring['crossings']}"
                + (f" to {ring['crossings_at_most']}" if ring["crossings_at_most"] != ring["crossings"] else ""),
                ring["farthest"],
                " ".join(ring["stops"]) + (" and back" if ring["closes"] else ""),
                ring["source"] or "computed by gotrace: not in any NCCL log",
            )
            for ring in found["rings"]
        ],
        names=("Stops", "Source"),
    )
    made.table(
        "Ports",
        ("Port", "State", "Physical", "Gb/s", "Layer", "Source"),
        [
            (
                f"{port['device']}:{port['port']}",
                port["state"] or "?",
                port["physical"] or "?",
                "?" if port["gbps"] is None else f"{port['gbps']:g}",
                port["layer"] or "?",
                port["source"],
            )
            for port in found["ports"]
        ],
        names=("State", "Physical", "Layer", "Source"),
    )
    if fabric := found["fabric"]:
        rows_ = [(hops, str(count)) for hops, count in fabric["hops"].items()]
        made.table(f"Fabric: {count_text(fabric['switches'], 'switch', 'switches')}", ("Between two nodes", "Pairs"), rows_)


def _machine(found: Topology, top: int) -> tuple[str, int]:
    """The elements of a picture whose first line is at ``top``, and its height."""
    parts = [_text(_GAP, top + 20, f"{found['name'] or 'topology'}: {_linked(found)}", "name", 150)]
    nodes = sorted({each["node"] for each in (*found["gpus"], *found["nics"])}, key=lambda node: (node is None, str(node)))
    at, high = top + 36, 0
    for number, node in enumerate(nodes):
        if number and number % _ACROSS == 0:
            at, high = at + high + _GAP, 0
        content, box = _node(found, node, _GAP + number % _ACROSS * (_BOX + _GAP), at)
        parts.append(content)
        high = max(high, box)
    return "".join(parts), at + high + _GAP - top


def _linked(found: Topology) -> str:
    counts = Counter(pair["level"] for pair in found["pairs"] if pair["p2p"])
    said = ", ".join(f"{count_text(count, 'pair')} {level}" for level, count in counts.most_common(6))
    return f"{count_text(len(found['gpus']), 'GPU')}" + (f", {said}" if said else "")


def _node(found: Topology, node: str | None, x: int, y: int) -> tuple[str, int]:
    gpus = [gpu for gpu in found["gpus"] if gpu["node"] == node]
    nics = [nic for nic in found["nics"] if nic["node"] == node]
    height = 34 + _PITCH * max(len(gpus), len(nics), 1)
    name = "NUMA node unknown" if node is None else f"NUMA node {node}" if node.isdigit() else node
    parts = [f'<rect class="node" x="{x}" y="{y}" width="{_BOX}" height="{height}" rx="8"/>\n']
    parts.append(_text(x + 12, y + 20, name, "faint", 52))
    over = {stop for ring in found["rings"] if ring["over_limit"] for stop in ring["stops"]}
    places = {nic["name"]: y + 30 + _PITCH * at for at, nic in enumerate(nics)}
    for at, gpu in enumerate(gpus):
        where = y + 30 + _PITCH * at
        parts += _lines(gpu, places, x, where)
        edge = _EDGE[gpu["gdr"]["answer"]] if gpu["gdr"] else ""
        parts.append(_box(x + 12, where, _GPU, f"{edge}{' over' if gpu['name'] in over else ''}"))
        parts.append(_text(x + 20, where + 18, gpu["name"], "name", 18))
    for nic in nics:
        where = places[nic["name"]]
        parts.append(_box(x + _BOX - 12 - _NIC, where, _NIC, "no" if nic["usable"] is False else ""))
        down = " down" if nic["usable"] is False else ""
        parts.append(_text(x + _BOX - 4 - _NIC, where + 18, nic["name"] + down, "", 19))
    return "".join(parts), height


def _lines(gpu: TopoGpu, places: dict[str, int], x: int, where: int) -> Iterator[str]:
    begin, end = x + 12 + _GPU, x + _BOX - 12 - _NIC
    for name in gpu["near_nics"] or ():
        if name in places:
            mine, theirs = where + _HIGH // 2, places[name] + _HIGH // 2
            middle = (begin + end) // 2
            yield f'<path d="M{begin} {mine}C{middle} {mine} {middle} {theirs} {end} {theirs}"/>\n'


def _box(x: int, y: int, width: int, kind: str) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{_HIGH}" rx="5"/>\n'


def _text(x: int, y: int, text: str, kind: str, room: int) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escaped(cut(printable(text), room))}</text>\n'

"""`gotrace topo`, for people: verdicts first, then the matrix, rings and ports behind them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.records.topo import TopoFinding, Topology, TopologyDiff, TopologyNodes, TopologySettings, TopoRing
from gotrace.run.files import Sink
from gotrace.text import count_text, printable

_WORDS = {"wrong": "WRONG", "warning": "warning", "note": "note"}
# What stands behind a level in the matrix, and what it means.
_MARKS = {"yes": "+", "possible": "+", "pxn": "~", "no": "", "unknown": "?"}
_KEY = (
    "+: NCCL goes directly (P2P between GPUs, GPUDirect RDMA to NICs), as far as distance decides; ~: through another GPU's"
    " NIC (PXN); ?: unknown"
)
_RINGS = 8


def write(stream: Sink, format_: str, found: Sequence[Topology], nodes: TopologyNodes | None, checked: bool) -> None:
    """Machines, in any of `gotrace.export.formats.TOPOLOGIES`; ``checked``: the verdicts alone."""
    if format_ == "json":
        _json(stream, [*found, *([nodes] if nodes else [])])
    elif format_ in ("html", "svg"):
        from gotrace.export.topology import draw

        stream.write(draw.page(found, nodes) if format_ == "html" else draw.svg(found))
    else:
        Table(stream).print(_lines(found, nodes, checked))


def _json(stream: Sink, records: Sequence[Any]) -> None:
    stream.write(json.dumps(records, indent=1) + "\n")


def _lines(found: Sequence[Topology], nodes: TopologyNodes | None, checked: bool) -> Iterator[str | Rows]:
    if nodes is not None:
        yield from _odd(nodes)
    for number, each in enumerate(found):
        if number or nodes is not None:
            yield ""
        named = len(found) > 1
        yield from _verdicts(each, named, nodes is not None) if checked else _shown(each, named)


def _odd(nodes: TopologyNodes) -> Iterator[str | Rows]:
    names = ", ".join(printable(each["node"]) for each in nodes["odd"])
    count = count_text(len(nodes["nodes"]), "node")
    if nodes["odd"]:
        yield f"ODD: {names} of {count}. The others are alike."
    elif nodes["undecided"]:
        yield f"{count} differ, and none of them are a majority: {', '.join(map(printable, nodes['undecided'][:4]))}"
    else:
        yield f"{count} are alike." if len(nodes["nodes"]) > 1 else "1 node: nothing to compare it with."
    for odd in nodes["odd"]:
        yield ""
        heads = (
            Column("what", left=True),
            Column(printable(odd["node"]), left=True, gap=2),
            Column("most", left=True, gap=2),
        )
        yield Rows(
            heads,
            [(printable(row["what"]), _or_none(row["other"]), _or_none(row["one"])) for row in odd["differences"][:20]],
        )
        if len(odd["differences"]) > 20:
            yield f"and {len(odd['differences']) - 20} more"


def _or_none(value: str | None) -> str:
    return "-" if value is None else printable(value)


def _verdicts(found: Topology, named: bool, many: bool) -> Iterator[str | Rows]:
    """The worst first, each with what to change; of ``many`` nodes without notes."""
    if named:
        yield f"{printable(found['name'])}:"
    counts = {word: sum(each["severity"] == word for each in found["findings"]) for word in _WORDS}
    shown = [each for each in found["findings"] if not many or each["severity"] != "note"]
    for each in shown:
        yield from _finding(each)
    if shown:
        yield ""
    parts = [f"{counts['wrong']} wrong", count_text(counts["warning"], "warning"), count_text(counts["note"], "note")]
    yield f"{_size(found)}: {', '.join(parts)}."
    if many:
        return
    yield from _rings(found)
    yield from _fabric(found)
    for note in found["notes"]:
        yield printable(note)
    yield f"Read: {'; '.join(map(printable, found['sources']))}."


def _finding(each: TopoFinding) -> Iterator[str]:
    yield f"{_WORDS[each['severity']]}: {printable(each['what'])}."
    yield f"    do: {printable(each['do'])}"
    source = f" ({printable(each['source'])})" if each["source"] else ""
    yield f"    why: {printable(each['why'])}{source}"


def _size(found: Topology) -> str:
    parts = [count_text(len(found["gpus"]), "GPU")] if found["gpus"] else []
    parts += [count_text(len(found["nics"]), "NIC")] if found["nics"] else []
    parts += [count_text(len(found["ports"]), "port")] if found["ports"] else []
    return ", ".join(parts) or "no device"


def _shown(found: Topology, named: bool) -> Iterator[str | Rows]:
    if named:
        yield f"{printable(found['name'])}:"
    tables = [*_matrix(found), *_gpus(found), *_rings(found, every=True), *_ports(found), *_fabric(found)]
    yield from tables[1:] if tables[:1] == [""] else tables
    if found["others"]:
        yield ""
        yield Rows(
            (Column("device", left=True), Column("NUMA node", left=True, gap=2)),
            [(printable(bus), "?" if node is None else node) for bus, node in found["others"].items()],
        )
    worst = [each for each in found["findings"] if each["severity"] == "wrong"]
    if found["findings"]:
        yield ""
        rest = len(found["findings"]) - len(worst)
        for each in worst:
            yield f"WRONG: {printable(each['what'])}."
        yield f"{rest} more to know: gotrace topo check" if worst else f"{rest} to know: gotrace topo check"
    for note in found["notes"]:
        yield printable(note)
    yield f"Read: {'; '.join(map(printable, found['sources']))}."


def _short(names: Sequence[str]) -> dict[str, str]:
    """Names for headings: all without what they begin with alike, where that leaves numbers."""
    from os.path import commonprefix

    start = commonprefix(list(names)) if len(names) > 2 else ""
    cut = len(start.rstrip("0123456789")) if len(start) > 3 else 0
    return {name: printable(name[cut:] or name) for name in names}


def _matrix(found: Topology) -> Iterator[str | Rows]:
    """GPUs and NICs by GPUs: for each pair the level, and whether NCCL goes directly."""
    if not found["gpus"]:
        return
    cells: dict[tuple[str, str], str] = {}
    for pair in found["pairs"]:
        judged = pair["p2p"] or pair["gdr"]
        mark = _MARKS[judged["answer"]] if judged and pair["level"] != "?" else ""
        cells[pair["one"], pair["other"]] = cells[pair["other"], pair["one"]] = f"{pair['level']}{mark}"
    gpus = [gpu["name"] for gpu in found["gpus"]]
    heads = _short(gpus) if not all(name.startswith("GPU") for name in gpus) else {name: name for name in gpus}
    cells |= {(name, name): "X" for name in gpus}
    rows = [
        (printable(gpu["name"]), _node(gpu["node"]), *(cells[gpu["name"], other] for other in gpus))
        for gpu in found["gpus"]
    ]
    for nic in found["nics"]:
        name = nic["name"] if nic["label"] in ("", nic["name"]) else f"{nic['name']} ({nic['label']})"
        rows.append((printable(name), _node(nic["node"]), *(cells[nic["name"], gpu] for gpu in gpus)))
    columns = [
        Column("", left=True),
        Column("node", left=True, gap=2),
        *(Column(heads[name], left=True, gap=2) for name in gpus),
    ]
    yield Rows(columns, rows, parts=True)
    yield f"{_KEY}."


def _node(node: str | None) -> str:
    return "?" if node is None else printable(node)


def _gpus(found: Topology) -> Iterator[str | Rows]:
    """Which NIC a GPU has, and whether data gets there directly."""
    if not found["nics"] or not found["gpus"]:
        return
    yield ""
    columns = (
        Column("GPU", left=True),
        Column("nearest NICs", left=True, gap=2, elastic=24),
        Column("GPUDirect RDMA", left=True, gap=2),
        Column("why", left=True, gap=2, elastic=12, rank=1),
    )
    rows = []
    for gpu in found["gpus"]:
        judged = gpu["gdr"]
        rows.append(
            (
                printable(gpu["name"]),
                "?" if gpu["near_nics"] is None else printable(", ".join(gpu["near_nics"]) or "none within PXB"),
                judged["answer"] if judged else "?",
                printable(f"{gpu['gdr_nic']}: {judged['why']}" if judged else "no NIC is known"),
            )
        )
    yield Rows(columns, rows)


def _crossings(ring: TopoRing) -> str:
    low, high = ring["crossings"], ring["crossings_at_most"]
    return f"{low}" if low == high else f"{low} to {high}"


def _rings(found: Topology, every: bool = False) -> Iterator[str | Rows]:
    """What crosses NUMA nodes in each ring."""
    rings = found["rings"]
    if not rings:
        return
    ours = all(ring["source"] is None for ring in rings)
    over = sum(ring["over_limit"] for ring in rings)
    by = "the best that we find: no NCCL log has them" if ours else "of the log"
    counts = sorted({_crossings(ring) for ring in rings})
    known = all(ring["crossings"] == ring["crossings_at_most"] for ring in rings)
    sure = "" if known else " (not all is known)"
    maybe = sum(ring["crossings_at_most"] > found["max_crossings"] for ring in rings) - over
    limit = f"{over} above" if over else "none above" if not maybe else "none known to be above"
    said = f"Rings ({by}): {len(rings)}, NUMA crossings per ring {', '.join(counts)}{sure}; {limit} the limit of"
    yield f"{said} {found['max_crossings']}."
    if not every and not over:
        return
    yield ""
    columns = (
        Column("ring"),
        Column("crossings", gap=2),
        Column("farthest", left=True, gap=2),
        Column("", left=True, gap=1),
        Column("stops", left=True, gap=2, elastic=24),
    )
    shown = rings if every else [ring for ring in rings if ring["over_limit"]]
    rows = [
        (
            ring["channel"],
            _crossings(ring),
            printable(ring["farthest"]),
            "ABOVE" if ring["over_limit"] else "",
            printable(" ".join(ring["stops"]) + (" and back" if ring["closes"] else "")),
        )
        for ring in shown[:_RINGS]
    ]
    yield Rows(columns, rows, strong="ABOVE")
    if len(shown) > _RINGS:
        yield f"and {len(shown) - _RINGS} more rings: --format json has all"


def _ports(found: Topology) -> Iterator[str | Rows]:
    if not found["ports"]:
        return
    yield ""
    columns = (
        Column("port", left=True),
        Column("state", left=True, gap=2),
        Column("physical", left=True, gap=2),
        Column("Gb/s", gap=2),
        Column("layer", left=True, gap=2),
        Column("source", left=True, gap=2, elastic=8, rank=1),
    )
    rows = [
        (
            printable(f"{port['device']}:{port['port']}"),
            _word(port["state"]),
            _word(port["physical"]),
            "?" if port["gbps"] is None else f"{port['gbps']:g}",
            _word(port["layer"]),
            printable(port["source"]),
        )
        for port in found["ports"]
    ]
    yield Rows(columns, rows)


def _word(text: str | None) -> str:
    return "?" if text is None else printable(text)


def _fabric(found: Topology) -> Iterator[str]:
    fabric = found["fabric"]
    if fabric is None:
        return
    hops = ", ".join(f"{hops} for {count_text(count, 'pair')}" for hops, count in fabric["hops"].items())
    size = f"{count_text(len(fabric['nodes']), 'node')}, {count_text(fabric['switches'], 'switch', 'switches')}"
    yield f"Fabric: {size}; switches between two nodes: {hops or 'no pairs'}."


def write_diff(stream: Sink, format_: str, found: TopologyDiff) -> None:
    """In any of `gotrace.export.formats.TABLES`."""
    if format_ == "json":
        _json(stream, [found])
        return
    rows = [(printable(row["what"]), _or_none(row["one"]), _or_none(row["other"])) for row in found["differences"]]
    if not rows:
        Table(stream).print([f"{printable(found['one'])} and {printable(found['other'])} do not differ."])
        return
    heads = (
        Column("what", left=True),
        Column(printable(found["one"]), left=True, gap=2, elastic=12),
        Column(printable(found["other"]), left=True, gap=2, elastic=12),
    )
    Table(stream).print([Rows(heads, rows), f"{count_text(len(rows), 'difference')}; -: not there, or unknown."])


def write_settings(stream: Sink, format_: str, found: Sequence[TopologySettings]) -> None:
    """In any of `gotrace.export.formats.SETTINGS`."""
    if format_ == "json":
        _json(stream, found)
    elif format_ == "yaml":
        stream.write(_pod(found))
    else:
        stream.write("".join(f"{line}\n" for line in _exports(found)))


def _comment(text: str) -> str:
    return f"# {printable(text)}"


def _exports(found: Sequence[TopologySettings]) -> Iterator[str]:
    """For a shell: what is to be measured first stands in a comment."""
    for each in found:
        if len(found) > 1:
            yield _comment(f"{each['name']}:")
        for setting in each["settings"]:
            line = f"unset {setting['variable']}"
            if setting["value"] is not None:
                line = f"export {setting['variable']}={_quoted(setting['value'])}"
            yield _comment(setting["why"] + (f" ({setting['source']})" if setting["source"] else ""))
            yield _comment(f"changes: {setting['changes']}")
            yield f"# measure first: {line}" if setting["measure"] else line
            yield ""
        if not each["settings"]:
            yield "# Nothing to set."
        for text in each["left_alone"]:
            yield _comment(f"left alone: {text}")


def _quoted(value: str) -> str:
    """For a shell; zsh takes = at the beginning for the name of a command."""
    text = shlex.quote(printable(value))
    return f"'{text}'" if text.startswith("=") else text


def _pod(found: Sequence[TopologySettings]) -> str:
    """The env of a container in a pod. What is to be measured, and what is to be unset, are comments."""
    lines = ["env:"]
    for each in found:
        for setting in each["settings"]:
            lines.append(f"  # {printable(setting['why'])}")
            if setting["value"] is None:
                lines.append(f"  # take out {setting['variable']}")
                continue
            mark = "# " if setting["measure"] else ""
            if setting["measure"]:
                lines.append("  # measure first:")
            lines.append(f"  {mark}- name: {setting['variable']}")
            lines.append(f"  {mark}  value: {json.dumps(printable(setting['value']))}")
    return "\n".join(lines if any(_values(found)) else ["env: []", *lines[1:]]) + "\n"


def _values(found: Sequence[TopologySettings]) -> Iterator[Mapping[str, Any]]:
    return (each for one in found for each in one["settings"] if each["value"] is not None and not each["measure"])

"""Flame graphs as SVG and HTML: one file, nothing from elsewhere, and a picture even where no script runs.

Names are the target's own: they go through `printable` and are escaped, and the script handles them as text only.
"""

from __future__ import annotations

import colorsys
import html as markup
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gotrace.analysis.flame import SUFFIXES, Boxes, Difference, Numbers, Profile, layout
from gotrace.analysis.stacks import INLINED, KERNEL
from gotrace.export.picture import PAGE_HEAD, cut, escaped
from gotrace.text import bytes_text, duration_text, printable

Graph = Profile | Boxes | Difference

WIDTH = 1200  # pixels, as all that follow
NARROWEST = 0.1
TOP_FUNCTIONS = 30
_MARGIN = 10
_INNER = WIDTH - 2 * _MARGIN
_ROW, _BOX = 17, 16
_EDGED = 3  # wider boxes have an edge; narrow ones would be nothing else. The script has its like.
_CHAR, _BASELINE = 6.63, 11.5  # of a monospaced font of 11 pixels

# Hue, saturation and lightness of each kind of function; the lightness varies from function to function.
_KINDS = {
    "user": (47, 90, 66),
    "inlined": (174, 48, 66),
    "runtime": (212, 58, 74),
    "gc": (283, 52, 76),
    "kernel": (22, 92, 66),
    "root": (0, 0, 84),
}
_SHADES = 8
_LEGEND = (
    ("user", "Go code"),
    ("inlined", "inlined (_[i])"),
    ("runtime", "Go runtime"),
    ("gc", "garbage collection"),
    ("kernel", "kernel (_[k])"),
)
# Steps of a difference's colour, from the greatest decrease to the greatest increase.
_STEPS = 10

_RUNTIME = re.compile(r"runtime[./]|internal/runtime/|gcWriteBarrier")
_GC = re.compile(
    r"(runtime\.(\(\*)?(gc|mark|sweep|bgsweep|scan|scav|bgscav|grey|wb[BMZ]|bulkBarrier|shade|findObject|typePointers|"
    r"deduct(Sweep|Assist)|drain|finishsweep|activeSweep|limiterEvent)|gcWriteBarrier|runtime\..*[sS]weep)"
)
# A Go function without its package's path: what is shown where the whole name has no room.
_PATH = re.compile(r"^[^(\[]*/")


def svg(graph: Graph, title: str, subtitle: str = "", *, counted: str = "samples") -> str:
    """A flame graph as a file of its own, 1200 pixels wide. ``counted`` is what the counts are of ("samples", "times").

    A click zooms, Search and Ctrl-F highlight by a regular expression, and the line at the bottom tells about a box.
    """
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + "".join(_picture(_drawable(graph), title, subtitle, counted))


def html(graph: Graph, title: str, subtitle: str = "", *, counted: str = "samples") -> str:
    """A page with the flame graph and a table of the functions that weigh most by themselves."""
    graph = _drawable(graph)
    return _PAGE.format(
        title=escaped(title),
        subtitle=escaped(subtitle),
        picture="".join(_picture(graph, "", "", counted)),
        table="".join(_table(graph)),
    )


def _drawable(graph: Graph) -> Boxes | Difference:
    return layout(graph) if isinstance(graph, Profile) else graph


def _picture(graph: Boxes | Difference, title: str, subtitle: str, counted: str) -> Iterator[str]:
    boxes = graph.boxes if isinstance(graph, Difference) else graph
    total = int(boxes.weight[0])
    scale = _INNER / total if total else 0.0
    drawn = np.flatnonzero(boxes.weight * scale >= NARROWEST)
    rows = int(boxes.depth[drawn].max()) + 1 if len(drawn) else 3
    notes = [*_left_out(boxes, drawn), *_comparison(graph)]
    # Head, legend and notes are above the boxes, the details under them.
    y = 6 + 24 * bool(title) + 22 * bool(subtitle)
    first = y + 28 + 16 * len(notes)
    base = first + _ROW * (rows - 1)
    height = base + _ROW + 26
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" class="flame" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" data-char="{_CHAR}" data-base="{_BASELINE}">\n'
        f'<style type="text/css"><![CDATA[\n{_style(isinstance(graph, Difference))}]]></style>\n'
        f'<rect class="ground" x="0" y="0" width="{WIDTH}" height="{height}"/>\n'
    )
    if title:
        yield f'<text class="title" x="{WIDTH // 2}" y="24" text-anchor="middle">{_fitting_line(title, 8.6)}</text>\n'
    if subtitle:
        yield f'<text class="note" x="{WIDTH // 2}" y="{y - 6}" text-anchor="middle">{_fitting_line(subtitle)}</text>\n'
    yield from _legend(graph, y + 4)
    for line, note in enumerate(notes):
        yield f'<text class="note" x="{_MARGIN}" y="{y + 34 + 16 * line}">{escaped(note)}</text>\n'
    if not total:
        words = f"There were no {escaped(counted)}."
        yield f'<text class="title" x="{WIDTH // 2}" y="{first + 30}" text-anchor="middle">{words}</text>\n</svg>\n'
        return
    for control, words, right in (("reset", "Reset zoom", 110), ("search", "Search", 0)):
        place = f'x="{WIDTH - _MARGIN - right}" y="{y + 14}" text-anchor="end"'
        yield f'<text class="{control} control hidden" {place}>{words}</text>\n'
    yield '<g class="boxes">\n'
    begins, widths = boxes.begin[drawn] * scale + _MARGIN, boxes.weight[drawn] * scale
    colours, details = _colours(graph, drawn), _details(graph, drawn, counted)
    for name, depth, begin, width, colour, told in zip(
        boxes.name[drawn].tolist(),
        boxes.depth[drawn].tolist(),
        begins.tolist(),
        widths.tolist(),
        colours,
        details,
        strict=True,
    ):
        shown = _shown(boxes.names[name])
        top = base - _ROW * depth
        text = _fitting(shown, width)
        rounded = ' rx="1"' if width > _EDGED else ""
        yield (
            f'<g class="{colour}"><title>{markup.escape(shown)} ({told})</title>'
            f'<rect x="{begin:.3f}" y="{top}" width="{width:.3f}" height="{_BOX}"{rounded}/>'
        )
        if text:
            yield f'<text x="{begin + 3:.2f}" y="{top + _BASELINE}">{markup.escape(text)}</text>'
        yield "</g>\n"
    yield f'</g>\n<text class="details" x="{_MARGIN}" y="{height - 9}" lengthAdjust="spacingAndGlyphs"> </text>\n'
    yield f'<text class="matched" x="{WIDTH - _MARGIN}" y="{height - 9}" text-anchor="end"> </text>\n'
    yield f'<script type="text/javascript"><![CDATA[\n{_script()}]]></script>\n</svg>\n'


@lru_cache(maxsize=100_000)
def _shown(name: str) -> str:
    return printable(name)


def _fitting(name: str, width: float) -> str:
    """As much of ``name`` as there is room for; empty if that is next to nothing. The script has its like."""
    room = int((width - 4) / _CHAR)
    if room < 3:
        return ""
    whole = cut(name, room)
    return whole if whole == name else cut(_PATH.sub("", name), room)


def _fitting_line(text: str, char: float = _CHAR) -> str:
    return markup.escape(cut(printable(text), int((WIDTH - 2 * _MARGIN) / char)))


def _left_out(boxes: Boxes, drawn: Numbers) -> Iterator[str]:
    hidden = boxes.weight > 0
    hidden[drawn] = False
    if hidden.any():
        # What stands above a box left out is left out with it.
        edge = hidden & ~hidden[boxes.parent]
        share = boxes.weight[edge].sum() / boxes.weight[0]
        yield (
            f"{int(hidden.sum()):,} boxes narrower than {NARROWEST} pixels are left out:"
            f" {_percent(float(share))} of the total is in them."
        )


def _comparison(graph: Boxes | Difference) -> Iterator[str]:
    if isinstance(graph, Difference):
        yield (
            f"Not drawn: {_percent(graph.gone_paths)} of A is in call paths that are not in B,"
            f" {_percent(graph.gone_functions)} of A in functions that are not in B (or called by them)."
        )


def _legend(graph: Boxes | Difference, y: int) -> Iterator[str]:
    entries: Iterable[tuple[str, str]] = _LEGEND
    lead = "a click zooms; colours:"
    if isinstance(graph, Difference):
        entries = ((f"d{2 * _STEPS}", "more than in A"), (f"d{_STEPS}", "the same"), ("d0", "less than in A"))
        lead = "B is drawn; its functions by themselves, A scaled to B's total, are"
    x = float(_MARGIN)
    yield f'<g class="legend"><text x="{x}" y="{y + 10}">{lead}</text>'
    x += len(lead) * _CHAR + 12
    for colour, words in entries:
        colour = colour if isinstance(graph, Difference) else f"{colour}{_SHADES // 2}"
        yield f'<g class="{colour}"><rect x="{x:.1f}" y="{y}" width="12" height="12" rx="2"/></g>'
        yield f'<text x="{x + 17:.1f}" y="{y + 10}">{words}</text>'
        x += 17 + len(words) * _CHAR + 16
    yield "</g>\n"


def kind_of(name: str) -> str:
    """Which colour a function has by its label: "kernel", "gc", "runtime", "inlined" or "user"."""
    if name.endswith(SUFFIXES[KERNEL]):
        return "kernel"
    if _GC.match(name):
        return "gc"
    if _RUNTIME.match(name):
        return "runtime"
    return "inlined" if name.endswith(SUFFIXES[INLINED]) else "user"


def _colours(graph: Boxes | Difference, drawn: Numbers) -> list[str]:
    """The class of each box; the same function always has the same."""
    if isinstance(graph, Difference):
        change = _change(graph)[drawn]
        greatest = float(np.abs(change).max()) or 1.0
        return [f"d{step}" for step in (np.round(_STEPS * change / greatest).astype(int) + _STEPS).tolist()]
    used, which = np.unique(graph.name[drawn], return_inverse=True)
    classes = [f"{kind_of(name)}{_hash(name) % _SHADES}" for name in (graph.names[place] for place in used.tolist())]
    classes[0] = f"root{_SHADES // 2}"  # the root's name is the first of all
    return [classes[place] for place in which.tolist()]


def _hash(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _change(graph: Difference) -> npt.NDArray[np.float64]:
    """By how much the share of each box by itself is greater after than before."""
    return _shares(graph.boxes.own, graph.boxes.weight[0]) - _shares(graph.before_own, graph.before[0])


def _shares(weights: Numbers, total: np.int64) -> npt.NDArray[np.float64]:
    return weights / max(int(total), 1)


def _details(graph: Boxes | Difference, drawn: Numbers, counted: str) -> Iterator[str]:
    """What is told about each box. No " (" may be in it: the script takes what is before the last one for the name."""
    boxes = graph.boxes if isinstance(graph, Difference) else graph
    counted = escaped(counted).replace("(", "")
    shares = _shares(boxes.weight, boxes.weight[0])[drawn]
    for place, count, weight, share in zip(
        drawn.tolist(), boxes.count[drawn].tolist(), boxes.weight[drawn].tolist(), shares.tolist(), strict=True
    ):
        told = [f"{count:,} {counted}", *([_weight(weight, boxes.unit)] if boxes.unit != counted else []), _percent(share)]
        if isinstance(graph, Difference):
            before, own = graph.before[place] / max(int(graph.before[0]), 1), boxes.own[place] / boxes.weight[0]
            before_own = graph.before_own[place] / max(int(graph.before[0]), 1)
            told.append(f"in A {_percent(before)}; by itself {_percent(own)}, in A {_percent(before_own)}")
        yield ", ".join(told)


def _weight(weight: int, unit: str) -> str:
    if unit == "nanoseconds":
        return duration_text(weight)
    return bytes_text(weight) if unit == "bytes" else f"{weight:,} {escaped(unit).replace('(', '')}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _table(graph: Boxes | Difference) -> Iterator[str]:
    boxes = graph.boxes if isinstance(graph, Difference) else graph
    total = max(int(boxes.weight[0]), 1)
    own = np.zeros(len(boxes.names), np.int64)
    np.add.at(own, boxes.name, boxes.own)
    rank = own.astype(float)
    heading = "Functions that weigh most by themselves"
    heads = ["Function", "itself", "share", "with callees", "share"]
    if isinstance(graph, Difference):
        before = np.zeros(len(boxes.names), np.int64)
        np.add.at(before, boxes.name, graph.before_own)
        change = own / total - before / max(int(graph.before[0]), 1)
        rank = np.abs(change)
        heading = "Functions whose own share changed most"
        heads += ["itself in A", "change"]
    rank[0] = 0  # the root is no function
    if not rank.any():
        return
    yield f"<h2>{heading}</h2>\n<table>\n"
    yield "<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>\n"
    for name in (place for place in np.argsort(-rank, kind="stable")[:TOP_FUNCTIONS].tolist() if rank[place]):
        inclusive = _inclusive(boxes, name)
        cells = [_weight(int(own[name]), boxes.unit), _percent(own[name] / total)]
        cells += [_weight(inclusive, boxes.unit), _percent(inclusive / total)]
        if isinstance(graph, Difference):
            cells += [_percent(before[name] / max(int(graph.before[0]), 1)), f"{100 * change[name]:+.2f} points"]
        yield f"<tr><td>{escaped(boxes.names[name])}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
    yield "</table>\n"


def _inclusive(boxes: Boxes, name: int) -> int:
    """What all boxes of a function weigh; where it calls itself only the outer one counts."""
    those = np.flatnonzero(boxes.name == name)
    # Of two boxes one holds the other or they are apart; the outer one is of less depth.
    those = those[np.lexsort((boxes.depth[those], boxes.begin[those]))]
    ends = np.maximum.accumulate(boxes.begin[those] + boxes.weight[those])
    outer = np.concatenate([[True], boxes.begin[those][1:] >= ends[:-1]])
    return int(boxes.weight[those[outer]].sum())


def _script() -> str:
    return (Path(__file__).parent / "flame.js").read_text()


def _rgb(hue: float, saturation: float, lightness: float) -> str:
    """In degrees and per cent; as #rrggbb, which every renderer knows."""
    channels = colorsys.hls_to_rgb(hue % 360 / 360, min(lightness, 100) / 100, saturation / 100)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _style(difference: bool) -> str:
    rules = [_STYLE]
    if difference:
        for step in range(-_STEPS, _STEPS + 1):
            hue, light = (8 if step > 0 else 214), 94 - 36 * abs(step) / _STEPS
            rules.append(f"svg.flame .d{step + _STEPS} rect {{fill: {_rgb(hue, 85 if step else 0, light)}}}\n")
    else:
        for kind, (hue, full, light) in _KINDS.items():
            for shade in range(_SHADES):
                turned, lit = hue + shade - _SHADES // 2, light + 1.75 * (shade - _SHADES // 2)
                rules.append(f"svg.flame .{kind}{shade} rect {{fill: {_rgb(turned, full, lit)}}}\n")
    return "".join(rules)


_STYLE = """svg.flame {font: 11px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace}
svg.flame text {fill: #1c1c22; white-space: pre}
svg.flame .ground {fill: #fcfcfa}
svg.flame .title {font: 600 16px system-ui, "Segoe UI", "DejaVu Sans", sans-serif}
svg.flame .note {fill: #5b5b66}
svg.flame .boxes text {pointer-events: none}
svg.flame .boxes g {cursor: pointer}
svg.flame .boxes rect[rx] {stroke: #000000; stroke-opacity: 0.2; stroke-width: 0.5}
svg.flame .boxes g:hover rect {stroke: #000000; stroke-opacity: 1; stroke-width: 1}
svg.flame .boxes .match rect {fill: #e637bf}
svg.flame .faded {opacity: 0.45}
svg.flame .hidden {display: none}
svg.flame .control {cursor: pointer; text-decoration: underline}
@media (prefers-color-scheme: dark) {
svg.flame .ground {fill: #17181c}
svg.flame text {fill: #e4e4ea}
svg.flame .note {fill: #a3a3ae}
svg.flame .boxes text {fill: #1c1c22}
svg.flame .boxes g:hover rect {stroke: #ffffff}
}
"""

_PAGE = (
    PAGE_HEAD
    + """p {{margin: 0.3em 0 1em; color: #5b5b66; overflow-wrap: anywhere}}
table {{font-size: 13px}}
th, td {{text-align: right; padding: 0.25em 0.8em; border-bottom: 1px solid #8883; white-space: nowrap}}
th {{font-weight: 600; color: #5b5b66}}
th:first-child, td:first-child {{text-align: left; white-space: normal; overflow-wrap: anywhere; padding-left: 0}}
td:first-child {{font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace}}
@media (prefers-color-scheme: dark) {{
p, th {{color: #a3a3ae}}
}}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
{picture}{table}</body>
</html>
"""
)

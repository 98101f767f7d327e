"""Flame graphs as SVG and HTML: one file, nothing from elsewhere, and a picture even where no script runs.

The outermost functions stand on top ("icicles"): that is where a page opens, and deep stacks end where they may.
Names are the target's own: they go through `printable` and are escaped, and the script handles them as text only.
"""

from __future__ import annotations

import colorsys
import html as markup
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gotrace.analysis.causes import CLASSES, UNKNOWN
from gotrace.analysis.flame import SUFFIXES, Boxes, Difference, Numbers, Profile, layout
from gotrace.analysis.goroutines import WAITS
from gotrace.analysis.stacks import INLINED, KERNEL
from gotrace.export.picture.frame import asset, cut, embedded_script, escaped, filled, framed
from gotrace.text import bytes_text, count_text, duration_text, printable

Graph = Profile | Boxes | Difference

WIDTH = 1200  # pixels, as all that follow
NARROWEST = 0.1
TOP_FUNCTIONS = 30
_MARGIN = 10
_INNER = WIDTH - 2 * _MARGIN
_ROW, _BOX = 17, 16
_BAR = 24  # the line that tells of a box and has the controls; the script has its like
_SEARCH = 190  # the room for the search box, at its end
_EDGED = 3  # wider boxes have an edge; narrow ones would be nothing else. The script has its like.
_CHAR, _BASELINE = 6.63, 11.5  # of a monospaced font of 11 pixels

# Hue, saturation and lightness of each kind of function; the lightness varies from function to function.
_KINDS = {
    "user": (47, 90, 66),
    "inlined": (174, 48, 66),
    "runtime": (212, 58, 74),
    "gc": (283, 52, 76),
    "kernel": (22, 92, 66),
    "waiting": (100, 42, 70),
    "root": (0, 0, 84),
}
_SHADES = 8
_LEGEND = (
    ("user", "Go code"),
    ("inlined", "inlined (_[i])"),
    ("runtime", "Go runtime"),
    ("gc", "garbage collection"),
    ("kernel", "kernel (_[k])"),
    ("waiting", "what was waited for"),
)
# Steps of a difference's colour, from the greatest decrease to the greatest increase.
_STEPS = 10

_RUNTIME = re.compile(r"runtime[./]|internal/runtime/|gcWriteBarrier")
_GC = re.compile(
    r"(runtime\.(\(\*)?(gc|mark|sweep|bgsweep|scan|scav|bgscav|grey|wb[BMZ]|bulkBarrier|shade|findObject|typePointers|"
    r"deduct(Sweep|Assist)|drain|finishsweep|activeSweep|limiterEvent)|gcWriteBarrier|runtime\..*[sS]weep)"
)
# The classes of what a stop waited for stand under the code that it was in.
_WAITING = frozenset(f"[{kind}]" for kind in CLASSES if kind != UNKNOWN)  # that is also code without a name
# A Go function without its package's path: what is shown where the whole name has no room.
_PATH = re.compile(r"^[^(\[]*/")


def svg(graph: Graph, title: str, subtitle: str = "", *, counted: str = "samples") -> str:
    """A flame graph as a file of its own. ``counted`` is what the counts are of ("samples", "times").

    It is 1200 pixels wide, or where its script runs as wide as the window. A click zooms, the search box (and Ctrl-F)
    highlights by a regular expression, and the line above the boxes, which stays in view, describes one.
    """
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _picture(_drawable(graph), title, subtitle, counted)


def html(graph: Graph, title: str, subtitle: str = "", *, counted: str = "samples") -> str:
    """A page with the flame graph and a table of the functions with the largest self weight."""
    graph = _drawable(graph)
    body = [f"<p>{escaped(subtitle)}</p>\n", _picture(graph, "", "", counted), *_table(graph)]
    return framed(title, "".join(body), style=asset("flame/page.css"))


def _drawable(graph: Graph) -> Boxes | Difference:
    return layout(graph) if isinstance(graph, Profile) else graph


def still(graph: Graph, *, counted: str = "samples") -> tuple[str, str]:
    """(markup, style) of a picture for a page whose policy lets no script of a picture run: what a box is, is its title."""
    graph = _drawable(graph)
    return _picture(graph, "", "", counted, alone=False), _style(isinstance(graph, Difference))


def _picture(graph: Boxes | Difference, title: str, subtitle: str, counted: str, alone: bool = True) -> str:
    boxes = graph.boxes if isinstance(graph, Difference) else graph
    total = int(boxes.weight[0])
    scale = _INNER / total if total else 0.0
    drawn = np.flatnonzero(boxes.weight * scale >= NARROWEST)
    rows = int(boxes.depth[drawn].max()) + 1 if len(drawn) else 3
    notes = [*_left_out(boxes, drawn), *_comparison(graph)]
    y = 6 + 24 * bool(title) + 22 * bool(subtitle)
    bar = y + 22 + 16 * len(notes)
    first = bar + _BAR
    height = first + _ROW * rows + 6
    content = []
    if title:
        place = f'x="{_MARGIN}" y="24"'
        content.append(f'<text class="title" {place}>{_fitting_line(title, 8.6)}</text>\n')
    if subtitle:
        place = f'x="{_MARGIN}" y="{y - 6}"'
        content.append(f'<text class="note" {place}>{_fitting_line(subtitle)}</text>\n')
    content += _legend(graph, y + 4, alone)
    for line, note in enumerate(notes):
        content.append(f'<text class="note" x="{_MARGIN}" y="{y + 34 + 16 * line}">{escaped(note)}</text>\n')
    if total:
        content += _boxes(graph, drawn, first, counted)
        if alone:
            content += _bar(bar)
            content.append(embedded_script("flame/picture.js"))
    else:
        place = f'x="{_MARGIN}" y="{first + 30}"'
        content.append(f'<text class="title" {place}>No {escaped(counted)}.</text>\n')
    return filled(
        "flame/picture.svg",
        width=WIDTH,
        height=height,
        char=_CHAR,
        baseline=_BASELINE,
        style=f'<style type="text/css"><![CDATA[\n{_style(isinstance(graph, Difference))}]]></style>\n' if alone else "",
        content="".join(content),
    )


def _bar(y: int) -> Iterator[str]:
    """The line above the boxes, drawn over them: the script keeps it in view, and puts the search box into it."""
    yield f'<g class="bar" data-y="{y}"><rect class="ground" x="0" y="{y}" width="100%" height="{_BAR}"/>'
    yield f'<text class="details" x="{_MARGIN}" y="{y + 16}" lengthAdjust="spacingAndGlyphs"> </text>'
    for name, words, right in (("matched", " ", _SEARCH), ("reset control hidden", "Reset zoom", _SEARCH + 130)):
        yield f'<text class="{name}" x="100%" dx="{-_MARGIN - right}" y="{y + 16}" text-anchor="end">{words}</text>'
    yield "</g>\n"


def _boxes(graph: Boxes | Difference, drawn: Numbers, first: int, counted: str) -> Iterator[str]:
    """Those that are ``drawn``; ``first`` is where the highest row begins."""
    boxes = graph.boxes if isinstance(graph, Difference) else graph
    scale = _INNER / int(boxes.weight[0])
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
        top = first + _ROW * depth
        text = _fitting(shown, width)
        rounded = ' rx="1"' if width > _EDGED else ""
        yield (
            f'<g class="{colour}"><title>{markup.escape(shown)} ({told})</title>'
            f'<rect x="{begin:.3f}" y="{top}" width="{width:.3f}" height="{_BOX}"{rounded}/>'
        )
        if text:
            yield f'<text x="{begin + 3:.2f}" y="{top + _BASELINE}">{markup.escape(text)}</text>'
        yield "</g>\n"
    yield "</g>\n"


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
            f"{count_text(int(hidden.sum()), 'box', 'boxes')} narrower than {NARROWEST} pixels not drawn:"
            f" {_percent(float(share))} of the total."
        )


def _comparison(graph: Boxes | Difference) -> Iterator[str]:
    if isinstance(graph, Difference):
        yield (
            f"Not drawn: {_percent(graph.gone_paths)} of A is in call paths absent from B,"
            f" {_percent(graph.gone_functions)} of A in functions absent from B (or called by those)."
        )


def _legend(graph: Boxes | Difference, y: int, alone: bool) -> Iterator[str]:
    entries: Iterable[tuple[str, str]] = _LEGEND
    lead = "click to zoom; colors:" if alone else "colors:"
    if isinstance(graph, Difference):
        entries = ((f"d{2 * _STEPS}", "more than in A"), (f"d{_STEPS}", "the same"), ("d0", "less than in A"))
        lead = "B is drawn; self shares, with A scaled to B's total:"
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
    """Which colour a function has by its label: "kernel", "waiting", "gc", "runtime", "inlined" or "user"."""
    if name in _WAITING or name.startswith(WAITS):
        return "waiting"
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
    """By how much the self share of each box is greater after than before."""
    return _shares(graph.boxes.own, graph.boxes.weight[0]) - _shares(graph.before_own, graph.before[0])


def _shares(weights: Numbers, total: np.int64) -> npt.NDArray[np.float64]:
    return weights / max(int(total), 1)


def _details(graph: Boxes | Difference, drawn: Numbers, counted: str) -> Iterator[str]:
    """The details of each box. No " (" may be in it: the script takes what is before the last one for the name."""
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
            told.append(f"in A {_percent(before)}; self {_percent(own)}, in A {_percent(before_own)}")
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
    heading = "Functions with the largest self weight"
    heads = ["Function", "self", "share", "with callees", "share"]
    if isinstance(graph, Difference):
        before = np.zeros(len(boxes.names), np.int64)
        np.add.at(before, boxes.name, graph.before_own)
        change = own / total - before / max(int(graph.before[0]), 1)
        rank = np.abs(change)
        heading = "Functions whose self share changed most"
        heads += ["self in A", "change"]
    rank[0] = 0  # the root is not a function
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


def _rgb(hue: float, saturation: float, lightness: float) -> str:
    """In degrees and per cent; as #rrggbb, which every renderer knows."""
    channels = colorsys.hls_to_rgb(hue % 360 / 360, min(lightness, 100) / 100, saturation / 100)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _style(difference: bool) -> str:
    rules = [asset("flame/picture.css")]
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

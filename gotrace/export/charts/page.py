"""An HTML page of charts and tables that stands alone, in pieces.

Nothing is loaded from elsewhere: the library that draws, uPlot, is within the page, and the page's own policy lets no other
script run. Names are the target's own: they go through `printable`, are escaped in the page, and the script handles them as
text only.

A figure is a dict that page.js draws: charts over time (`over_time`), horizontal bars (`bar_chart`), and others that it
names. Times in it are milliseconds since 1970.
"""

from __future__ import annotations

import datetime
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from gotrace.export.picture.frame import asset, cut, escaped, framed
from gotrace.text import bytes_text, printable

Record = dict[str, Any]

# Distinguishable with few colours too: neighbours differ in lightness.
BLUE, ORANGE, GREEN, RED, PURPLE, SAND = "#3b7dbd", "#e5a02d", "#3fa08f", "#c8443a", "#9a62b8", "#dccb7c"
OTHERS = ("#5a6577", "#b5893c", "#7aa9a2", "#a3607f")  # of names that are not known here
INK = "ink"  # the script knows what that is in light and dark
USE = (
    "Point at a chart for its values; drag across it to zoom in, double-click to zoom out; click a name in a legend to hide"
    " or show it."
)
# Read now and not when a page is made: by then we may not be able to, and LICENSE is not what `gotrace.late` keeps.
_LIBRARY = f"/*\n{asset('charts/uPlot/LICENSE')}*/\n{asset('charts/uPlot/uPlot.iife.min.js')}"
_SCRIPT = asset("charts/page.js")
_STYLE = f"{asset('charts/uPlot/uPlot.min.css')}\n{asset('charts/page.css')}"
_ROOM = 24  # cells of a label


class Markup(str):
    """A piece of HTML of our own making, which is not escaped again."""

    __slots__ = ()


def cell_html(cell: str) -> str:
    """What stands in a cell of a table."""
    return str(cell) if isinstance(cell, Markup) else escaped(cell)


class Page:
    """What the page consists of: pieces of HTML, and figures for the script."""

    def __init__(self) -> None:
        self.html: list[str] = []
        self.heads: list[str] = []
        self.figures: list[Record] = []

    def say(self, text: str, kind: str = "note") -> None:
        self.html.append(f'<p class="{kind}">{escaped(text)}</p>\n')

    def head(self, head: str) -> None:
        self.heads.append(head)
        self.html.append(f"<h2>{escaped(head)}</h2>\n")

    def put(self, markup: Markup) -> None:
        """A picture that needs no script."""
        self.html.append(f"{markup}\n")

    def draw(self, head: str, figure: Record) -> None:
        self.head(head)
        self.html.append(f'<div class="figure" role="figure" aria-label="{escaped(head)}"></div>\n')
        self.figures.append(figure)

    def tiles(self, numbers: Iterable[tuple[str, str]]) -> None:
        """The few numbers that matter most, each with its name."""
        tiles = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(number)}</dd></div>" for name, number in numbers)
        self.html.append(f'<dl class="tiles">{tiles}</dl>\n')

    def table(
        self,
        caption: str,
        heads: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        names: Sequence[str] = (),
        folded: bool = False,
    ) -> None:
        """A table, if it has rows. The first cell of each row is its head; columns of words are on the left.

        A cell may be `Markup`. ``names`` are the heads of columns that hold words, whatever those are; ``folded``: it is
        there for who asks.
        """
        if not rows:
            return
        words = {at for row in rows for at, cell in enumerate(row) if at == 0 or cell[:1].isalpha()}
        drawn = {at for row in rows for at, cell in enumerate(row) if isinstance(cell, Markup)}
        words |= {at for at, head in enumerate(heads) if head in names}
        prose = {at for row in rows for at, cell in enumerate(row) if len(cell) > _ROOM} - drawn
        opened = f"<details>\n<summary>{escaped(caption)}</summary>" if folded else f"<h3>{escaped(caption)}</h3>"
        self.html.append(f"{opened}\n")
        self.html.append(f'<div class="wide" role="region" aria-label="{escaped(caption)}" tabindex="0">\n<table>\n')
        for number, row in enumerate([heads, *rows]):
            self.html.append("<tr>")
            for at, cell in enumerate(row):
                tag, kind = "td" if number and at else "th", ""
                if at in words:
                    kind = ' class="words"' if at in prose else ' class="words short"'
                self.html.append(f"<{tag}{kind}>{cell_html(cell)}</{tag}>")
            self.html.append("</tr>\n")
        self.html.append("</table>\n</div>\n" + "</details>\n" * folded)

    def made(self, title: str, style: str = "", kinds: Sequence[str] = ()) -> str:
        """The whole page; ``style`` is that of pictures in it, ``kinds`` are scripts that draw more kinds of figures."""
        scripts = []
        body = [*self.html]
        if self.figures:
            body.insert(0, "<noscript><p>The charts need JavaScript.</p></noscript>\n")
            figures = json.dumps(self.figures, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
            body.append(f'<p class="note">{USE}</p>\n<script type="application/json" id="figures">{figures}</script>\n')
            scripts = [_LIBRARY, *kinds, _SCRIPT]
        return framed(title, "".join(body), style=f"{_STYLE}{style}", scripts=scripts)


def label(name: str) -> str:
    """Somebody else's name in a figure."""
    return cut(printable(name), _ROOM) or "(no name)"


def other_colour(name: str) -> str:
    """Of a name that is not known: the same for the same name, wherever it is."""
    return OTHERS[zlib.crc32(printable(name).encode()) % len(OTHERS)]


def size_unit(largest: float) -> tuple[int, str]:
    return (1 << 30, "GiB") if largest >= 1 << 30 else (1 << 20, "MiB")


def percent(share: float | None) -> str:
    return "?" if share is None else f"{share:.1%}"


def size_of(bytes_: float | None) -> str:
    return "?" if bytes_ is None else bytes_text(bytes_)


def scaled(sizes: Iterable[float], factor: int) -> list[float]:
    return [round(each / factor, 7) for each in sizes]


def scaled_known(sizes: Iterable[float | None], factor: int) -> list[float | None]:
    """`scaled`, where some may be unknown."""
    return [None if each is None else round(each / factor, 7) for each in sizes]


def times_of(records: Iterable[Record]) -> list[float]:
    """When the records are from, in milliseconds since 1970; `gotrace.records.times.Iso8601` has nanoseconds."""
    parts = (each["time"].removesuffix("Z").split(".") for each in records)
    return [
        round(datetime.datetime.fromisoformat(f"{second}+00:00").timestamp() * 1000 + int(nanoseconds) / 1e6, 3)
        for second, nanoseconds in parts
    ]


def line(name: str, values: list[Any], colour: str, dash: str = "solid", width: float = 2) -> Record:
    return {"name": label(name), "style": "line", "colour": colour, "dash": dash, "width": width, "values": values}


def solid(style: str, name: str, values: list[Any], colour: str) -> Record:
    """An "area" or "column" over time, stacked on those before it, or a horizontal "bar"."""
    return {"name": label(name), "style": style, "colour": colour, "values": values}


def time_chart(axis: str, series: list[Record], unit: str = "", *, zero: bool = True, **more: bool) -> Record:
    """Over time; ``zero``: whether the axis begins there. ``more``: whether it is "log"."""
    return {"axis": axis, "unit": unit and f" {unit}", "zero": zero, "series": series, **more}


def over_time(records: Sequence[Record], charts: Sequence[Record], length: int = 0) -> Record:
    """Those charts that have series, with one axis of time. ``length``: of what each record is about, from its time on."""
    return {"times": times_of(records), "length": length, "charts": [chart for chart in charts if chart["series"]]}


def bar_chart(rows: Sequence[str], series: list[Record], axis: str = "", unit: str = "", **more: bool) -> Record:
    """``more``: whether the bars of a row are "stacked", and their axis is "log"."""
    return {"rows": [*rows], "series": series, "axis": axis, "unit": unit and f" {unit}", **more}

"""What the pictures have in common: their files, text that fits and does no harm, and the frame of a page, light and dark.

Each picture is a folder: Python that makes the elements, beside it the style, the script and the frame around them.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html as markup
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from string import Template

from gotrace.late import own_text
from gotrace.text import printable

_FOLDERS = Path(__file__).parents[1]
_NONE = "'none'"


@functools.cache
def asset(name: str) -> str:
    """The text of a picture's file, by its folder and name: "flame/picture.css"."""
    return own_text(str(_FOLDERS / name))


def filled(name: str, **values: object) -> str:
    """An `asset` with each ``$name`` replaced by markup: what others chose has to be `escaped` before."""
    return Template(asset(name)).substitute(values)


def framed(title: str, body: str, *, style: str, scripts: Sequence[str] | None = None) -> str:
    """A whole HTML page: ``body`` under its title, ``style`` after that of all pages.

    With ``scripts``, which come last, the page has a policy: no other script and no other style, nothing from elsewhere.
    """
    style = f"\n{asset('picture/page.css')}{style}"
    policy = ""
    if scripts is not None:
        sources = f"default-src 'none'; style-src {_hash(style)}; script-src {' '.join(map(_hash, scripts)) or _NONE}"
        policy = f'<meta http-equiv="Content-Security-Policy" content="{sources}">\n'
        body += "".join(f"<script>{script}</script>\n" for script in scripts)
    return filled("picture/page.html", title=escaped(title), policy=policy, style=style, body=body)


def _hash(text: str) -> str:
    """As a source of a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embedded_script(name: str) -> str:
    """An `asset` as an element of an SVG."""
    return f'<script type="text/javascript"><![CDATA[\n{asset(name)}]]></script>\n'


def escaped(text: str) -> str:
    """Somebody else's words for SVG and HTML."""
    return markup.escape(printable(text))


def cells(text: str) -> int:
    """How wide a text is at most, in characters of Latin."""
    return sum(map(_width, text))


def cut(text: str, room: int) -> str:
    """``text``, or its beginning with two dots, in no more than ``room`` cells."""
    if cells(text) <= room:
        return text
    ends = accumulate(map(_width, text))
    return text[: sum(end <= room - 2 for end in ends)] + ".."


def _width(char: str) -> int:
    return 1 if char < "\u1100" else 2


def fitting(name: str, room: int) -> str:
    """As much of ``name`` as there is room for: the end of a path says more than its beginning."""
    shown = name
    while cells(shown) > room and "/" in shown.removeprefix("../"):
        shown = "../" + shown.removeprefix("../").partition("/")[2]
    return cut(shown, room) if cells(shown) > 6 else cut(name, room)


def paragraphs(texts: Iterable[str], room: int) -> list[str]:
    """Lines of no more than ``room`` cells; words longer than that are cut."""
    lines: list[str] = []
    for text in texts:
        line = ""
        for word in printable(text).split():
            joined = f"{line} {word}".lstrip()
            if cells(joined) > room:
                lines += [line] if line else []
                joined = cut(word, room)
            line = joined
        lines += [line] if line else []
    return lines


@dataclass(frozen=True)
class Axis:
    """Of time: nanoseconds from ``begin`` to ``end`` as pixels from ``left`` to ``right``."""

    left: int
    right: int
    begin: int
    end: int

    def x(self, ns: float) -> float:
        return self.left + (ns - self.begin) * self.scale

    @property
    def scale(self) -> float:
        return (self.right - self.left) / (self.end - self.begin)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Where the axis has lines, and what is written there."""
        least = (self.end - self.begin) / 1e6 / 9
        power = 10.0 ** math.floor(math.log10(least))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= least)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        for count in range(math.ceil(self.begin / 1e6 / step), math.floor(self.end / 1e6 / step) + 1):
            yield self.x(count * step * 1e6), f"{count * step:,.{digits}f} ms"

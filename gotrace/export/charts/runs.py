"""Pictures of runs as SVG within a page: a dot for each, ratios with their intervals, percentile curves.

They need no script: they are there in print and where none may run, and what a dot stands for is its title. Everything that
somebody else chose is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gotrace.export.charts.page import BLUE, GREEN, ORANGE, PURPLE, RED, SAND, Markup
from gotrace.export.picture.frame import escaped

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SAND)  # of versions, in their order; as .s0 to .s5 in page.css
_DOTS, _FOREST, _CURVES = (150, 30), (170, 22), (760, 320)
_LEFT, _BOTTOM, _RIGHT = 64, 26, 14  # of curves: room for labels
_MOST_RATIO = 3.0  # that an interval stretches the axis to; estimates do as far as they go
_EACH = 250  # more runs are dots without titles: a page has dozens of such pictures


@dataclass(frozen=True)
class Dot:
    """A run: ``order`` is its place in time, ``series`` whose it is; one that does not count is hollow."""

    order: int
    value: float
    title: str
    series: int = 0
    counts: bool = True
    far: bool = False


@dataclass(frozen=True)
class Curve:
    """Percentiles of one version: (percentile, least, middle, most) of its runs, ascending, each with its title."""

    name: str
    points: Sequence[tuple[float, float, float, float]]
    titles: Sequence[str]


def swatch(series: int) -> str:
    """The class of a version's colour."""
    return f"s{series % len(COLOURS)}"


def key(names: Sequence[str]) -> Markup:
    """Which colour is which version."""
    items = "".join(f'<li><span class="swatch {swatch(at)}"></span>{escaped(name)}</li>' for at, name in enumerate(names))
    return Markup(f'<ul class="key">{items}</ul>\n')


def dots(
    found: Sequence[Dot],
    label: str,
    runs: int,
    lines: Sequence[tuple[int, float]] = (),
    ends: tuple[float, float] | None = None,
) -> Markup:
    """Runs in chronological order, from the least at the bottom to the most at the top: of them, or of ``ends``.

    ``runs`` is how many places there are; ``lines`` are levels, each of a series: its median.
    """
    if not found:
        return Markup("")
    width, height = _DOTS
    least, most = ends or (min(each.value for each in found), max(each.value for each in found))

    def y(value: float) -> float:
        return height / 2 if most == least else 5 + (height - 10) * (most - value) / (most - least)

    def x(order: int) -> float:
        return 6 + (width - 12) * (order + 0.5) / max(1, runs)

    parts = [f'<line class="{swatch(at)}" x1="2" x2="{width - 2}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>' for at, v in lines]
    if len(found) > _EACH:
        for series in sorted({each.series for each in found}):
            path = "".join(f"M{x(each.order):.1f} {y(each.value):.1f}h0" for each in found if each.series == series)
            parts.append(f'<path class="{swatch(series)}" d="{path}"/>')
        found = [each for each in found if each.far or not each.counts][:_EACH]
    for each in found:
        kind = " ".join([swatch(each.series), *(["off"] if not each.counts else []), *(["far"] if each.far else [])])
        place = f'cx="{x(each.order):.1f}" cy="{y(each.value):.1f}" r="{4 if each.far else 3}"'
        parts.append(f'<circle class="{kind}" {place}><title>{escaped(each.title)}</title></circle>')
    return _svg("dots", _DOTS, label, parts)


@dataclass(frozen=True)
class Scale:
    """The axis of all rows of a forest: ratios, in logarithms."""

    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[tuple[float, float, float]], margin: float) -> Scale:
        """Such that the estimates and the margin are within it, and their intervals as far as there is room."""
        known = [(place, each) for three in ratios for place, each in enumerate(three) if math.isfinite(each) and each > 0]
        reaches = [(place, max(each, 1 / each)) for place, each in known]
        reach = [reach if place == 0 else min(reach, _MOST_RATIO) for place, reach in reaches]
        most = 1.05 * max([1 + 2 * margin, *reach])
        return cls(1 / most, most)

    def x(self, ratio: float) -> float:
        share = math.log(max(ratio, 1e-300) / self.low) / math.log(self.high / self.low)
        return 4 + (_FOREST[0] - 8) * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Ratios to label: 1, and steps to both ends."""
        step = max((each for each in (1.02, 1.05, 1.1, 1.25, 1.5, 2, 4, 10, 100) if each**1.3 <= self.high), default=None)
        return [1.0] if step is None else [1 / step, 1.0, step]


def forest(scale: Scale, margin: float, value: float, low: float, high: float, verdict: str, label: str) -> Markup:
    """One row: the ratio, its interval and the band within which nothing matters."""
    width, height = _FOREST
    middle = height / 2
    begin, end = scale.x(1 / (1 + margin)), scale.x(1 + margin)
    parts = [
        f'<rect class="band" x="{begin:.1f}" y="0" width="{end - begin:.1f}" height="{height}"/>',
        f'<line class="one" x1="{scale.x(1):.1f}" x2="{scale.x(1):.1f}" y1="0" y2="{height}"/>',
        f'<line class="interval" x1="{scale.x(low):.1f}" x2="{scale.x(high):.1f}" y1="{middle}" y2="{middle}"/>',
    ]
    for end_, beyond, sign in ((low, low < scale.low, 1), (high, high > scale.high, -1)):
        at = scale.x(end_)
        if beyond:  # it goes on outside
            parts.append(f'<path class="beyond" d="M{at:.1f} {middle}l{5 * sign} -4v8z"/>')
        else:
            parts.append(f'<line class="interval" x1="{at:.1f}" x2="{at:.1f}" y1="{middle - 4}" y2="{middle + 4}"/>')
    at = scale.x(value)
    parts.append(f'<rect class="{_KINDS.get(verdict, "open")}" x="{at - 4:.1f}" y="{middle - 4}" width="8" height="8"/>')
    parts.append(f"<title>{escaped(label)}</title>")
    return _svg("forest", _FOREST, label, parts)


_KINDS = {"better": "better", "worse": "worse", "same": "same"}


def forest_axis(scale: Scale) -> Markup:
    """What stands below the rows."""
    width, height = _FOREST
    parts = []
    for ratio in scale.ticks():
        at = scale.x(ratio)
        text = f"{ratio - 1:+.0%}" if ratio != 1 else "0"
        parts.append(f'<line class="one" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="4"/>')
        parts.append(f'<text x="{at:.1f}" y="16" text-anchor="middle">{text}</text>')
    return _svg("forest", (width, height), "the axis of changes", parts)


def curves(found: Sequence[Curve], text: Callable[[float], str], label: str) -> Markup:
    """Percentile curves of times, both axes logarithmic: each 9 more of a percentile is as wide as the one before."""
    found = [each for each in found if each.points]
    if not found:
        return Markup("")
    width, height = _CURVES
    percentiles = sorted({point[0] for each in found for point in each.points})
    left, right = _place(percentiles[0]), max(_place(percentiles[-1]), _place(percentiles[0]) + 0.1)
    values = [value for each in found for point in each.points for value in point[1:] if value > 0] or [1.0]
    low, high = math.log10(min(values)), math.log10(max(values))
    if high - low < 0.05:
        low, high = low - 0.1, high + 0.1

    def x(percentile: float) -> float:
        return _LEFT + (width - _LEFT - _RIGHT) * (_place(percentile) - left) / (right - left)

    def y(value: float) -> float:
        share = (math.log10(max(value, 1e-9)) - low) / (high - low)
        return 8 + (height - _BOTTOM - 8) * (1 - min(1.0, max(0.0, share)))

    parts = []
    for at in _levels(low, high):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(at):.1f}" y2="{y(at):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{escaped(text(at))}</text>')
    for each in (0.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99):
        if percentiles[0] <= each <= percentiles[-1]:
            parts.append(f'<line class="grid" x1="{x(each):.1f}" x2="{x(each):.1f}" y1="8" y2="{height - _BOTTOM}"/>')
            parts.append(f'<text x="{x(each):.1f}" y="{height - 8}" text-anchor="middle">p{each:g}</text>')
    for number, curve in enumerate(found):
        there = [(x(p), y(least), y(middle), y(most)) for p, least, middle, most in curve.points]
        outline = [f"{at:.1f},{most:.1f}" for at, _, _, most in there]
        outline += [f"{at:.1f},{least:.1f}" for at, least, _, _ in reversed(there)]
        parts.append(f'<polygon class="{swatch(number)}" points="{" ".join(outline)}"/>')
        line = " ".join(f"{at:.1f},{middle:.1f}" for at, _, middle, _ in there)
        parts.append(f'<polyline class="{swatch(number)}" points="{line}"/>')
        for (at, _, middle, _), title in zip(there, curve.titles, strict=True):
            circle = f'<circle class="{swatch(number)}" cx="{at:.1f}" cy="{middle:.1f}" r="2.5">'
            parts.append(f"{circle}<title>{escaped(title)}</title></circle>")
    return Markup(f"{_svg('curves', _CURVES, label, parts)}\n{key([each.name for each in found])}")


def _place(percentile: float) -> float:
    """Of a percentile on its axis: 0 at p0, 1 at p90, 2 at p99, 3 at p99.9."""
    return -math.log10(1 - percentile / 100)


def _levels(low: float, high: float) -> list[float]:
    """Round numbers between two powers of ten, given by their exponents."""
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(math.floor(low), math.ceil(high) + 1)
        found = [digit * 10.0**power for power in powers for digit in digits]
        found = [each for each in found if low <= math.log10(each) <= high]
        if len(found) >= 3:
            break
    return found


def _svg(kind: str, size: tuple[int, int], label: str, parts: Sequence[str]) -> Markup:
    width, height = size
    inside = "".join(parts)
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escaped(label)}">{inside}</svg>'
    )

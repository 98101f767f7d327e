"""Builds as a timeline, SVG or HTML: one file, nothing from elsewhere, no script.

Lines are what the end waited for, modules, and as many processes as were at work at once; below them the build cache. Names
are the build's own: they go through `printable` and are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gotrace.analysis.builds.build import Build, packages
from gotrace.analysis.builds.steps import COMPILE, STAGES
from gotrace.export.build_page.bands import CHAIN, ENTRIES, Bar, about, bands, is_waited_for, label
from gotrace.export.charts.page import Markup, Page
from gotrace.export.picture.frame import Axis, asset, cells, cut, escaped, filled, paragraphs
from gotrace.text import count_text, duration_text, printable

WIDTH = 1200  # pixels, as all that follow
MOST_DRAWN = 3  # of more builds than that the median and the slowest are drawn
_LEFT, _RIGHT, _MARGIN = 120, 1160, 12
_PITCH, _BAR, _NESTED, _TICKS = 20, 16, 5, 10
_CHAR, _PROSE = 6.2, 7.4  # of a font of 11 pixels, and of the text of 13: about
_ROOM = int((WIDTH - 2 * _MARGIN) / _PROSE)
_LEAST = 4  # cells of a name, or it is left out
_NARROWEST = 0.75
_MOST_LISTED = 1000


def svg(builds: Sequence[Build], title: str, told: Sequence[Sequence[str]]) -> str:
    """A file of its own; ``told`` are sentences about each build."""
    parts, top = [_text(_MARGIN, 26, "title", cut(printable(title), 120))], 40
    for build, head, those in _drawn(builds, told):
        parts.append(_text(_MARGIN, top + 14, "head", head))
        top = _build(build, parts, top + 24)
        for line in paragraphs(those, _ROOM):
            parts.append(_text(_MARGIN, top + 14, "prose", line))
            top += 18
        top += 24
    style = f'<style type="text/css"><![CDATA[\n{asset("build_page/picture.css")}]]></style>\n'
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _picture(parts, top, title, style)


def html(builds: Sequence[Build], title: str, told: Sequence[Sequence[str]]) -> str:
    """A page: of each build that is drawn the picture, the sentences, its packages, and what came from the cache."""
    page = Page()
    for build, head, those in _drawn(builds, told):
        page.head(head)
        parts: list[str] = []
        page.put(Markup(_picture(parts, _build(build, parts, 0), head)))
        for sentence in those:
            page.say(sentence)
        rows = [
            (
                each.name,
                duration_text(each.end_ns - each.begin_ns),
                "?" if each.cpu_ns is None else duration_text(each.cpu_ns),
            )
            for each in packages(build)
        ]
        page.table("Packages, the most expensive first", ("package", "wall", "CPU"), rows[:_MOST_LISTED], folded=True)
        kept = [(name, "build cache") for name in build.cached] + [(name, "toolchain") for name in build.prebuilt]
        page.table("Packages that were not built", ("package", "from"), kept[:_MOST_LISTED], folded=True)
        for what, left in (("packages", len(rows) - _MOST_LISTED), ("that were not built", len(kept) - _MOST_LISTED)):
            if left > 0:
                page.say(f"{left:,} more {what} are not listed.")
    return page.made(title, asset("build_page/picture.css"))


def _drawn(builds: Sequence[Build], told: Sequence[Sequence[str]]) -> Iterator[tuple[Build, str, Sequence[str]]]:
    """Each build to be drawn, with its head."""
    ranked = sorted(range(len(builds)), key=lambda number: builds[number].total_ns)
    median, slowest = ranked[(len(ranked) - 1) // 2], ranked[-1]
    for number in range(len(builds)) if len(builds) <= MOST_DRAWN else (median, slowest):
        build = builds[number]
        until = "until tracing ended" if build.exit_code is None else f"to exit {build.exit_code}"
        which = f"Run {number + 1} of {len(builds)}, pid {build.pid}: " if len(builds) > 1 else f"Pid {build.pid}: "
        rank = f" ({'the median' if number == median else 'the slowest'})" if len(builds) > MOST_DRAWN else ""
        yield build, f"{which}{duration_text(build.total_ns)} from fork {until}{rank}", told[number]


def _picture(parts: Iterable[str], height: int, title: str, style: str = "") -> str:
    body = "".join(parts)
    return filled("build_page/picture.svg", width=WIDTH, height=height, title=escaped(title), style=style, body=body)


def _build(build: Build, parts: list[str], top: int) -> int:
    """Its lines from ``top`` on; where they end."""
    axis = Axis(_LEFT, _RIGHT, 0, max(1, build.total_ns))
    parts += _legend(build, top)
    first = top = top + 44
    drawn: list[str] = []
    for name, bars in bands(build):
        count = 1 + max(bar.line for bar in bars)
        drawn.append(_text(_MARGIN, top + 13, "name", name))
        if name != CHAIN and count > 1:
            drawn.append(_text(_MARGIN, top + 13 + _PITCH, "faint", f"{count} at once"))
        for number, bar in enumerate(bars):
            waited_for = name != CHAIN and not bar.depth and is_waited_for(build, bar.step)
            drawn += _bar(bar, axis, top, " odd" * (number % 2) + " waited" * waited_for)
        top += count * _PITCH + 8
    seen = [(words, getattr(build, of)) for words, of in ENTRIES]
    if any(times for _, times in seen):
        drawn.append(_text(_MARGIN, top + 9, "name", "build cache"))
        for words, times in seen:
            path = "".join(f"M{x} {top}v{_TICKS - 2}" for x in sorted({round(axis.x(ns)) for ns in times}))
            kind, many = words.replace(" ", "-"), count_text(len(times), "entry", "entries")
            drawn.append(f'<path class="entries {kind}" d="{path}"><title>{many} {words}</title></path>\n')
            top += _TICKS
        top += 8
    for x, words in axis.ticks():
        parts.append(f'<line class="rule" x1="{x:.1f}" y1="{first - 4}" x2="{x:.1f}" y2="{top}"/>')
        parts.append(f'<text class="faint" x="{x:.1f}" y="{first - 8}" text-anchor="middle">{words}</text>\n')
    parts += drawn
    return top


def _bar(bar: Bar, axis: Axis, top: int, more: str) -> Iterator[str]:
    step = bar.step
    x, width = axis.x(step.begin_ns), max(_NARROWEST, (step.end_ns - step.begin_ns) * axis.scale)
    high = max(2, _NESTED - bar.depth + 1) if bar.depth else _BAR
    y = top + bar.line * _PITCH + _BAR - high
    kinds = f"bar s{STAGES.index(step.stage)}{more}" + " failed" * bool(step.status)
    yield f'<rect class="{kinds}" x="{x:.2f}" y="{y}" width="{width:.2f}" height="{high}">'
    yield f"<title>{escaped(about(step))}</title></rect>\n"
    words = printable(label(step))
    room = int((width - 6) / _CHAR)
    if cells(words) > room:  # of a package the last part, of others what is done
        words = cut(words.rpartition("/")[2] if step.stage == COMPILE else step.stage, room)
    if not bar.depth and cells(words) >= _LEAST:
        yield f'<text class="inside" x="{x + 3:.2f}" y="{y + 12}">{escaped(words)}</text>\n'


def _legend(build: Build, y: int) -> Iterator[str]:
    x = float(_MARGIN)
    kinds = [(f"s{number}", stage) for number, stage in enumerate(STAGES) if build.stage(stage) and stage != STAGES[-1]]
    kinds += [("waited key", "on the critical path")] * (len(build.chain) > 1)
    kinds += [("failed key", "failed")] * any(step.status for step in build.steps)
    if any(getattr(build, of) for _, of in ENTRIES):
        kinds += [(f"entries {words.replace(' ', '-')}", f"cache: {words}") for words, _ in ENTRIES]
    for kind, words in kinds:
        yield f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="12" height="12"/>' + _text(x + 17, y + 10, "key", words)
        x += 17 + len(words) * _CHAR + 16


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escaped(text)}</text>\n'

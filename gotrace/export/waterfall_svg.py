"""Cold starts as a waterfall, SVG or HTML: one file, nothing from elsewhere, and a picture even where no script runs.

Names are the target's own: they go through `printable` and are escaped, and the script handles them as text only.
"""

from __future__ import annotations

import html as markup
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from statistics import median_low

from gotrace.analysis.timeline import BEFORE, UNATTRIBUTED, FirstGc, Row, Start, is_short
from gotrace.export.picture import PAGE_HEAD, cells, cut, escaped
from gotrace.text import bytes_text, duration_text, printable

WIDTH = 1200  # pixels, as all that follow
MOST_DRAWN = 20  # of more starts than that only the median and the slowest one have bars
NARROWEST = 0.75  # a bar is at least that wide, to be seen
_MARGIN, _INDENT = 12, 14
_NAMES, _TOOK, _SHARE = 296, 368, 420  # where these columns end
_LEFT, _RIGHT = 452, 1148  # of the time axis
_PITCH, _BAR = 20, 12
_CHAR, _PROSE = 6.63, 6.9  # of a monospaced font of 11 pixels, and of the text above: about
_STATES = ("cpu", "runnable", "blocked")


def svg(starts: Sequence[Start], title: str) -> str:
    """A waterfall as a file of its own, 1200 pixels wide: a line for each stage and each part of it, over time.

    A bar's colours are its shares on-CPU, runnable and blocked. A click (or Enter) on a line shows or hides what is below
    it. Several starts are drawn into the same lines, and one of them can be picked to be shown alone.
    """
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + "".join(_picture(_Scene(starts), title, headed=True))


def html(starts: Sequence[Start], title: str) -> str:
    """A page with the waterfall and a table of all its lines, which can be sorted."""
    scene = _Scene(starts)
    return _PAGE.format(
        title=escaped(title), picture="".join(_picture(scene, title, headed=False)), table="".join(_table(scene))
    )


@dataclass(frozen=True)
class _Sums:
    """All rows of one line in one start."""

    begin: int
    took: int
    divided: bool  # whether it is known what is on-CPU of it, and its faults
    states: tuple[int, int, int]
    minor: int
    major: int
    pages: int
    heap: int | None
    details: str


@dataclass(eq=False)
class _Line:
    """A line of the picture: the rows of that name, by the number of their start, and the lines below it."""

    name: str
    kind: str  # "stage", "part", "fold" or "left"
    above: _Line | None = None
    rows: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    below: list[_Line] = field(default_factory=list)
    known: dict[str, _Line] = field(default_factory=dict)

    def part(self, name: str, after: _Line | None) -> _Line:
        """The line of that name below this one. A new one comes after the line ``after``, or first."""
        line = self.known.get(name)
        if line is None:
            line = self.known[name] = _Line(name, "stage" if self.above is None else "part", self)
            self.below.insert(self.below.index(after) + 1 if after else 0, line)
        return line

    @property
    def counted(self) -> bool:
        """Whether its time is part of the total."""
        return self.path[0] != BEFORE

    @property
    def path(self) -> tuple[str, ...]:
        if self.above is None:
            return ()
        return self.above.path if self.kind == "fold" else (*self.above.path, self.name)

    @cached_property
    def sums(self) -> dict[int, _Sums]:
        return {number: _sums(rows) for number, rows in sorted(self.rows.items()) if rows}

    def share(self, starts: Sequence[Start]) -> float | None:
        """Of the total; of several starts the median."""
        shares = [each.took / starts[number].total_ns for number, each in self.sums.items() if starts[number].total_ns > 0]
        return median_low(shares) if shares and self.counted else None

    def took(self) -> int:
        return median_low([each.took for each in self.sums.values()])


def _sums(rows: Sequence[Row]) -> _Sums:
    heaps = [row.heap_bytes for row in rows if row.heap_bytes is not None]
    return _Sums(
        begin=min(row.begin_ns for row in rows),
        took=sum(row.duration_ns for row in rows),
        divided=any(map(_divided, rows)),
        states=(
            sum(row.on_cpu_ns for row in rows),
            sum(row.runnable_ns for row in rows),
            sum(row.blocked_ns for row in rows),
        ),
        minor=sum(row.minor_faults for row in rows),
        major=sum(row.major_faults for row in rows),
        pages=sum(row.pages_read for row in rows),
        heap=sum(heaps) if heaps else None,
        details="; ".join(dict.fromkeys(row.detail for row in rows if row.detail)),
    )


def _divided(row: Row) -> bool:
    known = row.stage not in (BEFORE, UNATTRIBUTED)
    return known or bool(row.runnable_ns or row.blocked_ns or row.minor_faults or row.major_faults)


class _Scene:
    """What is to be drawn: which starts, in which lines, on which axis."""

    def __init__(self, starts: Sequence[Start]) -> None:
        self.starts = starts
        ranked = sorted(range(len(starts)), key=lambda number: (starts[number].total_ns, number))
        self.median = ranked[(len(starts) - 1) // 2] if starts else 0
        self.slowest = ranked[-1] if starts else 0
        self.drawn = list(range(len(starts))) if len(starts) <= MOST_DRAWN else [self.median, self.slowest]
        self.others = [number for number in range(len(starts)) if number not in self.drawn]
        self.top = _tree(starts, [self.median, *(number for number in range(len(starts)) if number != self.median)])
        for stage in self.top.below:
            _fold(stage, starts, self.drawn)
        self.lines = list(_flat(self.top))
        rows = [row for start in starts for row in start.rows]
        self.axis = _Axis(
            min([0, *(row.begin_ns for row in rows)]),
            max([1, *(row.end_ns for row in rows), *(at for start in starts for at in _times(start))]),
        )
        self.bar = _BAR if len(self.drawn) < 2 else max(2, round(14 / len(self.drawn)))
        self.pitch = max(_PITCH, len(self.drawn) * self.bar + (14 if self.others else 8))


def _times(start: Start) -> Iterator[int]:
    yield start.total_ns
    yield from (at for at in (start.listen_ns, start.ready_ns, start.gc.begin_ns if start.gc else None) if at is not None)


def _tree(starts: Sequence[Start], order: Sequence[int]) -> _Line:
    """The rows of all starts, matched by their names. The first start's order goes first."""
    top = _Line("", "")
    for number in order if starts else ():
        last: dict[_Line, _Line] = {}

        def step(line: _Line, name: str, number: int = number, last: dict[_Line, _Line] = last) -> _Line:
            part = line.part(name, last.get(line))
            # What comes again and again stays where it was first.
            if number not in part.rows:
                last[line] = part
            return part

        path = [(-1, top)]
        for row in starts[number].rows:
            if row.depth == 0 or len(path) < 2 or path[1][1].name != row.stage:
                path = [(-1, top), (0, step(top, row.stage))]
            if row.depth > 0:
                path = [each for each in path if each[0] < row.depth]
                path.append((row.depth, step(path[-1][1], row.name)))
            path[-1][1].rows[number].append(row)
    left = {number: gaps for number, start in enumerate(starts) if (gaps := _gaps(start))}
    if left:
        top.below.append(_Line(UNATTRIBUTED, "left", top, left))
    return top


def _gaps(start: Start) -> list[Row]:
    """What lies in no stage, as rows. They are only where the start tells that there are such."""
    if start.unattributed_ns <= 0:
        return []
    stages = sorted((row.begin_ns, row.end_ns) for row in start.rows if row.depth == 0 and row.stage != BEFORE)
    ends = accumulate((end for _, end in stages), max, initial=0)
    between = zip(ends, [*(begin for begin, _ in stages), start.total_ns], strict=True)
    return [Row(UNATTRIBUTED, UNATTRIBUTED, 0, end, begin - end, 0, 0, 0, 0, 0) for end, begin in between if begin > end]


def _fold(stage: _Line, starts: Sequence[Start], drawn: Sequence[int]) -> None:
    """Put the short lines of a stage below one; a single one needs no less room that way."""

    def whole(number: int) -> int:
        return stage.sums[number].took if number in stage.sums else starts[number].total_ns

    def short(line: _Line) -> bool:
        return all(
            is_short(line.sums[number].took, whole(number), starts[number].total_ns)
            for number in drawn
            if number in line.sums
        )

    hidden = [line for line in stage.below if short(line)]
    if len(hidden) < 2:
        return
    fold = _Line(f"{len(hidden)} shorter", "fold", stage, below=hidden)
    for line in hidden:
        line.above = fold
        for number, rows in line.rows.items():
            fold.rows[number] += rows
    stage.below = [*(line for line in stage.below if line.above is stage), fold]


def _flat(line: _Line) -> Iterator[_Line]:
    for each in line.below:
        yield each
        yield from _flat(each)


def _level(line: _Line) -> int:
    return -1 if line.above is None else 1 + _level(line.above)


def _open(line: _Line) -> bool:
    """Whether what is below the line is shown at first."""
    return line.kind == "stage"


def _visible(line: _Line) -> bool:
    return line.above is None or line.above.above is None or (_open(line.above) and _visible(line.above))


@dataclass(frozen=True)
class _Axis:
    begin: int
    end: int

    def x(self, ns: float) -> float:
        return _LEFT + (ns - self.begin) * self.scale

    @property
    def scale(self) -> float:
        return (_RIGHT - _LEFT) / (self.end - self.begin)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Where the axis has lines, and what is written there."""
        least = (self.end - self.begin) / 1e6 / 9
        power = 10.0 ** math.floor(math.log10(least))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= least)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        for count in range(math.ceil(self.begin / 1e6 / step), math.floor(self.end / 1e6 / step) + 1):
            yield self.x(count * step * 1e6), f"{count * step:,.{digits}f} ms"


def _fitting(name: str, room: int) -> str:
    """As much of ``name`` as there is room for: the end of a path tells more than its beginning."""
    shown = name
    while cells(shown) > room and "/" in shown.removeprefix("../"):
        shown = "../" + shown.removeprefix("../").partition("/")[2]
    return cut(shown, room) if cells(shown) > 6 else cut(name, room)


def _paragraphs(texts: Iterable[str]) -> list[str]:
    """Lines of no more than the picture's width; words longer than that are cut."""
    room = int((WIDTH - 2 * _MARGIN) / _PROSE)
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


def _number(value: float) -> str:
    """A coordinate in as few characters as three decimals need."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _growth(size: int) -> str:
    return ("-" if size < 0 else "+") + bytes_text(abs(size))


def _name(scene: _Scene, number: int) -> str:
    return f"start {number + 1} (pid {scene.starts[number].pid})"


def _about(scene: _Scene) -> list[str]:
    """What is above a picture of all starts."""
    starts = scene.starts
    if not starts:
        return ["There were no starts."]
    if len(starts) == 1:
        return _about_one(starts[0])
    totals = [start.total_ns for start in starts]
    told = [
        f"{len(starts)} starts, from execve's entry to {' or '.join(dict.fromkeys(start.ended for start in starts))}:"
        f" {duration_text(min(totals))} to {duration_text(max(totals))} in total,"
        f" median {duration_text(median_low(totals))}. The slowest is {_name(scene, scene.slowest)}."
    ]
    if scene.others:
        told.append(
            f"Bars: {_name(scene, scene.median)}, the median, and below it the slowest. Ticks: where the rows of the other"
            f" {len(scene.others)} begin (above) and end (below)."
        )
    else:
        told.append("In each line the starts are below one another, start 1 on top.")
    if any(_marks_of(starts[number]) for number in scene.drawn):
        told[-1] += f" First GC, listen and ready are those of start {scene.median + 1}, the median."
    return told


def _about_one(start: Start) -> list[str]:
    code = "" if start.exit_code is None else f", exit code {start.exit_code}"
    left = f"; {duration_text(start.unattributed_ns)} of it unattributed" if start.unattributed_ns > 0 else ""
    told = [f"Total {duration_text(start.total_ns)}, from execve's entry to {start.ended} (pid {start.pid}{code}){left}."]
    rows = [row for row in start.rows if row.depth == 0 and row.stage != BEFORE]
    if rows:
        sums = _sums(rows)
        states = [f"{_percent(part / max(sums.took, 1))} {word}" for word, part in zip(_WORDS, sums.states, strict=True)]
        told.append(f"{', '.join(states)}; {_faults(sums)}.")
    return told


_WORDS = ("on-CPU", "runnable", "blocked")


def _faults(sums: _Sums) -> str:
    return f"{sums.minor:,} minor and {sums.major:,} major page faults, {sums.pages:,} pages read"


def _notes(scene: _Scene) -> Iterator[str]:
    """The starts' notes, each once."""
    those: dict[str, list[int]] = {}
    for number, start in enumerate(scene.starts):
        for note in start.notes:
            those.setdefault(note, []).append(number + 1)
    for note, numbers in those.items():
        which = f"start {numbers[0]}: " if len(numbers) == 1 else f"{len(numbers)} starts: "
        yield note if len(numbers) == len(scene.starts) else which + note


def _picture(scene: _Scene, title: str, *, headed: bool) -> Iterator[str]:
    abouts = _abouts(scene)
    notes = _paragraphs(_notes(scene))
    marks = {number: _labelled(scene, number) for number in scene.drawn}
    # From above: title, sentences, legend, starts to pick, axis, labels of what lies over the lines; the lines; notes.
    legend = 16 + 26 * headed + 18 * max(map(len, abouts.values()))
    axis = legend + 40 + 30 * (len(scene.drawn) > 1)
    first = axis + 10 + 15 * max([0, *(mark.row + 1 for those in marks.values() for mark in those)])
    bottom = first + scene.pitch * sum(map(_visible, scene.lines)) if scene.lines else legend + 40
    foot = 12 + 18 * len(notes)
    height = bottom + foot
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" class="waterfall" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" role="group" aria-label="{escaped(title)}" data-first="{first}"'
        f' data-pitch="{scene.pitch}" data-bar="{scene.bar}" data-alone-pitch="{_PITCH}" data-alone-bar="{_BAR}"'
        f' data-foot="{foot}" data-reference="{scene.median}">\n'
        f'<style type="text/css"><![CDATA[\n{_STYLE}]]></style>\n'
        f'<rect class="ground" x="0" y="0" width="{WIDTH}" height="{height}"/>\n'
    )
    if headed:
        heading = markup.escape(cut(printable(title), int((WIDTH - 2 * _MARGIN) / 8.6)))
        yield f'<text class="title" x="{_MARGIN}" y="26">{heading}</text>\n'
    for which, lines in abouts.items():
        yield f'<g class="about{" hidden" * bool(which)}" data-run="{which}">{_prose(lines, 20 + 26 * headed)}</g>\n'
    if scene.lines:
        yield from _legend(scene, legend)
        if len(scene.drawn) > 1:
            yield from _picker(scene, legend + 24)
        yield from _scale(scene, axis, bottom)
        yield from _lines(scene, first)
        for number, those in marks.items():
            yield f'<g class="marks{" hidden" * (number != scene.median)}" data-run="{number}">\n'
            for mark in those:
                yield from _drawn_mark(mark, axis + 8, first, bottom)
            yield "</g>\n"
    else:
        yield _prose(["There were no rows."], legend + 20) if scene.starts else ""
    yield f'<g class="foot" transform="translate(0 {bottom})">{_prose(notes, 20)}</g>\n'
    if scene.lines:
        yield f'<script type="text/javascript"><![CDATA[\n{_script()}]]></script>\n'
    yield "</svg>\n"


def _abouts(scene: _Scene) -> dict[str, list[str]]:
    """What is above the picture of all starts, and above that of each alone."""
    abouts = {"": _paragraphs(_about(scene))}
    if len(scene.drawn) > 1:
        for number in scene.drawn:
            total, *rest = _about_one(scene.starts[number])
            abouts[str(number)] = _paragraphs([f"Start {number + 1}: t{total[1:]}", *rest])
    return abouts


def _prose(lines: Sequence[str], y: int) -> str:
    return "".join(
        f'<text class="prose" x="{_MARGIN}" y="{y + 18 * place}">{markup.escape(line)}</text>'
        for place, line in enumerate(lines)
    )


def _lines(scene: _Scene, first: int) -> Iterator[str]:
    places = {line: place for place, line in enumerate(scene.lines)}
    y = first
    yield '<g class="lines">\n'
    for line in scene.lines:
        yield from _drawn(scene, line, places, y)
        y += scene.pitch * _visible(line)
    yield "</g>\n"


def _legend(scene: _Scene, y: int) -> Iterator[str]:
    entries = [("cpu", "on-CPU"), ("runnable", "runnable"), ("blocked", "blocked"), ("fault", "major page faults")]
    if any(not sums.divided for line in scene.lines for sums in line.sums.values()):
        entries.append(("plain", "not divided"))
    if any(scene.starts[number].gc for number in scene.drawn):
        entries.append(("gc", "first GC"))
    x = float(_MARGIN)
    yield '<g class="legend">'
    for colour, words in entries:
        width = 3 if colour == "fault" else 12
        yield f'<rect class="{colour}" x="{x:.1f}" y="{y}" width="{width}" height="12"/>'
        yield f'<text x="{x + width + 5:.1f}" y="{y + 10}">{words}</text>'
        x += width + 5 + len(words) * _CHAR + 16
    words = "A bar's colours are shares of its time, not its order."
    yield f'<text class="faint" x="{x + 4:.1f}" y="{y + 10}">{words}</text></g>\n'


def _picker(scene: _Scene, y: int) -> Iterator[str]:
    """Buttons for the script: without it they would be promises."""
    names: dict[int | str, str] = {number: str(number + 1) for number in scene.drawn}
    if scene.others:
        names = {scene.median: f"median: {scene.median + 1}", scene.slowest: f"slowest: {scene.slowest + 1}"}
    x = _MARGIN + 7 * _CHAR
    yield f'<g class="picker hidden"><text x="{_MARGIN}" y="{y + 14}">starts</text>'
    for which, words in {"": "all" if not scene.others else "both", **names}.items():
        width = len(words) * _CHAR + 16
        told = (
            f"{_name(scene, which)}: {duration_text(scene.starts[which].total_ns)}"
            if isinstance(which, int)
            else "all that are drawn"
        )
        yield (
            f'<g class="chip" data-run="{which}"><title>{escaped(told)}</title>'
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="20" rx="4"/>'
            f'<text x="{x + width / 2:.1f}" y="{y + 14}" text-anchor="middle">{words}</text></g>'
        )
        x += width + 6
    yield "</g>\n"


def _scale(scene: _Scene, y: int, bottom: int) -> Iterator[str]:
    yield f'<text class="control unfold hidden" x="{_MARGIN}" y="{y}">Unfold all</text>\n'
    took = "median" if len(scene.starts) > 1 else "took"
    yield f'<text class="faint took heading" x="{_TOOK}" y="{y}">{took}</text>'
    yield f'<text class="faint share" x="{_SHARE}" y="{y}">share</text>\n<g class="grid">'
    for x, words in scene.axis.ticks():
        zero = ' class="zero"' if words.strip("-0. ms") == "" else ""
        yield f'<line{zero} x1="{x:.2f}" y1="{y + 6}" x2="{x:.2f}" y2="{bottom}"/>'
        yield f'<text class="faint" x="{x:.2f}" y="{y}" text-anchor="middle">{words}</text>'
    yield "</g>\n"


def _drawn(scene: _Scene, line: _Line, places: dict[_Line, int], y: int) -> Iterator[str]:
    under = "" if line.above not in places else f' data-under="{places[line.above]}"'
    opened = f" {line.kind}" + " open" * (_open(line) and bool(line.below)) + " hidden" * (not _visible(line))
    x = _MARGIN + _INDENT * _level(line)
    shown = printable(line.name)
    label = _fitting(shown, int((_NAMES - x - _INDENT) / _CHAR))
    whole = f"<title>{markup.escape(shown)}</title>" if label != shown else ""
    yield (
        f'<g class="line{opened}"{under} transform="translate(0 {y})">'
        f'<rect class="hit" x="0" y="0" width="{WIDTH}" height="{scene.pitch}"/>'
        f'<g class="words" transform="translate(0 {_number(scene.pitch / 2)})">'
    )
    if line.below:
        yield f'<path class="twisty hidden" d="M{x + 1} -4l6 4l-6 4z"/>'
    yield (
        f'<text class="name" x="{x + _INDENT}" y="4">{markup.escape(label)}{whole}</text>'
        f'<text class="took" x="{_TOOK}" y="4">{duration_text(line.took()) if line.sums else ""}</text>'
        f'<text class="share" x="{_SHARE}" y="4">{_percent(line.share(scene.starts))}</text></g>\n'
    )
    top = (scene.pitch - len(scene.drawn) * scene.bar) / 2
    for slot, number in enumerate(scene.drawn):
        if number in line.sums:
            took, total = line.sums[number].took, scene.starts[number].total_ns
            share = _percent(took / total) if line.counted and total > 0 else ""
            yield (
                f'<g class="run" data-run="{number}" data-took="{duration_text(took)}" data-share="{share}"'
                f' transform="translate(0 {_number(top + slot * scene.bar)})">'
            )
            yield from _bars(scene, line, number)
            yield "</g>\n"
    yield from _extents(scene, line)
    yield "</g>\n"


def _bars(scene: _Scene, line: _Line, number: int) -> Iterator[str]:
    rows = line.rows[number]
    # Of what is too narrow to be pointed at there may be very much: it is drawn at once.
    small = rows if line.kind == "fold" else [row for row in rows if row.duration_ns * scene.axis.scale < 1]
    if len(small) > 1:
        yield from _together(scene, line, number, small)
        rows = [row for row in rows if row.duration_ns * scene.axis.scale >= 1] if line.kind != "fold" else []
    for row in rows:
        yield from _bar(scene, line, number, row)


def _bar(scene: _Scene, line: _Line, number: int, row: Row) -> Iterator[str]:
    height = scene.bar if len(scene.drawn) < 2 else scene.bar - 0.5
    x, width = scene.axis.x(row.begin_ns), max(row.duration_ns * scene.axis.scale, NARROWEST)
    # Of many starts nobody can point at what is that narrow, and words for each of them would be most of the file.
    words = len(scene.drawn) < 2 or row.duration_ns * scene.axis.scale >= 1
    title = f"<title>{_told(scene, line, number, _sums([row]))}</title>" if words else ""
    yield f'<g class="bar">{title}'
    begin = x
    for state, part in _parts(row, width):
        yield f'<rect class="{state}" x="{_number(begin)}" width="{_number(part)}" height="{_number(height)}"/>'
        begin += part
    if row.major_faults:
        yield f'<rect class="fault" x="{_number(x + width + 1)}" width="3" height="{_number(height)}"/>'
        if len(scene.drawn) < 2 and len(line.rows[number]) == 1:
            yield f'<text class="count" x="{_number(x + width + 7)}" y="10">{row.major_faults:,}</text>'
    yield "</g>"


def _parts(row: Row, width: float) -> list[tuple[str, float]]:
    """A bar's colours and their widths; a narrow one has that of its greatest part."""
    parts = [max(each, 0) for each in (row.on_cpu_ns, row.runnable_ns, row.blocked_ns)]
    whole = sum(parts)
    if width < 2 or not whole or not _divided(row):
        return [(_most(row), width)]
    return [(state, width * part / whole) for state, part in zip(_STATES, parts, strict=True) if part]


def _most(row: Row) -> str:
    if not _divided(row):
        return "plain"
    return max(zip((row.on_cpu_ns, row.runnable_ns, row.blocked_ns), _STATES, strict=True), key=lambda each: each[0])[1]


def _together(scene: _Scene, line: _Line, number: int, rows: Sequence[Row]) -> Iterator[str]:
    """Many narrow bars: a path for each colour."""
    height = _number(scene.bar if len(scene.drawn) < 2 else scene.bar - 0.5)
    paths: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        width = _number(max(row.duration_ns * scene.axis.scale, NARROWEST))
        paths[_most(row)].append(f"M{_number(scene.axis.x(row.begin_ns))} 0h{width}v{height}h-{width}z")
        if row.major_faults:
            paths["fault"].append(f"M{_number(scene.axis.x(row.end_ns) + 1)} 0h3v{height}h-3z")
    yield f'<g class="bar"><title>{_told(scene, line, number, _sums(rows), len(rows))}</title>'
    for state, path in sorted(paths.items()):
        yield f'<path class="{state}" d="{"".join(path)}"/>'
    yield "</g>"


def _told(scene: _Scene, line: _Line, number: int, sums: _Sums, count: int = 1) -> str:
    """All there is to say of a bar."""
    start = scene.starts[number]
    share = f", {_percent(sums.took / start.total_ns)} of the total" if line.counted and start.total_ns > 0 else ""
    name = line.name if count == 1 or line.kind == "fold" else f"{line.name} ({count} short ones)"
    told = [name if len(scene.starts) < 2 else f"{name}: {_name(scene, number)}"]
    since = "" if count == 1 else "from "
    told.append(f"{since}{duration_text(sums.begin)} after execve's entry; took {duration_text(sums.took)}{share}")
    if sums.begin < 0:
        told[-1] = f"{duration_text(-sums.begin)} before execve's entry; took {duration_text(sums.took)}{share}"
    if sums.divided:
        told.append(", ".join(f"{word} {duration_text(part)}" for word, part in zip(_WORDS, sums.states, strict=True)))
        told.append(_faults(sums))
    if sums.heap is not None:
        told.append(f"live heap {_growth(sums.heap)}")
    if sums.details and line.kind != "fold":
        told.append(sums.details)
    return "\n".join(map(escaped, told))


def _extents(scene: _Scene, line: _Line) -> Iterator[str]:
    """Ticks of the starts without bars: where their rows begin, and where they end. Half a pixel holds but one."""
    begins: set[float] = set()
    ends: set[float] = set()
    for number in scene.others if line.kind != "fold" else ():
        if number in line.sums:
            begins.add(round(2 * scene.axis.x(line.sums[number].begin)) / 2)
            ends.add(round(2 * scene.axis.x(max(row.end_ns for row in line.rows[number]))) / 2)
    if ends:
        path = [f"M{_number(x)} 2v3" for x in sorted(begins)] + [f"M{_number(x)} {scene.pitch - 5}v3" for x in sorted(ends)]
        yield f'<path class="others" d="{"".join(path)}"/>'


@dataclass(frozen=True)
class _Mark:
    """What lies over the lines: a moment, or a span."""

    kind: str
    x: float
    width: float
    words: str
    more: str
    to_left: bool = False  # where its label is
    row: int = 0

    @property
    def extent(self) -> tuple[float, float]:
        width = cells(self.words) * _CHAR + 8
        return (self.x - width, self.x) if self.to_left else (self.x, self.x + width)


def _marks_of(start: Start) -> list[tuple[str, int, int, str, str]]:
    """Kind, begin, end, label, and more to tell."""
    found = []
    if start.gc is not None:
        end = start.gc.end_ns if start.gc.end_ns is not None else start.total_ns
        found.append(("gc", start.gc.begin_ns, max(end, start.gc.begin_ns), *_gc_words(start.gc)))
    for kind, at, more in (
        ("listen", start.listen_ns, "the first listen"),
        ("ready", start.ready_ns, "the first accept that was answered"),
    ):
        if at is not None:
            found.append((kind, at, at, f"{kind} {duration_text(at)}", more))
    return found


def _gc_words(gc: FirstGc) -> tuple[str, str]:
    pauses = " + ".join(map(duration_text, gc.pauses_ns))
    words = f"first GC ({printable(gc.trigger)})" + (f", pauses {pauses}" if pauses else "")
    more = [f"first GC, triggered by {printable(gc.trigger)}", f"begins {duration_text(gc.begin_ns)} after execve's entry"]
    if gc.end_ns is None:
        words += ", not ended"
        more.append("had not ended when the start was over")
    else:
        more.append(f"took {duration_text(gc.end_ns - gc.begin_ns)}")
    if gc.heap_bytes is not None:
        more.append(f"heap {bytes_text(gc.heap_bytes)}")
    return words, "\n".join(more)


def _labelled(scene: _Scene, number: int) -> list[_Mark]:
    """A start's marks, their labels in as many rows as they need.

    Labels left of their line come first, from the right; then the others from the left, each below those in its way: so
    hardly ever a line crosses a label.
    """
    to_left: list[_Mark] = []
    to_right: list[_Mark] = []
    for kind, begin, end, words, more in sorted(_marks_of(scene.starts[number]), key=lambda each: -each[1]):
        x, last = scene.axis.x(begin), min(scene.axis.x(end), _RIGHT)
        mark = _Mark(kind, x, max(last - x, 0), cut(words, 90), more)
        if mark.extent[1] > WIDTH - 2 or any(x < each.x < mark.extent[1] for each in to_left):
            to_left.append(replace(mark, to_left=True))
        else:
            to_right.insert(0, mark)
    placed: list[_Mark] = []
    for mark in [*to_left, *to_right]:
        begins, ends = mark.extent
        over = [each.row for each in placed if each.extent[0] < ends and begins < each.extent[1]]
        placed.append(replace(mark, row=1 + max(over, default=-1)))
    return placed


def _drawn_mark(mark: _Mark, y: int, first: int, bottom: int) -> Iterator[str]:
    top = y + 15 * mark.row
    if mark.kind == "gc":
        yield (
            f'<rect class="gc" x="{_number(mark.x)}" y="{first}" width="{_number(mark.width)}" height="{bottom - first}"/>'
        )
    x = _number(mark.x)
    yield f'<line class="{mark.kind}" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>'
    place = f'x="{mark.x - 5:.2f}" text-anchor="end"' if mark.to_left else f'x="{mark.x + 5:.2f}"'
    yield (
        f'<text class="{mark.kind}" {place} y="{top + 9}">{markup.escape(mark.words)}'
        f"<title>{_escaped_lines(mark.more)}</title></text>\n"
    )


def _escaped_lines(text: str) -> str:
    return "\n".join(map(escaped, text.split("\n")))


_Cell = tuple[str, "float | None"]  # what is shown, and what it is sorted by


def _medians(value: Callable[[_Sums], int], shown: Callable[[int], str]) -> Callable[[_Line], _Cell]:
    def cell(line: _Line) -> _Cell:
        median = median_low(map(value, line.sums.values()))
        return shown(median), median

    return cell


def _columns(scene: _Scene) -> list[tuple[str, Callable[[_Line], _Cell]]]:
    several = len(scene.starts) > 1

    def took(choose: Callable[[Iterator[int]], int]) -> Callable[[_Line], _Cell]:
        def cell(line: _Line) -> _Cell:
            ns = choose(each.took for each in line.sums.values())
            return duration_text(ns), ns

        return cell

    def share(line: _Line) -> _Cell:
        found = line.share(scene.starts)
        return _percent(found), found or 0

    def heap(line: _Line) -> _Cell:
        known = [each.heap for each in line.sums.values() if each.heap is not None]
        return (_growth(median_low(known)), median_low(known)) if known else ("", 0)

    columns: list[tuple[str, Callable[[_Line], _Cell]]] = []
    if several:
        columns.append(("Starts", lambda line: (str(len(line.sums)), len(line.sums))))
        columns += [("Duration", took(median_low)), ("Shortest", took(min)), ("Longest", took(max))]
    else:
        columns += [("Begin", _medians(lambda sums: sums.begin, duration_text)), ("Duration", took(median_low))]
    columns.append(("Share", share))
    columns.append(("On-CPU", _medians(lambda sums: sums.states[0], duration_text)))
    columns.append(("Runnable", _medians(lambda sums: sums.states[1], duration_text)))
    columns.append(("Blocked", _medians(lambda sums: sums.states[2], duration_text)))
    columns.append(("Minor faults", _medians(lambda sums: sums.minor, lambda count: f"{count:,}")))
    columns.append(("Major faults", _medians(lambda sums: sums.major, lambda count: f"{count:,}")))
    columns.append(("Pages read", _medians(lambda sums: sums.pages, lambda count: f"{count:,}")))
    columns.append(("Heap", heap))
    if not several:
        columns.append(("Detail", lambda line: (next(iter(line.sums.values())).details, None)))
    return columns


def _table(scene: _Scene) -> Iterator[str]:
    lines = [line for line in scene.lines if line.kind != "fold" and line.sums]
    if not lines:
        return
    columns = _columns(scene)
    caption = "All rows, in the order of time. Rows of the same name in the same place count as one."
    if len(scene.starts) > 1:
        caption += " The numbers are medians of the starts that have it."
    yield '<h2>Rows</h2>\n<div class="wide" role="region" aria-label="Rows" tabindex="0">\n<table class="rows">\n'
    yield f'<caption>{caption}</caption>\n<thead><tr><th scope="col">Name</th><th scope="col">In</th>'
    for head, _ in columns:
        kind = ' class="text"' if head == "Detail" else ' class="sorted"'
        yield f'<th scope="col"{kind}>{head}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for line in lines:
        depth = min(len(line.path), 3) - 1
        yield f'<tr><th scope="row" class="level{depth}">{escaped(line.name)}</th>'
        yield f"<td>{markup.escape(_fitting(printable(line.path[-2]), 26)) if depth else ''}</td>"
        divided = any(sums.divided for sums in line.sums.values())
        for head, cell in columns:
            # What is not known of it is not 0.
            shown, value = cell(line) if divided or head in _OF_TIME else ("", 0)
            yield f"<td>{escaped(shown)}</td>" if value is None else f'<td data-value="{_number(value)}">{shown}</td>'
        yield "</tr>\n"
    yield "</tbody>\n</table>\n</div>\n"


_OF_TIME = ("Starts", "Begin", "Duration", "Shortest", "Longest", "Share", "Detail")


def _script() -> str:
    return (Path(__file__).parent / "waterfall.js").read_text(encoding="utf-8")


_STYLE = """svg.waterfall {font: 11px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace}
svg.waterfall text {fill: #1c1c22; white-space: pre}
svg.waterfall .ground {fill: #fcfcfa}
svg.waterfall:root {background: #fcfcfa}
svg.waterfall .title {font: 600 17px system-ui, "Segoe UI", "DejaVu Sans", sans-serif}
svg.waterfall .prose {font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #5b5b66}
svg.waterfall .faint {fill: #6f6f7a}
svg.waterfall .hidden {display: none}
svg.waterfall .control {cursor: pointer; text-decoration: underline}
svg.waterfall .took, svg.waterfall .share {text-anchor: end}
svg.waterfall .share {fill: #6f6f7a}
svg.waterfall .grid line {stroke: #e4e4e0; stroke-width: 1}
svg.waterfall .grid .zero {stroke: #a9a9b2}
svg.waterfall .hit {fill: #6b7a99; fill-opacity: 0}
svg.waterfall .stage > .hit, svg.waterfall .left > .hit {fill-opacity: 0.08}
svg.waterfall .line:hover > .hit {fill-opacity: 0.15}
svg.waterfall .line:focus, svg.waterfall .chip:focus, svg.waterfall .control:focus {outline: none}
svg.waterfall .line:focus-visible > .hit, svg.waterfall .chip:focus-visible rect {stroke: #2f6fb3; stroke-width: 2}
svg.waterfall .control:focus-visible {fill: #2f6fb3; font-weight: 600}
svg.waterfall .stage .name, svg.waterfall .stage .words .took {font-weight: 600}
svg.waterfall .fold .name, svg.waterfall .left .name {fill: #6f6f7a}
svg.waterfall .foldable {cursor: pointer}
svg.waterfall .twisty {fill: #6f6f7a; transform-box: fill-box; transform-origin: center}
svg.waterfall .open > .words > .twisty {transform: rotate(90deg)}
svg.waterfall .cpu {fill: #4c8fbf}
svg.waterfall .runnable {fill: #e8b04a}
svg.waterfall .blocked {fill: #b4b8c8}
svg.waterfall .plain {fill: #d9c7b8}
svg.waterfall .fault {fill: #cf3f55}
svg.waterfall .count {fill: #b22f45; font-size: 10px}
svg.waterfall .bar:hover {opacity: 0.75}
svg.waterfall .others {fill: none; stroke: #6f6f7a; stroke-opacity: 0.55; stroke-width: 0.6; pointer-events: none}
svg.waterfall .chip {cursor: pointer}
svg.waterfall .chip rect {fill: #6b7a99; fill-opacity: 0.1}
svg.waterfall .chip:hover rect {fill-opacity: 0.22}
svg.waterfall .chip.picked rect {fill: #2f6fb3; fill-opacity: 1}
svg.waterfall .chip.picked text {fill: #ffffff}
svg.waterfall rect.gc {fill: #8a63c4; fill-opacity: 0.16}
svg.waterfall .marks rect, svg.waterfall .marks line {pointer-events: none}
svg.waterfall .marks line {stroke: #2e8b57; stroke-width: 1.4}
svg.waterfall .marks line.listen {stroke-dasharray: 4 3}
svg.waterfall .marks line.gc {stroke: #8a63c4}
svg.waterfall .marks text {fill: #23704a; paint-order: stroke; stroke: #fcfcfa; stroke-width: 3; stroke-linejoin: round}
svg.waterfall .marks text.gc {fill: #6c45a8}
@media (prefers-color-scheme: dark) {
svg.waterfall text {fill: #e4e4ea}
svg.waterfall .ground {fill: #17181c}
svg.waterfall:root {background: #17181c}
svg.waterfall .prose, svg.waterfall .faint, svg.waterfall .share {fill: #a3a3ae}
svg.waterfall .fold .name, svg.waterfall .left .name, svg.waterfall .twisty {fill: #a3a3ae}
svg.waterfall .grid line {stroke: #2b2d34}
svg.waterfall .grid .zero {stroke: #62656f}
svg.waterfall .hit, svg.waterfall .chip rect {fill: #93a4c8}
svg.waterfall .cpu {fill: #5b9fd0}
svg.waterfall .runnable {fill: #d9a441}
svg.waterfall .blocked {fill: #6a6f80}
svg.waterfall .plain {fill: #7a6757}
svg.waterfall .fault {fill: #ee6a7d}
svg.waterfall .count {fill: #f08a98}
svg.waterfall .others {stroke: #b6b6c0}
svg.waterfall rect.gc {fill: #a98be0; fill-opacity: 0.2}
svg.waterfall .marks line {stroke: #58c08a}
svg.waterfall .marks line.gc {stroke: #a98be0}
svg.waterfall .marks text {fill: #7ad3a4; stroke: #17181c}
svg.waterfall .marks text.gc {fill: #c3aaf0}
}
"""

_PAGE = (
    PAGE_HEAD
    + """h1 {{margin: 0 0 0.2em 0.6em}}
h2 {{margin-left: 0.7em}}
.wide {{overflow-x: auto; margin: 0 0.8em}}
table {{font-size: 12px}}
caption {{text-align: left; color: #5b5b66; font-size: 13px; padding-bottom: 0.6em}}
th, td {{text-align: right; padding: 0.25em 0.45em; border-bottom: 1px solid #8883; white-space: nowrap}}
thead th {{font-weight: 600; color: #5b5b66; vertical-align: bottom}}
th:first-child, td:nth-child(2), thead th:nth-child(2), td:not([data-value]), th.text {{text-align: left; min-width: 8em;
white-space: normal; overflow-wrap: anywhere}}
th:first-child {{padding-left: 0; min-width: 16em}}
tbody th {{font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace}}
tbody th.level0 {{font-weight: 600}}
tbody th.level1 {{padding-left: 1em}}
tbody th.level2 {{padding-left: 2em}}
thead button {{font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: right;
text-decoration: underline dotted}}
th[aria-sort] button {{text-decoration: none}}
th[aria-sort="descending"] button::after {{content: " \\25be"}}
th[aria-sort="ascending"] button::after {{content: " \\25b4"}}
@media (prefers-color-scheme: dark) {{
caption, thead th {{color: #a3a3ae}}
}}
</style>
</head>
<body>
<h1>{title}</h1>
{picture}{table}</body>
</html>
"""
)

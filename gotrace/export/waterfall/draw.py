"""Cold starts as a waterfall, SVG or HTML: one file, nothing from elsewhere, and a picture even where no script runs.

Names are the target's own: they go through `printable` and are escaped, and the script handles them as text only.
"""

from __future__ import annotations

import html as markup
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

from gotrace.analysis.start_summary import median
from gotrace.analysis.timeline import (
    BEFORE,
    CONTAINER,
    HEAP_KNOWN_FROM,
    UNATTRIBUTED,
    FirstGc,
    Row,
    Start,
    by_place,
    is_short,
    known_sum,
    starter_text,
)
from gotrace.export.picture.frame import (
    Axis,
    asset,
    cells,
    cut,
    embedded_script,
    escaped,
    filled,
    fitting,
    framed,
    paragraphs,
)
from gotrace.text import bytes_text, count_text, duration_text, growth_text, printable

WIDTH = 1200  # pixels, as all that follow
MOST_DRAWN = 20  # of more starts than that only the median and the slowest one have bars
NARROWEST = 0.75  # a bar is at least that wide, to be seen
_MARGIN, _INDENT = 12, 14
_NAMES, _TOOK, _SHARE = 296, 368, 420  # where these columns end
_LEFT, _RIGHT = 452, 1148  # of the time axis
_PITCH, _BAR = 20, 12
_CHAR, _PROSE = 6.63, 6.9  # of a monospaced font of 11 pixels, and of the text above: about
_ROOM = int((WIDTH - 2 * _MARGIN) / _PROSE)  # of a line of prose
_STATES = ("cpu", "runnable", "throttled", "blocked")


def svg(starts: Sequence[Start], title: str, more: Sequence[str] = ()) -> str:
    """A waterfall as a file of its own, 1200 pixels wide: a line for each stage and each part of it, over time.

    A bar's colours are its shares on-CPU, runnable, throttled and blocked. A click (or Enter) on a line shows or hides what
    is below it. Several starts are drawn into the same lines, and one of them can be picked to be shown alone; the second
    starts of all runs have a picture of their own, below that of the first ones. ``more`` stands at the end.
    """
    pictures = [_picture(scene, title + of_run, headed=True) for scene, of_run in _scenes(starts, more)]
    tops = list(accumulate((height for height, _ in pictures), initial=0))
    content = "".join(text for _, text in pictures)
    if len(pictures) > 1:
        inner = "".join(
            text.replace("<svg ", f'<svg y="{top}" ', 1) for top, (_, text) in zip(tops, pictures, strict=False)
        )
        content = filled("waterfall/stack.svg", width=WIDTH, height=tops[-1], title=escaped(title), content=inner)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{content}'


def html(starts: Sequence[Start], title: str, more: Sequence[str] = ()) -> str:
    """A page with the waterfall and a table of all its lines, which can be sorted; of each place in a run one."""
    body = ""
    for scene, of_run in _scenes(starts, ()):
        heading = f"<h2>{escaped(of_run.removeprefix(': ').capitalize())}</h2>\n" if of_run else ""
        body += heading + _picture(scene, title + of_run, headed=False)[1] + "".join(_table(scene))
    body += "".join(f'<p class="more">{escaped(each)}</p>\n' for each in more)
    return framed(title, body, style=asset("waterfall/page.css"))


def _scenes(starts: Sequence[Start], more: Sequence[str]) -> Iterator[tuple[_Scene, str]]:
    """What is to be drawn by itself, and how it is called where that is more than one thing."""
    groups = by_place(starts) or [[]]
    for place, numbers in enumerate(groups):
        those = [starts[number] for number in numbers]
        last = place + 1 == len(groups)
        yield _Scene(those, numbers, more if last else ()), f": start {place + 1} of a run" if len(groups) > 1 else ""


@dataclass(frozen=True)
class _Sums:
    """All rows of one line in one start."""

    begin: int
    took: int
    divided: bool  # whether it is known what is on-CPU of it, and its faults
    states: tuple[int | None, ...]  # as _STATES
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
        shares = [each.took / starts[number].whole_ns for number, each in self.sums.items() if starts[number].total_ns > 0]
        return median(shares) if shares and self.counted else None

    def took(self) -> float:
        return median([each.took for each in self.sums.values()])


def _sums(rows: Sequence[Row]) -> _Sums:
    return _Sums(
        begin=min(row.begin_ns for row in rows),
        took=sum(row.duration_ns for row in rows),
        divided=any(row.divided for row in rows),
        states=(
            sum(row.on_cpu_ns for row in rows),
            sum(row.runnable_ns for row in rows),
            known_sum([row.throttled_ns for row in rows]),
            sum(row.blocked_ns for row in rows),
        ),
        minor=sum(row.minor_faults for row in rows),
        major=sum(row.major_faults for row in rows),
        pages=sum(row.pages_read for row in rows),
        heap=known_sum([row.heap_bytes for row in rows]),
        details="; ".join(dict.fromkeys(row.detail for row in rows if row.detail)),
    )


class _Scene:
    """What is to be drawn: which starts, by which ``numbers`` they go, in which lines, on which axis."""

    def __init__(self, starts: Sequence[Start], numbers: Sequence[int], more: Sequence[str]) -> None:
        self.starts = starts
        self.labels = [number + 1 for number in numbers]
        self.more = more
        ranked = sorted(range(len(starts)), key=lambda number: (starts[number].whole_ns, number))
        self.median = ranked[(len(starts) - 1) // 2] if starts else 0
        self.slowest = ranked[-1] if starts else 0
        self.drawn = list(range(len(starts))) if len(starts) <= MOST_DRAWN else [self.median, self.slowest]
        self.others = [number for number in range(len(starts)) if number not in self.drawn]
        self.top = _tree(starts, [self.median, *(number for number in range(len(starts)) if number != self.median)])
        for stage in self.top.below:
            _fold(stage, starts, self.drawn)
        self.lines = list(_flat(self.top))
        rows = [row for start in starts for row in start.rows]
        self.axis = Axis(
            _LEFT,
            _RIGHT,
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
    """What lies in no stage, as rows. They exist only where the start has such time."""
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


def _number(value: float) -> str:
    """A coordinate in as few characters as three decimals need."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _name(scene: _Scene, number: int) -> str:
    return f"start {scene.labels[number]} (pid {scene.starts[number].pid})"


def _about(scene: _Scene) -> list[str]:
    """What is above a picture of all starts."""
    starts = scene.starts
    if not starts:
        return ["No starts."]
    if len(starts) == 1:
        return _about_one(starts[0])
    totals = [start.total_ns for start in starts]
    told = [
        f"{len(starts)} starts, from execve's entry to {' or '.join(dict.fromkeys(start.ended for start in starts))}:"
        f" {duration_text(min(totals))} to {duration_text(max(totals))} in total,"
        f" median {duration_text(median(totals))}. The slowest is {_name(scene, scene.slowest)}."
    ]
    if scene.others:
        nearest = "the median" if len(starts) % 2 else "nearest to the median"
        told.append(
            f"Bars: {_name(scene, scene.median)}, {nearest}, and below it the slowest. Ticks: where rows of the other"
            f" {len(scene.others)} begin (above) and end (below)."
        )
    else:
        told.append(f"Starts are stacked within each line, start {scene.labels[0]} on top.")
    if any(_marks_of(starts[number]) for number in scene.drawn):
        told[-1] += f" First GC, listen and ready are those of start {scene.labels[scene.median]}."
    return told


def _about_one(start: Start) -> list[str]:
    code = "" if start.exit_code is None else f", exit code {start.exit_code}"
    left = f"; {duration_text(start.unattributed_ns)} of it unattributed" if start.unattributed_ns > 0 else ""
    told = [f"Total {duration_text(start.total_ns)}, from execve's entry to {start.ended} (pid {start.pid}{code}){left}."]
    if start.container is not None:
        told.append(
            f"{printable(start.container.tool)} received the request {duration_text(start.asked_ns)} before execve."
        )
    rows = [row for row in start.rows if row.depth == 0 and row.stage not in (CONTAINER, BEFORE)]
    if rows:
        sums = _sums(rows)
        shares = ["?" if part is None else _percent(part / max(sums.took, 1)) for part in sums.states]
        states = [f"{share} {word}" for word, share in zip(_WORDS, shares, strict=True)]
        told.append(f"{', '.join(states)}; {_faults(sums)}.")
    told.append(f"Started {starter_text(start)}.")
    return told


_WORDS = ("on-CPU", "runnable", "CPU quota", "blocked")


def _faults(sums: _Sums) -> str:
    return f"{sums.minor:,} minor and {count_text(sums.major, 'major page fault')}, {count_text(sums.pages, 'page')} read"


def _notes(scene: _Scene) -> Iterator[str]:
    """The starts' notes, each once."""
    those: dict[str, list[int]] = {}
    for number, start in enumerate(scene.starts):
        for note in start.notes:
            those.setdefault(note, []).append(scene.labels[number])
    for note, numbers in those.items():
        which = f"start {numbers[0]}: " if len(numbers) == 1 else f"{len(numbers)} starts: "
        yield note if len(numbers) == len(scene.starts) else which + note
    yield from scene.more


def _picture(scene: _Scene, title: str, *, headed: bool) -> tuple[int, str]:
    """The picture, and before it how high it is."""
    abouts = _abouts(scene)
    notes = paragraphs(_notes(scene), _ROOM)
    marks = {number: _labelled(scene, number) for number in scene.drawn}
    # From above: title, sentences, legend, starts to pick, axis, labels of what lies over the lines; the lines; notes.
    legend = 16 + 26 * headed + 18 * max(map(len, abouts.values()))
    axis = legend + 40 + 30 * (len(scene.drawn) > 1)
    first = axis + 10 + 15 * max([0, *(mark.row + 1 for those in marks.values() for mark in those)])
    bottom = first + scene.pitch * sum(map(_visible, scene.lines)) if scene.lines else legend + 40
    foot = 12 + 18 * len(notes)
    content = []
    if headed:
        heading = markup.escape(cut(printable(title), int((WIDTH - 2 * _MARGIN) / 8.6)))
        content.append(f'<text class="title" x="{_MARGIN}" y="26">{heading}</text>\n')
    for which, lines in abouts.items():
        shown = _prose(lines, 20 + 26 * headed)
        content.append(f'<g class="about{" hidden" * bool(which)}" data-run="{which}">{shown}</g>\n')
    if scene.lines:
        content += _legend(scene, legend)
        if len(scene.drawn) > 1:
            content += _picker(scene, legend + 24)
        content += _scale(scene, axis, bottom)
        content += _lines(scene, first)
        for number, those in marks.items():
            content.append(f'<g class="marks{" hidden" * (number != scene.median)}" data-run="{number}">\n')
            for mark in those:
                content += _drawn_mark(mark, axis + 8, first, bottom)
            content.append("</g>\n")
    elif scene.starts:
        content.append(_prose(["No rows."], legend + 20))
    content.append(f'<g class="foot" transform="translate(0 {bottom})">{_prose(notes, 20)}</g>\n')
    if scene.lines:
        content.append(embedded_script("waterfall/picture.js"))
    return bottom + foot, filled(
        "waterfall/picture.svg",
        width=WIDTH,
        height=bottom + foot,
        title=escaped(title),
        first=first,
        pitch=scene.pitch,
        bar=scene.bar,
        alone_pitch=_PITCH,
        alone_bar=_BAR,
        foot=foot,
        reference=scene.median,
        style=asset("waterfall/picture.css"),
        content="".join(content),
    )


def _abouts(scene: _Scene) -> dict[str, list[str]]:
    """What is above the picture of all starts, and above that of each alone."""
    abouts = {"": paragraphs(_about(scene), _ROOM)}
    if len(scene.drawn) > 1:
        for number in scene.drawn:
            total, *rest = _about_one(scene.starts[number])
            abouts[str(number)] = paragraphs([f"Start {scene.labels[number]}: t{total[1:]}", *rest], _ROOM)
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
    if any(sums.states[_STATES.index("throttled")] for line in scene.lines for sums in line.sums.values()):
        entries.insert(2, ("throttled", "CPU quota"))
    if any(not sums.divided for line in scene.lines for sums in line.sums.values()):
        entries.append(("plain", "not broken down"))
    if any(scene.starts[number].gc for number in scene.drawn):
        entries.append(("gc", "first GC"))
    x = float(_MARGIN)
    yield '<g class="legend">'
    for colour, words in entries:
        width = 3 if colour == "fault" else 12
        yield f'<rect class="{colour}" x="{x:.1f}" y="{y}" width="{width}" height="12"/>'
        yield f'<text x="{x + width + 5:.1f}" y="{y + 10}">{words}</text>'
        x += width + 5 + len(words) * _CHAR + 16
    words = "Colors within a bar show shares of its time, not their order."
    yield f'<text class="faint" x="{x + 4:.1f}" y="{y + 10}">{words}</text></g>\n'


def _picker(scene: _Scene, y: int) -> Iterator[str]:
    """Buttons for the script: without it they would be promises."""
    names: dict[int | str, str] = {number: str(scene.labels[number]) for number in scene.drawn}
    if scene.others:
        chosen = {"median": scene.median, "slowest": scene.slowest}
        names = {number: f"{what}: {scene.labels[number]}" for what, number in chosen.items()}
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
    label = fitting(shown, int((_NAMES - x - _INDENT) / _CHAR))
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
    # With many starts no one can point at what is that narrow, and words for each of them would be most of the file.
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
    parts = [max(each or 0, 0) for each in _sums([row]).states]
    whole = sum(parts)
    if width < 2 or not whole or not row.divided:
        return [(_most(row), width)]
    return [(state, width * part / whole) for state, part in zip(_STATES, parts, strict=True) if part]


def _most(row: Row) -> str:
    if not row.divided:
        return "plain"
    return max(zip(_sums([row]).states, _STATES, strict=True), key=lambda each: each[0] or 0)[1]


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
    share = f", {_percent(sums.took / start.whole_ns)} of the total" if line.counted and start.total_ns > 0 else ""
    name = line.name if count == 1 or line.kind == "fold" else f"{line.name} ({count} short ones)"
    told = [name if len(scene.starts) < 2 else f"{name}: {_name(scene, number)}"]
    since = "" if count == 1 else "from "
    told.append(f"{since}{duration_text(sums.begin)} after execve's entry; took {duration_text(sums.took)}{share}")
    if sums.begin < 0:
        told[-1] = f"{duration_text(-sums.begin)} before execve's entry; took {duration_text(sums.took)}{share}"
    if sums.divided:
        told.append(", ".join(f"{word} {_duration(part)}" for word, part in zip(_WORDS, sums.states, strict=True)))
        told.append(_faults(sums))
    if sums.heap is not None:
        told.append(f"live heap {growth_text(sums.heap, HEAP_KNOWN_FROM)}")
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
    """Kind, begin, end, label, and details."""
    found = []
    if start.gc is not None:
        end = start.gc.end_ns if start.gc.end_ns is not None else start.total_ns
        found.append(("gc", start.gc.begin_ns, max(end, start.gc.begin_ns), *_gc_words(start.gc)))
    for kind, at, more in (
        ("listen", start.listen_ns, "the first listen"),
        ("ready", start.ready_ns, "the first accept that returned"),
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
        more.append("still running when the start was over")
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


def _duration(ns: float | None) -> str:
    return "?" if ns is None else duration_text(ns)


_Cell = tuple[str, "float | None"]  # what is shown, and what it is sorted by
_UNKNOWN: _Cell = ("?", -1)  # sorted below 0


def _medians(value: Callable[[_Sums], int | None], shown: Callable[[float], str]) -> Callable[[_Line], _Cell]:
    """The median over the starts of which it is known."""

    def cell(line: _Line) -> _Cell:
        known = [number for number in map(value, line.sums.values()) if number is not None]
        return (shown(median(known)), median(known)) if known else _UNKNOWN

    return cell


def _count(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _columns(scene: _Scene) -> list[tuple[str, Callable[[_Line], _Cell]]]:
    several = len(scene.starts) > 1

    def took(choose: Callable[[list[int]], float]) -> Callable[[_Line], _Cell]:
        def cell(line: _Line) -> _Cell:
            ns = choose([each.took for each in line.sums.values()])
            return duration_text(ns), ns

        return cell

    def share(line: _Line) -> _Cell:
        found = line.share(scene.starts)
        return ("-", -1) if found is None else (_percent(found), found)  # what is before exec is no part of the total

    columns: list[tuple[str, Callable[[_Line], _Cell]]] = []
    if several:
        columns.append(("Starts", lambda line: (str(len(line.sums)), len(line.sums))))
        columns += [("Duration", took(median)), ("Shortest", took(min)), ("Longest", took(max))]
    else:
        columns += [("Begin", _medians(lambda sums: sums.begin, duration_text)), ("Duration", took(median))]
    columns.append(("Share", share))
    columns.append(("On-CPU", _medians(lambda sums: sums.states[0], duration_text)))
    columns.append(("Runnable", _medians(lambda sums: sums.states[1], duration_text)))
    columns.append(("CPU quota", _medians(lambda sums: sums.states[2], duration_text)))
    columns.append(("Blocked", _medians(lambda sums: sums.states[3], duration_text)))
    columns.append(("Minor faults", _medians(lambda sums: sums.minor, _count)))
    columns.append(("Major faults", _medians(lambda sums: sums.major, _count)))
    columns.append(("Pages read", _medians(lambda sums: sums.pages, _count)))
    columns.append(("Heap", _medians(lambda sums: sums.heap, lambda size: growth_text(size, HEAP_KNOWN_FROM))))
    if not several:
        columns.append(("Detail", lambda line: (next(iter(line.sums.values())).details, None)))
    return columns


def _table(scene: _Scene) -> Iterator[str]:
    lines = [line for line in scene.lines if line.kind != "fold" and line.sums]
    if not lines:
        return
    columns = _columns(scene)
    caption = "All rows in chronological order. Rows with the same name in the same place are merged."
    if len(scene.starts) > 1:
        caption += " Numbers are medians over the starts that have the row."
    yield '<h2>Rows</h2>\n<div class="wide" role="region" aria-label="Rows" tabindex="0">\n<table class="rows">\n'
    yield f'<caption>{caption}</caption>\n<thead><tr><th scope="col">Name</th><th scope="col">In</th>'
    for head, _ in columns:
        kind = ' class="text"' if head == "Detail" else ' class="sorted"'
        yield f'<th scope="col"{kind}>{head}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for line in lines:
        depth = min(len(line.path), 3) - 1
        yield f'<tr><th scope="row" class="level{depth}">{escaped(line.name)}</th>'
        yield f"<td>{markup.escape(fitting(printable(line.path[-2]), 26)) if depth else ''}</td>"
        divided = any(sums.divided for sums in line.sums.values())
        for head, cell in columns:
            # What is not known of it is not 0.
            shown, value = cell(line) if divided or head in _OF_TIME else _UNKNOWN
            yield (
                f"<td>{escaped(shown)}</td>"
                if value is None
                else f'<td data-value="{_number(value)}">{markup.escape(shown)}</td>'
            )
        yield "</tr>\n"
    yield "</tbody>\n</table>\n</div>\n"


_OF_TIME = ("Starts", "Begin", "Duration", "Shortest", "Longest", "Share", "Detail")

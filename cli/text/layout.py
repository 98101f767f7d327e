"""Tables that never wrap: where a line has no room for all columns the least important ones go."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from gotrace.text import Stream, count_text

Row = Sequence[object]


@dataclass(frozen=True)
class Column:
    """``width`` is the least it has where there is room; ``rank`` decides which goes first: the highest.

    One that is ``elastic`` may be cut down to that many characters before another column goes: at its end, or with
    ``keep_end`` behind its indentation. ``gap`` are the spaces before it.
    """

    name: str
    width: int = 0
    rank: int = 0
    left: bool = False
    elastic: int = 0
    keep_end: bool = False
    gap: int = 1

    def cell(self, value: object) -> str:
        text = str(value)
        if self.elastic:
            text = cut(text, self.width, self.keep_end)
        return " " * self.gap + (f"{text:<{self.width}}" if self.left else f"{text:>{self.width}}")


def cut(text: str, width: int, keep_end: bool = False) -> str:
    """``text`` in at most ``width`` characters."""
    if len(text) <= width:
        return text
    if not keep_end:
        return f"{text[: width - 1]}…"
    indent = len(text) - len(text.lstrip())
    return f"{text[:indent]}…{text[indent + 1 + len(text) - width :]}"


def room_of(stream: Stream) -> int | None:
    """How many characters a line has room for on a terminal, or COLUMNS says; None: any number, in files and pipes.

    There COLUMNS may be nobody's wish: a parent that uses readline leaves it in the environment.
    """
    if not stream.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    for descriptor in (1, 2):  # what the stream stands for may have none of its own
        try:
            return os.get_terminal_size(descriptor).columns or None
        except OSError:
            continue
    return None


MOST_ROWS = 1000  # of --top


def more_rows(count: int, top: int, whole: str = "") -> str:
    """What is said of ``count`` rows of which the first ``top`` are shown; ``whole`` is what has them all."""
    if count <= MOST_ROWS:
        how = f"--top {count} shows them"
    else:
        how = f"{whole} has them" if whole else f"--top {MOST_ROWS} shows the first ones"
    return f"{count_text(count - top, 'more row')}: {how}."


_LEAST_TEXT = 12  # characters: cut shorter, too many names are the same


class Lines:
    """Lines of cells under ``columns``, as many of them as there is ``room`` for (None: for all).

    Text that takes more than a quarter of the room is cut before columns go, for names of others may have any length: all
    such columns share what the others leave, or half of the room if that is more.
    """

    def __init__(self, columns: Sequence[Column], room: int | None) -> None:
        def least(column: Column) -> int:
            return column.gap + (min(column.elastic, column.width) or column.width)

        kept = [replace(column, width=max(column.width, len(column.name))) for column in columns]
        if room is not None:
            quarter = max(1, room // 4)
            long = [column.left and not column.elastic and column.width > quarter for column in kept]
            others = sum(column.gap if cut else least(column) for column, cut in zip(kept, long, strict=True))
            share = max(room // 2, room + kept[0].gap - others) // max(1, sum(long))
            most = max(share, min(_LEAST_TEXT, quarter))
            kept = [replace(column, elastic=most) if cut else column for column, cut in zip(kept, long, strict=True)]
        shown = list(range(len(kept)))
        while (
            room is not None and len(shown) > 1 and sum(least(kept[place]) for place in shown) - kept[shown[0]].gap > room
        ):
            shown.remove(max(shown, key=lambda place: (kept[place].rank, place)))
        if room is not None:
            spare = room + kept[shown[0]].gap - sum(least(kept[place]) for place in shown)
            for place in shown:
                column = kept[place]
                more = min(max(0, spare), column.width - (least(column) - column.gap))
                kept[place] = replace(column, width=least(column) - column.gap + more)
                spare -= more
        self._kept, self._shown = kept, shown

    @property
    def without(self) -> list[str]:
        """The names of the columns that have gone."""
        return [column.name for place, column in enumerate(self._kept) if place not in self._shown]

    @property
    def heading(self) -> str:
        return self.line([column.name for column in self._kept])

    def line(self, cells: Row) -> str:
        """A line of one cell a column; those whose column has gone are left out."""
        text = "".join(self._kept[place].cell(cells[place]) for place in self._shown)
        return text[self._kept[self._shown[0]].gap :].rstrip()


@dataclass(frozen=True)
class Rows:
    """A whole table: its columns are as wide as their cells, or as their ``width`` where there is room for that.

    ``ruled``: with a line below the heading. Rows with a cell ``strong`` are in bold, on terminals. Where the columns are
    ``parts`` of a whole, those for which there is no room are named below.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    ruled: bool = False
    strong: str | None = None
    parts: bool = False

    def lines(self, room: int | None = None, bold: bool = False) -> Iterator[str]:
        cells = [[str(cell) for cell in row] for row in self.rows]
        content = [max((len(row[place]) for row in cells), default=0) for place in range(len(self.columns))]
        wide = [replace(each, width=max(each.width, size)) for each, size in zip(self.columns, content, strict=True)]
        if room is not None and sum(each.gap + max(each.width, len(each.name)) for each in wide) > room + wide[0].gap:
            wide = [replace(each, width=size) for each, size in zip(self.columns, content, strict=True)]
        lines = Lines(wide, room)
        if any(column.name for column in self.columns):
            yield lines.heading
        if self.ruled:
            yield "─" * max(map(len, (lines.heading, *map(lines.line, cells))))
        for row in cells:
            line = lines.line(row)
            yield f"\x1b[1m{line}\x1b[0m" if bold and self.strong in row else line
        if self.parts and lines.without:
            yield wrapped(f"Columns hidden: {', '.join(lines.without)}.", room)


def rendered(parts: Iterable[str | Rows], room: int | None = None, bold: bool = False) -> Iterator[str]:
    """Sentences and tables as lines."""
    for part in parts:
        yield from [wrapped(part, room)] if isinstance(part, str) else part.lines(room, bold)


def wrapped(text: str, room: int | None) -> str:
    """A sentence in lines of no more than ``room`` characters, all with its indentation."""
    if room is None or all(len(line) <= room for line in text.split("\n")):
        return text
    out: list[str] = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        out += textwrap.wrap(line, room, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return "\n".join(out)

"""Records as text: lines as they arrive, and a summary at the end."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from gotrace.cli.text.layout import Column, Lines, Row, Rows, rendered, room_of
from gotrace.run.files import Sink
from gotrace.run.outputs import Output
from gotrace.text import count_text, printable
from gotrace.views.view import Record, Source, View


def text_of(view: View) -> ModuleType:
    """The module that says in words what a view found. It is imported now."""
    return importlib.import_module(f"gotrace.cli.text.{view.name}")


class Table(Output):
    """The text of each view is in the module of its name; of several views only the first has its lines shown.

    There ``HEADING_EVERY`` is the number of lines after which the heading is repeated, and ``TELLS_LOST`` says that its
    summary reports lost events. Terminals get styled tables.
    """

    def __init__(self, stream: Sink) -> None:
        self.stream = stream

    def begin(self, source: Source, views: Sequence[View], number: int) -> None:
        self._texts: dict[View, ModuleType] = {view: text_of(view) for view in views}
        self._first = views[0]
        self._lines: Lines | None = None
        self._printed = 0

    def _of(self, view: View, constant: str) -> Any:
        return vars(self._texts[view]).get(constant)

    def add(self, view: View, records: Sequence[Record]) -> None:
        if view is not self._first:
            return
        text: ModuleType = self._texts[view]
        for record in records:
            cells: Row | None = text.line(view, record)
            if cells is not None:
                self._line(view, text.columns(view), cells)
        self.stream.flush()

    def _line(self, view: View, columns: Sequence[Column], cells: Row) -> None:
        every = self._of(view, "HEADING_EVERY")
        if self._lines is None or (every and self._printed % every == 0):
            self._lines = Lines(columns, room_of(self.stream))
            self._print(self._lines.heading)
        self._printed += 1
        self._print(self._lines.line(cells))

    def end(self, source: Source, views: Sequence[View]) -> None:
        for view in views:
            self.print(self._texts[view].summary(view))
        if source.lost and not any(self._of(view, "TELLS_LOST") for view in views):
            self._print(f"{count_text(source.lost, 'event')} LOST.")
        self.stream.flush()

    def print(self, parts: Iterable[str | Rows]) -> None:
        """Sentences and tables, as wide as there is room for."""
        for line in rendered(parts, room_of(self.stream), bold=self.stream.isatty()):
            self._print(line)

    def _print(self, line: str) -> None:
        self.stream.write(f"{line}\n")


class TableTogether(Table):
    """The text of several processes at once, a view each: in every line, which one it is, and a summary each."""

    def __init__(self, stream: Sink) -> None:
        super().__init__(stream)
        self._texts = {}
        self._lines = None
        self._printed = 0

    def begin(self, source: Source, views: Sequence[View], number: int) -> None:
        self._texts |= {view: text_of(view) for view in views}

    def add(self, view: View, records: Sequence[Record]) -> None:
        text = self._texts[view]
        target = view.source.header["target"]
        name = printable(os.path.basename(target["exe"]))
        for record in records:
            if (cells := text.line(view, record)) is not None:
                columns = text.columns(view)
                if self._lines is None and self._printed:  # after a summary
                    self._print("")
                self._line(view, (columns[0], *_WHOSE, *columns[1:]), (cells[0], target["pid"], name, *cells[1:]))
        self.stream.flush()

    def end(self, source: Source, views: Sequence[View]) -> None:
        self._print(f"\n{source.name}:")
        super().end(source, views)
        for view in views:
            del self._texts[view]
        self._lines = None  # what comes next has a heading again


_WHOSE = (Column("pid", 7, gap=2), Column("process", 15, left=True, elastic=15, gap=2))

"""Records as text: lines as they arrive, and a summary at the end."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from gotrace.cli.text.layout import Lines, Row, Rows, rendered, room_of
from gotrace.run.files import Sink
from gotrace.run.outputs import Output
from gotrace.text import count_text
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
        self._texts = {view: text_of(view) for view in views}
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
            if cells is None:
                continue
            every = self._of(view, "HEADING_EVERY")
            if self._lines is None or (every and self._printed % every == 0):
                self._lines = Lines(text.columns(view), room_of(self.stream))
                self._print(self._lines.heading)
            self._printed += 1
            self._print(self._lines.line(cells))
        self.stream.flush()

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

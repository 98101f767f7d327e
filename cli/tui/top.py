"""`gotrace top` on the screen: a table that is kept up to date, one process on a page of its own, and keys."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Sequence
from typing import ClassVar

import msgspec
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Static

from gotrace.agent.remote import Details, Row, Source
from gotrace.cli.text import top as text
from gotrace.cli.text.layout import rendered
from gotrace.errors import GotraceError
from gotrace.kernel.privileges import caller
from gotrace.run.files import created, free
from gotrace.text import printable

_EVERY_S = 1.0
_ENDED_S = 5  # so long the row of a process stays that is no longer there
_MOST_UNTRACED = 6
_EXPORT = "gotrace-top.ndjson"
_HELP = """
 up, down, j, k  select a process
 enter           show its details; esc goes back
 s               sort by the next column:
                 {sorts}
 /               filter by name, path or pid; esc clears the filter
 p               pause or resume the display
 u               show or hide processes that are not traced
 e               export the rows to {export}
 q               quit

 Columns cover the last interval, about a second; those from "longest"
 on cover the time since tracing began. MAF is RSS / live heap.

 Press any key to close.
"""


class _Table(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Process"),
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
    ]


class _Help(ModalScreen[None]):
    def compose(self) -> ComposeResult:
        yield Static(_HELP.format(sorts=", ".join(each.name for each in text.SORTS), export=_EXPORT), markup=False)

    def on_key(self) -> None:
        self.dismiss()


class _Process(Screen[None]):
    """One process."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.pop_screen", "Back")]

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid
        self.seen: Details | None = None
        self.is_there = True

    def compose(self) -> ComposeResult:
        yield Static("", id="state", markup=False)
        with VerticalScroll():
            yield Static("", id="process", markup=False)
        yield Footer()

    def show(self, found: Details | None) -> None:
        self.seen, self.is_there = found or self.seen, found is not None
        if self.seen is not None:
            lines = rendered(text.details(self.seen), max(20, self.size.width - 2))
            self.query_one("#process", Static).update(Text("\n".join(lines)))


class Top(App[None]):
    """Shows ``source`` until somebody quits; ``failure`` is what it then ended of, if it did."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #state { height: 1; background: $panel; }
    #untraced { height: auto; max-height: 7; color: $text-muted; }
    #filter { display: none; height: 1; border: none; }
    _Table { height: 1fr; }
    _Help { align: center middle; }
    _Help Static { width: auto; border: round $foreground; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "Sort"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("p", "pause", "Pause"),
        Binding("u", "untraced", "Untraced"),
        Binding("e", "export", "Export"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("escape", "all", show=False),
    ]

    def __init__(self, source: Source, every_s: float = _EVERY_S) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._source, self._every_s = source, every_s
        self._rows: list[Row] = []
        self._ended: dict[int, tuple[float, Row]] = {}  # by pid: when that was seen
        self._sort = text.SORTS[0]
        self._wanted = self._note = ""
        self._paused = self._asking = False
        self._untraced = True
        self._fields: list[text.Field] = []

    def compose(self) -> ComposeResult:
        yield Static("", id="state", markup=False)
        yield _Table(cursor_type="row", zebra_stripes=False)
        yield Static("", id="untraced", markup=False)
        yield Input(placeholder="part of a name or path, or a pid", id="filter", select_on_focus=False)
        yield Footer()

    async def on_mount(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self._columns(self.size.width)
        self.set_interval(self._every_s, self.refresh_rows)
        await self.refresh_rows()

    def on_resize(self, event: Resize) -> None:
        self._columns(event.size.width)
        self._show()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action not in ("sort", "filter", "untraced") or self.screen is self._main

    def _handle_exception(self, error: Exception) -> None:
        # Of App. Its own prints a traceback.
        self.failure = self.failure or error
        self.exit(return_code=1)

    # --- What there is

    async def refresh_rows(self) -> None:
        """Ask the source, unless it still has to answer, and show what it says."""
        if self._paused or self._asking:
            return
        self._asking = True
        screen = self.screen
        try:
            rows = await asyncio.to_thread(self._source.rows)
            self._note = ""
            if isinstance(screen, _Process):
                found = await asyncio.to_thread(self._source.details, screen.pid)
                if not self._paused and screen.is_current:
                    screen.show(found)
        except (GotraceError, OSError) as error:
            self._note = printable(error.message if isinstance(error, GotraceError) else str(error))
            self._state()
            return
        finally:
            self._asking = False
        if not self._paused:
            self._take(rows)

    def _take(self, rows: list[Row]) -> None:
        now = time.monotonic()
        there = {each.pid for each in rows}
        for each in self._rows:
            if each.is_traced and each.pid not in there:
                self._ended[each.pid] = now, each
        self._ended = {pid: (at, row) for pid, (at, row) in self._ended.items() if pid not in there and now - at < _ENDED_S}
        self._rows = rows
        self._show()

    def _seen(self) -> list[Row]:
        """What the table has, in its order."""
        traced = [each for each in self._rows if each.is_traced] + [row for _, row in self._ended.values()]
        return text.ordered((each for each in traced if text.fits(each, self._wanted)), self._sort)

    # --- The screen

    @property
    def _main(self) -> Screen[object]:
        return self.screen_stack[0]

    def _columns(self, room: int) -> None:
        fields, width = text.shown(room)
        table = self._main.query_one(_Table)
        if fields == self._fields and table.columns and table.columns["name"].width == width:  # type: ignore[index]
            return
        self._fields = fields
        table.clear(columns=True)
        table.add_column(f"{'pid':>7}", width=7, key="pid")
        table.add_column("name", width=width, key="name")
        for each in fields:
            table.add_column(Text(f"{each.name:>{each.width}}"), width=each.width, key=each.name)

    def _show(self) -> None:
        """Change the cells that are not what they should be, and no other."""
        table, seen = self._main.query_one(_Table), self._seen()
        chosen = table.coordinate_to_cell_key(table.cursor_coordinate).row_key if table.row_count else None
        for gone in [key for key in table.rows if key.value not in {str(each.pid) for each in seen}]:
            table.remove_row(gone)
        for each in seen:
            key, cells = str(each.pid), self._cells(each)
            if key not in table.rows:
                table.add_row(*cells.values(), key=key)
                continue
            for column, cell in cells.items():
                if table.get_cell(key, column) != cell:
                    table.update_cell(key, column, cell)
        order = {str(each.pid): place for place, each in enumerate(seen)}
        if [each.key.value for each in table.ordered_rows] != list(order):
            table.sort("pid", key=lambda cell: order[cell.plain.strip()])
        if chosen is not None and chosen.value in order and table.cursor_row:  # else whoever is first stays chosen
            table.move_cursor(row=order[chosen.value])
        others = [each for each in self._rows if not each.is_traced and text.fits(each, self._wanted)]
        below = self._main.query_one("#untraced", Static)
        below.display = self._untraced and bool(others)
        below.update(
            Text("\n".join(["not traced:", *text.untraced(others, _MOST_UNTRACED)]), overflow="ellipsis", no_wrap=True)
        )
        self._state()

    def _cells(self, process: Row) -> dict[str, Text]:
        style = "dim" if process.pid in self._ended else ""
        name = text.name_of(process) + (" (ended)" if style else "")
        cells = {"pid": Text(f"{process.pid:>7}", style), "name": Text(name, style, no_wrap=True, overflow="ellipsis")}
        return cells | {each.name: Text(f"{each.cell(process):>{each.width}}", style) for each in self._fields}

    def _head(self) -> str:
        rows, screen = self._rows, self.screen
        traced = [each for each in rows if each.is_traced]
        parts = [self._source.title, f"{len(traced)} traced, {len(rows) - len(traced)} not", f"by {self._sort.title}"]
        parts += [f"only {printable(self._wanted)!r}"] if self._wanted else []
        parts += [f"events lost: {lost:,}"] if (lost := sum(each.lost for each in traced)) else []
        parts += ["PAUSED"] if self._paused else []
        parts += [f"pid {screen.pid} is no longer traced"] if isinstance(screen, _Process) and not screen.is_there else []
        return " | ".join([self._note, *parts] if self._note else parts)  # where there is no room, the end is cut

    def _state(self) -> None:
        for line in self.screen.query("#state").results(Static):
            line.update(Text(self._head(), no_wrap=True, overflow="ellipsis"))

    # --- Keys

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        pid = int(event.row_key.value or 0)
        self.push_screen(_Process(pid))
        self.call_after_refresh(self.refresh_rows)

    def action_sort(self) -> None:
        self._sort = text.SORTS[(text.SORTS.index(self._sort) + 1) % len(text.SORTS)]
        self._show()

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._state()

    def action_untraced(self) -> None:
        self._untraced = not self._untraced
        self._show()

    def action_help(self) -> None:
        self.push_screen(_Help())

    def action_filter(self) -> None:
        if self.screen is self._main:
            field = self.query_one("#filter", Input)
            field.display = True
            field.focus()

    def action_all(self) -> None:
        self.query_one("#filter", Input).value = ""
        self.on_input_submitted()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._wanted = event.value
        self._show()

    def on_input_submitted(self) -> None:
        self.query_one("#filter", Input).display = False
        self.query_one(_Table).focus()

    def action_export(self) -> None:
        records: Sequence[Row] = self._seen()
        if isinstance(self.screen, _Process):
            records = [self.screen.seen] if self.screen.seen is not None else []
        path = free(_EXPORT, force=False)
        try:
            with created(path, force=False) as file:
                for each in records:
                    line = {"type": "top", "time_ns": time.time_ns(), **msgspec.to_builtins(each)}
                    file.write(json.dumps(line).encode() + b"\n")
                if owner := caller():
                    os.fchown(file.fileno(), *owner)
            self._note = f"wrote {path}"
        except GotraceError as error:
            self._note = error.message
        self._state()

"""Where the records of a run go. A failed output ends the run, and is reported after the rest."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

from gotrace.export import hdr_log, hgrm
from gotrace.records.gc import INTERVAL
from gotrace.run.files import Sink, complain_of, created, numbered
from gotrace.views.view import Record, Source, View, records_of

if TYPE_CHECKING:
    from gotrace.analysis.histogram import Histogram


class Output:
    """One of them. ``stream`` remembers what kept it from being written.

    For each program that the target executes come `begin`, any number of `add` and `end`; `close` comes last.
    """

    stream: Sink

    def begin(self, source: Source, views: Sequence[View], number: int) -> None:
        """``views`` are put to the ``number``-th program of the target, from 1 on."""

    def add(self, view: View, records: Sequence[Record]) -> None:
        """New records of a view."""

    def end(self, source: Source, views: Sequence[View]) -> None:
        """No more comes from this program."""

    def close(self) -> None:
        self.stream.close()


def feed(source: Source, views: Sequence[View], outputs: Sequence[Output], number: int = 1) -> None:
    """Put ``views`` to a program, until its end or a failure of an output. Raises GotraceError."""

    watch(source, outputs)
    for output in outputs:
        output.begin(source, views, number)
    try:
        for view, records in records_of(source, views):
            if records:
                for output in outputs:
                    output.add(view, records)
    finally:
        if all(view.complete for view in views):  # else there is nothing to tell but the error
            for output in outputs:
                output.end(source, views)
    complain_of(_failed(outputs))


def watch(source: Source, outputs: Sequence[Output]) -> None:
    """Let a source know how its outputs fare from now on."""
    before_ns = _blocked_ns(outputs)
    source.failing = lambda: _failed(outputs) is not None
    source.blocked_ns = lambda: _blocked_ns(outputs) - before_ns


def _failed(outputs: Sequence[Output]) -> Sink | None:
    return next((output.stream for output in outputs if output.stream.failure is not None), None)


def _blocked_ns(outputs: Sequence[Output]) -> int:
    return sum(output.stream.blocked_ns for output in outputs)


class Json(Output):
    """Records as lines (ndjson), or as one ``array`` (json); every portion is flushed.

    With ``each`` every program has a file of its own, named as `files.numbered` does.
    """

    def __init__(self, stream: Sink, array: bool = False, each: tuple[str, bool] | None = None) -> None:
        self.stream = stream
        self._array = array
        self._each = each
        self._first = True

    def begin(self, source: Source, views: Sequence[View], number: int) -> None:
        if self._each is not None and number > 1:
            path, force = self._each
            self.stream.close()
            self.stream = Sink.created(numbered(path, number, force), force)

    def add(self, view: View, records: Sequence[Record]) -> None:
        for record in records:
            if record["type"] == INTERVAL:
                continue
            if self._array:
                self.stream.write("[\n" if self._first else ",\n")
            self.stream.write(json.dumps(record))
            if not self._array:
                self.stream.write("\n")
            self._first = False
        self.stream.flush()

    def close(self) -> None:
        if self._array and not self._first:
            self.stream.write("\n]\n")
        super().close()


class IntervalLog(Output):
    """An HdrHistogram interval log of what the views have histograms of, interval by interval."""

    def __init__(self, stream: Sink) -> None:
        self.stream = stream

    def begin(self, source: Source, views: Sequence[View], number: int) -> None:
        self._offset_ns = source.wall_offset_ns
        self._log = hdr_log.Writer(self.stream, (source.begin_ns + self._offset_ns) / 1e9)

    def add(self, view: View, records: Sequence[Record]) -> None:
        for record in records:
            found = view.of_interval(record)
            if found is None:
                continue
            begin_ns = found.begin_ns + self._offset_ns
            times = begin_ns / 1e9, (begin_ns + found.length_ns) / 1e9
            for tag, histogram in found.histograms:
                self._log.write(tag, *times, histogram)


class Percentiles(Output):
    """The percentile distributions of what the views have histograms of, at the very end."""

    def __init__(self, stream: Sink) -> None:
        self.stream = stream
        self._named: dict[str, Histogram] = {}
        self._before = ""

    def begin(self, source: Source, views: Sequence[View], number: int) -> None:
        self._before = f"program_{number}." if number > 1 else ""

    def end(self, source: Source, views: Sequence[View]) -> None:
        for view in views:
            self._named |= {f"{self._before}{name}": histogram for name, histogram in view.histograms().items()}

    def close(self) -> None:
        hgrm.write(self.stream, self._named)
        super().close()


class Tracebacks(Output):
    """Dumps of goroutines as the runtime prints them."""

    def __init__(self, stream: Sink) -> None:
        self.stream = stream
        self._between = ""

    def add(self, view: View, records: Sequence[Record]) -> None:
        from gotrace.export.goroutine_text import blocks

        for record in records:
            self.stream.write(self._between + "\n".join(blocks(record)))
            self._between = "\n"
        self.stream.flush()


class Drawn(Output):
    """What the first view draws, in a format of its module, written at the end of each program."""

    def __init__(self, path: str, format_: str, force: bool) -> None:
        self.stream = Sink(io.StringIO(), path)
        self._path, self._format, self._force = path, format_, force

    def begin(self, source: Source, views: Sequence[View], number: int) -> None:
        self._number = number

    def end(self, source: Source, views: Sequence[View]) -> None:
        module = importlib.import_module(f"gotrace.export.{views[0].drawn_by}")
        with self._created() as file:
            module.write(views[0].drawing(), source.name, self._format, file)

    def _created(self) -> AbstractContextManager[BinaryIO]:
        return created(numbered(self._path, self._number, self._force), self._force)


class Flames(Drawn):
    """The flame graph of the first view, in one of `export.formats.FLAMES`, written at the end of each program."""

    def end(self, source: Source, views: Sequence[View]) -> None:
        from gotrace.run.flames import write_flames

        found = views[0].flame()
        if found is not None:
            with self._created() as file:
                write_flames([found], file, self._format)


class Page(Output):
    """A page of charts for each program, which is written at its end."""

    def __init__(self, path: str, force: bool) -> None:
        self.stream = Sink(io.StringIO(), path)
        self._path = path
        self._force = force

    def begin(self, source: Source, views: Sequence[View], number: int) -> None:
        self._number = number
        self._records: list[Record] = []

    def add(self, view: View, records: Sequence[Record]) -> None:
        self._records += [each for each in records if view.drawn is None or each["type"] in view.drawn]

    def end(self, source: Source, views: Sequence[View]) -> None:
        self.stream = Sink.created(numbered(self._path, self._number, self._force), self._force)
        self.stream.write(page_of(source, views, self._records))
        self.stream.close()


def page_of(source: Source, views: Sequence[View], records: Sequence[Record]) -> str:
    """The page of a program's views, which have ended."""
    from gotrace.views.gc import Gc

    for view in views:
        if isinstance(view, Gc) and view.course is not None:
            from gotrace.export.gc_page import Run
            from gotrace.export.gc_page import page as page_of_pauses

            unexplained = view.explainer.without_evidence if view.explainer is not None else None
            whole = (view.total, view.course, view.reasons, unexplained, view.assisted, view.advice)
            run = Run(source.header, records, *whole)
            return page_of_pauses(source.name, run)
    drawn_by = importlib.import_module(f"gotrace.export.{views[0].drawn_by}")
    drawing = views[0].drawing()
    return str(drawn_by.page(source.name, records if drawing is None else drawing))

"""Where the results of a command go, from its options, and the commands' common run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from gotrace.cli.options import say
from gotrace.cli.text.table import Table, TableTogether
from gotrace.errors import UsageError
from gotrace.export.formats import FLAMES, ending_of
from gotrace.run.files import Sink, check_distinct, check_files, complain_of, of_process
from gotrace.run.outputs import Drawn, Flames, IntervalLog, Json, Output, Page, Percentiles, Tracebacks, feed
from gotrace.run.sources import programs
from gotrace.run.target import watched
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.kernel.pmu import PmuEvent
    from gotrace.views.view import View


# What only one format needs, megabytes of memory each. With one left out here there is less of that, no more.
_LARGE = {
    "gotrace.run.recorder": "gotrace",
    "gotrace.export.memory_page.draw": "html",
    "gotrace.export.gc_page": "html",
}


@dataclass(frozen=True)
class Wanted:
    """What a command writes: ``files`` as (path, format), and to the screen in the format ``screen``, if not "".

    ``flames``: pages and pictures are flame graphs.
    """

    files: tuple[tuple[str, str], ...]
    screen: str
    force: bool
    flames: bool = False

    @property
    def formats(self) -> set[str]:
        """All of them."""
        return {*(format_ for _, format_ in self.files), *([self.screen] if self.screen else [])}

    @property
    def recording(self) -> str | None:
        """The path of the recording among the files."""
        return next((path for path, format_ in self.files if format_ == "gotrace"), None)

    @property
    def unused(self) -> set[str]:
        """Modules that are for other formats alone, and large."""
        return {module for module, format_ in _LARGE.items() if format_ not in self.formats}

    @contextlib.contextmanager
    def opened(self, screen: TextIO | None = None, each: bool = False) -> Iterator[Sequence[Output]]:
        """Every output but the recording, created; on the way out they are closed, and what failed is raised.

        A table goes to ``screen`` (standard output). With ``each`` every program that is traced has ndjson of its own.
        """
        outputs: list[Output] = []
        try:
            if self.screen:
                outputs.append(Table(Sink.screen(screen or sys.stdout)))
            outputs += [self._output(path, format_, each) for path, format_ in self.files if format_ != "gotrace"]
            yield outputs
        finally:
            for output in outputs:
                output.close()
        for output in outputs:
            complain_of(output.stream)

    @contextlib.contextmanager
    def together(self) -> Iterator[Together]:
        """The outputs of several processes: a table, ndjson and JSON are of all of them; they are closed as in `opened`."""
        outputs: list[Output] = [TableTogether(Sink.screen(sys.stdout))] if self.screen else []
        own = []
        try:
            for path, format_ in self.files:
                if format_ == "table":
                    outputs.append(TableTogether(Sink.created(path, self.force)))
                elif format_ in ("ndjson", "json"):
                    outputs.append(self._output(path, format_, False))
                elif format_ != "gotrace":
                    own.append((path, format_))
            yield Together(self, outputs, own)
        finally:
            for output in outputs:
                output.close()
        for output in outputs:
            complain_of(output.stream)

    def _output(self, path: str, format_: str, each: bool) -> Output:
        if self.flames and format_ in FLAMES:
            return Flames(path, format_, self.force)
        if format_ in ("svg", "parquet", "csv"):
            return Drawn(path, format_, self.force)
        if format_ == "html":
            return Page(path, self.force)
        stream = Sink.created(path, self.force)
        if format_ == "ndjson":
            return Json(stream, each=(path, self.force) if each else None)
        if format_ == "json":
            return Json(stream, array=True)
        return {"table": Table, "hlog": IntervalLog, "hgrm": Percentiles, "text": Tracebacks}[format_](stream)

    @contextlib.contextmanager
    def streams(self, whole: bool = True) -> Iterator[Sequence[tuple[Sink, str]]]:
        """The screen and every file, created, each with its format: for text.

        They are closed as in `opened`. What is written at once is to be ``whole``: a file that is not does not stay.
        """
        streams: list[tuple[Sink, str]] = []
        try:
            for path, format_ in (*([("-", self.screen)] if self.screen else []), *self.files):
                streams.append((Sink.created(path, self.force), format_))
            yield streams
        finally:
            for sink, _ in streams:
                sink.close(whole)
        for sink, _ in streams:
            complain_of(sink, intact=not whole)


class Together:
    """The outputs of several processes, as `gotrace.run.together.Files` has them."""

    def __init__(self, wanted: Wanted, shared: Sequence[Output], own: Sequence[tuple[str, str]]) -> None:
        self.recording, self.force = wanted.recording, wanted.force
        self._wanted, self._shared, self._own = wanted, shared, own

    @contextlib.contextmanager
    def of_process(self, pid: int) -> Iterator[Sequence[Output]]:
        own: list[Output] = []
        try:
            for path, format_ in self._own:
                own.append(self._wanted._output(of_process(path, pid), format_, False))
            yield [*self._shared, *own]
        finally:
            for output in own:
                output.close()
        for output in own:
            complain_of(output.stream)

    def failed(self) -> bool:
        return any(output.stream.failure is not None for output in self._shared)


def wanted(
    paths: Sequence[str],
    format_: str | None,
    formats: dict[str, tuple[str, ...]],
    force: bool,
    screen: str = "",
    also: Sequence[tuple[str | None, str]] = (),
    inputs: Sequence[str | None] = (),
) -> Wanted:
    """What ``-o`` and ``--format`` ask for; raises before anything is traced what creating the files would raise.

    The ending of a file tells its format; ``format_`` is that of "-" and of files whose ending says nothing. If there are
    none such, it is that of standard output, for a command that prints something by default: ``screen`` is the format of
    that. ``also`` are more files, whatever their ending; ``inputs`` are never overwritten.
    """
    check_distinct([*paths, *(path for path, _ in also)], inputs)
    files: list[tuple[str, str]] = []
    only = next(iter(formats)) if len(formats) == 1 else ""
    used = False
    for path in paths:
        by_name = None if path == "-" else ending_of(path, formats)
        if by_name is None:
            used = True
            by_name = format_ or ((screen or only) if path == "-" else "")
        if not by_name:
            known = ", ".join(ending for endings in formats.values() for ending in endings)
            name = "standard output" if path == "-" else f'"{printable(path)}"'
            raise UsageError(f"cannot infer the format from {name}", f"give --format, or one of these extensions: {known}")
        files.append((path, by_name))
    if format_ and screen and not used:
        used = True
        files.append(("-", format_))
    files += [(path, kind) for path, kind in also if path is not None]
    if format_ and not used and any(kind != format_ for _, kind in files):
        raise UsageError(f"--format {format_} contradicts the extension of {printable(files[0][0])}", "omit --format")
    if len([path for path, _ in files if path == "-"]) > 1:
        raise UsageError("two outputs both go to standard output", "write one of them to a file")
    if len([path for path, kind in files if kind == "gotrace"]) > 1:
        raise UsageError("only one recording can be written at a time", "make one and copy it")
    check_files([path for path, _ in files], force)
    on_screen = "" if any(path == "-" for path, _ in files) else screen
    return Wanted(tuple(files), on_screen, force, flames=FLAMES.keys() <= formats.keys())


def watch(
    pid: int,
    views: Sequence[View],
    duration: int | None,
    wanted: Wanted,
    counters: Sequence[PmuEvent] = (),
) -> None:
    """Put ``views`` to a process, and print their records of each program that it executes.

    ``duration`` in nanoseconds (None: until Ctrl-C or its end); ``counters`` as in `session.opened`.
    """
    stems = list(dict.fromkeys(stem for view in views for stem in view.stems))
    calibrated = wanted.recording is not None or any(view.tells_cost for view in views)
    with watched(stems, pid, (), duration, say, counters, calibrated) as target, wanted.opened(each=True) as outputs:
        for number, live, own in programs(target, views, wanted.recording, wanted.force):
            feed(live, own, outputs, number)


def announce(written: Sequence[str]) -> None:
    """Say which files were written, and how large they are."""
    from gotrace.text import bytes_text

    for path in dict.fromkeys(written):
        with contextlib.suppress(OSError):
            about = os.stat(path)
            say(f"wrote {printable(path)}" + (f" ({bytes_text(about.st_size)})" if about.st_size else ""))

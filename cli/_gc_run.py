"""The running part of `gotrace gc`: the loop from events to outputs. Imported once the probes are in place."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from gotrace.analysis.gc_summary import GcSummary
from gotrace.analysis.pauses import Batch
from gotrace.cli._gc_table import Table
from gotrace.errors import GotraceError
from gotrace.export import gc_json, hdr_log, hgrm
from gotrace.probes.gc import decoder
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.kernel.launch import Launched
    from gotrace.session import Session

# How long events may wait in the ring. It holds 16 384 of them; a program that collects 1 000 times a second makes 600
# in this time, so a reader that is held up for seconds still loses nothing.
POLL_NS = 100_000_000

Record = dict[str, Any]


def import_the_rest() -> None:
    """Load what is otherwise loaded when it is first needed."""
    import rich.box
    import rich.console
    import rich.table
    import rich.text  # noqa: F401


class Sink:
    """A text stream that remembers its failure instead of raising it: what was measured must not go with a full disk."""

    def __init__(self, file: TextIO, name: str) -> None:
        self.file = file
        self.name = name
        self.failure: OSError | None = None

    def write(self, text: str) -> None:
        if self.failure is None:
            try:
                self.file.write(text)
            except OSError as error:
                self.failure = error

    def flush(self) -> None:
        if self.failure is None:
            try:
                self.file.flush()
            except OSError as error:
                self.failure = error

    def isatty(self) -> bool:
        return self.file.isatty()

    def close(self) -> None:
        self.flush()
        with contextlib.suppress(OSError):
            self.file.close()


class JsonOutput:
    """Records as lines (ndjson) or as one array (json); every batch is flushed."""

    def __init__(self, file: Sink, array: bool) -> None:
        self._file = file
        self._array = array
        self._first = True

    def write(self, records: list[Record]) -> None:
        for record in records:
            if self._array:
                self._file.write("[\n" if self._first else ",\n")
            self._file.write(json.dumps(record))
            if not self._array:
                self._file.write("\n")
            self._first = False
        self._file.flush()

    def close(self) -> None:
        if self._array and not self._first:
            self._file.write("\n]\n")
            self._file.flush()


class Outputs:
    """Where the results go: the table and JSON streams, the interval log, the percentile file."""

    def __init__(self, sinks: list[Sink], json_output: JsonOutput | None, table: Table | None) -> None:
        self.sinks = sinks
        self.json = json_output
        self.table = table
        self.hlog: Sink | None = None
        self.hgrm: Sink | None = None

    def failed(self) -> Sink | None:
        """The first stream that could not be written."""
        return next((sink for sink in self.sinks if sink.failure is not None), None)

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, format_: str | None, output: str | None, hlog: str | None, hgrm: str | None, force: bool, screen: TextIO
    ) -> Iterator[Outputs]:
        """Create every file (never over an existing one without ``force``) and close them at the end.

        The table goes to ``screen`` unless it was asked for in a file.
        """
        with contextlib.ExitStack() as stack:
            sinks: list[Sink] = []

            def sink(file: TextIO, name: str) -> Sink:
                sinks.append(Sink(file, name))
                return sinks[-1]

            def create(path: str | None) -> Sink | None:
                if path is None:
                    return None
                if path == "-":
                    return sink(sys.stdout, "standard output")
                made = sink(_created(path, force), path)
                stack.callback(made.close)
                return made

            file = create(output)
            if format_ is None:
                extension = os.path.splitext(output or "")[1]
                format_ = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json"}.get(extension, "table")
            json_output = None
            if format_ != "table":
                json_output = JsonOutput(file or sink(sys.stdout, "standard output"), array=format_ == "json")
                stack.callback(json_output.close)
            table = None
            if format_ == "table":
                table = Table(file or sink(screen, "the terminal"))
            elif file is not None and output != "-":
                table = Table(sink(screen, "the terminal"))
            outputs = cls(sinks, json_output, table)
            outputs.hlog, outputs.hgrm = create(hlog), create(hgrm)
            yield outputs


def _created(path: str, force: bool) -> TextIO:
    try:
        return open(path, "w" if force else "x", encoding="utf-8")
    except FileExistsError:
        raise GotraceError(f"{printable(path)} exists", "choose another name, or overwrite it with --force") from None
    except OSError as error:
        raise GotraceError(
            f"cannot write {printable(path)}: {error.strerror}", "choose a folder that exists and you may write to"
        ) from None


class Stop(Protocol):
    """Whether the user has asked to stop, and by what."""

    signal: str | None


def trace(
    session: Session,
    outputs: Outputs,
    stop: Stop,
    duration: int | None,
    interval: int,
    min_pause: int,
    launched: Launched | None,
) -> int:
    """Trace until the end, print the summary, and return the command's exit status. Times in nanoseconds."""
    run = _Run(session, outputs, min_pause)
    begin = time.monotonic_ns()
    tick = begin
    run.start()
    ended = ""
    try:
        while not ended:
            now = time.monotonic_ns()
            until = min(now + POLL_NS, tick + interval, begin + duration if duration else now + POLL_NS)
            exited = session.wait(max(0, until - now) / 1e9)
            now = time.monotonic_ns()
            if exited:
                ended = "target exited"
            elif session.process.exec_changed():
                ended = "target executed another program"
            elif stop.signal:
                ended = stop.signal
            elif duration and now >= begin + duration:
                ended = "duration"
            elif outputs.failed():
                ended = "an output that cannot be written"
            run.read()
            if now >= tick + interval or ended:
                run.end_interval(now - tick)
                tick = now
    finally:
        run.finish(time.monotonic_ns() - begin, ended or "error")
    failed = outputs.failed()
    if failed is not None and failed.failure is not None and not isinstance(failed.failure, BrokenPipeError):
        reason = f"cannot write {printable(failed.name)}: {failed.failure.strerror}"
        raise GotraceError(reason, "make room, or write elsewhere; what was written before is whole")
    if launched is not None:
        ended_by_us = launched.poll() is None or stop.signal is not None
        launched.terminate()
        return 0 if ended_by_us else launched.exit_code()
    return 0


class _Run:
    """The state of one run: what has been added up so far."""

    def __init__(self, session: Session, outputs: Outputs, min_pause: int) -> None:
        self.session = session
        self.outputs = outputs
        self.min_pause = min_pause
        self.wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self.decoder = decoder(session)
        self.total = GcSummary()
        self.interval = GcSummary()
        self.log = hdr_log.Writer(outputs.hlog, time.time()) if outputs.hlog else None

    def start(self) -> None:
        session, plan = self.session, self.session.plan
        now = time.monotonic_ns()
        if self.outputs.json:
            probes = [
                {
                    "name": point.name,
                    "symbol": point.symbol,
                    "address": f"{point.address:#x}",
                    "instruction": point.instruction,
                    "emulated": point.emulated,
                }
                for point in plan.points
            ]
            record = {
                "type": "start",
                "schema": gc_json.SCHEMA_VERSION,
                "pid": session.process.pid,
                "exe": printable(session.process.exe_name),
                "go_version": plan.go_version,
                "arch": plan.arch,
                "stripped": plan.stripped,
                "pie": plan.pie,
                "monotonic_ns": now,
                "time": gc_json.wall_time(now, self.wall_offset_ns),
                "probes": probes,
                "missing": [asdict(item) for item in plan.missing],
            }
            self.outputs.json.write([record])
        if self.outputs.table:
            self.outputs.table.start()

    def read(self) -> None:
        events = self.session.read()
        batch = self.decoder.feed(events)
        self.total.add(batch, self.decoder.reasons)
        self.interval.add(batch, self.decoder.reasons)
        if self.outputs.json:
            shown = Batch(batch.pauses[batch.pauses["total_ns"] >= self.min_pause], batch.cycles, batch.sweeps)
            records = [*gc_json.pause_records(shown, self.decoder.reasons, self.wall_offset_ns)]
            self.outputs.json.write([*records, *gc_json.cycle_records(shown, self.wall_offset_ns)])

    @property
    def lost(self) -> int:
        return self.session.lost + self.decoder.incomplete

    def end_interval(self, length_ns: int) -> None:
        if self.outputs.table:
            self.outputs.table.interval(self.interval, length_ns, self.lost)
        if self.log:
            end = time.time()
            begin = end - length_ns / 1e9
            # Readers that are given no tag read the line without one: every pause, whatever its reason.
            self.log.write(None, begin, end, self.interval.all_pauses())
            for reason, parts in self.interval.pauses.items():
                for part, histogram in parts.items():
                    if histogram.count or histogram.out_of_range:
                        self.log.write(hdr_log.tag(reason, part), begin, end, histogram)
        self.interval = GcSummary()

    def finish(self, duration_ns: int, ended: str) -> None:
        session = self.session
        about: Record = {
            "duration_ns": duration_ns,
            "ended": ended,
            "events": {"received": session.ring.received, "lost": self.lost},
            "cost": asdict(session.cost()),
            "attach_ns": session.attach_ns,
        }
        if self.outputs.json:
            self.outputs.json.write([gc_json.summary_record(self.total, about)])
        if self.outputs.hgrm:
            named = {hdr_log.tag(reason, part): histogram for reason, part, histogram in self.total.rows() if part}
            hgrm.write(self.outputs.hgrm, {"all_pauses.total": self.total.all_pauses(), **named})
        if self.outputs.table:
            self.outputs.table.summary(self.total, about, session.plan)

"""From GC events to outputs, for a live session and for a recording alike. Imported once the probes are in place."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import numpy as np

from gotrace.analysis.gc_summary import GcSummary
from gotrace.analysis.pauses import Array, Batch
from gotrace.analysis.stacks import Frame, no_frames
from gotrace.cli._gc_table import Table
from gotrace.cli._target import cannot_write, exists_already
from gotrace.errors import GotraceError
from gotrace.export import gc_json, hdr_log, hgrm
from gotrace.probes import gc as gc_probe
from gotrace.probes import tail as tail_probe
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.cli._target import Traced
    from gotrace.session import Session

Record = dict[str, Any]


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
                made = sink(created(path, force), path)
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


def created(path: str, force: bool) -> TextIO:
    """A new text file. Raises GotraceError when there is one already, or it cannot be written."""
    try:
        return open(path, "w" if force else "x", encoding="utf-8")
    except FileExistsError:
        raise exists_already(path) from None
    except OSError as error:
        raise cannot_write(path, error) from None


def trace(
    traced: Traced,
    outputs: Outputs,
    duration: int | None,
    interval: int,
    min_pause: int,
    explained: int,
    record: str | None,
    force: bool,
) -> int:
    """Trace until the end, print the summary, and return the command's exit status. Times in nanoseconds."""
    session = traced.session
    with contextlib.ExitStack() as stack:
        recorder = None
        if record is not None:
            from gotrace.cli._recorder import Recorder

            recorder = stack.enter_context(Recorder.opened(record, force, traced))
        traced.release()
        header = session.header(traced.begin_ns)
        frames = traced.symbols.frames if traced.symbols else no_frames
        run = GcRun(header, session.static_text, frames, outputs, interval, min_pause, explained)
        if recorder is not None:
            recorder.begin(header)
        run.start()

        def failed() -> bool:
            return outputs.failed() is not None or (recorder is not None and recorder.failure is not None)

        ended = "error"
        try:
            for now, why in traced.polls(duration, interval, failed):
                ended = why or ended
                events = session.read()
                lost = session.lost
                if recorder is not None:
                    recorder.add(events, lost)
                run.feed(events, lost)
                run.advance(now)
        finally:
            end = closing(session, time.monotonic_ns() - traced.begin_ns, ended)
            if recorder is not None:
                recorder.end(end)
            run.finish(end)
    complain_of(outputs.failed() or recorder)
    return traced.exit_status()


def closing(session: Session, duration_ns: int, ended: str) -> Record:
    """How a run ended and what it cost: what the summary tells, and a recording keeps."""
    return {
        "duration_ns": duration_ns,
        "ended": ended,
        "received": session.ring.received,
        "lost": session.lost,
        "cost": dataclasses.asdict(session.cost()),
    }


class Failing(Protocol):
    """Something that was to be written, and what kept it from it."""

    name: str
    failure: OSError | None


def complain_of(failed: Failing | None) -> None:
    """Raise what kept an output from being written; a reader that went away is no error."""
    if failed is not None and failed.failure is not None and not isinstance(failed.failure, BrokenPipeError):
        reason = f"cannot write {printable(failed.name)}: {failed.failure.strerror}"
        raise GotraceError(reason, "make room, or write elsewhere; what was written before is whole")


# An event is in the ring this long after its time at the latest: an interval is closed only then, so that the same
# events are in it when it is cut out of a recording.
_GRACE_NS = 20_000_000


class GcRun:
    """One run of GC events, from the first to the summary; ``header`` is `Session.header`'s, live or recorded.

    An interval's line holds the events whose own time is in it. That makes a report of a recording print the very numbers
    that were printed live.
    """

    def __init__(
        self,
        header: Record,
        text: Callable[[int, int], str],
        frames: Callable[[Sequence[int]], Sequence[Frame]],
        outputs: Outputs,
        interval: int,
        min_pause: int,
        explained: int,
    ) -> None:
        self.header = header
        self.outputs = outputs
        self.min_pause = min_pause
        self.length = interval
        self.begin_ns = self.tick = int(header["clock"]["begin_ns"])
        self.wall_offset_ns = int(header["clock"]["wall_offset_ns"])
        self.decoder = gc_probe.decoder(header, text)
        self.explainer = tail_probe.explainer(header, frames, explained) if explained else None
        self.log = hdr_log.Writer(outputs.hlog, self._wall(self.begin_ns)) if outputs.hlog else None
        self.total = GcSummary()
        self.interval = self._new_interval()
        self.lost_events = 0

    def _wall(self, monotonic_ns: int) -> float:
        return (monotonic_ns + self.wall_offset_ns) / 1e9

    def _new_interval(self) -> GcSummary:
        return GcSummary(brief=self.log is None)

    def start(self) -> None:
        if self.outputs.json:
            self.outputs.json.write([gc_json.start_record(self.header)])
        if self.outputs.table:
            self.outputs.table.start()

    def feed(self, events: Array, lost: int) -> None:
        """Add events in the order of the ring; ``lost`` is how many had been lost by then."""
        if len(events):
            batch = self.decoder.feed(events)
            self.total.add(batch, self.decoder.reasons)
            self._by_interval(events, batch)
        self.lost_events = lost

    def _by_interval(self, events: Array, batch: Batch) -> None:
        """Everything is decoded at once, for that is much cheaper; an interval ends before the first event after it."""
        latest = np.maximum.accumulate(events["time_ns"])
        begin = 0
        while True:
            end = int(np.searchsorted(latest, np.uint64(self.tick + self.length)))
            self._add(events[begin:end], batch.part(begin, end))
            if end == len(events):
                return
            begin = end
            self._end_interval(self.length)

    def _add(self, events: Array, batch: Batch) -> None:
        if self.explainer is not None:
            self.explainer.feed(events, batch.pauses)
        self.interval.add(batch, self.decoder.reasons)
        if self.outputs.json:
            pauses = batch.pauses[batch.pauses["total_ns"] >= self.min_pause]
            shown = dataclasses.replace(batch, pauses=pauses)
            self.outputs.json.write(gc_json.batch_records(shown, self.decoder.reasons, self.wall_offset_ns))

    def advance(self, now_ns: int) -> None:
        """Close the intervals that ended before ``now_ns`` for certain."""
        while now_ns >= self.tick + self.length + _GRACE_NS:
            self._end_interval(self.length)

    @property
    def lost(self) -> int:
        return self.lost_events + self.decoder.incomplete

    def _end_interval(self, length_ns: int) -> None:
        begin, end = self._wall(self.tick), self._wall(self.tick + length_ns)
        if self.outputs.table:
            self.outputs.table.interval(self.interval, length_ns, self.lost, end)
        if self.log:
            # Readers that are given no tag read the line without one: every pause, whatever its reason.
            self.log.write(None, begin, end, self.interval.all_pauses())
            for reason, parts in self.interval.pauses.items():
                for part, histogram in parts.items():
                    if histogram.count or histogram.out_of_range:
                        self.log.write(hdr_log.tag(reason, part), begin, end, histogram)
        self.interval = self._new_interval()
        self.tick += length_ns

    def finish(self, end: Record) -> None:
        """Print the summary; ``end`` is what `closing` made."""
        end_ns = self.begin_ns + end["duration_ns"]
        self.advance(end_ns)
        if end_ns > self.tick:
            self._end_interval(end_ns - self.tick)
        about: Record = {
            "duration_ns": end["duration_ns"],
            "ended": end["ended"],
            "events": {"received": end["received"], "lost": end["lost"] + self.decoder.incomplete},
            "cost": end["cost"],
            "attach_ns": self.header["attach_ns"],
        }
        told = self.explainer.longest() if self.explainer is not None else []
        if self.outputs.json:
            if self.explainer is not None:
                explained = gc_json.explanation_records(told, self.explainer, self.decoder.reasons, self.wall_offset_ns)
                self.outputs.json.write([*explained])
            self.outputs.json.write([gc_json.summary_record(self.total, about)])
        if self.outputs.hgrm:
            named = {hdr_log.tag(reason, part): histogram for reason, part, histogram in self.total.rows() if part}
            hgrm.write(self.outputs.hgrm, {"all_pauses.total": self.total.all_pauses(), **named})
        if self.outputs.table:
            self.outputs.table.summary(self.total, about, self.header)
            if self.explainer is not None:
                self.outputs.table.explanations(told, self.explainer, self.decoder.reasons, self.wall_offset_ns)

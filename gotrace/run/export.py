"""A recording in the forms that other tools read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from gotrace.errors import GotraceError
from gotrace.export.formats import FLAMES
from gotrace.run.files import Sink, complain_of
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.export.events import Array, Events
    from gotrace.recording.reader import Chunk, Recording
    from gotrace.views.flame import Question

_HISTOGRAMS = frozenset({"hlog", "hgrm"})


def check(source: Recording, formats: Collection[str]) -> None:
    """Raises GotraceError, before anything is written, for what `write` cannot make of the recording; it is read for that.

    What shows only at the end remains: that there was no page fault, for example.
    """
    from gotrace.run.span_histograms import require_spans
    from gotrace.views import flame
    from gotrace.views.view import View, recorded

    header = source.header
    if not header["probes"]:
        path = printable(source.path)
        raise GotraceError(f"{path} has no events", f"gotrace report {path} -o FILE converts its contents")
    for format_ in formats:
        if _is_of_starts(source, format_) or _is_of_stacks(source, format_):
            continue
        if _is_of_views(source, format_):
            if format_ != "html" and all(type(view).histograms is View.histograms for view in recorded(header)):
                raise _no_durations(source)
        elif format_ in FLAMES:
            flame.require(source, _flame_question(source))
        elif format_ == "perfetto" and _is_of_a_scheduler(source):
            continue
        elif format_ == "perfetto" or (format_ in _HISTOGRAMS and "perf" not in header["probes"]):
            source.require("gc", "GC events")
    if "perf" in header["probes"] and not _HISTOGRAMS.isdisjoint(formats):
        require_spans(source)


def _is_of_starts(source: Recording, format_: str) -> bool:
    return "coldstart" in source.header["probes"] and format_ in ("svg", "html", "perfetto", "hlog")


def _is_of_views(source: Recording, format_: str) -> bool:
    return "views" in source.header and format_ in ("html", *_HISTOGRAMS)


def _is_of_stacks(source: Recording, format_: str) -> bool:
    """Whether its first view has stacks to draw."""
    from gotrace.views.view import View, recorded

    views = recorded(source.header) if "views" in source.header and format_ in FLAMES else []
    return bool(views) and type(views[0]).flame is not View.flame


def _is_of_a_scheduler(source: Recording) -> bool:
    from gotrace.export.sched_perfetto import STEMS

    probes = source.header["probes"]
    asked = "sched" in source.header.get("views", {})  # whose --explain needs the probe gc too
    return any(stem in probes for stem in STEMS) and (asked or "gc" not in probes)


T = TypeVar("T")


def write(source: Recording, file: BinaryIO, format_: str, interval: int) -> str:
    """Write the recording in one of `FORMATS` that `check` does not refuse; returns what there is to say.

    ``interval`` is in nanoseconds.
    """
    if _is_of_starts(source, format_):
        from gotrace.run import starts

        starts.write(starts.replayed(source), file, format_)
    elif _is_of_stacks(source, format_):
        return write_stacks(source, file, format_)
    elif _is_of_views(source, format_):
        write_views(source, file, format_)
    elif format_ in FLAMES:
        return write_flame(source, file, format_)
    elif format_ == "perfetto":
        write_perfetto(source, file)
    elif format_ not in _HISTOGRAMS:
        write_events(source, file, format_)
    elif "perf" in source.header["probes"]:
        from gotrace.run.span_histograms import write_histograms as write_spans

        write_spans(source, file, format_, interval)
    else:
        write_pauses(source, file, format_, interval)
    return ""


def a_chunk_behind(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Every chunk once the next one was read: what gives an event its meaning may have been written just after it."""
    held = None
    for chunk in chunks:
        if held is not None:
            yield held
        held = chunk
    if held is not None:
        yield held


def write_events(source: Recording, file: BinaryIO, format_: str) -> None:
    from gotrace.export.events import Events

    events = Events(source.header, source.text, source.frames)
    parts = (chunk.events for chunk in a_chunk_behind(source.chunks()))
    if format_ == "ndjson":
        file.writelines(events.lines(part).encode() for part in parts)
    elif format_ == "csv":
        file.write(events.head().encode())
        file.writelines(events.rows(part).encode() for part in parts)
    else:
        _write_parquet(events, parts, file)


def _write_parquet(events: Events, parts: Iterator[Array], file: BinaryIO) -> None:
    from arro3.core import RecordBatchReader
    from arro3.io import write_parquet

    kept = _Kept(file)
    schema, batches = events.schema(), kept.until_failure(events.batch(part) for part in parts)
    try:
        reader = RecordBatchReader.from_batches(schema, batches)
    except TypeError:  # before arro3 0.9, which is not for Python 3.10, all have to be there
        reader = RecordBatchReader.from_batches(schema, list(batches))
    write_parquet(reader, cast(BinaryIO, kept), compression="zstd(1)")
    if kept.failure is not None:
        raise kept.failure


class _Kept:
    """A file, and what is to go there, for arro3, which makes a panic or a mere text of an exception: keeps the first."""

    def __init__(self, file: BinaryIO) -> None:
        self.failure: BaseException | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        if self.failure is None:
            try:
                self._file.write(data)
            except BaseException as error:
                self.failure = error
        return len(data)

    def flush(self) -> None:
        """The file is flushed by whoever closes it."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Is asked for, and never called."""
        raise io.UnsupportedOperation("seek")

    def until_failure(self, items: Iterator[T]) -> Iterator[T]:
        try:
            for item in items:
                if self.failure is not None:
                    return
                yield item
        except BaseException as error:
            self.failure = error


def write_pauses(source: Recording, file: BinaryIO, format_: str, interval: int) -> None:
    """Histograms of the pauses: one for each interval, or of all."""
    from gotrace.run.outputs import IntervalLog, Percentiles, feed
    from gotrace.run.sources import Replayed
    from gotrace.views.gc import Gc

    source.require("gc", "GC events")
    stream = Sink(io.TextIOWrapper(file, "utf-8"), file.name, owned=True)
    output = IntervalLog(stream) if format_ == "hlog" else Percentiles(stream)
    feed(Replayed(source), [Gc(interval, singles=False, by_part=format_ == "hlog")], [output])
    output.close()
    complain_of(stream)


def write_perfetto(source: Recording, file: BinaryIO) -> None:
    from gotrace.export import perfetto, sched_perfetto
    from gotrace.probes.gc import decoder
    from gotrace.probes.sched import why

    trace: perfetto.Trace | sched_perfetto.Trace
    if _is_of_a_scheduler(source):
        trace = sched_perfetto.Trace(file, source.header, why)
    else:
        source.require("gc", "GC events")
        trace = perfetto.Trace(file, source.header, decoder(source.header, source.text))
    for chunk in source.chunks():
        trace.feed(chunk.events)


def write_views(source: Recording, file: BinaryIO, format_: str) -> None:
    """A page about memory or a scheduler, or how long page faults and the like took, the whole time in one interval."""
    from gotrace.export import hdr_log, hgrm
    from gotrace.run.outputs import page_of
    from gotrace.run.sources import Replayed
    from gotrace.views.view import recorded, records_of

    replayed, views = Replayed(source), recorded(source.header)
    records = [record for _, told in records_of(replayed, views) for record in told]
    text = io.TextIOWrapper(file, "utf-8", write_through=True)
    if format_ == "html":
        text.write(page_of(replayed, views, records))
    else:
        named = {name: histogram for view in views for name, histogram in view.histograms().items()}
        if not named:
            raise _no_durations(source)
        if format_ == "hgrm":
            hgrm.write(text, named)
        else:
            begin_s, end_s = ((ns + replayed.wall_offset_ns) / 1e9 for ns in (replayed.begin_ns, replayed.now_ns))
            log = hdr_log.Writer(text, begin_s)
            for name, histogram in named.items():
                log.write(name, begin_s, end_s, histogram)
    text.detach()


def _no_durations(source: Recording) -> GotraceError:
    return GotraceError(f"{printable(source.path)} has no durations", "record some, for example with gotrace mem --faults")


def _flame_question(source: Recording) -> Question:
    """All stacks of the first kind that was recorded: of time on the CPU, off it, or of what stops waited for."""
    from gotrace.views import flame

    probes = source.header["probes"]
    return flame.Question(next((mode for mode, stem in flame.PROBES.items() if stem in probes), flame.ON_CPU))


def write_stacks(source: Recording, file: BinaryIO, format_: str) -> str:
    """What the first view draws; returns what that is."""
    from gotrace.run.flames import write_flames
    from gotrace.run.sources import Replayed
    from gotrace.views.view import recorded, records_of

    views = recorded(source.header)
    for _ in records_of(Replayed(source), views):
        pass
    told = views[0].flame()
    if told is None:
        raise GotraceError(f"{printable(source.path)} has no stacks", "record for longer")
    write_flames([told], file, format_)
    return f"{told.title}: {told.summary()}"


def write_flame(source: Recording, file: BinaryIO, format_: str) -> str:
    """The stacks of `_flame_question`; returns what they are, and what was left out."""
    from gotrace.run.flames import write_flames
    from gotrace.views import flame

    told = flame.answer(lambda again=False: contextlib.nullcontext(source), _flame_question(source))
    write_flames([told], file, format_)
    return f"{told.title}: {told.summary()}"

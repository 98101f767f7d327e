"""The histograms of an imported recording: durations of what perf recorded with begin and end."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from gotrace.analysis.columns import Kinds
from gotrace.analysis.histogram import Histogram
from gotrace.analysis.spans import STOP, SpanHistograms
from gotrace.errors import GotraceError
from gotrace.export import hdr_log, hgrm
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.recording.reader import Recording


def write_histograms(source: Recording, file: BinaryIO, format_: str, interval: int) -> None:
    """One histogram a name (hgrm), or one an interval of ``interval`` ns and name (hlog), of the recording's spans.

    In hgrm the first, which plotters see, is that of stops of the world, else that of the longest time together.
    Raises GotraceError where there are none.
    """
    clock = source.header["clock"]
    begin_ns, wall_offset_ns = int(clock["begin_ns"]), int(clock["wall_offset_ns"])
    kinds = Kinds.of_probe(source.header, "perf")
    spans = SpanHistograms(kinds, source.text_of, begin_ns, interval if format_ == "hlog" else 0)
    text = io.TextIOWrapper(file, "utf-8", write_through=True)
    log = None
    total: dict[str, Histogram] = {}
    for at, named in _intervals(source, spans):
        if format_ == "hgrm":
            total = named
            continue
        if log is None:
            log = hdr_log.Writer(text, (begin_ns + wall_offset_ns) / 1e9)
        start_ns = begin_ns + wall_offset_ns + at * interval
        for name in sorted(named):
            log.write(hdr_log.tag(name), start_ns / 1e9, (start_ns + interval) / 1e9, named[name])
    if log is None and not total:
        raise _no_durations(source)
    if total:
        ordered = sorted(total, key=lambda name: (name != STOP, -total[name].sum, name))
        hgrm.write(text, {hdr_log.tag(name): total[name] for name in ordered})
    text.detach()


def require_spans(source: Recording) -> None:
    """Raises GotraceError where there are no durations. The recording is read up to the first."""
    kinds = Kinds.of_probe(source.header, "perf")
    if not any(len(kinds.of(chunk.events, "span")) for chunk in source.chunks()):
        raise _no_durations(source)


def _no_durations(source: Recording) -> GotraceError:
    return GotraceError(
        f"{printable(source.path)} has no durations",
        "record events with a begin and an end: -e sched:sched_switch, -e 'raw_syscalls:*', or uprobes",
    )


def _intervals(source: Recording, spans: SpanHistograms) -> Iterator[tuple[int, dict[str, Histogram]]]:
    for chunk in source.chunks():
        yield from spans.feed(chunk.events)
    yield from spans.finish()

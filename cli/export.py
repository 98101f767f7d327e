"""`gotrace export`: a recording in the form that some other tool reads."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from gotrace.cli._target import Duration, cannot_write, check_files, exists_already
from gotrace.errors import GotraceError, UsageError
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.recording.reader import Chunk, Recording

# Of each format, what its files end in.
FLAMES = {
    "svg": (".svg",),
    "html": (".html", ".htm"),
    "folded": (".folded", ".txt"),
    "pprof": (".pb.gz", ".pprof"),
    "speedscope": (".speedscope.json",),
}
FORMATS = {
    "ndjson": (".ndjson", ".jsonl"),
    "csv": (".csv",),
    "parquet": (".parquet",),
    "hlog": (".hlog",),
    "hgrm": (".hgrm",),
    "perfetto": (".perfetto", ".pftrace", ".perfetto-trace"),
    **FLAMES,
}


@click.command("export")
@click.argument("recording", type=click.Path(), metavar="RECORDING")
@click.option("-o", "--output", type=click.Path(), required=True, metavar="FILE", help="Write there (-: standard output).")
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), help="[default: what FILE ends in]")
@click.option("-i", "--interval", type=Duration(), default="1s", show_default=True, help="hlog: length of an interval.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
def command(recording: str, output: str, format_: str | None, interval: int, force: bool) -> int:
    """Write RECORDING in a format that other tools read.

    \b
    ndjson, csv, parquet   every event, with named columns, stacks as text
    hlog, hgrm             histograms of the pauses
    perfetto               a timeline for ui.perfetto.dev: pauses, GC phases, threads, Ps, heap
    svg, html, folded, pprof, speedscope
                           the stacks in it, as `gotrace flame` writes them
    svg, html, perfetto, hlog
                           of starts: as `gotrace coldstart` writes them
    html, hlog, hgrm       of memory: a page as `gotrace mem`, `tlb` and `numa` write it, how long page faults took
    """
    if interval == 0:
        raise UsageError("--interval must be longer than nothing", "write 1s or 500ms")
    chosen = format_ or format_of(output, FORMATS)
    check_files((output, recording), force=True)
    check_files((output,), force)
    from gotrace.recording.reader import Recording

    with Recording.open(recording) as source, created(output, force) as file:
        write(source, file, chosen, interval)
    if source.lost:
        print(f"gotrace: {source.lost} events were lost when this was recorded", file=sys.stderr)
    return 0


def write(source: Recording, file: BinaryIO, format_: str, interval: int) -> None:
    """The recording, in one of `FORMATS`; ``interval`` is in nanoseconds."""
    if "coldstart" in source.header["probes"] and format_ in ("svg", "html", "perfetto", "hlog"):
        from gotrace.cli import _coldstart_run

        _coldstart_run.write(_coldstart_run.replayed(source), file, format_)
    elif "views" in source.header and format_ in ("html", "hlog", "hgrm"):
        write_views(source, file, format_)
    elif format_ in FLAMES:
        write_flame(source, file, format_)
    elif format_ == "perfetto":
        write_perfetto(source, file)
    elif format_ not in ("hlog", "hgrm"):
        write_events(source, file, format_)
    elif "perf" in source.header["probes"]:
        from gotrace.cli import _perf_histograms

        _perf_histograms.write_histograms(source, file, format_, interval)
    else:
        write_histograms(source, file, format_, interval)


def format_of(output: str, formats: dict[str, tuple[str, ...]]) -> str:
    """The format that a file's name asks for: the one whose ending is longest."""
    fitting = [(len(end), name) for name, endings in formats.items() for end in endings if output.lower().endswith(end)]
    if fitting:
        return max(fitting)[1]
    known = ", ".join(ending for endings in formats.values() for ending in endings)
    raise UsageError(f"what {printable(output)} is to hold cannot be told from its name", f"say --format, or use {known}")


@contextlib.contextmanager
def created(path: str, force: bool) -> Iterator[BinaryIO]:
    """A new file, or standard output; what cannot be written is said with the path."""
    try:
        with open(1, "wb", closefd=False) if path == "-" else open(path, "wb" if force else "xb") as file:
            yield file
    except FileExistsError:
        raise exists_already(path) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename not in (None, path):
            raise
        raise cannot_write(path, error) from None


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
    from gotrace.cli._replay import chunks
    from gotrace.export.events import Events

    events = Events(source.header, source.text, source.frames)
    parts = (chunk.events for chunk in a_chunk_behind(chunks(source)))
    if format_ == "ndjson":
        for part in parts:
            file.write(events.lines(part).encode())
        return
    # typed in some releases of pyarrow only
    csv, parquet = (importlib.import_module(f"pyarrow.{name}") for name in ("csv", "parquet"))
    schema, batch = events.schema(), events.batch
    writer: Any
    if format_ == "csv":
        schema, batch = events.text_schema(), events.text_batch
        writer = csv.CSVWriter(file, schema)
    else:
        writer = parquet.ParquetWriter(file, schema, compression="zstd")
    with writer:
        for part in parts:
            writer.write_batch(batch(part))


def write_histograms(source: Recording, file: BinaryIO, format_: str, interval: int) -> None:
    import io

    from gotrace.cli._gc_run import Outputs, Sink, complain_of
    from gotrace.cli._replay import replay

    sink = Sink(io.TextIOWrapper(file, "utf-8"), file.name)
    outputs = Outputs([sink], None, None)
    setattr(outputs, format_, sink)
    replay(source, outputs, interval)
    sink.close()
    complain_of(outputs.failed())


def write_perfetto(source: Recording, file: BinaryIO) -> None:
    from gotrace.cli._replay import check_probe, chunks
    from gotrace.export.perfetto import Trace
    from gotrace.probes.gc import decoder

    check_probe(source, "gc", "GC events")
    trace = Trace(file, source.header, decoder(source.header, source.text))
    for chunk in chunks(source):
        trace.feed(chunk.events)


def write_views(source: Recording, file: BinaryIO, format_: str) -> None:
    """A page about memory, or how long page faults and the like took, the whole time in one interval."""
    import io

    from gotrace.cli._views import recorded
    from gotrace.cli._watch import Replayed, records_of
    from gotrace.export import hdr_log, hgrm
    from gotrace.export.memory_page import page

    replayed, views = Replayed(source), recorded(source)
    records = [record for _, record in records_of(replayed, views)]
    text = io.TextIOWrapper(file, "utf-8", write_through=True)
    if format_ == "html":
        text.write(page(replayed.name, records))
    else:
        named = {name: histogram for view in views for name, histogram in view.histograms().items()}
        if not named:
            raise GotraceError(
                f"{printable(source.path)} has nothing that took time", "gotrace mem --faults has page faults"
            )
        if format_ == "hgrm":
            hgrm.write(text, named)
        else:
            begin_s, end_s = ((ns + replayed.wall_offset_ns) / 1e9 for ns in (replayed.begin_ns, replayed.now_ns))
            log = hdr_log.Writer(text, begin_s)
            for name, histogram in named.items():
                log.write(name, begin_s, end_s, histogram)
    text.detach()


def write_flame(source: Recording, file: BinaryIO, format_: str) -> None:
    """All stacks of the first kind that was recorded: of time on the CPU, off it, or of what stops waited for."""
    from gotrace.cli import _flame

    recorded = source.header["probes"]
    mode = next((mode for mode, stem in _flame.PROBES.items() if stem in recorded), _flame.ON_CPU)
    told = _flame.answer(lambda: contextlib.nullcontext(source), _flame.Question(mode))
    _flame.write([told], file, format_)

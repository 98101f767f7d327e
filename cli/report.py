"""`gotrace report`: what `gotrace gc` would have printed, from a recording."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from gotrace.cli._target import Duration, check_files
from gotrace.errors import GotraceError, UsageError
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.recording.reader import Chunk, Recording

# Smaller files are read before anybody looks.
_SHOW_PROGRESS_FROM = 32 << 20


@click.command("report")
@click.argument("recording", type=click.Path(), metavar="RECORDING")
@click.option("-i", "--interval", type=Duration(), default="1s", show_default=True, help="Length of a line.")
@click.option("--min-pause", type=Duration(), default="0", help="Write single pauses only from this length on (100us).")
@click.option("--explain", is_flag=True, help="Say what the longest pauses were waiting for.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many pauses to explain.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "ndjson", "json"]),
    help="What to print. [default: table, or what FILE of -o ends in]",
)
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Write there; the table is still printed.")
@click.option("--hlog", type=click.Path(), metavar="FILE", help="Write an HdrHistogram interval log.")
@click.option("--hgrm", type=click.Path(), metavar="FILE", help="Write HdrHistogram percentile distributions.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def command(
    recording: str,
    interval: int,
    min_pause: int,
    explain: bool,
    top: int,
    format_: str | None,
    output: str | None,
    hlog: str | None,
    hgrm: str | None,
    force: bool,
) -> int:
    """Print from RECORDING what `gotrace gc` printed when it was made, number for number."""
    if interval == 0:
        raise UsageError("--interval must be longer than nothing", "write 1s or 500ms")
    check_files((output, hlog, hgrm, recording), force=True)  # whatever --force says, not over the recording itself
    check_files((output, hlog, hgrm), force)
    from gotrace.cli._gc_run import GcRun, Outputs, complain_of
    from gotrace.recording import format as form
    from gotrace.recording.reader import Recording

    with Recording.open(recording) as source:
        if "gc" not in source.header["probes"]:
            raise GotraceError(f"{printable(recording)} has no GC events", "record with --probes gc")
        if explain and "tail" not in source.header["probes"]:
            raise GotraceError(f"{printable(recording)} has no evidence to explain pauses", "record with --probes gc,tail")
        texts: dict[int, str] = {}
        frames: dict[int, list[list[str]]] = {}
        lost = received = last_ns = 0
        with Outputs.opened(format_, output, hlog, hgrm, force, sys.stdout) as outputs:
            run = GcRun(
                source.header,
                lambda address, length: texts.get(address | length << 48, ""),
                lambda addresses: [frame[0] for address in addresses for frame in frames.get(address, [])],
                outputs,
                interval,
                min_pause,
                top if explain else 0,
            )
            run.start()
            for chunk in chunks(source):
                for note in chunk.notes:
                    if note.kind == form.TEXT:
                        texts[note.a] = note.data.decode("utf-8", "replace")
                    elif note.kind == form.FRAMES:
                        frames[note.a] = json.loads(note.data)
                    elif note.kind == form.LOSS:
                        lost = note.a
                received += len(chunk.events)
                if len(chunk.events):
                    last_ns = int(chunk.events["time_ns"].max())
                run.feed(chunk.events, lost)
                if outputs.failed():
                    break
            run.finish(source.end or cut_off(last_ns - run.begin_ns, received, lost))
        complain_of(outputs.failed())
    return 0


def cut_off(duration_ns: int, received: int, lost: int) -> dict[str, object]:
    """What stands for the end of a recording that has none: how it ended, and what it cost, is not known."""
    print("gotrace: the recording was cut off: this is all up to its last whole part", file=sys.stderr)
    cost = dict.fromkeys(("probe_hits", "target_ns_estimate", "tool_cpu_s", "tool_rss_bytes"), 0)
    return {
        "duration_ns": max(0, duration_ns),
        "ended": "recording cut off",
        "received": received,
        "lost": lost,
        "cost": cost,
    }


def chunks(source: Recording) -> Iterator[Chunk]:
    """Every chunk, with a progress bar where somebody may be waiting."""
    with contextlib.ExitStack() as stack:
        advance = None
        if source.size >= _SHOW_PROGRESS_FROM and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            bar = stack.enter_context(Progress(console=Console(file=sys.stderr), transient=True))
            task = bar.add_task("reading", total=source.size)
            advance = lambda: bar.update(task, completed=source.position)  # noqa: E731
        for chunk in source.chunks():
            yield chunk
            if advance is not None:
                advance()

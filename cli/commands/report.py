"""`gotrace report`: what the command that made a recording printed, from the recording."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING

import click

from gotrace.cli.options import Command, given, need, option, output_options, say
from gotrace.errors import GotraceError, UsageError
from gotrace.export.formats import (
    BUILDS,
    CALLS,
    FLAMES,
    GOROUTINES,
    GPU_MEMORY,
    PAUSES,
    PROFILES,
    REPORTS,
    SCHEDULES,
    STARTS,
    WATCHED,
)
from gotrace.text import count_text, printable

if TYPE_CHECKING:
    from gotrace.cli.outputs import Wanted
    from gotrace.export.formats import Formats
    from gotrace.recording.reader import Recording


@click.command(
    "report",
    cls=Command,
    topic="record",
    short_help="Print the report of a recording.",
    examples=[
        ("gotrace report run.gotrace --explain", "prints pauses and what the longest ones waited for"),
        ("gotrace report run.gotrace --format ndjson -o run.hlog", "prints JSON and writes histograms"),
    ],
)
@click.argument("recording", type=click.Path(), metavar="RECORDING")
@click.option(
    "--longest",
    is_flag=True,
    help="For a spool: list the longest pauses that `gotrace serve` kept, with the longest in full.",
)
@option("interval")
@option("min_pause")
@option("explain")
@click.option("--advise", is_flag=True, help="Suggest improvements, for pauses (with --explain) or starts.")
@click.option("--pauses", is_flag=True, help="Report the pauses of a recording that also holds something else.")
@option("top")
@output_options(REPORTS, screen=("table", "ndjson", "json"))
@click.option("--hlog", type=click.Path(), hidden=True)
@click.option("--hgrm", type=click.Path(), hidden=True)
def command(
    recording: str,
    longest: bool,
    interval: int,
    min_pause: int,
    explain: bool,
    advise: bool,
    pauses: bool,
    top: int,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    hlog: str | None,
    hgrm: str | None,
) -> int:
    """Print from RECORDING what the command that made it printed, number for number.

    Recordings are made by gc, coldstart, goroutines, sched, contention, mem, heap, tlb, numa, gpumem, datapath,
    record and baseline. With --longest, RECORDING is the spool directory of `gotrace serve --explain-above`.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text.progress import recording as opened

    also = ((hlog, "hlog"), (hgrm, "hgrm"))
    results = wanted(outputs, format_, REPORTS, force, screen="table", also=also, inputs=(recording,))
    if longest:
        return _report_spool(recording, results, min_pause, top)
    if os.path.isdir(recording):
        raise UsageError(f"{printable(recording)} is a directory", "for a spool, --longest shows the longest pauses")
    with opened(recording, bar=not sys.stdout.isatty()) as source:
        if "coldstart" in source.header["probes"]:
            _check(results, STARTS, "starts")
            _report_starts(source, results, advise)
        elif "build" in source.header:
            _check(results, BUILDS, "builds")
            _report_builds(source, results)
        elif "views" in source.header and not pauses:
            _report_views(source, results, top)
        else:
            explain = explain or advise
            need("--explain", explain, "top")
            _check(results, PAUSES)
            results, explained = dataclasses.replace(results, flames=False), top if explain else 0
            _report_pauses(source, results, interval, min_pause, explained, advise)
    return 0


def _report_spool(folder: str, results: Wanted, min_pause: int, top: int) -> int:
    from gotrace.cli.text.kept import write
    from gotrace.recording.reader import Recording
    from gotrace.run.kept import recordings_in, told

    if lacking := results.formats - {"table", "ndjson", "json"}:
        raise UsageError(f"the pauses of a spool cannot be written as {min(lacking)}", "write table, ndjson or json")
    if idle := given("interval", "explain", "advise", "pauses"):
        raise UsageError(f"{idle[0]} applies to a single recording", "omit it or --longest")
    found, damaged = [], 0
    for path in recordings_in(folder):
        try:
            with Recording.open(path) as source:
                pause = told(source)
        except (GotraceError, OSError):  # or it has just gone to make room
            damaged += os.path.exists(path)
            continue
        if pause is None:
            damaged += 1
        elif pause["length_ns"] >= min_pause:
            found.append(pause)
    found.sort(key=lambda each: -each["length_ns"])
    with results.streams() as streams:
        for stream, kind in streams:
            write(stream, kind, found, top)
    if damaged:
        say(f"{count_text(damaged, 'recording')} in it cannot be read")
    if found and results.screen == "table":
        with Recording.open(os.path.join(folder, found[0]["file"])) as source:
            _report_pauses(source, dataclasses.replace(results, files=()), 1_000_000_000, 0, 1)
    return 0


# What a recording's first view is: the formats of its report, and what it is about.
_OF_VIEW = {
    "goroutines": (GOROUTINES, "goroutines"),
    "gpumem": (GPU_MEMORY, "GPU memory"),
    "heap": (PROFILES, "a heap profile"),
    "heap_spans": (PROFILES, "allocations"),
    "contention": (PROFILES, "waiting"),
    "datapath": (CALLS, "calls on files"),
    "sched": (SCHEDULES, "a scheduler"),
}


def _check(results: Wanted, formats: Formats, topic: str = "", with_top: bool = False) -> None:
    """Raises UsageError for what has no meaning for a recording of this topic; "" are pauses. ``with_top``: --top has."""
    if lacking := results.formats - {*formats}:
        others = ", ".join(each for each in formats if each != "gotrace")
        raise UsageError(f"a report of {topic or 'pauses'} cannot be written as {min(lacking)}", f"write {others}")
    idle = given("interval", "min_pause", "explain", *(() if with_top else ("top",)))
    idle += given("advise") if topic != "starts" else []
    if topic and idle:
        raise UsageError(f"{idle[0]} applies to pauses, and this is a recording of {topic}", f"omit {idle[0]}")


def _report_pauses(
    source: Recording, results: Wanted, interval: int, min_pause: int, explained: int, advise: bool = False
) -> None:
    from gotrace.run.outputs import feed
    from gotrace.run.sources import PORTION, Replayed
    from gotrace.views.gc import Gc

    source.require("gc", "GC events")
    if explained:
        source.require("tail", "evidence to explain pauses")
    singles = bool(results.formats & {"ndjson", "json"})
    need("ndjson or json output", singles, "min_pause")
    view = Gc(
        interval,
        min_pause,
        explained,
        singles=singles,
        by_part="hlog" in results.formats,
        over_time="html" in results.formats,
        advise=advise,
    )
    # A pause is reported together with its evidence.
    replayed = Replayed(source, 1 if explained else PORTION)
    with results.opened() as outputs:
        feed(replayed, [view], outputs)


def _report_starts(source: Recording, results: Wanted, advise: bool) -> None:
    from gotrace.cli.text.coldstart import Shown, write
    from gotrace.run.starts import replayed

    write(replayed(source, advise), results, Shown(), sys.stdout)


def _report_builds(source: Recording, results: Wanted) -> None:
    from gotrace.cli.text.build import write
    from gotrace.cli.text.coldstart import Shown
    from gotrace.run.builds import replayed

    write(replayed(source), results, Shown(), sys.stdout)


def _report_views(source: Recording, results: Wanted, top: int) -> None:
    from gotrace.run.outputs import feed
    from gotrace.run.sources import Replayed
    from gotrace.views.view import recorded

    views = recorded(source.header)
    formats, topic = _OF_VIEW.get(next(iter(source.header["views"])), (WATCHED, "memory"))
    with_top = [view for view in views if "top" in view.options]
    _check(results, formats, topic, bool(with_top))
    for view in with_top if given("top") else ():
        view.top = top  # type: ignore[attr-defined]
    with dataclasses.replace(results, flames=FLAMES.keys() <= formats.keys()).opened() as outputs:
        feed(Replayed(source), views, outputs)

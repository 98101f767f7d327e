"""From cold-start events to starts, and from starts to outputs, for a live session and for a recording alike."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO

import numpy as np

from gotrace.analysis.start_summary import StartSummary, summary
from gotrace.analysis.timeline import Start
from gotrace.cli import _coldstart_table as table
from gotrace.cli.export import created
from gotrace.errors import GotraceError
from gotrace.export import coldstart_json, hdr_log
from gotrace.recording.reader import Recording
from gotrace.text import duration_text, printable

FORMATS = {
    "html": (".html", ".htm"),
    "svg": (".svg",),
    "perfetto": (".perfetto", ".pftrace", ".perfetto-trace"),
    "json": (".json",),
    "ndjson": (".ndjson", ".jsonl"),
    "hlog": (".hlog",),
    "gotrace": (".gotrace",),
}


@dataclass(frozen=True)
class Shown:
    """How the table is to be."""

    everything: bool = False
    longest_first: bool = False


@dataclass(frozen=True)
class Result:
    """Every start of a run; ``header`` is the session's, ``about`` how it ended (`about`)."""

    header: dict[str, Any]
    starts: Sequence[Start]
    about: dict[str, Any]

    @property
    def title(self) -> str:
        target = self.header["target"]
        return f"{printable(os.path.basename(target['exe']))} ({target['go_version']})"

    @property
    def wall_offset_ns(self) -> int:
        return int(self.header["clock"]["wall_offset_ns"])


def print_table(result: Result, file: TextIO, shown: Shown) -> None:
    """The waterfall of one start, or what many have in common."""
    starts = result.starts
    lines: Iterator[str]
    if len(starts) == 1:
        start = starts[0]
        print(
            f"\n{result.title}, pid {start.pid}: {duration_text(start.total_ns)} from execve to {printable(start.ended)}\n",
            file=file,
        )
        lines = table.one_start(start, shown.everything, shown.longest_first)
    else:
        ends = ", ".join(f"{count} to {printable(end)}" for end, count in _counted(start.ended for start in starts))
        print(f"\n{result.title}: {len(starts)} starts from execve ({ends})\n", file=file)
        lines = table.many_starts(starts, summary(starts), shown.everything)
    for line in lines:
        print(line, file=file)
    for line in table.ending(result.about):
        print(line, file=file)


def _counted(names: Iterator[str]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return sorted(found.items(), key=lambda item: -item[1])


def records(result: Result) -> Iterator[dict[str, Any]]:
    """The starts and their summary as JSON objects."""
    for number, start in enumerate(result.starts):
        yield coldstart_json.start_record(start, number, result.wall_offset_ns)
    found = summary(result.starts) if result.starts else StartSummary([], [], 0)
    yield coldstart_json.summary_record(found, result.about)


def print_json(result: Result, file: TextIO, format_: str) -> None:
    lines = [json.dumps(record) for record in records(result)]
    file.write("[\n" + ",\n".join(lines) + "\n]\n" if format_ == "json" else "".join(f"{line}\n" for line in lines))


def write(result: Result, file: BinaryIO, format_: str) -> None:
    """The starts in one of `FORMATS` but "gotrace", which is written while they happen."""
    import io

    if format_ == "perfetto":
        from gotrace.export.coldstart_perfetto import write_trace

        write_trace(file, result.starts, result.title, result.header["clock"])
        return
    text = io.StringIO()
    if format_ in ("json", "ndjson"):
        print_json(result, text, format_)
    elif format_ == "hlog":
        _write_log(result, text)
    else:
        from gotrace.export import waterfall_svg

        draw = waterfall_svg.html if format_ == "html" else waterfall_svg.svg
        text.write(draw(result.starts, result.title))
    file.write(text.getvalue().encode())


def _write_log(result: Result, file: TextIO) -> None:
    """One interval from the first start to the last, a tag for each stage and each part of it."""
    begin = (min(start.exec_ns for start in result.starts) + result.wall_offset_ns) / 1e9
    end = (max(start.exec_ns + start.total_ns for start in result.starts) + result.wall_offset_ns) / 1e9
    log = hdr_log.Writer(file, begin)
    for part in summary(result.starts).parts:
        tag = hdr_log.tag(part.stage, part.name) if part.stage else None
        log.write(tag, begin, end, part.histogram)


def write_all(result: Result, outputs: Sequence[tuple[str, str]], force: bool) -> None:
    """Each (path, format); a recording is left to who makes it."""
    for path, format_ in outputs:
        if format_ != "gotrace":
            with created(path, force) as file:
                write(result, file, format_)


def require_starts(starts: Sequence[Start], lacking: str) -> None:
    """Raises GotraceError where there is nothing to tell."""
    if not starts:
        raise GotraceError("no start was seen", lacking)


def replayed(source: Recording) -> Result:
    """Every start in a recording. Raises GotraceError when there is none."""
    from gotrace.cli._replay import check_probe, chunks, cut_off
    from gotrace.probes.coldstart import decoder

    check_probe(source, "coldstart", "cold starts")
    decoded = decoder(source.header)
    starts, received, last_ns = [], 0, 0
    for chunk in chunks(source):
        received += len(chunk.events)
        last_ns = int(chunk.events["time_ns"].max(initial=last_ns))
        starts += decoded.feed(chunk.events, last_ns)
    begin_ns = int(source.header["clock"]["begin_ns"])
    end: dict[str, Any] = source.end or cut_off(last_ns - begin_ns, received, source.lost)
    starts += decoded.close(begin_ns + end["duration_ns"])
    require_starts(starts, f"{printable(source.path)} was recorded while nothing started")
    begun = sorted(starts, key=lambda start: start.exec_ns)
    measured = source.header["coldstart"]
    begun = begun if measured["command"] else begun[: measured["runs"]]
    return Result(source.header, begun, about(end, begun, source.header))


def about(end: dict[str, Any], starts: Sequence[Start], header: dict[str, Any]) -> dict[str, Any]:
    """How a run ended (`closing`'s), with what tracing cost a start of it."""
    from gotrace.probes.coldstart import PROBE

    measured, probes = header["coldstart"], len(header["probes"]["coldstart"]["points"])
    hits, kernel_hits = (round(float(np.median([getattr(s, name) for s in starts]))) for name in ("hits", "kernel_hits"))
    per_start = {
        "probes": probes,
        "install_ns": round(measured["install_ns"] * probes),
        "hits": hits,
        "hits_ns": round(hits * measured["hit_ns"] + kernel_hits * PROBE.kernel_hit_ns),
    }
    return {**end, "starts": len(starts), "cost_per_start": per_start}

"""From cold-start events to starts, and from starts to files, for a live session as well as for a recording."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from gotrace.advice.finding import Advice, lines
from gotrace.analysis.coldstart import ITSELF, STARTING
from gotrace.analysis.start_summary import median, summaries
from gotrace.analysis.timeline import BEFORE, CONTAINER, PROGRAM, Row, Start, places
from gotrace.errors import GotraceError
from gotrace.export import hdr_log
from gotrace.records.advice import advice_record
from gotrace.records.starts import start_record, summary_record
from gotrace.run.sources import Replayed
from gotrace.text import duration_text, printable

if TYPE_CHECKING:
    from gotrace.analysis.containers import Starts
    from gotrace.recording.reader import Recording
    from gotrace.run.start_advice import Advisor


QUOTAS = "cpu_quotas"  # what a recording calls those of `start_advice.Advisor`
READY = "ready"  # tracing ended when whoever had started the program found it to be that


@dataclass(frozen=True)
class Result:
    """Every start of a run; ``header`` is the session's, ``about`` how it ended (`about`)."""

    header: dict[str, Any]
    starts: Sequence[Start]
    about: dict[str, Any]
    advice: Advice | None = None  # where it was asked for

    @property
    def title(self) -> str:
        target = self.header["target"]
        return f"{printable(os.path.basename(target['exe']))} ({target['go_version']})"

    @property
    def wall_offset_ns(self) -> int:
        return int(self.header["clock"]["wall_offset_ns"])


def records(result: Result) -> Iterator[dict[str, Any]]:
    """The starts and their summary as JSON objects."""
    for number, (start, place) in enumerate(zip(result.starts, places(result.starts), strict=True)):
        yield start_record(start, number, place, result.wall_offset_ns)
    yield {**summary_record(summaries(result.starts), result.about), **advice_record(result.advice)}


def write_json(result: Result, file: TextIO, format_: str) -> None:
    """The starts as lines (ndjson) or one array (json)."""
    lines = [json.dumps(record) for record in records(result)]
    file.write("[\n" + ",\n".join(lines) + "\n]\n" if format_ == "json" else "".join(f"{line}\n" for line in lines))


def write(result: Result, file: BinaryIO, format_: str) -> None:
    """The starts in one of `formats.STARTS`, except a table, and a recording, which is written while they happen."""
    import io

    if format_ == "perfetto":
        from gotrace.export.coldstart_perfetto import write_trace

        write_trace(file, result.starts, result.title, result.header["clock"])
        return
    text = io.StringIO()
    if format_ in ("json", "ndjson"):
        write_json(result, text, format_)
    elif format_ == "hlog":
        _write_log(result, text)
    else:
        from gotrace.export.waterfall import draw

        picture = draw.html if format_ == "html" else draw.svg
        told = list(lines(result.advice)) if result.advice is not None else []
        text.write(picture(result.starts, result.title, tuple(filter(None, [division(result), *told]))))
    file.write(text.getvalue().encode())


def _write_log(result: Result, file: TextIO) -> None:
    """One interval from the first start to the last, a tag for each stage and each part of it, by the place in a run."""
    begin = (min(start.exec_ns - start.asked_ns for start in result.starts) + result.wall_offset_ns) / 1e9
    end = (max(start.exec_ns + start.total_ns for start in result.starts) + result.wall_offset_ns) / 1e9
    log = hdr_log.Writer(file, begin)
    for place, those in enumerate(summaries(result.starts)):
        which = f"start {place + 1}, " if place else ""
        for part in those.parts:
            tag = hdr_log.tag(which + part.stage, part.name) if which or part.stage else None
            log.write(tag, begin, end, part.histogram)


def division(result: Result) -> str:
    """Where main.main takes the most time of all stages: the commands that divide it by code; else ""."""
    mains = [row for start in result.starts if (row := _longest(start)) is not None and row.stage == PROGRAM]
    if 2 * len(mains) < len(result.starts) or not mains:
        return ""
    blocked = sum(row.blocked_ns for row in mains) > sum(row.on_cpu_ns for row in mains)
    seconds = math.ceil(1.5e-9 * max(start.total_ns for start in result.starts))
    command = result.header["coldstart"]["command"] or [result.header["target"]["exe"]]
    record = f"gotrace record --probes profile,offcpu -d {seconds}s -o main.gotrace -- {printable(shlex.join(command))}"
    flame = f"gotrace flame main.gotrace {'--off-cpu ' if blocked else ''}-o main.svg"
    took = duration_text(median([row.duration_ns for row in mains]))
    return f"To break down main.main ({took}) by code: {record} && {flame}"


def _longest(start: Start) -> Row | None:
    stages = [row for row in start.rows if row.depth == 0 and row.stage not in (CONTAINER, BEFORE)]
    return max(stages, key=lambda row: row.duration_ns, default=None)


def result_of(header: dict[str, Any], starts: Sequence[Start], end: dict[str, Any], lacking: str) -> Result:
    """What was asked for of ``starts``, in the order of time; ``end`` is `closing`'s.

    Raises GotraceError, with ``lacking`` as its hint, if there are none.
    """
    begun = sorted(starts, key=lambda start: start.exec_ns)
    if end["ended"] == READY:
        begun = [replace(start, ended=READY) if start.ended == STARTING else start for start in begun]
    asked = header["coldstart"]
    begun = begun if asked["command"] else begun[: first_ones(begun, asked["runs"])]
    if not begun:
        raise GotraceError("no start was observed", lacking)
    return Result(header, begun, about(end, begun, header))


def first_ones(starts: Sequence[Start], wanted: int) -> int:
    """How many of ``starts``, in chronological order, are ``wanted`` ones: one that executed itself goes on in the next."""
    seen = 0
    for number, start in enumerate(starts):
        seen += start.ended != ITSELF
        if seen == wanted:
            return number + 1
    return len(starts)


def decoder_of(header: dict[str, Any]) -> Starts:
    """What makes starts of a session's events, with what was before them where containers were watched."""
    from gotrace.probes import coldstart, coldstart_containers

    starts = coldstart.decoder(header)
    watched = coldstart_containers.PROBE.stem in header["probes"]
    return coldstart_containers.decoder(header, starts) if watched else starts


def replayed(source: Recording, advise: bool = False) -> Result:
    """Every start in a recording. Raises GotraceError when there is none, or nothing to give advice by."""
    source.require("coldstart", "cold starts")
    if advise:
        source.require("startcode", "samples of the starts, which advice needs")
    decoded, replayed = decoder_of(source.header), Replayed(source, rows=1)
    advisor = _advisor_of(source) if advise else None
    starts = []
    for events in replayed.portions():
        starts += decoded.feed(events, replayed.now_ns)
        if advisor is not None:
            advisor.feed(events)
            quotas: list[tuple[int, float | None]] = replayed.ask(QUOTAS, list) or []
            advisor.quotas += [(begun_ns, cpus) for begun_ns, cpus in quotas]
    end = replayed.end
    starts += decoded.close(replayed.begin_ns + end["duration_ns"])
    lacking = f"{printable(source.path)} was not recorded while the program started"
    result = result_of(source.header, starts, end, lacking)
    if advisor is None:
        return result
    if not source.has_names:
        lacking = f"{printable(source.path)} has no function names: it was recorded by an earlier gotrace"
        raise GotraceError(lacking, "record it again: gotrace coldstart --advise -o FILE.gotrace -- COMMAND")
    return replace(result, advice=advisor.of(result.starts, end["lost"]))


def _advisor_of(source: Recording) -> Advisor:
    from gotrace.analysis.stacks import NOWHERE
    from gotrace.analysis.start_code import Collector
    from gotrace.probes.startcode import SAMPLE_NS
    from gotrace.run.start_advice import Advisor

    collector = Collector(source.header, lambda address: source.frames([address]) or [NOWHERE], source.frames, SAMPLE_NS)
    return Advisor(source.header, collector)


def about(end: dict[str, Any], starts: Sequence[Start], header: dict[str, Any]) -> dict[str, Any]:
    """How a run ended (`closing`'s), with what tracing cost a start of it."""
    from gotrace.probes.coldstart import PROBE

    measured, probes = header["coldstart"], len(header["probes"]["coldstart"]["points"])
    hits, kernel_hits = (round(median([getattr(start, name) for start in starts])) for name in ("hits", "kernel_hits"))
    per_start = {
        "probes": probes,
        "install_ns": round(measured["install_ns"] * probes),
        "hits": hits,
        "kernel_hits": kernel_hits,
        "hits_ns": round(hits * measured["hit_ns"] + kernel_hits * PROBE.kernel_hit_ns),
    }
    return {**end, "starts": len(starts), "cost_per_start": per_start}

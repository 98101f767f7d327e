"""Builds as timelines for https://ui.perfetto.dev: a process for each, with a track for each line of `bands`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from gotrace.analysis.builds.build import Build
from gotrace.analysis.builds.steps import Step
from gotrace.export.build_page.bands import CHAIN, ENTRIES, Bar, bands, is_waited_for, label
from gotrace.export.perfetto import TraceFile
from gotrace.text import printable

_TRACKS = 1 << 20  # of a build


def write_trace(file: BinaryIO, builds: Sequence[Build], title: str, clock: dict[str, Any]) -> None:
    """Every build at its own time; ``clock`` is that of `Session.header`."""
    trace = TraceFile(file, clock)
    for number, build in enumerate(builds):
        process = 1 + _TRACKS * number
        name = title if len(builds) == 1 else f"{title}, run {number + 1}"
        trace.describe(process, process={"pid": build.pid, "process_name": printable(name)})
        track = process + 1
        for band, bars in bands(build):
            count = 1 + max(bar.line for bar in bars)
            for line in range(count):
                name = band if count == 1 else f"{band} {line + 1}"
                trace.describe(track + line, name=name, parent_uuid=process)
                _slices(trace, track + line, build, band, [bar for bar in bars if bar.line == line])
            track += count
        for words, of in ENTRIES:
            if times := getattr(build, of):
                trace.describe(track, name=f"build cache: {words}", parent_uuid=process)
                for ns in times:
                    trace.mark(track, build.begin_ns + ns, words)
                track += 1


def _slices(trace: TraceFile, track: int, build: Build, band: str, bars: Sequence[Bar]) -> None:
    """Those of a line; what is deeper lies within what is open then."""
    open_until: list[int] = []
    for bar in bars:
        while len(open_until) > bar.depth:
            trace.end(track, build.begin_ns + open_until.pop())
        more = (
            _about(bar.step) if band == CHAIN else {**_about(bar.step), "waited_for": int(is_waited_for(build, bar.step))}
        )
        trace.begin(track, build.begin_ns + bar.step.begin_ns, printable(label(bar.step)), more)
        open_until.append(bar.step.end_ns)
    while open_until:
        trace.end(track, build.begin_ns + open_until.pop())


def _about(step: Step) -> dict[str, Any]:
    numbers = {"cpu_ns": step.cpu_ns, "runnable_ns": step.runnable_ns, "exit_code": step.status}
    return {"stage": step.stage, **{name: "?" if number is None else number for name, number in numbers.items()}}

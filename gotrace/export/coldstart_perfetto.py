"""Starts as a timeline for https://ui.perfetto.dev: a process for each, with stages, packages and init functions nested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from gotrace.analysis.timeline import EXEC, Place, Row, Start, places
from gotrace.export.perfetto import TraceFile
from gotrace.text import printable

_TRACKS = 3  # of each start: its process, its rows, its first collection


def write_trace(file: BinaryIO, starts: Sequence[Start], title: str, clock: dict[str, Any]) -> None:
    """Every start at its own time; ``clock`` is that of `Session.header`."""
    trace = TraceFile(file, clock)
    for number, (start, place) in enumerate(zip(starts, places(starts), strict=True)):
        process, rows, gc = (1 + _TRACKS * number + which for which in range(_TRACKS))
        name = title if len(starts) == 1 else f"{title}, start {number + 1}"
        trace.describe(process, process={"pid": start.pid, "process_name": printable(name)})
        trace.describe(rows, name="cold start", parent_uuid=process)
        begin = start.exec_ns
        for top in (row for row in start.rows if row.depth == 0):
            within = [row for row in start.rows if row.stage == top.stage and row.depth]
            _nest(trace, rows, begin, top, within, _of_start(start, place) if top.stage == EXEC else {})
        for when, what in ((start.listen_ns, "listen"), (start.ready_ns, "first accept")):
            if when is not None:
                trace.mark(rows, begin + when, what)
        if start.gc is not None:
            trace.describe(gc, name="GC", parent_uuid=process)
            end = start.gc.end_ns if start.gc.end_ns is not None else start.total_ns
            trace.slice(gc, begin + start.gc.begin_ns, begin + end, "first GC", {"trigger": start.gc.trigger})


def _of_start(start: Start, place: Place) -> dict[str, Any]:
    pid, name = (start.starter.pid, printable(start.starter.name)) if start.starter else ("?", "?")
    return {"run": place.run + 1, "start_of_run": place.place + 1, "starter_pid": pid, "starter_name": name}


def _nest(trace: TraceFile, track: int, begin: int, row: Row, within: list[Row], more: dict[str, Any]) -> None:
    """A row and those of the next depth that lie in it; an end comes before the beginning of what follows."""
    trace.begin(track, begin + row.begin_ns, printable(row.name or row.stage), {**_about(row), **more})
    for number, part in enumerate(within):
        if part.depth == row.depth + 1:
            deeper = within[number + 1 :]
            end = next((n for n, each in enumerate(deeper) if each.depth <= part.depth), len(deeper))
            _nest(trace, track, begin, part, deeper[:end], {})
    trace.end(track, begin + row.end_ns)


def _about(row: Row) -> dict[str, Any]:
    numbers = {
        "on_cpu_ns": row.on_cpu_ns,
        "runnable_ns": row.runnable_ns,
        "throttled_ns": row.throttled_ns,
        "blocked_ns": row.blocked_ns,
        "minor_faults": row.minor_faults,
        "major_faults": row.major_faults,
        "pages_read": row.pages_read,
    }
    known = numbers if row.divided else dict.fromkeys(numbers)
    told = {name: "?" if number is None else number for name, number in {**known, "heap_bytes": row.heap_bytes}.items()}
    return {**told, **({"detail": printable(row.detail)} if row.detail else {})}

"""Starts as a timeline for https://ui.perfetto.dev: a process for each, with stages, packages and init functions nested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from gotrace.analysis.timeline import Row, Start
from gotrace.export.perfetto import TraceFile
from gotrace.text import printable

_TRACKS = 3  # of each start: its process, its rows, its first collection


def write_trace(file: BinaryIO, starts: Sequence[Start], title: str, clock: dict[str, Any]) -> None:
    """Every start at its own time; ``clock`` is that of `Session.header`."""
    trace = TraceFile(file, clock)
    for number, start in enumerate(starts):
        process, rows, gc = (1 + _TRACKS * number + which for which in range(_TRACKS))
        name = title if len(starts) == 1 else f"{title}, start {number + 1}"
        trace.describe(process, process={"pid": start.pid, "process_name": printable(name)})
        trace.describe(rows, name="cold start", parent_uuid=process)
        begin = start.exec_ns
        for top in (row for row in start.rows if row.depth == 0):
            _nest(trace, rows, begin, top, [row for row in start.rows if row.stage == top.stage and row.depth])
        for when, what in ((start.listen_ns, "listen"), (start.ready_ns, "first accept")):
            if when is not None:
                trace.mark(rows, begin + when, what)
        if start.gc is not None:
            trace.describe(gc, name="GC", parent_uuid=process)
            end = start.gc.end_ns if start.gc.end_ns is not None else start.total_ns
            trace.slice(gc, begin + start.gc.begin_ns, begin + end, "first GC", {"trigger": start.gc.trigger})


def _nest(trace: TraceFile, track: int, begin: int, row: Row, within: list[Row]) -> None:
    """A row and those of the next depth that lie in it; an end comes before the beginning of what follows."""
    trace.begin(track, begin + row.begin_ns, printable(row.name or row.stage), _about(row))
    for number, part in enumerate(within):
        if part.depth == row.depth + 1:
            deeper = within[number + 1 :]
            end = next((n for n, each in enumerate(deeper) if each.depth <= part.depth), len(deeper))
            _nest(trace, track, begin, part, deeper[:end])
    trace.end(track, begin + row.end_ns)


def _about(row: Row) -> dict[str, Any]:
    numbers = {
        "on_cpu_ns": row.on_cpu_ns,
        "runnable_ns": row.runnable_ns,
        "blocked_ns": row.blocked_ns,
        "minor_faults": row.minor_faults,
        "major_faults": row.major_faults,
        "pages_read": row.pages_read,
    }
    heap = {"heap_bytes": row.heap_bytes} if row.heap_bytes is not None else {}
    return {**numbers, **heap, **({"detail": printable(row.detail)} if row.detail else {})}

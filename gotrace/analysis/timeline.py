"""One start of a program as rows of time: what an analysis makes of its events, and what every output shows.

Times are nanoseconds since the entry of the execve that began the start; rows from before it have negative ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

BEFORE = "before exec"
EXEC = "exec"
LINKER = "dynamic linker"
BOOTSTRAP = "runtime bootstrap"
MAIN = "runtime.main"
PROGRAM = "main.main"
UNATTRIBUTED = "unattributed"
C_START = "C start-up"
# In the order of time. BEFORE is no part of the total.
STAGES = (BEFORE, EXEC, LINKER, BOOTSTRAP, MAIN, PROGRAM)


@dataclass(frozen=True)
class Row:
    """A span of a start. ``depth`` 0: a whole stage; 1: a part of it (a package, a library); 2: one init function.

    The rows of depth 1 of a stage follow one another without a gap, and so do those of depth 2 of their package. A row's
    time is on-CPU, runnable (waiting for a CPU) or blocked; up to main.main that of the main thread, later of the process:
    it is off the CPU when no thread of it has one. ``heap_bytes`` is by how much the live heap grew, None where that cannot
    be told. ``detail`` is more to say of it, "" for nothing.
    """

    stage: str
    name: str
    depth: int
    begin_ns: int
    duration_ns: int
    runnable_ns: int
    blocked_ns: int
    minor_faults: int
    major_faults: int
    pages_read: int
    heap_bytes: int | None = None
    detail: str = ""

    @property
    def end_ns(self) -> int:
        return self.begin_ns + self.duration_ns

    @property
    def on_cpu_ns(self) -> int:
        return self.duration_ns - self.runnable_ns - self.blocked_ns


@dataclass(frozen=True)
class FirstGc:
    """The first collection: it may begin in an init, so it lies over the rows. ``pauses_ns`` are those of its two stops.

    At ``asked_ns`` the runtime began to start the mark workers; the cycle begins, by its own count, when they are there.
    ``end_ns`` is None, and the rest empty, when the start ended before it did. ``trigger`` is one of `pauses.TRIGGERS`.
    """

    asked_ns: int
    begin_ns: int
    end_ns: int | None
    trigger: str
    pauses_ns: tuple[int, ...] = ()
    heap_bytes: int | None = None


@dataclass(frozen=True)
class Start:
    """One start. ``rows`` are in the order of time, a stage before its parts; ``ended`` says at what it was over.

    ``total_ns`` is what was measured: from execve's entry to that end. ``unattributed_ns`` of it lies in no row of a stage.
    ``ready_ns`` is the first accept that was answered, ``listen_ns`` the first listen, ``exit_code`` as a shell tells
    it; None where they did not happen. ``hits`` is how often it ran into a probe of ours, ``kernel_hits`` how often the
    kernel did so for it.
    """

    pid: int
    exec_ns: int  # CLOCK_MONOTONIC at execve's entry
    total_ns: int
    ended: str
    rows: tuple[Row, ...]
    unattributed_ns: int = 0
    listen_ns: int | None = None
    ready_ns: int | None = None
    exit_code: int | None = None
    gc: FirstGc | None = None
    hits: int = 0
    kernel_hits: int = 0
    notes: tuple[str, ...] = ()


def added(rows: Sequence[Row], name: str, depth: int, detail: str = "") -> Row:
    """What ``rows`` of one stage take together, as one that begins with the first."""
    heaps = [row.heap_bytes for row in rows if row.heap_bytes is not None]
    return Row(
        stage=rows[0].stage,
        name=name,
        depth=depth,
        begin_ns=rows[0].begin_ns,
        duration_ns=sum(row.duration_ns for row in rows),
        runnable_ns=sum(row.runnable_ns for row in rows),
        blocked_ns=sum(row.blocked_ns for row in rows),
        minor_faults=sum(row.minor_faults for row in rows),
        major_faults=sum(row.major_faults for row in rows),
        pages_read=sum(row.pages_read for row in rows),
        heap_bytes=sum(heaps) if heaps and depth else None,
        detail=detail,
    )


def merged(start: Start) -> list[Row]:
    """The rows with those of one stage that have one name (the gaps between packages) as one, where the first stands."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in start.rows:
        found.setdefault((row.stage, row.name, row.depth), []).append(row)
    return [rows[0] if len(rows) == 1 else added(rows, rows[0].name, rows[0].depth) for rows in found.values()]


def package_inits(start: Start) -> list[Row]:
    """The packages with init functions, in the order they were initialised."""
    followed = zip(start.rows, start.rows[1:], strict=False)
    return [row for row, following in followed if row.depth == 1 and following.depth == 2]


def is_short(row_ns: int, stage_ns: int, total_ns: int) -> bool:
    """Less than half a percent of the start, and less than five of the stage: such a row explains nothing by itself."""
    return row_ns < min(total_ns / 200, stage_ns / 20)


def folded(start: Start) -> list[Row]:
    """`merged`, with the short rows of a stage (`is_short`) as one called "N shorter" at its end.

    Init functions are left out where a package has one only.
    """
    rows = merged(start)
    out: list[Row] = []
    for stage in [row for row in rows if row.depth == 0]:
        out.append(stage)
        rest: list[Row] = []
        for number, row in enumerate(rows):
            if row.stage != stage.stage or row.depth != 1:
                continue
            if is_short(row.duration_ns, stage.duration_ns, start.total_ns):
                rest.append(row)
                continue
            functions = list(itertools.takewhile(lambda each: each.depth == 2, rows[number + 1 :]))
            out.append(row)
            if len(functions) > 1:
                out += [each for each in functions if not is_short(each.duration_ns, stage.duration_ns, start.total_ns)]
        if len(rest) == 1:
            out += rest
        elif rest:
            out.append(added(rest, f"{len(rest)} shorter", 1))
    return out

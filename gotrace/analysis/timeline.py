"""One start of a program as rows of time: what an analysis makes of its events, and what every output shows.

Times are nanoseconds since the entry of the execve that began the start; rows from before it have negative ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gotrace.text import printable

CONTAINER = "container"
BEFORE = "before exec"
EXEC = "exec"
LINKER = "dynamic linker"
BOOTSTRAP = "runtime bootstrap"
MAIN = "runtime.main"
PROGRAM = "main.main"
UNATTRIBUTED = "unattributed"
UNDIVIDED = "program, not divided"  # without probes in it
C_START = "C start-up"
# The heap is counted in spans (8 KiB and more), and by each P for itself: less than this may be another row's.
HEAP_KNOWN_FROM = 64 << 10
UNDER_WAY = "had not ended"  # the detail of what was going on when a start was over, or was looked at
# In the order of time. What is before execve is not part of the total; CONTAINER stands in place of BEFORE.
STAGES = (CONTAINER, BEFORE, EXEC, UNDIVIDED, LINKER, BOOTSTRAP, MAIN, PROGRAM)


@dataclass(frozen=True)
class Row:
    """A span of a start. ``depth`` 0: a whole stage; 1: a part of it (a package, a library); 2: one init function.

    The rows of depth 1 of a stage follow one another without a gap, and so do those of depth 2 of their package. A row's
    time is on-CPU, runnable (waiting for a CPU), throttled (by a CPU quota) or blocked; up to main.main that of the main
    thread, later of the process: it is off the CPU when no thread of it has one. ``throttled_ns`` is None in recordings
    from before 0.2, where it is part of ``runnable_ns``. ``heap_bytes`` is by how much the live heap grew as the runtime
    counts it, of which less than `HEAP_KNOWN_FROM` says nothing; None where it is not known. ``detail`` has more about it,
    or is "".
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
    throttled_ns: int | None = None

    @property
    def end_ns(self) -> int:
        return self.begin_ns + self.duration_ns

    @property
    def on_cpu_ns(self) -> int:
        return self.duration_ns - self.runnable_ns - self.blocked_ns - (self.throttled_ns or 0)

    @property
    def divided(self) -> bool:
        """Whether it is known what of its time was on the CPU, and its faults: before exec nobody counts them."""
        return self.stage not in (CONTAINER, BEFORE, UNATTRIBUTED) or bool(
            self.runnable_ns or self.blocked_ns or self.minor_faults or self.major_faults
        )


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
class Starter:
    """Who forked the process that was started, or the process itself where it executes a program once more."""

    pid: int
    name: str


@dataclass(frozen=True)
class Unseen:
    """A stage that may have been, and why nobody knows."""

    stage: str
    reason: str


@dataclass(frozen=True)
class Pod:
    """The pod of a container, by what a kubelet calls it; ``attempt`` is how often it had restarted the ``container``."""

    namespace: str
    name: str
    uid: str
    container: str
    attempt: int


@dataclass(frozen=True)
class Container:
    """The container that a program was started in, and the tool that was asked for it; ``id`` is "" where it is unknown.

    ``layers`` were unpacked, which have ``unpacked_bytes``; None where that was not watched. Stages in ``absent`` were
    watched and did not happen; of those in ``unseen`` it is not known. ``pod`` is None where no client of CRI was seen.
    """

    id: str
    tool: str
    layers: int | None = None
    unpacked_bytes: int | None = None
    absent: tuple[str, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    pod: Pod | None = None


@dataclass(frozen=True)
class Start:
    """One start. ``rows`` are in chronological order, a stage before its parts; ``ended`` says at what it was over.

    ``total_ns`` is what was measured: from execve's entry to that end. ``unattributed_ns`` of it lies in no row of a stage.
    ``ready_ns`` is the first accept that returned, ``listen_ns`` the first listen, ``exit_code`` as a shell tells
    it; None where they did not happen. ``hits`` is how often it ran into a probe of ours, ``kernel_hits`` how often the
    kernel did so for it. ``starter`` is None where the fork was not seen. What one run of the command, or one start of the
    executable, started shares a ``run_ns``; it is 0 in recordings from before 0.2, which did not keep it. ``container`` is
    None where no container tool was seen to be asked for it; else the rows begin with the stage CONTAINER.
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
    starter: Starter | None = None
    run_ns: int = 0
    container: Container | None = None

    @cached_property
    def asked_ns(self) -> int:
        """How long before execve a container tool was asked for it; 0 where that was not seen."""
        return sum(row.duration_ns for row in self.rows if row.stage == CONTAINER and row.depth == 0)

    @property
    def whole_ns(self) -> int:
        """What all rows add up to, but for those of BEFORE."""
        return self.asked_ns + self.total_ns


def starter_text(start: Start) -> str:
    """Who started it: "by sh (pid 12)"."""
    if start.starter is None:
        return "by an unknown process"
    itself = start.starter.pid == start.pid
    return "by itself" if itself else f"by {printable(start.starter.name)} (pid {start.starter.pid})"


class Place(NamedTuple):
    """Which run a start belongs to, and which of that run's starts it is; both from 0."""

    run: int
    place: int


def places(starts: Sequence[Start]) -> list[Place]:
    """Of each of ``starts``, which are in the order they were made. Of one that does not say it is a run of its own."""
    runs: dict[int, int] = {}  # run_ns -> its number
    lengths: list[int] = []
    found = []
    for start in starts:
        run = runs.setdefault(start.run_ns, len(lengths)) if start.run_ns else len(lengths)
        if run == len(lengths):
            lengths.append(0)
        found.append(Place(run, lengths[run]))
        lengths[run] += 1
    return found


def by_place(starts: Sequence[Start]) -> list[list[int]]:
    """The numbers of the first starts of all runs, of the second ones, and so on: only like is compared with like."""
    found: list[list[int]] = []
    for number, (_, place) in enumerate(places(starts)):
        found += [[] for _ in range(place + 1 - len(found))]
        found[place].append(number)
    return found


def added(rows: Sequence[Row], name: str, depth: int, detail: str = "") -> Row:
    """What ``rows`` of one stage take together, as one that begins with the first."""
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
        heap_bytes=known_sum([row.heap_bytes for row in rows]),
        detail=detail,
        throttled_ns=known_sum([row.throttled_ns for row in rows]),
    )


def known_sum(numbers: Sequence[int | None]) -> int | None:
    """The sum; None where one of them is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def merged(start: Start) -> list[Row]:
    """The rows with those of one stage that have one name (the gaps between packages) as one, where the first stands.

    It has their detail if all have the same.
    """
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in start.rows:
        found.setdefault((row.stage, row.name, row.depth), []).append(row)
    return [
        rows[0] if len(rows) == 1 else added(rows, rows[0].name, rows[0].depth, _common(rows)) for rows in found.values()
    ]


def _common(rows: Sequence[Row]) -> str:
    return rows[0].detail if len({row.detail for row in rows}) == 1 else ""


def throttled_ns(start: Start) -> int | None:
    """How long a CPU quota kept the start from running; None where that is not known."""
    return known_sum([row.throttled_ns for row in start.rows if row.depth == 0 and row.stage not in (CONTAINER, BEFORE)])


def runnable_ns(start: Start) -> int | None:
    """How long the start waited for a CPU that other work had; None where throttling is not told apart from that."""
    if throttled_ns(start) is None:
        return None
    return sum(row.runnable_ns for row in start.rows if row.depth == 0 and row.stage not in (CONTAINER, BEFORE))


def package_inits(start: Start) -> list[Row]:
    """The packages with init functions, in the order they were initialised."""
    followed = zip(start.rows, start.rows[1:], strict=False)
    return [row for row, following in followed if row.depth == 1 and following.depth == 2]


def under_way(start: Start) -> list[Row]:
    """What of a start had not ended, up to main.main: a step, or a package and its init function."""
    return [row for row in start.rows if row.depth and row.detail.endswith(UNDER_WAY)]


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

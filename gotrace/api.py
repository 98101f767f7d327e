"""What the commands do, for Python programs: `watching`, `replaying`, `snapshot` and `starts`.

Views (`gotrace.views`) are what is asked: `gc.Gc`, `memory.Looks`, `cycles.Cycles`, `faults.Faults`, `gpumem.GpuMemory`,
`numa.Placement`, `tlb.Translation`. Records are what they yield, the very objects that ``--format ndjson`` prints
(`gotrace.records`).

Root is needed for all but `replaying`. Errors are `gotrace.errors.GotraceError`, with ``message`` and ``hint``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gotrace.recording.reader import Recording
from gotrace.run.sources import Replayed, programs
from gotrace.run.target import Say, Target, watched
from gotrace.views.memory import Looks
from gotrace.views.view import Record, View, recorded, records_of

if TYPE_CHECKING:
    from gotrace.kernel.pmu import PmuEvent
    from gotrace.run.starts import Result


@contextlib.contextmanager
def watching(
    *views: View,
    pid: int | None = None,
    command: Sequence[str] = (),
    duration_s: float | None = None,
    record: str | None = None,
    force: bool = False,
    say: Say = lambda _: None,
    counters: Sequence[PmuEvent] = (),
) -> Iterator[Iterator[Record]]:
    """The records of ``views`` about a process, or about the first Go program of a ``command``, as they come.

    They end after ``duration_s`` seconds (None: never), with the process, or at Ctrl-C. When the process executes another
    program they go on with that. A command is started before its first instruction is traced, and waited for on the way
    out; without probes (`Looks` alone) only a ``pid`` can be inspected. ``record`` keeps the raw events in a file, over an
    existing one with ``force``. ``say`` is called with a line for each thing that happens; ``counters`` are what
    `Translation` counts. Probes are in place within the ``with``, and gone after it.
    """
    duration = round(duration_s * 1e9) if duration_s is not None else None
    stems = list(dict.fromkeys(stem for view in views for stem in view.stems))
    with watched(stems, pid, command, duration, say, counters) as target:
        yield _told(target, views, record, force)


def _told(target: Target, views: Sequence[View], record: str | None, force: bool) -> Iterator[Record]:
    for _, source, own in programs(target, views, record, force):
        for _, records in records_of(source, own):
            yield from records


def replaying(path: str, *views: View) -> Iterator[Record]:
    """The records of ``views`` about what was recorded in a file; without views, of those that it was made for."""
    with Recording.open(path) as recording:
        for _, records in records_of(Replayed(recording), views or recorded(recording.header)):
            yield from records


def snapshot(pid: int, classes: int = 5) -> Record:
    """What the resident memory of a process consists of now: a `gotrace.records.memory.Memory`."""
    with watching(Looks(classes=classes), pid=pid, duration_s=0) as records:
        return next(records)


def starts(
    command: Sequence[str] = (),
    exe: str | None = None,
    runs: int = 1,
    warmup: int = 0,
    until: str = "listen",
    record: str | None = None,
    force: bool = False,
    say: Say = lambda _: None,
    **more: Any,
) -> Result:
    """Starts of a command, which is started ``runs`` times, or the next ones of a program, whoever starts it.

    ``until`` is "main", "listen", "first-gc" or "exit"; a start ends there, or with its process. ``more`` are other fields
    of `gotrace.run.starts_live.Wanted`. The result's ``starts`` are `gotrace.analysis.timeline.Start`.
    """
    from gotrace.run.starts_live import Wanted, trace

    end = ("" if until == "exit" else until, 0)
    wanted = Wanted(exe=exe, command=tuple(command), runs=runs, warmup=warmup, until=end, **more)
    return trace(wanted, record, force, say)[0]

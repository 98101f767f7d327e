"""The evidence of long pauses, which the agent keeps in its spool: a recording for each, with what its report asks for."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gotrace.analysis.evidence import FOREVER_NS, Evidence, Slice
from gotrace.errors import GotraceError
from gotrace.kernel.child import Child
from gotrace.probe import DELAY_NS
from gotrace.run.kept import forget_unfinished, name_of, recordings_in, write
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.kernel.ring import Events
    from gotrace.records.kept import KeptPause
    from gotrace.run.target import Say
    from gotrace.shared import SharedSession

    Explained = Callable[[KeptPause], None]

# What becomes of a long pause. Removed: kept, and gone later to make room for others, or for a longer one of its minute.
KEPT, INCOMPLETE, BEYOND, FAILED, REMOVED = "kept", "incomplete", "beyond the bound", "failed", "removed"
EXPENSIVE = "too expensive"

_MOST_EVENTS = 1 << 17, 1 << 11  # of all processes, and of one at least
_BEFORE_BYTES = 64 << 10  # of a recording, beside its events
_PATIENCE_S = 10
_MOST_AT_ONCE = 32
_WRITTEN_FOR_EACH = 4  # so many at most, where longer and longer ones come


@dataclass
class _Watched:
    session: SharedSession
    evidence: Evidence
    labels: Mapping[str, str]
    explained: Explained
    rests_until: float = 0  # by time.monotonic


class Explanations:
    """Keeps up to ``a_minute`` pauses of ``above_ns`` or more in a folder, in ``most_bytes``; `outcomes` are counted.

    Raises GotraceError where the folder cannot be read.
    """

    def __init__(self, folder: str, most_bytes: int, above_ns: int, a_minute: int, say: Say) -> None:
        self.outcomes: Counter[str] = Counter()
        self._folder, self._most_bytes, self._above_ns, self._a_minute = folder, most_bytes, above_ns, a_minute
        self._say = say
        self._watched: dict[int, _Watched] = {}
        self._last: list[tuple[float, int, str]] = []  # of a minute: when each was written, how long it was, and its path
        self._begun_at: deque[float] = deque()
        self._children: list[tuple[Child[KeptPause | None], str, str, Explained]] = []  # with the path, and the outcome
        self._unwanted: set[str] = set()  # that are being written
        self._failure = ""
        forget_unfinished(folder)
        self._sizes = {path: os.path.getsize(path) for path in recordings_in(folder)}

    def change(self, most_bytes: int, above_ns: int, a_minute: int) -> None:
        """From now on."""
        self._most_bytes, self._above_ns, self._a_minute = most_bytes, above_ns, a_minute
        for watched in self._watched.values():
            watched.evidence.above_ns = above_ns

    def watch(self, session: SharedSession, labels: Mapping[str, str], explained: Explained) -> None:
        """From now on the pauses of a process; ``labels`` are its service's, and ``explained`` is called for each kept."""
        header = session.header(session.begin_ns)
        offset_ns = header["clock"]["target_offset_ns"]
        evidence = Evidence(self._above_ns, header["probes"], offset_ns)
        self._watched[session.process.pid] = _Watched(session, evidence, labels, explained)

        def sieve(events: Events) -> Events:
            if session.executed_ns:
                events = events[events["time_ns"] < session.executed_ns]
            most = max(_MOST_EVENTS[0] // len(self._watched), _MOST_EVENTS[1])
            return evidence.feed(events, session.lost, time.monotonic_ns(), most)

        session.inbox.sieve = sieve

    def step(self) -> None:
        """Write what is complete, and look after what is being written."""
        now_ns = time.monotonic_ns() - DELAY_NS
        for watched in self._watched.values():
            if watched.rests_until and time.monotonic() >= watched.rests_until:
                watched.rests_until = 0
                watched.session.resume("tail")
        found = [(each, slice_) for each in self._watched.values() for slice_ in each.evidence.due(now_ns)]
        for watched, slice_ in sorted(found, key=lambda each: -each[1].length_ns):
            self._keep(watched, slice_)
        for each in list(self._children):
            if each[0].is_done():
                self._end(*each)

    def is_watching(self, session: SharedSession) -> bool:
        """Whether it pays for being explained."""
        watched = self._watched.get(session.process.pid)
        return watched is not None and not watched.rests_until

    def rest(self, session: SharedSession, seconds: float) -> None:
        """Leave a process alone: its pauses are counted, and not explained."""
        session.suspend("tail")
        self._watched[session.process.pid].rests_until = time.monotonic() + seconds

    def end(self, session: SharedSession) -> None:
        """A process is over: what there is of it is all that there will be."""
        watched = self._watched.pop(session.process.pid, None)
        if watched is not None:
            for each in watched.evidence.due(FOREVER_NS):
                self._keep(watched, each)

    def close(self) -> None:
        """Wait for what is being written."""
        until_s = time.monotonic() + _PATIENCE_S
        while self._children:
            first = self._children[0]
            if first[0].is_done(max(0, until_s - time.monotonic())):
                self._end(*first)
            else:
                del self._children[0]
                first[0].abandon()
                self.outcomes[FAILED] += 1

    def _keep(self, watched: _Watched, slice_: Slice) -> None:
        now = time.monotonic()
        if watched.rests_until:
            self.outcomes[EXPENSIVE] += 1
            return
        if not self._admits(slice_.length_ns, now):
            self.outcomes[BEYOND] += 1
            return
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        path = os.path.join(self._folder, name_of(slice_, wall_offset_ns, watched.session.process.pid))
        whole = slice_.whole and not slice_.lost
        kept = {"above_ns": self._above_ns, "length_ns": slice_.length_ns, "whole": whole}
        about = {"service": dict(watched.labels), "kept": kept}
        self._make_room(slice_.events.nbytes + _BEFORE_BYTES)
        self._last.append((now, slice_.length_ns, path))
        self._begun_at.append(now)
        child = Child(write, watched.session, slice_, path, about, cpu_seconds=60)
        self._children.append((child, path, KEPT if whole else INCOMPLETE, watched.explained))

    def _admits(self, length_ns: int, now: float) -> bool:
        """Whether there is room for one more in this minute, if need be for a longer one in place of the shortest."""
        self._last = [each for each in self._last if now - each[0] < 60]
        while self._begun_at and now - self._begun_at[0] >= 60:
            self._begun_at.popleft()
        if len(self._children) >= _MOST_AT_ONCE:
            return False
        if len(self._last) < self._a_minute:
            return True
        shortest = min(self._last, key=lambda each: each[1])
        if length_ns <= shortest[1] or len(self._begun_at) >= _WRITTEN_FOR_EACH * self._a_minute:
            return False
        self._last.remove(shortest)
        if shortest[2] in self._sizes:
            self._remove(shortest[2])
        else:
            self._unwanted.add(shortest[2])
        return True

    def _end(self, child: Child[KeptPause | None], path: str, outcome: str, explained: Explained) -> None:
        self._children.remove((child, path, outcome, explained))
        try:
            if (told := child.result()) is not None:
                explained(told)
            self._sizes[path] = os.path.getsize(path)
            self.outcomes[outcome] += 1
            if path in self._unwanted:
                self._remove(path)
            self._make_room(0)
        except (GotraceError, OSError) as error:
            self.outcomes[FAILED] += 1
            failure = printable(str(error).replace(path, self._folder))  # else each would be another one
            if failure != self._failure:
                self._say(f"The evidence for a pause was not kept: {failure}.")
            self._failure = failure

    def _make_room(self, wanted: int) -> None:
        """Remove the oldest."""
        while self._sizes and sum(self._sizes.values()) + wanted > self._most_bytes:
            self._remove(min(self._sizes))

    def _remove(self, path: str) -> None:
        del self._sizes[path]
        self._unwanted.discard(path)
        with contextlib.suppress(OSError):
            os.unlink(path)
        self.outcomes[REMOVED] += 1

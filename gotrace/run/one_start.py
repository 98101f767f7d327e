"""The start of a command that goes on: traced until it is ready, from execve on, and not any longer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gotrace.run.files import complain_of
from gotrace.run.recorder import Recorder
from gotrace.run.starts import READY, Result, result_of
from gotrace.run.starts_live import Wanted, attached, header_of, target_of
from gotrace.run.target import Say, StopRequest, Traced, closing

if TYPE_CHECKING:
    from gotrace.kernel.ring import Events
    from gotrace.session import Session

_READ_NS = 100_000_000  # the ring holds the events of a start for longer; reading takes the CPU from it
_LATE_S = 0.02  # until the last events of other CPUs are there


class OneStart:
    """The probes are in place. `read` while it starts, and `end` when it is ready. Use `tracing`."""

    def __init__(self, wanted: Wanted, session: Session, recorder: Recorder, detach: contextlib.ExitStack) -> None:
        self._session, self._recorder, self._detach = session, recorder, detach
        self._header = header_of(wanted, session)
        self._session.begin_ns = self._header["clock"]["begin_ns"]
        self._portions: list[Events] = []
        self._read_ns = 0
        recorder.begin(self._header)

    def read(self) -> None:
        """Fetch what has happened, if it is time to."""
        if time.monotonic_ns() - self._read_ns > _READ_NS:
            self._read_ns = time.monotonic_ns()
            self._fetch()

    def _fetch(self) -> None:
        events = self._session.read()
        self._recorder.add(events, self._session.lost)
        self._portions.append(events)

    def end(self, pid: int, at_ns: int) -> Result:
        """Detach. The last start of that process, until ``at_ns`` (CLOCK_MONOTONIC). Raises GotraceError."""
        from gotrace.probes.coldstart import decoder

        self._session.end_ns = at_ns
        time.sleep(_LATE_S)
        self._fetch()
        end = closing(self._session, at_ns - self._session.begin_ns, READY)
        self._recorder.end(end)
        self._detach.close()
        complain_of(self._recorder)
        decoded, found = decoder(self._header), []
        for events in self._portions:
            found += decoded.feed(events)
        found += decoded.close(at_ns)
        mine = [start for start in found if start.pid == pid][-1:]
        lacking = "the command did not execute the program that it executed before, or another process started it"
        return result_of(self._header, mine, end, lacking)


@contextlib.contextmanager
def tracing(command: Sequence[str], exe: str, recording: str, say: Say = lambda _: None) -> Iterator[OneStart]:
    """Wait for this process to start ``command``, which executes the file ``exe``, itself or in the end.

    ``recording`` is a file that keeps the events, over one that is there. Nothing is attached after `OneStart.end`, or the
    end of this. Raises GotraceError.
    """
    wanted = Wanted(exe, tuple(command), 1, 0, ("", 0))
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(attached(wanted, target_of(wanted, say), say))
        session.calibrate()
        traced = Traced(session, None, StopRequest(), say)
        recorder = stack.enter_context(Recorder.opened(recording, True, traced))
        yield OneStart(wanted, session, recorder, stack)

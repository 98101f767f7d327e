"""The process that sets probes for short windows at random times, where they are too dear to stay.

It stays root when the one that it was forked from gives root up, never forks, so that nobody else holds the probes, and
ends with it however that ends: the kernel then removes them. Time is divided into equal parts, and each has one window,
which is as likely at one time of it as at another: nothing periodic is missed or seen too often.

To set a probe takes some milliseconds. To remove one, too; but the kernel then waits until no CPU can be in its program,
60 ms and more, which is why nobody else should have to wait for that. To disable a perf event is no other way: its
breakpoint stays (seen on 6.18), and that is what costs.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from gotrace.errors import GotraceError, HostError
from gotrace.kernel import bpf
from gotrace.kernel.forked import cpu_s, forked

_MOST_BYTES = 1 << 16
# What it tells: a window that is over, that nothing is set any more, or why nothing can be.
_WINDOW, _STOPPED, _FAILED = "window", "stopped", "failed"

# A program's descriptor, and where in the executable it is to run.
Place = tuple[int, int]


class Windows:
    """The process, from outside: a window of ``open_ns`` in every ``every_ns``, from `start` to `stop`.

    ``foreign`` are those of `forked`.
    """

    def __init__(self, open_ns: int, every_ns: int, foreign: Sequence[int] = ()) -> None:
        self._socket, self._child = forked(lambda parent: _Opening(parent, open_ns, every_ns).run(), foreign)
        self._ended: list[tuple[int, int]] = []
        self._failure: GotraceError | None = None
        self._runs = self._dead = False

    def start(self, pid: int, exe: int, places: Sequence[Place]) -> None:
        """From now on there are windows: ``places`` are in the file that is open as ``exe``."""
        if not self._dead:
            self._failure = None
        self._tell({"pid": pid, "places": list(places)}, [exe])
        self._runs = True

    def stop(self) -> None:
        """No more windows, until the next `start`; one that is open ends now. What is set is removed soon."""
        if not self._runs:
            return
        self._tell(None)
        while self._runs and not self._dead:
            self._receive(None)

    def ended(self) -> list[tuple[int, int]]:
        """(begin, end) in CLOCK_MONOTONIC ns of the windows that ended since the last call: all was set in between."""
        self.failure()
        found, self._ended = self._ended, []
        return found

    def failure(self) -> GotraceError | None:
        """Why no more can come, if so: it may be that the process has ended."""
        while not self._dead and self._receive(0):
            pass
        return self._failure

    def close(self) -> None:
        """Remove what is set."""
        self._socket.close()
        os.waitpid(self._child, 0)

    def cpu_s(self) -> float:
        """Its seconds of CPU time."""
        return cpu_s(self._child)

    def _tell(self, what: Any, fds: Sequence[int] = ()) -> None:
        with contextlib.suppress(OSError):  # it has ended, which it is asked about next
            socket.send_fds(self._socket, [json.dumps(what).encode()], list(fds))

    def _receive(self, milliseconds: int | None) -> bool:
        """Take one message; False if there is none yet."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(milliseconds):
            return False
        data = b""
        with contextlib.suppress(OSError):
            data = self._socket.recv(_MOST_BYTES)
        if not data:
            self._dead = True
            self._failure = GotraceError(
                "the process that sets the probes exited", "start again; check `dmesg` for an out-of-memory kill"
            )
            return True
        what, about = json.loads(data)
        if what == _WINDOW:
            self._ended.append((about[0], about[1]))
        elif what == _FAILED:
            self._failure = HostError(*about)
        else:
            self._runs = False
        return True


class _Opening:
    """The process, from inside."""

    def __init__(self, parent: socket.socket, open_ns: int, every_ns: int) -> None:
        self._parent = parent
        self._open_ns = open_ns
        self._every_ns = every_ns

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError):  # no one is there any more
            while True:
                self._wait(None)
                job, exe = self._receive()
                if job is None:
                    self._tell(_STOPPED)
                    continue
                try:
                    self._windows(job["pid"], f"/proc/self/fd/{exe}", job["places"])
                except GotraceError as error:
                    self._tell(_FAILED, [error.message, error.hint])
                finally:
                    os.close(exe)

    def _windows(self, pid: int, exe: str, places: Sequence[Place]) -> None:
        """Until something else is asked for. Raises GotraceError."""
        probes: list[int] = []
        due_ns = time.monotonic_ns()
        while not self._wait(due_ns + random.randrange(max(1, self._every_ns - self._open_ns))):
            with bpf.closing_all(probes):
                for program, offset in places:
                    probes.append(bpf.attach_uprobe(program, exe, offset, pid))
                begin_ns = time.monotonic_ns()
                asked = self._wait(begin_ns + self._open_ns)
                self._tell(_WINDOW, [begin_ns, time.monotonic_ns()])
                if asked:
                    return
            late = max(0, time.monotonic_ns() - due_ns) // self._every_ns
            due_ns += max(1, late) * self._every_ns

    def _wait(self, until_ns: int | None) -> bool:
        """Until then (None: for ever); True as soon as something is asked for, or no one is there any more."""
        left = None if until_ns is None else max(0, until_ns - time.monotonic_ns()) / 1e6
        poll = select.poll()
        poll.register(self._parent, select.POLLIN)
        return bool(poll.poll(left))

    def _receive(self) -> tuple[Any, int]:
        data, fds, _, _ = socket.recv_fds(self._parent, _MOST_BYTES, 1)
        if not data:
            raise EOFError
        return json.loads(data), fds[0] if fds else -1

    def _tell(self, what: str, about: Any = None) -> None:
        self._parent.send(json.dumps([what, about]).encode())

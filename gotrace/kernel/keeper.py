"""The process that keeps a session's probes, and sets them anew when their target executes another program.

It stays root when the one that it was forked from gives root up, does nothing but wait, and ends with it however that ends:
the kernel then removes the probes. It reports what happens in messages over a socket, in this order:

* `WATCHING` (bytes), once: from now on no execve is missed.
* `EXECUTED` (pid, time_ns, counts): the process has executed a program, and is held in its execve.
* then `READY` (pid, exe, held_ns, late_ns, released_ns, counts, bytes and what `Renew` made): the program is probed, and
  runs from now on;
* or `LEFT` (pid, exe, reason): it is not probed, and runs. With ``tree``, the next program that it or one of the processes
  it starts executes and that can be probed gets an `EXECUTED` and a `READY` again.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from gotrace.errors import GotraceError
from gotrace.kernel import bpf
from gotrace.kernel.execs import Exec, ExecWatch
from gotrace.kernel.forked import cpu_s, forked
from gotrace.kernel.process import Process

WATCHING, EXECUTED, READY, LEFT = "watching", "executed", "ready", "left"

# Probes a process that has just executed a program: (what the session has to know, its probes, descriptors to hand over).
# Raises GotraceError where it cannot be probed.
Renew = Callable[[Process], tuple[dict[str, Any], list[int], list[int]]]

# What the probes have counted so far, as JSON.
Counts = Callable[[], Any]

_MOST_BYTES, _MOST_FDS = 1 << 18, 200


class Keeper:
    """The process, from outside. ``probes`` are descriptors, which are the keeper's alone from now on.

    ``foreign`` are those of `forked`.
    """

    def __init__(
        self, pid: int, probes: list[int], renew: Renew, counts: Counts, tree: bool, foreign: Sequence[int] = ()
    ) -> None:
        def keep(parent: socket.socket) -> None:
            _Keeping(parent, pid, probes, renew, counts, tree).run()

        self._socket, self._child = forked(keep, foreign)
        while probes:
            os.close(probes.pop())
        self._failure: GotraceError | None = None
        self._bytes = 0
        self.receive(None)

    @property
    def fd(self) -> int:
        """Readable when there is something to receive."""
        return self._socket.fileno()

    def receive(self, seconds: float | None) -> tuple[str, dict[str, Any], list[int]] | None:
        """The next message (what, about it, descriptors), or None after ``seconds``. Raises GotraceError."""
        if self._failure is not None:
            raise self._failure
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(None if seconds is None else seconds * 1000):
            return None
        data, fds, _, _ = socket.recv_fds(self._socket, _MOST_BYTES, _MOST_FDS)
        if not data:
            self._failure = self._ended()
            raise self._failure
        what, about = json.loads(data)
        self._bytes = about.pop("bytes", self._bytes)
        return what, about, fds

    def _ended(self) -> GotraceError:
        """Why there are no messages any more."""
        _, status = os.waitpid(self._child, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = {each.value: each.name for each in signal.Signals}.get(number, f"signal {number}")
            return GotraceError(
                f"the process that holds the probes was killed ({name})",
                "start again; check `dmesg` for an out-of-memory kill",
            )
        return GotraceError("the process that holds the probes exited", "start again; `gotrace doctor` shows details")

    def cost(self) -> tuple[float, int]:
        """Its seconds of CPU time, and the bytes of memory that are its alone."""
        return cpu_s(self._child), self._bytes

    def close(self) -> None:
        """Remove the probes."""
        self._socket.close()
        if self._failure is None:
            os.waitpid(self._child, 0)


class _Keeping:
    """The process, from inside."""

    def __init__(
        self, parent: socket.socket, pid: int, probes: list[int], renew: Renew, counts: Counts, tree: bool
    ) -> None:
        self._parent = parent
        self._pid = pid
        self._probes = probes
        self._renew = renew
        self._counts = counts
        self._tree = tree
        self._searching = False  # among all that the tree executes

    def run(self) -> None:
        try:
            with ExecWatch.opened(self._pid, tree=False) as watch:
                self._tell(WATCHING, {"bytes": _own_bytes()})
                while not self._is_over():
                    found = watch.next(3600, self._parent.fileno())
                    if found is not None:
                        try:
                            self._executed(found, watch)
                        finally:
                            found.release()
        except OSError:
            pass  # no one is there any more
        with bpf.closing_all(self._probes):
            pass

    def _is_over(self) -> bool:
        poll = select.poll()
        poll.register(self._parent, select.POLLIN)
        return bool(poll.poll(0))  # it never says a word: it is gone

    def _tell(self, what: str, about: dict[str, Any], fds: Sequence[int] = ()) -> None:
        socket.send_fds(self._parent, [json.dumps([what, about]).encode()], list(fds))

    def _executed(self, found: Exec, watch: ExecWatch) -> None:
        about = {"pid": found.pid, "time_ns": found.time_ns, "counts": self._counts()}
        if not self._searching:
            self._tell(EXECUTED, about)
        with bpf.closing_all(self._probes):  # of the program before: they might fit the new one too
            pass
        exe = "?"
        try:
            with Process.open(found.pid) as process:
                exe = process.exe_name
                made, self._probes, fds = self._renew(process)
        except GotraceError as error:
            if found.held is None and watch.has_more():
                return  # not of the program that was meant: it has executed another by now
            if not self._searching:
                self._tell(
                    LEFT, {"pid": found.pid, "exe": exe, "reason": error.message.replace(f"/proc/{found.pid}/exe", "it")}
                )
                self._searching = self._tree
                watch.turn_to(found.pid, self._tree)
            return
        if self._searching:
            self._tell(EXECUTED, about)
            self._searching = False
        watch.turn_to(found.pid, False)
        now = time.monotonic_ns()
        about = {"pid": found.pid, "exe": exe, "late_ns": found.late_ns, "counts": self._counts(), "bytes": _own_bytes()}
        self._tell(READY, {**about, "held_ns": now - found.time_ns, "released_ns": now, **made}, fds)
        for fd in fds:
            os.close(fd)


def _own_bytes() -> int:
    """What this process does not share with the one that it was forked from."""
    with open("/proc/self/smaps_rollup") as file:
        return next((int(line.split()[1]) << 10 for line in file if line.startswith("Private_Dirty:")), 0)

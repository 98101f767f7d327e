"""A process of our own that stays root when we give root up, and ends with us however we end: its socket is closed then."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from typing import IO, Any

_PRCTL, _SET_PDEATHSIG = ctypes.CDLL(None).prctl, 1


def end_with_parent() -> None:
    """This process is killed when the thread that started it ends in any way, kill -9 included: prctl(2)."""
    _PRCTL(_SET_PDEATHSIG, signal.SIGKILL)


def forked(work: Callable[[socket.socket], None], foreign: Sequence[int] = ()) -> tuple[socket.socket, int]:
    """A socket to a new process, in which ``work`` runs with the other end, and its pid; whoever calls waits for it.

    It does without the descriptors in ``foreign``: a pipe of a program that uses us would stay open as long as it runs.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            for fd in foreign:
                with contextlib.suppress(OSError):
                    os.close(fd)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for who decides about the end
                signal.signal(number, signal.SIG_IGN)
            work(theirs)
        finally:
            os._exit(0)  # no exit handlers: they belong to the parent
    theirs.close()
    return ours, child


def is_readable(which: socket.socket | IO[Any], seconds: float = 0) -> bool:
    """Whether there is something to read, or the other end is closed, by ``seconds`` from now.

    select(2) would do, but for descriptors from 1024 on.
    """
    poll = select.poll()
    poll.register(which, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def cpu_s(pid: int) -> float:
    """The seconds of CPU time of a process; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

"""What the processes have in common that an experiment starts: they end with it, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Collection

# prctl(2): a process gets this signal when the thread that started it ends in any way, kill -9 included.
_PRCTL, _SET_PDEATHSIG = ctypes.CDLL(None).prctl, 1


def preparation(cpus: Collection[int] = ()) -> Callable[[], None]:
    """What a child does before it executes its command; ``cpus`` are those that it may use, all if there are none."""

    def prepare() -> None:
        _PRCTL(_SET_PDEATHSIG, signal.SIGKILL)
        if cpus:
            os.sched_setaffinity(0, cpus)

    return prepare

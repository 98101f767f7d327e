"""What takes much memory, aside from a process that has to stay small: at the lowest priority, where there is room."""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Callable
from typing import Any

from gotrace.errors import HostError, TargetError
from gotrace.kernel.cgroup import enter_outermost, memory_group

NEEDED_BYTES = 160 << 20  # of the process that forks, and the compiler in its child
_MOST_BYTES = 4 << 30  # of addresses


def aside(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, to be called in a child of its own. Raises HostError where its group has too little memory for it."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        os.nice(19)
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
        limit = _limit()
        if limit < NEEDED_BYTES:
            try:
                enter_outermost("memory")
            except OSError:
                raise _refused(limit) from None
            if _limit() < NEEDED_BYTES:
                raise _refused(limit)
        return function(*args)

    return run


def _limit() -> float:
    """Of the memory of our control group, in bytes; infinite where there is none."""
    try:
        limit = memory_group(os.getpid()).limit_bytes
    except (HostError, TargetError):
        limit = None
    return float("inf") if limit is None else limit


def _refused(limit: float) -> HostError:
    return HostError(
        f"the probes are not compiled yet, and the cgroup's {int(limit) >> 20} MiB are not enough to compile them",
        f"run `gotrace serve --prepare` once with {NEEDED_BYTES >> 20} MiB allowed, and the same GOTRACE_CACHE",
    )

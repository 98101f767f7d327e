"""Run a function in a short-lived child process and bring back its result.

Compilers and disassemblers cost tens of megabytes that a process never gives back, and damaged input can make a parser
slow: both stay in a child that is bounded and leaves. The parent is small when it forks (it holds no compiler and
starts no thread), so a fork costs about a millisecond.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from gotrace.errors import GotraceError, told_of
from gotrace.kernel.forked import end_with_parent, is_readable

T = TypeVar("T")


class Child(Generic[T]):
    """``function(*args)`` at work in a child process; ``result()`` waits for it.

    The child may use ``cpu_seconds`` of processor time. Whatever a GotraceError says there is raised here; any other
    exception arrives as a GotraceError too, with the child's traceback as ``detail``.
    """

    def __init__(self, function: Callable[..., T], *args: Any, cpu_seconds: int = 60) -> None:
        self._name = function.__name__
        read_end, write_end = os.pipe()
        parent, self._pid = os.getpid(), os.fork()
        if self._pid == 0:
            try:
                end_with_parent()  # whose port and probes it has, too
                if os.getppid() != parent:
                    os._exit(0)
                os.close(read_end)
                # Ctrl-C reaches the whole process group; ending the work is the parent's decision.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
                _work(write_end, function, args)
            finally:
                os._exit(0)  # no exit handlers: they belong to the parent
        os.close(write_end)
        self._file = os.fdopen(read_end, "rb")

    def is_done(self, seconds: float = 0) -> bool:
        """Whether `result` need not wait, by ``seconds`` from now."""
        return is_readable(self._file, seconds)

    def abandon(self) -> None:
        """End the work; its result is not wanted any more."""
        os.kill(self._pid, signal.SIGKILL)
        self._file.close()
        os.waitpid(self._pid, 0)

    def result(self) -> T:
        """What ``function`` has returned. Raises GotraceError."""
        with self._file:
            data = self._file.read()
        _, status = os.waitpid(self._pid, 0)
        if not data:
            raise GotraceError(
                f"the step '{self._name}' ended without a result (status {status})",
                "it ran out of time or memory; check this host and the target with `gotrace doctor`",
            )
        import pickle

        outcome, value = pickle.loads(data)
        if outcome == "error":
            raise value
        return value  # type: ignore[no-any-return]


def _work(write_end: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        answer = ("result", function(*args))
    except GotraceError as error:
        answer = ("error", error)
    except BaseException as error:
        import traceback

        hint = "this is a bug in gotrace: report it with the output of `-v`"
        told = told_of(error) if isinstance(error, OSError) else GotraceError(f"{function.__name__}: {error!r}", hint)
        told.detail = traceback.format_exc()
        answer = ("error", told)
    import pickle

    sys.stdout.flush()
    with os.fdopen(write_end, "wb") as file:
        pickle.dump(answer, file)

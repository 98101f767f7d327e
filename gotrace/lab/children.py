"""What an experiment starts and leaves behind: it ends with the experiment, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from gotrace.kernel.forked import end_with_parent


def preparation(cpus: Collection[int] = ()) -> Callable[[], None]:
    """What a child does before it executes its command; ``cpus`` are those that it may use, all if there are none."""

    def prepare() -> None:
        end_with_parent()
        if cpus:
            os.sched_setaffinity(0, cpus)

    return prepare


def guard(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A shell that does this as soon as its standard input is closed: by us, or because we are no more."""
    return subprocess.Popen(
        ["sh", "-c", f"read -r _; {script}", "sh", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for as long as this lasts. It goes with us, too, be we killed."""
    with tempfile.TemporaryDirectory(prefix="gotrace-load-") as name:
        remover = guard('rm -rf -- "$1"', name)
        try:
            yield Path(name)
        finally:
            remover.kill()
            remover.communicate()


class Group(subprocess.Popen[bytes]):
    """A command in a process group of its own, whose standard input is empty; ``cpus`` as in `preparation`.

    What it has started ends with it, at `end` or when we are no more, but for what has made itself a session. Raises
    OSError.
    """

    def __init__(self, command: Sequence[str], cpus: Collection[int] = (), **options: Any) -> None:
        super().__init__(
            list(command),
            stdin=subprocess.DEVNULL,
            preexec_fn=preparation(cpus),
            start_new_session=True,
            **options,
        )
        self._guard = guard('kill -s KILL -- "-$1"', str(self.pid))

    def end(self, patience_s: float = 0.0) -> None:
        """End all of it: by SIGTERM, if there is patience for that, and what is left by SIGKILL."""
        if patience_s:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(patience_s)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
        self.wait()

    def leave(self) -> None:
        """What it has left running may go on."""
        self._guard.kill()
        self._guard.communicate()

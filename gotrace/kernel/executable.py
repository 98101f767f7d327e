"""An executable file that is waited for: what a start of it is told from any other by."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from gotrace.errors import GotraceError, TargetError


@dataclass(frozen=True)
class Filter:
    """Which starts are meant: below a process, within a cgroup (its id and depth), in a PID namespace (0: any)."""

    starter: int = 0
    cgroup: int = 0
    cgroup_level: int = 0
    pid_namespace: int = 0


class Executable:
    """A file, with the face of `gotrace.kernel.process.Process`: probes are attached to every process that runs it.

    ``linker`` is the path of its dynamic linker, "" for none. ``until`` is what ends a start ("main", "listen",
    "first-gc", or "" for its exit), ``until_ns`` its longest time, or 0.
    """

    pid = -1

    def __init__(self, path: str, linker: str, which: Filter, until: str, until_ns: int) -> None:
        self.exe_path = self.exe_name = path
        self.linker = linker
        self.which = which
        self.until, self.until_ns = until, until_ns

    def identity(self) -> tuple[int, ...]:
        """What tells this file and its dynamic linker from any other, and from themselves after a change."""
        numbers: list[int] = []
        for path in filter(None, (self.exe_path, self.linker)):
            try:
                status = os.stat(path)
            except OSError as error:
                raise TargetError(f"{path} cannot be looked at: {error.strerror}", "give a file that stays") from None
            numbers += (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return tuple(numbers)

    def load_bias(self, _: int) -> int:
        """0: every process has its own, which it tells itself."""
        return 0

    def time_offset_ns(self) -> int:
        return 0

    def thread_name(self, _: int) -> bytes:
        return b""

    def wait_exit(self, seconds: float) -> bool:
        """Files do not exit."""
        time.sleep(max(0.0, seconds))
        return False

    def exec_changed(self) -> bool:
        return False


def cgroup_of(path: str) -> tuple[int, int]:
    """(id, how deep it is) of a cgroup by its folder in cgroupfs of version 2. Raises GotraceError."""
    hint = "give a folder below the cgroup2 mount, as /sys/fs/cgroup/system.slice"
    folder = os.path.realpath(path)
    if not os.path.exists(os.path.join(folder, "cgroup.procs")) or os.path.exists(os.path.join(folder, "tasks")):
        raise GotraceError(f"{path} is no cgroup of version 2", hint)
    depth = 0
    while os.path.exists(os.path.join(folder, "..", "cgroup.procs")) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
        depth += 1
    return os.stat(path).st_ino, depth


def pid_namespace_of(path: str) -> int:
    """The number of a PID namespace by its file, as /proc/PID/ns/pid. Raises GotraceError."""
    try:
        if os.readlink(path).startswith("pid:["):
            return os.stat(path).st_ino
    except OSError:
        pass
    raise GotraceError(f"{path} is no PID namespace", "give /proc/PID/ns/pid of a process in it")

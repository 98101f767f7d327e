"""An executable file to wait for: what identifies a start of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from gotrace.errors import GotraceError, TargetError
from gotrace.kernel.mounts import mounts
from gotrace.kernel.process import OpenFile


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
    "first-gc", or "" for its exit), ``until_ns`` its longest time, or 0. ``tools`` are programs that are watched besides.
    With ``copies`` files of that name and size are waited for too: an image that is still to be pulled has one.
    """

    pid = -1

    def __init__(
        self,
        path: str,
        linker: str,
        which: Filter,
        until: str,
        until_ns: int,
        tools: tuple[str, ...] = (),
        copies: bool = False,
    ) -> None:
        self.exe_path = self.exe_name = path
        self.linker, self.tools = linker, tools
        self.which = which
        self.until, self.until_ns, self.copies = until, until_ns, copies

    def open_libraries(self, _: Callable[[str], bool]) -> dict[str, OpenFile]:
        """Its dynamic linker and the tools, by their paths. Raises TargetError."""
        found: dict[str, OpenFile] = {}
        for path in filter(None, (self.linker, *self.tools)):
            try:
                found[path] = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0)
            except OSError as error:
                for file in found.values():
                    os.close(file.fd)
                raise TargetError(
                    f"{path} cannot be read: {error.strerror}", "give a file that is not removed meanwhile"
                ) from None
        return found

    def load_bias(self, _: int, __: int | None = None) -> int:
        """0: every process has its own, which it reports itself."""
        return 0

    def time_offset_ns(self) -> int:
        return 0

    def thread_name(self, _: int) -> bytes:
        return b""

    def wait(self, seconds: float) -> bool:
        """Files do not exit."""
        time.sleep(max(0.0, seconds))
        return False

    def exec_changed(self) -> bool:
        return False


class ControlGroup(Executable):
    """All processes of a cgroup, for probes that know no program: they run as if in our own executable."""

    def __init__(self, path: str) -> None:
        """Raises GotraceError."""
        number, level = cgroup_of(path)
        super().__init__(os.path.realpath("/proc/self/exe"), "", Filter(cgroup=number, cgroup_level=level), "", 0)
        self.exe_name = f"cgroup {path}"
        self._folder = os.path.realpath(path)

    def gone(self) -> str:
        """That it is not there any more, or ""."""
        return "" if os.path.isdir(self._folder) else "cgroup removed"


def cgroup_of(path: str) -> tuple[int, int]:
    """(id, how deep it is) of a cgroup by its folder in cgroupfs of version 2. Raises GotraceError."""
    mounted = [each.point for each in mounts(os.getpid()) if each.type == "cgroup2"]  # on a hybrid host not where one looks
    hint = f"give a directory below the cgroup2 mount, such as {mounted[0] if mounted else '/sys/fs/cgroup'}/system.slice"
    folder = os.path.realpath(path)
    if not os.path.exists(os.path.join(folder, "cgroup.procs")) or os.path.exists(os.path.join(folder, "tasks")):
        raise GotraceError(f"{path} is not a cgroup v2 directory", hint)
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
    raise GotraceError(f"{path} is not a PID namespace", "give /proc/PID/ns/pid of a process in it")

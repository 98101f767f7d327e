"""A target process through procfs: what it is, whether it still is, and where its executable is loaded.

Every read expects that the process may be gone. The executable is always ``/proc/PID/exe``: it names the right file for
a process in another mount namespace, and for one whose file was deleted or replaced.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from typing import NamedTuple

from gotrace.errors import GotraceError, HostError, TargetError
from gotrace.text import printable

_DELETED = " (deleted)"


class Mapping(NamedTuple):
    """A part of a process's address space; ``path`` is "" for none, ``[name]`` for the kernel's own."""

    begin: int
    end: int
    executable: bool
    offset: int
    path: str


class Process:
    """A process that existed when it was opened. Use `open`."""

    def __init__(self, pid: int, exe_name: str, pidfd: int | None) -> None:
        self.pid = pid
        self.exe_path = f"/proc/{pid}/exe"
        self.deleted = exe_name.endswith(_DELETED) and not self._has_name(exe_name)
        self.exe_name = exe_name.removesuffix(_DELETED) if self.deleted else exe_name
        self._pidfd = pidfd
        self._comm = _first_line(f"/proc/{pid}/comm")
        self._identity: tuple[int, ...] = ()
        with contextlib.suppress(TargetError):
            self._identity = self.identity()

    @classmethod
    @contextlib.contextmanager
    def open(cls, pid: int) -> Iterator[Process]:
        """Raises TargetError when ``pid`` is no process that can be traced, HostError when it may not be looked at."""
        pidfd = _pidfd(pid)
        try:
            yield cls(pid, _exe_name(pid), pidfd)
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _has_name(self, name: str) -> bool:
        """Whether the executable is to be found under ``name``, which may itself end in " (deleted)"."""
        try:
            return os.path.samefile(self.exe_path, f"/proc/{self.pid}/root/{name}")
        except OSError:
            return False

    def identity(self) -> tuple[int, ...]:
        """What tells this executable file from any other, and from itself after a change."""
        try:
            status = os.stat(self.exe_path)
        except OSError as error:
            raise (_refused if isinstance(error, PermissionError) else _gone)(self.pid) from None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def wait_exit(self, seconds: float) -> bool:
        """Sleep up to ``seconds``; True as soon as the process has exited."""
        if self._pidfd is None:
            time.sleep(max(0.0, seconds))
            try:
                return _status(self.pid).get("State", "").startswith(("Z", "X"))
            except GotraceError as error:
                return isinstance(error, TargetError)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def exec_changed(self) -> bool:
        """Whether the process has executed another program since it was opened.

        Once root is given up the executable of somebody else's process cannot be looked at: then the change of its
        name, which everybody may read, has to do.
        """
        try:
            status = os.stat(self.exe_path)
        except FileNotFoundError:
            return False  # exiting
        except OSError:
            return _first_line(f"/proc/{self.pid}/comm") not in (self._comm, "")
        return bool(self._identity) and (status.st_dev, status.st_ino) != self._identity[:2]

    def load_bias(self, first_vaddr: int) -> int:
        """How far a position-independent executable is moved: its lowest mapping minus its lowest link-time page."""
        try:
            status = os.stat(self.exe_path)
            with open(f"/proc/{self.pid}/maps", "rb") as file:  # names may be of any bytes
                for line in file:
                    fields = line.split(None, 5)
                    major, minor = (int(part, 16) for part in fields[3].split(b":"))
                    if int(fields[4]) == status.st_ino and self._same_device(major, minor, status.st_dev):
                        return int(fields[0].split(b"-")[0], 16) - first_vaddr
        except OSError as error:
            raise (_refused if isinstance(error, PermissionError) else _gone)(self.pid) from None
        raise TargetError(f"the executable of process {self.pid} is not mapped", "it may be about to exit; try again")

    def mappings(self) -> list[Mapping]:
        """Everything the process has mapped, from low to high. Raises TargetError or HostError."""
        found = []
        try:
            with open(f"/proc/{self.pid}/maps", "rb") as file:
                for line in file:
                    fields = line.rstrip(b"\n").split(None, 5)
                    begin, end = (int(part, 16) for part in fields[0].split(b"-"))
                    path = os.fsdecode(fields[5]) if len(fields) > 5 else ""
                    found.append(Mapping(begin, end, b"x" in fields[1], int(fields[2], 16), path))
        except OSError as error:
            raise (_refused if isinstance(error, PermissionError) else _gone)(self.pid) from None
        return found

    def thread_name(self, tid: int) -> bytes:
        """The name of one of its threads; empty for a thread that is none of its, or none any more."""
        try:
            with open(f"/proc/{self.pid}/task/{tid}/comm", "rb") as file:
                return file.read().rstrip(b"\n")
        except OSError:
            return b""

    def open_mapped(self, mapping: Mapping) -> int:
        """A descriptor of the very file that is mapped, whatever became of its name. Raises OSError."""
        name = f"/proc/{self.pid}/map_files/{mapping.begin:x}-{mapping.end:x}"
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC)

    @staticmethod
    def _same_device(major: int, minor: int, device: int) -> bool:
        # overlayfs and btrfs report another device in maps than stat does: the inode has to be enough there.
        return (major, minor) == (os.major(device), os.minor(device)) or major == 0

    def time_offset_ns(self) -> int:
        """What the process's time namespace adds to CLOCK_MONOTONIC, in nanoseconds."""
        try:
            if os.readlink(f"/proc/{self.pid}/ns/time") == os.readlink("/proc/self/ns/time"):
                return 0
            with open(f"/proc/{self.pid}/timens_offsets") as file:
                for line in file:
                    name, seconds, nanoseconds = line.split()
                    if name in ("monotonic", "1"):
                        return int(seconds) * 1_000_000_000 + int(nanoseconds)
        except (OSError, ValueError):
            pass  # a kernel without time namespaces (before 5.6)
        return 0


def _exe_name(pid: int) -> str:
    status = _status(pid)
    leader = int(status.get("Tgid", str(pid)))
    if leader != pid:
        raise TargetError(f"{pid} is a thread of process {leader}", f"use --pid {leader}")
    if status.get("State", "").startswith(("Z", "X")):
        raise TargetError(f"process {pid} has exited already (a zombie)", "give the pid of a running Go program")
    # Kthread came with Linux 6.8. Before it: a process that is just exiting has no memory either, but kthreadd (2) is
    # the parent of kernel threads only.
    family = "2" in (status.get("PPid"), str(pid))
    if status.get("Kthread", "1" if family and "VmSize" not in status else "0") == "1":
        name = printable(status.get("Name", "?"))
        raise TargetError(f"{pid} is a kernel thread ({name})", "give the pid of a Go program")
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        raise _refused(pid) from None
    except OSError:
        raise _gone(pid) from None


def _status(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/status", errors="surrogateescape") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except PermissionError:
        raise _refused(pid) from None  # /proc mounted with hidepid
    except (FileNotFoundError, ProcessLookupError):
        raise _gone(pid) from None


def _pidfd(pid: int) -> int | None:
    if pid <= 0:
        raise TargetError(f"{pid} is no process id", "give the pid of a running Go program")
    try:
        return os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError):
        raise _gone(pid) from None
    except OSError:
        return None  # no pidfd on this kernel, or the id of a thread: the status tells which


def _gone(pid: int) -> TargetError:
    return TargetError(f"there is no process with pid {pid}", "find it with `pgrep -a NAME`")


def _refused(pid: int) -> HostError:
    return HostError(f"process {pid} may not be looked at", "run as root (sudo), or as the process's own user")


def _first_line(path: str) -> str:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.readline().strip()
    except OSError:
        return ""

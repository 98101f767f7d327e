"""A target process through procfs: what it is, whether it still is, and where its executable is loaded.

Every read expects that the process may be gone. The executable is always ``/proc/PID/exe``: it names the right file for
a process in another mount namespace, and for one whose file was deleted or replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gotrace import cache
from gotrace.errors import GotraceError, HostError, TargetError, told_of
from gotrace.kernel import privileges
from gotrace.text import printable

_DELETED = " (deleted)"
_MOST = 16  # of one family: a larger one has its work done by many, and is no launcher with its server
_FAULTING = re.compile(rb"\b(handle_mm_fault|do_user_addr_fault|exc_page_fault|do_page_fault)\b")  # x86, arm64


class MemoryMapping(NamedTuple):
    """A part of a process's address space; ``path`` is "" for none, ``[name]`` for the kernel's own."""

    begin: int
    end: int
    executable: bool
    offset: int
    path: str


class OpenFile(NamedTuple):
    """A descriptor of a file, and where a process has, or would have, the file's begin in its memory."""

    fd: int
    base: int


class Process:
    """A process that existed when it was opened. Use `open`."""

    def __init__(self, pid: int, exe_name: str, pidfd: int | None, memory: int = -1) -> None:
        self.pid = pid
        self.exe_path = f"/proc/{pid}/exe"
        self.deleted = exe_name.endswith(_DELETED) and not self._has_name(exe_name)
        self.exe_name = exe_name.removesuffix(_DELETED) if self.deleted else exe_name
        self._pidfd = pidfd
        self._polls: dict[tuple[int, ...], select.poll] = {}  # by the other descriptors that end a wait
        # The address space: it is another one behind an execve. -1 where it could not be opened.
        self.memory_fd = memory
        self._maps_fd = -1  # read again and again, when root has been given up too
        with contextlib.suppress(OSError):
            self._maps_fd = os.open(f"/proc/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
        if memory < 0:
            with contextlib.suppress(OSError):
                self.memory_fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def exit_fd(self) -> int | None:
        """A descriptor that becomes readable when it ends; None where the kernel has no such (before 5.3)."""
        return self._pidfd

    @classmethod
    @contextlib.contextmanager
    def open(cls, pid: int) -> Iterator[Process]:
        """Raises TargetError if ``pid`` is not a traceable process, HostError without permission."""
        with contextlib.ExitStack() as stack:
            pidfd = _pidfd(pid)
            if pidfd is not None:
                stack.callback(os.close, pidfd)
            process = cls(pid, _exe_name(pid), pidfd)
            for fd in (process.memory_fd, process._maps_fd):
                if fd >= 0:
                    stack.callback(os.close, fd)
            yield process

    def reopened(self) -> Process:
        """Itself as it is now, after an execve: until we end."""
        return Process(self.pid, _exe_name(self.pid), self._pidfd)

    def renamed(self, pid: int, exe_name: str, memory: int) -> Process:
        """Itself after it has executed ``exe_name``, or a process that it has started: until we end.

        ``memory`` is a descriptor of its address space, from who was allowed to open it.
        """
        pidfd = self._pidfd
        if pid != self.pid:
            pidfd = None
            with contextlib.suppress(TargetError):  # it has ended
                pidfd = _pidfd(pid)
        return Process(pid, exe_name, pidfd, memory)

    def _has_name(self, name: str) -> bool:
        """Whether the executable is found under ``name``, which may itself end in " (deleted)"."""
        try:
            return os.path.samefile(self.exe_path, f"/proc/{self.pid}/root/{name}")
        except OSError:
            return False

    def identity(self) -> tuple[int, ...]:
        """That of its executable file; see `gotrace.cache.identity`. Raises TargetError or HostError."""
        try:
            return cache.identity(self.exe_path)
        except OSError as error:
            raise _unread(self.pid, error) from None

    def wait(self, seconds: float, *others: int) -> bool:
        """Sleep up to ``seconds``; True as soon as the process has exited. ``others`` are descriptors that end it too."""
        poll = self._polls.get(others)
        if poll is None:
            poll = self._polls[others] = select.poll()
            for fd in (*others, *([self._pidfd] if self._pidfd is not None else [])):
                poll.register(fd, select.POLLIN)
        if self._pidfd is None:
            poll.poll(max(0.0, seconds) * 1000)
            try:
                return _status(self.pid).get("State", "").startswith(("Z", "X"))
            except GotraceError as error:
                return isinstance(error, TargetError)
        return any(fd == self._pidfd for fd, _ in poll.poll(max(0.0, seconds) * 1000))

    def exec_changed(self) -> bool:
        """Whether the process has executed a program since it was opened, be it the same one again.

        Known even after root was given up; False where its memory could not be opened in the first place.
        """
        if self.memory_fd < 0:
            return False
        try:
            if os.pread(self.memory_fd, 1, 0):
                return False
        except OSError:
            return False  # there is nothing at this address, but there are addresses
        try:
            return "VmSize" in _status(self.pid)  # otherwise it is exiting
        except GotraceError:
            return False

    def load_bias(self, first_vaddr: int, exe: int | None = None) -> int:
        """How far a position-independent executable is moved: its lowest mapping minus its lowest link-time page.

        ``exe`` is a descriptor of it, if it is open.
        """
        try:
            status = os.stat(self.exe_path if exe is None else exe)
            with open(f"/proc/{self.pid}/maps", "rb") as file:  # names may be of any bytes
                for line in file:
                    fields = line.split(None, 5)
                    major, minor = (int(part, 16) for part in fields[3].split(b":"))
                    if int(fields[4]) == status.st_ino and self._same_device(major, minor, status.st_dev):
                        return int(fields[0].split(b"-")[0], 16) - first_vaddr
        except OSError as error:
            raise _unread(self.pid, error) from None
        raise TargetError(f"the executable of process {self.pid} is not mapped", "it may be exiting; try again")

    def mappings(self) -> list[MemoryMapping]:
        """Everything the process has mapped, from low to high. Raises TargetError or HostError."""
        found = []
        kept = self._maps_fd >= 0
        try:
            with open(self._maps_fd if kept else f"/proc/{self.pid}/maps", "rb", closefd=not kept) as file:
                file.seek(0)
                for line in file:
                    fields = line.rstrip(b"\n").split(None, 5)
                    begin, end = (int(part, 16) for part in fields[0].split(b"-"))
                    path = os.fsdecode(fields[5]) if len(fields) > 5 else ""
                    found.append(MemoryMapping(begin, end, b"x" in fields[1], int(fields[2], 16), path))
        except OSError as error:
            raise _unread(self.pid, error) from None
        return found

    def thread_name(self, tid: int) -> bytes:
        """The name of one of its threads; empty for a thread that is none of its, or none any more."""
        try:
            with open(f"/proc/{self.pid}/task/{tid}/comm", "rb") as file:
                return file.read().rstrip(b"\n")
        except OSError:
            return b""

    def in_page_fault(self, tid: int) -> bool:
        """Whether one of its threads waits in a page fault, by its stack in the kernel. Raises TargetError or HostError."""
        try:
            with open(f"/proc/{self.pid}/task/{tid}/stack", "rb") as file:
                return bool(_FAULTING.search(file.read()))
        except PermissionError:
            raise _refused(self.pid) from None
        except (FileNotFoundError, ProcessLookupError) as error:
            if os.path.exists(f"/proc/{self.pid}/task/{tid}/comm"):
                raise HostError("this kernel does not expose its stacks", "use one with CONFIG_STACKTRACE") from error
            return False

    def open_mapped(self, mapping: MemoryMapping) -> int:
        """A descriptor of the very file that is mapped, whatever became of its name. Raises OSError."""
        name = f"/proc/{self.pid}/map_files/{mapping.begin:x}-{mapping.end:x}"
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC)

    def opened_code(self, wanted: Callable[[str], bool] = bool) -> list[tuple[MemoryMapping, int]]:
        """Every mapping of code from a file, with a descriptor of this very file. Raises TargetError or HostError.

        ``wanted`` says of a path whether it is: the process's own name for the file, be it in a container.
        """
        found = []
        for mapping in self.mappings():
            if mapping.executable and mapping.path.startswith("/") and wanted(mapping.path):
                with contextlib.suppress(OSError):
                    found.append((mapping, self.open_mapped(mapping)))
        return found

    def open_libraries(self, wanted: Callable[[str], bool]) -> dict[str, OpenFile]:
        """Each mapped file of code that is ``wanted``, by its path. Raises TargetError or HostError."""
        found: dict[str, OpenFile] = {}
        for mapping, fd in self.opened_code(wanted):
            if mapping.path in found:
                os.close(fd)
            else:
                found[mapping.path] = OpenFile(fd, mapping.begin - mapping.offset)
        return found

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


def family(pid: int, most: int = _MOST) -> list[int]:
    """The processes that it has started, those that these have started, and so on; ``most`` of them at most."""
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) < most:
        parent = waiting.pop(0)
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{thread}/children") as file:
                    children = [int(word) for word in file.read().split()]
                    found += children
                    waiting += children
    return found[:most]


def is_there(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _exe_name(pid: int) -> str:
    status = _status(pid)
    leader = int(status.get("Tgid", str(pid)))
    if leader != pid:
        raise TargetError(f"{pid} is a thread of process {leader}", f"use --pid {leader}")
    if status.get("State", "").startswith(("Z", "X")):
        raise TargetError(f"process {pid} has already exited (zombie)", "give the pid of a running process")
    # Kthread came with Linux 6.8. Before it: a process that is just exiting has no memory either, but kthreadd (2) is
    # the parent of kernel threads only.
    family = "2" in (status.get("PPid"), str(pid))
    if status.get("Kthread", "1" if family and "VmSize" not in status else "0") == "1":
        name = printable(status.get("Name", "?"))
        raise TargetError(f"{pid} is a kernel thread ({name})", "give the pid of a program")
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError as error:
        raise _unread(pid, error) from None


def _status(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/status", errors="surrogateescape") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError as error:
        raise _unread(pid, error) from None


def _pidfd(pid: int) -> int | None:
    if pid <= 0:
        raise TargetError(f"{pid} is not a valid process id", "give the pid of a running process")
    try:
        return os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError):
        raise _gone(pid) from None
    except OSError:
        return None  # no pidfd on this kernel, or the id of a thread: the status says which


def _unread(pid: int, error: OSError) -> TargetError | HostError:
    """Why a file of a process in /proc could not be read."""
    if isinstance(error, PermissionError):
        return _refused(pid)  # or /proc is mounted with hidepid
    if error.errno in (errno.EMFILE, errno.ENFILE):
        told = told_of(error)
        return HostError(told.message, told.hint)
    return _gone(pid)


def _gone(pid: int) -> TargetError:
    return TargetError(f"there is no process with pid {pid}", "`gotrace ps` lists the Go processes")


def _refused(pid: int) -> HostError:
    return privileges.refused(
        f"permission denied inspecting process {pid}",
        privileges.PROTECTED,
        "run as root (sudo), or as the process's own user",
    )

"""The Go processes of this host: a cheap look at each process, and one at each executable, however often that runs.

What is asked of every process is which file it executes: one system call. The rest is read of Go programs only. A process
that ends meanwhile is not there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gotrace import cache
from gotrace.binary.buildinfo import read_build_info
from gotrace.binary.elf import Elf
from gotrace.binary.identity import identify
from gotrace.errors import BinaryError, UntraceableError
from gotrace.find.names import UNKNOWN, Container, Names
from gotrace.find.places import Place, place_of
from gotrace.run.refusal import named

TICKS = os.sysconf("SC_CLK_TCK")  # a second
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PF_KTHREAD = 0x00200000  # include/linux/sched.h
_DELETED = " (deleted)"
_OF_GO = {".go.buildinfo", ".gopclntab", ".note.go.buildid", ".go_export"}  # the last one: gccgo's
_LARGEST = 512 << 20
_MOST_KEPT = 1 << 16  # executables: more than that many are none that run


@dataclass(frozen=True)
class Executable:
    """A Go program's file: ``go_version`` as `go version` prints it, "" if unknown; ``path`` is the main package's import
    path, "" if unknown. ``refusal`` says why it cannot be traced ("it was built with go1.15"), "" if it can, and ``hint``
    what to do about that."""

    go_version: str
    path: str
    stripped: bool
    refusal: str = ""
    hint: str = ""


_ANY = Executable("", "", False)


@dataclass(frozen=True)
class GoProcess:
    """A Go process when it was looked at, or any where every one is found. (``pid``, ``start``) is never another process's.

    ``start`` are clock ticks since boot, ``age_s`` seconds since then; ``comm`` is the kernel's name for it (15 bytes),
    ``exe`` its executable's path, as the process itself has it; ``file`` identifies the executable: see
    `gotrace.cache.identity`. Names are somebody else's choice: escape them.
    """

    pid: int
    start: int
    age_s: float
    parent: int
    comm: str
    exe: str
    file: tuple[int, ...]
    executable: Executable
    place: Place
    container: Container = UNKNOWN

    @property
    def name(self) -> str:
        return os.path.basename(self.exe)

    def is_same(self, other: GoProcess | None) -> bool:
        """Whether ``other`` is it, executing the same file: one that was renamed is, though its status has changed."""
        return other is not None and (other.start, other.file[:-1]) == (self.start, self.file[:-1])

    def is_there(self) -> bool:
        """Whether it still runs: a zombie does not."""
        try:
            fields = stat_of(self.pid)
            return int(fields[19]) == self.start and fields[0] != b"Z"
        except OSError:
            return False

    def cpu_s(self) -> float:
        """What its threads ran since it began, in seconds. Raises OSError."""
        return sum(map(int, stat_of(self.pid)[11:13])) / TICKS

    def rss_bytes(self) -> int:
        """Raises OSError. Of statm: stat leaves out what each CPU has not added yet, which is up to 128 kB of each on a
        machine with few of them, and more with many (fs/proc/array.c, mm_counter of Linux 6.16)."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE


@dataclass
class Scan:
    """``seen`` counts all processes but kernel threads; ``unreadable`` are pids whose executables this user may not see."""

    processes: list[GoProcess] = field(default_factory=list)
    seen: int = 0
    unreadable: list[int] = field(default_factory=list)


class Scanner:
    """Keeps what it learned of executables. ``naming`` says what is known of a container: by default what is in files.

    With ``every`` all processes are found, whatever they execute, and nothing is read of executables.
    """

    def __init__(self, naming: Callable[[Place], Container] | None = None, every: bool = False) -> None:
        self._every = every
        self._naming = naming or Names().of
        self._known: dict[tuple[int, ...], Executable | None] = {}  # None: no Go program

    def scan(self) -> Scan:
        """What there is now, by pid."""
        found = Scan()
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
            try:
                file = cache.identity(f"/proc/{pid}/exe")
                if self._known.get(file, file) is not None:  # else one that is known to be something else
                    process = self._looked_at(pid)
                    if process is not None:
                        found.processes.append(process)
            except PermissionError:
                if _is_the_kernels(pid):
                    continue
                found.unreadable.append(pid)
            except OSError:  # a kernel thread, a zombie, or gone
                continue
            found.seen += 1
        return found

    def look(self, pid: int) -> GoProcess | None:
        """One process, if it is one of Go, and there; not a thread, which has a folder in /proc by its number, too."""
        try:
            found = self._looked_at(pid)
            return found if found is None or _is_process(pid) else None
        except OSError:
            return None

    def _looked_at(self, pid: int) -> GoProcess | None:
        """The process if it is one of Go. Raises OSError."""
        folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # everything that is read from there is of this process, or an error: never of one with its pid
            file = cache.identity(f"/proc/self/fd/{folder}/exe")
            executable = self._executable(folder, file)
            if executable is None:
                return None
            head, fields = _stat(_read("stat", folder))
            start = int(fields[19])
            place = place_of(os.fsdecode(_read("cgroup", folder)))
            return GoProcess(
                pid=pid,
                start=start,
                age_s=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / TICKS),
                parent=int(fields[1]),
                comm=os.fsdecode(head.partition(b"(")[2]),
                exe=os.readlink("exe", dir_fd=folder).removesuffix(_DELETED),
                file=file,
                executable=executable,
                place=place,
                container=self._naming(place),
            )
        finally:
            os.close(folder)

    def _executable(self, folder: int, file: tuple[int, ...]) -> Executable | None:
        if self._every:
            return _ANY
        if file not in self._known:
            descriptor = os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
            try:
                about = executable_of(f"/proc/self/fd/{descriptor}")
                file = cache.identity(descriptor)  # it may have executed another one
            finally:
                os.close(descriptor)
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[file] = about
        return self._known[file]


def roots(processes: Sequence[GoProcess]) -> list[GoProcess]:
    """Those whose parents are not among them."""
    pids = {process.pid for process in processes}
    return [process for process in processes if process.parent not in pids]


def executable_of(path: str) -> Executable | None:
    """The Go program at ``path``, one that cannot be traced too; None for anything else.

    Only headers, notes and the build information are read. Of a file without section headers, or of a Go program without
    build information, more has to be: anybody may run one, so a large one is not searched.
    """
    try:
        large = os.stat(path).st_size > _LARGEST
        if large and not _is_wide(path):
            return None
        with Elf.open(path) as elf:
            if not _may_be_go(elf, large):
                return None
            if large:
                return Executable("", "", not elf.has_symtab, f"its executable is larger than {_LARGEST >> 20} MiB")
            info = None
            try:
                info = identify(elf)
            except UntraceableError as error:
                with contextlib.suppress(BinaryError):
                    info = read_build_info(elf)
                return _refused(error, path, not elf.has_symtab, info.go_version if info is not None else "")
            return Executable(info.go_version, info.path, stripped=not elf.has_symtab)
    except UntraceableError as error:  # of another architecture
        return _refused(error, path, stripped=False)
    except (BinaryError, OSError):
        return None


def _is_wide(path: str) -> bool:
    """Whether it is a 64-bit ELF file: of others the whole is searched."""
    with open(path, "rb") as file:
        return file.read(5) == b"\x7fELF\x02"


def _refused(error: BinaryError, path: str, stripped: bool, go_version: str = "") -> Executable:
    told = named(error, path, "it")
    return Executable(go_version, "", stripped, told.message, told.hint)


def _may_be_go(elf: Elf, large: bool) -> bool:
    if not elf.sections:
        return not large
    return not _OF_GO.isdisjoint(elf.sections) or any(name.startswith("libgo.so.") for name in elf.needed())


def _stat(line: bytes) -> tuple[bytes, list[bytes]]:
    """The part of a /proc/PID/stat with the name, and the fields behind it: proc(5) counts the first of them as 3."""
    head, _, tail = line.rpartition(b")")
    return head, tail.split()


def stat_of(pid: int) -> list[bytes]:
    """The fields behind the name of /proc/PID/stat: proc(5) counts the first of them as 3. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return _stat(file.read())[1]


def _is_process(pid: int) -> bool:
    """Raises OSError."""
    with open(f"/proc/{pid}/status", "rb") as file:
        return b"\nTgid:\t%d\n" % pid in file.read()


def _is_the_kernels(pid: int) -> bool:
    """Whether it is a kernel thread, for who may not see that it executes nothing; or gone."""
    try:
        return bool(int(stat_of(pid)[6]) & _PF_KTHREAD)
    except OSError:
        return True


def _read(name: str, folder: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)

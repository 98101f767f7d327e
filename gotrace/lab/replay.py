"""A recording's calls on files, made again in a folder of their own.

The recording is not trusted: no name of it becomes a name here. Files are numbers in one folder, which was empty, and are
created (O_EXCL) and opened (O_NOFOLLOW) below its descriptor; sizes are checked against what the file system has room for.

Each recorded thread is a process of ours (threads that were not there at the same time share one), because the threads of
a Python wait for each other. What they find they write into memory that all share; who makes calls knows no names.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gotrace.analysis import datapath_replay as plan
from gotrace.analysis.histogram import Histogram
from gotrace.errors import GotraceError
from gotrace.kernel.page_cache import resident
from gotrace.lab.children import preparation
from gotrace.records.watched import statistics
from gotrace.run.target import StopRequest
from gotrace.text import bytes_text, count_text, printable
from gotrace.views.datapath_load import DataPathLoad
from gotrace.views.view import Record

Say = Callable[[str], None]

_KERNELS = {"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "bpf", "securityfs", "devpts"}
_FOLDER = 0x4000
_CHUNK = 1 << 20
_MOST_WORKERS = 1000
_BUFFER = 2 << 20  # of which a call has up to IOV_MAX (1024), which is what one call can move
_WAIT_S, _READY_S = 0.05, 0.002
# What became of an operation.
_WAITING, _DONE, _FAILED = range(3)
_SHARED = np.dtype([("took_ns", "i8"), ("late_ns", "i8"), ("state", "i8")])


@dataclass(frozen=True)
class Material:
    """What a replay is made of. ``filled`` bytes are in the files before it begins, ``written`` are the most it adds."""

    operations: npt.NDArray[Any]
    left_out: dict[tuple[int, str], int]
    worker_of: plan.Ints
    is_folder: plan.Flags  # of each file
    sizes: plan.Ints
    read: plan.Ranges
    filled: int
    written: int
    sparse: bool

    @property
    def workers(self) -> int:
        return int(self.worker_of.max(initial=-1)) + 1

    @property
    def files(self) -> int:
        return len(self.is_folder) - self.folders

    @property
    def folders(self) -> int:
        return int(self.is_folder.sum())

    @property
    def cold_reads(self) -> tuple[int, int]:
        """Of the reads, those that had missed the page cache, and all."""
        reads = self.operations[self.operations["kind"] == plan.READ]
        return int(reads["cold"].sum()), len(reads)


def material(view: DataPathLoad, sparse: bool = False) -> Material:
    """Raises GotraceError if there is nothing to replay, or too much at once."""
    calls = view.found
    of_number = {number: call.name for number, call in view.calls.items()}
    kinds = np.zeros(1 << 12, np.int64)
    positioned = np.zeros(1 << 12, bool)
    for number, name in of_number.items():
        kinds[number], positioned[number] = plan.KINDS.get(name, plan.NOTHING), name in plan.POSITIONED
    nodes, back = np.unique(calls["file"], return_inverse=True)
    files, is_folder = _numbered(view, nodes)
    mounts = view.places.mounts_of(nodes)
    kernels = [number for number in np.unique(mounts).tolist() if view.places.type_of(number) in _KERNELS]
    found = plan.planned(
        calls, kinds[calls["number"]], positioned[calls["number"]], files[back], np.isin(mounts, kernels)[back]
    )
    operations = found.operations
    if not len(operations):
        raise GotraceError("the recording has no calls that can be replayed", "`--dry-run` shows what it holds")
    # Only what is used is made.
    used, operations["file"] = np.unique(operations["file"], return_inverse=True)
    is_folder = is_folder[used]
    operations["size"][is_folder[operations["file"]]] = 0
    worker_of = plan.workers(operations)
    if (count := int(worker_of.max()) + 1) > _MOST_WORKERS:
        raise GotraceError(
            f"{count_text(count, 'thread')} at once are too many to replay", f"at most {_MOST_WORKERS:,} can be replayed"
        )
    read, written = plan.ranges(operations, plan.READ), plan.ranges(operations, plan.WRITE)
    return Material(
        operations,
        dict(found.left_out),
        worker_of,
        is_folder,
        plan.sizes(read, len(used)),
        read,
        0 if sparse else int((read.ends - read.begins).astype(float).sum()),
        int((written.ends - written.begins).astype(float).sum()),
        sparse,
    )


def _numbered(view: DataPathLoad, nodes: npt.NDArray[np.uint64]) -> tuple[plan.Ints, plan.Flags]:
    """The number of each node's file (-1: unknown), and of each number whether it is a folder. One path is one file."""
    numbers: dict[bytes, int] = {}
    found = np.full(len(nodes), -1, np.int64)
    folders: set[int] = set()
    _, modes = view.places.names.places(nodes)
    for at, (node, path, mode) in enumerate(
        zip(nodes.tolist(), view.places.names.paths(nodes), modes.tolist(), strict=True)
    ):
        if not node:
            continue
        key = path if path.startswith(b"/") else b"node %d" % node
        found[at] = numbers.setdefault(key, len(numbers))
        if mode & 0xF000 == _FOLDER:
            folders.add(int(found[at]))
    is_folder = np.zeros(len(numbers), bool)
    is_folder[list(folders)] = True
    return found, is_folder


@contextlib.contextmanager
def folder(path: str, remove: bool = False) -> Iterator[int]:
    """A descriptor of an empty folder, made if need be. Raises GotraceError for one that is not.

    With ``remove`` what was made in it goes, and the folder if it was made here.
    """
    made = keep = False
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            made = True
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        hint = "give an empty directory, or one that does not exist"
        raise GotraceError(f"cannot replay into {printable(path)}: {error.strerror}", hint) from None
    try:
        if os.listdir(descriptor):
            raise GotraceError(f"cannot replay into {printable(path)}: it is not empty", "give an empty folder")
        yield descriptor
        keep = not remove
        if remove:
            _empty(descriptor)
    finally:
        os.close(descriptor)
        if made and not keep:
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(path)


def _empty(descriptor: int) -> None:
    """Remove what `_Files` has made: nothing has another name."""
    for name in os.listdir(descriptor):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=descriptor)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=descriptor)


def check_room(of: Material, descriptor: int) -> None:
    """Raises GotraceError if the file system has not as much room as is going to be written."""
    about = os.fstatvfs(descriptor)
    need = of.filled + of.written + 4096 * len(of.is_folder)
    if need > (room := about.f_bavail * about.f_frsize):
        raise GotraceError(
            f"the replay writes {bytes_text(need)}, but only {bytes_text(room)} are free",
            "give a directory on a larger file system, or --sparse if most of it is for reads",
        )
    if about.f_files and len(of.is_folder) > about.f_favail:
        raise GotraceError(
            f"the replay makes {count_text(len(of.is_folder), 'file')}, but only {about.f_favail:,} are free",
            "give a directory on another file system",
        )


def make_files(of: Material, descriptor: int, stop: StopRequest) -> None:
    """The files, with something random where they will be read: what compresses is not what data sets are like."""
    chunk = memoryview(os.urandom(_CHUNK))
    for number, (is_folder, size) in enumerate(zip(of.is_folder.tolist(), of.sizes.tolist(), strict=True)):
        if stop.signal:
            return
        if is_folder:
            os.mkdir(str(number), 0o700, dir_fd=descriptor)
            continue
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(str(number), flags, 0o600, dir_fd=descriptor), "r+b", buffering=0) as file:
            os.ftruncate(file.fileno(), size)
            if of.sparse:
                continue
            begin, end = np.searchsorted(of.read.files, [number, number + 1])
            for at in range(begin, end):
                place, upto = int(of.read.begins[at]), int(of.read.ends[at])
                while place < upto and not stop.signal:
                    place += os.pwrite(file.fileno(), chunk[: upto - place], place)


def drop(of: Material, descriptor: int) -> None:
    """Write the files to their disk, and drop their pages from the page cache."""
    for number in np.flatnonzero(of.sizes).tolist():
        file = os.open(str(number), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            os.fdatasync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def share_resident(of: Material, descriptor: int) -> float | None:
    """The share of the files' pages that are in the page cache; None if there are none."""
    found = pages = 0
    for number in np.flatnonzero(of.sizes).tolist():
        with contextlib.suppress(GotraceError):
            there, count = resident(f"/proc/self/fd/{descriptor}/{number}")
            found, pages = found + there, pages + count
    return found / pages if pages else None


def replay(
    view: DataPathLoad,
    of: Material,
    descriptor: int,
    speed: float | None,
    cold: bool = False,
    stop: StopRequest | None = None,
) -> tuple[Record, plan.Ints]:
    """Make the files and the calls: a `gotrace.records.datapath.DatapathReplay`, and how long each operation took (-1: it
    was not made). ``speed`` None: without waiting. Raises GotraceError."""
    stop = stop or StopRequest()
    try:
        make_files(of, descriptor, stop)
        if cold and not stop.signal:
            drop(of, descriptor)
    except OSError as error:
        raise GotraceError(f"cannot create the files: {error.strerror}", "give a writable directory") from None
    there = share_resident(of, descriptor)
    shared = np.frombuffer(mmap.mmap(-1, max(1, len(of.operations)) * _SHARED.itemsize), _SHARED)[: len(of.operations)]
    begin_ns = time.monotonic_ns()
    if not stop.signal:
        begin_ns = _run(of, descriptor, speed, shared, stop)
    ended = stop.signal or ("a worker failed" if (shared["state"] == _WAITING).any() else "all was replayed")
    result = _result(view, of, speed, shared, ended, time.monotonic_ns() - begin_ns, there)
    return result, np.where(shared["state"] == _WAITING, -1, shared["took_ns"])


def _run(of: Material, descriptor: int, speed: float | None, shared: npt.NDArray[Any], stop: StopRequest) -> int:
    """Start the workers and wait for them; when they began, in CLOCK_MONOTONIC."""
    start = np.frombuffer(mmap.mmap(-1, 8 * (1 + of.workers)), np.int64)  # the time, and which workers are ready
    own = [np.flatnonzero(of.worker_of == number) for number in range(of.workers)]
    pids: set[int] = set()
    prepare = preparation()
    parent = os.getpid()
    try:
        for number, rows in enumerate(own):
            pid = os.fork()
            if pid == 0:
                try:
                    prepare()
                    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the parent decides about the end
                        signal.signal(each, signal.SIG_IGN)
                    gc.disable()  # no pauses of ours
                    if os.getppid() == parent:
                        worker = _Worker(of, descriptor, speed, shared, rows)
                        start[1 + number] = 1
                        worker.work(start)
                finally:
                    os._exit(0)
            pids.add(pid)
        while not start[1:].all() and not stop.signal and pids:
            time.sleep(_READY_S)
            pids -= {pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0]}
        start[0] = time.monotonic_ns() + int(_READY_S * 2e9)
        while pids and not stop.signal:
            time.sleep(_WAIT_S)
            pids -= {pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0]}
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return int(start[0])


class _Worker:
    """Makes the calls of one thread after the other. A descriptor that a call needs and another thread has opened is opened
    first, outside of what is measured."""

    def __init__(
        self, of: Material, descriptor: int, speed: float | None, shared: npt.NDArray[Any], rows: plan.Ints
    ) -> None:
        self._operations, self._shared = of.operations[rows], shared
        self._rows = rows.tolist()
        self._folder, self._speed = descriptor, speed
        self._first_ns = int(of.operations["begin_ns"][0])
        written = np.zeros(len(of.is_folder), bool)
        writes = np.isin(of.operations["kind"], (plan.WRITE, plan.SYNC, plan.DATASYNC))
        written[of.operations["file"][writes]] = True
        self._flags = np.where(of.is_folder, os.O_DIRECTORY, np.where(written, os.O_RDWR, os.O_RDONLY)).tolist()
        self._sizes = of.sizes.tolist()
        self._fds: dict[tuple[int, int], list[int]] = {}
        self._buffer = mmap.mmap(-1, min(_BUFFER, max(1, int(self._operations["size"].max()))))
        self._buffer.write(os.urandom(len(self._buffer)))

    def work(self, start: npt.NDArray[np.int64]) -> None:
        while not start[0]:
            time.sleep(_READY_S)
        start_ns, columns = int(start[0]), self._operations
        names = ("begin_ns", "kind", "file", "process", "offset", "size", "absent")
        told = zip(self._rows, *(columns[name].tolist() for name in names), strict=True)
        for row, begin_ns, kind, file, process, offset, size, absent in told:
            due_ns = start_ns + (int((begin_ns - self._first_ns) / self._speed) if self._speed else 0)
            self._wait(due_ns)
            took_ns, late_ns, state = -1, 0, _FAILED
            try:
                call = self._prepared(kind, file, process, offset, size, absent)
                begin = time.monotonic_ns()
                did: Any = None
                with contextlib.suppress(FileNotFoundError):
                    did = call()
                took_ns = time.monotonic_ns() - begin
                late_ns = begin - due_ns
                if kind == plan.OPEN and did is not None:
                    self._fds.setdefault((process, file), []).append(did)
                moves = kind in (plan.READ, plan.WRITE)
                is_right = did == size if moves else (did is None) == absent
                state = _DONE if is_right else _FAILED
            except OSError:
                pass
            self._shared[row] = took_ns, late_ns, state

    @staticmethod
    def _wait(due_ns: int) -> None:
        while (left := due_ns - time.monotonic_ns()) > 0:
            time.sleep(min(left / 1e9, 60.0))

    def _open(self, file: int) -> int:
        flags = self._flags[file] | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(str(file), flags, dir_fd=self._folder)

    def _fd(self, process: int, file: int) -> int:
        opened = self._fds.setdefault((process, file), [])
        if not opened:
            opened.append(self._open(file))
        return opened[-1]

    def _vectors(self, size: int) -> list[memoryview]:
        whole, rest = divmod(size, len(self._buffer))
        view = memoryview(self._buffer)
        return [view] * whole + ([view[:rest]] if rest else [])

    def _prepared(self, kind: int, file: int, process: int, offset: int, size: int, absent: bool) -> Callable[[], Any]:
        """The call, ready to be made; it returns None, or raises FileNotFoundError, where there is no such file."""
        name = f"absent-{file}" if absent else str(file)
        if kind == plan.STAT:
            return lambda: os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        if kind == plan.ACCESS:
            return lambda: os.access(name, os.F_OK, dir_fd=self._folder) or None
        if kind == plan.OPEN:
            flags = os.O_RDONLY if absent else self._flags[file]
            return lambda: os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        fd = self._fd(process, file)
        if kind == plan.CLOSE:
            self._fds[process, file].pop()
            return lambda: os.close(fd) or True  # type: ignore[func-returns-value]
        if kind == plan.READ:
            place = offset if size else self._sizes[file]  # at the end there is nothing to read
            vectors = self._vectors(size or 1)
            return lambda: os.preadv(fd, vectors, place)
        if kind == plan.WRITE:
            vectors = self._vectors(size)
            return lambda: os.pwritev(fd, vectors, offset)
        if kind == plan.SEEK:
            return lambda: os.lseek(fd, offset, os.SEEK_SET)
        if kind == plan.FSTAT:
            return lambda: os.fstat(fd)
        sync = os.fsync if kind == plan.SYNC else os.fdatasync
        return lambda: sync(fd) or True


def overhead_ns() -> int:
    """What making a call and taking its time costs in Python, above what the kernel does: the median of many."""
    call: Callable[[], Any] = os.getppid
    found = []
    for _ in range(1001):
        begin = time.monotonic_ns()
        with contextlib.suppress(FileNotFoundError):
            call()
        found.append(time.monotonic_ns() - begin)
    return sorted(found)[500]


def _result(
    view: DataPathLoad,
    of: Material,
    speed: float | None,
    shared: npt.NDArray[Any],
    ended: str,
    took_ns: int,
    there: float | None,
) -> Record:
    numbers, state = of.operations["number"], shared["state"]
    done = state == _DONE
    recorded = dict(zip(*(each.tolist() for each in np.unique(view.found["number"], return_counts=True)), strict=True))
    calls = []
    for number in np.unique(numbers).tolist():
        own = numbers == number
        calls.append(
            {
                "call": view.calls[number].name,
                "recorded": recorded[number],
                "replayed": int((own & done).sum()),
                "failed": int((own & (state == _FAILED)).sum()),
                "not_reached": int((own & (state == _WAITING)).sum()),
                "then": _statistics(of.operations["took_ns"][own & done]),
                "now": _statistics(shared["took_ns"][own & done]),
            }
        )
    return {
        "type": "datapath_replay",
        "target": view.result["target"],
        "speed": speed,
        "ended": ended,
        "took_ns": took_ns,
        "workers": of.workers,
        "recorded": len(view.found),
        "replayed": int(done.sum()),
        "failed": int((state == _FAILED).sum()),
        "not_reached": int((state == _WAITING).sum()),
        "other_calls": view.others,
        "files": len(of.is_folder),
        "written_bytes": of.filled,
        "cold_reads": list(of.cold_reads),
        "resident": there,
        "overhead_ns": overhead_ns(),
        "late": _statistics(np.maximum(shared["late_ns"][state != _WAITING], 0)),
        "calls": sorted(calls, key=lambda each: -each["recorded"]),
        "left_out": [
            {"call": view.calls[number].name if number in view.calls else f"call {number}", "why": why, "calls": count}
            for (number, why), count in sorted(of.left_out.items(), key=lambda each: -each[1])
        ],
    }


def _statistics(took_ns: plan.Ints) -> dict[str, int]:
    found = Histogram()
    found.record(np.maximum(took_ns, 0))
    return statistics(found, (50.0, 90.0, 99.0))

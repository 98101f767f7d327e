"""A process's memory from outside: what is in it, which of its pages are resident, and what the kernel says of mappings.

Nothing here stops the process. ``process_vm_readv`` takes no lock of it for longer than a page; the scan of its page table
and ``smaps`` keep it from mapping anything meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from gotrace.arch import host_arch
from gotrace.errors import GotraceError, TargetError
from gotrace.kernel.privileges import PROTECTED, refused

PAGE = mmap.PAGESIZE
# What a range of `resident` is: a bit as PAGEMAP_SCAN gives it (include/uapi/linux/fs.h). To ask whether a page is a file's
# makes the scan four times as long: the kernel then looks at its own description of every page.
HUGE = 1 << 6
_PRESENT, _ZERO = 1 << 3, 1 << 5
_PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg), Linux 6.7
_REGIONS = 1 << 14
# /proc/PID/pagemap and /proc/kpageflags: Documentation/admin-guide/mm/pagemap.rst
_MAP_PRESENT, _MAP_PFN = 1 << 63, (1 << 55) - 1
_FLAG_THP, _FLAG_ZERO = 1 << 22, 1 << 24
_MOST_SEGMENTS = 1024  # UIO_MAXIOV
_U64 = (1 << 64) - 1

RANGE = np.dtype([("begin", "<u8"), ("end", "<u8"), ("kind", "<u8")])
Ranges = npt.NDArray[np.void]


@dataclass(frozen=True)
class Vma:
    """A mapping as smaps reports it; ``sizes`` are bytes: Rss, AnonHugePages, LazyFree, KernelPageSize and so on."""

    begin: int
    end: int
    permissions: str
    offset: int
    path: str
    sizes: dict[str, int] = field(default_factory=dict)


class _Segment(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Memory:
    """The memory of one process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.process_vm_readv.restype = ctypes.c_ssize_t
        self._scans = True

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``; raises TargetError when they are not there, HostError when that is forbidden."""
        room = np.empty(size, np.uint8)
        self.read_into(np.array([(address & _U64, size)], np.uint64), room)
        return room.tobytes()

    def read_many(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of many (address, size) in as few system calls as there can be."""
        ends = [0, *accumulate(size for _, size in places)]
        room = np.empty(ends[-1], np.uint8)
        self.read_into(np.array([(address & _U64, size) for address, size in places], np.uint64).reshape(-1, 2), room)
        data = room.tobytes()
        return [data[begin:end] for begin, end in pairwise(ends)]

    def read_into(self, places: npt.NDArray[np.uint64], room: npt.NDArray[np.uint8]) -> None:
        """The bytes of many places one after the other into ``room``, which they have to fill; a row is (address, size)."""
        self.filling(places, room)()

    def filling(self, places: npt.NDArray[np.uint64], room: npt.NDArray[np.uint8]) -> Callable[[], None]:
        """What does as `read_into`, as often as it is called, with everything prepared."""
        if len(places) <= _MOST_SEGMENTS:
            return self._filling(np.ascontiguousarray(places), room)
        ends = np.concatenate([[0], np.cumsum(places[:, 1])]).astype(np.int64)
        firsts = range(0, len(places), _MOST_SEGMENTS)
        parts = [
            self._filling(np.ascontiguousarray(places[first:last]), room[ends[first] : ends[last]])
            for first, last in zip(firsts, [*firsts[1:], len(places)], strict=True)
        ]

        def fill() -> None:
            for part in parts:
                part()

        return fill

    def _filling(self, places: npt.NDArray[np.uint64], room: npt.NDArray[np.uint8]) -> Callable[[], None]:
        """One system call's worth. A row of ``places`` is a struct iovec."""
        local = _Segment(room.ctypes.data, room.size)
        remote, count = ctypes.c_void_p(places.ctypes.data), ctypes.c_ulong(len(places))
        read, one, none, segment = self._libc.process_vm_readv, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.byref(local)
        pid, size = self.pid, room.size

        def fill(kept: object = (places, room)) -> None:
            got = read(pid, segment, one, remote, count, none)
            if got != size:
                raise self._failed(ctypes.get_errno() if got < 0 else errno.EFAULT)

        return fill

    def _failed(self, number: int) -> GotraceError:
        if number == errno.EPERM:
            return refused(f"permission denied reading the memory of process {self.pid}", PROTECTED)
        if number == errno.ESRCH:
            return TargetError(f"process {self.pid} has exited", "give the pid of a running Go program")
        return TargetError(
            f"memory of process {self.pid} is not where it was expected ({os.strerror(number)})",
            "try again; report it if it persists",
        )

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def half(self, address: int) -> int:
        """Of 32 bits."""
        return int.from_bytes(self.read(address, 4), "little")

    def words(self, address: int, count: int) -> npt.NDArray[np.uint64]:
        found = np.empty(count, "<u8")
        self.read_into(np.array([(address & _U64, 8 * count)], np.uint64), found.view(np.uint8))
        return found

    def mappings(self) -> list[Vma]:
        """Every mapping, from low to high, without sizes, for which the kernel would walk through all its pages.

        Raises TargetError or HostError.
        """
        return [_vma(line) for line in self._lines("maps")]

    def vmas(self) -> list[Vma]:
        """The same with sizes."""
        found: list[Vma] = []
        for line in self._lines("smaps"):
            if b"-" in line.split(b" ", 1)[0]:
                found.append(_vma(line))
            elif line.endswith(b"kB"):
                name, number, _ = line.split()
                found[-1].sizes[name.rstrip(b":").decode()] = int(number) << 10
        return found

    def rollup(self) -> dict[str, int]:
        """All mappings together, bytes by name: Rss, Pss, Anonymous, AnonHugePages, LazyFree, Swap and so on."""
        found = {}
        for line in self._lines("smaps_rollup"):
            if line.endswith(b"kB"):
                name, number, _ = line.split()
                found[name.rstrip(b":").decode()] = int(number) << 10
        return found

    def counted(self) -> int:
        """RSS as the kernel keeps it, in bytes; since Linux 6.2 some pages for each CPU behind. Raises as `read` does."""
        (line,) = self._lines("statm")
        return int(line.split()[1]) * PAGE

    def _lines(self, name: str) -> Iterator[bytes]:
        try:
            with open(f"/proc/{self.pid}/{name}", "rb") as file:
                yield from file.read().splitlines()
        except OSError as error:
            raise self._failed(error.errno or errno.ESRCH) from None

    def resident(self, vmas: Sequence[Vma] | None = None) -> Ranges:
        """The ranges of pages that count as RSS, from low to high, with `HUGE` in their ``kind``.

        The kernel's zero page is mapped where memory was read and never written; it is present and no RSS. ``vmas`` are
        needed where the kernel has no scan (before Linux 6.7), and read there unless they are given.
        """
        if self._scans:
            try:
                return self._scanned()
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EINVAL):
                    raise self._failed(error.errno or errno.ESRCH) from None
                self._scans = False
        try:
            return self._from_pagemap(self.vmas() if vmas is None else vmas)
        except OSError as error:
            raise self._failed(error.errno or errno.ESRCH) from None

    def frames(self, addresses: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """The page frame behind each page (ascending addresses); 0 where there is none, and for all but root."""
        found = np.zeros(len(addresses), np.uint64)
        pages = addresses // PAGE
        breaks = np.flatnonzero(np.diff(pages) > 512) + 1  # what lies between is read too, which is cheaper than a call
        try:
            with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as file:
                for part in np.split(np.arange(len(pages)), breaks):
                    if not len(part):
                        continue
                    first, last = int(pages[part[0]]), int(pages[part[-1]])
                    entries = np.frombuffer(os.pread(file.fileno(), 8 * (last - first + 1), 8 * first), "<u8")
                    at = pages[part] - first
                    known = at < len(entries)
                    values = entries[np.where(known, at, 0)] if len(entries) else np.zeros(len(at), np.uint64)
                    there = known & ((values & _MAP_PRESENT) != 0)
                    found[part] = np.where(there, values & np.uint64(_MAP_PFN), 0)
        except OSError as error:
            raise self._failed(error.errno or errno.ESRCH) from None
        return found

    def mapped_huge(self, addresses: Sequence[int]) -> dict[int, bool] | None:
        """Whether the page at each of ``addresses`` is mapped as a huge one, without those that are not there.

        None where the kernel cannot be asked (before Linux 6.7). Raises TargetError or HostError.
        """
        try:
            found = {at: self._scanned(at // PAGE * PAGE, at // PAGE * PAGE + PAGE) for at in addresses}
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                return None
            raise self._failed(error.errno or errno.ESRCH) from None
        return {at: bool(each["kind"][0] & HUGE) for at, each in found.items() if len(each)}

    def _scanned(self, begin: int = 0, end: int | None = None) -> Ranges:
        out = np.zeros(_REGIONS if end is None else 1, RANGE)
        found = []
        limit = host_arch().user_end - PAGE if end is None else end
        with open(f"/proc/{self.pid}/pagemap", "rb") as file:
            while begin < limit:
                arguments = (96, 0, begin, limit, 0, out.ctypes.data, len(out), 0)
                masks = (_ZERO, _PRESENT | _ZERO, 0, HUGE)
                request = bytearray(struct.pack("<12Q", *arguments, *masks))
                count = fcntl.ioctl(file, _PAGEMAP_SCAN, request)
                found.append(out[:count].copy())
                begin = struct.unpack_from("<Q", request, 32)[0]
                if count < len(out):
                    break
        return np.concatenate(found)

    def _from_pagemap(self, vmas: Sequence[Vma]) -> Ranges:
        found = [np.zeros(0, RANGE)]
        with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as file:
            for vma in vmas:
                if not vma.sizes.get("Rss") or vma.path == "[vsyscall]":
                    continue
                entries = np.frombuffer(
                    os.pread(file.fileno(), (vma.end - vma.begin) // PAGE * 8, vma.begin // PAGE * 8), "<u8"
                )
                present = (entries & _MAP_PRESENT) != 0
                huge = np.zeros(len(entries), bool)
                if np.count_nonzero(present) * PAGE != vma.sizes["Rss"] or vma.sizes.get("AnonHugePages"):
                    zero, huge = _flagged(entries, present)
                    present &= ~zero
                    huge = _whole(vma.begin, huge)
                found.append(_runs(vma.begin, present, np.where(huge, HUGE, 0)))
        return np.concatenate(found)


def _vma(line: bytes) -> Vma:
    """A mapping as maps and smaps begin it."""
    fields = line.split(None, 5)
    begin, end = (int(part, 16) for part in fields[0].split(b"-"))
    path = os.fsdecode(fields[5]) if len(fields) > 5 else ""
    return Vma(begin, end, fields[1].decode(), int(fields[2], 16), path)


def _flagged(entries: npt.NDArray[np.uint64], present: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], ...]:
    """Which pages are the zero page, and which are huge, by the kernel's flags of each frame."""
    zero, huge = np.zeros(len(entries), bool), np.zeros(len(entries), bool)
    places = np.flatnonzero(present)
    frames = entries[places] & np.uint64(_MAP_PFN)
    numbers, back = np.unique(frames, return_inverse=True)
    flags = np.zeros(len(numbers), np.uint64)
    with open("/proc/kpageflags", "rb", buffering=0) as file:
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        for run in np.split(np.arange(len(numbers)), breaks):
            if len(run):
                data = os.pread(file.fileno(), 8 * len(run), 8 * int(numbers[run[0]]))
                flags[run[: len(data) // 8]] = np.frombuffer(data, "<u8")
    zero[places] = (flags[back] & _FLAG_ZERO) != 0
    huge[places] = (flags[back] & _FLAG_THP) != 0
    return zero, huge


def _whole(begin: int, huge: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of the pages from ``begin`` on that lie in huge pages those that are mapped as one: all of it, where it can be.

    What is left of a huge page that was split is mapped page by page, with the kernel's flag all the same.
    """
    count = PAGE // 8  # pages of a huge page: as many as a page has entries
    first = -(begin // PAGE) % count
    blocks = huge[first : first + max(0, len(huge) - first) // count * count].reshape(-1, count)
    found = np.zeros(len(huge), bool)
    found[first : first + blocks.size] = np.repeat(blocks.all(axis=1), count)
    return found


def _runs(begin: int, wanted: npt.NDArray[np.bool_], kinds: npt.NDArray[np.int64]) -> Ranges:
    """Neighbouring wanted pages of one kind as ranges."""
    key = np.where(wanted, kinds, -1)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1, [len(key)]])
    found = np.zeros(len(edges) - 1, RANGE)
    found["begin"], found["end"] = begin + edges[:-1] * PAGE, begin + edges[1:] * PAGE
    found["kind"] = np.maximum(key[edges[:-1]], 0) if len(key) else 0
    return found[key[edges[:-1]] >= 0] if len(key) else found[:0]


class KeptMemory(Memory):
    """Memory that stays readable when root is given up: by a descriptor, which is closed by who opened it.

    Once the process has executed another program there is nothing to read.
    """

    def __init__(self, pid: int, fd: int) -> None:
        super().__init__(pid)
        self._fd = fd

    def _filling(self, places: npt.NDArray[np.uint64], room: npt.NDArray[np.uint8]) -> Callable[[], None]:
        def fill() -> None:
            at = 0
            try:
                for address, size in places.tolist():
                    if os.preadv(self._fd, [room.data[at : at + size]], address) != size:
                        raise self._failed(errno.ESRCH)
                    at += size
            except (OSError, OverflowError) as error:
                raise self._failed(getattr(error, "errno", errno.EFAULT)) from None

        return fill

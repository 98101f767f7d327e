"""Which pages of a file are in memory, and how to have them read from the disk again."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from gotrace.errors import GotraceError


@dataclass(frozen=True)
class Dropped:
    """How many of a file's ``pages`` were in memory ``before`` and ``after`` they were dropped.

    Those that stay are mapped by a process or locked, or the file has no other place (tmpfs).
    """

    path: str
    before: int
    after: int
    pages: int


def resident(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(pages in memory, pages) of a file. The kernel claims to a caller who neither owns nor may write it that all are."""
    with _opened(path) as (descriptor, size):
        return _resident(descriptor, size), _pages(size)


def drop(path: str | os.PathLike[str]) -> Dropped:
    """Drop a file from the page cache, which never loses data. Where `resident` is blind, so is the result."""
    with _opened(path) as (descriptor, size):
        before = _resident(descriptor, size)
        # Only clean pages are dropped. Read-only file systems cannot write any: squashfs and EROFS refuse to try.
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS):
                raise
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return Dropped(os.fspath(path), before, _resident(descriptor, size), _pages(size))


def read_ahead_kb(path: str | os.PathLike[str], root: str = "/") -> int | None:
    """How far the kernel reads ahead on the device that holds a file; None where it has none of its own (overlay, tmpfs).

    Also None on btrfs, whose files do not reveal their device. ``root`` stands in for / in tests.
    """
    try:
        device = os.stat(path).st_dev
    except OSError as error:
        raise _unreadable(path, error) from None
    name = f"{os.major(device)}:{os.minor(device)}"
    # A partition has the queue of its disk; file systems of the network have no block device.
    for place in (f"dev/block/{name}/queue", f"dev/block/{name}/../queue", f"class/bdi/{name}"):
        with contextlib.suppress(OSError, ValueError), open(os.path.join(root, "sys", place, "read_ahead_kb")) as file:
            return int(file.read())
    return None


def _unreadable(path: str | os.PathLike[str], error: OSError) -> GotraceError:
    return GotraceError(f"cannot read {os.fspath(path)}: {error.strerror}", "check the path and its permissions")


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[int, int]]:
    """(descriptor, size) of a regular file. Nothing else is opened: that may block, or do something."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise GotraceError(f"{os.fspath(path)} is not a regular file", "give a program or a library")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            yield descriptor, os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from None


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE)


def _resident(descriptor: int, size: int) -> int:
    """How many pages are in memory. They are mapped, but never touched, and for no longer than it takes to ask."""
    if not size:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        raise _last_error()
    answer = ctypes.create_string_buffer(_pages(size))
    try:
        if libc.mincore(address, size, answer):
            raise _last_error()
    finally:
        libc.munmap(address, size)
    # the other bits of a byte are reserved
    return sum(byte & 1 for byte in answer.raw)


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))

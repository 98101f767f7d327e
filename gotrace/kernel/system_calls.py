"""Which system call a thread is in, on what file, and where in the kernel."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from gotrace.arch import host_arch

_TABLE = Path(__file__).with_name("system_calls.json")  # written by scripts/make-system-calls
# Those whose first argument is the descriptor of what they wait for.
_OF_A_FILE = re.compile(
    r"p?(read|write)(64|v2?)?|ioctl|f(data)?sync|sync(fs|_file_range)|flock|fcntl|fallocate|ftruncate|fstat|getdents64"
    r"|(vm)?splice|tee|sendfile|accept4?|connect|shutdown|close|sendto|recvfrom|(send|recv)m?msg|epoll_p?wait2?"
)
_NONE = 1 << 31  # no descriptor is as large; those that are not there are below 0
_IN_THE_KERNEL = re.compile(r"^\[<\w+>\] (\S+?)\+0x", re.M)


class SystemCall(NamedTuple):
    """A call by its name; ``fd`` is None where none is its first argument, ``file`` what is open there, "" if unknown.

    ``kernel`` are the kernel's functions that the thread sleeps in, innermost first: root alone is told.
    """

    name: str
    fd: int | None
    file: str
    kernel: tuple[str, ...]


def system_call_of(pid: int, tid: int) -> SystemCall | None:
    """The call that a thread sleeps in; None if it runs, is in none, or if we may not know.

    proc_pid_syscall(5): the number, six arguments, stack pointer, program counter; "running", or -1 for no call.
    """
    folder = f"/proc/{pid}/task/{tid}"
    try:
        with open(f"{folder}/syscall") as file:
            number, *arguments = file.read().split()
    except (OSError, ValueError):
        return None
    if not arguments or not number.isdigit():
        return None
    name = names().get(int(number), f"system call {number}")
    fd = int(arguments[0], 16) & 0xFFFFFFFF if _OF_A_FILE.fullmatch(name) else _NONE
    path, kernel = "", ""
    if fd < _NONE:
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/{pid}/fd/{fd}")
    with contextlib.suppress(OSError), open(f"{folder}/stack") as file:
        kernel = file.read()
    return SystemCall(name, fd if fd < _NONE else None, path, tuple(_IN_THE_KERNEL.findall(kernel)))


@functools.cache
def names() -> dict[int, str]:
    """Every system call of this machine by its number."""
    return {number: name for name, number in json.loads(_TABLE.read_text())[host_arch().goarch].items()}

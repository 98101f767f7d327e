"""What the kernel counts for a process's control group, and the limits on it: of memory, and of CPU time.

Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and scheduler/sched-bwc.rst of the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gotrace.errors import HostError, TargetError
from gotrace.kernel.host import text_of

# Version 1 has the largest number of whole pages for "no limit"; pages are 64 KiB at most.
_UNLIMITED = (1 << 63) - (1 << 16)


@dataclass(frozen=True)
class MemoryGroup:
    """Sizes in bytes, None where they cannot be read: version 2 has none for its root.

    ``limit_bytes`` is the least limit of this group and those around it, as far as they are visible here, and
    ``limited_by`` the path of the group that has it; ``limited`` is False where none has one.
    ``working_set_bytes`` is what Kubernetes calls so: usage without the inactive part of the page cache.
    """

    version: int
    path: str
    limited: bool
    limit_bytes: int | None
    limited_by: str | None
    usage_bytes: int | None
    working_set_bytes: int | None
    page_cache_bytes: int | None


@dataclass(frozen=True)
class CpuGroup:
    """What holds a process back from CPUs. ``quota_cpus`` is how many it may use on average: the least quota of its group
    and those around it, as far as they are visible here, None without one; ``limited_by`` is the path of the group that
    has it.

    All groups with a quota together: ``throttled_ns`` is how long their tasks were kept from running, summed over CPUs,
    in ``throttled_periods`` of ``periods``, since they were made. The kernel counts what goes on once it has ended.
    """

    version: int
    path: str
    quota_cpus: float | None
    limited_by: str | None
    periods: int
    throttled_periods: int
    throttled_ns: int


class _Names(NamedTuple):
    """Of a group's files, and within memory.stat those of sums that include the groups below."""

    limit: str
    usage: str
    inactive: str
    cache: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_cache")
_V2 = _Names("memory.max", "memory.current", "inactive_file", "file")


def memory_group(pid: int, root: str = "/") -> MemoryGroup:
    """The control group that the memory of a process is counted for. ``root`` stands in for / in tests.

    Raises HostError where such groups are not to be seen, TargetError if the process has exited.
    """
    version, folders = _folders(pid, "memory", root)
    names = _V1 if version == 1 else _V2
    # Where a group of version 2 does not count memory, one around it does.
    while folders and _stat(folders[0][0], "memory.stat") is None:
        folders.pop(0)
    if not folders:
        raise _unseen("this kernel has no memory controller for cgroups")
    limits = [(limit, name) for folder, name in folders if (limit := _number(folder, names.limit)) is not None]
    least, limited_by = min(
        (each for each in limits if each[0] < _UNLIMITED), key=lambda each: each[0], default=(None, None)
    )
    folder, path = folders[0]
    stat, usage = _stat(folder, "memory.stat") or {}, _number(folder, names.usage)
    inactive = stat.get(names.inactive)
    return MemoryGroup(
        version=version,
        path=path,
        limited=least is not None,
        limit_bytes=least,
        limited_by=limited_by,
        usage_bytes=usage,
        working_set_bytes=None if usage is None or inactive is None else max(0, usage - inactive),
        page_cache_bytes=stat.get(names.cache),
    )


def enter_outermost(controller: str) -> None:
    """Have this process counted by the outermost group of ``controller`` that there is. Raises OSError or HostError."""
    _, folders = _folders(os.getpid(), controller, "/")
    with open(os.path.join(folders[-1][0], "cgroup.procs"), "w") as file:
        file.write(str(os.getpid()))


def cpu_group(pid: int, root: str = "/") -> CpuGroup:
    """The control group by which a process gets CPU time. Raises as `memory_group` does."""
    version, folders = _folders(pid, "cpu", root)
    limited = [(quota, *each) for each in folders if (quota := _quota(each[0], version)) is not None]
    stats = [_stat(folder, "cpu.stat") or {} for _, folder, _ in limited]
    quota, _, limited_by = min(limited, default=(None, None, None), key=lambda each: each[0])
    unit = 1 if version == 1 else 1000
    return CpuGroup(
        version=version,
        path=folders[0][1],
        quota_cpus=quota,
        limited_by=limited_by,
        periods=sum(stat.get("nr_periods", 0) for stat in stats),
        throttled_periods=sum(stat.get("nr_throttled", 0) for stat in stats),
        throttled_ns=unit * sum(stat.get("throttled_time" if version == 1 else "throttled_usec", 0) for stat in stats),
    )


def _quota(folder: str, version: int) -> float | None:
    """How many CPUs' time a group may use; None: any."""
    if version == 1:
        words = [text_of(folder, name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    else:
        words = text_of(folder, "cpu.max").split()
    return int(words[0]) / int(words[1]) if words and words[0] not in ("", "max", "-1") else None


def _folders(pid: int, controller: str, root: str) -> tuple[int, list[tuple[str, str]]]:
    """(version, folder and path of a process's group and of all around it) where groups have a controller."""
    version, path = _path_of(pid, controller, root)
    mounted = next((each for each in _mounts(controller, root) if each[0] == version), None)
    if mounted is None:
        raise _unseen(f"no cgroups for {_WHAT[controller]} are mounted")
    _, top, place = mounted
    inside = os.path.relpath(path, top)
    if inside.startswith("..") or ".." in path.split("/"):  # of another namespace
        raise _unseen(f"cgroup {path} is not visible from here")
    return version, list(_upwards(os.path.join(root, place.lstrip("/")), inside, path))


_WHAT = {"memory": "memory", "cpu": "CPU time"}


def _unseen(why: str) -> HostError:
    return HostError(why, "run gotrace outside containers")


def _path_of(pid: int, controller: str, root: str) -> tuple[int, str]:
    """(version, the group's path): version 1 where its hierarchy has the controller, else version 2."""
    try:
        with open(os.path.join(root, f"proc/{pid}/cgroup"), errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except FileNotFoundError:
        if os.path.exists(os.path.join(root, f"proc/{pid}")):
            raise _unseen("this kernel has no cgroups") from None
        raise TargetError(f"process {pid} has exited", "give the pid of a running Go program") from None
    except OSError:
        raise TargetError(f"process {pid} has exited", "give the pid of a running Go program") from None
    for _, controllers, path in lines:
        if controller in controllers.split(","):
            return 1, path
    for number, _, path in lines:
        if number == "0":
            return 2, path
    raise _unseen(f"no cgroup accounts for its {_WHAT[controller]}")


def _mounts(controller: str, root: str) -> Iterator[tuple[int, str, str]]:
    """(version, which group is at the top, where) of each file system of control groups that may have a controller."""
    with open(os.path.join(root, "proc/self/mountinfo"), errors="surrogateescape") as file:
        for line in file:
            mount, _, about = line.rstrip("\n").partition(" - ")
            top, place = mount.split()[3:5]
            kind, *_, options = about.split()
            if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
                yield (2 if kind == "cgroup2" else 1), top, place


def _upwards(mount: str, inside: str, path: str) -> Iterator[tuple[str, str]]:
    """(folder, path) of a group and all around it, up to what is mounted."""
    while True:
        yield os.path.normpath(os.path.join(mount, inside)), path
        if inside in (".", ""):
            return
        inside, path = os.path.dirname(inside), os.path.dirname(path)


def _stat(folder: str, name: str) -> dict[str, int] | None:
    try:
        with open(os.path.join(folder, name)) as file:
            return {name: int(number) for name, number in map(str.split, file)}
    except OSError:
        return None


def _number(folder: str, name: str) -> int | None:
    text = text_of(folder, name)
    return _UNLIMITED if text == "max" else int(text) if text else None

"""What the files of `gotrace.views.datapath` are called, and on which mounts they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gotrace.analysis import datapath as tables
from gotrace.analysis.columns import text_of
from gotrace.kernel import mounts
from gotrace.probes import datapath as probe
from gotrace.views.view import Record

if TYPE_CHECKING:
    from gotrace.kernel.ring import Events

# File systems whose files are no pages read from elsewhere: nothing of them is a hit or a miss.
_WITHOUT_CACHE = {
    "tmpfs",
    "ramfs",
    "devtmpfs",
    "hugetlbfs",
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "bpf",
}
_KERNEL_NAMES = {"pipefs": "pipe", "sockfs": "socket", "anon_inodefs": "anon_inode"}
_CHUNK = 1 << 16
UNNAMED = b"inode "  # begins what a mapped file is called of which no more is known
_REGULAR, _TYPE = 0x8000, 0xF000


def mounts_of_processes(pids: Iterable[int]) -> list[list[Any]]:
    """What these processes see mounted, as JSON has it, for `Places.learn`."""
    return [list(each) for each in {each for pid in pids for each in mounts.mounts(pid)}]


def mapped_files(tids: Iterable[int]) -> list[list[Any]]:
    """[device, inode, path] of each file that these threads have mapped, as JSON has it, for `Places.learn_mapped`."""
    found: dict[tuple[int, int], str] = {}
    for tid in tids:
        with contextlib.suppress(OSError), open(f"/proc/{tid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, _, _, device, inode, *path = line.rstrip("\n").split(maxsplit=5)
                if path and path[0].startswith("/") and not path[0].endswith(" (deleted)"):
                    major, minor = (int(number, 16) for number in device.split(":"))
                    found[major << 20 | minor, int(inode)] = path[0].replace("\\012", "\n")
    return [[*place, path] for place, path in found.items()]


class Places:
    """Nodes and mounts that were told so far. ``mounts`` are those that some process has in its mountinfo, by number."""

    def __init__(self) -> None:
        self.names = tables.Names(probe.TEXT, probe.DELETED, probe.CUT)
        self.mounts: dict[int, mounts.Mount] = {}
        self._points: dict[bytes, int] = {}  # the number of the mount at each point
        self._folders_on: dict[bytes, int] = {}  # and of the one that a folder is on
        self._types: dict[int, str] = {}
        self._mapped: dict[tuple[int, int], bytes] = {}

    def add(self, names: Events, files: Events, mounts: Events) -> bool:
        """Events of these kinds; whether there is a mount among them of which no more is known."""
        self.names.add(names, files)
        numbers = mounts["mount"].tolist()
        for number, row in zip(numbers, mounts, strict=True):
            self._types[number] = text_of(row["type_low"], row["type_high"]).decode("ascii", "replace")
        return not self.mounts or not set(numbers) <= self.mounts.keys()

    def learn(self, told: Sequence[Sequence[Any]]) -> None:
        """What `mounts_of_processes` found."""
        for each in told:
            mount = mounts.Mount(*each)
            self.mounts[mount.number] = mount
            self._points[os.fsencode(mount.point)] = mount.number
            self._folders_on = {}

    def learn_mapped(self, told: Sequence[Sequence[Any]]) -> None:
        """What `mapped_files` found."""
        self._mapped |= {(device, inode): path.encode("utf-8", "surrogateescape") for device, inode, path in told}

    def _of_device(self, device: int) -> mounts.Mount | None:
        """A mount of a device: one that has all of it, if there is one."""
        mounted = [each for each in self.mounts.values() if each.device == device]
        return min(mounted, key=lambda each: (each.root != "/", each.number), default=None)

    def path_text(self, node: int) -> str | None:
        """For a record: bytes that are not UTF-8 as surrogates; None for no file."""
        return self.path(node).decode("utf-8", "surrogateescape") if node else None

    def path(self, node: int) -> bytes:
        """What a file is called; of what has no name its kind and number, as /proc/PID/fd has it."""
        found = self.names.node(node)
        if found is None:
            return tables.UNKNOWN
        if found.mode & probe.MAPPED:
            if (path := self._mapped.get((found.place, found.inode))) is not None:
                return path
            mount = self._of_device(found.place)
            return UNNAMED + f"{found.inode} on ".encode() + os.fsencode(mount.point if mount else "?")
        if not found.parent and not found.mode & probe.TEXT:
            kind = self._types.get(found.place >> 32, "")
            if kind in _KERNEL_NAMES:
                name = self.names.name(node).decode("utf-8", "replace")
                return f"{_KERNEL_NAMES[kind]}:{name or f'[{found.inode}]'}".encode("utf-8", "surrogateescape")
        return self.names.path(node)

    def mount_of(self, node: int) -> int:
        """The number of a file's mount, 0 if that is unknown; of a text by the longest mount point that it begins with."""
        found = self.names.node(node)
        if found is None:
            return 0
        if not found.mode & (probe.TEXT | probe.MAPPED):
            return found.place >> 32
        if found.mode & probe.MAPPED:
            mount = self._of_device(found.place)
            return mount.number if mount is not None else 0
        return self._mount_at(os.path.dirname(self.path(node)), self.path(node))

    def _mount_at(self, folder: bytes, path: bytes) -> int:
        """The number of the mount that a path is on, by its text; those of many paths of a folder are found once."""
        if (known := self._points.get(path)) is not None:
            return known
        if (known := self._folders_on.get(folder)) is None:
            name = os.fsdecode(folder)
            on = [each for each in self.mounts.values() if f"{name}/".startswith(each.point.rstrip("/") + "/")]
            known = max(on, key=lambda each: (len(each.point), each.number)).number if on else 0
            self._folders_on[folder] = known
        return known

    def type_of(self, mount: int) -> str:
        """Of a mount's file system; the subtype of FUSE is in mountinfo alone."""
        known = self.mounts.get(mount)
        return known.type if known is not None else self._types.get(mount, "?")

    def mount_name(self, number: int) -> bytes:
        """Where it is mounted, or the kind of file system in brackets."""
        known = self.mounts.get(number)
        return os.fsencode(known.point if known is not None else f"({self.type_of(number)})")

    def is_cached(self, files: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which files are regular ones that the page cache keeps pages of."""
        places, modes = self.names.places(files)
        mounts = (places >> np.uint64(32)).astype(np.int64)
        without = [number for number in np.unique(mounts).tolist() if self.type_of(number) in _WITHOUT_CACHE]
        found: npt.NDArray[np.bool_] = ((modes & _TYPE) == _REGULAR) & ~np.isin(mounts, without)
        found |= (modes & probe.MAPPED) != 0
        return found

    def mounts_of(self, files: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """`mount_of` each; 0 for none."""
        places, modes = self.names.places(files)
        found: npt.NDArray[np.int64] = (places >> np.uint64(32)).astype(np.int64)
        mapped = np.flatnonzero(modes & probe.MAPPED != 0)
        found[mapped] = [self.mount_of(node) for node in files[mapped].tolist()]
        texts = np.flatnonzero(modes & probe.TEXT != 0)
        paths = self.names.paths(files[texts])
        found[texts] = np.fromiter((self._mount_at(os.path.dirname(path), path) for path in paths), np.int64, len(texts))
        return found

    def mounts_record(self, nodes: npt.NDArray[np.uint64]) -> list[Record]:
        """Those on which these files are, as `gotrace.records.datapath.Mount`."""
        chunks = (nodes[begin : begin + _CHUNK] for begin in range(0, len(nodes), _CHUNK))  # for the memory's sake
        seen = sorted({mount for chunk in chunks for mount in np.unique(self.mounts_of(chunk)).tolist()} - {0})
        found = []
        for number in seen:
            known = self.mounts.get(number)
            found.append(
                {
                    "mount": number,
                    "point": known.point if known else None,
                    "type": self.type_of(number),
                    "source": known.source if known else None,
                    "options": known.options if known else None,
                }
            )
        return found

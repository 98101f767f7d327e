"""Where the time of calls on files went: by thread, by epoch, the slowest of them, and what to do about it."""

from __future__ import annotations

import heapq
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.text import bytes_text, count_text, duration_text, percent_text, printable

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Shares:
    """Time in metadata and data calls by thread. ``threads`` are those by number, [process, first begin, last end,
    metadata, data] of each."""

    def __init__(self) -> None:
        self.threads: dict[int, list[int]] = {}

    def add(self, tids: Ints, processes: Ints, begins: Ints, ends: Ints, metadata: Flags, files: Flags) -> None:
        """``files`` says which calls are on files: others say no more than that the thread was there."""
        found, first, back = np.unique(tids, return_index=True, return_inverse=True)
        sums = np.zeros((2, len(found)), np.int64)
        np.add.at(sums, (np.where(metadata, 0, 1), back), np.where(files, ends - begins, 0))
        begin, end = np.full(len(found), np.iinfo(np.int64).max), np.zeros(len(found), np.int64)
        np.minimum.at(begin, back, begins)
        np.maximum.at(end, back, ends)
        for at, tid in enumerate(found.tolist()):
            known = self.threads.setdefault(tid, [int(processes[first[at]]), int(begin[at]), 0, 0, 0])
            known[1], known[2] = min(known[1], int(begin[at])), max(known[2], int(end[at]))
            known[3] += int(sums[0, at])
            known[4] += int(sums[1, at])


MOST_EPOCHS = 100_000


class Epochs:
    """Time in calls between marks; the first epoch begins at ``begin_ns``, and there are `MOST_EPOCHS` at most."""

    def __init__(self, begin_ns: int) -> None:
        self.begins = [begin_ns]
        self._sums: list[list[int]] = [[0, 0, 0]]
        self._threads: list[Counter[int]] = [Counter()]  # of each thread that made calls, its time in metadata

    def mark(self, times: Iterable[int]) -> None:
        """An epoch begins at each of these times, in order."""
        for time_ns in itertools.islice(times, max(0, MOST_EPOCHS - len(self.begins))):
            self.begins.append(max(time_ns, self.begins[-1]))  # they are searched
            self._sums.append([0, 0, 0])
            self._threads.append(Counter())

    def add(self, tids: Ints, begins: Ints, ends: Ints, metadata: Flags) -> None:
        """A call counts for the epoch in which it begins."""
        of = np.maximum(np.searchsorted(np.array(self.begins), begins, "right") - 1, 0)
        for epoch in np.unique(of).tolist():
            mine = of == epoch
            took = (ends - begins)[mine]
            sums = self._sums[epoch]
            sums[0] += int(took[metadata[mine]].sum())
            sums[1] += int(took[~metadata[mine]].sum())
            sums[2] += int(mine.sum())
            found, back = np.unique(tids[mine], return_inverse=True)
            of_threads = np.bincount(back, np.where(metadata[mine], took, 0))
            self._threads[epoch].update(dict(zip(found.tolist(), of_threads.astype(np.int64).tolist(), strict=True)))

    def found(self, end_ns: int) -> Iterator[dict[str, Any]]:
        """What came of each, with the share of its threads' time; ``begin_ns`` as it was given."""
        for at, begin_ns in enumerate(self.begins):
            length = (self.begins[at + 1] if at + 1 < len(self.begins) else end_ns) - begin_ns
            metadata_ns, data_ns, calls = self._sums[at]
            threads = len(self._threads[at])
            most = max(self._threads[at].values(), default=0)
            yield {
                "begin_ns": begin_ns,
                "length_ns": length,
                "threads": threads,
                "calls": calls,
                "metadata_ns": metadata_ns,
                "data_ns": data_ns,
                "metadata_share": metadata_ns / (length * threads) if length * threads else 0.0,
                "most_share": most / length if length else 0.0,
            }


class Slowest:
    """The longest of many calls: of those with the same length the first ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, int, Any]] = []
        self._number = 0

    def candidates(self, took: Ints) -> list[int]:
        """Which of some calls may be among them; hand those to `add`."""
        least = self._heap[0][0] if len(self._heap) == self._most else -1
        places = np.flatnonzero(took > least)
        if len(places) > self._most:
            places = np.sort(places[np.argpartition(-took[places], self._most - 1)[: self._most]])
        return [int(place) for place in places]

    def add(self, took_ns: int, what: Any) -> None:
        self._number -= 1
        item = (took_ns, self._number, what)
        (heapq.heappush if len(self._heap) < self._most else heapq.heappushpop)(self._heap, item)

    def found(self) -> list[Any]:
        return [what for _, _, what in sorted(self._heap, reverse=True, key=lambda each: each[:2])]


class Folder(NamedTuple):
    """What calls on the files of a folder came to; ``listings`` list the folder itself. ``names`` are different ones."""

    path: str
    names: int
    opens: int
    bytes: int
    not_found: int
    not_found_names: int
    not_found_ns: int
    metadata_ns: int
    data_ns: int
    listings: int
    listing_ns: int


class Mounted(NamedTuple):
    """A mount, and what calls on its files came to. ``looks`` are stats and opens, ``server_ns`` a FUSE server's share."""

    point: str
    type: str
    options: str
    metadata_ns: int
    data_ns: int
    looks: int
    reads: int
    reading_threads: int
    server_ns: int


_MANY = 100  # below that nothing is a storm, and no folder large
_SMALL = 128 << 10
_CODE = re.compile(r"/python\d|/(site|dist)-packages\b|/node_modules\b|/__pycache__")  # nobody makes a tar of it


def storms(folders: Iterable[Folder]) -> list[Folder]:
    """Folders in which many names were looked up that are not there, those with most first."""
    return sorted((each for each in folders if each.not_found >= _MANY), key=lambda each: -each.not_found)


def _together(folders: Iterable[Folder]) -> Iterator[Folder]:
    """The folders of a folder as one, where they are several: a data set has one for each class, or each hundred files."""
    of: dict[str, list[Folder]] = defaultdict(list)
    for each in folders:
        if each.opens:
            of[os.path.dirname(each.path)].append(each)
    for parent, children in of.items():
        if len(children) > 1:
            sums = (sum(column) for column in list(zip(*children, strict=True))[1:])
            yield Folder(os.path.join(parent, "*"), *sums)


def advice(folders: Sequence[Folder], mounted: Sequence[Mounted], thread_ns: int) -> list[str]:
    """A sentence for each thing that the evidence is clear about; ``thread_ns`` is the time of all threads."""

    def weighs(ns: int) -> bool:
        return ns >= 0.05 * thread_ns

    found = []
    for each in storms(folders)[:3]:
        if weighs(each.not_found_ns):
            found.append(
                f"{count_text(each.not_found, 'look-up')} of {count_text(each.not_found_names, 'name')} that are not in "
                f"{printable(each.path)} took {duration_text(each.not_found_ns)}: shorten the search path, or cache what "
                "is missing."
            )
    said: list[str] = []
    data = [each for each in folders if not _CODE.search(each.path)]
    for each in sorted((*data, *_together(data)), key=lambda each: -each.metadata_ns):
        took_ns = each.metadata_ns + each.data_ns
        if not (each.names >= _MANY and each.opens >= _MANY and each.bytes / each.opens < _SMALL and len(said) < 3):
            continue
        # A small file's first read is a round trip of its own, too: it need not be most of the time.
        if (
            weighs(each.metadata_ns)
            and each.metadata_ns >= 0.25 * took_ns
            and f"{os.path.dirname(each.path)}/*" not in said
        ):
            said.append(each.path)
            found.append(
                f"{printable(each.path)} has many small files ({count_text(each.names, 'name')} used, "
                f"{bytes_text(each.bytes / each.opens)} read or written per open), and metadata took "
                f"{percent_text(each.metadata_ns / took_ns)} of the time in calls there: pack "
                "them into archives of about 100 MB that are read sequentially (tar, Parquet, LMDB)."
            )
    for each in sorted(folders, key=lambda each: -each.listing_ns)[:1]:
        if each.listings >= _MANY and weighs(each.listing_ns):
            found.append(
                f"Listing {printable(each.path)} took {count_text(each.listings, 'call')} and "
                f"{duration_text(each.listing_ns)}: keep a list of its files in one file, or spread them over "
                f"subdirectories."
            )
    for mount in mounted:
        found += _of_mount(mount, weighs(mount.metadata_ns), weighs(mount.data_ns))
    return found


def _of_mount(mount: Mounted, metadata: bool, data: bool) -> Iterator[str]:
    options = {name: value for name, _, value in (each.partition("=") for each in mount.options.split(","))}
    where = f"{printable(mount.point)} ({printable(mount.type)})"
    if not {"relatime", "noatime", "ro"} & options.keys() and mount.type in _WITH_ATIME and mount.reads >= _MANY:
        yield (
            f"{where} is mounted so that each of {count_text(mount.reads, 'read')} updates the access time: mount it with "
            "relatime or noatime."
        )
    total_ns = mount.metadata_ns + mount.data_ns
    if (metadata or data) and mount.server_ns >= 0.5 * total_ns:
        yield (
            f"{percent_text(mount.server_ns / total_ns)} of {duration_text(total_ns)} in calls on {where} was in its "
            "server: make fewer calls, or look into the server."
        )
    if mount.type not in ("nfs", "nfs4"):
        return
    if metadata and mount.looks >= _MANY:
        what = (
            f"{count_text(mount.looks, 'stat or open', 'stats and opens')} took most of {duration_text(mount.metadata_ns)}"
        )
        seconds = options.get("actimeo") or options.get("acregmax")
        if "noac" in options or options.get("lookupcache") == "none":
            yield f"{where} is mounted with attribute caching off, and {what}: remove noac and lookupcache=none."
        elif seconds is None or (seconds.isdigit() and int(seconds) < 60):
            yield f"On {where} {what}: for data that does not change, mount it with actimeo=600 and nocto."
    if data and "nconnect" not in options and mount.reading_threads >= 4:
        yield (
            f"{count_text(mount.reading_threads, 'thread')} read from {where} over one connection: mount it with "
            "nconnect=8."
        )


# Local file systems that keep times of access unless they are told not to.
_WITH_ATIME = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs"}

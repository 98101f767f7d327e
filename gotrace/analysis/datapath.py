"""Calls on files as tables: what they are called, how many there were, how long they took, for millions of files.

A file is a node: a name in a directory, which is a node. Nodes and calls come as arrays (`gotrace.probes.datapath` says
what an event has), and are kept as arrays: a Python object for each of a million files would take a gigabyte.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import text_of
from gotrace.analysis.histogram import LARGEST_RECORDABLE, Histogram, bucket_indexes

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

UNKNOWN = b"?"
_FILES = (0x4000, 0x6000, 0x8000, 0xA000)  # types of a mode: folders, disks, regular files, links
_BUCKET_BITS, _NUMBER_BITS = 16, 12
_PENDING = 1 << 20
_CHUNK = 1 << 14


class Ids:
    """Numbers from 0 on for 64-bit keys, in the order in which they were met first."""

    def __init__(self) -> None:
        self._sorted: Words = np.zeros(0, np.uint64)
        self._ids: Ints = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._sorted)

    def of(self, keys: Words) -> Ints:
        """Those of ``keys``, which are added where they are new."""
        known = self.find(keys)
        new = np.unique(keys[known < 0])
        if not len(new):
            return known
        places = np.searchsorted(self._sorted, new)
        ids = np.arange(len(self), len(self) + len(new))
        self._sorted = np.insert(self._sorted, places, new)
        self._ids = np.insert(self._ids, places, ids)
        return self.find(keys)

    def find(self, keys: Words) -> Ints:
        """Those of ``keys``, -1 where one is not known."""
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        places = np.minimum(np.searchsorted(self._sorted, keys), len(self) - 1)
        return np.where(self._sorted[places] == keys, self._ids[places], -1)

    def keys(self) -> Words:
        """Every key, by its number."""
        found: Words = np.empty(len(self), np.uint64)
        found[self._ids] = self._sorted
        return found


class Counts:
    """How often each of many keys was there: 16 bytes a key."""

    def __init__(self) -> None:
        self._keys: Ints = np.zeros(0, np.int64)
        self._counts: Ints = np.zeros(0, np.int64)
        self._pending: list[tuple[Ints, Ints]] = []
        self._waiting = 0

    def add(self, keys: Ints) -> None:
        self._pending.append(np.unique(keys, return_counts=True))
        self._waiting += len(self._pending[-1][0])
        if self._waiting > max(_PENDING, len(self._keys) // 4):
            self.sorted()

    def sorted(self) -> tuple[Ints, Ints]:
        """(keys, ascending; their counts)."""
        if self._pending:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
            counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
            order = np.argsort(keys, kind="stable")
            keys, counts = keys[order], counts[order]
            firsts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
            self._keys = keys[firsts]
            self._counts = np.add.reduceat(counts, firsts) if len(firsts) else counts
            self._pending, self._waiting = [], 0
        return self._keys, self._counts


class Node(NamedTuple):
    """``place``: device | mount << 32; ``mode``: with the flags of `gotrace.probes.datapath`."""

    parent: int
    inode: int
    place: int
    mode: int


# Columns that are kept of names and files.
_NAME = np.dtype([("node", "u8"), ("at", "u2"), ("name0", "u8"), ("name1", "u8"), ("name2", "u8")])
_FILE = np.dtype([("node", "u8"), ("parent", "u8"), ("inode", "u8"), ("place", "u8"), ("mode", "u4")])


def _slim(events: Array, kept: np.dtype[Any]) -> Array:
    found = np.empty(len(events), kept)
    for name in kept.names or ():
        found[name] = events[name]
    return found


class Names:
    """What files are called. ``text`` is the flag of a mode that says that a node is a text, not a file."""

    def __init__(self, text: int, deleted: int) -> None:
        self._text, self._deleted = text, deleted
        self._files: list[Array] = [np.empty(0, _FILE)]
        self._names: list[Array] = [np.empty(0, _NAME)]
        self._nodes: Words = np.zeros(0, np.uint64)
        self._named: Words = np.zeros(0, np.uint64)
        self._settled = True
        self._known: dict[int, bytes] = {}
        self._others: set[int] = set()

    def add(self, names: Array, files: Array) -> None:
        """Events of the kinds name and file."""
        if not len(names) and not len(files):
            return
        self._settled = False
        self._names.append(_slim(names, _NAME))
        self._files.append(_slim(files, _FILE))
        mode = files["mode"].astype(np.int64)
        is_file = np.isin(mode & 0xF000, _FILES) | (mode & ~np.int64(0xFFFF | self._deleted) != 0)
        self._others.update(files["node"][~is_file].tolist())

    def others(self, nodes: Words) -> Flags:
        """Which of them are no files, but pipes, sockets, devices that are read a character at a time, and so on."""
        return np.isin(nodes, np.array(list(self._others), np.uint64))

    def _settle(self) -> None:
        if not self._settled:
            self._files = [_last_of_each(self._files, ("node",))]
            self._names = [_last_of_each(self._names, ("at", "node"))]
            self._nodes = np.ascontiguousarray(self._files[0]["node"])
            self._named = np.ascontiguousarray(self._names[0]["node"])
            self._known = {}
            self._settled = True

    def places(self, nodes: Words) -> tuple[Words, Ints]:
        """(place, mode) of each node, 0 for one that is not known."""
        self._settle()
        if not len(self._nodes):
            return np.zeros(len(nodes), np.uint64), np.zeros(len(nodes), np.int64)
        at = np.minimum(np.searchsorted(self._nodes, nodes), len(self._nodes) - 1)
        known, rows = self._nodes[at] == nodes, self._files[0]
        return np.where(known, rows["place"][at], np.uint64(0)), np.where(known, rows["mode"][at], 0).astype(np.int64)

    def node(self, node: int) -> Node | None:
        """None for one that is not known."""
        self._settle()
        at = int(np.searchsorted(self._nodes, np.uint64(node)))
        if at == len(self._nodes) or int(self._nodes[at]) != node:
            return None
        row = self._files[0][at]
        return Node(*(int(row[name]) for name in ("parent", "inode", "place", "mode")))

    def name(self, node: int) -> bytes:
        """Its own alone; a text's is all of it."""
        self._settle()
        begin = int(np.searchsorted(self._named, np.uint64(node)))
        end = int(np.searchsorted(self._named, np.uint64(node), "right"))
        if begin == end:
            return b""
        return b"".join(text_of(*(row[f"name{word}"] for word in range(3))) for row in self._names[0][begin:end])

    def path(self, node: int) -> bytes:
        """From the root of its mount namespace; of what has no name there its own; `UNKNOWN` if it was lost."""
        if (known := self._known.get(node)) is not None:
            return known
        above: list[tuple[int, Node]] = []
        at, path = node, UNKNOWN
        while at:
            if (path_ := self._known.get(at)) is not None:
                path = path_
                break
            found = self.node(at)
            if found is None or any(at == each for each, _ in above):
                path = b"\xe2\x80\xa6"  # cut off, or lost
                if not above:
                    path = UNKNOWN
                break
            above.append((at, found))
            at = found.parent
        if not at:
            path = b""
        for each, found in reversed(above):
            path = self._joined(path, self.name(each), found)
            if found.mode & 0xF000 == 0x4000 or each == node:  # a directory: of many
                self._known[each] = path
        return path

    def paths(self, nodes: Words) -> Iterator[bytes]:
        """`path` of each of many, without remembering them."""
        self._settle()
        for begin in range(0, len(nodes), _CHUNK):
            yield from self._paths(nodes[begin : begin + _CHUNK])

    def _paths(self, nodes: Words) -> Iterator[bytes]:
        if not len(self._nodes):
            yield from (UNKNOWN for _ in nodes)
            return
        at = np.minimum(np.searchsorted(self._nodes, nodes), len(self._nodes) - 1)
        first, last = (np.searchsorted(self._named, nodes, side) for side in ("left", "right"))
        short = (self._nodes[at] == nodes) & (last - first == 1)
        rows = self._names[0][np.minimum(first, len(self._named) - 1)] if len(self._named) else self._names[0]
        texts = np.stack([rows[f"name{word}"] for word in range(3)], axis=1).tobytes()
        found = self._files[0][at]
        columns = (nodes.tolist(), short.tolist(), *(found[name].tolist() for name in Node._fields))
        for place, (node, is_short, *about) in enumerate(zip(*columns, strict=True)):
            if is_short and about[0]:
                name = texts[24 * place : 24 * place + 24].split(b"\0", 1)[0]
                yield self._joined(self.path(about[0]), name, Node(*about))
            else:
                yield self.path(node)

    def _joined(self, parent: bytes, name: bytes, node: Node) -> bytes:
        if not node.parent and not node.mode & self._text:
            # In no folder: the root, or what never had a name there, as /proc/PID/fd has it.
            return b"/" + name + b" (deleted)" if node.mode & 0xF000 == 0x8000 else name
        if node.mode & self._text:
            text = b"/".join(each for each in name.split(b"/") if each not in (b"", b"."))
            if not text:
                return parent
            return (parent if parent != b"/" else b"") + b"/" + text
        path = (parent if parent != b"/" else b"") + b"/" + name
        return path + b" (deleted)" if node.mode & self._deleted and not path.endswith(b" (deleted)") else path


def _last_of_each(parts: Sequence[Array], keys: tuple[str, ...]) -> Array:
    """Of the rows with equal keys the last one; sorted by them, the last of ``keys`` first."""
    rows = np.concatenate(parts)
    order = np.lexsort([rows[key] for key in keys])  # stable
    rows = rows[order]
    differs = np.zeros(len(rows), bool)
    differs[-1:] = True
    for key in keys:
        differs[:-1] |= rows[key][1:] != rows[key][:-1]
    return rows[differs]


COLUMNS = (
    *("calls", "errors", "not_found", "bytes", "total_ns", "max_ns", "warm", "cold", "direct"),
    *("pages", "served_ns", "served"),
)


_WIDE = {"bytes", "total_ns", "max_ns", "pages", "served_ns"}


class Calls(NamedTuple):
    """Calls, a column each. ``files`` are nodes, ``results`` as the calls returned them; ``served_ns`` is what of a call a
    FUSE server took, ``served`` how many requests it got."""

    files: Words
    numbers: Ints
    took_ns: Ints
    results: Ints
    pages: Ints
    direct: Flags
    served_ns: Ints
    served: Ints

    @property
    def failed(self) -> Flags:
        return (self.results < 0) & (self.results >= -4095)


class Rows(NamedTuple):
    """Rows of a table: ``files`` are places in ``nodes``, ``numbers`` are calls, ``columns`` those of `COLUMNS`."""

    files: Ints
    numbers: Ints
    columns: dict[str, Ints]
    nodes: Words


class Table:
    """What calls of each number on each file came to. ``moves`` says of a number whether its result is bytes."""

    def __init__(self, moves: Flags, reads: Flags, page_fault: int) -> None:
        self._moves, self._reads, self._page_fault = moves, reads, page_fault
        self._files, self._rows = Ids(), Ids()
        self._columns = {name: np.zeros(0, np.int64 if name in _WIDE else np.uint32) for name in COLUMNS}
        self._buckets = Counts()

    def add(self, calls: Calls) -> None:
        if not len(calls.files):
            return
        rows = self._rows.of((self._files.of(calls.files) << _NUMBER_BITS | calls.numbers).astype(np.uint64))
        length = len(self._rows)
        if length > len(self._columns["calls"]):
            more = length - len(self._columns["calls"]) + length // 8
            for name, column in self._columns.items():
                self._columns[name] = np.concatenate([column, np.zeros(more, column.dtype)])
        failed = calls.failed
        moved = np.where(self._moves[calls.numbers] & (calls.results > 0), calls.results, 0)
        fault = calls.numbers == self._page_fault
        reads = self._reads[calls.numbers] & (calls.results > 0) & ~calls.direct
        values = {
            "calls": np.ones(len(rows), np.int64),
            "errors": failed,
            "not_found": calls.results == -2,
            "bytes": np.where(fault, calls.pages * 4096, moved),
            "total_ns": calls.took_ns,
            "warm": reads & (calls.pages == 0),
            "cold": (reads & (calls.pages > 0)) | fault,
            "direct": self._reads[calls.numbers] & (calls.results > 0) & calls.direct,
            "pages": calls.pages,
            "served_ns": np.minimum(calls.served_ns, calls.took_ns),
            "served": calls.served,
        }
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        firsts = np.flatnonzero(np.diff(ordered, prepend=-1))
        for name, column in values.items():
            sums = np.add.reduceat(column[order].astype(np.int64), firsts)
            self._columns[name][ordered[firsts]] += sums.astype(self._columns[name].dtype)
        most = np.maximum.reduceat(calls.took_ns[order], firsts)
        self._columns["max_ns"][ordered[firsts]] = np.maximum(self._columns["max_ns"][ordered[firsts]], most)
        buckets = bucket_indexes(np.clip(calls.took_ns, 0, LARGEST_RECORDABLE))
        self._buckets.add(rows << _BUCKET_BITS | buckets)

    def rows(self) -> Rows:
        """Every row; the columns are copies."""
        keys = self._rows.keys().astype(np.int64)
        return Rows(
            keys >> _NUMBER_BITS,
            keys & ((1 << _NUMBER_BITS) - 1),
            {name: column[: len(keys)].astype(np.int64) for name, column in self._columns.items()},
            self._files.keys(),
        )

    def histograms(self, group_of_row: Ints, groups: Iterable[int]) -> list[Histogram]:
        """How long the calls of each group took; ``group_of_row`` says for each row which one it is in."""
        keys, counts = self._buckets.sorted()
        rows, buckets = keys >> _BUCKET_BITS, keys & ((1 << _BUCKET_BITS) - 1)
        group = group_of_row[rows]
        order = np.argsort(group, kind="stable")
        group, buckets, counts = group[order], buckets[order], counts[order]
        total_ns, max_ns = (self._columns[name][: len(group_of_row)] for name in ("total_ns", "max_ns"))
        found = []
        for each in groups:
            begin, end = np.searchsorted(group, [each, each + 1])
            of = group_of_row == each
            found.append(
                Histogram.of_buckets(
                    buckets[begin:end],
                    counts[begin:end],
                    int(total_ns[of].sum()),
                    int(max_ns[of].max()),
                )
            )
        return found


class Group(NamedTuple):
    """The sums of a group's rows by `COLUMNS`. ``metadata`` and ``other`` are (calls, nanoseconds) of those that move no
    data and of those on what is no file: pipes, sockets, devices."""

    name: bytes
    sums: dict[str, int]
    metadata: tuple[int, int]
    other: tuple[int, int]


def groups(keys: Ints, names: Callable[[int], bytes], columns: dict[str, Ints], metadata: Flags, other: Flags) -> Groups:
    """The rows of each key together, those that took longest first."""
    found, back = np.unique(keys, return_inverse=True)
    sums = {name: np.zeros(len(found), np.int64) for name in COLUMNS}
    for name in COLUMNS:
        (np.maximum if name == "max_ns" else np.add).at(sums[name], back, columns[name])
    parts = np.zeros((2, 2, len(found)), np.int64)
    for part, flags in zip(parts, (metadata & ~other, other), strict=True):
        for each, name in zip(part, ("calls", "total_ns"), strict=True):
            np.add.at(each, back, np.where(flags, columns[name], 0))
    order = np.argsort(-sums["total_ns"], kind="stable")
    return [
        (
            int(found[at]),
            Group(
                names(int(found[at])),
                {name: int(column[at]) for name, column in sums.items()},
                (int(parts[0, 0, at]), int(parts[0, 1, at])),
                (int(parts[1, 0, at]), int(parts[1, 1, at])),
            ),
        )
        for at in order.tolist()
    ]


Groups = list[tuple[int, Group]]


def pattern(glob: str) -> re.Pattern[bytes]:
    """A data set by the paths of its files: ``**`` is any number of folders, ``*`` and ``?`` stay within one."""
    parts = re.split(r"(\*\*/?|\*|\?|\[[^]]*\])", glob)
    out = ""
    for part in parts:
        if part.startswith("**"):
            out += "(?:.*/)?" if part.endswith("/") else ".*"
        elif part == "*":
            out += "[^/]*"
        elif part == "?":
            out += "[^/]"
        elif part.startswith("[") and part.endswith("]"):
            out += fnmatch.translate(part)[4:-3]
        else:
            out += re.escape(part)
    return re.compile(out.encode("utf-8", "surrogateescape") + rb"\Z", re.DOTALL)

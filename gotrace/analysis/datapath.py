"""Calls on files as tables: what they are called, how many there were, how long they took, for millions of files.

A file is a node: a name in a directory, which is a node. Nodes and calls come as arrays (`gotrace.probes.datapath` says
what an event has), and are kept as arrays: a Python object for each of a million files would take a gigabyte.
"""

from __future__ import annotations

import fnmatch
import itertools
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
Places = npt.NDArray[np.integer[Any]]  # numbers that need not have 64 bits
Flags = npt.NDArray[np.bool_]

UNKNOWN = b"?"
# Of include/linux/errno.h: what a call that a signal interrupts returns within the kernel.
INTERRUPTED = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}
_FILES = (0x4000, 0x6000, 0x8000, 0xA000)  # types of a mode: folders, disks, regular files, links
_BUCKET_BITS = 16
_PENDING = 1 << 18
_CHUNK = 1 << 14


class Ids:
    """Numbers from 0 on for 64-bit keys, in the order in which they were met first: 12 bytes a key."""

    def __init__(self) -> None:
        self._sorted: Words = np.zeros(0, np.uint64)
        self._ids = np.zeros(0, np.uint32)

    def __len__(self) -> int:
        return len(self._sorted)

    def of(self, keys: Words) -> Ints:
        """Those of ``keys``, which are added where they are new."""
        known = self.find(keys)
        new = np.unique(keys[known < 0])
        if not len(new):
            return known
        places = np.searchsorted(self._sorted, new)
        ids = np.arange(len(self), len(self) + len(new), dtype=np.uint32)
        self._sorted = np.insert(self._sorted, places, new)
        self._ids = np.insert(self._ids, places, ids)
        return self.find(keys)

    def find(self, keys: Words) -> Ints:
        """Those of ``keys``, -1 where one is not known."""
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        places = np.minimum(np.searchsorted(self._sorted, keys), len(self) - 1)
        return np.where(self._sorted[places] == keys, self._ids[places].astype(np.int64), -1)

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

    def add(self, keys: Ints, counts: Ints | None = None) -> None:
        """``counts``: how often each, if that is not once."""
        self._pending.append(np.unique(keys, return_counts=True) if counts is None else (keys, counts))
        self._waiting += len(self._pending[-1][0])
        if self._waiting > max(_PENDING, len(self._keys) // 4):
            self.sorted()

    def sorted(self) -> tuple[Ints, Ints]:
        """(keys, ascending; their counts)."""
        if self._pending:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
            counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
            self._pending, self._waiting = [], 0
            order = np.argsort(keys, kind="stable")
            keys, counts = keys[order], counts[order]
            firsts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
            self._keys = keys[firsts]
            self._counts = np.add.reduceat(counts, firsts) if len(firsts) else counts
        return self._keys, self._counts


class Node(NamedTuple):
    """``place``: device | mount << 32; ``mode``: with the flags of `gotrace.probes.datapath`."""

    parent: int
    inode: int
    place: int
    mode: int


class _Growing:
    """A column to which values are added; a list of parts would leave holes in the heap."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._room: Array = np.zeros(0, dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> Array:
        return self._room[: self._length]

    def reserve(self, length: int) -> Array:
        """`values`, which are ``length`` then: 0 are added."""
        if length > len(self._room):
            room = np.zeros(length + length // 8, self._room.dtype)
            room[: self._length] = self.values
            self._room = room
        self._length = max(length, self._length)
        return self.values

    def add(self, values: Array) -> None:
        self.reserve(self._length + len(values))[-len(values) or self._length :] = values

    def take(self, places: Ints) -> None:
        """Keep what is there, in this order."""
        self._room = self.values[places]
        self._length = len(places)


class _Last:
    """Rows in columns, of those with equal keys the last one, sorted by the first key, and then by the second."""

    def __init__(self, kept: np.dtype[Any], keys: Sequence[str]) -> None:
        self._keys = keys
        self._columns = {name: _Growing(kept[name]) for name in kept.names or ()}

    def add(self, events: Array) -> None:
        for name, column in self._columns.items():
            column.add(events[name])

    def __getitem__(self, name: str) -> Array:
        return self._columns[name].values

    def settle(self) -> None:
        order = np.lexsort([self[key] for key in reversed(self._keys)])  # stable
        differs = np.zeros(len(order), bool)
        differs[-1:] = True
        for key in self._keys:
            column = self[key][order]
            differs[:-1] |= column[1:] != column[:-1]
        order = order[differs]
        for each in self._columns.values():  # one at a time, for the memory's sake
            each.take(order)


# Columns that are kept of names and files: 34 and 36 bytes.
_NAME = np.dtype([("node", "u8"), ("at", "u2"), ("name0", "u8"), ("name1", "u8"), ("name2", "u8")])
_FILE = np.dtype([("node", "u8"), ("parent", "u8"), ("inode", "u8"), ("place", "u8"), ("mode", "u4")])


class Names:
    """What files are called. ``text`` is the flag of a mode that says that a node is a text, not a file, ``cut`` that it is
    the beginning of one."""

    def __init__(self, text: int, deleted: int, cut: int) -> None:
        self._text, self._deleted, self._cut = text, deleted, cut
        self._files, self._names = _Last(_FILE, ["node"]), _Last(_NAME, ["node", "at"])
        self._settled = True
        self._known: dict[int, bytes] = {}
        self._others: set[int] = set()

    def add(self, names: Array, files: Array) -> None:
        """Events of the kinds name and file."""
        if not len(names) and not len(files):
            return
        self._settled = False
        self._names.add(names)
        self._files.add(files)
        mode = files["mode"].astype(np.int64)
        is_file = np.isin(mode & 0xF000, _FILES) | (mode & ~np.int64(0xFFFF | self._deleted) != 0)
        self._others.update(files["node"][~is_file].tolist())

    def others(self, nodes: Words) -> Flags:
        """Which of them are no files, but pipes, sockets, devices that are read a character at a time, and so on."""
        return np.isin(nodes, np.array(list(self._others), np.uint64))

    def _settle(self) -> None:
        if not self._settled:
            self._files.settle()
            self._names.settle()
            self._known = {}
            self._settled = True

    @property
    def _nodes(self) -> Words:
        return self._files["node"]

    @property
    def _named(self) -> Words:
        return self._names["node"]

    def places(self, nodes: Words) -> tuple[Words, Ints]:
        """(place, mode) of each node, 0 for one that is not known."""
        self._settle()
        if not len(self._nodes):
            return np.zeros(len(nodes), np.uint64), np.zeros(len(nodes), np.int64)
        at = np.minimum(np.searchsorted(self._nodes, nodes), len(self._nodes) - 1)
        known = self._nodes[at] == nodes
        place = np.where(known, self._files["place"][at], np.uint64(0))
        return place, np.where(known, self._files["mode"][at], 0).astype(np.int64)

    def node(self, node: int) -> Node | None:
        """None for one that is not known."""
        self._settle()
        at = int(np.searchsorted(self._nodes, np.uint64(node)))
        if at == len(self._nodes) or int(self._nodes[at]) != node:
            return None
        return Node(*(int(self._files[name][at]) for name in Node._fields))

    def name(self, node: int) -> bytes:
        """Its own alone; a text's is all of it."""
        self._settle()
        begin, end = (int(np.searchsorted(self._named, np.uint64(node), side)) for side in ("left", "right"))
        words = (self._names[f"name{word}"][begin:end].tolist() for word in range(3))
        return b"".join(text_of(*part) for part in zip(*words, strict=True))

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
        rows = first[short]
        words = np.zeros((len(nodes), 3), np.uint64)
        words[short] = np.stack([self._names[f"name{word}"][rows] for word in range(3)], axis=1)
        texts = words.tobytes()
        columns = (nodes.tolist(), short.tolist(), *(self._files[name][at].tolist() for name in Node._fields))
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
            text += b"\xe2\x80\xa6" if node.mode & self._cut else b""
            return (parent if parent != b"/" else b"") + b"/" + text
        path = (parent if parent != b"/" else b"") + b"/" + name
        return path + b" (deleted)" if node.mode & self._deleted and not path.endswith(b" (deleted)") else path


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
        return (self.results < 0) & (self.results >= -4095) & ~self.interrupted

    @property
    def interrupted(self) -> Flags:
        """By a signal: the kernel begins the call again, or returns EINTR, which is decided after its end is seen."""
        return np.isin(-self.results, list(INTERRUPTED))


class Rows:
    """Rows of a table: ``files`` are places in ``nodes``, ``numbers`` are calls, and `column` has those of `COLUMNS`."""

    def __init__(self, parts: Sequence[_OfNumber]) -> None:
        self._parts = parts
        self.nodes: Words = np.zeros(0, np.uint64)
        for each in parts:
            self.nodes = np.union1d(self.nodes, each.files.keys())
        found = (np.searchsorted(self.nodes, each.files.keys()).astype(np.int32) for each in parts)
        self.files: Places = np.concatenate([np.zeros(0, np.int32), *found])
        lengths = [len(each.files) for each in parts]
        self.numbers: Places = np.repeat(np.array([each.number for each in parts], np.int32), lengths)

    def column(self, name: str) -> Ints:
        """A copy."""
        return np.concatenate([np.zeros(0, np.int64), *(each.column(name) for each in self._parts)], dtype=np.int64)


class _OfNumber:
    """What calls of one number on each file came to. Columns in which there is nothing but 0 are not kept, and neither are
    the lengths of a file's only call: those are their sum."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.files = Ids()
        self._columns: dict[str, _Growing] = {}
        self._buckets = Counts()

    def column(self, name: str) -> Array:
        """One of `COLUMNS`, by the numbers of files."""
        found = self._columns.get(name)
        return np.zeros(len(self.files), np.int64) if found is None else found.reserve(len(self.files))

    def add(self, files: Words, values: dict[str, Ints]) -> None:
        """``values``: `COLUMNS` of single calls, but for their number and the longest."""
        ids = self.files.of(files)
        order = np.argsort(ids, kind="stable")
        ids, took = ids[order], values["total_ns"][order]
        firsts = np.flatnonzero(np.diff(ids, prepend=-1))
        rows, calls = ids[firsts], np.diff(firsts, append=len(ids))
        before = self._reserved("calls")[rows].astype(np.int64)
        one = before == 1
        self._note(rows[one], self._reserved("total_ns")[rows[one]])
        several = np.repeat(before + calls > 1, calls)
        self._note(ids[several], took[several])
        self._reserved("calls")[rows] += calls.astype(np.uint32)
        longest = self._reserved("max_ns")
        longest[rows] = np.maximum(longest[rows], np.maximum.reduceat(took, firsts))
        for name, column in values.items():
            sums = np.add.reduceat(column[order].astype(np.int64), firsts)
            if sums.any():
                kept = self._reserved(name)
                kept[rows] += sums.astype(kept.dtype)

    def _reserved(self, name: str) -> Array:
        """A column that has room for every file."""
        column = self._columns.setdefault(name, _Growing(np.int64 if name in _WIDE else np.uint32))
        return column.reserve(len(self.files))

    def _note(self, ids: Ints, took_ns: Ints) -> None:
        self._buckets.add(ids << _BUCKET_BITS | _bucket(took_ns))

    def lengths(self, groups: Ints) -> Counts:
        """How often each group << _BUCKET_BITS | bucket. ``groups`` has one for each file, -1 for those not asked for."""
        found = Counts()
        keys, counts = self._buckets.sorted()
        of = groups[keys >> _BUCKET_BITS]
        found.add((of << _BUCKET_BITS | keys & ((1 << _BUCKET_BITS) - 1))[of >= 0], counts[of >= 0])
        calls, total_ns = self.column("calls"), self.column("total_ns")
        for begin in range(0, len(groups), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            once = (calls[chunk] == 1) & (groups[chunk] >= 0)
            found.add(groups[chunk][once] << _BUCKET_BITS | _bucket(total_ns[chunk][once]))
        return found


def _bucket(took_ns: Ints) -> Ints:
    return bucket_indexes(np.clip(took_ns, 0, LARGEST_RECORDABLE))


class Table:
    """What calls of each number on each file came to. ``moves`` says of a number whether its result is bytes; numbers from
    ``page_fault`` on are page faults."""

    def __init__(self, moves: Flags, reads: Flags, page_fault: int) -> None:
        self._moves, self._reads, self._page_fault = moves, reads, page_fault
        self._parts: dict[int, _OfNumber] = {}

    def add(self, calls: Calls) -> None:
        moved = np.where(self._moves[calls.numbers] & (calls.results > 0), calls.results, 0)
        fault = calls.numbers >= self._page_fault
        returned = self._reads[calls.numbers] & (calls.results > 0)
        reads = returned & ~calls.direct
        values = {
            "errors": calls.failed,
            "not_found": calls.results == -2,
            "bytes": np.where(fault, calls.pages * 4096, moved),
            "total_ns": calls.took_ns,
            "warm": reads & (calls.pages == 0),
            "cold": (reads & (calls.pages > 0)) | fault,
            "direct": returned & calls.direct,
            "pages": calls.pages,
            "served_ns": np.minimum(calls.served_ns, calls.took_ns),
            "served": calls.served,
        }
        for number in np.unique(calls.numbers).tolist():
            of = calls.numbers == number
            part = self._parts.setdefault(number, _OfNumber(number))
            part.add(calls.files[of], {name: column[of] for name, column in values.items()})

    def rows(self) -> Rows:
        """Every row, by number."""
        return Rows([part for _, part in sorted(self._parts.items())])

    def histograms(self, group_of_row: Places, groups: Iterable[int]) -> list[Histogram]:
        """How long the calls of each group took; ``group_of_row`` says for each of `rows` which one it is in."""
        wanted = np.array(list(groups), np.int64)
        slot_of = np.full(max(wanted.max(initial=-1), group_of_row.max(initial=-1)) + 1, -1)
        slot_of[wanted] = np.arange(len(wanted))
        counts, begin = Counts(), 0
        total_ns, max_ns = np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
        for _, part in sorted(self._parts.items()):
            of = slot_of[group_of_row[begin : begin + len(part.files)]]
            begin += len(part.files)
            counts.add(*part.lengths(of).sorted())
            mine = of >= 0
            np.add.at(total_ns, of[mine], part.column("total_ns")[mine])
            np.maximum.at(max_ns, of[mine], part.column("max_ns")[mine])
        keys, numbers = counts.sorted()
        ends = np.searchsorted(keys >> _BUCKET_BITS, np.arange(len(wanted) + 1))
        return [
            Histogram.of_buckets(
                keys[begin:end] & ((1 << _BUCKET_BITS) - 1), numbers[begin:end], int(total_ns[at]), int(max_ns[at])
            )
            for at, (begin, end) in enumerate(itertools.pairwise(ends.tolist()))
        ]


def first_equals(values: Array) -> Places:
    """For each value the place of the first one that is equal to it."""
    order = np.argsort(values, kind="stable").astype(np.int32)
    ordered = values[order]
    heads = np.arange(len(order), dtype=np.int32)
    heads[1:][ordered[1:] == ordered[:-1]] = 0
    found = np.empty_like(order)
    found[order] = order[np.maximum.accumulate(heads)]
    return found


class Group(NamedTuple):
    """The sums of a group's rows by `COLUMNS`. ``metadata`` and ``other`` are (calls, nanoseconds) of those that move no
    data and of those on what is no file: pipes, sockets, devices."""

    name: bytes
    sums: dict[str, int]
    metadata: tuple[int, int]
    other: tuple[int, int]


NOTHING = Group(b"", dict.fromkeys(COLUMNS, 0), (0, 0), (0, 0))


class Groups(NamedTuple):
    """The first of them by time, with their keys; of the others how many there are, and all of them together."""

    shown: list[tuple[int, Group]]
    more: int
    rest: Group


def groups(
    keys: Places,
    names: Callable[[int], bytes],
    column: Callable[[str], Ints],
    metadata: Flags,
    other: Flags,
    top: int,
) -> Groups:
    """The rows of each key together, those that took longest first; ``top`` of them, or all (0). Keys are small."""
    total_ns = np.zeros(keys.max(initial=-1) + 1, np.int64)
    np.add.at(total_ns, keys, column("total_ns"))
    there = np.zeros(len(total_ns), bool)
    there[keys] = True
    found = np.flatnonzero(there)
    shown = found[np.argsort(-total_ns[found], kind="stable")[: top or len(found)]]
    slots = np.full(len(total_ns), len(shown), np.int32)
    slots[shown] = np.arange(len(shown))
    back = slots[keys]
    sums = {name: np.zeros(len(shown) + 1, np.int64) for name in COLUMNS}
    parts = np.zeros((2, 2, len(shown) + 1), np.int64)
    for name, each in sums.items():
        values = column(name)
        (np.maximum if name == "max_ns" else np.add).at(each, back, values)
        if name in ("calls", "total_ns"):
            for part, flags in zip(parts, (metadata & ~other, other), strict=True):
                np.add.at(part[int(name == "total_ns")], back[flags], values[flags])

    def group(at: int, name: bytes) -> Group:
        of, others = ((int(calls[at]), int(ns[at])) for calls, ns in parts)
        return Group(name, {name: int(column[at]) for name, column in sums.items()}, of, others)

    listed = [(key, group(at, names(key))) for at, key in enumerate(shown.tolist())]
    return Groups(listed, len(found) - len(shown), group(len(shown), b""))


def pattern(glob: str) -> re.Pattern[str]:
    """A data set by the paths of its files, as text (bytes that are not UTF-8 are surrogates): ``**`` is any number of
    folders, ``*``, ``?`` and ``[…]`` stay within one."""
    parts = re.split(r"(\*\*/?|\*|\?|\[!?\]?[^]]*\])", glob)
    out = ""
    for part in parts:
        if part.startswith("**"):
            out += "(?:.*/)?" if part.endswith("/") else ".*"
        elif part == "*":
            out += "[^/]*"
        elif part == "?":
            out += "[^/]"
        elif part.startswith("[") and part.endswith("]"):
            out += "(?!/)" + fnmatch.translate(part)[4:-3]
        else:
            out += re.escape(part)
    return re.compile(out + r"\Z", re.DOTALL)

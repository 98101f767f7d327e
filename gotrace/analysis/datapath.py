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

    def by_key(self) -> tuple[Array, Words]:
        """(numbers, keys), in the order of the keys."""
        return self._ids, self._sorted

    def keys(self) -> Words:
        """Every key, by its number."""
        found: Words = np.empty(len(self), np.uint64)
        found[self._ids] = self._sorted
        return found


class Counts:
    """How often each of many keys was there: 9 bytes a key, more where there were more than 255 of one."""

    def __init__(self) -> None:
        self._keys: Ints = np.zeros(0, np.int64)
        self._counts: Array = np.zeros(0, np.uint8)
        self._pending: list[tuple[Ints, Array]] = []
        self._waiting = 0

    def add(self, keys: Ints, counts: Array | None = None) -> None:
        """``counts``: how often each, if that is not once."""
        self._pending.append(np.unique(keys, return_counts=True) if counts is None else (keys, counts))
        self._waiting += len(self._pending[-1][0])
        if self._waiting > max(_PENDING, len(self._keys) // 8):
            self.sorted()

    def sorted(self) -> tuple[Ints, Array]:
        """(keys, ascending; their counts)."""
        if self._pending:
            keys, counts = (np.concatenate(each) for each in zip(*self._pending, strict=True))
            self._pending, self._waiting = [], 0
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            firsts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
            keys, counts = keys[firsts], np.add.reduceat(counts[order].astype(np.int64), firsts) if len(firsts) else counts
            places = np.searchsorted(self._keys, keys)
            new = _is_new(self._keys, places, keys)
            counts[~new] += self._counts[places[~new]].astype(np.int64)
            width = np.min_scalar_type(int(counts.max(initial=0)))
            self._counts = self._counts.astype(np.promote_types(self._counts.dtype, width), copy=False)
            self._counts[places[~new]] = counts[~new]
            self._keys = np.insert(self._keys, places[new], keys[new])
            self._counts = np.insert(self._counts, places[new], counts[new])
        return self._keys, self._counts


def _is_new(known: Array, places: Ints, keys: Array) -> Flags:
    """Which of some keys are not among sorted ones; ``places``: where these would have them."""
    found: Flags = np.ones(len(keys), bool)
    if len(known):
        found = known[np.minimum(places, len(known) - 1)] != keys
    return found


class Node(NamedTuple):
    """``parent``: 0 for none; ``inode``: of one that has no parent, or is known by a mapping alone; ``place``: device |
    mount << 32; ``mode``: with the flags of `gotrace.probes.datapath`."""

    parent: int
    inode: int
    place: int
    mode: int


class _Growing:
    """A column of numbers, 0 where nothing was put, as wide as the largest one needs. A list of parts would leave holes in
    the heap."""

    def __init__(self) -> None:
        self._room: Array = np.zeros(0, np.uint8)
        self._length = 0

    @property
    def values(self) -> Array:
        return self._room[: self._length]

    def reserve(self, length: int) -> Array:
        """`values`, which are ``length`` then: 0 are added."""
        if length > len(self._room):
            self._move(length + length // 8, self._room.dtype)
        self._length = max(length, self._length)
        return self.values

    def _move(self, length: int, dtype: npt.DTypeLike) -> None:
        room = np.zeros(length, dtype)
        room[: self._length] = self.values
        self._room = room

    def put(self, places: Ints | slice, values: Array) -> None:
        """Of equal places the last of ``values``, which have 64 bits, is kept."""
        if not len(values):
            return
        narrow = np.min_scalar_type(int(values.max()))
        width = values.dtype if narrow.itemsize == 8 or int(values.min()) < 0 else narrow
        if width.itemsize > self._room.itemsize:
            self._move(len(self._room), width)
        self.values[places] = values

    def insert(self, places: Ints) -> None:
        """0 before each of these places."""
        self._room = np.insert(self.values, places, 0)
        self._length = len(self._room)


class _Columns:
    """Columns by name, all of them as long. One in which there is nothing but 0 takes no room."""

    def __init__(self) -> None:
        self._length = 0
        self._columns: dict[str, _Growing] = {}

    def __len__(self) -> int:
        return self._length

    def reserve(self, length: int) -> None:
        self._length = max(length, self._length)

    def put(self, name: str, places: Ints | slice, values: Array) -> None:
        if name in self._columns or values.any():
            column = self._columns.setdefault(name, _Growing())
            column.reserve(self._length)
            column.put(places, values)

    def at(self, name: str, places: Ints | slice) -> Array:
        """A copy, 64 bits each."""
        column = self._columns.get(name)
        if column is None:
            length = len(range(self._length)[places]) if isinstance(places, slice) else len(places)
            return np.zeros(length, np.int64)
        found = column.reserve(self._length)[places]
        return found.astype(np.uint64 if found.dtype == np.uint64 else np.int64)

    def insert(self, places: Ints) -> None:
        for column in self._columns.values():
            column.reserve(self._length)
            column.insert(places)
        self._length += len(places)


class _Sparse(_Columns):
    """Rows by keys that few have, or that come in any order: sorted by them."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        super().__init__()
        self._dtype = np.dtype(dtype)
        self._room: Array = np.zeros(0, dtype)

    @property
    def keys(self) -> Array:
        return self._room[: self._length]

    def find(self, keys: Array) -> Ints:
        """The places of keys that are there."""
        return np.searchsorted(self.keys, keys.astype(self._dtype, copy=False))

    def of(self, keys: Array) -> Ints:
        """The places of keys, each of them once and in order, which are added where they are new."""
        keys = keys.astype(self._dtype, copy=False)
        places = self.find(keys)
        new = _is_new(self.keys, places, keys)
        added = keys[new]
        if not len(added):
            return places
        if not self._length or added[0] > self.keys[-1]:
            before, after = self._length, self._length + len(added)
            if after > len(self._room):
                room = np.zeros(after + after // 8, self._dtype)
                room[:before] = self.keys
                self._room = room
            self.reserve(after)
            self.keys[before:] = added
        else:
            self._room = np.insert(self.keys, places[new], added)
            self.insert(places[new])
        return self.find(keys)


_WORDS = ("name0", "name1", "name2")


class Names:
    """What files are called. ``text`` is the flag of a mode that says that a node is a text, not a file, ``cut`` that it is
    the beginning of one. ``ids`` number the nodes; some 30 bytes for each, and 12 for its number."""

    def __init__(self, text: int, deleted: int, cut: int) -> None:
        self._text, self._deleted, self._cut = text, deleted, cut
        self.ids = Ids()
        # By number. parent: its number + 1, or 0; place, mode: their numbers, the place's + 1, which is 0 if it was lost.
        self._nodes = _Columns()
        self._places, self._modes = Ids(), Ids()
        self._place_of, self._mode_of = np.zeros(1, np.uint64), np.zeros(0, np.int64)
        self._inodes = _Sparse(np.uint32)  # of nodes that are called by them
        self._rests = _Sparse(np.uint64)  # of names of more than 24 bytes: number << 16 | where they begin
        self._known: dict[int, bytes] = {}

    def add(self, names: Array, files: Array) -> None:
        """Events of the kinds name and file."""
        if not len(names) and not len(files):
            return
        self._known = {}
        ids, named = self.ids.of(files["node"]), self.ids.of(names["node"])
        parents = np.where(files["parent"] != 0, self.ids.of(files["parent"]) + 1, 0)
        self._nodes.reserve(len(self.ids))
        mode = files["mode"].astype(np.int64)
        self._nodes.put("parent", ids, parents)
        self._nodes.put("place", ids, self._places.of(files["place"]) + 1)
        self._nodes.put("mode", ids, self._modes.of(files["mode"]))
        self._place_of = np.append(np.uint64(0), self._places.keys())
        self._mode_of = self._modes.keys().astype(np.int64)
        is_file = np.isin(mode & 0xF000, _FILES) | (mode & ~np.int64(0xFFFF | self._deleted) != 0)
        self._nodes.put("other", ids[~is_file], np.ones(np.count_nonzero(~is_file), np.uint8))
        # A file in no folder, or known by a mapping alone.
        without = np.flatnonzero((parents == 0) | (mode & ~np.int64(0xFFFF | self._deleted | self._text | self._cut) != 0))
        self._add_rows(self._inodes, ids[without], files[without], ("inode",))
        at = names["at"]
        first = np.flatnonzero(at == 0)
        for word in _WORDS:
            self._nodes.put(word, named[first], names[word][first])
        rest = np.flatnonzero(at)
        self._add_rows(self._rests, named[rest] << 16 | at[rest].astype(np.int64), names[rest], _WORDS)

    def _add_rows(self, rows: _Sparse, keys: Ints, events: Array, columns: Sequence[str]) -> None:
        if len(keys):
            rows.of(np.unique(keys))
            places = rows.find(keys)
            for name in columns:
                rows.put(name, places, events[name])

    def others(self, nodes: Words) -> Flags:
        """Which of them are no files, but pipes, sockets, devices that are read a character at a time, and so on."""
        ids = self.ids.find(nodes)
        found: Flags = (self._at("other", ids) != 0) & (ids >= 0)
        return found

    def _at(self, name: str, ids: Ints) -> Array:
        """A column, 64 bits each; anything where an id is -1."""
        self._nodes.reserve(len(self.ids))  # those of calls too
        return self._nodes.at(name, ids) if len(self.ids) else np.zeros(len(ids), np.int64)

    def places(self, nodes: Words) -> tuple[Words, Ints]:
        """(place, mode) of each node, 0 for one that is not known."""
        return self._places_of(self.ids.find(nodes))

    def _places_of(self, ids: Ints) -> tuple[Words, Ints]:
        place = np.where(ids >= 0, self._at("place", ids), 0)
        if not len(self._mode_of):
            return np.zeros(len(ids), np.uint64), np.zeros(len(ids), np.int64)
        return self._place_of[place], np.where(place > 0, self._mode_of[self._at("mode", ids)], 0)

    def node(self, node: int) -> Node | None:
        """None for one that is not known."""
        return self._node(self._id(node))

    def _id(self, node: int) -> int:
        return int(self.ids.find(np.array([node], np.uint64))[0])

    def _node(self, number: int) -> Node | None:
        ids = np.array([number])
        if number < 0 or not self._at("place", ids)[0]:
            return None
        (place,), (mode,) = self._places_of(ids)
        inode = 0
        if not _is_new(self._inodes.keys, found := self._inodes.find(ids), ids)[0]:
            inode = int(self._inodes.at("inode", found)[0])
        return Node(int(self._at("parent", ids)[0]), inode, int(place), int(mode))

    def name(self, node: int) -> bytes:
        """Its own alone; a text's is all of it."""
        return self._name(self._id(node))

    def _name(self, number: int) -> bytes:
        if number < 0:
            return b""
        ids = np.array([number])
        begin, end = self._rests.find(np.array([number << 16, number + 1 << 16])).tolist()
        words = ([*self._at(word, ids).tolist(), *self._rests.at(word, slice(begin, end)).tolist()] for word in _WORDS)
        return b"".join(text_of(*part) for part in zip(*words, strict=True))

    def path(self, node: int) -> bytes:
        """From the root of its mount namespace; of what has no name there its own; `UNKNOWN` if it was lost."""
        return self._path(self._id(node)) if node else b""

    def _path(self, number: int) -> bytes:
        """``number`` is -1 for a node that was never told of."""
        if (known := self._known.get(number)) is not None:
            return known
        above: list[tuple[int, Node]] = []
        at, path = number, UNKNOWN
        while True:
            if (path_ := self._known.get(at)) is not None:
                path = path_
                break
            found = self._node(at)
            if found is None or any(at == each for each, _ in above):
                path = b"\xe2\x80\xa6"  # cut off, or lost
                if not above:
                    path = UNKNOWN
                break
            above.append((at, found))
            if not found.parent:
                path = b""
                break
            at = found.parent - 1
        for each, found in reversed(above):
            path = self._joined(path, self._name(each), found)
            # A directory: of many. Others as long as there is room: of a million it would not fit.
            if found.mode & 0xF000 == 0x4000 or len(self._known) < _CHUNK:
                self._known[each] = path
        return path

    def paths(self, nodes: Words) -> Iterator[bytes]:
        """`path` of each of many."""
        for begin in range(0, len(nodes), _CHUNK):
            yield from self._paths(nodes[begin : begin + _CHUNK])

    def _paths(self, nodes: Words) -> Iterator[bytes]:
        ids = self.ids.find(nodes)
        place, mode = self._places_of(ids)
        parent = self._at("parent", ids)
        begins = ids.astype(np.uint64) << np.uint64(16)
        is_short = (ids >= 0) & (self._rests.find(begins) == self._rests.find(begins + np.uint64(1 << 16)))
        texts = np.stack([self._at(word, ids).view(np.uint64) for word in _WORDS], axis=1).tobytes()
        columns = (nodes, ids, self._at("place", ids), parent, place, mode, is_short)
        for at, (node, number, known, *about, short) in enumerate(zip(*(each.tolist() for each in columns), strict=True)):
            if short and known and about[0]:
                name = texts[24 * at : 24 * at + 24].split(b"\0", 1)[0]
                yield self._joined(self._path(about[0] - 1), name, Node(about[0], 0, about[1], about[2]))
            else:
                yield self._path(number) if node else b""

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


class Rows(NamedTuple):
    """What calls of one number came to: ``files`` are places in a table's nodes, and ``column`` has one of `COLUMNS`."""

    number: int
    files: Places
    column: Callable[[str], Ints]


class _OfNumber:
    """What calls of one number on each file came to, by the numbers of files. ``max_ns`` is kept where there were several
    calls, and so is how long each took: of a file's only call both are its sum."""

    def __init__(self) -> None:
        self._rows = _Sparse(np.uint32)
        self._buckets = Counts()

    @property
    def files(self) -> Array:
        return self._rows.keys

    def column(self, name: str) -> Ints:
        """A copy of one of `COLUMNS`."""
        found = self._rows.at(name, slice(None))
        if name == "max_ns":
            once = self._rows.at("calls", slice(None)) == 1
            found[once] = np.maximum(self._rows.at("total_ns", slice(None))[once], 0)
        return found

    def add(self, ids: Ints, values: dict[str, Ints]) -> None:
        """``values``: `COLUMNS` of single calls, but for their number and the longest."""
        order = np.argsort(ids, kind="stable")
        ids, took = ids[order], values["total_ns"][order]
        firsts = np.flatnonzero(np.diff(ids, prepend=-1))
        rows, calls = self._rows.of(ids[firsts]), np.diff(firsts, append=len(ids))
        before, total_ns = self._rows.at("calls", rows), self._rows.at("total_ns", rows)
        one, several = before == 1, before + calls > 1
        if several.any():
            self._note(ids[firsts][one], total_ns[one])
            each = np.repeat(several, calls)
            self._note(ids[each], took[each])
            longest = np.maximum(np.where(one, total_ns, self._rows.at("max_ns", rows)), np.maximum.reduceat(took, firsts))
            self._rows.put("max_ns", rows[several], np.maximum(longest[several], 0))
        self._rows.put("calls", rows, before + calls)
        for name, column in values.items():
            sums = np.add.reduceat(column[order].astype(np.int64), firsts)
            if sums.any():
                self._rows.put(name, rows, self._rows.at(name, rows) + sums)

    def _note(self, ids: Ints, took_ns: Ints) -> None:
        if len(ids):
            self._buckets.add(ids << _BUCKET_BITS | _bucket(took_ns))

    def lengths(self, groups: Places) -> Counts:
        """How often each group << _BUCKET_BITS | bucket. ``groups`` has one for each file, -1 for those not asked for."""
        found = Counts()
        keys, counts = self._buckets.sorted()
        for begin in range(0, len(keys), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            of = groups[self._rows.find(keys[chunk] >> _BUCKET_BITS)].astype(np.int64)
            wanted = of >= 0
            found.add((of << _BUCKET_BITS | keys[chunk] & ((1 << _BUCKET_BITS) - 1))[wanted], counts[chunk][wanted])
        for begin in range(0, len(groups), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            once = (self._rows.at("calls", chunk) == 1) & (groups[chunk] >= 0)
            of = groups[chunk][once].astype(np.int64)
            found.add(of << _BUCKET_BITS | _bucket(self._rows.at("total_ns", chunk)[once]))
        return found


def _bucket(took_ns: Ints) -> Ints:
    return bucket_indexes(np.clip(took_ns, 0, LARGEST_RECORDABLE))


class Table:
    """What calls of each number on each file came to. ``ids`` number the files; ``moves`` says of a number whether its
    result is bytes; numbers from ``page_fault`` on are page faults. Some 10 bytes for each file and number."""

    def __init__(self, ids: Ids, moves: Flags, reads: Flags, page_fault: int) -> None:
        self._ids = ids
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
        ids = self._ids.of(calls.files)
        for number in np.unique(calls.numbers).tolist():
            of = np.flatnonzero(calls.numbers == number)
            part = self._parts.setdefault(number, _OfNumber())
            part.add(ids[of], {name: column[of] for name, column in values.items()})

    def rows(self) -> tuple[Words, list[Rows]]:
        """(the nodes that there were calls on, in order; of each number, in order, its rows)."""
        ids, nodes = self._ids.by_key()
        there = np.zeros(len(ids), bool)
        for part in self._parts.values():
            there[part.files] = True
        used = there[ids]
        place = np.zeros(len(ids), np.uint32)
        place[ids[used]] = np.arange(np.count_nonzero(used), dtype=np.uint32)
        parts = sorted(self._parts.items())
        return nodes[used], [Rows(number, place[part.files], part.column) for number, part in parts]

    def histograms(self, group_of_row: Sequence[Places], groups: Iterable[int]) -> list[Histogram]:
        """How long the calls of each group took; ``group_of_row`` says for each of `rows` which one it is in."""
        wanted = np.array(list(groups), np.int64)
        slot_of = np.full(_length(wanted, *group_of_row), -1, np.int32)
        slot_of[wanted] = np.arange(len(wanted))
        counts = Counts()
        total_ns, max_ns = np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
        for (_, part), group in zip(sorted(self._parts.items()), group_of_row, strict=True):
            of = slot_of[group]
            counts.add(*part.lengths(of).sorted())
            mine = np.flatnonzero(of >= 0)
            np.add.at(total_ns, of[mine], part.column("total_ns")[mine])
            np.maximum.at(max_ns, of[mine], part.column("max_ns")[mine])
        keys, numbers = counts.sorted()
        ends = np.searchsorted(keys >> _BUCKET_BITS, np.arange(len(wanted) + 1))
        return [
            Histogram.of_buckets(
                keys[begin:end] & ((1 << _BUCKET_BITS) - 1),
                numbers[begin:end].astype(np.int64),
                int(total_ns[at]),
                int(max_ns[at]),
            )
            for at, (begin, end) in enumerate(itertools.pairwise(ends.tolist()))
        ]


def first_equals(values: Array) -> Places:
    """For each value the place of the first one that is equal to it."""
    order = np.argsort(values, kind="stable").astype(np.int32)
    ordered = values[order]
    heads = np.arange(len(order), dtype=np.int32)
    heads[1:][ordered[1:] == ordered[:-1]] = 0
    del ordered
    np.maximum.accumulate(heads, out=heads)
    found = np.empty_like(order)
    found[order] = order[heads]
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


def _length(*indexes: Places) -> int:
    """Of an array that has something at each of these places."""
    return max((int(each.max()) + 1 for each in indexes if len(each)), default=0)


class Grouped(NamedTuple):
    """`Rows` with the key of each row's group, and whether it is metadata, or on what is no file."""

    keys: Places
    column: Callable[[str], Ints]
    metadata: Flags
    other: Flags


def groups(parts: Sequence[Grouped], names: Callable[[int], bytes], top: int) -> Groups:
    """The rows of each key together, those that took longest first; ``top`` of them, or all (0). Keys are small."""
    total_ns = np.zeros(_length(*(part.keys for part in parts)), np.int64)
    there = np.zeros(len(total_ns), bool)
    for part in parts:
        np.add.at(total_ns, part.keys, part.column("total_ns"))
        there[part.keys] = True
    found = np.flatnonzero(there)
    less = total_ns[found]
    np.negative(less, out=less)
    shown = found[np.argsort(less, kind="stable")[: top or len(found)]]
    more = len(found) - len(shown)
    slots = np.full(len(total_ns), len(shown), np.int32)
    slots[shown] = np.arange(len(shown))
    del total_ns, there, found, less
    sums = {name: np.zeros(len(shown) + 1, np.int64) for name in COLUMNS}
    shares = np.zeros((2, 2, len(shown) + 1), np.int64)
    for part in parts:
        back = slots[part.keys]
        for name, each in sums.items():
            values = part.column(name)
            if not values.any():
                continue
            (np.maximum if name == "max_ns" else np.add).at(each, back, values)
            if name in ("calls", "total_ns"):
                for share, flags in zip(shares, (part.metadata & ~part.other, part.other), strict=True):
                    np.add.at(share[int(name == "total_ns")], back[flags], values[flags])

    def group(at: int, name: bytes) -> Group:
        of, others = ((int(calls[at]), int(ns[at])) for calls, ns in shares)
        return Group(name, {name: int(column[at]) for name, column in sums.items()}, of, others)

    listed = [(key, group(at, names(key))) for at, key in enumerate(shown.tolist())]
    return Groups(listed, more, group(len(shown), b""))


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

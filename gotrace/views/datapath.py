"""What processes do with files: every call, by file, folder, mount, file system and data set."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis import datapath as tables
from gotrace.analysis import datapath_explain as explaining
from gotrace.analysis.histogram import Histogram
from gotrace.errors import UsageError
from gotrace.export.datapath_page import PARTS, Drawing
from gotrace.export.hdr_log import tag
from gotrace.kernel import nfs
from gotrace.kernel.bpf import TRACE_EVENT
from gotrace.kernel.heap import keep_large_arrays_apart
from gotrace.probes import datapath as probe
from gotrace.records.times import moment
from gotrace.records.watched import statistics
from gotrace.text import duration_ns
from gotrace.views.datapath_places import UNNAMED, Places, mapped_files, mounts_of_processes
from gotrace.views.datapath_stacks import CallStacks
from gotrace.views.view import Interval, Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_READS = {"read", "pread64", "readv", "preadv", "preadv2", "read_fixed", "readv_fixed", "read_multishot"}
_MOVES = {"sendfile", "copy_file_range", "splice", "write", "pwrite64", "writev", "pwritev", "pwritev2"} | {
    *("write_fixed", "writev_fixed", "tee", "vmsplice"),
    *_READS,
}
# What moves data, or waits for it; all else is metadata. Of ioctl it is copies that share blocks.
_DATA = _MOVES | {"fsync", "fdatasync", "sync_file_range", "syncfs", "sync", "msync", "readahead", "ioctl"}
_NUMBERS = 1 << 12
_PORTION = 1 << 16
_SLOWEST = 10
_DRAWN = ("dir", "file", "fs")  # by which a page has tables, whatever the result has its rows by
_OPENS = {"open", "openat", "openat2", "creat", "io_uring openat", "io_uring openat2"}
_LOOKS = _OPENS | {"stat", "lstat", "newfstatat", "statx", "fstat", "access", "faccessat", "faccessat2", "io_uring statx"}
_LISTINGS = {"getdents", "getdents64"}
_NO_FILE = b"(no file)"
_LIBAIO = "individual libaio requests"
_NEEDS = {
    "io_uring_submit_req": "io_uring",
    "io_uring_complete": "io_uring",
    "mm_filemap_fault": "page faults of mapped files",
    "mm_filemap_add_to_page_cache": "page cache hits and misses",
    "fuse_request_send": "a FUSE server's share",
    "fuse_request_end": "a FUSE server's share",
}


class Call(NamedTuple):
    """What a number stands for."""

    name: str
    metadata: bool
    moves: bool
    reads: bool
    other: bool = False  # on no file, whatever it has


def calls_of(header: Record) -> dict[int, Call]:
    """What the numbers of a session's calls stand for; those of io_uring have that before their name."""
    told = header["probes"]["datapath"]["facts"]["calls"]
    names = {int(number): name for number, name in told.items()}
    found = {number: Call(name, name not in _DATA, name in _MOVES, name in _READS) for number, name in names.items()}
    for number, name in probe.IO_URING_OPERATIONS.items():
        kind = (name not in _DATA, name in _MOVES, name in _READS)
        other = number not in probe.IO_URING_ON_FILES
        found[probe.IO_URING + number] = Call(f"io_uring {name}", *((False, False, False) if other else kind), other)
    for number, name in ((probe.PAGE_FAULT, "page fault"), (probe.FAULT_IN_CALL, "page fault in a call")):
        found[number] = Call(name, False, False, False)
    return found


class _Seen(NamedTuple):
    """A table's nodes and rows, and of each node whether it has pages in the page cache, and whether it is no file."""

    nodes: tables.Words
    parts: list[tables.Rows]
    cached: tables.Flags
    other: tables.Flags
    calls_metadata: tables.Flags  # by the numbers of calls
    calls_other: tables.Flags

    def grouped(self, part: tables.Rows, keys: tables.Places, no_time: bool = False) -> tables.Grouped:
        """The rows of a part by these keys."""
        cached = self.cached[part.files]
        other = self.other[part.files] | self.calls_other[part.number]

        def column(name: str) -> tables.Ints:
            found = part.column(name)
            if (no_time and name == "total_ns") or not found.any():
                return np.zeros_like(found)
            return np.where(cached, found, 0) if name in ("warm", "cold", "direct") else found

        return tables.Grouped(keys, column, self.calls_metadata[part.number] & ~other, other)

    def by_number(self) -> list[tables.Places]:
        return [np.broadcast_to(np.int32(part.number), len(part.files)) for part in self.parts]


class DataPath(View):
    """Every call; known at the end, but for single ones of at least ``min_ns`` (0: none), which come as they end.

    ``by`` is what a row stands for, ``datasets`` are patterns of paths, ``top`` is how many rows there are (0: all).
    ``explain``: say where the time went. ``epoch`` is then how long an epoch is, or a regular expression: an open of a file
    whose path it is found in begins the next one ("": all is one).
    """

    name = "datapath"
    stems = ("datapath",)
    drawn_by = "datapath_page"

    def __init__(
        self,
        by: str = "call",
        datasets: Sequence[str] = (),
        min_ns: int = 0,
        top: int = 20,
        explain: bool = False,
        epoch: str = "",
    ) -> None:
        self.by, self.datasets, self.min_ns, self.top = by, tuple(datasets), min_ns, top
        self._places = Places()
        self.result: Record = {}
        self._errors: dict[int, list[int]] = {}  # of each how many, and of them those on no file
        self._interrupted = 0
        self._threads: set[int] = set()
        self._processes: set[int] = set()
        self._served: dict[tuple[int, int], tuple[int, int]] = {}
        self.explain, self.epoch = explain, epoch
        self._shares = explaining.Shares()
        self._slowest = explaining.Slowest(_SLOWEST)
        self._readers: dict[int, set[int]] = {}
        self._mountstats: nfs.Mountstats | None = None

    @property
    def options(self) -> Record:
        named = {name: getattr(self, name) for name in ("by", "min_ns", "top", "explain", "epoch")}
        return {**named, "datasets": list(self.datasets)}

    def begin(self) -> Iterator[Record]:
        keep_large_arrays_apart()
        self._calls = calls_of(self.source.header)
        known = np.zeros((4, _NUMBERS), bool)
        known[3, probe.IO_URING : probe.PAGE_FAULT] = True  # what nobody knows
        for number, call in self._calls.items():
            known[:, number] = call.metadata, call.moves, call.reads, call.other
        self._is_metadata, moves, reads, self._is_other = known
        self._table = tables.Table(self._places.names.ids, moves, reads, probe.PAGE_FAULT)
        self._epochs = explaining.Epochs(self.source.begin_ns)
        self._stacks = CallStacks(self.source)
        self._interval_ns, self._marks = _epoch(self.epoch)
        self._nfs_before = self.source.ask("nfs", self._nfs_now, of_host=True)
        yield from ()

    def call(self, number: int) -> Call:
        if (known := self._calls.get(number)) is not None:
            return known
        if number >= probe.IO_URING:
            return Call(f"io_uring operation {number - probe.IO_URING}", False, False, False, True)
        return Call(f"call {number}", True, False, False)

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        for begin in range(
            0, max(1, len(events)), _PORTION
        ):  # a full ring at once takes as much as a table of a million files
            yield from self._feed(events[begin : begin + _PORTION])

    def _feed(self, events: Events) -> Iterator[Record]:
        kinds = self.source.kinds("datapath")
        files = kinds.of(events, "file")
        if self._places.add(kinds.of(events, "name"), files, kinds.of(events, "mount")):
            self._places.learn(self.source.ask("mounts", self._mounts, of_host=True) or ())
        if mapped := np.unique(files["tid"][files["mode"] & np.uint64(probe.MAPPED) != 0]).tolist():
            self._places.learn_mapped(self.source.ask("mappings", lambda: mapped_files(mapped), of_host=True) or ())
        for each in kinds.of(events, "served").tolist():
            self._note_served(dict(zip(("time_ns", "tid", "kind", "cpu", *kinds.columns("served")), each, strict=True)))
        self._stacks.feed(events)
        found = kinds.of(events, "call")
        if len(found):
            yield from self._add(found)

    def _mounts(self) -> list[list[Any]]:
        # Ours too: a short process may be gone, and numbers of mounts are those of all namespaces.
        return mounts_of_processes([os.getpid(), self.source.process.pid, *self._processes])

    def _nfs_now(self) -> Any:
        if self._mountstats is None:
            self._mountstats = nfs.Mountstats(self.source.process.pid)
        return self._mountstats.read()

    def _nfs(self, mounts: Sequence[Record]) -> list[Record] | None:
        before, after = self._nfs_before, self.source.ask("nfs", self._nfs_now, of_host=True)
        points = {each["point"] for each in mounts if each["type"].startswith("nfs")}
        if self._mountstats is not None:
            self._mountstats.close()
        if not points:
            return []
        return None if before is None or after is None else nfs_records(before, after, points)

    def _note_served(self, served: Record) -> None:
        key = served["tid"], served["call_ns"]
        took, count = self._served.get(key, (0, 0))
        self._served[key] = took + served["time_ns"] - served["begin_ns"], count + 1

    def _served_of(self, found: Events) -> list[npt.NDArray[np.int64]]:
        columns = [np.zeros(len(found), np.int64) for _ in range(2)]
        if self._served:
            for at, key in enumerate(zip(found["tid"].tolist(), found["begin_ns"].tolist(), strict=True)):
                if (served := self._served.pop(key, None)) is not None:
                    columns[0][at], columns[1][at] = served
            old = self.source.now_ns - 60_000_000_000  # of calls that were lost
            self._served = {key: each for key, each in self._served.items() if key[1] > old}
        return columns

    def _add(self, found: Events) -> Iterator[Record]:
        what = found["what"]
        served_ns, served = self._served_of(found)
        calls = tables.Calls(
            files=found["file"],
            numbers=(what & np.uint64(_NUMBERS - 1)).astype(np.int64),
            took_ns=(found["time_ns"] - found["begin_ns"]).astype(np.int64),
            results=found["result"].astype(np.int64),
            pages=(what >> np.uint64(32)).astype(np.int64),
            direct=(what >> np.uint64(16) & np.uint64(probe.DIRECT)) != 0,
            served_ns=served_ns,
            served=served,
        )
        self._table.add(calls)
        on_files = ~(self._places.names.others(calls.files) | self._is_other[calls.numbers])
        self._interrupted += int(np.count_nonzero(calls.interrupted))
        for which, failed in enumerate((calls.failed, calls.failed & ~on_files)):
            numbers, counts = np.unique(-calls.results[failed], return_counts=True)
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                self._errors.setdefault(number, [0, 0])[which] += count
        self._threads.update(np.unique(found["tid"]).tolist())
        self._processes.update(np.unique(found["process"]).tolist())
        long = np.flatnonzero(calls.took_ns >= probe.LONG_NS)
        began = zip(long.tolist(), found["tid"][long].tolist(), found["begin_ns"][long].tolist(), strict=True)
        stacks = {at: self._stacks.take(tid, begin_ns) for at, tid, begin_ns in began}
        for at in self._slowest.candidates(np.where(on_files, calls.took_ns, -1)):
            # Named at the end: looking for names now would sort all that are known, each time.
            one = tables.Calls(*(column[at : at + 1].copy() for column in calls))
            self._slowest.add(int(calls.took_ns[at]), (found[at].copy(), one, stacks.get(at, [])))
        if self.explain:
            self._explain(found, calls, on_files)
        if self.min_ns:
            for at in np.flatnonzero(calls.took_ns >= self.min_ns).tolist():
                yield self._single(found[at], calls, at, stacks.get(at, []))

    def _explain(self, found: Events, calls: tables.Calls, files: tables.Flags) -> None:
        ends, begins = found["time_ns"].astype(np.int64), found["begin_ns"].astype(np.int64)
        tids, metadata = found["tid"].astype(np.int64), self._is_metadata[calls.numbers]
        files = files & (calls.numbers != probe.FAULT_IN_CALL)  # in the call's own time
        self._shares.add(tids, found["process"].astype(np.int64), begins, ends, metadata, files)
        if self._interval_ns:
            last, until = self._epochs.begins[-1], int(ends.max())
            self._epochs.mark(range(last + self._interval_ns, until + 1, self._interval_ns))
        elif self._marks is not None:
            opens = np.isin(calls.numbers, self._numbers_of(_OPENS)) & (calls.results >= 0)
            opened = np.unique(calls.files[opens]).tolist()
            matching = [node for node in opened if self._marks.search(self._places.path(node))]
            marked = opens & np.isin(calls.files, np.array(matching, np.uint64))
            self._epochs.mark(sorted(ends[marked].tolist()))  # what began while it opened is of the epoch before
        self._epochs.add(tids[files], begins[files], ends[files], metadata[files])
        reads = np.isin(calls.numbers, self._numbers_of(_READS)) & (calls.pages > 0)
        for node in np.unique(calls.files[reads]).tolist():
            of = self._readers.setdefault(self._places.mount_of(node), set())
            of.update(np.unique(tids[reads & (calls.files == node)]).tolist())

    def _numbers_of(self, names: set[str]) -> list[int]:
        return [number for number, call in self._calls.items() if call.name in names]

    def _explained(self, seen: _Seen) -> Record:
        folders = self._folders(seen)
        threads = [
            {"process": process, "tid": tid, "wall_ns": last - first, "metadata_ns": metadata, "data_ns": data}
            for tid, (process, first, last, metadata, data) in self._shares.threads.items()
        ]
        found = explaining.advice(folders, self._mounted(seen), sum(each["wall_ns"] for each in threads))
        return {
            "threads": sorted(threads, key=lambda each: -each["metadata_ns"]),
            "epochs": [
                {**moment(each.pop("begin_ns"), self.source.wall_offset_ns), **each}
                for each in self._epochs.found(self.source.now_ns)
            ],
            "storms": [
                {
                    "path": each.path,
                    "not_found": each.not_found,
                    "names": each.not_found_names,
                    "total_ns": each.not_found_ns,
                }
                for each in explaining.storms(folders)
            ],
            "slowest": self._slowest_calls(),
            "advice": found,
        }

    def _slowest_calls(self) -> list[Record]:
        return [self._single(event, call, 0, stack) for event, call, stack in self._slowest.found()]

    def _folders(self, seen: _Seen) -> list[explaining.Folder]:
        """Of each folder what was done with its entries, and of listing itself."""
        nodes = seen.nodes
        opens, listings = (set(self._numbers_of(names)) for names in (_OPENS, _LISTINGS))
        # Paths as hashes: those of a million files would not fit.
        paths = self._places.names.paths(nodes)
        path, folder = (np.zeros(len(nodes), np.int64) for _ in range(2))
        for at, each in enumerate(paths):
            path[at], folder[at] = hash(each), hash(os.path.dirname(each)) if each[:1] == b"/" else 0
        there = folder != 0
        listed = np.unique(np.concatenate([np.zeros(0, np.uint32), *(p.files for p in seen.parts if p.number in listings)]))
        # Folders by the first node that is in one, or is listed as one.
        first = tables.first_equals(np.concatenate([folder, path[listed]]))
        del folder
        node = tables.first_equals(path)
        del path

        def of(part: tables.Rows) -> tables.Places:
            return first[len(nodes) + np.searchsorted(listed, part.files) if part.number in listings else part.files]

        wanted = (np.unique(of(part)[there[part.files]]) for part in seen.parts)
        found = np.unique(np.concatenate([np.zeros(0, np.int32), *wanted]))
        slots = np.full(len(first), len(found), np.int32)
        slots[found] = np.arange(len(found))
        sums = {name: np.zeros(len(found) + 1, np.int64) for name in explaining.Folder._fields[1:]}
        used, unused = (np.full(len(nodes), len(found), np.int32) for _ in range(2))
        for part in seen.parts:
            slot, is_listing = slots[of(part)], part.number in listings

            def add(name: str, values: tables.Ints, slot: tables.Places = slot) -> None:
                np.add.at(sums[name], slot, values)

            none = part.column("not_found") == part.column("calls")
            add("metadata_ns" if self._is_metadata[part.number] else "data_ns", part.column("total_ns"))
            add("not_found_ns", np.where(none, part.column("total_ns"), 0))
            for name in ("bytes", "not_found"):
                add(name, part.column(name))
            if part.number in opens:
                add("opens", part.column("calls") - part.column("not_found"))
            if is_listing:
                add("listings", part.column("calls"))
                add("listing_ns", part.column("total_ns"))
            else:
                of_path = node[part.files]
                unused[of_path[none]], used[of_path[~none]] = slot[none], slot[~none]
        for name, folders in (("names", used), ("not_found_names", unused)):
            sums[name] = np.bincount(folders, minlength=len(found) + 1)

        def name_of(place: int) -> str:
            at = place if place < len(nodes) else int(listed[place - len(nodes)])
            own = self._places.names.path(int(nodes[at]))
            return (os.path.dirname(own) if place < len(nodes) else own).decode("utf-8", "surrogateescape")

        columns = zip(found.tolist(), *(each[:-1].tolist() for each in sums.values()), strict=True)
        return [explaining.Folder(name_of(place), *numbers) for place, *numbers in columns]

    def _mounted(self, seen: _Seen) -> list[explaining.Mounted]:
        looks, reads = (set(self._numbers_of(names)) for names in (_LOOKS, _READS))
        on = self._mounts_of(seen.nodes)
        numbers = np.unique(on)
        on = np.searchsorted(numbers, on).astype(np.int32)
        sums = {
            name: np.zeros(len(numbers), np.int64) for name in ("metadata_ns", "data_ns", "looks", "reads", "server_ns")
        }
        for part in seen.parts:
            of = on[part.files]
            np.add.at(sums["metadata_ns" if self._is_metadata[part.number] else "data_ns"], of, part.column("total_ns"))
            np.add.at(sums["server_ns"], of, part.column("served_ns"))
            for name, which in (("looks", looks), ("reads", reads)):
                if part.number in which:
                    np.add.at(sums[name], of, part.column("calls"))
        columns = zip(numbers.tolist(), *(each.tolist() for each in sums.values()), strict=True)
        return [
            explaining.Mounted(
                point=known.point,
                type=known.type,
                options=known.options,
                reading_threads=len(self._readers.get(number, ())),
                **dict(zip(sums, values, strict=True)),
            )
            for number, *values in columns
            if (known := self._places.mounts.get(number)) is not None
        ]

    def _single(self, event: Any, calls: tables.Calls, at: int, stack: list[str]) -> Record:
        begin_ns, result = int(event["begin_ns"]), int(calls.results[at])
        call = self.call(int(calls.numbers[at]))
        return {
            "type": "datapath_call",
            **moment(begin_ns, self.source.wall_offset_ns),
            "process": int(event["process"]),
            "tid": int(event["tid"]),
            "call": call.name,
            "path": self._places.path_text(int(event["file"])),
            "metadata": call.metadata and not self._places.names.others(event["file"].reshape(1))[0],
            "duration_ns": int(calls.took_ns[at]),
            "server_ns": int(min(calls.served_ns[at], calls.took_ns[at])),
            "result": result,
            "error": error_name(-result) if -4095 <= result < 0 else None,
            "pages": int(calls.pages[at]),
            "stack": stack,
        }

    def _keys(self, by: str, files: npt.NDArray[np.uint64]) -> tuple[tables.Places, Callable[[int], bytes]]:
        """For each file the first one that is counted for the same, by its place, and what that is called."""
        if by in ("mount", "fs"):
            on = self._mounts_of(files)

            def mounted(mount: int) -> bytes:
                return self._places.mount_name(mount) if by == "mount" else self._places.type_of(mount).encode()

            numbers, back = np.unique(on, return_inverse=True)
            hashes = np.array([hash(mounted(number)) for number in numbers.tolist()], np.int64)
            told = np.where(files == 0, hash(_NO_FILE), hashes[back])
            return tables.first_equals(told), lambda at: mounted(int(on[at])) if files[at] else _NO_FILE
        patterns = [(name, tables.pattern(name)) for name in self.datasets]
        modes = _by_chunks(lambda nodes: self._places.names.places(nodes)[1], files, np.uint32)

        def of(node: int, path: bytes, mode: int) -> bytes:
            if not node:
                return _NO_FILE
            if not stat.S_IFMT(mode) or mode & probe.MAPPED or not path.startswith(b"/"):
                path = path if mode & probe.TEXT else self._places.path(node)
            if by == "file":
                return path
            if by == "dir":
                return path if path.startswith(UNNAMED) else os.path.dirname(path) or path
            text = path.decode("utf-8", "surrogateescape")
            either = (text, text.removesuffix(" (deleted)")) if mode & probe.DELETED else (text,)
            found = (name for name, each in patterns if any(map(each.match, either)))
            return next((os.fsencode(name) for name in found), b"(other files)")

        # Names as hashes: those of a million files would not fit.
        each = zip(_singly(files), self._places.names.paths(files), _singly(modes), strict=True)
        told = np.fromiter((hash(of(*one)) for one in each), np.int64, len(files))

        def name(at: int) -> bytes:
            (path,) = self._places.names.paths(files[at : at + 1])
            return of(int(files[at]), path, int(modes[at]))

        return tables.first_equals(told), name

    def _seen(self) -> _Seen:
        """All that was seen by now."""
        nodes, parts = self._table.rows()
        cached, other = (_by_chunks(of, nodes, bool) for of in (self._places.is_cached, self._places.names.others))
        return _Seen(nodes, parts, cached, other, self._is_metadata, self._is_other)

    def _mounts_of(self, nodes: tables.Words) -> tables.Ints:
        found: npt.NDArray[np.int64] = _by_chunks(self._places.mounts_of, nodes, np.int64)
        return found

    def _rows(self, by: str, seen: _Seen, top: int) -> tuple[list[Record], tables.Groups]:
        """Those of `gotrace.records.datapath.Datapath`, and the groups that they are of."""
        if by == "call":
            keys, named = seen.by_number(), lambda number: self.call(number).name.encode()
        else:
            of_file, named = self._keys(by, seen.nodes)
            keys = [of_file[part.files] for part in seen.parts]
        grouped = [seen.grouped(part, each) for part, each in zip(seen.parts, keys, strict=True)]
        found = tables.groups(grouped, named, top)
        shown = np.array([key for key, _ in found.shown], np.int64)
        lengths = self._table.histograms(keys, shown.tolist())
        reading = [
            each.keys[seen.cached[part.files] & ~each.metadata] for part, each in zip(seen.parts, grouped, strict=True)
        ]
        has_cache = np.any([np.isin(shown, each) for each in reading], axis=0).tolist() if reading else []
        resolved: list[bool | None] = [None] * len(shown)
        if by == "file":  # whether one of its files was seen itself
            is_file = _by_chunks(lambda nodes: self._places.names.places(nodes)[1] & probe.TEXT == 0, seen.nodes, bool)
            resolved = np.isin(shown, of_file[is_file]).tolist()
        rows = [
            {
                "name": group.name.decode("utf-8", "surrogateescape"),
                "resolved": is_resolved,
                **sums_record(group),
                "latency": statistics(histogram),
                "cache": {name: group.sums[name] for name in ("warm", "cold", "direct")} if is_cached else None,
            }
            for (_, group), histogram, is_cached, is_resolved in zip(found.shown, lengths, has_cache, resolved, strict=True)
        ]
        if by == "dataset" and not found.more:
            of_none = {**sums_record(tables.NOTHING), "latency": statistics(Histogram()), "cache": None}
            absent = sorted({*self.datasets} - {row["name"] for row in rows})
            rows += [{"name": name, "resolved": None, **of_none} for name in absent]
        return rows, found

    def end(self) -> Iterator[Record]:
        source = self.source
        self._stacks.close()
        waiting = self._in_progress()
        seen = self._seen()
        rows, found = self._rows(self.by, seen, self.top)
        mounts = self._places.mounts_record(seen.nodes)
        everything = tables.groups(
            [
                seen.grouped(part, np.broadcast_to(np.int32(0), len(part.files)), part.number == probe.FAULT_IN_CALL)
                for part in seen.parts
            ],
            lambda _: b"all",
            1,
        )
        self.result = {
            "type": self.name,
            "target": source.name,
            "watched_ns": source.now_ns - source.begin_ns,
            "lost": source.lost,
            "processes": len(self._processes),
            "threads": len(self._threads),
            "all": sums_record(everything.shown[0][1] if everything.shown else everything.rest),
            "by": self.by,
            "rows": rows,
            "more_rows": found.more,
            "more": sums_record(found.rest) if found.more else None,
            "errors": [
                {"error": error_name(number), "count": count, "other": other}
                for number, (count, other) in sorted(self._errors.items(), key=lambda each: -each[1][0])
            ],
            "interrupted": self._interrupted,
            "mounts": mounts,
            "nfs": self._nfs(mounts),
            "in_progress": waiting,
            "unseen": self._unseen(),
            "not_covered": self._not_covered(seen),
            "explained": self._explained(seen) if self.explain else None,
        }
        yield self.result

    def drawing(self) -> Drawing:
        seen = self._seen()
        grouped = (seen.grouped(part, part.files) for part in seen.parts)
        parts = [np.where(each.other, np.uint8(2), np.where(each.metadata, np.uint8(0), np.uint8(1))) for each in grouped]
        there = np.unique(np.concatenate([np.zeros(0, np.uint8), *map(np.unique, parts)])).tolist()
        lengths = zip(there, self._table.histograms(parts, there), strict=True)
        return Drawing(
            self.result,
            {by: (rows, found.more) for by in _DRAWN if by != self.by for rows, found in [self._rows(by, seen, self.top)]},
            {PARTS[part]: histogram for part, histogram in lengths},
            self._slowest_calls(),
            lambda: self._rows(self.by, seen, 0)[0],
        )

    def _in_progress(self) -> list[Record] | None:
        """Calls that had not ended, the longest first."""
        source = self.source

        def seen() -> list[list[Any]]:
            loaded = source.tracing.parts["datapath"].loaded
            return [list(each) for each in probe.in_progress(loaded)]

        told = source.ask("calls in progress", seen, of_host=True)
        if told is None:
            return None
        return [
            {
                "process": process,
                "tid": tid,
                "call": self.call(number).name,
                "path": self._places.path_text(file) or (given[0] if given else None),
                "lasted_ns": source.now_ns - begin_ns,
            }
            for process, tid, begin_ns, number, file, *given in sorted(told, key=lambda each: each[2])
            if source.begin_ns <= begin_ns < source.now_ns
        ]

    def _unseen(self) -> Record | None:
        """What `gotrace.records.datapath.Unseen` has."""
        source = self.source

        def seen() -> Record:
            return probe.unseen(source.tracing.parts["datapath"].loaded, source.process.pid, len(self._threads) > 0)

        return source.ask("what was not seen", seen, of_host=True)

    def _not_covered(self, seen: _Seen) -> list[Record]:
        missing: dict[str, str] = {}
        for each in self.source.header["probes"]["datapath"]["missing"]:
            name = each["name"].removeprefix(TRACE_EVENT).split("__", 1)[-1]
            missing[_NEEDS.get(name, name)] = each["reason"]
        libaio = [part for part in seen.parts if self.call(part.number).name == "io_submit"]
        if count := sum(int(part.column("calls").sum()) for part in libaio):
            missing[_LIBAIO] = f"the kernel has no tracepoint for them; there were {count:,} calls of io_submit"
        return [{"what": what, "why": why} for what, why in missing.items()]

    def of_interval(self, record: Record) -> Interval | None:
        """The whole run is one."""
        if record["type"] != self.name:
            return None
        found = self.histograms()
        everything = Histogram()
        for each in found.values():
            everything.add(each)
        return Interval(self.source.begin_ns, record["watched_ns"], [(None, everything), *found.items()])

    def histograms(self) -> dict[str, Histogram]:
        seen = self._seen()
        found = [part.number for part in seen.parts]
        of_calls = zip(found, self._table.histograms(seen.by_number(), found), strict=True)
        return {tag(self.call(number).name): histogram for number, histogram in of_calls}


_LEAST_EPOCH_NS = 1_000_000


def check_epoch(text: str) -> None:
    """Raises UsageError for what is neither a duration of at least 1 ms nor a regular expression."""
    import re2

    hint = "give part of a path, or a duration (30s)"
    try:
        length_ns, marks = _epoch(text)
    except re2.error as error:
        raise UsageError(f"epoch is not a valid RE2 regular expression: {_reason(error)}", hint) from None
    if text and marks is None and length_ns < _LEAST_EPOCH_NS:
        raise UsageError(f"an epoch of {text} is shorter than 1 ms", hint)


def _reason(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)


def _epoch(text: str) -> tuple[int, Any]:
    """(length in nanoseconds, or 0; what a path has that begins one). Raises re2.error.

    RE2 takes time linear in the length of a path, whatever the expression and the path are.
    """
    if not text:
        return 0, None
    try:
        return duration_ns(text), None
    except ValueError:
        import re2

        quiet = re2.Options()
        quiet.log_errors = False
        return 0, re2.compile(text.encode("utf-8", "surrogateescape"), quiet)


def _by_chunks(of: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], nodes: tables.Words, dtype: npt.DTypeLike) -> Any:
    """What is known of each node, found out for some of them at a time."""
    found = np.zeros(len(nodes), dtype)
    for begin in range(0, len(nodes), _PORTION):
        chunk = slice(begin, begin + _PORTION)
        found[chunk] = of(nodes[chunk])
    return found


def _singly(array: npt.NDArray[Any]) -> Iterator[int]:
    """As Python's numbers, a few at a time."""
    for begin in range(0, len(array), 1 << 14):
        yield from array[begin : begin + (1 << 14)].tolist()


def sums_record(group: tables.Group) -> Record:
    """A `gotrace.records.datapath.Sums`."""
    sums = group.sums
    return {
        **{name: sums[name] for name in ("calls", "errors", "not_found", "bytes", "total_ns")},
        **dict(
            zip(("metadata_calls", "metadata_ns", "other_calls", "other_ns"), (*group.metadata, *group.other), strict=True)
        ),
        "server_ns": sums["served_ns"],
        "requests": sums["served"],
    }


def nfs_records(before: Any, after: Any, points: Container[str | None]) -> list[Record]:
    """Those of `gotrace.records.datapath.NfsOperation`; ``before`` and ``after`` as JSON has `nfs.Operations`."""
    then, now = (
        {point: {name: nfs.Operation(*each) for name, each in mount.items()} for point, mount in told.items()}
        for told in (before, after)
    )
    found = [
        {
            "point": point,
            "operation": name,
            "calls": each.calls,
            "retransmits": max(0, each.sent - each.calls),
            "timeouts": each.timeouts,
            "queue_ns": each.queue_ms * 1_000_000,
            "server_ns": each.server_ms * 1_000_000,
            "total_ns": each.total_ms * 1_000_000,
        }
        for point, mount in nfs.between(then, now).items()
        if point in points
        for name, each in mount.items()
    ]
    return sorted(found, key=lambda each: -each["total_ns"])


def error_name(number: int) -> str:
    """As errno(3) has it, or the kernel's linux/errno.h; those that neither knows by their number."""
    return errno.errorcode.get(number) or tables.INTERRUPTED.get(number) or f"error {number}"


VIEW = DataPath

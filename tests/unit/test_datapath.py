"""Tables of calls on files: against plain Python that does the same slowly, and answers derived by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import targets
from gotrace.analysis import datapath as tables
from gotrace.analysis.datapath_explain import MOST_EPOCHS, Epochs, Folder, Mounted, Slowest, advice, storms
from gotrace.analysis.histogram import Histogram, bucket_indexes
from gotrace.cli.text.datapath import _nfs_row
from gotrace.cli.text.layout import more_rows
from gotrace.errors import UsageError
from gotrace.kernel import nfs
from gotrace.kernel.mounts import Mount, parsed
from gotrace.probes import datapath as probe
from gotrace.text import overlap_text
from gotrace.views.datapath import check_epoch, error_name, nfs_records
from gotrace.views.datapath_places import Places

_KEYS = some.lists(some.lists(some.integers(0, 2**63 - 1) | some.integers(0, 9), max_size=20), max_size=8)


@given(_KEYS)
def test_ids_number_keys_by_when_they_came(parts: list[list[int]]) -> None:
    ids, seen = tables.Ids(), set()
    for part in parts:
        found = ids.of(np.array(part, np.uint64)).tolist()
        seen.update(zip(part, found, strict=True))
    keys = ids.keys().tolist()
    assert seen == {(key, number) for number, key in enumerate(keys)} and len(ids) == len(keys)


@given(_KEYS)
def test_counts(parts: list[list[int]]) -> None:
    counts = tables.Counts()
    for part in parts:
        counts.add(np.array(part, np.int64))
    keys, found = (each.tolist() for each in counts.sorted())
    assert dict(zip(keys, found, strict=True)) == Counter(key for part in parts for key in part) and keys == sorted(keys)


@given(some.lists(some.integers(0, 10**10)))
def test_a_histogram_of_buckets_is_the_one_of_its_values(values: list[int]) -> None:
    array = np.array(values, np.int64)
    one, other = (
        Histogram(),
        Histogram.of_buckets(
            bucket_indexes(array), np.ones(len(array), np.int64), int(array.sum()), max(values, default=0)
        ),
    )
    one.record(array)
    assert one.counts.tolist() == other.counts.tolist() and (one.count, one.sum, one.max) == (
        other.count,
        other.sum,
        other.max,
    )


@given(some.lists(some.lists(some.integers(0, 30), max_size=20), max_size=8))
def test_the_slowest_are_the_first_of_all(parts: list[list[int]]) -> None:
    slowest = Slowest(3)
    for part in parts:
        for at in slowest.candidates(np.array(part, np.int64)):
            slowest.add(part[at], part[at])
    assert slowest.found() == sorted((each for part in parts for each in part), reverse=True)[:3]


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("/data/**", "/data/a/b", True),
        ("/data/**", "/database", False),
        ("/data/*", "/data/a/b", False),
        ("/data/*", "/data/a", True),
        ("/data/**/x.tar", "/data/x.tar", True),
        ("/data/**/x.tar", "/data/a/b/x.tar", True),
        ("/data/**/x.tar", "/data/ax.tar", False),
        ("/data/shard-??.[ct]ar", "/data/shard-07.tar", True),
        ("/data/shard-??.[ct]ar", "/data/shard-7.tar", False),
        ("/a.b/*", "/a-b/c", False),
        ("/data/*", "/data/line\nend", True),
        ("/data/?/*.jpg", "/data/é/x.jpg", True),
        ("/data/[!x]/a", "/data///a", False),
        ("/data[!x]a", "/data/a", False),
        ("/data/[]x]", "/data/]", True),
        ("/data/[!a-c]", "/data/é", True),
        ("/data/\udcff?", "/data/\udcffb", True),
    ],
)
def test_patterns_of_data_sets(glob: str, path: str, fits: bool) -> None:
    assert bool(tables.pattern(glob).match(path)) == fits


def test_a_line_of_mountinfo() -> None:
    line = r"36 35 98:3 /mnt1 /mnt\0402 rw,noatime master:1 - nfs4 srv:/a\134b rw,vers=4.2,noatime" + "\n"
    options = "rw,noatime,vers=4.2"
    assert parsed(line) == Mount(36, 98 << 20 | 3, "/mnt1", "/mnt 2", "nfs4", r"srv:/a\b", options)


_FOLDER = Folder("/data/train", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_MOUNT = Mounted("/data", "nfs4", "rw,vers=4.2", 0, 0, 0, 0, 0, 0)
_SECOND = 10**9


def _said(folder: dict[str, Any] | None = None, mount: dict[str, Any] | None = None) -> list[str]:
    """The advice to one of both, in a run whose threads were seen for ten seconds."""
    folders = [_FOLDER._replace(**folder)] if folder else []
    return advice(folders, [_MOUNT._replace(**mount)] if mount else [], 10 * _SECOND)


_LOOKS = {"metadata_ns": 6 * _SECOND, "looks": 5000}


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        (_LOOKS, "actimeo=600"),
        ({**_LOOKS, "options": "rw,noac"}, "remove noac"),
        ({**_LOOKS, "options": "rw,lookupcache=none"}, "remove noac"),
        ({**_LOOKS, "options": "rw,actimeo=3"}, "actimeo=600"),
        ({**_LOOKS, "options": "rw,actimeo=600"}, None),
        ({**_LOOKS, "type": "ext4", "options": "rw,relatime"}, None),
        ({**_LOOKS, "metadata_ns": _SECOND // 10}, None),
        ({"data_ns": 6 * _SECOND, "reading_threads": 8}, "nconnect=8"),
        ({"data_ns": 6 * _SECOND, "reading_threads": 8, "options": "rw,nconnect=4"}, None),
        ({"data_ns": 6 * _SECOND, "reading_threads": 1}, None),
        ({"type": "ext4", "options": "rw", "reads": 1000}, "updates the access time"),
        ({"type": "fuse.x", "data_ns": 4 * _SECOND, "server_ns": 3 * _SECOND}, "75% of 4.00 s in calls on /data (fuse.x)"),
        ({"type": "fuse.x", "data_ns": 4 * _SECOND, "server_ns": _SECOND}, None),
        ({"type": "fuse.x", "data_ns": 4000, "server_ns": 4000}, None),
        ({"type": "ext4", "options": "rw,relatime", "reads": 1000}, None),
        ({"type": "ext4", "options": "ro", "reads": 1000}, None),
        ({"type": "tmpfs", "options": "rw", "reads": 1000}, None),
    ],
)
def test_advice_on_mounts(mount: dict[str, Any], said: str | None) -> None:
    found = _said(mount=mount)
    assert len(found) == (said is not None) and all(str(said) in each for each in found)


_SMALL = {"names": 4000, "opens": 12000, "bytes": 12000 * 4096, "metadata_ns": 6 * _SECOND, "data_ns": _SECOND}


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        (_SMALL, "4,000 names used, 4.00 KiB read or written per open), and metadata took 85.7%"),
        ({**_SMALL, "bytes": 12000 << 20}, None),
        ({**_SMALL, "data_ns": 19 * _SECOND}, None),
        ({**_SMALL, "path": "/usr/lib/python3.11/json"}, None),
        ({**_SMALL, "names": 3}, None),
        ({"listings": 900, "listing_ns": 2 * _SECOND}, "took 900 calls and 2.00 s"),
        ({"listings": 900, "listing_ns": _SECOND // 100}, None),
        ({"not_found": 9000, "not_found_names": 50, "not_found_ns": _SECOND}, "9,000 look-ups of 50 names"),
        ({"not_found": 9, "not_found_names": 9, "not_found_ns": _SECOND}, None),
    ],
)
def test_advice_on_folders(folder: dict[str, Any], said: str | None) -> None:
    found = _said(folder)
    assert len(found) == (said is not None) and all(str(said) in each for each in found)


def test_folders_of_one_data_set_are_advised_together() -> None:
    """ImageFolder: a thousand files in each of forty classes, none of which weighs much."""
    share = {name: value // 40 for name, value in _SMALL.items()}
    classes = [_FOLDER._replace(path=f"/data/train/{number:03}", **share) for number in range(40)]
    (said,) = advice(classes, [], 10 * _SECOND)
    assert said.startswith("/data/train/* has many small files (4,000 names used, 4.00 KiB") and "took 85.7%" in said
    assert advice([each._replace(metadata_ns=_SECOND // 1000) for each in classes], [], 10 * _SECOND) == []


def test_storms_are_many() -> None:
    few, many = _FOLDER._replace(not_found=99), _FOLDER._replace(not_found=100)
    assert storms([few, many]) == [many]


def test_names_are_joined() -> None:
    """Of nodes that are lost, of texts, of what was deleted."""
    text, deleted, cut = 1 << 17, 1 << 16, 1 << 19
    names = tables.Names(text, deleted, cut)
    name_type = np.dtype([(each, np.uint64) for each in ("node", "at", "name0", "name1", "name2")])
    file_type = np.dtype([(each, np.uint64) for each in ("node", "parent", "inode", "place", "mode")])
    folder, regular = 0x41ED, 0x81A4
    files = [
        (1, 0, 2, 0, folder),
        (2, 1, 3, 0, folder),
        (3, 2, 4, 0, regular),
        (4, 2, 5, 0, regular | deleted),
        (5, 2, 0, 0, text),
        (6, 99, 6, 0, regular),
        (7, 0, 7, 0, 0x1180),
        (8, 1, 0, 0, text),
        (9, 1, 0, 0, text | cut),
    ]
    words = {1: b"/", 2: b"a", 3: b"n" * 30, 4: b"gone", 5: b"../x//y/.", 6: b"orphan", 7: b"", 8: b"/etc", 9: b"/long"}
    rows = []
    for node, name in words.items():
        for at in range(0, max(len(name), 1), 24):
            part = name[at : at + 24].ljust(24, b"\0")
            rows.append((node, at, *(int.from_bytes(part[word : word + 8], "little") for word in (0, 8, 16))))
    names.add(np.array(rows[::-1], name_type), np.array(files[::-1], file_type))
    paths = {node: names.path(node) for node in (1, 2, 3, 4, 5, 6, 8, 9, 50)}
    assert paths == {
        1: b"/",
        2: b"/a",
        3: b"/a/" + b"n" * 30,
        4: b"/a/gone (deleted)",
        5: b"/a/../x/y",
        6: "…/orphan".encode(),
        8: b"/etc",
        9: "/long…".encode(),
        50: b"?",
    }
    assert names.others(np.array([3, 7, 5, 50], np.uint64)).tolist() == [False, True, False, False]


_TOLD = some.tuples(
    *(some.sampled_from([0, 3, 2**63 + 9, 2**64 - 1]) | some.integers(1, 40), some.integers(0, 2)),  # file, number
    *(some.integers(0, 300) | some.integers(0, 2**40), some.integers(-4, 3) | some.integers(0, 2**33)),  # took, result
    *(some.integers(0, 2), some.booleans(), some.integers(0, 2**34), some.integers(0, 300)),  # pages, direct, served
)


@given(some.lists(some.lists(_TOLD, min_size=1, max_size=30), max_size=6), some.sampled_from([1, 2, 150]))
@settings(deadline=None, max_examples=60)
def test_a_table_is_the_sum_of_its_calls(batches: list[list[tuple[Any, ...]]], times: int) -> None:
    """Of files that come in any order, with numbers of any size: each row, and how long calls took in groups of rows."""
    moves, reads, fault = np.array([True, True, False]), np.array([True, False, False]), 2
    table, wanted, took = tables.Table(tables.Ids(), moves, reads, fault), dict[Any, Counter[str]](), dict[int, list[int]]()
    for batch in [*batches, *(batch[:2] * times for batch in batches[:1])]:
        types = (np.uint64, np.int64, np.int64, np.int64, np.int64, bool, np.int64, np.int64)
        table.add(tables.Calls(*map(np.array, zip(*batch, strict=True), types)))
        for file, number, took_ns, result, pages, direct, served_ns, served in batch:
            row = wanted.setdefault((number, file), Counter())
            is_read = number == 0 and result > 0
            row.update(calls=1, errors=result < 0, not_found=result == -2, total_ns=took_ns, pages=pages, served=served)
            row.update(bytes=4096 * pages if number == fault else max(result, 0), served_ns=min(served_ns, took_ns))
            row.update(direct=is_read and direct, warm=is_read and not direct and not pages)
            row.update(cold=(is_read and not direct and pages > 0) or number == fault)
            row["max_ns"] = max(row["max_ns"], took_ns)
            took.setdefault(file % 2, []).append(took_ns)
    nodes, parts = table.rows()
    columns = {part.number: {name: part.column(name).tolist() for name in tables.COLUMNS} for part in parts}
    found = {
        (part.number, int(nodes[file])): {name: column[at] for name, column in columns[part.number].items()}
        for part in parts
        for at, file in enumerate(part.files.tolist())
    }
    assert found == {what: {name: row[name] for name in tables.COLUMNS} for what, row in wanted.items()}
    assert nodes.tolist() == sorted({file for _, file in wanted})
    groups = [(nodes[part.files] % np.uint64(2)).astype(np.uint8) for part in parts]
    for group, histogram in zip((1, 0), table.histograms(groups, (1, 0)), strict=True):
        other = Histogram()
        other.record(np.array(took.get(group, []), np.int64))
        same = ("count", "sum", "max")
        assert histogram.counts.tolist() == other.counts.tolist()
        assert [getattr(histogram, name) for name in same] == [getattr(other, name) for name in same]


def test_a_file_takes_so_much() -> None:
    """Each of 300,000 with four kinds of calls, a name of 17 bytes, a row and an explanation, up to the end."""
    options = json.dumps({"by": "file", "explain": True, "top": 1000})
    command = [sys.executable, str(targets.ROOT / "tests" / "datapath_million.py"), "300000", "1", options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    before, peak, cpu_s, result = json.loads(done.stdout)
    assert peak - before < 40e6 + 160 * 300_000, cpu_s  # of a batch, and of each file
    assert result["all"]["calls"] == 1_200_000 and result["all"]["bytes"] == 300_000_000
    assert result["all"]["total_ns"] == 300_000 * 10_000 + 4 * 300 * 499_500
    assert result["all"]["metadata_ns"] == 300_000 * 7_000 + 3 * 300 * 499_500
    row = result["rows"][0]
    assert len(result["rows"]) == 1000 and result["more_rows"] == 299_000
    assert {int(each["name"][-7:-4]) for each in result["rows"]} == {999, 998, 997, 996}
    assert row["total_ns"] == 4 * 999 + 10_000 and row["calls"] == 4 and row["latency"]["max_ns"] == 4999


def test_what_nfs_counts() -> None:
    """As fs/nfs/super.c and net/sunrpc/stats.c print it: a mount with eight words an operation, one with nine."""
    text = (targets.SOURCES.parent / "mountstats.txt").read_text()
    before = nfs.parsed(text)
    assert before.keys() == {"/mnt/a b", "/mnt/b"} and before["/mnt/b"] == {"READ": (10, 10, 0, 280, 1048576, 5, 200, 250)}
    assert before["/mnt/a b"]["GETATTR"] == (28, 30, 2, 7776, 4808, 1000, 24719, 25722)
    after = nfs.parsed(
        text.replace("GETATTR: 28 30 2 7776 4808 1000 24719 25722", "GETATTR: 38 43 3 9000 5000 1020 25719 26762")
    )
    told = [json.loads(json.dumps(each)) for each in (before, after)]
    (row,) = nfs_records(*told, {"/mnt/a b"})
    assert row == {
        "point": "/mnt/a b",
        "operation": "GETATTR",
        "calls": 10,
        "retransmits": 3,
        "timeouts": 1,
        "queue_ns": 20_000_000,
        "server_ns": 1_000_000_000,
        "total_ns": 1_040_000_000,
    }
    assert nfs_records(*told, {"/mnt/b"}) == [] and nfs_records({}, told[1], {"/mnt/b"})[0]["calls"] == 10
    assert _nfs_row(row) == ("/mnt/a b", "GETATTR", "10", "3", "2.00 ms", "100 ms", "104 ms")


_CALL = some.tuples(some.integers(1, 100), some.integers(1, 30), some.booleans())


@given(some.lists(some.lists(_CALL, max_size=9), max_size=5))
def test_epochs_are_in_order_and_count_every_call(batches: list[list[tuple[int, int, bool]]]) -> None:
    """(end, how long it took, whether it is a mark) of each call; those of a batch come as they ended."""
    epochs, marks = Epochs(0), []
    for batch in batches:
        batch = sorted(batch)
        ends = np.array([end for end, _, _ in batch], np.int64)
        begins = np.array([max(0, end - took) for end, took, _ in batch], np.int64)
        new = [end for end, _, mark in batch if mark]
        epochs.mark(new)
        marks += new
        epochs.add(ends, begins, ends, np.zeros(len(batch), bool))
    found = list(epochs.found(200))
    assert [each["begin_ns"] for each in found] == sorted(each["begin_ns"] for each in found)
    assert len(found) == 1 + len(marks) and all(each["length_ns"] >= 0 for each in found)
    assert sum(each["calls"] for each in found) == sum(map(len, batches))
    assert sum(each["length_ns"] for each in found) == 200


def test_there_is_an_end_of_epochs() -> None:
    epochs = Epochs(0)
    epochs.mark(range(10**12))
    epochs.mark([10**12])
    assert len(epochs.begins) == MOST_EPOCHS


def test_calls_that_a_signal_interrupts_have_not_failed() -> None:
    results = np.array([-512, -513, -514, -516, -515, -4, 7, -4096], np.int64)
    ints, flags = np.zeros(8, np.int64), np.zeros(8, bool)
    calls = tables.Calls(ints.astype(np.uint64), ints, ints, results, ints, flags, ints, ints)
    assert calls.failed.tolist() == [False] * 4 + [True, True, False, False]
    assert calls.interrupted.tolist() == [True] * 4 + [False] * 4
    assert [error_name(number) for number in (512, 515, 4)] == ["ERESTARTSYS", "error 515", "EINTR"]


def test_operations_of_io_uring_are_the_kernels() -> None:
    """As far as this machine's header has them."""
    header = Path("/usr/include/linux/io_uring.h")
    if not header.exists():
        pytest.skip("no header of the kernel")
    (text,) = re.findall(r"enum io_uring_op \{(.*?)IORING_OP_LAST", header.read_text(), re.DOTALL)
    names = [name.lower() for name in re.findall(r"IORING_OP_(\w+),", text)]
    assert len(names) > 40 and [probe.IO_URING_OPERATIONS[number] for number in range(len(names))] == names


def test_epochs_that_can_be_asked_for() -> None:
    for text, said in (
        ("0s", "shorter than 1 ms"),
        ("10us", "shorter than 1 ms"),
        ("(", "not a valid RE2 regular expression"),
    ):
        with pytest.raises(UsageError, match=said):
            check_epoch(text)
    for text in ("", "1ms", "30s", r"checkpoint-\d+", "(a+)+$"):
        check_epoch(text)


def test_mapped_files_without_a_name_are_of_the_mount_that_has_all_of_its_device() -> None:
    places = Places()
    shape = [(each, np.uint64) for each in ("node", "parent", "inode", "place", "mode")]
    none = np.zeros(0, [(each, np.uint64) for each in ("node", "at", "name0", "name1", "name2")])
    files = np.array([(9, 0, 1234, 98 << 20 | 3, probe.MAPPED)], shape)
    places.add(none, files, np.zeros(0, [("mount", np.uint64), ("type_low", np.uint64), ("type_high", np.uint64)]))
    places.learn([[30, 98 << 20 | 3, "/netns", "/run/netns", "ext4", "", ""], [36, 98 << 20 | 3, "/", "/", "ext4", "", ""]])
    assert places.path(9) == b"inode 1234 on /" and places.mount_of(9) == 36
    places.learn_mapped([[98 << 20 | 3, 1234, "/usr/bin/node"]])
    assert places.path(9) == b"/usr/bin/node"


def test_shares_of_requests_that_overlap() -> None:
    assert [overlap_text(share) for share in (0, 0.5, 1, 23.31)] == ["0%", "50%", "100%", "23.3 at once"]


def test_rows_that_top_cannot_show() -> None:
    assert more_rows(1000, 20).endswith("--top 1000 shows them.")
    assert more_rows(5800, 20, "`-o FILE.parquet`") == "5,780 more rows: `-o FILE.parquet` has them."
    assert more_rows(5800, 20) == "5,780 more rows: --top 1000 shows the first ones."

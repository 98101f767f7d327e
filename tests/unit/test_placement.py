"""Tables and advice about memory nodes, what moves between them, and the topology from sysfs."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from gotrace.analysis.heap_pages import PARTS, Pages
from gotrace.analysis.placement import (
    UNKNOWN,
    Evidence,
    Moves,
    advice,
    by_part,
    local_and_remote,
    matrix,
    remote_share,
    things_by_node,
)
from gotrace.binary.layout import Layout, _release, _table
from gotrace.cli.text.numa import interval_line
from gotrace.kernel import numa
from gotrace.kernel.memory import Memory
from gotrace.records.times import moment
from gotrace.runtime.heap import HeapReader


def test_matrix():
    found = matrix(np.array([0, 0, 2, 2, 7]), np.array([0, 2, 2, -1, 0]), (0, 2))
    assert found.tolist() == [[1, 1, 0], [0, 1, 1]]
    assert remote_share(found) == pytest.approx(1 / 3)
    assert local_and_remote(found) == (2, 1, 1)
    assert remote_share(np.zeros((2, 3), np.int64)) is None
    assert local_and_remote(np.zeros((2, 3), np.int64)) == (0, 0, 0)


def test_things_on_several_nodes_count_on_each():
    threads, nodes = np.array([7, 7, 7, 8, 9], np.uint32), np.array([0, 1, 0, 1, 1], np.uint64)
    assert things_by_node(threads, nodes) == {0: 1, 1: 3}
    assert things_by_node(threads[:0], nodes[:0]) == {}


def test_moves():
    moves = Moves()
    for thing, node, time_ns in ((1, 0, 10), (2, 1, 11), (1, 0, 20), (1, 1, 30), (2, 1, 31), (1, 0, 1030), (1, 1, 1020)):
        moves.see(thing, node, time_ns)
    assert moves.count == 3 and moves.node == {1: 1, 2: 1}
    assert (moves.gaps.count, moves.gaps.max, moves.gaps.min) == (2, 1000, 0)


def test_line():
    record = {
        **moment(0, 0),
        "faults": {"local": 1234, "remote": 5, "unknown": 6},
        "hinting_faults": 7,
        "threads_moved": 8,
        "pages_moved": 9,
        "ran_ns": {"0": 3, "2": 1},
    }
    assert list(interval_line(record, (0, 2))[1:]) == ["1,234", "5", "6", "7", "8", "9", "75%/25%", "?", "?"]
    told = interval_line({**record, "ran_ns": {"0": 0, "2": 0}, "ps": {"2": 3}, "ps_idle": 1}, (0, 2))
    assert list(map(str, told[-3:])) == ["-", "0/3", "1"]


@pytest.fixture
def places():
    """Three Ps in our own memory, of which the second has no thread."""
    at = {"p.id": 0, "p.m": 48, "m.procid": 64}
    machines = np.zeros((2, 16), np.uint64)
    machines[:, 8] = (101, 102)
    ps = np.zeros((3, 16), np.uint64)
    ps[:, 0] = [0, 1 | 3 << 32, 2]  # the status lies behind the number
    ps[0, 6], ps[2, 6] = machines[0].ctypes.data, machines[1].ctypes.data
    pointers = np.array([each.ctypes.data for each in ps], np.uint64)
    header = np.array([pointers.ctypes.data, 3, 4], np.uint64)
    arrays = (machines, ps, pointers, header)
    return SimpleNamespace(offsets=at, allp=header.ctypes.data, go_version="go1.2.3", missing={}, arrays=arrays)


def test_processors(places):
    reader = HeapReader(places, Memory(os.getpid()), 0)
    assert not reader.lacks_processors()
    assert reader.processors() == [(0, 101), (1, 0), (2, 102)]
    del places.offsets["m.procid"]
    assert reader.lacks_processors() == "the offset of m.procid in go1.2.3 is unknown"
    places.allp, places.missing = 0, {"allp": "lost"}
    assert reader.lacks_processors() == "lost"


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_places_of_ps_are_known_in_every_measured_release(arch):
    for release in _table()["releases"][arch]:
        layout = Layout(arch, _release(release))
        assert all(layout.has("runtime.p", name) for name in ("id", "m")) and layout.has("runtime.m", "procid"), release


def test_cpus_of_threads():
    """Ours, and none of a thread that never was."""
    found: dict[int, int] = {}

    def look():
        os.sched_setaffinity(0, {cpu})
        found.update(numa.cpus_of_threads(os.getpid(), {threading.get_native_id(), 1 << 22}))

    for cpu in os.sched_getaffinity(0):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert found.popitem()[1] == cpu and not found


def test_parts_by_node():
    part = np.array([PARTS.index("live objects")] * 3 + [PARTS.index("free")], np.int8)
    pages = Pages(np.arange(4) * 4096, part, np.ones(4))
    found = by_part(pages, np.array([0, 1, 1, UNKNOWN], np.int16))
    assert found == {"spans in use": {0: 4096, 1: 8192}, "free": {UNKNOWN: 4096}}


@pytest.mark.parametrize(
    ("ran", "heap", "bound", "word"),
    [
        ({0: 0.97, 1: 0.03}, {0: 0.1, 1: 0.9}, False, "--cpunodebind=0 --membind=0"),
        ({0: 0.5, 1: 0.5}, {0: 0.95, 1: 0.05}, False, "--interleave=all"),
        ({0: 0.97, 1: 0.03}, {0: 0.1, 1: 0.9}, True, ""),
        ({0: 0.97, 1: 0.03}, {0: 0.9, 1: 0.1}, False, ""),
        ({0: 1.0}, {0: 1.0}, False, ""),
        ({}, {}, False, ""),
        ({0: 1.0}, {}, False, ""),  # it ended before it was looked at
    ],
)
def test_advice(ran, heap, bound, word):
    said = advice(Evidence(2, ran, heap, bound))
    assert word in said and bool(word) == bool(said)
    assert not advice(Evidence(1, ran, heap, bound))


def test_topology(tmp_path):
    nodes = tmp_path / "sys/devices/system/node"
    for number, cpus in ((0, "0-1,4"), (1, "2-3")):
        folder = nodes / f"node{number}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus + "\n")
        (folder / "distance").write_text("10 20\n" if number == 0 else "20 10\n")
        (folder / f"memory{number * 3}").mkdir()
    memory = tmp_path / "sys/devices/system/memory"
    memory.mkdir(parents=True)
    (memory / "block_size_bytes").write_text("8000000\n")
    found = numa.topology(str(tmp_path))
    assert found.nodes == (0, 1) and found.distance == ((10, 20), (20, 10))
    assert found.cpus == {0: 0, 1: 0, 4: 0, 2: 1, 3: 1}
    per_block = 0x8000000 // 4096
    frames = np.array([0, 1, per_block - 1, 3 * per_block, 2 * per_block, 99 * per_block], np.uint64)
    assert found.node_of_frames(frames, 4096).tolist() == [UNKNOWN, 0, 0, 1, UNKNOWN, UNKNOWN]
    alone = numa.topology(str(tmp_path / "nothing"))
    assert alone.nodes == (0,) and alone.node_of_frames(frames, 4096).tolist() == [0] * 6

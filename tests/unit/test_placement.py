"""Tables and advice about memory nodes, and the topology from sysfs."""

from __future__ import annotations

import numpy as np
import pytest

from gotrace.analysis.heap_pages import PARTS, Pages
from gotrace.analysis.placement import UNKNOWN, Evidence, advice, by_part, matrix, remote_share
from gotrace.kernel import numa


def test_matrix():
    found = matrix(np.array([0, 0, 2, 2, 7]), np.array([0, 2, 2, -1, 0]), (0, 2))
    assert found.tolist() == [[1, 1, 0], [0, 1, 1]]
    assert remote_share(found) == pytest.approx(1 / 3)
    assert remote_share(np.zeros((2, 3), np.int64)) is None


def test_parts_by_node():
    part = np.array([PARTS.index("live objects")] * 3 + [PARTS.index("free")], np.int8)
    pages = Pages(np.arange(4) * 4096, part, np.ones(4))
    found = by_part(pages, np.array([0, 1, 1, UNKNOWN], np.int16), 4096)
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
    ],
)
def test_advice(ran, heap, bound, word):
    said = advice(Evidence(ran, heap, bound))
    assert word in said and bool(word) == bool(said)


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

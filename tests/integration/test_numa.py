"""Placement over memory nodes: what was planted is what is found."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess

import pytest

import targets
from conftest import GOTRACE
from gotrace.kernel import numa

pytestmark = pytest.mark.bpf

MIB = 40
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}[platform.machine()]
DEFAULT, PREFERRED, BIND, INTERLEAVE = 0, 1, 2, 3  # include/uapi/linux/mempolicy.h


def planted(cpus, policy, nodes):
    """What a child does before it executes: as numactl would."""

    def plant():
        os.sched_setaffinity(0, cpus)
        mask = ctypes.c_ulong(sum(1 << node for node in nodes))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(_SET_MEMPOLICY, policy, ctypes.byref(mask) if nodes else None, 8 * bool(nodes)):
            raise OSError(ctypes.get_errno(), "set_mempolicy")

    return plant


def watch(plant=None, mib=MIB, seconds="4s"):
    """`gotrace numa` on a program that touches ``mib`` of memory meanwhile."""
    program = targets.build("shapes")
    with subprocess.Popen(
        [program, "touch", str(mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=plant
    ) as target:
        command = [*GOTRACE, "numa", "--pid", str(target.pid), "-d", seconds, "--format", "json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
            line = tracer.stderr.readline()
            assert line.startswith("Watching"), line + tracer.stderr.read()
            target.stdin.write(b"\n")
            target.stdin.flush()
            out, err = tracer.communicate(timeout=120)
            assert tracer.returncode == 0, err
        with open(f"/proc/{target.pid}/numa_maps") as file:
            maps = file.read()
        target.kill()
    found = json.loads(out)
    assert found["lost"] == 0
    return found, maps


def pages(maps, node):
    """What numa_maps counts on a node, in bytes."""
    total = 0
    for line in maps.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        total += int(words.get(f"N{node}", 0)) * (int(words.get("kernelpagesize_kB", 4)) << 10)
    return total


def touched(found, row, column):
    """The share of the faults that were taken on one node for a page of another."""
    counts = found["faults"]["counts"]
    return counts[row][column] / max(1, sum(map(sum, counts)) - sum(row[-1] for row in counts))


@pytest.mark.everywhere
def test_faults_and_memory_are_counted():
    found, maps = watch()
    page = os.sysconf("SC_PAGE_SIZE")
    faults = sum(map(sum, found["faults"]["counts"]))
    huge = "[always]" in open("/sys/kernel/mm/transparent_hugepage/enabled").read()
    assert faults >= (MIB << 20) // page if not huge else faults > 20
    spans = sum(found["memory"]["spans in use"].values())
    assert spans >= MIB << 20
    for node in found["nodes"]:
        # numa_maps counts each huge page's pages, and no zero page
        assert node["bytes"] == pytest.approx(pages(maps, node["node"]), rel=0.02, abs=2 << 20)
    assert sum(node["ran_ns"] for node in found["nodes"]) > 0


def test_one_node_says_so(gotrace):
    if len(numa.topology().nodes) > 1:
        pytest.skip("this machine has several memory nodes")
    with subprocess.Popen([targets.build("shapes"), "live", "10"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as target:
        target.stdout.readline()
        done = gotrace("numa", "--pid", str(target.pid), "-d", "500ms")
        target.kill()
    assert done.returncode == 0 and "one memory node" in done.stdout
    assert "node 0" in done.stdout and "spans in use" in done.stdout


@pytest.fixture
def small_pages():
    """With huge pages a fault brings 512 pages, and those of the program's own file would be as many."""
    setting = "/sys/kernel/mm/transparent_hugepage/enabled"
    with open(setting) as file:
        before = file.read().split("[")[1].split("]")[0]
    with open(setting, "w") as file:
        file.write("never")
    yield
    with open(setting, "w") as file:
        file.write(before)


@pytest.mark.everywhere
@pytest.mark.numa
@pytest.mark.alone
@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    ("cpu", "policy", "nodes", "expected"),
    [
        (0, BIND, (1,), {(0, 1): 1.0}),
        (1, DEFAULT, (), {(1, 1): 1.0}),
        (0, DEFAULT, (), {(0, 0): 1.0}),
        (0, PREFERRED, (1,), {(0, 1): 1.0}),
        (1, INTERLEAVE, (0, 1), {(1, 0): 0.5, (1, 1): 0.5}),
    ],
)
def test_planted_placements(cpu, policy, nodes, expected):
    """The matrix shows within 2 % what was planted; so does where the heap lies."""
    machine = numa.topology()
    cpus = {number for number, node in machine.cpus.items() if node == cpu}
    found, _ = watch(planted(cpus, policy, nodes))
    for (row, column), share in expected.items():
        assert touched(found, row, column) == pytest.approx(share, abs=0.02), found["faults"]
    heap = {int(node): size for node, size in found["memory"]["spans in use"].items()}
    total = sum(heap.values())
    for (_, column), share in expected.items():
        assert heap.get(column, 0) / total == pytest.approx(share, abs=0.02), heap
    ran = {node["node"]: node["ran_ns"] for node in found["nodes"]}
    assert ran[cpu] >= 0.98 * sum(ran.values())
    if policy == BIND:
        assert any(name.startswith("bind:1") for name in found["policies"])


@pytest.mark.everywhere
@pytest.mark.numa
@pytest.mark.alone
def test_advice_when_threads_leave_their_memory():
    """First touch on node 0, then all threads on node 1: with balancing off the memory stays."""
    setting = "/proc/sys/kernel/numa_balancing"
    before = open(setting).read()
    machine = numa.topology()
    cpus = {node: {number for number, of in machine.cpus.items() if of == node} for node in (0, 1)}
    program = targets.build("gcload")
    try:
        open(setting, "w").write("0")
        with subprocess.Popen(
            [program, "-seconds", "60", "-live", "40"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            preexec_fn=planted(cpus[0], DEFAULT, ()),
        ) as target:
            target.stdin.write(b"\n")
            target.stdin.flush()
            subprocess.run(["sleep", "3"], check=True)
            for tid in os.listdir(f"/proc/{target.pid}/task"):
                os.sched_setaffinity(int(tid), cpus[1])
            command = [*GOTRACE, "numa", "--pid", str(target.pid), "-d", "3s", "--format", "json"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            target.kill()
        found = json.loads(done.stdout)
        assert "--cpunodebind=1 --membind=1" in found["advice"], found
    finally:
        open(setting, "w").write(before)

"""The machine's memory nodes, and on which of them pages are.

Documentation/ABI/stable/sysfs-devices-node of the kernel, and proc_pid_numa_maps(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.errors import TargetError
from gotrace.kernel.cpus import last_cpu
from gotrace.kernel.host import cpus_of, text_of
from gotrace.kernel.privileges import PROTECTED, refused

UNKNOWN = -1  # an unknown node


@dataclass(frozen=True)
class Topology:
    """``nodes`` by number; ``cpus``: the node of each CPU; ``distance[i][j]`` in the order of ``nodes``.

    ``blocks`` is the node of each memory block of ``block_bytes`` of physical memory, `UNKNOWN` where there is none.
    """

    nodes: tuple[int, ...]
    cpus: dict[int, int]
    distance: tuple[tuple[int, ...], ...]
    block_bytes: int
    blocks: npt.NDArray[np.int16]

    def node_of_frames(self, frames: npt.NDArray[np.uint64], page: int) -> npt.NDArray[np.int16]:
        """The node of each page frame; all are the one node's where there is only one."""
        if len(self.nodes) == 1:
            return np.full(len(frames), self.nodes[0], np.int16)
        if not self.block_bytes:
            return np.full(len(frames), UNKNOWN, np.int16)
        block = (frames // np.uint64(self.block_bytes // page)).astype(np.int64)
        known = (block < len(self.blocks)) & (frames > 0)
        found: npt.NDArray[np.int16] = np.where(known, self.blocks[np.where(known, block, 0)], UNKNOWN).astype(np.int16)
        return found


def topology(root: str = "/") -> Topology:
    """What sysfs reports; one node with every CPU where it reports none. ``root`` stands in for / in tests."""
    folder = os.path.join(root, "sys/devices/system/node")
    numbers = tuple(sorted(int(name[4:]) for name in _names(folder) if re.fullmatch(r"node\d+", name)))
    if not numbers:
        return Topology((0,), dict.fromkeys(range(os.cpu_count() or 1), 0), ((10,),), 0, np.zeros(0, np.int16))
    cpus: dict[int, int] = {}
    distance = []
    blocks: dict[int, int] = {}
    for number in numbers:
        path = os.path.join(folder, f"node{number}")
        cpus |= dict.fromkeys(cpus_of(text_of(path, "cpulist")), number)
        distance.append(tuple(int(word) for word in text_of(path, "distance").split()))
        blocks |= {int(name[6:]): number for name in _names(path) if re.fullmatch(r"memory\d+", name)}
    size = int(text_of(os.path.join(root, "sys/devices/system/memory"), "block_size_bytes") or "0", 16)
    table = np.full(max(blocks, default=-1) + 1, UNKNOWN, np.int16)
    for block, number in blocks.items():
        table[block] = number
    return Topology(numbers, cpus, tuple(distance), size, table)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


@dataclass(frozen=True)
class NodeBytes:
    """A mapping's policy and its bytes on each node, as the kernel counts them."""

    begin: int
    policy: str
    bytes: dict[int, int]


def node_bytes(pid: int) -> Iterator[NodeBytes]:
    """Every mapping of a process. Raises TargetError or HostError."""
    try:
        with open(f"/proc/{pid}/numa_maps", errors="replace") as file:
            lines = file.read().splitlines()
    except PermissionError:
        raise refused(f"permission denied inspecting process {pid}", PROTECTED) from None
    except FileNotFoundError:
        if os.path.exists(f"/proc/{pid}"):
            return  # a kernel without CONFIG_NUMA
        raise TargetError(f"process {pid} has exited", "give the pid of a running Go program") from None
    except OSError:
        return
    for line in lines:
        words = line.split()
        unit = next((int(word.partition("=")[2]) << 10 for word in words if word.startswith("kernelpagesize_kB=")), 4096)
        found = {int(m[1]): int(m[2]) * unit for word in words if (m := re.fullmatch(r"N(\d+)=(\d+)", word))}
        yield NodeBytes(int(words[0], 16), words[1], found)


def bytes_by_node(pid: int) -> dict[int, int]:
    """How much of a process lies on each node, as numa_maps has it. Raises as `node_bytes` does.

    The kernel walks its page table for that, about 4 us a resident MiB, and blocks its mmap calls for that time.
    """
    found: dict[int, int] = {}
    for each in node_bytes(pid):
        for node, size in each.bytes.items():
            found[node] = found.get(node, 0) + size
    return found


def cpus_of_threads(pid: int, threads: Collection[int]) -> dict[int, int]:
    """The CPU that each of a process's threads is on, or was on last; without those that are gone.

    ``threads`` are numbered as they number themselves (gettid): where that is within a container, /proc tells which they
    are here.
    """
    if not threads:
        return {}
    found = {}
    for thread, here in threads_here(pid, threads).items():
        text = text_of(f"/proc/{pid}/task/{here}", "stat")
        if text:
            found[thread] = last_cpu(text)
    return found


def threads_here(pid: int, threads: Collection[int]) -> dict[int, int]:
    """The number here of each thread of a process by the one that it has for itself: in a container they differ."""
    if not _in_container(pid):
        return {thread: thread for thread in threads}
    here = _threads_of_container(pid)
    return {thread: here[thread] for thread in here.keys() & set(threads)}


def _in_container(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    except OSError:
        return False


def _threads_of_container(pid: int) -> dict[int, int]:
    """The number here of each thread by that in its own PID namespace, which is the last one in NSpid."""
    found = {}
    for name in _names(f"/proc/{pid}/task"):
        own = re.search(r"^NSpid:.*\s(\d+)$", text_of(f"/proc/{pid}/task/{name}", "status"), re.M)
        if own:
            found[int(own[1])] = int(name)
    return found


def balancing(root: str = "/") -> bool | None:
    """Whether the kernel moves pages to the threads that use them (numa_balancing); None where it cannot."""
    text = text_of(os.path.join(root, "proc/sys/kernel"), "numa_balancing")
    return bool(int(text)) if text.isdigit() else None

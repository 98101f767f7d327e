"""Stand-ins for the CUDA libraries and PyTorch's, and a program that uses them: built once, outside the tree."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wheels

import targets
from gotrace.analysis.gpumem import calls as words
from gotrace.analysis.gpumem import summary
from gotrace.analysis.gpumem.layers import CALL, Layers
from gotrace.export.gpumem_page import draw

MIB, MS = 1 << 20, 1_000_000
POOL, STREAM = 0xD01, 0x10


class Call(NamedTuple):
    """A line of a stand-in's truth."""

    name: str
    address: int
    size: int
    stream: int
    pool: int
    result: int


@functools.cache
def built() -> Path:
    """`targets.cuda_standins`, looked for once."""
    return targets.cuda_standins()


def environment(truth: Path) -> dict[str, str]:
    return {**os.environ, "STANDIN_TRUTH": str(truth), "LD_LIBRARY_PATH": str(built())}


def calls(truth: Path) -> dict[int, list[Call]]:
    """What was asked and answered, by thread, in order."""
    found: dict[int, list[Call]] = defaultdict(list)
    for line in truth.read_text().splitlines():
        tid, name, *numbers, _ = line.split()
        found[int(tid)].append(Call(name, *map(int, numbers)))
    return dict(found)


# The real runtime, of two majors: (package, version, name of the library).
WHEELS = (
    ("nvidia-cuda-runtime-cu12", "12.9.79", "libcudart.so.12"),
    ("nvidia-cuda-runtime", "13.5.37", "libcudart.so.13"),
)


def runtime(package: str, version: str, name: str) -> Path:
    """A real libcudart, from PyPI into the cache: it is never part of this project."""
    (found,) = wheels.unpacked(f"{package}=={version}").rglob(name)
    return found


def row(time_ms, name, address=0, size=0, result=0, pool=POOL):
    return (time_ms * MS, 7, words.OPS[name] | result << 16, address, size, STREAM, pool, False)


def rows():
    """Random requests of a pool, in pieces; and one that is refused though enough is free."""
    random = np.random.default_rng(3)
    found, live = [], {}
    for ms in range(0, 900, 3):
        slot, size = int(random.integers(0, 64)), int(random.integers(1, 3)) * MIB // 2
        at = 0x7100000000 + slot * MIB
        if slot in live:
            del live[slot]
            found.append(row(ms, "free_async", at, pool=0))
        else:
            live[slot] = size
            found.append(row(ms, "malloc_from_pool", at, size))
    found.append(row(950, "malloc_from_pool", 0x7180000000, 3 * MIB))
    found.append(row(960, "malloc_from_pool", 0, 4 * MIB, result=2))
    return np.array(found, CALL)


def drawing(events, bin_ns=10 * MS, end_ms=1000, names=("work", "main")):
    """What is drawn of them; ``names`` are those of the stacks."""
    layers = Layers()
    layers.feed(events)
    courses = layers.courses()
    spaces = [summary.space(key, course, layers, events) for key, course in sorted(courses.items())]
    live, reserved = summary.peaks(courses.values())
    failed = [
        {**_named(each.key), "why": each.why, "size": each.size, "count": each.times, "tid": each.tid, "stack": list(names)}
        for each in summary.failures(courses, events)
    ]
    result = {"spaces": spaces, "failed": failed, "advice": summary.advice(spaces), "lost": 3, "watched_ns": end_ms * MS}
    result |= {"peak_live": live, "peak_reserved": reserved, "pid": 7, "exe": "/bin/worker"}
    return draw.Drawing(result, courses, events, 0, end_ms * MS, bin_ns)


def _named(key):
    return {"kind": key.kind, "device": None, "handle": key.handle}

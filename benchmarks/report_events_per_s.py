"""`gotrace report` of a long recording, against a plain scan of the same file by pyarrow: two whole processes each time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import gotrace
from gotrace.kernel.ring import wire_dtype
from gotrace.probes import gc
from gotrace.recording.writer import Writer

EVENTS = 6_000_000
ROUNDS = 3
CYCLES_PER_S = 500  # a small heap that is collected all the time: such recordings are the long ones
CYCLE_EVENTS = 6  # two stops, three events of the cycle, one of its sweep

Array = npt.NDArray[Any]

# What any program that reads the file has to do at least: decompress it and look at every number once.
SCAN = """
import sys
import pyarrow as pa, pyarrow.compute as pc
for batch in pa.ipc.open_stream(pa.OSFile(sys.argv[1])):
    for column in batch.columns[:-1]:
        pc.min_max(column)
"""


def header() -> dict[str, Any]:
    """That of a session which traced a Go 1.27 program."""
    kinds = gc.PROBE.header_kinds()
    facts = {
        "reasons": {"1": "GC mark termination", "2": "GC sweep termination"},
        "knows_forced": True,
        "knows_goid": True,
        "has_worldstop": True,
        "clock": "the runtime's own",
    }
    target = {"pid": 1, "exe": "service", "build_id": "", "go_version": "go1.27.3", "arch": "amd64"}
    return {
        "gotrace": gotrace.__version__,
        "target": {**target, "stripped": False, "pie": False, "bias": 0},
        "host": {"name": "", "kernel": "", "machine": "x86_64", "cpus": 2},
        "clock": {"begin_ns": 1_000_000_000, "wall_offset_ns": 1_700_000_000_000_000_000, "target_offset_ns": 0},
        "attach_ns": 0,
        "probes": {"gc": {"kinds": kinds, "points": [], "missing": [], "facts": facts}},
    }


def parts(events: int, begin_ns: int) -> Iterator[Array]:
    """At least ``events`` events as they leave the ring, with times that fit together: half a second at a time."""
    number = {kind.name: kind.number for kind in gc.PROBE.kinds}
    draw = np.random.default_rng(20231114)
    period = 1_000_000_000 // CYCLES_PER_S
    per_part = CYCLES_PER_S // 2
    for first in range(1, -(-events // CYCLE_EVENTS) + 1, per_part):
        cycle = np.arange(first, first + per_part, dtype=np.int64)
        size = len(cycle)
        sweep_term = begin_ns + cycle * period
        stopped = draw.lognormal(9.5, 1.0, size).astype(np.int64).clip(100, period // 10)
        mark = sweep_term + stopped + draw.integers(2_000, 20_000, size)
        mark_term = mark + draw.integers(period // 4, period // 3, size)
        stopped_again = draw.lognormal(8.5, 1.0, size).astype(np.int64).clip(100, period // 10)
        end = mark_term + stopped_again + draw.integers(1_000, 10_000, size)
        again = end + draw.integers(500, 15_000, size)  # the world runs
        heap = draw.integers(30 << 20, 40 << 20, size)
        out = np.zeros((size, CYCLE_EVENTS), wire_dtype())

        def put(place: int, kind: str, time_ns: Array, *values: Any, out: Array = out) -> None:
            out["kind"][:, place], out["time_ns"][:, place] = number[kind], time_ns
            for letter, value in zip("abcde", values, strict=False):
                out[letter][:, place] = value

        out["tid"], out["cpu"] = draw.integers(1000, 1008, (size, 1)), draw.integers(0, 8, (size, 1))
        flags = gc.FLAG_WORLDSTOP << 8
        put(0, "stw", mark + 300, 2 | flags | cycle << 32, 17, sweep_term, sweep_term + stopped, mark)
        put(1, "stw", again, 1 | flags | cycle << 32, 17, mark_term, mark_term + stopped_again, end)
        put(2, "cycle_clock", again + 900, cycle, sweep_term, mark, mark_term, end)
        put(3, "cycle_heap", again + 900, cycle, heap, heap + (8 << 20), heap - (9 << 20), 2 * heap)
        pauses = mark - sweep_term + end - mark_term
        put(4, "cycle_work", again + 900, cycle, pauses, draw.integers(0, 100_000, size), 8)
        put(5, "sweep_end", again + draw.integers(period // 20, period // 10, size), cycle)
        yield out.reshape(-1)


def make(path: str, events: int) -> int:
    """A recording of about ``events`` events; returns how many they are."""
    about = header()
    begin_ns, last_ns, count = int(about["clock"]["begin_ns"]), 0, 0
    with open(path, "wb", buffering=0) as file:
        writer = Writer(file, about, wire_dtype())
        for part in parts(events, begin_ns):
            writer.events(part)
            writer.flush()  # as `gotrace record` does twice a second
            count += len(part)
            last_ns = int(part["time_ns"].max())
        cost = dict.fromkeys(("probe_hits", "target_ns_estimate", "tool_cpu_s", "tool_rss_bytes"), 0)
        end = {"duration_ns": last_ns - begin_ns, "ended": "duration", "received": count, "lost": 0, "cost": cost}
        writer.close(end)
    return count


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def run() -> dict[str, object]:
    """Both sides in turn; times include the start of the process."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="gotrace-benchmark-") as folder:
        path = f"{folder}/long.gotrace"
        events = make(path, EVENTS)
        for _ in range(ROUNDS):
            theirs.append(seconds([sys.executable, "-c", SCAN, path]))
            ours.append(seconds([sys.executable, "-m", "gotrace.cli", "report", path]))
    report, scan = statistics.median(ours), statistics.median(theirs)
    return {
        "name": "report_events_per_s",
        "ours": round(report / events * 1e6, 4),
        "theirs": round(scan / events * 1e6, 4),
        "unit": "us per event",
        "ratio": round(report / scan, 3),
    }


if __name__ == "__main__":
    print(json.dumps(run()))

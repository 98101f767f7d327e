"""What it costs a program to have its memory watched: `gotrace mem --faults`, `numa` and `tlb` against who does alike.

bpftrace measures how long each page fault takes, and where threads run; perf counts the same events as `gotrace
tlb`, for the whole process and without a phase; numastat tells on which nodes a process's memory is. A snapshot of a
large heap is measured against a plain read of its books.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers import running, target

from gotrace.kernel.memory import Memory
from gotrace.kernel.process import Process
from gotrace.runtime.looker import Look, Looker

GOTRACE = str(Path(__file__).parent.parent / "scripts" / "gotrace")
ROUNDS, SECONDS = 7, 2.0
PAGE = os.sysconf("SC_PAGE_SIZE")
FAULTS = 400 << 20 >> 12
LARGE, ROOM = 6700, 12 << 30  # MiB of objects, for which 8 GiB are mapped; bytes that have to be free for it
EVENTS = ("page-faults", "context-switches", "cpu-clock")

FAULTS_BT = """
software:page-faults:1 /pid == PID/ { @begin[tid] = nsecs; }
software:minor-faults:1 /@begin[tid]/ { @took = hist(nsecs - @begin[tid]); delete(@begin[tid]); }
"""
NUMA_BT = (
    FAULTS_BT
    + """
tracepoint:sched:sched_switch /pid == PID/ { @ran[cpu] = sum(nsecs - @turn[cpu]); }
tracepoint:sched:sched_switch { @turn[cpu] = nsecs; }
tracepoint:sched:sched_migrate_task { @moved = count(); }
"""
)


def run() -> list[dict[str, Any]]:
    """What is added to a page fault where memory is touched for the first time, and to a program that allocates."""
    faults = {
        "": None,
        "mem": [GOTRACE, "mem", "--faults", "-d", "60s", "--pid", "PID"],
        "mem peer": ["bpftrace", "-e", FAULTS_BT],
        "numa": [GOTRACE, "numa", "-d", "60s", "--pid", "PID"],
        "numa peer": ["bpftrace", "-e", NUMA_BT],
    }
    counting = {
        "": None,
        "tlb": [GOTRACE, "tlb", "-d", "60s", "--pid", "PID", *(word for event in EVENTS for word in ("-e", event))],
        "tlb peer": ["perf", "stat", "-e", ",".join(EVENTS), "-p", "PID"],
    }
    touched = _medians(faults, _touch)
    plain = touched[""]
    rows = []
    for name in ("mem", "numa"):
        ours, theirs = ((touched[each] - plain) * 1e9 / FAULTS for each in (name, f"{name} peer"))
        unit = f"ns added to a page fault of {plain * 1e9 / FAULTS:.0f} ns"
        rows.append(_row(f"{name}_overhead", max(ours, 0.0) / theirs, ours, theirs, unit))
    took = _medians(counting, _allocation)
    ours, theirs = ((took[each] / took[""] - 1) * 100 for each in ("tlb", "tlb peer"))
    unit = "% longer for an allocation, at some 100 GC/s (perf stat knows no phases)"
    tlb = _row("tlb_overhead", max(ours, 0.0) / max(theirs, 0.1), ours, theirs, unit)
    return [*rows, tlb, _look(), *_large_look()]


def _row(name: str, ratio: float, ours: float, theirs: float, unit: str) -> dict[str, Any]:
    return {"name": name, "ratio": ratio, "ours": ours, "theirs": theirs, "unit": unit}


def _medians(commands: dict[str, list[str] | None], measure: Callable[[list[str] | None], float]) -> dict[str, float]:
    """They take turns; what is measured is for the tool of each command, None for none."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            found[name].append(measure(command))
    return {name: statistics.median(values) for name, values in found.items()}


@contextlib.contextmanager
def _watched(command: list[str] | None, process: subprocess.Popen[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if command is not None:
            stack.enter_context(running([word.replace("PID", str(process.pid)) for word in command]))
            time.sleep(2.5)  # past the tool's own start
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        yield


def _touch(command: list[str] | None) -> float:
    """Seconds to touch memory page by page, which is little else than page faults."""
    with target("shapes", "touch", str(FAULTS * PAGE >> 20)) as process, _watched(command, process):
        begin = time.monotonic()
        assert process.stdout is not None
        process.stdout.readline()
        return time.monotonic() - begin


def _allocation(command: list[str] | None) -> float:
    """Seconds for an allocation by a program with one P: on a machine with two CPUs the tool has the other."""
    arguments = ("-seconds", str(SECONDS), "-live", "40")
    with target("gcload", *arguments, env={"GOMAXPROCS": "1"}) as process, _watched(command, process):
        assert process.stdout is not None
        truth = json.loads(process.stdout.readline())
    return float(truth["ElapsedNs"] / 1e9 / truth["Operations"])


def _look() -> dict[str, Any]:
    """One look at a process of 300 MiB, as a command: its parts, against its nodes alone."""
    with target("shapes", "live", "300") as process:
        assert process.stdout is not None
        process.stdout.readline()
        took = {
            name: _seconds(command)
            for name, command in (
                ("ours", [GOTRACE, "mem", "--pid", str(process.pid)]),
                ("theirs", ["numastat", "-p", str(process.pid)]),
            )
        }
    ours, theirs = (took[side] * 1000 for side in ("ours", "theirs"))
    return _row("mem_look", ours / theirs, ours, theirs, "ms for one look at 300 MiB (numastat -p, which knows nodes only)")


def _large_look() -> list[dict[str, Any]]:
    """One look at 8 GiB and 870,000 spans, within a process: its CPU time, against reading the same bytes and no more.

    Both are of the same minute, by turns: on a machine that has other work the CPU time of both grows. Nothing on a machine
    without the memory for it.
    """
    if _available() < ROOM:
        print(f"mem_look_large: needs {ROOM >> 30} GiB of memory, not run", flush=True)
        return []
    with target("shapes", "live", str(LARGE)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with Process.open(process.pid) as opened:
            looker = Looker(opened)
            look, reads = _recorded(looker)
            memory = Memory(process.pid)
            room = np.empty(max(int(places[:, 1].sum()) for places in reads), np.uint8)

            def plain() -> None:
                for places in reads:
                    memory.read_into(places, room[: int(places[:, 1].sum())])

            took: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(ROUNDS):
                for name, each in (("ours", looker.look), ("theirs", plain)):
                    begin = time.process_time()
                    each()
                    took[name].append((time.process_time() - begin) * 1000)
    ours, theirs = (statistics.median(times) for times in took.values())
    spans = sum(each.spans for each in look.classes)
    size = sum(int(places[:, 1].sum()) for places in reads)
    unit = (
        f"ms CPU for one look at {look.rss / (1 << 30):.1f} GiB, {spans:,} spans (their {size >> 20} MiB read, and no more)"
    )
    row = _row("mem_look_large", ours / theirs, ours, theirs, unit)
    return [{**row, "detail": {name: [round(each, 1) for each in times] for name, times in took.items()}}]


def _available() -> int:
    """Bytes of memory that can be had without swapping."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))


def _recorded(looker: Looker) -> tuple[Look, list[Any]]:
    """A look, and which places in the target's memory it read, call by call; the first one has read more than others do."""
    looker.look()
    reads: list[Any] = []
    read_into = Memory.read_into

    def recording(self: Memory, places: Any, room: Any) -> None:
        reads.append(places.copy())
        read_into(self, places, room)

    Memory.read_into = recording  # type: ignore[method-assign]
    try:
        return looker.look(), reads
    finally:
        Memory.read_into = read_into  # type: ignore[method-assign]


def _seconds(command: list[str], rounds: int = 9) -> float:
    times = []
    for _ in range(rounds):
        begin = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - begin)
    return statistics.median(times[1:])

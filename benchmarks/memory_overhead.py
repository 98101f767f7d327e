"""What it costs a program to have its memory watched: `gotrace mem --faults`, `numa` and `tlb` against who does alike.

bpftrace measures the kernel's handling of each page fault, and where threads run; perf counts the same events as `gotrace
tlb`, for the whole process and without a phase; numastat tells on which nodes a process's memory is.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from peers import running, target

GOTRACE = str(Path(__file__).parent.parent / "scripts" / "gotrace")
ROUNDS, SECONDS = 7, 2.0
EVENTS = ("page-faults", "context-switches", "cpu-clock")

FAULTS_BT = """
kprobe:handle_mm_fault /pid == PID/ { @begin[tid] = nsecs; }
kretprobe:handle_mm_fault /@begin[tid]/ { @took = hist(nsecs - @begin[tid]); delete(@begin[tid]); }
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
    """Fewer allocations a second by a program with one P that faults some ten thousand times a second."""
    commands = {
        "": None,
        "mem": [GOTRACE, "mem", "--faults", "-d", "60s", "--pid", "PID"],
        "mem peer": ["bpftrace", "-e", FAULTS_BT],
        "numa": [GOTRACE, "numa", "-d", "60s", "--pid", "PID"],
        "numa peer": ["bpftrace", "-e", NUMA_BT],
        "tlb": [GOTRACE, "tlb", "-d", "60s", "--pid", "PID", *(word for event in EVENTS for word in ("-e", event))],
        "tlb peer": ["perf", "stat", "-e", ",".join(EVENTS), "-p", "PID"],
    }
    speed: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            speed[name].append(_allocations(command))
    plain = statistics.median(speed[""])
    lost = {name: (plain / statistics.median(values) - 1) * 100 for name, values in speed.items()}
    rows = [
        {
            "name": f"{name}_overhead",
            "ratio": max(lost[name], 0.0) / max(lost[f"{name} peer"], 0.1),
            "ours": lost[name],
            "theirs": lost[f"{name} peer"],
            "unit": f"% fewer allocations/s ({of})",
        }
        for name, of in (("mem", "bpftrace"), ("numa", "bpftrace"), ("tlb", "perf stat, which knows no phases"))
    ]
    return [*rows, _look()]


def _allocations(command: list[str] | None) -> float:
    """Allocations a second while the tool of that command watches."""
    arguments = ("-seconds", str(SECONDS), "-live", "1", "-percent", "20")
    with target("gcload", *arguments, env={"GOMAXPROCS": "1"}) as process, contextlib.ExitStack() as stack:
        if command is not None:
            stack.enter_context(running([word.replace("PID", str(process.pid)) for word in command]))
            time.sleep(2.5)  # past the tool's own start
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        truth = json.loads(process.stdout.readline())
    return float(truth["Operations"] / (truth["ElapsedNs"] / 1e9))


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
    return {
        "name": "mem_look",
        "ratio": took["ours"] / took["theirs"],
        **{side: seconds * 1000 for side, seconds in took.items()},
        "unit": "ms for one look at 300 MiB (numastat -p, which knows nodes only)",
    }


def _seconds(command: list[str], rounds: int = 9) -> float:
    times = []
    for _ in range(rounds):
        begin = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - begin)
    return statistics.median(times[1:])

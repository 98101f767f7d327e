"""What watching a scheduler takes from a program that does nothing but yield.

Against a process that wakes as often and reads nothing, because waking idle CPUs changes a program's speed by itself; and,
with every wait of a thread and every steal, against bpftrace at the same places.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from peers import bpftrace_command, running, target

GOTRACE = str(Path(__file__).parent.parent / "scripts" / "gotrace")
GOROUTINES, YIELDS, ROUNDS = 40, 100_000, 7
CLIENTS, SERVED_S = 16, 4
CONTROL = "import time\nwhile True: time.sleep(0.01)"


def run() -> list[dict[str, Any]]:
    """The share of its yields per second that each costs."""
    plain, ours, control, events, theirs = (
        statistics.median(column) for column in zip(*(_rates() for _ in range(ROUNDS)), strict=True)
    )
    rates = (ours, control, events, theirs)
    # More yields than without: what wakes up keeps the CPUs awake.
    lost, of_control, of_events, of_bpftrace = (max(0.0, 1 - rate / plain) * 100 for rate in rates)
    unit = f"% of {plain:,.0f} yields/s lost"
    return [
        {
            "name": "sched_cost",
            "ratio": lost / max(of_control, 0.1),
            "ours": lost,
            "theirs": of_control,
            "unit": f"{unit} by a hundred samples a second (by a process that only wakes as often)",
        },
        {
            "name": "sched_events_cost",
            "ratio": of_events / max(of_bpftrace, 0.1),
            "ours": of_events,
            "theirs": of_bpftrace,
            "unit": f"{unit} with each wait of a thread and each steal",
        },
    ]


def of_server() -> dict[str, Any]:
    """The share of its requests per second that each costs an HTTP service, which its own clients keep busy."""
    ours_at = [GOTRACE, "sched", "-d", "60s", "--events", "--pid"]
    rounds = [(_served(), _served(ours_at), _served(["bpftrace"])) for _ in range(ROUNDS)]
    plain, ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    lost, of_bpftrace = (max(0.0, 1 - rate / plain) * 100 for rate in (ours, theirs))
    return {
        "name": "sched_server_cost",
        "ratio": lost / max(of_bpftrace, 0.1),
        "ours": lost,
        "theirs": of_bpftrace,
        "unit": f"% of {plain:,.0f} requests/s lost with each wait of a thread and each steal",
    }


def _served(tool: list[str] | None = None) -> float:
    """Requests per second."""
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(target("service", "-count", "-clients", str(CLIENTS)))
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        _watch(stack, tool, process)
        found = []
        for _ in range(2):
            process.stdin.write("\n")
            process.stdin.flush()
            found.append((int(process.stdout.readline()), time.monotonic()))
            time.sleep(SERVED_S * (len(found) == 1))
    (before, began), (after, ended) = found
    return (after - before) / (ended - began)


def _watch(stack: contextlib.ExitStack, tool: list[str] | None, process: subprocess.Popen[str]) -> None:
    begun = ""
    if tool == ["bpftrace"]:
        begun = "Attaching"
        tool = bpftrace_command(Path(os.readlink(f"/proc/{process.pid}/exe")), process.pid, "sched.bt")
    elif tool is not None and tool[0] == GOTRACE:
        begun = "Tracing"
        tool = [*tool, str(process.pid)]
    if tool is not None:
        stack.enter_context(running(tool, begun))
    time.sleep(2)  # past the program's own start, and what the tool does first


def _rates() -> list[float]:
    sched = [GOTRACE, "sched", "-d", "60s", "--pid"]
    return [
        _rate(),
        _rate(sched),
        _rate([sys.executable, "-c", CONTROL]),
        _rate([*sched[:-1], "--events", "--pid"]),
        _rate(["bpftrace"]),
    ]


def _rate(command: list[str] | None = None) -> float:
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(target("scheduled", "2"))
        _ask(process, "wait")
        _watch(stack, command, process)
        found = _ask(process, f"xyield {GOROUTINES} {YIELDS}")
    return GOROUTINES * YIELDS / found["Elapsed"] * 1e9


def _ask(process: subprocess.Popen[str], command: str) -> dict[str, Any]:
    """``command`` begins with a byte for the system call that it is in, but the first."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{command}\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found

"""What the agent takes from a busy service: its requests per second, its CPU time for each, and their p99, with
`gotrace serve` and without.

Neighbouring windows in random order. Where there are two CPUs, the service has one, and the load the other; the agent
may run on any. CPU time for each request is what the probes cost; what the agent itself takes is in the other two.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from agents import Agent
from turns import in_turns

import targets
from conftest import until
from gotrace.analysis.stats.ranks import shift_of_pairs
from gotrace.lab import load, service
from services import free_port

ROUNDS, WARM_S, SECONDS = 24, 2, 4
SETTLE_S = 3  # what an agent does once, when it begins, is not what it takes
GOGC = "GOGC=2000"  # for 20 collections a second: with its empty heap it has 400, and would not be traced for long
MOST_LOST = 0.5  # percent of the requests


def run(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """The share of its requests per second, and of their p99, that tracing costs, with exact 95 % intervals."""
    port = free_port()
    command = ["taskset", "-c", "0", "env", GOGC, str(targets.build("shop")), "-port", str(port)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "taskset -c 1 wrk -t1 -c4 -d{}s --latency http://127.0.0.1:" + f"{port}/ping"
        ready, warm = (load.prepare(load.parse_load(text.format(each)), folder) for each in (SECONDS, WARM_S))
        with service.started(command, service.Ready("127.0.0.1", port), folder / "log") as running:
            found = _windows(ready, warm, running.pid, rounds)
    rates, p99, cpu = ({name: [each[which] for each in windows] for name, windows in found.items()} for which in range(3))
    lost, longer, more = _by(rates, -1), _by(p99, 1), _by(cpu, 1)
    plain = sorted(rates["plain"])[rounds // 2]
    return [
        {
            "name": "agent_throughput",
            "ratio": max(0.0, lost[0]) / MOST_LOST,
            "ours": lost[0],
            "theirs": MOST_LOST,
            "unit": f"% of {plain:,.0f} requests/s lost (95 % interval: {lost[1]:.1f} to {lost[2]:.1f}; {rounds} pairs)",
        },
        {
            "name": "agent_cpu_per_request",
            "ratio": max(0.0, more[0]) / MOST_LOST,
            "ours": more[0],
            "theirs": MOST_LOST,
            "unit": f"% more CPU time for a request (95 % interval: {more[1]:.1f} to {more[2]:.1f}; {rounds} pairs)",
        },
        {
            "name": "agent_p99",
            "ratio": max(0.0, longer[0]),
            "ours": longer[0],
            "theirs": 0.0,
            "unit": f"% longer p99 of requests (95 % interval: {longer[1]:.1f} to {longer[2]:.1f}; {rounds} pairs)",
        },
    ]


def _by(values: dict[str, list[float]], sign: int) -> tuple[float, float, float]:
    """By how many percent the traced ones are more (1) or less (-1), with the interval: of neighbours."""
    ratios = [math.log(after / before) for before, after in zip(values["plain"], values["traced"], strict=True)]
    found = shift_of_pairs(ratios)
    value, *ends = (sign * 100 * math.expm1(each) for each in (found.value, found.low, found.high))
    return value, min(ends), max(ends)


def _windows(ready: load.Ready, warm: load.Ready, pid: int, rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """Requests per second, their p99 in ns and the CPU time in ns that each took, of each window."""

    def plain() -> tuple[float, float, float]:
        # At rest the runtime gives memory back, and the processor slows down: neither is of the agent.
        load.finish(warm, load.start(warm).wait())
        before = _cpu_ns(pid)
        result = load.finish(ready, load.start(ready).wait())
        return result.throughput, result.percentiles_ns["p99"] or 0.0, (_cpu_ns(pid) - before) / result.requests

    def traced() -> tuple[float, float, float]:
        agent = Agent("--select", f"pid={pid}", "--min-age", "0s", through=["taskset", "-c", "0-1"])
        try:
            until(lambda: agent.traced() == {pid}, 60)
            time.sleep(SETTLE_S)
            found = plain()
            assert json.loads(agent.get(f"/processes?pid={pid}"))["cycles"] > 0
            return found
        finally:
            agent.finish()

    plain()  # past the program's own start
    return in_turns({"plain": plain, "traced": traced}, rounds)


def _cpu_ns(pid: int) -> int:
    """By the scheduler's own account, of all threads."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]) if sys.argv[1:] else ROUNDS), indent=1))

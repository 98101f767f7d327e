"""What the agent takes from a busy service: its requests per second, its CPU time for each, and their p99.

Two services that are alike share one CPU, and `gotrace serve` traces the one, then the other: what the machine does
meanwhile, it does to both. The effect is half the change of their ratio. It is what the probes cost; the agent's own
CPU time, which is beside that, is a row of its own, and part of what is lost. Two rates of collections: a usual one,
and one that makes what a hit costs visible, so that the agent's own estimate of it can be judged.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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

ROUNDS, WARM_S, SECONDS = 24, 1, 4
USUAL, MANY = "GOGC=2000", "GOGC=25"  # some 20 and 1,000 collections in a second of CPU time
MOST_LOST = 0.5  # percent of the requests
_CPUS = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Window:
    """Of one service: CPU time per request and p99 in ns, requests per second, CPU time in ns."""

    per_request: float
    rate: float
    p99: float
    cpu_ns: int


@dataclass(frozen=True)
class Traced:
    """Both services while one was traced; what the agent took itself, in CPUs, what it says that its probes took of the
    traced one, and the collections of that in a second of its CPU time."""

    services: tuple[Window, Window]
    agent: float
    estimate: float
    collections: float


def run(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    usual, many = _traced(USUAL, rounds), _traced(MANY, rounds // 2)
    agent = 100 * _mean(usual, lambda each: each.agent) / len(_CPUS)
    plain = _mean(usual, lambda each: each.services[0].rate)
    lost = tuple(-each for each in _effect(usual, lambda window: window.rate))
    more = _effect(usual, lambda window: window.per_request)
    real = _effect(many, lambda window: window.per_request)
    said, rate = (100 * _mean(many, lambda each: each.estimate), _mean(many, lambda each: each.collections))
    longer = _effect(usual, lambda window: window.p99)
    each_has = f"; {_mean(usual, lambda each: each.collections):.0f} collections in a second of its CPU time"
    all_lost = lost[0] + agent
    return [
        _row("agent_throughput", all_lost, MOST_LOST, f"% of {plain:,.0f} requests/s lost{_pairs(lost, rounds)}, of which"
             f" {agent:.2f} as the agent's own CPU time on {len(_CPUS)} CPUs{each_has}"),
        _row("agent_cpu_per_request", more[0], MOST_LOST, f"% more CPU time for a request{_pairs(more, rounds)}"),
        _row("agent_p99", longer[0], (longer[2] - longer[1]) / 2, f"% longer p99 of requests{_pairs(longer, rounds)}"),
        _row("agent_estimate", said, real[0], f"% of the service's CPU time, as the agent estimates and as it is"
             f"{_pairs(real, rounds // 2)}; {rate:,.0f} collections in a second of it"),
    ]  # fmt: skip


def _row(name: str, ours: float, theirs: float, unit: str) -> dict[str, Any]:
    return {"name": name, "ratio": max(0.0, ours) / theirs, "ours": ours, "theirs": theirs, "unit": unit}


def _pairs(effect: tuple[float, ...], rounds: int) -> str:
    return f" (95 % interval of the probes' part: {min(effect[1:]):.2f} to {max(effect[1:]):.2f}; {rounds} pairs)"


def _mean(pairs: dict[str, list[Traced]], of: Callable[[Traced], float]) -> float:
    found = [of(each) for windows in pairs.values() for each in windows]
    return sum(found) / len(found)


def _effect(pairs: dict[str, list[Traced]], of: Callable[[Window], float]) -> tuple[float, ...]:
    """What tracing changes, in percent, with both ends of its interval."""
    ratios = {
        name: [math.log(of(each.services[0]) / of(each.services[1])) for each in found] for name, found in pairs.items()
    }
    found = shift_of_pairs([(first - second) / 2 for first, second in zip(ratios["first"], ratios["second"], strict=True)])
    return tuple(100 * math.expm1(each) for each in (found.value, found.low, found.high))


def _traced(gogc: str, rounds: int) -> dict[str, list[Traced]]:
    on = ["taskset", "-c", str(_CPUS[0])]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        pids, warm, ready = [], [], []
        for which in ("first", "second"):
            port, folder = free_port(), Path(name) / which
            folder.mkdir()
            command = [*on, "env", gogc, str(targets.build("shop")), "-port", str(port)]
            started = service.started(command, service.Ready("127.0.0.1", port), folder / "log")
            pids.append(stack.enter_context(started).pid)
            text = f"{' '.join(on)} wrk -t1 -c8 -d{{}}s --latency http://127.0.0.1:{port}/ping"
            for loads, seconds in ((warm, WARM_S), (ready, SECONDS)):
                loads.append(load.prepare(load.parse_load(text.format(seconds)), folder))
        _window(ready, pids)  # past their own start
        ways = {
            name: lambda pid=pid: _with_agent(pid, pids, warm, ready)
            for name, pid in zip(("first", "second"), pids, strict=True)
        }
        return in_turns(ways, rounds)


def _with_agent(pid: int, pids: list[int], warm: list[load.Ready], ready: list[load.Ready]) -> Traced:
    agent = Agent("--select", f"pid={pid}", "--min-age", "0s", through=["taskset", "-c", str(_CPUS[-1])])

    def now() -> tuple[int, float, int, float]:
        row = json.loads(agent.get(f"/processes?pid={pid}"))
        cost_s = sum(agent.values("gotrace_target_overhead_seconds_total"))
        return row["cycles"], cost_s, _cpu_ns(agent.process.pid), time.monotonic()

    try:
        until(lambda: agent.traced() == {pid}, 60)
        _window(warm, pids)  # at rest the runtime gives memory back, and an agent's start is not what it takes
        before = now()
        first, second = _window(ready, pids)
        after = now()
    finally:
        agent.finish()
    cycles, cost_s, agent_ns, seconds = (new - old for new, old in zip(after, before, strict=True))
    cpu_s = (first, second)[pids.index(pid)].cpu_ns / 1e9
    return Traced((first, second), agent_ns / 1e9 / seconds, cost_s / cpu_s, cycles / cpu_s)


def _window(loads: list[load.Ready], pids: list[int]) -> tuple[Window, Window]:
    """Both under load at once."""
    before = [_cpu_ns(pid) for pid in pids]
    running = [load.start(each) for each in loads]
    results = [load.finish(each, process.wait()) for each, process in zip(loads, running, strict=True)]
    first, second = (
        Window((end - begin) / result.requests, result.throughput, result.percentiles_ns["p99"] or 0.0, end - begin)
        for result, begin, end in zip(results, before, [_cpu_ns(pid) for pid in pids], strict=True)
    )
    return first, second


def _cpu_ns(pid: int) -> int:
    """By the scheduler's own account, of all threads."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]) if sys.argv[1:] else ROUNDS), indent=1))

"""The agent's metrics from a runtime's own books: at rest they are what the program's runtime/metrics says, to the last."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agents import Agent, changed

import targets
from conftest import Target, until
from gotrace.binary.metrics import find_metrics
from gotrace.binary.program import GoProgram
from gotrace.kernel.memory import Memory
from gotrace.kernel.process import Process
from gotrace.made import bias_in
from gotrace.runtime.metrics import MetricsReader, longest_of

RELEASES = [each for each in ("1.19.8", "1.22.10", targets.NEWEST) if each in targets.MATRIX]
CASES = [*((each, "stripped") for each in targets.MATRIX), *((each, "pie-stripped") for each in RELEASES)]
OFF = (1 << 64) - 1  # as /gc/gogc has it
HISTOGRAM = "/sched/latencies:seconds"
# Read once a second rather than every ten.
COMMAND = changed("from gotrace.agent import books; books.EVERY_S = 1; books._FIND_S = 0.5")


class Metered:
    """The program: at rest once a command was answered, until the next."""

    def __init__(self, start: Callable[..., Target], program: Path) -> None:
        self.target = start(program, env={"GOMAXPROCS": "2"})
        self.pid = self.target.pid
        self._begun = False
        self.ask("wait")

    def ask(self, command: str) -> dict[str, Any]:
        process = self.target.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{'x' if self._begun else ''}{command}\n")
        process.stdin.flush()
        self._begun = True
        return dict(json.loads(process.stdout.readline()))


def used(truth: dict[str, Any]) -> int:
    return int(truth["/memory/classes/total:bytes"] - truth["/memory/classes/heap/released:bytes"])


@pytest.mark.parametrize(("version", "flavour"), CASES)
def test_equal_at_rest(version: str, flavour: str, start: Callable[..., Target]) -> None:
    program = Metered(start, targets.build("metered", version, flavour))
    with Process.open(program.pid) as process, GoProgram.open(process.exe_path) as binary:
        places = find_metrics(binary)
        reader = MetricsReader(places, Memory(program.pid), bias_in(process, places))
        assert not places.missing
        for command in (
            "allocate 5000 100",
            "allocate 3 1000000",
            "sleep 300",
            "yield 20 3000",
            "allocate 1000 10",
            "wait",
        ):
            truth = program.ask(command)
            found = reader.read()
            assert found.waits is not None
            assert (found.used, found.stack) == (used(truth), truth["/memory/classes/heap/stacks:bytes"])
            assert found.allocated == truth["/gc/heap/allocs:bytes"], command
            assert found.allocations == truth["/gc/heap/allocs:objects"], command
            assert found.heap is not None and 0 < found.heap < found.used, command
            assert found.goroutines == truth["/sched/goroutines:goroutines"], command
            # as metrics have it: those below 0 first; up to Go 1.19 what is beyond all is in the last one
            counts = truth[HISTOGRAM]
            assert found.waits.tolist()[: len(counts)] == counts and sum(found.waits) == sum(counts), command
        assert found.goroutines > 300 and sum(found.waits) > 5000
        for command in ("collect", "gogc 70", "limit 1000000000", "collect", "gogc 0", "gogc -1"):
            truth, found = program.ask(command), reader.read()
            assert found.live and found.goal
            if (gogc := truth["/gc/gogc:percent"]) is not None:  # before Go 1.21 it has none of these
                assert (found.gogc, found.limit) == (-1 if gogc == OFF else gogc, truth["/gc/gomemlimit:bytes"]), command
                assert found.live == truth["/gc/heap/live:bytes"], command
        assert (found.gogc, found.limit) == (-1, 1_000_000_000)


@pytest.mark.bpf
def test_what_is_set_and_what_was_live_before(start: Callable[..., Target], program: Any, agent: Any) -> None:
    """Before the agent has seen a collection it says what was live at the end of the last one, and what is set by then.
    What is off has no sample, at once for GOGC and GOMEMLIMIT, and no goal comes from them."""
    name = f"changed{os.getpid()}"
    ours = Metered(start, program(name, program="metered"))
    for command in ("allocate 4000 5000", "gogc 50", "limit 1000000000"):
        ours.ask(command)
    live = ours.ask("collect")["/gc/heap/live:bytes"]
    gauges = ("gotrace_heap_live_bytes", "go_memory_gc_goal_bytes", "go_config_gogc", "go_memory_limit_bytes")
    serving = agent("--select", f"name={name}", "--min-age", "0s", command=COMMAND)

    def exported() -> list[list[float]]:
        return [serving.values(each, service_name=name) for each in gauges]

    def row() -> dict[str, Any]:
        return dict(json.loads(serving.get(f"/processes?pid={ours.pid}")))

    until(lambda: all(exported()), 60)
    found = row()
    assert exported() == [[live], [found["heap_goal_bytes"]], [50], [1_000_000_000]]
    assert (found["heap_live_bytes"], found["cycles"]) == (live, 0) and live > 20_000_000
    ours.ask("gogc 400")
    until(lambda: exported()[2] == [400], 60)  # without a collection
    ours.ask(f"limit {(1 << 63) - 1}")
    ours.ask("gogc -1")
    until(lambda: exported()[2:] == [[], []], 60)
    live = [ours.ask("collect")["/gc/heap/live:bytes"] for _ in range(2)][-1]
    until(lambda: row()["cycles"] == 2 and exported() == [[live], [], [], []], 60)


@pytest.mark.bpf
def test_what_is_exported(start: Callable[..., Target], tmp_path: Path) -> None:
    """Two processes of one service: gauges are sums, counters count from when tracing began."""
    name = f"metered{os.getpid()}"
    path = Path(shutil.copy(targets.build("metered"), tmp_path / name))
    ours = [Metered(start, path) for _ in range(2)]
    agent = Agent("--select", f"name={name}", "--min-age", "0s", command=COMMAND)

    def one(metric: str, **labels: str) -> float:
        return agent.one(metric, service_name=name, **labels)

    try:
        begin = [each.ask("wait") for each in ours]
        goroutines = "/sched/goroutines:goroutines"
        until(lambda: agent.values("go_goroutine_count"), 60)
        until(lambda: one("go_goroutine_count") == sum(each[goroutines] for each in begin))
        before = [each.ask("wait") for each in ours]
        time.sleep(3)
        at = (
            one("go_memory_allocated_bytes_total"),
            one("go_memory_allocations_total"),
            one("go_schedule_duration_seconds_count"),
        )
        [each.ask(command) for each, command in zip(ours, ("sleep 200", "allocate 2000 500"), strict=True)]
        after = [each.ask("yield 10 2000") for each in ours]
        until(lambda: one("go_goroutine_count") == sum(each[goroutines] for each in after))
        time.sleep(2.5)
        assert one("go_memory_used_bytes", go_memory_type="stack") == sum(
            each["/memory/classes/heap/stacks:bytes"] for each in after
        )
        assert one("go_memory_used_bytes", go_memory_type="other") == sum(
            used(each) - each["/memory/classes/heap/stacks:bytes"] for each in after
        )

        def grown(metric: str) -> int:
            return int(sum(then[metric] - now[metric] for then, now in zip(after, before, strict=True)))

        assert one("go_memory_allocated_bytes_total") - at[0] == grown("/gc/heap/allocs:bytes") >= 2000 * 512
        assert one("go_memory_allocations_total") - at[1] == grown("/gc/heap/allocs:objects") >= 2000
        counts = sum(np.array(then[HISTOGRAM]) - now[HISTOGRAM] for then, now in zip(after, before, strict=True))
        assert one("go_schedule_duration_seconds_count") - at[2] == sum(counts) > 0
        # no wait is told to be shorter than it was: those up to a bound are in buckets of the runtime's that end there
        longest = longest_of(len(counts))
        for bound, text in ((100_000, "0.0001"), (10_000_000, "0.01")):
            of_all = sum(sum(np.array(each[HISTOGRAM])[longest <= bound]) for each in after)
            assert one("go_schedule_duration_seconds_bucket", le=text) <= of_all
        assert not any("unknown" in each for each in json.loads(agent.get("/processes")))
    finally:
        agent.process.kill()
        agent.process.communicate()

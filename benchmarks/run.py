"""Every benchmark, both sides in one run: a table, and benchmarks/results.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agent
import agent_ab
import baseline_cost
import change_points
import coldstart_overhead
import compare_time
import datapath
import false_alarms
import flame_svg
import fleet
import goroutines
import histogram_record
import memory_overhead
import peers
import perf_parse
import report_events_per_s
import ring_cpu_per_event
import scheduler
import symbol_lookup

# name -> the ratio (ours to theirs) we mean to stay below; None: reported only
REACH = {
    "ring_cpu_per_event": 1 / 40,
    "ready_time": 0.6,
    "target_slowdown": 0.15,
    "pause_inflation": None,
    "symbol_lookup": 0.1,
    "histogram_record": 1 / 50,
    "tool_memory": 0.5,
    "report_events_per_s": 3,
    "flame_svg": 0.3,
    "perf_parse": 0.2,
    "tail_overhead": 0.3,
    "coldstart_overhead": 0.1,
    "mem_overhead": 1.5,
    "numa_overhead": 1.5,
    "tlb_overhead": None,
    "mem_look": None,
    "mem_look_large": 8,
    "goroutines_dump": 0.6,
    "goroutines_cost": None,
    "sched_cost": None,
    "sched_events_cost": 0.3,
    "sched_server_cost": 0.3,
    "datapath_strace": 0.0375,
    "datapath_bpftrace": 1.0,
    "datapath_bcc": 1.1,
    "datapath_million": 1.0,
    "change_points": 0.01,
    "compare_time": 0.5,
    "baseline_cost": None,
    "agent_rss": 1.0,
    "agent_cpu": 1.0,
    "agent_detach": 1.0,
    "agent_throughput": None,
    "agent_cpu_per_request": None,
    "agent_p99": None,
    "agent_estimate": None,
    "fleet_p99": 0.3,
    "fleet_p99_by_host": 0.5,
    "fleet_add": None,
    "false_alarms_metrics": 0.25,
    "false_alarms_requests": 0.1,
    "false_alarms_p99": 0.2,
    "false_alarms_drift": 0.25,
}
PARTS: tuple[Callable[[], dict[str, Any] | list[dict[str, Any]]], ...] = (
    ring_cpu_per_event.run,
    peers.ready_time,
    peers.slowdown_and_inflation,
    symbol_lookup.run,
    histogram_record.run,
    peers.tool_memory,
    report_events_per_s.run,
    flame_svg.run,
    perf_parse.run,
    peers.tail_overhead,
    coldstart_overhead.run,
    memory_overhead.run,
    goroutines.run,
    scheduler.run,
    scheduler.of_server,
    datapath.run,
    datapath.million,
    change_points.run,
    compare_time.run,
    baseline_cost.run,
    agent.run,
    agent_ab.run,
    fleet.run,
    false_alarms.run,
)


def main() -> None:
    results: dict[str, dict[str, Any]] = {}
    print(f"{'benchmark':<20} {'ratio':>8} {'reach':>8} {'ours':>10} {'theirs':>10}  unit", flush=True)
    for part in PARTS:
        measured = part()
        for result in measured if isinstance(measured, list) else [measured]:
            name = result.pop("name")
            results[name] = result
            reach = REACH[name]
            shown = "-" if reach is None else f"{reach:.3f}"
            line = f"{name:<20} {result['ratio']:>8.4f} {shown:>8} {result['ours']:>10.3f} {result['theirs']:>10.3f}"
            print(f"{line}  {result['unit']}", flush=True)
    (Path(__file__).parent / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    missed = [name for name, result in results.items() if (reach := REACH[name]) is not None and result["ratio"] > reach]
    if missed:
        print(f"short of its reach: {', '.join(missed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()

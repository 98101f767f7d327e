"""Reports of baselines whose truth is known, whole enough for every page and format."""

from __future__ import annotations

from typing import Any

import numpy as np

from gotrace.analysis.causes import CLASSES
from gotrace.lab.report import SCHEMA

VALUES: dict[str, float] = {
    "throughput": 12_000,
    "latency.p50": 400_000,
    "latency.p90": 900_000,
    "latency.p99": 5e6,
    "errors.share": 0.0,
    "stw.total.p50": 4e4,
    "stw.total.p95": 2e5,
    "stw.total.p99": 3e5,
    "stw.total.max": 2e6,
    "gc.cycles_per_s": 50.0,
    "gc.mark.mean": 8e5,
    "gc.cpu_share": 0.08,
    "alloc.per_request": 6e4,
    "rss.peak": 5e7,
    "rss.mean": 4e7,
    "rss.growth": 100.0,
    "heap.live.mean": 2e6,
    "heap.goal.mean": 4e6,
    "mem.amplification": 6.0,
    "cpu": 1.5,
    "cpu.per_request": 1e5,
    "sched.latency.mean": 2e3,
    "sched.latency.p95": 1e4,
    "sched.p_moves.nodes": 3.0,
    "start.ready": 1e7,
}
HOST: dict[str, Any] = {
    "host_class": "44b23c96db42",
    "architecture": "x86_64",
    "cpu": "AMD EPYC",
    "cpus": 8,
    "cores": 4,
    "kernel": "6.18.0",
    "page_bytes": 4096,
    "memory_bytes": 1 << 34,
    "numa_nodes": 1,
    "governor": None,
    "boost": None,
    "huge_pages": "madvise",
    "hypervisor": "yes",
    "provider": None,
    "instance": None,
    "cgroup_version": 2,
    "quota_cpus": None,
}


def report(
    versions: dict[str, dict[str, float]],
    runs: int = 8,
    spread: float = 0.02,
    seed: int = 1,
    host: dict[str, Any] | None = None,
    waits: dict[str, dict[str, int]] | None = None,
    command: tuple[str, ...] = ("./shop",),
    requests: int = 2_000,
) -> dict[str, Any]:
    """Of versions whose metrics are `VALUES` times factors, with noise; ``waits``: what their long pauses waited for."""
    random = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for round_ in range(runs):
        for name, factors in versions.items():
            metrics = {
                metric: value * factors.get(metric, 1) * float(np.exp(random.normal(0, spread)))
                for metric, value in VALUES.items()
            }
            found.append(_run(name, round_, len(found), metrics, (waits or {}).get(name), random, requests))
    plan = {
        "versions": [{"name": name, "command": list(command)} for name in versions],
        "load": ["wrk", "-d2s", "http://127.0.0.1:1/"],
        "runs": runs,
        "warmup_ns": 10**9,
        "ready": "tcp:127.0.0.1:1",
        "seed": 1,
        "most_drift": 0.03,
        "cpus": [],
        "load_cpus": [],
        "explained": 5 if waits else 0,
    }
    about = {
        "command": list(command),
        "exe": "/srv/shop",
        "go_version": "go1.27.3",
        "build_id": "x/y",
        "exe_bytes": 1 << 20,
    }
    return {
        "schema": SCHEMA,
        "tool": "0.2.0",
        "time": "2026-11-29T12:00:00.000000000Z",
        "complete": True,
        "cut_off": None,
        "plan": plan,
        "host": {**HOST, **(host or {})},
        "versions": [{"name": name, **about} for name in versions],
        "runs": found,
    }


def _run(
    name: str,
    round_: int,
    order: int,
    metrics: dict[str, float],
    waits: dict[str, int] | None,
    random: np.random.Generator,
    requests: int,
) -> dict[str, Any]:
    values, counts = np.unique(random.lognormal(13, 0.5, requests).astype(np.int64) // 1000 * 1000, return_counts=True)
    longest = []
    if waits:
        assert set(waits) <= set(CLASSES)
        longest.append(
            {
                "type": "explained",
                "time": "2026-11-29T12:00:01.250000000Z",
                "reason": "GC sweep termination",
                "total_ns": sum(waits.values()),
                "length_ns": sum(waits.values()),
                "cause": max(waits, key=lambda kind: waits[kind]),
                "sentence": "it waited",
                "parts": {"stopping": waits, "stopped": {}, "restart": {}},
            }
        )
    return {
        "version": name,
        "round": round_,
        "order": order,
        "time": "2026-11-29T12:00:00.000000000Z",
        "length_ns": 2 * 10**9,
        "valid": True,
        "reasons": [],
        "notes": [],
        "metrics": metrics,
        "load": {
            "tool": "wrk",
            "version": "4.1.0",
            "requests": requests,
            "answered": requests,
            "errors": {},
            "histogram": {"value_ns": values.tolist(), "count": counts.tolist()},
            "percentiles_ns": {},
        },
        "lost": 0,
        "cost": {"probe_hits": 1000, "target_ns_estimate": 10**6, "tool_cpu_s": 0.2, "tool_rss_bytes": 1 << 26},
        "yardstick": [100_000.0 - order, 100_000.0],
        "longest": longest,
        "recording": "runs/0000.gotrace",
    }

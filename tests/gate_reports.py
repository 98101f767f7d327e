"""Reports of baselines whose truth is known, as `gotrace baseline` would write them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gotrace.lab.report import SCHEMA

VALUES = {"throughput": 12_000, "latency.p50": 400_000, "latency.p99": 5e6, "stw.total.p99": 3e5, "stw.total.max": 2e6}
VALUES |= {"gc.cpu_share": 0.08, "rss.peak": 5e7, "rss.mean": 4e7, "rss.growth": 100.0, "errors.share": 0.0}
EXACT = {"alloc.per_request": 6e4}  # in every run

_HOST = {
    "host_class": "x",
    "architecture": "x86_64",
    "cpu": "a CPU",
    "cpus": 4,
    "cores": 4,
    "kernel": "6.12",
    "page_bytes": 4096,
    "memory_bytes": 1 << 33,
    "numa_nodes": 1,
    **dict.fromkeys(("governor", "boost", "huge_pages", "hypervisor", "provider", "instance")),
    "cgroup_version": 2,
    "quota_cpus": None,
}


def report(versions: dict[str, dict[str, float]], runs: int = 10, spread: float = 0.02, seed: int = 1) -> dict[str, Any]:
    """Of versions whose metrics are those of `VALUES` times a factor; all of a run vary together and each by itself."""
    random = np.random.default_rng(seed)
    found = []
    for round_ in range(runs):
        drift = random.normal(0, 0.05)
        for name, factors in versions.items():
            noise = {metric: np.exp(drift + random.normal(0, spread)) for metric in VALUES}
            metrics = {metric: float(value * factors.get(metric, 1) * noise[metric]) for metric, value in VALUES.items()}
            metrics |= {metric: value * factors.get(metric, 1) for metric, value in EXACT.items()}
            found.append(run(name, round_, len(found), metrics))
    named = [
        {"name": name, "command": ["./s"], "exe": "/srv/s", "go_version": "go1.27.3", "build_id": "b", "exe_bytes": 9}
        for name in versions
    ]
    plan = {"load": ["wrk"], "runs": runs, "warmup_ns": 0, "cpus": [], "load_cpus": [], "explained": 0}
    return {
        "schema": SCHEMA,
        "tool": "0.2.0",
        "time": "2026-11-29T12:00:00Z",
        "complete": True,
        "cut_off": None,
        "plan": plan,
        "host": dict(_HOST),
        "versions": named,
        "runs": found,
    }


def run(version: str, round_: int, order: int, metrics: dict[str, float]) -> dict[str, Any]:
    """One that counts."""
    return {
        "version": version,
        "round": round_,
        "order": order,
        "time": "2026-11-29T12:00:00Z",
        "length_ns": 10**10,
        "valid": True,
        "reasons": [],
        "notes": [],
        "metrics": metrics,
        "load": {"tool": "wrk", "version": "4.1.0"},
        "lost": 0,
        "cost": {},
        "yardstick": [1.0, 1.0],
        "longest": [],
        "recording": f"runs/{order:04d}.gotrace",
    }

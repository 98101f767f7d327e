"""A run of `gotrace datapath` whose numbers are chosen."""

from __future__ import annotations

from typing import Any

import numpy as np

from gotrace.analysis.histogram import Histogram
from gotrace.export.datapath_page import Drawing

MS = 1_000_000
TIME = "2026-01-02T03:04:05.000000000Z"


def row(name: str, total_ns: int = 40 * MS, calls: int = 1234) -> dict[str, Any]:
    """3/4 of its time is metadata, 1/5 data; a quarter of its reads are cold."""
    return {
        "name": name,
        "resolved": None,
        "calls": calls,
        "errors": 3,
        "not_found": 3,
        "bytes": 1 << 20,
        "total_ns": total_ns,
        "metadata_calls": 1000,
        "metadata_ns": total_ns * 3 // 4,
        "other_calls": 4,
        "other_ns": total_ns // 20,
        "server_ns": total_ns // 2,
        "requests": 9,
        "latency": {"count": calls, "p50_ns": 1000, "p90_ns": 1500, "p99_ns": 2000, "p99.9_ns": 2500, "max_ns": 3000},
        "cache": {"warm": 2, "cold": 1, "direct": 1},
    }


def lengths(*took_ns: int) -> Histogram:
    found = Histogram()
    found.record(np.array(took_ns, np.int64))
    return found


def drawing(name: str = "/data/a") -> Drawing:
    """Explained; ``name`` is that of a file."""
    call = {"type": "datapath_call", "time": TIME, "process": 10, "tid": 11, "call": "openat", "path": name}
    call |= {
        "metadata": True,
        "duration_ns": 9 * MS,
        "server_ns": 0,
        "result": 3,
        "error": None,
        "pages": 0,
        "stack": ["read", "main"],
    }
    epoch = {"time": TIME, "length_ns": 1000 * MS, "threads": 2, "calls": 1234, "metadata_share": 0.015, "most_share": 0.03}
    explained = {
        "threads": [{"process": 10, "tid": 11, "wall_ns": 1000 * MS, "metadata_ns": 30 * MS, "data_ns": 8 * MS}],
        "epochs": [{**epoch, "metadata_ns": 30 * MS, "data_ns": 8 * MS}],
        "storms": [{"path": "/data/lib", "not_found": 3, "names": 2, "total_ns": MS}],
        "slowest": [call],
        "advice": ["Do less."],
    }
    result = {
        "type": "datapath",
        "target": "it",
        "watched_ns": 1000 * MS,
        "lost": 7,
        "processes": 1,
        "threads": 2,
        "all": row("all"),
        "by": "call",
        "rows": [row("openat"), row("read", 20 * MS)],
        "more_rows": 2,
        "errors": [{"error": "ENOENT", "count": 3}],
        "in_progress": [{"process": 10, "tid": 12, "call": "read", "path": "/slow", "lasted_ns": 2000 * MS}],
        "nfs": [],
        "not_covered": [{"what": "io_uring", "why": "no such tracepoint"}],
        "explained": explained,
    }
    took = {"metadata": lengths(1000, 1000, 1000, 1_500_000, 1_500_000), "data": lengths(5000, 5000)}
    return Drawing(
        result,
        {"dir": ([row("/data")], 0), "file": ([row(name)], 0)},
        took,
        [call],
        lambda: [*result["rows"], row(name, 10 * MS)],
    )

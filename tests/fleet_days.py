"""Fleets over many days for tests, written as `fleet add` does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gotrace.fleet.store import adding

DAY_NS = 86_400 * 10**9
FIRST = int(datetime(2026, 8, 1, tzinfo=timezone.utc).timestamp()) * 10**9
MACHINE = {
    "provider": "aws",
    "instance": "c7g.xlarge",
    "architecture": "aarch64",
    "cpu": "Neoverse-V1",
    "cpus": 4,
    "cores": 4,
    "kernel": "6.1.0",
    "page_bytes": 4096,
    "huge_pages": "madvise",
}


class Days:
    """Rows of a fleet: machines, and runs of them with their metrics."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Mapping[str, Any]]] = {"host": [], "run": [], "value": []}
        self._known: set[tuple[str, str]] = set()

    def run(
        self,
        host: str,
        day: float,
        metrics: Mapping[str, float],
        *,
        machine: Mapping[str, Any] = MACHINE,
        service: str = "shop",
        version: str = "v1",
        **of_run: Any,
    ) -> None:
        """``day`` counts from `FIRST`, and may be a fraction."""
        start = FIRST + round(day * DAY_NS)
        fingerprint = f"{abs(hash(tuple(sorted(machine.items(), key=str)))):x}"[:12]
        if (host, fingerprint) not in self._known:
            self._known.add((host, fingerprint))
            row = {"host": host, "fingerprint": fingerprint, "seen_ns": start, "source": "test", **machine}
            self.rows["host"].append(row)
        of = {"host": host, "fingerprint": fingerprint, "service": service, "version": version, "source": "test"}
        name = f"{host}-{start}-{of_run.get('plan', '')}-{service}"
        run = {"go_version": "go1.26.1", "valid": True, "length_ns": 30 * 10**9, **of_run}
        self.rows["run"].append({**of, "run": name, "start_ns": start, **run})
        self.rows["value"] += [
            {**of, "run": name, "start_ns": start, "metric": metric, "value": float(value)}
            for metric, value in metrics.items()
        ]

    def write(self, folder: Path, **more: list[Mapping[str, Any]]) -> str:
        """Into a fleet's folder, whose path it returns; ``more`` are rows of other tables."""
        with adding(str(folder)) as addition:
            for table, rows in {**self.rows, **more}.items():
                addition.add(table, rows)
        return str(folder)

"""What measuring takes from a service under load: its throughput with `gotrace baseline`'s probes, and without.

In one process, window by window in random order, against windows beside a process that wakes as often and does nothing:
waking CPUs changes a program's speed by itself.
"""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from turns import in_turns

import targets
from gotrace.analysis.stats.ranks import shift_of_pairs
from gotrace.lab import load, measure, service
from gotrace.run.target import POLL_NS

ROUNDS, SECONDS = 7, 6
CONTROL = f"import time\nwhile True: time.sleep({POLL_NS / 1e9})"


def run() -> dict[str, Any]:
    """The share of its requests per second that each costs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [str(targets.build("shop")), "-port", str(port)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready = load.prepare(load.parse_load(f"wrk -t1 -c4 -d{SECONDS}s http://127.0.0.1:{port}/ping"), folder)
        with service.started(command, service.Ready("127.0.0.1", port), folder / "log") as running:
            rates = _rates(ready, running.pid, folder / "run.gotrace")
    plain = sorted(rates["plain"])[ROUNDS // 2]
    ours, control = _lost(rates["plain"], rates["ours"]), _lost(rates["plain"], rates["control"])
    ends = [f"{low:.1f} to {high:.1f}" for _, low, high in (ours, control)]
    return {
        "name": "baseline_cost",
        "ratio": max(0.0, ours[0]) / max(control[0], 0.1),
        "ours": ours[0],
        "theirs": control[0],
        "unit": f"% of {plain:,.0f} requests/s lost (95 % intervals: {ends[0]} and {ends[1]})",
        "detail": {name: [round(rate) for rate in each] for name, each in rates.items()},
    }


def _lost(plain: list[float], other: list[float]) -> tuple[float, float, float]:
    """In percent, with its exact 95 % interval: of neighbours."""
    ratios = [math.log(after / before) for before, after in zip(plain, other, strict=True)]
    found = shift_of_pairs(ratios)
    value, high, low = (-100 * math.expm1(each) for each in (found.value, found.low, found.high))
    return value, low, high


def _rates(ready: load.Ready, pid: int, recording: Path) -> dict[str, list[float]]:
    """Requests per second of each window; those of one place in the lists were neighbours."""

    def plain() -> float:
        return load.finish(ready, load.start(ready).wait()).throughput

    def control() -> float:
        with subprocess.Popen([sys.executable, "-c", CONTROL]) as process:
            try:
                return plain()
            finally:
                process.kill()

    def ours() -> float:
        recording.unlink(missing_ok=True)
        return load.finish(ready, measure.watch(pid, lambda: load.start(ready), recording).load_status).throughput

    plain()  # past the program's own start
    return in_turns({"plain": plain, "control": control, "ours": ours}, ROUNDS)


if __name__ == "__main__":
    print(run())

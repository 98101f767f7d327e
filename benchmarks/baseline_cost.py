"""What measuring takes from a service under load: its throughput with `gotrace baseline`'s probes, and without.

In one process, window by window in random order, against windows beside a process that wakes as often and does nothing:
waking CPUs changes a program's speed by itself.
"""

from __future__ import annotations

import math
import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import targets
from gotrace.analysis.stats.ranks import shift_of_pairs
from gotrace.lab import load, measure, service
from gotrace.run.target import POLL_NS

ROUNDS, SECONDS = 15, 2
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
    lost = {
        name: shift_of_pairs([_lost(*pair) for pair in zip(rates["plain"], of, strict=True)]) for name, of in rates.items()
    }
    ours, control = lost["ours"], lost["control"]
    ends = [f"{each.low:.1f} to {each.high:.1f}" for each in (ours, control)]
    unit = f"% of {plain:,.0f} requests/s lost (95 % intervals: {ends[0]} and {ends[1]})"
    ratio = max(0.0, ours.value) / max(control.value, 0.1)
    return {
        "name": "baseline_cost",
        "ratio": ratio,
        "ours": ours.value,
        "theirs": control.value,
        "unit": unit,
        "detail": rates,
    }


def _lost(plain: float, other: float) -> float:
    return -100 * math.log(other / plain)


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
        return load.finish(ready, measure.watch(pid, lambda: load.start(ready), recording).load_status).throughput

    ways = {"plain": plain, "control": control, "ours": ours}
    found: dict[str, list[float]] = {name: [] for name in ways}
    plain()  # past the program's own start
    shuffled = random.Random(1)
    for _ in range(ROUNDS):
        for name in shuffled.sample(list(ways), len(ways)):
            found[name].append(ways[name]())
    return found


if __name__ == "__main__":
    print(run())

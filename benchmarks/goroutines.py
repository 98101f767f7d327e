"""A dump of every goroutine, against the one that the program makes of itself, for which the world is stopped."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from peers import running, target

from gotrace.export.goroutine_text import blocks
from gotrace.kernel.process import Process
from gotrace.records.goroutines import goroutines_record
from gotrace.runtime.goroutines import GoroutineReader

GOTRACE = str(Path(__file__).parent.parent / "scripts" / "gotrace")
MANY, SOME, ROUNDS, SECONDS = 100_000, 2_000, 5, 3.0


def run() -> list[dict[str, Any]]:
    """How long a large one takes; and what two a second take from a program whose goroutines are handed about."""
    return [_dump(), _cost()]


def _ask(process: subprocess.Popen[str]) -> dict[str, int]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    found: dict[str, int] = json.loads(process.stdout.readline())
    return found


def _dump() -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file, target("waiters", "-count", str(MANY), "-text", file.name) as process:
        _ask(process)
        theirs = _ask(process)["took_ns"] / 1e6
        with Process.open(process.pid) as opened:
            reader = GoroutineReader(opened)
            times = []
            for _ in range(ROUNDS):
                begin = time.monotonic()
                count = sum(1 for _ in blocks(goroutines_record(reader.dump(), reader)))
                times.append((time.monotonic() - begin) * 1000)
            assert count >= MANY
    ours = statistics.median(times)
    unit = f"ms for {MANY:,} goroutines as text (the program's own stops its world meanwhile)"
    return {"name": "goroutines_dump", "ratio": ours / theirs, "ours": ours, "theirs": theirs, "unit": unit}


def _cost() -> dict[str, Any]:
    plain, ours, theirs = (statistics.median(column) for column in zip(*(_rates() for _ in range(ROUNDS)), strict=True))
    lost, own = (max(0.0, 1 - rate / plain) * 100 for rate in (ours, theirs))
    unit = f"% of {plain:,.0f} hand-overs/s lost by two dumps of {SOME:,} goroutines a second (the program's own)"
    return {"name": "goroutines_cost", "ratio": lost / max(own, 0.1), "ours": lost, "theirs": own, "unit": unit}


def _rates() -> tuple[float, float, float]:
    command = [GOTRACE, "goroutines", "-d", "60s", "-i", "500ms"]
    return _rate(), _rate(command), _rate(None, "-itself", "500ms")


def _rate(command: list[str] | None = None, *arguments: str) -> float:
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(target("waiters", "-count", str(SOME), "-churn", "2", *arguments))
        _ask(process)
        if command is not None:
            stack.enter_context(running([*command, "--pid", str(process.pid)]))
            time.sleep(1.5)  # past the tool's own start
        before = _ask(process)
        time.sleep(SECONDS)
        after = _ask(process)
    return (after["handed"] - before["handed"]) / (after["elapsed_ns"] - before["elapsed_ns"]) * 1e9

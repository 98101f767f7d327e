"""Reading what `perf script` prints: our parser against the plain one of flame graph scripts, a line at a time.

The baseline is the logic of stackcollapse-perf.pl (https://github.com/brendangregg/FlameGraph) in Python: one regular
expression for a sample's first line, one for a line of its callchain, an empty line for its end. It is the same for both
sides what they give back: every sample with its names, numbers and functions. Where perf is there, the time that `perf
script` itself takes with a handler in Python (one call a sample, which perf makes objects for) is told too; it reads the
binary file and looks up the symbols meanwhile, so it is no rival, but what the text saves.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gotrace.recording.perf_script import PerfScript

LINES = 1_500_000
FUNCTIONS = 4_000
STACKS = 3_000  # distinct ones: about what some minutes of a Go service have
ROUNDS = 3  # of both, the median

_HEAD = re.compile(r"^(\S.*?)\s+(?:(\d+)/)?(-?\d+)\s+(?:\[(\d+)\]\s+)?(\d+)\.(\d+):\s+(?:(\d+)\s+)?(\S+?):(?:\s+(.*))?$")
_LINE = re.compile(r"^\s*(\w+)\s+(.+?)(?:\+0x[0-9a-f]+)? \((\S*)\)$")


def script(path: Path) -> int:
    """Made-up output of `perf script`, samples of 8 to 40 functions; returns how many there are."""
    draw = np.random.default_rng(20231114)
    lines = [
        f"\tffffffff{draw.integers(1 << 31, 1 << 32):08x} kernel_function_{number}+0x{number:x} ([kernel.kallsyms])\n"
        if number % 5 == 0
        else f"\t{draw.integers(0x400000, 0x900000):16x} main.(*Type{number}).method{number}+0x{number:x} (/srv/service)\n"
        for number in range(FUNCTIONS)
    ]
    chains = ["".join(lines[at] for at in draw.integers(0, FUNCTIONS, draw.integers(8, 41))) for _ in range(STACKS)]
    # a few stacks are most of the samples
    chosen = np.minimum(draw.zipf(1.2, LINES), STACKS) - 1
    total, samples = 0, 0
    with open(path, "w") as file:
        for number in chosen.tolist():
            chain = chains[number]
            micros = 1_000_000 + 1003 * samples
            file.write(
                f"service {4711 + samples % 16} [{samples % 8:03d}] {micros // 1_000_000:5d}.{micros % 1_000_000:06d}: "
                f"   {1001001 + samples % 977} cpu-clock: \n{chain}\n"
            )
            total += chain.count("\n") + 2
            samples += 1
            if total >= LINES:
                return samples
    raise AssertionError("too few samples were drawn")


def ours(path: Path) -> tuple[int, int, int]:
    """(samples, functions on their stacks, sum of the periods)."""
    samples = functions = periods = 0
    with open(path, "rb") as file:
        for batch in PerfScript(file).batches():
            for sample in batch:
                samples += 1
                functions += len(sample.frames)
                periods += sample.period or 0
    return samples, functions, periods


def plain(path: Path) -> tuple[int, int, int]:
    """The same, as stackcollapse-perf.pl would do it."""
    samples = functions = periods = 0
    stack: list[tuple[str, str]] = []
    head = None
    with open(path) as file:
        for line in file:
            line = line.rstrip("\n")
            if not line:
                if head is not None:
                    samples += 1
                    functions += len(stack)
                    periods += int(head[7] or 0)
                head, stack = None, []
            elif found := _LINE.match(line):
                stack.append((found[2], found[3]))
            elif found := _HEAD.match(line):
                head = found
    return samples, functions, periods


_HANDLER = """
count = 0
def process_event(event):
    global count
    count += len(event.get("callchain") or ())
def trace_end():
    print(count)
"""


def perf_python() -> float | None:
    """Lines a second of perf's own Python handler over a real recording; None where perf cannot do it."""
    with tempfile.TemporaryDirectory() as folder:
        data, handler = os.path.join(folder, "perf.data"), os.path.join(folder, "handler.py")
        Path(handler).write_text(_HANDLER)
        load = [sys.executable, "-c", "x = 0\nfor i in range(20_000_000): x += i"]
        try:
            done = subprocess.run(["perf", "record", "-q", "-o", data, "-F", "5000", "-g", *load], capture_output=True)
            if done.returncode:
                return None
            lines = subprocess.run(["perf", "script", "-i", data], capture_output=True).stdout.count(b"\n")
            begin = time.perf_counter()
            done = subprocess.run(["perf", "script", "-i", data, "-s", handler], capture_output=True)
        except FileNotFoundError:
            return None
        seconds = time.perf_counter() - begin
        return lines / seconds if done.returncode == 0 and done.stdout.strip() else None


def run() -> dict[str, object]:
    """Both sides over the same text; what they found is compared."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "perf-script.txt"
        samples = script(path)
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            found = {}
            for name, parse in (("ours", ours), ("theirs", plain)):
                begin = time.perf_counter()
                found[name] = parse(path)
                times[name].append(time.perf_counter() - begin)
            if found["ours"] != found["theirs"] or found["ours"][0] != samples:
                raise AssertionError(f"the two parsers differ: {found}")
        with open(path, "rb") as file:
            lines = file.read().count(b"\n")
    mine, plain_one = (statistics.median(times[name]) / lines * 1e6 for name in ("ours", "theirs"))
    result: dict[str, object] = {
        "name": "perf_parse",
        "ours": round(mine, 4),
        "theirs": round(plain_one, 4),
        "unit": "s per million lines",
        "ratio": round(mine / plain_one, 4),
    }
    handler = perf_python()
    if handler is not None:
        result["perf_python"] = round(1e6 / handler, 4)
    return result


if __name__ == "__main__":
    print(json.dumps(run()))

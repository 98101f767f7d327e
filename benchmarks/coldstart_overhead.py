"""What tracing a start adds to it: `gotrace coldstart` against bpftrace at the functions that begin where our rows do."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import targets
from gotrace.binary import startup
from gotrace.binary.program import GoProgram

ROUNDS, RUNS = 8, 5
FUNCTIONS = ("runtime.main", "runtime.gcenable", "runtime.doInit1", "main.main")
GC_FUNCTIONS = ("runtime.gcStart", "runtime.gcBgMarkStartWorkers", "runtime.prepareFreeWorkbufs")


def run() -> dict[str, Any]:
    """Each on a copy of the program, for probes belong to a file; from the spawn to main by the program's own clock."""
    source = targets.build("hello", targets.NEWEST, "default")
    took: dict[str, list[float]] = {"plain": [], "gotrace": [], "bpftrace": []}
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        copies = {name: Path(shutil.copy(source, Path(folder) / name)) for name in took}
        tracers = {"plain": contextlib.nullcontext, "gotrace": _gotrace, "bpftrace": _bpftrace}
        for _ in range(ROUNDS):
            for name, copy in copies.items():
                with tracers[name](copy):  # type: ignore[operator]
                    _start_us(copy)
                    took[name] += [_start_us(copy) for _ in range(RUNS)]
    plain = statistics.median(took["plain"])
    ours, theirs = (statistics.median(took[name]) - plain for name in ("gotrace", "bpftrace"))
    return {
        "name": "coldstart_overhead",
        "ratio": max(ours, 0.0) / theirs,
        "ours": ours,
        "theirs": theirs,
        "unit": f"us added to a start of {plain:.0f} us, medians of {ROUNDS * RUNS}",
    }


def _start_us(program: Path) -> float:
    begin = time.monotonic_ns()
    # as `gotrace coldstart` starts it: by vfork, for a fork of this process would cost more than what is measured
    done = subprocess.run([program], stderr=subprocess.PIPE, check=True, close_fds=False, cwd="/")
    return (int(done.stderr) - begin) / 1000


@contextlib.contextmanager
def _gotrace(program: Path) -> Iterator[None]:
    command = [str(Path(__file__).parent.parent / "scripts" / "gotrace"), "coldstart", "--exe", str(program)]
    with subprocess.Popen(
        [*command, "-n", "1000", "--until", "main"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        if not line.startswith("Waiting for"):
            raise SystemExit(f"gotrace did not attach: {line}{process.stderr.read()}")
        yield
        process.terminate()


@contextlib.contextmanager
def _bpftrace(program: Path) -> Iterator[None]:
    """bpftrace at the entries of every function that begins at one of our boundaries."""
    with GoProgram.open(program) as opened:
        names = [name for name, _ in startup.bootstrap_steps(opened)]
        known = {name for name in (*names, *FUNCTIONS, *GC_FUNCTIONS) if opened.pclntab.function(name)}
    probes = [f'uprobe:{program}:"{name}" {{ printf("%llu %s\\n", nsecs, probe); }}' for name in sorted(known)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(["bpftrace", "-e", "\n".join(probes)], stdout=output, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 30
            while b"main.main" not in os.pread(output.fileno(), 1 << 20, 0):
                if time.monotonic() > end:
                    raise SystemExit(f"bpftrace did not attach: {os.pread(output.fileno(), 4096, 0).decode()}")
                _start_us(program)
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait()

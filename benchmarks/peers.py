"""The other side of the comparisons: bpftrace with uprobes on the functions that `gotrace gc` watches."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from symbol_lookup import large_program

import targets
from gotrace.binary.program import GoProgram
from gotrace.probes import gc, tail

# as many as gotrace watches and no more; the exit of startTheWorldWithSema is left out, for a uretprobe kills Go programs
FUNCTIONS = ("stopTheWorldWithSema", "startTheWorldWithSema", "prepareFreeWorkbufs", "bgsweep")
TAIL_FUNCTIONS = (*FUNCTIONS, "gcstopm", "handoffp")


def bpftrace_command(executable: Path, pid: int, script: str = "gc.bt") -> list[str]:
    """bpftrace with a script of this folder on ``executable``."""
    if shutil.which("bpftrace") is None:
        raise SystemExit("benchmarks compare with bpftrace: apt-get install bpftrace")
    text = (Path(__file__).parent / script).read_text().replace("EXE", str(executable)).replace("PID", str(pid))
    if targets.HOST_ARCH == "arm64":
        text = text.replace('reg("ax")', 'reg("r0")')
    return ["bpftrace", "-p", str(pid), "-e", text]


def gotrace_command(pid: int, *options: str) -> list[str]:
    """gotrace as it is run from a checkout."""
    command = str(Path(__file__).parent.parent / "scripts" / "gotrace")
    return [command, "gc", "--pid", str(pid), *options]


@contextlib.contextmanager
def target(program: str | Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """An unstripped Go program (bpftrace needs its symbols), killed at the end."""
    path = targets.build(program, targets.NEWEST, "default") if isinstance(program, str) else program
    environment = {**os.environ, **(env or {})}
    process = subprocess.Popen(
        [path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def running(command: list[str], begun: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A tool, interrupted at the end; once it has written ``begun``: what a start takes is not what watching takes."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 30
            while begun.encode() not in os.pread(output.fileno(), 1 << 16, 0):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"{command[0]} has not begun: it has not written {begun!r}")
                time.sleep(0.05)
            yield process
        finally:
            _interrupt(process)


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    # A tool that only just began may have no handler yet.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def addresses(executable: Path, explain: bool = False) -> dict[str, list[int]]:
    """Where each tool puts its breakpoints."""
    with GoProgram.open(executable) as program:
        plans = [gc.plan(program), *([tail.plan(program)] if explain else [])]
        ours = [point.address for plan in plans for point in plan.points]
        names = TAIL_FUNCTIONS if explain else FUNCTIONS
        theirs = [program.pclntab.function(f"runtime.{name}") for name in names]
        return {"gotrace": ours, "bpftrace": [function.entry for function in theirs if function]}


def wait_attached(pid: int, places: list[int], seconds: float = 20) -> None:
    """Until every breakpoint is in the target's memory, seen from outside of both tools."""
    end = time.monotonic() + seconds
    breakpoint_byte = b"\xcc" if targets.HOST_ARCH == "amd64" else b"\x05"  # int3; the low byte of brk #5
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        while time.monotonic() < end:
            if all(os.pread(memory.fileno(), 1, place) == breakpoint_byte for place in places):
                return
            time.sleep(0.0005)
    raise SystemExit("a tool did not attach")


def ready_time() -> dict[str, Any]:
    """From the command's start to the moment when its last breakpoint is in a busy target of a large service's size."""
    ours, theirs = _ready_ms(large_program())
    small = _ready_ms("service", "-duration", "300s")
    return {
        "name": "ready_time",
        "ratio": ours / theirs,
        "ours": ours,
        "theirs": theirs,
        "unit": f"ms, median, 50 MB target (10 MB target: {small[0]:.0f} and {small[1]:.0f})",
        "small_target": {"ours": small[0], "theirs": small[1]},
    }


def _ready_ms(program: str | Path, *arguments: str, rounds: int = 12) -> tuple[float, float]:
    with target(program, *arguments) as process:
        executable = Path(os.readlink(f"/proc/{process.pid}/exe"))
        places = addresses(executable)
        commands = {"gotrace": gotrace_command(process.pid), "bpftrace": bpftrace_command(executable, process.pid)}
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                begin = time.monotonic()
                with running(command):
                    wait_attached(process.pid, places[name])
                    if number:  # the first round fills the caches of both
                        seconds[name].append(time.monotonic() - begin)
                time.sleep(0.3)
    return statistics.median(seconds["gotrace"]) * 1000, statistics.median(seconds["bpftrace"]) * 1000


def tool_memory() -> dict[str, Any]:
    """Resident memory of the process that stays, after two seconds of the same job."""
    with target("gcload", "-seconds", "300") as process:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        executable = Path(os.readlink(f"/proc/{process.pid}/exe"))
        places = addresses(executable)
        commands = {"gotrace": gotrace_command(process.pid), "bpftrace": bpftrace_command(executable, process.pid)}
        resident = {}
        for name, command in commands.items():
            with running(command) as tool:
                wait_attached(process.pid, places[name])
                time.sleep(2)
                status = Path(f"/proc/{tool.pid}/status").read_text()
                resident[name] = int(status.split("VmRSS:")[1].split()[0]) / 1024
    ours, theirs = resident["gotrace"], resident["bpftrace"]
    return {"name": "tool_memory", "ratio": ours / theirs, "ours": ours, "theirs": theirs, "unit": "MiB resident"}


def _load(tool: str, seconds: float, explain: bool = False) -> tuple[float, float, list[int]]:
    """(allocations per second, collections per second, PauseNs) of a heavy load under ``tool`` ("" for none).

    With ``explain`` the tools collect what tells why a pause was long.

    The load has one P, so that a machine with two CPUs has one left for the tool: what is measured is the probes, not
    two programs that fight for a CPU.
    """
    arguments = ("-seconds", str(seconds), "-live", "1", "-percent", "100")
    with target("gcload", *arguments, env={"GOMAXPROCS": "1"}) as process:
        executable = Path(os.readlink(f"/proc/{process.pid}/exe"))
        with contextlib.ExitStack() as stack:
            if tool:
                if tool == "gotrace":
                    command = gotrace_command(process.pid, *(["--explain"] if explain else []))
                else:
                    command = bpftrace_command(executable, process.pid, "tail.bt" if explain else "gc.bt")
                stack.enter_context(running(command))
                wait_attached(process.pid, addresses(executable, explain)[tool])
                time.sleep(1.0)  # past the tool's own start
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            truth = json.loads(process.stdout.readline())
    elapsed = truth["ElapsedNs"] / 1e9
    return truth["Operations"] / elapsed, truth["NumGC"] / elapsed, [ns for ns in truth["PauseNs"] if ns]


def slowdown_and_inflation(rounds: int = 9, seconds: float = 2.0) -> list[dict[str, Any]]:
    """What each tool costs an allocation-heavy program, and what it adds to its pauses; rounds take turns."""
    tools = ("", "gotrace", "bpftrace")
    speed: dict[str, list[float]] = {tool: [] for tool in tools}
    rate: list[float] = []
    pauses: dict[str, list[int]] = {tool: [] for tool in tools}
    for _ in range(rounds):
        for tool in tools:
            operations, collections, pause_ns = _load(tool, seconds)
            speed[tool].append(operations)
            pauses[tool] += pause_ns
            if not tool:
                rate.append(collections)
    plain = statistics.median(speed[""])
    ours, theirs = (plain / statistics.median(speed[tool]) - 1 for tool in ("gotrace", "bpftrace"))
    slowdown = {
        "name": "target_slowdown",
        "ratio": max(ours, 0.0) / theirs,
        "ours": ours * 100,
        "theirs": theirs * 100,
        "unit": f"% fewer allocations/s, at {statistics.median(rate):.0f} GC/s",
    }
    added = {}
    for name, quantile in (("p50", 0.5), ("p99", 0.99)):
        of = {tool: _quantile(values, quantile) for tool, values in pauses.items()}
        added[name] = [(of[tool] - of[""]) / 1000 for tool in ("gotrace", "bpftrace")]
    inflation = {
        "name": "pause_inflation",
        "ratio": added["p50"][0] / added["p50"][1],
        "ours": added["p50"][0],
        "theirs": added["p50"][1],
        "unit": f"us added to a cycle's pauses, p50 (p99: {added['p99'][0]:.1f} and {added['p99'][1]:.1f})",
        "p99": {"ours": added["p99"][0], "theirs": added["p99"][1]},
    }
    return [slowdown, inflation]


def tail_overhead(rounds: int = 7, seconds: float = 2.0) -> dict[str, Any]:
    """What it costs the same program to have its pauses explained: at a pace of collections that shows above the noise."""
    tools = ("", "gotrace", "bpftrace")
    speed: dict[str, list[float]] = {tool: [] for tool in tools}
    rate = []
    for _ in range(rounds):
        for tool in tools:
            operations, collections, _ = _load(tool, seconds, explain=True)
            speed[tool].append(operations)
            if not tool:
                rate.append(collections)
    plain = statistics.median(speed[""])
    ours, theirs = (plain / statistics.median(speed[tool]) - 1 for tool in ("gotrace", "bpftrace"))
    return {
        "name": "tail_overhead",
        "ratio": max(ours, 0.0) / theirs,
        "ours": ours * 100,
        "theirs": theirs * 100,
        "unit": f"% fewer allocations/s, at {statistics.median(rate):.0f} GC/s",
    }


def _quantile(values: list[int], quantile: float) -> float:
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(quantile * len(ordered)))])

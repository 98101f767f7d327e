"""The agent with a hundred processes, and a thousand others that begin and end each minute: its memory, CPU and times."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import targets

GOTRACE = str(Path(__file__).parent.parent / "scripts" / "gotrace")
PROCESSES, EVENTS_A_SECOND, STARTS_A_MINUTE, SECONDS = 100, 3000, 1000, 40.0
EVENTS_A_CYCLE = 8
PORT = 19464
MOST_RSS, MOST_CPU, MOST_DETACH_S = 50e6, 0.03, 1.5


def run() -> list[dict[str, Any]]:
    """Its largest resident memory, the share of a CPU that it takes, and how long it takes to leave all alone."""
    every_ms = 1000 * EVENTS_A_CYCLE * PROCESSES // EVENTS_A_SECOND
    arguments = ["-forced", "-every", f"{every_ms}ms", "-seconds", "600", "-live", "1"]
    versions = [version for version in targets.MATRIX if version >= "1.19"]
    programs = [targets.build("gcload", version) for version in versions]
    with contextlib.ExitStack() as stack:
        started = [
            subprocess.Popen(
                [programs[number % len(programs)], *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            for number in range(PROCESSES)
        ]
        stack.callback(lambda: [each.kill() for each in started])
        subprocess.run([GOTRACE, "serve", "--prepare"], check=True)
        # A hundred processes that share two CPUs cannot collect that often and work enough for the rule.
        settings = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".yaml"))
        settings.write("schema: gotrace.agent/1\ncost_percent: 100\n")
        settings.flush()
        command = [
            GOTRACE,
            "serve",
            "-f",
            settings.name,
            "--select",
            "name=gcload",
            "--min-age",
            "0s",
            "--listen",
            f"127.0.0.1:{PORT}",
        ]
        agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stack.callback(agent.kill)
        begin = time.monotonic()
        while _traced() < PROCESSES:
            time.sleep(0.2)
        attached_s = time.monotonic() - begin
        for each in started:
            assert each.stdin is not None
            each.stdin.write(b"\n")
            each.stdin.flush()
        time.sleep(5)
        before, at, events = _cpu_s(agent.pid), time.monotonic(), _cycles()
        next_start = time.monotonic()
        while time.monotonic() - at < SECONDS:
            subprocess.run(["/bin/true"], check=True)
            next_start += 60 / STARTS_A_MINUTE
            time.sleep(max(0, next_start - time.monotonic()))
        passed = time.monotonic() - at
        share, rate = (_cpu_s(agent.pid) - before) / passed, (_cycles() - events) / passed * EVENTS_A_CYCLE
        if (traced := _traced()) != PROCESSES:
            raise AssertionError(f"{traced} of {PROCESSES} processes were traced to the end")
        rss = _peak_rss(agent.pid)
        descriptors = len(os.listdir(f"/proc/{agent.pid}/fd"))
        begin = time.monotonic()
        agent.send_signal(signal.SIGTERM)
        agent.wait()
        detached_s = time.monotonic() - begin
    about = f"{PROCESSES} processes, {rate:,.0f} events/s, {STARTS_A_MINUTE} starts a minute"
    return [
        {"name": "agent_rss", "ratio": rss / MOST_RSS, "ours": rss / 1e6, "theirs": MOST_RSS / 1e6, "unit": f"MB; {about}"},
        {
            "name": "agent_cpu",
            "ratio": share / MOST_CPU,
            "ours": 100 * share,
            "theirs": 100 * MOST_CPU,
            "unit": "% of a CPU",
        },
        {
            "name": "agent_detach",
            "ratio": detached_s / MOST_DETACH_S,
            "ours": detached_s,
            "theirs": MOST_DETACH_S,
            "unit": f"s to detach; attached in {attached_s:.1f} s, {descriptors} descriptors",
        },
    ]


def _get(path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def _traced() -> int:
    with contextlib.suppress(OSError):
        return sum(each["state"] == "traced" for each in json.loads(_get("/processes")))
    return 0


def _cycles() -> float:
    lines = _get("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("go_memory_gc_cycles_total{"))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))

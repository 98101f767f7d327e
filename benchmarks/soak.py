"""A long time of a host, compressed: 20,000 process starts under an agent that is scraped 100 times a second.

Short-lived programs; programs that are traced, stopped, killed, execute others and get the number of one that ended;
containers that are started again; 30 seconds in which the agent itself is stopped, so that its ring overflows. Afterwards
its memory and descriptors are what they were, each loss is counted, and there is no series of a process that ended.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from agents import Agent, changed
from churn import Churn, calm, named_copies

import targets
from conftest import Target, until
from groundtruth import collected
from services import image_of

STARTS, WARM_UP, AT_ONCE = 20_000, 2_000, 20
CONTAINERS, SCRAPES_A_SECOND, STOPPED_S = 10, 100, 30
CYCLES, EVENTS_A_CYCLE = 6000, 8  # while it is stopped; its ring has room for 14,563 events
MOST_GROWTH = 2 << 20


class Scrapes:
    """Requests for /metrics in a thread, so many a second on average: what the agent was late with is made up for."""

    def __init__(self, port: int) -> None:
        self.answered, self.failed, self._port = 0, 0, port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
                try:
                    while not self._ended.wait(max(0.0, due - time.monotonic())):
                        due += 1 / SCRAPES_A_SECOND
                        connection.request("GET", "/metrics")
                        answer = connection.getresponse()
                        answer.read()
                        self.answered += answer.status == 200
                        self.failed += answer.status != 200
                except (OSError, http.client.HTTPException):
                    self.failed += 1

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def run(starts: int = STARTS) -> dict[str, Any]:
    """Raises AssertionError for what is not as it should be."""
    prefix, began = f"crio-soak{os.getpid()}", time.monotonic()
    hello = str(targets.build("hello"))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loads = named_copies(folder / "loads", prefix, targets.MATRIX, "gcload")
        execers = named_copies(folder / "execers", f"{prefix}-x", (targets.MATRIX[0], targets.NEWEST), "execer")
        (lister,) = named_copies(folder / "lister", f"{prefix}-lister", (targets.NEWEST,), "lister")
        # What collects all the time to fill the ring costs too much, and is to be traced all the same.
        agent = Agent("--select", f"name={prefix}-*", "--min-age", "0s", command=changed("agent._COST_S = 1e9"))
        stack.callback(agent.process.kill)
        until(agent.is_ready, 60)
        churn = Churn(loads, execers, seed=1)
        stack.callback(churn.end)
        scrapes = Scrapes(agent.port)
        stack.callback(scrapes.end)

        def start(count: int) -> None:
            for _ in range(0, count, AT_ONCE):
                running = [
                    os.posix_spawn(hello, [hello], os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, 2)])
                    for _ in range(AT_ONCE)
                ]
                churn.step()
                for pid in running:
                    os.waitpid(pid, 0)

        def settle() -> tuple[int, int]:
            churn.end()
            until(lambda: not agent.traced(), 60)
            return calm(agent.process.pid)

        start(WARM_UP)
        _stopped(agent, lister, lambda: None, 5)  # a full ring takes its memory once
        before = settle()
        start((starts - WARM_UP) // 2)
        lost = _stopped(agent, lister, lambda: start(500), STOPPED_S)
        halfway = settle()
        restarted = _containers(loads[-1], folder)
        start((starts - WARM_UP) // 2 - 500)
        after = settle()
        took_s = time.monotonic() - began
        until(lambda: _services(agent) == {"gotrace"}, 180)  # two minutes after their last process
        attached = agent.one("gotrace_agent_attaches_total")
        assert attached == sum(agent.values("gotrace_agent_detaches_total"))
        assert not agent.values("gotrace_agent_attach_failures_total")
        scrapes.end()
        at_last = calm(agent.process.pid)
        assert max(after[1], at_last[1]) < before[1] + MOST_GROWTH and at_last[0] <= before[0], (
            before,
            halfway,
            after,
            at_last,
        )
        said = agent.finish()
        assert said == agent.head, said
    return {
        "starts": starts,
        "seconds": round(took_s),
        "traced": int(attached),
        "actions": dict(churn.done),
        "containers": restarted,
        "scrapes": scrapes.answered,
        "scrapes_failed": scrapes.failed,
        "rss_mb": [each[1] / 1e6 for each in (before, halfway, after, at_last)],
        "descriptors": [each[0] for each in (before, halfway, after, at_last)],
        **lost,
    }


def _services(agent: Agent) -> set[str | None]:
    return {dict(labels).get("service_name") for _, labels in agent.samples()}


def _stopped(agent: Agent, program: Path, meanwhile: Callable[[], None], seconds: float) -> dict[str, int]:
    """Stop the agent while a program collects more than its ring has room for: what it lost by its own count, and ours."""
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        target = Target(process, Path())
        until(lambda: target.pid in agent.traced(), 60)
        agent.process.send_signal(signal.SIGSTOP)
        end = time.monotonic() + seconds
        assert collected(target, CYCLES) == CYCLES
        meanwhile()
        time.sleep(max(0, end - time.monotonic()))
        agent.process.send_signal(signal.SIGCONT)
        until(lambda: _row(agent, target.pid)["lost"] > 0, 60)
        assert collected(target, 10) == CYCLES + 10  # and it goes on
        time.sleep(2)
        row = _row(agent, target.pid)
        missing = EVENTS_A_CYCLE * (CYCLES + 10 - row["cycles"])
        assert abs(missing - row["lost"]) <= EVENTS_A_CYCLE, (row["cycles"], row["lost"])
        return {"events_missing": missing, "events_lost": row["lost"]}
    finally:
        process.kill()
        process.wait()


def _row(agent: Agent, pid: int) -> dict[str, Any]:
    return dict(json.loads(agent.get(f"/processes?pid={pid}")))


def _containers(program: Path, folder: Path) -> int:
    """One container, again and again: 0 where there is no podman."""
    try:
        with image_of(program, folder) as (podman, name):
            for _ in range(CONTAINERS):
                command = [*podman, f"{name}:1", f"/{program.name}", "-cycles", "5"]
                subprocess.run(command, input=b"\n", check=True, capture_output=True)
    except BaseException as error:
        if "no podman" in str(error):
            return 0
        raise
    return CONTAINERS


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]) if sys.argv[1:] else STARTS), indent=1))

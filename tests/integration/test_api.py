"""`gotrace.api`, and the examples of docs/python.md as they stand there, against what the programs say themselves."""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import targets
from conftest import until
from gotrace.api import replaying, snapshot, starts, watching
from gotrace.kernel.memory import Memory
from gotrace.views.cycles import Cycles
from gotrace.views.gc import Gc
from gotrace.views.memory import Looks

pytestmark = pytest.mark.bpf

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
PAUSES, START, SNAPSHOT = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def run(code, *arguments):
    """The words of each line that an example prints."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_every_pause(start, tmp_path):
    """What two views tell of a program is what its MemStats have; a recording gives the same; nothing is left attached."""
    target = start(targets.build("gcload"), "-cycles", "200")
    path = str(tmp_path / "run.gotrace")
    with watching(Gc(), Cycles(), pid=target.pid, record=path) as records:
        target.go()
        truth = target.truth()
        threading.Timer(0.5, target.finish).start()
        told = list(records)
    pauses, live = collections.defaultdict(int), {}
    for record in told:
        if record["type"] == "stw" and record["cycle"] is not None:
            pauses[record["cycle"]] += record["total_ns"]
        elif "rss_bytes" in record:
            live[record["cycle"]] = record["heap_live_bytes"]
    last = truth["NumGC"]
    assert last >= 200
    for cycle in range(min(pauses) + 1, last + 1):
        assert pauses[cycle] == truth["PauseNs"][(cycle + 255) % 256]
    assert len(live) >= 0.99 * len(pauses)
    assert told[-1]["ended"] == "target exited" and told[-1]["events"]["lost"] == 0
    again = [record for record in replaying(path, Gc()) if record["type"] != "interval"]
    assert again == [record for record in told if record["type"] != "interval" and "rss_bytes" not in record]
    assert [record["cycle"] for record in replaying(path)] == list(live)  # for which it was made


def test_the_example_of_pauses(start):
    """Each line is a pause of the program, and those that the runtime has counted as so long are not more."""
    target = start(targets.build("gcload"), "-seconds", "300", "-live", "40", "-workers", "8")
    target.go()
    *lines, summary = run(PAUSES, target.pid)
    target.process.kill()
    assert summary[0] == "cycles:" and int(summary[1]) > 10 and summary[2:] == ["lost:", "0"]
    assert all(int(line[-1]) >= 1_000_000 for line in lines)


def test_the_example_of_a_start():
    total, *stages = run(START, targets.build("gcload"))
    assert total[2] == "main.main"
    assert [" ".join(stage[:-1]) for stage in stages][0] == "before exec"
    assert sum(int(stage[-1]) for stage in stages[1:]) <= int(total[1])


def test_the_example_of_a_snapshot(start):
    """RSS is the sum of the parts, and the kernel's."""
    target = start(targets.build("gcload"), "-idle")
    target.go()
    until(lambda: Memory(target.pid).rollup()["Rss"])
    time.sleep(0.5)
    (rss, *_), *parts = run(SNAPSHOT, target.pid)
    assert int(rss) == sum(int(part[-1]) for part in parts)
    assert int(rss) == pytest.approx(Memory(target.pid).rollup()["Rss"], rel=0.02)


def test_in_a_thread(start):
    """Signals are the main thread's own."""
    target = start(targets.build("gcload"), "-idle")
    target.go()
    found = []
    thread = threading.Thread(target=lambda: found.append(snapshot(target.pid)))
    thread.start()
    thread.join(60)
    assert found[0]["rss_bytes"] == sum(found[0]["parts"].values())


def test_a_command():
    with watching(Gc(), command=[str(targets.build("gcload")), "-cycles", "20"], duration_s=2) as records:
        told = list(records)
    assert told[0]["type"] == "start" and told[-1]["ended"] in ("duration", "target exited")


def test_what_cannot_be_meant():
    with pytest.raises(ValueError), watching(Looks(), command=["true"]):
        pass


def test_starts_are_as_the_command_tells_them(gotrace, tmp_path):
    path = str(tmp_path / "run.gotrace")
    result = starts([str(targets.build("gcload"))], runs=3, until="main", record=path)
    told = gotrace("report", path, "--format", "ndjson")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [start.total_ns for start in result.starts] == [line["total_ns"] for line in lines[:-1]]
    assert len(result.starts) == 3

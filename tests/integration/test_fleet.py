"""A real agent's spool in a fleet, by file and over HTTP: what its own metrics say, and what its pauses waited for."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

import targets
from conftest import until
from gotrace.fleet.add import add
from gotrace.fleet.collect import Bounds, collect
from gotrace.fleet.database import opened
from gotrace.fleet.machines import Told
from gotrace.kernel.machine import host

pytestmark = pytest.mark.bpf


def test_a_fleet_says_what_the_agent_exports(agent, start, tmp_path):
    name = f"fleet{os.getpid()}"
    program = Path(shutil.copy(targets.build("gcload"), tmp_path / name))
    target = start(program, "-cycles", "60", env={"GOMAXPROCS": "3"})
    spool = tmp_path / "spool"
    file = tmp_path / "agent.yaml"
    file.write_text(
        f"schema: gotrace.agent/1\nselect: ['name={name}*']\nmin_age: 0s\nspool: {spool}\nexplain_above: 10us\n"
        "explanations: 20\n"
    )
    serving = agent("-f", str(file))
    until(lambda: serving.traced() == {target.pid})
    target.go()
    target.truth()
    time.sleep(2.5)
    counts = {
        part: sum(serving.values("gotrace_stw_duration_seconds_count", service_name=name, part=part))
        for part in ("total", "stopping", "stopped")
    }
    marks = serving.one("gotrace_gc_phase_duration_seconds_count", service_name=name, phase="concurrent mark")
    lost = serving.one("gotrace_events_lost_total", service_name=name)
    (empty,) = collect(str(tmp_path / "f"), [f"http://127.0.0.1:{serving.port}"], Told(), Bounds())
    assert not empty.problem and empty.minutes == 0  # its first minute is not over
    serving.finish()
    again = agent("-f", str(file))  # another one has the spool now
    until(again.is_ready)
    (asked,) = collect(str(tmp_path / "f"), [f"http://127.0.0.1:{again.port}"], Told(), Bounds())
    assert (asked.problem, asked.minutes, asked.host) == ("", 1, os.uname().nodename) and asked.recordings
    assert all(each.skipped for each in add(str(tmp_path / "f"), [str(spool)], Told()))
    add(str(tmp_path / "g"), [str(spool)], Told())
    for folder in (tmp_path / "f", tmp_path / "g"):
        database = opened(str(folder))
        found = dict(database.rows("select metric, sum(count) from total group by 1"))
        assert {part: found[f"stw.{part}"] for part in counts} == counts and found["gc.mark"] == marks > 50
        (machine,) = database.rows("select cpu, cpus, memory_bytes, kernel, page_bytes from machine")
        here = host()
        assert machine == tuple(here[each] for each in ("cpu", "cpus", "memory_bytes", "kernel", "page_bytes"))
        (period,) = database.rows("select service, go_version, gogc, gomaxprocs, processes, lost, version from period")
        # it switches the collector off, and collects itself; the agent wrote this when it let go of the process
        assert period[:6] == (name, target_version(program), "off", 3, 0, lost) and len(period[6]) == 12
        worst = database.rows("select value_ns, cause, len(stack) from worst order by value_ns desc")
        assert len(worst) == 16 and any(cause and depth for _, cause, depth in worst)
    assert opened(str(tmp_path / "f")).rows("select * exclude (source, recording) from worst order by all") == opened(
        str(tmp_path / "g")
    ).rows("select * exclude (source, recording) from worst order by all")


def target_version(program: Path) -> str:
    from gotrace.binary.program import Program

    with Program.open(str(program)) as opened_program:
        return opened_program.go_version

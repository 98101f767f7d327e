"""The agent while programs are replaced, agents come and go, and others trace the same processes: all stays exact."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from agents import Agent, changed

import targets
from conftest import Target, until
from groundtruth import collected, collector_pauses_ns, gctrace, probed_code

pytestmark = pytest.mark.bpf

TRACED_GC = {"GODEBUG": "gctrace=1"}


def own_name(of: str) -> str:
    """As a container runtime's: who traces every process of this machine leaves it alone, and sets no breakpoints in it."""
    return f"crio-{of}-{os.getpid()}"


def check(serving: Agent, target: Target, truth: dict, before: int) -> None:
    """Cycles and pauses of a process, of which ``before`` collections were over before anybody asked for its details."""
    expected = truth["PauseNs"][before : truth["NumGC"]]
    assert len(expected) == truth["NumGC"] - before  # MemStats keeps 256
    until(lambda: collector_pauses_ns(row(serving, target)["reasons"]) >= sum(expected))
    found = row(serving, target)
    assert collector_pauses_ns(found["reasons"]) == sum(expected)
    assert (found["cycles"], found["lost"]) == (len(expected), 0)


def follow(serving: Agent, *ours: Target) -> list[int]:
    """Wait until just these are traced, and have everything about them kept: how often each had collected until then."""
    until(lambda: serving.traced() == {each.pid for each in ours}, 30)
    for each in ours:
        serving.get(f"/processes?pid={each.pid}")
    return [len(gctrace(each.stderr.read_text())) for each in ours]


@pytest.mark.parametrize("how", ["renamed over", "removed before"])
def test_a_program_that_is_replaced(how, agent, program, start, tmp_path):
    """The old file's processes, those that they start of it yet, and the new one's: each by its own only."""
    name = own_name("upgraded")
    path = program(name, "1.22.10")
    other = tmp_path / own_name("beside")
    os.link(path, other)
    old, beside = (start(each, "-cycles", "40", env=TRACED_GC) for each in (path, other))
    serving = agent("--select", f"name={name}", "--min-age", "0s", command=changed("agent._SCAN_S = 1"))
    follow(serving, old)
    assert probed_code(beside.pid, "mem") != probed_code(beside.pid, "exe")  # whoever runs that file has the breakpoints
    if how == "renamed over":
        program("new").rename(path)
    else:
        path.unlink()
        program(name)
    worker = start(Path(f"/proc/{old.pid}/exe"), "-cycles", "40", env=TRACED_GC)
    new = start(path, "-cycles", "40", env=TRACED_GC)
    ours = (old, worker, new)
    before = follow(serving, *ours)
    time.sleep(2)  # and two scans
    for each in ours:
        each.go()
    for each, count in zip(ours, before, strict=True):
        check(serving, each, each.truth(), count)
    versions = {each["pid"]: each["go_version"] for each in json.loads(serving.get("/processes"))}
    assert [versions[each.pid] for each in ours] == ["go1.22.10", "go1.22.10", f"go{targets.NEWEST}"]
    assert serving.one("gotrace_agent_attaches_total") == 3 and not serving.values("gotrace_agent_detaches_total")
    assert [old.finish(), worker.finish()] == [0, 0]
    until(lambda: probed_code(beside.pid, "mem") == probed_code(beside.pid, "exe"))
    assert serving.traced() == {new.pid} and probed_code(new.pid, "mem") != probed_code(new.pid, "exe")
    beside.go()
    assert beside.truth()["NumGC"] >= 40 and beside.finish() == new.finish() == 0
    serving.finish()


def test_a_program_that_executes_itself(agent, program, start):
    """The same file in the same process: what it was ends, and what it is now begins, and nothing is counted twice."""
    name = own_name("again")
    path = program(name, program="execer")
    target = start(path, "-cycles", "10", "-wait", str(path), "-cycles", "20", "-wait")
    serving = agent("--select", f"name={name}", "--min-age", "0s")
    for count in (10, 20):
        until(lambda: serving.traced() == {target.pid})
        target.go()
        assert target.process.stdout.readline() == f"collected {count}\n"
        if count == 10:
            until(lambda: serving.one("gotrace_agent_attaches_total") == 2)
    assert target.finish() == 0
    until(lambda: serving.values("gotrace_agent_detaches_total", reason="exited") == [1])
    assert serving.one("go_memory_gc_cycles_total", service_name=name) == 30
    assert serving.one("gotrace_events_lost_total", service_name=name) == 0
    assert serving.one("gotrace_agent_detaches_total", reason="executed another program") == 1
    serving.finish()


def test_several_who_trace_the_same(agent, program, start, trace):
    """Two agents and `gotrace gc`: all exact, also for the one that is left while one ends and one is killed."""
    name = own_name("shared")
    path = program(name)
    first, second = (start(path, "-cycles", "100", env=TRACED_GC) for _ in range(2))
    options = ("--select", f"name={name}", "--min-age", "0s")
    stays, ends = agent(*options), agent(*options)
    before = [follow(each, first, second) for each in (stays, ends)][0]
    tracer = trace("--pid", str(first.pid))
    first.go()
    truth = first.truth()
    for each in (stays, ends):
        check(each, first, truth, before[0])
    assert first.finish() == 0 and tracer.finish() == 0
    own = [each for each in tracer.of("stw") if each["reason"].startswith("GC ")]
    assert sum(each["total_ns"] for each in own) == sum(truth["PauseNs"][before[0] : truth["NumGC"]])
    killed = trace("--pid", str(second.pid))
    second.go()
    until(lambda: row(stays, second)["cycles"] > 20)
    killed.process.kill()
    ends.finish()
    check(stays, second, second.truth(), before[1])
    assert second.finish() == 0
    stays.finish()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_that_is_replaced(how, agent, program, start):
    """Nothing of the first stays in the kernel or in the process; the next one counts from nothing, and says since when."""
    name = own_name("kept")
    target = start(program(name, program="lister"))
    options = ("--select", f"name={name}", "--min-age", "0s")
    first = agent(*options)
    until(lambda: first.traced() == {target.pid})
    assert collected(target, 50) == 50
    until(lambda: row(first, target)["cycles"] == 50)
    held = in_kernel(first.process.pid)
    assert min(map(len, held.values())) > 0 and probed_code(target.pid, "mem") != probed_code(target.pid, "exe")
    first.process.send_signal(how)
    first.process.communicate(timeout=30)
    until(lambda: probed_code(target.pid, "mem") == probed_code(target.pid, "exe"))
    until(lambda: not any(held[kind] & known_to_bpftool(kind) for kind in held))
    assert collected(target, 5) == 55
    began = time.time()
    second = agent(*options)
    until(lambda: second.traced() == {target.pid})
    assert collected(target, 30) == 85
    until(lambda: row(second, target)["cycles"] == 30)
    assert second.one("go_memory_gc_cycles_total", service_name=name) == 30
    wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = second.get("/metrics", wanted)
    found = re.findall(rf'^(\w+)_created{{service_name="{name}"[^}}]*}} (\S+)$', text, re.M)
    assert "go_memory_gc_cycles" in dict(found) and all(began < float(each) <= time.time() for _, each in found)
    assert target.finish() == 0
    second.finish()


def test_settings_that_are_read_again(agent, program, start, tmp_path):
    """Another process is traced, what the first one's counted stays; a file that is wrong changes nothing."""
    names = [own_name("first"), own_name("second")]
    first, second = (start(program(name, program="lister")) for name in names)
    file = tmp_path / "agent.yaml"

    def write(*lines: str) -> None:
        file.write_text("\n".join(["schema: gotrace.agent/1", "min_age: 0s", f"spool: {tmp_path}/spool", *lines]))

    def reload(*lines: str) -> None:
        write(*lines)
        serving.process.send_signal(signal.SIGHUP)

    def cycles(name: str) -> float:
        return sum(serving.values("go_memory_gc_cycles_total", service_name=name))

    def state(target: Target) -> str:
        return next(each["state"] for each in json.loads(serving.get("/processes")) if each["pid"] == target.pid)

    write(f"select: [name={names[0]}]", "explain_above: 1h")
    serving = agent("-f", str(file))
    until(lambda: serving.traced() == {first.pid}, 60)
    collected(first, 20)
    until(lambda: cycles(names[0]) == 20, 60)
    success, when = (f"gotrace_agent_config_last_reload_{each}" for each in ("successful", "success_timestamp_seconds"))
    begun = serving.one(when)
    assert serving.one(success) == 1 and abs(begun - time.time()) < 3600
    reload("selct: []")
    until(lambda: serving.one(success) == 0, 60)
    assert serving.one(when) == begun and serving.traced() == {first.pid}
    reload(f"select: [name={names[0]}]", "explain_above: 1h")
    until(lambda: serving.one(success) == 1, 60)
    file.unlink()
    os.mkfifo(file)  # nobody writes into it
    serving.process.send_signal(signal.SIGHUP)
    until(lambda: serving.one(success) == 0, 60)
    file.unlink()
    before = time.time()
    reload(f"select: [name={names[1]}]", "explain_above: 1us", "explanations: 1", "anyone: true")
    until(lambda: serving.traced() == {second.pid}, 60)
    assert serving.one(success) == 1 and before < serving.one(when) <= time.time()
    until(lambda: probed_code(first.pid, "mem") == probed_code(first.pid, "exe"), 60)
    assert state(first) == "not selected" and serving.values("gotrace_processes", service_name=names[0]) == [0]
    for target, count in ((first, 5), (second, 15)):
        collected(target, count)
    until(lambda: cycles(names[1]) == 15, 60)
    until(lambda: sum(serving.values("gotrace_agent_explanations_total")) > 0, 60)  # one hour would have been none
    assert cycles(names[0]) == 20
    reload(f"select: [name={own_name('*')}]", "explain_above: 1us", "explanations: 1")
    until(lambda: serving.traced() == {first.pid, second.pid}, 60)
    collected(first, 10)
    until(lambda: (cycles(names[0]), cycles(names[1])) == (30, 15), 60)
    assert sum(serving.values("gotrace_events_lost_total")) == 0
    reload(f"select: [name={own_name('*')}]", "processes: 1")
    until(lambda: serving.traced() == {second.pid}, 60)
    assert state(first) == "waits to be traced"
    assert [each.finish() for each in (first, second)] == [0, 0]
    said = serving.finish()
    assert "Settings not reloaded, the current ones stay in effect: agent.yaml: there is no key 'selct'.\n" in said
    assert f"Settings not reloaded, the current ones stay in effect: {file} could not be read in 2 s.\n" in said
    assert "Settings reloaded; restart to change anyone.\n" in said and "Settings reloaded.\n" in said
    assert "Settings reloaded; restart to change explain_above.\n" in said


def row(serving: Agent, target: Target) -> dict:
    return json.loads(serving.get(f"/processes?pid={target.pid}"))


KINDS = {"link": "link_id", "prog": "prog_id", "map": "map_id"}


def in_kernel(pid: int) -> dict[str, set[int]]:
    """The numbers of the links, programs and maps that a process holds."""
    texts = []
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):  # a connection, and closed meanwhile
            texts.append(path.read_text())
    return {
        kind: {int(each) for text in texts for each in re.findall(rf"^{key}:\t(\d+)$", text, re.M)}
        for kind, key in KINDS.items()
    }


def known_to_bpftool(kind: str) -> set[int]:
    if shutil.which("bpftool") is None:
        pytest.skip("no bpftool")
    done = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, check=True)
    return {each["id"] for each in json.loads(done.stdout)}

"""The agent keeps what long pauses waited for: each of them, exactly, within its bounds, whatever becomes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest
from agents import Agent, changed
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

import targets
from conftest import until
from gotrace.records.kept import KeptPause
from gotrace.records.schema import schema_of
from groundtruth import gctrace

pytestmark = pytest.mark.bpf

MS = 1_000_000
COLLECTOR = {"GC sweep termination", "GC mark termination"}


@pytest.fixture
def keeping(agent, tmp_path):
    """keeping(name, above, more) -> an agent that keeps pauses of processes of that name in tmp_path / "spool"."""

    def run(name: str, above: str, more: str = "") -> Agent:
        file = tmp_path / "agent.yaml"
        file.write_text(
            f"schema: gotrace.agent/1\nselect: ['name={name}*']\nmin_age: 0s\nspool: {tmp_path / 'spool'}\n"
            f"explain_above: {above}\n{more}"
        )
        return agent("-f", str(file))

    return run


@pytest.fixture
def spooled(gotrace, tmp_path):
    """spooled() -> the records of `gotrace report --longest`, which fit their schema."""

    def read() -> list[dict]:
        done = gotrace("report", str(tmp_path / "spool"), "--longest", "--format", "ndjson")
        assert done.returncode == 0, done.stderr
        records = [json.loads(line) for line in done.stdout.splitlines()]
        for record in records:
            jsonschema.validate(record, schema_of(KeptPause))
        return records

    return read


def copied(tmp_path: Path, program: str, name: str, version: str = targets.NEWEST) -> Path:
    return Path(shutil.copy(targets.build(program, version), tmp_path / name))


def exemplars(serving: Agent) -> list[Exemplar]:
    """Those of stops that name a recording."""
    families = text_string_to_metric_families(
        serving.get("/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    )
    samples = [each for family in families if family.name == "gotrace_stw_duration_seconds" for each in family.samples]
    return [each.exemplar for each in samples if each.exemplar and "recording" in each.exemplar.labels]


def outcomes(serving: Agent) -> dict[str, float]:
    found = [
        (dict(has), value) for (name, has), value in serving.samples().items() if name == "gotrace_agent_explanations_total"
    ]
    return {has["outcome"]: value for has, value in found}


def test_every_long_pause_is_kept_exactly(keeping, spooled, start, tmp_path, gotrace):
    """Two releases at once, and every pause is long: what the recordings have is what the programs count, to the ns."""
    name = f"kept{os.getpid()}"
    programs = [copied(tmp_path, "gcload", f"{name}-{version}", version) for version in ("1.19.8", targets.NEWEST)]
    ours = [start(each, "-cycles", "4", env={"GODEBUG": "gctrace=1"}) for each in programs]
    serving = keeping(name, "1us", "explanations: 1000\n")  # all of it at once
    until(lambda: serving.traced() == {each.pid for each in ours})
    before = [len(gctrace(each.stderr.read_text())) for each in ours]
    for each in ours:
        each.go()
    truths = [each.truth() for each in ours]
    assert [each.finish() for each in ours] == [0, 0]  # what they did is told though they are gone
    until(lambda: not serving.traced())
    writers = Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children")
    until(lambda: not writers.read_text(), 60)
    time.sleep(1)
    counted = outcomes(serving)
    longest = exemplars(serving)
    serving.finish()
    records = spooled()
    assert counted == {"kept": len(records)}
    for target, count, truth in zip(ours, before, truths, strict=True):
        own = [each for each in records if each["pid"] == target.pid]
        cycles = truth["NumGC"] - count
        collector = [each["total_ns"] for each in own if each["reason"] in COLLECTOR]
        assert len(collector) == 2 * cycles and sum(collector) == sum(truth["PauseNs"][count : truth["NumGC"]])
        assert all(each["whole"] for each in own) and {each["service"] for each in own} == {Path(f"/{own[0]['exe']}").name}
    # The longest of each histogram has its cause beside it.
    of_file = {each["file"]: each for each in records}
    assert {of_file[each.labels["recording"]]["pid"] for each in longest} == {each.pid for each in ours}
    for each in longest:
        record = of_file[each.labels["recording"]]
        assert (each.labels["cause"], each.labels["reason"]) == (record["cause"], record["reason"])
        assert round(each.value * 1e9) == record["total_ns"]
    # a recording like any other: one pause, and the very events
    path = tmp_path / "spool" / records[0]["file"]
    told = json.loads(gotrace("report", str(path), "--explain", "--format", "json").stdout)
    (pause,) = (each for each in told if each["type"] == "stw")
    (explained,) = (each for each in told if each["type"] == "explained")
    assert pause["total_ns"] == records[0]["total_ns"] and explained["sentence"] == records[0]["sentence"]
    assert told[-1]["events"]["lost"] == 0


@pytest.mark.alone
def test_stragglers_are_named_as_they_are_live(keeping, spooled, start, trace, tmp_path, gotrace):
    """Two at once, whose stops wait for code without preemption points: by the agent, and by `gc --explain` of both."""
    name = f"slow{os.getpid()}"
    clears = start(copied(tmp_path, "planted", f"{name}-clears"), "memclr", "2")
    loops = start(
        copied(tmp_path, "planted", f"{name}-loops", "1.22.10"), "loop", "2", env={"GODEBUG": "asyncpreemptoff=1"}
    )
    serving = keeping(name, "5ms")
    until(lambda: serving.traced() == {clears.pid, loops.pid})
    tracer = trace("--pid", f"{clears.pid},{loops.pid}", "--explain", "--top", "1000")
    for target in (clears, loops):
        target.go()
    for target in (clears, loops):
        target.truth()
        assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    until(lambda: not serving.traced())
    until(lambda: (now := outcomes(serving)).get("kept", 0) - now.get("removed", 0) == 6, 60)
    counted = outcomes(serving)
    serving.finish()
    records = spooled()
    live = {(each["pid"], each["total_ns"], each["reason"]): each for each in tracer.records if each["type"] == "explained"}
    assert records == sorted(records, key=lambda each: -each["length_ns"])  # the longest first
    assert records and {each["pid"] for each in live.values()} == {clears.pid, loops.pid}
    for record in records:
        assert record["whole"] and record["length_ns"] >= 5 * MS
        explained = live[record["pid"], record["total_ns"], record["reason"]]
        assert record["length_ns"] == pytest.approx(explained["length_ns"], rel=1e-3, abs=MS / 10)  # by probes of its own
        sums = sorted(
            sum(part.get(kind, 0) for part in explained["parts"].values()) for kind in explained["code"]["stopping"]
        )
        if len(sums) < 2 or sums[-1] > 1.1 * sums[-2]:  # else it is a matter of what one of them saw a microsecond later
            assert record["cause"] == explained["cause"]
    functions = {record["pid"]: set() for record in records}
    for record in records:
        functions[record["pid"]] |= set(record["code"])
    if clears.pid in functions:
        assert "runtime.memclrNoHeapPointers" in functions[clears.pid]
    # six a minute at most, and each of the others is counted
    assert len(records) == 6 == counted["kept"] - counted.get("removed", 0)
    long = sum(each["type"] == "stw" and each["total_ns"] + each["restart_lag_ns"] >= 5 * MS for each in tracer.records)
    assert counted["kept"] + counted.get("beyond the bound", 0) == long
    # all of them together
    spool = str(tmp_path / "spool")
    done = gotrace("flame", spool, "--straggler", "--format", "folded")
    assert done.returncode == 0, done.stderr
    total = sum(int(line.rpartition(" ")[2]) for line in done.stdout.splitlines())
    ours = sum(live[each["pid"], each["total_ns"], each["reason"]]["length_ns"] for each in records)
    assert total == pytest.approx(ours, rel=1e-3)  # they end where each saw its own probe
    assert f"{len(records)} pauses" in done.stderr
    text = gotrace("report", spool, "--longest", "--top", "2").stdout
    assert text.splitlines()[0].split() == ["time", "service", "pid", "pause", "reason", "cause", "in"]
    assert f"The longest, {records[0]['file']}:" in text and records[0]["sentence"] in text
    assert f"{len(records) - 2} more rows" in text
    assert "no rates or shares" in text and "%" not in text.split("no rates or shares")[0].partition("stop reason")[2]
    for options, said in (([], "is a directory"), (["--longest", "--explain"], "applies to a single recording")):
        done = gotrace("report", spool, *options)
        assert (done.returncode, done.stderr.count("\n")) == (2, 2) and said in done.stderr
    done = gotrace("flame", spool, "--on-cpu")
    assert done.returncode == 2 and "is a directory" in done.stderr


def test_it_is_killed_as_it_writes(keeping, spooled, start, tmp_path, gotrace):
    """What was written is whole, what was being written goes, and one that was damaged since says so."""
    name = f"dies{os.getpid()}"
    target = start(copied(tmp_path, "gcload", f"{name}-load"), "-seconds", "20")
    serving = keeping(name, "1us", "explanations: 1000\n")
    until(lambda: serving.traced() == {target.pid})
    target.go()
    spool = tmp_path / "spool"
    until(lambda: list(spool.glob("*.gotrace")) and list(spool.glob("*.part")))
    serving.process.kill()
    serving.process.communicate()  # which ends when nobody has its output any more
    target.process.kill()
    records = spooled()
    assert len(records) == len(list(spool.glob("*.gotrace"))) > 0 and all(each["whole"] for each in records)
    (spool / f"{'1' * 19}.1.gotrace.part").touch()
    again = keeping("nobody", "5ms")
    until(again.is_ready)
    assert not list(spool.glob("*.part"))
    again.finish()
    longest = spool / records[0]["file"]
    longest.write_bytes(longest.read_bytes()[: longest.stat().st_size // 2])
    done = gotrace("report", str(spool), "--longest")
    assert done.returncode == 0 and "1 recording in it cannot be read" in done.stderr
    assert [each["file"] for each in spooled()] == [each["file"] for each in records[1:]]


def test_what_needs_a_spool(gotrace):
    done = gotrace("serve", "--explain-above", "5ms", "--check")
    assert (done.returncode, done.stderr.count("\n")) == (2, 2) and "kept in the spool" in done.stderr


def test_nobody_is_disturbed_by_what_is_not_his(keeping, start, tmp_path):
    """A process whose stops cost more than they may is left unexplained, and goes on being counted."""
    name = f"costs{os.getpid()}"
    target = start(copied(tmp_path, "gcload", f"{name}-load"), "-seconds", "6")
    command = changed(
        "agent._COST_S, agent._LEAST_COST_NS = 1, 0\nagent.Bounds.__init__.__defaults__ = (200, 5000, 1, 1e-9)\n"
    )
    with subprocess.Popen(
        [*command, "serve", "--select", f"name={name}*", "--min-age", "0s", "--listen", "127.0.0.1:0"]
        + ["--explain-above", "1us", "--spool", str(tmp_path / "spool")],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None and "Serving" in process.stderr.readline()
        target.go()
        said = process.stderr.readline()
        process.terminate()
    assert f"pid {target.pid} " in said and "so its pauses are not explained for 10 minutes." in said
    assert target.truth()["NumGC"] > 0 and target.finish() == 0


def test_a_probe_rests_and_goes_on(start):
    """Of one process: its pauses are counted all the time, and what is lost of the rest is not what came before."""
    from gotrace.probe import probe_module
    from gotrace.shared import SharedProbes

    target = start(targets.build("gcload"), "-seconds", "20")
    modules = [probe_module(stem) for stem in ("gc", "tail")]
    of_gc, of_tail = ({kind.number for kind in module.PROBE.kinds} for module in modules)
    with SharedProbes.opened(modules, 64 << 20) as probes:
        session = probes.add(target.pid)
        target.go()

        def seen() -> set[int]:
            probes.read()
            session.read()
            time.sleep(1)
            probes.read()
            return set(session.read()["kind"].tolist())

        assert of_gc & (all_ := seen()) and of_tail & all_
        hits = session.cost().probe_hits
        session.suspend("tail")
        assert of_gc & (rest := seen()) and not of_tail & rest
        session.resume("tail")
        assert of_gc & (all_ := seen()) and of_tail & all_
        assert session.cost().probe_hits > hits and session.lost == 0
    target.process.kill()

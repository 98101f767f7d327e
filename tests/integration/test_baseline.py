"""`gotrace baseline` on a real service under a real load, against what the service and the load tool say themselves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, until
from gotrace.analysis.timeline import STAGES
from gotrace.api import replaying
from gotrace.errors import GotraceError
from gotrace.lab import baseline, flames, seconds
from gotrace.lab import load as loads
from gotrace.lab.extend import planned
from gotrace.lab.plan import Plan, Version
from gotrace.lab.report import schema
from gotrace.lab.service import Ready, started
from gotrace.run import one_start
from gotrace.views.gc import Gc
from services import free_port, names_with, needs_wrk, remove_podmans_groups


def measured(folder, *options, service=(), load="wrk -t1 -c4 -d2s {url}", **more):
    """`gotrace baseline` with that service at a port of its own: the process, ended, and its report."""
    port = free_port()
    words = [*GOTRACE, "baseline", "--load", load.format(url=f"http://127.0.0.1:{port}/ping"), "--out", str(folder)]
    words += ["--max-drift", "1000", "--preload", "200ms", *options]
    command = [str(word).format(port=port) for word in service]
    done = subprocess.run(
        [*words, *(["--", *command] if command else [])], capture_output=True, text=True, timeout=PATIENCE_S, **more
    )
    path = folder / "report.json"
    return done, json.loads(path.read_text()) if path.exists() else None


def shop(*options):
    return ["env", "GODEBUG=gctrace=1", targets.build("shop"), "-port", "{port}", *options]


@needs_wrk
@pytest.mark.bpf
def test_a_baseline(tmp_path, gotrace):
    folder = tmp_path / "out"
    done, report = measured(folder, "-n", "2", "--explain", service=shop())
    assert done.returncode == 0, done.stderr
    jsonschema.validate(report, schema())
    # One that does not count, because the hypervisor took the CPUs, was repeated.
    counted = [run for run in report["runs"] if run["valid"]]
    assert report["complete"] and [run["round"] for run in counted] == [0, 1], report["runs"]
    assert all(bool(run["reasons"]) != run["valid"] for run in report["runs"])
    (version,) = report["versions"]
    assert version["name"] == "env" and version["exe"].endswith("/shop") and version["go_version"].startswith("go1.")
    assert version["exe_bytes"] == targets.build("shop").stat().st_size
    for run in counted:
        of_load, values = run["load"], run["metrics"]
        assert values["throughput"] == of_load["answered"] * 1e9 / of_load["duration_ns"]
        assert values["cpu.per_request"] == pytest.approx(values["cpu"] / values["throughput"] * 1e9)
        assert run["length_ns"] == pytest.approx(of_load["duration_ns"], rel=0.25)
        # The collections that were recorded while the load lasted, as the runtime's own trace has them.
        records = list(replaying(str(folder / run["recording"]), Gc()))
        cycles = [each for each in records if each["type"] == "cycle"]
        log = (folder / run["recording"]).with_suffix(".log").read_text()
        traced = {int(number): line for number, line in re.findall(r"^gc (\d+) @(.*)$", log, re.M)}
        clock = [float(re.search(r"%: [0-9.]+\+([0-9.]+)\+", traced[each["cycle"]])[1]) * 1e6 for each in cycles]
        assert len(cycles) > 20
        assert values["gc.mark.mean"] == pytest.approx(np.mean(clock), rel=0.05)  # some at the edges are not of the load
        assert values["gc.cycles_per_s"] == pytest.approx(len(cycles) / run["length_ns"] * 1e9, rel=0.1)
        assert values["rss.peak"] >= values["rss.mean"] > 1 << 20
        assert 0 < values["gc.cpu_share"] < 1 and 0 < values["stw.share"] < 1 and run["lost"] == 0
        stops = [each for each in records if each["type"] == "stw"]
        assert values["stw.total.max"] == max(each["total_ns"] for each in stops)
        assert values["stw.total.p50"] == pytest.approx(np.percentile([each["total_ns"] for each in stops], 50), rel=0.1)
        # On one thread, which is not busy: the service is.
        took = run["load_cpu"]
        assert took["threads"] == 1 and 0 < took["cpu_ns"] < 0.9 * took["length_ns"] >= of_load["duration_ns"] * 0.9
        assert values["errors.share"] == 0 and 0 < values["start.ready"] < 5e9
    paused = gotrace("report", str(folder / report["runs"][0]["recording"]), "--pauses", "--explain")
    assert paused.returncode == 0 and "GC mark termination" in paused.stdout, paused.stderr
    assert "throughput" in done.stdout and "The longest pauses:" in done.stdout
    again, _ = measured(folder, "-n", "1", service=shop())
    assert again.returncode == 2 and "already has a report" in again.stderr


class Begun(threading.Thread):
    """When processes of a name were forked, by their PIDs: CLOCK_MONOTONIC ns, as /proc says to 10 ms."""

    def __init__(self, name):
        super().__init__()
        self._which, self._over, self.begun_ns = name, threading.Event(), {}

    def run(self):
        tick = 10**9 // os.sysconf("SC_CLK_TCK")
        asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        while not self._over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    name, _, fields = path.read_text().partition("(")[2].rpartition(")")
                    if name == self._which:
                        self.begun_ns[int(path.parent.name)] = int(fields.split()[19]) * tick - asleep_ns, tick

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()


@needs_wrk
@pytest.mark.bpf
def test_starts_by_stage(tmp_path, gotrace):
    """They add up to the time until it was ready; against what the kernel and the runtime print of the same starts."""
    program, port, folder = targets.build("shop"), free_port(), tmp_path / "out"
    collects = f"env GODEBUG=inittrace=1,gctrace=1 {program} -port {port} -init 300ms -collect 2"
    words = ["--load", f"wrk -t1 -c2 -d1s http://127.0.0.1:{port}/ping", "--out", str(folder), "-n", "1", "--preload", "0"]
    versions = ["--ab", f"collects={collects}", "--ab", f"plain={program} -port {port}"]
    with Begun("shop") as begun:
        done = gotrace("baseline", *words, "--max-drift", "1000", "--coldstart", *versions)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, schema())
    assert report["plan"]["coldstart"] and re.search(r"^start\.inits +\S+ .s ", done.stdout, re.M)
    for run in report["runs"]:
        start, values = run["start"], run["metrics"]
        stages = {row["stage"]: row["duration_ns"] for row in start["stages"]}
        assert list(stages) == [each for each in STAGES[1:] if each in stages] and len(stages) == 4  # it is static
        assert sum(stages.values()) + start["unattributed_ns"] == start["total_ns"] == values["start.ready"]
        names = ("start.exec", "start.bootstrap", "start.inits", "start.main")
        assert [values[name] for name in names] == list(stages.values()) and values["start.linker"] is None
        assert start["lost"] == 0 and start["cost"]["hits"] > 100
        assert stages["exec"] + stages["runtime bootstrap"] + stages["runtime.main"] < values["start.listen"]
        assert values["start.listen"] <= values["start.ready"]
        told = json.loads(gotrace("report", str(folder / start["recording"]), "--format", "json").stdout)[0]
        assert told["ended"] == "ready" and told["rows"][0]["stage"] == "before exec"
        assert [row for row in told["rows"] if row["depth"] == 0][1:] == start["stages"]
        forked_ns, tick = begun.begun_ns[told["pid"]]
        assert forked_ns <= told["monotonic_ns"] - told["rows"][0]["duration_ns"] <= forked_ns + tick + 10**6
        if run["version"] == "plain":
            assert start["gc"] is None and values["start.first_gc"] is None
            continue
        log = (folder / run["recording"]).with_suffix(".log").read_text()
        inits = [float(text) * 1e6 for text in re.findall(r"^init \S+ @\S+ ms, (\S+) ms clock", log, re.M)]
        assert len(inits) > 15 and sum(inits) <= values["start.inits"] + 1e6
        assert values["start.main"] >= 300e6
        # The runtime's clock begins within runtime.main; it prints milliseconds.
        at_ns = float(re.search(r"^gc 1 @([0-9.]+)s", log, re.M)[1]) * 1e9
        inits_ns = stages["exec"] + stages["runtime bootstrap"]
        assert -2e6 <= values["start.first_gc"] - at_ns - inits_ns <= values["start.inits"] + 2e6
        assert 300e6 <= values["start.first_gc"] < values["start.listen"]


def probes():
    """How many descriptors of ours are of probes."""
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(path).startswith(("anon_inode:[perf_event]", "anon_inode:bpf_link", "anon_inode:bpf-prog"))
    return found


@pytest.mark.bpf
def test_a_start_leaves_no_probes(tmp_path):
    """Not while the service goes on, nor when it does not become ready."""
    before, recording = probes(), str(tmp_path / "start.gotrace")
    port = free_port()
    command = [str(word).format(port=port) for word in shop()]
    with (
        one_start.tracing(command, str(targets.build("shop")), recording) as traced,
        started(command, Ready("127.0.0.1", port), tmp_path / "log", meanwhile=traced.read) as running,
    ):
        assert probes() > before + 40
        found = traced.end(running.pid, running.ready_at_ns)
        assert probes() == before and [start.pid for start in found.starts] == [running.pid]
    with (
        pytest.raises(GotraceError, match="exited before it was ready"),
        one_start.tracing([*command, "-nope"], str(targets.build("shop")), recording) as traced,
        started([*command, "-nope"], Ready("127.0.0.1", port), tmp_path / "log", meanwhile=traced.read),
    ):
        pass
    assert probes() == before
    with one_start.tracing(["sleep", "1"], str(targets.build("shop")), recording) as traced:
        with pytest.raises(GotraceError, match="no start was observed"):
            traced.end(1, time.monotonic_ns())
    assert probes() == before


@needs_wrk
@pytest.mark.bpf
def test_two_versions_in_turns(tmp_path, gotrace):
    program, port = targets.build("shop"), free_port()
    folder = tmp_path / "out"
    versions = [
        word for name, us in (("A", 20), ("B", 400)) for word in ("--ab", f"{name}={program} -port {port} -work {us}us")
    ]
    words = ["--load", f"wrk -t1 -c4 -d1s http://127.0.0.1:{port}/ping", "--out", str(folder), "-n", "2"]
    done = gotrace("baseline", *words, "--max-drift", "1000", "--preload", "0", "--seed", "5", *versions)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report.json").read_text())
    assert [each["name"] for each in report["versions"]] == ["A", "B"] and report["runs"][0]["version"] == "B"
    runs = [run for run in report["runs"] if run["valid"]]
    assert sorted((run["round"], run["version"]) for run in runs) == [
        (number, name) for number in range(2) for name in "AB"
    ]
    compared = gotrace("compare", str(folder), "--all", "--format", "json")
    (pair,) = json.loads(compared.stdout)["comparisons"]
    (row,) = (row for row in pair["metrics"] if row["metric"] == "cpu.per_request")
    assert row["b"] > 2 * row["a"] and (row["verdict"], row["reason"]) == ("cannot tell", "2 runs: too few")
    gated = gotrace("gate", str(folder), "--margin", "900")
    assert gated.returncode == 3 and "2 runs: too few" in gated.stdout and "pass" not in gated.stdout, gated.stdout


@needs_wrk
@pytest.mark.bpf
def test_more_runs_into_a_report(tmp_path, gotrace):
    """As if they had been planned, and said; refused, and nothing changed, where anything else is measured."""
    port, folder, own = free_port(), tmp_path / "out", tmp_path / "own"
    shutil.copy(targets.build("shop"), own)
    versions = [word for name in "AB" for word in ("--ab", f"{name}={own} -port {port}")]
    words = ["--load", f"wrk -t1 -c4 -d1s http://127.0.0.1:{port}/ping", "--preload", "0", "--max-drift", "1000"]
    assert gotrace("baseline", *words, *versions, "-n", "1", "--out", str(folder)).returncode == 0
    path = folder / "report.json"
    first = json.loads(path.read_text())
    done = gotrace("baseline", "--extend", "1", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    jsonschema.validate(report, schema())
    count = len(first["runs"])
    assert report["runs"][:count] == first["runs"] and report["complete"] and report["plan"]["runs"] == 2
    assert [{**each, "time": ""} for each in report["extended"]] == [{"time": "", "first": count, "after": 1, "runs": 1}]
    counted = [(run["round"], run["version"]) for run in report["runs"] if run["valid"]]
    assert counted == [(round_, version.name) for round_, version in Plan.from_json(report["plan"]).order()]
    told = "Extended by 1 run after 1 of each version"
    assert told in done.stdout and told in (folder / "report.html").read_text()
    assert f"{told}. Looking and measuring on" in gotrace("compare", str(folder)).stdout
    assert f"{told}: judged as one of 2 looks." in gotrace("gate", str(folder)).stdout

    def refused(*more):
        before = path.read_bytes()
        done = gotrace("baseline", "--extend", "1", "--out", str(folder), *more)
        assert done.returncode == 2 and path.read_bytes() == before, done.stderr
        return done.stderr

    assert "--load and --extend are mutually exclusive" in refused("--load", "wrk http://h/")
    assert "a command and --extend are mutually exclusive" in refused("--", "shop")
    shutil.copy(targets.build("shop", flavour="pie"), own)
    assert "is not what was measured: its build id has changed" in refused()
    for change, message in (
        ({"host": {**report["host"], "kernel": "5.4"}}, "the machine's kernel was 5.4, and is"),
        ({"tool": "0.1.0"}, "it was measured by gotrace 0.1.0"),
        ({"complete": False}, "it is incomplete"),
        ({"plan": {**report["plan"], "pid": 1}}, "its runs measured an already running process"),
        ({"plan": {**report["plan"], "runs": 1000}}, "it is incomplete: too few valid runs"),
    ):
        with pytest.raises(GotraceError, match=f"the report cannot be extended: {message}"):
            planned({**report, **change}, 1)


@pytest.mark.bpf
def test_what_goes_wrong(tmp_path):
    """A line that says what, and one that says what to do; what was measured before stays a report."""
    cases = {
        "load": (dict(service=shop(), load="wrkk -d1s {url}"), 2, "'wrkk' is not a supported load tool"),
        "gone": (dict(service=["/nowhere/shop"]), 2, "there is no command '/nowhere/shop'"),
        "dies": (dict(service=shop("-dies", "50"), load="wrk -t1 -c1 -d1s {url}"), 5, "out of stock"),
        "exits": (dict(service=["false"]), 5, "the service exited before it was ready: status 1"),
        "nongo": (dict(service=["python3", "-m", "http.server", "{port}"]), 5, "the command runs no Go program"),
        "both": (dict(service=()), 2, "say what to measure"),
        "fails": (dict(service=shop(), load="wrk -t1 -c1 -d1s --nope {url}"), 5, "wrk failed"),
        "garbage": (dict(service=shop(), load="echo wrk -d1s {url}"), 2, "'echo' is not a supported load tool"),
    }
    for name, (how, status, text) in cases.items():
        done, _ = measured(tmp_path / name, **how)
        assert (done.returncode, text in done.stderr) == (status, True), (name, done.stderr)
        assert "Traceback" not in done.stderr and "hint:" in done.stderr
    missing, _ = measured(tmp_path / "m", "--load-format", "hey", service=shop(), load="/nowhere/hey {url}")
    assert missing.returncode == 5 and "/nowhere/hey is not installed" in missing.stderr, missing.stderr
    garbage, _ = measured(tmp_path / "g", "--load-format", "wrk", service=shop(), load="echo {url}")
    assert garbage.returncode == 5 and "the output of wrk cannot be read" in garbage.stderr
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        words = ["baseline", "--load", f"wrk -d1s {url}", "--out", str(tmp_path / "used"), "--", targets.build("shop")]
        done = subprocess.run([*GOTRACE, *words], capture_output=True, text=True)
        assert done.returncode == 5 and "before the service is started" in done.stderr
    late = started(
        [str(targets.build("shop")), "-init", "1m"], Ready("127.0.0.1", free_port()), tmp_path / "log", patience_s=0.3
    )
    with pytest.raises(GotraceError, match="was not ready after 300 ms"), late:
        pass
    for name, (how, status, text) in cases.items():  # and where it is traced, which is begun earlier
        if name in ("dies", "exits", "nongo"):
            done, _ = measured(tmp_path / f"traced {name}", "--coldstart", **how)
            assert (done.returncode, text in done.stderr) == (status, True), (name, done.stderr)
    dry, _ = measured(tmp_path / "dry", "--dry-run", service=shop())
    assert dry.returncode == 0 and "takes: about" in dry.stdout and not (tmp_path / "dry").exists()


@needs_wrk
@pytest.mark.bpf
def test_a_warm_up_that_ends_by_itself(tmp_path, monkeypatch):
    """With the last 15 of its seconds in one state; for the first five requests take ten times the work."""
    monkeypatch.setattr(seconds, "MOST_NS", 60 * 10**9)
    port = free_port()
    load = loads.parse_load(f"wrk -t1 -c4 -d10s http://127.0.0.1:{port}/ping")
    ready = Ready("127.0.0.1", port)
    command = [str(word).format(port=port) for word in shop("-cold", "5s", "-work", "1ms")]
    plan = Plan((Version("A", tuple(command)),), load, 1, None, ready, 1)
    with started(command, ready, tmp_path / "log") as running:
        done = baseline.warm_up(loads.prepare(load, tmp_path), plan, running)
    assert not {"wrk", "shop"} & names_with(str(port))
    length_s, found = done["length_ns"] / 1e9, done["course"]
    assert length_s == pytest.approx(len(found["cpu"]["values"]), abs=1.5) and 20 <= length_s < 61
    # as many allocations as requests, of 64 KiB and some
    slow, fast = (np.median(found["allocated"]["values"][part]) for part in (slice(0, 4), slice(-10, None)))
    assert slow < 0.5 * fast
    # A busy machine may hide that, or keep it from being steady.
    if done["unsteady"] is None:
        assert found["steady_from"] <= length_s - 14 and found["kind"] in ("flat", "warmed up", "slowing down")
    else:
        assert length_s >= 60 and found["kind"] == "no steady state"


@needs_wrk
@pytest.mark.bpf
def test_what_the_heap_grew_by(tmp_path):
    """As much as the service keeps, by the code that does."""
    done, report = measured(tmp_path / "out", "-n", "1", service=shop("-leak", "8"), load="wrk -t1 -c2 -d3s {url}")
    assert done.returncode == 0, done.stderr
    run = report["runs"][-1]
    grown = run["heap_growth"]
    assert grown["unknown"] is None and grown["by"][0]["code"][0] == "main.leaks", grown
    assert grown["by"][0]["bytes"] == pytest.approx(8 * (1 << 20) * grown["length_ns"] / 1e9, rel=0.25)
    assert run["length_ns"] <= grown["length_ns"] < run["length_ns"] + 5e9
    assert grown["end_bytes"] - grown["begin_bytes"] == pytest.approx(grown["by"][0]["bytes"], rel=0.25)
    assert "The live heap grew most in run" in done.stdout and "main.leaks" in done.stdout


@needs_wrk
@pytest.mark.bpf
def test_what_the_heap_grew_by_in_its_own_words(tmp_path):
    """Of /debug/pprof/heap, stack by stack as `go tool pprof -base` has it; and why not, where it does not answer."""
    port = free_port()
    how = dict(service=["env", *shop("-leak", "8")[1:]], load=f"wrk -t1 -c2 -d2s http://127.0.0.1:{port}/ping")
    how["service"] = [str(word).format(port=port) for word in how["service"]]
    words = ["-n", "1", "--ready", f"tcp:{port}", "--pprof", f"http://127.0.0.1:{port}"]
    folder = tmp_path / "out"
    done, report = measured(folder, *words, **how)
    assert done.returncode == 0, done.stderr
    jsonschema.validate(report, schema())
    run = report["runs"][-1]
    grown = run["heap_growth"]
    assert (grown["source"], grown["unknown"]) == (f"http://127.0.0.1:{port}/debug/pprof/heap", None)
    assert grown["by"][0]["code"][0] == "main.leaks" and f"by its profile ({grown['source']}) from" in done.stdout
    # 8 MiB a second where it has a CPU each time; the truth comes below
    assert 0.5 < grown["by"][0]["bytes"] / (8 * (1 << 20) * grown["length_ns"] / 1e9) < 1.25
    begin, end = (folder / run["recording"].replace(".gotrace", f"-heap-{when}.pb.gz") for when in ("begin", "end"))
    theirs = targets.pprof_traces(end, "inuse_space", "B", "-base", begin)
    assert all(theirs[tuple(each["code"])] == each["bytes"] for each in grown["by"]), (grown, theirs)
    assert sum(theirs.values()) == grown["end_bytes"] - grown["begin_bytes"]

    words[-1] += "/nothing"
    done, report = measured(tmp_path / "no", *words, **how)
    assert done.returncode == 0, done.stderr
    assert "is unknown: " in done.stdout and "/nothing/debug/pprof/heap does not respond: 404 Not Found" in done.stdout


@needs_wrk
@pytest.mark.bpf
def test_a_load_that_is_sampled(tmp_path):
    """As much CPU time as the kernel counts."""
    port = free_port()
    ready = loads.prepare(loads.parse_load(f"wrk -t1 -c4 -d2s http://127.0.0.1:{port}/ping"), tmp_path)
    (tmp_path / flames.FOLDER).mkdir()
    with started([targets.build("shop"), "-port", str(port)], Ready("127.0.0.1", port), tmp_path / "log") as running:
        before = cpu_of(running.pid)
        status = flames.sample(running.pid, lambda: loads.start(ready), flames.recording_of(tmp_path, 0))
        took = cpu_of(running.pid) - before
    assert loads.finish(ready, status).answered > 100
    found = flames.draw(["shop"], tmp_path)
    (sampled,) = found["sampled"]
    assert sampled["cpu_ns"] == pytest.approx(took, rel=0.1, abs=5e7)
    assert found["pictures"] == [{"file": "flames/0.html", "versions": ["shop"]}]
    assert "main.ping" in (tmp_path / "flames" / "0.html").read_text()


def cpu_of(pid):
    """Nanoseconds, from utime and stime of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) * 10**9 // os.sysconf("SC_CLK_TCK")


@needs_wrk
@pytest.mark.bpf
def test_builds(tmp_path, gotrace):
    """What `go build` makes with these flags, as it says itself."""
    how = dict(cwd=targets.SOURCES / "shop", env=targets.environment(targets.NEWEST), load="wrk -t1 -c2 -d1s {url}")
    go, uninlined = str(targets.go(targets.NEWEST)), "-gcflags=-l -trimpath '-ldflags=-s -w'"
    words = ["-n", "1", "--go", go, "--build", "", "--build", uninlined]
    folder = tmp_path / "out"
    done, report = measured(folder, *words, service=[".", "-port", "{port}"], **how)
    assert done.returncode == 0, done.stderr
    first, second = report["versions"]
    assert [(each["name"], each["build"]) for each in (first, second)] == [
        ("default", []),
        (uninlined, ["-gcflags=-l", "-trimpath", "-ldflags=-s -w"]),
    ]
    for each in (first, second):
        assert each["exe_bytes"] == os.stat(each["exe"]).st_size and Path(each["exe"]).name == "shop"
        settings = subprocess.run([go, "version", "-m", each["exe"]], capture_output=True, text=True).stdout
        assert ("-trimpath=true" in settings) == (each is second), settings
    assert second["exe_bytes"] < 0.8 * first["exe_bytes"]
    assert {run["version"] for run in report["runs"] if run["valid"]} == {"default", uninlined}
    assert gotrace("compare", str(folder)).returncode == 0

    # One more run of each was sampled: what is inlined in one of them only.
    jsonschema.validate(report, schema())
    (picture,) = report["flames"]["pictures"]
    assert picture == {"file": "flames/0-1.html", "versions": ["default", uninlined]}
    assert "main.ping" in (folder / picture["file"]).read_text()
    assert f'href="{picture["file"]}"' in (folder / "report.html").read_text() and picture["file"] in done.stdout
    assert all(each["samples"] > 100 for each in report["flames"]["sampled"])
    recordings = [str(folder / each["recording"]) for each in report["flames"]["sampled"]]
    differing = gotrace("flame", "--diff", *recordings, "-o", "-", "--format", "folded").stdout
    for name, before in (("Store_[i]", True), ("Store", False)):
        inner = re.findall(rf";main\.ping;sync/atomic\.\S+{re.escape(name)}(?:;\S+)? (\d+) (\d+)$", differing, re.M)
        assert inner and all((old != "0", new != "0") == (before, not before) for old, new in inner), differing

    done, report = measured(tmp_path / "no", *words, "--build=-gcflags=-zz", service=["."], **how)
    assert (done.returncode, report) == (5, None) and "Traceback" not in done.stderr
    assert "go build failed for -gcflags=-zz" in done.stderr and f"{tmp_path}/no/build-2.log" in done.stderr
    assert "-zz" in (tmp_path / "no" / "build-2.log").read_text()
    done, _ = measured(tmp_path / "none", "--build", "", "--go", go, service=["./nothing"], **how)
    assert done.returncode == 5 and "go build failed for default" in done.stderr
    done, _ = measured(tmp_path / "dry", *words, "--dry-run", service=[".", "-port", "1"], **how)
    assert f"{go} build -gcflags=-l -trimpath '-ldflags=-s -w' -o {tmp_path}/dry/builds/1/shop ." in done.stdout
    assert done.returncode == 0 and not (tmp_path / "dry").exists()


@needs_wrk
@pytest.mark.bpf
def test_a_process_that_runs(tmp_path, gotrace):
    """It is put under load, and nothing else is done to it; its runs are no sample of others."""
    port = free_port()
    process = subprocess.Popen([targets.build("shop"), "-port", str(port)], stderr=subprocess.DEVNULL)
    try:
        until(Ready("127.0.0.1", port).met)
        peak = peak_of(process.pid)
        words = ["--load", f"wrk -t1 -c2 -d1s http://127.0.0.1:{port}/ping", "--max-drift", "1000", "--preload", "0s"]
        folder = tmp_path / "out"
        before = allocated_by(port)
        done = gotrace("baseline", "--pid", str(process.pid), "-n", "2", "--out", str(folder), *words)
        assert done.returncode == 0, done.stderr
        allocated = allocated_by(port) - before
        assert f"all runs measured process {process.pid}" in done.stdout and process.poll() is None
        assert peak_of(process.pid) >= peak
        report = json.loads((folder / "report.json").read_text())
        jsonschema.validate(report, schema())
        assert report["versions"][0]["pid"] == process.pid
        counted = [run["metrics"] for run in report["runs"] if run["valid"]]
        assert len(counted) == 2 and all(each["start.ready"] is None and each["throughput"] > 0 for each in counted)
        ours = [run["metrics"]["alloc.per_request"] * run["load"]["answered"] for run in report["runs"]]
        assert sum(ours) == pytest.approx(allocated, rel=0.01)
        words[1] = f"wrk -t1 -c2 -d1s http://127.0.0.1:{free_port()}/ping"
        done = gotrace("baseline", "--pid", str(process.pid), "--out", str(tmp_path / "c"), *words)
        assert done.returncode == 5 and "nothing answers at tcp:127.0.0.1" in done.stderr and process.poll() is None
    finally:
        process.kill()
        process.wait()


def allocated_by(port):
    """Bytes, as its MemStats has them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/debug/pprof/heap?debug=1") as answer:
        return int(re.search(rb"^# TotalAlloc = (\d+)", answer.read(), re.M)[1])


def peak_of(pid):
    return int(re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


RUNC = Path("/usr/sbin/runc")
PODMAN = ["podman", *(["--runtime", str(RUNC)] if RUNC.exists() else [])]
CONTAINER = ["--container-tool", " ".join(PODMAN)]
# Its defaults may be more than is allowed here.
CONTAINER += [f"--container-option=--ulimit={each}" for each in ("nofile=1024:1024", "nproc=1024:1024")]
needs_podman = pytest.mark.skipif(
    shutil.which("podman") is None and not os.environ.get("GOTRACE_REQUIRE_BPF"), reason="no podman"
)


@pytest.fixture
def image(tmp_path):
    """Of the shop alone."""
    name = f"gotrace-test-{os.getpid()}:1"
    shutil.copy(targets.build("shop"), tmp_path / "shop")
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "image.tar", "shop"], check=True)
    words = [*PODMAN, "import", "--change", 'ENTRYPOINT ["/shop"]', tmp_path / "image.tar", name]
    subprocess.run(words, check=True, capture_output=True)
    yield name
    subprocess.run([*PODMAN, "rmi", "-f", name], check=True, capture_output=True)
    remove_podmans_groups()


def containers_of(image):
    words = [*PODMAN, "ps", "-a", "--format", "{{.Image}} {{.Names}}"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split()[1] for line in lines if line.split()[0].endswith(image)]


@needs_wrk
@needs_podman
@pytest.mark.bpf
def test_a_container(tmp_path, image):
    """Found from outside, with the limits that were asked for; what its quota takes is counted."""
    words = ["-n", "1", "--container", f"small={image}", "--memory", "64m", "--quota", "0.25", *CONTAINER]
    done, report = measured(tmp_path / "out", *words, service=["-port", "{port}"], load="wrk -t1 -c4 -d2s {url}")
    assert done.returncode == 0, done.stderr
    jsonschema.validate(report, schema())
    (version,) = report["versions"]
    assert (version["name"], version["exe"], version["pid"]) == ("small", "/shop", None)
    found = version["container"]
    told = subprocess.run([*PODMAN, "image", "inspect", image], capture_output=True, text=True, check=True).stdout
    assert (found["id"], found["digest"]) == tuple(json.loads(told)[0][name] for name in ("Id", "Digest"))
    assert (found["quota_cpus"], found["memory_bytes"]) == (0.25, 64 << 20)
    (run,) = (run for run in report["runs"] if run["valid"])
    assert run["metrics"]["cpu"] < 0.5 and run["metrics"]["throttled.share"] > 0
    assert any("a CPU quota throttled its threads for" in note for note in run["notes"])
    assert "in a container of" in done.stdout and "0.25 CPUs, 64.0 MiB of memory" in done.stdout
    assert containers_of(image) == []
    done, _ = measured(tmp_path / "bad", "-n", "1", "--container", image, *CONTAINER, service=["-nope"])
    assert done.returncode == 5 and "the service exited before it was ready" in done.stderr and containers_of(image) == []
    done, _ = measured(tmp_path / "no", "-n", "1", "--container", f"{image}2", *CONTAINER)
    assert done.returncode == 2 and "image not known" in done.stderr, done.stderr


@needs_wrk
@needs_podman
@pytest.mark.bpf
def test_a_plan_of_builds_and_containers(tmp_path, image, monkeypatch):
    """In a file: what is built is built and what has limits has them."""
    monkeypatch.chdir(targets.SOURCES / "shop")
    port, folder = free_port(), tmp_path / "out"
    options = [word.removeprefix("--container-option=") for word in CONTAINER[2:]]
    limited = {"image": image, "cpus": 0.25, "memory": "64m", "options": options, "tool": PODMAN}
    built = {"package": ".", "flags": ["-trimpath"], "go": str(targets.go(targets.NEWEST))}
    arguments = {"args": ["-port", str(port)]}
    plan = {
        "schema": "gotrace.plan/1",
        "versions": {"built": {"build": built, **arguments}, "boxed": {"container": limited, **arguments}},
        "load": {"tool": "wrk", "args": ["-t1", "-c2", "-d1s", f"http://127.0.0.1:{port}/ping"]},
        "runs": 1,
        "preload": "0",
        "max_drift": "1000%",
        "flame": False,
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))  # which is YAML, too
    words = ["baseline", "-f", str(tmp_path / "plan.yaml"), "--out", str(folder)]
    environment = targets.environment(targets.NEWEST)
    done = subprocess.run([*GOTRACE, *words], capture_output=True, text=True, timeout=PATIENCE_S, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, schema())
    first, second = report["versions"]
    assert (first["exe"], first["build"]) == (str(folder / "builds/0/shop"), ["-trimpath"])
    assert (second["container"]["quota_cpus"], second["container"]["memory_bytes"]) == (0.25, 64 << 20)
    assert {run["version"] for run in report["runs"] if run["valid"]} == {"built", "boxed"} and report["flames"] is None
    assert Plan.from_json(report["plan"]).versions[1].container.quota == 0.25


@needs_wrk
@needs_podman
@pytest.mark.bpf
@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGKILL))
def test_a_container_is_removed(number, tmp_path, image):
    port = free_port()
    words = ["--load", f"wrk -t1 -c2 -d30s http://127.0.0.1:{port}/ping", "--out", str(tmp_path / "out"), "--preload", "0"]
    command = [*GOTRACE, "baseline", *words, "--container", image, *CONTAINER, "--", "-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: (tmp_path / "out" / "runs" / "0000.gotrace").exists(), PATIENCE_S)
        there = containers_of(image)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert len(there) == 1
    until(lambda: not containers_of(image), 30)
    until(lambda: not {"wrk", "shop"} & names_with(str(port)))
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in err and "Nothing was measured." in err, err


@needs_wrk
@pytest.mark.bpf
def test_a_full_disk(tmp_path):
    """What was written before it was full stays a report."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "none", small], check=True)
    try:
        done, report = measured(small / "out", "-n", "20", service=shop(), load="wrk -t1 -c2 -d1s {url}")
        assert done.returncode == 1 and "No space left on device" in done.stderr and "Traceback" not in done.stderr
        assert report is None or 1 <= len(report["runs"]) < 20 and not report["complete"]
    finally:
        subprocess.run(["umount", small], check=True)


@needs_wrk
@pytest.mark.bpf
@pytest.mark.started  # with a temporary folder of its own
@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
def test_cut_off(number, tmp_path):
    """What was measured is a report, which says so if it can, and nothing is left behind, nor in the temporary folder."""
    port = free_port()
    folder, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    words = ["--load", f"wrk -t1 -c2 -d2s http://127.0.0.1:{port}/ping", "--out", str(folder), "-n", "50", "--preload", "0"]
    command = [*GOTRACE, "baseline", *words, "--max-drift", "1000", "--", targets.build("shop"), "-port", str(port)]
    how = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)})
    with subprocess.Popen(command, **how) as process:
        until(lambda: (folder / "report.json").exists(), PATIENCE_S)
        time.sleep(2)
        held = list(temporary.iterdir())
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert held
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, schema())
    assert not report["complete"] and 1 <= len(report["runs"]) < 50
    until(lambda: not {"wrk", "shop"} & names_with(str(port)))
    until(lambda: not any(temporary.iterdir()))
    if number != signal.SIGKILL:
        assert process.returncode == 130 and "Traceback" not in err, err
        assert report["cut_off"] == "Ctrl-C" and "CUT OFF: Ctrl-C" in out

"""The agent: what it exports of real programs is what these count themselves, in their own /metrics and in Prometheus'."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
from pathlib import Path

import pytest
from agents import Agent, changed
from collectors import collecting, rejecting
from kubelets import account_in, serving

import targets
from conftest import until
from gotrace.agent.spool import records_in
from groundtruth import collected, gctrace

pytestmark = pytest.mark.bpf

COLLECTOR = {"GC sweep termination", "GC mark termination"}


@pytest.mark.everywhere
def test_what_it_exports_is_what_the_programs_count(agent, program, start):
    """Two processes of one service and one of another, of three releases: counts and sums exact, and /proc's numbers."""
    prefix = f"srv{os.getpid()}"
    of_api = [program(f"{prefix}-api")] * 2
    of_old = program(f"{prefix}-old", "1.19.8")
    ours = [start(each, "-cycles", "200", env={"GODEBUG": "gctrace=1"}) for each in (*of_api, of_old)]
    serving = agent("--select", f"name={prefix}-*", "--min-age", "0s")
    until(lambda: serving.traced() == {each.pid for each in ours}, 60)
    for each in ours:
        serving.get(f"/processes?pid={each.pid}")  # from then on everything about it is kept
    before = [len(gctrace(each.stderr.read_text())) for each in ours]
    for each in ours:
        each.go()
    truths = [each.truth() | {"before": count} for each, count in zip(ours, before, strict=True)]
    time.sleep(2.5)  # it looks at each once a second
    for name, own in ((f"{prefix}-api", truths[:2]), (f"{prefix}-old", truths[2:])):
        assert all(each["NumGC"] < 256 for each in own)  # as many as MemStats.PauseNs keeps
        cycles = sum(each["NumGC"] - each["before"] for each in own)
        labels = {"service_name": name, "process_executable_name": name}
        assert serving.one("go_memory_gc_cycles_total", **labels) == cycles
        assert serving.one("go_memory_gc_pause_duration_seconds_count", **labels) == 2 * cycles
        paused = serving.one("go_memory_gc_pause_duration_seconds_sum", **labels)
        assert round(paused * 1e9) == sum(sum(each["PauseNs"][each["before"] : each["NumGC"]]) for each in own)
        for reason in COLLECTOR:
            assert serving.one("gotrace_stw_duration_seconds_count", **labels, reason=reason, part="total") == cycles
        assert sum(serving.values("gotrace_gc_triggers_total", **labels)) == cycles
        assert serving.one("gotrace_processes", **labels) == len(own)
        assert serving.one("gotrace_events_lost_total", **labels) == 0
        until(lambda labels=labels: not serving.values("go_config_gogc", **labels), 60)  # each has turned it off at its end
        assert serving.one("go_processor_limit", **labels) == os.cpu_count()

    def resident() -> list[list[int]]:
        """As /processes has it, and as /proc has it then."""
        told = {each["pid"]: each.get("rss_bytes") for each in json.loads(serving.get("/processes"))}
        texts = [Path(f"/proc/{each.pid}/status").read_text() for each in ours]
        own = [int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) * 1024 for text in texts]
        return [[told[each.pid] for each in ours], own]

    def is_the_same() -> bool:
        """Of one look of the agent's, after which none of them has given memory back."""
        (told, own), exported = resident(), sum(serving.values("process_memory_usage_bytes"))
        return resident() == [told, own] and told == pytest.approx(own, rel=0.05) and exported == sum(told)

    until(is_the_same, 30)
    told = {each["pid"]: each for each in json.loads(serving.get("/processes"))}
    for each, truth in zip(ours, truths, strict=True):
        assert told[each.pid]["cycles"] == truth["NumGC"] - truth["before"] and told[each.pid]["lost"] == 0
        of_it = json.loads(serving.get(f"/processes?pid={each.pid}"))
        sums = {part["reason"]: part["sum_ns"] for part in of_it["reasons"] if part["part"] == "total"}
        assert sum(sums[reason] for reason in COLLECTOR) == sum(truth["PauseNs"][truth["before"] : truth["NumGC"]])
        assert sum(sums.values()) == of_it["paused_ns"] and of_it["gomaxprocs"] == os.cpu_count()
    infos = [dict(has) for (name, has) in serving.samples() if name == "gotrace_target_info"]
    assert {(each["exe"], each["process_pid"]) for each in infos} == {
        (os.readlink(f"/proc/{each.pid}/exe"), str(each.pid)) for each in ours
    }
    for wrong, status in (("pid=1", "404"), ("pid=x", "400"), ("name=shop", "400")):
        with pytest.raises(urllib.error.HTTPError, match=status):
            serving.get(f"/processes?{wrong}")
    page = serving.get("/")
    assert "://" not in page and all(f"<td>{each.pid}</td>" in page for each in ours)
    assert [each.finish() for each in ours] == [0] * 3
    until(lambda: not serving.traced())
    until(lambda: sum(serving.values("gotrace_processes")) == 0)
    assert not serving.values("gotrace_target_info")
    assert sum(serving.values("gotrace_agent_detaches_total", reason="exited")) == 3
    serving.finish()


@pytest.mark.everywhere
def test_processes_come_go_and_execute_others(agent, program, start):
    """Found by their exec, not traced before their time; what they execute is another process of the agent's."""
    name = f"later{os.getpid()}"
    serving = agent("--select", f"name={name}", "--min-age", "1s")
    until(serving.is_ready)
    begin = time.monotonic()
    path = program(name)
    first = start(path, "-cycles", "50")
    until(lambda: serving.traced() == {first.pid})
    assert 1 <= time.monotonic() - begin < (60 if targets.EMULATED else 5)  # a scan of all comes only twice a minute
    execs = start(targets.build("execer"), "-cycles", "1", "-wait", str(path), "-cycles", "50")
    execs.go()
    assert execs.process.stdout.readline().startswith("collected")
    until(lambda: serving.traced() == {first.pid, execs.pid})
    for each in (first, execs):
        each.go()
        each.truth()
        assert each.finish() == 0
    until(lambda: not serving.traced())
    assert serving.one("go_memory_gc_cycles_total", service_name=name) >= 100
    serving.finish()


def test_who_costs_too_much_is_left_alone(program, start, tmp_path):
    """Judged by what a hit costs times their number, over a minute; here over a second, with a bound that nobody keeps."""
    name = f"dear{os.getpid()}"
    target = start(program(name), "-seconds", "8")
    settings = tmp_path / "agent.yaml"
    settings.write_text("schema: gotrace.agent/1\ncost_percent: 0.0000001\n")
    options = ["-f", str(settings), "--select", f"name={name}", "--min-age", "0s"]
    serving = Agent(*options, command=changed("agent._COST_S, agent._LEAST_COST_NS = 1, 0\n"))
    until(lambda: serving.traced() == {target.pid})
    target.go()
    until(lambda: serving.values("gotrace_agent_detaches_total"))
    (told,) = (each for each in json.loads(serving.get("/processes")) if each["pid"] == target.pid)
    assert told["state"] == "too expensive"
    settings.write_text("schema: gotrace.agent/1\ncost_percent: 100\n")  # more than before: it need not wait
    serving.process.send_signal(signal.SIGHUP)
    until(lambda: serving.traced() == {target.pid})
    assert target.truth()["NumGC"] > 0 and target.finish() == 0
    said = serving.finish()
    assert f"pid {target.pid} " in said and "of its CPU time; detached, next attempt in 10 minutes." in said


def test_a_hit_is_measured_again_before_that(program, start, tmp_path):
    """One that seemed to cost a thousand times as much, when the agent began: nobody is left alone for that."""
    name = f"cheap{os.getpid()}"
    target = start(program(name), "-seconds", "6")
    command = changed(
        "from gotrace import shared\n"
        "agent._COST_S, agent._LEAST_COST_NS = 1, 0\n"
        "measure, prices = shared.probe_cost_ns, [(1e6, 1e6)]\n"
        "shared.probe_cost_ns = lambda: prices.pop() if prices else measure()\n"
    )
    (tmp_path / "agent.yaml").write_text("schema: gotrace.agent/1\ncost_percent: 5\n")
    options = ["-f", str(tmp_path / "agent.yaml"), "--select", f"name={name}", "--min-age", "0s"]
    serving = Agent(*options, command=command)
    until(lambda: serving.traced() == {target.pid})
    target.go()
    assert target.truth()["NumGC"] > 0  # after 6 s
    (told,) = (each for each in json.loads(serving.get("/processes")) if each["pid"] == target.pid)
    cycles = serving.one("go_memory_gc_cycles_total", service_name=name)
    assert told["state"] == "traced" and cycles > 0
    assert told["cost_ns"] < 6 * cycles * 20_000  # 6 hits of a cycle
    assert not serving.values("gotrace_agent_detaches_total")
    assert target.finish() == 0 and "not traced" not in serving.finish()


def test_open_files_run_short(program, start):
    """Who finds no room waits for it, under its true reason; the agent goes on."""
    name = f"many{os.getpid()}"
    targets_ = [start(program(f"{name}-{number}")) for number in range(10)]
    limited = ["sh", "-c", 'ulimit -Sn 64; ulimit -Hn 200; exec "$@"', "sh"]
    command = changed("agent._NO_ROOM_S = 0.1\n")
    serving = Agent("--select", f"name={name}-*", "--min-age", "0s", through=limited, command=command)

    def told() -> dict[int, tuple[str, str]]:
        return {each["pid"]: (each["state"], each["reason"]) for each in json.loads(serving.get("/processes"))}

    waits = ("waits to be traced", "the limit on open files leaves no room for another process")
    until(lambda: waits in told().values(), 60)
    traced = serving.traced()
    assert 1 < len(traced) < 10 and len(os.listdir(f"/proc/{serving.process.pid}/fd")) > 64
    for target in sorted(targets_, key=lambda each: each.pid):  # the first leaves a hole in the table of descriptors
        if target.pid in traced:
            target.process.kill()
            until(lambda: len(serving.traced() - traced) > 0, 60)
    until(lambda: serving.traced() and not serving.traced() & traced, 60)
    assert not serving.values("gotrace_agent_attach_failures_total")
    assert serving.finish().count(f"Processes wait to be traced: {waits[1]}; raise it") == 1


def test_settings_that_are_wrong(gotrace, tmp_path):
    file = tmp_path / "agent.yaml"
    for text, said in (
        ("schema: gotrace.agent/2", "this gotrace reads `schema: gotrace.agent/1`"),
        ("schema: gotrace.agent/1\nlisten: nowhere", "invalid address"),
        ("schema: gotrace.agent/1\nselct: []", "selct"),
        ("schema: gotrace.agent/1\nselect: [colour=red]", "expected KEY=GLOB"),
        ("schema: gotrace.agent/1\nmin_age: soon", "invalid duration"),
        ("schema: gotrace.agent/1\nmin_age: 5", "min_age: 30s"),
    ):
        file.write_text(text)
        done = gotrace("serve", "-f", str(file), "--check")
        assert (done.returncode, done.stderr.count("\n")) == (2, 2) and said in done.stderr, text
    file.write_text("schema: gotrace.agent/1\nselect: ['name=api,namespace=shop']\nmin_age: 1m\nlisten: '[::1]:9464'\n")
    done = gotrace("serve", "-f", str(file), "--check")
    assert (done.returncode, done.stderr) == (0, "the configuration is valid\n")
    (tmp_path / "empty").touch()
    for line, code, said in (
        ("listen: 0.0.0.0:0", 2, "not a loopback address"),
        ("listen: nobody.invalid:1", 1, "cannot listen on nobody.invalid:1"),
        (f"token_file: {tmp_path}/none", 2, "cannot read the token"),
        (f"token_file: {tmp_path}/empty", 2, "has no token"),
        (f"tls_certificate: {tmp_path}/empty", 2, "cannot use the certificate"),
        ("otlp: collector:4318", 2, "invalid collector URL"),
        ("spool: /proc/x", 1, "cannot write the spool"),
        (f"spool: {tmp_path}/empty", 1, "cannot write the spool"),
    ):
        file.write_text(f"schema: gotrace.agent/1\n{line}\n")
        done = gotrace("serve", "-f", str(file), "--check")
        assert (done.returncode, done.stderr.count("\n")) == (code, 2) and said in done.stderr, line
    done = gotrace("serve", "--check", "--spool", str(tmp_path / "a" / "b"))
    assert done.returncode == 0 and not (tmp_path / "a").exists()
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        done = gotrace("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--select", "name=nobody")
    assert (done.returncode, done.stderr.count("\n")) == (1, 2)
    done = gotrace("serve", "--listen", "0.0.0.0:0")
    assert done.returncode == 2 and "hint" in done.stderr


def test_what_cannot_be_kept_is_no_success(gotrace, tmp_path):
    """Whoever prepares for an agent that may not compile hears of it then."""
    open_to_all = tmp_path / "compiled"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for folder in ("/proc/x", str(tmp_path)):
        done = gotrace("serve", "--prepare", env={**os.environ, "GOTRACE_CACHE": folder})
        assert (done.returncode, done.stderr.count("\n")) == (1, 2), done.stderr
        assert f"the compiled probes were not kept: the cache {folder}/compiled cannot be used" in done.stderr


def test_the_spool_survives(agent, program, start, tmp_path):
    """What it wrote at its end says what it exported; who is killed leaves what was written before."""
    name = f"spool{os.getpid()}"
    target = start(program(name), "-cycles", "100")
    folder = tmp_path / "spool"
    serving = agent("--select", f"name={name}", "--min-age", "0s", "--spool", str(folder))
    until(lambda: serving.traced() == {target.pid})
    target.go()
    target.truth()
    time.sleep(2.5)
    cycles = serving.one("go_memory_gc_cycles_total", service_name=name)
    assert "spool" not in serving.finish()
    (record,) = records_in(str(folder))
    counts = {(each["name"], *each["labels"].values()): each["count"] for each in record["histograms"]}
    assert (
        counts["go.memory.gc.pause.duration",] == 2 * cycles == 2 * counts["gotrace.gc.phase.duration", "concurrent mark"]
    )
    assert record["labels"]["service.name"] == name and record["worst"][0]["pid"] == target.pid
    longest = max(each["max_ns"] for each in record["histograms"] if each["labels"].get("part") == "total")
    assert record["worst"][0]["length_ns"] == longest
    again = agent("--select", f"name={name}", "--min-age", "0s", "--spool", str(folder))
    until(lambda: again.traced() == {target.pid})
    again.process.kill()
    assert list(records_in(str(folder))) == [record]
    full = agent("--select", f"name={name}", "--min-age", "0s", "--spool", str(folder), through=["prlimit", "--fsize=64"])
    until(lambda: full.traced() == {target.pid})
    assert "The spool cannot be written: File too large.\n" in full.finish()


def test_without_a_goal(agent, program, start):
    """With GOGC off no heap size is aimed at: the largest number that the runtime has is none."""
    name = f"goalless{os.getpid()}"
    target = start(program(name, program="lister"), env={"GOGC": "off"})
    serving = agent("--select", f"name={name}", "--min-age", "0s")
    until(lambda: serving.traced() == {target.pid})
    collected(target, 3)
    until(lambda: serving.values("gotrace_heap_live_bytes", service_name=name))
    assert not serving.values("go_memory_gc_goal_bytes", service_name=name)
    assert json.loads(serving.get(f"/processes?pid={target.pid}"))["heap_goal_bytes"] is None


def test_a_collector_that_comes_later_and_a_hangup(program, start):
    """What does not arrive is said once and counted. A service that has ended has no memory; what it counted stays."""
    name = f"pushed{os.getpid()}"
    target = start(program(name), "-cycles", "20")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as later:
        port = later.getsockname()[1]
    options = ["--select", f"name={name}", "--min-age", "0s", "--otlp", f"http://127.0.0.1:{port}"]
    serving = Agent(*options, through=["env", "OTEL_METRIC_EXPORT_INTERVAL=200"])
    until(lambda: serving.traced() == {target.pid})
    (told,) = (each for each in json.loads(serving.get("/processes")) if each["pid"] == target.pid)
    assert told["heap_live_bytes"] != 0 != told["heap_goal_bytes"]  # unknown is null
    serving.process.send_signal(signal.SIGHUP)
    until(lambda: sum(serving.values("gotrace_agent_otlp_failed_total")) > 1)
    target.go()
    target.truth()
    gauges = ("process_memory_usage_bytes", "gotrace_heap_live_bytes", "process_uptime_seconds", "go_processor_limit")
    until(lambda: all(serving.values(each, service_name=name) for each in gauges))
    cycles = serving.one("go_memory_gc_cycles_total", service_name=name)
    assert target.finish() == 0
    until(lambda: serving.values("gotrace_processes", service_name=name) == [0])
    assert not any(serving.values(each, service_name=name) for each in gauges)
    assert serving.one("go_memory_gc_cycles_total", service_name=name) >= cycles > 0
    start(program(name), "-cycles", "20")
    until(lambda: serving.values("gotrace_processes", service_name=name) == [1])
    until(lambda: len(serving.values("process_memory_usage_bytes", service_name=name)) == 1)
    with collecting(port) as collector:
        until(lambda: sum(serving.values("gotrace_agent_otlp_sent_total")) > 1)
        collector.answers += [(200, {}, rejecting(5, "too old"))] * 100
        until(lambda: sum(serving.values("gotrace_agent_otlp_rejected_total")) >= 50)  # two seconds of it
        said = serving.finish()
    at = f"the collector at 127.0.0.1:{port}"
    assert said.count(f"Metrics do not reach {at}: ConnectionRefusedError") == 1 and said.count("SIGHUP ignored: ") == 1
    assert f"Metrics reach {at} again.\n" in said and f"Metrics do not reach {at}: 5 points rejected: too old.\n" in said


@pytest.mark.started  # what it holds in memory is its own
def test_hundreds_that_come_and_go(agent, program):
    """Starts, ends, execs and kills, with scrapes all the time and a while in which the agent cannot run: nothing stays.

    Memory and descriptors are what they were after the first few, no series of a dead process is left, losses are counted.
    """
    name = f"soak{os.getpid()}"
    paths = [program(f"{name}-{version}", version) for version in ("1.19.8", "1.22.10", targets.NEWEST)]
    serving = agent("--select", f"name={name}-*", "--min-age", "0s")
    until(serving.is_ready)

    def wave(number: int, stopped: bool = False) -> None:
        running = []
        for each in range(12):
            path = str(paths[(number + each) % len(paths)])
            command = [path, "-cycles", "3", "-live", "1"]
            if each % 4 == 3:
                command = ["/bin/sh", "-c", 'read line; exec "$@"', "sh", *command]
            running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        for each, process in enumerate(running):
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n\n")
                process.stdin.flush()
            if each % 3 == 0:
                process.kill()
        time.sleep(0.4)  # of the others some are traced by then
        if not stopped:
            serving.samples()
        for process in running:
            process.communicate()

    def state() -> tuple[int, int]:
        status = Path(f"/proc/{serving.process.pid}/status").read_text()
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        return len(os.listdir(f"/proc/{serving.process.pid}/fd")), int(resident)

    for number in range(5):
        wave(number)
    until(lambda: not serving.traced())
    time.sleep(1)
    descriptors, resident = state()
    for number in range(20):
        wave(number)
        if number == 10:
            serving.process.send_signal(signal.SIGSTOP)
            wave(number, stopped=True)
            serving.process.send_signal(signal.SIGCONT)
    until(lambda: not serving.traced())
    time.sleep(1)
    assert state()[0] <= descriptors and state()[1] < resident + 2048
    assert not serving.values("gotrace_target_info") and sum(serving.values("gotrace_processes")) == 0
    attached = serving.one("gotrace_agent_attaches_total", service_name="gotrace")
    assert sum(serving.values("gotrace_agent_detaches_total")) == attached > 0
    assert "there is no process" not in serving.finish()


def test_who_is_asked_for_pods(tmp_path):
    """A server that answers as the API server does, and refuses later: told, counted, and no reason to end."""
    account = account_in(tmp_path)
    command = changed(
        "from gotrace.agent import pods; from gotrace.find import kubelet\n"
        f"pods._EVERY_S = 0.2, 0.2; kubelet.Kubelet.__init__.__defaults__ = ({str(account)!r}, 5.0)\n"
    )
    with serving(account) as server:
        at = [f"KUBERNETES_SERVICE_HOST={server.server_address[0]}", f"KUBERNETES_SERVICE_PORT={server.server_port}"]
        asking = Agent(command=["env", *at, "NODE_NAME=node-1", *command])
        until(asking.is_ready)
        until(lambda: asking.values("gotrace_agent_kubelet_up") == [1])
        assert not asking.values("gotrace_agent_kubelet_errors_total")
        assert server.asked[0] == ("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1", "Bearer secret")
        server.status = 403
        until(lambda: sum(asking.values("gotrace_agent_kubelet_errors_total", reason="403")) > 1)
        assert asking.one("gotrace_agent_kubelet_up") == 0
        server.status = 200
        until(lambda: asking.one("gotrace_agent_kubelet_up") == 1)
        said = asking.finish()
    assert said.count("Pod names unavailable: ") == 1 and "the service account is not allowed to get pods" in said

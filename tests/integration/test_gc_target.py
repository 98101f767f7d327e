"""The target is unharmed, whatever happens to it or to gotrace while it is traced."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import targets
from conftest import GOTRACE, until
from groundtruth import probed_code

pytestmark = pytest.mark.bpf


def lifecycle(*arguments):
    return [str(targets.build("lifecycle")), *arguments]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_output_and_exit_code_are_untouched(start, trace):
    plain = run(lifecycle("exit", "7"))
    assert plain[0] == 7
    target = start(*lifecycle("exit", "7"))
    tracer = trace("--pid", str(target.pid))
    out, _ = target.process.communicate(timeout=30)
    assert (target.process.returncode, out, target.stderr.read_text()) == plain
    assert tracer.finish() == 0
    summary = tracer.records[-1]
    assert summary["ended"] == "target exited" and summary["cycles"] > 10


@pytest.mark.everywhere
def test_launched_command(trace):
    """Everything from the first instruction: the very first cycle is seen, and the exit status passed on."""
    tracer = trace(command=tuple(lifecycle("exit", "7")))
    assert tracer.finish() == 7
    assert tracer.stdout == "begin\nend 4096\n"
    assert "GC mark termination" in tracer.stderr
    assert [record["cycle"] for record in tracer.of("cycle")][:3] == [1, 2, 3]
    assert all(record["trigger"] == "heap" for record in tracer.of("cycle"))


def test_launched_command_ends_with_the_tracing(trace):
    tracer = trace("--duration", "500ms", command=tuple(lifecycle("forever")))
    pid = int(tracer.head.split()[2])
    assert tracer.finish() == 0
    assert tracer.records[-1]["ended"] == "duration"
    assert not os.path.exists(f"/proc/{pid}")


def test_target_is_killed(start, trace):
    target = start(*lifecycle("forever"))
    tracer = trace("--pid", str(target.pid))
    time.sleep(0.7)
    target.process.kill()
    assert tracer.finish() == 0
    assert tracer.records[-1]["ended"] == "target exited" and tracer.records[-1]["cycles"] > 10


@pytest.mark.parametrize("other", ["/bin/sleep", "itself"])
def test_target_executes_another_program(other, start, trace):
    """Another program ends the tracing; the same one again starts from cycle 1 and is traced on."""
    program = lifecycle()[0]
    command = [program, "exit", "0"] if other == "itself" else [other, "20"]
    target = start(*lifecycle("exec", *command))
    tracer = trace("--pid", str(target.pid))
    assert tracer.finish() == 0
    if other == "itself":
        assert tracer.records[-1]["ended"] == "target exited"
    else:
        assert tracer.records[-1]["ended"] == "target executed another program"
        assert target.process.poll() is None


@pytest.mark.everywhere
@pytest.mark.thorough
def test_panicking_target(trace):
    plain = run(lifecycle("panic"))
    tracer = trace(command=tuple(lifecycle("panic")))
    assert tracer.finish() == plain[0] == 2
    assert "panic: as asked" in tracer.stderr


@pytest.mark.everywhere
@pytest.mark.thorough
def test_ctrl_c(start, trace):
    target = start(*lifecycle("forever"))
    tracer = trace("--pid", str(target.pid))
    time.sleep(0.5)
    tracer.interrupt()
    assert tracer.finish() == 0
    assert tracer.records[-1]["ended"] == "Ctrl-C"
    assert "GC sweep termination" in tracer.stdout
    assert target.process.poll() is None


@pytest.mark.everywhere
def test_killed_gotrace_leaves_nothing_behind(start, trace):
    """kill -9 in the middle: the target runs on, and its code is its own again (no breakpoint page stays)."""
    target = start(targets.build("gcload"), "-seconds", "4", "-workers", "2")
    target.go()
    for _ in range(3):
        tracer = trace("--pid", str(target.pid))
        time.sleep(0.3)
        tracer.process.send_signal(signal.SIGKILL)
        tracer.process.wait()
    target.truth()
    until(lambda: probed_code(target.pid, "mem") == probed_code(target.pid, "exe"), 10)
    assert target.finish() == 0


def test_many_attach_and_detach_rounds(start):
    """200 rounds under load: every one attaches, and the target neither notices nor keeps a breakpoint."""
    from gotrace import session
    from gotrace.kernel.process import Process
    from gotrace.probes import gc

    target = start(targets.build("gcload"), "-seconds", "100")
    target.go()
    received = 0
    for _ in range(200):
        with Process.open(target.pid) as process, session.opened([gc], process) as tracing:
            time.sleep(0.005)
            received += len(tracing.read())
            assert tracing.lost == 0
    assert received > 200
    assert target.process.poll() is None
    assert probed_code(target.pid, "mem") == probed_code(target.pid, "exe")


def test_kernels_without_links_for_uprobes(start, monkeypatch):
    """Before 6.10 the probes are perf events; they see the same, and go the same way."""
    from gotrace import session
    from gotrace.kernel import bpf
    from gotrace.kernel.process import Process
    from gotrace.probes import gc

    monkeypatch.setattr(bpf, "has_uprobe_multi", lambda: False)
    target = start(targets.build("gcload"), "-cycles", "200")
    with Process.open(target.pid) as process, session.opened([gc], process) as tracing:
        target.go()
        truth = target.truth()
        decoder = gc.decoder(tracing.header(0), tracing.static_text)
        pauses = decoder.feed(tracing.read()).pauses
    assert target.finish() == 0
    totals = {}
    for pause in pauses:
        totals[int(pause["cycle"])] = totals.get(int(pause["cycle"]), 0) + int(pause["total_ns"])
    last = truth["NumGC"]
    assert [totals[cycle] for cycle in range(last - 150, last + 1)] == [
        truth["PauseNs"][(cycle + 255) % 256] for cycle in range(last - 150, last + 1)
    ]


def test_two_tracers_on_one_target(start, trace):
    target = start(targets.build("gcload"), "-cycles", "300")
    tracers = [trace("--pid", str(target.pid)) for _ in range(2)]
    target.go()
    target.truth()
    target.finish()
    assert [tracer.finish() for tracer in tracers] == [0, 0]
    first, second = ([(p["monotonic_ns"], p["total_ns"]) for p in tracer.of("stw")] for tracer in tracers)
    assert len(first) > 600 and set(second) >= set(first[4:])


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (("-parked", "10000", "-cycles", "100"), {}),
        (("-cycles", "300"), {"GOMAXPROCS": "1"}),
        (("-cycles", "200", "-forced"), {}),
        (("-idle", "-seconds", "1"), {}),
    ],
    ids=["10000 goroutines", "one P", "runtime.GC in a loop", "never collects"],
)
def test_unusual_targets(arguments, env, start, trace):
    target = start(targets.build("gcload"), *arguments, env=env)
    tracer = trace("--pid", str(target.pid))
    target.go()
    truth = target.truth()
    assert target.finish() == 0
    assert tracer.finish() == 0
    pauses = {}
    for stop in tracer.of("stw"):
        if stop["cycle"] is not None:
            pauses[stop["cycle"]] = pauses.get(stop["cycle"], 0) + stop["total_ns"]
    last = truth["NumGC"]
    seen = [cycle for cycle in pauses if cycle > min(pauses) and cycle > last - 256]
    assert [pauses[cycle] for cycle in seen] == [truth["PauseNs"][(cycle + 255) % 256] for cycle in seen]
    assert last in pauses
    forced = sum(record["trigger"] == "forced" for record in tracer.of("cycle"))
    if "-forced" in arguments:
        assert forced >= 200
    assert tracer.records[-1]["events"]["lost"] == 0


def test_stopped_reader_loses_nothing_silently(start, trace):
    """The reader is stalled until the ring is full: what did not fit is counted, and the rest is whole."""
    target = start(targets.build("gcload"), "-cycles", "4500", "-live", "1", "-workers", "1")
    tracer = trace("--pid", str(target.pid))
    tracer.process.send_signal(signal.SIGSTOP)
    target.go()
    truth = target.truth()
    tracer.process.send_signal(signal.SIGCONT)
    target.finish()
    assert tracer.finish() == 0
    summary = tracer.records[-1]
    assert summary["events"]["lost"] > 0
    assert summary["events"]["received"] >= 16000
    assert truth["NumGC"] > 4500
    assert f"{summary['events']['lost']} lost" in tracer.stdout


def test_other_namespaces_and_a_deleted_executable(start, trace, tmp_path):
    """A target in its own pid and mount namespaces, its executable gone: /proc/PID/exe is enough."""
    program = tmp_path / "service"
    program.write_bytes(targets.build("lifecycle").read_bytes())
    program.chmod(0o755)
    target = start("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", str(program), "forever")

    def child():
        with open(f"/proc/{target.pid}/task/{target.pid}/children") as file:
            return file.read().split()

    until(child)
    until(lambda: "service" in os.readlink(f"/proc/{child()[0]}/exe"))
    program.unlink()
    tracer = trace("--pid", child()[0], "--duration", "1s")
    assert tracer.finish() == 0, tracer.stderr
    assert tracer.records[-1]["cycles"] > 10


def test_the_process_that_keeps_the_probes_is_killed(start, trace, gotrace, tmp_path):
    """An error, but what was seen is summed up and recorded, with the reason; the target runs on without probes."""
    target, path = start(targets.build("lifecycle"), "forever"), tmp_path / "run.gotrace"
    tracer = trace("--pid", str(target.pid), "-o", str(path))
    records = tracer.records_path
    until(lambda: records.exists() and '"type": "cycle"' in records.read_text())
    (keeper,) = Path(f"/proc/{tracer.process.pid}/task/{tracer.process.pid}/children").read_text().split()
    os.kill(int(keeper), signal.SIGKILL)
    assert tracer.finish() == 1
    why = "the process that holds the probes was killed (SIGKILL)"
    assert f"gotrace: {why}\n  hint: start again" in tracer.stderr and f"ended by: {why}" in tracer.stdout
    (summary,) = tracer.of("summary")
    assert summary["ended"] == why and summary["cycles"] == len(tracer.of("cycle")) > 0
    report = gotrace("report", str(path))
    assert report.returncode == 0 and report.stdout == tracer.stdout
    assert target.process.poll() is None


@pytest.mark.started  # with all that it imports then
def test_root_is_given_back(start, tmp_path):
    """Started through sudo, the process that stays is the caller's, and so are its files."""
    folder = tmp_path / "out"
    folder.mkdir()
    for path in (folder, *list(folder.parents)[:-1]):
        if path.stat().st_uid == 0 and Path(tempfile.gettempdir()) in path.parents:
            path.chmod(0o755)
    os.chown(folder, 65534, 65534)
    target = start(targets.build("returner"), "frees", "1000", "16", "10ms")
    environment = {**os.environ, "SUDO_UID": "65534", "SUDO_GID": "65534"}
    command = [*GOTRACE, "gc", "--pid", str(target.pid), "--advise", "-o", str(folder / "out.ndjson"), "-d", "1s"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    target.go()
    until(lambda: (folder / "out.ndjson").exists())
    with open(f"/proc/{process.pid}/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4 and int(status["CapEff"], 16) == 0
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert (folder / "out.ndjson").stat().st_uid == 65534
    assert " 0 lost" in out and "GC mark termination" in out and "faulted in again" in out

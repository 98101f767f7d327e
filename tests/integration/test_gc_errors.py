"""Bad input ends in one line of what is wrong, one of what to do, and the right exit status: never in a traceback."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import select
import subprocess
import sys
import time

import pytest

import targets
from conftest import GOTRACE, until

pytestmark = pytest.mark.bpf


def check(done, status, *words):
    """Two lines on stderr (message and hint), nothing on stdout."""
    assert done.returncode == status, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and lines[0].startswith("gotrace: ") and lines[1].startswith("  hint: "), done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert done.stdout == ""


@pytest.fixture
def sleeping(tmp_path):
    """sleeping(program) -> the pid of that program, running."""
    running = []

    def run(program, *arguments):
        process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        running.append(process)
        time.sleep(0.1)
        return process.pid

    yield run
    for process in running:
        process.kill()
        process.wait()


def test_no_such_process(gotrace):
    check(gotrace("gc", "--pid", "4194303"), 1, "no process with pid 4194303")


def test_no_process_id(gotrace):
    for pid in ("0", "-3", "12,x"):
        check(gotrace("gc", f"--pid={pid}"), 2, "is not a pid")


def test_kernel_thread(gotrace):
    check(gotrace("gc", "--pid", "2"), 1, "kernel thread")


def test_thread_of_a_process(gotrace, sleeping):
    pid = sleeping(targets.build("lifecycle"))
    until(lambda: len(os.listdir(f"/proc/{pid}/task")) > 1)
    thread = next(name for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid)
    check(gotrace("gc", "--pid", thread), 1, f"use --pid {pid}")


def test_zombie(gotrace):
    process = subprocess.Popen(["true"])
    time.sleep(0.2)
    check(gotrace("gc", "--pid", str(process.pid)), 1, "exited")
    process.wait()


def test_not_a_go_program(gotrace, sleeping):
    check(gotrace("gc", "--pid", str(sleeping("sleep", "30"))), 1, "not a Go program")
    done = gotrace("gc", "--", "sh", "-c", "exit 3")  # it might have executed one: it runs, and its status is its own
    assert done.returncode == 3 and "executed no Go program" in done.stderr


def test_command_that_does_not_exist(gotrace):
    check(gotrace("gc", "--", "/no/such/program"), 2, "No such file")


@pytest.mark.parametrize(
    "how", [["gc"], ["coldstart"], ["coldstart", "--exe", "PROGRAM"], ["coldstart", "--tree"]], ids=" ".join
)
def test_script_without_an_interpreter(how, gotrace, tmp_path):
    (tmp_path / "script").write_text("exec true\n")
    (tmp_path / "script").chmod(0o755)
    program = str(targets.build("lifecycle"))
    arguments = [program if each == "PROGRAM" else each for each in how]
    check(gotrace(*arguments, "--", str(tmp_path / "script")), 2, "neither a program nor a script", "#!/bin/sh")


@pytest.mark.parametrize("verb", ["gc", "coldstart"])
@pytest.mark.parametrize("size", [600, 5000, 200_000])
def test_command_that_is_truncated(verb, size, gotrace, tmp_path):
    """It is not run: the kernel would start it, only to kill it."""
    path = tmp_path / "program"
    path.write_bytes(targets.build("lifecycle").read_bytes()[:size])
    path.chmod(0o755)
    check(gotrace(verb, "--", str(path)), 1, f"{path} is truncated: it has {size:,} of at least ", "build or copy it again")


def test_neither_pid_nor_command(gotrace):
    check(gotrace("gc"), 2, "--pid")
    check(gotrace("gc", "--pid", "1", "--", "true"), 2, "--pid")


@pytest.mark.parametrize("wrong", ["10 parsecs", "s", "-5s", "1e999"])
def test_bad_duration(wrong, gotrace):
    check(gotrace("gc", "--pid", "1", f"--duration={wrong}"), 2, "--duration")


def test_unknown_words(gotrace):
    check(gotrace("gc", "--nonsense"), 2, "gotrace gc --help")
    check(gotrace("nonsense"), 2, "gotrace help")
    help_text = gotrace()
    assert help_text.returncode == 0 and "doctor" in help_text.stdout and help_text.stderr == ""


def test_output_exists(gotrace, tmp_path, sleeping):
    pid = str(sleeping(targets.build("lifecycle")))
    for option in ("-o", "--hlog", "--hgrm"):
        path = tmp_path / "there.txt"
        path.write_text("precious")
        check(gotrace("gc", "--pid", pid, "-d", "200ms", option, str(path)), 1, "exists", "--force")
        assert path.read_text() == "precious"
        assert gotrace("gc", "--pid", pid, "-d", "200ms", option, str(path), "--force").returncode == 0
        assert "precious" not in path.read_text()


def test_output_folder_does_not_exist(gotrace, tmp_path, sleeping):
    pid = str(sleeping(targets.build("lifecycle")))
    done = gotrace("gc", "--pid", pid, "-d", "200ms", "-o", str(tmp_path / "no" / "out.ndjson"))
    assert done.returncode == 1 and "cannot write" in done.stderr


def test_disk_full(gotrace, sleeping):
    pid = str(sleeping(targets.build("lifecycle")))
    done = gotrace("gc", "--pid", pid, "-d", "1s", "--format", "ndjson", "-o", "/dev/full", "--force")
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "GC mark termination" in done.stdout  # what was measured is not lost with the file


def test_reader_goes_away(sleeping):
    """`gotrace gc ... | head -1` ends quietly."""
    pid = str(sleeping(targets.build("lifecycle")))
    command = [*GOTRACE, "gc", "--pid", pid, "-d", "2s", "--format", "ndjson"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    error = process.stderr.read()
    assert "Traceback" not in error and "Exception" not in error
    assert process.wait(20) == 0


def test_reader_that_does_not_read(sleeping):
    """How long writing was blocked is told, for nothing was sampled in that time."""
    pid = str(sleeping(targets.build("lifecycle"), "forever"))
    command = [*GOTRACE, "gc", "--pid", pid, "-d", "1s", "--advise", "--format", "ndjson"]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # two cycles fill it
    until(lambda: select.select([process.stdout], [], [], 0)[0])
    time.sleep(2.5)
    stdout, stderr = process.communicate(timeout=30)
    took = time.monotonic() - began
    assert process.returncode == 0 and "Traceback" not in stderr, stderr
    told = re.search(r"writing output was blocked for ([\d.]+) s, and nothing was sampled", stderr)
    assert told and 2 <= float(told[1]) <= took
    advice = json.loads(stdout.splitlines()[-1])["advice"]
    assert f"samples from the {told[1]} s for which writing output was blocked" in advice["not_seen"]


def test_not_root(gotrace_as_nobody, sleeping):
    check(gotrace_as_nobody("gc", "--pid", str(sleeping(targets.build("lifecycle")))), 1, "root")


def test_other_architecture(gotrace, tmp_path):
    """A program for the other architecture, as far as it can be one's target here: by its file."""
    from gotrace.errors import TargetError
    from gotrace.probes import gc
    from gotrace.session import resolve

    other = {"amd64": "arm64", "arm64": "amd64"}[targets.HOST_ARCH]
    with pytest.raises(TargetError, match=f"for {other}, but this machine is {targets.HOST_ARCH}"):
        resolve(gc, {"": str(targets.build("lifecycle", arch=other))})


@pytest.mark.parametrize("size", [0, 1, 63, 64, 500, 5000, 200000])
def test_truncated_executable(size, tmp_path):
    from gotrace.errors import GotraceError
    from gotrace.probes import gc
    from gotrace.session import resolve

    path = tmp_path / "program"
    path.write_bytes(targets.build("lifecycle").read_bytes()[:size])
    with pytest.raises(GotraceError) as error:
        resolve(gc, {"": str(path)})
    assert error.value.message and error.value.hint


def test_executable_that_changes_after_it_was_resolved(sleeping, monkeypatch):
    """Probes go only where the running file has the very bytes that were resolved."""
    from gotrace import session
    from gotrace.errors import TargetError
    from gotrace.kernel.process import Process
    from gotrace.probes import gc

    real = session._prepared

    def prepared(modules, target, exe):
        [(plan, obj)] = real(modules, target, exe)
        wrong = dataclasses.replace(plan.points[0], code=b"\x90" * len(plan.points[0].code))
        return [(dataclasses.replace(plan, points=(wrong, *plan.points[1:])), obj)]

    monkeypatch.setattr(session, "_prepared", prepared)
    with Process.open(sleeping(targets.build("lifecycle"))) as process:
        with pytest.raises(TargetError, match="holds"), session.opened([gc], process):
            pass


def test_lockdown(tmp_path):
    from gotrace.errors import HostError
    from gotrace.kernel.host import require_tracing

    for path, text in (
        ("proc/self/status", "CapEff:\t000001ffffffffff\n"),
        ("sys/kernel/security/lockdown", "none integrity [confidentiality]\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    with pytest.raises(HostError, match="lockdown"):
        require_tracing(str(tmp_path))


def test_compiler_is_absent(monkeypatch):
    from gotrace.errors import HostError
    from gotrace.kernel import compiler

    monkeypatch.setattr(compiler, "BCC_FOLDERS", ())
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(HostError) as error:
        compiler.import_bcc()
    assert "apt-get install python3-bpfcc" in error.value.hint


def test_program_that_does_not_compile():
    """The compiler's whole output comes back from the child."""
    from gotrace.errors import LoadError
    from gotrace.kernel.child import Child
    from gotrace.kernel.compiler import compile_object

    with pytest.raises(LoadError) as error:
        Child(compile_object, "int broken(void *ctx) { return no_such_thing; }").result()
    assert "no_such_thing" in error.value.detail


def test_program_the_verifier_refuses():
    from gotrace.errors import LoadError
    from gotrace.kernel import bpf

    # r0 = *(u64 *)(r1 - 8); exit
    code = bytes.fromhex("79 10 f8 ff 00 00 00 00 95 00 00 00 00 00 00 00")
    with pytest.raises(LoadError) as error:
        bpf.load_program("refused", code)
    assert "R1" in error.value.detail or "invalid" in error.value.detail

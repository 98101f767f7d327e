"""`gotrace doctor`: every 'no' has its advice, and a target's lines agree with what `gotrace gc` would do with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import targets
from conftest import until

pytestmark = pytest.mark.bpf

# Like conftest's, but with all that a target needs. Another user may not be able to read this checkout or its
# interpreter: everything is imported before root is given up.
_DOCTOR_AS_NOBODY = """
import os, sys
from gotrace.cli import main
with open(os.devnull, "w") as sys.stdout:  # a first run imports whatever a run needs
    try:
        main.main(["doctor", "--format", "json", sys.argv[1]])
    except SystemExit:
        pass
sys.stdout = sys.__stdout__
from gotrace import probe
found = probe.stems()
probe.stems = lambda: found  # from a folder that may be root's only
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
main.main(["doctor", "--format", "json", *sys.argv[2:]])
"""


def doctor_as_nobody(*arguments, descriptors=()):
    """`gotrace doctor` without any privilege."""
    command = [sys.executable, "-c", _DOCTOR_AS_NOBODY, str(targets.build("lifecycle")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, pass_fds=descriptors)
    assert "Traceback" not in done.stderr and done.stdout, done.stderr
    return done


def described(done) -> dict[str, dict[str, dict[str, object]]]:
    """The checks by part and name; every 'no' must say what to do."""
    parts = {part: {check["name"]: check for check in checks} for part, checks in json.loads(done.stdout).items()}
    for checks in parts.values():
        for check in checks.values():
            assert check["fix"] or check["ok"] is not False, check
    bad = any(check["ok"] is False for checks in parts.values() for check in checks.values())
    assert done.returncode == (1 if bad else 0)
    return parts


def target_of(done) -> dict[str, dict[str, object]]:
    return described(done)["target"]


@pytest.mark.everywhere
def test_this_host(gotrace):
    host = described(gotrace("doctor", "--format", "json"))["host"]
    assert host["privileges"]["ok"] and host["uprobes"]["ok"] and host["BPF ring buffer"]["ok"] and host["BCC"]["ok"]
    lines = gotrace("doctor").stdout.splitlines()
    assert lines[0] == "host:" and len([line for line in lines if line.startswith("  [")]) == len(host)


@pytest.mark.everywhere
def test_hardware_events(gotrace):
    """Those the kernel lists are told and count; for any other there is a sentence, with or without a PMU."""
    from gotrace.kernel import pmu

    named = [word for event in pmu.events() for word in ("--event", event.name)]
    parts = described(gotrace("doctor", "--format", "json", *named, "--event", "no_such_event"))
    lines = {name: check for name, check in parts["host"].items() if name.startswith("hardware counters")}
    listed = [path.name for name in pmu.pmus() for path in Path("/sys/bus/event_source/devices", name, "events").iterdir()]
    for event in pmu.events():
        assert event.name in listed and event.name in str(lines[f"hardware counters ({event.pmu})"]["value"])
        assert parts["events"][event.name]["ok"], parts["events"]
    lacking = parts["events"]["no_such_event"]
    assert lacking["ok"] is False and "no_such_event" in str(lacking["value"]) and "rror" not in str(lacking["value"])
    if not pmu.events():
        assert "none on this machine" in str(lines["hardware counters"]["value"])
        return
    event = next(event for event in pmu.events() if event.name in ("cpu_cycles", "cpu-cycles"))
    with pmu.Counter(event) as counter:
        sum(range(1_000_000))
        cycles, enabled, running = counter.read()
    # a processor of 0.1 to 10 GHz (the emulated one has 1)
    assert 0 < running <= enabled and 0.1 < cycles / running < 10


@pytest.mark.everywhere
def test_numa_nodes(gotrace):
    nodes = [path for path in Path("/sys/devices/system/node").glob("node*") if path.name[4:].isdigit()]
    host = described(gotrace("doctor", "--format", "json"))["host"]
    assert host["NUMA nodes"]["value"] == str(len(nodes) or 1)
    if targets.EMULATED:
        assert len(nodes) == 2


def test_every_probe_is_told_as_it_would_be_placed(gotrace, start):
    """Symbol, address and instruction of each probe, the same for the file and the process."""
    from gotrace.probes import gc
    from gotrace.session import resolve

    program = targets.build("lifecycle")
    plan = resolve(gc, {"": str(program)})
    process = target_of(gotrace("doctor", "--pid", str(start(str(program), "forever").pid), "--format", "json"))
    file = target_of(gotrace("doctor", str(program), "--format", "json"))
    assert process.pop("process")["value"].endswith(str(program))
    assert process == file
    assert file["Go program"]["value"] == f"go{targets.NEWEST}, {targets.HOST_ARCH}"
    assert file["symbols"]["value"] == "stripped"
    for point in plan.points:
        assert str(file[f"gc: {point.name}"]["value"]).startswith(
            f"{point.symbol} at {point.address:#x}: {point.instruction}"
        )
    assert {name for name in file if name.startswith("gc: ")} == {
        f"gc: {item.name}" for item in (*plan.points, *plan.missing)
    }


def test_what_an_old_release_lacks(gotrace):
    """A feature that cannot be had is told with its reason, and is no failure."""
    done = gotrace("doctor", str(targets.build("lifecycle", "1.21.13")), "--format", "json")
    stopping = target_of(done)["gc: stopping"]
    assert stopping["ok"] is None and "missing: Go 1.21" in str(stopping["value"])


def test_books_that_can_be_read(gotrace):
    """What each command would do with the program; the linker has left out the profile that nobody reads."""
    for program, has_profile in (("hoarder", True), ("gcload", None)):
        found = target_of(gotrace("doctor", str(targets.build(program)), "--format", "json"))
        assert found["mem: the heap"]["ok"] and found["goroutines"]["ok"]
        profile = found["heap: the profile"]
        assert profile["ok"] is has_profile and (has_profile or "keeps no heap profile" in profile["value"])


@pytest.mark.parametrize(
    ("flavour", "symbols", "linking"),
    [
        ("default", "present", "fixed address, static"),
        ("pie-stripped", "stripped", "position-independent, dynamic: "),
        ("nosections", "stripped", "fixed address, static"),
    ],
)
def test_kinds_of_executables(flavour, symbols, linking, gotrace):
    found = target_of(gotrace("doctor", str(targets.build("lifecycle", flavour=flavour)), "--format", "json"))
    assert found["symbols"]["value"] == symbols
    assert str(found["linking"]["value"]).startswith(linking)


def test_another_architecture(gotrace):
    """Its facts are told all the same."""
    other = {"amd64": "arm64", "arm64": "amd64"}[targets.HOST_ARCH]
    done = gotrace("doctor", str(targets.build("lifecycle", arch=other)), "--format", "json")
    found = target_of(done)
    assert done.returncode == 1 and found["target"]["ok"] is False and "this machine is" in str(found["target"]["value"])
    assert other in str(found["Go program"]["value"]) and found["symbols"]["value"] == "stripped"


def test_container_with_a_deleted_executable(gotrace, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    program = targets.build("lifecycle")
    script = f"mount -t tmpfs none {inside} && cp {program} {inside}/hidden && exec {inside}/hidden forever"
    outer = subprocess.Popen(
        ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        until(
            lambda: children.read_text() and os.readlink(f"/proc/{children.read_text().split()[0]}/exe").endswith("hidden")
        )
        pid = children.read_text().split()[0]
        os.unlink(f"/proc/{pid}/root{inside}/hidden")
        done = gotrace("doctor", "--pid", pid, "--format", "json")
        assert done.returncode == 0
        assert str(target_of(done)["process"]["value"]) == f"{pid}, {inside}/hidden (deleted or replaced since it started)"
    finally:
        outer.kill()
        outer.wait()


def test_in_a_container_itself(start):
    """gotrace in a container with all capabilities: it works, for what runs beside it."""
    command = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "gotrace.cli", "doctor", "--format", "json"], capture_output=True, text=True
    )
    host = described(done)["host"]
    assert done.returncode == 0 and "container" in str(host["PID namespace"]["value"])


def test_root_of_a_user_namespace():
    """It looks like root and has every capability, but none over the kernel: `gc` and `doctor` both know."""
    become = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*become, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    inside = [*become, sys.executable, "-m", "gotrace.cli"]
    done = subprocess.run([*inside, "doctor", "--format", "json"], capture_output=True, text=True)
    host = described(done)["host"]
    assert done.returncode == 1 and host["privileges"]["ok"] is False
    done = subprocess.run(
        [*inside, "gc", "--", str(targets.build("lifecycle")), "exit", "0"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "user namespace" in done.stderr and "Traceback" not in done.stderr


def test_without_root(gotrace_as_nobody):
    """Most of it can be told to anybody; what only root may see is not called missing."""
    host = described(gotrace_as_nobody("doctor", "--format", "json"))["host"]
    assert host["privileges"]["ok"] is False and "sudo" in str(host["privileges"]["fix"])
    assert host["uprobes"]["ok"] is True
    assert "not mounted" not in str(host["tracefs"]["value"])


def test_without_root_on_a_file(tmp_path):
    """A file that anybody may read can be looked at by anybody, down to its probes."""
    program = tmp_path / "program"
    program.write_bytes(targets.build("lifecycle").read_bytes())
    program.chmod(0o755)
    descriptor = os.open(program, os.O_RDONLY)  # its folder may be root's only
    try:
        done = doctor_as_nobody(f"/dev/fd/{descriptor}", descriptors=[descriptor])
    finally:
        os.close(descriptor)
    found = target_of(done)
    assert found["Go program"]["ok"] and found["gc: restart begin"]["ok"] and "target" not in found


def test_without_root_on_somebody_elses_process(start):
    found = target_of(doctor_as_nobody("--pid", str(start(str(targets.build("lifecycle")), "forever").pid)))
    assert "permission denied inspecting" in str(found["target"]["value"]) and "sudo" in str(found["target"]["fix"])


@pytest.mark.parametrize(
    ("pid", "words"),
    [
        ("2", "is a kernel thread (kthreadd)"),
        ("4194303", "no process with pid"),
        ("99999999999999999999", "no process with pid"),
    ],
)
def test_no_target(pid, words, gotrace):
    """With root and without, in the same words."""
    if pid == "2" and "VmSize" in Path("/proc/2/status").read_text():
        pytest.skip("a container: process 2 is an ordinary one")
    for done in (gotrace("doctor", "--format", "json", "--pid", pid), doctor_as_nobody("--pid", pid)):
        found = target_of(done)["target"]
        assert found["ok"] is False and words in str(found["value"])


def test_huge_pid(gotrace):
    done = gotrace("gc", "--pid", "99999999999999999999")
    assert done.returncode == 1 and "there is no process with pid" in done.stderr


@pytest.mark.parametrize("path", ["/no/such/file", "/", "/dev/null", "/dev/zero", "/proc/self/status", "/bin/sh"])
def test_no_go_program(path, gotrace):
    found = target_of(gotrace("doctor", path, "--format", "json"))
    assert found["target"]["ok"] is False


def test_names_do_not_act_on_the_terminal(gotrace, tmp_path):
    evil = tmp_path / os.fsdecode(b"evil\x1b[2J\xff\xe2\x80\xae")
    done = gotrace("doctor", str(evil))
    assert done.returncode == 1 and "\x1b" not in done.stdout and "\u202e" not in done.stdout
    assert r"evil\x1b[2J\xff\u202e" in done.stdout


def test_usage(gotrace):
    for arguments in (("--pid", "1", "/bin/sh"), ("--format", "xml"), ("--nonsense",), ("--pid", "x")):
        done = gotrace("doctor", *arguments)
        assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 2

"""Targets that are no Go programs: a C program's own function and one of libc, through the same session and commands."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

import targets
from conftest import until
from gotrace import ebpf, probes, session
from gotrace.analysis.columns import Kinds
from gotrace.binary.program import Program
from gotrace.errors import TargetError
from gotrace.kernel.privileges import drop_to_caller, kernel_version
from gotrace.kernel.process import Process
from gotrace.probe import PlanBuilder, is_library
from gotrace.recording.reader import Recording

pytestmark = pytest.mark.bpf

FOLDER = str(targets.ROOT / "tests/testdata/probes")
OWN, LIBC = 10007, 5003  # primes: no other count comes to them by chance
ALL = ("calls", "asked")

# `gotrace` with the probes of these tests.
_COMMAND = f"""
from gotrace import ebpf, probes
ebpf.__path__.append({FOLDER!r}); probes.__path__.append({FOLDER!r})
from gotrace.cli.main import main
main()
"""
COMMAND = [sys.executable, "-c", _COMMAND]


@pytest.fixture
def modules():
    """The probes calls and asked, part of the packages as long as a test runs."""
    for package in (ebpf, probes):
        package.__path__.append(FOLDER)
    yield [importlib.import_module(f"gotrace.probes.{stem}") for stem in ALL]
    for package in (ebpf, probes):
        package.__path__.remove(FOLDER)
    for stem in ALL:
        sys.modules.pop(f"gotrace.probes.{stem}", None)
        vars(probes).pop(stem, None)


@pytest.fixture
def nested(modules):
    """The probe nested, for as long."""
    yield importlib.import_module("gotrace.probes.nested")
    sys.modules.pop("gotrace.probes.nested", None)
    vars(probes).pop("nested", None)


@pytest.fixture
def calls(start):
    target = start(targets.build("calls", flavour=targets.C), str(OWN), str(LIBC))
    until(lambda: "/libc" in Path(f"/proc/{target.pid}/maps").read_text())
    return target


def rows(events, module, kind):
    return Kinds(module.PROBE.header_kinds()).of(events, kind)


def points(header):
    return {point["name"]: point for point in header["probes"]["calls"]["points"]}


def check_events(events, header, truth, modules):
    """Every call is there once, with its arguments, at the address that the program itself tells."""
    own, libc, asked = (
        rows(events, module, kind)
        for module, kind in zip((modules[0], *modules), ("own_call", "libc_call", "asked"), strict=True)
    )
    assert (len(own), len(libc), len(asked)) == (truth["work"], truth["getppid"], truth["getppid"]) == (OWN, LIBC, LIBC)
    assert sorted(own["number"].tolist()) == list(range(OWN))
    assert np.array_equal(own["double_number"], 2 * own["number"])
    assert int(np.sum(own["number"] ^ own["double_number"])) == truth["sum"]
    assert len(set(own["tid"].tolist())) == 3
    biases = {"": header["target"]["bias"], **{each["path"]: each["bias"] for each in header["target"]["libraries"]}}
    for name, seen, at in (("own", own["pc"], truth["work_at"]), ("libc", libc["pc"], truth["getppid_at"])):
        point = points(header)[name]
        address = int(point["address"], 16) + biases[point["file"]]
        assert set(seen.tolist()) == {address} and address - at in (0, 4), name  # behind a mark for indirect branches


@pytest.mark.everywhere
def test_every_call(calls, modules):
    with Process.open(calls.pid) as process, session.opened(modules, process) as tracing:
        header = tracing.header(0)
        for _ in range(3):
            calls.go()
            truth = calls.truth()
            check_events(tracing.read(), header, truth, modules)
        assert tracing.lost == 0
        assert tracing.parts["calls"].hits == {"own_call": 3 * OWN, "libc_call": 3 * LIBC}
    assert header["target"]["go_version"] == "" and header["target"]["build_id"]
    (libc,) = header["target"]["libraries"]
    assert os.path.basename(libc["path"]).startswith("libc") and libc["build_id"] not in ("", header["target"]["build_id"])
    # and without probes it runs on, unseen
    calls.go()
    assert calls.truth()["work"] == OWN
    assert calls.finish() == 0


@pytest.mark.skipif(kernel_version() < (6, 2), reason="there a message within a message hangs (trace_printk_lock)")
def test_what_the_kernel_leaves_out_is_lost(calls, nested, monkeypatch):
    """It does not run a program that is at work on that CPU already, and counts that: so do we, from the beginning on."""
    with Process.open(calls.pid) as process, session.opened([nested], process) as tracing:
        calls.go()
        assert calls.truth()["work"] == OWN and tracing.lost == OWN
        tracing.begin()
        assert tracing.lost == 0
        calls.go()
        calls.truth()
        assert tracing.lost == OWN
        assert tracing.parts["nested"].hits == {"own_call": 2 * OWN, "on_tracepoint__bpf_trace_printk": 2 * OWN}
        child = os.fork()
        if not child:  # as whoever called sudo it is still to be seen
            monkeypatch.setenv("SUDO_UID", "65534")
            monkeypatch.setenv("SUDO_GID", "65534")
            try:
                os._exit(0 if drop_to_caller() and tracing.lost == OWN else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_from_the_cache(calls, modules, monkeypatch):
    """A second session disassembles nothing and compiles nothing."""
    with Process.open(calls.pid) as process:
        with session.opened(modules, process):
            pass
        monkeypatch.setattr("gotrace.made.Child", None)
        with session.opened(modules, process) as tracing:
            calls.go()
            truth = calls.truth()
            check_events(tracing.read(), tracing.header(0), truth, modules)


def test_recorded_and_read_again(calls, modules, tmp_path):
    """By the commands: `record`, then what the file says and `export`."""
    path = tmp_path / "calls.gotrace"
    options = ["record", "--pid", str(calls.pid), "--probes", "calls,asked", "-o", str(path)]
    process = subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True)
    told = process.stderr.readline()
    assert re.search(rf"Tracing pid {calls.pid} \(\S+/calls\)", told), told
    calls.go()
    truth = calls.truth()
    assert calls.finish() == 0
    assert "Traceback" not in process.communicate(timeout=60)[1] and process.returncode == 0
    with Recording.open(str(path)) as recording:
        events = np.concatenate([chunk.events for chunk in recording.chunks()])
        assert recording.lost == 0
        check_events(events, recording.header, truth, modules)
    done = subprocess.run(
        [*COMMAND, "export", str(path), "-o", "-", "--format", "ndjson"], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(line.get("number", 0) for line in lines) == OWN * (OWN - 1) // 2


def test_events_in_a_file_too(calls, tmp_path):
    """What is printed, line for line; a disk that is full ends it."""
    path = tmp_path / "events.ndjson"
    command = [*COMMAND, "calls", "--pid", str(calls.pid)]
    with subprocess.Popen([*command, "-o", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        tracer.stderr.readline()
        calls.go()
        truth = calls.truth()
        tracer.send_signal(signal.SIGINT)
        printed, said = tracer.communicate(timeout=60)
    assert tracer.returncode == 0 and f"wrote {path}" in said
    assert path.read_text() == printed and len(printed.splitlines()) == truth["work"] + truth["getppid"] + 1
    full = [*command, "-o", "/dev/full", "--format", "ndjson", "--force"]
    with subprocess.Popen(full, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        tracer.stderr.readline()
        calls.go()
        calls.truth()
        assert "cannot write /dev/full: No space left on device" in tracer.communicate(timeout=60)[1]
    assert tracer.returncode == 1


@pytest.mark.everywhere
@pytest.mark.thorough
def test_killed_and_nothing_stays(calls):
    """kill -9: the code of the program and of libc is its own again."""
    command = [*COMMAND, "calls", "--pid", str(calls.pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        tracer.stderr.readline()
        calls.go()
        truth = calls.truth()
        assert all(now != own for now, own in codes(calls.pid, truth))
        tracer.kill()
    until(lambda: all(now == own for now, own in codes(calls.pid, truth)))
    calls.go()
    assert calls.truth()["work"] == OWN and calls.finish() == 0


def codes(pid, truth):
    """(in memory, in the file) the 16 bytes from where each function begins."""
    found = []
    with Process.open(pid) as process, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for address in (truth["work_at"], truth["getppid_at"]):
            mapping = next(each for each in process.mappings() if each.begin <= address < each.end)
            with open(process.open_mapped(mapping), "rb") as file:
                own = os.pread(file.fileno(), 16, address - mapping.begin + mapping.offset)
            found.append((os.pread(memory.fileno(), 16, address), own))
    return found


def test_in_a_container(start, modules, tmp_path):
    """In a mount namespace, with a libc of its own at a path that nobody else has."""
    script = (
        f"mount -t tmpfs none {tmp_path} && mkdir {tmp_path}/own && cp $0 {tmp_path}/own/calls && cp $1 {tmp_path}/own/ &&"
        f" LD_LIBRARY_PATH={tmp_path}/own exec {tmp_path}/own/calls $2 $3"
    )
    libc = libc_of_our_own()
    program = targets.build("calls", flavour=targets.C)
    target = start("unshare", "--mount", "sh", "-c", script, program, libc, str(OWN), str(LIBC))
    until(lambda: os.readlink(f"/proc/{target.pid}/exe") == f"{tmp_path}/own/calls")
    until(lambda: f"{tmp_path}/own/libc" in Path(f"/proc/{target.pid}/maps").read_text())
    assert not os.path.exists(f"{tmp_path}/own")
    with Process.open(target.pid) as process, session.opened(modules, process) as tracing:
        target.go()
        truth = target.truth()
        check_events(tracing.read(), tracing.header(0), truth, modules)
        assert points(tracing.header(0))["libc"]["file"].startswith(f"{tmp_path}/own/libc")


@pytest.mark.parametrize("arch", [targets.HOST_ARCH] if targets.EMULATED else targets.CROSS_CC)
def test_plan(arch, modules):
    """For a machine of either kind, without running anything: where the symbol tables say, by pyelftools."""
    program = targets.build("calls", flavour=targets.C, arch=arch)
    compiler = [targets.CROSS_CC[arch], "-print-file-name=libc.so.6"]
    own = arch == targets.HOST_ARCH
    libc = libc_of_our_own() if own else subprocess.run(compiler, capture_output=True, text=True).stdout.strip()
    with Program.open(program, {libc: libc}) as opened:
        plan = modules[0].plan(opened)
    assert plan.arch == arch and not plan.missing and plan.go_version == ""
    assert [library.path for library in plan.libraries] == [libc]
    for point, path, name in zip(plan.points, (program, libc), ("work", "getppid"), strict=True):
        with open(path, "rb") as file:
            elf = ELFFile(file)
            table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
            (address,) = {symbol["st_value"] for symbol in table.get_symbol_by_name(name)}
            segment = next(
                each
                for each in elf.iter_segments("PT_LOAD")
                if each["p_vaddr"] <= address < each["p_vaddr"] + each["p_filesz"]
            )
            assert point.address - address in (0, 4) and point.symbol == name
            assert point.file_offset == point.address - segment["p_vaddr"] + segment["p_offset"]
            file.seek(point.file_offset)
            assert file.read(len(point.code)) == point.code


def libc_of_our_own():
    with Process.open(os.getpid()) as process:
        return next(os.path.realpath(each.path) for each in process.mappings() if is_library(each.path, "libc"))


@pytest.mark.parametrize(
    ("symbol", "library", "reason"),
    [
        ("nowhere", "", "is not a function of"),
        ("nowhere", "libc", "is not a function of"),
        ("strlen", "libc", "only chooses another function"),
        ("work", "libcuda", "has not loaded libcuda"),
    ],
)
def test_what_is_refused(symbol, library, reason, calls, modules, monkeypatch, tmp_path):
    """With the reason, and nothing is attached."""
    monkeypatch.setattr(modules[0], "plan", lambda program: planned(program, symbol, library))
    monkeypatch.setenv("GOTRACE_CACHE", str(tmp_path))
    opened = pytest.raises(TargetError, match=f"probed safely: .*{reason}")
    with Process.open(calls.pid) as process, opened, session.opened(modules[:1], process):
        pass


def planned(program, symbol, library):
    build = PlanBuilder(program)
    build.add_function("it", "own_call", symbol, library)
    return build.plan({})


@pytest.mark.everywhere
def test_goes_on_with_what_it_executes(start, tmp_path):
    """A shell that becomes another program, neither of them Go's: `gotrace PROBE` goes on with that."""
    program = targets.build("calls", flavour=targets.C)
    target = start("sh", "-c", "read line; exec $0 $1 $2", program, str(OWN), str(LIBC))
    command = [*COMMAND, "asked", "--pid", str(target.pid)]
    with open(tmp_path / "events", "w") as file:
        tracer = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True)
    assert "Tracing" in tracer.stderr.readline()
    target.go()
    assert f"executed {program}" in tracer.stderr.readline()
    target.go()
    assert target.truth()["getppid"] == LIBC and target.finish() == 0
    assert "Traceback" not in tracer.communicate(timeout=60)[1] and tracer.returncode == 0
    told = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert sum(each["type"] == "asked" and each["tid"] != target.pid for each in told) == LIBC
    assert [each["lost"] for each in told if each["type"] == "summary"] == [0, 0]

"""Several processes at once: each has its own numbers, bit for bit, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import targets
from conftest import GOTRACE, until
from gotrace.arch import host_arch
from gotrace.kernel import bpf
from gotrace.kernel.same_file import is_same_to_probes
from gotrace.probe import probe_module
from gotrace.shared import SharedProbes
from gotrace.views.gc import Gc
from groundtruth import check_against_runtime, gctrace

pytestmark = pytest.mark.bpf

# Two processes of one file, each loaded at an address of its own.
PROGRAMS = [("1.19.8", "stripped"), ("1.22.10", "stripped"), *[(targets.NEWEST, "pie-stripped")] * 2]


def of_process(tracer, pid):
    """What a run of several processes says of one of them."""
    return dataclasses.replace(tracer, records=[record for record in tracer.records if record["pid"] == pid])


@pytest.mark.everywhere
def test_each_has_its_own_numbers(load, start, trace):
    programs = [targets.build("gcload", version, flavour) for version, flavour in PROGRAMS]
    ours = [start(program, *load.collect(), env={"GODEBUG": "gctrace=1"}) for program in programs]
    other = start(programs[-1], *load.collect())  # of the same file, and not traced
    tracer = trace("--pid", ",".join(str(target.pid) for target in ours))
    for target in (*ours, other):
        target.go()
    truths = [target.truth() for target in ours]
    other.truth()
    assert [target.finish() for target in (*ours, other)] == [0] * 5
    assert tracer.finish() == 0, tracer.stderr
    for target, truth in zip(ours, truths, strict=True):
        own = of_process(tracer, target.pid)
        check_against_runtime(own, truth, gctrace(target.stderr.read_text()), load)
        assert own.records[0]["type"] == "start" and own.records[-1]["ended"] == "target exited"
        counted = own.records[-1]["cost"]["probe_hits"]
        assert counted >= len(own.of("stw")) and own.records[-1]["events"]["received"] >= len(own.of("stw"))
        assert f"pid {target.pid} (" in tracer.stdout  # a summary of its own
    assert {record["pid"] for record in tracer.records} == {target.pid for target in ours}


@pytest.fixture
def contained(start, tmp_path):
    """contained(image, container, ...) starts gcload of a folder as a container of it would: in an overlay of its own."""
    mount = 'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged" || exit'

    def run(image, container, arguments=(), before=":", **more):
        folder = tmp_path / container
        for name in ("upper", "work", "merged"):
            (folder / name).mkdir(parents=True)
        script = f'{mount}; cd "$2/merged"; {before}; shift 2; exec ./gcload "$@"'
        target = start(Path("unshare"), "-m", "sh", "-c", script, "sh", str(image), str(folder), *arguments, **more)
        until(lambda: os.readlink(f"/proc/{target.pid}/exe").endswith("gcload"))
        return target

    return run


@pytest.fixture
def image(tmp_path):
    """image(name) is a folder with gcload: copies have the same bytes, size and time, and are files of their own."""

    def made(name):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy2(targets.build("gcload"), folder)
        return folder

    return made


def test_containers_of_one_image(load, contained, image, trace):
    """One file to the kernel, whatever its numbers: a hit each. Equal files that are not one have probes of their own."""
    load = dataclasses.replace(load, collections=150)
    one, equal = image("one"), image("equal")
    begun = functools.partial(contained, arguments=load.collect(), env={"GODEBUG": "gctrace=1"})
    ours = [begun(one, f"container-{number}") for number in range(3)]
    ours += [begun(equal, "of-another-image"), begun(one, "copied", before="chmod 700 gcload")]
    tracer = trace("--pid", ",".join(str(target.pid) for target in ours))
    for target in ours:
        target.go()
    truths = [target.truth() for target in ours]
    assert [target.finish() for target in ours] == [0] * len(ours)
    assert tracer.finish() == 0, tracer.stderr
    for target, truth in zip(ours, truths, strict=True):
        own = of_process(tracer, target.pid)
        check_against_runtime(own, truth, gctrace(target.stderr.read_text()), load)
        # Two at each restart of the world, one when a cycle begins, one when it has swept.
        expected = 2 * len(own.of("stw")) + 2 * len(own.of("cycle"))
        assert own.records[-1]["cost"]["probe_hits"] == pytest.approx(expected, abs=12)  # those at the edges


def test_one_file_is_shown_and_not_guessed(tmp_path):
    """Equal files are two, though both have probes, as of two tracers; a file with a probe everywhere shows nothing."""
    code, *offsets = host_arch().calibration
    file, link, copy = (tmp_path / name for name in ("file", "link", "copy"))
    file.write_bytes(code.ljust(mmap.PAGESIZE, b"\0"))
    link.hardlink_to(file)
    shutil.copy2(file, copy)
    with contextlib.ExitStack() as stack:
        opened = [os.open(path, os.O_RDONLY) for path in (file, link, copy)]
        program = bpf.load_program("test", bpf.RETURN_ZERO)
        for each in (*opened, program):
            stack.callback(os.close, each)

        def attach(number: int, offset: int) -> None:
            stack.callback(os.close, bpf.attach_uprobe(program, f"/proc/self/fd/{opened[number]}", offset))

        def same(number: int) -> bool:
            return is_same_to_probes(opened[0], opened[number], offsets[0], offsets)

        assert not same(1)  # the probe that there has to be is not there
        attach(0, offsets[0])
        assert same(1) and not same(2)
        attach(2, offsets[0])
        assert same(1) and not same(2)
        attach(1, offsets[1])
        assert not same(1)


def test_a_running_file_that_was_copied_meanwhile(contained, image, gotrace):
    """What is at its path is another file now, in which no probe would ever be hit: refused, and not silently."""
    target = contained(image("one"), "container", ["-seconds", "5"])
    other = contained(image("two"), "other", ["-seconds", "5"])
    os.chmod(f"/proc/{target.pid}/root/{os.readlink(f'/proc/{target.pid}/exe')}", 0o700)
    done = gotrace("gc", "--pid", f"{other.pid},{target.pid}", "-d", "1s")
    assert (done.returncode, done.stderr.count("\n")) == (1, 2), done.stderr
    assert f"process {target.pid} runs a different file from the one now at its path" in done.stderr


@pytest.mark.parametrize("options", [[], ["-thread"]], ids=["first-thread", "another-thread"])
def test_an_exec_is_an_end_and_a_beginning(options, start, trace, load):
    """The settings of a process go before the first instruction of what it executes, be that a file that has probes."""
    program = targets.build("gcload")
    stays = start(program, *load.collect(), env={"GODEBUG": "gctrace=1"})
    execs = start(targets.build("execer"), "-cycles", "10", "-wait", *options, str(program), "-cycles", "50")
    tracer = trace("--pid", f"{stays.pid},{execs.pid}")
    execs.go()
    assert execs.process.stdout.readline() == "collected 10\n"
    until(lambda: "gcload" in os.readlink(f"/proc/{execs.pid}/exe"))
    time.sleep(0.5)  # until it is traced again: whatever it does before it is asked to go on is not of this test
    for target in (execs, stays):
        target.go()
    truth = stays.truth()
    execs.truth()
    assert [target.finish() for target in (stays, execs)] == [0, 0] and tracer.finish() == 0, tracer.stderr
    check_against_runtime(of_process(tracer, stays.pid), truth, gctrace(stays.stderr.read_text()), load)
    own = of_process(tracer, execs.pid).records
    summaries = [record for record in own if record["type"] == "summary"]
    assert [summary["ended"] for summary in summaries] == ["target executed another program", "target exited"]
    first, second = own[: own.index(summaries[0])], own[own.index(summaries[0]) + 1 :]
    assert first[0]["exe"].endswith("execer") and second[0]["exe"].endswith("gcload")
    assert sum(record["type"] == "cycle" for record in first) == 10 == summaries[0]["cycles"]
    assert 50 <= sum(record["type"] == "cycle" for record in second) == summaries[1]["cycles"]


def test_what_was_executed_before_is_no_end(start):
    """A program that starts between two readings of the ring, and is found: what it executed is what is traced."""
    with SharedProbes.opened([probe_module("gc")]) as probes:
        target = start(targets.build("gcload"), "-seconds", "1")
        until(lambda: len(os.listdir(f"/proc/{target.pid}/task")) > 1)  # its main function, long after its exec
        session = probes.add(target.pid)
        assert target.pid in probes.read() and not session.executed_ns
        target.go()
        target.truth()


def test_files_of_each(start, gotrace, tmp_path):
    """A recording and histograms of each, which say what the summaries say; nothing is overwritten."""
    targets_ = [start(targets.build("gcload"), "-seconds", "1.5") for _ in range(2)]
    for target in targets_:
        target.go()
    files = [tmp_path / name for name in ("run.gotrace", "run.hgrm", "all.ndjson")]
    pids = ",".join(str(target.pid) for target in targets_)
    command = ["gc", "--pid", pids, "-d", "1s", *(word for file in files for word in ("-o", str(file)))]
    done = gotrace(*command)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in files[2].read_text().splitlines()]
    for target in targets_:
        (summary,) = (each for each in records if each["type"] == "summary" and each["pid"] == target.pid)
        replayed = json.loads(gotrace("report", str(tmp_path / f"run.{target.pid}.gotrace"), "--format", "json").stdout)
        assert {**replayed[-1], "pid": target.pid} == summary
        assert (tmp_path / f"run.{target.pid}.hgrm").read_text().count("#[Mean") >= len(summary["pauses"])
        target.truth()
    assert {record["pid"] for record in records} == {target.pid for target in targets_}
    again = gotrace(*command)
    assert again.returncode == 1 and "already exists" in again.stderr


def test_time_counts_for_all_from_one_moment(start):
    """However long it takes to set the probes of each: here half a second, of which the command asks for one."""
    targets_ = [start(targets.build("gcload"), "-seconds", "8") for _ in range(3)]
    for target in targets_:
        target.go()
    code = (
        "import sys, time; from gotrace.cli.main import main; from gotrace.shared import SharedProbes\n"
        "add = SharedProbes.add\n"
        "SharedProbes.add = lambda *words: (time.sleep(0.5), add(*words))[1]\n"
        "main(sys.argv[1:])"
    )
    pids = ",".join(str(target.pid) for target in targets_)
    command = [sys.executable, "-c", code, "gc", "--pid", pids, "-d", "1s", "--format", "ndjson"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lasted = [each["duration_ns"] for each in map(json.loads, done.stdout.splitlines()) if each["type"] == "summary"]
    assert len(lasted) == 3 and min(lasted) >= 1e9 and max(lasted) - min(lasted) < 0.1e9


def test_those_that_end_at_once_are_summed_up_below_one_table(start):
    """Their last lines have one heading; who ends before has its summary in between, and then there is another."""
    early, *late = (start(targets.build("lifecycle"), "forever") for _ in range(3))
    pids = ",".join(str(target.pid) for target in (early, *late))
    command = [*GOTRACE, "gc", "--pid", pids, "-d", "3s"]
    tracer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    heading = tracer.stdout.readline()
    early.process.kill()
    rest, errors = tracer.communicate(timeout=60)
    assert tracer.returncode == 0, errors
    lines = [line.split()[0] for line in (heading + rest).splitlines() if re.match(r" *time  +pid  |pid \d+ \(", line)]
    assert lines == ["time", "pid", "time", "pid", "pid"]


def test_who_cannot_be_traced_and_who_is_not_there(start, gotrace):
    """The others are traced, and the exit status says that not all were."""
    target, gone = start(targets.build("gcload"), "-seconds", "1"), 2**22 - 3
    for pid, said in ((os.getpid(), "is not a Go program"), (gone, "there is no process with pid")):
        done = gotrace("gc", "--pid", f"{target.pid},{pid}", "-d", "300ms", "--format", "ndjson")
        assert done.returncode == 1 and re.search(rf"pid {pid} cannot be traced: .*{said}", done.stderr), done.stderr
        assert {json.loads(line)["pid"] for line in done.stdout.splitlines()} == {target.pid}
    done = gotrace("gc", "--pid", f"{os.getpid()},{gone}", "-d", "300ms")
    assert done.returncode == 1 and "none of these processes can be traced" in done.stderr


@pytest.mark.alone
def test_each_is_explained(start, trace):
    """Two releases at once: what lengthened the stops of one is not what lengthened those of the other."""
    planted = {"memclr": targets.build("planted"), "loop": targets.build("planted", "1.22.10")}
    both = {mode: start(path, mode, "2", env={"GODEBUG": "asyncpreemptoff=1"}) for mode, path in planted.items()}
    tracer = trace("--pid", ",".join(str(each.pid) for each in both.values()), "--explain", "--top", "1000")
    for target in both.values():
        target.go()
    for target in both.values():
        target.truth()
        assert target.finish() == 0
    assert tracer.finish() == 0, tracer.stderr
    functions = {"memclr": "runtime.memclrNoHeapPointers", "loop": "main.callFree"}
    for mode, target in both.items():
        own = of_process(tracer, target.pid).records
        assert own[-1]["events"]["lost"] == 0
        of = {record["monotonic_ns"]: record for record in own if record["type"] == "stw"}
        long = [each for each in own if each["type"] == "explained" and each["total_ns"] >= 1_000_000]
        assert len(long) > 10
        for each in long:
            assert sum(sum(part.values()) for part in each["parts"].values()) == each["length_ns"]
            assert each["total_ns"] == of[each["monotonic_ns"]]["total_ns"]
        named = {name for each in long for code in each["code"]["stopping"].values() for name in code}
        (other,) = functions.keys() - {mode}
        assert functions[mode] in named and functions[other] not in named
        # nearly all of what kept the world from stopping is known
        unknown = sum(each["parts"]["stopping"].get("unknown", 0) for each in long)
        assert unknown < 0.05 * sum(each["length_ns"] for each in long)


def test_each_is_advised_as_far_as_its_probes_can_be_shared(start, gotrace):
    targets_ = [start(targets.build("lifecycle"), "forever") for _ in range(2)]
    pids = ",".join(str(target.pid) for target in targets_)
    done = gotrace("gc", "--pid", pids, "--advise", "-d", "1s", "--format", "ndjson")
    assert done.returncode == 0, done.stderr
    records = map(json.loads, done.stdout.splitlines())
    advised = [each["advice"]["not_seen"] for each in records if each["type"] == "summary"]
    assert len(advised) == 2 and Gc.of_one == {"refaults"}
    for not_seen in advised:
        assert "page faults of returned memory" in not_seen
        assert "which pools are filled again after collections" not in not_seen


def test_nothing_stays_when_it_is_killed(start, trace):
    """A hit costs what it cost before, for no probe is left: the kernel removes them with the last descriptor."""
    program = targets.build("gcload")
    both = [start(program, "-seconds", "4") for _ in range(2)]
    tracer = trace("--pid", ",".join(str(target.pid) for target in both))
    for target in both:
        target.go()
    time.sleep(0.5)
    tracer.process.send_signal(signal.SIGKILL)
    tracer.process.wait()
    assert [target.truth()["NumGC"] > 0 for target in both] == [True, True]
    assert [target.finish() for target in both] == [0, 0]


def test_every_process_and_those_that_come(start, trace):
    """One that is there, and one that begins when everything is in place: both are traced, and told."""
    program = targets.build("gcload")
    there = start(program, "-cycles", "200")
    tracer = trace("--all-processes")
    comes = start(program, "-cycles", "200")
    heard = tracer.process.stderr.readline()
    while f"Tracing pid {comes.pid} (" not in heard:
        heard = tracer.process.stderr.readline()
    truths = []
    for target in (there, comes):
        target.go()
        truths.append(target.truth())
        assert target.finish() == 0
    time.sleep(1)
    tracer.interrupt()
    assert tracer.finish() == 0
    for target, truth in zip((there, comes), truths, strict=True):
        own = of_process(tracer, target.pid).records
        (summary,) = (each for each in own if each["type"] == "summary")
        assert summary["ended"] == "target exited" and 0 <= truth["NumGC"] - summary["cycles"] <= 2

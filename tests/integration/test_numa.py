"""Placement over memory nodes: what was planted is what is found."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, until
from gotrace import session
from gotrace.errors import HostError
from gotrace.kernel import bpf, numa
from gotrace.kernel.process import Process
from gotrace.probes import faults
from services import remove_podmans_groups

pytestmark = pytest.mark.bpf

MIB = 40
PS = 3
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}[platform.machine()]
DEFAULT, PREFERRED, BIND, INTERLEAVE = 0, 1, 2, 3  # include/uapi/linux/mempolicy.h


def planted(cpus, policy, nodes):
    """What a child does before it executes: as numactl would."""

    def plant():
        os.sched_setaffinity(0, cpus)
        mask = ctypes.c_ulong(sum(1 << node for node in nodes))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(_SET_MEMPOLICY, policy, ctypes.byref(mask) if nodes else None, 8 * bool(nodes)):
            raise OSError(ctypes.get_errno(), "set_mempolicy")

    return plant


def watch(plant=None, mib=MIB, seconds="4s", options=()):
    """`gotrace numa` on a program that touches ``mib`` of memory meanwhile, and its numa_maps.

    Again where the kernel has left events out, which is said.
    """
    for _ in range(3):
        found, maps = _watch(plant, mib, seconds, options)
        if not found["lost"]:
            break
    assert found["lost"] == 0
    return found, maps


def _watch(plant, mib, seconds, options):
    program = targets.build("shapes")
    with subprocess.Popen(
        [program, "touch", str(mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=plant
    ) as target:
        command = [*GOTRACE, "numa", "--pid", str(target.pid), "-d", seconds, "--format", "ndjson", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
            line = tracer.stderr.readline()
            assert line.startswith("Tracing"), line + tracer.stderr.read()
            target.stdin.write(b"\n")
            target.stdin.flush()
            out, err = tracer.communicate(timeout=PATIENCE_S)
            assert tracer.returncode == 0, err
        with open(f"/proc/{target.pid}/numa_maps") as file:
            maps = file.read()
        target.kill()
    return json.loads(out), maps


@contextlib.contextmanager
def loaded(plant=None, version=targets.NEWEST, flavour="stripped", **more):
    """gcload at work on ``PS`` Ps; ``more`` for its environment."""
    command = [targets.build("gcload", version, flavour), "-seconds", "300", "-live", str(MIB)]
    environment = {**os.environ, "GOMAXPROCS": str(PS), **more}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, preexec_fn=plant
    ) as target:
        try:
            target.stdin.write(b"\n")
            target.stdin.flush()
            yield target
        finally:
            target.kill()


def look(target, seconds="4s", begun=lambda: None):
    """The record of `gotrace numa`; ``begun`` is called when it has begun to trace."""
    command = [*GOTRACE, "numa", "--pid", str(target.pid), "-d", seconds, "--format", "ndjson"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        said = tracer.stderr.readline()
        begun()
        out, rest = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0, said + rest
    return json.loads(out)


def in_use(found):
    """The bytes of spans in use, on all nodes."""
    return sum(found["memory"]["spans in use"].values())


def bind(target, cpus):
    for tid in os.listdir(f"/proc/{target.pid}/task"):
        os.sched_setaffinity(int(tid), cpus)


def cpus_of(node):
    return {cpu for cpu, of in numa.topology().cpus.items() if of == node}


@pytest.fixture
def balance():
    """balance(True) switches automatic balancing on; afterwards it is as it was."""
    setting = "/proc/sys/kernel/numa_balancing"
    if numa.balancing() is None:
        pytest.skip("this kernel has no automatic balancing")

    def switch(to):
        with open(setting, "w") as file:
            file.write(str(int(to)))

    remove_podmans_groups()
    before = numa.balancing()
    yield switch
    switch(before)


def hinting_faults():
    """The whole machine's."""
    with open("/proc/vmstat") as file:
        return int(dict(line.split() for line in file)["numa_hint_faults"])


def pages(maps, node):
    """What numa_maps counts on a node, in bytes."""
    total = 0
    for line in maps.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        total += int(words.get(f"N{node}", 0)) * (int(words.get("kernelpagesize_kB", 4)) << 10)
    return total


def touched(found, row, column):
    """The share of the faults that were taken on one node for a page of another."""
    counts = found["faults"]["counts"]
    return counts[row][column] / max(1, sum(map(sum, counts)) - sum(row[-1] for row in counts))


@pytest.mark.everywhere
def test_faults_and_memory_are_counted():
    found, maps = watch()
    page = os.sysconf("SC_PAGE_SIZE")
    faults = sum(map(sum, found["faults"]["counts"]))
    huge = "[always]" in open("/sys/kernel/mm/transparent_hugepage/enabled").read()
    assert faults >= (MIB << 20) // page if not huge else faults > 20
    spans = in_use(found)
    assert spans >= MIB << 20
    for node in found["nodes"]:
        # numa_maps counts each huge page's pages, and no zero page
        assert node["bytes"] == pytest.approx(pages(maps, node["node"]), rel=0.02, abs=2 << 20)
    assert sum(node["ran_ns"] for node in found["nodes"]) > 0


def test_one_node_says_so(gotrace):
    if len(numa.topology().nodes) > 1:
        pytest.skip("this machine has several memory nodes")
    with subprocess.Popen([targets.build("shapes"), "live", "10"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as target:
        target.stdout.readline()
        done = gotrace("numa", "--pid", str(target.pid), "-d", "500ms")
        target.kill()
    assert done.returncode == 0 and "one memory node" in done.stdout
    assert "node 0" in done.stdout and "spans in use" in done.stdout


@pytest.mark.everywhere
@pytest.mark.thorough
def test_a_target_that_exits(gotrace, tmp_path):
    """Where its memory was is known all the same, and from when; nothing is advised about what is gone."""
    path = str(tmp_path / "x.gotrace")
    command = [*GOTRACE, "numa", "--pid", "PID", "-d", "60s", "-o", path]
    with loaded() as target:
        command[command.index("PID")] = str(target.pid)
        until(lambda: in_use(look(target, "1s")) > MIB << 20, PATIENCE_S)  # it has all that it keeps, and is known
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr.readline().startswith("Tracing")
            maps = []  # while it works: what it has grows and is given back all the time
            end = time.monotonic() + (8 if targets.EMULATED else 3)
            while time.monotonic() < end:
                maps.append((time.monotonic(), Path(f"/proc/{target.pid}/numa_maps").read_text()))
                time.sleep(0.5 if targets.EMULATED else 0.02)
            killed = time.monotonic()
            target.kill()
            out, err = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0, err
    assert gotrace("report", path).stdout == out
    found = json.loads(gotrace("report", path, "--format", "ndjson").stdout)
    assert 0 < found["memory_age_ns"] < found["watched_ns"]
    assert re.search(r"^The location of its memory was read .* before it ended\.$", out, re.MULTILINE), out
    looked = killed - found["memory_age_ns"] / 1e9
    near = [text for at, text in maps if abs(at - looked) < 2]
    for node in found["nodes"]:
        sizes = [pages(text, node["node"]) for text in near]
        assert 0.95 * min(sizes) - (2 << 20) <= node["bytes"] <= 1.05 * max(sizes) + (2 << 20)
    # how much of it is in use at that moment only the program knows
    assert found["policies"] and in_use(found) > MIB << 19
    assert [node["node"] for node in found["nodes"]] == list(numa.topology().nodes)
    one_node = len(found["nodes"]) == 1
    assert ("every access is local" in out) == one_node
    assert not one_node or not found["advice"]
    assert not one_node or not any(row[-1] for row in found["faults"]["counts"])


def test_a_target_that_exits_at_once():
    """Before anything could be asked of it: what is unknown is no 0, and the machine is still the same."""
    with subprocess.Popen([targets.build("shapes"), "live", "5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as target:
        target.stdout.readline()
        command = [*GOTRACE, "numa", "--pid", str(target.pid), "-d", "60s", "--format", "ndjson"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr.readline().startswith("Tracing")
            target.kill()
            out, err = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0, err
    found = json.loads(out)
    machine = numa.topology()
    assert {node["node"]: node["cpus"] for node in found["nodes"]} == {
        number: sorted(cpu for cpu, of in machine.cpus.items() if of == number) for number in machine.nodes
    }
    unknown = found["memory_age_ns"] is None
    assert all((node["bytes"] is None) == unknown for node in found["nodes"])
    assert bool(found["memory"]) != unknown and not found["advice"]


@pytest.mark.everywhere
@pytest.mark.thorough
def test_series_and_its_recording(gotrace, tmp_path):
    """A line and a record a second, which a recording tells again."""
    path = str(tmp_path / "x.gotrace")
    with loaded() as target:
        done = gotrace("numa", "--pid", str(target.pid), "-d", "3s", "-i", "1s", "-o", path)
    assert done.returncode == 0, done.stderr
    assert gotrace("report", path).stdout == done.stdout
    *intervals, found = map(json.loads, gotrace("report", path, "--format", "ndjson").stdout.splitlines())
    assert len(re.findall(r"(?m)^\d\d:\d\d:\d\d ", done.stdout)) == len(intervals)
    assert found["type"] == "numa" and {each["type"] for each in intervals} == {"numa_interval"}
    # in the emulated machine numa_maps takes longer than it may
    assert found["missing"].keys() <= ({"bytes"} if targets.EMULATED else set()) and found["lost"] == 0
    series = found["series"]
    assert len(series) == len(intervals) >= (1 if targets.EMULATED else 3)
    for sample, interval in zip(series, intervals, strict=True):
        assert sum(sample["ps"].values()) + sample["ps_idle"] == PS
        assert sum(sample["threads"].values()) > 0
        assert all(interval[name] == sample[name] for name in ("time", "ps", "ps_idle"))
    sizes = [sum(sample["bytes"].values()) for sample in series if "bytes" in sample]
    assert sizes and max(sizes) > MIB << 20 and (len(sizes) == len(series) or "bytes" in found["missing"])
    assert sum(sum(each["faults"].values()) for each in intervals) == sum(map(sum, found["faults"]["counts"]))
    for name in ("hinting_faults", "threads_moved", "pages_moved"):
        assert sum(each[name] for each in intervals) == found[name]
    for node in found["nodes"]:
        assert sum(each["ran_ns"][str(node["node"])] for each in intervals) == node["ran_ns"]
    assert sum(each["length_ns"] for each in intervals) == found["watched_ns"]


@pytest.mark.parametrize("build", [*targets.MATRIX, f"{targets.NEWEST} pie"])
def test_ps_of_every_release(build):
    with loaded(None, *build.split()) as target:
        found = look(target, "1s")
    assert found["missing"] == {}
    for sample in found["series"]:
        assert sum(sample["ps"].values()) + sample["ps_idle"] == PS
    assert any(sum(sample["ps"].values()) for sample in found["series"])


def test_threads_in_a_container():
    """Threads are found by the number that they have there."""
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]) as outside:
        children = f"/proc/{outside.pid}/task/{outside.pid}/children"
        until(lambda: open(children).read())
        inside = int(open(children).read())
        found = numa.cpus_of_threads(inside, {1, inside})
        outside.kill()
    assert list(found) == [1]


def test_kernel_that_cannot_tell_of_balancing(monkeypatch):
    """What it cannot tell is left out; nothing else may be."""
    attach, refused = bpf.attach_raw_tracepoint, []

    def refuse(program, name):
        if name in refused:
            raise bpf.refused(f"attach to the tracepoint {name}", errno.ENOENT)
        return attach(program, name)

    monkeypatch.setattr(bpf, "attach_raw_tracepoint", refuse)
    refused += ["sched_move_numa", "sched_swap_numa", "sched_stick_numa"]
    with loaded() as target, Process.open(target.pid) as process:
        with session.opened([faults], process) as tracing:
            missing = tracing.header(0)["probes"]["faults"]["missing"]
            assert {each["name"] for each in missing} == set(faults.PROBE.optional)
        refused.append("sched_switch")
        with pytest.raises(HostError, match="sched_switch"), session.opened([faults], process):
            pass


@pytest.mark.everywhere
@pytest.mark.alone
def test_hinting_faults_are_told_apart(balance):
    """They are nearly all that a program takes whose memory stays, and they are among those that the kernel counts."""
    balance(True)
    with loaded(GODEBUG="madvdontneed=0") as target:
        # The kernel marks pages by the CPU time that a thread has had: on a busy machine that takes longer.
        for _ in range(5):
            before = hinting_faults()
            found = look(target, "6s")
            everybody = hinting_faults() - before
            if everybody > 200:
                break
        others = sum(map(sum, found["faults"]["counts"]))
        assert found["balancing"] and others < found["hinting_faults"] <= everybody, (others, everybody)
        balance(False)
        found = look(target, "2s")
    assert not found["balancing"] and found["hinting_faults"] == 0
    assert not any(found["balancing_threads"].values())


@pytest.mark.alone
@pytest.mark.usefixtures("small_pages")
def test_advice_on_hinting_faults(balance, start, trace):
    """Of a program that touches nothing new they are all its faults, by the kernel's count."""
    mib = 512
    for on in (True, False):
        balance(on)
        for _ in range(5):  # the kernel marks pages by the CPU time that a thread has had
            target = start(targets.build("returner"), "keeps", "600", str(mib), "0s", env={"GOMAXPROCS": "1"})
            tracer = trace("--pid", str(target.pid), "--advise", "--top", "1")
            before = hinting_faults()
            target.go()
            truth = target.truth()
            time.sleep(0.2)  # what is added up in the kernel is told every 50 ms
            everybody = hinting_faults() - before
            assert target.finish() == 0 and tracer.finish() == 0, tracer.stderr
            found = [each for each in tracer.records[-1]["advice"]["findings"] if each["rule"] == "hinting faults"]
            if found or not on:
                break
        assert bool(found) == on
        if on:
            told = "; ".join(found[0]["evidence"])
            counts = re.findall(r"([\d,]+) (?:hinting fault|more, in which)", told)
            count = sum(int(each.replace(",", "")) for each in counts)
            assert count == pytest.approx(truth["Minor"] - (mib << 20) // 4096, abs=1500) and count <= everybody
            assert (
                ("one memory node" in told) == (len(numa.topology().nodes) == 1) == ("numa_balancing=0" in found[0]["mend"])
            )


@pytest.fixture
def small_pages():
    """With huge pages a fault brings 512 pages, and those of the program's own file would be as many."""
    setting = "/sys/kernel/mm/transparent_hugepage/enabled"
    with open(setting) as file:
        before = file.read().split("[")[1].split("]")[0]
    with open(setting, "w") as file:
        file.write("never")
    yield
    with open(setting, "w") as file:
        file.write(before)


@pytest.mark.everywhere
@pytest.mark.numa
@pytest.mark.alone
@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    ("cpu", "policy", "nodes", "expected"),
    [
        (0, BIND, (1,), {(0, 1): 1.0}),
        (1, DEFAULT, (), {(1, 1): 1.0}),
        (0, DEFAULT, (), {(0, 0): 1.0}),
        (0, PREFERRED, (1,), {(0, 1): 1.0}),
        (1, INTERLEAVE, (0, 1), {(1, 0): 0.5, (1, 1): 0.5}),
    ],
)
def test_planted_placements(cpu, policy, nodes, expected):
    """The matrix shows within 2 % what was planted; so does where the heap lies."""
    machine = numa.topology()
    cpus = {number for number, node in machine.cpus.items() if node == cpu}
    found, _ = watch(planted(cpus, policy, nodes))
    for (row, column), share in expected.items():
        assert touched(found, row, column) == pytest.approx(share, abs=0.02), found["faults"]
    heap = {int(node): size for node, size in found["memory"]["spans in use"].items()}
    total = sum(heap.values())
    for (_, column), share in expected.items():
        assert heap.get(column, 0) / total == pytest.approx(share, abs=0.02), heap
    ran = {node["node"]: node["ran_ns"] for node in found["nodes"]}
    assert ran[cpu] >= 0.98 * sum(ran.values())
    if policy == BIND:
        assert any(name.startswith("bind:1") for name in found["policies"])


@pytest.mark.everywhere
@pytest.mark.alone
def test_what_is_counted_is_of_the_node_it_ran_on():
    """An event that every host counts, by threads that are kept on the last node: as many as there are faults."""
    machine = numa.topology()
    node = machine.nodes[-1]
    cpus = {number for number, of in machine.cpus.items() if of == node}
    found, _ = watch(planted(cpus, DEFAULT, ()), options=("-e", "page-faults"))
    counted = found["accesses"]["page-faults"]
    assert list(counted) == [str(node)]
    faults = sum(map(sum, found["faults"]["counts"])) + found["hinting_faults"]
    assert counted[str(node)] == pytest.approx(faults, rel=0.01, abs=20)


@pytest.mark.everywhere
@pytest.mark.numa
@pytest.mark.alone
def test_advice_when_threads_leave_their_memory(balance):
    """First touch on node 0, then all threads on node 1: with balancing off the memory stays."""
    balance(False)
    with loaded(planted(cpus_of(0), DEFAULT, ())) as target:
        time.sleep(3)
        bind(target, cpus_of(1))
        found = look(target, "3s")
    assert "--cpunodebind=1 --membind=1" in found["advice"], found


@pytest.mark.everywhere
@pytest.mark.numa
@pytest.mark.alone
def test_ps_go_where_their_threads_are_sent(balance):
    """All on node 0, then all on node 1, then back."""
    balance(False)
    with loaded(planted(cpus_of(0), DEFAULT, ())) as target:
        look(target, "1s")  # what has to be known of the executable is found now
        command = [*GOTRACE, "numa", "--pid", str(target.pid), "-d", "24s", "--format", "ndjson"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr.readline().startswith("Tracing")
            sent = []
            for node in (1, 0):
                time.sleep(8)
                bind(target, cpus_of(node))
                sent.append(time.monotonic())
            out, err = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0, err
    found = json.loads(out)
    for sample in found["series"]:
        assert sum(sample["ps"].values()) + sample["ps_idle"] == PS
        if all(abs(sample["monotonic_ns"] / 1e9 - when) > 2 for when in sent):
            node = int(sent[0] < sample["monotonic_ns"] / 1e9 < sent[1])
            assert sample["ps"][str(1 - node)] == 0, (sample, sent)
    assert found["ps_moved"] >= 2 and found["threads_moved"] >= 2
    gaps = found["move_gaps"]
    assert gaps["count"] >= 1 and 5e9 < gaps["max_ns"] < 15e9, gaps


@pytest.mark.everywhere
@pytest.mark.numa
@pytest.mark.alone
@pytest.mark.usefixtures("small_pages")
def test_balancing_is_seen(balance):
    """Threads away from their memory, then free to go where they like: the kernel brings both together."""
    balance(True)
    with loaded(planted(cpus_of(0), DEFAULT, ())) as target:
        time.sleep(3)
        bound = look(target, "10s", lambda: bind(target, cpus_of(1)))
        free = look(target, "20s", lambda: bind(target, cpus_of(0) | cpus_of(1)))
    assert bound["hinting_faults"] > 0 and bound["pages_moved"] > 0, bound
    assert free["hinting_faults"] > 0
    assert sum(bound["balancing_threads"].values()) + sum(free["balancing_threads"].values()) > 0

"""What RSS consists of, against the runtime's own statistics and the kernel's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest

import targets
from conftest import GOTRACE, until
from gotrace.analysis.heap_pages import PARTS
from gotrace.binary.heap import find_heap
from gotrace.binary.program import GoProgram
from gotrace.errors import GotraceError
from gotrace.kernel.memory import PAGE, Memory

pytestmark = pytest.mark.bpf  # which is to say that it needs root


class Shape:
    """The program shapes at rest, and one look at it."""

    def __init__(self, start, *arguments, version=targets.NEWEST, flavour="stripped", env=None):
        self.target = start(targets.build("shapes", version, flavour), *arguments, env=env)
        self.truth = self.target.truth()

    def look(self, *options):
        command = [*GOTRACE, "mem", "--pid", str(self.target.pid), "--format", "ndjson", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        with open(f"/proc/{self.target.pid}/smaps_rollup") as file:
            self.rss = int(re.search(r"^Rss:\s+(\d+) kB", file.read(), re.MULTILINE)[1]) << 10
        assert sum(found["parts"].values()) == found["rss_bytes"] and list(found["parts"]) == list(PARTS)
        assert min(found["parts"].values()) >= 0
        return found


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.MATRIX)
def test_counters_are_memstats(start, version):
    shape = Shape(start, "fragments", "40", version=version)
    counters, truth = shape.look()["counters"], shape.truth
    assert counters["heap_alloc"] == truth["HeapAlloc"]
    assert counters["heap_inuse"] == truth["HeapInuse"]
    assert counters["heap_free"] == truth["HeapIdle"] - truth["HeapReleased"]
    assert counters["heap_released"] == truth["HeapReleased"]
    names = {
        "stack_inuse": "StackInuse",
        "stack_sys": "StackSys",
        "mspan_inuse": "MSpanInuse",
        "mspan_sys": "MSpanSys",
        "mcache_inuse": "MCacheInuse",
        "mcache_sys": "MCacheSys",
        "buckhash_sys": "BuckHashSys",
        "gc_sys": "GCSys",
        "other_sys": "OtherSys",
        "num_gc": "NumGC",
    }
    assert {ours: counters[ours] for ours in names} == {ours: truth[theirs] for ours, theirs in names.items()}
    assert counters["mapped_ready"] == truth["Sys"] - truth["HeapReleased"]
    assert counters["gc_percent"] == -1


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.MATRIX)
def test_parts_add_up_to_the_kernels_rss(start, version):
    shape = Shape(start, "fragments", "60", version=version)
    found = shape.look()
    assert abs(found["rss_bytes"] - shape.rss) <= 0.002 * shape.rss
    assert found["parts"]["unexplained"] < (0.03 if not targets.EMULATED else 0.05) * found["rss_bytes"]
    # seven of eight objects are gone, and no span with them
    assert found["parts"]["span waste"] == pytest.approx(7 / 8 * (60 << 20), rel=0.1)
    spans = sum(each["bytes"] for each in found["size_classes"])
    assert spans == shape.truth["HeapInuse"]
    assert sum(each["live"] for each in found["size_classes"]) == pytest.approx(shape.truth["HeapAlloc"], rel=0.02)
    assert found["size_classes"][0]["size"] == 128


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("arguments", "part", "size"),
    [
        (("live", "60"), "live objects", 60 << 20),
        (("freed", "60"), "free", 60 << 20),
        (("stacks", "1500"), "stacks", 1500 * 16 << 10),
        (("file", "FILE"), "files and libraries", 30 << 20),
    ],
)
def test_planted_shapes(start, tmp_path, arguments, part, size):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 30)
    # a scavenger that is told to keep much gives nothing back while we look
    shape = Shape(start, *(str(big) if word == "FILE" else word for word in arguments), env={"GODEBUG": "scavtrace=0"})
    found = shape.look()
    parts = found["parts"]
    # what the scavenger has given back since is not resident
    least = 0.1 if part == "free" else 0.9
    assert least * size <= parts[part] <= 1.15 * size, parts
    assert max(parts, key=parts.get) == part or part == "free"
    assert abs(found["rss_bytes"] - shape.rss) <= 0.05 * shape.rss


@pytest.mark.everywhere
def test_memory_that_was_only_read_is_not_resident(start):
    """The kernel's zero page is mapped everywhere in it."""
    shape = Shape(start, "unread", "50")
    found = shape.look()
    assert found["counters"]["heap_alloc"] > 50 << 20 and found["rss_bytes"] < 20 << 20
    assert found["amplification"] < 0.5
    assert abs(found["rss_bytes"] - shape.rss) <= 0.01 * shape.rss


@pytest.mark.parametrize("flavour", ["default", "pie-stripped", "cgo-external", "cgo-external-pie", "noopt"])
def test_other_builds(start, flavour):
    shape = Shape(start, "live", "30", flavour=flavour)
    found = shape.look()
    assert found["counters"]["heap_alloc"] == shape.truth["HeapAlloc"]
    assert found["parts"]["live objects"] == pytest.approx(30 << 20, rel=0.15)
    assert abs(found["rss_bytes"] - shape.rss) <= 0.002 * shape.rss
    assert found["parts"]["unexplained"] < 0.03 * found["rss_bytes"]


def test_the_table(start, gotrace):
    shape = Shape(start, "fragments", "40")
    text = gotrace("mem", "--pid", str(shape.target.pid)).stdout
    assert re.search(r"^span waste +\d+\.\d MiB +\d+\.\d%", text, re.MULTILINE)
    assert "the largest other part is span waste" in text and re.search(r"^ +128 B ", text, re.MULTILINE)
    assert re.search(r"amplification \d+\.\d\d$", text, re.MULTILINE)


def test_looking_again_and_again(start, gotrace, tmp_path):
    shape = Shape(start, "live", "20")
    output = tmp_path / "memory.ndjson"
    done = gotrace("mem", "--pid", str(shape.target.pid), "-d", "1s", "-i", "200ms", "-o", str(output))
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert 4 <= len(lines) <= 6 and all(each["type"] == "memory" for each in lines)
    assert len(re.findall(r"^\d\d:\d\d:\d\d ", done.stdout, re.MULTILINE)) == len(lines)
    assert gotrace("mem", "--pid", str(shape.target.pid), "-o", str(output)).returncode == 1


def test_a_target_that_moves(start):
    """Under an allocating program the parts still add up, and what changed meanwhile is told."""
    target = start(targets.build("gcload"), "-seconds", "8")
    target.go()
    command = [*GOTRACE, "mem", "--pid", str(target.pid), "--format", "ndjson", "-d", "3s", "-i", "300ms"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(looks) >= 5 and done.returncode == 0
    for each in looks:
        assert sum(each["parts"].values()) == each["rss_bytes"]
        assert each["parts"]["unexplained"] < 0.03 * each["rss_bytes"]
    assert sorted(each["drift"] for each in looks)[len(looks) // 2] < 0.05
    target.process.kill()


def test_exits_meanwhile(start):
    shape = Shape(start, "live", "20")
    command = [*GOTRACE, "mem", "--pid", str(shape.target.pid), "-d", "30s", "-i", "200ms"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    shape.target.process.send_signal(signal.SIGKILL)
    shape.target.process.wait()
    out, err = process.communicate(timeout=20)
    assert "Traceback" not in err and process.returncode in (0, 1)
    assert "live objects" in out or "has exited" in err


def test_who_may_not_look(start, gotrace_as_nobody):
    shape = Shape(start, "live", "5")
    done = gotrace_as_nobody("mem", "--pid", str(shape.target.pid))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 2, done.stderr


def test_what_is_no_go_program(gotrace):
    with subprocess.Popen(["sleep", "30"]) as other:
        until(lambda: os.readlink(f"/proc/{other.pid}/exe").endswith("sleep"))
        done = gotrace("mem", "--pid", str(other.pid))
        other.kill()
    assert done.returncode == 1 and "hint" in done.stderr
    assert gotrace("mem", "--pid", "1", "-i", "0").returncode == 2


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("version", targets.MATRIX)
def test_addresses_are_those_of_the_symbols(version, arch):
    """In programs with symbols; the same recipes serve those without."""
    path = targets.build("gcload", version, "default", arch)
    symbols = {}
    for line in targets.go_tool("nm", path):
        address, _, name = line.strip().partition(" ")
        symbols[name.split(" ", 1)[-1]] = int(address, 16)
    with GoProgram.open(path) as program:
        found = find_heap(program)
    # there the code takes its address first: such memory is then unexplained, and it is said
    assert list(found.missing) == (["persistentChunks"] if (version, arch) == ("1.19.8", "arm64") else [])
    names = {
        "mheap": "mheap_",
        "memstats": "memstats",
        "gc_controller": "gcController",
        "work": "work",
        "allp": "allp",
        "persistent_chunks": "persistentChunks",
        "gc_bits_arenas": "gcBitsArenas",
    }
    names = {ours: name for ours, name in names.items() if name not in found.missing}
    assert {ours: getattr(found, ours) for ours in names} == {
        ours: symbols[f"runtime.{name}"] for ours, name in names.items()
    }


@pytest.mark.everywhere
@pytest.mark.parametrize("arguments", [("fragments", "30"), ("unread", "30")])
def test_both_ways_of_asking_the_kernel_agree(start, arguments):
    """The scan of the page table (Linux 6.7) and pagemap with the flags of each frame."""
    shape = Shape(start, *arguments)
    memory = Memory(shape.target.pid)
    vmas = memory.vmas()
    found = [memory.resident(vmas), memory._from_pagemap(vmas)]
    pages = [np.concatenate([np.arange(r["begin"], r["end"], PAGE) for r in ranges]) for ranges in found]
    assert np.array_equal(*pages)
    assert len(pages[0]) * PAGE == pytest.approx(memory.rollup()["Rss"], rel=0.002)


def test_memory_of_our_own():
    """Reading by system call what Python knows it has."""
    here = np.arange(1 << 16, dtype=np.uint64)
    memory = Memory(os.getpid())
    address = here.ctypes.data
    assert np.array_equal(memory.words(address, 1 << 16), here)
    places = [(address + 8 * number, 8) for number in range(5000)]
    assert [int.from_bytes(each, "little") for each in memory.read_many(places)] == list(range(5000))
    with pytest.raises(GotraceError):
        memory.read(8, 8)
    with pytest.raises(GotraceError):
        Memory(2**22 + 5).read(address, 8)


@pytest.mark.everywhere
def test_faults_by_part_and_phase(start):
    """All that the kernel counts for the process, most of them for the slice that is touched."""
    program = targets.build("shapes")
    with subprocess.Popen([program, "touch", "40"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as target:
        command = [*GOTRACE, "mem", "--pid", str(target.pid), "--faults", "-d", "4s", "--format", "ndjson"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr.readline().startswith("Watching")
            before = minor_faults(target.pid)
            target.stdin.write(b"\n")
            target.stdin.flush()
            out, err = tracer.communicate(timeout=60)
            counted = minor_faults(target.pid) - before
        target.kill()
    assert tracer.returncode == 0, err
    found = json.loads(out)
    assert found["lost"] == 0
    assert found["faults"] == pytest.approx(counted, rel=0.01, abs=20)
    objects = sum(found["counts"]["heap objects"].values())
    assert objects >= 0.9 * found["faults"] or targets.EMULATED
    assert sum(found["phases_ns"].values()) == pytest.approx(found["watched_ns"], rel=0.001)
    assert sum(each["count"] for each in found["minor"].values()) >= 0.99 * found["faults"]


def minor_faults(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[7])


def test_faults_under_collections(start, gotrace):
    """A phase has its share of the time, and faults of it are told apart."""
    target = start(targets.build("gcload"), "-seconds", "6")
    target.go()
    done = gotrace("mem", "--pid", str(target.pid), "--faults", "-d", "3s")
    target.process.kill()
    assert done.returncode == 0 and "concurrent mark" in done.stdout and re.search(r"^all ", done.stdout, re.MULTILINE)


@pytest.mark.everywhere
def test_amplification_by_cycle(start, tmp_path):
    """RSS at the end of each cycle is what the kernel tells meanwhile, and the heap is gctrace's."""
    size, seconds = ("2", "8s") if targets.EMULATED else ("40", "3s")
    target = start(targets.build("gcload"), "-seconds", "40", "-live", size, env={"GODEBUG": "gctrace=1"})
    target.go()
    output = tmp_path / "cycles.ndjson"
    command = [*GOTRACE, "mem", "--pid", str(target.pid), "--cycles", "-d", seconds, "-o", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr.readline().startswith("Watching")
        told = []
        while tracer.poll() is None:
            told.append(Memory(target.pid).rollup()["Rss"])
            time.sleep(0.05)
        assert tracer.returncode == 0, tracer.stderr.read()
    target.process.kill()
    cycles = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(cycles) >= 3
    live = {int(number): int(size) for number, size in re.findall(GCTRACE_LIVE, target.stderr.read_text(), re.MULTILINE)}
    for each in cycles:
        assert 0.9 * min(told) <= each["rss_bytes"] <= 1.1 * max(told), (each, min(told), max(told))
        assert each["heap_live_bytes"] >> 20 == live[each["cycle"]]
        assert each["amplification"] == pytest.approx(each["rss_bytes"] / each["heap_live_bytes"], abs=0.001)


# gc 5 @0.1s 1%: ... 4->4->2 MB: the cycle and the live heap behind it
GCTRACE_LIVE = r"^gc (\d+) @.* \d+->\d+->(\d+) MB"

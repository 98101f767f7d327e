"""What RSS consists of, against the runtime's own statistics and the kernel's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import targets
from conftest import GOTRACE, until
from gotrace.analysis.heap_pages import PARTS, RELEASED
from gotrace.binary.heap import find_heap
from gotrace.binary.program import GoProgram
from gotrace.errors import GotraceError, TargetError
from gotrace.kernel import memory as kernel_memory
from gotrace.kernel.memory import HUGE, PAGE, Memory
from gotrace.kernel.process import Process
from gotrace.recording.reader import Recording
from gotrace.runtime.looker import Looker

pytestmark = pytest.mark.bpf  # which is to say that it needs root


def smaps(pid, name):
    """Bytes of all mappings, one after the other: smaps_rollup has been seen to leave most of them out (Linux 6.1)."""
    with open(f"/proc/{pid}/smaps") as file:
        return sum(int(size) << 10 for size in re.findall(rf"^{name}:\s+(\d+) kB", file.read(), re.MULTILINE))


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
        self.rss = smaps(self.target.pid, "Rss")
        assert sum(found["parts"].values()) == found["rss_bytes"] and list(found["parts"]) == list(PARTS)
        assert min(found["parts"].values()) >= 0
        assert found["parts"]["unexplained"] < (0.03 if not targets.EMULATED else 0.05) * found["rss_bytes"]
        return found


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.MATRIX)
def test_counters_are_memstats(start, version):
    for _ in range(3):
        shape = Shape(start, "fragments", "40", version=version)
        counters, truth = shape.look()["counters"], shape.truth
        if counters["stack_sys"] == truth["StackSys"]:
            break  # else one of the runtime's own goroutines has a stack since
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
        "total_alloc": "TotalAlloc",
    }
    assert {ours: counters[ours] for ours in names} == {ours: truth[theirs] for ours, theirs in names.items()}
    assert counters["mapped_ready"] == truth["Sys"] - truth["HeapReleased"]
    assert counters["gc_percent"] == -1
    # without a goal for the heap there is none for the scavenger, which has never had much to do
    assert counters["retained_goal"] is None and counters["mapped_goal"] is None
    assert (counters["returned_eager"] is None) == version.startswith("1.19.")
    assert 0 <= counters["returned_background"] < 5 << 20


def test_counters_with_an_experiment(start):
    """In a runtime whose fields GOEXPERIMENT moved."""
    shape = Shape(start, "fragments", "40", version="1.25.5", flavour="experiment")
    counters, truth = shape.look()["counters"], shape.truth
    names = {"heap_alloc": "HeapAlloc", "heap_inuse": "HeapInuse", "stack_inuse": "StackInuse", "num_gc": "NumGC"}
    assert {ours: counters[ours] for ours in names} == {ours: truth[theirs] for ours, theirs in names.items()}


@pytest.mark.everywhere
@pytest.mark.thorough
@pytest.mark.parametrize("version", targets.ENDS)
def test_counters_are_the_metrics(start, version):
    """Those of runtime/metrics: exactly, but how much of the heap is objects, which it gathers in another way.

    The program reads its own, then we do: if its scavenger comes between the two, another one is started.
    """
    for _ in range(3):
        shape = Shape(start, "fragments", "40", version=version)
        counters = shape.look()["counters"]
        if counters["heap_released"] == shape.truth["HeapReleased"]:
            break
    prefix, suffix = "/memory/classes/", ":bytes"
    metrics = {
        name.removeprefix(prefix).removesuffix(suffix): size
        for name, size in shape.truth.items()
        if name.startswith(prefix)
    }
    objects, unused = metrics.pop("heap/objects"), metrics.pop("heap/unused")
    assert abs(counters["heap_alloc"] - objects) <= 64 << 10
    assert counters["heap_inuse"] == objects + unused
    assert metrics == {
        "heap/free": counters["heap_free"],
        "heap/released": counters["heap_released"],
        "heap/stacks": counters["stack_inuse"],
        "os-stacks": counters["stack_sys"] - counters["stack_inuse"],
        "metadata/mspan/inuse": counters["mspan_inuse"],
        "metadata/mspan/free": counters["mspan_sys"] - counters["mspan_inuse"],
        "metadata/mcache/inuse": counters["mcache_inuse"],
        "metadata/mcache/free": counters["mcache_sys"] - counters["mcache_inuse"],
        "metadata/other": counters["gc_sys"],
        "profiling/buckets": counters["buckhash_sys"],
        "other": counters["other_sys"],
        "total": counters["mapped_ready"] + counters["heap_released"],
    }


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.ENDS)
def test_parts_add_up_to_the_kernels_rss(start, version):
    shape = Shape(start, "fragments", "60", version=version)
    found = shape.look()
    assert abs(found["rss_bytes"] - shape.rss) <= 0.002 * shape.rss
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
        pytest.param(("freed", "60"), "free", 60 << 20, marks=pytest.mark.thorough),
        (("stacks", "1500"), "stacks", 1500 * 16 << 10),
        pytest.param(("file", "FILE"), "files and libraries", 30 << 20, marks=pytest.mark.thorough),
        pytest.param(("large", "1000"), "live objects", 1000 * 44 << 10, marks=pytest.mark.thorough),
    ],
)
def test_planted_shapes(start, tmp_path, arguments, part, size):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 30)
    shape = Shape(start, *(str(big) if word == "FILE" else word for word in arguments))
    found = shape.look()
    parts = found["parts"]
    assert 0.9 * size <= parts[part] <= 1.15 * size, parts
    assert max(parts, key=parts.get) == part
    assert abs(found["rss_bytes"] - shape.rss) <= 0.05 * shape.rss


@pytest.mark.everywhere
def test_memory_that_was_only_read_is_not_resident(start):
    """The kernel's zero page is mapped everywhere in it."""
    shape = Shape(start, "unread", "50")
    found = shape.look()
    assert found["counters"]["heap_alloc"] > 50 << 20 and found["rss_bytes"] < 20 << 20
    assert found["amplification"] < 0.5
    assert abs(found["rss_bytes"] - shape.rss) <= 0.01 * shape.rss


@pytest.mark.everywhere
@pytest.mark.thorough
@pytest.mark.parametrize("version", targets.ENDS)
def test_rounding(start, version):
    """Each large object ends one byte behind its fifth page: that byte's page of the kernel is resident, its other not."""
    found = Shape(start, "large", "1000", version=version).look()
    behind = 8191 if found["huge_bytes"] or PAGE > 8192 else PAGE - 1
    assert found["large_rounding_bytes"] == pytest.approx(1000 * behind, rel=0.05)
    assert found["page_rounding_bytes"] == 0 or PAGE > 8192


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.ENDS)
def test_what_the_scavenger_returns(start, tmp_path, version):
    """In the background, at its own pace: what it counts is by how much HeapReleased grows."""
    size = 10 if targets.EMULATED else 60
    shape = Shape(start, "scavenged", str(size), version=version)

    def returned_all(looks):
        released = [each["counters"]["heap_released"] for each in looks]
        return len(looks) > 6 and released[-1] - released[0] > 0.8 * (size << 20) and released[-1] == released[-4]

    looks, told = told_from_here_on(shape.target, tmp_path, "60s", returned_all)
    first, last = looks[0]["counters"], looks[-1]["counters"]
    assert first["retained_goal"] is None and first["heap_released"] == shape.truth["HeapReleased"]
    changes = [each["scavenged"] for each in looks]
    assert changes.pop(0) is None
    returned = last["heap_released"] - first["heap_released"]
    assert 0.8 * size < returned / (1 << 20) < 1.2 * size
    assert sum(each["returned_bytes"] for each in changes) == pytest.approx(returned, abs=1 << 20)
    assert sum(each["taken_bytes"] for each in changes) < 1 << 20 and not any(each["mapped_bytes"] for each in changes)
    assert last["returned_background"] - first["returned_background"] == pytest.approx(returned, abs=1 << 20)
    # down to its goal, which Go 1.19 reaches before the next cycle has set one
    goals = {each["counters"]["retained_goal"] for each in looks} - {None}
    assert last["heap_inuse"] + last["heap_free"] <= max(goals, default=0) + (1 << 20) < 4 << 20
    assert goals or version.startswith("1.19.")
    # what the kernel keeps of it in huge pages is told, and the runtime's books grow
    kept = looks[-1]["parts"][RELEASED] - looks[0]["parts"][RELEASED]
    assert looks[-1]["rss_bytes"] < looks[0]["rss_bytes"] - 0.8 * (size << 20) + max(0, kept) + (1 << 20)
    assert re.search(r"The scavenger has returned [\d.]+ MiB in the background", told)
    assert re.search(r"^Over [\d.]+ s the heap returned [\d.]+ (K|M)iB/s to", told, re.MULTILINE)


def test_what_is_taken_back(start, tmp_path):
    """Memory that debug.FreeOSMemory returned is used again: nobody counts that, it follows from the rest."""
    shape = Shape(start, "again", "60", "free")
    looks, _ = told_from_here_on(shape.target, tmp_path, "3s")
    again = shape.target.truth()
    changes = [each["scavenged"] for each in looks[1:]]
    taken, mapped = (sum(each[f"{name}_bytes"] for each in changes) for name in ("taken", "mapped"))
    # It may need a span more to tell it, once it has read its own statistics.
    assert taken - mapped == pytest.approx(shape.truth["HeapReleased"] - again["HeapReleased"], abs=64 << 10)
    assert 59 << 20 <= taken <= 70 << 20 and all(each["returned_bytes"] == 0 for each in changes)


def told_from_here_on(target, tmp_path, seconds, enough=lambda looks: False):
    """Look again and again, and let the target go on once that has begun: the records, and the text.

    Until there is ``enough``, or for so long.
    """
    output = tmp_path / "memory.ndjson"
    command = [*GOTRACE, "mem", "--pid", str(target.pid), "-d", seconds, "-i", "250ms", "-o", str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdout is not None
        for _ in range(3):
            tracer.stdout.readline()
        target.go()
        while tracer.poll() is None and not enough([json.loads(line) for line in output.read_text().split("\n")[:-1]]):
            time.sleep(0.2)
        tracer.send_signal(signal.SIGINT)
        out, err = tracer.communicate(timeout=60)
    assert tracer.returncode == 0, err
    return [json.loads(line) for line in output.read_text().splitlines()], out


THP = "/sys/kernel/mm/transparent_hugepage"


@pytest.fixture
def eager_khugepaged():
    """Huge pages wherever they can be made, by a khugepaged that does not rest; everything as it was afterwards."""
    if not os.path.exists(THP):
        pytest.skip("this kernel has no transparent huge pages")
    wanted = {
        "enabled": "always",
        "defrag": "always",
        "khugepaged/defrag": "1",
        "khugepaged/scan_sleep_millisecs": "1",
        "khugepaged/alloc_sleep_millisecs": "1",
        "khugepaged/pages_to_scan": str(1 << 16),
        "khugepaged/max_ptes_none": "511",
    }
    before = {}
    try:
        for name, value in wanted.items():
            with open(f"{THP}/{name}") as file:
                text = file.read().strip()
            before[name] = text[text.find("[") + 1 : text.find("]")] if "[" in text else text
            with open(f"{THP}/{name}", "w") as file:
                file.write(value)
        yield
    finally:
        for name, value in before.items():
            with open(f"{THP}/{name}", "w") as file:
                file.write(value)


@pytest.mark.alone
def test_released_and_resident_again(start, gotrace, eager_khugepaged):
    """khugepaged makes a huge page around each object that is left; for the runtime all between them is returned."""
    shape = Shape(start, "sparse", "128", "free")
    memory = Memory(shape.target.pid)

    def at_rest():
        before = memory.rollup()["Rss"]
        time.sleep(0.5)
        return before > 100 << 20 and memory.rollup()["Rss"] == before

    until(at_rest, seconds=60)
    found = shape.look()
    counters, parts, huge = found["counters"], found["parts"], found["huge_parts"]
    # the runtime's books are in perfect order
    assert counters["heap_released"] == shape.truth["HeapReleased"] > 0.95 * shape.truth["HeapIdle"]
    assert counters["heap_alloc"] == shape.truth["HeapAlloc"] < 3 << 20
    assert parts["released, still resident"] > 0.8 * found["rss_bytes"] > 80 << 20
    assert abs(found["rss_bytes"] - shape.rss) <= 0.002 * shape.rss
    # where they are is told, by the scan and by the flags of each frame alike
    assert sum(huge.values()) == found["huge_bytes"] == memory.rollup()["AnonHugePages"]
    assert huge["released, still resident"] > 0.95 * parts["released, still resident"]
    assert found["huge_setting"]["enabled"] == "always" and found["huge_setting"]["size"] == 2 << 20
    vmas = memory.vmas()
    both = [memory.resident(vmas), memory._from_pagemap(vmas)]
    huge_ranges = [each[each["kind"] & HUGE != 0] for each in both]
    assert np.array_equal(*(np.concatenate([np.arange(r["begin"], r["end"], PAGE) for r in each]) for each in huge_ranges))
    told = gotrace("mem", "--pid", str(shape.target.pid)).stdout
    assert re.search(r"^released, still resident .* (9\d|100)% huge ", told, re.MULTILINE)
    assert "the largest other part is released, still resident" in told and "the kernel uses them wherever it can" in told


LAZY = tuple(version for version in targets.MATRIX if version in ("1.19.8", "1.22.10", targets.NEWEST))


@pytest.mark.parametrize("version", LAZY)
def test_returned_lazily(start, version):
    """GODEBUG=madvdontneed=0: the kernel takes it when it needs it, and says how much that would be."""
    shape = Shape(start, "freed", "60", "free", version=version, env={"GODEBUG": "madvdontneed=0"})
    memory = Memory(shape.target.pid)
    before = memory.rollup()["LazyFree"]
    found = shape.look()
    low, high = sorted((before, memory.rollup()["LazyFree"]))  # the program goes on meanwhile
    assert low > 50 << 20 and low <= found["lazy_free_bytes"] <= high
    assert found["parts"]["released, still resident"] == pytest.approx(high, rel=0.01)


@pytest.mark.parametrize("flavour", ["cgo-internal", "cgo-external", "cgo-external-pie"])
def test_memory_of_c(start, flavour):
    """Half of it malloc took for the main thread, half for four others, each in a part of the heap of its own."""
    found = Shape(start, "malloc", "60", flavour=flavour).look()
    assert found["parts"]["C heap and thread stacks"] == pytest.approx(60 << 20, rel=0.05)


@pytest.mark.parametrize("flavour", ["default", "pie-stripped", "cgo-external", "cgo-external-pie", "noopt"])
def test_other_builds(start, flavour):
    shape = Shape(start, "live", "30", flavour=flavour)
    found = shape.look()
    assert found["counters"]["heap_alloc"] == shape.truth["HeapAlloc"]
    assert found["parts"]["live objects"] == pytest.approx(30 << 20, rel=0.15)
    assert abs(found["rss_bytes"] - shape.rss) <= 0.002 * shape.rss


def test_the_table(start, gotrace):
    shape = Shape(start, "fragments", "40")
    text = gotrace("mem", "--pid", str(shape.target.pid)).stdout
    assert re.search(r"^span waste +\d+\.\d MiB +\d+\.\d%", text, re.MULTILINE)
    assert "the largest other part is span waste" in text and re.search(r"^ +128 B ", text, re.MULTILINE)
    assert re.search(r"amplification \d+\.\d\d$", text, re.MULTILINE)


@pytest.mark.parametrize("flavour", ["cgo-internal", "cgo-external-pie"])
def test_largest_mappings(start, gotrace, tmp_path, flavour):
    """A file, arenas of six threads and one large block: as much of each as smaps has."""
    big = tmp_path / "big index"
    big.write_bytes(os.urandom(1 << 20) * 30)
    target = start(targets.build("carena", flavour=flavour), str(big))
    on_heap = int(target.process.stdout.readline().split()[1], 16)

    def truth():
        vmas = Memory(target.pid).vmas()
        arenas = [vma for vma in vmas if not vma.path and vma.begin % (64 << 20) == 0 and vma.permissions == "rw-p"]
        arenas = [vma for vma in arenas if not vma.begin <= on_heap < vma.end]  # Go 1.26 puts its heap anywhere
        (block,) = [vma for vma in vmas if not vma.path and vma.sizes["Rss"] >= 40 << 20]
        return {
            ("arenas of C's malloc", "C heap and thread stacks"): sum(
                vma.sizes["Rss"] for vma in arenas if vma is not block
            ),
            (str(big), "files and libraries"): sum(vma.sizes["Rss"] for vma in vmas if vma.path == str(big)),
            (f"anonymous {block.begin:x}-{block.end:x}", "unexplained"): block.sizes["Rss"],
        }

    before = truth()
    found = json.loads(gotrace("mem", "--pid", str(target.pid), "--format", "ndjson").stdout)
    after = truth()
    sized = [each["bytes"] for each in found["regions"]]
    assert before[str(big), "files and libraries"] == 30 << 20
    regions = {(each["name"], each["part"]): each for each in found["regions"]}
    assert len(sized) == 5 and sized == sorted(sized, reverse=True)
    for name, size in before.items():  # a thread may begin meanwhile
        low, high = sorted((size, after[name]))
        assert low > 12 << 20 and 0.99 * low <= regions[name]["bytes"] <= 1.01 * high, (name, regions)
    text = gotrace("mem", "--pid", str(target.pid)).stdout
    assert re.search(r"^arenas of C's malloc \(\d+\) +C heap and thread stacks +[12]\d\.\d MiB", text, re.MULTILINE), text
    assert re.search(r"big index +files and libraries +30\.0 MiB", text), text


class Group:
    """A control group for memory, below the one of whoever runs the test; ``limits`` are those of it and one around it."""

    def __init__(self, folder, names):
        self.folder, self._names = folder, names

    def number(self, name):
        """One of its files, or a line of memory.stat."""
        text = Path(self.folder, self._names.get(name, "memory.stat")).read_text()
        if name not in self._names:
            text = dict(line.split() for line in text.splitlines())[name]
        return int(text)


@pytest.fixture
def group(tmp_path):
    """group(limit of the outer one, of the inner one) -> a `Group` in another, of the version that the host has."""
    made = []
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    version1 = [fields[4] for fields in mounts if fields[-3] == "cgroup" and "memory" in fields[-1].split(",")]
    version2 = [fields[4] for fields in mounts if fields[-3] == "cgroup2"]
    if version1:
        names = {"limit": "memory.limit_in_bytes", "usage": "memory.usage_in_bytes"}
        top = version1[0]
    else:
        names = {"limit": "memory.max", "usage": "memory.current"}
        top = version2[0] if version2 else str(tmp_path / "groups")
        if not version2:
            Path(top).mkdir()
            subprocess.run(["mount", "-t", "cgroup2", "none", top], check=True)
        Path(top, "cgroup.subtree_control").write_text("+memory")

    def make(outer, inner):
        folder = Path(top, f"gotrace-test-{os.getpid()}")
        for each, limit in ((folder, outer), (folder / "inner", inner)):
            each.mkdir()
            made.append(each)
            if limit:
                (each / names["limit"]).write_text(str(limit))
            if not version1 and each == folder:
                (each / "cgroup.subtree_control").write_text("+memory")
        return Group(folder / "inner", names)

    yield make
    for each in reversed(made):
        for pid in (each / "cgroup.procs").read_text().split():  # of a test that failed
            os.kill(int(pid), signal.SIGKILL)
        until(lambda each=each: not (each / "cgroup.procs").read_text())
        each.rmdir()
    if not version1 and not version2:
        subprocess.run(["umount", top], check=True)


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("outer", "inner", "limit"),
    [
        pytest.param(0, 256 << 20, 256 << 20, marks=pytest.mark.thorough),
        (128 << 20, 0, 128 << 20),
        pytest.param(0, 0, None, marks=pytest.mark.thorough),
    ],
)
def test_the_control_group(start, gotrace, group, tmp_path, outer, inner, limit):
    """Its limit, and what it uses: a program's memory, and a file that was written in it."""
    of = group(outer, inner)
    script = f'echo $$ > {of.folder}/cgroup.procs; head -c 30M /dev/zero > {tmp_path}/written; exec "$@"'
    target = start("/bin/sh", "-c", script, "sh", str(targets.build("shapes")), "live", "20")
    target.truth()
    done = gotrace("mem", "--pid", str(target.pid), "--format", "ndjson")
    found = json.loads(done.stdout)["cgroup"]
    text = gotrace("mem", "--pid", str(target.pid)).stdout
    version1 = (of.folder / "memory.usage_in_bytes").exists()
    usage, inactive = of.number("usage"), of.number("total_inactive_file" if version1 else "inactive_file")
    cache = of.number("total_cache" if version1 else "file")
    target.process.kill()
    target.process.wait()
    assert found["path"].endswith(f"/gotrace-test-{os.getpid()}/inner") and found["version"] == (1 if version1 else 2)
    assert found["limit_bytes"] == limit and found["limited"] == (limit is not None)
    assert found["limited_by"] == (found["path"] if inner else os.path.dirname(found["path"]) if outer else None)
    # the kernel gathers what each CPU has counted
    assert found["usage_bytes"] == pytest.approx(usage, abs=1 << 20) and usage > 50 << 20
    assert found["page_cache_bytes"] == pytest.approx(cache, abs=1 << 20) and cache >= 30 << 20
    assert found["working_set_bytes"] == pytest.approx(usage - inactive, abs=1 << 20)
    words = "no limit" if limit is None else f"limit {limit >> 20} MiB"
    assert re.search(rf"^cgroup /.*inner: {words}.*; usage .* MiB, working set .* MiB, page cache .*", text, re.M), text


def test_looking_again_and_again(start, gotrace, tmp_path):
    shape = Shape(start, "live", "20")
    output = tmp_path / "memory.ndjson"
    done = gotrace("mem", "--pid", str(shape.target.pid), "-d", "1s", "-i", "200ms", "-o", str(output))
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert 4 <= len(lines) <= 6 and all(each["type"] == "memory" for each in lines)
    assert len(re.findall(r"^\d\d:\d\d:\d\d\.\d{3} ", done.stdout, re.MULTILINE)) == len(lines)
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
    assert process.returncode == 0, err
    assert "live objects" in out  # of the last look


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
    missing = ["persistentChunks"] if (version, arch) == ("1.19.8", "arm64") else []
    assert sorted(found.missing) == (["memory returned while allocating"] if version == "1.19.8" else []) + missing
    names = {
        "mheap": "mheap_",
        "memstats": "memstats",
        "gc_controller": "gcController",
        "work": "work",
        "allp": "allp",
        "persistent_chunks": "persistentChunks",
        "gc_bits_arenas": "gcBitsArenas",
        "buckhash": "buckhash",
        "scavenge": "scavenge",
    }
    names = {ours: name for ours, name in names.items() if name not in found.missing}
    assert {ours: getattr(found, ours) for ours in names} == {
        ours: symbols[f"runtime.{name}"] for ours, name in names.items()
    }


@pytest.mark.parametrize("version", [targets.MATRIX[0], targets.NEWEST])
def test_the_table_of_profiles_is_the_runtimes(version, start, gotrace):
    """Where it is says the program's symbol, what of it is resident the kernel."""
    path = targets.build("callers", version, "default")
    (symbol,) = (line.split()[0] for line in targets.go_tool("nm", path) if line.endswith(" runtime.buckhash"))
    target = start(path, "4000")
    assert target.process.stdout.readline() == "done\n"
    memory = Memory(target.pid)
    begin, size = memory.word(int(symbol, 16)), 8 * 179_999
    pages = os.sysconf("SC_PAGE_SIZE")
    with open(f"/proc/{target.pid}/pagemap", "rb", buffering=0) as file:
        words = np.frombuffer(os.pread(file.fileno(), 8 * -(-size // pages), begin // pages * 8), "<u8")
    resident = np.count_nonzero(words >> np.uint64(63)) * pages
    assert resident > 1 << 20
    done = gotrace("mem", "--pid", str(target.pid), "--format", "ndjson", "-d", "100ms")
    parts = json.loads(done.stdout.splitlines()[-1])["parts"]
    assert parts["runtime metadata"] > resident
    assert parts["unexplained"] < 100 << 10
    with Process.open(target.pid) as process:
        found = Looker(process).parts_of(np.arange(begin, begin + size, pages))
    assert {PARTS[number] for number in found} == {"runtime metadata"}


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


@contextlib.contextmanager
def looker_of(target):
    with Process.open(target.pid) as process:
        yield Looker(process)


def test_a_kernel_without_the_scan(start, monkeypatch):
    """What is asked then is what this kernel does not have either: all of a snapshot is the same, pagemap alone told it."""
    shape = Shape(start, "fragments", "30")
    with looker_of(shape.target) as looker:
        real = kernel_memory._PAGEMAP_SCAN
        for _ in range(5):  # until nothing changed meanwhile
            before = smaps(shape.target.pid, "Rss")
            monkeypatch.setattr(kernel_memory, "_PAGEMAP_SCAN", real)
            looker._memory._scans = True
            scanned = looker.look()
            monkeypatch.setattr(kernel_memory, "_PAGEMAP_SCAN", real | 0xFF)
            again = looker.look()
            assert not looker._memory._scans
            if smaps(shape.target.pid, "Rss") == before:
                break
    assert again.rss == scanned.rss == before
    for name in ("parts", "huge_parts", "counters", "classes", "large_rounding_bytes", "page_rounding_bytes", "regions"):
        assert getattr(again, name) == getattr(scanned, name), name


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.ENDS)
def test_spans_are_those_of_the_list(start, version):
    """Those that were read in pieces, against each read by itself, and against what the program says of all together."""
    shape = Shape(start, "fragments", "20", version=version)
    with looker_of(shape.target) as looker:
        reader, at, memory = looker.reader, looker.places.offsets, Memory(shape.target.pid)
        pieces = reader._spans()
        pointer, count = memory.words(reader._global("mheap") + at["mheap.allspans"], 2).tolist()
        alone = []
        for address in memory.words(pointer, count).tolist():
            raw = memory.read(address, at["mspan.sizeof"])

            def of(field, size, raw=raw):
                return int.from_bytes(raw[at[f"mspan.{field}"] :][:size], "little")

            if of("state", 1):
                first = (of("startAddr", 8), of("npages", 8), of("state", 1), of("spanclass", 1) >> 1, of("elemsize", 8))
                wide = 2 if version.split(".")[1] >= "22" else 8
                alone.append((*first, of("nelems", wide), of("allocCount", 2), of("limit", 8)))
    assert pieces.tolist() == alone and len(alone) > 2000
    in_use = pieces[pieces["state"] == 1]
    assert int(in_use["pages"].sum()) * 8192 == shape.truth["HeapInuse"]


def test_a_list_of_spans_that_grows_while_it_is_read(start):
    """From the program's first objects to its last the list is made longer, and moved to where there is room for it."""
    target = start(targets.build("shapes"), "live", "150")
    looks, moved, failed = [], set(), 0
    with looker_of(target) as looker:
        while not select.select([target.process.stdout], [], [], 0)[0]:
            try:
                looks.append(looker.look())
                moved.add(looker.reader._slice(looker.reader._global("mheap") + looker.places.offsets["mheap.allspans"])[0])
            except TargetError:  # three times in a row it moved under our hands, or the runtime had only begun
                failed += 1
        truth = target.truth()
        looks.append(looker.look())
    assert len(looks) > 3 and len(moved) > 1, (len(looks), moved, failed)
    for each in looks:
        assert sum(each.parts.values()) == each.rss and min(each.parts.values()) >= 0
    spans = [sum(each.spans for each in look.classes) for look in looks]
    assert spans[0] < spans[-1] / 2 and sum(each.bytes for each in looks[-1].classes) == truth["HeapInuse"]
    assert looks[-1].rss == smaps(target.pid, "Rss")


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
    """All that the kernel counts for the process, those of the slice that is touched among the heap's."""
    program, seconds = targets.build("shapes"), 20 if targets.EMULATED else 4
    with subprocess.Popen([program, "touch", "40"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as target:
        command = [*GOTRACE, "mem", "--pid", str(target.pid), "--faults", "-d", f"{seconds}s", "--format", "ndjson"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr.readline().startswith("Tracing")
            before = minor_faults(target.pid)
            target.stdin.write(b"\n")
            target.stdin.flush()
            out, err = tracer.communicate(timeout=60)
            counted = minor_faults(target.pid) - before
            huge = smaps(target.pid, "AnonHugePages")
        target.kill()
    assert tracer.returncode == 0, err
    found = json.loads(out)
    assert found["lost"] == 0
    assert found["faults"] == pytest.approx(counted, rel=0.01, abs=20)
    objects = sum(found["counts"]["heap objects"].values())
    assert objects >= 0.9 * (huge / (2 << 20) + ((40 << 20) - huge) / PAGE), (huge, found["counts"])
    assert sum(found["phases_ns"].values()) == pytest.approx(found["watched_ns"], rel=0.001)
    assert sum(each["count"] for each in found["minor"].values()) >= 0.99 * found["faults"]


@pytest.mark.everywhere
@pytest.mark.thorough
def test_a_fault_that_has_not_ended(start, tmp_path):
    """userfaultfd keeps a thread in one: it is told until the page is there, with the length that the program knows."""
    target = start(targets.build("unserved"))
    command = [*GOTRACE, "mem", "--pid", str(target.pid), "--faults", "-d", "20s" if targets.EMULATED else "4s"]
    recording = str(tmp_path / "x.gotrace")
    with subprocess.Popen([*command, "-o", recording], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr.readline().startswith("Tracing")
        target.go()
        truth = target.truth()
        out, err = tracer.communicate(timeout=60 if not targets.EMULATED else 400)
    assert tracer.returncode == 0, err
    stack = Path(f"/proc/{target.pid}/task/{truth['tid']}/stack").read_text()
    assert "handle_userfault" in stack
    report = subprocess.run([*GOTRACE, "report", recording], capture_output=True, text=True, timeout=60)
    records = subprocess.run([*GOTRACE, "report", recording, "--format", "ndjson"], capture_output=True, text=True)
    assert report.stdout == out
    found = next(each for each in map(json.loads, records.stdout.splitlines()) if each["type"] == "faults")
    (open_fault,) = found["in_progress"]
    assert open_fault["tid"] == truth["tid"] and open_fault["address"] == truth["address"]
    header = header_of(recording)
    ended_ns = header["clock"]["begin_ns"] + found["watched_ns"]
    least = ended_ns - truth["begin_ns"]
    assert least - 50e6 <= open_fault["lasted_ns"] <= least
    assert open_fault["part"] == "unexplained"  # mapped by the program itself, which nobody but it knows
    assert f"NOT ENDED: thread {truth['tid']} has been in a page fault for " in out
    target.go()
    target.truth()
    done = subprocess.run([*command, "--format", "ndjson"], capture_output=True, text=True, timeout=400)
    assert json.loads(done.stdout)["in_progress"] == []


def header_of(path):
    with Recording.open(path) as recording:
        return recording.header


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
def test_rss_over_live_heap_by_cycle(start, tmp_path):
    """RSS at the end of each cycle is what the kernel tells meanwhile, and the heap is gctrace's."""
    size, seconds = ("2", "8s") if targets.EMULATED else ("40", "3s")
    target = start(targets.build("gcload"), "-seconds", "300", "-live", size, env={"GODEBUG": "gctrace=1"})
    target.go()
    output = tmp_path / "cycles.ndjson"
    command = [*GOTRACE, "mem", "--pid", str(target.pid), "--cycles", "-d", seconds, "-o", str(output)]
    looks = []  # (when, RSS): before the first cycle too, which may end before we hear of the tracer
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        # As real time, or on a busy machine RSS would rise and fall between two of them.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        try:
            while tracer.poll() is None:
                looks.append((time.monotonic(), Memory(target.pid).rollup()["Rss"]))
                time.sleep(0.002)
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        assert tracer.returncode == 0, tracer.stderr.read()
    # looked at so seldom, a peak may be missed: the kernel keeps the highest
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{target.pid}/status").read_text())[1]) << 10
    target.process.kill()
    cycles = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(cycles) >= 3
    live = {int(number): int(size) for number, size in re.findall(GCTRACE_LIVE, target.stderr.read_text(), re.MULTILINE)}
    times, told = np.array(looks).T
    for each in cycles:
        ended = each["monotonic_ns"] / 1e9
        # the looks around it: 50 ms of them, and one on either side at least, however long we were held up
        around = slice(
            max(min(np.searchsorted(times, ended) - 1, np.searchsorted(times, ended - 0.05)), 0),
            max(np.searchsorted(times, ended) + 1, np.searchsorted(times, ended + 0.05)),
        )
        least = told[around].min()
        assert 0.9 * least <= each["rss_bytes"] <= 1.05 * peak, (each, least, peak)
        assert each["heap_live_bytes"] >> 20 == live[each["cycle"]]
        assert each["rss_over_live"] == pytest.approx(each["rss_bytes"] / each["heap_live_bytes"], abs=0.001)


# gc 5 @0.1s 1%: ... 4->4->2 MB: the cycle and the live heap behind it
GCTRACE_LIVE = r"^gc (\d+) @.* \d+->\d+->(\d+) MB"

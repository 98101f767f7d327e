"""GPU memory without a GPU: every call of the stand-in libraries is there once, as they wrote it down themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as parquet
import pytest

import gpulibs
import targets
from conftest import GOTRACE, until
from gotrace import session
from gotrace.analysis.columns import Kinds
from gotrace.analysis.gpumem import calls as words
from gotrace.analysis.gpumem.layers import CALL, POOL, Key, Layers, joined
from gotrace.kernel import bpf
from gotrace.kernel.process import Process
from gotrace.probes import gpumem
from gotrace.records.all import schema_of_command

pytestmark = pytest.mark.bpf

MIB = 1 << 20
KINDS = Kinds(gpumem.PROBE.header_kinds())


@pytest.fixture
def run(start, tmp_path):
    """run(program, scenario, when) -> (the running target, the file of its truth)."""

    def started(program, *arguments):
        truth = tmp_path / "truth"
        target = start(gpulibs.built() / program, *arguments, env=gpulibs.environment(truth))
        until(lambda: os.path.basename(os.readlink(f"/proc/{target.pid}/exe")) == program)
        if program == "linked" or arguments[-1] == "start":
            until(lambda: "/libcuda.so.1" in Path(f"/proc/{target.pid}/maps").read_text())
        return target, truth

    return started


def seen(events):
    """What was reported, by thread, as `expected` has it."""
    found = defaultdict(list)
    for event in events:
        tid = int(event["tid"])
        if event["kind"] == KINDS.number("call"):
            word, address, size, stream, pool = (int(event[letter]) for letter in "abcde")
            layer = "cu" if word >> 9 & 1 else "rt"
            found[tid].append(
                (f"{layer}_{words.NAMES[word & 0xFF]}", word >> 8 & 1, word >> 16 & 0xFFFF, address, size, stream, pool)
            )
        elif event["kind"] == KINDS.number("trace"):
            word, address, size, stream, allocator = (int(event[letter]) for letter in "abcde")
            found[tid].append((words.ACTIONS[word & 0xFF], 0, word >> 8 & 0xFF, address, size, stream, allocator))
    return dict(found)


def expected(truth):
    """The truth in the words of the probe. A call of the driver is nested if the runtime's of the same kind ends next."""
    found = {}
    for tid, rows in gpulibs.calls(truth).items():
        programs = [gpumem.FUNCTIONS.get(row.name, (row.name,))[0] for row in rows]
        nested = [
            one.startswith("cu_") and two == f"rt_{one[3:]}" for one, two in zip(programs, [*programs[1:], ""], strict=True)
        ]
        found[tid] = [
            (program, int(inner), row.result, *row[1:5]) for program, inner, row in zip(programs, nested, rows, strict=True)
        ]
    return found


@pytest.mark.parametrize(
    ("program", "when", "links"),
    [
        pytest.param("linked", "start", True, marks=pytest.mark.everywhere),
        ("unlinked", "start", True),
        ("static", "start", True),
        ("linked", "start", False),
    ],
)
def test_every_call(program, when, links, run, monkeypatch):
    """Random calls of three threads: entry by entry, with arguments, results, addresses, and who asked whom.

    Without ``links`` as on Linux up to 6.9, where probes are perf events.
    """
    if not links:
        monkeypatch.setattr(bpf, "has_uprobe_multi", lambda: False)
    target, truth = run(program, "mix", when)
    with Process.open(target.pid) as process, session.opened([gpumem], process) as tracing:
        target.go()
        target.truth()
        events = tracing.read()
        assert tracing.lost == 0
    told, wanted = seen(events), expected(truth)
    for tid, rows in wanted.items():
        for number, (one, two) in enumerate(zip(told[tid], rows, strict=False)):
            assert one == two, number
    assert told == wanted and len(told) == 3
    assert sum(map(len, told.values())) > 1500
    assert any(row[2] == 2 for rows in told.values() for row in rows)
    assert {row[0] for rows in told.values() for row in rows} >= {
        "rt_malloc",
        "cu_malloc",
        "rt_malloc_from_pool",
        "rt_pitch",
    }
    check_pools(calls_of(events))


def check_pools(rows):
    """What the stand-in says of its pools: so much is live exactly, and so much is held at least as we know of."""
    rows, layers = joined([rows]), Layers()
    layers.feed(rows)
    courses, asked = layers.courses(), Counter()
    for row in rows[(words.op(rows["call"]) == words.OPS["pool_get"]) & ~words.nested(rows["call"])]:
        course = courses.get(Key(POOL, -1, int(row["pool"])))
        before = int(np.searchsorted(course.events["time_ns"], row["time_ns"])) - 1 if course is not None else -1
        live, reserved = (course.states[name][before] if before >= 0 else 0 for name in ("live", "reserved"))
        asked[int(row["address"])] += 1
        assert row["address"] != words.USED_NOW or live == row["size"]
        assert row["address"] != words.RESERVED_NOW or reserved <= row["size"]
    assert asked[words.USED_NOW] == asked[words.RESERVED_NOW] > 3 and len(asked) == 2


def result_of(path):
    (result,) = [each for each in json.loads(path.read_text()) if each["type"] == "gpumem"]
    return result


@pytest.fixture
def launched(gotrace, tmp_path):
    """launched(program, scenario) -> (the result of `gotrace gpumem -- program`, its truth)."""

    def run(program, scenario, *options):
        truth, path = tmp_path / "truth", tmp_path / "out.json"
        done = gotrace(
            *("gpumem", *options, "-o", str(path), "--force", "--", str(gpulibs.built() / program), scenario),
            env=gpulibs.environment(truth),
            input="\n",
        )
        assert done.returncode == 0 and json.loads(done.stdout) == {"done": True}, done.stderr
        return result_of(path), gpulibs.calls(truth), done

    return run


def test_worked_example(launched, tmp_path, gotrace):
    """From its first instruction, though its libraries are mapped by then only: 40, 20, 40 MiB and what follows."""
    recording = tmp_path / "run.gotrace"
    result, truth, done = launched("linked", "example", "-o", str(recording))
    (rows,) = truth.values()
    wanted = Counter(row.name for row in rows)
    assert result["calls"] == {
        name: {"count": wanted[cuda], "failed": sum(row.result != 0 for row in rows if row.name == cuda)}
        for name, cuda in (
            ("malloc_from_pool", "cudaMallocFromPoolAsync"),
            ("pool_create", "cudaMemPoolCreate"),
            ("free_async", "cudaFreeAsync"),
            ("pool_trim", "cudaMemPoolTrimTo"),
            ("pool_get", "cudaMemPoolGetAttribute"),
            ("set_device", "cudaSetDevice"),
        )
    }
    assert result["nested"] == sum(row.name.startswith("cuMem") for row in rows) and result["lost"] == 0
    (space,) = result["spaces"]
    assert (space["kind"], space["handle"], space["device"]) == ("pool", 0xD01, None)
    assert (space["peak_live"], space["peak_reserved"]) == (150 * MIB, 160 * MIB)
    assert (space["live"], space["reserved"]) == (0, 0)  # all was freed and trimmed
    assert space["worst_fragmentation"] == 0.5 and space["fragmentation"] == 0
    assert space["growths"] == {"needed": 3, "merge_failure": 1, "refused_reuse": 0}
    assert (space["requests"], space["ooms"], space["ooms_by_fragmentation"]) == (7, 2, 1)
    assert space["streams"] == 1 and len(result["advice"]) == 1 and "a pool per size" in result["advice"][0]
    told = next(row.size for row in rows if row.name == "cudaMemPoolGetAttribute")
    assert space["told_reserved"] == told == space["reserved_when_told"] == 160 * MIB
    failed = {each["why"]: each for each in result["failed"]}
    assert {why: each["size"] // MIB for why, each in failed.items()} == {
        "merge_failure": 60,
        "oom_by_fragmentation": 70,
        "oom": 200,
    }
    assert failed["merge_failure"]["stack"][:2] == ["asks_for_the_sum", "main"]
    assert {each["tid"] for each in result["failed"]} == set(truth)
    assert "60.0 MiB" in done.stderr and "asks_for_the_sum < main" in done.stderr
    # the recording says the same
    again, text = tmp_path / "again.json", tmp_path / "again.txt"
    assert gotrace("report", str(recording), "-o", str(again), "-o", str(text)).returncode == 0
    assert result_of(again) == result
    assert text.read_text() == done.stderr[done.stderr.index("\n\n") + 1 : done.stderr.index("wrote ")]
    jsonschema.validate(result, schema_of_command("gpumem"))


def test_pytorch(launched):
    """Segments are PyTorch's and not cudaMalloc's; a merge failure between two segments; OOM counts once."""
    result, truth, _ = launched("linked", "caching")
    (rows,) = truth.values()
    (space,) = result["spaces"]
    assert (space["kind"], space["device"], space["at_least"]) == ("PyTorch", 0, False)
    names = Counter(row.name for row in rows)
    assert result["traced"] == sum(names[name] for name in words.ACTIONS)
    assert space["requests"] == names["alloc"] + names["oom"] and space["ooms"] == names["oom"] == 1
    segments = [row.size for row in rows if row.name == "segment_alloc"]
    assert space["peak_reserved"] == result["peak_reserved"] == sum(segments) == 24 * MIB
    assert space["growths"] == {"needed": 2, "merge_failure": 1, "refused_reuse": 0} and sum(
        space["growths"].values()
    ) == len(segments)
    assert space["ooms_by_fragmentation"] == 0 and space["peak_live"] == 3 * MIB
    assert (space["live"], space["reserved"]) == (0, 0) and "expandable_segments" in result["advice"][0]
    assert next(each for each in result["failed"] if each["why"] == "merge_failure")["stack"][0] == "c10_malloc"


def test_pytorch_without_symbols(gotrace, tmp_path):
    """A stripped libc10_cuda, as distributions build it: only segments are seen, and that is said."""
    for name in ("libc10_cuda.so", "libcudart.so.12", "libcuda.so.1", "linked"):
        shutil.copy(gpulibs.built() / name, tmp_path)
    subprocess.run(["strip", tmp_path / "libc10_cuda.so"], check=True)
    path = tmp_path / "out.json"
    env = {**gpulibs.environment(tmp_path / "truth"), "LD_LIBRARY_PATH": str(tmp_path)}
    command = [str(tmp_path / "linked"), "caching", "once"]
    done = gotrace("gpumem", "-o", str(path), "--", *command, env=env)
    assert done.returncode == 0 and "of PyTorch's allocator only segments are seen" in done.stderr
    result = result_of(path)
    (space,) = result["spaces"]
    (rows,) = gpulibs.calls(tmp_path / "truth").values()
    assert space["kind"] == "cudaMalloc" and result["traced"] == 0 and space["ooms"] == 1
    assert space["peak_live"] == sum(row.size for row in rows if row.name == "segment_alloc")


def test_expandable_segments(launched):
    """What was mapped for PyTorch is PyTorch's; its pieces join, so that 3 MiB fit where 2 and 2 were mapped."""
    result, truth, _ = launched("linked", "expandable")
    (space,) = result["spaces"]
    assert space["kind"] == "PyTorch" and space["ooms"] == space["growths"]["merge_failure"] == 0
    assert (space["live"], space["reserved"], space["peak_reserved"]) == (3 * MIB, 4 * MIB, 6 * MIB)
    assert space["adjacent"] == [] and result["calls"]["map"]["count"] == 3 and result["calls"]["unmap"]["count"] == 1
    assert sum(each["count"] for each in result["calls"].values()) + result["traced"] == sum(map(len, truth.values()))


def test_names_of_pools(launched):
    """The default pool, by its handle and by none, is one; the one that a device was told to use is another."""
    result, truth, _ = launched("linked", "pools")
    default, own = sorted(result["spaces"], key=lambda each: each["handle"])
    assert (default["device"], default["handle"], default["live"]) == (1, 0, 8 * MIB)
    assert (own["device"], own["handle"], own["live"]) == (None, 0xD01, 7 * MIB)
    (rows,) = truth.values()
    assert default["told_reserved"] == next(row.size for row in rows if row.name == "cuMemPoolGetAttribute") == 10 * MIB
    assert default["reserved_when_told"] == 8 * MIB <= 10 * MIB  # at least


def test_virtual_memory_management(launched):
    result, truth, _ = launched("linked", "vmm")
    (space,) = result["spaces"]
    assert (space["kind"], space["live"], space["reserved"], space["peak_reserved"]) == ("mapped", None, 2 * MIB, 4 * MIB)
    assert result["calls"]["create"] == {"count": 3, "failed": 1} and result["nested"] == 0
    assert sum(each["count"] for each in result["calls"].values()) == sum(map(len, truth.values()))


def test_libraries_that_come_later(run, gotrace, tmp_path):
    """A process without any: it is held in its dynamic linker when it has loaded them, and nothing is missed."""
    target, truth = run("unlinked", "example", "late")
    path = tmp_path / "out.json"
    with subprocess.Popen(
        [*GOTRACE, "gpumem", "--pid", str(target.pid), "-i", "100ms", "-o", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert "Tracing" in tracer.stderr.readline()
        target.go()
        target.truth()
        assert tracer.stdout.readline().split()[:2] == ["time", "live"]  # lines come once there are probes
        before = len(next(iter(gpulibs.calls(truth).values())))
        target.go()
        target.truth()
        assert target.finish() == 0
        out, said = tracer.communicate(timeout=60)
    assert tracer.returncode == 0 and "Traceback" not in said
    result = result_of(path)
    lines = [each for each in json.loads(path.read_text()) if each["type"] == "gpumem_interval"]
    for each in (*lines, result):
        jsonschema.validate(each, schema_of_command("gpumem"))
    spaces = result["spaces"]  # a pool with each line
    assert sum(each["requests"] for each in lines) == sum(each["requests"] for each in spaces) and len(lines) > 1
    failures = [each["growths"]["merge_failure"] for each in spaces]
    assert sum(each["growths"]["merge_failure"] for each in lines) == sum(failures) == 2
    assert sum(each["ooms"] for each in lines) == sum(each["ooms"] for each in spaces) == 4
    found = [each for each in result["libraries"] if each["functions"]]
    assert {os.path.basename(each["path"]) for each in found} == {"libcuda.so.1", "libcudart.so.12"}
    assert all(each["late_ns"] is None or each["late_ns"] < 10**9 for each in found)
    (rows,) = gpulibs.calls(truth).values()
    seen = sum(each["count"] for each in result["calls"].values()) + result["nested"]
    assert seen == len(rows) == 2 * before


def test_code_that_was_replaced_is_left_alone(run):
    """Something has written a jump over cudaMalloc: that function is refused with the reason, the others are probed."""
    target, _ = run("linked", "example", "start")
    with Process.open(target.pid) as process, session.opened([gpumem], process) as tracing:
        point = next(each for each in tracing.plan.points if each.symbol == "cudaMalloc")
        base = next(file.base for path, file in process.open_libraries(lambda path: "libcudart" in path).items())
    with open(f"/proc/{target.pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(base + point.file_offset)
        memory.write(b"\xeb")
    with Process.open(target.pid) as process, session.opened([gpumem], process) as tracing:
        assert "cudaMalloc" not in {each.symbol for each in tracing.plan.points}
        assert ("cudaMalloc", "its code in memory differs from its file") in {
            (each.name, each.reason.split(":")[0]) for each in tracing.plan.missing
        }
        assert "cudaFree" in {each.symbol for each in tracing.plan.points}


def test_of_a_process_without_cuda(gotrace):
    done = gotrace("gpumem", "--", "true")
    assert done.returncode == 0 and "No CUDA library was mapped" in done.stderr
    assert "Nothing was allocated" in done.stderr


@pytest.mark.parametrize("how", ["command", "pid"])
def test_workers_of_a_launcher(how, gotrace, tmp_path):
    """As torchrun does it, each with a truth of its own, call by call: one is killed, one loads its libraries late, and one
    forks with the libraries that it has, and executes nothing."""
    files = {ending: tmp_path / f"out.{ending}" for ending in ("json", "parquet", "html", "svg", "gotrace")}
    outputs = [word for path in files.values() for word in ("-o", str(path))]
    env = {**gpulibs.environment(tmp_path / "unused"), "TRUTHS": str(tmp_path / "truth")}
    launcher = [str(gpulibs.built() / "launcher"), str(gpulibs.built())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    traced = [*GOTRACE, "gpumem", *outputs]
    with subprocess.Popen([*traced, "--", *launcher] if how == "command" else launcher, env=env, **pipes) as first:
        workers = json.loads(first.stdout.readline())
        if how == "pid":
            until(lambda: all("/libcuda.so.1" in Path(f"/proc/{workers[at]}/maps").read_text() for at in (0, 2)))
            tracer = subprocess.Popen([*traced, "--pid", str(first.pid)], stderr=subprocess.PIPE, text=True)
            assert "Tracing" in tracer.stderr.readline()
        first.stdin.write("\n")
        first.stdin.flush()
        for _ in workers:
            assert json.loads(first.stdout.readline()) == {"done": True}
        first.stdin.close()
    assert first.returncode == 0
    if how == "pid":
        assert tracer.wait(60) == 0 and "Traceback" not in tracer.stderr.read()
        tracer.stderr.close()
    results = {each["pid"]: each for each in json.loads(files["json"].read_text()) if each["type"] == "gpumem"}
    wanted = {}
    for number in range(1, len(workers) + 1):
        for tid, rows in expected(tmp_path / f"truth.{number}").items():
            wanted[tid] = rows
    told, of = defaultdict(list), {}
    for row in parquet.read_table(files["parquet"]).to_pylist():
        layer = "cu" if row["layer"] == "driver" else "rt"
        words_of = [row[name] for name in ("nested", "result", "address", "size", "stream", "pool")]
        told[row["tid"]].append((f"{layer}_{row['operation']}", *words_of))
        of.setdefault(row["pid"], set()).add(row["tid"])
    for tid, rows in wanted.items():  # a free is of when it began, and was written down when it ended
        assert sorted(told[tid]) == sorted(rows), tid
    assert told.keys() == wanted.keys()
    (child,) = of.keys() - set(workers)
    assert of[workers[0]] == {workers[0]} and of[workers[1]] == {workers[1]} and of[child] == {child}
    assert len(of[workers[2]]) == 3 and workers[2] not in of[workers[2]]  # its threads
    assert results.keys() == of.keys() and {each["processes"] for each in results.values()} == {4}
    for pid, each in results.items():
        jsonschema.validate(each, schema_of_command("gpumem"))
        calls = [row for tid in of[pid] for row in wanted[tid]]
        assert sum(one["count"] for one in each["calls"].values()) + each["nested"] == len(calls) and each["lost"] == 0
        assert (each["others"], each["running"]) == ([], 0)
        assert os.path.basename(each["exe"]) == ("linked" if pid == workers[0] else "unlinked")
    (space,) = results[workers[0]]["spaces"]
    assert (space["peak_live"], space["growths"]["merge_failure"], space["ooms"]) == (150 * MIB, 1, 2)
    for pid in (workers[1], child):
        (space,) = results[pid]["spaces"]
        assert (space["peak_live"], space["peak_reserved"]) == (32 * MIB, 44 * MIB)
        assert space["growths"] == {"needed": 4, "merge_failure": 1, "refused_reuse": 0}
        assert (space["ooms"], space["ooms_by_fragmentation"]) == (1, 1)
    asked = [each["stack"] for each in results[workers[0]]["failed"]]
    assert all(stack[-1] in ("main", "?") for stack in asked if stack)
    # the recording says the same
    again = {ending: tmp_path / f"again.{ending}" for ending in ("json", "parquet", "html", "svg")}
    done = gotrace("report", str(files["gotrace"]), *(word for path in again.values() for word in ("-o", str(path))))
    assert done.returncode == 0 and f"{len(of)} processes made" in done.stdout, done.stderr
    for ending, path in again.items():
        assert path.read_bytes() == files[ending].read_bytes(), ending


# Calls every function that is probed in a real libcudart, with arguments that tell them apart; none has a device.
_CALLS = """
import ctypes, json, sys
cuda = ctypes.CDLL(sys.argv[1])
out, pitch, stream, pool, value = (ctypes.c_void_p(number) for number in (0, 0, 0x5550, 0x6660, 7))
size = ctypes.c_size_t
def asked():
    yield "cudaMalloc", (ctypes.byref(out), size(1001))
    yield "cudaMallocManaged", (ctypes.byref(out), size(1002), ctypes.c_uint(1))
    yield "cudaMallocPitch", (ctypes.byref(out), ctypes.byref(pitch), size(100), size(7))
    for ending in ("", "_ptsz"):
        yield "cudaMallocAsync" + ending, (ctypes.byref(out), size(1003), stream)
        yield "cudaMallocFromPoolAsync" + ending, (ctypes.byref(out), size(1004), pool, stream)
        yield "cudaFreeAsync" + ending, (ctypes.c_void_p(0x7770), stream)
    yield "cudaFree", (ctypes.c_void_p(0x7780),)
    yield "cudaMemPoolTrimTo", (pool, size(1005))
    yield "cudaMemPoolGetAttribute", (pool, ctypes.c_int(5), ctypes.byref(value))
    yield "cudaMemGetInfo", (ctypes.byref(out), ctypes.byref(pitch))
    yield "cudaSetDevice", (ctypes.c_int(3),)
print("ready", flush=True)
for _ in sys.stdin:
    print(json.dumps([[name, getattr(cuda, name)(*given)] for name, given in asked()]), flush=True)
"""


@pytest.mark.parametrize(("package", "version", "name"), gpulibs.WHEELS)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the wheels that are asked for are of x86-64")
def test_the_real_runtime(package, version, name):
    """NVIDIA's own libcudart, without a driver: every function is probed, its arguments are where we look for them, and

    a request that ends in an error is nothing that was allocated.
    """
    library = gpulibs.runtime(package, version, name)
    command = [sys.executable, "-c", _CALLS, str(library)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout.readline() == "ready\n"
        with Process.open(target.pid) as process, session.opened([gpumem], process) as tracing:
            probed = {each.symbol for each in tracing.plan.points}
            assert all(each.emulated for each in tracing.plan.points)  # push: no single step
            target.stdin.write("\n")
            target.stdin.flush()
            answers = json.loads(target.stdout.readline())
            events = tracing.read()
        target.stdin.close()
    assert {answer for _, answer in answers} <= {35, 999, 3, 1, 400, 801}, answers  # nothing succeeds
    assert dict(answers)["cudaMalloc"] == 35  # cudaErrorInsufficientDriver
    assert probed >= {asked for asked, _ in answers}
    sizes = {"cudaMalloc": 1001, "cudaMallocManaged": 1002, "cudaMallocPitch": 700, "cudaMemPoolTrimTo": 1005}
    (rows,) = seen(events).values()
    assert len(rows) == len(answers)
    for (asked, answer), (program, nested, result, address, size, stream, pool) in zip(answers, rows, strict=True):
        base = asked.removesuffix("_ptsz")
        assert program == gpumem.FUNCTIONS[asked][0] and (nested, result) == (0, answer)
        wanted = {"cudaMallocAsync": (0, 1003, 0x5550, 0), "cudaMallocFromPoolAsync": (0, 1004, 0x5550, 0x6660)}
        wanted |= {"cudaFreeAsync": (0x7770, 0, 0x5550, 0), "cudaFree": (0x7780, 0, 0, 0), "cudaSetDevice": (3, 0, 0, 0)}
        wanted |= {"cudaMemPoolTrimTo": (0, 1005, 0, 0x6660), "cudaMemPoolGetAttribute": (5, 0, 0, 0x6660)}
        assert (address, size, stream, pool) == wanted.get(base, (0, sizes.get(base, 0), 0, 0)), asked
    layers = Layers()
    layers.feed(calls_of(events))
    assert not layers.courses() or all(not len(course.blocks) for course in layers.courses().values())


def calls_of(events):
    rows = np.zeros(len(events), CALL)
    for name, letter in zip(("call", "address", "size", "stream", "pool"), "abcde", strict=True):
        rows[name] = events[letter]
    rows["time_ns"], rows["tid"] = events["time_ns"], events["tid"]
    return rows[events["kind"] == KINDS.number("call")]


def test_a_command_that_its_linker_refuses(gotrace, tmp_path):
    """It ends before it has begun: that is said, and its status is the command's."""
    alone = tmp_path / "linked"
    shutil.copy(gpulibs.built() / "linked", alone)
    done = gotrace("gpumem", "--", str(alone))
    assert done.returncode == 127 and "cannot open shared object file" in done.stderr
    assert f"gotrace: {alone} exited before its first instruction" in done.stderr


def test_behind_a_launcher(tmp_path):
    """`env` becomes the program, which is held in its dynamic linker: nothing is missed."""
    truth = tmp_path / "truth"
    command = [*GOTRACE, "gpumem", "-i", "100ms", "--", "env", "A=1", str(gpulibs.built() / "linked"), "example"]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen(command, env=gpulibs.environment(truth), text=True, **pipes) as tracer:
        assert "Tracing" in tracer.stderr.readline()
        assert tracer.stderr.readline().split()[:2] == ["time", "live"]  # lines come once there are probes
        out, said = tracer.communicate("\n", timeout=60)
    assert tracer.returncode == 0 and json.loads(out) == {"done": True} and "Traceback" not in said
    (rows,) = gpulibs.calls(truth).values()
    nested = sum(row.name.startswith("cuMem") for row in rows)
    assert f": {len(rows) - nested} calls for GPU memory in" in said and said.count("calls for GPU memory") == 1
    assert "/linked): " in said


def test_shapes_of_files(gotrace, launched, tmp_path):
    """A picture, a page and a table of all calls, live and from a recording: the same."""
    files = {ending: tmp_path / f"gpu.{ending}" for ending in ("svg", "html", "parquet", "gotrace")}
    _, truth, _ = launched("linked", "caching", *(word for path in files.values() for word in ("-o", str(path))))
    (rows,) = truth.values()
    assert parquet.read_table(files["parquet"]).num_rows == len(rows)
    again = {ending: tmp_path / f"again.{ending}" for ending in ("svg", "html", "parquet")}
    done = gotrace("report", str(files["gotrace"]), *(word for path in again.values() for word in ("-o", str(path))))
    assert done.returncode == 0
    for ending, path in again.items():
        assert path.read_bytes() == files[ending].read_bytes(), ending


def test_what_a_gpu_would_be_asked(tmp_path):
    """The script for a machine with a GPU, on the stand-ins: it gets through, and what can be answered here is."""
    env = gpulibs.environment(tmp_path / "truth")
    del env["STANDIN_TRUTH"]
    done = subprocess.run(
        [sys.executable, targets.ROOT / "scripts/gpu-check", tmp_path / "out"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    before = (tmp_path / "out/report.json").read_bytes()
    again = subprocess.run(done.args, capture_output=True, text=True)
    assert again.returncode == 1 and "is not empty" in again.stderr and "--force" in again.stderr
    assert (tmp_path / "out/report.json").read_bytes() == before
    told = json.loads(before)
    asked, nested = told["1. calls of the runtime, and of the driver by it"]
    assert nested == 2 * 2000 + 2 * 2 * 20 + 2 and asked == nested + 1  # and the driver once without it
    assert told["2. addresses"] == "equal, 80 calls"
    pool, pieces = told["3. a pool"], told["4. a pool in pieces"]
    assert pool["driver says reserved"] == pool["we say at least"] == 64 * 2 * MIB and pool["growth steps"] == [2 * MIB]
    assert pieces["driver says reserved"] == pieces["we say at least"] == 96 * 2 * MIB
    assert pieces["growths"] == {"needed": 64, "merge_failure": 1, "refused_reuse": 0}
    assert told["nvidia-smi"].startswith("unknown: ") or (tmp_path / "out/nvidia-smi.txt").exists()


def test_a_step_of_a_pipeline(gotrace, tmp_path):
    """Its numbers are those of the command's own result."""
    step = {"name": "memory", "gpumem": {"command": [str(gpulibs.built() / "linked"), "example", "once"], "bin": "1ms"}}
    plan, out = tmp_path / "p.yaml", tmp_path / "out"
    plan.write_text(json.dumps({"schema": "gotrace.pipeline/1", "out": str(out), "steps": [step]}))
    done = gotrace("run", str(plan), env=gpulibs.environment(tmp_path / "truth"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "peak 150 MiB live; 1 merge failure, 2 OOMs, 1 of them by fragmentation" in done.stdout + done.stderr
    assert result_of(out / "memory/gpumem.json")["peak_live"] == 150 * MIB
    assert (out / "memory/gpumem.html").exists() and (out / "memory/gpumem.gotrace").exists()
    step["gpumem"]["command"] = ["no-such-command"]
    plan.write_text(json.dumps({"schema": "gotrace.pipeline/1", "out": str(out), "steps": [step]}))
    assert "there is no command 'no-such-command'" in gotrace("run", str(plan), "--force").stderr

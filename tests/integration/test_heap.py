"""`gotrace heap` against the profile that the program writes of itself, and against what it has allocated."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import time
from collections import Counter

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, records_of, until
from gotrace.binary.profiles import find_profiles
from gotrace.binary.program import GoProgram
from gotrace.kernel.process import Process
from gotrace.runtime.profiles import ProfileReader
from gotrace.text import bytes_text

MIB = 1 << 20
# What is kept in an interface has a header of its own on the heap.
CHURN, INLINED = 20 * MIB + 24 * (16384 + 8192), 4 * MIB + 24 * 8192
CASES = [
    *((version, "stripped") for version in targets.ENDS),
    *((version, flavour) for version in ("1.19.8", "1.22.10", targets.NEWEST) for flavour in ("pie-stripped", "noopt")),
]
CASES = [case for case in CASES if case[0] in targets.MATRIX and (case[1] == "stripped" or not targets.EMULATED)]


class Hoarder:
    """The program, at rest once it has answered a line; ``text`` and ``profile`` are what it wrote then."""

    def __init__(self, start, folder, *arguments, version=targets.NEWEST, flavour="stripped"):
        self._text, self.profile = folder / "text", folder / "profile.pb.gz"
        files = ("-text", str(self._text), "-profile", str(self.profile))
        self.target = start(targets.build("hoarder", version, flavour), *files, *arguments)
        self.pid = self.target.pid

    def ask(self, line=""):
        self.target.process.stdin.write(f"{line}\n")
        self.target.process.stdin.flush()
        return json.loads(self.target.process.stdout.readline())

    @property
    def samples(self):
        """(objects and bytes in use, and allocated, stack) as debug=1 has them."""
        found = re.findall(r"^(\d+): (\d+) \[(\d+): (\d+)\] @ ?(.*)$", self._text.read_text(), re.M)
        return Counter((*map(int, row[:4]), row[4]) for row in found if row[2] != "0")


told = functools.partial(records_of, "heap")


def of_function(record, name, value="inuse_bytes"):
    """What stacks whose innermost function has this name come to."""
    return sum(each[value] for each in record["stacks"] if each["stack"][0]["function"] == name)


@pytest.mark.everywhere
@pytest.mark.parametrize(("version", "flavour"), CASES)
def test_samples_are_the_programs(version, flavour, start, tmp_path):
    """Each stack, address by address, and its four numbers; of many buckets, too."""
    program = Hoarder(start, tmp_path, "-rate", "20000", "-sites", "600", version=version, flavour=flavour)
    for _ in range(3):
        program.ask()
        with Process.open(program.pid) as process:
            reader = ProfileReader(process)
            found = reader.heap()
            bias = process.load_bias(reader.places.first_vaddr) if reader.places.pie else 0
        ours = Counter()
        for stack, size, allocs, frees in zip(
            found.stacks, found.sizes.tolist(), found.allocs.tolist(), found.frees.tolist(), strict=True
        ):
            if allocs:
                used = allocs - frees
                ours[used, used * size, allocs, allocs * size, " ".join(hex(pc + bias) for pc in stack)] += 1
        assert found.rate == 20000 and len(ours) > 10
        assert ours == program.samples


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.SOME)
def test_every_byte(version, start, tmp_path, gotrace):
    """With a sample for each allocation it is what the program has allocated, to the byte."""
    program = Hoarder(start, tmp_path, "-rate", "1", version=version)
    program.ask()
    (first,) = told(program.pid)
    assert of_function(first, "main.hoard") == 8 * MIB + 3 * MIB
    assert of_function(first, "main.hoard", "inuse_objects") == 8 * MIB / 4096 + 1
    assert of_function(first, "main.churn", "alloc_bytes") == CHURN
    assert of_function(first, "main.churn", "inuse_bytes") == 0
    deep = [each for each in first["stacks"] if [f["function"] for f in each["stack"]].count("main.deep") == 21]
    assert sum(each["alloc_bytes"] for each in deep) == 4 * MIB + 24 * 8192
    (inner,) = [each for each in first["stacks"] if each["stack"][0]["function"] == "main.inlinedToo"]
    assert [(each["function"], each["inlined"]) for each in inner["stack"][:3]] == [
        ("main.inlinedToo", True),
        ("main.inlined", True),
        ("main.round", False),
    ]
    assert inner["alloc_bytes"] == INLINED
    assert first["inuse_bytes"] == sum(each["inuse_bytes"] for each in first["stacks"])
    # What no collection has seen yet is in the profile of now alone.
    program.ask("allocate")
    (published,), (now,) = told(program.pid), told(program.pid, "--now")
    assert of_function(published, "main.hoard") == of_function(first, "main.hoard")
    assert of_function(now, "main.hoard") == 2 * of_function(first, "main.hoard")
    assert of_function(now, "main.churn", "alloc_bytes") == 2 * CHURN
    out = gotrace("heap", "--pid", str(program.pid), "--now").stdout
    assert re.search(r"^ +22\.0 MiB +4,098 +\d+\.\d%  main\.hoard < main\.round", out, re.M), out


@pytest.mark.parametrize("version", targets.MATRIX)
def test_pprof_shows_the_same(version, start, tmp_path, gotrace):
    """`go tool pprof` on our file and on the program's own: every function, flat and cumulative, of all four kinds."""
    program = Hoarder(start, tmp_path, "-rate", "30000", "-sites", "300", version=version)
    program.ask()
    out = tmp_path / "x.pb.gz"
    assert gotrace("heap", "--pid", str(program.pid), "-o", str(out)).returncode == 0
    raw = "\n".join(targets.go_tool("pprof", "-raw", str(out)))
    assert "PeriodType: space bytes\nPeriod: 30000\n" in raw
    for index in ("inuse_space", "inuse_objects", "alloc_space", "alloc_objects"):
        theirs, ours = (targets.pprof_top(path, index, "B") for path in (program.profile, out))
        assert len(theirs) >= 4 and ours.keys() == theirs.keys(), index
        for name, numbers in theirs.items():
            assert ours[name] == pytest.approx(numbers, rel=0.001, abs=10), (index, name)  # they round for each bucket


@pytest.mark.parametrize("options", [(), ("--alloc",), ("--objects",)], ids=" ".join)
def test_what_grew(options, start, tmp_path, gotrace):
    """A leak of known size at a known place, in the table and in the picture."""
    program = Hoarder(start, tmp_path, "-rate", "1")
    program.ask()
    folded = tmp_path / "x.folded"
    command = [*GOTRACE, "heap", "--pid", str(program.pid), "-d", "4s", "-o", str(folded), *options]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert "in use" in tracer.stdout.readline()
        tracer.stdout.readline()  # the first profile is taken
        program.ask()
        out, err = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0, err
    took = time.monotonic() - began
    sums = Counter()
    for line in folded.read_text().splitlines():
        stack, _, weight = line.rpartition(" ")
        sums[stack.split(";")[-1]] += int(weight)
    if "--alloc" in options:
        assert sums["main.churn"] == CHURN and sums["main.hoard"] == 11 * MIB
        (rate,) = re.findall(r"16\.4 MiB +32\.8 MiB +16\.4 MiB +(\d\.\d\d) MiB  main\.churn < main\.round", out)
        assert 16.4 / took < float(rate) < 16.4 / 3
    elif "--objects" in options:
        assert sums["main.hoard"] == 8 * MIB / 4096 + 1 and "main.churn" not in sums
    else:
        assert sums["main.hoard"] == 11 * MIB and "main.churn" not in sums
        (rate,) = re.findall(
            r"11\.0 MiB +22\.0 MiB +11\.0 MiB +(\d\.\d\d) MiB  main\.hoard < main\.round < main\.main", out
        )
        assert 11 / took < float(rate) < 11 / 3


def test_recordings_and_what_differs(start, tmp_path, gotrace):
    """A recording says what was printed; of two of them, what the program has kept and allocated in between."""
    program = Hoarder(start, tmp_path, "-rate", "1")
    paths = [str(tmp_path / name) for name in ("a.gotrace", "b.gotrace")]
    for path in paths:
        program.ask()
        printed = gotrace("heap", "--pid", str(program.pid), "-o", path)
        assert printed.returncode == 0, printed.stderr
        assert gotrace("report", path).stdout == printed.stdout
    (last,) = told(program.pid)
    assert json.loads(gotrace("report", paths[1], "--format", "ndjson").stdout)["stacks"] == last["stacks"]
    picture = tmp_path / "x.folded"
    gotrace("report", paths[1], "-o", str(picture))
    assert f"main.hoard {22 * MIB}\n" in picture.read_text().replace(";", "\n")
    rows = json.loads(gotrace("heap", "diff", *paths, "--format", "json").stdout)
    kept = [(row["b"] - row["a"], row["stack"][0]["function"]) for row in rows]
    assert sum(size for size, name in kept if name == "main.hoard") == 11 * MIB
    assert "main.churn" not in {name for _, name in kept}
    text = gotrace("heap", "diff", *paths).stdout
    assert re.search(r"^ +11\.0 MiB +22\.0 MiB +\+11\.0 MiB  main\.hoard < main\.round", text, re.M), text
    text = gotrace("heap", "diff", *paths[::-1], "--alloc", "--objects").stdout
    assert re.search(r"^ +65,536 +32,768 +-32,768  main\.churn < ", text, re.M), text
    for arguments, status, words in (
        ((*paths, "--top", "3", "--format", "json"), 2, "--top has no effect without a table"),
        ((paths[0], str(picture)), 1, "is not a gotrace recording"),
    ):
        done = gotrace("heap", "diff", *arguments)
        assert done.returncode == status and words in done.stderr, done.stderr
    done = gotrace("goroutines", "diff", *paths)
    assert done.returncode == 1 and "is not a recording by `gotrace goroutines`" in done.stderr, done.stderr


@pytest.mark.parametrize("rate", [1, 4096])
@pytest.mark.parametrize(
    "version", [version for version in targets.MATRIX if version.startswith(("1.19.", "1.22.", "1.27."))]
)
def test_gc_names_who_allocates(version, rate, start, trace, tmp_path, gotrace):
    """Of what was allocated before nothing; with a sample for each allocation it is all of it, to the byte."""
    program = Hoarder(start, tmp_path, "-rate", str(rate), version=version)
    program.ask()
    recording = tmp_path / "x.gotrace"
    tracer = trace("--pid", str(program.pid), "--explain", "-o", str(recording))
    path = tracer.records_path
    until(lambda: path.exists() and '"start"' in path.read_text())
    for _ in range(3):
        program.ask()
    tracer.interrupt()
    assert tracer.finish() == 0, tracer.stderr
    summary = tracer.records[-1]
    found = summary["allocated"]
    assert summary["cycles"] == 6 and found["unknown"] is None and found["rate_bytes"] == rate
    of_function, samples = Counter(), Counter()
    for each in found["by"]:
        of_function[each["code"][0]] += each["bytes"]
        samples[each["code"][0]] += each["samples"]
    for name, size in (("main.churn", 3 * CHURN), ("main.hoard", 33 * MIB), ("main.inlinedToo", 3 * INLINED)):
        # A sampled number has a standard error of its root.
        assert of_function[name] == pytest.approx(size, rel=0 if rate == 1 else 5 / samples[name] ** 0.5), name
    assert found["samples"] >= samples.total() and found["bytes"] >= of_function.total()
    assert found["length_ns"] == pytest.approx(summary["duration_ns"], abs=1e9)
    told = re.search(
        r"^Which code allocated, of ([\d.]+ MiB) in .* own heap profile \(.* samples?, one every .*\):\n",
        tracer.stdout,
        re.M,
    )
    assert told and told[1] == bytes_text(found["bytes"]), tracer.stdout
    share = 100 * of_function["main.hoard"] / found["bytes"]
    assert f"{share:.1f}%  " in tracer.stdout and "main.hoard < main.round < main.main" in tracer.stdout
    report = gotrace("report", str(recording), "--explain")
    assert report.stdout == tracer.stdout
    page = gotrace("report", str(recording), "--explain", "--format", "html").stdout
    assert told[0].strip(":\n").partition("'s ")[2] in page and "main.churn &lt; main.round" in page


def test_mem_names_whose_the_live_objects_are(start, tmp_path, gotrace):
    """To the byte, and as much as the runtime has in its heap."""
    program = Hoarder(start, tmp_path, "-rate", "1")
    program.ask()
    (recording, page) = (tmp_path / name for name in ("x.gotrace", "x.html"))
    printed = gotrace("mem", "--pid", str(program.pid), "--code")
    (record,) = (json.loads(gotrace("mem", "--pid", str(program.pid), "--code", "--format", "ndjson").stdout),)
    live = record["code"]
    sizes = Counter()
    for each in live["by"]:
        sizes[each["code"][0]] += each["bytes"]
    assert sizes["main.hoard"] == 11 * MIB and live["unknown"] is None and "main.churn" not in sizes
    assert live["bytes"] == pytest.approx(record["counters"]["heap_alloc"], rel=0.1)  # resident or not
    assert re.search(r"^ +11\.0 MiB +\d\d\.\d%  main\.hoard < main\.round < main\.main", printed.stdout, re.M), (
        printed.stdout
    )
    done = gotrace("mem", "--pid", str(program.pid), "--code", "-d", "1s", "-o", str(recording), "-o", str(page))
    assert done.returncode == 0 and "main.hoard < main.round" in done.stdout
    assert gotrace("report", str(recording)).stdout == done.stdout
    without = start(targets.build("gcload"), "-seconds", "60")
    out = gotrace("mem", "--pid", str(without.pid), "--code").stdout
    assert "Which code allocated the live heap is unknown: the program keeps no heap profile" in out
    assert gotrace("mem", "--pid", str(program.pid), "--faults", "--code").returncode == 2


def test_gc_of_a_program_without_a_profile(start, trace):
    program = start(targets.build("gcload"), "-seconds", "2")
    tracer = trace("--pid", str(program.pid), "--explain")
    program.go()
    assert program.finish() == 0 and tracer.finish() == 0, tracer.stderr
    assert "Which code allocates is unknown: the program keeps no heap profile" in tracer.stdout
    assert tracer.records[-1]["allocated"]["unknown"].startswith("the program keeps no heap profile")


def test_what_cannot_be_meant(gotrace, start, tmp_path):
    without = start(targets.build("gcload"), "-seconds", "60")
    for options, status, words in (
        (("--pid", str(without.pid)), 1, "keeps no heap profile: nothing in it reads one"),
        (("--pid", str(without.pid), "--inuse", "--alloc"), 2, "are mutually exclusive"),
        (("--pid", str(without.pid), "-i", "1s"), 2, "--interval has no effect without --duration"),
        ((), 2, "--pid"),
    ):
        done = gotrace("heap", *options)
        assert done.returncode == status and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    program = Hoarder(start, tmp_path, "-rate", "0")
    program.ask()
    done = gotrace("heap", "--pid", str(program.pid), "-o", str(tmp_path / "x.svg"))
    assert done.returncode == 1 and "MemProfileRate is 0" in done.stderr and not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize("name", ["hoarder", "profiled"])
def test_addresses_are_where_nm_says(name):
    """Of every release and both architectures, with and without optimisation, with runtime.GC and without."""
    for version in targets.MATRIX:
        for arch in ("amd64", "arm64"):
            for flavour in ("default", "pie", "noopt"):
                if flavour == "default" or version in ("1.19.8", "1.22.10", targets.NEWEST):
                    with GoProgram.open(targets.build(name, version, flavour, arch)) as program:
                        found = find_profiles(program)
                        symbols = {name: address for name, address, _ in program.elf.symbols()}
                    names = {"mbuckets": found.mbuckets, "mProfCycle": found.cycle, "MemProfileRate": found.rate}
                    assert names == {name: symbols[f"runtime.{name}"] for name in names}, (version, arch, flavour)

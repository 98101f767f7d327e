"""What a program was built by, with and without build information, and what is said of programs that cannot be traced."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import pytest

import targets
from conftest import until
from gotrace.binary.elf import Elf
from gotrace.binary.globals import find_globals
from gotrace.binary.heap import find_heap
from gotrace.binary.identity import identify
from gotrace.binary.program import GoProgram
from gotrace.errors import UntraceableError
from gotrace.probes import gc
from groundtruth import gctrace, rendered

MAGIC = b"\xff Go buildinf:"
CASES = [
    (version, arch, flavour)
    for version in targets.MATRIX
    for arch in ("amd64", "arm64")
    for flavour in ("stripped", "pie-stripped", "noopt", "pgo", "cgo-external-pie")
    if flavour in targets.flavours_of(version, arch)
    # what costs a build of the whole standard library: as in test_binary_truth
    and (flavour in ("stripped", "pie-stripped") or version in ("1.19.8", "1.22.10", "1.25.5", "1.27.3"))
]
# esbuild -> the Go that built it: by `go version`, and for those without build information by its repository (go.version)
ESBUILD = {"0.16.17": "go1.19.4", "0.17.19": "go1.20.4", "0.18.20": "go1.20.7", "0.25.0": "go1.23.5", "0.28.0": "go1.26.1"}


def without_build_info(version, arch, flavour):
    name = "cgo" if flavour.startswith("cgo") else "gcload"
    data = targets.build(name, version, flavour, arch).read_bytes()
    assert data.count(MAGIC) >= 1
    return data.replace(MAGIC, bytes(len(MAGIC)))


@pytest.mark.parametrize(("version", "arch", "flavour"), CASES)
def test_version_without_build_information(version, arch, flavour):
    with GoProgram(Elf.from_bytes(without_build_info(version, arch, flavour))) as program:
        assert program.go_version.split()[0] == f"go{version}"
        assert program.build_info.settings == {} and find_globals(program, pacing=True).missing == {}
        assert program.pclntab.knows_inlining


@pytest.mark.parametrize(
    ("said", "instead"), [("go1.27.3", "go1.26.3"), ("go1.27.3", "ge1.27.3"), ("go1.22.10", "go1.23.10")]
)
def test_two_keys_have_to_agree(said, instead):
    """A program may say anything of itself; the functions of its runtime say which release it is."""
    data = without_build_info(said[2:], "amd64", "stripped").replace(said.encode(), instead.encode())
    with pytest.raises(UntraceableError, match="version cannot be determined") as raised:
        identify(Elf.from_bytes(data))
    assert raised.value.hint


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("version", ESBUILD)
def test_esbuild(version, arch):
    """Nothing is missing in it that its Go has."""
    if version == "0.28.0":
        done = subprocess.run(
            [targets.go(targets.NEWEST), "version", targets.esbuild(version, arch)], capture_output=True, text=True
        )
        assert "could not read Go build info" in done.stderr
    with GoProgram.open(targets.esbuild(version, arch)) as program:
        assert program.go_version == ESBUILD[version]
        assert {item.name for item in gc.plan(program).missing} <= {"stopping"}
        assert find_heap(program).missing.keys() <= {"memory returned while allocating", "persistentChunks"}


def small_program(path):
    """An i386 program that ends at once; the build information in it is all that is Go's."""
    code = bytes.fromhex("31db b801000000 cd80")  # xor ebx, ebx; mov eax, 1 (exit); int 0x80
    head = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, 0x10054, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    load = struct.pack("<8I", 1, 0, 0x10000, 0x10000, 0x100, 0x100, 5, 0x1000)
    path.write_bytes((head + load + code).ljust(0x80, b"\0") + MAGIC.ljust(0x80, b"\0"))
    path.chmod(0o755)
    return path


@pytest.mark.bpf
def test_commands_that_cannot_be_traced(gotrace, tmp_path):
    """Each is told plainly, and never runs."""
    other = {"amd64": "arm64", "arm64": "amd64"}[targets.HOST_ARCH]
    script = tmp_path / "script"
    script.write_text("echo this has no interpreter\n")
    script.chmod(0o755)
    foreign = targets.build("lifecycle", arch=other)
    small = small_program(tmp_path / "small")
    for command, status, message, hint in (
        ([foreign], 2, f"it is a program for {other}, but this machine is {targets.HOST_ARCH}", f"on an {other} machine"),
        ([script], 2, "neither a program nor a script with an interpreter", "#!/bin/sh"),
        ([small], 1, "is a 32-bit program for 386", "64-bit programs"),
        # it ran, and its status is its own
        (
            ["sh", "-c", f"{small}; exit 3"],
            3,
            f"executed {small}, which cannot be traced: it is a 32-bit program",
            "64-bit",
        ),
    ):
        if "small" in str(command) and targets.HOST_ARCH != "amd64":
            continue
        done = gotrace("gc", "--", *map(str, command))
        assert done.returncode == status and done.stdout == "", done.stderr
        assert message in done.stderr and hint in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.bpf
def test_go_in_a_library(gotrace, start, tmp_path):
    """Neither the library nor a program that has loaded it."""
    library = tmp_path / "libcgo.so"
    library.write_bytes(targets.build("cgo", flavour="c-shared").read_bytes())
    done = gotrace("doctor", str(library))
    assert done.returncode == 1 and "is a shared library of Go code, not a program" in done.stdout
    load = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); sys.stdin.read()"
    process = start(sys.executable, "-c", load, str(library))
    until(lambda: str(library) in open(f"/proc/{process.pid}/maps").read())
    for command in ("gc", "mem"):
        done = gotrace(command, "--pid", str(process.pid), "-d", "1s")
        assert done.returncode == 1 and f"but has loaded Go code in {library}" in done.stderr, done.stderr
    assert f"but has loaded Go code in {library}" in gotrace("doctor", "--pid", str(process.pid)).stdout


@pytest.mark.bpf
@pytest.mark.skipif(targets.EMULATED, reason="npm's packages are not in the emulated machine")
@pytest.mark.parametrize("version", ["0.17.19", "0.28.0"])
def test_esbuild_at_work(version, start, trace, gotrace, tmp_path):
    """A program of Go 1.20, and one without build information: gctrace's numbers, and RSS in parts."""
    source = tmp_path / "in.js"
    source.write_text("".join(f"export const f{i} = a => [a, {i}].map(v => v * {i}).join()\n" for i in range(4000)))
    program = tmp_path / "esbuild"
    program.write_bytes(targets.esbuild(version).read_bytes())
    program.chmod(0o755)
    options = (str(source), "--watch", "--bundle", f"--outfile={tmp_path / 'out.js'}")
    target = start(str(program), *options, env={"GODEBUG": "gctrace=1", "GOGC": "20"})
    tracer = trace("--pid", str(target.pid))
    for round in range(2, 4):
        with open(source, "a") as file:
            file.write(f"// {round}\n")
        until(lambda round=round: target.stderr.read_text().count("build finished") >= round, 20)
    tracer.interrupt()
    assert tracer.finish() == 0, tracer.stderr
    log = gctrace(target.stderr.read_text())
    cycles = tracer.of("cycle")
    assert len(cycles) > 3 and tracer.records[-1]["events"]["lost"] == 0
    assert [rendered(cycle) for cycle in cycles] == [log[cycle["cycle"]] for cycle in cycles]
    done = gotrace("mem", "--pid", str(target.pid), "--format", "ndjson")
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["parts"].values()) == found["rss_bytes"]
    assert found["parts"]["unexplained"] < 0.03 * found["rss_bytes"]
    assert found["counters"]["gc_percent"] == 20 and found["counters"]["num_gc"] >= max(log)

"""Functions and logical frames of every build of the matrix, against `go tool nm` and the program's own runtime.

The program under test is its own symboliser: it says which functions were inlined at random program counters. Files without
symbols, and files without section headers, must give what whole ones do.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
import subprocess
from pathlib import Path

import pytest

import targets
from gotrace.binary.elf import Elf
from gotrace.binary.program import GoProgram

PROGRAM = "frames"
ARCHES = ("amd64", "arm64")
# A stripped flavour and the one it was made from; the linker puts everything at the same place in both.
TWINS = {"stripped": "default", "pie-stripped": "pie", "nosections": "default"}
UNSTRIPPED = [name for name in targets.FLAVOURS if name not in TWINS]
# Where every package has to be compiled anew, the oldest and the newest release stand for the others on the other machine.
EXPENSIVE = ("noopt", "pgo")

SAMPLE = 200
FRAMES = 1500
MARKERS = re.compile(r"runtime\.(text|etext)|.*\(\.text[^)]*\)")  # symbols of the linker that are no functions


def builds(flavours, arches=ARCHES) -> list[tuple[str, str, str]]:
    ends = (targets.MATRIX[0], targets.MATRIX[-1])
    return [
        (version, flavour, arch)
        for arch, version in itertools.product(arches, targets.MATRIX)
        for flavour in targets.flavours_of(version, arch)
        if flavour in flavours and (arch == targets.HOST_ARCH or flavour not in EXPENSIVE or version in ends)
    ]


@functools.lru_cache(maxsize=4)
def opened(version: str, flavour: str, arch: str) -> GoProgram:
    return GoProgram.open(path_of(version, flavour, arch))


def path_of(version: str, flavour: str, arch: str) -> Path:
    return targets.build(PROGRAM, version, flavour, arch)


def plain(name: str) -> str:
    """A name as all agree on it: without type arguments, which tools and releases spell in their own ways."""
    begin, end = name.find("["), name.rfind("]")
    name = f"{name[:begin]}[...]{name[end + 1 :]}" if 0 <= begin < end else name
    return name.removesuffix(".abi0").replace("·", ".")


def random_pcs(program: GoProgram, count: int) -> list[int]:
    """Program counters in functions, none of them the last byte (the runtime looks one byte further)."""
    entries = program.pclntab.entries
    step = program.pclntab.header.min_lc
    rng = random.Random(f"{program.go_version} {program.arch} {program.pclntab.nfunc}")
    drawn = (rng.randrange(int(entries[0]), int(entries[-1])) // step * step for _ in range(count))
    return [pc for pc in drawn if program.pclntab.find(pc) == program.pclntab.find(pc + 1)]


@pytest.mark.parametrize(("version", "flavour", "arch"), builds(UNSTRIPPED))
def test_every_function(version, flavour, arch):
    program = opened(version, flavour, arch)
    assert program.go_version.startswith(f"go{version}")
    assert program.arch == arch and not program.stripped
    assert program.pie == ("pie" in flavour)
    functions = program.pclntab
    ours = {(plain(name), entry) for name, entry in zip(functions.names(), functions.entries.tolist(), strict=False)}
    theirs = set()
    for line in targets.go_tool("nm", "-size", path_of(version, flavour, arch)):
        match = re.match(r" *([0-9a-f]+) +(\d+) ([Tt]) (.*)", line)
        if match and functions.entries[0] <= int(match[1], 16) < functions.entries[-1] and not MARKERS.fullmatch(match[4]):
            entry, size = int(match[1], 16), int(match[2])
            theirs.add((plain(match[4]), entry))
            found = functions.find(entry)
            assert found is not None and found.entry == entry and entry + size <= found.end
    assert ours == theirs
    assert len(ours) == functions.nfunc > 2500


@pytest.mark.parametrize(("version", "flavour", "arch"), builds(targets.FLAVOURS, arches=(targets.HOST_ARCH,)))
def test_logical_frames(version, flavour, arch):
    program = opened(version, flavour, arch)
    functions = program.pclntab
    pcs = random_pcs(program, FRAMES)
    text = "".join(f"{pc:x}\n" for pc in [functions.function("main.anchor").entry, *pcs])
    done = subprocess.run([path_of(version, flavour, arch)], input=text, capture_output=True, text=True, check=True)
    inlined: dict[str, set[str]] = {}
    deepest = 0
    for pc, line in zip(pcs, done.stdout.splitlines(), strict=True):
        function = functions.find(pc)
        ours = [(frame.function, frame.file, frame.line) for frame in functions.frames(pc)]
        assert ours[0][1:] == functions.line(pc)
        assert ours[-1][0] == function.name
        for name, *_ in ours[:-1]:
            inlined.setdefault(name, set()).add(function.name)
        deepest = max(deepest, len(ours))
        theirs = [tuple(frame) for frame in json.loads(line)]
        # The runtime leaves out adapters around inlined code, has "?" for no file, and no name for the very first one.
        if len(ours) == len(theirs) + 1 and function.func_id == functions.wrapper_id:
            ours.pop()
        for (name, file, number), (their_name, their_file, their_number) in zip(ours, theirs, strict=True):
            assert plain(name) == plain(their_name or functions.name_of(0)), f"{pc:#x}"
            assert (file or "?", number) == (their_file, their_number), f"{pc:#x}"
    if flavour == "noopt":
        assert not inlined
    else:
        assert deepest >= 4
    for name, outer in inlined.items():
        assert outer <= {function.name for function in functions.inlined_in(name)}, name


@pytest.mark.parametrize(("version", "flavour", "arch"), builds(TWINS))
def test_stripped_is_like_unstripped(version, flavour, arch):
    program, twin = opened(version, flavour, arch), opened(version, TWINS[flavour], arch)
    assert program.stripped and not twin.stripped
    same_tables(program, twin)


@pytest.mark.parametrize(("version", "flavour", "arch"), builds(UNSTRIPPED))
def test_without_section_headers(version, flavour, arch):
    data = bytearray(path_of(version, flavour, arch).read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    program = GoProgram(Elf.from_bytes(bytes(data)))
    assert program.elf.sections == {} and program.stripped
    twin = opened(version, flavour, arch)
    same_tables(program, twin)
    assert program.moduledata == twin.moduledata
    assert program.build_info == twin.build_info


def same_tables(program: GoProgram, twin: GoProgram) -> None:
    assert program.go_version == twin.go_version
    assert program.pclntab.names() == twin.pclntab.names()
    assert program.pclntab.entries.tolist() == twin.pclntab.entries.tolist()
    for pc in random_pcs(twin, SAMPLE):
        assert program.pclntab.frames(pc) == twin.pclntab.frames(pc)
        assert program.pclntab.find(pc) == twin.pclntab.find(pc)


@pytest.mark.parametrize("version", targets.MATRIX)
def test_what_is_inlined_without_a_profile(version):
    """Only a profile makes the compiler inline these; setGCPhase it always does."""
    names = [f"runtime.{name}" for name in ("casgstatus", "schedule", "ready", "gopark", "stopm", "procresize")]
    program = opened(version, "default", targets.HOST_ARCH)
    assert [name for name in names if program.pclntab.inlined_in(name)] == []
    assert program.pclntab.inlined_in("runtime.setGCPhase")
    assert all(program.pclntab.function(name) for name in names)

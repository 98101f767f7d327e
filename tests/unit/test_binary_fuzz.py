"""Damaged executables end in a result or a BinaryError: never in another exception, never in a long wait.

GOTRACE_FUZZ_ROUNDS sets the number of mutated files (default 1000; a million takes the better part of an hour).
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import time

import pytest

import targets
from gotrace.binary import code
from gotrace.binary.elf import Elf
from gotrace.binary.globals import find_globals
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

ROUNDS = int(os.environ.get("GOTRACE_FUZZ_ROUNDS", "1000"))
SYMBOLS = ("runtime.startTheWorldWithSema", "runtime.prepareFreeWorkbufs", "runtime.bgsweep", "no.such.function")


def regions(data):
    """Where the tables are: (file offset, length) of headers, pclntab, moduledata, build information."""
    with GoProgram(Elf.from_bytes(bytes(data))) as program:
        elf, header = program.elf, program.pclntab.header
        out = [(0, 64), (64, 56 * len(elf.segments)), (elf.file_offset(header.address), 72)]
        sections = int.from_bytes(data[0x28:0x30], "little")
        if sections:
            out.append((sections, 64 * len(elf.sections)))
        out.append((elf.file_offset(header.address + header.functions), 8 * header.nfunc))
        out.append((elf.file_offset(header.address + header.functions + 8 * header.nfunc), 44 * header.nfunc))
        out.append((elf.file_offset(header.address + header.names), 4096))
        out.append((elf.file_offset(header.address + header.pctab), 4096))
        out.append((elf.file_offset(program.moduledata.address), 400))
        out.append((data.find(b"\xff Go buildinf:"), 200))
        for symbol in SYMBOLS[:3]:
            function = program.pclntab.function(symbol)
            out.append((elf.file_offset(function.entry), function.end - function.entry))
        for segment in elf.segments:
            if segment.type == 2:
                out.append((segment.offset, segment.filesz))
        return out


def mutate(choose, data, where):
    """Change a few bytes; returns what is needed to undo it."""
    undo = []
    for _ in range(choose.choice((1, 1, 2, 4))):
        begin, length = choose.choice(where)
        width = choose.choice((1, 2, 4, 8))
        at = begin + choose.randrange(max(1, length - width))
        undo.append((at, bytes(data[at : at + width])))
        value = choose.choice(
            (0, 1, (1 << 8 * width) - 1, 1 << (8 * width - 1), choose.randrange(1 << 8 * width), choose.randrange(256))
        )
        data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return undo


def look(data, thoroughly=True):
    """Everything that is asked of an executable; disassembling takes ten times as long as the rest."""
    with GoProgram(Elf.from_bytes(data)) as program:
        table = program.pclntab
        for symbol in SYMBOLS:
            function = table.function(symbol)
            if function is not None:
                table.frames(function.entry + 20)
        if thoroughly:
            table.inlined_in("runtime.nanotime")
            for question in (
                lambda: code.entry_site(program, SYMBOLS[0]),
                lambda: code.call_sites(program, SYMBOLS[0], "runtime.wakep"),
                lambda: find_globals(program, pacing=True),
            ):
                with contextlib.suppress(BinaryError):
                    question()


FLAVOURS = [("stripped", "amd64"), ("pie-stripped", "amd64"), ("stripped", "arm64"), ("nosections", "amd64")]


@pytest.mark.parametrize(("flavour", "arch"), FLAVOURS)
def test_mutations(flavour, arch):
    data = bytearray(targets.build("lifecycle", targets.NEWEST, flavour, arch).read_bytes())
    where = regions(data)
    choose = random.Random(f"{flavour} {arch}")
    results = errors = 0
    longest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(ROUNDS // len(FLAVOURS)):
        undo = mutate(choose, data, where)
        begin = time.process_time()
        try:
            look(data, thoroughly=number % 10 == 0)
            results += 1
        except BinaryError as error:
            assert error.message and error.message.isprintable()
            errors += 1
        longest = max(longest, time.process_time() - begin)
        for at, old in reversed(undo):
            data[at : at + len(old)] = old
    assert results and errors
    assert longest < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_truncation():
    data = targets.build("lifecycle").read_bytes()
    for size in [*range(0, 4096, 61), *range(4096, len(data), len(data) // 40)]:
        try:
            look(bytearray(data[:size]))
        except BinaryError:
            continue


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x7fELF", b"\x7fELF" + bytes(60), bytes(4096)),
        *(b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01" + b"\xff" * 4000),
    ],
)
def test_what_is_no_executable(data):
    with pytest.raises(BinaryError) as error:
        Elf.from_bytes(data, "FILE")
    assert "FILE" in error.value.message and error.value.hint

"""Damaged and hostile files: whatever is in a file's headers and tables, there is a result or a BinaryError, soon.

GOTRACE_FUZZ_ROUNDS sets how many mutated files are tried (split evenly over the kinds of files); GOTRACE_FUZZ_SEED which.
"""

from __future__ import annotations

import os
import random
import resource
import struct
import time

import pytest
from unit.elfwriter import GoFile, go_file

from gotrace.binary.elf import Elf
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

ROUNDS = int(os.environ.get("GOTRACE_FUZZ_ROUNDS", "6000"))
SEED = int(os.environ.get("GOTRACE_FUZZ_SEED", "1"))

# One file takes a fraction of a millisecond. The bounds leave room for a machine that is busy with other things.
MAX_SECONDS_PER_FILE = 2.0
MAX_GROWTH_KB = 100 << 10

KINDS = {
    "go1.27": go_file("go1.27.3", symbols=True),
    "go1.27 arm64 pie": go_file("go1.27.3", "arm64", pie=True),
    "go1.25 pie": go_file("go1.25.5", pie=True),
    "go1.22 without sections": go_file("go1.22.10", sections=False),
    "go1.25 pie without sections": go_file("go1.25.5", pie=True, sections=False),
    "go1.19": go_file("go1.19.8"),
}
EDGES = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    1 << 31,
    (1 << 32) - 1,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 8,
    (1 << 64) - 1,
)
TABLES = ("names", "files", "pc tables", "functions", "inline trees")
FORMATS = ("<B", "<H", "<I", "<Q", "<Q")


def mutated(file: GoFile, rng: random.Random) -> bytes:
    """``file`` with one to four changes, each inside one of its headers or tables; sometimes cut off as well."""
    data = bytearray(file.data)
    # Half of the files keep their headers, so that the tables behind them are read, too.
    regions = [file.regions[name] for name in (TABLES if rng.randrange(2) else file.regions)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        begin, size = rng.choice(regions)
        at = begin + rng.randrange(size)
        action = rng.randrange(6)
        if action == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[at] = rng.randrange(256)
        elif action <= 4:
            change_number(data, begin + (at - begin) // 8 * 8 + rng.choice((0, 0, 0, 4, 2, 1)), rng)
        else:  # something from elsewhere in the file
            length = rng.randrange(1, 64)
            source = rng.randrange(len(data))
            piece = data[source : source + length][: len(data) - at]
            data[at : at + len(piece)] = piece
    if rng.randrange(20) == 0:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def change_number(data: bytearray, at: int, rng: random.Random) -> None:
    form = rng.choice(FORMATS)
    size = struct.calcsize(form)
    if at + size > len(data):
        return
    value = struct.unpack_from(form, data, at)[0]
    how = rng.randrange(3)
    if how == 0:
        value = rng.choice(EDGES)
    elif how == 1:
        value += rng.choice((-1, 1, -8, 8, 4, 100, -100, len(data), 0x10000, -0x10000))
    else:
        value = rng.getrandbits(8 * rng.randrange(1, 9))
    struct.pack_into(form, data, at, value % (1 << 8 * size))


def everything(data: bytes, pcs: list[int]) -> int:
    """Ask every question there is of a file; how many of them ended in an answer. Nothing but BinaryError may come out."""
    answers = 0
    try:
        elf = Elf.from_bytes(data)
    except BinaryError:
        return answers
    with elf:
        list(elf.symbols())
        elf.relative_relocations()
        for address in (elf.entry, elf.first_vaddr, pcs[0]):
            answers += attempt(lambda address=address: elf.file_offset(address))
            answers += attempt(lambda address=address: elf.read(address, 16))
        try:
            program = GoProgram(elf)
        except BinaryError:
            return answers
        table = program.pclntab
        questions = [
            lambda: program.build_info.version,
            lambda: program.stripped,
            table.names,
            lambda: table.function("runtime.newproc"),
            lambda: table.functions("main.main"),
            lambda: table.function("nothing"),
            lambda: table.inlined_in("main.inner"),
            lambda: table.inlined_in("runtime.text0"),
            *(lambda pc=pc: table.frames(pc) for pc in pcs),
            lambda: table.line(pcs[1]),
            lambda: table.find(pcs[2]),
        ]
        for question in questions:
            answers += attempt(question)
    return answers


def attempt(question) -> int:
    try:
        question()
    except BinaryError:
        return 0
    return 1


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(kind):
    file = KINDS[kind]
    main = file.entries["main.main"]
    pcs = [main, main + 40, main + 88, file.text, file.entries["main.c"] + 8, 0, (1 << 64) - 1]
    complete = everything(file.data, pcs)
    assert complete > 15
    rng = random.Random(f"{SEED} {kind}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    intact = slowest = 0
    for number in range(ROUNDS // len(KINDS)):
        data = mutated(file, rng)
        begin = time.thread_time()
        try:
            intact += everything(data, pcs) == complete
        except Exception as error:
            raise AssertionError(f"round {number} of {kind!r} with seed {SEED}") from error
        slowest = max(slowest, time.thread_time() - begin)
    assert slowest < MAX_SECONDS_PER_FILE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KB
    # The mutations do hit, and do not hit always: else this would test little.
    if ROUNDS >= 1000:
        assert 0.05 * ROUNDS < intact * len(KINDS) < 0.95 * ROUNDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_length(kind):
    """Files that end at any byte."""
    file = KINDS[kind]
    pcs = [file.text, file.text, file.text]
    for size in range(0, len(file.data), 7):
        if size:
            everything(file.data[:size], pcs)
        else:
            with pytest.raises(BinaryError):
                Elf.from_bytes(b"")


def test_noise():
    rng = random.Random(SEED)
    head = KINDS["go1.27"].data[:64]
    for _ in range(300):
        everything(rng.randbytes(rng.randrange(1, 4096)), [0, 0, 0])
        everything(head + rng.randbytes(rng.randrange(1, 4096)), [0, 0, 0])

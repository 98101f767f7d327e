"""Which kind of program a file is, by what is in it."""

from __future__ import annotations

import struct

import pytest
from unit import elfwriter
from unit.elfwriter import go_file

from gotrace.binary.elf import Elf
from gotrace.binary.identity import identify
from gotrace.errors import BinaryError, UntraceableError

MAGIC = b"\xff Go buildinf:"


def without_go():
    """A program with code and data, neither of them Go's."""
    elf = elfwriter.Elf()
    elf.load(b"\xcc" * 64, elfwriter.RX)
    elf.load(bytes(64), elfwriter.RW)
    return elf


def with_section(name, content):
    elf = without_go()
    elf.section(name, elf.load(content, elfwriter.R), len(content))
    return elf.finish()


def with_symbol(name):
    elf = without_go()
    elf.add_symbols([(name, 0x410000, 16)])
    return elf.finish()


def needing(library):
    """A program that its dynamic linker loads ``library`` for."""
    elf = without_go()
    strings = b"\0" + library + b"\0"
    at = elf.load(strings, elfwriter.R)
    dynamic = struct.pack("<8Q", 1, 1, 5, at, 10, len(strings), 0, 0)
    elf.describe(elfwriter.PT_DYNAMIC, elf.load(dynamic, elfwriter.RW), len(dynamic))
    return elf.finish(False)


def packed():
    """As UPX leaves it: no sections, its mark behind the program headers."""
    data = bytearray(without_go().finish(False))
    at = 64 + 56 * struct.unpack_from("<H", data, 56)[0]
    struct.pack_into("<I4s", data, at, 0x12345678, b"UPX!")
    return bytes(data)


def foreign(machine, wide):
    data = bytearray(go_file().data)
    data[4] = 2 if wide else 1
    struct.pack_into("<H", data, 18, machine)
    return bytes(data)


KINDS = {
    "UPX": (packed, "is packed with UPX", "upx -d memory"),
    "Go 1.15": (
        lambda: with_section(".gopclntab", b"\xfb\xff\xff\xff\0\0\1\x08" + bytes(64)),
        "older than 1.18",
        "1.19 and later",
    ),
    "Go 1.17": (
        lambda: with_section(".gopclntab", b"\xfa\xff\xff\xff\0\0\1\x08" + bytes(64)),
        "older than 1.18",
        "1.19 and later",
    ),
    "gccgo": (lambda: needing(b"libgo.so.21"), "built with gccgo", "Go's own compiler"),
    "gccgo, static": (lambda: with_section(".go_export", b"v3;"), "built with gccgo", "Go's own compiler"),
    "TinyGo": (lambda: with_symbol("tinygo_startTask"), "built with TinyGo", "Go's own compiler"),
    "32-bit": (lambda: foreign(3, False), "is a 32-bit program for 386", "64-bit programs for amd64 and arm64"),
    "another processor": (lambda: foreign(243, True), "is a program for riscv64", "64-bit programs for amd64 and arm64"),
    "c-shared": (
        lambda: go_file(modules="build\t-buildmode=c-shared\n").data,
        "is a shared library of Go code",
        "main programs",
    ),
    "plugin": (lambda: go_file(modules="build\t-buildmode=plugin\n").data, "is a Go plugin", "main programs"),
    "old": (lambda: told("go1.18.10"), "was built with go1.18.10", "1.19 and later"),
    "unknown": (lambda: told("unknown"), "built with 'unknown', a version that gotrace does not know", "a released Go"),
    "devel": (lambda: told("devel +12345678"), "built with 'devel [+]12345678', a version", "a released Go"),
}


def told(version):
    """A program whose build information names this version."""
    data = go_file("go1.19.8", modules="").data
    at = data.index(MAGIC)
    new = elfwriter.build_info(version, "").ljust(48, b"\0")
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_that_cannot_be_traced(kind):
    make, message, hint = KINDS[kind]
    with pytest.raises(UntraceableError, match=message) as raised:
        identify(Elf.from_bytes(make()))
    assert hint in raised.value.hint and "\n" not in raised.value.message + raised.value.hint


@pytest.mark.parametrize(
    "make",
    [
        lambda: without_go().finish(),
        lambda: without_go().finish(False),
        lambda: needing(b"libgomp.so.1"),
        lambda: with_symbol("not_tinygo_at_all"),
        lambda: with_section(".rodata", b"UPX!" + bytes(60)),
        lambda: with_section(".gopclntab", bytes(72)),
    ],
)
def test_other_programs(make):
    """May execute one that can be traced."""
    with pytest.raises(BinaryError, match="is not a Go program") as raised:
        identify(Elf.from_bytes(make()))
    assert not isinstance(raised.value, UntraceableError) and raised.value.hint


@pytest.mark.parametrize("machine", [3, 243])
def test_other_processors_without_go(machine):
    data = bytearray(foreign(machine, False).replace(MAGIC, bytes(len(MAGIC))))
    with pytest.raises(BinaryError, match="is a 32-bit program") as raised:
        Elf.from_bytes(data)
    assert not isinstance(raised.value, UntraceableError)


@pytest.mark.parametrize(
    "options", [{}, {"pie": True}, {"sections": False, "arch": "arm64"}, {"version": "go1.19.8"}], ids=str
)
def test_a_version_without_proof_is_refused(options):
    """A Go program all the same: its tables fit, but nothing says which release it is."""
    data = go_file(**options).data.replace(MAGIC, bytes(len(MAGIC)))
    with pytest.raises(
        UntraceableError, match="without build information, and its Go version cannot be determined"
    ) as raised:
        identify(Elf.from_bytes(data))
    assert raised.value.hint

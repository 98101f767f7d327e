"""Reading ELF files: what a good one says, and what is said of a bad one."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from unit import elfwriter
from unit.elfwriter import go_file

from gotrace.binary.buildinfo import BuildInfo, read_build_info
from gotrace.binary.elf import PT_LOAD, Elf
from gotrace.errors import BinaryError


def opened(**options) -> Elf:
    return Elf.from_bytes(go_file(**options).data)


def changed(data: bytes, offset: int, form: str, *values: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(form, out, offset, *values)
    return bytes(out)


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("pie", [False, True])
def test_facts(arch, pie, tmp_path):
    file = go_file(arch=arch, pie=pie)
    path = tmp_path / "program"
    path.write_bytes(file.data)
    with Elf.open(path) as elf:
        assert (elf.path, elf.arch, elf.pie, elf.entry) == (str(path), arch, pie, file.text)
        assert elf.interpreter == (elfwriter.LOADER if pie else None)
        assert elf.first_vaddr == file.text & ~0xFFF
        assert [segment.flags for segment in elf.segments if segment.type == PT_LOAD] == [5, 4, 6]
        assert elf.sections[".gopclntab"].addr == file.pclntab
        assert not elf.has_symtab and not elf.has_dwarf


def test_addresses_become_offsets():
    file = go_file()
    elf = Elf.from_bytes(file.data)
    offset, size = file.regions["table header"]
    assert elf.file_offset(file.pclntab) == offset
    assert elf.read(file.pclntab, size) == file.data[offset : offset + size]
    assert elf.u64(file.pclntab + 8) == len(elfwriter.FUNCS)
    view = elf.view(file.pclntab, size)
    assert view.dtype == np.uint8 and view.tobytes() == elf.read(file.pclntab, size)
    text = next(segment for segment in elf.segments if segment.type == PT_LOAD)
    assert len(elf.view_from(file.text)) == text.filesz
    assert len(elf.view(file.text, text.filesz)) == text.filesz
    for address, size in ((file.text, text.filesz + 1), (file.text - 1, 1), (0, 1), (1 << 64, 8), (-1, 1), (file.text, -1)):
        with pytest.raises(BinaryError):
            elf.view(address, size)
    with pytest.raises(BinaryError):
        elf.file_offset(file.text + text.filesz)


def test_memory_behind_the_file_is_not_read():
    """What a segment has in memory only (.bss) is no part of the file."""
    file = go_file()
    data = bytearray(file.data)
    elf = Elf.from_bytes(file.data)
    number = [segment.flags for segment in elf.segments].index(6)
    last = elf.segments[number]
    struct.pack_into("<Q", data, 64 + 56 * number + 40, last.memsz + 4096)
    elf = Elf.from_bytes(bytes(data))
    with pytest.raises(BinaryError):
        elf.read(last.vaddr + last.filesz, 1)


def test_places_of_a_word():
    file = go_file()
    elf = Elf.from_bytes(file.data)
    # moduledata.pcHeader is the only word that holds the table's address, text is its own and three times moduledata's
    assert list(elf.places_of(file.pclntab)) == [file.moduledata]
    for step in (8, 64, 1 << 20):
        assert list(elf.places_of(file.text, step)) == [file.moduledata + 160, file.moduledata + 176]
    assert list(elf.places_of(1 << 64)) == []
    assert list(elf.places_of(-1)) == []


def test_symbols():
    elf = opened(symbols=True)
    assert elf.has_symtab
    found = {name: (address, size) for name, address, size in elf.symbols()}
    assert found["main.main"] == (go_file().entries["main.main"], 16)
    assert list(opened().symbols()) == []


def test_relocations_come_from_the_loaders_table():
    for sections in (False, True):
        file = go_file(pie=True, sections=sections)
        table = Elf.from_bytes(file.data).relative_relocations()
        assert table["offset"][0] == file.moduledata and table["addend"][0] == file.pclntab
        assert len(table) == 12
    assert len(opened().relative_relocations()) == 0
    offset, size = file.regions["relocations"]
    for broken in (
        changed(file.data, offset + size - 40, "<Q", 1),  # the table's address
        changed(file.data, offset + size - 24, "<Q", 1 << 40),  # its size
        changed(file.data, offset + size - 48, "<Q", 0),  # the list ends before it
    ):
        assert len(Elf.from_bytes(broken).relative_relocations()) == 0


def test_sections_are_optional():
    whole = go_file(symbols=True).data
    for offset, form, value in ((40, "<Q", 0), (40, "<Q", 1 << 62), (58, "<H", 40), (60, "<H", 60000), (62, "<H", 999)):
        elf = Elf.from_bytes(changed(whole, offset, form, value))
        assert elf.sections == {} and list(elf.symbols()) == []
        assert read_build_info(elf).go_version == "go1.27.3"


def test_closed_files_say_so(tmp_path):
    path = tmp_path / "program"
    path.write_bytes(go_file().data)
    with Elf.open(path) as elf:
        kept = elf.view(go_file().text, 16)
    assert kept.tobytes() == b"\xcc" * 16
    with pytest.raises(BinaryError):
        elf.read(go_file().text, 16)


# Bad files: (what is done to a good one, what is said)

GOOD = go_file().data
BAD = {
    "empty": (b"", "is an empty file"),
    "text": (b"#!/bin/sh\n", "is not an ELF executable"),
    "short": (GOOD[:40], "ends inside its ELF header"),
    "cut off in the program headers": (GOOD[:100], "program headers are out of bounds"),
    "cut off in a segment": (GOOD[:2000], "is truncated"),
    "object": (changed(GOOD, 16, "<H", 1), "is an ELF file but not an executable"),
    "core": (changed(GOOD, 16, "<H", 4), "is an ELF file but not an executable"),
    "386": (changed(changed(GOOD, 4, "<B", 1), 18, "<H", 3), "is a 32-bit program for 386"),
    "x32": (changed(GOOD, 4, "<B", 1), "is a 32-bit program for amd64"),
    "riscv64": (changed(GOOD, 18, "<H", 243), "is a program for riscv64"),
    "s390x": (changed(changed(GOOD, 5, "<B", 2), 18, ">H", 22), "is a program for s390x"),
    "big-endian arm64": (changed(changed(GOOD, 5, "<B", 2), 18, ">H", 183), "is a program for big-endian arm64"),
    "ppc64le": (changed(GOOD, 18, "<H", 21), "is a program for ppc64le"),
    "mipsle": (changed(changed(GOOD, 4, "<B", 1), 18, "<H", 8), "is a 32-bit program for mipsle"),
    "debug information": (changed(GOOD, struct.unpack_from("<Q", GOOD, 40)[0] + 64 + 4, "<I", 8), "not a program"),
    "unheard of": (changed(GOOD, 18, "<H", 4711), "is a program for machine 4711"),
    "no program headers": (changed(GOOD, 56, "<H", 0), "program headers are out of bounds"),
    "program headers elsewhere": (changed(GOOD, 32, "<Q", (1 << 64) - 8), "program headers are out of bounds"),
    "nothing to load": (changed(GOOD, 56, "<H", 0)[:56] + struct.pack("<H", 1) + GOOD[58:64] + bytes(200), "can be loaded"),
    "a segment at the end of all addresses": (changed(GOOD, 64 + 16, "<Q", (1 << 64) - 16), "cannot be loaded"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files(what, tmp_path):
    data, message = BAD[what]
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(BinaryError) as raised:
        Elf.open(path)
    assert message in raised.value.message and str(path) in raised.value.message
    assert raised.value.hint
    assert "\n" not in raised.value.message + raised.value.hint
    with pytest.raises(BinaryError, match=message.split(",")[0]):
        Elf.from_bytes(data)


def test_bad_paths(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "is a device or a pipe"),
        ("/dev/null", "is a device or a pipe"),
        ("a\0b", "cannot read"),
    ):
        with pytest.raises(BinaryError, match=message) as raised:
            Elf.open(path)
        assert raised.value.hint


# Build information


def test_build_info():
    for options in ({}, {"sections": False}, {"pie": True}, {"pie": True, "sections": False, "version": "go1.19.8"}):
        info = read_build_info(opened(**options))
        assert info.go_version == options.get("version", "go1.27.3")
        assert (info.path, info.main_module) == ("example.com/app", "example.com")
        assert info.settings == {"-ldflags": "-s -w", "GOARCH": "amd64"}


def test_settings_as_they_were_given():
    modules = (
        'build\t-ldflags="-X main.v=\\"\\u00e4\\" \\x41\\n"\nbuild\tx=`a b`\nbuild\ty=\nbuild\tz\nbuild\tw="\\Uffffffff"\n'
    )
    settings = read_build_info(opened(modules=modules)).settings
    assert settings == {"-ldflags": '-X main.v="ä" A\n', "x": "a b", "y": "", "z": "", "w": "\ufffd"}
    assert read_build_info(opened(modules="")).settings == {}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go1.23.9", (1, 23, 9)),
        ("go1.23", (1, 23, 0)),
        ("go1.24rc1", (1, 24, 0)),
        ("go1.26.6 X:nogreenteagc", (1, 26, 6)),
        ("go1.27.3-custom", (1, 27, 3)),
        ("devel go1.28-1a2b3c4d5e Mon Nov 23 20:00:00 2026 +0000", (1, 28, 0)),
        ("devel +1a2b3c4d5e", (0, 0, 0)),
        ("go1." + "9" * 5000, (1, 9999, 0)),
        ("unknown", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_versions(text, version):
    assert BuildInfo(text, "", "", {}).version == version


@pytest.mark.parametrize(
    ("text", "experiments"),
    [
        ("go1.26.6", ()),
        ("go1.26.6 X:nogreenteagc", ("nogreenteagc",)),
        ("go1.27.3-X:jsonv2,nogreenteagc", ("jsonv2", "nogreenteagc")),
        ("go1.22.9 (Red Hat 1.22.9-2.el9_5) X:strictfipsruntime", ("strictfipsruntime",)),
        ("go1.27.3-custom", ()),
    ],
)
def test_experiments(text, experiments):
    assert BuildInfo(text, "", "", {}).experiments == experiments


def test_no_build_information():
    file = go_file()
    at, _ = file.regions["build info"]
    assert read_build_info(Elf.from_bytes(changed(file.data, at, "<B", 0))) is None
    with pytest.raises(BinaryError, match="older than 1.18"):
        read_build_info(Elf.from_bytes(changed(file.data, at + 15, "<B", 0)))
    with pytest.raises(BinaryError, match="has no Go version"):
        read_build_info(Elf.from_bytes(changed(file.data, at + 33, "<B", 0)))
    with pytest.raises(BinaryError, match="out of bounds"):
        read_build_info(Elf.from_bytes(changed(file.data, at + 32, "<H", 0x7FFF)))


def test_a_program_among_the_constants_is_not_the_program():
    """go:embed can put another executable into the read-only data."""
    elf = elfwriter.Elf()
    other = elfwriter.build_info("go1.5.1", "path\tother\n")
    elf.load(bytes(64), elfwriter.RX)
    elf.load(other + bytes(-len(other) % 16), elfwriter.R)
    elf.load(elfwriter.build_info("go1.27.3", "path\tthis\n"), elfwriter.RW)
    info = read_build_info(Elf.from_bytes(elf.finish(False)))
    assert (info.go_version, info.path) == ("go1.27.3", "this")

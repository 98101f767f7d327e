"""Where a C function's calls can be counted, by its symbol and its own bytes."""

from __future__ import annotations

import pytest
from unit import elfwriter

from gotrace.binary import code
from gotrace.binary.elf import Elf
from gotrace.errors import BinaryError
from gotrace.probe import is_library


def elf_of(arch: str, **functions: str) -> Elf:
    """A shared library with these functions, in hexadecimal, one behind the other."""
    file = elfwriter.Elf(arch, pie=True)
    bodies = {name: bytes.fromhex(text) for name, text in functions.items()}
    at = file.load(b"".join(bodies.values()), elfwriter.RX)
    symbols = []
    for name, body in bodies.items():
        symbols.append((name.replace("__", "."), at, len(body)))
        at += len(body)
    file.add_symbols(symbols)
    return Elf.from_bytes(file.finish())


@pytest.mark.parametrize(
    ("arch", "body", "offset", "instruction", "emulated"),
    [
        ("amd64", "55 4889e5 5d c3", 0, "push rbp", True),
        ("amd64", "f30f1efa 55 4889e5 5d c3", 4, "push rbp", True),  # behind a mark for indirect branches
        ("amd64", "b86e000000 0f05 c3", 0, "mov eax, 0x6e", False),
        ("amd64", "f30f1efa b86e000000 0f05 c3", 0, "endbr64", False),
        ("amd64", "f30f1efa 90 75fd c3", 0, "endbr64", False),  # a loop leads back to the nop
        ("amd64", "55 e8faffffff 5d c3", 0, "push rbp", True),  # it calls itself: each is a call
        ("arm64", "a81580d2 010000d4 c0035fd6", 0, "mov x8, #0xad", False),
        ("arm64", "5f2403d5 1f2003d5 c0035fd6", 4, "nop", True),
        ("arm64", "3f2303d5 fd7bbfa9 c0035fd6", 0, "paciasp", False),
    ],
)
def test_site(arch, body, offset, instruction, emulated):
    elf = elf_of(arch, before="c0035fd6", it=body)
    site = code.function_site(elf, "it")
    entry = next(address for name, address, _ in elf.functions() if name == "it")
    assert (site.address - entry, site.emulated) == (offset, emulated)
    assert site.instruction == instruction
    assert elf.read(site.address, len(site.code)) == site.code and elf.vaddr(site.file_offset) == site.address


@pytest.mark.parametrize(
    ("arch", "body", "reason"),
    [
        ("amd64", "ffcf 75fc c3", "jumps back to where it begins"),
        ("arm64", "00040051 e0ffff35 c0035fd6", "jumps back to where it begins"),
        ("amd64", "55 06 c3", "cannot read the code"),
        ("arm64", "ffffffff c0035fd6", "cannot read the code"),
        ("amd64", "", "cannot read the code"),
    ],
)
def test_no_site(arch, body, reason):
    with pytest.raises(BinaryError, match=reason):
        code.function_site(elf_of(arch, before="c3c3c3c3", it=body, after="c3c3c3c3"), "it")


def test_names():
    elf = elf_of("amd64", it="c3", it__constprop__0="c3", it__part__1="c3", item__part__1="c3", it__cold="c3")
    assert code.partial_copies(elf, "it") == ["it.constprop.0", "it.part.1"]
    with pytest.raises(BinaryError, match="other is not a function of"):
        code.function_site(elf, "other")
    file = elfwriter.Elf("amd64", pie=True)
    at = file.load(b"\xc3\xc3", elfwriter.RX)
    file.add_symbols([("it", at, 1), ("it", at + 1, 1), ("alias", at, 1)])
    elf = Elf.from_bytes(file.finish())
    with pytest.raises(BinaryError, match="2 functions of memory are called it"):
        code.function_site(elf, "it")
    assert code.function_site(elf, "alias").address == at


@pytest.mark.parametrize(
    ("path", "name", "same"),
    [
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "libc", True),
        ("/lib/libc-2.31.so", "libc", True),
        ("/usr/lib/libcuda.so.535.104.05", "libcuda", True),
        ("/usr/lib/libcuda.so", "libcuda", True),
        ("/usr/lib/libcudart.so.12", "libcuda", False),
        ("/usr/lib/libcrypto.so.3", "libc", False),
        ("/usr/lib/libc.so.6 (deleted)", "libc", True),
        ("/usr/lib/mylibc.so.6", "libc", False),
        ("/libc.so/other", "libc", False),
    ],
)
def test_libraries_by_name(path, name, same):
    assert is_library(path, name) is same

"""Whether an executable is a Go program, built by which Go, and if it cannot be traced, what kind of program it is.

A Go program is one with build information, or one with what it cannot do without: a function table and the moduledata
that fits it. The version then comes from the runtime itself, by two keys that have to agree: the text in
runtime.buildVersion, and which functions the runtime has. Verified on programs of Go 1.19 to 1.27 on both architectures:
plain, stripped, position-independent, without optimisation, with cgo and PGO, and on esbuild's from npm.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from gotrace.binary.buildinfo import BuildInfo, read_build_info
from gotrace.binary.elf import Elf
from gotrace.binary.moduledata import NEWEST_KNOWN, ModuleData, Pointers, find_moduledata
from gotrace.binary.pclntab import MAGIC_1_18, Header, Pclntab, find_headers
from gotrace.errors import BinaryError, UntraceableError

OLDEST = (1, 19)
_SUPPORTED = "gotrace supports Go 1.19 and later"

_MAX_TABLES = 8
_MAX_VERSION = 256
_VERSION = re.compile(r"go1\.\d{1,3}(\.\d{1,3})?((rc|beta)\d{1,3})?([ -][ -~]+)?|devel [ -~]+")

# First minor release with it -> a function of the runtime that every program since has. Each release has all before it.
_SINCE = {
    20: "runtime.pidlegetSpinning",
    21: "runtime.doInit1",
    22: "runtime.gdestroy",
    23: "runtime.(*timer).modify",
    24: "runtime.mallocgcLarge",
    25: "runtime.parseRuntimeDebugVars",
    26: "runtime.exitsyscallNoP",
    27: "runtime.addModuleItabs",
}

# The first word of function tables that Go wrote up to 1.15 and up to 1.17.
_OLD_MAGICS = (0xFFFFFFFB, 0xFFFFFFFA)
_NO_PROGRAMS = {"c-shared": "a shared library of Go code", "plugin": "a Go plugin"}


def identify(elf: Elf) -> BuildInfo:
    """What is known of how a Go program was built: all of it, or its version alone.

    Raises UntraceableError for a Go program that cannot be traced, or what may hide one; BinaryError for anything else.
    """
    info = read_build_info(elf) or _proven(elf)
    if info is None:
        raise _other_kind(elf)
    mode = info.settings.get("-buildmode", "")
    if mode in _NO_PROGRAMS:
        raise UntraceableError(f"{elf.path} is {_NO_PROGRAMS[mode]}, not a program", "gotrace traces only Go main programs")
    if info.version == (0, 0, 0):
        raise UntraceableError(
            f"{elf.path} was built with {info.go_version!r}, a version that gotrace does not know",
            "build it with a released Go version, whose runtime layout is known",
        )
    if info.version[:2] < OLDEST:
        raise UntraceableError(f"{elf.path} was built with {info.go_version}", _SUPPORTED)
    return info


def tables_of(elf: Elf, version: tuple[int, int]) -> Iterator[tuple[Header, ModuleData | None]]:
    """Each function table, and the moduledata that fits it."""
    for header in itertools.islice(find_headers(elf), _MAX_TABLES):
        yield header, find_moduledata(elf, header, version)


def _proven(elf: Elf) -> BuildInfo | None:
    """The Go version by the runtime's own word, checked by its functions; None if there is no Go program in there.

    Raises UntraceableError for a Go program whose version is not proven.
    """
    for header, moduledata in tables_of(elf, NEWEST_KNOWN):
        if moduledata is None:
            continue
        table = Pclntab(elf, header, moduledata.text, moduledata.gofunc, NEWEST_KNOWN)
        version = _build_version(elf, table)
        info = BuildInfo(version, "", "", {})
        if version and _agrees(info.version[:2], table):
            return info
        raise UntraceableError(
            f"{elf.path} is a Go program without build information, and its Go version cannot be determined",
            "build it without removing .go.buildinfo",
        )
    return None


def _build_version(elf: Elf, table: Pclntab) -> str:
    """The text of runtime.buildVersion, or "".

    schedinit compares its length with 0 and writes both of its words: each is referred to, and nothing else that reads as
    a version is.
    """
    from gotrace.binary import code

    # The adapter of the other ABI is smaller; which of the two it is cannot be told without the version.
    body = max(table.functions("runtime.schedinit"), key=lambda each: each.end - each.entry, default=None)
    refs = set(code.refs_in(elf, body)) if body is not None else set()
    pointers = Pointers(elf)
    found = {place: _text_at(elf, pointers, place) for place in {*refs, *(ref - 8 for ref in refs)}}
    found = {place: text for place, text in found.items() if text}
    if len(found) != 1:
        return ""
    ((place, text),) = found.items()
    return text if {place, place + 8} <= refs else ""


def _text_at(elf: Elf, pointers: Pointers, place: int) -> str:
    """The Go version that the string at ``place`` is, or ""."""
    try:
        pointer, length = pointers.at(place), pointers.at(place + 8)
        text = elf.read(pointer, length).decode("latin-1") if 0 < length <= _MAX_VERSION else ""
    except BinaryError:
        return ""
    return text if _VERSION.fullmatch(text) else ""


def _agrees(version: tuple[int, int], table: Pclntab) -> bool:
    """Whether the runtime has exactly the functions of this release; one that is newer than all known has them all."""
    minor = version[1]
    if (minor < 20) != (table.header.magic == MAGIC_1_18):
        return False
    return all(bool(table.functions(name)) == (minor >= since) for since, name in _SINCE.items())


def _other_kind(elf: Elf) -> BinaryError:
    """What a program without anything of today's Go is."""
    if elf.is_packed:
        return UntraceableError(f"{elf.path} is packed with UPX, which hides the program", f"unpack it: upx -d {elf.path}")
    if _table_magic(elf) in _OLD_MAGICS:
        return UntraceableError(f"{elf.path} was built with a Go version older than 1.18", _SUPPORTED)
    compiler = _other_compiler(elf)
    if compiler:
        return UntraceableError(
            f"{elf.path} was built with {compiler}, which has a different runtime", "build it with Go's own compiler"
        )
    return BinaryError(f"{elf.path} is not a Go program", "give the pid or path of a program built with Go")


def _table_magic(elf: Elf) -> int:
    section = elf.sections.get(".gopclntab")
    return int.from_bytes(elf.section_bytes(section)[:4].tobytes(), "little") if section else 0


def _other_compiler(elf: Elf) -> str:
    """The compiler with a runtime of its own that built it, by what it leaves in a file, or ""."""
    if ".go_export" in elf.sections or any(name.startswith("libgo.so.") for name in elf.needed()):
        return "gccgo"
    return "TinyGo" if elf.has_symbols("tinygo_") else ""

"""The build information Go's linker leaves in every executable, stripped or not.

Format: debug/buildinfo in Go's source. ``\\xff Go buildinf:`` at a 16-byte boundary; since Go 1.18 the version and the
module text follow inline, each behind its uvarint length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gotrace.binary.elf import Elf
from gotrace.errors import BinaryError

_MAGIC = b"\xff Go buildinf:"
_INLINE = 2
_MAX_TEXT = 1 << 20


@dataclass(frozen=True)
class BuildInfo:
    """``go_version`` as the toolchain calls itself ("go1.23.9"), and the settings `go version -m` prints."""

    go_version: str
    path: str
    main_module: str
    settings: dict[str, str]

    @property
    def version(self) -> tuple[int, int, int]:
        """(1, 23, 9); a development version without numbers is (0, 0, 0)."""
        match = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", self.go_version)
        if match is None:
            return (0, 0, 0)
        major, minor, patch = (int(part or 0) for part in match.groups())
        return (major, minor, patch)


def read_build_info(elf: Elf) -> BuildInfo:
    """The build information of ``elf``. Raises BinaryError when it is no Go program (of Go 1.18 or later)."""
    at = _find(elf)
    if at < 0:
        raise BinaryError(f"{elf.path} is not a Go program", "give the pid or path of a program built with Go")
    header = elf.slice(at, 32)
    if len(header) < 32 or not header[15] & _INLINE:
        raise BinaryError(f"{elf.path} was built with a Go older than 1.18", "gotrace knows Go 1.19 and later")
    version, at = _text(elf, at + 32)
    module, _ = _text(elf, at)
    if not re.fullmatch(rb"(go|devel)[ -~]{1,100}", version):
        raise BinaryError(f"{elf.path} is damaged: its build information has no Go version", "give an intact executable")
    text = module[16:-16].decode("utf-8", "replace") if len(module) >= 33 else ""
    fields = [line.split("\t") for line in text.splitlines()]
    path = next((f[1] for f in fields if f[0] == "path" and len(f) > 1), "")
    main = next((f[1] for f in fields if f[0] == "mod" and len(f) > 1), "")
    settings = dict(f[1].split("=", 1) for f in fields if f[0] == "build" and len(f) > 1 and "=" in f[1])
    return BuildInfo(version.decode("utf-8", "replace"), path, main, settings)


def _find(elf: Elf) -> int:
    section = elf.sections.get(".go.buildinfo")
    if section is not None and elf.slice(section.offset, len(_MAGIC)) == _MAGIC:
        return section.offset
    at = elf.find(_MAGIC)
    while at >= 0 and at % 16:
        at = elf.find(_MAGIC, at + 1)
    return at


def _text(elf: Elf, at: int) -> tuple[bytes, int]:
    length = shift = 0
    for byte in elf.slice(at, 10):
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if length > _MAX_TEXT:
        raise BinaryError(f"{elf.path} is damaged: its build information is out of bounds", "give an intact executable")
    return elf.slice(at, length), at + length

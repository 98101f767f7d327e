"""ELF files as the kernel sees them: bounded, validated reads of headers, segments, sections and symbols.

Written with struct and numpy rather than with a general parser because it reads hostile and damaged files on the quick
path: every count and offset is checked against the file's size before it is used. Layouts are those of the System V ABI
(elf.h), 64-bit little-endian.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.errors import BinaryError

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
SHT_SYMTAB, SHT_NOBITS = 2, 8
ET_EXEC, ET_DYN = 2, 3
MACHINES = {62: "amd64", 183: "arm64"}
_OTHER_MACHINES = {3: "386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 243: "riscv64", 258: "loong64"}

# No program's addresses reach this far; numbers from a damaged file stop here, before they overflow somebody's integer.
ADDRESS_LIMIT = 1 << 62
_MAX_HEADERS = 4096
SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")])
RELOCATION = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_RELATIVE = {"amd64": 8, "arm64": 1027}  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE


@dataclass(frozen=True)
class Segment:
    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int


@dataclass(frozen=True)
class Section:
    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int


class Elf:
    """An ELF executable for amd64 or arm64, mapped read-only. A context manager."""

    def __init__(self, data: bytes | bytearray | mmap.mmap, path: str) -> None:
        self.path = path
        self._data = data
        self._bytes = np.frombuffer(data, np.uint8)
        self._parse()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Elf:
        """Map the file at ``path``; raises BinaryError when it is no ELF executable we can look at."""
        name = os.fspath(path)
        try:
            with open(name, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise BinaryError(f"{name} is an empty file", "give the path of a Go executable")
                return cls(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), name)
        except OSError as error:
            raise BinaryError(f"cannot read {name}: {error.strerror}", "check the path and its permissions") from None

    @classmethod
    def from_bytes(cls, data: bytes | bytearray, path: str = "memory") -> Elf:
        """The same for a file's content in memory."""
        if not data:
            raise BinaryError(f"{path} is an empty file", "give the path of a Go executable")
        return cls(data, path)

    def close(self) -> None:
        self._bytes = np.zeros(0, np.uint8)
        if isinstance(self._data, mmap.mmap):
            # An array that somebody still holds keeps the mapping alive; it goes with the array.
            with contextlib.suppress(BufferError):
                self._data.close()

    def __enter__(self) -> Elf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, what: str) -> BinaryError:
        return BinaryError(f"{self.path} is damaged: {what}", "give an intact executable")

    def _parse(self) -> None:
        data, size = self._data, len(self._data)
        if data[:4] != b"\x7fELF":
            raise BinaryError(f"{self.path} is not an ELF executable", "give the path or pid of a Go program")
        if size < 64:
            raise self._damaged("it ends inside its ELF header")
        machine = struct.unpack_from("<H", data, 18)[0]
        if data[4] != 2 or data[5] != 1 or machine not in MACHINES:
            name = _OTHER_MACHINES.get(machine, f"machine {machine}")
            raise BinaryError(f"{self.path} is an executable for {name}, not for amd64 or arm64", "trace it elsewhere")
        self.arch = MACHINES[machine]
        kind, self.entry, phoff, shoff = struct.unpack_from("<H6xQQQ", data, 16)
        if kind not in (ET_EXEC, ET_DYN):
            raise BinaryError(f"{self.path} is an ELF file but no executable", "give the path of a Go executable")
        self.pie = kind == ET_DYN
        phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from("<HHHHH", data, 54)
        if phentsize != 56 or phnum == 0 or phnum > _MAX_HEADERS or phoff + 56 * phnum > size:
            raise self._damaged("its program headers are out of bounds")
        self.segments = tuple(self._segment(phoff + 56 * i) for i in range(phnum))
        self._loads = [
            s
            for s in self.segments
            if s.type == PT_LOAD and s.filesz and s.offset + s.filesz <= size and s.vaddr + s.filesz < ADDRESS_LIMIT
        ]
        if not self._loads:
            raise self._damaged("no segment of it can be loaded")
        try:
            self.sections = self._read_sections(shoff, shentsize, shnum, shstrndx)
        except (struct.error, ValueError):
            self.sections = {}
        self.interpreter = None
        for segment in self.segments:
            if segment.type == PT_INTERP and segment.offset + segment.filesz <= size and segment.filesz < 4096:
                text = bytes(data[segment.offset : segment.offset + segment.filesz])
                self.interpreter = text.rstrip(b"\0").decode(errors="replace")

    def _segment(self, at: int) -> Segment:
        kind, flags, offset, vaddr, _, filesz, memsz = struct.unpack_from("<IIQQQQQ", self._data, at)
        return Segment(kind, flags, offset, vaddr, filesz, memsz)

    def _read_sections(self, shoff: int, entsize: int, count: int, strndx: int) -> dict[str, Section]:
        size = len(self._data)
        if not shoff or entsize != 64 or not 0 < count <= _MAX_HEADERS or shoff + 64 * count > size or strndx >= count:
            return {}
        headers = [struct.unpack_from("<IIQQQQIIQQ", self._data, shoff + 64 * i) for i in range(count)]
        names_offset, names_size = headers[strndx][4], headers[strndx][5]
        if names_offset + names_size > size:
            return {}
        sections: dict[str, Section] = {}
        self._links: dict[str, int] = {}
        self._headers = headers
        for name_at, kind, flags, addr, offset, length, link, *_ in headers:
            if name_at >= names_size or (kind != SHT_NOBITS and offset + length > size):
                continue
            begin = names_offset + name_at
            raw = bytes(self._data[begin : min(begin + 256, names_offset + names_size)])
            name = raw.split(b"\0", 1)[0].decode(errors="replace")
            sections.setdefault(name, Section(name, kind, flags, addr, offset, length))
            self._links.setdefault(name, link)
        return sections

    @property
    def first_vaddr(self) -> int:
        """The page where the lowest loaded segment begins: what a PIE's load bias is counted from."""
        return min(segment.vaddr for segment in self._loads) & ~0xFFF

    @property
    def has_symtab(self) -> bool:
        return ".symtab" in self.sections

    @property
    def has_dwarf(self) -> bool:
        return ".debug_info" in self.sections or ".zdebug_info" in self.sections

    def file_offset(self, vaddr: int) -> int:
        """Where link-time address ``vaddr`` is in the file: what a uprobe takes. The one place for this conversion."""
        for segment in self._loads:
            if segment.vaddr <= vaddr < segment.vaddr + segment.filesz:
                return vaddr - segment.vaddr + segment.offset
        raise BinaryError(f"address {vaddr:#x} is not in {self.path}", "the file is damaged or was changed")

    def view(self, vaddr: int, size: int) -> npt.NDArray[np.uint8]:
        """``size`` bytes at ``vaddr`` without a copy; raises BinaryError unless one segment's file part has them all."""
        for segment in self._loads:
            inside = vaddr - segment.vaddr
            if inside >= 0 and size >= 0 and inside + size <= segment.filesz:
                return self._bytes[segment.offset + inside : segment.offset + inside + size]
        raise BinaryError(f"{size} bytes at {vaddr:#x} are not in {self.path}", "the file is damaged")

    def read(self, vaddr: int, size: int) -> bytes:
        return self.view(vaddr, size).tobytes()

    def u64(self, vaddr: int) -> int:
        return int.from_bytes(self.read(vaddr, 8), "little")

    def loads(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """(address, bytes) of every segment that is loaded from the file."""
        for segment in self._loads:
            yield segment.vaddr, self._bytes[segment.offset : segment.offset + segment.filesz]

    def find(self, pattern: bytes, start: int = 0) -> int:
        """The file offset of ``pattern`` at or after ``start``, or -1."""
        return self._data.find(pattern, start)

    def slice(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at a file offset."""
        return bytes(self._data[offset : offset + size])

    def section_bytes(self, section: Section) -> npt.NDArray[np.uint8]:
        return self._bytes[section.offset : section.offset + section.size]

    def symbols(self) -> Iterator[tuple[str, int, int]]:
        """(name, address, size) of the functions and objects in .symtab."""
        table = self.sections.get(".symtab")
        if table is None or self._links[".symtab"] >= len(self._headers):
            return
        strings_at, strings_size = self._headers[self._links[".symtab"]][4:6]
        strings = bytes(self._data[strings_at : strings_at + strings_size])
        for row in np.frombuffer(self.section_bytes(table)[: table.size // 24 * 24].tobytes(), SYMBOL):
            end = strings.find(b"\0", int(row["name"]))
            yield strings[int(row["name"]) : end].decode(errors="replace"), int(row["value"]), int(row["size"])

    def relative_relocations(self) -> npt.NDArray[np.void]:
        """The R_*_RELATIVE entries (offset, info, addend) of a position-independent file, from PT_DYNAMIC."""
        empty = np.zeros(0, RELOCATION)
        dynamic = next((s for s in self.segments if s.type == PT_DYNAMIC), None)
        if dynamic is None or dynamic.filesz > 1 << 16:
            return empty
        try:
            words = np.frombuffer(self.read(dynamic.vaddr, dynamic.filesz // 16 * 16), "<u8").reshape(-1, 2)
            tags = {int(tag): int(value) for tag, value in words}
            size = tags.get(8, 0)
            table = np.frombuffer(self.view(tags[7], size)[: size // 24 * 24], RELOCATION)
        except (BinaryError, KeyError, ValueError):
            return empty
        relative: npt.NDArray[np.void] = table[(table["info"] & 0xFFFFFFFF) == _RELATIVE[self.arch]]
        return relative

"""ELF files as the kernel sees them: bounded, validated reads of headers, segments, sections and symbols.

Written with struct and numpy rather than with a general parser because it reads hostile and damaged files on the quick
path: every count and offset is checked against the file's size before it is used. Layouts are those of the System V ABI
(elf.h), 64-bit little-endian.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.arch import BY_ELF_MACHINE, BY_GOARCH, Arch
from gotrace.errors import BinaryError, UntraceableError

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
PF_X, PF_W, PF_R = 1, 2, 4
SHT_NOBITS = 8
ET_EXEC, ET_DYN = 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_RELA, DT_RELASZ = 0, 1, 5, 7, 8

# e_machine of others, by the names of Go's GOARCH; for mips and ppc64 see _machine_name.
_OTHER_MACHINES = {3: "386", 20: "ppc", 22: "s390x", 40: "arm", 43: "sparc64", 243: "riscv64", 258: "loong64"}

_STT_FUNC, _STT_GNU_IFUNC = 2, 10

SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")])
RELOCATION = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])

# No program's addresses reach this far; numbers from a damaged file stop here, before they overflow somebody's integer.
ADDRESS_LIMIT = 1 << 62

_ELF_HEADER = 64
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_MAX_HEADERS = 4096
_MAX_SECTION_NAME = 256
_MAX_SYMBOL_NAME = 64 << 10
_MAX_DYNAMIC = 64 << 10
_MAX_NOTES = 64 << 10
GO_BUILD_ID = (b"Go", 4)  # name and type of its note: ELF_NOTE_GOBUILDID_TAG of cmd/link/internal/ld/elf.go
_MAX_INTERPRETER = 4096
_PACKED = b"UPX!"  # UPX's l_info: a checksum, then this
_BUILD_INFO = b"\xff Go buildinf:"  # see gotrace.binary.buildinfo


@dataclass(frozen=True)
class Segment:
    """A program header. ``offset`` and ``filesz`` say what the file has, ``vaddr`` and ``memsz`` where it goes."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int


@dataclass(frozen=True)
class Section:
    """A section header whose bytes, if it has any, lie inside the file. ``addr`` is 0 for what is not loaded."""

    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int


def notes(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """(name, type, content) of the notes in a segment of them."""
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        begin = at + 12 + (name_size + 3) // 4 * 4
        yield data[at + 12 : at + 12 + name_size].rstrip(b"\0"), kind, data[begin : begin + size]
        at = begin + (size + 3) // 4 * 4


class Elf(contextlib.AbstractContextManager["Elf"]):
    """An ELF executable for an architecture of `gotrace.arch`, mapped read-only. A context manager.

    ``isa`` is that, ``arch`` its name in Go ("amd64"); ``pie`` means that it may be loaded anywhere (ET_DYN); ``entry`` is
    a link-time address; ``interpreter`` is the dynamic loader's path or None; ``sections`` is {} where section headers are
    absent or damaged, for a program runs without them.
    """

    def __init__(self, data: bytes | bytearray | mmap.mmap, path: str) -> None:
        self.path = path
        self._data = data
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        self._loads: list[Segment] = []
        self._read_header()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Elf:
        """Map the file at ``path``; raises BinaryError if it is not an ELF executable for a known architecture."""
        name = os.fspath(path)
        try:
            # Opening a named pipe must not wait for somebody to write into it.
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
                    raise BinaryError(f"{name} is {kind}", "give the path of a Go executable")
                if status.st_size == 0:
                    raise BinaryError(f"{name} is an empty file", "give the path of a Go executable")
                data = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BinaryError(f"cannot read {name}: {error.strerror}", "check the path and its permissions") from None
        except ValueError:
            raise BinaryError(f"cannot read {name!r}", "check the path") from None
        return cls(data, name)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray, path: str = "memory") -> Elf:
        """The same for a file's content in memory."""
        if not data:
            raise BinaryError(f"{path} is an empty file", "give the path of a Go executable")
        return cls(data, path)

    def close(self) -> None:
        """Let the file go. Arrays that were handed out stay valid: each keeps the mapping as long as it lives."""
        data, self._data = self._data, b""
        self._bytes = np.zeros(0, np.uint8)
        self._loads = []
        if isinstance(data, mmap.mmap):
            with contextlib.suppress(BufferError):  # an array is still held somewhere
                data.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, what: str) -> BinaryError:
        return BinaryError(f"{self.path} is damaged: {what}", "give an intact executable")

    def _read_header(self) -> None:
        data, size = self._data, len(self._data)
        if data[:4] != b"\x7fELF":
            raise BinaryError(f"{self.path} is not an ELF executable", "give the pid or path of a Go program")
        if size < _ELF_HEADER:
            raise self._damaged("it ends inside its ELF header")
        wide, big = data[4] == 2, data[5] == 2
        machine = struct.unpack_from(">H" if big else "<H", data, 18)[0]
        if not wide or big or machine not in BY_ELF_MACHINE:
            # Its other tables are not read, but this text stands alone.
            kind = UntraceableError if data.find(_BUILD_INFO) >= 0 else BinaryError
            bits = "" if wide else "32-bit "
            raise kind(
                f"{self.path} is a {bits}program for {_machine_name(machine, wide, big)}",
                f"gotrace supports 64-bit programs for {' and '.join(BY_GOARCH)}",
            )
        self.isa: Arch = BY_ELF_MACHINE[machine]
        self.arch: str = self.isa.goarch
        kind, self.entry, phoff, shoff = struct.unpack_from("<H6xQQQ", data, 16)
        if kind not in (ET_EXEC, ET_DYN):
            raise BinaryError(f"{self.path} is an ELF file but not an executable", "give the path of a Go executable")
        self.pie: bool = kind == ET_DYN
        phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from("<HHHHH", data, 54)
        self._read_segments(phoff, phentsize, phnum)
        self._headers = self._section_headers(shoff, shentsize, shnum)
        self.sections: dict[str, Section] = self._named_sections(shstrndx)
        text = self.sections.get(".text")
        if text is not None and text.type == SHT_NOBITS:  # what `objcopy --only-keep-debug` leaves
            raise BinaryError(f"{self.path} holds only debug information, not a program", "give the program itself")

    def _read_segments(self, offset: int, entry_size: int, count: int) -> None:
        size = len(self._data)
        if entry_size != PROGRAM_HEADER.size or not 0 < count <= _MAX_HEADERS or offset + entry_size * count > size:
            raise self._damaged("its program headers are out of bounds")
        segments = []
        self.interpreter: str | None = None
        self._headers_end = offset + entry_size * count
        headers = self._data[offset : self._headers_end]
        for kind, flags, at, vaddr, _, filesz, memsz, _ in PROGRAM_HEADER.iter_unpack(headers):
            segments.append(Segment(kind, flags, at, vaddr, filesz, memsz))
            if kind == PT_LOAD and at + filesz > size:
                # What may hide a Go program; and the kernel would start it, only to kill it.
                raise UntraceableError(
                    f"{self.path} is truncated: it has {size:,} of at least {at + filesz:,} bytes",
                    "build or copy it again",
                )
            if kind == PT_LOAD and (filesz > memsz or vaddr + memsz >= ADDRESS_LIMIT):
                raise self._damaged("one of its segments cannot be loaded")
            if kind == PT_INTERP and at + filesz <= size and filesz <= _MAX_INTERPRETER:
                text = bytes(self._data[at : at + filesz])
                self.interpreter = text.rstrip(b"\0").decode("utf-8", "replace")
        self.segments: tuple[Segment, ...] = tuple(segments)
        self._loads = [segment for segment in segments if segment.type == PT_LOAD and segment.filesz]
        if not self._loads:
            raise self._damaged("none of its segments can be loaded")

    def _section_headers(self, offset: int, entry_size: int, count: int) -> list[tuple[int, ...]]:
        end = offset + _SECTION_HEADER.size * count
        if not offset or entry_size != _SECTION_HEADER.size or count > _MAX_HEADERS or end > len(self._data):
            return []
        return list(_SECTION_HEADER.iter_unpack(self._data[offset:end]))

    def _named_sections(self, names_index: int) -> dict[str, Section]:
        if names_index >= len(self._headers):
            return {}
        names_at, names_size = self._headers[names_index][4:6]
        if names_at + names_size > len(self._data):
            return {}
        sections: dict[str, Section] = {}
        for name_at, kind, flags, addr, offset, length, *_ in self._headers:
            if name_at >= names_size or (kind != SHT_NOBITS and offset + length > len(self._data)):
                continue
            raw = bytes(self._data[names_at + name_at : names_at + min(name_at + _MAX_SECTION_NAME, names_size)])
            name = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
            if name:
                sections.setdefault(name, Section(name, kind, flags, addr, offset, length))
        return sections

    @property
    def first_vaddr(self) -> int:
        """The page where the lowest loaded segment begins: what a PIE's load bias is counted from."""
        return min(segment.vaddr for segment in self._loads) & ~0xFFF

    @property
    def code_vaddr(self) -> int:
        """How far link-time addresses of code are from its offsets in the file."""
        return next((each.vaddr - each.offset for each in self._loads if each.flags & PF_X), 0)

    @property
    def has_symtab(self) -> bool:
        return ".symtab" in self.sections

    @property
    def has_dwarf(self) -> bool:
        return ".debug_info" in self.sections or ".zdebug_info" in self.sections

    def _segment_at(self, vaddr: int) -> Segment:
        for segment in self._loads:
            if segment.vaddr <= vaddr < segment.vaddr + segment.filesz:
                return segment
        raise BinaryError(f"address {vaddr:#x} is not in {self.path}", "the file is damaged or was changed")

    def file_offset(self, vaddr: int) -> int:
        """Where link-time address ``vaddr`` is in the file: what a uprobe takes. The one place for this conversion."""
        segment = self._segment_at(vaddr)
        return vaddr - segment.vaddr + segment.offset

    def vaddr(self, file_offset: int) -> int | None:
        """The way back: the link-time address of a place in the file, None if it is not loaded."""
        for segment in self._loads:
            if segment.offset <= file_offset < segment.offset + segment.filesz:
                return file_offset - segment.offset + segment.vaddr
        return None

    def view_from(self, vaddr: int) -> npt.NDArray[np.uint8]:
        """Everything from ``vaddr`` to the end of its segment's file part, without a copy; raises BinaryError."""
        segment = self._segment_at(vaddr)
        return self._bytes[self.file_offset(vaddr) : segment.offset + segment.filesz]

    def view(self, vaddr: int, size: int) -> npt.NDArray[np.uint8]:
        """``size`` bytes at ``vaddr`` without a copy; raises BinaryError unless one segment's file part has them all."""
        data = self.view_from(vaddr)
        if not 0 <= size <= len(data):
            raise BinaryError(f"{size} bytes at {vaddr:#x} are not in {self.path}", "the file is damaged or was changed")
        return data[:size]

    def read(self, vaddr: int, size: int) -> bytes:
        """The same as `view`, copied."""
        return self.view(vaddr, size).tobytes()

    def u64(self, vaddr: int) -> int:
        """The 8-byte word at ``vaddr``, as the file has it (a loader may relocate it)."""
        return int.from_bytes(self.read(vaddr, 8), "little")

    def places_of(self, word: int, step: int = 1 << 20) -> Iterator[int]:
        """Link-time addresses, multiples of 8, at which the file has the 8-byte ``word``.

        Segments that may be written come first, for most of what is searched for is data. ``step`` bytes are searched at a
        time, so that an early find costs little and a large file no memory.
        """
        if not 0 <= word < 1 << 64:
            return
        for segment in sorted(self._loads, key=lambda segment: not segment.flags & PF_W):
            skip = -segment.vaddr % 8
            data = self._bytes[segment.offset + skip : segment.offset + segment.filesz]
            end = len(data) // 8 * 8
            for begin in range(0, end, step):
                words = data[begin : min(begin + step, end)].view("<u8")
                for index in np.flatnonzero(words == np.uint64(word)).tolist():
                    yield segment.vaddr + skip + begin + 8 * index

    def section_bytes(self, section: Section) -> npt.NDArray[np.uint8]:
        """A section's content without a copy; empty if the file has none of it."""
        if section.type == SHT_NOBITS:
            return self._bytes[:0]
        return self._bytes[section.offset : section.offset + section.size]

    def symbols(self) -> Iterator[tuple[str, int, int]]:
        """(name, address, size) of each entry of .symtab; nothing in a stripped file."""
        for name, row in self._symbols(".symtab"):
            yield name, int(row["value"]), int(row["size"])

    def functions(self) -> Iterator[tuple[str, int, int]]:
        """The same of functions alone, from .symtab or, where that was stripped, from .dynsym."""
        for name, row in self._symbols(".symtab" if self.has_symtab else ".dynsym"):
            if int(row["info"]) & 0xF in (_STT_FUNC, _STT_GNU_IFUNC) and row["shndx"]:
                yield name, int(row["value"]), int(row["size"])

    def functions_called(self, name: str) -> dict[int, tuple[int, bool]]:
        """{address: (size, whether it only chooses the function, when the program is loaded)} of one name, any version."""
        found = {}
        for each, row in self._symbols(".symtab" if self.has_symtab else ".dynsym"):
            kind = int(row["info"]) & 0xF
            if kind in (_STT_FUNC, _STT_GNU_IFUNC) and row["shndx"] and each.split("@", 1)[0] == name:
                found[int(row["value"])] = (int(row["size"]), kind == _STT_GNU_IFUNC)
        return found

    def _symbols(self, section: str) -> Iterator[tuple[str, np.void]]:
        table = self.sections.get(section)
        if table is None:
            return
        link = next(header[6] for header in self._headers if header[4:6] == (table.offset, table.size))
        if link >= len(self._headers):
            return
        strings_at, strings_size = self._headers[link][4:6]
        strings = bytes(self._data[strings_at : strings_at + strings_size])
        rows = self.section_bytes(table)
        for row in rows[: len(rows) // SYMBOL.itemsize * SYMBOL.itemsize].view(SYMBOL):
            begin = int(row["name"])
            end = strings.find(b"\0", begin, begin + _MAX_SYMBOL_NAME)
            yield strings[begin : max(end, begin)].decode("utf-8", "replace"), row

    @property
    def build_id(self) -> str:
        """What identifies this build: GNU's build id in hexadecimal, or else Go's; "" if it has none."""
        found: dict[tuple[bytes, int], bytes] = {}
        for segment in self.segments:
            if segment.type != PT_NOTE or segment.offset + segment.filesz > len(self._data):
                continue
            data = bytes(self._data[segment.offset : segment.offset + min(segment.filesz, _MAX_NOTES)])
            for name, kind, content in notes(data):
                found.setdefault((name, kind), content)
        gnu, go = found.get((b"GNU", 3), b""), found.get(GO_BUILD_ID, b"")
        return gnu.hex() or go.decode("ascii", "replace")

    def relative_relocations(self) -> npt.NDArray[np.void]:
        """The R_*_RELATIVE entries (offset, info, addend) of a position-independent file.

        Found through PT_DYNAMIC as the loader finds them, so that section headers are not needed. Empty if there are
        none or the table is not intact.
        """
        empty = np.zeros(0, RELOCATION)
        tags = dict(self._dynamic())
        try:
            size = tags.get(DT_RELASZ, 0) // RELOCATION.itemsize * RELOCATION.itemsize
            table = self.view(tags.get(DT_RELA, 0), size).view(RELOCATION)
        except BinaryError:
            return empty
        relative: npt.NDArray[np.void] = table[(table["info"] & 0xFFFFFFFF) == self.isa.elf_relative]
        return relative

    def needed(self) -> list[str]:
        """The libraries that its dynamic linker loads for it, by their names; [] if that table is not intact."""
        tags = self._dynamic()
        try:
            strings = self.view_from(dict(tags).get(DT_STRTAB, 0))
        except BinaryError:
            return []
        names = (strings[at : at + _MAX_SECTION_NAME].tobytes() for tag, at in tags if tag == DT_NEEDED)
        return [name.split(b"\0", 1)[0].decode("utf-8", "replace") for name in names]

    def _dynamic(self) -> list[tuple[int, int]]:
        """The loader's own table of (tag, value), through PT_DYNAMIC; [] if there is none or it is not intact."""
        dynamic = next((segment for segment in self.segments if segment.type == PT_DYNAMIC), None)
        if dynamic is None or dynamic.filesz > _MAX_DYNAMIC:
            return []
        try:
            entries = struct.iter_unpack("<QQ", self.read(dynamic.vaddr, dynamic.filesz // 16 * 16))
        except BinaryError:
            return []
        return list(itertools.takewhile(lambda entry: entry[0] != DT_NULL, entries))

    @property
    def is_packed(self) -> bool:
        """Whether UPX packed it: its mark stands behind the program headers, and sections there are none."""
        at = self._headers_end
        return not self.sections and self._data[at : at + 8].endswith(_PACKED)

    def has_symbols(self, prefix: str) -> bool:
        """Whether .symtab has names that begin with ``prefix``."""
        strings = self.sections.get(".strtab")
        return strings is not None and b"\0" + prefix.encode() in self.section_bytes(strings).tobytes()


def _machine_name(machine: int, wide: bool, big: bool) -> str:
    """GOARCH's name for an e_machine, or the number where Go has none."""
    if machine == 8:
        return f"mips{'64' if wide else ''}{'' if big else 'le'}"
    if machine == 21:
        return f"ppc64{'' if big else 'le'}"
    if machine in BY_ELF_MACHINE:  # x32, big-endian arm64 and the like
        return f"{'big-endian ' if big else ''}{BY_ELF_MACHINE[machine].goarch}"
    return _OTHER_MACHINES.get(machine, f"machine {machine}")

"""The runtime's own table of functions, present in every Go executable because tracebacks and the GC need it.

Formats (src/internal/abi, src/debug/gosym, src/runtime/symtab.go): magic 0xfffffff0 for Go 1.18 and 1.19, 0xfffffff1 since
1.20. Header: magic, two zero bytes, minLC (1 amd64, 4 arm64), pointer size, then eight words: nfunc, nfiles, textStart
(0 since 1.26) and the offsets of names, compilation units, files, pc tables and functions. Every offset is checked
against the table before use, so a damaged file ends in a BinaryError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.binary.elf import ADDRESS_LIMIT, Elf
from gotrace.errors import BinaryError

MAGIC_1_18, MAGIC_1_20 = 0xFFFFFFF0, 0xFFFFFFF1
_HEADER = struct.Struct("<IHBB8Q")
_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_MAX_NAME = 64 << 10
_MAX_TABLE = 1 << 20

_PCDATA_INL_TREE_INDEX = 2
_FUNCDATA_INL_TREE = 3
_NO_FUNCDATA = 0xFFFFFFFF

# abi.FuncIDWrapper: a compiler-made ABI adapter that has the same name as the function it wraps.
_WRAPPER_FUNC_ID = {(1, 19): 21, (1, 20): 21, (1, 21): 21, (1, 22): 22, (1, 23): 22, (1, 24): 22}
_WRAPPER_FUNC_ID_NEWEST = 23


@dataclass(frozen=True)
class Function:
    """A function's body: link-time addresses [entry, end), and its place in the table."""

    name: str
    entry: int
    end: int
    index: int
    func_id: int
    start_line: int


@dataclass(frozen=True)
class Frame:
    """One logical frame of a PC: a function (perhaps inlined) and the position in it."""

    function: str
    file: str
    line: int


@dataclass(frozen=True)
class Header:
    """Where the table is and what its header says. ``address`` is its link-time address."""

    address: int
    magic: int
    min_lc: int
    nfunc: int
    nfiles: int
    text_start: int
    names: int
    units: int
    files: int
    pctab: int
    functions: int


def find_header(elf: Elf) -> Header:
    """Locate the table: by section name, or by its magic in any loaded segment. Raises BinaryError."""
    for name in _SECTIONS:
        section = elf.sections.get(name)
        if section is not None:
            header = _parse_header(elf, section.addr)
            if header is not None:
                return header
    min_lc = 1 if elf.arch == "amd64" else 4
    for magic in (MAGIC_1_20, MAGIC_1_18):
        first_word = magic | min_lc << 48 | 8 << 56
        for base, data in elf.loads():
            words = data[: len(data) // 8 * 8]
            if base % 8 or words.ctypes.data % 8:
                continue
            for index in np.flatnonzero(words.view("<u8") == first_word).tolist():
                header = _parse_header(elf, base + 8 * index)
                if header is not None:
                    return header
    raise BinaryError(f"{elf.path} has no function table (pclntab)", "gotrace knows Go 1.19 and later")


def _parse_header(elf: Elf, address: int) -> Header | None:
    try:
        fields = _HEADER.unpack(elf.read(address, _HEADER.size))
    except BinaryError:
        return None
    magic, zero, min_lc, ptr_size, nfunc, nfiles, text_start, names, units, files, pctab, functions = fields
    if magic not in (MAGIC_1_18, MAGIC_1_20) or zero or ptr_size != 8 or min_lc not in (1, 4):
        return None
    if not (72 <= names < units < files < pctab < functions < 1 << 32) or not 0 < nfunc < 1 << 26:
        return None
    try:
        elf.view(address, functions + 8 * nfunc + 4)
    except BinaryError:
        return None
    return Header(address, magic, min_lc, nfunc, nfiles, text_start, names, units, files, pctab, functions)


class Pclntab:
    """The functions of one executable. ``text`` is the link-time address of runtime.text (from the moduledata)."""

    def __init__(self, elf: Elf, header: Header, text: int, gofunc: int, version: tuple[int, int]) -> None:
        self.elf = elf
        self.header = header
        self.nfunc = header.nfunc
        self._text = text
        self._gofunc = gofunc
        self._wrapper_id = _WRAPPER_FUNC_ID.get(version, _WRAPPER_FUNC_ID_NEWEST)
        # Go 1.20 put startLine into _func and shortened the inline tree's entries.
        self._old = header.magic == MAGIC_1_18
        self._func_size = 40 if self._old else 44
        self._data = self._whole_table()
        table = self._u32(header.functions, 2 * self.nfunc + 1)
        self._offsets = table[1::2].astype(np.int64) + header.functions
        self.entries: npt.NDArray[np.uint64] = table[::2].astype(np.uint64) + np.uint64(text)
        if np.any(self.entries[1:] < self.entries[:-1]):
            raise self._damaged("its functions are not in order")
        if np.any(self._offsets + self._func_size > len(self._data)):
            raise self._damaged("a function is described outside of the table")
        self._name_offsets = self._gather(self._offsets + 4)

    def _whole_table(self) -> npt.NDArray[np.uint8]:
        """From the header to the end of its segment: the table does not say how long it is."""
        for base, data in self.elf.loads():
            if base <= self.header.address < base + len(data):
                return data[self.header.address - base :]
        raise self._damaged("it lies outside of the file")

    def _damaged(self, what: str) -> BinaryError:
        return BinaryError(f"the function table of {self.elf.path} is damaged: {what}", "give an intact executable")

    def _u32(self, at: int, count: int) -> npt.NDArray[np.uint32]:
        if at < 0 or at + 4 * count > len(self._data):
            raise self._damaged("an offset is out of bounds")
        return np.frombuffer(self._data[at : at + 4 * count].tobytes(), "<u4")

    def _gather(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """The u32 at each of ``offsets``, which must be in bounds."""
        if len(offsets) and not np.any(offsets & 3) and self._data.ctypes.data % 4 == 0:
            words = self._data[: len(self._data) // 4 * 4].view("<u4")
            gathered: npt.NDArray[np.uint32] = words[offsets >> 2]
            return gathered
        parts = [self._data[offsets + i].astype(np.uint32) << np.uint32(8 * i) for i in range(4)]
        return np.asarray(parts[0] | parts[1] | parts[2] | parts[3], np.uint32)

    def _string(self, at: int) -> str:
        raw = self._data[at : at + _MAX_NAME].tobytes() if 0 <= at < len(self._data) else b""
        return raw.split(b"\0", 1)[0].decode("utf-8", "replace")

    def name_of(self, index: int) -> str:
        return self._string(self.header.names + int(self._name_offsets[index]))

    def names(self) -> list[str]:
        """Every function's name, in address order."""
        blob = self._data[self.header.names : self.header.units].tobytes()
        out = []
        for offset in self._name_offsets.tolist():
            end = blob.find(b"\0", offset)
            out.append(blob[offset:end].decode("utf-8", "replace") if 0 <= offset < end else "")
        return out

    def _name_offset(self, name: str) -> int | None:
        blob = self._name_bytes()
        at = blob.find(b"\0" + name.encode() + b"\0")
        return at + 1 if at >= 0 else None

    def _name_bytes(self) -> bytes:
        if not hasattr(self, "_names"):
            self._names = b"\0" + self._data[self.header.names : self.header.units].tobytes()
        return self._names

    def functions(self, name: str) -> list[Function]:
        """Every body of that name: a function and its ABI wrapper share one."""
        at = self._name_offset(name)
        if at is None:
            return []
        # _name_bytes has one zero byte in front, so the match's own zero is at the name's true offset - 0.
        return [self._function(int(i)) for i in np.flatnonzero(self._name_offsets == at - 1)]

    def function(self, name: str) -> Function | None:
        """The body that Go code calls (ABIInternal), or None."""
        bodies = self.functions(name)
        real = [body for body in bodies if body.func_id != self._wrapper_id] or bodies
        return max(real, key=lambda body: body.end - body.entry, default=None)

    def _function(self, index: int) -> Function:
        at = int(self._offsets[index])
        start_line = 0 if self._old else int(self._u32(at + 36, 1)[0])
        func_id = int(self._data[at + self._func_size - 4])
        entry, end = int(self.entries[index]), int(self.entries[index + 1])
        return Function(self.name_of(index), entry, end, index, func_id, start_line)

    def find(self, pc: int) -> Function | None:
        """The function whose body contains ``pc``."""
        if not 0 <= pc < ADDRESS_LIMIT:
            return None
        index = int(np.searchsorted(self.entries, np.uint64(pc), side="right")) - 1
        return self._function(index) if 0 <= index < self.nfunc else None

    # Positions and inlining

    def line(self, pc: int) -> tuple[str, int]:
        """(file, line) of the innermost frame at ``pc``; ("", 0) if it is in no function."""
        function = self.find(pc)
        if function is None:
            return ("", 0)
        at = int(self._offsets[function.index])
        _, _, _, _, _, pcfile, pcln, _, unit = (int(word) for word in self._u32(at, 9))
        offset = pc - function.entry
        line = self._value_at(pcln, offset)
        number = self._value_at(pcfile, offset)
        if line is None or number is None or number < 0:
            return ("", 0)
        file_at = int(self._u32(self.header.units + 4 * (unit + number), 1)[0])
        return (self._string(self.header.files + file_at), line)

    def frames(self, pc: int) -> list[Frame]:
        """The logical frames at ``pc``, innermost first: inlined functions, then the function itself."""
        function = self.find(pc)
        if function is None:
            return []
        out: list[Frame] = []
        tree = self._inline_tree(function.index)
        for _ in range(64):  # deeper than any compiler nests
            file, line = self.line(pc)
            index = self._value_at(self._pcdata(function.index, _PCDATA_INL_TREE_INDEX), pc - function.entry)
            if tree is None or index is None or index < 0:
                out.append(Frame(function.name, file, line))
                break
            name_at, parent_pc = self._inline_entry(tree, index)
            out.append(Frame(self._string(self.header.names + name_at), file, line))
            pc = function.entry + parent_pc
        return out

    def inlined_in(self, name: str) -> list[Function]:
        """The functions into which the compiler inlined ``name``."""
        offset = self._name_offset(name)
        if offset is None or not self._gofunc:
            return []
        wanted = offset - 1
        # Every place in the funcdata that holds this name's offset, then the tree it is in, then the proof.
        trees = self._funcdata_all(_FUNCDATA_INL_TREE)
        present = np.flatnonzero(trees != _NO_FUNCDATA)
        order = present[np.argsort(trees[present], kind="stable")]
        begins = trees[order].astype(np.int64)
        if not len(begins):
            return []
        blob = self._funcdata_blob(int(begins[-1]) + _MAX_TABLE)
        hits = np.flatnonzero(blob[: len(blob) // 4 * 4].view("<u4") == wanted) * 4
        found: set[int] = set()
        for hit in hits.tolist():
            last = int(np.searchsorted(begins, hit, side="right")) - 1
            # Identical trees are shared by several functions.
            while last >= 0 and begins[last] == begins[int(np.searchsorted(begins, hit, side="right")) - 1]:
                index = int(order[last])
                if wanted in self._inlined_names(index, int(begins[last])):
                    found.add(index)
                last -= 1
        return [self._function(index) for index in sorted(found)]

    def _inlined_names(self, index: int, tree: int) -> set[int]:
        values = [value for value, _ in self._values(self._pcdata(index, _PCDATA_INL_TREE_INDEX))]
        return {self._inline_entry(tree, i)[0] for i in range(max(values, default=-1) + 1)}

    def _inline_tree(self, index: int) -> int | None:
        at = int(self._offsets[index])
        npcdata, nfuncdata = int(self._u32(at + 28, 1)[0]), int(self._data[at + self._func_size - 1])
        if nfuncdata <= _FUNCDATA_INL_TREE or not self._gofunc or npcdata > 64:
            return None
        value = int(self._u32(at + self._func_size + 4 * (npcdata + _FUNCDATA_INL_TREE), 1)[0])
        return None if value == _NO_FUNCDATA else value

    def _inline_entry(self, tree: int, index: int) -> tuple[int, int]:
        """(name offset, parent pc) of one inlined call (runtime.inlinedCall)."""
        if self._old:
            _, _, _, name_at, parent_pc = struct.unpack("<iiiii", self.elf.read(self._gofunc + tree + 20 * index, 20))
        else:
            _, name_at, parent_pc, _ = struct.unpack("<iiii", self.elf.read(self._gofunc + tree + 16 * index, 16))
        return name_at, parent_pc

    def _funcdata_all(self, which: int) -> npt.NDArray[np.uint32]:
        npcdata = self._gather(self._offsets + 28).astype(np.int64)
        nfuncdata = self._data[self._offsets + self._func_size - 1]
        at = self._offsets + self._func_size + 4 * (npcdata + which)
        valid = (nfuncdata > which) & (npcdata <= 64) & (at + 4 <= len(self._data))
        out = np.full(self.nfunc, _NO_FUNCDATA, np.uint32)
        out[valid] = self._gather(at[valid])
        return out

    def _funcdata_blob(self, size: int) -> npt.NDArray[np.uint8]:
        for base, data in self.elf.loads():
            if base <= self._gofunc < base + len(data):
                begin = self._gofunc - base
                return np.frombuffer(data[begin : begin + size].tobytes(), np.uint8)
        return np.zeros(0, np.uint8)

    def _pcdata(self, index: int, which: int) -> int:
        at = int(self._offsets[index])
        npcdata = int(self._u32(at + 28, 1)[0])
        if npcdata <= which or npcdata > 64:
            return 0
        return int(self._u32(at + self._func_size + 4 * which, 1)[0])

    def _value_at(self, table: int, offset: int) -> int | None:
        for value, end in self._values(table):
            if offset < end:
                return value
        return None

    def _values(self, table: int) -> Iterator[tuple[int, int]]:
        """(value, end offset) of each run of a pc-value table: zigzag value deltas and scaled pc deltas, as uvarints."""
        if not table:
            return
        at = self.header.pctab + table
        raw = self._data[at : at + _MAX_TABLE].tobytes()
        value, pc, position, first = -1, 0, 0, True
        while True:
            delta, position = _uvarint(raw, position)
            if position < 0 or (delta == 0 and not first):
                return
            value += -(delta >> 1) - 1 if delta & 1 else delta >> 1
            step, position = _uvarint(raw, position)
            if position < 0:
                return
            pc += step * self.header.min_lc
            first = False
            yield value, pc


def _uvarint(raw: bytes, at: int) -> tuple[int, int]:
    """(value, next position); the position is -1 past the end or after more than five bytes."""
    value = 0
    for i in range(5):
        if at + i >= len(raw):
            return 0, -1
        byte = raw[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    return 0, -1

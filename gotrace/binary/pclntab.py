"""The runtime's own table of functions, present in every Go executable because tracebacks and the GC need it.

Formats (src/internal/abi, src/debug/gosym, src/runtime/symtab.go): magic 0xfffffff0 for Go 1.18 and 1.19, 0xfffffff1 since
1.20. Header: magic, two zero bytes, minLC (1 amd64, 4 arm64), pointer size, then eight words: nfunc, nfiles, textStart
(0 since 1.26) and the offsets of names, compilation units, files, pc tables and functions.

Every offset is checked against the table before it is used and every loop has a bound that follows from the file's size,
so a damaged or hostile file ends in a BinaryError, in bounded time and memory. Tables are numpy arrays; Python strings are
made only for what is asked for.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.binary.elf import Elf
from gotrace.errors import BinaryError

MAGIC_1_18, MAGIC_1_20 = 0xFFFFFFF0, 0xFFFFFFF1
_HEADER = struct.Struct("<IHBB8Q")
_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")  # the latter: position-independent, up to Go 1.25
_MAX_PLACES = 4096
_MAX_NAME = 64 << 10
_MAX_RUNS = 1 << 20  # of one pc-value table; the largest functions have some ten thousand
_MAX_KEPT = 4096  # pc-value tables in memory
_MAX_PCDATA = 64
_MAX_DEPTH = 64  # of inlining; compilers nest a dozen

# runtime._func: words at these offsets, then bytes; Go 1.20 put startLine in at 36.
_NAME_OFF, _ARGS, _PCSP, _PCFILE, _PCLN, _NPCDATA, _CU_OFFSET, _START_LINE = 4, 8, 16, 20, 24, 28, 32, 36
_FUNC_SIZE_1_18, _FUNC_SIZE_1_20 = 40, 44  # funcID is 4 bytes before the end, flag 3, nfuncdata the last byte
# abi.FuncFlag: a stack ends here, and a function that sets SP to what no table says.
TOP_FRAME, SP_WRITE = 1, 2

_PCDATA_INL_TREE_INDEX = 2
_FUNCDATA_INL_TREE = 3
_NO_FUNCDATA = 0xFFFFFFFF
_NO_FILE = 0xFFFFFFFF

# First release -> abi.FuncIDWrapper: a compiler-made ABI adapter that has the same name as the function it wraps.
_WRAPPER_FUNC_ID = (((1, 25), 23), ((1, 22), 22), ((1, 18), 21))


@dataclass(frozen=True)
class Function:
    """A function's body: link-time addresses [entry, end), and its place in the table.

    ``func_id`` is the runtime's mark for special functions (0 for others); ``start_line`` is 0 up to Go 1.19.
    """

    name: str
    entry: int
    end: int
    index: int
    func_id: int
    start_line: int


@dataclass(frozen=True)
class GoFrame:
    """One logical frame of a PC: a function (perhaps inlined) and the position in it; ``func_id`` as in `Function`."""

    function: str
    file: str
    line: int
    func_id: int = 0


@dataclass(frozen=True)
class Header:
    """Where the table is (``address``, link-time) and what its header says; the last five are offsets from its begin."""

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


def find_headers(elf: Elf) -> Iterator[Header]:
    """Every place that looks like the table, the likeliest first: by section name, then by its magic.

    There may be more than one: a program can carry another Go program among its constants. Only the one that the moduledata
    points to is in use.
    """
    for name in _SECTIONS:
        section = elf.sections.get(name)
        header = _parse_header(elf, section.addr) if section else None
        if header is not None:
            yield header
    for magic in (MAGIC_1_20, MAGIC_1_18):
        word = struct.unpack("<Q", struct.pack("<IHBB", magic, 0, elf.isa.min_instruction, 8))[0]
        for address in itertools.islice(elf.places_of(word), _MAX_PLACES):
            header = _parse_header(elf, address)
            if header is not None:
                yield header


def _parse_header(elf: Elf, address: int) -> Header | None:
    try:
        fields = _HEADER.unpack(elf.read(address, _HEADER.size))
        magic, zero, min_lc, ptr_size, nfunc, nfiles, text_start, names, units, files, pctab, functions = fields
        if magic not in (MAGIC_1_18, MAGIC_1_20) or zero or ptr_size != 8 or min_lc != elf.isa.min_instruction:
            return None
        if not _HEADER.size <= names < units < files < pctab < functions or not 0 < nfunc < 1 << 26:
            return None
        elf.view(address, functions + 8 * nfunc + 4)
    except BinaryError:
        return None
    return Header(address, magic, min_lc, nfunc, nfiles, text_start, names, units, files, pctab, functions)


class Pclntab:
    """The functions of one executable.

    ``entries`` has nfunc + 1 sorted link-time addresses: where each function begins, and where the last one ends.
    ``wrapper_id`` is the ``func_id`` of ABI adapters. ``knows_inlining`` is False where the inline trees are not where this
    Go version is known to have them.
    """

    def __init__(self, elf: Elf, header: Header, text: int, gofunc: int, version: tuple[int, int]) -> None:
        """``text`` and ``gofunc`` are the moduledata's. Raises BinaryError when the table is damaged."""
        self.header = header
        self._record_is_pushed = elf.isa.record_is_pushed
        self.nfunc = header.nfunc
        self._path = elf.path
        self.wrapper_id = next((number for since, number in _WRAPPER_FUNC_ID if version >= since), 0)
        self._old = header.magic == MAGIC_1_18
        self._func_size = _FUNC_SIZE_1_18 if self._old else _FUNC_SIZE_1_20
        # To the end of its segment, for the table does not say how long it is.
        self._data = elf.view_from(header.address)
        self._pctab = self._data.data[header.pctab : header.functions]
        # One zero byte in front of the first name, so that every name stands between two.
        self._names = b"\0" + self._data[header.names : header.units].tobytes()

        table = self._data[header.functions : header.functions + 8 * self.nfunc + 4]
        offsets, bodies = (np.frombuffer(table.tobytes(), "<u4")[i::2] for i in (0, 1))
        self.entries: npt.NDArray[np.uint64] = offsets.astype(np.uint64) + np.uint64(text)
        if np.any(offsets[1:] < offsets[:-1]) or text + int(offsets[-1]) >= 1 << 64:
            raise self._damaged("its functions are not sorted")
        self._offsets: npt.NDArray[np.int64] = bodies.astype(np.int64) + header.functions
        if np.any(self._offsets + self._func_size > len(self._data)):
            raise self._damaged("a function record lies outside of it")
        self._name_offsets = self._words(self._offsets + _NAME_OFF)
        if not self._are_names(self._name_offsets):
            raise self._damaged("a function has an invalid name")

        self._tree_entry_size, self._tree_name_at = (20, 12) if self._old else (16, 4)  # runtime.inlinedCall
        self._read: dict[tuple[int, int], _Runs] = {}
        self._tree_order: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None
        try:
            self._trees = elf.view_from(gofunc)
            self.knows_inlining = self._has_inline_trees()
        except BinaryError:
            self.knows_inlining = False

    def _damaged(self, what: str) -> BinaryError:
        return BinaryError(f"the function table of {self._path} is damaged: {what}", "give an intact executable")

    # Raw access. Offsets count from the begin of the table unless said otherwise.

    def _word(self, at: int) -> int:
        if not 0 <= at <= len(self._data) - 4:
            raise self._damaged("an offset is out of bounds")
        return int.from_bytes(self._data[at : at + 4].tobytes(), "little")

    def _words(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """The word at each of ``offsets``, which must be in bounds."""
        words: npt.NDArray[np.uint32]
        if not np.any(offsets & 3):
            words = self._data[: len(self._data) // 4 * 4].view("<u4")[offsets >> 2]
        else:
            parts = [self._data[offsets + i].astype(np.uint32) << np.uint32(8 * i) for i in range(4)]
            words = parts[0] | parts[1] | parts[2] | parts[3]
        return words

    def _are_names(self, offsets: npt.NDArray[np.uint32]) -> bool:
        """Whether each of ``offsets`` is where a name begins."""
        names = np.frombuffer(self._names, np.uint8)
        return bool(np.all(offsets < len(names) - 1)) and not np.any(names[offsets])

    def _name_at(self, offset: int) -> str:
        if not 0 <= offset < len(self._names) - 1 or self._names[offset]:
            raise self._damaged("a function has an invalid name")
        return _text(self._names, offset + 1)

    def _offsets_of(self, name: str, every: bool = False) -> list[int]:
        """Where ``name`` stands among the names.

        Once, except that up to Go 1.20 the linker wrote [...] for type arguments: the same text for several functions; and
        an ABI wrapper's may stand there again (``every``).
        """
        wanted = name.encode("utf-8", "replace")
        if not wanted or b"\0" in wanted:
            return []
        out: list[int] = []
        at = self._names.find(b"\0" + wanted + b"\0")
        while at >= 0:
            out.append(at)
            at = self._names.find(b"\0" + wanted + b"\0", at + 1) if every or "[...]" in name else -1
        return out

    # Functions

    def name_of(self, index: int) -> str:
        return self._name_at(int(self._name_offsets[index]))

    def names(self) -> list[str]:
        """Every function's name, in address order."""
        offsets, places = np.unique(self._name_offsets, return_inverse=True)
        texts = [self._name_at(offset) for offset in offsets.tolist()]
        return [texts[place] for place in places.tolist()]

    def functions(self, name: str, every: bool = False) -> list[Function]:
        """Every body of that name: a function and its ABI wrapper share one, up to Go 1.20 so do instances of generics.

        A wrapper may also be under a second entry of that name, which is looked for with ``every``.
        """
        indexes = [np.flatnonzero(self._name_offsets == offset) for offset in self._offsets_of(name, every)]
        return [self._function(index) for index in sorted(itertools.chain.from_iterable(i.tolist() for i in indexes))]

    def function(self, name: str) -> Function | None:
        """The body that Go code calls (ABIInternal), or None."""
        bodies = self.functions(name)
        real = [body for body in bodies if body.func_id != self.wrapper_id] or bodies
        return max(real, key=lambda body: body.end - body.entry, default=None)

    def wrapper(self, name: str) -> Function | None:
        """The body by which assembly calls a function of that name (ABI0), or None: then it calls the function itself."""
        return next((body for body in self.functions(name, every=True) if body.func_id == self.wrapper_id), None)

    def _function(self, index: int) -> Function:
        at = int(self._offsets[index])
        start_line = 0 if self._old else self._word(at + _START_LINE)
        return Function(self.name_of(index), *self._bounds(index), index, self._func_id(index), start_line)

    def _func_id(self, index: int) -> int:
        return int(self._data[int(self._offsets[index]) + self._func_size - 4])

    def _bounds(self, index: int) -> tuple[int, int]:
        return int(self.entries[index]), int(self.entries[index + 1])

    def _index_of(self, pc: int) -> int | None:
        if not int(self.entries[0]) <= pc < int(self.entries[-1]):
            return None
        return int(np.searchsorted(self.entries, np.uint64(pc), side="right")) - 1

    def find(self, pc: int) -> Function | None:
        """The function whose body contains ``pc``."""
        index = self._index_of(pc)
        return None if index is None else self._function(index)

    # Positions and inlining

    def line(self, pc: int) -> tuple[str, int]:
        """(file, line) of the innermost frame at ``pc``, as `go tool addr2line` prints; ("", 0) where there is none."""
        index = self._index_of(pc)
        return ("", 0) if index is None else _Positions(self, index).at(pc)

    def frames(self, pc: int) -> list[GoFrame]:
        """The logical frames at ``pc``, innermost first: inlined functions, then the function itself; [] in no function.

        Without ``knows_inlining`` there is one frame: the function, at the innermost position.
        """
        index = self._index_of(pc)
        if index is None:
            return []
        entry, _ = self._bounds(index)
        positions = _Positions(self, index)
        tree = self._inline_tree(index)
        calls = self._runs(index, self._pcdata(index, _PCDATA_INL_TREE_INDEX)) if tree is not None else None
        out: list[GoFrame] = []
        for _ in range(_MAX_DEPTH):
            file, line = positions.at(pc)
            call = calls.at(pc) if calls is not None else None
            if tree is None or call is None or call < 0:
                out.append(GoFrame(self.name_of(index), file, line, self._func_id(index)))
                return out
            func_id, name_offset, parent_pc = self._inlined_call(tree, call)
            out.append(GoFrame(self._name_at(name_offset), file, line, func_id))
            pc = entry + parent_pc
        raise self._damaged("its inline trees are not terminated")

    def has_record(self, pc: int) -> bool | None:
        """Whether the function at ``pc`` has a frame record there; None while it is being made or taken away.

        The table of how far SP has been moved tells (pcsp). Prologues (cmd/internal/obj): amd64 pushes BP and then sets it,
        so that SP is 8 bytes down in between; arm64 moves SP, stores R29 and sets it, and restores it before SP.
        """
        index = self._index_of(pc)
        if index is None:
            return True
        moved, begin, end = self._moves(index).around(pc)
        if moved == 0:
            return False
        changing = moved == 8 if self._record_is_pushed else pc - begin < 8 or end - pc <= 4
        return None if changing else True

    def unwinding(self, pc: int) -> tuple[int, int, int]:
        """(index of the function, how far it has moved SP at ``pc``, its `TOP_FRAME` and `SP_WRITE`), (-1, 0, 0) in none.

        A return address is looked up as it is: the table says what holds after the call.
        """
        index = self._index_of(pc)
        moved = self._moves(index).at(pc) if index is not None else None
        if index is None or moved is None or moved < 0:
            return -1, 0, 0
        return index, moved, int(self._data[int(self._offsets[index]) + self._func_size - 3])

    def _moves(self, index: int) -> _Runs:
        """How far a function has moved SP, by place."""
        return self._runs(index, self._word(int(self._offsets[index]) + _PCSP))

    def frame_bytes(self, function: Function) -> int:
        """How far ``function`` moves SP below where it was at its entry (pcsp): what a call pushed is not in it."""
        return max(0, self._moves(function.index).highest())

    def argument_bytes(self, function: Function) -> int:
        """How many bytes ``function``'s arguments have on the stack, with the room for those that come in registers."""
        return self._word(int(self._offsets[function.index]) + _ARGS)

    def inlined_in(self, name: str) -> list[Function]:
        """The functions into which the compiler inlined ``name``, in address order.

        Looks at every inline tree of the program, not only the runtime's: 1 ms per 50 MB of program. Raises BinaryError
        without ``knows_inlining``, because the answer is then unknown.
        """
        if not self.knows_inlining:
            raise BinaryError(
                f"cannot read the inlining tables of {self._path}", "a newer gotrace may support this Go version"
            )
        # Words that equal the name's offset, then those of them that are the name of an entry of a tree, then the proof:
        # the function's own code leads to that entry. Functions with equal trees share one.
        begins, owners = self._sorted_trees()
        if not len(begins):
            return []
        data = self._trees[: int(begins[-1]) + _MAX_RUNS * self._tree_entry_size]
        words = data[: len(data) // 4 * 4].view("<u4")
        found: set[int] = set()
        for offset in self._offsets_of(name):
            entries = np.flatnonzero(words == offset) * 4 - self._tree_name_at
            entries = entries[entries >= begins[0]]
            trees = begins[np.searchsorted(begins, entries, side="right") - 1]
            numbers, rest = np.divmod(entries - trees, self._tree_entry_size)
            # The first call of that name in each tree is enough: np.unique keeps the first of those in rising order.
            trees, first = np.unique(trees[rest == 0], return_index=True)
            for tree, number in zip(trees.tolist(), numbers[rest == 0][first].tolist(), strict=True):
                low, high = np.searchsorted(begins, [tree, tree + 1])
                found.update(index for index in owners[low:high].tolist() if self._last_call(index) >= number)
        return [self._function(index) for index in sorted(found)]

    def _sorted_trees(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(begin of its inline tree, index of the function) for every function that has one, by the tree's place."""
        if self._tree_order is None:
            npcdata = self._words(self._offsets + _NPCDATA).astype(np.int64)
            nfuncdata = self._data[self._offsets + self._func_size - 1]
            at = self._offsets + self._func_size + 4 * (npcdata + _FUNCDATA_INL_TREE)
            valid = (nfuncdata > _FUNCDATA_INL_TREE) & (npcdata <= _MAX_PCDATA) & (at + 4 <= len(self._data))
            owners = np.flatnonzero(valid)
            begins = self._words(at[owners]).astype(np.int64)
            present = begins != _NO_FUNCDATA
            order = np.argsort(begins[present], kind="stable")
            self._tree_order = (begins[present][order], owners[present][order])
        return self._tree_order

    def _has_inline_trees(self, sample: int = 32) -> bool:
        """Whether what lies at gofunc are inline trees: names that are names, and calls inside their functions."""
        begins, owners = self._sorted_trees()
        step = max(1, len(begins) // sample)
        for tree, index in zip(begins[::step].tolist(), owners[::step].tolist(), strict=True):
            entry, end = self._bounds(index)
            try:
                _, name_offset, parent_pc = self._inlined_call(tree, 0)
                self._name_at(name_offset)
            except BinaryError:
                return False
            if not 0 <= parent_pc < end - entry:
                return False
        return True

    def _runs(self, index: int, offset: int) -> _Runs:
        """A table of a function; those that were read are kept, for the places of a profile are in few functions."""
        found = self._read.get((index, offset))
        if found is None:
            if len(self._read) >= _MAX_KEPT:
                self._read.clear()
            found = self._read[index, offset] = _Runs(self, index, offset)
        return found

    def _last_call(self, index: int) -> int:
        """The highest number of an inlined call that the function's code leads to, -1 if there is none."""
        return _Runs(self, index, self._pcdata(index, _PCDATA_INL_TREE_INDEX)).highest()

    def _inline_tree(self, index: int) -> int | None:
        """Where the function's inline tree begins (from gofunc), or None."""
        at = int(self._offsets[index])
        npcdata, nfuncdata = self._word(at + _NPCDATA), int(self._data[at + self._func_size - 1])
        if not self.knows_inlining or nfuncdata <= _FUNCDATA_INL_TREE or npcdata > _MAX_PCDATA:
            return None
        value = self._word(at + self._func_size + 4 * (npcdata + _FUNCDATA_INL_TREE))
        return None if value == _NO_FUNCDATA else value

    def _inlined_call(self, tree: int, number: int) -> tuple[int, int, int]:
        """(func_id, name offset, parent pc as an offset from the entry) of one inlined call."""
        at = tree + number * self._tree_entry_size
        raw = self._trees[at : at + self._tree_name_at + 8].tobytes()
        if len(raw) != self._tree_name_at + 8:
            raise self._damaged("an inline tree is out of bounds")
        func_id = raw[2] if self._old else raw[0]
        name_offset, parent_pc = struct.unpack_from("<Ii", raw, self._tree_name_at)
        return func_id, name_offset, parent_pc

    def _pcdata(self, index: int, which: int) -> int:
        """The offset (in the pc tables) of one of the function's pc-value tables, 0 for none."""
        at = int(self._offsets[index])
        npcdata = self._word(at + _NPCDATA)
        if npcdata <= which or npcdata > _MAX_PCDATA:
            return 0
        return self._word(at + self._func_size + 4 * which)

    def _file(self, unit: int, number: int) -> str:
        at = self.header.units + 4 * (unit + number)
        offset = self._word(at) if at < self.header.files else _NO_FILE
        if offset == _NO_FILE:
            return ""
        begin = self.header.files + offset
        return _text(self._data[begin : min(begin + _MAX_NAME, self.header.pctab)].tobytes(), 0)


class _Runs:
    """One pc-value table of one function: which value holds up to which PC.

    Format: pairs of uvarints, the change of the value (zigzag, from -1) and that of the PC (in units of minLC), until a
    change of 0 that is not the first. A run is at least one instruction long, so the function's size bounds their number.
    """

    def __init__(self, table: Pclntab, index: int, offset: int) -> None:
        entry, end = table._bounds(index)
        self._entry = entry
        self._ends: list[int] = []
        self._values: list[int] = []
        if offset:
            self._read(table._pctab[offset:], table.header.min_lc, end - entry)

    def _read(self, data: memoryview, min_lc: int, size: int) -> None:
        value, pc, at, length = -1, 0, 0, len(data)
        limit = min(length, 2 * 5 * _MAX_RUNS)
        ends, values = self._ends, self._values
        while pc < size and at < limit:
            # nearly every number is one byte
            if (delta := data[at]) < 0x80:
                at += 1
            else:
                delta, at = _uvarint(data, at)
            if delta == 0 and ends:
                return
            value += -(delta >> 1) - 1 if delta & 1 else delta >> 1
            if at < length and (step := data[at]) < 0x80:
                at += 1
            else:
                step, at = _uvarint(data, at)
            if step == 0 or at < 0:
                return
            pc += step * min_lc
            ends.append(pc)
            values.append(value)

    def at(self, pc: int) -> int | None:
        """The value at ``pc``, None where the table says nothing."""
        place = bisect.bisect_right(self._ends, pc - self._entry)
        return self._values[place] if place < len(self._values) and pc >= self._entry else None

    def around(self, pc: int) -> tuple[int | None, int, int]:
        """(the value at ``pc``, from where, up to where it holds)."""
        place = bisect.bisect_right(self._ends, pc - self._entry)
        if place >= len(self._values):
            return None, pc, pc
        return self._values[place], self._entry + (self._ends[place - 1] if place else 0), self._entry + self._ends[place]

    def highest(self) -> int:
        return max(self._values, default=-1)


class _Positions:
    """Files and lines in one function."""

    def __init__(self, table: Pclntab, index: int) -> None:
        at = int(table._offsets[index])
        self._table = table
        self._unit = table._word(at + _CU_OFFSET)
        self._files = table._runs(index, table._word(at + _PCFILE))
        self._lines = table._runs(index, table._word(at + _PCLN))

    def at(self, pc: int) -> tuple[str, int]:
        number, line = self._files.at(pc), self._lines.at(pc)
        if number is None or line is None or number < 0 or line < 0:
            return ("", 0)
        return (self._table._file(self._unit, number), line)


def _uvarint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, next position) of at most five bytes; the position is -1 past the end."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            return 0, -1
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return value, at


def _text(data: bytes, begin: int) -> str:
    end = data.find(b"\0", begin, begin + _MAX_NAME)
    return data[begin : end if end >= 0 else begin + _MAX_NAME].decode("utf-8", "replace")

"""ELF files built in Python: small Go programs whose every table is known, for tests of what reads them.

The layout is that of Go's own linker where a reader could tell: three loadable segments (code; read-only tables; data),
build information and moduledata in the data, pointers as relocations in a position-independent file. There is no code that
could run.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
R, RX, RW = 4, 5, 6
MACHINES = {"amd64": 62, "arm64": 183}
MIN_LC = {"amd64": 1, "arm64": 4}
RELATIVE = {"amd64": 8, "arm64": 1027}
LOADER = "/lib64/ld-linux-x86-64.so.2"
NO_FUNCDATA = 0xFFFFFFFF


# Pieces


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def pc_values(runs: list[tuple[int, int]], min_lc: int) -> bytes:
    """A pc-value table of (end offset, value) runs."""
    out, value, pc = bytearray(), -1, 0
    for end, new in runs:
        delta = new - value
        out += uvarint(delta << 1 if delta >= 0 else (-delta << 1) - 1) + uvarint((end - pc) // min_lc)
        value, pc = new, end
    return bytes(out + b"\0")


def build_info(version: str, modules: str, flags: int = 2) -> bytes:
    """The content of .go.buildinfo; ``modules`` is the text of `go version -m`."""
    text = b"0" * 16 + modules.encode() + b"1" * 16 if modules else b""
    head = b"\xff Go buildinf:" + bytes([8, flags])
    return head.ljust(32, b"\0") + uvarint(len(version)) + version.encode() + uvarint(len(text)) + text


@dataclass(frozen=True)
class Inlined:
    """A call that was inlined: in effect on [begin, end) of the function, called at the position of ``parent_pc``."""

    name: str
    begin: int
    end: int
    parent_pc: int


@dataclass(frozen=True)
class Func:
    """``lines`` and ``files`` are (end offset, line) and (end offset, path); the ends of the last reach the function's."""

    name: str
    size: int = 32
    lines: tuple[tuple[int, int], ...] = ((32, 10),)
    files: tuple[tuple[int, str], ...] = ((32, "/src/main.go"),)
    inlined: tuple[Inlined, ...] = ()
    func_id: int = 0
    start_line: int = 7
    argument_bytes: int = 0


@dataclass
class Pclntab:
    """The function table's bytes and what the moduledata says of it; offsets from its begin."""

    data: bytes
    trees: bytes
    names: int
    units: int
    files: int
    pctab: int
    functions: int
    nfunc: int


def pclntab(funcs: list[Func], arch: str, old: bool = False, text_start: int = 0) -> Pclntab:
    """``old`` is the form of Go 1.18 and 1.19."""
    min_lc = MIN_LC[arch]
    names, name_offsets = b"", {}
    for name in [f.name for f in funcs] + [call.name for f in funcs for call in f.inlined]:
        if name not in name_offsets:
            name_offsets[name] = len(names)
            names += name.encode() + b"\0"
    files, file_offsets = b"", {}
    for path in dict.fromkeys(path for f in funcs for _, path in f.files):
        file_offsets[path] = len(files)
        files += path.encode() + b"\0"
    units = b"".join(struct.pack("<I", offset) for offset in file_offsets.values())
    numbers = {path: number for number, path in enumerate(file_offsets)}

    pctab, trees = b"\0", b""
    bodies, offset = [], 0
    for f in funcs:
        tables = []
        files_runs = [(end, numbers[path]) for end, path in f.files]
        for runs in (files_runs, list(f.lines), _inline_runs(f)):
            tables.append(len(pctab) if runs else 0)
            pctab += pc_values(runs, min_lc) if runs else b""
        tree = NO_FUNCDATA
        if f.inlined:
            tree = len(trees)
            for call in f.inlined:
                name = name_offsets[call.name]
                if old:
                    trees += struct.pack("<hBBiiii", -1, 0, 0, 0, 0, name, call.parent_pc)
                else:
                    trees += struct.pack("<Bxxxiii", 0, name, call.parent_pc, 1)
        words = [offset, name_offsets[f.name], f.argument_bytes, 0, 0, tables[0], tables[1], 3, 0]
        body = struct.pack(f"<{len(words)}I", *words)
        body += b"" if old else struct.pack("<I", f.start_line)
        body += (
            bytes([f.func_id, 0, 0, 4]) + struct.pack("<3I", 0, 0, tables[2]) + struct.pack("<4I", *[NO_FUNCDATA] * 3, tree)
        )
        bodies.append((offset, body))
        offset += f.size
    functab, at = b"", 8 * len(funcs) + 8
    for begin, body in bodies:
        functab += struct.pack("<II", begin, at)
        at += len(body)
    functab += struct.pack("<II", offset, 0) + b"".join(body for _, body in bodies)

    parts, places = [names, units, files, pctab, functab], []
    size = 72
    for i, part in enumerate(parts):
        places.append(size)
        parts[i] = part + bytes(-len(part) % 8)
        size += len(parts[i])
    magic = 0xFFFFFFF0 if old else 0xFFFFFFF1
    head = struct.pack("<IHBB8Q", magic, 0, min_lc, 8, len(funcs), len(file_offsets), text_start, *places)
    return Pclntab(head + b"".join(parts), trees + bytes(-len(trees) % 8), *places, len(funcs))


def _inline_runs(f: Func) -> list[tuple[int, int]]:
    if not f.inlined:
        return []
    edges = sorted({0, f.size, *(c.begin for c in f.inlined), *(c.end for c in f.inlined)})
    runs: list[tuple[int, int]] = []
    for begin, end in itertools.pairwise(edges):
        # the innermost is the last one whose range has it
        value = max((i for i, call in enumerate(f.inlined) if call.begin <= begin < call.end), default=-1)
        runs.append((end, value))
    return runs


# Whole files


@dataclass
class Elf:
    """A file of segments and sections. Addresses are a multiple of 0x10000 from file offsets, so that both fit a page."""

    arch: str = "amd64"
    pie: bool = False
    data: bytearray = field(default_factory=lambda: bytearray(64 + 56 * 6))
    segments: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    sections: list[tuple[str, int, int, int, int]] = field(default_factory=list)  # name, type, addr, offset, size

    @property
    def base(self) -> int:
        return 0 if self.pie else 0x400000

    def next_address(self, align: int = 64) -> int:
        """Where the next segment will begin."""
        offset = len(self.data) + -len(self.data) % align
        return self.base + 0x10000 * (1 + len(self.segments)) + offset

    def load(self, content: bytes, flags: int, align: int = 64) -> int:
        """Append a loadable segment; its address."""
        address = self.next_address(align)
        self.data += bytes(-len(self.data) % align)
        self.segments.append((PT_LOAD, flags, len(self.data), address, len(content), len(content)))
        self.data += content
        return address

    def describe(self, kind: int, address: int, size: int) -> None:
        """A program header for something that is loaded already."""
        self.segments.append((kind, R, self.offset(address), address, size, size))

    def offset(self, address: int) -> int:
        for kind, _, offset, begin, size, _ in self.segments:
            if kind == PT_LOAD and begin <= address < begin + size:
                return address - begin + offset
        raise ValueError(hex(address))

    def section(self, name: str, address: int, size: int) -> None:
        self.sections.append((name, 1, address, self.offset(address), size))

    def add_symbols(self, symbols: list[tuple[str, int, int]]) -> None:
        strings, table = b"\0", bytes(24)
        for name, address, size in symbols:
            table += struct.pack("<IBBHQQ", len(strings), 0x12, 0, 1, address, size)
            strings += name.encode() + b"\0"
        self.sections.append((".symtab", 2, 0, len(self.data), len(table)))
        self.data += table
        self.sections.append((".strtab", 3, 0, len(self.data), len(strings)))
        self.data += strings

    def finish(self, with_sections: bool = True) -> bytes:
        assert len(self.segments) <= 6
        shoff = shnum = 0
        if with_sections:
            names = b"\0"
            rows = [bytes(64)]
            for name, kind, address, offset, size in [*self.sections, (".shstrtab", 3, 0, 0, 0)]:
                at = len(names)
                names += name.encode() + b"\0"
                rows.append([at, kind, address, offset, size])  # type: ignore[arg-type]
            table = b""
            begin = len(self.data)
            self.data += names + bytes(-(begin + len(names)) % 8)
            for row in rows:
                if isinstance(row, bytes):
                    table += row
                    continue
                at, kind, address, offset, size = row
                if (offset, size) == (0, 0):
                    offset, size = begin, len(names)
                link = len(rows) - 2 if kind == 2 else 0  # the strings of .symtab stand right before .shstrtab
                table += struct.pack("<IIQQQQIIQQ", at, kind, 2 if address else 0, address, offset, size, link, 0, 8, 0)
            shoff, shnum = len(self.data), len(rows)
            self.data += table
        entry = next((s[3] for s in self.segments if s[0] == PT_LOAD), 0)
        head = b"\x7fELF\x02\x01\x01" + bytes(9)
        head += struct.pack("<HHIQQQ", 3 if self.pie else 2, MACHINES[self.arch], 1, entry, 64, shoff)
        head += struct.pack("<IHHHHHH", 0, 64, 56, len(self.segments), 64, shnum, max(shnum - 1, 0))
        for i, (kind, flags, offset, address, size, memory) in enumerate(self.segments):
            row = struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, memory, 0x1000)
            self.data[64 + 56 * i : 64 + 56 * (i + 1)] = row
        self.data[:64] = head
        return bytes(self.data)


@dataclass(frozen=True)
class GoFile:
    """A finished Go program: its bytes, the address of each part, and where each part is in the file (offset, size)."""

    data: bytes
    text: int
    pclntab: int
    gofunc: int
    moduledata: int
    entries: dict[str, int]
    regions: dict[str, tuple[int, int]]


FUNCS = (
    Func("runtime.text0", 16, ((16, 1),), ((16, "/go/asm.s"),)),
    Func("runtime.stopTheWorld", 64, ((8, 20), (64, 31)), ((64, "/go/proc.go"),), start_line=19),
    Func("runtime.newproc", 96, ((96, 50),), ((96, "/go/proc.go"),)),
    Func("runtime.newproc", 32, ((32, 1),), ((32, "<autogenerated>"),), func_id=23, start_line=1),
    Func(
        "main.main",
        128,
        ((16, 5), (32, 71), (48, 82), (64, 71), (128, 9)),
        ((16, "/src/main.go"), (64, "/src/inline.go"), (128, "/src/main.go")),
        (Inlined("main.outer", 16, 64, 12), Inlined("main.inner", 32, 48, 20), Inlined("main.outer", 80, 96, 72)),
        start_line=4,
        argument_bytes=24,
    ),
    Func("main.(*T[...]).Größe", 32),
    Func("main.c", 48, (), ()),
)
MODULES = 'path\texample.com/app\nmod\texample.com\tv1.2.3\t\nbuild\t-ldflags="-s -w"\nbuild\tGOARCH=amd64\n'


def go_file(
    version: str = "go1.27.3",
    arch: str = "amd64",
    pie: bool = False,
    sections: bool = True,
    symbols: bool = False,
    funcs: tuple[Func, ...] = FUNCS,
    modules: str = MODULES,
) -> GoFile:
    """A program as the Go release in ``version`` ("go1.MINOR...") lays it out."""
    minor = int(version.split(".")[1])
    old = minor <= 19
    elf = Elf(arch, pie)
    text = elf.load(b"\xcc" * sum(f.size for f in funcs), RX)
    table = pclntab(list(funcs), arch, old, 0 if minor >= 26 or pie else text)

    tables_at = elf.next_address()
    trees_at = tables_at + len(table.data)
    interpreter_at = trees_at + len(table.trees)
    interpreter = LOADER.encode() + b"\0"

    # The data: build information, moduledata, and what the loader needs.
    info = build_info(version, modules)
    info += bytes(-len(info) % 16)
    tables = table.data + table.trees + interpreter
    tables += bytes(-len(tables) % 8)
    data_at = elf.next_address() + 0x10000
    data_at += len(tables) + -(len(tables) + (data_at & 0xFFFF)) % 64
    module_at = data_at + len(info)
    end = text + sum(f.size for f in funcs)
    pointers = {
        0: tables_at,
        8: tables_at + table.names,
        32: tables_at + table.units,
        56: tables_at + table.files,
        80: tables_at + table.pctab,
        104: tables_at + table.functions,
        128: tables_at + table.functions,
        160: text,
        168: end,
        176: text,
        184: end,
        (344 if minor >= 27 else 320 if minor >= 20 else 304): trees_at,
    }
    module = bytearray(400)
    relocations = b""
    for at, value in pointers.items():
        if pie:
            relocations += struct.pack("<QQQ", module_at + at, RELATIVE[arch], value)
        else:
            struct.pack_into("<Q", module, at, value)
    struct.pack_into("<QQ", module, 136, table.nfunc + 1, table.nfunc + 1)
    relocations_at = module_at + len(module)
    dynamic_at = relocations_at + len(relocations)
    dynamic = struct.pack("<6Q", 7, relocations_at, 8, len(relocations), 0, 0) if pie else b""

    assert elf.load(tables, R) == tables_at
    assert elf.load(info + bytes(module) + relocations + dynamic, RW) == data_at
    if pie:
        elf.describe(PT_DYNAMIC, dynamic_at, len(dynamic))
        elf.describe(PT_INTERP, interpreter_at, len(interpreter))

    elf.section(".text", text, end - text)
    elf.section(".data.rel.ro.gopclntab" if pie and minor <= 25 else ".gopclntab", tables_at, len(table.data))
    elf.section(".go.buildinfo", data_at, len(info))
    if minor >= 26:
        elf.section(".go.module", module_at, len(module))
    entries, at = {}, text
    for f in funcs:
        entries.setdefault(f.name, at)
        at += f.size
    if symbols:
        elf.add_symbols([(name, address, 16) for name, address in entries.items()])
    content = elf.finish(sections)
    regions = {
        "elf": (0, 64),
        "segments": (64, 56 * len(elf.segments)),
        "table header": (elf.offset(tables_at), 72),
        "names": (elf.offset(tables_at) + table.names, table.units - table.names),
        "files": (elf.offset(tables_at) + table.units, table.pctab - table.units),
        "pc tables": (elf.offset(tables_at) + table.pctab, table.functions - table.pctab),
        "functions": (elf.offset(tables_at) + table.functions, len(table.data) - table.functions),
        "inline trees": (elf.offset(trees_at), len(table.trees)),
        "build info": (elf.offset(data_at), len(info)),
        "moduledata": (elf.offset(module_at), len(module)),
    }
    if pie:
        regions["relocations"] = (elf.offset(relocations_at), len(relocations) + len(dynamic))
    if sections:
        shoff = struct.unpack_from("<Q", content, 40)[0]
        regions["sections"] = (shoff, len(content) - shoff)
    return GoFile(content, text, tables_at, trees_at, module_at, entries, regions)

"""The function table, the moduledata and a program as a whole, on files whose content is known."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from unit import elfwriter
from unit.elfwriter import FUNCS, Func, GoFile, Inlined, go_file

from gotrace.binary.elf import Elf
from gotrace.binary.pclntab import Function, GoFrame, Pclntab
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

KINDS = [
    {},
    {"arch": "arm64"},
    {"sections": False},
    {"pie": True},
    {"pie": True, "sections": False, "arch": "arm64"},
    {"version": "go1.25.5", "pie": True},
    {"version": "go1.25.5", "pie": True, "sections": False},
    {"version": "go1.22.10"},
    {"version": "go1.20.14"},
    {"version": "go1.19.8"},
    {"version": "go1.19.8", "pie": True, "arch": "arm64", "sections": False},
    {"version": "go1.28.0"},
]


def program(file: GoFile) -> GoProgram:
    return GoProgram(Elf.from_bytes(file.data))


def table(**options) -> Pclntab:
    return program(go_file(**options)).pclntab


def patched(file: GoFile, offset: int, form: str, *values: int) -> GoProgram:
    data = bytearray(file.data)
    struct.pack_into(form, data, offset, *values)
    return GoProgram(Elf.from_bytes(bytes(data)))


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_everything_on_every_kind(options):
    file = go_file(**options)
    found = program(file)
    assert found.version == (1, int(options.get("version", "go1.27.3").split(".")[1]))
    assert (found.arch, found.pie) == (options.get("arch", "amd64"), options.get("pie", False))
    assert found.stripped
    assert (found.moduledata.address, found.moduledata.gofunc) == (file.moduledata, file.gofunc)
    assert (found.moduledata.text, found.moduledata.minpc) == (file.text, file.text)
    functions = found.pclntab
    assert functions.nfunc == len(FUNCS) and functions.knows_inlining
    assert functions.names() == [f.name for f in FUNCS]
    sizes = np.cumsum([0, *(f.size for f in FUNCS)])
    assert functions.entries.dtype == np.uint64
    assert functions.entries.tolist() == (sizes + file.text).tolist()

    main = functions.function("main.main")
    assert main == functions.find(main.entry) == functions.find(main.end - 1)
    assert (main.entry, main.end, main.index) == (file.entries["main.main"], file.entries["main.main"] + 128, 4)
    assert functions.argument_bytes(main) == 24
    assert main.start_line == (0 if found.version < (1, 20) else 4)
    frames = [
        GoFrame("main.inner", "/src/inline.go", 82),
        GoFrame("main.outer", "/src/inline.go", 71),
        GoFrame("main.main", "/src/main.go", 5),
    ]
    assert functions.frames(main.entry + 32) == functions.frames(main.entry + 44) == frames
    assert functions.frames(main.entry + 48) == frames[1:]
    assert functions.frames(main.entry + 64) == [GoFrame("main.main", "/src/main.go", 9)]
    assert functions.line(main.entry + 32) == ("/src/inline.go", 82)
    assert functions.inlined_in("main.outer") == functions.inlined_in("main.inner") == [main]
    assert functions.inlined_in("runtime.newproc") == functions.inlined_in("nothing") == []


def test_lookups_by_name():
    functions = table()
    bodies = functions.functions("runtime.newproc")
    assert [(body.func_id, body.end - body.entry) for body in bodies] == [(0, 96), (23, 32)]
    assert functions.function("runtime.newproc") == bodies[0]
    assert functions.function("main.(*T[...]).Größe").index == 5
    # a part of a name, two names with their separator, and a name that is only inlined
    for name in ("", "newproc", "runtime.newpro", "runtime.newproc\0main.main", "\0", "main.outer", "\udc80"):
        assert functions.function(name) is None and functions.functions(name) == []


@pytest.mark.parametrize(
    ("version", "wrapper"), [("go1.19.8", 21), ("go1.21.0", 21), ("go1.22.0", 22), ("go1.24.1", 22), ("go1.25.0", 23)]
)
def test_wrappers_are_passed_over(version, wrapper):
    """The ABI adapter has the same name as what it wraps, and may be larger."""
    funcs = (Func("f", 64, func_id=wrapper), Func("f", 16), Func("g", 16, func_id=wrapper), Func("h"), Func("h", 48))
    functions = table(version=version, funcs=funcs)
    assert functions.function("f").index == 1
    assert functions.function("g").index == 2  # better a wrapper than nothing
    assert functions.function("h").index == 4


def test_instances_that_share_a_name():
    """Up to Go 1.20 the names of all instances of a generic function read the same, but each stands in the table."""
    call, other = Inlined("g[...]", 8, 16, 4), Inlined("g[int]", 8, 16, 4)
    funcs = (Func("f[...]"), Func("f[int]", inlined=(call,)), Func("h", inlined=(other,)), Func("k"))
    file = go_file("go1.19.8", funcs=funcs)
    data = file.data.replace(b"f[int]\0", b"f[...]\0").replace(b"g[int]\0", b"g[...]\0")
    functions = GoProgram(Elf.from_bytes(data)).pclntab
    assert [f.index for f in functions.functions("f[...]")] == [0, 1]
    assert [f.index for f in functions.inlined_in("g[...]")] == [1, 2]


def test_addresses_outside():
    file = go_file()
    functions = program(file).pclntab
    end = file.text + sum(f.size for f in FUNCS)
    for pc in (-1, 0, file.text - 1, end, 1 << 63, 1 << 64):
        assert functions.find(pc) is None
        assert functions.line(pc) == ("", 0)
        assert functions.frames(pc) == []
    assert isinstance(functions.find(end - 1), Function)


def test_code_without_lines():
    """C functions are in the table when Go's own linker linked them, but without files and lines."""
    functions = table()
    entry = functions.function("main.c").entry
    assert functions.line(entry) == ("", 0)
    assert functions.frames(entry) == [GoFrame("main.c", "", 0)]


@pytest.mark.parametrize("old", [False, True])
def test_shared_inline_trees_are_told_apart(old):
    """The linker keeps one copy of equal trees; a function has only the calls its code leads to."""
    call = Inlined("f", 8, 16, 4)
    funcs = (
        Func("a", inlined=(call,)),
        Func("b", inlined=(call, Inlined("g", 16, 24, 4))),
        Func("c"),
        Func("f"),
        Func("g"),
    )
    version = "go1.19.8" if old else "go1.27.3"
    file = go_file(version, funcs=funcs)
    functions = program(file).pclntab
    assert [f.name for f in functions.inlined_in("f")] == ["a", "b"]
    assert [f.name for f in functions.inlined_in("g")] == ["b"]
    # let a's tree be b's, which has one call more
    size = elfwriter_function_size(old)
    begin, _ = file.regions["functions"]
    first = begin + 8 * len(funcs) + 8
    second = struct.unpack_from("<I", file.data, first + 2 * size - 4)[0]
    functions = patched(file, first + size - 4, "<I", second).pclntab
    assert [f.name for f in functions.inlined_in("f")] == ["a", "b"]
    assert [f.name for f in functions.inlined_in("g")] == ["b"]


def elfwriter_function_size(old: bool) -> int:
    return (40 if old else 44) + 3 * 4 + 4 * 4


def test_inlining_of_a_new_release_is_believed_only_with_proof():
    file = go_file("go1.28.0")
    assert program(file).pclntab.knows_inlining
    at, _ = file.regions["moduledata"]
    for value in (0, 1, file.text, file.pclntab, file.moduledata, (1 << 64) - 1):
        functions = patched(file, at + 344, "<Q", value).pclntab
        assert not functions.knows_inlining
        with pytest.raises(BinaryError, match="cannot read"):
            functions.inlined_in("main.outer")
        # positions are as good as ever
        main = functions.function("main.main").entry
        assert functions.frames(main + 32) == [GoFrame("main.main", "/src/inline.go", 82)]


def test_a_table_among_the_constants_is_not_the_programs():
    """A program may carry another Go program; without section headers its table may come first."""
    file = go_file("go1.27.3", sections=False)
    decoy = elfwriter.pclntab([Func("decoy.main")], "amd64").data
    decoy += bytes(-len(decoy) % 8)
    # put it in the code's place: the first segment that is searched among those nobody writes to
    funcs = (*FUNCS, Func("space", len(decoy) + 64, (), ()))
    file = go_file("go1.27.3", sections=False, funcs=funcs)
    space = file.entries["space"]
    offset = Elf.from_bytes(file.data).file_offset(space + -space % 8)
    found = GoProgram(Elf.from_bytes(file.data[:offset] + decoy + file.data[offset + len(decoy) :]))
    assert found.pclntab.function("decoy.main") is None
    assert found.pclntab.function("main.main") is not None


def test_unknown_forms_are_refused():
    file = go_file("go1.28.0", sections=False)
    head, _ = file.regions["table header"]
    for offset, form, value in ((0, "<I", 0xFFFFFFF2), (7, "<B", 4), (6, "<B", 4), (8, "<Q", 1 << 40), (64, "<Q", 1 << 40)):
        with pytest.raises(BinaryError, match="no function table") as raised:
            patched(file, head + offset, form, value)
        assert "go1.28.0" in raised.value.message and raised.value.hint
    module, _ = file.regions["moduledata"]
    for offset in (8, 32, 56, 80, 104, 128, 136, 160, 168, 176, 184):
        with pytest.raises(BinaryError, match="no moduledata"):
            patched(file, module + offset, "<Q", 0)


@pytest.mark.parametrize("version", ["go1.18.10", "go1.4"])
def test_old_releases_are_refused(version):
    data = go_file("go1.19.8", modules="").data
    new = elfwriter.build_info(version, "").ljust(48, b"\0")
    at = data.index(b"\xff Go buildinf:")
    with pytest.raises(BinaryError, match="was built with") as raised:
        GoProgram(Elf.from_bytes(data[:at] + new + data[at + len(new) :]))
    assert "1.19" in raised.value.hint


def test_damage_is_named():
    file = go_file()
    functions, _ = file.regions["functions"]
    first = functions + 8 * len(FUNCS) + 8
    for offset, value, message in (
        (functions + 8, 1 << 20, "not sorted"),
        (functions + 4, 1 << 20, "lies outside"),
        (first + 4, 1 << 20, "invalid name"),
        (first + 4, 3, "invalid name"),
    ):
        with pytest.raises(BinaryError, match=message) as raised:
            patched(file, offset, "<I", value)
        assert raised.value.hint


def test_an_endless_inline_tree_ends():
    file = go_file()
    at, _ = file.regions["inline trees"]
    functions = patched(file, at + 8, "<i", 20).pclntab  # main.outer was called from within itself
    with pytest.raises(BinaryError, match="are not terminated"):
        functions.frames(file.entries["main.main"] + 20)


def seconds(action) -> float:
    began = time.thread_time()
    action()
    return time.thread_time() - began


def test_magic_after_magic_takes_no_time():
    elf = elfwriter.Elf()
    elf.load(bytes(64), elfwriter.RX)
    elf.load(struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8) * (1 << 20), elfwriter.R)
    elf.load(elfwriter.build_info("go1.27.3", ""), elfwriter.RW)
    data = elf.finish(False)

    def refused():
        with pytest.raises(BinaryError):
            GoProgram(Elf.from_bytes(data))

    assert seconds(refused) < 2


def test_a_run_for_each_byte_takes_little_time():
    size = 1 << 18
    runs = tuple((end, end % 7 + 1) for end in range(1, size + 1))
    file = go_file(funcs=(Func("f", size, runs, ((size, "x.go"),)), Func("g")))
    functions = program(file).pclntab
    assert functions.line(file.text + size - 1) == ("x.go", size % 7 + 1)
    assert seconds(lambda: functions.frames(file.text)) < 3


def test_many_functions_with_one_tree_take_little_time():
    count = 5000
    funcs = [Func(f"f{i}", 16, ((16, 1),), inlined=(Inlined("g", 8, 16, 4),)) for i in range(count)]
    functions = table(funcs=tuple(funcs))
    assert seconds(lambda: functions.inlined_in("g")) < 2
    assert len(functions.inlined_in("g")) == count
    assert seconds(functions.names) < 2


def test_closing_leaves_the_tables_readable(tmp_path):
    path = tmp_path / "program"
    path.write_bytes(go_file(symbols=True).data)
    with GoProgram.open(path) as found:
        assert not found.stripped
    assert found.pclntab.function("main.main") is not None

"""Names for addresses of running programs, against `go tool addr2line`, `nm` and the kernel."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess

import pytest

import targets
from conftest import until
from gotrace.analysis.stacks import KERNEL
from gotrace.binary import code
from gotrace.binary.program import GoProgram
from gotrace.kernel.process import Process
from gotrace.runtime.symbols import Symbols, kernel_symbols

pytestmark = pytest.mark.bpf


def bias_of(process, path):
    """How far the executable is moved from where it was linked to, by its own first address."""
    with GoProgram.open(path) as program:
        bias = process.load_bias(program.elf.first_vaddr) if program.pie else 0
        entries = program.pclntab.entries.tolist()
    return bias, entries


def within(place):
    """Below the checkout: the two programs may have been built, and kept, from different ones."""
    return place[place.rfind("/tests/testdata/") :] if "/tests/testdata/" in place else place


@pytest.mark.parametrize(
    ("version", "flavour", "twin"), [("1.22.10", "stripped", "default"), (targets.NEWEST, "pie", "pie")]
)
def test_go_functions(start, version, flavour, twin):
    """Function, file and line of the outermost frame of any address, stripped or not, moved or not."""
    path = targets.build("gcload", version, flavour)
    target = start(path, "-seconds", "1")
    with Process.open(target.pid) as process:
        until(lambda: any(each.executable and each.path == str(path) for each in process.mappings()))
    with Process.open(target.pid) as process, Symbols.of(process) as symbols:
        bias, entries = bias_of(process, path)
        chosen = random.Random(1).sample(entries[:-1], 200)
        named = [symbols.at(bias + entry)[-1] for entry in chosen]
    asked = "".join(f"{entry:#x}\n" for entry in chosen)
    go = targets.go(version)
    command = [str(go), "tool", "addr2line", str(targets.build("gcload", version, twin))]
    told = subprocess.run(
        command, input=asked, capture_output=True, text=True, check=True, env=targets.environment(version)
    ).stdout.splitlines()
    for symbol, function, place in zip(named, told[::2], told[1::2], strict=True):
        assert symbol.function.replace("·", ".") == function.replace("·", ".")
        if symbol.line:
            assert within(f"{symbol.file}:{symbol.line}") == within(place)


def test_functions_of_c_libraries(start):
    """By the library's dynamic symbols, which is all a distribution leaves in it."""
    target = start(targets.build("cgo", targets.NEWEST, "cgo-external"))
    until(lambda: "libc.so" in open(f"/proc/{target.pid}/maps").read())
    with Process.open(target.pid) as process, Symbols.of(process) as symbols:
        libc = next(each for each in process.mappings() if each.executable and "libc.so" in each.path)
        lines = subprocess.run(
            ["readelf", "-W", "--dyn-syms", libc.path], capture_output=True, text=True, check=True
        ).stdout
        address = next(int(line.split()[1], 16) for line in lines.splitlines() if " malloc@@" in line)
        (found,) = symbols.at(libc.begin - libc.offset + address + 4)
        assert found.function.startswith("malloc") and found.module == os.path.basename(libc.path)


def test_the_kernels_functions(start):
    target = start(targets.build("gcload"), "-seconds", "1")
    with open("/proc/kallsyms") as file:
        known = dict(kernel_symbols(file))
    assert len(known) > 10_000
    address, name = next((address, name) for address, name in known.items() if name == "schedule")
    with Process.open(target.pid) as process, Symbols.of(process, kernel=True) as symbols:
        assert symbols.at(address + 1) == [(name, "", 0, "", KERNEL)]
        assert symbols.at(0x10)[0].function == "[unknown]"
        vdso = next(each for each in process.mappings() if each.path == "[vdso]")
        assert symbols.at(vdso.begin + 1)[0].function == "[vdso]"


def test_a_program_that_has_exited(start, monkeypatch):
    """Its last stacks are named after it has gone: nothing is forgotten by looking for it again."""
    for name in ("_LOOK_AGAIN_S", "_LOOKS_SHARE"):
        monkeypatch.setattr(f"gotrace.runtime.symbols.{name}", 0.0)
    path = targets.build("gcload")
    target = start(path, "-seconds", "0.1")
    with Process.open(target.pid) as process:
        until(lambda: any(each.executable and each.path == str(path) for each in process.mappings()))
        with Symbols.of(process) as symbols:
            bias, entries = bias_of(process, path)
            target.go()
            target.truth()
            target.finish()
            assert symbols.at(0x10)[0].function == "[unknown]"
            assert symbols.at(bias + entries[100])[0].function != "[unknown]"


def test_a_library_that_is_loaded_later(tmp_path):
    """What had no name at first has one as soon as it is looked at again."""
    with Process.open(os.getpid()) as process, Symbols.of(process) as symbols:
        libm = next(each.path for each in process.mappings() if "libm.so" in os.path.basename(each.path))
        late = ctypes.CDLL(str(shutil.copy(libm, tmp_path / "late.so")))
        address = ctypes.cast(late.frexp, ctypes.c_void_p).value
        symbols.at(address)
        until(lambda: symbols.at(address)[0].function != "[unknown]")
        assert symbols.at(address)[0].module == "late.so"


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("version", targets.MATRIX)
def test_where_a_function_has_no_frame_record(version, arch):
    """Never in a leaf; before it is made and after it is taken away; everywhere else, where its calls are."""
    with GoProgram.open(targets.build("burner", version, "stripped", arch)) as program:
        table = program.pclntab
        step = table.header.min_lc
        leaf, heavy = (table.function(f"main.{name}") for name in ("leaf", "heavy"))
        assert not any(table.has_record(pc) for pc in range(leaf.entry, leaf.entry + 16, step))
        assert table.has_record(heavy.entry) is False
        calls = [site.address for site in code.call_sites(program, "main.heavy", "main.leaf")]
        assert calls and all(table.has_record(pc) for pc in calls)
        for site in code.ret_sites(program, "main.heavy"):
            assert table.has_record(site.address) is False
        if arch == "amd64" and program.version < (1, 21):
            return  # it makes room for all of the frame at once, and no register tells what has been done
        # what lies between having none and having one is one or two instructions
        record = [table.has_record(pc) for pc in range(heavy.entry, calls[0], step)]
        assert record.index(None) < record.index(True) and record.count(None) <= (10 if arch == "amd64" else 2)

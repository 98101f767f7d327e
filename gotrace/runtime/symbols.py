"""Names for addresses of a running process: Go functions with their inlined frames, C functions, the kernel's.

Every file is opened while that is surely allowed and parsed once, when an address in it is asked for.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import mmap
import os
import time
from typing import TYPE_CHECKING, TextIO

import numpy as np

from gotrace.analysis.stacks import ENTERING, FRAMELESS, INLINED, KERNEL, NOWHERE, USER, Frame
from gotrace.binary.elf import Elf
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError, GotraceError
from gotrace.text import place_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gotrace.binary.pclntab import GoFrame
    from gotrace.kernel.process import MemoryMapping, Process

_KERNEL_NAMES = "/proc/kallsyms"

# For a library that is loaded while the process is traced: how long after a look there is another at the earliest, and
# how many times as long as a look takes.
_LOOK_AGAIN_S, _LOOKS_SHARE = 0.1, 50


def go_frames(functions: Sequence[GoFrame], module: str, kind: str) -> list[Frame]:
    """Frames of functions as `Pclntab.frames` has them: the last is of ``kind``, the others were compiled into it."""
    kinds = [*[INLINED for _ in functions[1:]], kind]
    return [Frame(each.function, each.file, each.line, module, kind) for each, kind in zip(functions, kinds, strict=False)]


class _File:
    """An executable or a library."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._elf = Elf(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ), name)
        self._module = os.path.basename(name)
        self._go: GoProgram | None = None
        with contextlib.suppress(BinaryError):
            self._go = GoProgram(self._elf)
        names: list[tuple[int, int, str]] = sorted((at, size, text) for text, at, size in self._elf.functions())
        self._begins = np.array([at for at, _, _ in names], np.uint64)
        self._names = names

    def code(self, offset: int, size: int) -> bytes:
        """The bytes that end with the one at a place in the file; b"" if that has no code."""
        vaddr = self._elf.vaddr(offset)
        with contextlib.suppress(BinaryError):
            return self._elf.read(vaddr - size + 1, size) if vaddr is not None else b""
        return b""

    def at(self, offset: int) -> list[Frame]:
        """The functions at a place in the file, innermost first."""
        whole = [Frame(f"[{self._module}]", "", 0, self._module, USER)]
        vaddr = self._elf.vaddr(offset)
        if vaddr is None:
            return whole
        if self._go is not None:
            with contextlib.suppress(BinaryError):
                functions = self._go.pclntab.frames(vaddr)
                if functions:
                    kind = {True: USER, False: FRAMELESS, None: ENTERING}[self._go.pclntab.has_record(vaddr)]
                    return go_frames(functions, self._module, kind)
        index = int(np.searchsorted(self._begins, np.uint64(vaddr), side="right")) - 1
        if index >= 0:
            begin, size, name = self._names[index]
            if vaddr < begin + max(size, 1):
                return [Frame(name, "", 0, self._module, USER)]
        return whole


class Symbols:
    """Names for the addresses of one process. Use `of`."""

    def __init__(self, process: Process, kernel: TextIO | None) -> None:
        self._process = process
        self._mappings: list[MemoryMapping] = []
        self._begins: list[int] = []
        self._all: list[MemoryMapping] = []  # of data too
        self._all_begins: list[int] = []
        self._descriptors: dict[str, int] = {}
        self._next_look_s = 0.0
        self._files: dict[str, _File | None] = {}
        self._kernel_file = kernel
        self._known: dict[int, list[Frame]] = {}

    @classmethod
    @contextlib.contextmanager
    def of(cls, process: Process, kernel: bool = False) -> Iterator[Symbols]:
        """Open what ``process`` has mapped; with ``kernel`` the kernel's names too, which only root is given."""
        with contextlib.ExitStack() as stack:
            # Whether addresses are shown is decided when it is opened: later we may have no privileges.
            symbols = cls(process, stack.enter_context(open(_KERNEL_NAMES)) if kernel else None)
            stack.callback(symbols._close)
            symbols._look()
            yield symbols

    def turn_to(self, process: Process, mapped: Sequence[tuple[MemoryMapping, int]]) -> None:
        """Forget everything: ``process`` has executed another program, and this is what it has mapped of that.

        With each mapping comes a descriptor of its file, which is ours from now on.
        """
        self._process = process
        self._close()
        self._know([mapping for mapping, _ in mapped])
        for mapping, descriptor in mapped:
            self._keep(mapping.path, descriptor)

    def _look(self) -> None:
        """Learn what the process has mapped by now."""
        begin_s = time.monotonic()
        self._next_look_s = begin_s + _LOOK_AGAIN_S  # even if it fails
        mapped = self._process.mappings()
        now_s = time.monotonic()
        self._next_look_s = now_s + max(_LOOK_AGAIN_S, _LOOKS_SHARE * (now_s - begin_s))
        found = [each for each in mapped if each.executable]
        if not found:  # it has just exited: what it had is still good for the addresses that were seen
            return
        self._know(found)
        self._all, self._all_begins = mapped, [each.begin for each in mapped]
        for each in found:
            if each.path not in self._descriptors and each.path.startswith("/"):
                with contextlib.suppress(OSError):
                    self._keep(each.path, self._process.open_mapped(each))

    def _close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors, self._files, self._known = {}, {}, {}

    def _know(self, mappings: list[MemoryMapping]) -> None:
        self._mappings = mappings
        self._begins = [each.begin for each in mappings]

    def _keep(self, path: str, descriptor: int) -> None:
        if self._descriptors.setdefault(path, descriptor) != descriptor:
            os.close(descriptor)

    def at(self, address: int) -> list[Frame]:
        """The functions at ``address``, innermost first: inlined ones, then the function itself. Never empty."""
        found = self._known.get(address)
        if found is None:
            found = self._resolve(address)
            if found != [NOWHERE]:  # a library may be loaded there yet
                self._known[address] = found
        return found

    def mapping(self, address: int) -> MemoryMapping | None:
        """What is mapped at an address of data; None if that is unknown."""
        found = _at(self._all, self._all_begins, address)
        if found is None and time.monotonic() >= self._next_look_s:
            with contextlib.suppress(GotraceError):
                self._look()
            found = _at(self._all, self._all_begins, address)
        return found

    def place(self, address: int) -> str:
        """The same as `gotrace.text.place_text`; "" if it is unknown."""
        found = self.mapping(address)
        return place_text(address, found.begin, found.offset, found.path) if found is not None else ""

    def frames(self, addresses: Sequence[int]) -> list[Frame]:
        """The functions at ``addresses``, in the order of these."""
        return [frame for address in addresses for frame in self.at(address)]

    def code(self, address: int, size: int) -> bytes:
        """The ``size`` bytes of code that end with the one at ``address``, as its file has them; b"" if unknown."""
        mapping = self._mapping(address)
        file = self._file(mapping.path) if mapping is not None else None
        return file.code(address - mapping.begin + mapping.offset, size) if mapping and file else b""

    def _resolve(self, address: int) -> list[Frame]:
        if address >> 63:
            index = bisect.bisect_right(self._kernel, (address, "\U0010ffff")) - 1
            return [Frame(self._kernel[index][1] if index >= 0 else "[kernel]", "", 0, "", KERNEL)]
        mapping = self._mapping(address)
        if mapping is None and time.monotonic() >= self._next_look_s:
            with contextlib.suppress(GotraceError):  # gone, or root was given up
                self._look()
            mapping = self._mapping(address)
        if mapping is None:
            return [NOWHERE]
        file = self._file(mapping.path)
        if file is None:
            name = os.path.basename(mapping.path) or "unknown"
            return [Frame(f"[{name.strip('[]')}]", "", 0, name, USER)]
        return file.at(address - mapping.begin + mapping.offset)

    @functools.cached_property
    def _kernel(self) -> list[tuple[int, str]]:
        return kernel_symbols(self._kernel_file) if self._kernel_file else []

    def _mapping(self, address: int) -> MemoryMapping | None:
        return _at(self._mappings, self._begins, address)

    def _file(self, path: str) -> _File | None:
        if path not in self._files:
            self._files[path] = None
            if path in self._descriptors:
                with contextlib.suppress(BinaryError, ValueError, OSError):
                    self._files[path] = _File(self._descriptors[path], path)
        return self._files[path]


def _at(mappings: Sequence[MemoryMapping], begins: Sequence[int], address: int) -> MemoryMapping | None:
    index = bisect.bisect_right(begins, address) - 1
    return mappings[index] if index >= 0 and address < mappings[index].end else None


class KernelNames:
    """The kernel's functions by address, where root is told; read when they are asked for."""

    @functools.cached_property
    def _names(self) -> list[tuple[int, str]]:
        with open(_KERNEL_NAMES) as file:
            return kernel_symbols(file)

    def frames(self, addresses: Sequence[int]) -> list[Frame]:
        return [Frame(self.name(address), "", 0, "", KERNEL) for address in addresses]

    def name(self, address: int) -> str:
        index = bisect.bisect_right(self._names, (address, "\U0010ffff")) - 1
        return self._names[index][1] if index >= 0 else "[kernel]"


def kernel_symbols(file: TextIO) -> list[tuple[int, str]]:
    """(address, name) of the kernel's functions, in order; none where addresses are hidden (kptr_restrict, not root)."""
    found = []
    for line in file:
        address, kind, name = line.split()[:3]
        if kind in "tTwW" and int(address, 16):
            found.append((int(address, 16), name))
    return sorted(found)

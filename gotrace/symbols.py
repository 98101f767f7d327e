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

from gotrace.analysis.stacks import ENTERING, FRAMELESS, INLINED, KERNEL, USER, Frame
from gotrace.binary.elf import Elf
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError, GotraceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gotrace.kernel.process import Mapping, Process

_KERNEL_NAMES = "/proc/kallsyms"

# A library that is loaded while the process is traced.
_LOOK_AGAIN_S = 1.0


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

    def at(self, offset: int) -> list[Frame]:
        """The functions at a place in the file, innermost first."""
        whole = [Frame(f"[{self._module}]", "", 0, self._module, USER)]
        vaddr = self._elf.vaddr(offset)
        if vaddr is None:
            return whole
        if self._go is not None:
            with contextlib.suppress(BinaryError):
                frames = self._go.pclntab.frames(vaddr)
                if frames:
                    inner = [Frame(f.function, f.file, f.line, self._module, INLINED) for f in frames[:-1]]
                    last = frames[-1]
                    kind = {True: USER, False: FRAMELESS, None: ENTERING}[self._go.pclntab.has_record(vaddr)]
                    return [*inner, Frame(last.function, last.file, last.line, self._module, kind)]
        index = int(np.searchsorted(self._begins, np.uint64(vaddr), side="right")) - 1
        if index >= 0:
            begin, size, name = self._names[index]
            if vaddr < begin + max(size, 1):
                return [Frame(name, "", 0, self._module, USER)]
        return whole


class Symbols:
    """Names for the addresses of one process. Use `of`."""

    def __init__(self, process: Process, stack: contextlib.ExitStack, kernel: TextIO | None) -> None:
        self._process = process
        self._stack = stack
        self._mappings: list[Mapping] = []
        self._begins: list[int] = []
        self._descriptors: dict[str, int] = {}
        self._looked_s = 0.0
        self._files: dict[str, _File | None] = {}
        self._kernel_file = kernel
        self._known: dict[int, list[Frame]] = {}

    @classmethod
    @contextlib.contextmanager
    def of(cls, process: Process, kernel: bool = False) -> Iterator[Symbols]:
        """Open what ``process`` has mapped; with ``kernel`` the kernel's names too, which only root is given."""
        with contextlib.ExitStack() as stack:
            # Whether addresses are shown is decided when it is opened: later we may be nobody.
            symbols = cls(process, stack, stack.enter_context(open(_KERNEL_NAMES)) if kernel else None)
            symbols._look()
            yield symbols

    def _look(self) -> None:
        """Learn what the process has mapped by now."""
        self._looked_s = time.monotonic()
        found = [each for each in self._process.mappings() if each.executable]
        if not found:  # it has just exited: what it had is still good for the addresses that were seen
            return
        self._mappings = found
        self._begins = [each.begin for each in self._mappings]
        for each in self._mappings:
            if each.path not in self._descriptors and each.path.startswith("/"):
                with contextlib.suppress(OSError):
                    self._descriptors[each.path] = self._process.open_mapped(each)
                    self._stack.callback(os.close, self._descriptors[each.path])

    def at(self, address: int) -> list[Frame]:
        """The functions at ``address``, innermost first: inlined ones, then the function itself. Never empty."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = self._resolve(address)
        return found

    def frames(self, addresses: Sequence[int]) -> list[Frame]:
        """The functions at ``addresses``, in the order of these."""
        return [frame for address in addresses for frame in self.at(address)]

    def _resolve(self, address: int) -> list[Frame]:
        if address >> 63:
            index = bisect.bisect_right(self._kernel, (address, "\U0010ffff")) - 1
            return [Frame(self._kernel[index][1] if index >= 0 else "[kernel]", "", 0, "", KERNEL)]
        mapping = self._mapping(address)
        if mapping is None and time.monotonic() - self._looked_s > _LOOK_AGAIN_S:
            with contextlib.suppress(GotraceError):  # gone, or root was given up
                self._look()
            mapping = self._mapping(address)
        if mapping is None:
            return [Frame("[unknown]", "", 0, "", USER)]
        file = self._file(mapping.path)
        if file is None:
            name = os.path.basename(mapping.path) or "unknown"
            return [Frame(f"[{name.strip('[]')}]", "", 0, name, USER)]
        return file.at(address - mapping.begin + mapping.offset)

    @functools.cached_property
    def _kernel(self) -> list[tuple[int, str]]:
        return kernel_symbols(self._kernel_file) if self._kernel_file else []

    def _mapping(self, address: int) -> Mapping | None:
        index = bisect.bisect_right(self._begins, address) - 1
        return self._mappings[index] if index >= 0 and address < self._mappings[index].end else None

    def _file(self, path: str) -> _File | None:
        if path not in self._files:
            self._files[path] = None
            if path in self._descriptors:
                with contextlib.suppress(BinaryError, ValueError, OSError):
                    self._files[path] = _File(self._descriptors[path], path)
        return self._files[path]


def kernel_symbols(file: TextIO) -> list[tuple[int, str]]:
    """(address, name) of the kernel's functions, in order; none where addresses are hidden (kptr_restrict, not root)."""
    found = []
    for line in file:
        address, kind, name = line.split()[:3]
        if kind in "tTwW" and int(address, 16):
            found.append((int(address, 16), name))
    return sorted(found)

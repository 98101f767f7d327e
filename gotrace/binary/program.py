"""A program's executable: everything gotrace knows about the file, opened together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TypeVar

from gotrace.binary.buildinfo import BuildInfo
from gotrace.binary.elf import Elf
from gotrace.binary.identity import identify, tables_of
from gotrace.binary.moduledata import ModuleData
from gotrace.binary.pclntab import Pclntab
from gotrace.errors import BinaryError

P = TypeVar("P", bound="Program")


class Program:
    """An executable of any language, and ``libraries`` that a process of it has mapped, by path. A context manager."""

    def __init__(self, elf: Elf) -> None:
        self.elf = elf
        self.libraries: dict[str, Elf] = {}

    @classmethod
    def open(cls: type[P], path: str | os.PathLike[str], libraries: Mapping[str, str] | None = None) -> P:
        """Raises BinaryError if the file is not a program that can be inspected.

        ``libraries`` says for each path where that very file can be opened.
        """
        with contextlib.ExitStack() as stack:
            program = cls(stack.enter_context(Elf.open(path)))
            for name, place in (libraries or {}).items():
                program.libraries[name] = stack.enter_context(Elf.open(place))
            stack.pop_all()
            return program

    def close(self) -> None:
        for elf in (self.elf, *self.libraries.values()):
            elf.close()

    def __enter__(self: P) -> P:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def arch(self) -> str:
        return self.elf.arch

    @property
    def build_id(self) -> str:
        return self.elf.build_id

    @property
    def go_version(self) -> str:
        """The Go that built it; "" for other programs."""
        try:
            return identify(self.elf).go_version
        except BinaryError:
            return ""

    @property
    def stripped(self) -> bool:
        """Neither a symbol table nor DWARF."""
        return not self.elf.has_symtab and not self.elf.has_dwarf

    @property
    def pie(self) -> bool:
        return self.elf.pie


class GoProgram(Program):
    """An executable built by Go 1.19 or later. A context manager.

    A newer Go than the newest known is taken as far as its tables prove themselves: same formats, consistent with each
    other.
    """

    def __init__(self, elf: Elf) -> None:
        super().__init__(elf)
        self.build_info: BuildInfo = identify(elf)
        self.version: tuple[int, int] = self.build_info.version[:2]
        self.moduledata, self.pclntab = self._tables()

    def _tables(self) -> tuple[ModuleData, Pclntab]:
        seen = False
        for header, found in tables_of(self.elf, self.version):
            seen = True
            if found is not None:
                return found, Pclntab(self.elf, header, found.text, found.gofunc, self.version)
        what = "moduledata that matches its function table" if seen else "function table (pclntab) in a known format"
        raise BinaryError(
            f"{self.elf.path}, built with {self.go_version}, has no {what}",
            "it is damaged, or gotrace does not support its Go version",
        )

    @property
    def go_version(self) -> str:
        return self.build_info.go_version

"""A Go program's executable: everything gotrace knows about the file, opened together."""

from __future__ import annotations

import contextlib
import itertools
import os

from gotrace.binary.buildinfo import BuildInfo, read_build_info
from gotrace.binary.elf import Elf
from gotrace.binary.moduledata import ModuleData, find_moduledata
from gotrace.binary.pclntab import Pclntab, find_headers
from gotrace.errors import BinaryError

OLDEST = (1, 19)
_MAX_TABLES = 8


class GoProgram(contextlib.AbstractContextManager["GoProgram"]):
    """An executable built by Go 1.19 or later, for amd64 or arm64. A context manager.

    A newer Go than the newest known is taken as far as its tables prove themselves: same formats, consistent with each
    other.
    """

    def __init__(self, elf: Elf) -> None:
        self.elf = elf
        self.build_info: BuildInfo = read_build_info(elf)
        self.version: tuple[int, int] = self.build_info.version[:2]
        if self.version < OLDEST:
            raise BinaryError(f"{elf.path} was built with {self.build_info.go_version}", "gotrace knows Go 1.19 and later")
        self.moduledata, self.pclntab = self._tables()

    def _tables(self) -> tuple[ModuleData, Pclntab]:
        seen = False
        for header in itertools.islice(find_headers(self.elf), _MAX_TABLES):
            seen = True
            found = find_moduledata(self.elf, header, self.version)
            if found is not None:
                return found, Pclntab(self.elf, header, found.text, found.gofunc, self.version)
        what = "moduledata that fits its function table" if seen else "function table (pclntab) of a known form"
        raise BinaryError(
            f"{self.elf.path}, built with {self.go_version}, has no {what}",
            "it is damaged, or gotrace does not know its Go",
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> GoProgram:
        """Raises BinaryError when the file is no Go program that can be looked at."""
        elf = Elf.open(path)
        try:
            return cls(elf)
        except BaseException:
            elf.close()
            raise

    def close(self) -> None:
        self.elf.close()

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
        return self.build_info.go_version

    @property
    def stripped(self) -> bool:
        """Neither a symbol table nor DWARF."""
        return not self.elf.has_symtab and not self.elf.has_dwarf

    @property
    def pie(self) -> bool:
        return self.elf.pie

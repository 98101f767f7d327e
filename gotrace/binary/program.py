"""A Go program's executable: everything gotrace knows about the file, opened together."""

from __future__ import annotations

import os

from gotrace.binary.buildinfo import BuildInfo, read_build_info
from gotrace.binary.elf import Elf
from gotrace.binary.moduledata import ModuleData, find_moduledata
from gotrace.binary.pclntab import Pclntab, find_header
from gotrace.errors import BinaryError

OLDEST = (1, 19)


class GoProgram:
    """An executable built by Go 1.19 or later, for amd64 or arm64. A context manager."""

    def __init__(self, elf: Elf) -> None:
        self.elf = elf
        self.build_info: BuildInfo = read_build_info(elf)
        self.version: tuple[int, int] = self.build_info.version[:2]
        if self.version < OLDEST:
            raise BinaryError(f"{elf.path} was built with {self.build_info.go_version}", "gotrace knows Go 1.19 and later")
        header = find_header(elf)
        self.moduledata: ModuleData = find_moduledata(elf, header, self.version)
        self.pclntab = Pclntab(elf, header, self.moduledata.text, self.moduledata.gofunc, self.version)

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

    def __enter__(self) -> GoProgram:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def arch(self) -> str:
        return self.elf.arch

    @property
    def go_version(self) -> str:
        return self.build_info.go_version

    @property
    def stripped(self) -> bool:
        return not self.elf.has_symtab and not self.elf.has_dwarf

    @property
    def pie(self) -> bool:
        return bool(self.elf.pie)

"""runtime.moduledata: where the program's text and tables begin.

Found as `.go.module` (Go 1.26 and later) or as the place whose first words point into the pclntab exactly as its header
says; in a position-independent file those pointers are relocations. Nothing is taken that does not check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gotrace.binary.elf import ADDRESS_LIMIT, Elf
from gotrace.binary.pclntab import Header
from gotrace.errors import BinaryError

# Offsets that are the same in every release from 1.19 on; runtime/symtab.go.
_FUNCNAMETAB, _CUTAB, _PCLNTABLE, _MINPC, _MAXPC, _TEXT, _ETEXT = 8, 32, 104, 160, 168, 176, 184

# First release with it -> offset of moduledata.gofunc.
_GOFUNC = (((1, 27), 344), ((1, 20), 320), ((1, 18), 304))
NEWEST_KNOWN = (1, 27)


@dataclass(frozen=True)
class ModuleData:
    """Link-time addresses. ``gofunc`` is 0 where its place in the record is not known."""

    address: int
    text: int
    etext: int
    minpc: int
    maxpc: int
    gofunc: int


class Pointers:
    """The words of a file's data as the loader will leave them, relocations applied (bias 0)."""

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        table = elf.relative_relocations() if elf.pie else np.zeros(0, [("offset", "<u8"), ("addend", "<i8")])
        order = np.argsort(table["offset"], kind="stable")
        self._offsets = table["offset"][order]
        self._addends = table["addend"][order]

    def at(self, address: int) -> int:
        if not 0 <= address < ADDRESS_LIMIT:
            raise BinaryError(f"address {address:#x} is not in {self._elf.path}", "the file is damaged")
        i = int(np.searchsorted(self._offsets, np.uint64(address)))
        if i < len(self._offsets) and int(self._offsets[i]) == address:
            return int(self._addends[i])
        return self._elf.u64(address)

    def places_of(self, value: int) -> Iterator[int]:
        """Addresses of words that hold ``value``."""
        yield from (int(offset) for offset in self._offsets[self._addends == value])
        for base, data in self._elf.loads():
            words = data[: len(data) // 8 * 8]
            if base % 8 or words.ctypes.data % 8:
                continue
            for index in np.flatnonzero(words.view("<u8") == value):
                yield base + 8 * int(index)


def find_moduledata(elf: Elf, header: Header, version: tuple[int, int]) -> ModuleData:
    """The moduledata of the program whose pclntab has ``header``. Raises BinaryError."""
    pointers = Pointers(elf)
    section = elf.sections.get(".go.module")
    candidates = [section.addr] if section is not None else []
    for address in (*candidates, *pointers.places_of(header.address)):
        found = _checked(pointers, header, address, version)
        if found is not None:
            return found
    raise BinaryError(f"the moduledata of {elf.path} was not found", "report it with the output of `go version -m`")


def _checked(pointers: Pointers, header: Header, address: int, version: tuple[int, int]) -> ModuleData | None:
    try:
        expected = {
            0: header.address,
            _FUNCNAMETAB: header.address + header.names,
            _CUTAB: header.address + header.units,
            _PCLNTABLE: header.address + header.functions,
        }
        if any(pointers.at(address + offset) != value for offset, value in expected.items()):
            return None
        text, etext, minpc, maxpc = (pointers.at(address + offset) for offset in (_TEXT, _ETEXT, _MINPC, _MAXPC))
        if not text <= minpc < maxpc <= etext < ADDRESS_LIMIT:
            return None
        known = version <= NEWEST_KNOWN
        gofunc = next((offset for since, offset in _GOFUNC if version >= since), 0) if known else 0
        return ModuleData(address, text, etext, minpc, maxpc, pointers.at(address + gofunc) if gofunc else 0)
    except BinaryError:
        return None

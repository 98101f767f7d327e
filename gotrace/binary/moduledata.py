"""runtime.moduledata: where the program's text and tables begin.

Found as `.go.module` (Go 1.26 and later) or as the place whose first words point into the pclntab exactly as its header
says; in a position-independent file those pointers are relocations. Nothing is taken that does not check, and the checks
are those of the runtime itself at start-up (moduledataverify1), so that a program which runs passes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gotrace.binary.elf import Elf
from gotrace.binary.pclntab import Header
from gotrace.errors import BinaryError

# Offsets of words in runtime.moduledata (runtime/symtab.go), the same in every release from 1.19 to 1.27. Slices are
# pointer, length, capacity.
_PCHEADER, _FUNCNAMETAB, _CUTAB, _FILETAB, _PCTAB, _PCLNTABLE, _FTAB, _FTAB_LEN = 0, 8, 32, 56, 80, 104, 128, 136
_MINPC, _MAXPC, _TEXT, _ETEXT = 160, 168, 176, 184

# First release with it -> offset of moduledata.gofunc. What a later release has there is believed only if the inline trees
# check, see Pclntab.knows_inlining.
_GOFUNC = (((1, 27), 344), ((1, 20), 320), ((1, 18), 304))
NEWEST_KNOWN = (1, 27)  # the last release whose structures were checked

_MAX_PLACES = 256


@dataclass(frozen=True)
class ModuleData:
    """Link-time addresses. ``text`` and ``etext`` bound the Go code, ``minpc`` and ``maxpc`` its functions; ``gofunc`` is
    what the offsets of functions' data count from (in a release newer than those known: perhaps)."""

    address: int
    text: int
    etext: int
    minpc: int
    maxpc: int
    gofunc: int


class Pointers:
    """The words of a file's data as the loader will leave them, relocations applied (load bias 0).

    Values are as they are in the file: nothing says that they are addresses of anything.
    """

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        table = elf.relative_relocations()
        self._offsets = np.ascontiguousarray(table["offset"])
        self._addends = np.ascontiguousarray(table["addend"])
        if np.any(self._offsets[1:] < self._offsets[:-1]):
            order = np.argsort(self._offsets, kind="stable")
            self._offsets, self._addends = self._offsets[order], self._addends[order]

    def at(self, address: int) -> int:
        """Raises BinaryError outside of the file."""
        word = self._elf.u64(address)
        place = int(np.searchsorted(self._offsets, np.uint64(address)))
        if place < len(self._offsets) and int(self._offsets[place]) == address:
            return int(self._addends[place])
        return word

    def places_of(self, value: int) -> Iterator[int]:
        """Addresses of words that hold ``value``."""
        if value < 1 << 63:
            yield from self._offsets[self._addends == value].tolist()
        yield from self._elf.places_of(value)


def find_moduledata(elf: Elf, header: Header, version: tuple[int, int]) -> ModuleData | None:
    """The moduledata of the program whose pclntab has ``header``; None if nothing in the file belongs to it."""
    pointers = Pointers(elf)
    section = elf.sections.get(".go.module")
    places = itertools.islice(pointers.places_of(header.address), _MAX_PLACES)
    for address in itertools.chain([section.addr] if section else [], places):
        try:
            found = _checked(elf, pointers, header, address, version)
        except BinaryError:
            continue
        if found is not None:
            return found
    return None


def _checked(elf: Elf, pointers: Pointers, header: Header, address: int, version: tuple[int, int]) -> ModuleData | None:
    expected = {
        _PCHEADER: header.address,
        _FUNCNAMETAB: header.address + header.names,
        _CUTAB: header.address + header.units,
        _FILETAB: header.address + header.files,
        _PCTAB: header.address + header.pctab,
        _PCLNTABLE: header.address + header.functions,
        _FTAB: header.address + header.functions,
        _FTAB_LEN: header.nfunc + 1,
    }
    if any(pointers.at(address + offset) != value for offset, value in expected.items()):
        return None
    text, etext, minpc, maxpc = (pointers.at(address + offset) for offset in (_TEXT, _ETEXT, _MINPC, _MAXPC))
    if not 0 < text <= minpc < maxpc <= etext:
        return None
    elf.view(text, etext - text)
    first, last = (
        int.from_bytes(elf.read(header.address + header.functions + 8 * index, 4), "little") for index in (0, header.nfunc)
    )
    if (text + first, text + last) != (minpc, maxpc):
        return None
    gofunc = pointers.at(address + next(offset for since, offset in _GOFUNC if version >= since))
    return ModuleData(address, text, etext, minpc, maxpc, gofunc)

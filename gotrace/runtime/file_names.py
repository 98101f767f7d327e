"""Names for addresses in the files of Go programs that another tool recorded and had no names for.

A stripped program still has its function table, and that is read where the file is still at its path. What identifies it
is its build id; where nobody recorded that, the names are those of the file as it is now, and `FileNames.notes` say so.

An address is one of a process, or an offset in the file: `perf script` printed offsets in callchains up to Linux 6.9, and
addresses from then on ("perf script: Print raw ip instead of binary offset for callchain"). Which it is has to fit: every
address of a stack lies in a function, and the outermost function is one that stacks begin with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from gotrace.analysis.stacks import USER, Frame
from gotrace.binary.elf import Elf
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError
from gotrace.runtime.symbols import go_frames
from gotrace.text import count_text, printable

_MOST_FILES, _MOST_MAPPINGS, _MOST_ADDRESSES = 1 << 8, 1 << 12, 1 << 20
_OFFSET, _ADDRESS = "offset", "address"
_ROOTS = ("runtime.goexit", "runtime.mstart", "runtime.mcall", "runtime.morestack", "runtime.rt0_go", "_rt0_")


class _GoFile:
    """A Go program's file. ``kinds`` are what addresses in it can still be."""

    def __init__(self, path: str, program: GoProgram) -> None:
        self.path = path
        self.named = 0
        self.kinds = [_OFFSET, _ADDRESS]
        self._program = program
        self._known: dict[int, tuple[Frame, ...]] = {}

    @property
    def build_id(self) -> str:
        """GNU's, as perf reads it: Go's linker writes its section, but no segment that has it."""
        section = self._program.elf.sections.get(".note.gnu.build-id")
        return bytes(self._program.elf.section_bytes(section))[16:].hex() if section is not None else ""

    def vaddr(self, kind: str, address: int, mappings: Sequence[tuple[int, int, int]]) -> int | None:
        """The link-time address."""
        if kind == _OFFSET:
            return self._program.elf.vaddr(address)
        for begin, length, offset in mappings:
            if begin <= address < begin + length:
                return self._program.elf.vaddr(address - begin + offset)
        return None if self._program.pie else address

    def at(self, vaddr: int) -> tuple[Frame, ...]:
        if vaddr not in self._known:
            found: list[Frame] = []
            with contextlib.suppress(BinaryError):
                found = go_frames(self._program.pclntab.frames(vaddr), self.path, USER)
            if len(self._known) >= _MOST_ADDRESSES:
                self._known.clear()
            self.named += bool(found)
            self._known[vaddr] = tuple(found)
        return self._known[vaddr]


class FileNames:
    """Names by path, as `gotrace.recording.perf_script.Names`: a file is opened when an address in it is asked for."""

    def __init__(self) -> None:
        self._files: dict[str, _GoFile | None] = {}
        self._mappings: dict[str, list[tuple[int, int, int]]] = {}
        self._build_ids: dict[str, set[str]] = {}
        self._other_build: set[str] = set()
        self._unclear: dict[str, int] = {}

    def mapped(self, path: str, begin: int, length: int, offset: int, build_id: str) -> None:
        """Some process has mapped a part of the file as code; ``build_id`` is "" if it is unknown."""
        if path not in self._mappings and len(self._mappings) >= _MOST_MAPPINGS:
            return
        known = self._mappings.setdefault(path, [])
        if len(known) < _MOST_MAPPINGS and (begin, length, offset) not in known:
            known.append((begin, length, offset))
        if build_id:
            self._build_ids.setdefault(path, set()).add(build_id.rstrip("0"))

    def of(self, path: str, addresses: Sequence[tuple[int, bool]]) -> Sequence[Sequence[Frame]]:
        """For each address of a stack the functions, innermost first, none if unknown; with each whether it is exact."""
        nothing: Sequence[Sequence[Frame]] = [()] * len(addresses)
        file = self._file(path)
        if file is None:
            return nothing
        found = {kind: self._all(file, kind, addresses) for kind in file.kinds}
        fitting = [kind for kind, named in found.items() if all(named)]
        if len(fitting) > 1:
            fitting = [kind for kind in fitting if found[kind][-1][-1].function.startswith(_ROOTS)] or fitting
        if len(fitting) == 1:
            file.kinds = fitting
            return found[fitting[0]]
        if len(file.kinds) == 1:
            return found[file.kinds[0]]
        self._unclear[path] = self._unclear.get(path, 0) + len(addresses)
        return nothing

    def _all(self, file: _GoFile, kind: str, addresses: Sequence[tuple[int, bool]]) -> list[tuple[Frame, ...]]:
        found: list[tuple[Frame, ...]] = []
        for address, exact in addresses:
            vaddr = file.vaddr(kind, address - (not exact), self._mappings.get(file.path, ()))
            found.append(file.at(vaddr) if vaddr is not None else ())
        return found

    def _file(self, path: str) -> _GoFile | None:
        if path not in self._files:
            if len(self._files) >= _MOST_FILES:
                return None
            self._files[path] = None
            with contextlib.suppress(BinaryError):
                elf = Elf.open(path)
                file = _GoFile(path, GoProgram(elf))
                recorded = self._build_ids.get(path, set())
                if not recorded or recorded == {file.build_id.rstrip("0")}:
                    self._files[path] = file
                else:
                    self._other_build.add(path)
        return self._files[path]

    def notes(self) -> Iterator[str]:
        """What is to be said of these names."""
        for path, file in self._files.items():
            shown = printable(path)
            if file is not None and file.named:
                named = f"{count_text(file.named, 'address', 'addresses')} in {shown} named from its function table"
                known = ": its build id is the recorded one"
                yield named + (known if self._build_ids.get(path) else " as it is now: perf printed no build id for it")
            if path in self._other_build:
                yield f"{shown} is a different build from the recorded one (by build id): its functions stay [unknown]"
            if path in self._unclear:
                unclear = count_text(self._unclear[path], "address", "addresses")
                yield f"{unclear} in {shown} not resolved: its load address is unknown (perf script --show-mmap-events)"

"""Offsets of the runtime's structs in one Go release, from layouts.json (written by scripts/make-layouts).

A value is used only where it is known: for a release between two measured ones when both agree, and for later patches
of the newest measured minor release. A field that drifted between two patches of one minor release is unknown between
them, and nothing is known of a minor release that was never measured.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gotrace.binary import code
from gotrace.binary.moduledata import Pointers
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

_MAX_REASONS, _MAX_REASON_LENGTH = 64, 64

Release = tuple[int, int, int]


@functools.cache
def _table() -> Any:
    return json.loads((Path(__file__).parent / "layouts.json").read_text())


def _release(text: str) -> Release:
    numbers = [int(part) for part in re.findall(r"\d+", text)]
    return (numbers[0], numbers[1], numbers[2])


@dataclass(frozen=True)
class Layout:
    """Field offsets of one release on one architecture, in bytes; ``experiments`` are those of `BuildInfo`."""

    arch: str
    release: Release
    experiments: tuple[str, ...] = ()

    def has(self, struct: str, field: str) -> bool:
        return self._lookup(struct, field) is not None

    def offset(self, struct: str, field: str) -> int:
        """Raises BinaryError unless the offset is known for certain."""
        value = self._lookup(struct, field)
        if value is None:
            version = ".".join(map(str, self.release))
            raise BinaryError(
                f"the offset of {struct}.{field} is unknown in Go {version}{self._with()}", "a newer gotrace may know it"
            )
        return value

    def _with(self) -> str:
        return f" with GOEXPERIMENT={','.join(self.experiments)}" if self.experiments else ""

    def _lookup(self, struct: str, field: str) -> int | None:
        table = _table()
        runs = table["layouts"][self.arch].get(struct, {}).get(field, [])
        releases = table["releases"][self.arch]
        # One experiment that moves fields is known by itself, several together are not.
        moving = [name for name in self.experiments if name not in table["harmless"]]
        if moving:
            found = table["experiments"].get(moving[0]) if len(moving) == 1 else None
            if found is None:
                return None
            releases = found["releases"]
            runs = found["layouts"][self.arch].get(struct, {}).get(field, runs)
        return self._known(runs, [_release(text) for text in releases])

    def _known(self, runs: list[Any], known: list[Release]) -> int | None:
        """The value of ``runs`` that holds in this release, if those of the ``known`` ones around it say so."""
        below = [release for release in known if release <= self.release]
        above = [release for release in known if release >= self.release]
        same_minor = [release for release in known if release[:2] == self.release[:2]]
        if not same_minor and (not below or not above):
            return None
        if not below or (above and below[-1][:2] != self.release[:2] == above[0][:2]):
            return self._value(runs, above[0])  # before the first measured patch of its minor release
        first = self._value(runs, below[-1])
        if not above or above[0][:2] != self.release[:2]:
            # past the last measured patch of its minor release, or in a minor release that was never measured
            if same_minor:
                return first
            return first if first == self._value(runs, above[0]) else None
        return first if first == self._value(runs, above[0]) else None

    @staticmethod
    def _value(runs: list[Any], release: Release) -> int | None:
        value = None
        for since, number in runs:
            if _release(since) <= release:
                value = number
        return value


def offsets_of(layout: Layout, fields: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Offsets by "struct.field" of the runtime's structs; a field with a "?" may be absent. Raises BinaryError."""
    found = {}
    for struct, names in fields.items():
        for name in names:
            if not name.endswith("?") or layout.has(f"runtime.{struct}", name.rstrip("?")):
                found[f"{struct}.{name.rstrip('?')}"] = layout.offset(f"runtime.{struct}", name.rstrip("?"))
    return found


def layout_of(program: GoProgram) -> Layout:
    """What is known of the structs in ``program``."""
    info = program.build_info
    return Layout(program.arch, info.version, info.experiments)


def stw_reasons(program: GoProgram) -> dict[int, str]:
    """The runtime's own words for each stwReason, from its table in the program itself (Go 1.21 and later).

    stopTheWorld refers to runtime.stwReasonStrings, an array of strings that begins with "unknown"; without optimisation
    it calls stwReason.String, which does. A reason that is not found goes by its number, except for a collection's two.
    """
    for symbol in ("runtime.stopTheWorld", "runtime.stwReason.String"):
        try:
            pointers = Pointers(program.elf)
            for table in code.data_refs(program, symbol):
                words = list(strings_at(program, pointers, table))
                if words and words[0] == "unknown":
                    return dict(enumerate(words))
        except BinaryError:
            continue
    return {1: "GC mark termination", 2: "GC sweep termination"}


def strings_at(program: GoProgram, pointers: Pointers, address: int) -> Iterator[str]:
    """The Go strings (pointer, length) of an array, up to the first that is none."""
    for place in range(address, address + 16 * _MAX_REASONS, 16):
        try:
            pointer, length = pointers.at(place), pointers.at(place + 8)
            if not 0 < length < _MAX_REASON_LENGTH:
                return
            text = program.elf.read(pointer, length)
        except BinaryError:
            return
        if not re.fullmatch(rb"[ -~]+", text):
            return
        yield text.decode()

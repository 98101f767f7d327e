"""Offsets of the runtime's structs in one Go release, from layouts.json (written by scripts/make-layouts).

A value is used only where it is known: for a release between two measured ones when both agree, and for later patches
of the newest measured minor release. A field that drifted between two patches of one minor release is unknown between
them, and nothing is known of a minor release that was never measured.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError

# runtime.stwReasonStrings, the same from Go 1.21 to 1.27.
STW_REASONS = (
    "unknown",
    "GC mark termination",
    "GC sweep termination",
    "write heap dump",
    "goroutine profile",
    "goroutine profile cleanup",
    "all goroutines stack trace",
    "read mem stats",
    "AllThreadsSyscall",
    "GOMAXPROCS",
    "start trace",
    "stop trace",
    "CountPagesInUse (test)",
    "ReadMetricsSlow (test)",
    "ReadMemStatsSlow (test)",
    "PageCachePagesLeaked (test)",
    "ResetDebugLog (test)",
)

Release = tuple[int, int, int]


@functools.cache
def _table() -> Any:
    return json.loads((Path(__file__).parent / "layouts.json").read_text())


def _release(text: str) -> Release:
    numbers = [int(part) for part in re.findall(r"\d+", text)]
    return (numbers[0], numbers[1], numbers[2])


@dataclass(frozen=True)
class Layout:
    """Field offsets of one release on one architecture, in bytes."""

    arch: str
    release: Release

    def has(self, struct: str, field: str) -> bool:
        return self._lookup(struct, field) is not None

    def offset(self, struct: str, field: str) -> int:
        """Raises BinaryError where the offset is not known for certain."""
        value = self._lookup(struct, field)
        if value is None:
            raise BinaryError(
                f"the place of {struct}.{field} is not known in Go {'.'.join(map(str, self.release))}",
                "a newer gotrace may know it",
            )
        return value

    def _lookup(self, struct: str, field: str) -> int | None:
        table = _table()
        runs = table["layouts"][self.arch].get(struct, {}).get(field, [])
        known = [_release(text) for text in table["releases"]]
        below = [release for release in known if release <= self.release]
        above = [release for release in known if release >= self.release]
        same_minor = [release for release in known if release[:2] == self.release[:2]]
        if not below or (not above and not same_minor):
            return None
        first = self._value(runs, below[-1])
        if not above or above[0][:2] != self.release[:2]:
            # past the last measured patch of its minor release, or in a minor release that was never measured
            if same_minor:
                return first
            return first if above and first == self._value(runs, above[0]) else None
        second = self._value(runs, above[0])
        if below[-1][:2] != self.release[:2]:
            return second  # before the first measured patch of its minor release
        return first if first == second else None

    @staticmethod
    def _value(runs: list[Any], release: Release) -> int | None:
        value = None
        for since, number in runs:
            if _release(since) <= release:
                value = number
        return value


def layout_of(program: GoProgram) -> Layout:
    """What is known of the structs in ``program``."""
    return Layout(program.arch, program.build_info.version)


def stw_reasons(program: GoProgram) -> dict[int, str]:
    """The runtime's own words for each stwReason (Go 1.21 and later), read from the program where it holds them."""
    return dict(enumerate(STW_REASONS))

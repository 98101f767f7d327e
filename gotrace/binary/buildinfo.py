"""The build information Go's linker leaves in every executable, stripped or not.

Format: debug/buildinfo in Go's source. ``\\xff Go buildinf:`` at a 16-byte boundary of a data segment; since Go 1.18 the
version and the module text follow inline, each behind its length as a uvarint.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from gotrace.binary.elf import Elf
from gotrace.errors import BinaryError, UntraceableError

_MAGIC = b"\xff Go buildinf:"
_HEADER = 32
_INLINE = 2  # the flag of Go 1.18 and later: texts are inline, not behind pointers
_SENTINEL = 16  # random bytes on either side of the module text, for tools that search a process's memory
_PRINTABLE = re.compile(rb"[ -~]+")  # of a Go that is not released it may be any word, such as "unknown"
_MAX_VERSION = 256
_MAX_MODULES = 1 << 20
_MAX_PLACES = 1000


@dataclass(frozen=True)
class BuildInfo:
    """What `go version -m` prints: ``go_version`` as the toolchain calls itself ("go1.23.9", perhaps with a suffix), the
    main package's import ``path``, the ``main_module``'s path, and the build ``settings`` ("-ldflags", "GOARCH", ...)."""

    go_version: str
    path: str
    main_module: str
    settings: dict[str, str]

    @property
    def version(self) -> tuple[int, int, int]:
        """(1, 23, 9). A release candidate or development version counts as its release's .0, one without numbers as
        (0, 0, 0)."""
        match = re.search(r"go(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", self.go_version)
        if match is None:
            return (0, 0, 0)
        major, minor, patch = (int(part or 0) for part in match.groups())
        return (major, minor, patch)

    @property
    def experiments(self) -> tuple[str, ...]:
        """What GOEXPERIMENT changed of its release's own settings: ("nogreenteagc",) of "go1.26.6 X:nogreenteagc"."""
        match = re.search(r"[ -]X:([a-z0-9,]+)", self.go_version)
        return tuple(match[1].split(",")) if match else ()


def read_build_info(elf: Elf) -> BuildInfo | None:
    """The build information of ``elf``; None where there is none. Raises BinaryError if it cannot be read.

    Whether ``elf`` is a Go program is told by `gotrace.binary.identity.identify`.
    """
    # Data segments are searched first: the program may carry another Go program among its constants.
    section = elf.sections.get(".go.buildinfo")
    places = itertools.islice(elf.places_of(int.from_bytes(_MAGIC[:8], "little")), _MAX_PLACES)
    failures: list[BinaryError] = []
    for address in itertools.chain([section.addr] if section else [], places):
        try:
            if address % 16 == 0 and elf.read(address, len(_MAGIC)) == _MAGIC:
                return _parse(elf, address)
        except BinaryError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return None


def _parse(elf: Elf, address: int) -> BuildInfo:
    if not elf.read(address, _HEADER)[15] & _INLINE:
        raise UntraceableError(
            f"{elf.path} was built with a Go version older than 1.18", "gotrace supports Go 1.19 and later"
        )
    raw_version, address = _text(elf, address + _HEADER, _MAX_VERSION)
    raw_modules, _ = _text(elf, address, _MAX_MODULES)
    if not _PRINTABLE.fullmatch(raw_version):
        raise BinaryError(f"{elf.path} is damaged: its build information has no Go version", "give an intact executable")
    version = raw_version.decode()
    # As debug/buildinfo does: without both sentinels there is no module text.
    intact = len(raw_modules) > 2 * _SENTINEL and raw_modules[-_SENTINEL - 1] == ord("\n")
    modules = raw_modules[_SENTINEL:-_SENTINEL].decode("utf-8", "replace") if intact else ""
    fields = [line.split("\t") for line in modules.split("\n")]
    path = next((field[1] for field in fields if field[0] == "path" and len(field) > 1), "")
    main = next((field[1] for field in fields if field[0] == "mod" and len(field) > 1), "")
    pairs = [field[1].partition("=") for field in fields if field[0] == "build" and len(field) > 1]
    return BuildInfo(version, path, main, {key: _unquoted(value) for key, _, value in pairs})


def _text(elf: Elf, address: int, limit: int) -> tuple[bytes, int]:
    """The text at ``address`` behind its length, and the address behind it."""
    length = 0
    for shift in range(0, 70, 7):
        byte = elf.read(address, 1)[0]
        address += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    if length > limit:
        raise BinaryError(f"{elf.path} is damaged: its build information is out of bounds", "give an intact executable")
    return elf.read(address, length), address + length


_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unquoted(value: str) -> str:
    """A value as it was given: Go quotes those with blanks and special characters (strconv.Quote)."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in '"`':
        return value
    if value[0] == "`":
        return value[1:-1]

    def character(match: re.Match[str]) -> str:
        if match[4]:
            return _ESCAPES.get(match[4], match[4])
        number = int(match[1] or match[2] or match[3], 16)
        return "\ufffd" if number > 0x10FFFF or 0xD800 <= number < 0xE000 else chr(number)

    return re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", character, value[1:-1])

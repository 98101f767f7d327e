"""What a load tool is to gotrace: data, and pure functions from a command line to a command line, and from text to numbers.

A module here declares one `TOOL`. Its functions know the tool's own command line and output; `gotrace.lab.load` finds
the modules by walking the folder, and runs the commands.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from gotrace.errors import LoadToolError
from gotrace.lab.load_result import LoadResult
from gotrace.records.load import Model
from gotrace.text import printable

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_UNITS |= {"sec": 10**9, "min": 60 * 10**9, "d": 86400 * 10**9}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|min|sec|s|m|h|d)"


@dataclass(frozen=True)
class Asked:
    """What a command line asks for; None is what it does not say. With both a duration and requests, the first ends it."""

    duration_ns: int | None = None
    requests: int | None = None
    rate: float | None = None  # requests per second
    model: Model = "closed"
    notes: tuple[str, ...] = ()
    threads: int | None = None  # that make the load; None: as many as it has CPUs, or it is not known


@dataclass(frozen=True)
class Prepared:
    """The command that is run in the place of the user's, which makes the same load but tells more of it."""

    arguments: tuple[str, ...]  # behind the tool's name
    files: Mapping[str, str] = field(default_factory=dict)  # path -> text, to be written first
    results: str = ""  # the path of the file that has the results; "": they are in the output
    after: tuple[str, ...] = ()  # arguments of a second run of the tool, whose output is read in the place of the first's
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output:
    """What is there to be read when the tool has ended."""

    text: str
    asked: Asked
    results: Path | None = None

    def garbage(self, tool: str, expected: str) -> LoadToolError:
        """The error for output that is not what it has to be."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        got = f"its first line is {printable(lines[0][:120])!r}" if lines else "it printed nothing"
        hint = f"check that it is {tool}; `--load-format` tells which tool's output a command prints"
        return LoadToolError(f"the output of {tool} cannot be read: expected {expected}, but {got}", hint, detail=self.text)


@dataclass(frozen=True)
class Tool:
    """A load tool. ``asked`` and ``prepare`` take the arguments behind its name; they raise UsageError for such that would
    hide its results. ``prepare`` also takes a folder of its own, and the tool's help text if ``needs_help``."""

    name: str
    package: str  # Debian's; "": it has none
    page: str
    version_arguments: tuple[str, ...]  # (): it does not tell
    version_pattern: str
    asked: Callable[[Sequence[str]], Asked]
    prepare: Callable[[Sequence[str], Path, str], Prepared]
    read: Callable[[Output], LoadResult]
    model: Model = "unknown"  # where its command line is not known
    needs_help: bool = False
    good_exits: frozenset[int] = frozenset({0})


def as_it_is(arguments: Sequence[str], folder: Path, help_text: str) -> Prepared:
    """The user's command, unchanged."""
    return Prepared(tuple(arguments))


def duration_ns(text: str) -> int | None:
    """30, 30s, 500ms, 1m30s: what tools take as a duration, bare numbers as seconds. None if it is not one."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        return int(Decimal(text) * 10**9)
    if not re.fullmatch(rf"(?:{_PART}\s*)+", text):
        return None
    return int(sum(Decimal(number) * _UNITS[unit] for number, unit in re.findall(_PART, text)))


def number(text: str | None) -> float | None:
    """None for what is none, or is not finite."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < 1e18 else None


def count(text: str | None) -> int | None:
    value = number(text)
    return None if value is None else int(value)


def kind_of(message: str) -> str:
    """Which of `gotrace.records.load.KINDS` an error is, by the words in which Go and Rust programs report it."""
    text = message.lower()
    for kind, words in _WORDS.items():
        if any(word in text for word in words):
            return kind
    return "other"


# In this order: "dial tcp …: i/o timeout" did not get as far as a request.
_WORDS = {
    "connect": ("dial", "connection refused", "connection error", "no route", "unreachable", "no such host", "dns"),
    "timeout": ("timeout", "timed out", "deadline exceeded"),
    "write": ("write", "broken pipe"),
    "read": ("eof", "read", "reset by peer", "connection reset", "closed", "incomplete"),
}


@dataclass(frozen=True)
class Options:
    """A command line taken apart. ``unread`` says why that could not be done."""

    pairs: tuple[tuple[str, str], ...] = ()  # name without dashes, value
    rest: tuple[str, ...] = ()
    unread: str = ""

    def last(self, *names: str) -> str | None:
        """The value that counts, which is the last one."""
        return next((value for name, value in reversed(self.pairs) if name in names), None)

    def has(self, *names: str) -> bool:
        return self.last(*names) is not None

    def note(self) -> tuple[str, ...]:
        return (f"not all of its options are known ({self.unread}), so it is run unchanged",) if self.unread else ()


def getopt_options(arguments: Sequence[str], short: str, long: str) -> Options:
    """As the C library takes them apart; ``long`` has names, with "=" behind those that take a value."""
    try:
        pairs, rest = getopt.gnu_getopt(list(arguments), short, long.split())
    except getopt.GetoptError as error:
        return Options(unread=printable(error.msg))
    return Options(tuple((name.lstrip("-"), value) for name, value in pairs), tuple(rest))


def go_options(arguments: Sequence[str], flags: str) -> Options:
    """As Go's package flag does; ``flags`` has the names that take no value."""
    pairs: list[tuple[str, str]] = []
    left = list(arguments)
    while left and re.match("--?[^-=]", left[0]):
        name, has_value, value = left.pop(0).lstrip("-").partition("=")
        if not has_value and name not in flags.split():
            if not left:
                return Options(unread=f"option -{printable(name)} requires argument")
            value = left.pop(0)
        pairs.append((name, value))
    return Options(tuple(pairs), tuple(left))

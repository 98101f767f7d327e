"""Text for people: names made harmless for a terminal, and numbers with units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

_DURATIONS = ((60_000_000_000, "min"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"))
# As Go writes durations.
_GO_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_GO_NUMBER = r"[0-9]+\.?[0-9]*|\.[0-9]+"
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
# Characters that change the direction of the text around them.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Stream(Protocol):
    """Where text goes: a file, a terminal, or something that stands in front of one."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> None: ...

    def isatty(self) -> bool: ...


def place_text(address: int, begin: int, offset: int, path: str) -> str:
    """An address within a mapping: "FILE+0xOFFSET", the kernel's name for it in brackets, or "anonymous memory"."""
    return f"{path}+{address - begin + offset:#x}" if path.startswith("/") else path or "anonymous memory"


def program_text(exe: str, go_version: str) -> str:
    """An executable's path, and the Go that built it if it is a Go program."""
    return f"{printable(exe)}, {go_version}" if go_version else printable(exe)


def installing(package: str) -> str:
    """The command that adds an optional dependency to this very installation, in a version that was tried."""
    import shlex
    import sys
    from importlib.metadata import requires

    wanted = [each.partition(";")[0].strip() for each in requires("gotrace") or () if each.startswith(package)]
    return shlex.join([sys.executable, "-m", "pip", "install", *(wanted[:1] or [package])])


def printable(name: str | bytes) -> str:
    """``name``, which somebody else chose, with everything escaped that could act on a terminal or hide text."""
    if isinstance(name, bytes):
        name = name.decode("utf-8", "surrogateescape")
    return "".join(char if char.isprintable() and char not in _BIDI else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if 0x80 <= code <= 0xFF:
        return f"\\u{code:04x}"
    return ascii(char)[1:-1]  # no codec: it would have to be loaded, and by now that may be forbidden


def minutes_text(ns: float) -> str:
    """How long something will take, for who waits for it: 12 min, 40 s."""
    return f"{ns / 60e9:.0f} min" if ns >= 60e9 else f"{ns / 1e9:.0f} s"


def duration_text(ns: float) -> str:
    """Nanoseconds with three significant digits: 812 ns, 1.24 us, 15.3 ms, 2.00 s."""
    return _scaled(ns, _DURATIONS, "ns")


def duration_ns(text: str) -> int:
    """A duration as Go writes it (10s, 250ms, 1m30s, 1.5h); a bare number is seconds. Raises ValueError."""
    whole = f"{text}s" if re.fullmatch(_GO_NUMBER, text) else text
    parts = re.findall(rf"({_GO_NUMBER})(ns|us|µs|ms|s|m|h)", whole)
    if not parts or "".join(number + unit for number, unit in parts) != whole:
        raise ValueError(text)
    return round(sum(float(number) * _GO_UNITS[unit] for number, unit in parts))


def bytes_text(size: float) -> str:
    """Bytes with three significant digits: 512 B, 4.00 MiB."""
    return _scaled(size, _BYTES, "B")


def percent_text(share: float) -> str:
    """A share of 1 with three significant digits: 0.25%, 12.5%, 100%; "<0.001%" for what is that little."""
    if 0 < abs(share) < 1e-5:
        return "<0.001%"
    return f"{100 * share:.0f}%" if abs(share) >= 0.9995 else f"{100 * share:.3g}%"


def overlap_text(share: float) -> str:
    """A share of a time; of what overlaps it is how much there was at once, on average."""
    return percent_text(share) if share <= 1.0005 else f"{share:.1f} at once"


def growth_text(size: float | None, least: int) -> str:
    """By how many bytes something grew; "?" where that is not known. Less than ``least`` cannot be told from nothing."""
    if size is None:
        return "?"
    return f"<{bytes_text(least)}" if abs(size) < least else f"{'-' if size < 0 else '+'}{bytes_text(abs(size))}"


def count_text(count: int, noun: str, nouns: str = "") -> str:
    """A number with its noun: 1 pause, 12,345 pauses; ``nouns`` is the plural where it does not end in "s"."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def cost_text(cost: Mapping[str, Any], duration_ns: int) -> str:
    """What tracing cost, of a `gotrace.records.gc.Cost`, in a run of so many ns."""
    if cost["probe_hits"] is None:
        return "unknown"  # it is noted at the end
    share = cost["target_ns_estimate"] / max(1, duration_ns)
    return (
        f"{count_text(cost['probe_hits'], 'probe hit')}, about {duration_text(cost['target_ns_estimate'])} of the target's "
        f"time ({share:.4%}); gotrace {cost['tool_cpu_s']:.2f} s CPU, {bytes_text(cost['tool_rss_bytes'])}"
    )


def _scaled(value: float, units: tuple[tuple[int, str], ...], smallest: str) -> str:
    for factor, unit in units:
        if abs(value) >= 0.9995 * factor:  # what is rounded to 1.00 of it, and not to 1000 of the unit below
            scaled = value / factor
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:.0f} {smallest}"

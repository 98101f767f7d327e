"""Text for people: nothing somebody else chose may act on a terminal, and numbers read well at every size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotrace.text import bytes_text, count_text, duration_text, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("service", "service"),
        ("Zoë's 日本語 – ok", "Zoë's 日本語 – ok"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b31m", r"\u009b31m"),  # the one-character CSI
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("a\u200bb\ufeffc\u2028d", r"a\u200bb\ufeffc\u2028d"),
        ("\U000e0041", r"\U000e0041"),  # an invisible tag
        (b"caf\xc3\xa9 \xff\xfe", r"café \xff\xfe"),
        ("caf\udcff", r"caf\xff"),  # the same as the system's names arrive in Python
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_printable(name: str | bytes, shown: str) -> None:
    assert printable(name) == shown


@given(st.text() | st.binary())
def test_printable_is_harmless(name: str | bytes) -> None:
    shown = printable(name)
    assert shown.isprintable()
    shown.encode()  # no half characters either
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "0 ns"),
        (812, "812 ns"),
        (1_000, "1.00 us"),
        (1_240, "1.24 us"),
        (15_300, "15.3 us"),
        (153_000, "153 us"),
        (9_999, "10.0 us"),
        (2_000_000_000, "2.00 s"),
        (90_000_000_000, "1.50 min"),
        (-1_240, "-1.24 us"),
    ],
)
def test_duration_text(ns: float, shown: str) -> None:
    assert duration_text(ns) == shown


def test_count_text() -> None:
    assert [count_text(count, "pause") for count in (0, 1, 12_345)] == ["0 pauses", "1 pause", "12,345 pauses"]
    assert [count_text(count, "box", "boxes") for count in (1, 2)] == ["1 box", "2 boxes"]


def test_bytes_text() -> None:
    assert [bytes_text(size) for size in (0, 512, 4 << 20, 3 << 29)] == ["0 B", "512 B", "4.00 MiB", "1.50 GiB"]


def test_a_unit_is_chosen_after_rounding() -> None:
    """A percentile just below the maximum must not read "1000 us" beside its "1.00 ms"."""
    assert [duration_text(ns) for ns in (999_499, 999_500, 1_000_100)] == ["999 us", "1.00 ms", "1.00 ms"]


@given(st.integers(0, 10**13), st.integers(0, 10**13))
def test_more_never_reads_as_less(one: int, other: int) -> None:
    low, high = (float(number) * UNITS[unit] for number, unit in (duration_text(ns).split() for ns in sorted((one, other))))
    assert low <= high


UNITS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "min": 60e9}

"""Times of day in the reader's time zone."""

from __future__ import annotations

import datetime
import time
from typing import Any

_SECOND = 10**9


def width(interval_ns: int) -> int:
    """How many characters `time_of_day` takes."""
    return 12 if 0 < interval_ns < _SECOND else 8


def time_of_day(ns: int, interval_ns: int = 0) -> str:
    """Nanoseconds since the epoch as local hours, minutes and seconds.

    With milliseconds where lines come more often than every second: they would have the same time otherwise.
    """
    seconds, rest = divmod(ns, _SECOND)
    text = time.strftime("%H:%M:%S", time.localtime(seconds))
    return f"{text}.{rest // 10**6:03}" if 0 < interval_ns < _SECOND else text


def clock(record: dict[str, Any], interval_ns: int = 0) -> str:
    """`time_of_day` of a record's time."""
    seconds, _, rest = record["time"].partition(".")
    whole = datetime.datetime.fromisoformat(seconds.removesuffix("Z")).replace(tzinfo=datetime.timezone.utc)
    return time_of_day(round(whole.timestamp()) * _SECOND + int(rest.removesuffix("Z").ljust(9, "0")), interval_ns)

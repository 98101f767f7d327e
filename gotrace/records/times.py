"""When something was: the two fields of every record about a moment."""

from __future__ import annotations

import datetime
from typing import Annotated, TypedDict

Iso8601 = Annotated[str, "ISO 8601 in UTC, with nanoseconds"]


class Moment(TypedDict):
    """A moment, by the monotonic clock and by the wall clock."""

    monotonic_ns: Annotated[int, "CLOCK_MONOTONIC"]
    time: Iso8601


def moment(monotonic_ns: int, wall_offset_ns: int) -> Moment:
    """``wall_offset_ns`` is the wall clock minus CLOCK_MONOTONIC when tracing began."""
    return {"monotonic_ns": monotonic_ns, "time": wall_time(monotonic_ns, wall_offset_ns)}


def wall_time(monotonic_ns: int, wall_offset_ns: int) -> str:
    """CLOCK_MONOTONIC nanoseconds as ISO 8601 in UTC; the offset as in `moment`."""
    seconds, nanoseconds = divmod(monotonic_ns + wall_offset_ns, 1_000_000_000)
    stamp = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"

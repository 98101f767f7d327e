"""How often what costs something is looked at: once a second, and only so much of the time."""

from __future__ import annotations

import time

_EVERY_NS, _MOST_OF_TIME = 1_000_000_000, 0.01


def next_look(begin_ns: int) -> int:
    """When to look again (CLOCK_MONOTONIC ns), now that a look which began at ``begin_ns`` is over."""
    now = time.monotonic_ns()
    return now + max(_EVERY_NS, round((now - begin_ns) / _MOST_OF_TIME))

"""Something takes profiles or dumps of all goroutines, which stop the world.

Needs the runtime's reason for each stop and the stack that asked for it. Reported if this takes at least 0.5 ms per
second. The gain is the time for which it stopped the world, measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.running import Seen, of_reasons

_REASONS = ("goroutine profile", "goroutine profile cleanup", "all goroutines stack trace")
_MEND = "Take them less often; gotrace goroutines reads the same from outside, without stopping the world."


def find(seen: Seen) -> Iterator[Finding]:
    found = of_reasons(seen, "goroutine profiles", _REASONS, "takes stacks of all goroutines", _MEND, least=500_000)
    if found is not None:
        yield found

"""The program reads its memory statistics with runtime.ReadMemStats, which stops the world.

Needs the runtime's reason for each stop (Go 1.22 and later; before that, the function that asked) and the stack that
asked for it. Reported if this takes at least 0.5 ms per second. The gain is the time for which it stopped the world,
measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.running import Seen, of_reasons

_MEND = (
    "Read runtime/metrics, which does not stop the world (Prometheus client_golang does so since 1.12), or read them less "
    "often."
)


def find(seen: Seen) -> Iterator[Finding]:
    found = of_reasons(seen, "memory statistics", ("read mem stats",), "calls runtime.ReadMemStats", _MEND, least=500_000)
    if found is not None:
        yield found

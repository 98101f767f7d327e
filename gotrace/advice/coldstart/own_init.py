"""An init function computes: it is on a CPU in code that no other rule covers.

Needs samples. Reported if this takes at least 10 % of the start and 0.5 ms, and only if most samples of the init
function are of this kind. Whether something needs the result before the start is over cannot be seen: the gain is
what is saved if nothing does.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, of_kind
from gotrace.analysis.start_code import OWN

_MEND = "If nothing needs the result before the first request, compute it on first use (sync.OnceValue) or generate it."


def find(seen: Seen) -> Iterator[Finding]:
    return of_kind(seen, "own init", OWN, (), lambda _: "computes", _MEND, inits_only=True, mainly=True, least_share=0.1)

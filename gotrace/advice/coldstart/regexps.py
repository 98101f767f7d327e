"""An init, or main.main before the end of the start, compiles regular expressions.

Needs samples and a probe on entry to regexp.compile. Reported if the samples with a function of regexp or
regexp/syntax below one init function come to at least 3 % of the start and 0.5 ms. The gain is the init function's
CPU time multiplied by the share of its samples that they make up: what is saved if nothing uses the expressions before the
start is over.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, of_kind
from gotrace.analysis.start_code import REGEXPS
from gotrace.text import count_text


def find(seen: Seen) -> Iterator[Finding]:
    return of_kind(
        seen,
        "regexps",
        REGEXPS,
        ("regexp.compile",),
        lambda count: f"compiles {count_text(count, 'regexp')}" if count else "uses regexps",
        "Compile them on first use (sync.OnceValue), or match with the strings package where that is enough.",
    )

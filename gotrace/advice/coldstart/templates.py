"""An init, or main.main before the end of the start, parses templates of text/template or html/template.

Needs samples and a probe on entry to text/template/parse.(*Tree).Parse. Threshold and gain are those of regexps.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, of_kind
from gotrace.analysis.start_code import TEMPLATES
from gotrace.text import count_text


def find(seen: Seen) -> Iterator[Finding]:
    return of_kind(
        seen,
        "templates",
        TEMPLATES,
        ("text/template/parse.(*Tree).Parse",),
        lambda count: f"parses {count_text(count, 'template')}" if count else "prepares templates",
        "Parse them on first use (sync.OnceValues).",
    )

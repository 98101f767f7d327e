"""An init, or main.main before the end of the start, opens, reads or lists files.

Needs samples and a probe on entry to os.openFileNolog. Threshold and gain are those of regexps; only CPU time counts,
including time in the kernel. Waits for a disk belong to the rule `disk`.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, of_kind
from gotrace.analysis.start_code import FILES
from gotrace.text import count_text


def find(seen: Seen) -> Iterator[Finding]:
    return of_kind(
        seen,
        "files",
        FILES,
        ("os.openFileNolog",),
        lambda count: f"opens {count_text(count, 'file')} and reads" if count else "reads files",
        "Read them on first use (sync.OnceValues), or embed them in the program (embed).",
    )

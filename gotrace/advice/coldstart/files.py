"""An init, or main.main before the end of the start, opens, reads or lists files.

Needs samples and the entry of os.openFileNolog. The threshold and the gain are those of regexps; only time on a CPU
counts, in the kernel too. Waiting for a disk is in the rule `disk`.
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
        "Read them on first use (sync.OnceValues), or put them into the program (embed).",
    )

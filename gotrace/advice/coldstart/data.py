"""An init, or main.main before the end of the start, touches pages of the program's own data for the first time.

Needs samples with kernel stacks, each page fault, and the executable's sections: a sample counts if it was in the kernel's
page fault handler and the nearest fault of its thread was in such a section. Threshold and gain are those of regexps; the
page faults are counted and measured by section, not sampled. Data that is never touched takes no time; relocating it
counts as the linker's time.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, of_kind
from gotrace.analysis.start_code import DATA

_MEND = (
    "Touch the data where it is needed (sync.OnceValue), or keep less of it: pages that are written are copied one by one, "
    "those that are only read come sixteen at a time."
)


def find(seen: Seen) -> Iterator[Finding]:
    return of_kind(seen, "data", DATA, (), lambda _: "goes through the program's own data", _MEND)

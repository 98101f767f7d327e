"""An init allocates: it is in the allocator, or the kernel handles its page faults.

Needs samples with kernel stacks. Threshold and gain are those of regexps; the heap growth and the page faults in that
function are counted, not sampled; those in new memory are measured, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, of_kind
from gotrace.analysis.start_code import MEMORY

_MEND = (
    "Allocate it on first use (sync.OnceValue), in the size needed then. If it is needed at once and large, huge "
    "pages save most of the faults: mmap it, and madvise(MADV_HUGEPAGE)."
)


def find(seen: Seen) -> Iterator[Finding]:
    return of_kind(seen, "memory", MEMORY, (), lambda _: "allocates and touches new memory", _MEND, inits_only=True)

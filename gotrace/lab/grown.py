"""What the live heap grew by while a service was measured, by code: its own heap profile, read before and afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypedDict

from gotrace.errors import GotraceError
from gotrace.records.heap import by_functions, functions_of, heap_record
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.analysis.heap_profile import HeapProfile
    from gotrace.kernel.process import Process

_MOST = 5
MEMORY = "its memory"

Code = tuple[str, ...]  # functions, innermost first


class GrownBy(TypedDict):
    """What is in use more than before, of what one stack of functions has allocated."""

    bytes: int
    code: Annotated[list[str], "innermost first, without the runtime's own that allocate for it"]


class Grown(TypedDict):
    """Bytes in use, as far as the program's heap profile tells: published, so as of the GC cycle before the last."""

    source: Annotated[str, "where the profile was read: in 'its memory', or the address that was asked for it"]
    unknown: Annotated[str | None, "why nothing is known of it"]
    length_ns: Annotated[int, "from the first look to the second: a little longer than the load"]
    rate_bytes: Annotated[int, "how many bytes are allocated from one sample to the next (runtime.MemProfileRate)"]
    begin_bytes: int
    end_bytes: int
    by: Annotated[list[GrownBy], "the 5 stacks that grew most"]


class Growth:
    """Takes a profile when it is made and one at `end`: a look each, that the process does not notice. Never raises."""

    def __init__(self, process: Process) -> None:
        self._unknown, self._begin_ns = "", time.monotonic_ns()
        try:
            from gotrace.runtime.profiles import ProfileReader

            self._reader = ProfileReader(process)
            self._begin: HeapProfile = self._reader.heap()
        except (GotraceError, OSError) as error:
            self._unknown = str(error)

    def end(self) -> None:
        """The second look, at once; names are sought in `result`."""
        try:
            if not self._unknown:
                self._end = self._reader.heap()
                self._length_ns = time.monotonic_ns() - self._begin_ns
        except (GotraceError, OSError) as error:
            self._unknown = str(error)

    def result(self) -> Grown:
        """What grew, most first."""
        try:
            if not self._unknown:
                first, last = (heap_record(each, self._reader, self._begin_ns) for each in (self._begin, self._end))
                if not first["stacks"]:
                    return unknown("no profile at the start: fewer than two GC cycles had completed")
                before, after = (
                    {functions_of(stack): stack["inuse_bytes"] for stack in by_functions(each["stacks"])}
                    for each in (first, last)
                )
                return grown_between(before, after, self._begin.rate, self._length_ns)
        except (GotraceError, OSError) as error:
            self._unknown = str(error)
        return unknown(self._unknown)


def grown_between(
    before: Mapping[Code, int], after: Mapping[Code, int], rate: int, length_ns: int, source: str = MEMORY
) -> Grown:
    """Of bytes in use by code."""
    grown = {code: now - before.get(code, 0) for code, now in after.items() if now > before.get(code, 0)}
    return {
        "source": printable(source),
        "unknown": None,
        "length_ns": length_ns,
        "rate_bytes": rate,
        "begin_bytes": sum(before.values()),
        "end_bytes": sum(after.values()),
        "by": [{"bytes": grown[code], "code": list(code)} for code in sorted(grown, key=lambda code: -grown[code])[:_MOST]],
    }


def unknown(why: str, source: str = MEMORY) -> Grown:
    """`Grown` of a program that takes no profile, or none that we can read."""
    numbers = {"length_ns": 0, "rate_bytes": 0, "begin_bytes": 0, "end_bytes": 0}
    return {"source": printable(source), "unknown": printable(why), **numbers, "by": []}  # type: ignore[typeddict-item]
